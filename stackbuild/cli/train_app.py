"""The commands from tokens to a model, named and described; what they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="[NAME=]OUT",
        help="The output folder of a build, or a folder of tokens; with a name, for a stage that asks for it.",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="RUN", help="The folder of the run; the same command goes on in it.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1; auto: CUDA where it is.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(cooldown)
    app.command()(export)
    app.command("import")(import_)


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A training recipe, or the name of one that stackbuild brings.")
    ],
    data: Data = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RUN", help="The folder of the run; the same command goes on in it."),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set a value of the recipe; may be given again.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Stop after so many steps; the schedule stays as it is.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN[@STEP]", help="Begin with the weights of another run, or of an import."),
    ] = None,
    device: Device = "auto",
    plan: Annotated[
        bool, typer.Option("--plan", help="Tell memory, disk, operations and time, and train nothing.")
    ] = False,
    json_: Json = False,
) -> None:
    """Train a model on tokens; again: go on where it stopped."""
    from stackbuild.cli.train import train

    train(recipe, data or [], output, sets or [], steps, weights, device, plan, json_)


def cooldown(
    trunk: Annotated[
        str,
        typer.Option(
            "--from", metavar="RUN[@STEP]", help="The run that goes on undecayed; its newest step if none is named."
        ),
    ],
    length: Annotated[
        str, typer.Option("--length", metavar="N", help="Steps, or a fraction of the whole run, as 0.2.")
    ],
    output: Output,
    data: Data = None,
    shape: Annotated[
        str, typer.Option("--shape", help="linear, 1-sqrt, cosine, mirror-cosine, square or exp.")
    ] = "1-sqrt",
    final: Annotated[float, typer.Option("--final", min=0, max=1, help="Part of the peak rate at the end.")] = 0.0,
    options: Annotated[
        Path | None,
        typer.Option(
            "--options", metavar="FILE", help="TOML of what differs from [data] in the cooldown, such as a mixture."
        ),
    ] = None,
    beta2: Annotated[float | None, typer.Option("--beta2", help="Of AdamW, in the cooldown.")] = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Branch a cooldown off a run, as a run of its own."""
    from stackbuild.cli.train import cooldown

    cooldown(trunk, length, shape, final, output, data or [], options, beta2, device, json_)


def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN[@STEP|@average|@ema]", help="A run; its newest checkpoint if nothing else is named."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    dtype: Annotated[str, typer.Option("--dtype", help="bf16 or fp32.")] = "bf16",
    windows: Annotated[int, typer.Option("--windows", min=1, help="@average: how many of the newest windows.")] = 5,
    shard: Annotated[str, typer.Option("--shard", metavar="5GB", help="Largest file of weights.")] = "5GB",
) -> None:
    """Write a model as a folder that transformers loads."""
    from stackbuild.cli.train import export

    export(run, out, dtype, windows, shard)


def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with config.json and safetensors.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A new folder, for `train --from` or `export`.")],
) -> None:
    """Take a model in the Hugging Face layout as a run to begin with."""
    from stackbuild.cli.train import import_

    import_(folder, run)
