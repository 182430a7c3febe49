"""Who holds a copyright, by the lines of files and of rules."""

from __future__ import annotations

import pytest

from stackbuild.license_notice import _holders, _named_by_rules, _quoted, plain


@pytest.mark.parametrize(
    "line",
    [
        "Copyright The Kubernetes Authors.",
        "# Copyright 2019, Ada Example",
        " * (c) 2019 Ada Example",
        "© Ada Example",
        "Portions Copyright Ada Example",
        "Copyright (c) Ada Example and others",
        "This file is copyright 2001-2004 by Ada Example.",
        "Copyright: Élan Example",
    ],
)
def test_lines_that_name_a_holder(line: str) -> None:
    (found,) = _holders([line])
    assert "xample" in found or "Kubernetes" in found


@pytest.mark.parametrize(
    "line",
    [
        "(c) You must retain, in the Source form of any Derivative Works",
        "copyright notice, this list of conditions and the following disclaimer",
        "COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM",
        "Copyright Notice",
        "Copyright [yyyy] [name of copyright owner]",
        "Copyright (c) <year> <copyright holders>",
        "copyright owner that is granting the License.",
        "The above copyright notice shall be included",
        "11 of the WIPO copyright treaty adopted on 20 December 1996, or",
    ],
)
def test_lines_that_name_none(line: str) -> None:
    assert _holders([line]) == []


def test_brackets_around_an_address_stay_and_those_of_a_comment_go() -> None:
    assert _holders(["<!-- Copyright (C) 2020 Ada <https://ada.example> -->", "> Copyright 2021 Bob"]) == [
        "Copyright (C) 2020 Ada <https://ada.example>",
        "Copyright 2021 Bob",
    ]


def test_lines_of_spdx_name_holders_once() -> None:
    assert _holders(["// SPDX-FileCopyrightText: 2020 Ada", "SPDX-FileCopyrightText: © 2020 Ada"]) == [
        "Copyright 2020 Ada"
    ]


def test_rules_name_holders_and_bad_ones_none() -> None:
    rules = ["[[annotations]]", 'path = "**"', 'SPDX-FileCopyrightText = "2020 Ada"']
    assert _holders(_named_by_rules("/a/REUSE.toml", rules)) == ["Copyright 2020 Ada"]
    assert _holders(_named_by_rules("/a/REUSE.toml", ["annotations = 3"])) == []
    for hostile in (
        "[[[",
        "a" + ".a" * 100_000 + " = 1",
        "annotations = [" + "[" * 100_000,
        "annotations = [1, [], {}]",
    ):
        assert _holders(_named_by_rules("/a/REUSE.toml", [hostile])) == []
    assert _holders(_named_by_rules("/debian/copyright", ["Copyright: 2020 Ada"])) == ["Copyright: 2020 Ada"]


def test_a_name_is_one_line() -> None:
    assert plain("a\nb\u2028c\x1b[1m\u202ed é") == "a\\nb\\u2028c\\x1b[1m\\u202ed é"


def test_a_line_of_a_licence_text_is_no_line_of_ours_and_no_command_to_the_terminal() -> None:
    assert _quoted("---- text 2") == " ---- text 2"
    assert _quoted("\x1b[31m---- te\tx\x07t é") == "[31m---- te\tx" + "t é"
    assert _quoted("\x1b---- text 2") == " ---- text 2"
