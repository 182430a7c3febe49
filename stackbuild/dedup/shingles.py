r"""What a file is made of, as a set: the 64-bit hashes of its word n-grams.

The clean form of the rule of The Stack v2 (Lozhkov et al. 2024, section 3.1): words in lower case, 5-grams. A word is
a maximal run of characters that Python's `\w` matches; the empty strings between neighbouring separators, which the
published script counts as words, are not. A file of fewer words than n has no shingles: only an exact copy of it is a
copy (the published script lets all such files collapse into one). Licence headers are left out (`headers`).

The hash of a word is FNV-1a over its code points, mixed; that of an n-gram is the polynomial of its words' hashes
modulo 2^64, through the finalizer of MurmurHash3. Both are bijective enough that two unlike n-grams share a hash once
in 2^64. Texts are read from Arrow's buffers; bytes that are not UTF-8 separate words. Measured on one core of an EPYC
(Zen 4): see docs/near-dedup.md.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from stackbuild.dedup.headers import HEADERS, kept_spans
from stackbuild.dedup.options import Shingling

UNICODE_VERSION = unicodedata.unidata_version
ALL_LETTERS_BELOW = 0x40000  # no letter or digit of Unicode stands above
BLOCK = 4096  # room for words that are hashed before their n-grams are; source fills some 8 KB of it at a time

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_POLYNOMIAL = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_32, _33 = np.uint64(32), np.uint64(33)


@cache
def word_characters() -> npt.NDArray[np.int32]:
    r"""int32 of shape (262144,): the lower case of each code point that `\w` matches, 0 for every other.

    A character whose lower case is several characters stays as it is, so that a character is always one.
    """
    table = np.zeros(ALL_LETTERS_BELOW, np.int32)
    for code in range(ALL_LETTERS_BELOW):
        character = chr(code)
        if character.isalnum() or character == "_":
            lower = character.lower()
            table[code] = ord(lower) if len(lower) == 1 else code
    table.flags.writeable = False
    return table


def utf8_buffers(texts: pa.Array) -> tuple[Bytes, Offsets]:
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


@njit(cache=True, nogil=True)
def _decode(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    """The code point at `at`, whose byte is above 127, and where the next begins; (0, at + 1) for what is not UTF-8."""
    first = int(data[at])
    if 0xC2 <= first <= 0xDF:
        length, code = 2, first & 0x1F
    elif 0xE0 <= first <= 0xEF:
        length, code = 3, first & 0x0F
    elif 0xF0 <= first <= 0xF4:
        length, code = 4, first & 0x07
    else:
        return 0, at + 1
    if at + length > stop:
        return 0, at + 1
    for i in range(at + 1, at + length):
        byte = int(data[i])
        if byte & 0xC0 != 0x80:
            return 0, at + 1
        code = code << 6 | byte & 0x3F
    return code, at + length


@njit(cache=True, nogil=True)
def next_words(
    data: Bytes, at: int, stop: int, lower: npt.NDArray[np.int32], words: Hashes, count: int
) -> tuple[int, int]:
    """Hash words from `at` on into `words[count:]` until it may be full or the text ends: (where to go on, new count).

    Where words end cannot be foretold, so the loop does not branch on it: each byte writes the hash so far, and the
    last write of a word is the one that stays.
    """
    first = count
    hash_ = _FNV_OFFSET
    inside = False
    safe = at + 2 * (len(words) - count) - 1  # a word and what parts it from the next are two bytes at least
    while at < stop and (at < safe or inside):
        byte = data[at]
        if byte < 128:
            character = lower[byte]
            at += 1
        else:
            code, at = _decode(data, at, stop)
            character = lower[code] if code < ALL_LETTERS_BELOW else np.int32(0)
        words[count] = hash_
        goes_on = character != 0
        count += inside & (not goes_on)
        hash_ = (hash_ ^ np.uint64(character)) * _FNV_PRIME if goes_on else _FNV_OFFSET
        inside = goes_on
    if inside:
        words[count] = hash_
        count += 1
    for i in range(first, count):
        words[i] = (words[i] ^ (words[i] >> _32)) * _MIX_1
    return at, count


@njit(cache=True, nogil=True)
def hash_ngrams(words: Hashes, count: int, ngram: int, out: Hashes) -> int:
    """Hash the n-grams of `words[:count]` into `out`; return how many."""
    total = max(count - ngram + 1, 0)
    for i in range(total):
        value = words[i]
        for j in range(1, ngram):
            value = value * _POLYNOMIAL + words[i + j]
        value = (value ^ (value >> _33)) * _MIX_1
        value = (value ^ (value >> _33)) * _MIX_2
        out[i] = value ^ (value >> _33)
    return total


@njit(cache=True, nogil=True)
def _radix_sort(values: Hashes, spare: Hashes, count: int, first_digit: int) -> None:
    """Sort by the bytes from `first_digit` (0 is the lowest) to 7; an even number of them, so that the result is in
    `values`.
    """
    counts = np.zeros((8, 256), np.int64)
    for i in range(count):
        for digit in range(first_digit, 8):
            counts[digit, (values[i] >> np.uint64(8 * digit)) & np.uint64(255)] += 1
    source, target = values, spare
    for digit in range(first_digit, 8):
        place = 0
        for i in range(256):
            here = counts[digit, i]
            counts[digit, i] = place
            place += here
        shift = np.uint64(8 * digit)
        for i in range(count):
            bucket = (source[i] >> shift) & np.uint64(255)
            target[counts[digit, bucket]] = source[i]
            counts[digit, bucket] += 1
        source, target = target, source


@njit(cache=True, nogil=True)
def sort_distinct(values: Hashes, spare: Hashes, count: int) -> int:
    """Sort `values[:count]` and drop repeats in place; return how many stay. `spare`: as long, overwritten.

    Radix sort by the upper four bytes, which nearly always tells unlike hashes apart; by all eight where it does not,
    so that no input is slow. Insertion sort where that is shorter.
    """
    if count <= 64:
        for i in range(1, count):
            value = values[i]
            j = i - 1
            while j >= 0 and values[j] > value:
                values[j + 1] = values[j]
                j -= 1
            values[j + 1] = value
    else:
        _radix_sort(values, spare, count, 4)
        for i in range(1, count):
            if values[i] < values[i - 1]:
                _radix_sort(values, spare, count, 0)
                break
    distinct = min(count, 1)
    for i in range(1, count):
        if values[i] != values[i - 1]:
            values[distinct] = values[i]
            distinct += 1
    return distinct


@njit(cache=True, nogil=True)
def _sets(
    data: Bytes, bounds: Offsets, lower: npt.NDArray[np.int32], ngram: int, header_blind: bool, block: int
) -> tuple[Hashes, Offsets]:
    files = len(bounds) - 1
    spans = np.empty((HEADERS + 1, 2), np.int64)
    words = np.empty(block + ngram, np.uint64)
    hashes = np.empty((bounds[files] - bounds[0]) // 8, np.uint64)  # source has a word in six to ten bytes
    spare = np.empty(0, np.uint64)
    offsets = np.zeros(files + 1, np.int64)
    for file in range(files):
        begin = offsets[file]
        most = begin + (bounds[file + 1] - bounds[file]) // 2 + 1
        if most > len(hashes):
            hashes = _longer(hashes, begin, most)
        made = begin
        held = 0
        parts = kept_spans(data, bounds[file], bounds[file + 1], header_blind, spans)
        for part in range(parts):
            at, stop = spans[part, 0], spans[part, 1]
            while at < stop:
                at, held = next_words(data, at, stop, lower, words, held)
                if held >= ngram:
                    made += hash_ngrams(words, held, ngram, hashes[made:])
                    keep = ngram - 1
                    words[:keep] = words[held - keep : held].copy()
                    held = keep
        if made - begin > len(spare):
            spare = np.empty(2 * (made - begin), np.uint64)
        offsets[file + 1] = begin + sort_distinct(hashes[begin:], spare, made - begin)
    return hashes[: offsets[files]].copy(), offsets


@njit(cache=True, nogil=True)
def _longer(hashes: Hashes, used: int, wanted: int) -> Hashes:
    """The first `used` hashes in an array of at least `wanted`, and of twice the length."""
    longer = np.empty(max(2 * len(hashes), wanted), np.uint64)
    longer[:used] = hashes[:used]
    return longer


def shingle_sets(texts: pa.Array, shingling: Shingling) -> tuple[Hashes, Offsets]:
    """The distinct shingles of n texts: (uint64, ascending within a file; int64 offsets of shape (n + 1,)).

    Memory: 8 bytes for each shingle of the batch, up to four times while it grows and is cut to size.
    """
    data, bounds = utf8_buffers(texts)
    hashes, offsets = _sets(data, bounds, word_characters(), shingling.ngram, shingling.header_blind, BLOCK)
    return hashes, offsets
