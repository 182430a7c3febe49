"""Which lines at the start of a source file are its notice: what it says of copyright and licence.

The rule, the same for all languages, on bytes. The head is the lines that begin in the first 4 KB; where a notice is
under way there it is read on to its end, up to 16 KB. A line ends at a line feed or carriage return, after a comment's
`*/` or `-->` and before its `/*` or `<!--`, so that what follows a banner on one line is not part of it. A line is

  blank    if it has no letter and no digit;
  code     if it is in no block comment (BLOCKS), does not begin with a comment sign and has the shape of a statement:
           `{ } = [ ]`, a word before `(`, `";` at its end, a tag, a quoted name before a colon, or more than 400 bytes
           with few spaces, r"..." or "...\\n"; not Python's `__license__ = ...`, words in brackets `[see COPYING]`,
           `GPL(v3)`, `<p>`, or prose behind `<html><body>`;
  text     otherwise: comments, docstrings and prose, whatever the language.

A line in a string that is a value of a statement before it (`strings`) is code: a program that writes headers holds texts of
licences. A line with an SPDX tag is told by where the tag stands, not by its shape: in a comment or markup it is text, also behind
code; in a string of a statement (`x = "..."`, below `x = \"\"\"`, `x = \`` or `<<EOF`, a string below code) it is code.

Lines of text that hold one of `WORDS` belong to the notice, with up to three lines above and the lines below in the same
paragraph (and comment, or prose), and what text lies between two of them if that is at most 12 lines. Code neither belongs to a notice
nor lets one pass: what a program does with the names of licences says nothing of its own.

A file without such words costs one pass over its head and gives nothing. Time is linear in the bytes of the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.kernels import kernel
from stackbuild.licenses.line_kinds import (
    BLANK,
    CODE,
    SIGNED,
    TEXT,
    begins,
    is_blank,
    kind_of_line,
    kind_of_tagged_line,
    lower,
    tag_at,
)
from stackbuild.licenses.strings import NONE, STATE, STRING, in_string

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]

HEAD_BYTES = 4_096
NOTICE_BYTES = 16_384  # the longest: a whole Apache-2.0 text takes 11 KB
ABOVE, GAP = 3, 12  # lines

# In lower case. What ScanCode's rules for notices have in common; those without are names of licences and links alone.
WORDS = (
    b"licen", b"lizen", b"copyright", b"copyleft", b"copying", b"spdx", b"gpl", b"public dom", b"public-dom", b"permission",
    b"permitted", b"proprietary", b"confidential", b"warrant", b"distribut", b"creative commons", b"creativecommons",
    b"cc-by", b"cc0", b"commercial", b"freely", b"free software", b"free to use", b"artistic", b"rights reserved",
    b"mozilla public", b"may not be", b"must not be", b"trade secret", b"wtfpl", b"beerware", b"without restriction",
    b"covered software", b"cddl", b"may be used", b"use this", b"may use", b"reuse-ignore",
    b"cc by",
)  # fmt: skip

# Where a line begins with the first it is in a comment until the second. Strings (docstrings) go by their shape.
BLOCKS = (
    (b"/*", b"*/"),
    (b"<!--", b"-->"),
    (b"{-", b"-}"),
    (b"(* ", b"*)"),
    (b"(**", b"*)"),
    (b"--[[", b"]]"),
    (b"#|", b"|#"),
    (b"{{!--", b"--}}"),
    (b"{{!", b"}}"),
    (b"@*", b"*@"),
)

_HIT, _MARKED = 4, 8  # beside what `line_kinds` says


def _word_table() -> tuple[Bytes, Offsets, Offsets]:
    """The words end to end (uint8), where each begins (int64, n + 1), and by its first two letters the first and the end of
    the words that begin so (int64 of shape (65536, 2))."""
    words = sorted(WORDS)
    starts = np.cumsum([0, *map(len, words)]).astype(np.int64)
    ranges = np.zeros((1 << 16, 2), np.int64)
    for number, word in enumerate(words):
        pair = word[0] << 8 | word[1]
        if ranges[pair, 1] == 0:
            ranges[pair, 0] = number
        ranges[pair, 1] = number + 1
    table = np.frombuffer(b"".join(words), np.uint8).copy()
    for array in (table, starts, ranges):
        array.flags.writeable = False
    return table, starts, ranges


_WORDS, _STARTS, _RANGES = _word_table()


@dataclass(frozen=True)
class Lines:
    """The lines of the notices of n files, in order: those of file i are `bounds[i]:bounds[i + 1]`.

    `start`, `stop`: int64 (m,), bytes from the file's first; `number`: int64 (m,), the line of the file, the first is 1.
    """

    bounds: Offsets
    start: Offsets
    stop: Offsets
    number: Offsets


def notice_lines(data: Bytes, offsets: Offsets) -> Lines:
    """The notice of each of n files; `data`: uint8, all their bytes; `offsets`: int64 (n + 1,)."""
    bounds, rows = _notices(data, offsets, _WORDS, _STARTS, _RANGES)
    return Lines(bounds, rows[:, 0], rows[:, 1], rows[:, 2])


def binary_buffers(contents: pa.Array | pa.ChunkedArray) -> tuple[Bytes, Offsets]:
    """The bytes and the n + 1 offsets (int64) of a string or binary array of n values; a null is empty."""
    if isinstance(contents, pa.ChunkedArray):
        contents = contents.combine_chunks()
    if contents.type not in (pa.large_binary(), pa.large_string()):
        contents = contents.cast(pa.large_binary())
    if contents.null_count:
        contents = contents.fill_null(b"" if contents.type == pa.large_binary() else "")
    _, offsets, data = contents.buffers()
    bounds = np.zeros(1, np.int64)
    if len(contents):
        bounds = np.frombuffer(offsets, np.int64, count=len(contents) + 1, offset=8 * contents.offset)
    values = np.zeros(0, np.uint8) if data is None or not data.size else np.frombuffer(data, np.uint8)
    values.flags.writeable = bounds.flags.writeable = False  # always, so that the kernels are compiled once
    return values, bounds


@kernel
def _line_end(data: Bytes, at: int, stop: int) -> int:
    """Where the line that begins at `at` ends; its line end is not part of it, a comment's sign is."""
    i = at
    while i < stop:
        c = data[i]
        if c in (10, 13):
            return i
        if c == 42 and i + 1 < stop and data[i + 1] == 47:  # */
            return i + 2
        if c == 62 and i >= at + 2 and data[i - 1] == 45 and data[i - 2] == 45:  # -->
            return i + 1
        if i > at and c == 47 and i + 1 < stop and data[i + 1] == 42 and data[i - 1] in (9, 32, 59, 125, 41):  # /*
            return i
        if (
            i > at and c == 60 and i + 3 < stop and data[i + 1] == 33 and data[i + 2] == 45 and data[i + 3] == 45
        ):  # <!--
            return i
        i += 1
    return stop


@kernel
def _has_word(
    data: Bytes,
    at: int,
    stop: int,
    words: Bytes,
    starts: Offsets,
    ranges: Offsets,
) -> bool:
    before = lower(int(data[at])) if at < stop else 0
    for i in range(at, stop - 1):
        after = lower(int(data[i + 1]))
        pair = before << 8 | after
        before = after
        for word in range(ranges[pair, 0], ranges[pair, 1]):
            length = starts[word + 1] - starts[word]
            if i + length > stop:
                continue
            k = 2
            while k < length and lower(int(data[i + k])) == words[starts[word] + k]:
                k += 1
            if k == length:
                return True
    return False


@kernel
def _opened(data: Bytes, at: int, stop: int) -> int:
    """The number of the block comment that a line opens and leaves open, -1 for none."""
    while at < stop and data[at] <= 32:
        at += 1
    for number, (opening, closing) in enumerate(BLOCKS):
        if begins(data, at, stop, opening):
            return -1 if _ends(data, at + 2, stop, closing) else number
    return -1


@kernel
def _ends(data: Bytes, at: int, stop: int, closing: bytes) -> bool:
    for i in range(at, stop - len(closing) + 1):  # noqa: SIM110  numba has no any() over a generator
        if begins(data, i, stop, closing):
            return True
    return False


@kernel
def _closed(data: Bytes, at: int, stop: int, inside: int) -> bool:
    for number, (_, closing) in enumerate(BLOCKS):
        if number == inside:
            return _ends(data, at, stop, closing)
    return True


@kernel
def _notices(
    data: Bytes,
    offsets: Offsets,
    words: Bytes,
    starts: Offsets,
    ranges: Offsets,
) -> tuple[Offsets, Offsets]:
    files = len(offsets) - 1
    bounds = np.zeros(files + 1, np.int64)
    rows = np.empty((1_024, 3), np.int64)
    count = 0
    lines = np.empty((NOTICE_BYTES + 1, 4), np.int64)  # start, stop, number, kind
    for file in range(files):
        begin = offsets[file]
        end = min(offsets[file + 1], begin + NOTICE_BYTES)
        many = _read_lines(data, begin, end, words, starts, ranges, lines)
        if many:
            _mark(lines, many)
            for i in range(many):
                if lines[i, 3] & _MARKED:
                    if count == len(rows):
                        more = np.empty((2 * count, 3), np.int64)
                        more[:count] = rows
                        rows = more
                    rows[count, 0] = lines[i, 0] - begin
                    rows[count, 1] = lines[i, 1] - begin
                    rows[count, 2] = lines[i, 2]
                    count += 1
        bounds[file + 1] = count
    return bounds, rows[:count].copy()


@kernel
def _read_lines(
    data: Bytes,
    begin: int,
    end: int,
    words: Bytes,
    starts: Offsets,
    ranges: Offsets,
    lines: Offsets,
) -> int:
    """Write the lines of a head to `lines`; how many, 0 if none of them holds a word."""
    at = begin
    many = 0
    number = 1
    last_hit = -1
    inside = -1
    state = np.zeros(STATE, np.int64)
    bare = False  # whether a line before is in no comment
    code = False  # whether a statement is before
    while at < end:
        if at - begin >= HEAD_BYTES and (last_hit < 0 or many - last_hit > GAP or lines[many - 1, 3] & 3 == CODE):
            break
        stop = _line_end(data, at, end)
        if inside >= 0:
            kind = BLANK if is_blank(data, at, stop) else TEXT | SIGNED
            if _closed(data, at, stop, inside):
                inside = -1
        else:
            kind = kind_of_line(data, at, stop)
            inside = _opened(data, at, stop) if kind != CODE else -1
        hit = kind & 3 == TEXT and _has_word(data, at, stop, words, starts, ranges)
        if hit or kind == CODE:
            tag = tag_at(data, at, min(stop, begin + HEAD_BYTES) if kind == CODE else stop)
            if tag >= 0:
                spoken = kind_of_tagged_line(data, at, stop, tag, kind, code)
                if spoken & 3 == TEXT and bare and in_string(data, end, lines, many, state) != NONE:
                    spoken = CODE
                kind = spoken
                hit = kind & 3 == TEXT
            elif hit and bare and in_string(data, end, lines, many, state) == STRING:
                kind, hit = CODE, False
        if hit:
            kind |= _HIT
            last_hit = many
        bare |= (kind & SIGNED == 0 and kind != BLANK) or begins(data, at, stop, b"#define")
        code |= kind == CODE
        lines[many, 0] = at
        lines[many, 1] = stop
        lines[many, 2] = number
        lines[many, 3] = kind
        many += 1
        at = stop
        if at < end and data[at] == 13:
            at += 1
            if at < end and data[at] == 10:
                at += 1
            number += 1
        elif at < end and data[at] == 10:
            at += 1
            number += 1
    return many if last_hit >= 0 else 0


@kernel
def _mark(lines: Offsets, many: int) -> None:
    """Mark the lines that belong to a notice."""
    previous = -1
    for i in range(many):
        if lines[i, 3] & _HIT == 0:
            continue
        if previous >= 0 and i - previous <= GAP:
            whole = True
            for k in range(previous + 1, i):
                if lines[k, 3] & 3 == CODE:
                    whole = False
            if whole:
                for k in range(previous + 1, i):
                    lines[k, 3] |= _MARKED
        previous = i
        own = lines[i, 3] & (SIGNED | 3)
        for k in range(i - 1, max(i - 1 - ABOVE, -1), -1):
            if lines[k, 3] & (SIGNED | 3) != own:
                break
            lines[k, 3] |= _MARKED
        lines[i, 3] |= _MARKED
        k = i + 1
        while k < many and lines[k, 3] & (SIGNED | 3 | _HIT | _MARKED) == own:
            lines[k, 3] |= _MARKED
            k += 1
