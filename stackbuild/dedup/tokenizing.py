r"""Texts into hashes of their tokens, read from Arrow's buffers without a Python object for a token.

What a token is, by the kind of shingles (`options.SHINGLE_VERSIONS`):

  words         a maximal run of characters that Python's `\w` matches, in lower case, character by character
  the-stack-v1  a maximal run of A-Z a-z 0-9 _, as written
  santacoder    what stands between neighbours of all other characters, as written; nothing is a token too
  the-stack-v2  `re.split(r"\W", text.lower())`: as words, but nothing between two separators is a token too

What is not UTF-8 separates, each byte for itself (as `errors="surrogateescape"` would have it).

ASCII is read 64 bytes at a time: which bytes are of words is one number, whose bits say where words begin and end, and
a word is hashed eight bytes at a time. What is not ASCII goes character by character. A word is hashed over UTF-8 in
lanes of eight bytes, filled up with zeros and two at least: h = lane 0 ^ FIRST, then h = fold_product(h, lane ^ NEXT).
Where case does not count, every ASCII byte has bit 32 set, which makes letters lower, leaves digits, and maps _ to a
byte that no word has. Neither constant is a possible lane, so no factor is zero by design of a text.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.dedup.intrinsics import above_ascii, ascii_words, eight_bytes, fold_product, lowest_bit
from stackbuild.kernels import kernel

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.int32]
Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]

ALL_LETTERS_BELOW = 0x40000  # no letter or digit of Unicode stands above
ROOM = 65  # tokens that one step of `next_tokens` may add: 64 bytes' and the last of a text
REACH = 64 + 16  # bytes that the fast path may read from where it stands on

FIRST, NEXT = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xFE3779B97F4A7C15)
FOLD = np.uint64(0x2020202020202020)
_ALL, _ONE, _8, _16, _255 = (np.uint64(value) for value in ((1 << 64) - 1, 1, 8, 16, 255))
_LOW = np.array([(1 << 8 * min(length, 8)) - 1 for length in range(17)], np.uint64)
_HIGH = np.array([(1 << 8 * max(length - 8, 0)) - 1 for length in range(17)], np.uint64)

# What `characters` holds for the two of Python's lower() that need more than the character itself.
_CAPITAL_SIGMA, _DOTTED_I = -1, -2
# What `marks` says of characters beside a capital sigma; tags and variation selectors stand far above the others.
_CASED, _IGNORABLE = 1, 2
_MARKS_BELOW, _SELECTORS, _SELECTORS_END = 0x20000, 0xE0000, 0xE0200


class Rule(NamedTuple):
    """What makes tokens, for the kernels: `characters[code]` is the code that a character of a word counts as, 0 for a
    separator and for what lies beyond the table; `fold` is FOLD where case does not count, else 0; with `empty`, the
    nothing between separators is a token.
    """

    characters: Codes
    marks: Bytes
    fold: np.uint64
    empty: bool


@cache
def rule(kind: str) -> Rule:
    """The rule of a kind of shingles."""
    if kind in ("the-stack-v1", "santacoder"):
        ascii_only = np.array([c if chr(c).isalnum() or chr(c) == "_" else 0 for c in range(128)], np.int32)
        ascii_only.flags.writeable = False
        return Rule(ascii_only, _no_marks(), np.uint64(0), kind == "santacoder")
    if kind == "words":
        return Rule(word_characters(), _no_marks(), FOLD, False)
    table = word_characters().copy()
    table[ord("Σ")], table[ord("İ")] = _CAPITAL_SIGMA, _DOTTED_I
    table.flags.writeable = False
    return Rule(table, sigma_marks(), FOLD, True)


@cache
def word_characters() -> Codes:
    r"""int32 of shape (262144,): the lower case of each code point that `\w` matches, 0 for every other.

    A character whose lower case is several characters stays as it is, so that a character is always one.
    """
    text = np.arange(ALL_LETTERS_BELOW, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    lower = text.replace("İ", " ").replace("Σ", "σ").lower()  # alone, a sigma has its usual form
    codes = np.frombuffer(lower.encode("utf-32-le", "surrogatepass"), np.int32)
    table = np.zeros(ALL_LETTERS_BELOW, np.int32)
    for run in re.finditer(r"\w+", text):
        table[run.start() : run.end()] = codes[run.start() : run.end()]
    table[ord("İ")] = ord("İ")
    table.flags.writeable = False
    return table


@cache
def sigma_marks() -> Bytes:
    """uint8 by code point, those of _SELECTORS moved to _MARKS_BELOW: whether Python takes a character for cased or for
    one to pass over when it seeks the form of a sigma.
    """
    codes = [*range(_MARKS_BELOW), *range(_SELECTORS, _SELECTORS_END)]

    def final_after(first: str) -> npt.NDArray[np.bool_]:
        lower = "".join(f"{first}{chr(code)}Σ\n" for code in codes).replace("İ", "I").lower()
        codes_ = np.frombuffer(lower.encode("utf-32-le", "surrogatepass"), np.uint32)
        return np.equal(codes_[2::4], ord("ς"))

    cased = final_after("\n")
    marks = np.where(cased, _CASED, np.where(final_after("a"), _IGNORABLE, 0)).astype(np.uint8)
    marks.flags.writeable = False
    return marks


@cache
def _no_marks() -> Bytes:
    marks = np.zeros(1, np.uint8)
    marks.flags.writeable = False
    return marks


def utf8_buffers(texts: pa.Array | pa.ChunkedArray) -> tuple[Bytes, Offsets]:
    """The bytes and the n + 1 offsets (int64) of a string or binary array of n values; a null is empty."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not (pa.types.is_large_string(texts.type) or pa.types.is_large_binary(texts.type)):
        texts = texts.cast(pa.large_binary() if pa.types.is_binary(texts.type) else pa.large_string())
    if texts.null_count:
        texts = texts.fill_null(b"" if pa.types.is_large_binary(texts.type) else "")
    _, offsets, data = texts.buffers()
    none = not len(texts) or offsets is None
    bounds = (
        np.zeros(len(texts) + 1, np.int64)
        if none
        else np.frombuffer(offsets, np.int64, count=len(texts) + 1, offset=8 * texts.offset)
    )
    bytes_ = np.zeros(0, np.uint8) if none or data is None or not data.size else np.frombuffer(data, np.uint8)
    bytes_.flags.writeable = bounds.flags.writeable = False  # always, so that the kernels are compiled once
    return bytes_, bounds


@kernel
def _decode(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    """The code point at `at` and where the next begins; (0, at + 1) for what is not UTF-8."""
    first = int(data[at])
    low, high = 0x80, 0xBF  # of the second byte: no overlong form, no surrogate, nothing above U+10FFFF
    if first < 0x80:
        return first, at + 1
    if 0xC2 <= first <= 0xDF:
        length, code = 2, first & 0x1F
    elif 0xE0 <= first <= 0xEF:
        length, code = 3, first & 0x0F
        low, high = 0xA0 if first == 0xE0 else low, 0x9F if first == 0xED else high
    elif 0xF0 <= first <= 0xF4:
        length, code = 4, first & 0x07
        low, high = 0x90 if first == 0xF0 else low, 0x8F if first == 0xF4 else high
    else:
        return 0, at + 1
    if at + length > stop or data[at + 1] < low or data[at + 1] > high:
        return 0, at + 1
    for i in range(at + 1, at + length):
        byte = int(data[i])
        if byte & 0xC0 != 0x80:
            return 0, at + 1
        code = code << 6 | byte & 0x3F
    return code, at + length


@kernel
def _mark(marks: Bytes, code: int) -> int:
    if code >= _SELECTORS:
        code = code - _SELECTORS + _MARKS_BELOW if code < _SELECTORS_END else len(marks)
    elif code >= _MARKS_BELOW:
        return 0
    return int(marks[code]) if code < len(marks) else 0


@kernel
def _is_final(data: Bytes, begin: int, at: int, after: int, stop: int, marks: Bytes) -> bool:
    """Whether the capital sigma `data[at:after]` ends a word as str.lower() sees it: a cased character before it, none
    after, and what is between passed over. No byte is passed over for more than two sigmas, so texts take linear time.
    """
    mark = _IGNORABLE
    while at > begin and mark == _IGNORABLE:
        before = at - 1
        while before > begin and before > at - 4 and data[before] & 0xC0 == 0x80:
            before -= 1
        code, end = _decode(data, before, stop)
        mark = _mark(marks, code) if end == at else 0
        at = before
    if mark != _CASED:
        return False
    mark = _IGNORABLE
    while after < stop and mark == _IGNORABLE:
        code, after = _decode(data, after, stop)
        mark = _mark(marks, code)
    return mark != _CASED


@kernel
def _hash_long(data: Bytes, start: int, stop: int, fold: np.uint64) -> np.uint64:
    hash_: np.uint64 = (eight_bytes(data, start) | fold) ^ FIRST
    at = start + 8
    while stop - at > 8:
        hash_ = fold_product(hash_, (eight_bytes(data, at) | fold) ^ NEXT)
        at += 8
    hash_ = fold_product(hash_, ((eight_bytes(data, at) | fold) & _LOW[np.uint64(stop - at)]) ^ NEXT)
    return hash_


@kernel
def _hash_ascii(data: Bytes, start: int, stop: int, fold: np.uint64) -> np.uint64:
    """The hash of an ASCII word; up to 16 bytes after its first are read."""
    length = np.uint64(stop - start)
    if length > _16:
        return _hash_long(data, start, stop, fold)
    first = (eight_bytes(data, start) | fold) & _LOW[length]
    second = (eight_bytes(data, start + 8) | fold) & _HIGH[length]
    hash_: np.uint64 = fold_product(first ^ FIRST, second ^ NEXT)
    return hash_


@kernel
def _take(hash_: np.uint64, lanes: int, lane: np.uint64) -> np.uint64:
    return lane ^ FIRST if lanes == 0 else fold_product(hash_, lane ^ NEXT)


@kernel
def _by_character(
    data: Bytes, begin: int, at: int, stop: int, rule: Rule, tokens: Hashes, count: int
) -> tuple[int, int, int]:
    """Hash tokens from the start of one on, until one ends before an ASCII byte, `tokens` may be full or the text ends: as
    `next_tokens`.
    """
    room = len(tokens) - ROOM
    hash_, lane, lanes, filled, inside = np.uint64(0), np.uint64(0), 0, 0, False
    while True:
        code, separates, ends = 0, False, at >= stop
        if not ends:
            read, after = _decode(data, at, stop)
            code = int(rule.characters[read]) if read < len(rule.characters) else 0
            if code == _CAPITAL_SIGMA:
                code = 0x3C2 if _is_final(data, begin, at, after, stop, rule.marks) else 0x3C3
            elif code == _DOTTED_I:
                code, separates = 0x69, True  # its lower case is an i and a dot above, which is no word character
            at = after
        if code:
            inside = True
            if code < 0x80:
                encoded, length = np.uint64(code) | rule.fold & _255, 1
            elif code < 0x800:
                encoded, length = np.uint64(0x80C0 | code >> 6 | (code & 63) << 8), 2
            elif code < 0x10000:
                encoded, length = np.uint64(0x8080E0 | code >> 12 | (code >> 6 & 63) << 8 | (code & 63) << 16), 3
            else:
                encoded = np.uint64(
                    0x808080F0 | code >> 18 | (code >> 12 & 63) << 8 | (code >> 6 & 63) << 16 | (code & 63) << 24
                )
                length = 4
            for _ in range(length):
                lane |= (encoded & _255) << np.uint64(8 * filled)
                encoded >>= _8
                filled += 1
                if filled == 8:
                    hash_ = _take(hash_, lanes, lane)
                    lane, lanes, filled = np.uint64(0), lanes + 1, 0
        if code == 0 or separates:
            if inside or rule.empty:
                if filled or lanes == 0:
                    hash_ = _take(hash_, lanes, lane)
                    lanes += 1
                tokens[count] = _take(hash_, lanes, np.uint64(0)) if lanes == 1 else hash_
                count += 1
                hash_, lane, lanes, filled, inside = np.uint64(0), np.uint64(0), 0, 0, False
            if ends:
                return at, -1, count
            if count >= room or at >= stop or data[at] < 0x80:
                return at, at if rule.empty else -1, count


@kernel
def next_tokens(
    data: Bytes, begin: int, at: int, stop: int, start: int, rule: Rule, tokens: Hashes, count: int
) -> tuple[int, int, int]:
    """Hash tokens from `at` on into `tokens[count:]` until it may be full or the text ends.

    `data[begin:stop]` is the text, or a part of it that stands for itself. `start` is where the token begins that is
    under way, -1 if none is. Returns where to go on, `start` as it then is, and the new count; the text is at its end
    when `at` is `stop` and `start` is -1.
    """
    room = len(tokens) - ROOM
    last = len(data) - REACH
    while at < stop and count < room:
        width = 0
        if at <= last:
            inside, other = ascii_words(data, at), above_ascii(data, at)
            width = min(64, stop - at, lowest_bit(other))
        if width == 0:
            at, start, count = _by_character(data, begin, at if start < 0 else start, stop, rule, tokens, count)
            continue
        known = _ALL >> np.uint64(64 - width)
        inside &= known
        if rule.empty:
            ends = ~inside & known
            starts = ends << _ONE
        else:
            before = inside << _ONE | np.uint64(start >= 0)
            ends = before & ~inside & known
            starts = inside & ~before
            if start < 0:
                start = at + lowest_bit(starts)
                starts &= starts - _ONE
        while ends:
            tokens[np.uint64(count)] = _hash_ascii(data, start, at + lowest_bit(ends), rule.fold)
            count += 1
            ends &= ends - _ONE
            start = at + lowest_bit(starts)
            starts &= starts - _ONE
        at += width
        if not rule.empty and inside >> np.uint64(width - 1) == 0:
            start = -1
    if at >= stop and start >= 0:
        tokens[count] = _hash_ascii(data, start, stop, rule.fold) if start < stop else fold_product(FIRST, NEXT)
        count += 1
        start = -1
    return at, start, count
