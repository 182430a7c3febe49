"""The tokenizer: the same bytes whatever the threads, sentinels in front, and text that comes back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers

from stackbuild.errors import InputError
from stackbuild.render.sentinels import STARCODER2_ALL
from stackbuild.tokens import bpe
from stackbuild.tokens.bpe import Vocabulary, longest_words, train_bpe
from stackbuild.tokens.encode import Encoder, pieces
from stackbuild.tokens.sample import sample

TRAIN = """
import sys
from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.sample import train
train(sys.argv[1], TokensOptions(vocab_size=600), sys.argv[2])
"""


@pytest.fixture(scope="session")
def vocabulary(tokenizer: Path) -> Vocabulary:
    return Vocabulary(tokenizer)


def change(source: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    spec = json.loads(source.read_bytes())
    edit(spec)
    target.write_text(json.dumps(spec))
    return target


def test_training_gives_the_same_bytes_for_any_number_of_threads(
    tmp_path: Path, rows: Any, write_dataset: Any, options: Any
) -> None:
    sample(write_dataset(tmp_path / "data", rows, 1), options, 1, tmp_path / "sample.parquet")
    made = []
    for threads, hashseed in (("1", "1"), ("2", "2")):
        out = tmp_path / f"{threads}.json"
        env = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": hashseed, "TOKENIZERS_PARALLELISM": "true"}
        subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path / "sample.parquet"), str(out)], check=True, env=env)
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_training_does_not_depend_on_the_order_of_texts(rows: list[dict[str, Any]]) -> None:
    texts = [row["content"] for row in rows]
    assert train_bpe([texts], 500, STARCODER2_ALL) == train_bpe([[t] for t in reversed(texts)], 500, STARCODER2_ALL)


def test_sentinels_have_the_first_ids_in_order(vocabulary: Vocabulary) -> None:
    assert dict(vocabulary.sentinels) == {name: number for number, name in enumerate(STARCODER2_ALL)}
    assert vocabulary.size == 600
    assert vocabulary.splittable


def test_digits_stand_alone_and_no_space_is_put_in_front(vocabulary: Vocabulary) -> None:
    encoding = vocabulary.tokenizer.encode("return 1234", add_special_tokens=False)
    assert encoding.tokens[-4:] == ["1", "2", "3", "4"]
    assert not encoding.tokens[0].startswith("Ġ")


def test_a_vocabulary_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        train_bpe([["a"]], 290, STARCODER2_ALL)


def test_literal_sentinels_become_ordinary_tokens(vocabulary: Vocabulary) -> None:
    text = "a<fim_prefix>b<|endoftext|><file_sep><EMAIL>"
    (ids,) = Encoder(vocabulary).encode([text])
    assert not vocabulary.is_sentinel[ids].any()
    assert vocabulary.decode(ids.tolist()) == text
    whole = Tokenizer.from_file(vocabulary.path)
    assert vocabulary.sentinels["<fim_prefix>"] in whole.encode(text).ids  # what a plain encode would have done
    whole.encode_special_tokens = True
    assert whole.encode(text, add_special_tokens=False).ids == ids.tolist()


def test_added_tokens_truncation_and_templates_do_not_touch_content(tokenizer: Path, tmp_path: Path) -> None:
    def edit(spec: dict[str, Any]) -> None:
        token = {"single_word": False, "lstrip": True, "rstrip": True, "normalized": True, "special": False}
        spec["added_tokens"].append(token | {"id": 600, "content": "return"})
        spec["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
        spec["padding"] = {
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        }  # fmt: skip

    changed = Vocabulary(change(tokenizer, tmp_path / "t.json", edit))
    text = "  return x\n" * 9
    (ids,) = Encoder(changed).encode([text])
    assert ids.tolist() == Encoder(Vocabulary(tokenizer)).encode([text])[0].tolist()
    assert (changed.size, dict(changed.sentinels)) == (601, dict(Vocabulary(tokenizer).sentinels))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(vocabulary: Vocabulary, text: str) -> None:
    (ids,) = Encoder(vocabulary).encode([text])
    assert vocabulary.decode(ids.tolist()) == text


def test_a_tokenizer_that_edits_text_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    def edit(spec: dict[str, Any]) -> None:
        spec["normalizer"] = json.loads(normalizers.NFC().__getstate__())

    with pytest.raises(InputError, match="would edit the files"):
        Vocabulary(change(tokenizer, tmp_path / "t.json", edit))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda body: body["added_tokens"][1].update(id=body["model"]["vocab"]["a"]),
            "'a' and '<fim_prefix>' have one id",
        ),
        (lambda body: body["added_tokens"][1].update(id=2), "have one id, 2"),
        (lambda body: body["added_tokens"][1].update(id=-3), "'<fim_prefix>' has the id -3; ids are from 0"),
        (lambda body: body["added_tokens"][1].update(id=10**30), "'<fim_prefix>' has the id 1000000"),
        (lambda body: body["added_tokens"][1].update(id=2**31), "'<fim_prefix>' has the id 2147483648"),
        (lambda body: body["added_tokens"].append({**body["added_tokens"][1], "id": 9999}), "two ids, 1 and 9999"),
    ],
)
@pytest.mark.parametrize("checked", [False, True])
def test_a_tokenizer_with_one_id_for_two_tokens_is_refused(
    tokenizer: Path, tmp_path: Path, change: Any, message: str, checked: bool
) -> None:
    body = json.loads(tokenizer.read_bytes())
    change(body)
    (tmp_path / "odd.json").write_text(json.dumps(body))
    with pytest.raises(InputError, match=f"odd.json: .*{message}"):
        Vocabulary(tmp_path / "odd.json", checked)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    for name, data in {"a": b"", "b": b"[]", "c": b"{}", "d": b'{"model": 3}', "e": b"\xff"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=r"no tokenizer\.json"):
            Vocabulary(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        Vocabulary(tmp_path / "missing")


def test_a_tokenizer_that_turns_text_into_a_sentinel_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1}, unk_token="<|endoftext|>"))
    plain.add_special_tokens(["<|endoftext|>"])
    plain.save(str(tmp_path / "t.json"))
    monkeypatch.setattr(bpe, "PROBE", "a")
    with pytest.raises(InputError, match=r"becomes the sentinel <\|endoftext\|>"):
        Encoder(Vocabulary(tmp_path / "t.json")).encode(["b"])


# ---------------------------------------------------------------- long texts in pieces

LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["\n", "\r\n", "\n\n", " ", "  ", "'s", "'", "a", "Zz", "9", "12", "é", "\u2028", "\u00a0", "+=", "\t"]
        ),
        st.text(max_size=3),
    ),
    max_size=60,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(LINES, st.integers(1, 12))
def test_pieces_have_the_ids_of_the_whole(vocabulary: Vocabulary, text: str, size: int) -> None:
    cut = pieces(text, size)
    assert "".join(cut) == text
    encode = vocabulary.tokenizer.encode
    ids = [number for piece in cut for number in encode(piece, add_special_tokens=False).ids]
    assert ids == encode(text, add_special_tokens=False).ids


def test_long_texts_are_cut_and_joined(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["".join(f"x{k} = {k}\n" for k in range(n)) for n in (0, 50, 1, 900)]
    expected = [vocabulary.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    calls: list[int] = []
    original = Encoder._encode
    monkeypatch.setattr("stackbuild.tokens.encode.BATCH", 64)
    monkeypatch.setattr("stackbuild.tokens.encode.pieces.__defaults__", (100,))
    monkeypatch.setattr(
        Encoder, "_encode", lambda self, batch: (calls.append(sum(map(len, batch))), original(self, batch))[1]
    )
    assert [ids.tolist() for ids in Encoder(vocabulary).encode(texts)] == expected
    assert len(calls) > 50 and max(calls) < 130


def test_another_way_to_cut_words_gets_whole_texts(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(spec: dict[str, Any]) -> None:
        del spec["pre_tokenizer"]["pretokenizers"][0]

    other = Vocabulary(change(tokenizer, tmp_path / "t.json", edit))
    assert not other.splittable
    monkeypatch.setattr("stackbuild.tokens.encode.pieces", None)
    text = "a\n" * 10
    assert Encoder(other).encode([text])[0].tolist() == other.tokenizer.encode(text, add_special_tokens=False).ids


# ---------------------------------------------------------------- words on which training would take quadratic time

GPT2_WORDS = re.compile(r" ?[^\W\d_]+| ?(?:[^\w\s]|_)+|\s+")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab é中;=— \n\t19\u2028_'")), min_size=1, max_size=4))
def test_the_bound_on_words_is_never_too_small(texts: list[str]) -> None:
    array = pa.array(["skipped", *texts], pa.large_string())[1:]
    longest = [max((len(w.lstrip(" ").encode()) for w in GPT2_WORDS.findall(t)), default=0) for t in texts]
    assert (longest_words(array) >= np.array(longest)).all()


def test_the_bound_on_words_is_exact_for_ascii() -> None:
    texts = ["", "a" * 9, "aa bbb", "1" * 99, "ab1cd", "=" * 7 + "a", " " * 5 + "\n", "x" * 3 + "é" * 2 + "=" * 4]
    assert longest_words(pa.array(texts, pa.large_string())).tolist() == [0, 9, 3, 0, 2, 7, 6, 8]
