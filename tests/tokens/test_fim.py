"""Fill-in-the-middle on single fragments: nothing is lost, and all tokens are those of the library for each part."""

from __future__ import annotations

import hashlib
import json
import random
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.errors import InputError
from stackbuild.tokens import fim
from stackbuild.tokens.bpe import Vocabulary, pre_tokenizer, train_bpe
from stackbuild.tokens.encode import LIBRARY, Encoder
from stackbuild.tokens.fast import NAME, alphabet
from stackbuild.tokens.fast_check import HOSTILE
from stackbuild.tokens.fim import Infiller, draws, sentinel_ids
from stackbuild.tokens.fim_kernels import NOT_IDENTITY, NOT_TEXT, NOT_UTF8, OUTGROWN, SHORT, TREATED
from stackbuild.tokens.fim_options import FimOptions
from stackbuild.tokens.fim_types import CODES, SPM, Draws, Treated

KINDS = ("digits apart", "digits joined", "whole words", "other sample")
ROOM = 1 << 20
ALL = FimOptions(min_characters=0)
SENTINELS = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")


@pytest.fixture(scope="module")
def paths(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fim")
    joined, whole = (json.loads(tokenizer.read_bytes()) for _ in range(2))
    joined["pre_tokenizer"] = joined["pre_tokenizer"]["pretokenizers"][1]
    whole["model"]["ignore_merges"] = True
    (folder / "1.json").write_text(json.dumps(joined))
    (folder / "2.json").write_text(json.dumps(whole))
    text = " don't we're naïve 數據處理數據 Ω≈ç√ ЖЖщю \u3000\u3000 \u00a0x ١٢٣ ½½ ==== \r\n\r\n    \t\t 'll's''s e\u0301e\u0301"
    (folder / "3.json").write_bytes(train_bpe([[text * 3, text[::-1] * 3, *HOSTILE] * 2], 900, SENTINELS))
    return dict(zip(KINDS, [tokenizer, *(folder / f"{k}.json" for k in (1, 2, 3))], strict=True))


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest, paths: dict[str, Path]) -> Encoder:
    return Encoder(Vocabulary(paths[request.param]), NAME)


@pytest.fixture(scope="module")
def plain(tokenizer: Path) -> Encoder:
    return Encoder(Vocabulary(tokenizer), NAME)


def encoded(encoder: Encoder, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    pieces = encoder.encode_array(pa.array(texts, pa.large_string()))
    return pieces.ids, pieces.offsets


def draw_of(place: int, characters: int) -> int:
    """Bits that cut at a place."""
    return -(-(place << 64) // (characters + 1))


def at(places: Sequence[tuple[int, int]], texts: Sequence[str], spm: Sequence[bool]) -> Draws:
    """Draws that cut texts at these places."""
    first, second = (
        np.array([draw_of(place[k], len(text)) for place, text in zip(places, texts, strict=True)], np.uint64)
        for k in (0, 1)
    )
    coins = np.where(np.array(spm, np.bool_), np.uint64(0), np.uint64(2**64 - 1)).astype(np.uint64)
    return Draws(first, second, coins, np.zeros(len(texts), np.uint64))


def fragment(done: Treated, k: int) -> list[int]:
    return done.ids[done.offsets[k] : done.offsets[k + 1]].tolist()


def parts(ids: Sequence[int], sentinels: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Prefix, suffix and middle as they are written."""
    prefix, suffix, middle = (ids.index(sentinel) for sentinel in sentinels)
    assert prefix == 0 < suffix < middle
    return ids[1:suffix], ids[suffix + 1 : middle], ids[middle + 1 :]


def expected(vocabulary: Vocabulary, text: str, places: tuple[int, int], spm: bool) -> list[int]:
    """By the library, which encodes each part whole."""

    def encode(part: str) -> list[int]:
        return vocabulary.tokenizer.encode(part, add_special_tokens=False).ids

    prefix, suffix, middle = (vocabulary.sentinels[name] for name in ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"))
    first, second = sorted(places)
    if spm:
        return [prefix, suffix, *encode(text[second:]), middle, *encode(text[:second])]
    return [prefix, *encode(text[:first]), suffix, *encode(text[second:]), middle, *encode(text[first:second])]


# ---------------------------------------------------------------- what a fragment becomes


@pytest.fixture(scope="module")
def readable(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """Bytes have their own numbers; five merges; sentinels from 300 on."""
    spec = {
        "added_tokens": [
            {"id": 300 + k, "content": name, "special": True, "normalized": False, "single_word": False, "lstrip": False, "rstrip": False}
            for k, name in enumerate(SENTINELS)
        ],
        "model": {
            "type": "BPE",
            "vocab": {character: byte for byte, character in enumerate(alphabet())}
            | {"aa": 256, "Ġa": 257, "'s": 258, "ĠĠ": 259, "aab": 260}
            | {name: 300 + k for k, name in enumerate(SENTINELS)},
            "merges": [["a", "a"], ["Ġ", "a"], ["'", "s"], ["Ġ", "Ġ"], ["aa", "b"]],
        },
        "pre_tokenizer": json.loads(pre_tokenizer().__getstate__()),
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("readable") / "t.json"
    path.write_text(json.dumps(spec))
    return Encoder(Vocabulary(path), NAME)


PRE, MID, SUF = 301, 302, 303


def test_golden_psm_and_spm(readable: Encoder) -> None:
    """By hand: "aab aab" is aab, then space, aab ("aa" merges before " a")."""
    golden = {
        (1, 3, False): [PRE, 97, SUF, 32, 260, MID, 97, 98],
        (1, 3, True): [PRE, SUF, 32, 260, MID, 260],  # "a" and "ab" are one text
        (3, 4, False): [PRE, 260, SUF, 260, MID, 32],
        (3, 5, False): [PRE, 260, SUF, 97, 98, MID, 257],
        (0, 0, False): [PRE, SUF, 260, 32, 260, MID],
        (7, 7, False): [PRE, 260, 32, 260, SUF, MID],
        (0, 7, False): [PRE, SUF, MID, 260, 32, 260],
        (4, 4, True): [PRE, SUF, 260, MID, 260, 32],
    }
    ids, _ = encoded(readable, ["aab aab"])
    assert ids.tolist() == [260, 32, 260]
    infiller = Infiller(readable, ALL)
    for (first, second, spm), wanted in golden.items():
        for places in ((first, second), (second, first)):  # cuts are sorted
            bits = at([places], ["aab aab"], [spm])
            found, code = infiller.treat(ids, *(int(bit[0]) for bit in bits[:3]), ROOM)
            assert (code, None if found is None else found.tolist()) == (TREATED, wanted)


TEXT = st.one_of(
    st.lists(
        st.sampled_from(
            [*"'stmdrevl aZ_+=(.0\n\t\x00", "'s", "'ll", "'re", "  ", "    ", "\r\n", " " * 17, "=" * 20, "return", "é", "e\u0301", "數據",
             "\u0085", "\u00a0", "\u2028", "\u3000", "\ufeff", "٣", "½", "〇", "\U00011de0", "\U0001f468\u200d\U0001f469", "\ufffd",
             "<fim_middle>", "x" * 40, "ab" * 90]
        ),
        max_size=30,
    ).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.text("' \nst1", max_size=90),
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(TEXT, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.booleans()), max_size=5))
def test_tokens_are_those_of_the_library_for_each_part(
    encoder: Encoder, some: list[tuple[str, int, int, bool]]
) -> None:
    texts = [text for text, *_ in some]
    places = [((a * (len(text) + 1)) >> 64, (b * (len(text) + 1)) >> 64) for text, a, b, _ in some]
    spm = [spm for *_, spm in some]
    for check in (False, True):
        done = Infiller(encoder, ALL, check=check).treat_many(*encoded(encoder, texts), at(places, texts, spm), ROOM)
        assert not done.codes.any()
        for k, text in enumerate(texts):
            assert fragment(done, k) == expected(encoder.vocabulary, text, places[k], spm[k])


def test_every_cut_of_hostile_strings(encoder: Encoder) -> None:
    for whole in (*HOSTILE[:13], "a''s'sx  \n \t12 3'll'", "x" * 70 + "  \n" + "\u3000" * 30):
        text = whole[:90]
        places = [(cut, len(text)) for cut in range(len(text) + 1)] + [(cut, cut + 1) for cut in range(len(text))]
        texts = [text] * len(places)
        spm = [k % 3 == 0 for k in range(len(places))]
        done = Infiller(encoder, ALL).treat_many(*encoded(encoder, texts), at(places, texts, spm), ROOM)
        assert not done.codes.any()
        for k in range(len(places)):
            assert fragment(done, k) == expected(encoder.vocabulary, text, places[k], spm[k])


UNITS = [
    *HOSTILE[1:], "def f(x):\n    return x + 1\n", "\r\n", "數據處理", "\U0001f600", "é", "    ", "\n\n\n", "don't", "'s",
    "0123", "ЖЖ щ", "\t",
]  # fmt: skip


def generated(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [
        "".join(rng.choices(UNITS, k=rng.randrange(1, 8)))[: rng.randrange(10, 300)].ljust(10) for _ in range(count)
    ]


def test_ten_thousand_treated_fragments_are_their_texts_again(plain: Encoder) -> None:
    texts = generated(10_000, 1)
    ids, offsets = encoded(plain, texts)
    done = Infiller(plain).treat_many(ids, offsets, draws(5, 0, np.arange(10_000), 0), ROOM)
    assert not done.codes.any()
    sentinels = Infiller(plain).sentinels.tolist()
    for k, text in enumerate(texts):
        found = fragment(done, k)
        prefix, suffix, middle = (plain.vocabulary.decode(part) for part in parts(found, sentinels))
        assert prefix + middle + suffix == text
        if done.kinds[k] & SPM:
            assert prefix == ""
    assert done.tokens == len(done.ids) - 30_000


def test_literal_sentinels_stay_letters(plain: Encoder) -> None:
    text = "a<fim_prefix>b<fim_suffix>c<fim_middle>d<|endoftext|>"
    for first in range(len(text)):
        bits = at([(first, min(first + 7, len(text)))], [text], [first % 2 == 0])
        done = Infiller(plain).treat_many(*encoded(plain, [text]), bits, ROOM)
        assert plain.vocabulary.is_sentinel[done.ids].sum() == 3


def test_sentinels_of_santacoder_are_found_and_others_are_missed(tmp_path: Path) -> None:
    hyphens = ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
    (tmp_path / "s.json").write_bytes(train_bpe([["some text " * 9]], 300, hyphens))
    assert sentinel_ids(Vocabulary(tmp_path / "s.json")) == (1, 3, 2)
    (tmp_path / "t.json").write_bytes(train_bpe([["some text " * 9]], 300, hyphens[:2]))
    with pytest.raises(InputError, match=r"t\.json has no special tokens <fim_prefix>.*rate of fill-in-the-middle"):
        Infiller(Encoder(Vocabulary(tmp_path / "t.json"), NAME))


# ---------------------------------------------------------------- draws


def test_cuts_are_uniform_over_the_places_between_characters(plain: Encoder) -> None:
    text = "é數\U0001f600 ab\r\n x"
    count = 20_000
    ids, offsets = encoded(plain, [text] * count)
    infiller = Infiller(plain, FimOptions(spm_rate=0))
    done = infiller.treat_many(ids, offsets, draws(3, 1, np.arange(count), 2), ROOM)
    sentinels, decode = infiller.sentinels.tolist(), plain.vocabulary.decode
    seen = np.zeros((len(text) + 1, len(text) + 1), np.int64)
    for k in range(count):
        prefix, suffix, _ = (decode(part) for part in parts(fragment(done, k), sentinels))
        seen[len(prefix), len(text) - len(suffix)] += 1
    places = len(text) + 1
    chances = np.triu(np.full((places, places), 2 / places**2), 1) + np.diag(np.full(places, 1 / places**2))
    wanted = chances * count
    assert seen[wanted == 0].sum() == 0
    excess = ((seen - wanted)[wanted > 0] ** 2 / wanted[wanted > 0]).sum() - (places * (places + 1) / 2 - 1)
    assert abs(excess) < 4 * (places * (places + 1)) ** 0.5


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
def test_spm_has_its_rate(plain: Encoder, rate: float) -> None:
    count = 4_000
    ids, offsets = encoded(plain, ["some text to cut"] * count)
    done = Infiller(plain, FimOptions(spm_rate=rate)).treat_many(ids, offsets, draws(4, 0, 7, np.arange(count)), ROOM)
    spm = int((done.kinds & SPM).astype(np.bool_).sum())
    assert abs(spm - rate * count) <= 3 * (count * rate * (1 - rate)) ** 0.5


def test_a_fragment_does_not_depend_on_its_neighbours(plain: Encoder) -> None:
    texts = [*generated(60, 2), "", "short", *generated(5, 3)]
    ids, offsets = encoded(plain, texts)
    bits = draws(1, 0, np.arange(len(texts)), 0)
    infiller = Infiller(plain)
    together = infiller.treat_many(ids, offsets, bits, 11)
    order = np.random.default_rng(0).permutation(len(texts))
    other = infiller.treat_many(*encoded(plain, [texts[k] for k in order]), Draws(*(bit[order] for bit in bits)), 11)
    for place, k in enumerate(order):
        assert fragment(other, place) == fragment(together, k) and other.codes[place] == together.codes[k]
        alone, code = infiller.treat(ids[offsets[k] : offsets[k + 1]], *(int(bit[k]) for bit in bits[:3]), 11)
        assert code == together.codes[k]
        if code == TREATED:
            assert alone is not None and alone.tolist() == fragment(together, k)


# ---------------------------------------------------------------- what is left alone


def test_a_fragment_that_is_cut_in_a_character_is_left_alone(plain: Encoder) -> None:
    ids, offsets = encoded(plain, ["before, a text", "words and \U0001f600", "after, a text"])
    lengths = [len(plain.vocabulary.tokenizer.id_to_token(int(token))) for token in ids[offsets[1] : offsets[2]]]
    assert lengths[-4:] == [1, 1, 1, 1]  # bytes
    ids = np.delete(ids, offsets[2] - 1)
    offsets = offsets - np.array([0, 0, 1, 1])
    for check in (False, True):
        done = Infiller(plain, check=check).treat_many(ids, offsets, draws(1, 0, np.arange(3), 0), ROOM)
        assert done.codes.tolist() == [TREATED, NOT_UTF8, TREATED]
        assert fragment(done, 1) == ids[offsets[1] : offsets[2]].tolist()
        assert done.kinds[1] == 0


def test_what_is_no_text_is_left_alone(plain: Encoder) -> None:
    ids, _ = encoded(plain, ["a text of some length"])
    ids = ids.astype(np.int32)
    for wrong in (plain.vocabulary.sentinels["<fim_pad>"], plain.vocabulary.size, 2**31 - 1, -1):
        for place in (0, 3, len(ids)):
            some = np.insert(ids, place, wrong)
            both = np.concatenate([ids, some, ids])
            offsets = np.cumsum([0, len(ids), len(some), len(ids)])
            done = Infiller(plain).treat_many(both, offsets, draws(1, 0, np.arange(3), 0), ROOM)
            assert done.codes.tolist() == [TREATED, NOT_TEXT, TREATED]
            assert fragment(done, 1) == some.tolist()


def test_short_texts_are_left_alone(plain: Encoder) -> None:
    texts = ["", "a", "é" * 9, "é" * 10, "123456789", "1234567890"]
    done = Infiller(plain).treat_many(*encoded(plain, texts), draws(1, 0, np.arange(6), 0), ROOM)
    assert done.codes.tolist() == [SHORT, SHORT, SHORT, TREATED, SHORT, TREATED]


def test_tokens_that_the_tokenizer_would_not_give_are_left_alone(readable: Encoder) -> None:
    """aab as a, a, b is found by the check alone, but a token that a cut would break always."""
    text = [97, 97, 98, 32, 97, 97, 98]
    bits = (draw_of(1, 7), draw_of(5, 7), 2**64 - 1)
    assert Infiller(readable, ALL).treat(np.array(text, np.uint16), *bits, ROOM) == (None, NOT_IDENTITY)
    assert Infiller(readable, ALL, check=False).treat(np.array(text, np.uint16), *bits, ROOM)[1] == TREATED
    across = [97, 259, 97, 32, 32, 97]  # "a  a  a": the words are a, space, " a", space, " a"
    for check in (False, True):
        infiller = Infiller(readable, ALL, check=check)
        cut = draw_of(2, 7)
        assert infiller.treat(np.array(across, np.uint16), cut, cut, 2**64 - 1, ROOM) == (None, NOT_IDENTITY)


def test_a_fragment_that_outgrows_its_room_stays_and_is_told(plain: Encoder) -> None:
    texts = generated(300, 4)
    ids, offsets = encoded(plain, texts)
    bits = draws(9, 0, np.arange(300), 0)
    infiller = Infiller(plain)
    free = infiller.treat_many(ids, offsets, bits, ROOM)
    growth = np.diff(free.offsets) - np.diff(offsets)
    assert growth.min() < 3 < growth.max()  # parts may merge otherwise, and better
    exact = infiller.treat_many(ids, offsets, bits, growth)
    assert exact.ids.tolist() == free.ids.tolist()
    less = growth - (np.arange(300) % 2)
    tight = infiller.treat_many(ids, offsets, bits, less)
    assert tight.codes.tolist() == [OUTGROWN if k % 2 else TREATED for k in range(300)]
    for k in range(300):
        assert fragment(tight, k) == (ids[offsets[k] : offsets[k + 1]].tolist() if k % 2 else fragment(free, k))
    by_options = infiller.treat_many(ids, offsets, bits, infiller.options.room)
    assert (by_options.codes == OUTGROWN).tolist() == (growth > 3 + 8).tolist()
    assert set(CODES) == set(range(6))


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_slices_types_and_read_only_arrays(plain: Encoder, dtype: Any, tmp_path: Path) -> None:
    texts = generated(20, 6)
    ids, offsets = encoded(plain, texts)
    bits = draws(2, 0, np.arange(20), 0)
    wanted = Infiller(plain).treat_many(ids, offsets, bits, 11)
    wide = np.zeros((len(ids) + 7, 2), dtype)
    wide[5:-2, 1] = ids
    wide.flags.writeable = False
    done = Infiller(plain).treat_many(wide[:, 1], offsets + 5, bits, 11)
    assert done.ids.dtype == dtype and done.ids.tolist() == wanted.ids.tolist()
    assert done.offsets.tolist() == wanted.offsets.tolist()
    mapped = np.memmap(tmp_path / "ids", dtype, "w+", shape=ids.shape)
    mapped[:] = ids
    assert Infiller(plain).treat_many(mapped, offsets, bits, 11).ids.tolist() == wanted.ids.tolist()
    part = Infiller(plain).treat_many(wide[:, 1], offsets[7:12] + 5, Draws(*(bit[7:11] for bit in bits)), 11)
    assert part.ids.tolist() == wanted.ids[wanted.offsets[7] : wanted.offsets[11]].tolist()


def test_nothing_in_nothing_out(plain: Encoder) -> None:
    none = np.zeros(0, np.uint16)
    done = Infiller(plain).treat_many(none, np.zeros(1, np.int64), draws(1, 0, np.zeros(0, np.uint64), 0), 11)
    assert done.ids.tolist() == done.codes.tolist() == [] and done.offsets.tolist() == [0]
    done = Infiller(plain, ALL).treat_many(none, np.zeros(4, np.int64), draws(1, 0, np.arange(3), 0), 11)
    assert [fragment(done, k) for k in range(3)] == [Infiller(plain).sentinels.tolist()] * 3


def test_arrays_that_do_not_fit_are_refused(plain: Encoder) -> None:
    infiller, ids, bits = Infiller(plain), np.zeros(9, np.uint16), draws(1, 0, np.arange(2), 0)
    for wrong in ([], [0, 5, 4], [0, 5, 10], [-1, 5, 9]):
        with pytest.raises(ValueError, match="offsets rise"):
            infiller.treat_many(ids, np.array(wrong, np.int64), bits, 11)
    with pytest.raises(ValueError, match="1 fragments have 1 draws"):
        infiller.treat_many(ids, np.array([0, 9]), bits, 11)
    with pytest.raises(ValueError, match="uint16 or int32, not int64"):
        infiller.treat_many(ids.astype(np.int64), np.array([0, 5, 9]), bits, 11)


def test_a_sentinel_that_does_not_fit_the_type_is_refused(plain: Encoder) -> None:
    infiller = Infiller(plain)
    infiller.sentinels = np.array([70_000, 1, 2])
    with pytest.raises(InputError, match="does not fit uint16"):
        infiller.treat(np.zeros(9, np.uint16), 0, 0, 0, 11)


def test_more_words_than_expected_find_room(plain: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = generated(50, 9)
    bits = draws(2, 0, np.arange(50), 0)
    wanted = Infiller(plain).treat_many(*encoded(plain, texts), bits, ROOM)
    monkeypatch.setattr(fim, "PIECES", 0)
    assert Infiller(plain).treat_many(*encoded(plain, texts), bits, ROOM).ids.tolist() == wanted.ids.tolist()


# ---------------------------------------------------------------- the library, and files


def test_the_library_backend_gives_the_same(encoder: Encoder) -> None:
    texts = [*HOSTILE, *generated(150, 8)]
    ids, offsets = encoded(encoder, texts)
    ids = np.concatenate([ids, np.array([encoder.vocabulary.sentinels["<fim_pad>"]] * 12), ids[:3]]).astype(np.uint16)
    emoji, _ = encoded(encoder, ["words \U0001f600"])
    ids = np.concatenate([ids, emoji[:-1]]).astype(np.uint16)
    offsets = np.append(offsets, [len(ids) - len(emoji) + 1, len(ids)])
    bits = draws(6, 0, np.arange(len(offsets) - 1), 0)
    library = Encoder(encoder.vocabulary, LIBRARY)
    for room in (4, ROOM):
        fast = Infiller(encoder).treat_many(ids, offsets, bits, room)
        slow = Infiller(library).treat_many(ids, offsets, bits, room)
        assert slow.codes.tolist() == fast.codes.tolist()
        assert slow.kinds.tolist() == fast.kinds.tolist()
        assert slow.ids.tolist() == fast.ids.tolist() and slow.ids.dtype == fast.ids.dtype
        assert slow.offsets.tolist() == fast.offsets.tolist() and slow.tokens == fast.tokens


def files_of_this_machine(budget: int) -> Iterator[str]:
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/usr/share/doc"]
    kinds = {".py", ".pyi", ".txt", ".md", ".rst", ".c", ".h", ".js", ".css", ".html", ".json", ".toml", ""}
    found = {path for folder in folders for path in Path(folder).rglob("*") if path.suffix in kinds and path.is_file()}
    for path in sorted(found, key=lambda path: hashlib.sha1(str(path).encode("utf-8", "replace")).digest()):
        if path.stat().st_size < 300_000:
            try:
                text = path.read_bytes().decode()
            except (UnicodeDecodeError, OSError):
                continue
            budget -= len(text)
            if budget < 0:
                return
            yield text


@pytest.mark.slow
def test_every_file_of_a_corpus_is_treated_as_the_library_would(tmp_path: Path) -> None:
    texts = files_of_this_machine(5_000_000)
    batch = list(islice(texts, 200))
    (tmp_path / "t.json").write_bytes(train_bpe([batch], 16_000, SENTINELS))
    encoder = Encoder(Vocabulary(tmp_path / "t.json"), NAME)
    library = Encoder(encoder.vocabulary, LIBRARY)
    treated = number = tokens = anew = 0
    while batch:
        ids, offsets = encoded(encoder, batch)
        bits = draws(1, 0, np.arange(number, number + len(batch)), 0)
        fast = Infiller(encoder, check=False).treat_many(ids, offsets, bits, 11)
        slow = Infiller(library).treat_many(ids, offsets, bits, 11)
        assert fast.codes.tolist() == slow.codes.tolist()
        assert fast.ids.tolist() == slow.ids.tolist()
        treated += int((fast.codes == TREATED).sum())
        tokens, anew, number = tokens + fast.tokens, anew + fast.anew, number + len(batch)
        batch = list(islice(texts, 200))
    assert treated > 200
    assert anew < tokens / 50
