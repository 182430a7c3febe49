"""The commands of `stackbuild pii`, named and described; what they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup


class Group(TyperGroup):
    """Paths without a command's name are redacted: `stackbuild pii FILE` is `stackbuild pii redact FILE`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["redact", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: typer.Context, args: list[str]):  # type: ignore[no-untyped-def, override]
        if args and args[0] not in self.commands:
            args = ["redact", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Group,
    help="Redact personal data and secrets in your own files: stackbuild pii PATHS... --output DIR (short for pii redact). "
    "Score what finds them; look at what was found.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Mode = Annotated[str | None, typer.Option("--mode", help="placeholder (<EMAIL>) or pseudonym, made-up values.")]
Entities = Annotated[
    str | None, typer.Option("--entities", metavar="A,B", help="What is looked for, such as EMAIL,KEY; all by default.")
]
Profiles = Annotated[str | None, typer.Option("--profiles", metavar="A,B", help="What looks for it, together.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="TOML", help="Options as in a recipe's table [pii]; those typed here go before."),
]
Seed = Annotated[int, typer.Option("--seed", help="Chooses replacements.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Text = Annotated[str | None, typer.Option("--text", help="The column of text; content, else text.")]
Language = Annotated[str, typer.Option("--language-column", help="Counts are told by it where it is there.")]


@app.command()
def redact(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATHS...", help="Parquet, JSON lines or `datasets` files, folders or globs.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where the files go; run again to resume.")
    ] = None,
    text: Text = None,
    language_column: Language = "language",
    mode: Mode = None,
    entities: Entities = None,
    profiles: Profiles = None,
    config: Config = None,
    seed: Seed = 42,
    spans: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep where what was found, without values, private (mode 0600): JSON lines."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; from size and cores unless given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only; nothing is written.")] = False,
    json_: Json = False,
) -> None:
    """Put something else in the place of personal data and secrets; all other columns and bytes stay."""
    from stackbuild.cli.pii import options_of, redact

    options = options_of(config, mode, entities, profiles)
    redact(paths, output, options, text, language_column, seed, spans, workers, dry_run, json_)


@app.command()
def score(
    gold: Annotated[
        Path,
        typer.Argument(metavar="GOLD", help="Labelled texts, JSON lines or Parquet; with --format creddata a folder."),
    ],
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Spans of somebody else, by id or line, instead of running the detectors."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="spans: texts with spans, the published layout too; creddata: a checkout.")
    ] = "spans",
    positions: Annotated[
        str, typer.Option("--positions", help="What spans count: characters or bytes.")
    ] = "characters",
    count_licenses: Annotated[
        bool, typer.Option("--count-licenses", help="Labels in licence headers count; else they are ignored regions.")
    ] = False,
    count_examples: Annotated[
        bool, typer.Option("--count-examples", help="Labels of made-up values count; else they are ignored regions.")
    ] = False,
    allow_overlaps: Annotated[bool, typer.Option("--allow-overlaps", help="Labels may overlap.")] = False,
    errors: Annotated[
        int, typer.Option("--errors", min=0, metavar="N", help="Show N false and N missed ones; on a terminal only.")
    ] = 0,
    mode: Mode = None,
    entities: Entities = None,
    profiles: Profiles = None,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Tell precision, recall and F1 by entity on labelled texts: a prediction counts when it overlaps by more than 0.8."""
    from stackbuild.cli.pii import options_of
    from stackbuild.cli.pii_score import run
    from stackbuild.pii.gold import Reading

    options = options_of(config, mode, entities, profiles)
    reading = Reading(positions, count_licenses, count_examples, allow_overlaps)  # type: ignore[arg-type]
    run(gold, predictions, format_, reading, options, errors, json_)


@app.command()
def review(
    input_: Annotated[
        str, typer.Argument(metavar="INPUT", help="The output folder of a finished build, or Parquet or JSON lines.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PAGE", help="The HTML page, private (mode 0600).")],
    sample: Annotated[int, typer.Option("--sample", min=1, metavar="N", help="Findings on the page.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Draws the sample.")] = 42,
    text: Text = None,
    language_column: Language = "language",
    mode: Mode = None,
    entities: Entities = None,
    profiles: Profiles = None,
    config: Config = None,
) -> None:
    """Write a page that shows a sample of findings in their context, to be judged by reading."""
    from stackbuild.cli.pii import options_of
    from stackbuild.cli.pii_review import run

    typed = any(option is not None for option in (text, mode, entities, profiles, config))
    options = options_of(config, mode, entities, profiles)
    run(input_, output, sample, seed, options, text, language_column, typed)
