"""The commands of `stackbuild tokens`, named and described; what they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Tokenized corpora: merge shards, take documents out, exchange with datatrove, count.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Tokens = Annotated[Path, typer.Argument(metavar="OUT", help="The output folder of a build, or a folder of tokens.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@app.command()
def merge(
    paths: Annotated[
        list[Path], typer.Argument(metavar="OUT... DEST", help="Folders of tokens, and the new folder to write last.")
    ],
    json_: Json = False,
) -> None:
    """Write one .bin and .idx for each source and split out of all its shards; removed documents stay removed."""
    from stackbuild.cli.tokens import merge

    merge(paths, json_)


@app.command()
def remove(
    out: Tokens,
    repo: Annotated[
        list[str] | None,
        typer.Option("--repo", metavar="NAME", help="A repository, an owner or a URL; may be given again."),
    ] = None,
    content_id: Annotated[
        list[str] | None,
        typer.Option("--content-id", metavar="ID", help="A file, by its content_id (40 digits) wherever it is."),
    ] = None,
    list_: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="An opt-out list, as [opt_out] takes it.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Also overwrite the tokens in the .bin files; this cannot be taken back.")
    ] = False,
    json_: Json = False,
) -> None:
    """Take documents or files out: their tokens become padding that is not trained on, and nothing moves."""
    from stackbuild.cli.tokens import remove

    remove(out, repo or [], content_id or [], list_, apply, json_)


@app.command()
def rows(
    out: Tokens,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="Options of the training run's data, in TOML.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option("--sequence-length", metavar="S", help="Tokens of a row, in place of the file's.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the training run.")] = 0,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="How many to count.")] = 1,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Where counts are kept; else the user's cache folder.")
    ] = None,
    json_: Json = False,
) -> None:
    """Count the training rows of each source before a run, so that it need not; again: goes on where it was."""
    from stackbuild.cli.tokens import rows

    rows(out, data, sequence_length, seed, epochs, workers, cache, json_)


@app.command("import-ds")
def import_ds(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of datatrove's .ds files.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The new folder of tokens.")],
    tokenizer: Annotated[Path, typer.Option("--tokenizer", metavar="JSON", help="The tokenizer.json of the tokens.")],
    source: Annotated[str, typer.Option("--source", help="The name of the source, and of the shards.")] = "ds",
    split: Annotated[str, typer.Option("--split", help="The split that the tokens are for.")] = "train",
    fim: Annotated[bool, typer.Option("--fim", help="Fill-in-the-middle may be applied to the documents.")] = False,
    ignore_loss: Annotated[
        bool, typer.Option("--ignore-loss", help="Drop the .loss files, and train on every token.")
    ] = False,
) -> None:
    """Make a folder of tokens out of what datatrove's DocumentTokenizer wrote."""
    from stackbuild.cli.tokens import import_ds

    import_ds(folder, dest, tokenizer, source, split, fim, ignore_loss)


@app.command("export-ds")
def export_ds(
    out: Tokens,
    dest: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder of .ds files.")],
    split: Annotated[
        str, typer.Option("--split", help="train or valid: one of them, as readers take a whole folder.")
    ] = "train",
) -> None:
    """Write the shards as datatrove's .ds files; removed tokens are padding, which a .loss file leaves out."""
    from stackbuild.cli.tokens import export_ds

    export_ds(out, dest, split)


@app.command()
def verify(out: Tokens) -> None:
    """Hash every file of the shards, and look at every token."""
    from stackbuild.cli.tokens import verify

    verify(out)


@app.command()
def statistics(out: Tokens, json_: Json = False) -> None:
    """Count tokens by source, split and language, and the bytes and characters that a token holds."""
    from stackbuild.cli.tokens import statistics

    statistics(out, json_)
