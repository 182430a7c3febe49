"""Who is compared with whom: files that share a bucket, and the components that they form.

A bucket of up to ALL_PAIRS files gives every pair. A larger one gives a star and a chain (each file with the first
and with the next, in the order of content_id), so that a hundred thousand copies cost two hundred thousand pairs and
not five billion; what the star and chain do not say directly is found again when survivors are told
(`survivors.solve`).

Files are numbered by their place among all content_ids, so that no choice depends on how files are spread over
partitions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from numba import njit

ALL_PAIRS = 128  # files in a bucket up to which all its pairs are candidates
PAIRS_AT_ONCE = 1 << 22  # pairs that are made before their repeats are dropped

Numbers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


@njit(cache=True, nogil=True)
def _list_pairs(files: Numbers, starts: Numbers, sizes: Numbers, limit: int, left: Numbers, right: Numbers) -> int:
    made = 0
    for bucket in range(len(starts)):
        first, stop = starts[bucket], starts[bucket] + sizes[bucket]
        for i in range(first, stop):
            last = stop if sizes[bucket] <= limit else min(i + 2, stop)
            for j in range(i + 1, last):
                left[made], right[made] = files[i], files[j]
                made += 1
            if sizes[bucket] > limit and i > first + 1:
                left[made], right[made] = files[first], files[i]
                made += 1
    return made


def candidate_pairs(
    keys: Keys, files: Numbers, limit: int = ALL_PAIRS, at_once: int = PAIRS_AT_ONCE
) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield (left, right), int64, left < right: the pairs that buckets make, distinct and ascending within a chunk.

    `keys`: uint64 (n,), the bucket of each row. `files`: int64 (n,), the number of its file. A chunk comes from about
    `at_once` pairs with repeats (one bucket at least).
    """
    order = np.argsort(files, kind="stable")
    order = order[np.argsort(keys[order], kind="stable")]
    keys, files = keys[order], files[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.zeros(0, np.int64)
    sizes = np.diff(np.append(starts, len(keys)))
    starts, sizes = starts[sizes > 1], sizes[sizes > 1]
    counts = np.where(sizes <= limit, sizes * (sizes - 1) // 2, 2 * sizes - 3)
    total = np.cumsum(counts)
    begin = 0
    while begin < len(starts):
        before = int(total[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(total, before + at_once, side="right")), begin + 1)
        room = int(total[end - 1]) - before
        left, right = np.empty(room, np.int64), np.empty(room, np.int64)
        _list_pairs(files, starts[begin:end], sizes[begin:end], limit, left, right)
        yield distinct_pairs(left, right)
        begin = end


def distinct_pairs(left: Numbers, right: Numbers) -> tuple[Numbers, Numbers]:
    """The pairs without repeats and without pairs of a file with itself, each with the smaller first, ascending."""
    low, high = np.minimum(left, right), np.maximum(left, right)
    numbers = np.unique(np.concatenate((low, high)))
    low, high = np.searchsorted(numbers, low).astype(np.uint64), np.searchsorted(numbers, high).astype(np.uint64)
    packed = np.unique((low << np.uint64(32) | high)[low < high])
    return numbers[(packed >> np.uint64(32)).astype(np.int64)], numbers[
        (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    ]


@njit(cache=True, nogil=True)
def join(parents: Numbers, left: Numbers, right: Numbers) -> None:
    """Union-find: merge the trees of each pair of nodes; the smaller root stays. `parents`: int64 (n,), changed in
    place.
    """
    for pair in range(len(left)):
        i, j = left[pair], right[pair]
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        while parents[j] != j:
            parents[j] = parents[parents[j]]
            j = parents[j]
        if i < j:
            parents[j] = i
        else:
            parents[i] = j


@njit(cache=True, nogil=True)
def roots(parents: Numbers) -> Numbers:
    """The smallest node of each node's tree, int64 (n,)."""
    result = np.empty_like(parents)
    for node in range(len(parents)):
        result[node] = node if parents[node] == node else result[parents[node]]
    return result


def components(nodes: int, left: Numbers, right: Numbers) -> Numbers:
    """The smallest node of each node's connected component, int64 (nodes,)."""
    parents = np.arange(nodes, dtype=np.int64)
    join(parents, left, right)
    return np.asarray(roots(parents))


@njit(cache=True, nogil=True)
def pack(sizes: Numbers, limit: int) -> Numbers:
    """Spread components over groups in their order: a group closes before the component that would take it over
    `limit`.
    """
    groups = np.empty(len(sizes), np.int64)
    group, filled = 0, 0
    for i in range(len(sizes)):
        if filled and filled + sizes[i] > limit:
            group += 1
            filled = 0
        filled += sizes[i]
        groups[i] = group
    return groups
