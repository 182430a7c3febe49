"""Encoded data, rule Q7: where the expressions of `kernels` match, found without a regular expression in linear time.

Each repetition of the hex and the unicode expression has at most one way to match at a given place and one place to go
on from. So repetitions form chains, a chain's tails are its only other matches, and a scan may go on where a chain
ended.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.quality.characters import BASE64, HEX, I64, SPACE, U8, WORD, Classes, decode

BASE64_MIN = 64  # characters
CHAIN_MIN = 8  # repetitions


@kernel
def hex_chain(data: U8, i: int, hi: int, classes: Classes) -> tuple[int, int]:
    """Follow repetitions of the hex expression from byte i, where a word boundary is: (end, how many)."""
    end, n = i, 0
    while True:
        q = end
        if q + 1 < hi and data[q + 1] == 0x78 and (data[q] == 0x30 or data[q] == 0x5C):  # 0x, \x
            q += 2
        if (
            q + 1 >= hi
            or data[q] >= 0x80
            or data[q + 1] >= 0x80
            or not classes.ascii[data[q]] & classes.ascii[data[q + 1]] & HEX
        ):
            return end, n
        q += 2
        after_word = False
        if q < hi and data[q] == 0x2C:  # a comma
            q += 1
        else:
            after_word = True
            first = True
            while q < hi:
                point, width = decode(data, q, hi)
                flags = classes.blocks[classes.block_of[point >> 8], point & 255]
                if first and flags & WORD:
                    return end, n
                first = False
                if not flags & SPACE:
                    break
                after_word = False
                q += width
        end, n = q, n + 1
        if q >= hi:
            return end, n
        point, width = decode(data, q, hi)
        if ((classes.blocks[classes.block_of[point >> 8], point & 255] & WORD) != 0) == after_word:
            return end, n  # no word boundary here


@kernel
def unicode_chain(data: U8, i: int, hi: int, classes: Classes) -> tuple[int, int]:
    """Follow repetitions of the unicode expression from byte i: (end, how many)."""
    n = 0
    while i + 6 <= hi and data[i] == 0x5C and data[i + 1] == 0x75:
        for j in range(i + 2, i + 6):
            if data[j] >= 0x80 or not classes.ascii[data[j]] & HEX:
                return i, n
        i, n = i + 6, n + 1
    return i, n


@kernel
def characters_between(data: U8, lo: int, hi: int) -> int:
    """How many characters start in bytes lo to hi."""
    n = 0
    for i in range(lo, hi):
        n += (data[i] & 0xC0) != 0x80
    return n


@kernel
def union_length(a: I64, n: int, b: I64, m: int) -> int:
    """Length of the union of two sorted lists of disjoint half-open spans: int64 (n, 2) and (m, 2)."""
    total, reach, i, j = 0, -1, 0, 0
    while i < n or j < m:
        if j >= m or (i < n and a[i, 0] <= b[j, 0]):
            start, end, i = a[i, 0], a[i, 1], i + 1
        else:
            start, end, j = b[j, 0], b[j, 1], j + 1
        if end > reach:
            total += end - max(start, reach)
            reach = end
    return total


@kernel
def base64_runs(data: U8, lo: int, hi: int, classes: Classes, runs: I64) -> tuple[int, int]:
    """Write the runs of base64 in ASCII bytes lo to hi to `runs`, from lo: (how many, the longest).

    Of each BASE64_MIN bytes the last that is not of the class is sought from behind: most bytes are never looked at.
    """
    n, longest, begin = 0, 0, lo
    while begin + BASE64_MIN <= hi:
        i = begin + BASE64_MIN - 1
        while i >= begin and classes.ascii[data[i]] & BASE64:
            i -= 1
        if i < begin:
            i = begin + BASE64_MIN
            while i < hi and classes.ascii[data[i]] & BASE64:
                i += 1
            runs[n, 0], runs[n, 1] = begin - lo, i - lo
            n, longest = n + 1, max(longest, i - begin)
        begin = i + 1
    return n, longest


LINE, CHAIN = np.uint8(1), np.uint8(2)


def _windows() -> tuple[U8, U8]:
    """Kinds of byte, and what four of them in a row tell of the last (LINE) and of two before it (CHAIN); uint8 (256,)
    and (4096,).

    A repetition of the hex or unicode expression can begin, after a word boundary where it wants one, only with a word
    of two hex digits, with 0x or \\x and a hex digit, or with \\u and one.
    """
    other, digit, zero, x, word, backslash, u, end = range(8)
    kinds = np.full(256, other, np.uint8)
    kinds[[c for c in range(128) if chr(c).isalnum() or chr(c) == "_"]] = word
    kinds[list(b"123456789abcdefABCDEF")] = digit
    kinds[list(b"\n\r\v\f\x1c\x1d\x1e")] = end
    for byte, kind in ((b"0", zero), (b"x", x), (b"u", u), (b"\\", backslash)):
        kinds[byte[0]] = kind
    events = np.zeros(4096, np.uint8)
    words, hexes = {digit, zero, x, word, u}, {digit, zero}
    for before, first, second, third in product(range(8), repeat=4):
        begins = first == backslash and third in hexes and (second == u or (second == x and before in words))
        if before not in words and first in hexes:
            begins |= second in hexes and third not in words
            begins |= first == zero and second == x and third in hexes
        events[before << 9 | first << 6 | second << 3 | third] = LINE * (third == end) + CHAIN * begins
    return kinds, events


KINDS, EVENTS = _windows()
