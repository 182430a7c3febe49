"""Rows that arrive in batches, kept as few as the result needs: a million copies of one text are never in memory together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.numbers import Numbers, passes_for
from stackbuild.dedup.scratch import ScratchRows
from stackbuild.hashing import id_bytes
from stackbuild.standalone.schemas import SOURCES
from stackbuild.tables import arrow

AT_ONCE = 1 << 16  # rows that are sorted at a time
VALUES_AT_ONCE = 1 << 18  # single values that are sorted at a time
PASS_ROWS = 1 << 17  # of a range, about
SAMPLES = 32  # rows for each piece of a table that is sorted in pieces, by which it is cut
MOST_PIECES = 256  # scratch files that are open at a time

Keys = Sequence[tuple[str, str]]  # columns and "ascending" or "descending"


class Fold:
    """A table that is made of batches by a function of what it is so far and some more rows.

    Rows wait until they are as many as the table has, and AT_ONCE, so that the function is paid for twice at most however
    many rows arrive. Memory: twice the table, or AT_ONCE rows.
    """

    def __init__(self, schema: pa.Schema, less: Callable[[pa.Table], pa.Table]):
        self._less = less
        self._table = schema.empty_table()
        self._waiting: list[pa.RecordBatch] = []
        self._held = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows in, with the schema's columns."""
        self._waiting.append(batch)
        self._held += batch.num_rows
        if self._held >= max(AT_ONCE, len(self._table)):
            self._fold()

    def _fold(self) -> None:
        if self._waiting:
            rows = [*self._table.to_batches(), *self._waiting]
            self._waiting, self._held = [], 0
            self._table = self._less(pa.Table.from_batches(rows, self._table.schema).combine_chunks()).combine_chunks()

    def table(self) -> pa.Table:
        """What all rows so far make."""
        self._fold()
        return self._table


def first_rows(keys: Keys, by: str, rows: int = 1) -> Callable[[pa.Table], pa.Table]:
    """Of the rows with one value of `by`, the first of `keys`, the first one, the first few in the order of all keys."""

    def less(table: pa.Table) -> pa.Table:
        table = table.take(pc.sort_indices(table, list(keys))).combine_chunks()
        starts = np.flatnonzero(first_of(table[by]))
        place = np.arange(len(table)) - np.repeat(starts, np.diff(np.append(starts, len(table))))
        return table.filter(arrow(place < rows))

    return less


def counted(name: str, sum_of: str) -> Callable[[pa.Table], pa.Table]:
    """The sum of one column for each value of another."""

    def less(table: pa.Table) -> pa.Table:
        return table.group_by(name).aggregate([(sum_of, "sum")]).rename_columns([name, sum_of])

    return less


class Tally:
    """How many rows there are of each source."""

    def __init__(self) -> None:
        self._fold = Fold(SOURCES, counted("source", "rows"))

    def add(self, sources: pa.Array) -> None:
        """Count rows by their source, string (n,)."""
        found = pc.value_counts(sources)
        self._fold.add(pa.RecordBatch.from_arrays([found.field(0), found.field(1)], schema=SOURCES))

    def table(self) -> pa.Table:
        """The sources and their rows."""
        return self._fold.table()


class Repeated:
    """The values that come more than once, of any that numpy sorts. Memory: that of the distinct values, twice."""

    def __init__(self) -> None:
        self._known: npt.NDArray[Any] | None = None
        self._again: npt.NDArray[Any] | None = None
        self._waiting: list[npt.NDArray[Any]] = []
        self._held = 0

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take values in."""
        self._waiting.append(values)
        self._held += len(values)
        if self._held >= max(VALUES_AT_ONCE, 0 if self._known is None else len(self._known)):
            self._fold()

    def _fold(self) -> None:
        if not self._waiting:
            return
        values = np.sort(np.concatenate(self._waiting))
        self._waiting, self._held = [], 0
        again = values[1:][values[1:] == values[:-1]]
        values = values[np.append(True, values[1:] != values[:-1])] if len(values) else values
        if self._known is not None and self._again is not None:
            both = np.sort(np.concatenate((self._known, values)), kind="stable")
            same = both[1:] == both[:-1]
            again = np.concatenate((self._again, again, both[1:][same]))
            values = both[np.append(True, ~same)] if len(both) else both
        self._known, self._again = values, np.unique(again)

    def values(self) -> npt.NDArray[Any]:
        """The values, ascending."""
        self._fold()
        return np.zeros(0, np.int64) if self._again is None else self._again


def among(values: npt.NDArray[Any], known: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of some values are among others, which ascend, bool (n,)."""
    if not len(known):
        return np.zeros(len(values), bool)
    return np.asarray(known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values)


# ---------------------------------------------------------------- pieces


Read = Callable[[], Iterable[pa.RecordBatch]]  # the same rows each time that it is called


def in_ranges(
    read: Read, rows: int, schema: pa.Schema, range_of: Callable[[pa.RecordBatch, int], Numbers], scratch: Path
) -> Iterator[Read]:
    """Yield the rows in ranges, each to be read as often as wanted until the next: about PASS_ROWS where they are evenly
    spread, but all rows of one value are in one.

    `range_of(batch, ranges)`: the range of each row, int64 (n,). Rows wait in files of `scratch`, so that each is read and
    written once, however many ranges there are.
    """
    ranges = min(passes_for(rows, PASS_ROWS), MOST_PIECES)
    if ranges == 1:
        yield read
        return

    def split(batch: pa.RecordBatch) -> tuple[Numbers, list[int]]:
        number = range_of(batch, ranges)
        order = np.argsort(number, kind="stable")
        return order, [int(at) for at in np.searchsorted(number[order], np.arange(ranges + 1))]

    pieces = _spread(read, schema, split, scratch)
    for number in range(ranges):
        yield partial(pieces.read, number)
        pieces.drop(number)


def in_key_order(read: Read, rows: int, schema: pa.Schema, keys: Keys, scratch: Path) -> Iterator[pa.Table]:
    """Yield the rows in the order of `keys`, nulls last, in pieces of about AT_ONCE.

    No two rows agree in all keys. If there are more than fit into one piece, a sample tells where to cut, and the pieces wait
    in files of `scratch`: even rows that agree in all keys but the last are cut.
    """
    if rows <= AT_ONCE:
        yield _sorted(pa.Table.from_batches(read(), schema), keys)
        return
    count = min(-(-rows // AT_ONCE), MOST_PIECES)
    cuts = _cuts(read, schema, keys, count, max(rows // (count * SAMPLES), 1))
    pieces = _spread(read, schema, lambda batch: _cut(batch, cuts, keys), scratch)
    for number in range(count):
        piece = pa.Table.from_batches(pieces.read(number), schema)
        pieces.drop(number)
        yield _sorted(piece, keys)
        del piece
        pa.default_memory_pool().release_unused()


def _spread(
    read: Read, schema: pa.Schema, split: Callable[[pa.RecordBatch], tuple[Numbers, list[int]]], scratch: Path
) -> ScratchRows:
    """Write rows to a file for each piece; `split`: (the rows of a batch by piece; where each piece starts, and the end)."""
    pieces = ScratchRows(scratch, "piece", schema)
    for batch in _gathered(read()):
        order, bounds = split(batch)
        for number, (start, stop) in enumerate(pairwise(bounds)):
            if stop > start:
                pieces.write(number, batch.take(arrow(order[start:stop])))
    pieces.finish()
    return pieces


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches put together up to AT_ONCE rows."""
    waiting, rows = list[pa.RecordBatch](), 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= AT_ONCE:
            yield pa.concat_batches(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_batches(waiting)


def _sorted(table: pa.Table, keys: Keys) -> pa.Table:
    table = table.combine_chunks()
    return table.take(pc.sort_indices(table, list(keys))).combine_chunks()


def _cuts(read: Read, schema: pa.Schema, keys: Keys, pieces: int, step: int) -> pa.Table:
    """The rows before which to cut, `pieces` - 1 of every `step`-th row, in order."""
    names, found, row = [name for name, _ in keys], list[pa.RecordBatch](), 0
    for batch in read():
        at = np.arange(-row % step, batch.num_rows, step)
        found.append(batch.select(names).take(arrow(at)))
        row += batch.num_rows
    sample = _sorted(pa.Table.from_batches(found, pa.schema([schema.field(name) for name in names])), keys)
    return sample.take(arrow(np.arange(1, pieces) * len(sample) // pieces)).combine_chunks()


def _cut(batch: pa.RecordBatch, cuts: pa.Table, keys: Keys) -> tuple[Numbers, list[int]]:
    """(the rows of a batch in their order; where in it each piece starts, and the end)."""
    both = pa.concat_tables([cuts, pa.Table.from_batches([batch.select(cuts.column_names)])]).combine_chunks()
    order = np.asarray(pc.sort_indices(both, list(keys))).astype(np.int64)
    is_cut = order < len(cuts)
    bounds = np.flatnonzero(is_cut) - np.arange(len(cuts))
    return order[~is_cut] - len(cuts), [0, *bounds.tolist(), batch.num_rows]


def first_of(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bool_]:
    """Which rows of a sorted column have another value than the row before, bool (n,); numbers, text or binary(20)."""
    if not pa.types.is_fixed_size_binary(column.type):
        first = np.ones(len(column), bool)
        if len(column) > 1:
            first[1:] = np.asarray(pc.not_equal(column.slice(1), column.slice(0, len(column) - 1)))
        return first
    raw = id_bytes(column)
    first = np.ones(len(raw), bool)
    first[1:] = (raw[1:] != raw[:-1]).any(axis=1)
    return first
