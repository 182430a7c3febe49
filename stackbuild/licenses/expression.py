"""SPDX licence expressions: their grammar, and which keys one obliges its reader to.

The Stack v2 takes every licence of an expression ("all"), so that `MIT OR GPL-2.0-only` becomes non-permissive. Under
the other reading ("choice") whoever has the choice takes the alternative whose worst licence is best. An exception
counts as a key of its own, beside the licence that it is joined to by WITH.

The expressions come from ScanCode and, through it, from SPDX lines that strangers wrote. They are read in one pass with
two stacks, in time linear in their length and without recursion.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, TypeVar

Reading = Literal["all", "choice"]
Keys = frozenset[str]
T = TypeVar("T")

MAX_CHARS = 1 << 20
_TOKEN = re.compile(r"[()]|[^\s()]+")
_BINDING = {"OR": 1, "AND": 2, "WITH": 3}


def keys_of(expression: str) -> Keys:
    """All keys of an expression; of one that is not well formed, all words that are no operators."""
    return frozenset(
        token for token in _TOKEN.findall(expression[:MAX_CHARS]) if token.upper() not in _BINDING and token not in "()"
    )


def plain_key(key: str) -> str:
    """The key without -only or -or-later: their texts are the same."""
    return key.removesuffix("-only").removesuffix("-or-later")


def fold(expression: str, operand: Callable[[str, bool], T | None], join: Callable[[str, T, T], T | None]) -> T | None:
    """The value of an expression by SPDX's grammar (operators in any case, as it asks): `operand` gives that of a word, and
    is told whether WITH stands before it; `join` that of two values and the operator (OR, AND, WITH) between them. None if
    the expression is not well formed, or either gives None.
    """
    values: list[T] = []
    operators: list[str] = []

    def bind(down_to: int) -> bool:
        while operators and operators[-1] != "(" and _BINDING[operators[-1]] >= down_to:
            right, left = values.pop(), values.pop()
            joined = join(operators.pop(), left, right)
            if joined is None:
                return False
            values.append(joined)
        return True

    after_value = False
    for token in _TOKEN.findall(expression):
        operator = token.upper()
        if operator in _BINDING or token == ")":
            if not after_value or not bind(_BINDING.get(operator, 0)):
                return None
            if token == ")" and not operators:
                return None
            if token == ")":
                operators.pop()
            else:
                operators.append(operator)
                after_value = False
            continue
        after_with = bool(operators) and operators[-1] == "WITH"
        if after_value or (after_with and token == "("):
            return None
        if token == "(":
            operators.append(token)
            continue
        value = operand(token, after_with)
        if value is None:
            return None
        values.append(value)
        after_value = True
    return values[0] if after_value and bind(0) and not operators else None


def read_expression(expression: str, reading: Reading, severity: Callable[[str], int]) -> Keys:
    """The keys that count under a reading. `severity`: how bad a key is, smaller is better; of equal alternatives the
    first.

    An expression that is not well formed counts with all its keys.
    """

    def join(operator: str, left: tuple[int, Keys], right: tuple[int, Keys]) -> tuple[int, Keys]:
        if operator == "OR":
            return right if right[0] < left[0] else left
        return max(left[0], right[0]), left[1] | right[1]

    if reading == "all" or len(expression) > MAX_CHARS:
        return keys_of(expression)
    chosen = fold(expression, lambda token, _: (severity(token), frozenset((token,))), join)
    return keys_of(expression) if chosen is None else chosen[1]
