"""SPDX licence expressions, read strictly: known keys, well formed, canonical; else nothing.

Grammar: SPDX specification 3.0, annex "SPDX license expressions". Keys and operators are read in any case, as it asks.
The known keys and their other names are those of `licenses/scancode.json`, so `GPL-2.0+` is `GPL-2.0-or-later`. The old
identifiers that stand for a licence with an exception are in `licenses/names.toml`. `LicenseRef-*` needs not to be known.

One pass with two stacks: linear, without recursion, and nothing is raised.
"""

from __future__ import annotations

import re
from functools import cache

from stackbuild.licenses.lists import data_path, read_toml, scancode_licenses

MAX_CHARS = 4_096
_TOKEN = re.compile(r"[()]|[^\s()]+")
_BINDING = {"OR": 1, "AND": 2, "WITH": 3}
_REFERENCE = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+\Z")
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
    found = keys.get(token.lower())
    if found is None and token.endswith("+"):
        found = keys.get(token[:-1].lower())  # "or any later version": who takes this one is within it
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


def parse(text: str) -> str | None:
    """The canonical form of an SPDX expression: no more parentheses than it needs, nothing twice; None if it is none."""
    if len(text) > MAX_CHARS:
        return None
    values: list[Value] = []
    operators: list[str] = []
    after_value = False
    for token in _TOKEN.findall(text):
        operator = token.upper()
        if operator in _BINDING or token == ")":
            if not after_value:
                return None
            binding = _BINDING.get(operator, 0)
            while operators and operators[-1] != "(" and _BINDING[operators[-1]] >= binding:
                if not _apply(values, operators.pop()):
                    return None
            if token != ")":
                operators.append(operator)
                after_value = False
            elif not operators:
                return None
            else:
                operators.pop()
        elif after_value:
            return None
        elif token == "(":
            if operators and operators[-1] == "WITH":
                return None
            operators.append(token)
        else:
            found = exception_key(token) if operators and operators[-1] == "WITH" else license_key(token)
            if found is None:
                return None
            values.append(("WITH" if " " in found else "", (found,)))
            after_value = True
    if not after_value:
        return None
    while operators:
        if operators[-1] == "(" or not _apply(values, operators.pop()):
            return None
    return _written(values[0])


def _apply(values: list[Value], operator: str) -> bool:
    """Join the last two values; False if WITH does not stand between a licence and an exception."""
    right, left = values.pop(), values.pop()
    if operator == "WITH":
        values.append(("WITH", (f"{left[1][0]} WITH {right[1][0]}",)))
        return left[0] == ""
    parts: list[str] = []
    for side in (left, right):
        inside = side[0] == "OR" and operator == "AND"
        parts += side[1] if side[0] == operator else (f"({_written(side)})" if inside else _written(side),)
    distinct = tuple(dict.fromkeys(parts))
    if len(distinct) == 1:  # "MIT AND MIT", "(A OR B) AND (A OR B)"
        values.append(left)
    else:
        values.append((operator, distinct))
    return True


def _written(value: Value) -> str:
    operator, parts = value
    return f" {operator} ".join(parts)


def join(expressions: list[str], operator: str) -> str:
    """Canonical expressions, each once, in their order, joined by AND or OR (at least one)."""
    distinct = list(dict.fromkeys(expressions))
    whole = f" {operator} ".join(f"({one})" for one in distinct)
    return distinct[0] if len(distinct) == 1 else parse(whole) or whole
