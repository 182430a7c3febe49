"""Where the words of GPT-2's pattern begin, 64 bytes at a time.

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

(openai/gpt-2, encoder.py; `ByteLevel` of `tokenizers`.) As a rule on neighbours: a word begins where the class of the
characters changes, but not behind a space (U+0020), which belongs to what follows it; the last character of white space
that something follows begins a word; an apostrophe that begins a word takes the letters of a contraction with it. With
`Digits` in front, numeric characters are cut out first, each alone, and what lies between them is text by itself: there
white space ends as at the end of a text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.tokens.fast_bits import (
    above_ascii,
    apostrophes,
    ascii_digits,
    ascii_letters,
    ascii_spaces,
    blanks,
    lowest_bit,
)
from stackbuild.tokens.fast_classes import DIGIT, LETTER, NUMBER, SPACE

SLACK = 64  # bytes that may be read behind the last one
_ONE, _TOP, _ALL = np.uint64(1), np.uint64(63), np.uint64(0xFFFFFFFFFFFFFFFF)
_NONE = np.uint64(0)
_KIND = 3  # the class without DIGIT


@kernel
def character(data: Any, at: Any, last: Any) -> Any:
    """The character at a byte above 127: code point * 8 + bytes; -1 if it is no UTF-8 (RFC 3629), or ends behind `last`."""
    lead = np.int64(data[at])
    if lead < 0xC2 or lead > 0xF4:
        return np.int64(-1)
    size = np.int64(2)
    value = lead & 0x1F
    if lead >= 0xF0:
        size = np.int64(4)
        value = lead & 0x07
    elif lead >= 0xE0:
        size = np.int64(3)
        value = lead & 0x0F
    if at + size > last:
        return np.int64(-1)
    for k in range(1, size):
        byte = np.int64(data[at + k])
        if byte & 0xC0 != 0x80:
            return np.int64(-1)
        value = (value << 6) | (byte & 0x3F)
    if (size == 3 and (value < 0x800 or 0xD800 <= value < 0xE000)) or (
        size == 4 and (value < 0x10000 or value > 0x10FFFF)
    ):
        return np.int64(-1)
    return (value << 3) | size


@kernel
def _contraction(data: Any, at: Any) -> Any:
    """Bytes of the contraction whose apostrophe is at `at`, 0 if it is none."""
    second, third = data[at + 1], data[at + 2]
    if second in (115, 116, 109, 100):  # s t m d
        return 2
    if ((second == 114 or second == 118) and third == 101) or (second == 108 and third == 108):  # noqa: PLR1714
        return 3  # re ve ll
    return 0


@kernel
def word_starts(data: Any, offsets: Any, digits_apart: Any, first_table: Any, second_table: Any, starts: Any) -> Any:
    """Set bit i of `starts` where a word begins at byte `offsets[0] + i`; the end of the last text counts as a beginning.

    `data`: uint8, with `SLACK` readable bytes behind the texts; `offsets`: int64 of shape (texts + 1,); the tables of
    `fast_classes`; `starts`: uint64 of (bytes // 64 + 1,), written whole. Returns -1, or the place of a byte that is not
    UTF-8: texts end with a character.
    """
    first, last = offsets[0], offsets[len(offsets) - 1]
    text = 0  # the next offset that is not behind us
    # What the block before leaves: the top bit of each mask, and the rest of a character that crosses.
    letter_1 = number_1 = space_1 = blank_1 = digit_1 = inner_1 = _NONE
    letter_r = number_r = space_r = digit_r = inner_r = _NONE
    set_r = clear_r = _NONE
    for block in range(len(starts)):
        base = first + block * 64
        valid = _ALL
        if last - base < 64:
            valid = (_ONE << np.uint64(last - base)) - _ONE
        digit = ascii_digits(data, base) & valid
        letter = ascii_letters(data, base) & valid | letter_r
        space = ascii_spaces(data, base) & valid | space_r
        blank = blanks(data, base) & valid
        quote = apostrophes(data, base) & valid
        number = digit | number_r
        digit |= digit_r
        inner = inner_r  # bytes of a character behind its first
        leads = above_ascii(data, base) & valid & ~inner
        letter_r = number_r = space_r = digit_r = inner_r = _NONE
        while leads:
            bit = lowest_bit(leads)
            found = character(data, base + bit, last)
            if found < 0:
                return base + bit
            size = np.uint64(found & 7)
            point = found >> 3
            kind = second_table[(np.int64(first_table[point >> 7]) << 7) + (point & 127)]
            shift = np.uint64(bit)
            whole = (_ONE << size) - _ONE
            mask = whole << shift
            over = _NONE
            if shift + size > np.uint64(64):
                over = whole >> (np.uint64(64) - shift)
            inner |= mask & ~(_ONE << shift)
            inner_r |= over
            if kind & _KIND == LETTER:
                letter |= mask
                letter_r |= over
            elif kind & _KIND == NUMBER:
                number |= mask
                number_r |= over
            elif kind & _KIND == SPACE:
                space |= mask
                space_r |= over
            if kind & DIGIT:
                digit |= mask
                digit_r |= over
            leads &= ~mask
        border = _NONE  # where texts begin, and the last one ends
        while text < len(offsets) and offsets[text] - base < 64:
            border |= _ONE << np.uint64(offsets[text] - base)
            text += 1
        if border & inner:
            return base + lowest_bit(border & inner)

        letter_b = (letter << _ONE) | letter_1
        number_b = (number << _ONE) | number_1
        space_b = (space << _ONE) | space_1
        begin = ((letter ^ letter_b) | (number ^ number_b) | (space ^ space_b)) & ~((blank << _ONE) | blank_1)
        ends = space_b & ~space & ~border  # behind white space that something follows
        if digits_apart:
            begin |= (digit | (digit << _ONE) | digit_1) & ~inner
            ends &= ~digit
        wide = ends & ((inner << _ONE) | inner_1)  # whose last character has several bytes
        ends ^= wide
        begin |= ends >> _ONE
        if ends & _ONE:
            starts[block - 1] |= _ONE << _TOP
        while wide:
            at = base + lowest_bit(wide) - 1
            wide &= wide - _ONE
            while data[at] & 0xC0 == 0x80:
                at -= 1
            if at >= base:
                begin |= _ONE << np.uint64(at - base)
            else:
                starts[block - 1] |= _ONE << np.uint64(at - base + 64)
        begin = ((begin | border) & ~clear_r) | set_r
        set_r = clear_r = _NONE
        quote &= begin
        while quote:
            bit = lowest_bit(quote)
            quote &= quote - _ONE
            size_q = _contraction(data, base + bit)
            for k in range(bit + 1, bit + size_q):  # a text may end within it
                if k < 64:
                    if (border >> np.uint64(k)) & _ONE:
                        size_q = 0
                elif text < len(offsets) and offsets[text] == base + k:
                    size_q = 0
            if size_q:
                for k, value in ((bit + 1, False), (bit + size_q, True)):
                    one = _ONE << np.uint64(k & 63)
                    if k < 64:
                        begin = begin | one if value else begin & ~one
                    elif value:
                        set_r |= one
                    else:
                        clear_r |= one
        starts[block] = begin & (valid | border)
        letter_1, number_1, space_1 = letter >> _TOP, number >> _TOP, space >> _TOP
        blank_1, digit_1, inner_1 = blank >> _TOP, digit >> _TOP, inner >> _TOP
    return np.int64(-1)
