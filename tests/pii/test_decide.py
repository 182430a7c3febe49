"""What becomes of a model's findings (starcoder2 6, rules 1 to 5), and how its folder and its windows are read: without torch."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.errors import InputError, RecipeError
from stackbuild.pii import rules
from stackbuild.pii.decide import ENTITIES, Candidate, Decider, longest
from stackbuild.pii.ner import BLOCK, Ner, Stream, Window, byte_positions, cut, windows
from stackbuild.pii.ner_model import Label, read_folder
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.replacements import known_values


class Judge:
    """Gibberish is what holds an x."""

    digest, limit = "", 0.0

    def is_gibberish(self, value: str) -> bool:
        return "x" in value


IP = rules.load().ip
DECIDER = Decider(IP, ENTITIES, Judge())  # type: ignore[arg-type]


def decided(before: str, value: str, after: str, entity: str, decider: Decider = DECIDER) -> list[str]:
    raw = (before + value + after).encode()
    start = len(before.encode())
    found = decider.decided(raw, [Candidate(start, start + len(value.encode()), entity)])
    return [raw[one.start : one.end].decode() for one in found]


@pytest.mark.parametrize(
    ("entity", "value", "left"),
    [
        ("EMAIL", "(jo@firm.com),", "jo@firm.com"),
        ("EMAIL", "abc", None),
        ("EMAIL", "..abcd", "abcd"),
        ("EMAIL", "...", None),
        ("PASSWORD", "'pass'", "pass"),
        ("PASSWORD", "abc!", None),
        ("NAME", "Jo", None),
        ("NAME", "Johanna.", None),
        ("NAME", " Jo Ölund. ", "Jo Ölund"),
        ("NAME", "漢字 漢", "漢字 漢"),
        ("KEY", '"x2345678', None),
        ("KEY", "x23456789", "x23456789"),
        ("KEY", '"x2345678=/ ', "x2345678=/"),
        ("KEY", "y23456789", None),
        ("IP_ADDRESS", "84.23.112.9.", "84.23.112.9"),
        ("IP_ADDRESS", "[2a02::1]", "2a02::1"),
        ("IP_ADDRESS", "84.23.112", None),
        ("IP_ADDRESS", "10.0.0.1", None),
        ("IP_ADDRESS", "fd00::1", None),
        *(("IP_ADDRESS", value, None) for value in sorted(IP.resolvers)),
        ("AMBIGUOUS", "jo@firm.com", None),
        ("USERNAME", "jo_smith", "jo_smith"),
    ],
)
def test_the_published_rules_after_a_model(entity: str, value: str, left: str | None) -> None:
    assert decided("é ", value, " x", entity) == ([] if left is None else [left])


def test_user_names_stay_unless_asked_for() -> None:
    assert decided("", "jo_smith", "", "USERNAME", Decider(IP, ("NAME", "EMAIL"), None)) == []


@pytest.mark.parametrize("value", [value.decode() for value in known_values(IP)] + ["<NAME>", "<PASSWORD>"])
def test_what_redaction_puts_in_is_never_found(value: str) -> None:
    for entity in ENTITIES:
        assert decided("a ", value, " b", entity) == []
        assert decided("a ", f"{value} xx yy zz 1", " b", entity) == []
    inner = value.strip("<>")
    assert decided("<" if inner != value else "", inner, ">" if inner != value else "", "PASSWORD") == []


SPANS = st.lists(
    st.builds(lambda a, n, e: Candidate(a, a + n, e), st.integers(0, 40), st.integers(1, 9), st.sampled_from(ENTITIES)),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(SPANS)
def test_of_what_overlaps_the_longest_goes_d5(found: list[Candidate]) -> None:
    kept = longest(found)
    assert kept == sorted(kept) and set(kept) <= set(found) and longest(kept) == kept
    assert all(a.end <= b.start for a, b in pairwise(kept))
    for one in found:  # whoever stays out has a longer one, or one as long and before it, in the way
        rivals = [other for other in kept if other.start < one.end and one.start < other.end]
        assert one in kept or any((other.start - other.end, other) < (one.start - one.end, one) for other in rivals)


# ---------------------------------------------------------------- windows


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=6), st.integers(1, 12), st.integers(0, 6))
def test_each_token_is_labelled_once_where_it_has_most_context(blocks: list[int], size: int, overlap: int) -> None:
    overlap = min(overlap, size // 2)
    total, at, streams = sum(blocks), 0, []
    for block in blocks:
        numbers = np.arange(at, at + block)
        streams.append((numbers, numbers, numbers + 1))
        at += block
    found = list(windows(iter(streams), size, overlap))
    owned = [int(number) for window in found for number in window.ids[window.first : window.last]]
    assert owned == list(range(total))
    assert all(0 < len(window.ids) <= size for window in found) and all(
        len(window.ids) == size for window in found[:-1]
    )

    def context(window: Window, token: int) -> int:
        return min(token - int(window.ids[0]), int(window.ids[-1]) - token)

    for before, after in pairwise(found):
        for token in set(before.ids.tolist()) & set(after.ids.tolist()):
            mine, other = (before, after) if token in before.ids[before.first : before.last] else (after, before)
            if len(after.ids) == size:
                assert context(mine, token) >= context(other, token) - 1


def test_positions_are_bytes_of_utf8() -> None:
    text = "aé漢😀\r\n\0\u0301"
    expected = [len(text[:n].encode()) for n in range(len(text) + 1)]
    assert byte_positions(text, len(text.encode())).tolist() == expected
    assert byte_positions("abc", 3).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("char", ["x", "é", "漢", "😀", "x\n", "é "])
def test_a_block_ends_at_white_space_or_between_characters(char: str) -> None:
    raw = (char * BLOCK).encode()[:BLOCK]
    at = cut(raw)
    raw[:at].decode()
    assert BLOCK // 2 <= at <= BLOCK and (len(char) == 1 or raw[at - 1 : at] in (b"\n", b" "))


def test_labels_become_spans_across_windows() -> None:
    labels = [Label("", False), Label("NAME", True), Label("NAME", False), Label("EMAIL", False)]
    stream = Stream(labels)

    def add(starts: list[int], ends: list[int], told: list[int]) -> None:
        ids = np.arange(len(told))
        window = Window(ids, np.array(starts, np.int64), np.array(ends, np.int64), 0, len(told))
        stream.add(window, np.array(told, np.int64), np.ones(len(told), np.float32), 0.0)

    add([0, 3, 6, 6], [2, 5, 6, 8], [1, 2, 0, 2])  # a token of no bytes says nothing
    add([9, 12], [11, 14], [2, 1])  # goes on across windows; then another begins
    add([14, 17, 20], [16, 19, 22], [1, 3, 0])  # one that touches it is a part of it
    add([23], [25], [3])
    assert stream.candidates() == [
        Candidate(0, 11, "NAME"), Candidate(12, 16, "NAME"), Candidate(17, 19, "EMAIL"), Candidate(23, 25, "EMAIL"),
    ]  # fmt: skip


# ---------------------------------------------------------------- the folder of a model

GOOD: dict[str, Any] = {"model_type": "bert", "id2label": {"0": "O", "1": "B-NAME"}, "max_position_embeddings": 512}


def folder(path: Path, config: Any = GOOD, **files: bytes) -> Path:
    content = {"config.json": json.dumps(config).encode(), "tokenizer.json": b"{}", "model.safetensors": b"", **files}
    for name, data in content.items():
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ([], "not a JSON object"),
        ({}, "no id2label"),
        ({"id2label": {}}, "no id2label"),
        ({"id2label": {"1": "NAME"}}, "from 0 on"),
        ({"id2label": {"0": 1}}, "from 0 on"),
        ({**GOOD, "max_position_embeddings": "many"}, "no number"),
        ({**GOOD, "max_position_embeddings": 0}, "no number"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told(tmp_path: Path, config: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_folder(folder(tmp_path, config), {})


def test_weights_in_pickle_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, **{"pytorch_model.bin": b"\x80\x04."})
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle"):
        read_folder(tmp_path, {})
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"holds no \*\.safetensors\."):
        read_folder(tmp_path, {})


@pytest.mark.parametrize(
    ("name", "told"), [("tokenizer.json", "no tokenizer.json"), ("config.json", "holds no config.json")]
)
def test_a_folder_without_a_file_is_told(tmp_path: Path, name: str, told: str) -> None:
    (folder(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=told):
        read_folder(tmp_path, {})


@pytest.mark.parametrize("path", ["bigcode/starpii", "no such folder", "a\0b"])
def test_a_name_that_is_no_folder_is_not_fetched(path: str) -> None:
    with pytest.raises(InputError, match="ner_model"):
        read_folder(path, {})


def test_an_adapter_and_broken_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="adapter"):
        read_folder(folder(tmp_path, **{"adapter_config.json": b"{}"}), {})
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "config.json").write_bytes(b"[" * 99_999)
    with pytest.raises(InputError, match="no JSON"):
        read_folder(tmp_path, {})


def test_ner_asks_for_a_model() -> None:
    with pytest.raises(RecipeError, match="ner_model"):
        Ner(PiiOptions(), ("EMAIL",))


def test_an_overlap_of_more_than_half_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="ner_overlap"):
        PiiOptions(ner_window=16, ner_overlap=9)
