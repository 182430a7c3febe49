"""Expressions for strangers' text: compiled for RE2, which is linear in its input whatever the pattern.

Patterns see bytes (Latin-1): positions are bytes of the UTF-8 text, `\\b` and `\\w` are ASCII. `lint` refuses what would be
quietly wrong.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import re2

WORD: Final = "A-Za-z0-9_"


def compiled(pattern: str) -> Any:
    """A pattern for bytes, after `lint`."""
    lint(pattern)
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    try:
        return re2.compile(pattern.encode("latin-1"), options)
    except re2.error as error:
        raise ValueError(f"RE2 cannot compile {pattern!r}: {error}") from error


def lint(pattern: str) -> None:
    """ValueError for what RE2 would take and mean otherwise (starcoder1 D8: `\\b` in brackets is a backspace)."""
    if not pattern.isascii():
        raise ValueError(f"{pattern!r} is not ASCII: write bytes as \\x escapes")
    for bracket in re.findall(r"(?<!\\)\[\^?\]?(?:\\.|[^\]\\])*\]", pattern):
        if "\\b" in bracket or "\\B" in bracket:
            raise ValueError(f"{pattern!r} has a word boundary inside brackets, which means a backspace")
    if re.search(r"[*+}]\)[*+]|\.\*|\.\+", pattern):
        raise ValueError(f"{pattern!r} repeats a repetition, or any byte without end")


def nowhere_empty(pattern: Any) -> Any:
    """The compiled pattern; ValueError if it can match without a byte: it would at each place of a text."""
    for probe in (b"", b"a", b" ", b"\n", b"=", b'"'):
        found = pattern.match(probe)
        if found is not None and found.end() == found.start():
            raise ValueError("the pattern matches where nothing stands: it must take at least one byte")
    return pattern


@cache
def members(alphabet: str) -> npt.NDArray[np.bool_]:
    """Which bytes an alphabet holds, written as between brackets (bool, 256)."""
    if not alphabet:
        return np.zeros(256, np.bool_)
    wanted = re.compile(f"[{alphabet}]")
    return np.array([wanted.fullmatch(chr(byte)) is not None for byte in range(256)])


def any_of(words: list[str], around: str = "{}") -> Any:
    """One expression for any of these literals."""
    return compiled(around.format("|".join(re.escape(word) for word in words)))
