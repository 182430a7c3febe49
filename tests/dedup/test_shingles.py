r"""Shingles: each kind makes the sets that Python's `re` makes by the published rule, of any bytes, in linear time."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.dedup.options import KINDS, SHINGLE_VERSIONS, NearDedupOptions, Shingling
from stackbuild.dedup.shingles import BLOCK, CROWD, FINEST, RUN, drop_repeats, shingle_sets, sort_hashes
from stackbuild.dedup.tokenizing import _mark, sigma_marks, word_characters
from stackbuild.dedup.verify import jaccard
from stackbuild.errors import RecipeError
from tests.dedup.published import python_set

PLAIN = Shingling(ngram=3, header_blind=False)
MASK = (1 << 64) - 1
FOLDED = ("words", "the-stack-v2")

# What trips a tokeniser: the letter with two for its lower case, sigma in all forms and what may stand beside it, titlecase,
# the Kelvin sign (a k), digits and letters of other scripts, marks, symbols, letters of four bytes, nothing at all.
ODD = (
    "aB_9é一İIıΣσς'.:·\u0301\u0345\u00adǅK٣²Ⅷ①ªʰ€—\u200b\U00020000\U0001d7d8\U00010428\U0001f600\U000e0041\x00\x7f \n\t"
)


def scalar_product(left: int, right: int) -> int:
    return (left * right & MASK) ^ (left * right >> 64)


def scalar_hash(ngram: tuple[str, ...], kind: str = "words") -> int:
    """The hash, one number at a time."""
    value = 0
    for token in ngram:
        data = token.encode().replace(b"_", b"\x7f") if kind in FOLDED else token.encode()
        data = data.ljust(max(16, -(-len(data) // 8) * 8), b"\0")
        lanes = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
        hash_ = lanes[0] ^ 0xFF51AFD7ED558CCD
        for lane in lanes[1:]:
            hash_ = scalar_product(hash_, lane ^ 0xFE3779B97F4A7C15)
        value = (value * 0x9E3779B97F4A7C15 + hash_) & MASK
    value = ((value ^ value >> 33) * 0xFF51AFD7ED558CCD) & MASK
    value = ((value ^ value >> 33) * 0xC4CEB9FE1A85EC53) & MASK
    return value ^ value >> 33


def scalar_shingles(text: str, shingling: Shingling = PLAIN) -> list[int]:
    return sorted(scalar_hash(ngram, shingling.kind) for ngram in python_set(text, shingling))


def sets(texts: pa.Array, shingling: Shingling = PLAIN) -> list[list[int]]:
    hashes, offsets = shingle_sets(texts, shingling)
    return [hashes[a:b].tolist() for a, b in pairwise(offsets)]


STRETCHES = ("x", "Q7_", " ", "a b\n", "Word", ")(", "é", "'", "ΣΣ.")


def odd_texts(seed: int, count: int, length: int = 40) -> list[str]:
    """Texts of odd characters between stretches of all lengths, so that blocks and lanes begin and end anywhere."""
    rng = np.random.default_rng(seed)
    any_code = np.concatenate(
        (np.arange(0x80), np.arange(0xA0, 0x600), np.arange(0x1E00, 0x2400), np.arange(0x10400, 0x10500))
    )

    def piece() -> str:
        kind = rng.integers(4)
        if kind == 0:
            return STRETCHES[rng.integers(len(STRETCHES))] * int(rng.integers(90))
        alphabet = ODD if kind < 3 else "".join(map(chr, rng.choice(any_code, 30)))
        return "".join(rng.choice(list(alphabet), rng.integers(length)).tolist())

    return ["".join(piece() for _ in range(rng.integers(5))) for _ in range(count)]


def test_the_rules_are_versioned():
    assert list(SHINGLE_VERSIONS) == list(KINDS) and all(kind == rule.kind for kind, rule in KINDS.items())


def test_word_characters_are_those_of_python():
    table, word = word_characters(), re.compile(r"\w")
    for code in range(0x110000):
        assert bool(word.match(chr(code))) == (code < len(table) and table[code] > 0), hex(code)
        if code < len(table) and table[code]:
            lower = chr(code).lower()
            assert table[code] == (ord(lower) if len(lower) == 1 else code), hex(code)


def test_marks_beside_a_sigma_are_those_of_python():
    marks = sigma_marks()
    text = "".join(f"a{chr(code)}Σ\n\n{chr(code)}Σ\n" for code in range(0x110000)).replace("İ", "I").lower()
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    after_letter, after_nothing = codes[2::8] == ord("ς"), codes[6::8] == ord("ς")
    for code in range(0x110000):
        expected = 1 if after_nothing[code] else 2 if after_letter[code] else 0
        assert _mark.py_func(marks, code) == expected, hex(code)


@pytest.mark.parametrize("kind", KINDS)
def test_hashes_equal_the_scalar_rule(kind):
    for n in (1, 2, 3, 5, 8) if kind != "the-stack-v1" else (1,):
        shingling = Shingling(n, False, kind, KINDS[kind].minimum)
        texts = odd_texts(n, 400)
        assert sets(pa.array(texts, pa.large_string()), shingling) == [scalar_shingles(t, shingling) for t in texts]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.one_of(st.text(), st.text(ODD), st.text("aΣİ.é ")), max_size=5))
def test_hashes_of_any_texts_equal_the_scalar_rule(kind, texts):
    shingling = Shingling(1, False, kind)
    assert sets(pa.array(texts, pa.large_string()), shingling) == [scalar_shingles(t, shingling) for t in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_similarities_equal_those_of_python(kind):
    shingling = NearDedupOptions(shingles=kind, header_blind=False).shingling
    rng = np.random.default_rng(5)
    tokens = np.array(["a", "Bc", "_", "é", "(", " ", "\n  ", "İ", "Σ", "x" * 20])
    texts = [" ".join(rng.choice(tokens, 30, p=[0.55, *[0.05] * 9]).tolist()) for _ in range(60)] + odd_texts(1, 60, 12)
    texts += [text[: rng.integers(len(text) + 1)] + text[rng.integers(len(text) + 1) :] for text in texts]
    expected = [python_set(text, shingling) for text in texts]
    hashes, offsets = shingle_sets(pa.array(texts, pa.large_string()), shingling)
    assert np.diff(offsets).tolist() == [len(shingles) for shingles in expected]
    similarities = []
    for i, one in enumerate(expected):
        for j, other in enumerate(expected[:i]):
            similarities.append(len(one & other) / len(one | other) if one | other else 0.0)
            found = jaccard(hashes, offsets[i], offsets[i + 1], hashes, offsets[j], offsets[j + 1], 0.0)
            assert found == similarities[-1]
    assert sum(0 < similarity < 1 for similarity in similarities) > 500


@pytest.mark.parametrize("kind", KINDS)
def test_each_byte_that_is_not_utf8_separates(kind):
    shingling = Shingling(2 if kind != "the-stack-v1" else 1, False, kind)
    rng = np.random.default_rng(9)
    texts = []
    for text in odd_texts(2, 400, 12):
        data = np.frombuffer(text.encode(), np.uint8).copy()
        here = rng.random(len(data)) < 0.1
        data[here] = rng.integers(0, 256, int(here.sum()))  # in the middle of characters too
        texts.append(data.tobytes())
    assert sets(pa.array(texts, pa.large_binary()), shingling) == [scalar_bytes(text, shingling) for text in texts]


def scalar_bytes(text: bytes, shingling: Shingling) -> list[int]:
    return scalar_shingles(text.decode("utf-8", "surrogateescape"), shingling)


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_looks_like_utf8_separates(kind):
    """Overlong forms, surrogates, numbers above Unicode's, and characters that the end of a file or the next byte cuts."""
    shingling = Shingling(1, False, kind)
    bad = (b"\xff", b"\xc3", b"\xc3(", b"\xe4\xb8", b"\xf0\x9f\x98", b"\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf", b"\xc1\x81",
           b"\xe0\x81\x81", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x80\x81\x81", b"\xf4\x90\x80\x80", b"\xe4\xb8x")  # fmt: skip
    for part in bad:
        for text in (part, b"a b" + part + b"c d", b"a b c " + part, b"x" * 70 + part + b"\xce\xa3" + part):
            assert sets(pa.array([text], pa.large_binary()), shingling) == [scalar_bytes(text, shingling)], text
    cut = [b"a b c\xc3", b"\xa9 d e f"]  # a character that the end of a file cuts is not completed from the next file
    assert sets(pa.array(cut, pa.large_binary()), shingling) == [scalar_bytes(text, shingling) for text in cut]


def test_hashes_are_the_same_on_every_machine():
    assert sets(pa.array(["One two, THREE_4 fünf sechsundsechzigtausend"])) == [
        [5106403328337271898, 11069358439654746166, 18154824933075300575]]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_every_length_end_anywhere(kind):
    shingling = Shingling(1, False, kind)
    texts = [" " * at + "Ab3_" * 30 for at in range(70)] + ["Yz_4" * 40 + "é" * at for at in range(3)]
    texts += ["w" * length + "." + "w" * (length + 1) for length in range(150)]
    assert sets(pa.array(texts), shingling) == [scalar_shingles(text, shingling) for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_longer_than_a_block_lose_no_shingle(kind):
    shingling = Shingling(3 if kind != "the-stack-v1" else 1, False, kind)
    for words in (BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 3, 3 * BLOCK + 7):
        text = " ".join(f"w{i}" for i in range(words))
        assert sets(pa.array([text]), shingling) == [scalar_shingles(text, shingling)]


@pytest.mark.parametrize(("kind", "short", "enough"), [
    ("words", "a.b.c.d....", "a.b.c.d.e"),
    ("the-stack-v1", "a b c d e f g h i" + " " * 20, "a a a a a a a a a a"),
    ("santacoder", "a...", "...."),
    ("the-stack-v2", "a...", "a...."),
])  # fmt: skip
def test_files_of_too_few_tokens_have_no_shingles(kind, short, enough):
    shingling = NearDedupOptions(shingles=kind).shingling
    counts = [len(shingles) for shingles in sets(pa.array(["", short, enough, None, "\x00"]), shingling)]
    assert counts == [0, 0, 1, 0, 0]


def test_the_minimum_of_a_published_rule_stays_where_n_is_another():
    assert NearDedupOptions(shingles="santacoder", ngram=2).shingling == Shingling(2, False, "santacoder", 5)
    assert NearDedupOptions(shingles="words", ngram=7, header_blind=False).shingling == Shingling(7, False)
    assert NearDedupOptions(shingles="the-stack-v1", ngram=1, header_blind=True).shingling == Shingling(
        1, True, "the-stack-v1", 10
    )
    assert NearDedupOptions(shingles="santacoder", ngram=5) == NearDedupOptions(
        shingles="santacoder", header_blind=None
    )
    assert NearDedupOptions() == NearDedupOptions(ngram=None) and NearDedupOptions().header_blind is True
    with pytest.raises(RecipeError, match="single tokens"):
        NearDedupOptions(shingles="the-stack-v1", ngram=5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_is_left_out_stands_as_one_separator(kind):
    headers = ["// Copyright A\n", "/* licence */", "// spdx 1\n// more\n"]
    for before, after in (
        ("", "x y z w v u t s r q p"),
        ("/* other */\n", "a+b+c+d+e+f+g+h+i+j+k"),
        ("", " \n b c d e f g h i j k l"),
    ):
        for header in headers:
            plain, blind = Shingling(1, False, kind), Shingling(1, True, kind)
            assert sets(pa.array([before + header + after]), blind) == sets(pa.array([before + " " + after]), plain)
            assert sets(pa.array([before + header + after]), plain) != sets(pa.array([before + " " + after]), plain)


def test_tokens_are_counted_once_on_both_sides_of_a_header():
    texts = pa.array(["<?php/* licence */c d"])  # "", "", php, then c, d
    assert [len(sets(texts, Shingling(2, True, "santacoder", minimum))[0]) for minimum in (5, 6)] == [4, 0]


def test_slices_nulls_and_every_string_type_read_alike():
    texts = ["x", "a b c d", None, "a b c d e", "tail"]
    expected = [scalar_shingles(t or "") for t in texts[1:4]]
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()):
        given = [
            t if t is None or not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) else t.encode()
            for t in texts
        ]
        assert sets(pa.array(given, kind).slice(1, 3)) == expected, kind
        assert sets(pa.chunked_array([pa.array(given[:2], kind), pa.array(given[2:], kind)]).slice(1, 3)) == expected, (
            kind
        )
    assert sets(pa.array([None, None], pa.large_string())) == [[], []]
    assert sets(pa.array([], pa.large_string())) == []


@pytest.mark.parametrize("kind", FOLDED)
def test_a_line_of_twenty_megabytes(kind):
    """Each costs linear time, also where a sigma's form depends on what stands far away."""
    shingling = Shingling(2, False, kind)
    for unit, times in (
        ("var a,b=1;", 2_000_000),
        ("ΣΣ.", 4_000_000),
        ("é" * 5 + "'", 2_000_000),
        ("x" * 999 + " ", 20_000),
    ):
        assert sets(pa.array([unit * times], pa.large_string()), shingling) == [scalar_shingles(unit * 20, shingling)]
    for text in ("Ab1" * 700_000, "Aé" * 700_000, "a" + "'" * 2_000_000 + "Σ"):
        single = Shingling(1, False, kind)
        assert sets(pa.array([text], pa.large_string()), single) == [scalar_shingles(text, single)]


def test_a_file_of_more_shingles_than_a_run():
    """It has those of its parts that overlap by what lies between two n-grams."""
    words = np.random.default_rng(3).integers(0, 5 * RUN, 9 * RUN).astype(str).tolist()
    few = [str(number % 70_000) for number in range(9 * RUN)]
    for tokens in (words, few):
        whole = sets(pa.array(["a b c d", " ".join(tokens), "e f g"], pa.large_string()))
        parts = sets(
            pa.array([" ".join(tokens[at : at + 1002]) for at in range(0, len(tokens), 1000)], pa.large_string())
        )
        assert whole == [scalar_shingles("a b c d"), sorted(set().union(*parts)), scalar_shingles("e f g")]


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 1000, 5000, 1 << 18])
def test_sorting_survives_hashes_made_to_collide(count):
    """More than CROWD in one place go another way than the rest: were they inserted, a quarter of a million would take hours."""
    rng = np.random.default_rng(count)
    low = rng.integers(0, 1 << 20, count, dtype=np.uint64)
    uniform = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    crowd = rng.integers(0, 1 << (64 - FINEST), count, dtype=np.uint64)
    for values in (
        low,
        low | np.uint64(7 << 40),
        low << np.uint64(44),
        uniform,
        np.where(np.arange(count) % 5 == 0, uniform, crowd[::-1]),
        np.sort(crowd)[::-1].copy(),
        np.zeros(count, np.uint64),
        np.full(count, MASK, np.uint64),
        uniform[np.arange(count) % (CROWD + 3) % count],
    ):
        ordered, places = np.empty(count, np.uint64), np.empty(1 << FINEST, np.uint32)
        sort_hashes(values.copy(), count, ordered, places)
        assert ordered.tolist() == sorted(values.tolist())
        assert ordered[: drop_repeats(ordered, count, ordered)].tolist() == sorted(set(values.tolist()))


def test_four_million_hashes_made_to_collide_are_sorted():
    """Were they inserted, it would take hours."""
    count = 1 << 22
    for values in (
        np.arange(count, dtype=np.uint64)[::-1],
        (np.arange(count, dtype=np.uint64) * np.uint64(3))[::-1] << np.uint64(8),
    ):
        ordered, places = np.empty(count, np.uint64), np.empty(1 << FINEST, np.uint32)
        sort_hashes(values.copy(), count, ordered, places)
        assert np.array_equal(ordered, values[::-1])


MEMORY = """
import resource, sys
import numpy as np, pyarrow as pa
from stackbuild.dedup.options import Shingling
from stackbuild.dedup.shingles import shingle_sets
shingle_sets(pa.array(["a b c d e f"]), Shingling())
words = np.random.default_rng(0).integers(10**9, 10**10, 4_000_000).astype("S10").tobytes()
size = {size}
data = b" ".join(words[i:i + 10] for i in range(0, len(words), 10))
texts = pa.array([data[i:i + size].decode() for i in range(0, len(data), size)], pa.large_string())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
hashes, offsets = shingle_sets(texts, Shingling())
print(len(hashes) * 8 / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, hashes.flags.owndata and hashes.base is None)
"""


def test_a_batch_takes_little_more_memory_than_its_sets():
    """The result grows in place and is cut in place: its 31 MB are never there twice."""
    found = subprocess.run([sys.executable, "-c", MEMORY.format(size=5000)], capture_output=True, text=True, check=True)
    result, peak, owned = found.stdout.split()
    assert float(result) > 30_000 and owned == "True"
    assert float(peak) < 1.25 * float(result) + 8 * 1024


GUARDED = """
import ctypes, mmap
import pyarrow as pa
from stackbuild.dedup.options import Shingling
from stackbuild.dedup.shingles import shingle_sets
page = mmap.PAGESIZE
room = mmap.mmap(-1, 2 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(room))
assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start + page), page, 0) == 0
for kind in ("words", "the-stack-v1", "santacoder", "the-stack-v2"):
    for tail in (b"", b"a", b".", b"a b.", b"word_" * 5, b"\\xc3\\xa9", b"\\xe4\\xb8", b"\\xce\\xa3"):
        for size in (0, *range(1, 200, 3)):
            text = (b"one two_3 " * 20)[:size] + tail
            room[page - len(text):page] = text
            bounds = pa.py_buffer(b"".join(n.to_bytes(8, "little") for n in (0, len(text))))
            data = pa.foreign_buffer(start + page - len(text), len(text))
            shingle_sets(pa.Array.from_buffers(pa.large_binary(), 1, [None, bounds, data]), Shingling(1, False, kind))
print("read")
"""


def test_no_byte_behind_the_texts_is_read():
    """The page behind them may not be read: one byte too far ends the process."""
    found = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("read\n", 0), found.stderr
