"""SPDX tags: lines that state a licence in SPDX's own grammar.

    // SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note OR BSD-3-Clause

The grammar is that of SPDX 2.3, annex D, in any case, with what is found in the wild: keys that were renamed (GPL-2.0+),
Cargo's `MIT/Apache-2.0`, a comma for AND, and the closing sign of the comment. Several tags of one file all hold. What
stands between SPDX-SnippetBegin and SPDX-SnippetEnd, or REUSE-IgnoreStart and REUSE-IgnoreEnd (REUSE 3.3), says nothing
of the file; a beginning without its end is none, or one line would silence the whole file. A key that SPDX and ScanCode
do not know is an unknown licence, never none; so are NONE and UNLICENSED.

Strangers write these lines: reading is linear; more than `MAX_CHARS` of one are an unknown licence.
"""

from __future__ import annotations

import re
from functools import lru_cache

import re2

from stackbuild.licenses.spdx import MAX_CHARS, join, parse

UNKNOWN_SPDX = "LicenseRef-scancode-unknown-spdx"
ENGINE = "stackbuild spdx-tags 1"

TAG = re.compile(r"spdx[- ]licen[cs]e[- ]identifier(?:\s*:|(?=\s))[ \t]*", re.IGNORECASE)
_BORDER = re.compile(r"(?:spdx-(snippet)|reuse-(ignore))(begin|start|end)", re.IGNORECASE)
_CLOSERS = re2.compile(r"""\*+/|-->|--%>|(?:--)?\}\}|#\}|-\}|\*[)@]|\]\]|["'`<>|\\]|\s#+\s*$""")

_OPENING = " \t\"'`<|\u2039\u00ab\u201c\u2018"  # what may stand before a value that is quoted
_QUOTES = re.compile(r"""["'`|<>\u2039\u203a\u00ab\u00bb\u201c\u201d\u2018\u2019]""")
_GOES_ON = re2.compile(r"""["'`>|].{0,3}\b(?:AND|OR|WITH)\b|\b(?:AND|OR|WITH)\b\s*["'`<|]""")  # "MIT" AND "ISC"


def outside_snippets(lines: list[str]) -> list[bool]:
    """Which lines speak for the file and not for a snippet, or for nobody."""
    borders = []
    last_end: dict[str, int] = {}
    for number, line in enumerate(lines):
        if border := _BORDER.search(line):
            what, ends = (border[1] or border[2]).lower(), border[3].lower() == "end"
            borders.append((number, what, ends))
            if ends:
                last_end[what] = number
    speaks, closing, first = [True] * len(lines), "", 0
    for number, what, ends in borders:
        if not ends and not closing and last_end.get(what, -1) > number:
            closing, first = what, number
        elif ends and closing == what:
            speaks[first : number + 1] = [False] * (number + 1 - first)
            closing = ""
    return speaks


def tag_of(line: str) -> str | None:
    """What a tag in this line says, as it stands there; None if there is none."""
    found = TAG.search(line)
    if found is None:
        return None
    value = line[found.end() : found.end() + 2 * MAX_CHARS]
    value = value.partition("-->")[0]
    value = _QUOTES.sub(" ", value) if _GOES_ON.search(value) else value.lstrip(_OPENING)
    if closer := _CLOSERS.search(value):
        value = value[: closer.start()]
    value = value.strip(" \t.;,:")
    if value.endswith(")") and value.count(")") > value.count("("):  # of Markdown's `[//]: # (...)`
        value = value[:-1].rstrip()
    return value


def read_tag(value: str) -> str | None:
    """The value of a tag as an SPDX expression in present keys; None if it is not in SPDX's grammar, or nothing."""
    if len(value) > MAX_CHARS:
        return UNKNOWN_SPDX
    if "LicenseRef" not in value:
        value = value.replace(",", " AND ").replace("/", " OR ")
    return parse(value, UNKNOWN_SPDX)


@lru_cache(maxsize=8192)
def joined(expressions: frozenset[str]) -> str:
    """Expressions that all hold as one: sorted, joined by AND."""
    return join(sorted(expressions), "AND")
