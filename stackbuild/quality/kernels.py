"""Character counts of code, measured in one pass over Arrow's buffers.

Everything is counted in characters (Unicode code points), never bytes, as the thresholds of The Stack v2 (Lozhkov et
al. 2024, section 2.1) are stated. Three definitions are Python's, because the reference pipelines were written in it:

- a line is what `str.splitlines` gives: it ends at LF, CR, CRLF, VT, FF, FS, GS, RS, NEL, U+2028 or U+2029; a line end
  at the end of the text opens no further line, and a line's length leaves its line end out;
- alphabetic and alphanumeric are `str.isalpha` and `str.isalnum`; a word character is alphanumeric or "_", white space
  is `str.isspace`: what `\\w`, `\\b` and `\\s` mean in `re`. The Unicode version is that of the interpreter
  (`characters.UNICODE_VERSION`);
- encoded data is what these expressions match with `re.finditer` (`encoded` finds it):

      base64    [a-zA-Z0-9+/\\n=]{64,}
      hex       (?:\\b(?:0x|\\\\x)?[0-9a-fA-F]{2}(?:,|\\b\\s*)){8,}
      unicode   (?:\\\\u[0-9a-fA-F]{4}){8,}

Where a text is ASCII, as most source is, a byte is a character, and only line ends and places where encoded data may
begin are stopped at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.quality.characters import (
    ALPHABETIC,
    ALPHANUMERIC,
    BASE64,
    HEX,
    I64,
    LINE_END,
    U8,
    WORD,
    Classes,
    decode,
)
from stackbuild.quality.encoded import (
    BASE64_MIN,
    CHAIN,
    CHAIN_MIN,
    EVENTS,
    KINDS,
    LINE,
    base64_runs,
    characters_between,
    hex_chain,
    unicode_chain,
    union_length,
)

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

HEAD_LINES = 5


@kernel
def first_phrase(data: U8, lo: int, hi: int, phrases: U8, ends: I64) -> int:
    """Which of the phrases (lower-case ASCII, concatenated, with their ends, each beginning with a letter) stands first
    in bytes lo to hi, without case; -1 if none.
    """
    begins = np.zeros(256, np.bool_)
    start = 0
    for k in range(len(ends)):
        begins[phrases[start]] = begins[phrases[start] - 0x20] = True
        start = ends[k]
    for i in range(lo, hi):
        if not begins[data[i]]:
            continue
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


@kernel
def _count_ascii(data: U8, lo: int, hi: int) -> tuple[bool, int, int]:
    """Whether bytes lo to hi are ASCII, and if so its letters and digits; without branches, so that whole vectors are
    counted.
    """
    letters, digits = 0, 0
    for start in range(lo, hi, 128):
        every: Any = np.uint8(0)
        some_letters: Any = np.uint8(0)
        some_digits: Any = np.uint8(0)
        for i in range(start, min(start + 128, hi)):
            every |= data[i]
            some_letters += np.uint8(np.uint8((data[i] | 0x20) - 0x61) < 26)
            some_digits += np.uint8(np.uint8(data[i] - 0x30) < 10)
        if every >= 0x80:
            return False, 0, 0
        letters += some_letters
        digits += some_digits
    return True, letters, digits


@kernel
def _measure_ascii(
    data: U8, lo: int, hi: int, classes: Classes, kinds: U8, events: U8, runs: I64, chains: I64, out: I64
) -> int:
    """Write the counts of an ASCII text to `out`, but letters, digits and phrase; return where its head ends.

    The same account as in `measure`, for the case that a byte is a character: only line ends and the places where a
    chain may begin are stopped at.
    """
    lines, line_from, longest_line, line_ends, head = 0, lo, 0, 0, hi
    n_chains, chain_from, longest_chain, window = 0, lo, 0, 0
    for at in range(lo, hi):
        window = (window << 3 | kinds[data[at]]) & 0xFFF
        event = events[window]
        if event == 0:
            continue
        if event & CHAIN and at - 2 >= chain_from:
            i = at - 2
            end, n = unicode_chain(data, i, hi, classes) if data[i + 1] == 0x75 else hex_chain(data, i, hi, classes)
            if n:
                chain_from = end
            if n >= CHAIN_MIN:
                chains[n_chains, 0], chains[n_chains, 1] = i - lo, end - lo
                n_chains, longest_chain = n_chains + 1, max(longest_chain, end - i)
        if event & LINE:
            line_ends += 1
            if data[at] == 0x0A and at > lo and data[at - 1] == 0x0D:  # the line ended at CR
                if lines == HEAD_LINES:
                    head = at
            else:
                longest_line = max(longest_line, at - line_from)
                lines += 1
                if lines == HEAD_LINES:
                    head = at
            line_from = at + 1
    if line_from < hi:
        lines += 1
        longest_line = max(longest_line, hi - line_from)
    n_runs, longest_run = base64_runs(data, lo, hi, classes, runs)
    out[0], out[1], out[2] = lines, hi - lo, longest_line
    out[5], out[6] = union_length(runs, n_runs, chains, n_chains), max(longest_run, longest_chain)
    out[7] = hi - lo - line_ends
    return head


@kernel
def _measure(data: U8, offsets: I64, classes: Classes, phrases: U8, ends: I64, kinds: U8, events: U8) -> I64:
    rows = len(offsets) - 1
    out = np.zeros((rows, 9), np.int64)
    largest = 0
    for row in range(rows):
        largest = max(largest, offsets[row + 1] - offsets[row])
    runs = np.empty((largest // BASE64_MIN + 1, 2), np.int64)  # spans of base64, in characters
    chains = np.empty((largest // (2 * CHAIN_MIN) + 1, 2), np.int64)  # of hex and unicode, which never overlap
    for row in range(rows):
        lo, hi = offsets[row], offsets[row + 1]
        ascii, letters, digits = _count_ascii(data, lo, hi)
        if ascii:
            head = _measure_ascii(data, lo, hi, classes, kinds, events, runs, chains, out[row])
            out[row, 3], out[row, 4], out[row, 8] = (
                letters,
                letters + digits,
                first_phrase(data, lo, head, phrases, ends),
            )
            continue
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


def measure(data: U8, offsets: I64, classes: Classes, phrases: U8, ends: I64) -> I64:
    """Measure n texts of UTF-8: `data` bytes, `offsets` int64 (n + 1,). Returns int64 (n, len(COLUMNS))."""
    counts: I64 = _measure(data, offsets, classes, phrases, ends, KINDS, EVENTS)
    return counts


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
