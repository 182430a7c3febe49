"""The planted texts are what their labels say, and the figures made of them follow."""

from __future__ import annotations

import ipaddress
import zlib
from collections import Counter
from random import Random
from typing import Any

import pytest

from benchmarks import pii_accuracy, pii_planted
from benchmarks.pii_keys import KEYS
from stackbuild.pii.score import Mark


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    text = "".join(f"value_{i} = {i}\n" for i in range(40))
    monkeypatch.setattr(pii_planted, "carriers", lambda paths, most: [("Python", text), ("C", text)] * (most // 2))
    return list(pii_planted.planted([], 2, 7))


def test_labels_lie_where_the_values_are_and_kinds_are_as_many_as_promised(planted: list[dict[str, Any]]) -> None:
    kinds = Counter(span["kind"] for row in planted for span in row["spans"])
    decoys = Counter(span["kind"] for row in planted for span in row["decoys"])
    assert len(KEYS) >= 40 and all(kinds[f"key:{kind}"] == 2 for kind in KEYS)
    assert len(decoys) >= 35 and sum(decoys.values()) >= 0.9 * sum(kinds.values())
    for row in planted:
        assert "\0" not in row["text"]
        for span in row["spans"]:
            value = row["text"][span["start"] : span["end"]]
            if span["entity"] == "IP_ADDRESS":
                ipaddress.ip_address(value)
            elif span["entity"] == "EMAIL":
                assert value.count("@") == 1 and not value[-1:].isspace()
            if span["kind"] == "email:file-start":
                assert span["start"] == 0
            if span["kind"] == "email:file-end":
                assert span["end"] == len(row["text"])


def test_a_token_with_a_checksum_has_it() -> None:
    value = KEYS["github-classic"][0](Random(3))
    body, check = value[4:34], value[34:]
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for letter in check:
        number = number * 62 + letters.index(letter)
    assert number == zlib.crc32(body.encode())


def test_figures_count_what_was_planted_and_what_was_not() -> None:
    row = {
        "text": "x" * 100,
        "language": "C",
        "spans": [
            {"start": 0, "end": 10, "entity": "KEY", "kind": "key:a"},
            {"start": 20, "end": 30, "entity": "PASSWORD", "kind": "password:b"},
        ],
        "decoys": [{"start": 40, "end": 50, "kind": "uuid"}],
    }
    found = [Mark(0, 10, "SECRET"), Mark(40, 50, "SECRET"), Mark(22, 25, "SECRET"), Mark(0, 9, "EMAIL")]
    told = pii_accuracy.figures([row], [found], ["SECRET"])
    assert told["kinds"] == {"key:a": [1, 1], "password:b": [0, 1]}
    assert told["decoys"] == {"uuid": 1, "part of password:b": 1}
    assert told["entities"]["SECRET"]["recall"] == 0.5 and told["entities"]["provider keys"]["recall"] == 1.0
    assert told["entities"]["provider keys"]["precision"] == pytest.approx(1 / 3)
