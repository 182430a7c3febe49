"""The fast backend gives the ids of the `tokenizers` library, for every text and whatever it met before."""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from stackbuild.errors import InputError
from stackbuild.tokens import fast, fast_check
from stackbuild.tokens.bpe import Vocabulary, pre_tokenizer, train_bpe
from stackbuild.tokens.encode import Encoder
from stackbuild.tokens.fast import FastEncoder, alphabet, supports
from stackbuild.tokens.fast_check import HOSTILE, NAME, choose, verify
from stackbuild.tokens.fast_classes import DIGIT, LETTER, NUMBER, OTHER, SPACE, classes
from stackbuild.tokens.fast_merges import SHORT, merge_long, merge_short

KINDS = ("digits apart", "digits joined", "whole words", "whole words, few merges", "other sample")
Edit = Callable[[dict[str, Any]], None]


def change(source: Path, target: Path, *edits: Edit) -> Path:
    spec = json.loads(source.read_bytes())
    for edit in edits:
        edit(spec)
    target.write_text(json.dumps(spec))
    return target


def join_digits(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"] = spec["pre_tokenizer"]["pretokenizers"][1]


def whole_words(spec: dict[str, Any]) -> None:
    spec["model"]["ignore_merges"] = True


def few_merges(spec: dict[str, Any]) -> None:
    spec["model"]["merges"] = spec["model"]["merges"][:40]


@pytest.fixture(scope="module")
def paths(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fast")
    other = folder / "4.json"  # merges of several scripts, of white space, of contractions, and across apostrophes
    text = " don't we're naïve 數據處理數據 Ω≈ç√ ЖЖщю \u3000\u3000 \u00a0x ١٢٣ ½½ ==== \r\n\r\n    \t\t "
    text += "e\u0301e\u0301 \U0001f600\U0001f600 'll's''s"
    other.write_bytes(train_bpe([[text * 3, text[::-1] * 3, *HOSTILE] * 2], 900, ("<|endoftext|>",)))
    made = [
        tokenizer,
        change(tokenizer, folder / "1.json", join_digits),
        change(tokenizer, folder / "2.json", whole_words),
        change(tokenizer, folder / "3.json", join_digits, whole_words, few_merges),
        other,
    ]
    return dict(zip(KINDS, made, strict=True))


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, paths: dict[str, Path]) -> tuple[Vocabulary, FastEncoder]:
    vocabulary = Vocabulary(paths[request.param])
    return vocabulary, FastEncoder(vocabulary)


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Path) -> Vocabulary:
    return Vocabulary(tokenizer)


@pytest.fixture(scope="module")
def encoder(vocabulary: Vocabulary) -> FastEncoder:
    return FastEncoder(vocabulary)


def strings(texts: Sequence[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def split(ids: Any, offsets: Any) -> list[list[int]]:
    return [ids[start:end].tolist() for start, end in pairwise(offsets)]


def library(vocabulary: Vocabulary, texts: Sequence[str]) -> list[list[int]]:
    return [vocabulary.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


# ---------------------------------------------------------------- the same ids

PIECES = st.sampled_from(
    [*"'stmdrevl aZ_+=(.0\n\t\x00\x7f", "'s", "'ll", "'re", "  ", "    ", "\r\n", " " * 17, "=" * 20, "return", "self",
     "é", "e\u0301", "中", "數據", "Ж", "İ", "ß", "ﬁ", "ſ", "\u0085", "\u00a0", "\u1680", "\u180e", "\u200b", "\u2028", "\u3000", "\ufeff",
     "٣", "²", "½", "Ⅷ", "〇", "三", "\U0001d7ce", "\U00011de0", "\U0001f600", "\U0001f468\u200d\U0001f469", "\ud7ff", "\ue000", "\uffff",
     "\U0010ffff", "<fim_prefix>", "<|endoftext|>", "x" * 40, "ab" * 90]
)  # fmt: skip
TEXT = st.one_of(
    st.lists(PIECES, max_size=40).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.text("ab", max_size=200),
    st.text("' \nst1", max_size=90),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(TEXT, max_size=4))
def test_the_ids_are_those_of_the_library(pair: tuple[Vocabulary, FastEncoder], texts: list[str]) -> None:
    vocabulary, encoder = pair
    assert split(*encoder.encode(strings(texts))) == library(vocabulary, texts)


def test_hostile_strings_and_every_code_point(pair: tuple[Vocabulary, FastEncoder]) -> None:
    assert verify(pair[0], encoder=pair[1], points=0x3400) is None


def test_ids_do_not_depend_on_what_was_met_before(
    paths: dict[str, Path], rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [row["content"] for row in rows] + [f"{'w' * (k % 270)}{k * k} qzx{k}jv\n" for k in range(3000)]
    vocabulary = Vocabulary(paths["digits joined"])
    plain = FastEncoder(vocabulary)
    expected = split(*plain.encode(strings(texts)))
    assert plain._words.used[2] == 0
    for name, size in {"SETS": 2, "LONG_SETS": 2, "KEPT_BYTES": 600, "KEPT_IDS": 600, "GROUP": 100}.items():
        monkeypatch.setattr(fast, name, size)
    small = FastEncoder(vocabulary)
    assert split(*small.encode(strings(texts))) == expected == library(vocabulary, texts)
    assert small._words.used[2] > 10  # it was full, and emptied
    assert split(*small.encode(strings(texts[::-1]))) == expected[::-1]


def test_texts_are_strangers_to_their_neighbours(pair: tuple[Vocabulary, FastEncoder]) -> None:
    vocabulary, encoder = pair
    texts = [
        "a'",
        "s",
        "x '",
        "re",
        "a  ",
        " b",
        "",
        "'",
        "v",
        "e",
        "\n",
        "\n",
        "12",
        "34",
        "\u3000",
        "\u3000 x",
        "",
        "",
    ]
    for shift in range(64):  # every place in the 64 bytes that are looked at together
        some = ["y" * shift, *texts]
        assert split(*encoder.encode(strings(some))) == library(vocabulary, some)


def test_words_may_lie_anywhere_in_the_bytes_that_are_looked_at(pair: tuple[Vocabulary, FastEncoder]) -> None:
    vocabulary, encoder = pair
    middle = "'ll \u3000 a\u3000\u3000b'rex \U0001f600've \u0661x \n\n\u2028 é"
    texts = ["." * shift + middle for shift in range(66)]
    assert split(*encoder.encode(strings(texts))) == library(vocabulary, texts)


def test_literal_sentinels_are_text(vocabulary: Vocabulary, encoder: FastEncoder) -> None:
    text = "a<fim_prefix>b<|endoftext|><file_sep><EMAIL>"
    ids, _ = encoder.encode(strings([text]))
    assert not vocabulary.is_sentinel[ids].any()
    assert vocabulary.decode(ids.tolist()) == text


def test_golden_ids(tmp_path: Path) -> None:
    """A vocabulary that can be read: bytes have their own numbers, then five merges."""
    spec = {
        "model": {
            "type": "BPE",
            "vocab": {character: byte for byte, character in enumerate(alphabet())}
            | {"aa": 256, "Ġa": 257, "'s": 258, "ĠĠ": 259, "aab": 260},
            "merges": [["a", "a"], ["Ġ", "a"], ["'", "s"], ["Ġ", "Ġ"], ["aa", "b"]],
        },
        "pre_tokenizer": json.loads(pre_tokenizer().__getstate__()),
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    }
    (tmp_path / "t.json").write_text(json.dumps(spec))
    vocabulary = Vocabulary(tmp_path / "t.json")
    golden = {
        "aaa": [256, 97],  # equal ranks: leftmost first
        "aaab": [256, 97, 98],  # the lower rank first, though aab would fit
        "aaaab": [256, 260],
        "aab": [260],
        " a": [257],
        " aa": [32, 256],
        "   a": [259, 257],  # white space gives its last space to the word
        "a's": [97, 258],
        " 's": [32, 39, 115],  # no contraction behind a space
        "  1": [259, 49],  # before a digit, white space ends as at the end of a text
        "\n\na": [10, 10, 97],
        "é": [195, 169],
    }
    assert split(*FastEncoder(vocabulary).encode(strings(list(golden)))) == list(golden.values())
    assert library(vocabulary, list(golden)) == list(golden.values())


# ---------------------------------------------------------------- classes of characters


def of_the_library(points: Sequence[int]) -> Iterator[int]:
    """The class of each code point by the library's own words."""
    from tokenizers import pre_tokenizers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    digits = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str
    for point in points:
        kind = SPACE
        for before, which in (("a", LETTER), ("1", NUMBER), ("+", OTHER)):
            if len(words(before + chr(point))) == 1:
                kind = which
                break
        yield kind + (DIGIT if len(digits("a" + chr(point))) == 2 else 0)


def test_classes_of_the_first_code_points() -> None:
    points = [*range(0x2200), *range(0x3000, 0x3100), *range(0xFE00, 0x10000), 0x10FFFF]
    assert list(of_the_library(points)) == classes()[points].tolist()


@pytest.mark.slow
def test_classes_of_each_code_point() -> None:
    """One by one; `test_ids_of_every_code_point` looks at all planes by runs."""
    points = [point for point in range(0x20000) if not 0xD800 <= point < 0xE000]
    assert (np.fromiter(of_the_library(points), np.uint8, len(points)) == classes()[points]).all()


@pytest.mark.slow
def test_ids_of_every_code_point(tokenizer: Path) -> None:
    assert verify(Vocabulary(tokenizer)) is None


# ---------------------------------------------------------------- input as Arrow has it


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_slices_and_types_of_arrow(vocabulary: Vocabulary, encoder: FastEncoder, kind: Any) -> None:
    texts = ["skipped", "def f():", "", "  return 'x'\n", "é", "left out"]
    array = pa.array([text.encode() for text in texts], pa.binary()).cast(kind)
    ids, offsets = encoder.encode(array[1:-1])
    assert split(ids, offsets) == library(vocabulary, texts[1:-1])
    assert ids.dtype == np.uint16 and offsets.dtype == np.int64
    for empty in (array[:0], pa.array([], kind), pa.array(["", ""]).cast(kind)):
        ids, offsets = encoder.encode(empty)
        assert len(ids) == 0 and offsets.tolist() == [0] * (len(empty) + 1)


def test_nothing_is_read_behind_a_buffer(vocabulary: Vocabulary, encoder: FastEncoder) -> None:
    for size in range(1, 200, 7):
        data = ("ab'" * size)[:size].encode()
        buffers = [None, pa.py_buffer(np.array([0, size], np.int64).tobytes()), pa.py_buffer(data)]
        ids, _ = encoder.encode(pa.Array.from_buffers(pa.large_string(), 1, buffers))
        assert [ids.tolist()] == library(vocabulary, [data.decode()])


@pytest.mark.parametrize(
    "wrong",
    [b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80",
     b"\xe4\xb8", b"\xf0\x9f\x98", b"\xc3", b"\xff", b"\xe4\xb8\x41"],
)  # fmt: skip
def test_bytes_that_are_no_utf8_are_refused_by_number(
    encoder: FastEncoder, vocabulary: Vocabulary, wrong: bytes
) -> None:
    for fill in (0, 3, 61, 62, 63, 64):
        texts = [b"fine", b"a" * fill + wrong, b"\xc3\xa9 fine"]
        with pytest.raises(InputError, match=rf"text 1: no UTF-8 at its byte {fill}\b"):
            encoder.encode(pa.array(texts, pa.large_binary()))
        array = pa.Array.from_buffers(pa.large_string(), 3, pa.array(texts, pa.large_binary()).buffers())
        with pytest.raises(InputError, match="UTF-8"):
            Encoder(vocabulary).encode_array(array)


def test_a_character_cut_by_the_end_of_its_text_is_refused(encoder: FastEncoder) -> None:
    with pytest.raises(InputError, match="text 1: no UTF-8"):  # the continuation stands in the next text
        encoder.encode(pa.array([b"a\xc3", b"\xa9b"], pa.large_binary()))


def test_null_is_no_text(encoder: FastEncoder, vocabulary: Vocabulary) -> None:
    for one in (encoder.encode, Encoder(vocabulary).encode_array):
        with pytest.raises(ValueError, match="null"):
            one(pa.array(["a", None], pa.large_string()))


# ---------------------------------------------------------------- merges

WORDS = st.text("abcdefgh", min_size=1, max_size=SHORT)


@settings(max_examples=300, deadline=None)
@given(st.one_of(WORDS, st.text("ab", min_size=1, max_size=SHORT), st.text("=-", min_size=1, max_size=SHORT)))
def test_short_and_long_words_are_merged_alike(pair: tuple[Vocabulary, FastEncoder], word: str) -> None:
    model = pair[1]._model
    data = np.frombuffer(word.encode(), np.uint8)
    ids, ranks = np.zeros(SHORT + 1, np.int32), np.zeros(SHORT + 1, np.uint64)
    count = merge_short(data, 0, len(word), model.byte_ids, model.pairs, ids, ranks)
    long = merge_long(data, 0, len(word), model.byte_ids, model.token_bytes, model.pairs)
    assert ids[:count].tolist() == long.tolist()


@settings(max_examples=60, deadline=None)
@given(st.text("abceil", min_size=SHORT, max_size=9000))
def test_long_words_have_the_ids_of_the_library(pair: tuple[Vocabulary, FastEncoder], word: str) -> None:
    vocabulary, encoder = pair
    assert split(*encoder.encode(strings([word]))) == library(vocabulary, [word])


@pytest.mark.slow
def test_a_word_of_20_megabytes(vocabulary: Vocabulary, encoder: FastEncoder) -> None:
    """Neither its time nor its memory grows with the square; near its beginning nothing knows how long it is."""
    rng = np.random.default_rng(0)
    word = bytes(
        np.frombuffer(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8)[
            rng.integers(0, 52, 20_000_000)
        ]
    )
    ids, _ = encoder.encode(pa.array([word], pa.large_binary()))
    assert vocabulary.decode(ids.tolist()).encode() == word
    (beginning,) = library(vocabulary, [word[:50_000].decode()])
    assert ids[: len(beginning) - 20].tolist() == beginning[:-20]


@pytest.mark.slow
def test_a_document_of_200_megabytes(vocabulary: Vocabulary, encoder: FastEncoder) -> None:
    page = "".join(f"def f{k}(x):\n    return 'é' + {k} * x  # don't\n" for k in range(20_000))
    (ids,) = library(vocabulary, [page])
    times = 200_000_000 // len(page.encode())
    found, offsets = encoder.encode(strings([page * times]))
    assert offsets.tolist() == [0, times * len(ids)]
    assert (found.reshape(times, -1) == np.array(ids)).all()


def files_of_this_machine(budget: int) -> Iterator[str]:
    """Texts of the standard library, of site-packages and of /usr/share/doc, so many bytes in all, drawn by their names."""
    folders = [
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        "/usr/share/doc",
        "/usr/share/common-licenses",
    ]
    kinds = {".py", ".pyi", ".txt", ".md", ".rst", ".c", ".h", ".js", ".css", ".html", ".json", ".toml", ""}
    found = {path for folder in folders for path in Path(folder).rglob("*") if path.suffix in kinds and path.is_file()}
    for path in sorted(found, key=lambda path: hashlib.sha1(str(path).encode("utf-8", "replace")).digest()):
        if path.stat().st_size < 300_000:
            try:
                text = path.read_bytes().decode()
            except (UnicodeDecodeError, OSError):
                continue
            budget -= len(text)
            yield text
        if budget < 0:
            return


@pytest.mark.slow
def test_every_file_of_a_corpus_has_the_ids_of_the_library(tmp_path: Path) -> None:
    """A vocabulary of the usual size on 120 MB of files, which are some 20,000."""
    texts = files_of_this_machine(120_000_000)
    sample = list(islice(texts, 2_000))
    (tmp_path / "t.json").write_bytes(train_bpe([sample], 49_152, ("<|endoftext|>", "<fim_prefix>")))
    vocabulary = Vocabulary(tmp_path / "t.json")
    encoder = FastEncoder(vocabulary)
    compared = 0
    batch = sample
    while batch:
        ids, offsets = encoder.encode(strings(batch))
        expected = vocabulary.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        for text, (start, end), encoding in zip(batch, pairwise(offsets), expected, strict=True):
            assert np.array_equal(ids[start:end], encoding.ids), text[:200]
        compared += len(batch)
        batch = list(islice(texts, 256))
    assert compared > 5_000


# ---------------------------------------------------------------- what is not supported


def normalized(spec: dict[str, Any]) -> None:
    spec["normalizer"] = {"type": "NFC"}


def prefixed(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True


def otherwise_cut(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"]["pretokenizers"][0] = {"type": "Digits", "individual_digits": False}


def dropping(spec: dict[str, Any]) -> None:
    spec["model"]["dropout"] = 0.1


def suffixed(spec: dict[str, Any]) -> None:
    spec["model"]["end_of_word_suffix"] = "</w>"


def without_a_byte(spec: dict[str, Any]) -> None:
    spec["model"]["merges"] = []
    spec["model"]["vocab"] = {token: number for token, number in spec["model"]["vocab"].items() if token != "ÿ"}


def sentinel_by_merge(spec: dict[str, Any]) -> None:
    left, right = spec["model"]["merges"][0]
    name = left + right
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec["added_tokens"].append(token | {"id": spec["model"]["vocab"][name], "content": name})


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (normalized, "normalizer"),
        (prefixed, "GPT-2"),
        (otherwise_cut, "GPT-2"),
        (dropping, "at random"),
        (suffixed, "suffix"),
        (without_a_byte, "no token for some byte"),
        (sentinel_by_merge, "can become its sentinel"),
    ],
)
def test_what_is_not_supported_says_why(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, reason: str
) -> None:
    monkeypatch.setattr("stackbuild.tokens.bpe.PROBE", "")  # some of them would be refused before
    other = Vocabulary(change(tokenizer, tmp_path / "t.json", edit))
    assert reason in str(supports(other))
    with pytest.raises(ValueError, match=reason):
        FastEncoder(other)
    record = choose(other, "auto")
    assert record["backend"].startswith("tokenizers-") and reason in record["reason"]
    with pytest.raises(InputError, match=reason):
        choose(other, "fast")


def test_a_word_that_is_a_sentinel_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    def edit(spec: dict[str, Any]) -> None:
        spec["model"]["vocab"]["Sentinel"] = 600
        token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        spec["added_tokens"].append(token | {"id": 600, "content": "Sentinel"})

    vocabulary = Vocabulary(change(tokenizer, tmp_path / "t.json", whole_words, edit))
    for backend in (NAME, "tokenizers"):
        with pytest.raises(InputError, match="becomes the sentinel Sentinel"):
            Encoder(vocabulary, backend).encode_array(strings(["x", " Sentinels", "\nSentinel"]))


# ---------------------------------------------------------------- the choice


def test_the_choice_is_recorded_with_its_reason(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "__kwdefaults__", {"encoder": None, "points": 0x400})
    assert choose(vocabulary, "auto") == choose(vocabulary, "fast") == {"backend": NAME, "reason": None}
    library = choose(vocabulary, "tokenizers")
    assert library == {"backend": fast_check.backend_name(), "reason": "the recipe asks for tokenizers"}


def test_a_difference_in_ids_is_found(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = FastEncoder(vocabulary)
    broken._model.byte_ids[ord("q")] += 1
    text = "a text with a q"
    assert "other ids for text" in str(verify(vocabulary, encoder=broken, points=0x400))
    monkeypatch.setattr(fast_check, "HOSTILE", ())
    assert verify(vocabulary, [text], encoder=broken, points=0x20) is not None
    assert repr(text)[:20] in str(verify(vocabulary, [text], encoder=broken, points=0x20))


@pytest.mark.parametrize("point", [0xAA, 0xB2, 0x85, 0x2044])
@pytest.mark.parametrize("kind", [LETTER, OTHER, SPACE, NUMBER, NUMBER | DIGIT])
def test_a_character_of_another_class_is_found(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch, point: int, kind: int
) -> None:
    wrong = classes()
    if wrong[point] == kind:
        return
    wrong[point] = kind
    monkeypatch.setattr(fast_check, "classes", lambda: wrong)
    apart = fast_check._wrong_class(Vocabulary(paths["digits apart"]), 0x3000)
    joined = fast_check._wrong_class(Vocabulary(paths["digits joined"]), 0x3000)
    assert apart is not None or joined is not None
    first, last = (int(end.removeprefix("U+"), 16) for end in str(apart or joined).split(" to "))
    assert first <= point <= last


def test_a_run_begun_with_another_backend_is_not_gone_on_with(vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match="begun with stackbuild-0"):
        Encoder(vocabulary, "stackbuild-0")


def test_both_backends_have_one_face(vocabulary: Vocabulary) -> None:
    texts = [*HOSTILE, "x = 1\n" * 50]
    ours, theirs = Encoder(vocabulary, NAME), Encoder(vocabulary)
    for mine, other in zip(ours.encode_array(strings(texts)), theirs.encode_array(strings(texts)), strict=True):
        assert mine.dtype == other.dtype and mine.tolist() == other.tolist()
    for one, two in zip(ours.encode(texts), theirs.encode(texts), strict=True):
        assert one.dtype == two.dtype == np.int32 and one.tolist() == two.tolist()
    assert ours.encode([]) == theirs.encode([]) == []


def test_a_library_of_another_order_of_merges_is_the_later_one(tokenizer: Path, tmp_path: Path) -> None:
    """A merge that is listed twice counts at its second place; older files write a merge as one string."""

    def edit(spec: dict[str, Any]) -> None:
        merges = spec["model"]["merges"]
        spec["model"]["merges"] = [" ".join(merge) for merge in [*merges, merges[0]]]

    other = Vocabulary(change(tokenizer, tmp_path / "t.json", edit))
    assert Tokenizer.from_file(str(tmp_path / "t.json"))
    assert verify(other, points=0x400) is None
    assert sys.byteorder == "little"
