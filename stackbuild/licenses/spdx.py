"""SPDX licence expressions in canonical form and with present keys; what is not well formed is nothing.

Grammar: SPDX specification 3.0, annex "SPDX license expressions". Keys and operators are read in any case, as it asks.
The known keys and their other names are those of `licenses/scancode.json`, so `GPL-2.0+` is `GPL-2.0-or-later`. The old
identifiers that stand for a licence with an exception are in `licenses/names.toml`. `LicenseRef-*` needs not to be known.

Strangers write them: reading is linear, without recursion, and nothing is raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from stackbuild.licenses.expression import fold
from stackbuild.licenses.lists import data_path, read_toml, scancode_licenses

MAX_CHARS = 4_096
_REFERENCE = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+\Z")
_KEY = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]{1,100}:)?[A-Za-z0-9][A-Za-z0-9.-]{0,200}\+?")
_ADDITION = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?AdditionRef-[A-Za-z0-9.-]+\Z")
Value = tuple[str, tuple[str, ...]]  # the operator that binds loosest, and what it joins


@cache
def _keys() -> tuple[dict[str, str], frozenset[str]]:
    """Licence keys and their other names in lower case, each with its canonical expression; canonical exceptions."""
    known = scancode_licenses()
    keys = {old.lower(): present for old, present in known.aliases.items()}
    keys |= {key.lower(): key for key in known.classes}
    old_ids: dict[str, str] = read_toml(data_path("names.toml"))["deprecated_ids"]
    return keys | {old.lower(): present for old, present in old_ids.items()}, known.exceptions


def license_key(token: str) -> str | None:
    """The canonical expression of one SPDX licence identifier, in any case; None if it is no licence."""
    keys, exceptions = _keys()
    lower = token.lower()
    plain = lower.removesuffix("+").removesuffix("-or-later")
    found = keys.get(lower)
    if found is None and plain != lower:
        found = keys.get(plain)  # "or any later version": who takes this one is within it
        if found is not None and " " in found:
            return None
    if found is None:
        return token if _REFERENCE.match(token) else None
    return None if found in exceptions else found


def exception_key(token: str) -> str | None:
    """The canonical key of what may follow WITH; None if it is no exception."""
    keys, exceptions = _keys()
    found = keys.get(token.lower())
    if found in exceptions:
        return found
    return token if _ADDITION.match(token) else None


def parse(text: str, unknown: str | None = None) -> str | None:
    """The canonical form of an SPDX expression: no more parentheses than it needs, nothing twice; None if it is none.
    `unknown`: what stands for a key that nobody knows; without it such an expression is None as well.
    """

    def operand(token: str, after_with: bool) -> Value | None:
        found = exception_key(token) if after_with else license_key(token)
        if found is None and unknown is not None and _KEY.fullmatch(token):
            found = unknown
        return None if found is None else ("WITH" if " " in found else "", (found,))

    value = fold(text, operand, _join) if len(text) <= MAX_CHARS else None
    return None if value is None else _written(value)


def _join(operator: str, left: Value, right: Value) -> Value | None:
    if operator == "WITH":
        return ("WITH", (f"{left[1][0]} WITH {right[1][0]}",)) if left[0] == "" else None
    parts: list[str] = []
    for side in (left, right):
        inside = side[0] == "OR" and operator == "AND"
        parts += side[1] if side[0] == operator else (f"({_written(side)})" if inside else _written(side),)
    distinct = tuple(dict.fromkeys(parts))
    return left if len(distinct) == 1 else (operator, distinct)  # "MIT AND MIT", "(A OR B) AND (A OR B)"


def _written(value: Value) -> str:
    operator, parts = value
    return f" {operator} ".join(parts)


def join(expressions: Iterable[str], operator: str) -> str:
    """Canonical expressions, each once, in their order, joined by AND or OR (at least one)."""
    distinct = list(dict.fromkeys(expressions))
    whole = f" {operator} ".join(f"({one})" for one in distinct)
    return distinct[0] if len(distinct) == 1 else parse(whole) or whole
