"""SPDX tags: lines that state a licence in SPDX's own grammar.

    // SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note OR BSD-3-Clause

The grammar is that of SPDX 2.3, annex D, in any case, with what is found in the wild: keys that were renamed (GPL-2.0+),
Cargo's `MIT/Apache-2.0`, a comma for AND, and the closing sign of the comment. Several tags of one file all hold. What
stands between SPDX-SnippetBegin and SPDX-SnippetEnd, or REUSE-IgnoreStart and REUSE-IgnoreEnd (REUSE 3.3), says nothing
of the file. A key that SPDX and ScanCode do not know is an unknown licence, never none.

Strangers write these lines: reading is one pass with one stack, in time linear in the line, without recursion; more than
`MAX_CHARS` of it are an unknown licence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from stackbuild.licenses.lists import scancode_licenses

MAX_CHARS = 4_096
UNKNOWN_SPDX = "LicenseRef-scancode-unknown-spdx"
ENGINE = "stackbuild spdx-tags 1"

TAG = re.compile(r"spdx[- ]licen[cs]e[- ]identifier(?:\s*:|(?=\s))[ \t]*", re.IGNORECASE)
_BORDER = re.compile(r"(?:spdx-(snippet)|reuse-(ignore))(begin|start|end)", re.IGNORECASE)
_CLOSERS = re.compile(r"""\*+/|-->|--%>|#\}|-\}|\*\)|\]\]|["'`<>|\\]|\s#+\s*$""")
_TOKEN = re.compile(r"[()]|[^\s()]+")
_KEY = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]{1,100}:)?[A-Za-z0-9][A-Za-z0-9.-]{0,200}\+?")
_BINDING = {"OR": 1, "AND": 2, "WITH": 3}


def outside_snippets(lines: list[str]) -> list[bool]:
    """Which lines speak for the file and not for a snippet, or for nobody."""
    speaks, closing = [], ""
    for line in lines:
        border = _BORDER.search(line)
        if border and not closing and border[3].lower() != "end":
            closing = (border[1] or border[2]).lower()
            speaks.append(False)
        elif border and closing == (border[1] or border[2] or "").lower() and border[3].lower() == "end":
            closing = ""
            speaks.append(False)
        else:
            speaks.append(not closing)
    return speaks


def tag_of(line: str) -> str | None:
    """What a tag in this line says, as it stands there; None if there is none."""
    found = TAG.search(line)
    return (
        None
        if found is None
        else _CLOSERS.split(line[found.end() : found.end() + 2 * MAX_CHARS], 1)[0].strip(" \t.;,:")
    )


def read_tag(value: str) -> str | None:
    """The value of a tag as an SPDX expression in present keys; None if it is not in SPDX's grammar, or nothing."""
    if len(value) > MAX_CHARS:
        return UNKNOWN_SPDX
    value = value.replace(",", " AND ").replace("/", " OR ") if "LicenseRef" not in value else value
    values: list[tuple[int, str]] = []  # how tightly bound, and the words
    operators: list[str] = []
    after_value = False
    for token in _TOKEN.findall(value):
        operator = token.upper()
        if operator in _BINDING:
            if not after_value:
                return None
            while operators and operators[-1] != "(" and _BINDING[operators[-1]] >= _BINDING[operator]:
                if not _apply(values, operators):
                    return None
            operators.append(operator)
            after_value = False
        elif token == ")":
            while after_value and operators and operators[-1] != "(":
                if not _apply(values, operators):
                    return None
            if not after_value or not operators:
                return None
            operators.pop()
        elif after_value:
            return None
        elif token == "(":
            operators.append(token)
        else:
            if not _KEY.fullmatch(token):
                return None
            values.append((4, spdx_key(token)))
            after_value = True
    while after_value and operators:
        if not _apply(values, operators):
            return None
    return values[0][1] if after_value else None


def _apply(values: list[tuple[int, str]], operators: list[str]) -> bool:
    """Bind the last two values by the last operator; False if that is a parenthesis."""
    operator = operators.pop()
    if operator == "(":
        return False
    binding = _BINDING[operator]
    (right_binding, right), (left_binding, left) = values.pop(), values.pop()
    if operator == "WITH" and min(left_binding, right_binding) < 4:
        return False
    words = [
        f"({words})" if bound < binding else words for bound, words in ((left_binding, left), (right_binding, right))
    ]
    values.append((binding, f" {operator} ".join(words)))
    return True


def spdx_key(key: str) -> str:
    """The present SPDX key for one in any case and of any age; UNKNOWN_SPDX if nobody knows it. Others' LicenseRefs stay."""
    known = _keys()
    lower = key.lower()
    found = known.get(lower) or known.get(lower.removesuffix("+")) or known.get(lower.removesuffix("-or-later"))
    if found is None and lower.startswith(("licenseref-", "documentref-")):
        return key
    return found or UNKNOWN_SPDX


@cache
def _keys() -> dict[str, str]:
    licenses = scancode_licenses()
    return {key.lower(): licenses.canonical(key) for key in (*licenses.aliases, *licenses.classes)}


def joined(expressions: Iterable[str]) -> str:
    """Expressions that all hold as one: sorted, each once, joined by AND."""
    found = sorted(set(expressions))
    return found[0] if len(found) == 1 else " AND ".join(f"({one})" if " OR " in one else one for one in found)
