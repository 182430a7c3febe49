"""Which licence keys an SPDX expression obliges its reader to.

The Stack v2 takes every licence of an expression ("all"), so that `MIT OR GPL-2.0-only` becomes non-permissive. Under
the other reading ("choice") whoever has the choice takes the alternative whose worst licence is best. An exception
counts as a key of its own, beside the licence that it is joined to by WITH.

The expressions come from ScanCode and, through it, from SPDX lines that strangers wrote. They are read in one pass with
two stacks, in time linear in their length and without recursion.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

Reading = Literal["all", "choice"]
Keys = frozenset[str]

MAX_CHARS = 1 << 20
_TOKEN = re.compile(r"[()]|[^\s()]+")
_BINDING = {"OR": 1, "AND": 2, "WITH": 3}


class ExpressionError(ValueError):
    """Not an SPDX expression."""


def keys_of(expression: str) -> Keys:
    """All keys of an expression; of one that is not well formed, all words that are no operators."""
    return frozenset(
        token for token in _TOKEN.findall(expression[:MAX_CHARS]) if token.upper() not in _BINDING and token not in "()"
    )


def read_expression(expression: str, reading: Reading, severity: Callable[[str], int]) -> Keys:
    """The keys that count under a reading. `severity`: how bad a key is, smaller is better; of equal alternatives the
    first.

    An expression that is not well formed counts with all its keys.
    """
    if reading == "all":
        return keys_of(expression)
    try:
        return _choose(expression, severity)
    except ExpressionError:
        return keys_of(expression)


def _choose(expression: str, severity: Callable[[str], int]) -> Keys:
    values: list[tuple[int, Keys]] = []
    operators: list[str] = []

    def apply() -> None:
        operator = operators.pop()
        if operator == "(" or len(values) < 2:
            raise ExpressionError(expression[:200])
        right, left = values.pop(), values.pop()
        if operator == "OR":
            values.append(right if right[0] < left[0] else left)
        else:
            values.append((max(left[0], right[0]), left[1] | right[1]))

    if len(expression) > MAX_CHARS:
        raise ExpressionError(expression[:200])
    after_value = False
    for token in _TOKEN.findall(expression):
        operator = token.upper()
        if operator in _BINDING:
            if not after_value:
                raise ExpressionError(expression[:200])
            while operators and operators[-1] != "(" and _BINDING[operators[-1]] >= _BINDING[operator]:
                apply()
            operators.append(operator)
            after_value = False
        elif token == ")":
            if not after_value:
                raise ExpressionError(expression[:200])
            while operators and operators[-1] != "(":
                apply()
            if not operators:
                raise ExpressionError(expression[:200])
            operators.pop()
        elif after_value:
            raise ExpressionError(expression[:200])
        elif token == "(":
            operators.append(token)
        else:
            values.append((severity(token), frozenset((token,))))
            after_value = True
    if not after_value:
        raise ExpressionError(expression[:200])
    while operators:
        apply()
    return values[0][1]
