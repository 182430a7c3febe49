"""Rows of prefixes sorted by key and file, as pairs are listed from them (`exact_join`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.dedup.candidates import Keys
from stackbuild.dedup.numbers import Numbers
from stackbuild.kernels import kernel

Ints = npt.NDArray[np.int32]


class Postings(NamedTuple):
    """Rows of keys that several files have, by (key, file); files are numbered by (size, number), so that sizes ascend
    under a key. `stop`: where the row's key ends. `order`: the rows by file. `sizes`, `places`: of each file, its
    shingles and its place in `numbers`, which ascend."""

    file: Ints
    position: Ints
    previous: Keys
    stop: Ints
    order: Ints
    sizes: Ints
    places: Numbers
    numbers: Numbers


def postings(
    keys: npt.NDArray[np.unsignedinteger], files: Numbers, sizes: Ints, positions: Ints, previous: Keys | None
) -> Postings:
    encoded = pa.array(files).dictionary_encode()
    known, file = np.asarray(encoded.dictionary), np.asarray(encoded.indices)
    known_sizes = np.zeros(len(known), np.int32)
    known_sizes[file] = sizes
    by_size = np.lexsort((known, known_sizes))
    rank = np.empty(len(known), np.int32)
    rank[by_size] = np.arange(len(known), dtype=np.int32)
    file, numbers = rank[file], np.sort(known)

    rows = np.argsort(keys)
    sorted_keys = keys[rows]
    first = np.concatenate(([True], sorted_keys[1:] != sorted_keys[:-1]))
    del sorted_keys
    shared = ~(first & np.append(first[1:], True))
    rows, group = rows[shared].astype(np.int32), np.cumsum(first, dtype=np.int32)[shared]
    rows = rows[np.argsort(group.astype(np.int64) << 32 | file[rows])]
    ends = np.flatnonzero(np.append(group[1:] != group[:-1], True)).astype(np.int32) + np.int32(1)
    stop = np.repeat(ends, np.diff(ends, prepend=0)) if len(rows) else np.zeros(0, np.int32)
    file = file[rows]
    before = previous[rows] if previous is not None else np.zeros(len(rows), np.uint64)
    order, places = _by_file(file, len(known)), np.searchsorted(numbers, known[by_size])
    return Postings(file, positions[rows], before, stop, order, known_sizes[by_size], places, numbers)


@kernel
def _by_file(file: Ints, files: int) -> Ints:
    """The rows in the order of their files, stable: a counting sort."""
    place = np.zeros(files + 1, np.int64)
    for row in range(len(file)):
        place[file[row] + 1] += 1
    for number in range(files):
        place[number + 1] += place[number]
    order = np.empty(len(file), np.int32)
    for row in range(len(file)):
        order[place[file[row]]] = row
        place[file[row]] += 1
    return order
