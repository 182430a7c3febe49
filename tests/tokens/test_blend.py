"""The mixture: after every prefix each source is less than a sample from its share, wherever blocks begin and end."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest

from stackbuild.tokens import blend
from stackbuild.tokens.blend import Mixture, greedy
from stackbuild.tokens.schedule import FINEST, shares

# starcoder2 10.1: billions of tokens of each source of the 15B model.
STARCODER2 = [775.48, 19.54, 11.06, 14.74, 16.29, 1.68, 1.6, 14.42, 6.12, 10.26, 30.26, 5.78, 6]
# Rounded by largest remainder at a border, these leave three sources due with two slots to go.
CROWDED = [Fraction(1, 3) - Fraction(1, 10_000)] * 3 + [Fraction(3, 500_000)] * 50
MIXTURES = {
    "a half and 999 small ones": [999.0] + [1.0] * 999,
    "1,000 by Zipf": [1 / rank for rank in range(1, 1001)],
    "StarCoder2": STARCODER2,
    "7 equal": [1] * 7,
    "600": np.random.default_rng(0).random(600).tolist(),
    "one": [3.3],
    "two": [2**0.5, 3.14159265358979],
    "crowded": CROWDED,
    "powers of two": [2.0**-number for number in range(12)],
    "far apart": [1.0, 1e-5, 3e-5, 1e-9, 1e-300],
}


def exact(weights: list[float | Fraction]) -> list[Fraction]:
    """Shares of the whole; a float is the decimal number that it prints as."""
    decimal = [Fraction(repr(float(weight))) if isinstance(weight, float) else Fraction(weight) for weight in weights]
    whole = sum(decimal)
    return [weight / whole for weight in decimal]


def largest_error(weights: list[float | Fraction], source: np.ndarray) -> float:
    """The largest |count - share * t| over all sources and all prefixes.

    It is largest just before or just after a sample of the source, or at the end.
    """
    largest = 0.0
    for number, share in enumerate(exact(weights)):
        at = np.flatnonzero(source == number)
        given = np.arange(len(at))
        errors = [
            given - float(share) * at,
            given + 1 - float(share) * (at + 1),
            [len(at) - float(share) * len(source)],
        ]
        largest = max(largest, float(np.abs(np.concatenate(errors)).max()))
    return largest


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("block", [64, 1000, 1 << 20])
def test_the_error_is_below_one_sample_after_every_prefix(name: str, block: int) -> None:
    weights = MIXTURES[name]
    samples = 300_000 if block > 1000 else 20_000 if len(weights) < 100 or block == 1000 else 4000
    source, index = Mixture(weights, block=block).sources(0, samples)
    assert largest_error(weights, source) < 1
    check_indices(source, index, len(weights))


def check_indices(source: np.ndarray, index: np.ndarray, sources: int) -> None:
    """Of every source, its samples in order and none left out."""
    assert source.dtype == np.int32
    assert index.dtype == np.int64
    for number in range(sources):
        of_it = index[source == number]
        assert np.array_equal(of_it, np.arange(len(of_it)))


def test_blocks_of_any_length_can_be_filled() -> None:
    random = np.random.default_rng(2)
    for turn in range(400):
        sources = int(random.integers(1, 14))
        weights = [
            random.integers(1, 40, sources),
            np.exp(random.normal(0, 3, sources)),
            np.concatenate([1 / 3 - 0.001 * random.random(3), 0.003 * random.random(sources)]),
            2.0 ** -random.integers(0, 12, sources),
        ][turn % 4].tolist()
        block = int(random.integers(1, 40))
        source, index = Mixture(weights, block=block).sources(0, 300)
        assert largest_error(weights, source) < 1, (weights, block)
        check_indices(source, index, len(weights))


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXTURES)
def test_the_error_is_below_one_sample_across_borders_of_2_to_the_20(name: str) -> None:
    mixture = Mixture(MIXTURES[name])
    source, index = mixture.sources(0, 3 * blend.BLOCK + 12_345)
    assert largest_error(MIXTURES[name], source) < 1
    check_indices(source, index, len(MIXTURES[name]))


@pytest.mark.parametrize("caps", [None, [400, None, 31, 700]])
def test_any_range_is_found_without_the_samples_before_it(caps: list[int | None] | None) -> None:
    weights = [0.4, 0.3, 0.2, 0.1]
    source, index = Mixture(weights, caps, block=100).sources(0, 3000)
    random = np.random.default_rng(1)
    for first in (0, 1, 99, 100, 2999, *random.integers(0, 3000, 20).tolist()):
        fresh = Mixture(weights, caps, block=100)
        n = int(random.integers(0, 3001 - first))
        some, at = fresh.sources(first, n)
        assert np.array_equal(some, source[first : first + n])
        assert np.array_equal(at, index[first : first + n])
        assert np.array_equal(fresh.counts(first), np.bincount(source[:first], minlength=4))
    again = pickle.loads(pickle.dumps(Mixture(weights, caps, block=100)))
    assert np.array_equal(again.sources(0, 3000)[0], source)


def test_counts_do_not_drift_at_ten_to_the_ten_samples() -> None:
    weights = [0.1, 0.2, 0.7 / 3, 1 / 7]
    mixture = Mixture(weights, block=1 << 20)
    t = 10**10 + 12_345
    for count, share in zip(mixture.counts(t).tolist(), exact(weights), strict=True):
        assert abs(count - share * t) < 1
    assert mixture.counts(t).sum() == t


def test_a_float_is_the_decimal_number_that_it_prints_as() -> None:
    assert [share.tolist() for share in shares([Fraction("0.1"), Fraction("0.2")])[:1]] == [[1, 2]]
    tenths = Mixture([0.1, 0.2, 0.7], block=10)
    for t in range(0, 1000, 10):
        assert tenths.counts(t).tolist() == [t // 10, t // 5, 7 * t // 10]


def test_shares_too_fine_for_64_bits_are_rounded_to_2_to_the_minus_61() -> None:
    weights = [Fraction(1, 3**50), Fraction(1, 7**20), Fraction(1), Fraction(1, 10**300)]
    parts, total = shares(weights)
    assert total == sum(parts.tolist()) <= FINEST
    for part, share in zip(parts.tolist(), exact(weights), strict=True):
        assert part >= 1
        assert abs(Fraction(part, total) - share) < Fraction(len(weights), 2**60)
    assert shares([Fraction(6), Fraction(9)])[0].tolist() == [2, 3]


def test_a_source_with_a_cap_leaves_and_the_others_go_on_in_proportion() -> None:
    weights, caps = [5, 3, 2], [100, None, 60]
    for block in (1 << 20, 64, 7):
        source, index = Mixture(weights, caps, block).sources(0, 1000)
        check_indices(source, index, 3)
        first = int(np.flatnonzero(source == 0)[-1]) + 1  # the first source leaves here: in 200 samples
        assert abs(first - 200) <= 2
        assert np.count_nonzero(source == 0) == 100
        second = int(np.flatnonzero(source == 2)[-1]) + 1
        assert np.count_nonzero(source == 2) == 60
        assert largest_error([5, 3, 2], source[:first]) < 1
        assert abs(second - 250) <= 4  # 20 more, two of five
        assert largest_error([Fraction(3), Fraction(2)], (source[first:second] == 2).astype(int)) < 1
        assert (source[second:] == 1).all()


def test_when_all_sources_are_exhausted_the_total_is_told() -> None:
    mixture = Mixture([1, 2, 3], [10, 0, 5], block=4)
    assert mixture.total == 15
    source, index = mixture.sources(0, 15)
    assert np.bincount(source, minlength=3).tolist() == mixture.counts(15).tolist() == [10, 0, 5]
    check_indices(source, index, 3)
    with pytest.raises(IndexError, match="mixture of 15 samples has no sample 15, counted from 0"):
        mixture.sources(15, 1)
    with pytest.raises(IndexError, match="mixture of 15 samples"):
        mixture.counts(16)
    assert len(mixture.sources(15, 0)[0]) == 0
    assert Mixture([1], [0]).total == 0
    assert Mixture([1, 1], [None, 3]).total is None
    with pytest.raises(IndexError, match="no samples -1"):
        mixture.sources(-1, 1)


def test_many_sources_that_end_together_leave_one_by_one() -> None:
    weights = [1 / rank for rank in range(1, 301)]
    caps = [max(round(1000 * weight), 1) for weight in weights]
    mixture = Mixture(weights, caps)
    source, index = mixture.sources(0, mixture.total or 0)
    assert np.bincount(source).tolist() == caps
    check_indices(source, index, len(weights))


def test_a_weight_that_is_not_above_zero_is_refused_by_name() -> None:
    for wrong in (0, 0.0, -1, Fraction(0), float("nan"), float("inf")):
        with pytest.raises(ValueError, match="the weight of source 1 is"):
            Mixture([1, wrong])
        with pytest.raises(ValueError, match="the weight of issues is"):
            Mixture([1, wrong], names=["code", "issues"])
        with pytest.raises(ValueError, match="the weight of source 1 is"):
            greedy([1, float(wrong)], 4)
    with pytest.raises(ValueError, match="the cap of source 0 is -1"):
        Mixture([1], [-1])
    with pytest.raises(ValueError, match="2 weights and 1 caps"):
        Mixture([1, 1], [3])
    with pytest.raises(ValueError, match="at least one source"):
        Mixture([])


def test_the_order_is_frozen() -> None:
    assert Mixture([0.5, 0.3, 0.2]).sources(0, 20)[0].tolist() == [
        0,
        1,
        0,
        2,
        0,
        1,
        0,
        1,
        0,
        2,
        0,
        1,
        0,
        2,
        0,
        1,
        0,
        1,
        0,
        2,
    ]
    assert Mixture(STARCODER2, block=1000).sources(12_990, 20)[0].tolist() == [
        0,
        0,
        0,
        0,
        6,
        0,
        0,
        0,
        0,
        5,
        0,
        0,
        0,
        0,
        0,
        0,
        10,
        0,
        0,
        0,
    ]
    assert Mixture(STARCODER2).counts(123_456_789).tolist() == [
        104834786,
        2641553,
        1495168,
        1992656,
        2202196,
        227114,
        216299,
        1949396,
        827344,
        1387018,
        4090758,
        781380,
        811121,
    ]


def slow_greedy(weights: list[float], n: int) -> tuple[list[int], list[int]]:
    given = np.array(weights, np.float64)
    shares_ = (given / given.sum()).tolist()
    counts = [0] * len(weights)
    made = []
    for sample in range(n):
        errors = [share * max(sample, 1) - count for share, count in zip(shares_, counts, strict=True)]
        best = errors.index(max(errors))
        made.append((best, counts[best]))
        counts[best] += 1
    return [best for best, _ in made], [count for _, count in made]


def test_greedy_is_megatrons_rule() -> None:
    assert greedy([0.5, 0.3, 0.2], 10)[0].tolist() == [0, 1, 2, 0, 1, 0, 2, 0, 1, 0]  # starcoder1, golden numbers
    random = np.random.default_rng(0)
    for weights in ([1.0], [1.0, 1.0, 1.0], STARCODER2, random.random(40).tolist(), [1.0] * 300):
        source, index = greedy(weights, 1500)
        assert (source.tolist(), index.tolist()) == slow_greedy(weights, 1500)


def test_greedy_has_room_for_more_than_255_sources() -> None:  # defect D20
    source, _ = greedy([1.0] * 300, 300)
    assert source.tolist() == list(range(300))


def test_greedy_equals_megatron_core() -> None:
    helpers = pytest.importorskip("megatron.core.datasets.helpers_cpp")
    for weights in (STARCODER2, np.random.default_rng(0).random(300).tolist()):
        source, index = np.zeros(20_000, np.int16), np.zeros(20_000, np.int64)
        shares_ = np.array(weights) / np.sum(np.array(weights))
        helpers.build_blending_indices(source, index, shares_, len(weights), len(source), False)
        ours = greedy(weights, 20_000)
        assert np.array_equal(ours[0], source)
        assert np.array_equal(ours[1], index)
