"""The stateless permutation: a bijection of any size, frozen, and without structure that simple statistics see."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from stackbuild.tokens.permute import LARGEST, SMALL, Permutation

FROZEN = {
    (10, 0): [3, 1, 5, 8, 7, 6, 4, 0, 9, 2],
    (4097, 1): [2003, 835, 1114, 3465, 1336, 3438, 3980, 3559, 3102, 1688],
    (2**20, 1): [149465, 538331, 13063, 641526, 305401, 607879, 310859, 756191, 405192, 792365],
    (2**40 + 1, -5): [
        274574172996,
        863387462062,
        485261478347,
        25705480712,
        426860754945,
        722251515232,
        38376299162,
        387060329255,
        64360379100,
        504044688732,
    ],
    (2**62, 7): [
        4038158524479872307,
        2273681672067268695,
        777251274193276851,
        667951292898227438,
        509008139878667688,
        638998520391466640,
        516999717574630759,
        4419194764755425146,
        2837255533258501996,
        2312994609676265224,
    ],
}


def excess(counts: np.ndarray, expected: float, freedom: int) -> float:
    """Chi-square in standard deviations from what chance gives."""
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("n", [*range(70), 255, 256, 257, 1000, SMALL, SMALL + 1, 2**16 + 3])
def test_it_is_a_bijection_of_any_size_and_inverse_undoes_it(n: int) -> None:
    order = Permutation(n, 3, "documents", "code", "0")
    moved = order.slice(0, n)
    assert moved.dtype == np.int64
    assert np.array_equal(np.sort(moved), np.arange(n))
    assert np.array_equal(order.inverse(moved), np.arange(n))
    assert len(order) == n


@pytest.mark.parametrize("n", [2**31, 2**32 + 1, 10**12, 2**61 + 1, LARGEST - 1, LARGEST])
def test_inverse_undoes_it_up_to_2_to_the_62(n: int) -> None:
    order = Permutation(n, 0, "x")
    random = np.random.default_rng(0)
    given = np.concatenate([np.arange(2000), n - 1 - np.arange(2000), random.integers(0, n, 20_000)])
    moved = order.of(given)
    assert moved.min() >= 0
    assert moved.max() < n
    assert np.array_equal(order.inverse(moved), given)


def test_any_element_is_computed_alone() -> None:
    order = Permutation(10_000, 9, "a", b"b")
    whole = order.slice(0, 10_000)
    assert [order[at] for at in (0, 17, 9_999)] == whole[[0, 17, 9_999]].tolist()
    assert np.array_equal(order.slice(123, 4567), whole[123:4567])
    assert np.array_equal(order.of([[5, 6], [7, 8]]), whole[5:9].reshape(2, 2))


def test_it_is_frozen() -> None:
    for (n, seed), expected in FROZEN.items():
        order = Permutation(n, seed, "documents", "code", "0")
        assert [order[at * (n - 1) // 9] for at in range(10)] == expected


def test_size_seed_and_every_name_make_another_permutation() -> None:
    base = Permutation(1000, 1, "a", "b").slice(0, 1000)
    for other in (
        Permutation(1001, 1, "a", "b"),
        Permutation(1000, 2, "a", "b"),
        Permutation(1000, 1, "a", "c"),
        Permutation(1000, 1, "ab"),
        Permutation(1000, 1, "a"),
    ):
        assert np.count_nonzero(other.slice(0, 1000) == base) < 12  # one by chance


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_permutations_of_a_few_elements_are_equally_frequent(n: int) -> None:
    seeds = 40 * math.factorial(n)
    found = Counter(tuple(Permutation(n, seed, "few").slice(0, n).tolist()) for seed in range(seeds))
    assert len(found) == math.factorial(n)
    assert abs(excess(np.array(list(found.values())), 40, math.factorial(n) - 1)) < 4


@pytest.mark.parametrize("n", [6, 9, 25, 37, 64])
def test_every_element_goes_everywhere_equally_often(n: int) -> None:
    seeds = 2000
    moved = np.array([Permutation(n, seed, "where").slice(0, n) for seed in range(seeds)])
    counts = np.array([np.bincount(column, minlength=n) for column in moved.T])
    assert abs(excess(counts, seeds / n, (n - 1) ** 2)) < 4
    assert abs(np.count_nonzero(moved == np.arange(n)) - seeds) < 5 * math.sqrt(seeds)  # one fixed element each
    odd = sum(is_odd(row) for row in moved)
    assert abs(odd - seeds / 2) < 2 * math.sqrt(seeds)


def is_odd(row: np.ndarray) -> bool:
    left, cycles = set(row.tolist()), 0
    while left:
        at = left.pop()
        cycles += 1
        while (at := int(row[at])) in left:
            left.remove(at)
    return (len(row) - cycles) % 2 == 1


@pytest.mark.parametrize("n", [SMALL + 1, 5000, 2**20, 10**6 + 3])
def test_neighbours_are_not_correlated(n: int) -> None:
    chi, serial, successors = [], [], []
    for seed in range(60 if n < 10_000 else 3):
        moved = Permutation(n, seed, "serial").slice(0, n)
        cells = np.histogram2d(np.arange(n), moved, bins=16, range=((0, n), (0, n)))[0]
        chi.append(excess(cells, n / 256, 225))
        values = moved.astype(np.float64)
        root = math.isqrt(n)
        lags = (1, 2, 3, root, root + 1)
        serial.append([np.corrcoef(values[:-lag], values[lag:])[0, 1] * math.sqrt(n) for lag in lags])
        successors.append(int(np.count_nonzero((moved[1:] - moved[:-1]) % n == 1)))
    assert abs(np.mean(chi)) * math.sqrt(len(chi)) < 4
    assert np.abs(np.array(serial)).max() < 4.5
    assert np.mean(successors) < 1 + 4 / math.sqrt(len(successors))  # one by chance


def test_elements_outside_are_refused() -> None:
    order = Permutation(10, 0)
    for wrong in (-1, 10):
        with pytest.raises(IndexError, match=f"of 10 elements has no element {wrong}"):
            order[wrong]
        with pytest.raises(IndexError, match=f"of 10 elements has no element {wrong}"):
            order.inverse([0, wrong])
    with pytest.raises(IndexError, match="no elements 5 to 11"):
        order.slice(5, 11)
    with pytest.raises(IndexError, match="integers, not float64"):
        order.of([0.5])
    with pytest.raises(IndexError, match="no element 0"):
        Permutation(0, 0)[0]
    for wrong in (-1, LARGEST + 1):
        with pytest.raises(ValueError, match="0 to 2\\^62"):
            Permutation(wrong, 0)
