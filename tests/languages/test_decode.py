"""The stage decode: who leaves by which rule, and what the others' text is."""

from __future__ import annotations

import codecs
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.languages.decode import Decode, DecodeOptions
from stackbuild.stage import judge, with_columns


def run(
    contents: list[bytes], max_bytes: int = 10 * 1024 * 1024, offset: int = 0
) -> tuple[dict[str, list[Any]], list[Any]]:
    """(columns with `text`, for each file its (rule, value, detail) or None)."""
    padded = [b"\xff\0"] * offset + contents
    batch = pa.record_batch(
        {"content": pa.array(padded, pa.large_binary()), "length": pa.array([len(data) for data in padded], pa.int64())}
    ).slice(offset)
    stage = Decode(DecodeOptions(max_bytes=max_bytes))
    batch = with_columns(batch, stage.tags(batch))
    _, left = judge(stage.verdicts(batch), len(contents))
    fates: list[Any] = [None] * len(contents)
    for gone in left:
        for row in gone.rows.to_pylist():
            verdict = gone.verdict
            value = verdict.value[row].as_py() if verdict.value is not None else None
            fates[row] = (verdict.rule, value, verdict.detail[row].as_py() if verdict.detail is not None else None)
    text = stage.text(batch)
    text.validate(full=True)
    return with_columns(batch, {"text": text}).to_pydict(), fates


def test_each_rule_and_its_value() -> None:
    _, fates = run([b"ok", b"x" * 11, b"", b"a\0b\0c", codecs.BOM_UTF8, codecs.BOM_UTF8 + b"\xe9"], max_bytes=11)
    assert fates == [
        None,
        ("size", 11, None),
        ("empty", 0, None),
        ("binary", 2, "NUL bytes"),
        ("empty", 0, None),
        ("encoding_uncertain", None, "a byte order mark, but the bytes do not decode as it says"),
    ]


def test_the_size_limit_is_the_first_length_that_leaves() -> None:
    _, fates = run([b"x" * 9, b"x" * 10, b"x" * 11], max_bytes=10)
    assert [fate and fate[0] for fate in fates] == [None, "size", "size"]
    assert Decode().options.max_bytes == 10_485_760


def test_a_file_that_is_too_long_is_not_looked_at() -> None:
    columns, fates = run([b"\0" * 20], max_bytes=10)
    assert fates == [("size", 20, None)]
    assert columns["src_encoding"] == columns["length_bytes"] == columns["lossless"] == [None]


def test_length_bytes_is_that_of_the_text_in_utf8() -> None:
    columns, _ = run(["é".encode("cp1252") * 3, "é".encode("utf-16"), "é".encode(), "é".encode("utf-8-sig")])
    assert columns["length_bytes"] == [6, 2, 2, 2]
    assert columns["lossless"] == [True] * 4
    assert columns["text"] == ["ééé", "é", "é", "é"]


@pytest.mark.parametrize("offset", [0, 1, 9])
def test_text_of_a_slice_with_every_kind_of_row(offset: int) -> None:
    contents = [b"plain", b"\0", "é".encode("utf-8-sig"), b"", b"\xff" * 9, "ж".encode(), b"caf\xe9"]
    columns, _ = run(contents, offset=offset)
    assert columns["text"] == ["plain", None, "é", "", columns["text"][4], "ж", "café"]
    assert columns["src_encoding"][:4] == ["UTF-8", None, "UTF-8-SIG", "UTF-8"]


def test_utf8_is_not_copied() -> None:
    batch = pa.record_batch(
        {"content": pa.array([b"abc", b"\0", "é".encode()], pa.large_binary()), "length": [3, 1, 2]}
    )
    text = Decode().text(with_columns(batch, Decode().tags(batch)))
    assert text.buffers()[2].address == batch["content"].buffers()[2].address
    assert text.to_pylist() == ["abc", None, "é"]


@given(st.lists(st.binary(max_size=30) | st.text(max_size=15).map(str.encode), max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_file_with_text_gives_its_bytes_back_and_one_without_leaves(contents: list[bytes]) -> None:
    columns, fates = run(contents)
    for data, name, text, lossless, length, fate in zip(
        contents, *(columns[name] for name in ("src_encoding", "text", "lossless", "length_bytes")), fates, strict=True
    ):
        assert (name is None) == (text is None) == (length is None)
        assert fate is not None if name is None else (fate is None) == bool(text)
        if name is not None:
            assert data.decode(name) == text and length == len(text.encode())
            assert lossless is True or name in ("UTF-16", "UTF-32")


def test_an_empty_batch() -> None:
    columns, fates = run([])
    assert columns["text"] == [] and fates == []
