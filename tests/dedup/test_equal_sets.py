"""Files of one and the same set of shingles: one of them is compared for all, and the result is that of all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.dedup.exact_join import exact_pairs
from stackbuild.dedup.survivors import solve
from stackbuild.dedup.verify import jaccard_pairs
from stackbuild.union_find import components

FEW_SETS = st.lists(st.sets(st.integers(0, 12), min_size=1, max_size=10), min_size=1, max_size=5)


@st.composite
def copies(draw):
    """Up to 16 files of few distinct sets, in scopes, and the order of keeping: equal sets are the rule."""
    distinct = draw(FEW_SETS)
    which = draw(st.lists(st.integers(0, len(distinct) - 1), min_size=1, max_size=16))
    scopes = draw(st.lists(st.integers(0, 1), min_size=len(which), max_size=len(which)))
    return [distinct[i] for i in which], scopes, draw(st.permutations(range(len(which))))


def arrays(sets):
    numbers = np.array([h for s in sets for h in sorted(s)], np.uint64)
    return numbers << np.uint64(40) | numbers * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(24), np.cumsum(
        [0, *(len(s) for s in sets)]
    )


def greedy(sets, scopes, places, threshold):
    """The rule over all pairs: (for each file its kept twin or -1, the similarity or None, the smallest of its cluster)."""
    near = {
        (i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        for i, j in combinations(range(len(sets)), 2)
        if scopes[i] == scopes[j] and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    }
    kept_by, similarity = [-1] * len(sets), [None] * len(sets)
    kept = []
    for i in sorted(range(len(sets)), key=lambda i: places[i]):
        twins = [(near[min(i, j), max(i, j)], -places[j], j) for j in kept if (min(i, j), max(i, j)) in near]
        if twins:
            similarity[i], _, kept_by[i] = max(twins)
        else:
            kept.append(i)
    left, right = (np.array([pair[side] for pair in near], np.int64) for side in (0, 1))
    return kept_by, similarity, components(len(sets), left, right).tolist()


@settings(max_examples=600, deadline=None)
@given(copies(), st.sampled_from([0.3, 0.5, 0.7, 0.85, 1.0]))
def test_stars_of_equal_sets_give_the_result_of_all_pairs(drawn, threshold):
    """Also where files of one set leave for different twins: one that is kept later may be more similar to the rest."""
    sets, scopes, places = drawn
    hashes, offsets = arrays(sets)
    left, right, _ = exact_pairs(hashes, offsets, threshold, np.array(scopes, np.uint64), once=True)

    def similarity_of(left, right):
        return jaccard_pairs(hashes, offsets, hashes, offsets, left, right, threshold)

    found = solve(np.array(places), left, right, similarity_of, threshold)
    kept_by, similarity, cluster = greedy(sets, scopes, places, threshold)
    assert found.kept_by.tolist() == kept_by
    assert [None if np.isnan(s) else s for s in found.similarity.tolist()] == similarity
    assert found.cluster.tolist() == cluster
    assert found.size.tolist() == [cluster.count(c) for c in cluster]
    classes = {}
    for i, key in enumerate(zip(map(frozenset, sets), scopes, strict=True)):
        classes.setdefault(key, []).append(i)
    stars = {(files[0], other) for files in classes.values() for other in files[1:]}
    first = {files[0] for files in classes.values()}
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    assert stars <= pairs and all({i, j} <= first for i, j in pairs - stars)


def test_files_of_a_set_leave_for_the_twin_that_was_kept_before_them_and_is_most_alike():
    # In the order of keeping: a (0), a file of the set (2), b which is more alike (1), another of the set (3).
    between = {(0, 2): 0.7, (0, 3): 0.7, (1, 2): 0.8, (1, 3): 0.8, (2, 3): 1.0}
    for listed in (between, {pair: between[pair] for pair in ((0, 2), (1, 2), (2, 3))}):
        left, right = (np.array([pair[side] for pair in listed]) for side in (0, 1))

        def similarity_of(left, right):
            return np.array([between.get((i, j), 0.0) for i, j in zip(left.tolist(), right.tolist(), strict=True)])

        found = solve(np.array([0, 2, 1, 3]), left, right, similarity_of, 0.7)
        assert found.kept_by.tolist() == [-1, -1, 0, 1]
        assert found.similarity.tolist()[2:] == [0.7, 0.8]


@pytest.mark.parametrize("twin", [0, 1, 3])
def test_a_kept_file_meets_those_that_files_of_a_set_left_for(twin):
    """2 and 4 are of one set: 0 is the first that they resemble, 2 leaves for 1, 4 for 3; nobody told that 5 resembles one."""
    listed = {(0, 2): 0.7, (1, 2): 0.8, (2, 3): 0.9, (2, 4): 1.0, (2, 5): 0.75}
    known = listed | {(twin, 5): 0.72}
    left, right = (np.array([pair[side] for pair in listed]) for side in (0, 1))

    def similarity_of(left, right):
        return np.array([known.get(pair, 0.0) for pair in zip(left.tolist(), right.tolist(), strict=True)])

    found = solve(np.arange(6), left, right, similarity_of, 0.7)
    assert found.kept_by.tolist() == [-1, -1, 1, -1, 3, twin]


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_twenty_thousand_equal_sets_make_as_many_pairs(threshold):
    copies = 20_000
    sets = [set(range(1, 21))] * copies + [set(range(20))] * copies + [set(range(50, 60))]
    left, _, similarity = exact_pairs(*arrays(sets), threshold, once=True)
    assert len(left) == 2 * (copies - 1) + (threshold < 1)
    assert (np.sort(similarity)[-2 * (copies - 1) :] == 1).all()
    assert set(left.tolist()) == {0, copies}
