"""Texts that hold a permissive licence's name or most of its words, and do not grant what it grants."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stackbuild.licenses import altered, detect
from stackbuild.licenses.detect import Detector
from tests.worlds import MIT


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    detect.warm()


def changed(text: str, words: str, others: str) -> str:
    """The text with some words in the place of others, however its lines are wrapped."""
    found = re.sub(r"\s+".join(map(re.escape, words.split())), others, text)
    assert found != text
    return found


GRANT = (
    "each Contributor hereby grants to You a perpetual, worldwide, non-exclusive, no-charge, royalty-free, irrevocable copyright "
    "license to reproduce, prepare Derivative Works of, publicly display, publicly perform, sublicense, and distribute the Work "
    "and such Derivative Works in Source or Object form."
)


@pytest.mark.parametrize(
    ("key", "words", "others"),
    [
        ("apache-2.0", GRANT, ""),
        ("apache-2.0", GRANT, "each Contributor hereby grants to You a license to reproduce the Work for evaluation."),
        (
            "apache-2.0",
            "each Contributor hereby grants to You a perpetual, worldwide",
            "no Contributor grants to You a",
        ),
        ("apache-2.0", "the Work and such Derivative Works in Source or Object form.", "the Work internally."),
        ("apache-2.0", "no-charge, royalty-free, irrevocable copyright", "revocable copyright"),
        ("mit", "sublicense, and/or sell copies", "and/or sublicense copies"),
        ("mit", "to any person obtaining", "to any student obtaining"),
        ("mit", "Permission is hereby granted, free of charge,", "Permission is hereby given"),
        ("isc", "with or without fee", "for students"),
        ("isc", "with or without fee", "with a fee"),
        ("bsd-new", "are permitted provided", "are permitted for teaching provided"),
        ("bsd-new", "with or without modification", "without modification"),
        (
            "apache-2.0",
            "with or without modifications, and in Source or Object form",
            "without modifications, and in Object form",
        ),
    ],
)
def test_a_text_with_a_changed_grant_is_not_permissive(text_of: Any, key: str, words: str, others: str) -> None:
    found = Detector().detect(changed(text_of(key), words, others).encode(), True)
    assert altered.CHANGED in found.keys and max(map(detect.severity_of, found.keys)) == 4


def test_an_id_in_an_address_has_no_words_to_align() -> None:
    """ScanCode makes the rule of an SPDX id as it meets one, without words."""
    text = f"{MIT.replace('substantial portions', 'large parts')}\nhttps://licenses.nuget.org/MIT\n"
    assert "MIT" in Detector().detect(text.encode(), True).keys


@pytest.mark.parametrize(
    "sentence",
    [
        "The program is the property of Acme and its use is at your own peril. ",
        "We own it. Customers may run it on one computer for each seat. ",
        "The terms of this agreement hold for whoever runs it. ",
    ],
)
def test_terms_of_somebodys_own_that_mention_a_licence_are_unknown(sentence: str) -> None:
    text = f"ACME\n\n{sentence * 8}\n\nIt is built on libfoo, which is licensed under the MIT license.\n"
    found = Detector().detect(text.encode(), True)
    assert altered.OWN_TERMS in found.keys
    assert max(map(detect.severity_of, found.keys)) > 0
    assert altered.OWN_TERMS not in Detector().detect(text.encode(), False).keys  # a read-me may say so


@pytest.mark.parametrize("key", ["apache-2.0", "bsd-new", "isc", "zlib", "uoi-ncsa"])
def test_a_text_with_other_words_that_take_nothing_back_stays_permissive(text_of: Any, key: str) -> None:
    words = text_of(key).split()
    for number in (len(words) // 3, len(words) // 2, len(words) - 20):
        text = " ".join([*words[:number], "indeed", *words[number:]])
        found = Detector().detect(text.encode(), True)
        assert max(map(detect.severity_of, found.keys)) == 0, found


def test_a_list_of_more_names_than_a_text_has_is_not_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(altered, "aligned", lambda *_: pytest.fail("aligned"))
    text = "libfoo: MIT License, some words of ours here\n" * (altered.MOST_MATCHES + 1)
    assert "MIT" in Detector().detect(text.encode(), True).keys
    assert altered.OWN_TERMS in Detector().detect(f"{text}You must not copy any of it\n".encode(), True).keys


def test_prose_beside_a_name_binds_nobody() -> None:
    text = "Notes of the team\n\n" + "We met in Rome and wrote this in a week of rain. " * 8 + "\n\nMIT License\n"
    assert Detector().detect(text.encode(), True).keys == ("MIT",)


def test_what_is_known_word_for_word_is_not_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(altered, "aligned", lambda *_: pytest.fail("aligned"))
    assert Detector().detect(MIT.encode(), True).keys == ("MIT",)
    assert Detector().detect(f"Licensed under the MIT license\n\n{MIT}".encode(), True).keys == ("MIT",)
    assert Detector().detect(b"MIT License, by Ada and friends of hers\n", True).keys == ("MIT",)


MIT_END = MIT[MIT.index("The above copyright notice") :]
HALL = "Visitors may look at it on the screen in the hall and nowhere else, as long as the guard is there.\n"


@pytest.mark.parametrize("title", ["", "MIT License\n\n", "Club License\n\n"])
@pytest.mark.parametrize("times", [1, 8])
def test_the_conditions_and_the_disclaimer_of_mit_grant_nothing(title: str, times: int) -> None:
    found = Detector().detect(f"{title}Copyright (c) 2020 Q\n\n{HALL * times}\n{MIT_END}".encode(), True)
    assert max(map(detect.severity_of, found.keys)) > 0
    assert {altered.OWN_TERMS, altered.CHANGED} & set(found.keys)


@pytest.mark.parametrize(
    ("words", "others"), [("any person", "any natural person"), ("hereby granted", "then granted")]
)
def test_a_grant_of_mit_with_another_word_is_nobodys(words: str, others: str) -> None:
    found = Detector().detect(MIT.replace(words, others).encode(), True)
    assert max(map(detect.severity_of, found.keys), default=9) > 0
