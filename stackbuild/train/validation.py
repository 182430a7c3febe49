"""What a run measures on its held-out documents: the `valid` split, source by source.

    loss          left to right, over the same first rows each time, nats a token
    psm, spm      of the middle alone, of spans that were taken out (`held_out`), in each order
    exact, stop   part of the spans that greedy decoding gives back to the letter, and part of the answers that end by themselves

Nothing here draws or trains: two runs of one corpus are asked the same. Rows and questions are made once, at the first validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field

from stackbuild.errors import InputError
from stackbuild.stage import Options
from stackbuild.tokens.batches import IGNORED, Batches, Rows
from stackbuild.tokens.data_config import DataConfig, SourceConfig
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.fim_options import FimOptions
from stackbuild.train.generate import greedy
from stackbuild.train.held_out import SPLIT, Questions, questions
from stackbuild.train.model import Decoder

T = TypeVar("T")

SEED = 0  # of the spans and of the order of rows: the same for every run


class ValidationOptions(Options):
    """Table [validation]."""

    every: int = Field(1000, ge=0, description="steps between two validations, and at the end; 0: never")
    rows: int = Field(128, ge=1, description="of each source, at most")
    spans: int = Field(200, ge=0, description="that are filled in, of each source, at most; 0: none")


class SourceResult(NamedTuple):
    """Of one source. `loss`, `psm`, `spm`: nats a token; `exact`, `stop`: parts of 1. None where there was nothing to measure."""

    loss: float | None
    tokens: int
    psm: float | None
    spm: float | None
    exact: float | None
    stop: float | None
    spans: int


class Result(NamedTuple):
    """`loss`: over all sources, each token alike; None if nothing is held out."""

    loss: float | None
    sources: dict[str, SourceResult]


class _Source(NamedTuple):
    rows: Rows | None
    asked: Questions | None


class Validation:
    """Measures a model on a corpus. `sources`: names of those that have something held out.

    `length`: tokens of a row; `micro`: rows that are computed together.
    """

    def __init__(self, folder: str | Path, options: ValidationOptions, length: int, micro: int, masked: bool = True):
        self._options, self._length, self._micro, self._masked = options, length, micro, masked
        self._dataset = TokensDataset(folder)
        self._folder = folder
        parts = self._dataset.parts
        self.sources = [name for name, split in parts if split == SPLIT and self._dataset.documents(name, split)]
        self._made: dict[str, _Source] = {}

    def measure(self, model: Decoder, autocast: Callable[[], AbstractContextManager[None]]) -> Result:
        """Everything, with the weights that the model has."""
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), autocast():
                found = {name: self._measure(model, self._source(name)) for name in self.sources}
        finally:
            model.train(training)
        total = sum((one.loss or 0.0) * one.tokens for one in found.values())
        tokens = sum(one.tokens for one in found.values())
        return Result(total / tokens if tokens else None, found)

    def _source(self, name: str) -> _Source:
        if name not in self._made:
            self._made[name] = _Source(self._rows(name), self._asked(name))
        return self._made[name]

    def _rows(self, name: str) -> Rows | None:
        config = DataConfig(
            sequence_length=self._length,
            split=SPLIT,
            source=(SourceConfig(name=name, weight=1.0, epochs=1.0, fim=False),),
            fim=FimOptions(rate=0.0),
        )
        try:
            batches = Batches(self._folder, config, SEED)
        except InputError:  # nothing but empty documents
            return None
        rows = min(self._options.rows, batches.mixture.total or 0)
        return batches.batch(0, rows) if rows else None

    def _asked(self, name: str) -> Questions | None:
        fim = any(one.fim for one in self._dataset.manifest.sources if one.name == name)
        if not fim or not self._options.spans:
            return None
        return questions(self._dataset, name, self._options.spans, SEED, self._length)

    def _measure(self, model: Decoder, source: _Source) -> SourceResult:
        loss, tokens = self._left_to_right(model, source.rows) if source.rows is not None else (0.0, 0)
        psm = spm = exact = stop = None
        spans = source.asked.spans if source.asked is not None else []
        if source.asked is not None and spans:
            psm = self._middles(model, [(one.psm, one.psm_middle) for one in spans])
            spm = self._middles(model, [(one.spm, one.spm_middle) for one in spans])
            exact, stop = self._answers(model, source.asked)
        return SourceResult(loss / tokens if tokens else None, tokens, psm, spm, exact, stop, len(spans))

    def _left_to_right(self, model: Decoder, rows: Rows) -> tuple[float, int]:
        device = next(model.parameters()).device
        total = 0.0
        for first in range(0, len(rows.tokens), self._micro):
            tokens, labels, positions, documents, _ = (
                torch.from_numpy(column[first : first + self._micro]).to(device) for column in rows
            )
            given = (positions, documents) if self._masked else (None, None)
            total += float(model.token_losses(tokens, labels.long(), *given).sum(dtype=torch.float64))
        return total, int((rows.labels != IGNORED).sum())

    def _middles(self, model: Decoder, asked: Sequence[tuple[list[int], int]]) -> float:
        """Mean loss of the tokens of the answers, without that which ends them."""
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for some in _groups(asked, self._micro):
            width = max(len(ids) for ids, _ in some)
            tokens = np.zeros((len(some), width), np.int64)
            labels = np.full((len(some), width), IGNORED, np.int64)
            for row, (ids, middle) in enumerate(some):
                tokens[row, : len(ids)] = ids
                labels[row, middle - 1 : len(ids) - 2] = ids[middle:-1]
            count += int((labels != IGNORED).sum())
            losses = model.token_losses(torch.from_numpy(tokens).to(device), torch.from_numpy(labels).to(device))
            total += float(
                losses.sum(dtype=torch.float64)
            )  # causal: what stands behind a row's end changes nothing in it
        return total / count

    def _answers(self, model: Decoder, asked: Questions) -> tuple[float, float]:
        """Parts of the spans that are given back to the letter, and of the answers that end by themselves within their room."""
        exact = stopped = 0
        for some in _groups(asked.spans, self._micro):
            answers = greedy(model, [one.prompt for one in some], [one.room for one in some], set(asked.stop))
            for one, answer in zip(some, answers, strict=True):
                ids = [number for number in answer.ids if number not in asked.stop]
                stopped += answer.stopped
                exact += answer.stopped and asked.vocabulary.decode(ids) == one.middle
        return exact / len(asked.spans), stopped / len(asked.spans)


def _groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
