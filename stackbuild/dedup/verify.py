"""Exact Jaccard similarity of candidate pairs: two ascending arrays of hashes are merged.

A pair is given up as soon as too many shingles of either side have no partner for the threshold to be reached.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stackbuild.dedup.shingles import Hashes, Offsets
from stackbuild.kernels import kernel

Floats = npt.NDArray[np.float64]


@kernel
def jaccard(a: Hashes, a_start: int, a_stop: int, b: Hashes, b_start: int, b_stop: int, at_least: float) -> float:
    """|A and B| / |A or B| of two ascending runs without repeats; 0.0 where it is below `at_least`, or both are
    empty.
    """
    total = (a_stop - a_start) + (b_stop - b_start)
    if total == 0:
        return 0.0
    # J >= t needs at least t / (1 + t) * total in common, so at most the rest may be without a partner.
    spare = total - 2 * int(np.ceil(at_least * total / (1.0 + at_least) - 1e-6))
    if abs((a_stop - a_start) - (b_stop - b_start)) > spare:
        return 0.0
    common = 0
    i, j = a_start, b_start
    while i < a_stop and j < b_stop:
        x, y = a[i], b[j]
        if x == y:
            common += 1
            i += 1
            j += 1
        else:
            if x < y:
                i += 1
            else:
                j += 1
            spare -= 1
            if spare < 0:
                return 0.0
    similarity = common / (total - common)
    return similarity if similarity >= at_least else 0.0


@kernel
def jaccard_pairs(
    a: Hashes, a_offsets: Offsets, b: Hashes, b_offsets: Offsets, left: Offsets, right: Offsets, at_least: float
) -> Floats:
    """The similarity of each pair of sets, float64 of shape (pairs,); 0.0 where it is below `at_least`.

    Set i of `a` is `a[a_offsets[i]:a_offsets[i + 1]]`, ascending without repeats; `left` (int64) numbers sets of `a`,
    `right` of `b`.
    """
    result = np.empty(len(left), np.float64)
    for pair in range(len(left)):
        i, j = left[pair], right[pair]
        result[pair] = jaccard(a, a_offsets[i], a_offsets[i + 1], b, b_offsets[j], b_offsets[j + 1], at_least)
    return result
