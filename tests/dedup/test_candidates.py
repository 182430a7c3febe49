"""Candidates: all pairs of small buckets, star and chain of large ones; components and groups."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.dedup.candidates import candidate_pairs
from stackbuild.dedup.components import pack
from stackbuild.dedup.numbers import VARIANT_BITS
from stackbuild.union_find import components

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=40)


def listed(rows, limit, at_once=1 << 20):
    keys, files = np.array([r[0] for r in rows], np.uint64), np.array([r[1] for r in rows], np.int64)
    found = candidate_pairs(keys, files << VARIANT_BITS, limit, at_once)
    chunks = [list(zip((a >> VARIANT_BITS).tolist(), (b >> VARIANT_BITS).tolist(), strict=True)) for a, b in found]
    assert all(chunk == sorted(set(chunk)) for chunk in chunks)
    return {pair for chunk in chunks for pair in chunk}


def buckets(rows):
    return [sorted({f for k, f in rows if k == key}) for key in {k for k, _ in rows}]


@settings(max_examples=200, deadline=None)
@given(ROWS.map(lambda rows: sorted(set(rows))), st.randoms())
def test_a_small_bucket_gives_all_pairs_in_any_order_of_rows(rows, random):
    expected = {pair for files in buckets(rows) for pair in combinations(files, 2)}
    shuffled = random.sample(rows, len(rows))
    assert listed(rows, 100) == listed(shuffled, 100, at_once=1) == expected


@settings(max_examples=200, deadline=None)
@given(ROWS.map(lambda rows: sorted(set(rows))))
def test_a_large_bucket_gives_star_and_chain(rows):
    expected = set()
    for files in buckets(rows):
        every = set(combinations(files, 2))
        sparse = {(files[0], f) for f in files[1:]} | set(pairwise(files))
        expected |= every if len(files) <= 3 else sparse
    assert listed(rows, 3) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_components_are_told_by_their_smallest_node(nodes, edges):
    edges = [(a % nodes, b % nodes) for a, b in edges]
    label = list(range(nodes))
    for _ in range(nodes):
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
    left, right = (np.array([e[i] for e in edges], np.int64) for i in (0, 1))
    assert components(nodes, left, right).tolist() == label


def test_groups_hold_whole_components_up_to_the_limit():
    assert pack(np.array([3, 3, 3, 20, 1, 8, 2]), 9).tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert pack(np.array([], np.int64), 9).tolist() == []
