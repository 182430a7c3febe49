"""Words beside the name of a licence by which a notice does not state that licence.

"GPL-compatible" and "compatible with the GPL" name no licence of a file. "An MIT-style license", "BSD-like" and "MIT-ish" say
that the licence is like one, and not what it is: without a text or a file that is named beside them they are mentions.
Patterns are linear; forms are plain lower case (`headers.header_form`).
"""

from __future__ import annotations

import re

from stackbuild.licenses.expression import keys_of

_VERSION = r"(?:[ \n-]?(?:v|version[ \n])?[0-9](?:\.[0-9])?\+?)?"
_NAME = (
    r"(?:the[ \n])?(?:gnu[ \n])?(?:[al]?gpl|(?:(?:lesser|affero)[ \n])?general[ \n]public[ \n]licen[cs]e|apache|mit|bsd|mpl)"
    rf"{_VERSION}(?:[ \n]licen[cs]e{_VERSION})?"
)
_COMPATIBLE = re.compile(
    rf"\b{_NAME}[ -]compatible\b(?![ \n]with\b)|compatible[ \n]with[ \n](?:both[ \n])?{_NAME}(?:(?:,|/|[ \n]and|[ \n]or)[ \n]?{_NAME})*"
)
_FAMILY = re.compile(r"[al]?gpl|general[ \n]public|apache|mit|bsd|mpl")
_FAMILIES = {"gpl": ("gpl", "lgpl", "agpl"), "general": ("gpl", "lgpl", "agpl")}

_LIKE = re.compile(r"\b([a-z]+)[0-9]*[ \n-]?(?:style|like|type|ish)\b")
_ALSO = {"x": ("mit",), "berkeley": ("bsd",), "expat": ("mit",), "gplv": ("gpl",), "lgplv": ("lgpl",)}  # x: of X11


def families(expression: str) -> set[str]:
    """The first words of the keys: bsd of BSD-3-Clause."""
    return {key.split("-", 1)[0].lower() for key in keys_of(expression)}


def without_compatible(text: str) -> tuple[str, set[str]]:
    """A text without what it says to be compatible with, of as many lines, and the families of licences named there."""
    named: set[str] = set()
    if "compatible" not in text:
        return text, named

    def drop(found: re.Match[str]) -> str:
        for one in _FAMILY.findall(found[0]):
            word = one.split()[0]
            named.update(_FAMILIES.get(word, (word,)))
        return "compatible" + "\n" * found[0].count("\n")

    return _COMPATIBLE.sub(drop, text), named


def is_only_like(expression: str, text: str) -> bool:
    """Whether a text calls a licence of the expression one that the file's is like."""
    if not any(word in text for word in ("style", "like", "type", "ish")):
        return False
    liked: set[str] = set()
    for one in _LIKE.findall(text):
        liked.update(_ALSO.get(one, (one,)))
    return not liked.isdisjoint(families(expression))
