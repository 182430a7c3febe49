"""What is found by its shape and not by a literal: e-mail addresses, IP addresses, dotted tokens, users in URLs.

Each shape has a byte that marks it (MARKS). The gate asks at each of them whether the bytes about it may be of that
shape: a bounded number of steps, so that no text is slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.pii.spans import U8

# Shapes, as rule numbers of hits; rules with literals count from 0.
EMAIL, IPV4, IPV6, DOTTED, USERINFO = -1, -2, -3, -4, -5

DOMAIN_BYTES = 253
USERINFO_BYTES = 200
IPV6_BYTES = 47  # a run that is longer is no address

WORD, DIGIT, HEX, LOCAL, DOMAIN, URL = (np.uint8(1 << bit) for bit in range(6))


def byte_flags() -> U8:
    """Flags of every byte for the shapes; bytes from 0x80 are letters of a name or domain, not of a word."""
    flags = np.zeros(256, np.uint8)
    for byte in range(256):
        char = chr(byte)
        ascii_alnum = byte < 128 and char.isalnum()
        flags[byte] |= WORD if ascii_alnum or char == "_" else 0
        flags[byte] |= DIGIT if char in "0123456789" else 0
        flags[byte] |= HEX if char in "0123456789abcdefABCDEF" else 0
        flags[byte] |= LOCAL if ascii_alnum or char in "._+-" or byte >= 0x80 else 0
        flags[byte] |= DOMAIN if ascii_alnum or char in ".-" or byte >= 0x80 else 0
        flags[byte] |= URL if ascii_alnum or char in "_-" else 0
    return flags


FLAGS = byte_flags()
MARKS = np.isin(np.arange(256), list(b"@.:"))  # bytes that mark a shape


@kernel
def shape_at(data: Any, low: int, high: int, at: int, flags: Any) -> tuple[int, int, int]:
    """The shape that the byte at `at` is the mark of, with its start and end; 0 for none."""
    byte = data[at]
    if byte == 64:  # @
        if _email(data, low, high, at, flags):
            return EMAIL, at, at + 1
    elif byte == 46:  # .
        if at > low and flags[data[at - 1]] & DIGIT:
            start, end = _ipv4(data, low, high, at, flags)
            if end:
                return IPV4, start, end
        if at + 8 < high and data[at + 7] == 46 and _dotted(data, low, high, at, flags):
            return DOTTED, at, at + 1
    elif byte == 58 and at + 1 < high:  # :
        if flags[data[at + 1]] & HEX or data[at + 1] in (46, 58):
            start, end = _ipv6(data, low, high, at, flags)
            if end:
                return IPV6, start, end
        elif at + 2 < high and data[at + 1] == 47 and data[at + 2] == 47 and _userinfo(data, at + 3, high):
            return USERINFO, at, at + 3
    return 0, 0, 0


@kernel
def _email(data: Any, low: int, high: int, at: int, flags: Any) -> bool:
    """A byte of a name before the "@", a domain with a dot and a letter behind it. Scans stop at the next "@"."""
    if at == low or at + 3 >= high or not flags[data[at - 1]] & LOCAL or not flags[data[at + 1]] & DOMAIN:
        return False
    for i in range(at + 1, min(high - 1, at + 2 + DOMAIN_BYTES)):
        byte = data[i]
        if not flags[byte] & DOMAIN:
            return False
        after = data[i + 1]
        if byte == 46 and (after >= 0xC3 or (flags[after] & WORD and not flags[after] & DIGIT)):
            return True
    return False


@kernel
def _ipv4(data: Any, low: int, high: int, dot: int, flags: Any) -> tuple[int, int]:
    """Start and end of four numbers of up to three digits of which this is the first dot, (0, 0) if it is not."""
    start = dot
    while start > low and dot - start < 4 and flags[data[start - 1]] & DIGIT:
        start -= 1
    if start == dot or dot - start > 3 or (start > low and (flags[data[start - 1]] & WORD or data[start - 1] == 46)):
        return 0, 0
    at = dot
    for _ in range(3):
        if at >= high or data[at] != 46:
            return 0, 0
        at += 1
        digits = 0
        while at < high and digits < 4 and flags[data[at]] & DIGIT:
            at += 1
            digits += 1
        if digits == 0 or digits > 3:
            return 0, 0
    if at < high and (flags[data[at]] & WORD or (data[at] == 46 and at + 1 < high and flags[data[at + 1]] & WORD)):
        return 0, 0
    return start, at


@kernel
def _ipv6(data: Any, low: int, high: int, colon: int, flags: Any) -> tuple[int, int]:
    """Start and end of a run that may be an address and of which this is the first colon, (0, 0) if it is not."""
    start = colon
    while start > low and colon - start < 5 and flags[data[start - 1]] & HEX:
        start -= 1
    if colon - start > 4 or (
        start > low and (flags[data[start - 1]] & WORD or data[start - 1] == 58 or data[start - 1] == 46)
    ):
        return 0, 0
    colons, digits, pairs = 0, 0, 0
    at = start
    while at < high and at - start <= IPV6_BYTES:
        byte = data[at]
        if byte == 58:
            colons += 1
            if at > start and data[at - 1] == 58:
                pairs += 1
        elif flags[byte] & DIGIT:
            digits += 1
        elif not (flags[byte] & HEX or byte == 46):
            break
        at += 1
    if at - start > IPV6_BYTES or colons < 2 or digits < 2 or (pairs == 0 and colons < 6) or pairs > 1:
        return 0, 0
    if at < high and flags[data[at]] & WORD:
        return 0, 0
    return start, at


@kernel
def _dotted(data: Any, low: int, high: int, dot: int, flags: Any) -> bool:
    """Six bytes of base64url between this dot and the next, and 24 before it."""
    if dot - low < 24 or dot + 8 >= high or data[dot + 7] != 46:
        return False
    for i in range(-24, 7):  # noqa: SIM110  numba has no all() over a generator
        if i and not flags[data[dot + i]] & URL:
            return False
    return True


@kernel
def _userinfo(data: Any, start: int, high: int) -> bool:
    """A colon and then an "@" before the first slash, space or quote. Scans stop at the next "://"."""
    colon = False
    for at in range(start, min(high, start + USERINFO_BYTES)):
        byte = data[at]
        if byte == 64:
            return colon
        if byte == 58:
            colon = True
        elif byte <= 32 or byte in (34, 39, 47, 60, 62):
            return False
    return False
