"""Verification is exact, also at the threshold itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.dedup.verify import jaccard_pairs

SETS = st.lists(st.sets(st.integers(0, 30), max_size=25), min_size=2, max_size=6)


def of(sets, at_least):
    hashes = np.array([h for s in sets for h in sorted(s)], np.uint64)
    offsets = np.cumsum([0, *(len(s) for s in sets)])
    left, right = (np.array(x) for x in zip(*((i, j) for i in range(len(sets)) for j in range(len(sets))), strict=True))
    return (
        [sets[i] for i in left],
        [sets[j] for j in right],
        jaccard_pairs(hashes, offsets, hashes, offsets, left, right, at_least),
    )


@settings(max_examples=300, deadline=None)
@given(SETS, st.one_of(st.floats(0, 1), st.fractions(0, 1, max_denominator=25).map(float)))
def test_it_is_the_jaccard_of_python_sets(sets, at_least):
    for a, b, found in zip(*of(sets, at_least), strict=True):
        true = len(a & b) / len(a | b) if a | b else 0.0
        assert found == (true if true >= at_least else 0.0)


def test_seven_tenths_is_enough_for_a_threshold_of_seven_tenths():
    for size in range(1, 200):
        common, union = 7 * size, 10 * size
        _, _, found = of([set(range(common)), set(range(union))], 0.7)
        assert found[1] == 0.7
