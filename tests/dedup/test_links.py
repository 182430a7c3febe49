"""Before pairs are compared: the estimate drops none that it should not, and components are those of all edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.dedup.components import Forest, group_of
from stackbuild.dedup.limits import groups_for
from stackbuild.dedup.links import MISSED, agreement, least_agreement
from stackbuild.union_find import components


@pytest.mark.parametrize("slots", [1, 2, 8, 64, 252, 4096])
@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.7, 0.9, 0.995])
def test_a_pair_at_the_threshold_is_dropped_once_in_a_thousand_million_times(slots: int, threshold: float) -> None:
    least = least_agreement(threshold, slots)
    p = threshold + (1 - threshold) / 256
    ways = [math.comb(slots, k) for k in range(min(least + 1, slots) + 1)]

    def below(bound: int) -> float:
        return sum(math.exp(math.log(ways[k]) + k * math.log(p) + (slots - k) * math.log1p(-p)) for k in range(bound))

    assert below(least) <= MISSED * 1.001
    assert below(least + 1) > MISSED * 0.999


def test_at_a_threshold_of_one_all_slots_agree() -> None:
    assert least_agreement(1.0, 252) == 252
    assert 160 < least_agreement(0.7, 252) * 252 / 200 < 180  # some six deviations below 177


def test_agreement_counts_equal_slots() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 3, (20, 30), np.uint8), rng.integers(0, 3, (5, 30), np.uint8)
    rows = rng.integers(0, 5, 20)
    assert agreement(left, right, rows).tolist() == [(left[i] == right[rows[i]]).sum() for i in range(20)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=60), st.integers(1, 7))
def test_a_forest_that_is_fed_in_batches_has_the_components_of_all_edges(
    edges: list[tuple[int, int]], size: int
) -> None:
    edges = [(min(e), max(e)) for e in edges if e[0] != e[1]]
    forest = Forest()
    for start in range(0, len(edges), size):
        left, right = (np.array([e[i] * 7 for e in edges[start : start + size]], np.int64) for i in (0, 1))
        forest.add(left, right)
    files, labels = forest.labels()
    whole = components(26, *(np.array([e[i] for e in edges], np.int64) for i in (0, 1)))
    assert dict(zip(files.tolist(), labels.tolist(), strict=True)) == {
        7 * n: 7 * int(whole[n]) for e in edges for n in e
    }


def test_groups_grow_with_the_files_and_not_beyond_the_partitions_before_they_must() -> None:
    assert [groups_for(n, 16) for n in (0, 1, 4_096, 4_097, 10**6)] == [1, 1, 1, 2, 256]
    assert groups_for(10**9, 65_536) == 65_536
    assert groups_for(10**9, 256) == 8_192  # 200,000 files each at most
    labels = np.arange(0, 4096 * 9, 9)
    assert set(group_of(labels, 8).tolist()) == set(range(8)) and (group_of(labels, 1) == 0).all()
