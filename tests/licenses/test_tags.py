"""SPDX tags, by SPDX's grammar and by what is found in the wild."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.licenses.expression import keys_of
from stackbuild.licenses.scancode import tag_expression
from stackbuild.licenses.tags import MAX_CHARS, UNKNOWN_SPDX, joined, outside_snippets, read_tag, tag_of


@pytest.mark.parametrize(
    ("value", "expression"),
    [
        ("MIT", "MIT"),
        ("mit", "MIT"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("GPL-2.0", "GPL-2.0-only"),
        ("Apache-2.0+", "Apache-2.0"),
        (
            "GPL-2.0-only WITH Linux-syscall-note OR BSD-3-Clause",
            "GPL-2.0-only WITH Linux-syscall-note OR BSD-3-Clause",
        ),
        ("MIT or Apache-2.0 and BSD-2-Clause", "MIT OR Apache-2.0 AND BSD-2-Clause"),
        ("(MIT OR Apache-2.0) AND BSD-2-Clause", "(MIT OR Apache-2.0) AND BSD-2-Clause"),
        ("((MIT))", "MIT"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        ("MIT, Apache-2.0", "MIT AND Apache-2.0"),
        ("LicenseRef-Acme", "LicenseRef-Acme"),
        ("DocumentRef-spdx:LicenseRef-Acme AND MIT", "DocumentRef-spdx:LicenseRef-Acme AND MIT"),
        ("Acme-1.0", UNKNOWN_SPDX),
        ("MIT AND Acme-1.0", f"MIT AND {UNKNOWN_SPDX}"),
    ],
)
def test_values(value: str, expression: str) -> None:
    assert read_tag(value) == expression


@pytest.mark.parametrize(
    "value",
    [
        "", "AND", "MIT AND", "OR MIT", "MIT Apache-2.0", "(MIT", "MIT)", "()", ")(", "MIT (see LICENSE)", "Apache License 2.0",
        "(MIT OR ISC) WITH x", "MIT WITH", "\\", "\u2028", "MIT\u00a9", "(" * 4_000,
    ],
)  # fmt: skip
def test_what_is_not_in_the_grammar_is_not_guessed(value: str) -> None:
    assert read_tag(value) is None


def test_enormous_values_are_unknown_and_not_nothing() -> None:
    assert read_tag("MIT OR " * 10_000 + "MIT") == UNKNOWN_SPDX
    assert len("(" * 2_000 + "MIT" + ")" * 2_000) < MAX_CHARS
    assert read_tag("(" * 2_000 + "MIT" + ")" * 2_000) == "MIT"


@pytest.mark.parametrize(
    "line",
    [
        "// SPDX-License-Identifier: MIT",
        "/* SPDX-License-Identifier: MIT */",
        "/* SPDX-License-Identifier: MIT*/ int x;",
        "<!-- SPDX-License-Identifier: MIT -->",
        "{# SPDX-License-Identifier: MIT #}",
        "(* SPDX-License-Identifier: MIT *)",
        "{- SPDX-License-Identifier: MIT -}",
        "--[[ SPDX-License-Identifier: MIT ]]",
        '"""SPDX-License-Identifier: MIT"""',
        "<p>SPDX-License-Identifier: MIT</p>",
        "# SPDX-License-Identifier:MIT",
        "# spdx-license-identifier :  MIT.",
        "# SPDX-License-Identifier MIT",
        "#### SPDX-License-Identifier: MIT ####",
        "dnl SPDX-License-Identifier: MIT",
        "{{! SPDX-License-Identifier: MIT }}",
        "{{!-- SPDX-License-Identifier: MIT --}}",
        "@* SPDX-License-Identifier: MIT *@",
        "[//]: # (SPDX-License-Identifier: MIT)",
        '# SPDX-License-Identifier: "MIT"',
        "# SPDX-License-Identifier: 'MIT'",
        "# SPDX-License-Identifier: `MIT`",
        "# SPDX-License-Identifier: <MIT>",
    ],
)
def test_a_comments_end_is_not_part_of_the_value(line: str) -> None:
    assert tag_of(line) == "MIT"


@pytest.mark.parametrize(
    "value", ['"MIT" AND "ISC"', "<MIT> AND ISC", "MIT `AND` ISC", 'MIT "AND ISC"', "'MIT' AND ISC -->"]
)
def test_a_quote_does_not_end_an_expression_that_goes_on(value: str) -> None:
    assert read_tag(tag_of(f"# SPDX-License-Identifier: {value}") or "") == "MIT AND ISC"


@pytest.mark.parametrize("value", ["MIT AND", "MIT WITH", "MIT AND (", "!MIT", "OR MIT"])
def test_a_broken_expression_is_unknown_and_not_what_is_left_of_it(value: str) -> None:
    assert UNKNOWN_SPDX in (tag_expression(value) or "")


def test_lines_without_a_tag() -> None:
    assert tag_of("# an SPDX licence") is None and tag_of("SPDX-License-Identifiers: MIT") is None


def test_snippets_and_ignored_lines() -> None:
    lines = [
        "a",
        "SPDX-SnippetBegin",
        "b",
        "SPDX-SnippetEnd",
        "c",
        "REUSE-IgnoreStart",
        "d",
        "SPDX-SnippetEnd",
        "REUSE-IgnoreEnd",
        "e",
    ]
    assert [line for line, speaks in zip(lines, outside_snippets(lines), strict=True) if speaks] == ["a", "c", "e"]
    assert outside_snippets(["SPDX-SnippetEnd", "x"]) == [True, True]


def test_a_beginning_without_an_end_silences_nothing() -> None:
    assert outside_snippets(["SPDX-SnippetBegin", "x"]) == [True, True]
    assert outside_snippets(["REUSE-IgnoreStart", "x", "SPDX-SnippetEnd"]) == [True, True, True]
    lines = ["REUSE-IgnoreStart", "a", "SPDX-SnippetBegin", "b", "SPDX-SnippetEnd", "c"]
    assert [line for line, speaks in zip(lines, outside_snippets(lines), strict=True) if speaks] == [lines[0], "a", "c"]


def test_expressions_that_all_hold_are_joined_without_changing_what_they_say() -> None:
    assert joined(frozenset(["MIT"])) == "MIT"
    assert joined(frozenset(["ISC", "MIT OR GPL-2.0-only"])) == "ISC AND (MIT OR GPL-2.0-only)"
    assert joined(frozenset(["MIT AND ISC", "MIT"])) == "MIT AND ISC"


@given(st.text(alphabet="MITGPL-2.0+ ()ANDORWITH/,", max_size=80))
def test_any_value_is_read_or_not_without_an_error_and_its_expression_reads_as_itself(value: str) -> None:
    expression = read_tag(value)
    if expression is not None:
        assert read_tag(expression) == expression and keys_of(expression)


def test_keys_of_any_age_and_case() -> None:
    assert read_tag("gpl-2.0-OR-LATER") == "GPL-2.0-or-later" and read_tag("LGPL-2.1+") == "LGPL-2.1-or-later"
    assert read_tag("licenseref-scancode-public-domain") == "LicenseRef-scancode-public-domain"
    assert read_tag("GPL-2.0-with-classpath-exception") == "GPL-2.0-only WITH Classpath-exception-2.0"
    assert read_tag("Apache-2.0-or-later") == "Apache-2.0"
    assert read_tag("NOASSERTION") == read_tag("NONE") == UNKNOWN_SPDX


def test_an_exception_that_nobody_knows_or_that_stands_alone_is_unknown() -> None:
    assert read_tag("GPL-2.0-only WITH Acme-exception") == f"GPL-2.0-only WITH {UNKNOWN_SPDX}"
    assert read_tag("Classpath-exception-2.0") == UNKNOWN_SPDX
