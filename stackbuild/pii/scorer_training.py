"""Make the model of the context scorer from labelled texts.

    python -m stackbuild.pii.scorer_training LABELLED.jsonl ... --output scorer.bin

Each line: `text`, `spans` (lists of [start, end] in characters: the values that are secrets) and `group` (the repository;
what is told of quality is of groups that the model did not see). Every other value that is given to a name is none. A line
may have `weight`. The same input makes the same file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.kernels import kernel
from stackbuild.pii import gate, scorer
from stackbuild.pii.assignments import anchors, candidates, word_hits
from stackbuild.pii.spans import Texts

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
EPOCHS, RATE, DECAY, FOLDS = 12, 0.25, 1e-3, 5


class Labelled(NamedTuple):
    """n values: features (one array of them all, value k has items[ends[k - 1]:ends[k]]), whether each is a secret, its
    weight, and its group."""

    items: I64
    ends: I64
    secret: npt.NDArray[np.bool_]
    weight: F64
    groups: list[str]


def read(paths: Iterable[Path]) -> Labelled:
    """The values of labelled texts; InputError names file and line of what is no such text."""
    built = gate.automaton(anchors())
    items: list[npt.NDArray[np.int64]] = []
    secret: list[bool] = []
    weight: list[float] = []
    groups: list[str] = []
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    told = list(_values(row["text"], row["spans"], built))
                    heavy, group = float(row.get("weight", 1)), str(row["group"])
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{path}, line {number} is no labelled text ({error!r}).") from error
                for features, is_secret in told:
                    items.append(features)
                    secret.append(is_secret)
                    weight.append(heavy)
                    groups.append(group)
    if not any(secret) or all(secret):
        raise InputError("A scorer is made from values of both kinds: secrets and others.")
    ends = np.cumsum([len(one) for one in items]).astype(np.int64)
    return Labelled(np.concatenate(items), ends, np.array(secret), np.array(weight), groups)


def _values(text: str, spans: Sequence[Any], built: gate.Automaton) -> Iterator[tuple[I64, bool]]:
    texts = Texts.of(pa.array([text], pa.large_string()))
    found = candidates(texts, word_hits(gate.hits(texts, built)))
    places = [(len(text[: span[0]].encode()), len(text[: span[1]].encode())) for span in spans]
    told = scorer.features_of(texts, found)
    for (_, features), start, end in zip(told, found.value_start.tolist(), found.value_end.tolist(), strict=True):
        yield features, any(low < end and start < high for low, high in places)


def fit(data: Labelled, rows: I64, seed: int = 0) -> tuple[npt.NDArray[np.float64], float]:
    """Weights (float64, BUCKETS) and bias of a logistic regression over some rows: AdaGrad, rows in a drawn order."""
    order = np.concatenate([np.random.default_rng((seed, turn)).permutation(rows) for turn in range(EPOCHS)])
    weights = np.zeros(scorer.BUCKETS)
    bias = _descend(weights, data.items, data.ends, data.secret.astype(np.float64), data.weight, order, RATE, DECAY)
    return weights, float(bias)


@kernel
def _descend(
    weights: Any, items: Any, ends: Any, secret: Any, weight: Any, order: Any, rate: float, decay: float
) -> float:
    squares = np.full(len(weights), 1e-2)
    bias, bias_squares = -3.0, 1.0
    for row in order:
        low, high = ends[row - 1] if row else 0, ends[row]
        total = bias
        for k in range(low, high):
            total += weights[items[k]]
        off = (1 / (1 + np.exp(-min(30.0, max(-30.0, total)))) - secret[row]) * weight[row]
        for k in range(low, high):
            item = items[k]
            slope = off + decay * weights[item]
            squares[item] += slope * slope
            weights[item] -= rate * slope / np.sqrt(squares[item])
        bias_squares += off * off
        bias -= rate * off / np.sqrt(bias_squares)
    return bias


def scores(data: Labelled, rows: I64, weights: npt.NDArray[np.float64], bias: float) -> F64:
    """The score of each of some rows (float64, from 0 to 1)."""
    sums = np.add.reduceat(weights[data.items], np.concatenate([[0], data.ends[:-1]]))[rows] + bias
    return np.asarray(1 / (1 + np.exp(-np.clip(sums, -50, 50))))


def held_out(data: Labelled) -> F64:
    """The score of each value by a model that saw nothing of its group."""
    fold = np.array([draw(0, "fold", group) % FOLDS for group in data.groups])
    found = np.zeros(len(data.groups))
    for k in range(FOLDS):
        mine = np.flatnonzero(fold == k)
        if len(mine):
            found[mine] = scores(data, mine, *fit(data, np.flatnonzero(fold != k)))
    return found


def main() -> None:
    """Train, tell precision and recall on groups held out, and write the model."""
    parser = argparse.ArgumentParser(description="Make the model of the context scorer from labelled texts.")
    parser.add_argument("labelled", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    data = read(given.labelled)
    found = held_out(data)
    print(f"{len(found):,} values, {int(data.secret.sum()):,} of them secrets, {len(set(data.groups))} groups")
    for threshold in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99):
        told = found >= threshold
        right = float(data.weight[told & data.secret].sum())
        precision = right / max(float(data.weight[told].sum()), 1e-9)
        print(
            f"score >= {threshold}: precision {precision:.3f}, recall {right / float(data.weight[data.secret].sum()):.3f}"
        )
    weights, bias = fit(data, np.arange(len(found)))
    given.output.write_bytes(scorer.written(weights, bias))


if __name__ == "__main__":
    main()
