"""Survivors: nobody leaves without a kept twin, whatever the order of input; and no two kept files are a verified
pair.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.dedup.survivors import RankColumn, collapse, keep_places, solve, survivors

GRAPHS = st.integers(1, 14).flatmap(
    lambda n: st.tuples(
        st.permutations(range(n)),
        st.dictionaries(
            st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
            .map(lambda p: (min(p), max(p)))
            .filter(lambda p: p[0] < p[1]),
            st.sampled_from([0.5, 0.69, 0.7, 0.8, 0.9]),
        ),
    )
)


def arrays(edges):
    left, right = (np.array([e[i] for e in edges], np.int64) for i in (0, 1))
    return left, right, np.array(list(edges.values()), float)


@settings(max_examples=300, deadline=None)
@given(GRAPHS)
def test_every_removed_file_names_the_most_similar_kept_file(graph):
    places, edges = list(graph[0]), {pair: s for pair, s in graph[1].items() if s >= 0.7}
    kept_by, similarity = survivors(np.array(places), *arrays(edges))
    kept = {i for i in range(len(places)) if kept_by[i] < 0}
    near = {i: {b if a == i else a: s for (a, b), s in edges.items() if i in (a, b)} for i in range(len(places))}
    for i in range(len(places)):
        before = {j: s for j, s in near[i].items() if j in kept and places[j] < places[i]}
        if i in kept:
            assert not set(near[i]) & kept and np.isnan(similarity[i])
        else:
            best = min(before, key=lambda j: (-before[j], places[j]))
            assert (kept_by[i], similarity[i]) == (best, before[best])


@settings(max_examples=200, deadline=None)
@given(GRAPHS, st.randoms())
def test_the_result_does_not_depend_on_the_order_of_input(graph, random):
    places, truth = np.array(graph[0]), graph[1]
    renamed = list(range(len(places)))
    random.shuffle(renamed)

    def ask(names):
        def similarity_of(left, right):
            back = {new: old for old, new in enumerate(names)}
            pairs = ((back[int(a)], back[int(b)]) for a, b in zip(left, right, strict=True))
            return np.array([truth.get((min(p), max(p)), 0.0) for p in pairs])

        pairs = [(names[a], names[b]) for a, b in truth]
        if names is renamed:
            pairs = [pair[::-1] for pair in random.sample(pairs, len(pairs))] * 2
        at = np.empty(len(places), np.int64)
        at[names] = places
        left, right = (np.array([p[i] for p in pairs], np.int64) for i in (0, 1))
        return solve(at, left, right, similarity_of, 0.7)

    first, second = ask(list(range(len(places)))), ask(renamed)
    for i in range(len(places)):
        j = renamed[i]
        twin = first.kept_by[i]
        assert second.kept_by[j] == (renamed[twin] if twin >= 0 else -1)
        assert second.size[j] == first.size[i]
        assert twin < 0 or first.kept_by[twin] < 0


def test_a_chain_does_not_leave_by_transitivity():
    # 0 - 1 - 2: 2 resembles only 1, which leaves; so 2 stays.
    found = solve(np.arange(3), np.array([0, 1]), np.array([1, 2]), lambda a, b: np.where(b - a == 1, 0.8, 0.0), 0.7)
    assert found.kept_by.tolist() == [-1, 0, -1]
    assert (found.cluster.tolist(), found.size.tolist()) == ([0, 0, 0], [3, 3, 3])


def test_twins_are_found_by_way_of_a_common_neighbour():
    # The star of a large bucket is file 4, the best file is 0: all resemble each other, only star edges are known.
    star = np.full(4, 4)
    found = solve(np.arange(5), np.arange(4), star, lambda a, b: np.full(len(a), 0.9), 0.7)
    assert found.kept_by.tolist() == [-1, 0, 0, 0, 0]


def test_twins_are_sought_until_no_more_are_found():
    # 3 joins 0 and 1, 4 joins 1 and 2: 2 meets 0 only once 1 has left.
    found = solve(np.arange(5), np.array([0, 1, 1, 2]), np.array([3, 3, 4, 4]), lambda a, b: np.full(len(a), 0.9), 0.7)
    assert found.kept_by.tolist()[:3] == [-1, 0, 0]


def test_pairs_below_the_threshold_join_nothing():
    found = solve(np.arange(3), np.array([0, 1]), np.array([1, 2]), lambda a, b: np.array([0.69, 0.7])[: len(a)], 0.7)
    assert (found.kept_by.tolist(), found.cluster.tolist()) == ([-1, -1, 1], [0, 1, 1])


def test_without_a_check_the_best_of_a_component_stays():
    found = collapse(np.array([2, 0, 1, 3]), np.array([0, 1]), np.array([1, 2]))
    assert (found.kept_by.tolist(), found.size.tolist()) == ([1, -1, 1, -1], [3, 3, 3, 1])
    assert np.isnan(found.similarity).all()


def test_no_files():
    none = np.zeros(0, np.int64)
    assert len(collapse(none, none, none).kept_by) == 0
    assert len(solve(none, none, none, lambda a, b: np.zeros(len(a)), 0.7).kept_by) == 0


def test_order_is_by_column_then_nulls_last_then_id():
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    values, valid = np.array([low, high, 0, 0, high]), np.array([True, True, False, False, True])
    ids = np.array([9, 8, 7, 6, 5])
    assert np.argsort(keep_places([RankColumn(values, valid, True)], ids)).tolist() == [4, 1, 0, 3, 2]
    assert np.argsort(keep_places([RankColumn(values, valid, False)], ids)).tolist() == [0, 4, 1, 3, 2]
    first = RankColumn(np.array([1, 0, 1, 0, 1]), np.ones(5, bool), False)
    assert np.argsort(keep_places([first, RankColumn(values, valid, True)], ids)).tolist() == [1, 3, 4, 0, 2]
