"""Who is compared with whom: files that share a bucket.

A bucket of up to ALL_PAIRS files gives every pair. A larger one gives a star and a chain (each file with the first
and with the next, in the order of content_id), so that a hundred thousand copies cost two hundred thousand pairs and
not five billion; what the star and chain do not say directly is found again when survivors are told
(`survivors.solve`).

Files are numbered by content (`numbers`), so that no choice depends on how files are spread over partitions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stackbuild.dedup.numbers import BLIND, PLAIN, SEEING, Numbers, variant_of
from stackbuild.kernels import kernel

ALL_PAIRS = 128  # files in a bucket up to which all its pairs are candidates
PAIRS_AT_ONCE = 1 << 21  # pairs that are made before their repeats are dropped
MOST_SLOTS = 1 << 24  # of the table that finds keys which stand alone

Keys = npt.NDArray[np.uint64]
Packed = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_32 = np.uint64(32)


@kernel
def _mark(keys: Keys, seen: npt.NDArray[np.uint8], shift: np.uint64) -> None:
    for row in range(len(keys)):
        slot = (keys[row] * _GOLDEN) >> shift
        seen[slot] = min(seen[slot] + 1, 2)


@kernel
def _marked(keys: Keys, seen: npt.NDArray[np.uint8], shift: np.uint64) -> npt.NDArray[np.bool_]:
    shared = np.empty(len(keys), np.bool_)
    for row in range(len(keys)):
        shared[row] = seen[(keys[row] * _GOLDEN) >> shift] > 1
    return shared


class SharedKeys:
    """Tells keys that may stand in several rows from those that stand alone, which most do and which need no sorting."""

    def __init__(self, rows: int):
        """`rows`: how many keys will be added. Memory: two to four bytes a row, 16 MB at most."""
        bits = min(max(2 * rows, 2).bit_length(), MOST_SLOTS.bit_length() - 1)
        self._seen, self._shift = np.zeros(1 << bits, np.uint8), np.uint64(64 - bits)

    def add(self, keys: Keys) -> None:
        """Count the keys of some rows in."""
        _mark(_read_only(keys), self._seen, self._shift)

    def shared(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which of these rows, all added before, have a key that may stand in another row, bool (n,)."""
        return np.asarray(_marked(_read_only(keys), self._seen, self._shift))


def _read_only(keys: Keys) -> Keys:
    """A view that cannot be written, as arrays over Arrow's buffers cannot: kernels are compiled for one kind."""
    view = keys.view()
    view.flags.writeable = False
    return view


@kernel
def _sort(files: Numbers) -> None:
    """In place; most buckets are of a few files."""
    if len(files) > 32:
        files.sort()
        return
    for i in range(1, len(files)):
        file, at = files[i], i
        while at and files[at - 1] > file:
            files[at] = files[at - 1]
            at -= 1
        files[at] = file


@kernel
def _buckets(keys: Keys, order: Numbers, files: Numbers) -> tuple[Numbers, Numbers]:
    """(distinct files of each bucket of two or more, ascending within it; where each bucket starts, and the end).

    `order`: the rows in an order of their keys, in whatever order within a key.
    """
    held = np.empty(len(order), np.int64)
    starts = np.empty(len(order) + 1, np.int64)
    made = buckets = row = 0
    while row < len(order):
        key = keys[order[row]]
        begin = made
        while row < len(order) and keys[order[row]] == key:
            held[made] = files[order[row]]
            made += 1
            row += 1
        if made - begin > 1:
            _sort(held[begin:made])
            distinct = begin + 1
            for at in range(begin + 1, made):
                if held[at] != held[at - 1]:
                    held[distinct] = held[at]
                    distinct += 1
            made = distinct
        if made - begin > 1:
            starts[buckets] = begin
            buckets += 1
        else:
            made = begin
    starts[buckets] = made
    return held[:made], starts[: buckets + 1]


@kernel
def _count_pairs(starts: Numbers, limit: int) -> Numbers:
    counts = np.empty(len(starts) - 1, np.int64)
    for bucket in range(len(counts)):
        size = starts[bucket + 1] - starts[bucket]
        counts[bucket] = size * (size - 1) // 2 if size <= limit else 2 * size - 3
    return counts


@kernel
def _list_pairs(files: Numbers, starts: Numbers, limit: int, left: Numbers, right: Numbers) -> None:
    made = 0
    for bucket in range(len(starts) - 1):
        first, stop = starts[bucket], starts[bucket + 1]
        all_pairs = stop - first <= limit
        for i in range(first, stop):
            for j in range(i + 1, stop if all_pairs else min(i + 2, stop)):
                left[made], right[made] = files[i], files[j]
                made += 1
            if not all_pairs and i > first + 1:
                left[made], right[made] = files[first], files[i]
                made += 1


def candidate_pairs(
    keys: Keys, files: Numbers, limit: int = ALL_PAIRS, at_once: int = PAIRS_AT_ONCE
) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield (left, right), int64, left < right: the pairs that buckets make, distinct and ascending within a chunk.

    `keys`: uint64 (n,), the bucket of each row. `files`: int64 (n,), the number of its file; a row may repeat. A chunk
    comes from about `at_once` pairs with repeats (one bucket at least). Files that are there with and without their
    header (`numbers.BLIND`, `numbers.SEEING`) make two sets of buckets, one with either, and never meet themselves.
    """
    variants = variant_of(files)
    if (variants == PLAIN).all():
        yield from _pairs_of_buckets(keys, files, limit, at_once)
        return
    for other in (SEEING, BLIND):
        here = variants != other
        yield from _pairs_of_buckets(keys[here], files[here], limit, at_once)


def _pairs_of_buckets(keys: Keys, files: Numbers, limit: int, at_once: int) -> Iterator[tuple[Numbers, Numbers]]:
    held, starts = _buckets(keys, np.argsort(keys), files)
    total = np.cumsum(_count_pairs(starts, limit))
    begin = 0
    while begin < len(total):
        before = int(total[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(total, before + at_once, side="right")), begin + 1)
        left, right = np.empty((2, int(total[end - 1]) - before), np.int64)
        _list_pairs(held, starts[begin : end + 1], limit, left, right)
        yield distinct_pairs(left, right)
        begin = end


def distinct_pairs(left: Numbers, right: Numbers) -> tuple[Numbers, Numbers]:
    """The pairs without repeats and without pairs of a file with itself, each with the smaller first, ascending."""
    low, high = np.minimum(left, right), np.maximum(left, right)
    numbers = np.unique(np.concatenate((low, high)))
    low, high = np.searchsorted(numbers, low).astype(np.uint64), np.searchsorted(numbers, high).astype(np.uint64)
    return _unpacked(_distinct((low << _32 | high)[low < high]), numbers)


def _distinct(pairs: Packed) -> Packed:
    pairs = np.sort(pairs)
    return pairs[np.concatenate(([True], pairs[1:] != pairs[:-1]))] if len(pairs) else pairs


def _unpacked(pairs: Packed, numbers: Numbers) -> tuple[Numbers, Numbers]:
    return numbers[(pairs >> _32).astype(np.int64)], numbers[(pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)]
