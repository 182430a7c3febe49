"""Write text as lines that fastText can read: words apart, one line for each file, in one compiled pass over the bytes.

`code`: what programs are made of. A word is a run of letters, digits, "_" and of characters of two bytes (Latin, Greek,
Cyrillic, Hebrew, Arabic); every other character of ASCII that is seen, and every character of three bytes or more, stands
alone. A number of more than two characters is `<num>`, a word of more than 64 bytes `<long>`, a line feed `<nl>`.

`plain`: what stands between white space, as fastText cuts it, for models that were trained elsewhere.

In neither can a file say what fastText takes for its own: `</s>`, which ends the line, and a word that begins with
`__label__`, which in training is the label. Both are broken in two.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.kernels import kernel
from stackbuild.quality.characters import I64, U8
from stackbuild.quality.kernels import buffers_of

Tokens = Literal["code", "plain"]
VERSION = {"code": 1, "plain": 1}  # of the rules above: a model is of one
HEAD_BYTES = 8_192
GROUP_BYTES = 1 << 20  # of heads that are written at a time

SEPARATOR, WORD, DIGIT, SYMBOL, NEWLINE, WIDE = (np.uint8(k) for k in range(6))
LONGEST_WORD, LONGEST_NUMBER = 64, 2
WORST = 5  # bytes that are written for one: a line feed


def _kinds() -> U8:
    kinds = np.full(256, SYMBOL, np.uint8)
    kinds[:0x21] = kinds[0x7F] = SEPARATOR
    kinds[0x0A] = NEWLINE
    for byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_":
        kinds[byte] = WORD
    kinds[0x30:0x3A] = DIGIT
    kinds[0x80:0xE0] = WORD
    kinds[0xE0:] = WIDE
    return kinds


def _bytes(text: str) -> U8:
    return np.array(list(text.encode()), np.uint8)


KINDS = _kinds()
NUMBER, LONG, LINE, LABEL, END = (_bytes(text) for text in ("<num>", "<long>", "<nl>", "__label__", "</s>"))


def lines(text: pa.LargeStringArray, tokens: Tokens = "code", head_bytes: int = HEAD_BYTES) -> Iterator[bytes]:
    """A line for each of n texts, of its first `head_bytes` less a character that would be cut: words apart by one blank, no
    line feed. Empty for a null and for a text without a word.
    """
    data, offsets = buffers_of(pc.fill_null(text, "") if text.null_count else text)  # a null may have bytes
    total = np.concatenate([[0], np.cumsum(np.minimum(np.diff(offsets), head_bytes))])
    room = np.empty(0, np.uint8)
    write = write_code if tokens == "code" else write_plain
    first = 0
    while first < len(text):
        last = max(first + 1, int(np.searchsorted(total, total[first] + GROUP_BYTES, "right")) - 1)
        wanted = WORST * int(total[last] - total[first]) + 16
        if len(room) < wanted:
            room = np.empty(wanted, np.uint8)
        ends = np.zeros(last - first + 1, np.int64)
        write(data, offsets[first : last + 1], head_bytes, KINDS, NUMBER, LONG, LINE, LABEL, END, room, ends)
        written = room[: ends[-1]].tobytes()
        for start, stop in pairwise(ends.tolist()):
            yield written[start:stop]
        first = last


@kernel
def head_of(data: U8, lo: int, hi: int, head: int) -> int:
    """Where the first `head` bytes of a text end, less a character that would be cut."""
    if hi - lo <= head:
        return hi
    end = lo + head
    while end > lo and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


@kernel
def begins(data: U8, i: int, end: int, word: U8) -> bool:
    """Whether bytes i to end begin with a word."""
    k = 0
    while k < len(word) and i + k < end and data[i + k] == word[k]:
        k += 1
    return k == len(word)


@kernel
def put(word: U8, out: U8, at: int) -> int:
    """Write a word; where it ends."""
    for k in range(len(word)):
        out[at + k] = word[k]
    return at + len(word)


@kernel
def parted(out: U8, start: int, at: int) -> int:
    """Put a blank behind the first byte of the word that was written from `start`; where it ends now."""
    for k in range(at, start + 1, -1):
        out[k] = out[k - 1]
    out[start + 1] = 0x20
    return at + 1


# A word is written while it is looked for, and again where another stands for it. No function is called for an ordinary
# word: that would take three times as long as the word.
@kernel
def write_code(
    data: U8, offsets: I64, head: int, kinds: U8, number: U8, long: U8, line: U8, label: U8, end: U8, out: U8, ends: I64
) -> None:
    """Write the lines of n texts as `code` to `out`, and where each ends to `ends` (n + 1,)."""
    at: Any = np.uint64(0)
    one = np.uint64(1)
    for row in range(len(offsets) - 1):
        begin = at
        i: Any = np.uint64(offsets[row])
        hi = np.uint64(head_of(data, offsets[row], offsets[row + 1], head))
        while i < hi:
            kind = kinds[data[i]]
            if kind == 0:
                i += one
                continue
            start, from_ = i, at
            out[at] = data[i]
            at += one
            i += one
            if kind == 1:
                while i < hi and (kinds[data[i]] == 1 or kinds[data[i]] == 2):
                    out[at] = data[i]
                    at += one
                    i += one
                if i - start > np.uint64(64):
                    at = np.uint64(put(long, out, from_))
                elif data[start] == 0x5F and begins(data, start, i, label):
                    at = np.uint64(parted(out, from_, at))
            elif kind == 2:
                while i < hi and (
                    kinds[data[i]] == 1
                    or kinds[data[i]] == 2
                    or (data[i] == 0x2E and i + one < hi and kinds[data[i + one]] == 2)
                ):
                    out[at] = data[i]
                    at += one
                    i += one
                if i - start > np.uint64(2):
                    at = np.uint64(put(number, out, from_))
            elif kind == 4:
                at = np.uint64(put(line, out, from_))
            elif kind == 5:
                while i < hi and data[i] & 0xC0 == 0x80:
                    out[at] = data[i]
                    at += one
                    i += one
            out[at] = 0x20
            at += one
        if at > begin:
            at -= one  # the last blank
        ends[row + 1] = at


@kernel
def write_plain(
    data: U8, offsets: I64, head: int, kinds: U8, number: U8, long: U8, line: U8, label: U8, end: U8, out: U8, ends: I64
) -> None:
    """Write the lines of n texts as `plain` to `out`, and where each ends to `ends` (n + 1,)."""
    at = 0
    for row in range(len(offsets) - 1):
        begin = at
        i = offsets[row]
        hi = head_of(data, i, offsets[row + 1], head)
        while i < hi:
            if data[i] <= 0x20:
                i += 1
                continue
            start = i
            while i < hi and data[i] > 0x20:
                i += 1
            if i - start == len(end) and begins(data, start, i, end):
                out[at], out[at + 1] = data[start], 0x20
                start, at = start + 1, at + 2
            from_ = at
            for k in range(start, i):
                out[at] = data[k]
                at += 1
            if data[start] == 0x5F and begins(data, start, i, label):
                at = parted(out, from_, at)
            out[at] = 0x20
            at += 1
        ends[row + 1] = at = max(at - 1, begin)
