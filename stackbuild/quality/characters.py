"""What kind each character is, as Python's `str` has it, in tables that the compiled passes look up."""

from __future__ import annotations

import sys
import unicodedata
from functools import lru_cache
from typing import Any, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

UNICODE_VERSION = unicodedata.unidata_version

ALPHABETIC, ALPHANUMERIC, WORD, SPACE, LINE_END, BASE64, HEX = (np.uint8(1 << bit) for bit in range(7))


class Classes(NamedTuple):
    """Flags of every code point: of ASCII, uint8 (128,), and of all by `blocks[block_of[point >> 8], point & 255]`."""

    ascii: U8
    block_of: I64  # (4352,)
    blocks: U8  # (b, 256)


@lru_cache(maxsize=1)
def character_classes() -> Classes:
    """Flags of every code point of this interpreter's Unicode.

    Built from the interpreter's own tables, once per process (0.2 CPU-s); 32 KiB, so that it stays in the processor's
    cache. Planes 4 to 13 have no characters and 15 and 16 are private, so they are not asked.
    """
    flags = np.zeros(sys.maxunicode + 1, np.uint8)
    for run in (range(0xD800), range(0xE000, 0x40000), range(0xE0000, 0xF0000)):
        text = "".join(map(chr, run))
        for flag, test in ((ALPHABETIC, str.isalpha), (ALPHANUMERIC | WORD, str.isalnum), (SPACE, str.isspace)):
            held = np.fromiter(map(test, text), np.bool_, len(text))
            flags[run.start : run.stop] |= np.where(held, flag, np.uint8(0))
    flags[[ord(c) for c in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"]] |= LINE_END
    flags[ord("_")] |= WORD
    for text, flag in (("0123456789abcdefABCDEF", HEX), ("+/\n=", BASE64)):
        flags[[ord(c) for c in text]] |= flag
    flags[:128] |= np.where(flags[:128] & ALPHANUMERIC, BASE64, np.uint8(0))
    blocks, block_of = np.unique(flags.reshape(-1, 256), axis=0, return_inverse=True)
    return Classes(flags[:128].copy(), block_of.astype(np.int64).reshape(-1), np.ascontiguousarray(blocks))


@nb.njit(inline="always")
def decode(data: U8, i: int, hi: int) -> Any:
    """(code point, width) of the character at byte i of valid UTF-8; a torn one counts as one byte of U+FFFD."""
    b = np.int64(data[i])
    if b < 0x80:
        return b, 1
    if b < 0xE0:
        if i + 2 <= hi:
            return (b & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F), 2
    elif b < 0xF0:
        if i + 3 <= hi:
            return (b & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F), 3
    elif i + 4 <= hi:
        point = (b & 0x07) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12
        point |= (np.int64(data[i + 2]) & 0x3F) << 6 | (np.int64(data[i + 3]) & 0x3F)
        return min(point, 0x10FFFF), 4
    return 0xFFFD, 1
