"""The commands of `stackbuild manifest`, named and described; what they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Write or verify the SWHID manifest of a dataset, and use it.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="OUT", help="The output folder of a build.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Objects = Annotated[
    str | None,
    typer.Option(
        "--objects", metavar="URL", help="Take the bytes from this store: a folder, or an http(s) or s3 address."
    ),
]
Signed = Annotated[bool, typer.Option("--signed", help="With an s3 address: use your credentials.")]


@app.command()
def write(
    out: Folder,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="swhid; train-ids: The Stack v2's, one row for each repository; spdx: SPDX 3 documents of OUT/manifest.",
        ),
    ] = "swhid",
) -> None:
    """Write OUT/manifest: a SWHID for every file of the dataset, and what proves it; or OUT/train-ids, or OUT/spdx."""
    from stackbuild.cli.manifest import write

    write(out, layout)


@app.command()
def verify(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A build's output, or just its dataset/ and manifest/.")],
    level: Annotated[
        int,
        typer.Option(
            "--level",
            min=0,
            max=4,
            help="Up to: 0 syntax, 1 bytes, 2 path in tree, 3 root of revision, 4 emitted text.",
        ),
    ] = 4,
    objects: Objects = None,
    signed: Signed = False,
    json_: Json = False,
) -> None:
    """Check the manifest against the bytes that the build, or an object store, holds. Exit code 4: something was changed;
    5: something can no longer be had."""
    from stackbuild.cli.manifest import verify

    verify(out, level, objects, signed, json_)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A folder with manifest/, or a manifest.")],
    second: Annotated[Path, typer.Argument(metavar="B")],
    rows: Annotated[
        Path | None, typer.Option("--rows", metavar="OUT.parquet", help="Write a row for each difference.")
    ] = None,
    repositories: Annotated[int, typer.Option("--repositories", min=0, help="How many to name, those of most.")] = 20,
    json_: Json = False,
) -> None:
    """Show which rows a second manifest gained, lost, changed, rewrote and moved, by language and repository."""
    from stackbuild.cli.manifest_diff import run

    run(first, second, rows, repositories, json_)


@app.command()
def regenerate(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="A dataset with its manifest; or published ids: Parquet files, or hf://datasets/owner/name/path.",
        ),
    ],
    objects: Annotated[
        str, typer.Option("--objects", metavar="URL", help="Where contents are: a folder, an http(s) or s3 address.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the dataset goes; run again to resume.")
    ],
    signed: Signed = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Keep contents there, and ask for none that it has; builds keep theirs in ~/.cache/stackbuild/swh.",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Fetch the contents of a dataset of ids and make its texts again, verified. Exit code 5: some could not be had
    (they are in DIR/missing.parquet); the same command tries them again."""
    from stackbuild.cli.regenerate import run

    run(source, objects, output, signed, json_, cache)
