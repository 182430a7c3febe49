"""The order of converted rows: sorted by the key's bytes, equal ones as they came; runs merged block by block.

A key is 20 bytes of an id (or nothing), then bytes of any length (or none), then a whole number (or 0), compared in this
order. Kernels see views of Arrow's buffers; nothing is copied but where an id is null, which sorts as zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.kernels import kernel
from stackbuild.schema import ID
from stackbuild.tables import arrow

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
SHORT: Final = 24  # rows of one id that are sorted by insertion
BLOCK_ROWS: Final = 8_192  # of a run that are in memory when runs are merged
FAN_IN: Final = 64  # runs that are merged at a time


@dataclass(frozen=True)
class Key:
    """Views of the key columns of n rows: `ids` uint8 (n, 20 or 0), `offsets` int32 (n + 1,), `data` uint8, `number` int64 (n,)."""

    ids: Bytes
    offsets: npt.NDArray[np.int32]
    data: Bytes
    number: Ints

    def arrays(self) -> tuple[Any, Any, Any, Any]:
        return self.ids, self.offsets, self.data, self.number


def key_of(batch: pa.RecordBatch, key: Sequence[str]) -> Key:
    """The key columns of a batch: at most one id, one column of bytes or text, and one number, in this order."""
    rows = batch.num_rows
    ids: Bytes = np.zeros((rows, 0), np.uint8)
    offsets, data = np.zeros(rows + 1, np.int32), np.zeros(0, np.uint8)
    number: Ints = np.zeros(rows, np.int64)
    for name in key:
        column = batch.column(name)
        if column.type == ID:
            ids = id_bytes(column)
        elif pa.types.is_integer(column.type):
            number = np.asarray(column)
        else:
            offsets, data = bytes_of(column)
    return Key(ids, offsets, data, number)


def id_bytes(column: pa.Array) -> Bytes:
    """uint8 (n, 20) of ids, zeros for null."""
    buffer = column.buffers()[1]
    if not len(column) or buffer is None:
        return np.zeros((len(column), 20), np.uint8)
    ids: Bytes = np.frombuffer(buffer, np.uint8)[column.offset * 20 : (column.offset + len(column)) * 20].reshape(
        -1, 20
    )
    if column.null_count:
        ids = ids.copy()
        ids[np.asarray(column.is_null())] = 0
    return ids


def bytes_of(column: pa.Array) -> tuple[npt.NDArray[np.int32], Bytes]:
    """(offsets int32 (n + 1,), data uint8) of a column of binary or string."""
    _, offsets, data = column.buffers()
    if offsets is None or not len(column):
        return np.zeros(len(column) + 1, np.int32), np.zeros(0, np.uint8)
    starts = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return starts, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


def order(key: Key) -> Ints:
    """The places of n rows in sorted order, int64 (n,); equal rows in the order in which they stand."""
    words = _words(key.ids, key.offsets, key.data)
    places: Ints = np.argsort(words)  # the fastest sort there is; ties are put in order below
    _sort_ties(places, words, *key.arrays())
    return places


def sorted_batch(batch: pa.RecordBatch, key: Sequence[str]) -> pa.RecordBatch:
    """The rows in order."""
    return batch.take(arrow(order(key_of(batch, key))))


# ---------------------------------------------------------------- merging runs


def merge(runs: Sequence[Path], key: Sequence[str], scratch: Path) -> Iterator[pa.RecordBatch]:
    """The rows of sorted runs (Arrow files of blocks) in order, equal ones in the order of the runs. Removes the runs.

    In memory: a block of each of at most FAN_IN runs, and a sorted copy of them.
    """
    runs = list(runs)
    level = 0
    while len(runs) > FAN_IN:  # neighbours are merged, so that equal rows keep their order
        level += 1
        wider = []
        for at in range(0, len(runs), FAN_IN):
            path = scratch / f"merged-{level:02d}-{at:06d}.arrow"
            write_run(path, _merge(runs[at : at + FAN_IN], key))
            wider.append(path)
        runs = wider
    yield from _merge(runs, key)


def write_run(path: Path, batches: Iterator[pa.RecordBatch]) -> None:
    """Write sorted rows in blocks of at most BLOCK_ROWS."""
    writer = None
    with pa.OSFile(str(path), "wb") as sink:
        for batch in batches:
            writer = writer or pa.ipc.new_file(sink, batch.schema)
            for start in range(0, batch.num_rows, BLOCK_ROWS):
                writer.write_batch(batch.slice(start, BLOCK_ROWS))
        if writer is not None:
            writer.close()


class _Run:
    """A sorted run and its rows in memory that are not out yet. `batch` is None at its end."""

    def __init__(self, path: Path, key: Sequence[str]):
        self._path, self._columns = path, key
        self._file = pa.OSFile(str(path))
        self._blocks = iter(_blocks(self._file))
        self.batch: pa.RecordBatch | None = None
        self.advance(0)

    def advance(self, rows: int) -> None:
        """Let go of the first rows."""
        if self.batch is not None and rows < self.batch.num_rows:
            self.batch = self.batch.slice(rows)
        else:
            self.batch = next(self._blocks, None)
        if self.batch is None:
            self._file.close()
            self._path.unlink()
        else:
            self.key = key_of(self.batch, self._columns)


def _blocks(file: Any) -> Iterator[pa.RecordBatch]:
    reader = pa.ipc.open_file(file)
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _merge(paths: Sequence[Path], key: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Round by round: the least of the last rows in memory bounds what can go out.

    Of runs behind the one whose last row that is, equal rows have to wait for those that may follow in its next block.
    """
    runs = [run for path in paths if (run := _Run(path, key)).batch is not None]
    while runs:
        least = 0
        for place in range(1, len(runs)):
            if _compare_last(runs[place], runs[least]) < 0:
                least = place
        bound = runs[least].key
        last = len(bound.number) - 1
        takes = [
            last + 1
            if run is runs[least]
            else int(_first_beyond(*run.key.arrays(), *bound.arrays(), last, place < least))
            for place, run in enumerate(runs)
        ]
        pieces = [run.batch.slice(0, take) for run, take in zip(runs, takes, strict=True) if run.batch and take]
        whole = pa.Table.from_batches(pieces).combine_chunks().to_batches()[0] if len(pieces) > 1 else pieces[0]
        for run, take in zip(runs, takes, strict=True):
            if take:
                run.advance(take)
        runs = [run for run in runs if run.batch is not None]
        yield sorted_batch(whole, key) if len(pieces) > 1 else whole


def _compare_last(left: _Run, right: _Run) -> int:
    return int(_compare(*left.key.arrays(), len(left.key.number) - 1, *right.key.arrays(), len(right.key.number) - 1))


# ---------------------------------------------------------------- kernels


@kernel
def _words(ids: Any, offsets: Any, data: Any) -> Any:
    """The first eight bytes of each key as a number, uint64 (n,)."""
    rows, width = len(offsets) - 1, ids.shape[1]
    words = np.zeros(rows, np.uint64)
    for row in range(rows):
        word = np.uint64(0)
        if width:
            for at in range(8):
                word = (word << np.uint64(8)) | np.uint64(ids[row, at])
        else:
            size = offsets[row + 1] - offsets[row]
            for at in range(8):
                byte = data[offsets[row] + at] if at < size else np.uint8(0)
                word = (word << np.uint64(8)) | np.uint64(byte)
        words[row] = word
    return words


@kernel
def _compare(
    ids: Any, offsets: Any, data: Any, number: Any, row: Any,
    ids2: Any, offsets2: Any, data2: Any, number2: Any, row2: Any,
) -> Any:  # fmt: skip
    """Less than, equal to or greater than 0 as the first row comes before, with or behind the second."""
    for at in range(ids.shape[1]):
        if ids[row, at] != ids2[row2, at]:
            return np.int64(ids[row, at]) - np.int64(ids2[row2, at])
    start, start2 = offsets[row], offsets2[row2]
    size, size2 = offsets[row + 1] - start, offsets2[row2 + 1] - start2
    for at in range(min(size, size2)):
        if data[start + at] != data2[start2 + at]:
            return np.int64(data[start + at]) - np.int64(data2[start2 + at])
    if size != size2:
        return np.int64(size) - np.int64(size2)
    if number[row] != number2[row2]:
        return np.int64(1) if number[row] > number2[row2] else np.int64(-1)
    return np.int64(0)


@kernel
def _first_beyond(
    ids: Any, offsets: Any, data: Any, number: Any,
    ids2: Any, offsets2: Any, data2: Any, number2: Any, row2: Any, equal: Any,
) -> Any:  # fmt: skip
    """How many of n sorted rows come before a row of another batch, or with it if `equal`."""
    low, high = 0, len(number)
    while low < high:
        middle = (low + high) // 2
        found = _compare(ids, offsets, data, number, middle, ids2, offsets2, data2, number2, row2)
        if found < 0 or (equal and found == 0):
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _sort_ties(places: Any, words: Any, ids: Any, offsets: Any, data: Any, number: Any) -> None:
    """Put in order, in place, rows whose words are equal: short runs by insertion, long ones by merging."""
    rows = len(places)
    start = 0
    while start < rows:
        stop = start + 1
        while stop < rows and words[places[stop]] == words[places[start]]:
            stop += 1
        if stop - start > 1:
            width = min(stop - start, SHORT)
            for first in range(start, stop, width):
                for at in range(first + 1, min(first + width, stop)):
                    place = places[at]
                    to = at
                    while to > first:
                        other = places[to - 1]
                        found = _compare(ids, offsets, data, number, other, ids, offsets, data, number, place)
                        if found < 0 or (found == 0 and other < place):
                            break
                        places[to] = other
                        to -= 1
                    places[to] = place
            source, target = places[start:stop].copy(), places[start:stop].copy()
            while width < stop - start:
                for first in range(0, stop - start, 2 * width):
                    middle = min(first + width, stop - start)
                    end = min(first + 2 * width, stop - start)
                    left, right = first, middle
                    for to in range(first, end):
                        take_left = left < middle
                        if take_left and right < end:
                            found = _compare(
                                ids, offsets, data, number, source[left], ids, offsets, data, number, source[right]
                            )
                            take_left = found < 0 or (found == 0 and source[left] < source[right])
                        if take_left:
                            target[to] = source[left]
                            left += 1
                        else:
                            target[to] = source[right]
                            right += 1
                source, target = target, source
                width *= 2
            places[start:stop] = source
        start = stop
