"""Showing names of strangers: control and direction characters are escaped, so that a name cannot draw on the terminal."""

from __future__ import annotations

import unicodedata

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def escaped(text: str) -> str:
    """The text with characters that are not seen written as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c
        if unicodedata.category(c) not in HIDDEN
        else c.encode("unicode_escape").decode("ascii")
        if ord(c) > 31
        else repr(c)[1:-1]
        for c in text
    )
