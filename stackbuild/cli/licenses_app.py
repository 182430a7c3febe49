"""The commands of `stackbuild licenses`, named and described; what they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Lists of permissive licences: which there are, and how two differ.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@app.command()
def lists(json_: Json = False) -> None:
    """Name the lists that stackbuild brings, with their size and origin."""
    from stackbuild.cli.licenses import lists as run

    run(json_)


@app.command()
def diff(
    older: Annotated[str, typer.Argument(metavar="LIST_A", help="The name of a list, or a TOML file.")],
    newer: Annotated[str, typer.Argument(metavar="LIST_B")],
    build: Annotated[
        Path | None, typer.Option("--build", help="Also what this finished build would gain or lose.")
    ] = None,
    json_: Json = False,
) -> None:
    """Show what a list took in and let go against another, and what that means for a build."""
    from stackbuild.cli.licenses import diff as run

    run(older, newer, build, json_)
