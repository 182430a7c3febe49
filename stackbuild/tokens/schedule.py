"""The mixture's arithmetic: shares as integers, how much of each source stands before a block, and the order in a block.

Shares are integers a_1 .. a_k of the sum A. After t samples of an ideal mixture, source i has given a_i t / A. Its sample
number j (from 1) has a window: the slots from floor((j - 1) A / a_i) to ceil(j A / a_i) - 1. If every sample stands
within its window, every count is less than one sample from the ideal after every prefix (the chairman assignment problem:
Tijdeman 1980; the windows are those of proportionate progress: Baruah et al. 1996). Which schedule does that is found by
"earliest deadline first", which fills unit slots whenever they can be filled at all.

A block begins with given counts. These are the ideal ones rounded down, or up for a source whose window is open at that
time and whose sample has been given. Rounding by the largest remainder is not good enough: of three sources with a share of
1/3 less a little that have a remainder of 0.45, all are due two slots later, and there is one slot too few. Counts from
which the next block can be filled, and which can be reached from the last border, are those where

    of the open samples with the k earliest deadlines at least floor(sum of their remainders) have been given, and
    of those opened since any time within the last block at most ceil(sum of their remainders) have been given,

for every k and every such time. Why they suffice: by Hall's theorem, slots suffice from the border to time e if at most
sum_i frac(a_i e / A) of the samples given before the border are not due by e. That sum is an integer, since all shares of e
slots add up to e, and it is not below the sum of the remainders of the samples that are not due by e, as these only grow: so
not below that sum rounded up. The second line is the same, backwards in time. That there are always such counts, with what
had been given at the last border: the remainders themselves satisfy both lines as fractions, both are chains of sets, and
the matrix of two chains is totally unimodular. `round_up` finds them greedily.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.tokens.bitset import add, bitset, discard, least

Ints = npt.NDArray[np.int64]

FINEST = 2**61  # of the sum of shares: three of them can be added in int64


def shares(weights: Sequence[Fraction]) -> tuple[Ints, int]:
    """Positive weights as integers in the same proportion: (int64 of shape (sources,), their sum A <= 2^62).

    They are exact if A is at most 2^61. Else each is rounded to 2^-61 of the whole (at least one such part), and 10^10
    samples differ from the exact proportions by 5e-9 of a sample at most.
    """
    denominator = lcm(*(weight.denominator for weight in weights))
    exact = [weight.numerator * (denominator // weight.denominator) for weight in weights]
    divisor = gcd(*exact)
    exact = [share // divisor for share in exact]
    total = sum(exact)
    if total > FINEST:
        finest = FINEST - len(exact)  # so that rounding up, each by less than one, does not exceed the sum
        exact = [max((2 * share * finest + total) // (2 * total), 1) for share in exact]
        total = sum(exact)
    return np.array(exact, np.int64), total


@kernel
def round_up(share: Ints, total: int, remainders: Ints, given: npt.NDArray[np.bool_]) -> None:
    """At a border, choose the samples that have been given by it, among those whose window is open.

    `share`: a_i, of the sum `total`. `remainders`: a_i t mod A at the border's time t, of 0 if no window is open. `given`:
    the choice, in it what the last border's choice forces: an open sample that had been given by then. Both of shape
    (sources,).
    """
    sources = len(share)
    deadlines = np.empty(sources, np.int64)  # from the border on; the last slot's number + 1
    for i in range(sources):
        deadlines[i] = -((remainders[i] - total) // share[i])
    heap_key = np.empty(sources, np.int64)  # a heap of what is open and not given, that which was opened first on top
    heap = np.empty(sources, np.int64)
    size = 0
    needed, counted, rest = 0, 0, 0  # rest / total: the fraction of the sum of the remainders so far
    for i in np.argsort(deadlines, kind="mergesort"):
        if not remainders[i]:
            continue
        rest += remainders[i]
        if rest >= total:
            rest -= total
            needed += 1
        if given[i]:
            counted += 1
        else:
            size = _push(heap_key, heap, size, -(-remainders[i] // share[i]), i)
        while counted < needed:
            given[heap[0]] = True
            counted += 1
            size = _pop(heap_key, heap, size)


@kernel
def _push(keys: Ints, heap: Ints, size: int, key: int, item: int) -> int:
    """Into a heap with the largest key on top, of equal ones the least item."""
    at = size
    while at:
        parent = (at - 1) >> 1
        if keys[parent] > key or (keys[parent] == key and heap[parent] < item):
            break
        keys[at], heap[at] = keys[parent], heap[parent]
        at = parent
    keys[at], heap[at] = key, item
    return size + 1


@kernel
def _pop(keys: Ints, heap: Ints, size: int) -> int:
    size -= 1
    key, item = keys[size], heap[size]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (keys[other] > keys[child] or (keys[other] == keys[child] and heap[other] < heap[child])):
            child = other
        if keys[child] < key or (keys[child] == key and heap[child] > item):
            break
        keys[at], heap[at] = keys[child], heap[child]
        at = child
    keys[at], heap[at] = key, item
    return size


@kernel
def fill(
    share: Ints,
    total: int,
    remainders: Ints,
    given: npt.NDArray[np.bool_],
    left: Ints,
    limits: Ints,
    source: npt.NDArray[np.int32],
    rank: npt.NDArray[np.int32],
) -> int:
    """Order the samples of a block, earliest deadline first: how many were ordered, or -1 - slot if one cannot be.

    `remainders`, `given`: of the border before the block. `left`: how many samples the block has of each source; their sum
    is its length. `limits`: the order ends after a source has given that many of them (-1: never). Written: `source`, and
    `rank`: which one within the block it is of its source, from 0.
    """
    slots = len(source)
    opened = np.full(slots + 1, -1, np.int32)  # of each slot the sources whose next window opens then, as a list
    due = np.full(slots + 1, -1, np.int32)  # of each deadline the sources whose window is open
    after = np.empty(len(share), np.int32)  # the next of either list
    windows = np.empty(len(share), np.int64)  # where the next window ends: windows + parts / share, rounded up
    parts = np.empty(len(share), np.int64)
    whole, part = total // share, total % share
    counts = np.zeros(len(share), np.int32)
    words, starts = bitset(slots + 1)
    for i in range(len(share) - 1, -1, -1):
        if not left[i]:
            continue
        begin = (total - remainders[i]) if given[i] else -remainders[i]
        windows[i] = begin // share[i]
        parts[i] = begin - windows[i] * share[i]
        at = min(max(windows[i], 0), slots)
        after[i] = opened[at]
        opened[at] = i
        windows[i] += whole[i]
        parts[i] += part[i]
        if parts[i] >= share[i]:
            parts[i] -= share[i]
            windows[i] += 1
    for slot in range(slots):
        i = opened[slot]
        while i >= 0:
            following = after[i]
            deadline = min(windows[i] + (1 if parts[i] else 0), slots)
            if due[deadline] < 0:
                add(words, starts, deadline)
            after[i] = due[deadline]
            due[deadline] = i
            i = following
        deadline = least(words, starts, slot + 1)
        if deadline < 0:  # none is open; one may be late
            return -1 - slot
        i = due[deadline]
        due[deadline] = after[i]
        if due[deadline] < 0:
            discard(words, starts, deadline)
        source[slot] = i
        rank[slot] = counts[i]
        counts[i] += 1
        if counts[i] == limits[i]:
            return slot + 1
        if counts[i] < left[i]:
            at = min(max(windows[i], slot + 1), slots)
            after[i] = opened[at]
            opened[at] = i
            windows[i] += whole[i]
            parts[i] += part[i]
            if parts[i] >= share[i]:
                parts[i] -= share[i]
                windows[i] += 1
    return slots
