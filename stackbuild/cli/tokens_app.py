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
