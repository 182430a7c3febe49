"""Packing: which documents share a window of the model's context.

`best_fit` is best-fit-decreasing bin packing: the longest item first, each into the fullest bin that has room for it
("Fewer Truncations Improve Language Modeling", Ding et al. 2024).

    bins, count = best_fit(sizes, 4096)
    order, offsets = layout(bins, count)
    order[offsets[b] : offsets[b + 1]]      the items of bin b
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.tokens.bitset import add, bitset, discard, least

Ints = npt.NDArray[np.int64]
Bins = npt.NDArray[np.int32]

MOST_ITEMS = 2**31 - 1  # bins are numbered in int32


def best_fit(sizes: npt.ArrayLike, capacity: int) -> tuple[Bins, int]:
    """Pack items into bins of `capacity`: (the bin of each item: int32 of shape (k,), how many bins).

    `sizes`: integers of shape (k,). Items are taken in order of size, the largest first, equal ones as they stand; each
    goes into the bin with the least room that suffices, of such bins into the one that was filled last, or into a new
    one. Bins are numbered as they are opened. An item of size 0 is in no bin: -1. ValueError for a size that is
    negative or above the capacity.
    """
    items = _checked(sizes, capacity)
    bins = np.full(len(items), -1, np.int32)
    return bins, int(_best_fit(items, capacity, bins))


def layout(bins: npt.NDArray[np.integer], count: int) -> tuple[Ints, Ints]:
    """The items bin by bin, in each bin as they stand: (items: int64 of shape (packed,), offsets: int64 (count + 1,)).

    Bin b has the items `items[offsets[b]:offsets[b + 1]]`. An item whose bin is -1 is left out.
    """
    if len(bins) and not -1 <= int(bins.min()) <= int(bins.max()) < count:
        raise ValueError(f"bins are numbered from 0 to {count - 1:,}; there are {bins.min():,} to {bins.max():,}")
    items = np.empty(int(np.count_nonzero(bins >= 0)), np.int64)
    offsets = np.zeros(count + 1, np.int64)
    _layout(np.ascontiguousarray(bins, np.int32), items, offsets)
    return items, offsets


def _integers(sizes: npt.ArrayLike, capacity: int) -> Ints:
    items = np.asarray(sizes)
    if items.ndim != 1 or (items.dtype.kind not in "iu" and items.size):
        raise ValueError(f"sizes are integers of one dimension, not {items.dtype} of shape {items.shape}")
    if capacity < 1:
        raise ValueError(f"the capacity of a bin is at least 1, not {capacity:,}")
    if len(items) > MOST_ITEMS:
        raise ValueError(f"at most {MOST_ITEMS:,} items are packed at once, not {len(items):,}")
    items = items.astype(np.int64, copy=False)
    if len(items) and items.min() < 0:
        raise ValueError(f"item {int(np.argmin(items)):,} has the size {items.min():,}")
    return items


def _checked(sizes: npt.ArrayLike, capacity: int) -> Ints:
    items = _integers(sizes, capacity)
    if len(items) and items.max() > capacity:
        first = int(np.argmax(items > capacity))
        raise ValueError(f"item {first:,} has the size {items[first]:,}, which is above the capacity of {capacity:,}")
    return items


@kernel
def _best_fit(sizes: Ints, capacity: int, bins: Bins) -> int:
    """Fill `bins`; return how many there are. Bins of equal room are a stack: `top[room]`, then `under[bin]`."""
    ends = np.zeros(
        capacity + 2, np.int64
    )  # a counting sort: of size s, the items order[ends[s + 1] - n : ends[s + 1]]
    for size in sizes:
        ends[capacity - size + 1] += 1
    for key in range(1, capacity + 2):
        ends[key] += ends[key - 1]
    order = np.empty(len(sizes), np.int32)
    at = ends.copy()
    for item in range(len(sizes)):
        key = capacity - sizes[item]
        order[at[key]] = item
        at[key] += 1

    rooms, starts = bitset(capacity + 1)
    top = np.full(capacity + 1, -1, np.int32)
    under = np.empty(len(sizes), np.int32)
    count = 0
    for size in range(capacity, 0, -1):
        next_, stop = ends[capacity - size], ends[capacity - size + 1]
        while next_ < stop:
            room = least(rooms, starts, size)
            if room < 0:
                bin_, room = count, capacity
                count += 1
            else:
                bin_ = top[room]
                top[room] = under[bin_]
                if top[room] < 0:
                    discard(rooms, starts, room)
            # What is left is below any other room that suffices: while it suffices too, this bin remains the best.
            while next_ < stop and room >= size:
                bins[order[next_]] = bin_
                next_ += 1
                room -= size
            if room:
                if top[room] < 0:
                    add(rooms, starts, room)
                under[bin_] = top[room]
                top[room] = bin_
    return count


@kernel
def _layout(bins: Bins, items: Ints, offsets: Ints) -> None:
    for bin_ in bins:
        if bin_ >= 0:
            offsets[bin_ + 1] += 1
    for bin_ in range(1, len(offsets)):
        offsets[bin_] += offsets[bin_ - 1]
    at = offsets[:-1].copy()
    for item in range(len(bins)):
        bin_ = bins[item]
        if bin_ >= 0:
            items[at[bin_]] = item
            at[bin_] += 1
