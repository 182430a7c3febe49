"""E-mail and IP addresses by the published expressions of SantaCoder (starcoder1 2.2; Ben Allal et al. 2023), in linear time.

The expressions backtrack: 20 kB of "a.a." keep them busy for half a minute. Here each "@" is looked at once, leftwards
to where its local part can begin and rightwards over at most eleven labels, which is what the expression comes to; and
the addresses are an RE2 expression, whose conditions on neighbours are looked at after a match. What they accept is the
same, with these exceptions (registers D1 and D8):
- "dns" and "server" are sought in the 100 characters on either side, also where the file begins;
- a word boundary in brackets, which means a backspace, is none of the delimiters;
- two addresses may have one delimiter between them: it is not used up by the first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, Final

import re2
import regex

from stackbuild.pii.rules import Ip

EMAIL, IP = "EMAIL", "IP_ADDRESS"
LABELS: Final = 10
LABEL: Final = 64
TOP: Final = 63
TAIL_BYTES: Final = 4 * (LABELS * (LABEL + 1) + TOP + 2)  # no domain of the expression is longer
CONTEXT: Final = 100  # characters about an address in which "dns" or "server" makes it one
CONTEXT_BYTES: Final = 4 * CONTEXT

_LEFT = frozenset("[({<@,?!;:'\".\u00a1\u00bf")
_RIGHT = frozenset("])}>@,?!;'\"")
_NOT_LOCAL = frozenset("[](){}<>@,?!;'\":#/\\")
_NOT_LABEL = frozenset("@?!;,/()>.")
_XN = regex.compile(r"xn--[A-Za-z0-9-]{1,59}")


@lru_cache(4096)
def _kind(char: str) -> str:
    """What a character is to the expressions: h (Han), l (letter or mark), w (other word character), s (space), or empty."""
    for kind, pattern in (("h", r"\p{Han}"), ("l", r"[\p{L}\p{M}]"), ("w", r"\w"), ("s", r"\s")):
        if regex.match(pattern, char):
            return kind
    return ""


def opens(char: str) -> bool:
    """A match may begin behind this character; "" is the beginning of the text."""
    return not char or char in _LEFT or _kind(char) in ("s", "h")


def closes(text: str, at: int) -> bool:
    """A match may end before text[at]."""
    char, after = text[at : at + 1], text[at + 1 : at + 2]
    if char == "\\":
        return after in ("'", '"') and after != ""
    if char == ":":
        return not (after and regex.match(r"\d", after))
    if char == ".":
        return not after or _kind(after) == "s"
    return not char or char in _RIGHT or _kind(char) in ("s", "h")


# ---------------------------------------------------------------- e-mail addresses


def emails(raw: bytes) -> Iterator[tuple[int, int]]:
    """Spans in bytes of e-mail addresses in a UTF-8 text, from left to right."""
    low = 0  # behind the last match, and behind the last "@": a local part holds none
    at = raw.find(b"@")
    while at >= 0:
        before = raw[max(0, low - 4) : low].decode(errors="ignore")[-1:]
        local = raw[low:at].decode()
        first = local_start(before, local)
        low = at + 1
        if first < len(local):
            tail = raw[low : low + TAIL_BYTES].decode(errors="ignore")
            end = domain_end(tail)
            if end:
                low += len(tail[:end].encode())
                yield at - len(local[first:].encode()), low
        at = raw.find(b"@", max(low, at + 1))


def local_start(before: str, text: str) -> int:
    """Where the longest local part begins that ends with `text`; its length if there is none. `before`: the character
    before `text`."""
    first, after = len(text), "@"
    while first:
        char = text[first - 1]
        if char in _NOT_LOCAL or (char in "=.-" and after in ".@") or _kind(char) == "s":
            break
        first, after = first - 1, char
    for start in range(first, len(text)):
        if opens(text[start - 1] if start else before):
            return start
    return len(text)


def domain_end(text: str) -> int:
    """Where the domain ends with which `text` begins, 0 if it begins with none."""
    starts: list[int] = []
    at = 0
    while len(starts) < LABELS:
        stop = at
        while stop < len(text) and stop - at <= LABEL and text[stop] not in _NOT_LABEL and _kind(text[stop]) != "s":
            stop += 1
        if text[stop : stop + 1] != "." or not is_label(text[at:stop]):
            break
        at = stop + 1
        starts.append(at)
    for start in reversed(starts):
        stop = start
        while stop < len(text) and stop - start < TOP and is_letter(text[stop]):
            stop += 1
        for end in range(stop, start + 1, -1):
            if closes(text, end):
                return end
        code = _XN.match(text, start)
        for end in range(code.end(), start + 4, -1) if code else ():
            if closes(text, end):
                return end
    return 0


def is_label(text: str) -> bool:
    """One word character, or 2 to 64 of which the first is none of "- :" and the last none of "- : ' ''"."""
    if len(text) == 1:
        return text == "_" or _kind(text) in ("h", "l", "w")
    return 2 <= len(text) <= LABEL and text[0] not in "-:" and text[-1] not in "-:'\""


def is_letter(char: str) -> bool:
    """A letter or a mark, of any script."""
    kind = _kind(char)
    return kind == "l" or (kind == "h" and bool(regex.match(r"[\p{L}\p{M}]", char)))


# ---------------------------------------------------------------- IP addresses

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_V4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H = "[0-9a-fA-F]{1,4}"
# Every way to shorten eight groups, a link's address with its zone, and an IPv4 address behind groups, in the order in
# which the expression tries them.
ADDRESS: Final = "|".join(
    [
        _V4,
        rf"(?:{_H}:){{7}}{_H}",
        rf"(?:{_H}:){{1,7}}:",
        *(rf"(?:{_H}:){{1,{7 - n}}}(?::{_H}){{1,{n}}}" for n in range(1, 7)),
        rf":(?::{_H}){{1,7}}",
        "::",
        r"fe80:(?::[0-9a-fA-F]{0,4}){0,4}%[0-9a-zA-Z]+",
        rf"::(?:ffff(?::0{{1,4}})?:)?{_V4}",
        rf"(?:{_H}:){{1,4}}:{_V4}",
    ]
)
_SPACE = r"\t\n\x0b\x0c\r\x{85}\p{Z}"
_OPEN = rf"""[\[({{<@,?!;:'".\x{{a1}}\x{{bf}}\p{{Han}}{_SPACE}]"""
_CLOSE = rf"""(?:\z|[\])}}>@,?!;'"\p{{Han}}{_SPACE}]|\\['"]|:(?:\z|\P{{Nd}})|\.(?:\z|[{_SPACE}]))"""


@cache
def _address() -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(rf"(?:\A|{_OPEN})({ADDRESS}){_CLOSE}", options)


_DASH = r"[\p{Pd}/]"
_DATE = regex.compile(
    rf"[12]\d{{3}}{_DASH}[12]\d{{3}}"
    r"|[12][0-9]{3}[\p{Pd}/.][0-3][0-9][\p{Pd}/.][0-3][0-9]"
    r"|[0-3][0-9][\p{Pd}/.][0-3][0-9][\p{Pd}/.](?:[0-9]{2}|[12][0-9]{3})"
    rf"|[0-3][0-9]{_DASH}(?:[0-9]{{2}}|[12][0-9]{{3}})"
    r"|[12][0-9]{3}-[0-3][0-9]"
)


def addresses(raw: bytes, facts: Ip) -> Iterator[tuple[int, int]]:
    """Spans in bytes of the IP addresses of a UTF-8 text that are masked: published filters, private ones and the
    public resolvers left out."""
    for start, end in shapes(raw):
        before = raw[max(0, start - CONTEXT_BYTES) : start].decode(errors="ignore")[-CONTEXT:]
        after = raw[end : end + CONTEXT_BYTES].decode(errors="ignore")[:CONTEXT]
        value = raw[start:end].decode()
        if is_address(value, before + value + after) and not is_common(value, facts):
            yield start, end


def shapes(raw: bytes) -> Iterator[tuple[int, int]]:
    """Spans of what has the shape of an address between delimiters."""
    found = _address().search(raw)
    while found:
        start, end = found.span(1)
        yield start, end
        found = _address().search(raw, end - 1)  # its last character, a colon, may be the delimiter of what follows


def is_address(value: str, context: str) -> bool:
    """The published filters: a digit, no date, no four single digits without "dns" or "server" near, and it parses."""
    if not any(char.isdigit() for char in value) or _DATE.fullmatch(value):
        return False
    lower = context.lower()
    if value.count(".") == 3 and len(value) == 7 and "dns" not in lower and "server" not in lower:
        return False
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def is_common(value: str, facts: Ip) -> bool:
    """A private address, or one of the 14 public resolvers, by its text; both stay."""
    return ipaddress.ip_address(value).is_private or (":" not in value and value in facts.resolvers)
