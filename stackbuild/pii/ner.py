"""The profile `ner`: a token-classification model over windows of tokens, as StarPII was run (starcoder2 6), with overlap.

A text is tokenized in blocks that end at white space, so that memory does not grow with it, and its tokens are one stream;
windows of the model's size overlap in it, and of a token that two windows hold that one's label counts in which the token
has more about it. Positions are the tokenizer's, in bytes of the UTF-8 text. `decide` says what is redacted then.

On a CPU a window is a batch of its own, without padding: what is found is a function of the text alone. In larger batches
(on a GPU, or by `ner_batch_tokens`) the last bits of a probability depend on what else is in the batch, so that two labels
that are alike to six digits may change places; bfloat16 differs more. Options, device asked for and kind of number are in the stage's key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError, RecipeError
from stackbuild.pii import gibberish, rules
from stackbuild.pii.decide import Candidate, Decider
from stackbuild.pii.extras import EXTRA_WITH_TORCH, engines
from stackbuild.pii.ner_model import ENGINES, F32, I64, Label, Tagger, read_folder
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.spans import Span, Texts

BLOCK: Final = 1 << 16  # bytes that are tokenized at a time
GPU_TOKENS: Final = 65_536
SORTED: Final = 256  # windows among which those of like length are put together
WHITE: Final = (b"\n", b" ", b"\t")


class Ner:
    """Detector of the profile. Its model is looked at here and loaded at first use, in the process that uses it.

    RecipeError without `ner_model`, InputError for a model that cannot be used, MissingDependency for what is not installed.
    """

    def __init__(self, options: PiiOptions, entities: Sequence[str]):
        if options.ner_model is None:
            raise RecipeError(
                "pii.ner_model: name the folder of a token-classification model; none comes with stackbuild."
            )
        self.options = options
        self.folder = read_folder(options.ner_model, options.ner_labels)
        self.entities = frozenset(entities)
        judge = gibberish.model(options.gibberish_model) if "KEY" in self.entities else None
        self.decider = Decider(rules.load().ip, self.entities, judge)

    @cached_property
    def tagger(self) -> Tagger:
        """The loaded model."""
        return Tagger(self.folder, self.options)

    def warm(self) -> None:
        """Import the libraries. A model is not loaded before a fork: a GPU is lost to the children then."""
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError:
            return  # the task says what is missing
        torch.set_num_threads(1)

    def find(self, texts: Texts) -> Iterator[Span]:
        """Spans of a batch."""
        bounds = texts.offsets.tolist()
        streams = [Stream(self.folder.labels) for _ in bounds[1:]]
        run = Runner(self.tagger, self.options)
        for stream, low, high in zip(streams, bounds, bounds[1:], strict=False):
            for window in windows(tokens(self.tagger, texts, low, high), self.tagger.window, self.tagger.overlap):
                run.add(stream, window)
        run.finish()
        for stream, low, high in zip(streams, bounds, bounds[1:], strict=False):
            if stream.found:
                for one in self.decider.decided(texts.read(low, high), stream.candidates()):
                    yield Span(low + one.start, low + one.end, one.entity, f"ner-{one.entity}")

    def key(self) -> Mapping[str, Any]:
        """The model's files, the libraries, and the model of gibberish; device and kind of number are options."""
        found: dict[str, Any] = {
            "model": dict(self.folder.digests),
            "engines": engines("ner", EXTRA_WITH_TORCH, *ENGINES),
        }
        if self.decider.gibberish is not None:
            found |= {"gibberish": [self.decider.gibberish.digest, self.decider.gibberish.limit]}
        return {**found, "rules": rules.load().digest}


# ---------------------------------------------------------------- tokens and windows


@dataclass(frozen=True)
class Window:
    """Tokens of a text: ids, bytes from and to (of the text), and which of them are this window's to label."""

    ids: I64
    starts: I64
    ends: I64
    first: int
    last: int


def tokens(tagger: Tagger, texts: Texts, low: int, high: int) -> Iterator[tuple[I64, I64, I64]]:
    """(ids, starts, ends) of the blocks of the text at bytes `low` to `high`, positions counted from its beginning."""
    at = low
    while at < high:
        raw = texts.read(at, min(high, at + BLOCK))
        if at + len(raw) < high:
            raw = raw[: cut(raw)]
        text = raw.decode()
        encoding = tagger.tokenizer.encode(text, add_special_tokens=False)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        if len(offsets) and offsets.max() > len(text):
            raise InputError(f"ner_model: the tokenizer tells positions beyond its text ({tagger.tokenizer}).")
        where = byte_positions(text, len(raw)) + (at - low)
        yield np.array(encoding.ids, np.int64), where[offsets[:, 0]], where[offsets[:, 1]]
        at += len(raw)


def cut(raw: bytes) -> int:
    """Where a block ends that is not the last: behind the last line end, blank or tab in its second half, else before the
    last character, which may not be whole."""
    half = len(raw) // 2
    for mark in WHITE:
        at = raw.rfind(mark, half)
        if at >= 0:
            return at + 1
    at = len(raw) - 1
    while raw[at] & 0xC0 == 0x80:
        at -= 1
    return at


def byte_positions(text: str, size: int) -> I64:
    """Where each character of a text begins in its UTF-8, and the text's end: int64 (characters + 1)."""
    if size == len(text):
        return np.arange(size + 1)
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(widths)])


def windows(blocks: Iterable[tuple[I64, I64, I64]], size: int, overlap: int) -> Iterator[Window]:
    """Windows of `size` tokens of a stream, each beginning `overlap` tokens before the last one's end.

    A window labels its tokens but the first half of what it has in common with the one before and the second half of what it has
    in common with the next: there the other has more about the token. The last one may be shorter.
    """
    held = [np.zeros(0, np.int64)] * 3
    begun = False
    for block in blocks:
        held = [np.concatenate(pair) for pair in zip(held, block, strict=True)]
        at = 0
        while len(held[0]) - at > size:  # more than one window: this one is not the last
            ids, starts, ends = (part[at : at + size] for part in held)
            yield Window(ids, starts, ends, overlap // 2 if begun else 0, size - (overlap - overlap // 2))
            begun, at = True, at + size - overlap
        held = [part[at:] for part in held]
    if len(held[0]):
        yield Window(held[0], held[1], held[2], overlap // 2 if begun else 0, len(held[0]))


class Runner:
    """Puts windows into batches of like length and gives their labels to the streams, in order."""

    def __init__(self, tagger: Tagger, options: PiiOptions):
        self.tagger, self.threshold = tagger, options.ner_threshold
        self.tokens = options.ner_batch_tokens or (GPU_TOKENS if tagger.device == "cuda" else 0)
        self.held: list[tuple[Stream, Window]] = []

    def add(self, stream: Stream, window: Window) -> None:
        """One more window."""
        self.held.append((stream, window))
        if not self.tokens or len(self.held) == SORTED:
            self.finish()

    def finish(self) -> None:
        """Label what is held."""
        order = sorted(range(len(self.held)), key=lambda number: (-len(self.held[number][1].ids), number))
        answers: dict[int, tuple[I64, F32]] = {}
        while order:
            most = max(1, self.tokens // max(1, len(self.held[order[0]][1].ids)))
            chosen, order = order[:most], order[most:]
            lengths = np.array([len(self.held[number][1].ids) for number in chosen])
            ids = np.zeros((len(chosen), int(lengths.max())), np.int64)
            for row, number in enumerate(chosen):
                ids[row, : lengths[row]] = self.held[number][1].ids
            labels, probabilities = self.tagger.labels(ids, lengths)
            for row, number in enumerate(chosen):
                answers[number] = (labels[row, : lengths[row]], probabilities[row, : lengths[row]])
        for number, (stream, window) in enumerate(self.held):
            stream.add(window, *answers[number], self.threshold)
        self.held = []


# ---------------------------------------------------------------- labels to spans


@dataclass
class Stream:
    """The labels of a text's tokens, put together: `found` holds [start, end, entity] in bytes of the text."""

    labels: Sequence[Label]
    found: list[list[Any]] = field(default_factory=list)
    open: bool = False  # the last of `found` may go on with the next token

    def add(self, window: Window, labels: I64, probabilities: F32, threshold: float) -> None:
        """The labels (n,) of a window's tokens, of which it says those that are its own.

        A span goes on while tokens of its entity follow; a label that begins one ends it, unless it touches it: then it is a
        part of the same word. A token of no bytes says nothing.
        """
        entities = np.array([bool(label.entity) for label in self.labels])
        own = np.arange(window.first, window.last)
        seen = own[window.ends[own] > window.starts[own]]
        told = entities[labels[seen]] & (probabilities[seen] >= threshold)
        for place in _runs(told):
            if place is None:
                self.open = False
                continue
            token = int(seen[place])
            label = self.labels[int(labels[token])]
            start, end = int(window.starts[token]), int(window.ends[token])
            last = self.found[-1] if self.open else None
            if last is not None and last[2] == label.entity and (not label.begins or start <= last[1]):
                last[1] = max(last[1], end)
            else:
                self.found.append([start, end, label.entity])
            self.open = True
        if len(told) and not told[-1]:
            self.open = False

    def candidates(self) -> list[Candidate]:
        """What was found, in order."""
        return [Candidate(*one) for one in self.found]


def _runs(told: npt.NDArray[np.bool_]) -> Iterator[int | None]:
    """Places that are told, in order, with a None before each that does not follow another (so that work grows with findings)."""
    last = -1
    for place in np.flatnonzero(told).tolist():
        if place != last + 1:
            yield None
        yield place
        last = place
