"""Spans of a batch of texts: merged, written to the column `pii_spans`, and replaced in the text.

Positions are bytes, half open. Inside a batch they count from the start of Arrow's data buffer, so that a span needs no
file to be read; in the column they count from the start of the file's UTF-8 text.

The defects of the original redaction (starcoder1 D5) that this module must not have: a space put in where two spans
touch, a span at the start of a file, and text doubled where spans overlap. Outside spans not a byte changes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.schema import REDACTIONS_BY_ENTITY, SPANS

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


class Span(NamedTuple):
    """Bytes start to end of a batch's buffer, what they are, and the rule that says so."""

    start: int
    end: int
    entity: str
    rule: str


@dataclass(frozen=True)
class Texts:
    """A batch of n texts: `data` uint8, `offsets` int64 (n + 1); text k is data[offsets[k]:offsets[k + 1]]."""

    data: U8
    offsets: I64
    view: memoryview

    @classmethod
    def of(cls, column: pa.LargeStringArray) -> Texts:
        """The texts of a large_string array, without a copy; a null is an empty text."""
        _, offsets, data = column.buffers()
        n = len(column)
        where = (
            np.frombuffer(offsets, np.int64, n + 1, column.offset * 8) if offsets and n else np.zeros(n + 1, np.int64)
        )
        array = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
        return cls(array, where, array.data)

    def file_of(self, position: int) -> int:
        """The number of the text that holds the byte at `position`."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    def read(self, start: int, end: int) -> bytes:
        """Bytes start to end of the buffer."""
        return bytes(self.view[start:end])


def merged(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, of which no two overlap: what overlaps becomes one span over all of it, named by its longest.

    A tie goes to the first, then to the rule's name. Spans that only touch stay apart. So no byte that any rule found
    is left in the text, and the longest rule says what stands there instead.
    """
    out: list[Span] = []
    best: Span | None = None  # the longest of the spans that out[-1] is made of
    for span in sorted(spans):
        if best is None or span.start >= out[-1].end:
            out.append(span)
            best = span
            continue
        if (best.start - best.end, best.start, best.rule) > (span.start - span.end, span.start, span.rule):
            best = span
        out[-1] = Span(out[-1].start, max(out[-1].end, span.end), best.entity, best.rule)
    return out


def column_of(spans: Sequence[Span], replacements: Sequence[str], texts: Texts) -> pa.Array:
    """The column `pii_spans` (schema.SPANS, length n) from merged spans, ascending, and what takes their places."""
    starts = np.array([span.start for span in spans], np.int64)
    files = np.searchsorted(texts.offsets, starts, side="right") - 1
    base = texts.offsets[files] if len(spans) else starts
    fields = [
        pa.array(starts - base),
        pa.array(np.array([span.end for span in spans], np.int64) - base),
        pa.array([span.entity for span in spans], pa.string()),
        pa.array([span.rule for span in spans], pa.string()),
        pa.array(list(replacements), pa.string()),
    ]
    counts = (
        np.bincount(files, minlength=len(texts.offsets) - 1)
        if len(spans)
        else np.zeros(len(texts.offsets) - 1, np.int64)
    )
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = pa.StructArray.from_arrays(fields, fields=list(SPANS.value_type))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, type=SPANS)


def counts_of(column: pa.Array) -> pa.Array:
    """The column `redactions` (int64) of a column `pii_spans`; a null has none."""
    return pc.fill_null(pc.list_value_length(column), 0).cast(pa.int64())


def counts_by_entity(column: pa.Array) -> pa.Array:
    """The column `redactions_by_entity` of a column `pii_spans`: entities by name; a null, which was not looked at, has null."""
    names = column.flatten().field("entity")
    entities = sorted(pc.unique(names).to_pylist())
    counts = np.zeros((len(column), len(entities)), np.int64)
    which = np.asarray(pc.index_in(names, pa.array(entities, pa.string())))
    np.add.at(counts, (np.asarray(pc.list_parent_indices(column)), which), 1)
    rows, kinds = np.nonzero(counts)
    offsets = np.concatenate([[0], np.cumsum((counts > 0).sum(axis=1))]).astype(np.int32)
    pairs = [pa.array(entities, pa.string()).take(pa.array(kinds)), pa.array(counts[rows, kinds])]
    values = pa.StructArray.from_arrays(pairs, fields=list(REDACTIONS_BY_ENTITY.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=REDACTIONS_BY_ENTITY, mask=pc.is_null(column))


def redacted(text: pa.LargeStringArray, column: pa.Array) -> pa.LargeStringArray:
    """The texts with the spans of `column` replaced; the very same array if there are none.

    Spans of a file are ascending and do not overlap (ValueError otherwise, or if one leaves its text). The new buffer
    is one join over the pieces between spans, so a batch costs one copy of its bytes.
    """
    values = column.flatten()
    if not len(values):
        return text
    texts = Texts.of(text)
    files = np.asarray(pc.list_parent_indices(column)).astype(np.int64)
    first, last = texts.offsets[files], texts.offsets[files + 1]
    starts, ends = np.asarray(values.field("start")) + first, np.asarray(values.field("end")) + first
    if (starts < first).any() or (ends > last).any() or (starts > ends).any() or (starts[1:] < ends[:-1]).any():
        raise ValueError("spans of a text overlap, are out of order, or reach beyond it")
    new = [word.encode() for word in values.field("replacement").to_pylist()]
    pieces: list[Any] = []
    at = int(texts.offsets[0])
    for start, end, word in zip(starts.tolist(), ends.tolist(), new, strict=True):
        pieces += (texts.view[at:start], word)
        at = end
    pieces.append(texts.view[at : int(texts.offsets[-1])])
    growth = np.array([len(word) for word in new], np.int64) - (ends - starts)
    grown = np.zeros(len(text) + 1, np.int64)
    np.add.at(grown, files + 1, growth)
    offsets = texts.offsets - texts.offsets[0] + np.cumsum(grown)
    buffers = [_validity(text), pa.py_buffer(offsets), pa.py_buffer(b"".join(pieces))]
    return pa.Array.from_buffers(pa.large_string(), len(text), buffers, null_count=text.null_count)


def _validity(text: pa.Array) -> pa.Buffer | None:
    """The validity bitmap of an array, moved to offset 0."""
    if not text.null_count:
        return None
    return pa.py_buffer(np.packbits(np.asarray(text.is_valid()), bitorder="little"))


class Carried:
    """Positions in a redacted text, carried back to the text that it was made from.

    `starts`, `ends`: the spans in the old text; `lengths`: bytes of what took their places.
    """

    def __init__(self, starts: Sequence[int], ends: Sequence[int], lengths: Sequence[int]):
        self.starts, self.ends, self.lengths = starts, ends, lengths
        self.new_starts: list[int] = []  # where each replacement begins in the new text
        shift = 0
        for start, end, length in zip(starts, ends, lengths, strict=True):
            self.new_starts.append(start + shift)
            shift += length - (end - start)

    def back(self, start: int, end: int) -> tuple[int, int]:
        """The bytes of the old text behind bytes start to end of the new one; a span that is touched comes whole."""
        return self._start(start), self._end(end)

    def _start(self, position: int) -> int:
        k = bisect_right(self.new_starts, position) - 1
        if k < 0:
            return position
        inside = position - self.new_starts[k]
        return self.starts[k] if inside < self.lengths[k] else self.ends[k] + inside - self.lengths[k]

    def _end(self, position: int) -> int:
        k = bisect_right(self.new_starts, position - 1) - 1
        if k < 0:
            return position
        inside = position - self.new_starts[k]
        return self.ends[k] if inside <= self.lengths[k] else self.ends[k] + inside - self.lengths[k]
