"""Train a fastText classifier on labelled files, and measure it on files that it has not seen.

With one thread the same files and options give the same bytes, whatever their order; with more, fastText's threads write to
the same numbers as they come (Hogwild), and no two trainings are alike. fastText keeps every word that occurs often enough in
memory: `min_count` and `buckets` bound it, not the number of files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stackbuild.errors import InputError
from stackbuild.quality.cards import Card, Figures, HeldOut, Label, card_path
from stackbuild.quality.examples import Cut, Folders, LeftOut, Side, Tables, examples, read_side, split
from stackbuild.quality.fasttext_file import ENGINE, Model, joined, library, read_model
from stackbuild.quality.tokens import HEAD_BYTES, VERSION, Tokens

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class TrainOptions:
    """How to train; the numbers are fastText's own but where `classifier train --help` says so."""

    dim: int = 16
    epochs: int = 5
    lr: float = 0.5
    word_ngrams: int = 2
    buckets: int = 100_000
    min_count: int = 2
    seed: int = 42
    held_out: float = 0.1
    threads: int = 1
    quantize: bool = False
    tokens: Tokens = "code"
    head_bytes: int = HEAD_BYTES


def train(source: Folders | Tables, out: Path, options: TrainOptions) -> tuple[Card, LeftOut]:
    """Train on a source and write the model to `out` and its card beside it; the card, and what was not used.

    InputError if there is too little to train on, or if fastText fails.
    """
    fasttext = library()
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder to write {out.name} to.")
    left_out = LeftOut()
    with tempfile.TemporaryDirectory(prefix=".training-", dir=out.parent) as name:
        folder = Path(name)
        found = examples(source, Cut(options.tokens, options.head_bytes), left_out)
        sides = split(found, folder, options.seed, options.held_out, left_out)
        _enough(sides.trained, sides.held_out, left_out)
        made = folder / "model"
        try:
            model = fasttext.train_supervised(
                str(sides.trained.path),
                dim=options.dim,
                epoch=options.epochs,
                lr=options.lr,
                wordNgrams=options.word_ngrams,
                bucket=options.buckets,
                minCount=options.min_count,
                seed=options.seed & 0x7FFFFFFF,
                thread=options.threads,
                verbose=0,
            )
            if options.quantize:
                model.quantize(qnorm=True, thread=options.threads, verbose=0)
            model.save_model(str(made))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"fastText could not train on this: {error} A lower --lr or --min-count may help."
            ) from error
        file = read_model(made)
        labels = sorted({*sides.trained.labels, *sides.held_out.labels})
        card = Card(
            model_sha256=file.digest,
            model_bytes=file.size,
            labels={
                one: Label(trained=sides.trained.labels[one], held_out=sides.held_out.labels[one]) for one in labels
            },
            held_out=measure(file.model, read_side(sides.held_out.path), len(sides.held_out.groups)),
            left_out={reason: count for reason, count in sorted(left_out.counts.items()) if count},
            examples_sha256=sides.trained.digest,
            tokens=options.tokens,
            tokens_version=VERSION[options.tokens],
            head_bytes=options.head_bytes,
            options={k: v for k, v in asdict(options).items() if k not in ("tokens", "head_bytes", "threads")},
            engine=f"{ENGINE} {_version()}",
            repeatable=options.threads == 1,
        )
        (folder / "card").write_text(card.model_dump_json(indent=2) + "\n")
        os.replace(folder / "card", card_path(out))
        os.replace(made, out)
    return card, left_out


def _version() -> str:
    from importlib import metadata

    return metadata.version(ENGINE)


def _enough(trained: Side, held_out: Side, left_out: LeftOut) -> None:
    """InputError unless two labels are on the side of training."""
    labels = sorted({*trained.labels, *held_out.labels})
    if not labels:
        told = ", ".join(f"{count:,} {reason}" for reason, count in left_out.counts.items() if count)
        raise InputError(f"There is nothing to train on{f' ({told})' if told else ''}.")
    if len(labels) == 1:
        raise InputError(
            f"A classifier needs two labels; all {trained.labels.total() + held_out.labels.total():,} files have {labels[0]!r}."
        )
    missing = [label for label in labels if not trained.labels[label]]
    if missing:
        raise InputError(
            f"All files of {joined(missing)} are of groups that are held out: give a smaller --held-out, another --seed, or "
            "files of more groups (repositories, folders)."
        )


# ---------------------------------------------------------------- how good


def measure(model: Model, files: Iterable[tuple[str, bytes]], groups: int) -> HeldOut:
    """Precision and recall of every label on (label, line) of files that are new to the model.

    InputError for a label that the model does not have.
    """
    names = [label.removeprefix("__label__") for label in model.labels]
    number = {name: k for k, name in enumerate(names)}
    limits = np.array(THRESHOLDS)
    total = np.zeros(len(names), np.int64)
    given, right = np.zeros((2, len(names)), np.int64)
    above, right_above = np.zeros((2, len(names), len(limits)), np.int64)
    scores = np.zeros(len(names))
    for label, line in files:
        if label not in number:
            raise InputError(f"The model has no label {label!r}; it has {joined(names)}.")
        truth = number[label]
        scores[:] = 0
        for name, score in model.scores(line).items():
            scores[number[name]] = score
        best = int(np.argmax(scores))
        total[truth] += 1
        given[best] += 1
        right[best] += best == truth
        reached = scores[:, None] >= limits
        above += reached
        right_above[truth] += reached[truth]
    count = int(total.sum())
    return HeldOut(
        files=count,
        groups=groups,
        right=int(right.sum()),
        accuracy=_share(right.sum(), count),
        likeliest={name: _figures(total[k], given[k], right[k]) for name, k in number.items()},
        thresholds={
            name: {
                f"{limit:g}": _figures(total[k], above[k, j], right_above[k, j]) for j, limit in enumerate(THRESHOLDS)
            }
            for name, k in number.items()
        },
    )


def _figures(files: int, given: int, right: int) -> Figures:
    return Figures(
        files=int(files),
        given=int(given),
        right=int(right),
        precision=_share(right, given),
        recall=_share(right, files),
    )


def _share(part: int, whole: int) -> float | None:
    return round(float(part) / float(whole), 4) if whole else None
