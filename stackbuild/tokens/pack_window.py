"""A window of documents into rows: cut, packed by best fit, and the room that is left filled; or put end to end.

Best fit leaves room where long documents were cut in front of a header and there are too few short ones: in a corpus of
repositories, a few percent of all. So the emptiest of the rows that hold pieces of long documents only are taken apart, as
many as all room together is rows, and their pieces cut to measure for the room of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.tokens import pack
from stackbuild.tokens.pieces import (
    DIVISIBLE,
    SOFT_HIGH,
    SOFT_LOW,
    Coins,
    PiecesOf,
    Ranges,
    fill_gaps,
    in_a_stream,
    pieces_of,
)
from stackbuild.tokens.spans import DocumentSpans

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
SHARD, NUMBER, LOW, HIGH, TREATED, KIND, SIZE = range(7)  # the rows of a table of pieces


class OfShard(NamedTuple):
    """Ranges of documents of one shard. `start`: the ordinal of its first document in the source."""

    shard: int
    start: int
    ranges: Ranges
    spans: DocumentSpans


class Packed(NamedTuple):
    """The pieces of a window, row by row: int32 of shape (k,). Row r has those from `offsets[r]` to `offsets[r + 1]`, int64.

    The other columns are those of `pieces.PiecesOf`.
    """

    shard: I32
    number: I32
    low: I32
    high: I32
    treated: I32
    kind: I32
    offsets: I64

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(array.nbytes for array in self)

    def take(self, rows: I64) -> Packed:
        """Some rows, in the order of their numbers `rows`, int64."""
        lengths = np.diff(self.offsets)[rows]
        ends = np.cumsum(lengths)
        items = np.repeat(self.offsets[rows] - (ends - lengths), lengths) + np.arange(int(lengths.sum()))
        shard, number, low, high, treated, kind = (column[items] for column in self[:-1])
        return Packed(shard, number, low, high, treated, kind, np.append(0, ends))

    def left(self, row: int) -> I64:
        """What the rows from `row` on hold, as ranges: int64 of shape (5, k), shard, number, low, high, kind; sorted.

        Pieces that meet are one range.
        """
        behind = slice(int(self.offsets[row]), None)
        told = np.array(
            [column[behind] for column in (self.shard, self.number, self.low, self.high, self.kind)], np.int64
        )
        told = told[:, np.lexsort((told[2], told[1], told[0]))]
        same = (told[0, 1:] == told[0, :-1]) & (told[1, 1:] == told[1, :-1]) & (told[2, 1:] == told[3, :-1])
        first = np.flatnonzero(np.append(True, ~same))
        last = np.append(first[1:], told.shape[1]) - 1
        kind = (told[4, first] & SOFT_LOW) | (told[4, last] & SOFT_HIGH)
        return np.array([told[0, first], told[1, first], told[2, first], told[3, last], kind])


def pack_window(parts: Sequence[OfShard], coins: Coins, length: int, packing: str) -> Packed:
    """Pack ranges into rows of `length` tokens. `packing`: "best-fit" or "concatenation"."""
    if packing == "concatenation":
        return _end_to_end(parts, coins, length)
    table = _joined(
        [_table(part.shard, pieces_of(part.ranges, part.start, part.spans, coins, length)) for part in parts]
    )
    bins, count = pack.best_fit(table[SIZE], length)
    return _laid_out(*_filled(table, bins, count, {part.shard: part for part in parts}, coins, length))


def _end_to_end(parts: Sequence[OfShard], coins: Coins, length: int) -> Packed:
    row, room, tables, rows = 0, length, [], []
    for part in parts:
        made, row, room = in_a_stream(part.ranges, part.start, part.spans, coins, length, row, room)
        tables.append(_table(part.shard, made))
        rows.append(made.row)
    table = _joined(tables)
    return _laid_out(table, np.concatenate([np.empty(0, np.int64), *rows]), row + 1 if table.size else 0)


def _table(shard: int, pieces: PiecesOf) -> I64:
    return np.array([np.full(len(pieces.number), shard), *pieces[:-1]], np.int64)


def _joined(tables: Sequence[I64]) -> I64:
    return np.concatenate([np.empty((SIZE + 1, 0), np.int64), *tables], axis=1)


def _laid_out(table: I64, bins: npt.NDArray[np.integer], count: int) -> Packed:
    items, offsets = pack.layout(bins, count)
    shard, number, low, high, treated, kind = table[:SIZE, items].astype(np.int32)
    return Packed(shard, number, low, high, treated, kind, offsets)


def _filled(
    table: I64, bins: npt.NDArray[np.int32], count: int, parts: dict[int, OfShard], coins: Coins, length: int
) -> tuple[I64, npt.NDArray[np.int64], int]:
    """Take rows apart to fill the others: the pieces, the row of each, how many rows."""
    gaps = length - np.bincount(bins, table[SIZE], count).astype(np.int64)
    rigid = np.bincount(bins[table[KIND] & DIVISIBLE == 0], minlength=count)
    loose = np.flatnonzero(rigid == 0)
    loose = loose[np.argsort(-gaps[loose], kind="stable")][: int(gaps.sum()) // length]
    if not len(loose):
        return table, bins.astype(np.int64), count
    apart = np.zeros(count, np.bool_)
    apart[loose] = True
    others = np.flatnonzero(~apart)
    others = others[np.argsort(-gaps[others], kind="stable")]
    room, at = gaps[others], 0
    place = np.empty(count, np.int64)
    place[loose] = np.arange(len(loose))
    taken = np.flatnonzero(apart[bins])
    taken = taken[np.argsort(place[bins[taken]], kind="stable")]  # the emptiest row first
    cut, rows, left = [], [], []
    for item in taken.tolist():
        shard, number, low, high, _, kind, _ = table[:, item].tolist()
        part = parts[shard]
        made, at, reached = fill_gaps((number, low, high, kind), part.start, part.spans, coins, room, at)
        cut.append(_table(shard, made))
        rows.append(others[made.row])
        if reached < high:
            soft = (SOFT_LOW if made.kind[-1] & SOFT_HIGH else 0) if len(made.kind) else kind & SOFT_LOW
            rest = Ranges(*(np.array([value]) for value in (number, reached, high, soft | (kind & SOFT_HIGH))))
            left.append(_table(shard, pieces_of(rest, part.start, part.spans, coins, length)))
    last = _joined(left)
    last[KIND] |= DIVISIBLE
    more, added = pack.best_fit(last[SIZE], length)
    kept = ~apart[bins]
    compact = np.cumsum(~apart) - 1
    where = np.concatenate([compact[bins[kept]], *(compact[row] for row in rows), more + (count - len(loose))])
    return _joined([table[:, kept], *cut, last]), where, count - len(loose) + added
