"""Decoding and the normal form of a licence text."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.licenses.text import MAX_BYTES, decode, holder_lines, normal_form
from tests.worlds import MIT


@pytest.mark.parametrize(
    "content",
    [
        "Licence é".encode(),
        codecs.BOM_UTF8 + "Licence é".encode(),
        "Licence é".encode("latin-1"),
        "Licence é".encode("utf-16"),
        codecs.BOM_UTF16_BE + "Licence é".encode("utf-16-be"),
        "Licence é".encode("utf-32"),
        "Licence é".encode("utf-16-le"),
        "Licence é".encode("utf-16-be"),
    ],
)
def test_texts_are_decoded_by_their_mark_or_by_what_they_look_like(content: bytes) -> None:
    assert decode(content) == "Licence é"


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", bytes(range(256)) * 10, b"\0" * 100, b"ab\0\0cd\0\0"]
)
def test_what_is_binary_has_no_text(content: bytes) -> None:
    assert decode(content) is None


def test_no_more_is_read_than_the_cap_and_a_cut_letter_is_not_an_error() -> None:
    text = decode(("é" * MAX_BYTES).encode())
    assert text is not None and set(text) == {"é"} and len(text) == MAX_BYTES // 2
    text = decode(b"x" + ("é" * MAX_BYTES).encode())
    assert text is not None and set(text) == {"x", "é"}
    assert decode(b"caf\xc3") == "caf\xc3"  # cut by nobody but its author: not UTF-8


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_not_without_an_error(content: bytes) -> None:
    for start in (b"", *(mark for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE))):
        text = decode(start + content)
        if text is not None:
            form = normal_form(text)
            assert normal_form(form) == normal_form(normal_form(form)) or "\n" not in form


@pytest.mark.parametrize(
    "text",
    [
        MIT.replace("2020 Ada Example", "1999-2004, Someone Else <else@example.org>"),
        MIT.upper(),
        MIT.replace("\n", "\r\n"),
        MIT.replace('"', "\u201c"),
        "\ufeff" + MIT,
        "\n".join("// " + line for line in MIT.splitlines()),
        "/*\n" + "\n".join(" * " + line for line in MIT.splitlines()) + "\n */",
        MIT.replace("\n", "   \n\n"),
        MIT.replace(
            "Copyright (c) 2020 Ada Example", "Copyright (c) 2020 Ada\nCopyright \u00a9 2021 Bob\n(c) 2022 Eve"
        ),
    ],
)
def test_files_that_state_the_same_licence_have_one_form(text: str) -> None:
    assert normal_form(text) == normal_form(MIT)


def test_html_loses_its_tags_and_placeholders_stay() -> None:
    assert normal_form("<html><body><p class='x'>Use &amp; copy</p></body></html>") == "use & copy"
    assert normal_form("<p>by <copyright holder> of <year></p>") == "by <copyright holder> of <year>"


@pytest.mark.parametrize(
    "line",
    [
        "Copyright 2020 Foo, licensed under the GPL",
        "Copyright (c) 2020 Foo. Free for non-commercial use",
        "(c) You must retain this notice",
        "Copyright 2020 Foo. See https://example.org/terms",
        "Copyright 2001 Foo. Do not distribute.",
    ],
)
def test_a_line_that_says_more_than_who_is_kept(line: str) -> None:
    assert line.lower() in normal_form(f"Title\n{line}\nText")


def test_holders_further_down_and_those_of_the_licence_itself_stay() -> None:
    text = "\n".join(["x"] * 8) + "\nCopyright 2003 The Foundation\n"
    assert "copyright 2003 the foundation" in normal_form(text)
    licence = "Title\nCopyright 2003 The Foundation, Redwood City\nText"
    own = frozenset(holder_lines(licence))
    assert own == {"copyright 2003 the foundation, redwood city"}
    assert own <= set(normal_form(licence, own).split("\n")) and not own & set(normal_form(licence).split("\n"))


def test_where_nothing_but_holders_stand_they_stay() -> None:
    assert normal_form("Copyright 2020 Foo\n") == "copyright 2020 foo"
    assert normal_form("  \n\n") == ""


def test_hostile_texts_take_time_in_proportion() -> None:
    for text in (
        " " * 400_000,
        "<p " * 100_000,
        "*" * 400_000,
        "a " * 200_000 + "*",
        "<" * 300_000,
        "copyright (c) " * 30_000,
        "/" * 300_000,
    ):
        normal_form(text)
