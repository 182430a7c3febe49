"""Character counts of code, measured in one pass over Arrow's buffers.

Everything is counted in characters (Unicode code points), never bytes, as the thresholds of The Stack v2 (Lozhkov et
al. 2024, section 2.1) are stated. Three definitions are Python's, because the reference pipelines were written in it:

- a line is what `str.splitlines` gives: it ends at LF, CR, CRLF, VT, FF, FS, GS, RS, NEL, U+2028 or U+2029; a line end
  at the end of the text opens no further line, and a line's length leaves its line end out;
- alphabetic and alphanumeric are `str.isalpha` and `str.isalnum`; a word character is alphanumeric or "_", white space
  is `str.isspace`: what `\\w`, `\\b` and `\\s` mean in `re`. The Unicode version is that of the interpreter
  (UNICODE_VERSION);
- encoded data is what these expressions match with `re.finditer`, found here without a regular expression and in linear
  time:

      base64    [a-zA-Z0-9+/\\n=]{64,}
      hex       (?:\\b(?:0x|\\\\x)?[0-9a-fA-F]{2}(?:,|\\b\\s*)){8,}
      unicode   (?:\\\\u[0-9a-fA-F]{4}){8,}

Why a scan suffices: each repetition of the second and third has at most one way to match at a given place and one place
to go on from, so repetitions form chains, a chain's tails are its only other matches, and the scan may go on where a
chain ended.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import lru_cache
from typing import Any, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

UNICODE_VERSION = unicodedata.unidata_version

ALPHABETIC, ALPHANUMERIC, WORD, SPACE, LINE_END, BASE64, HEX = (np.uint8(1 << bit) for bit in range(7))

# Columns of `measure`'s result.
COLUMNS = (
    "num_lines",
    "num_chars",
    "max_line_length",
    "alphabetic_chars",
    "alphanumeric_chars",
    "encoded_chars",
    "longest_encoded_run",
    "line_chars",  # in lines, that is without line ends
    "phrase",  # row of the phrase that stands first in the head of the file, -1 if none
)

BASE64_MIN = 64  # characters
CHAIN_MIN = 8  # repetitions
HEAD_LINES = 5

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


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


@nb.njit(cache=True, nogil=True)
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


@nb.njit(cache=True, nogil=True)
def unicode_chain(data: U8, i: int, hi: int, classes: Classes) -> tuple[int, int]:
    """Follow repetitions of the unicode expression from byte i: (end, how many)."""
    n = 0
    while i + 6 <= hi and data[i] == 0x5C and data[i + 1] == 0x75:
        for j in range(i + 2, i + 6):
            if data[j] >= 0x80 or not classes.ascii[data[j]] & HEX:
                return i, n
        i, n = i + 6, n + 1
    return i, n


@nb.njit(cache=True, nogil=True)
def characters_between(data: U8, lo: int, hi: int) -> int:
    """How many characters start in bytes lo to hi."""
    n = 0
    for i in range(lo, hi):
        n += (data[i] & 0xC0) != 0x80
    return n


@nb.njit(cache=True, nogil=True)
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


@nb.njit(cache=True, nogil=True)
def first_phrase(data: U8, lo: int, hi: int, phrases: U8, ends: I64) -> int:
    """Which of the phrases (lower-case ASCII, concatenated, with their ends) stands first in bytes lo to hi, without
    case; -1 if none.
    """
    for i in range(lo, hi):
        start = 0
        for k in range(len(ends)):
            size = ends[k] - start
            if i + size <= hi:
                j = 0
                while j < size:
                    b = data[i + j]
                    if 0x41 <= b <= 0x5A:
                        b |= 0x20
                    if b != phrases[start + j]:
                        break
                    j += 1
                if j == size:
                    return k
            start = ends[k]
    return -1


@nb.njit(cache=True, nogil=True)
def measure(data: U8, offsets: I64, classes: Classes, phrases: U8, ends: I64) -> I64:
    """Measure n texts of UTF-8: `data` bytes, `offsets` int64 (n + 1,). Returns int64 (n, len(COLUMNS))."""
    rows = len(offsets) - 1
    out = np.zeros((rows, 9), np.int64)
    largest = 0
    for row in range(rows):
        largest = max(largest, offsets[row + 1] - offsets[row])
    runs = np.empty((largest // BASE64_MIN + 1, 2), np.int64)  # spans of base64, in characters
    chains = np.empty((largest // (2 * CHAIN_MIN) + 1, 2), np.int64)  # of hex and unicode, which never overlap
    for row in range(rows):
        lo, hi = offsets[row], offsets[row + 1]
        i, chars, lines, line_from, longest_line, line_ends = lo, 0, 0, 0, 0, 0
        alphabetic, alphanumeric, run, longest_run = 0, 0, 0, 0
        n_runs, n_chains, chain_from, head = 0, 0, lo, hi
        was_word = np.uint8(0)
        while i < hi:
            b = data[i]
            if b < 0x80:
                flags, width = classes.ascii[b], 1
                n = 0
                if i >= chain_from and i + 1 < hi:
                    after = data[i + 1]
                    if flags & HEX:
                        if not was_word and (after == 0x78 or (after < 0x80 and classes.ascii[after] & HEX)):
                            end, n = hex_chain(data, i, hi, classes)
                    elif b == 0x5C and after == 0x75:  # \u
                        end, n = unicode_chain(data, i, hi, classes)
                    elif b == 0x5C and after == 0x78 and was_word:  # \x
                        end, n = hex_chain(data, i, hi, classes)
                if n:
                    chain_from = end
                    if n >= CHAIN_MIN:
                        size = characters_between(data, i, end)
                        chains[n_chains, 0], chains[n_chains, 1] = chars, chars + size
                        n_chains, longest_run = n_chains + 1, max(longest_run, size)
            else:
                point, width = decode(data, i, hi)
                flags = classes.blocks[classes.block_of[point >> 8], point & 255]
            if flags & BASE64:
                run += 1
            else:
                if run >= BASE64_MIN:
                    runs[n_runs, 0], runs[n_runs, 1] = chars - run, chars
                    n_runs, longest_run = n_runs + 1, max(longest_run, run)
                run = 0
            if flags & LINE_END:
                line_ends += 1
                longest_line = max(longest_line, chars - line_from)
                if (
                    b == 0x0D and i + 1 < hi and data[i + 1] == 0x0A
                ):  # the line ends once, at LF; LF is in the base64 class
                    run, line_ends, chars, i = 1, line_ends + 1, chars + 1, i + 1
                lines += 1
                line_from = chars + 1
                if lines == HEAD_LINES:
                    head = i
            alphabetic += flags & ALPHABETIC
            alphanumeric += (flags & ALPHANUMERIC) >> 1
            was_word = flags & WORD
            chars += 1
            i += width
        if run >= BASE64_MIN:
            runs[n_runs, 0], runs[n_runs, 1] = chars - run, chars
            n_runs, longest_run = n_runs + 1, max(longest_run, run)
        if line_from < chars:
            lines += 1
            longest_line = max(longest_line, chars - line_from)
        out[row, 0], out[row, 1], out[row, 2] = lines, chars, longest_line
        out[row, 3], out[row, 4] = alphabetic, alphanumeric
        out[row, 5], out[row, 6] = union_length(runs, n_runs, chains, n_chains), longest_run
        out[row, 7], out[row, 8] = chars - line_ends, first_phrase(data, lo, head, phrases, ends)
    return out


@nb.njit(cache=True, nogil=True)
def _is_name(b: int) -> bool:
    return 0x61 <= (b | 0x20) <= 0x7A or 0x30 <= b <= 0x39


@nb.njit(cache=True, nogil=True)
def _starts(data: U8, i: int, hi: int, name: U8) -> bool:
    """Whether byte i begins a tag of this name (lower-case ASCII), without case."""
    size = len(name)
    if i + size > hi or (i + size < hi and _is_name(data[i + size])):
        return False
    for j in range(size):
        b = data[i + j]
        if 0x41 <= b <= 0x5A:
            b |= 0x20
        if b != name[j]:
            return False
    return True


_SCRIPT, _SCRIPT_END = np.frombuffer(b"script", np.uint8), np.frombuffer(b"</script", np.uint8)
_STYLE, _STYLE_END = np.frombuffer(b"style", np.uint8), np.frombuffer(b"</style", np.uint8)
REFERENCE_MAX = 32  # bytes of a character reference, "&" and ";" included


@nb.njit(cache=True, nogil=True)
def visible_characters(data: U8, lo: int, hi: int, classes: Classes) -> int:
    """Characters of HTML that a reader sees: no tags, comments, declarations, script or style.

    White space counts as a browser shows it: a run is one character, and none at the beginning or the end. A character
    reference is one character. Markup that never ends hides the rest, as the HTML standard has it. One pass, no
    nesting.
    """
    visible, i = 0, lo
    pending = False  # white space since the last visible character
    while i < hi:
        b = data[i]
        if b == 0x3C and i + 1 < hi:  # <
            after = data[i + 1]
            if after == 0x21 and i + 3 < hi and data[i + 2] == 0x2D and data[i + 3] == 0x2D:  # <!--
                i += 4
                while i < hi and not (data[i] == 0x3E and data[i - 1] == 0x2D and data[i - 2] == 0x2D):
                    i += 1
                i += 1
                continue
            if after in (0x21, 0x3F):  # <! or <?
                while i < hi and data[i] != 0x3E:
                    i += 1
                i += 1
                continue
            closing = after == 0x2F
            name = i + 1 + closing
            if name < hi and 0x61 <= (data[name] | 0x20) <= 0x7A:
                script = not closing and _starts(data, name, hi, _SCRIPT)
                style = not closing and _starts(data, name, hi, _STYLE)
                quote, last = (
                    np.uint8(0),
                    np.uint8(0),
                )  # the open quote of a value; the last byte that is no white space
                while i < hi:
                    b = data[i]
                    if quote:
                        if b == quote:
                            quote = np.uint8(0)
                    elif b == 0x3E:
                        break
                    elif b in (0x22, 0x27) and last == 0x3D:
                        quote = b
                    if b > 0x20:
                        last = b
                    i += 1
                i += 1
                if script or style:
                    end = _SCRIPT_END if script else _STYLE_END
                    while i < hi and not _starts(data, i, hi, end):
                        i += 1
                continue
        width = 1
        if b == 0x26:  # &
            j = i + 1
            while j < min(hi, i + REFERENCE_MAX) and (_is_name(data[j]) or (j == i + 1 and data[j] == 0x23)):
                j += 1
            if j > i + 1 and j < hi and data[j] == 0x3B:
                width = j + 1 - i
            flags = np.uint8(0)
        else:
            point, width = decode(data, i, hi)
            flags = classes.blocks[classes.block_of[point >> 8], point & 255]
        if flags & SPACE:
            pending = visible > 0
        else:
            visible += 1 + pending
            pending = False
        i += width
    return visible


@nb.njit(cache=True, nogil=True)
def visible(data: U8, offsets: I64, wanted: npt.NDArray[np.bool_], classes: Classes) -> I64:
    """`visible_characters` of the wanted texts, int64 (n,), 0 for the others."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for row in range(len(out)):
        if wanted[row]:
            out[row] = visible_characters(data, offsets[row], offsets[row + 1], classes)
    return out


def buffers_of(text: Any) -> tuple[U8, I64]:
    """The bytes and the offsets (int64, n + 1) of a large_string array, without a copy; a null is empty or unread."""
    _, offsets, data = text.buffers()
    none = offsets is None or data is None or not len(text)
    where = (
        np.zeros(len(text) + 1, np.int64) if none else np.frombuffer(offsets, np.int64, len(text) + 1, text.offset * 8)
    )
    bytes_ = np.zeros(0, np.uint8) if none else np.frombuffer(data, np.uint8)
    where.flags.writeable = bytes_.flags.writeable = False  # always, so that the kernels are compiled once
    return bytes_, where
