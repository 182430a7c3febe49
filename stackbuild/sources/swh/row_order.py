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
SHORT: Final = 32  # rows of one word that are sorted by insertion
PIECE_ROWS: Final = 32_768  # that come out at a time
PIECE_BYTES: Final = 4 << 20
BLOCK_ROWS: Final = 4_096  # of a run that are in memory when runs are merged
BLOCK_BYTES: Final = 256 << 10
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


def merged_order(key: Key, starts: Sequence[int]) -> Ints:
    """The same of rows that are sorted runs one behind the other; `starts`: where each begins, and where the last ends."""
    places: Ints = np.arange(len(key.number))
    words, bounds = _words(key.ids, key.offsets, key.data), np.asarray(starts, np.int64)
    while len(bounds) > 2:
        places, words = _merge_pairs(bounds, places, words, *key.arrays())
        bounds = np.append(bounds[:-1:2], bounds[-1])
    return places


def sorted_pieces(batch: pa.RecordBatch, key: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows in order, some at a time, so that a sorted copy never stands whole in memory."""
    places = arrow(order(key_of(batch, key)))
    step = _rows_of(batch, PIECE_ROWS, PIECE_BYTES)
    for start in range(0, batch.num_rows, step):
        yield batch.take(places.slice(start, step))


def _rows_of(batch: pa.RecordBatch, rows: int, size: int) -> int:
    """How many rows of a batch to take at a time: at most `rows`, and about `size` bytes."""
    return int(max(1, min(rows, size * batch.num_rows // max(batch.nbytes, 1))))


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
    """Write sorted rows in blocks of at most BLOCK_ROWS and about BLOCK_BYTES."""
    writer = None
    with pa.OSFile(str(path), "wb") as sink:
        for batch in batches:
            writer = writer or pa.ipc.new_file(sink, batch.schema)
            step = _rows_of(batch, BLOCK_ROWS, BLOCK_BYTES)
            for start in range(0, batch.num_rows, step):
                writer.write_batch(batch.slice(start, step))
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
        for run, take in zip(runs, takes, strict=True):
            if take:
                run.advance(take)
        runs = [run for run in runs if run.batch is not None]
        if len(pieces) == 1:
            yield pieces[0]
            continue
        whole = pa.Table.from_batches(pieces).combine_chunks().to_batches()[0]
        starts = [0, *np.cumsum([piece.num_rows for piece in pieces]).tolist()]
        yield whole.take(arrow(merged_order(key_of(whole, key), starts)))


def _compare_last(left: _Run, right: _Run) -> int:
    return int(_compare(*left.key.arrays(), len(left.key.number) - 1, *right.key.arrays(), len(right.key.number) - 1))


# ---------------------------------------------------------------- kernels


@kernel
def _words(ids: Any, offsets: Any, data: Any) -> Any:
    """The first eight bytes of each key as a number, uint64 (n,)."""
    rows, width = len(offsets) - 1, ids.shape[1]
    words = np.empty(rows, np.uint64)
    for row in range(rows):
        words[row] = _word(ids[row], 0, 8) if width else _word(data, offsets[row], offsets[row + 1])
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
    """Put in order, in place, rows whose words are equal.

    Such rows are mostly of one id, entries of one directory: they are compared by the next eight bytes, which are put
    together, and in full only where these are equal too. Merge sort, of runs that insertion made.
    """
    rows, width = len(places), ids.shape[1]
    start = 0
    while start < rows:
        word = words[places[start]]
        stop = start + 1
        while stop < rows and words[places[stop]] == word:
            stop += 1
        size = stop - start
        if size > 1:
            source = np.sort(places[start:stop])  # as they came: entries are mostly in order already
            first = source[0]
            one = True
            for at in range(8, width):
                for place in source:
                    one &= ids[place, at] == ids[first, at]
            keys = np.empty(size, np.uint64)
            for at in range(size):
                row = source[at]
                if not one:
                    keys[at] = _word(ids[row], 8, 16)
                else:
                    behind = offsets[row] if width else min(offsets[row] + 8, offsets[row + 1])
                    keys[at] = _word(data, behind, offsets[row + 1])
            for low in range(0, size, SHORT):
                for at in range(low + 1, min(low + SHORT, size)):
                    place, key = source[at], keys[at]
                    to = at
                    while to > low and (
                        keys[to - 1] > key
                        or (
                            keys[to - 1] == key
                            and _compare(ids, offsets, data, number, source[to - 1], ids, offsets, data, number, place)
                            > 0
                        )
                    ):
                        source[to], keys[to] = source[to - 1], keys[to - 1]
                        to -= 1
                    source[to], keys[to] = place, key
            run = SHORT
            while run < size:
                starts = np.arange(0, size + run, run)
                starts[-1] = size
                source, keys = _merge_pairs(starts, source, keys, ids, offsets, data, number)
                run *= 2
            places[start:stop] = source
        start = stop


@kernel
def _word(data: Any, start: Any, stop: Any) -> Any:
    """The first eight bytes as a number, zeros behind the end."""
    word = np.uint64(0)
    for at in range(8):
        byte = data[start + at] if start + at < stop else np.uint8(0)
        word = (word << np.uint64(8)) | np.uint64(byte)
    return word


@kernel
def _merge_pairs(starts: Any, places: Any, words: Any, ids: Any, offsets: Any, data: Any, number: Any) -> Any:
    """Merge each two neighbouring sorted runs of rows: (their places, their words). Of equal rows the left run's come first.

    Run k is places[starts[k]:starts[k + 1]]; words[j] is that of places[j], and says all of the order that it can.
    """
    merged, of_merged = np.empty_like(places), np.empty_like(words)
    for pair in range(0, len(starts) - 1, 2):
        left, middle = starts[pair], starts[pair + 1]
        right, stop = middle, starts[min(pair + 2, len(starts) - 1)]
        for to in range(left, stop):
            take_left = left < middle
            if take_left and right < stop:
                if words[left] == words[right]:
                    take_left = (
                        _compare(ids, offsets, data, number, places[left], ids, offsets, data, number, places[right])
                        <= 0
                    )
                else:
                    take_left = words[left] < words[right]
            if take_left:
                merged[to], of_merged[to] = places[left], words[left]
                left += 1
            else:
                merged[to], of_merged[to] = places[right], words[right]
                right += 1
    return merged, of_merged
