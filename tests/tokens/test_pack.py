"""Packing: best-fit-decreasing equals a slow one, loses nothing, and wastes next to nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.tokens.bitset import add, bitset, discard, least
from stackbuild.tokens.pack import best_fit, layout


def slow_best_fit(sizes: list[int], capacity: int) -> tuple[list[int], int]:
    """The rule as it is told: of the bins with room, the least room; of equal ones, the one that was filled last."""
    rooms: list[int] = []
    filled: list[int] = []
    bins = [-1] * len(sizes)
    for turn, item in enumerate(sorted(range(len(sizes)), key=lambda item: (-sizes[item], item))):
        if not sizes[item]:
            continue
        fitting = [number for number, room in enumerate(rooms) if room >= sizes[item]]
        if fitting:
            chosen = min(fitting, key=lambda number: (rooms[number], -filled[number]))
        else:
            chosen = len(rooms)
            rooms.append(capacity)
            filled.append(0)
        rooms[chosen] -= sizes[item]
        filled[chosen] = turn
        bins[item] = chosen
    return bins, len(rooms)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_best_fit_equals_the_slow_rule(data: st.DataObject) -> None:
    capacity = data.draw(st.integers(1, 400))
    largest = data.draw(st.integers(1, capacity))
    sizes = data.draw(st.lists(st.integers(0, largest), max_size=80))
    bins, count = best_fit(np.array(sizes, np.int64), capacity)
    assert (bins.tolist(), count) == slow_best_fit(sizes, capacity)
    assert bins.dtype == np.int32


def lengths(capacity: int, documents: int = 100_000) -> np.ndarray:
    """Log-normal documents, cut at the capacity (trainer 5.3)."""
    sizes = np.random.default_rng(0).lognormal(6.3, 1.2, documents).astype(np.int64) + 1
    rests = sizes % capacity
    return np.concatenate([rests[rests > 0], np.full(int((sizes // capacity).sum()), capacity)])


@pytest.mark.parametrize("capacity", [4096, 8192, 16384, 131072, 1 << 20])
def test_no_bin_is_over_its_capacity_and_every_item_is_in_one(capacity: int) -> None:
    sizes = lengths(capacity)
    sizes[::1000] = 0
    bins, count = best_fit(sizes, capacity)
    filled = np.bincount(bins[bins >= 0], sizes[bins >= 0], minlength=count)
    assert filled.max() <= capacity
    assert filled.min() > 0
    assert np.array_equal(bins < 0, sizes == 0)
    assert count >= -(-int(sizes.sum()) // capacity)


@pytest.mark.parametrize(("capacity", "most"), [(4096, 0.0001), (8192, 0.0001), (16384, 0.0002)])
def test_padding_is_next_to_nothing(capacity: int, most: float) -> None:
    sizes = lengths(capacity)
    _, count = best_fit(sizes, capacity)
    ideal = -(-int(sizes.sum()) // capacity)  # the last bin need not be full
    assert (count - ideal) / count < most


def test_layout_keeps_items_of_a_bin_in_order() -> None:
    sizes = lengths(4096, 5000)
    sizes[7] = 0
    bins, count = best_fit(sizes, 4096)
    items, offsets = layout(bins, count)
    assert items.dtype == offsets.dtype == np.int64
    assert sorted(items.tolist()) == [item for item in range(len(sizes)) if item != 7]
    for number in range(count):
        assert np.array_equal(items[offsets[number] : offsets[number + 1]], np.flatnonzero(bins == number))
    assert layout(np.array([-1, -1], np.int32), 0)[1].tolist() == [0]
    with pytest.raises(ValueError, match="numbered from 0 to 1"):
        layout(np.array([0, 2], np.int32), 2)


def test_what_cannot_be_packed_is_named() -> None:
    with pytest.raises(ValueError, match="item 1 has the size 9, which is above the capacity of 8"):
        best_fit([3, 9, 10], 8)
    with pytest.raises(ValueError, match="item 2 has the size -1"):
        best_fit([3, 8, -1], 8)
    with pytest.raises(ValueError, match="integers of one dimension, not float64"):
        best_fit([0.5], 8)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        best_fit([1], 0)


def test_nothing_needs_no_bin() -> None:
    for sizes in ([], [0, 0]):
        bins, count = best_fit(sizes, 8)
        assert (bins.tolist(), count) == ([-1] * len(sizes), 0)


@pytest.mark.parametrize("size", [1, 64, 65, 4096, 4097, 300_000])
def test_the_bitset_finds_the_least_member_that_is_not_below(size: int) -> None:
    random = np.random.default_rng(size)
    words, starts = bitset(size)
    members: set[int] = set()
    for _ in range(500):
        number = int(random.integers(size))
        (members.add if random.random() < 0.6 else members.discard)(number)
        (add if number in members else discard)(words, starts, number)
        for at in (int(random.integers(size + 1)), number, 0, size):
            assert least(words, starts, at) == min((member for member in members if member >= at), default=-1)
