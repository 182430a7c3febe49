r"""Shingles: words are runs of `\w` in lower case, and every form of bytes is read in linear time."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.dedup.options import Shingling
from stackbuild.dedup.shingles import BLOCK, shingle_sets, sort_distinct, word_characters

PLAIN = Shingling(ngram=3, header_blind=False)
MASK = (1 << 64) - 1


def scalar_words(text: str) -> list[str]:
    """The rule, one character at a time."""
    lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return re.findall(r"\w+", lower)


def scalar_hash(ngram: list[str]) -> int:
    """The hash, one number at a time."""
    value = 0
    for word in ngram:
        hash_ = 0xCBF29CE484222325
        for character in word:
            hash_ = ((hash_ ^ ord(character)) * 0x100000001B3) & MASK
        hash_ = ((hash_ ^ hash_ >> 32) * 0xFF51AFD7ED558CCD) & MASK
        value = (value * 0x9E3779B97F4A7C15 + hash_) & MASK
    value = ((value ^ value >> 33) * 0xFF51AFD7ED558CCD) & MASK
    value = ((value ^ value >> 33) * 0xC4CEB9FE1A85EC53) & MASK
    return value ^ value >> 33


def scalar_shingles(text: str, n: int) -> list[int]:
    words = scalar_words(text)
    return sorted({scalar_hash(words[i : i + n]) for i in range(len(words) - n + 1)})


def sets(texts: pa.Array, shingling: Shingling = PLAIN) -> list[list[int]]:
    hashes, offsets = shingle_sets(texts, shingling)
    return [hashes[a:b].tolist() for a, b in pairwise(offsets)]


def test_word_characters_are_those_of_python():
    table, word = word_characters(), re.compile(r"\w")
    for code in range(0x110000):
        assert bool(word.match(chr(code))) == (code < len(table) and table[code] > 0), hex(code)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("aB_9é一 İΣ\U0001f600\U00020000\x00.\n\u0301"), max_size=60), max_size=6),
    st.integers(1, 5),
)
def test_shingles_equal_the_scalar_rule(texts, n):
    assert sets(pa.array(texts, pa.large_string()), Shingling(n, False)) == [scalar_shingles(t, n) for t in texts]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_equals_the_scalar_rule(text):
    assert sets(pa.array([text], pa.large_string())) == [scalar_shingles(text, 3)]


def test_texts_longer_than_a_block_lose_no_shingle():
    for words in (BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 3, 3 * BLOCK + 7):
        text = " ".join(f"w{i}" for i in range(words))
        assert sets(pa.array([text])) == [scalar_shingles(text, 3)]


def test_files_of_fewer_words_than_n_have_no_shingles():
    assert sets(pa.array(["", "one", "one two", "one two three", None, "\x00\x00", " \n"])) == [
        [], [], [], scalar_shingles("one two three", 3), [], [], []]  # fmt: skip


def test_slices_nulls_and_every_string_type_read_alike():
    texts = ["x", "a b c d", None, "a b c d e", "tail"]
    expected = [scalar_shingles(t or "", 3) for t in texts[1:4]]
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()):
        given = [
            t if t is None or not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) else t.encode()
            for t in texts
        ]
        assert sets(pa.array(given, kind).slice(1, 3)) == expected, kind
    assert sets(pa.array([None, None], pa.large_string())) == [[], []]
    assert sets(pa.array([], pa.large_string())) == []


def test_bytes_that_are_not_utf8_separate_words():
    for bad in (b"\xff", b"\xc3", b"\xc3(", b"\xe4\xb8", b"\xf0\x9f\x98", b"\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"):
        plain = sets(pa.array([b"a b c  d e".replace(b"  ", b" - ")], pa.large_binary()))
        assert sets(pa.array([b"a b c " + bad + b" d e"], pa.large_binary())) in (
            plain, sets(pa.array([b"a b c ( d e"], pa.large_binary())))  # fmt: skip
    # A character cut off at the end of one file is not completed from the next.
    assert sets(pa.array([b"a b c\xc3", b"\xa9 d e f"], pa.large_binary())) == [
        scalar_shingles("a b c", 3), scalar_shingles("d e f", 3)]  # fmt: skip


def test_a_line_of_twenty_megabytes():
    text = "var a,b=1;" * 2_000_000
    assert sets(pa.array([text], pa.large_string())) == [scalar_shingles("var a,b=1;" * 10, 3)]


def test_sorting_survives_hashes_made_to_collide():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 1 << 20, 5000, dtype=np.uint64)
    for values in (
        low,
        low | np.uint64(7 << 40),
        rng.integers(0, 1 << 63, 5000, dtype=np.uint64),
        np.zeros(5000, np.uint64),
        low[:40],
    ):
        sorted_ = values.copy()
        count = sort_distinct(sorted_, np.empty_like(sorted_), len(sorted_))
        assert sorted_[:count].tolist() == sorted(set(values.tolist()))
