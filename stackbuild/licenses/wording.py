"""Words beside the name of a licence by which a notice does not state that licence.

"GPL-compatible" and "compatible with the GPL" name no licence of a file. "An MIT-style license", "BSD-like" and "MIT-ish" say
that the licence is like one, and not what it is: without a text or a file that is named beside them they are mentions.
What denies a licence ("not licensed under MIT", "all files but this one"), or promises it, makes a file's licence unknown.
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
_DENIES = re.compile(
    r"\b(?:not|never|no longer|isn't|aren't|neither) (?:\w+ ){0,2}(?:licen[cs]ed|released under|published under|covered by|under the)\b"
    r"|\b(?:is|are|am) not(?:[.,;!]|$)|\bwill be (?:re-?)?(?:licen[cs]ed|released|published)\b|\b(?:todo|fixme)\b|\bforbidden to\b"
    r"|\b(?:all|every|everything|rest|files?)\b[^.]{0,40}\b(?:but|except|excluding|other than) (?:for )?(?:this|these)\b"
    r"|\bfor (?:members|students|individuals|hobbyists|teachers|companies|non-?profits?|(?:internal|personal|academic|educational"
    r"|research) (?:use|purposes?)|evaluation)\b"
)
_NAMES_ANOTHER = re.compile(  # a file or terms that are not those of the whole
    r"\b(?:licen[cs]e|copying)[-_](?!mit|apache|bsd|isc|[al]?gpl|mpl|[0-9])[a-z]{2,}|\bee/\S"
    r"|\b(?:commercial|enterprise|community|proprietary|subscription|end[- ]user)[ \n](?:[a-z]+[ \n])?(?:licen[cs]e|terms|agreement)"
    r"|\blicen[cs]e *: *(?:commercial|proprietary|enterprise)\b"
)
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


def denies(text: str) -> bool:
    """Whether lines that name a licence say that it does not hold, not yet, or not for all."""
    return _DENIES.search(text) is not None


def names_another(text: str) -> bool:
    """Whether a pointer to a licence file is to one of somebody's own: LICENSE-EE, "a commercial license"."""
    return _NAMES_ANOTHER.search(text) is not None
