"""Which encoding a file's bytes are in, or why none can be told.

The chain, in its order (`benchmarks/encodings.py`: of real code with real translations, re-encoded, 98 to 99 % exactly):

1. a byte order mark: UTF-8, UTF-16 or UTF-32, and nothing else if the bytes do not decode so; 2. ISO-2022 escape
sequences in 7-bit bytes, which a UTF-8 decoder would take for ASCII; 3. NUL bytes: UTF-16 without a mark if they are
all at even or all at odd places and the text is plausible, else binary; 4. strict UTF-8; 5. chardetng, whose answer
holds only if the bytes decode strictly, encode back to the same bytes, and the text has no C1
   control (U+0080 to U+009F) and few others.

Names are upper-case IANA names, or the iconv name where IANA has none, and always such that `bytes.decode(name)` gives
the text: so Shift_JIS is told as CP932, EUC-KR as CP949, GBK as GB18030 and Big5 as BIG5-HKSCS, the sets that WHATWG
means by them. A mark is no text: UTF-8 with one is "UTF-8-SIG", UTF-16 with one "UTF-16". Without one it is "UTF-16LE"
or "UTF-16BE".
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.languages.alphabets import LATIN, MANY, SINGLE, misfits, of_wide_script

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

UTF8: Final = "UTF-8"
BINARY: Final = "binary"  # reasons why there is no text
UNCERTAIN: Final = "encoding_uncertain"

# What `probe` finds.
VALID, MARK, ESCAPE = np.uint8(1), np.uint8(2), np.uint8(4)


@kernel
def valid_utf8(data: U8, lo: int, hi: int) -> bool:
    """Whether bytes lo to hi are UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF)."""
    i = lo
    while i < hi:
        b = data[i]
        if b < 0x80:
            i += 1
            continue
        if 0xC2 <= b <= 0xDF:
            more, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= b <= 0xEF:
            more, low, high = 2, 0xA0 if b == 0xE0 else 0x80, 0x9F if b == 0xED else 0xBF
        elif 0xF0 <= b <= 0xF4:
            more, low, high = 3, 0x90 if b == 0xF0 else 0x80, 0x8F if b == 0xF4 else 0xBF
        else:
            return False
        if i + more >= hi or not low <= data[i + 1] <= high:
            return False
        for j in range(i + 2, i + more + 1):
            if data[j] & 0xC0 != 0x80:
                return False
        i += more + 1
    return True


@kernel
def probe(data: U8, offsets: I64) -> tuple[U8, I64]:
    """Look at n files once: flags VALID (UTF-8), MARK (any byte order mark), ESCAPE, uint8 (n,); NUL bytes, int64
    (n,).
    """
    rows = len(offsets) - 1
    flags, nuls = np.zeros(rows, np.uint8), np.zeros(rows, np.int64)
    for row in range(rows):
        lo, hi = offsets[row], offsets[row + 1]
        every, zeros, escapes = np.uint8(0), 0, 0
        for i in range(lo, hi):  # no branches, so that it runs on whole vectors
            every |= data[i]
            zeros += data[i] == 0
            escapes += data[i] == 0x1B
        if every < 0x80 or valid_utf8(data, lo, hi):
            flags[row] |= VALID
        if escapes and every < 0x80:
            flags[row] |= ESCAPE
        if hi - lo >= 2:
            a, b = data[lo], data[lo + 1]
            if (a == 0xFF and b == 0xFE) or (a == 0xFE and b == 0xFF):
                flags[row] |= MARK
            if hi - lo >= 3 and a == 0xEF and b == 0xBB and data[lo + 2] == 0xBF:
                flags[row] |= MARK
            if hi - lo >= 4 and a == 0 and b == 0 and data[lo + 2] == 0xFE and data[lo + 3] == 0xFF:
                flags[row] |= MARK
        nuls[row] = zeros
    return flags, nuls


@dataclass(frozen=True)
class Reading:
    """A file's encoding and text, or the reason (BINARY, UNCERTAIN) and the finding in words.

    `lossless`: the text encoded by that name gives the bytes again.
    """

    encoding: str | None = None
    text: str | None = None
    lossless: bool = False
    reason: str | None = None
    finding: str | None = None


_MARKS = (
    (codecs.BOM_UTF8, "UTF-8-SIG"),
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_WIDE = {"UTF-16": (codecs.BOM_UTF16_LE, "UTF-16LE"), "UTF-32": (codecs.BOM_UTF32_LE, "UTF-32LE")}

# chardetng's answers whose name here is another (the rest are upper-cased).
_NAMES = {
    "Shift_JIS": "CP932",
    "EUC-KR": "CP949",
    "GBK": "GB18030",
    "Big5": "BIG5-HKSCS",
    "windows-874": "CP874",
    "ISO-8859-8-I": "ISO-8859-8",
    "x-mac-cyrillic": "MACCYRILLIC",
}

_ISO_2022 = re.compile(rb"\x1b(?:\$(?:[@AB]|\([@A-D]|\)[ACEG])|\([IJ])")
_ISO_2022_NAMES = ("ISO-2022-JP", "ISO-2022-JP-2", "ISO-2022-KR")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # not white space, not ESC
_C1 = re.compile("[\x80-\x9f]")
CONTROLS_MAX = 0.01  # of the characters of a text whose encoding was guessed; random bytes have 0.11
LANGUAGE_BYTES = 1 << 20  # a longer file has enough for the detector to be right
WIDE_LATIN_MIN = 0.03  # of the code units of UTF-16 without a mark that are below U+0100: line ends, spaces, ASCII
WIDE_SAMPLE = 4_096  # characters of it that must all be assigned ones


def encode(text: str, encoding: str) -> bytes:
    """The bytes of a text; UTF-16 and UTF-32 with a mark in little-endian order, whatever the machine's.
    UnicodeEncodeError.
    """
    mark, plain = _WIDE.get(encoding, (b"", encoding))
    return mark + text.encode(plain)


def read_as(data: bytes, encoding: str) -> str | None:
    """The text, or None if the bytes are not in that encoding."""
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def restores(text: str, encoding: str, data: bytes) -> bool:
    """Whether the text, encoded, is the data again."""
    try:
        return encode(text, encoding) == data
    except (UnicodeEncodeError, LookupError):
        return False


def read(data: bytes) -> Reading:
    """Go through the chain for one file."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = read_as(data, encoding)
            if text is not None and "\0" not in text:
                return Reading(encoding, text, restores(text, encoding, data))
    if data.startswith(tuple(mark for mark, _ in _MARKS)):
        return _no_text(data, "a byte order mark, but the bytes do not decode as it says")
    if data.isascii() and _ISO_2022.search(data) and (reading := _iso_2022(data)):
        return reading
    if b"\0" in data:
        return _wide(data) or _no_text(data, None)
    text = read_as(data, UTF8)
    if text is not None:
        return Reading(UTF8, text, True)
    return _guess(data)


def _no_text(data: bytes, finding: str | None) -> Reading:
    if b"\0" in data:
        return Reading(reason=BINARY, finding="NUL bytes")
    return Reading(reason=UNCERTAIN, finding=finding)


def _iso_2022(data: bytes) -> Reading | None:
    """A reading as ISO-2022, if one restores the bytes and has a character that ASCII has not."""
    for encoding in _ISO_2022_NAMES:
        text = read_as(data, encoding)
        if text is not None and not text.isascii() and restores(text, encoding, data):
            return Reading(encoding, text, True)
    return None


def _wide(data: bytes) -> Reading | None:
    """A reading as UTF-16 without a mark: NUL bytes on one side, enough of them, few on the other (of Hangul, and the
    ideographic space, some have one there), and no character that no text has.
    """
    if len(data) % 2:
        return None
    even, odd = data[0::2].count(0), data[1::2].count(0)
    if max(even, odd) < max(WIDE_LATIN_MIN * (len(data) // 2), 2 * min(even, odd), 1):
        return None
    encoding = "UTF-16LE" if odd > even else "UTF-16BE"
    text = read_as(data, encoding)
    if text is None or _CONTROLS.search(text) or _C1.search(text) or not restores(text, encoding, data):
        return None
    if any(unicodedata.category(c) in {"Cn", "Co", "Cs"} for c in text[:WIDE_SAMPLE]):
        return None
    return Reading(encoding, text, True)


def _guess(data: bytes) -> Reading:
    """What chardetng says of bytes that are neither UTF-8 nor have NULs, if it bears proof."""
    from chardetng_py import detect

    found = detect(data, allow_utf8=False)
    encoding = _NAMES.get(found, found.upper())
    text = read_as(data, encoding)
    if encoding in LATIN and len(data) <= LANGUAGE_BYTES:
        encoding, text = _of_a_language(data, encoding, text)
    if text is None:
        return Reading(reason=UNCERTAIN, finding=f"looks like {encoding} but does not decode")
    if not restores(text, encoding, data):
        return Reading(reason=UNCERTAIN, finding=f"looks like {encoding} but does not encode back to the same bytes")
    if _C1.search(text):
        return Reading(reason=UNCERTAIN, finding=f"looks like {encoding} but has C1 control characters")
    if len(_CONTROLS.findall(text)) > CONTROLS_MAX * len(text):
        return Reading(reason=UNCERTAIN, finding=f"looks like {encoding} but has many control characters")
    return Reading(encoding, text, True)


def _of_a_language(data: bytes, encoding: str, text: str | None) -> tuple[str, str | None]:
    """The encoding in which the bytes are most like a text of one language, and the text: the detector's, unless what it read
    has letters of several alphabets and another has not half as many that do not fit.
    """
    least = len(data) if text is None else misfits(text)
    if not least:
        return encoding, text
    for other in (*MANY, *SINGLE):
        read = read_as(data, other)
        if read is None or _C1.search(read) or not restores(read, other, data):
            continue
        strange = misfits(read) if other in SINGLE else 0 if of_wide_script(read, other) else least
        if strange * 2 < least:
            encoding, text, least = other, read, strange
    return encoding, text
