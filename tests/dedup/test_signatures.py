"""Signatures: the family has the error of theory, is datasketch's, and is the same on every machine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash, MinHashLSH

from stackbuild.dedup import shingles
from stackbuild.dedup.options import KINDS, NearDedupOptions, Shingling
from stackbuild.dedup.shingles import shingle_sets
from stackbuild.dedup.signatures import (
    as_datasketch,
    band_keys,
    permutation_constants,
    sign_sets,
    sign_texts,
    sketch_texts,
    splitmix64,
)
from stackbuild.dedup.verify import jaccard_pairs
from tests.dedup.published import python_set

K = 252


def pairs_of_sets(rng: np.random.Generator, pairs: int, low: float, high: float, union: int):
    """Sets 2i and 2i + 1 of a known similarity: (hashes, offsets, Jaccard of each pair)."""
    sets, true = [], []
    for _ in range(pairs):
        values = np.unique(rng.integers(0, 1 << 64, union, dtype=np.uint64))
        rng.shuffle(values)
        common = int(rng.uniform(low, high) * union)
        half = common + (union - common) // 2
        sets += [np.sort(values[:half]), np.sort(np.concatenate((values[:common], values[half:])))]
        true.append(common / union)
    return np.concatenate(sets), np.concatenate(([0], np.cumsum([len(s) for s in sets]))), np.array(true)


def estimates(signatures: np.ndarray) -> np.ndarray:
    return (signatures[0::2] == signatures[1::2]).mean(1)


def error_ratio(signatures: np.ndarray, true: np.ndarray) -> float:
    """RMSE over what theory says for independent permutations, sqrt(J (1 - J) / k)."""
    rmse = np.sqrt(np.mean((estimates(signatures) - true) ** 2))
    return float(rmse / np.sqrt(np.mean(true * (1 - true) / signatures.shape[1])))


def test_splitmix64_gives_the_published_draws():
    # Reference implementation by Vigna, seed 1234567.
    assert splitmix64(1234567, 5).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423,
                                               4593380528125082431, 16408922859458223821]  # fmt: skip


def test_constants_follow_from_the_seed():
    a, b = permutation_constants(42, K)
    assert (a.dtype, a.shape, b.dtype, b.shape) == (np.uint32, (K,), np.uint32, (K,))
    assert (a % 2 == 1).all()
    draws = splitmix64(42, 4) >> np.uint64(32)
    assert [a[0], b[0], a[1], b[1]] == [draws[0] | np.uint64(1), draws[1], draws[2] | np.uint64(1), draws[3]]
    assert not np.array_equal(a, permutation_constants(43, K)[0])


BANDS = ((0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.85), (0.85, 0.97))


@pytest.mark.parametrize("union", [30, 100, 400, 2000])
@pytest.mark.parametrize("band", BANDS)
def test_the_error_is_that_of_theory(band, union):
    """In every band of similarity and for small sets too, where a worse family shows first; and none leans to a side."""
    hashes, offsets, true = pairs_of_sets(np.random.default_rng(union), 1500, *band, union)
    signatures = sign_sets(hashes, offsets, *permutation_constants(42, K))
    assert 0.92 < error_ratio(signatures, true) < 1.08
    assert abs(np.mean(estimates(signatures) - true)) < 0.002


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [40, 150, 700])
def test_the_error_is_that_of_theory_on_texts(kind, words):
    """Texts and edited copies of them, against the sets that Python makes of them."""
    shingling = NearDedupOptions(shingles=kind).shingling
    rng = np.random.default_rng(words)
    vocabulary = np.array([f"{word}{end}" for word in ("x", "Value", "self_", "é", "0") for end in range(400)])
    texts = []
    for _ in range(500):
        text = rng.choice(vocabulary, words)
        copy = np.where(rng.random(words) < rng.uniform(0, 0.75 / shingling.ngram), rng.choice(vocabulary, words), text)
        texts += [rng.choice([" ", "(", ".\n"]).join(text), rng.choice([" ", "(", ".\n"]).join(copy)]
    sets = [python_set(text, shingling) for text in texts]
    true = np.array([len(a & b) / len(a | b) for a, b in zip(sets[0::2], sets[1::2], strict=True)])
    assert min(sum(true < 0.5), sum(true > 0.7)) > 50
    signatures = sketch_texts(pa.array(texts), shingling, *permutation_constants(42, K)).signatures
    assert 0.88 < error_ratio(signatures, true) < 1.12
    assert abs(np.mean(estimates(signatures) - true)) < 0.004


def test_a_bad_family_fails_the_test_above():
    hashes, offsets, true = pairs_of_sets(np.random.default_rng(1), 1500, 0.4, 0.9, 400)
    a, b = permutation_constants(42, K)
    assert error_ratio(sign_sets(hashes, offsets, np.ones_like(a), b), true) > 1.2  # one permutation, shifted
    assert error_ratio(sign_sets(hashes, offsets, a[:1].repeat(K), b), true) > 1.2
    assert (
        error_ratio(sign_sets(hashes, offsets, a[:1].repeat(K), b[:1].repeat(K)), true) > 5
    )  # one permutation, k times


def test_signatures_are_datasketch_minhashes():
    """Loaded, they compare as ours do; made by datasketch of the same shingles, they are the same."""
    hashes, offsets, _ = pairs_of_sets(np.random.default_rng(2), 40, 0.5, 0.9, 200)
    ours = sign_sets(hashes, offsets, *permutation_constants(7, K))
    loaded = as_datasketch(ours, 7)
    for i, pair in enumerate(zip(loaded[0::2], loaded[1::2], strict=True)):
        assert pair[0].jaccard(pair[1]) == estimates(ours)[i]
        assert (pair[0].scheme, pair[0].num_perm) == ("affine32", K)
        peer = MinHash(num_perm=K, permutations=permutation_constants(7, K), scheme="affine32", hashfunc=int, seed=7)
        peer.update_batch([int(h) & 0xFFFFFFFF for h in hashes[offsets[2 * i] : offsets[2 * i + 1]]])
        assert np.array_equal(peer.hashvalues, ours[2 * i])
        assert peer.jaccard(pair[1]) == estimates(ours)[i]


def test_signatures_can_be_grown_and_sought_in_datasketch():
    hashes, offsets, _ = pairs_of_sets(np.random.default_rng(4), 20, 0.8, 0.9, 200)
    ours = sign_sets(hashes, offsets, *permutation_constants(7, K))
    first, second = as_datasketch(ours[:2], 7)
    union = np.unique(hashes[: offsets[2]])
    whole = sign_sets(union, np.array([0, len(union)]), *permutation_constants(7, K))[0]
    assert np.array_equal(MinHash.union(first, second).hashvalues, whole)
    first.update_batch(hashes[offsets[1] : offsets[2]].tolist())
    assert np.array_equal(first.hashvalues, whole)
    index = MinHashLSH(params=(42, 6), num_perm=K)
    for i, sketch in enumerate(as_datasketch(ours, 7)):
        index.insert(i, sketch)
    found = [set(index.query(sketch)) for sketch in as_datasketch(ours, 7)]
    assert found == [{i, i ^ 1} for i in range(len(ours))]
    (empty,) = as_datasketch(sign_sets(hashes[:0], np.zeros(2, np.int64), *permutation_constants(7, K)), 7)
    assert empty.is_empty()


def test_an_independent_datasketch_estimates_the_same():
    hashes, offsets, true = pairs_of_sets(np.random.default_rng(3), 200, 0.5, 0.9, 150)
    ours = sign_sets(hashes, offsets, *permutation_constants(42, K))
    peers = []
    for i in range(len(offsets) - 1):
        peer = MinHash(num_perm=K, seed=7)
        peer.update_batch([h.tobytes() for h in hashes[offsets[i] : offsets[i + 1]]])
        peers.append(peer.hashvalues)
    both = np.sqrt(np.mean((estimates(ours) - estimates(np.array(peers))) ** 2))
    assert both < 1.25 * np.sqrt(2 * np.mean(true * (1 - true) / K))
    assert abs(np.mean(estimates(ours) - true)) < 0.006


def test_texts_and_sets_sign_alike():
    texts = pa.array([" ".join(f"w{i % 37}" for i in range(n)) for n in (0, 1, 4, 5, 12, 13, 40, 1100, 5000)])
    a, b = permutation_constants(1, K)
    for shingling in (*KINDS.values(), Shingling(1, False), Shingling(9)):
        sketches = sketch_texts(texts, shingling, a, b)
        hashes, offsets = shingle_sets(texts, shingling)
        assert np.array_equal(sketches.hashes, hashes) and np.array_equal(sketches.offsets, offsets)
        assert np.array_equal(sketches.signatures, sign_sets(hashes, offsets, a, b))
        signatures, counts = sign_texts(texts, shingling, a, b)
        assert np.array_equal(signatures, sketches.signatures)
        assert counts.tolist() == np.diff(offsets).tolist() == sketches.counts.tolist()
        assert (signatures[counts == 0] == 0xFFFFFFFF).all() and (signatures[counts > 0] < 0xFFFFFFFF).any(1).all()


def test_headers_do_not_count_unless_asked():
    texts = pa.array(["# Copyright A\n" + "x y z " * 9, "// Licence B\n" + "x y z " * 9])
    a, b = permutation_constants(1, K)
    blind = sketch_texts(texts, Shingling(), a, b).signatures
    seeing = sketch_texts(texts, Shingling(header_blind=False), a, b).signatures
    assert np.array_equal(blind[0], blind[1])
    assert not np.array_equal(seeing[0], seeing[1])


def test_a_key_tells_scope_band_and_every_slot():
    signature = np.arange(12, dtype=np.uint32)[None].repeat(4, 0)
    signature[1, 5] += 1
    scopes = np.array([0, 0, 1, 0], np.uint64)
    keys = band_keys(signature, scopes, 4, 3)
    assert (keys[0] == keys[3]).all()
    assert (keys[0] == keys[1]).tolist() == [True, False, True, True]
    assert not (keys[0] == keys[2]).any()
    assert len(set(band_keys(np.zeros((1, 12), np.uint32), scopes[:1], 4, 3)[0].tolist())) == 4


def test_exact_jaccard_of_made_pairs():
    hashes, offsets, true = pairs_of_sets(np.random.default_rng(4), 50, 0.3, 0.9, 100)
    left = np.arange(0, 100, 2)
    assert jaccard_pairs(hashes, offsets, hashes, offsets, left, left + 1, 0.0) == pytest.approx(true)


def test_kernels_are_compiled_once_for_read_and_for_made_texts():
    """Buffers that were read cannot be written to and those that Python made can: numba takes them for two types."""
    made = pa.array(["one two three four five six", "seven"], pa.large_string())
    _, offsets, data = made.buffers()
    read = pa.Array.from_buffers(made.type, 2, [None, *(pa.py_buffer(part.to_pybytes()) for part in (offsets, data))])
    a, b = permutation_constants(1, 8)
    results = [
        [sketch_texts(texts, kind, a, b).signatures.tolist() for kind in KINDS.values()] for texts in (made, read)
    ]
    assert results[0] == results[1]
    assert len(shingles._sets.signatures) == 1
