"""How good a detector is on labelled texts: precision, recall and F1 by entity, with the published overlap rule.

A prediction meets a reference when their overlap is more than 0.8 of the prediction's length and more than 0.8 of the
reference's (SantaCoder's evaluation, Ben Allal et al. 2023; starcoder1 2.1). Of all such pairs the largest overlap is taken
first, ties in order of place; each prediction and each reference is taken at most once. So of two predictions for one
reference one is true and one false, of two references for one prediction one is found and one missed. (References that do
not overlap each other cannot both be met by one prediction: it would have to lie more than 0.8 in each.)

An ignored region is a label that is not counted: it is not missed, and a prediction that met no reference and lies more than
0.8 in ignored regions is not false, whatever its entity. Positions are characters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

SHARE: Final = 0.8
ANY: Final = "(any)"  # the row that does not ask for the entity
NOTHING: Final = ""
CONTEXT: Final = 30  # characters shown beside an error


class Mark(NamedTuple):
    """Characters start to end of a text, half open, and what they are."""

    start: int
    end: int
    entity: str


@dataclass(frozen=True)
class Document:
    """A labelled text. `where`: file and line, for errors. `marks` count, `ignored` do not."""

    where: str
    id: str | None
    text: str
    marks: Sequence[Mark]
    ignored: Sequence[Mark] = ()
    language: str | None = None


class Pair(NamedTuple):
    """A prediction and the reference that it meets; one of the two is None if there is none."""

    predicted: Mark | None
    gold: Mark | None


def matched(predicted: Sequence[Mark], gold: Sequence[Mark], blind: bool = False) -> list[Pair]:
    """Every prediction and every reference once, in pairs where they meet; `blind`: whatever their entities."""
    references = sorted(gold)
    starts = [mark.start for mark in references]
    longest = max((mark.end - mark.start for mark in references), default=0)
    found: list[tuple[Any, Mark, int, int]] = []
    predictions = sorted(predicted)
    for place, mark in enumerate(predictions):
        for at in range(bisect_left(starts, mark.start - longest), bisect_left(starts, mark.end)):
            other = references[at]
            shared = min(mark.end, other.end) - max(mark.start, other.start)
            if (blind or mark.entity == other.entity) and _meets(shared, mark, other):
                found.append(((-shared, mark.entity != other.entity), mark, at, place))
    taken: dict[int, int] = {}
    used: set[int] = set()
    for _, _, at, place in sorted(found):
        if at not in used and place not in taken:
            taken[place] = at
            used.add(at)
    pairs = [Pair(mark, references[taken[p]] if p in taken else None) for p, mark in enumerate(predictions)]
    return pairs + [Pair(None, mark) for at, mark in enumerate(references) if at not in used]


def _meets(shared: int, mark: Mark, other: Mark) -> bool:
    return shared > SHARE * (mark.end - mark.start) and shared > SHARE * (other.end - other.start)


def is_ignored(mark: Mark, regions: Sequence[Mark]) -> bool:
    """Whether more than 0.8 of a prediction lies in ignored regions."""
    covered = at = 0
    for region in sorted(regions):
        start, end = max(region.start, mark.start, at), min(region.end, mark.end)
        if end > start:
            covered += end - start
            at = end
    return covered > SHARE * (mark.end - mark.start)


@dataclass
class Counts:
    """Predictions that met a reference, that met none, references that none met, and predictions not counted."""

    true: int = 0
    false: int = 0
    missed: int = 0
    ignored: int = 0

    def add(self, pair: Pair, regions: Sequence[Mark]) -> str:
        """Count a pair; which of the four it is."""
        if pair.predicted is None:
            name = "missed"
        elif pair.gold is not None:
            name = "true"
        else:
            name = "ignored" if is_ignored(pair.predicted, regions) else "false"
        setattr(self, name, getattr(self, name) + 1)
        return name

    def told(self) -> dict[str, Any]:
        """With precision, recall and F1; None where nothing was predicted, or nothing is there."""
        predicted, gold = self.true + self.false, self.true + self.missed
        return {
            "gold": gold,
            "predicted": predicted,
            "true": self.true,
            "false": self.false,
            "missed": self.missed,
            "ignored": self.ignored,
            "precision": self.true / predicted if predicted else None,
            "recall": self.true / gold if gold else None,
            "f1": 2 * self.true / (predicted + gold) if predicted + gold else None,
        }


class Shown(NamedTuple):
    """A false or missed finding for a person: it holds what was found. Never stored."""

    what: str
    entity: str
    where: str
    before: str
    value: str
    after: str


@dataclass
class Score:
    """Counts over documents. `entities`: those that were looked for; None: all. `errors`: how many false and missed ones are
    kept to be shown."""

    entities: Sequence[str] | None = None
    errors: int = 0
    documents: int = 0
    strict: dict[str, Counts] = field(default_factory=dict)
    blind: Counts = field(default_factory=Counts)
    languages: dict[str, dict[str, Counts]] = field(default_factory=dict)
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    not_asked: Counter[str] = field(default_factory=Counter)
    shown: list[Shown] = field(default_factory=list)

    def add(self, document: Document, predicted: Iterable[Mark]) -> None:
        """Count a document and what was predicted of it."""
        self.documents += 1
        asked = {mark.entity for mark in document.marks if self.entities is None or mark.entity in self.entities}
        marks = [mark for mark in document.marks if mark.entity in asked]
        self.not_asked.update(mark.entity for mark in document.marks if mark.entity not in asked)
        predictions = list(predicted)
        for pair in matched(predictions, marks):
            entity = (pair.predicted or pair.gold or Mark(0, 0, NOTHING)).entity
            what = self.strict.setdefault(entity, Counts()).add(pair, document.ignored)
            if document.language is not None:
                by_entity = self.languages.setdefault(document.language, {})
                by_entity.setdefault(entity, Counts()).add(pair, document.ignored)
            self._show(what, pair, document)
        for pair in matched(predictions, marks, blind=True):
            if self.blind.add(pair, document.ignored) != "ignored":
                names = tuple(mark.entity if mark else NOTHING for mark in pair)
                self.confusion[names[0], names[1]] += 1

    def _show(self, what: str, pair: Pair, document: Document) -> None:
        if what not in ("false", "missed") or sum(one.what == what for one in self.shown) >= self.errors:
            return
        mark = pair.predicted or pair.gold
        assert mark is not None
        text = document.text
        before = text[max(0, mark.start - CONTEXT) : mark.start]
        after = text[mark.end : mark.end + CONTEXT]
        self.shown.append(Shown(what, mark.entity, document.where, before, text[mark.start : mark.end], after))

    def told(self) -> dict[str, Any]:
        """All figures, without any text."""
        found: dict[str, Any] = {
            "documents": self.documents,
            "entities": {name: counts.told() for name, counts in sorted(self.strict.items())},
            "any": self.blind.told(),
            "confusion": [
                {"predicted": predicted or None, "gold": gold or None, "count": count}
                for (predicted, gold), count in sorted(self.confusion.items())
            ],
        }
        if self.languages:
            found["languages"] = {
                language: {name: counts.told() for name, counts in sorted(by_entity.items())}
                for language, by_entity in sorted(self.languages.items())
            }
        if self.not_asked:
            found["not_looked_for"] = dict(sorted(self.not_asked.items()))
        return found


# ---------------------------------------------------------------- positions


class Positions:
    """Bytes of a text's UTF-8 as characters. Halves of surrogate pairs count as one byte, as they do in `plain`."""

    def __init__(self, text: str):
        self.length = len(text)
        self._starts = None
        if not text.isascii():
            data = np.frombuffer(plain(text).encode(), np.uint8)
            self._starts = np.concatenate([np.flatnonzero((data & 0xC0) != 0x80), [len(data)]])

    def character(self, byte: int) -> int:
        """The character that begins at a byte; ValueError if none does."""
        if self._starts is None:
            if not 0 <= byte <= self.length:
                raise ValueError(f"{byte} is outside the text")
            return byte
        at = int(np.searchsorted(self._starts, byte))
        if at > self.length or int(self._starts[at]) != byte:
            raise ValueError(f"no character begins at byte {byte}")
        return at


def plain(text: str) -> str:
    """The text with `?` for each half of a surrogate pair, which no encoding has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("?" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def as_marks(text: str, spans: Iterable[Mapping[str, Any]]) -> list[Mark]:
    """Spans of the column `pii_spans` of a text, in bytes, as marks."""
    positions = Positions(text)
    return [Mark(positions.character(s["start"]), positions.character(s["end"]), s["entity"]) for s in spans]
