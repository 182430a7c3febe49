"""The commands of `stackbuild classifier`, named and described; what they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train a fastText classifier on labelled files, test it, ask it.", no_args_is_help=True)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A fastText classifier, .bin or .ftz.")]
Positive = Annotated[Path | None, typer.Option("--positive", metavar="DIR", help="Files of the label positive.")]
Negative = Annotated[Path | None, typer.Option("--negative", metavar="DIR", help="Files of the label negative.")]
Folder = Annotated[
    list[str] | None, typer.Option("--folder", metavar="LABEL=DIR", help="Files of a label; for each label one.")
]
Files = Annotated[
    list[str] | None, typer.Option("--files", metavar="GLOB", help="Parquet files instead; may be given again.")
]
Column = Annotated[str, typer.Option("--column", help="With --files: the column of labels.")]
TextColumn = Annotated[str, typer.Option("--text-column", help="With --files: the column of text.")]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        "--group-column",
        help="With --files: rows of one value are all trained on or all held out; repo_name, repo or "
        "max_stars_repo_name if there is one. In folders: what lies in one folder directly below.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Tokens = Annotated[str, typer.Option("--tokens", help="How text is cut into words: code, or plain, at white space.")]
HeadBytes = Annotated[int, typer.Option("--head-bytes", min=1, help="Bytes of each file that are looked at.")]
CardTokens = Annotated[str | None, typer.Option("--tokens", help="code or plain; as the card has it, else code.")]
CardHeadBytes = Annotated[int | None, typer.Option("--head-bytes", min=1, help="As the card has it, else 8192.")]


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL", help="Where the model goes.")],
    positive: Positive = None,
    negative: Negative = None,
    folder: Folder = None,
    files: Files = None,
    column: Column = "label",
    text_column: TextColumn = "text",
    group_column: GroupColumn = None,
    held_out: Annotated[
        float, typer.Option("--held-out", min=0, max=0.9, help="Share of the groups that the model is tested on.")
    ] = 0.1,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1)] = 42,
    dim: Annotated[int, typer.Option("--dim", min=1, max=4096, help="Dimensions of a word.")] = 16,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="How often each file is seen.")] = 5,
    lr: Annotated[float, typer.Option("--lr", min=0.0001, help="Learning rate.")] = 0.5,
    word_ngrams: Annotated[int, typer.Option("--word-ngrams", min=1, max=16, help="Longest runs of words.")] = 2,
    buckets: Annotated[int, typer.Option("--buckets", min=256, max=100_000_000, help="Rows for these runs.")] = 100_000,
    min_count: Annotated[int, typer.Option("--min-count", min=1, help="A word that is rarer is none.")] = 2,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="With more than one no two trainings give the same model.")
    ] = 1,
    quantize: Annotated[bool, typer.Option("--quantize", help="A model of about an eighth, a little worse.")] = False,
    tokens: Tokens = "code",
    head_bytes: HeadBytes = 8_192,
    json_: Json = False,
) -> None:
    """Train on two folders, or on Parquet files with a column of labels; tell how good it is on files held out."""
    from stackbuild.cli.classifier import Labelled, train

    given = {
        "held_out": held_out,
        "seed": seed,
        "dim": dim,
        "epochs": epochs,
        "lr": lr,
        "word_ngrams": word_ngrams,
        "buckets": buckets,
        "min_count": min_count,
        "threads": threads,
        "quantize": quantize,
        "tokens": tokens,
        "head_bytes": head_bytes,
    }
    train(Labelled(positive, negative, folder, files, column, text_column, group_column), output, given, json_)


@app.command()
def test(
    model: Model,
    positive: Positive = None,
    negative: Negative = None,
    folder: Folder = None,
    files: Files = None,
    column: Column = "label",
    text_column: TextColumn = "text",
    group_column: GroupColumn = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only groups that the model's training held out, by its card.")
    ] = False,
    tokens: CardTokens = None,
    head_bytes: CardHeadBytes = None,
    json_: Json = False,
) -> None:
    """Tell precision and recall of a model on labelled files, by label and by threshold."""
    from stackbuild.cli.classifier import Labelled, test

    labelled = Labelled(positive, negative, folder, files, column, text_column, group_column)
    test(model, labelled, held_out, tokens, head_bytes, json_)


@app.command()
def predict(
    model: Model,
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of text.")],
    tokens: CardTokens = None,
    head_bytes: CardHeadBytes = None,
    json_: Json = False,
) -> None:
    """Print the labels of files with their scores."""
    from stackbuild.cli.classifier import predict

    predict(model, paths, tokens, head_bytes, json_)
