"""What a reader of a page of HTML sees of it, in characters (rule Q9 of The Stack v2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.quality.characters import I64, SPACE, U8, Classes, decode


@kernel
def _is_name(b: int) -> bool:
    return 0x61 <= (b | 0x20) <= 0x7A or 0x30 <= b <= 0x39


@kernel
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


@kernel
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


@kernel
def visible(data: U8, offsets: I64, wanted: npt.NDArray[np.bool_], classes: Classes) -> I64:
    """`visible_characters` of the wanted texts, int64 (n,), 0 for the others."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for row in range(len(out)):
        if wanted[row]:
            out[row] = visible_characters(data, offsets[row], offsets[row + 1], classes)
    return out
