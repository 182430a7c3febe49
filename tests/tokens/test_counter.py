"""Draws are functions of what they are for: Philox-4x32-10, as published."""

from __future__ import annotations

import numpy as np
import pytest

from stackbuild.kernels import kernel
from stackbuild.tokens import counter
from stackbuild.tokens.counter import below, below_bits, bits, draw_bits, happens, key_of, philox

# Random123 1.14.0, tests/kat_vectors, "philox4x32 10": counter, key, block.
PUBLISHED = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def test_blocks_are_those_of_the_published_vectors() -> None:
    for counters, keys, block in PUBLISHED:
        given = [np.uint64(word) for word in words(counters) + words(keys)]
        assert [int(word) for word in philox(*given)] == words(block)


def test_a_draw_is_the_first_half_of_the_block_at_its_counter() -> None:
    (c0, c1, c2, c3), (k0, k1), block = (words(text) for text in PUBLISHED[2])
    drawn = bits(k0 | k1 << 32, c3 >> 8, c0 | c1 << 32, c2, c3 & 255)
    assert drawn.shape == () and drawn.dtype == np.uint64
    assert int(drawn) == block[0] | block[1] << 32


def test_the_order_and_the_shape_of_the_arguments_change_no_draw() -> None:
    key = key_of(7, "fim", "code")
    assert key != key_of(7, "fimcode") != key_of(8, "fim", "code")
    documents = np.arange(1000, dtype=np.uint64) + np.uint64(2**64 - 1000)
    fragments = np.arange(3)
    many = bits(key, 2, documents[:, None], fragments, counter.FIRST_CUT)
    assert many.shape == (1000, 3)
    order = np.random.default_rng(0).permutation(1000)
    assert (bits(key, 2, documents[order], 1, counter.FIRST_CUT) == many[order, 1]).all()
    assert int(bits(key, 2, 2**64 - 1, 2, counter.FIRST_CUT)) == int(many[999, 2])
    assert bits(key, 2, documents[:0], 0, 0).shape == (0,)
    fields = bits(key, 2, documents[:, None], 1, np.arange(6, dtype=np.uint64))
    assert (fields[:, counter.FIRST_CUT] == many[:, 1]).all()
    assert len(np.unique(np.concatenate([many.ravel(), fields[:, :3].ravel(), bits(key, 3, documents, 1, 3)]))) == 7000


def test_what_a_counter_has_no_room_for_is_refused() -> None:
    for given in ((2**24, 0, 0, 0), (0, -1, 0, 0), (0, 0, 2**32, 0), (0, 0, 0, 256), (0, 0, np.array([-3]), 0)):
        with pytest.raises(ValueError, match="a number from 0"):
            bits(0, *given)


def test_draws_are_uniform() -> None:
    drawn = bits(key_of(1), 0, np.arange(200_000), 0, counter.SPM_COIN)
    for probability in (0.0, 0.01, 0.5, 0.9, 1.0):
        happened = int(happens(drawn, probability).sum())
        assert abs(happened - 200_000 * probability) <= 3 * (200_000 * probability * (1 - probability)) ** 0.5
    for count in (1, 7, 1000):
        found = np.bincount(below(drawn, count).astype(np.int64), minlength=count)
        assert len(found) == count
        excess = ((found - 200_000 / count) ** 2).sum() / (200_000 / count) - (count - 1)  # of chi squared
        assert abs(excess) <= 4 * (2 * count) ** 0.5


def test_numbers_below_a_count_are_the_high_half_of_the_product() -> None:
    rng = np.random.default_rng(3)
    drawn = rng.integers(0, 2**64, 2000, np.uint64)
    counts = rng.integers(1, 2**64, 2000, np.uint64) >> rng.integers(0, 60, 2000, np.uint64)
    counts[:2], drawn[:2] = 2**64 - 1, (2**64 - 1, 0)
    counts |= np.uint64(1)
    expected = [int(a) * int(b) >> 64 for a, b in zip(drawn, counts, strict=True)]
    assert below(drawn, counts).tolist() == expected
    assert below(drawn, 1).max() == 0


@kernel
def _of_a_kernel(key: np.uint64, out: np.ndarray) -> None:
    for k in range(len(out)):
        out[k] = below_bits(draw_bits(key, np.uint64(1), np.uint64(k), np.uint64(4), np.uint64(2)), np.uint64(100))


def test_kernels_draw_the_same() -> None:
    out = np.zeros(50, np.uint64)
    _of_a_kernel(np.uint64(9), out)
    assert out.tolist() == below(bits(9, 1, np.arange(50), 4, 2), 100).tolist()
