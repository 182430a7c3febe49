"""What one line of a head is: blank, text or code; the rules are those of `notices`.

Kernels on bytes: `data` is uint8, `at` and `stop` bound the line, without its line end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]

BLANK, TEXT, CODE = 0, 1, 2
SIGNED = 16  # by a comment's sign, or inside a block comment

CODE_BYTES = 400  # no one writes so long a line of prose into a header; minified code has them
_ASIDE_BYTES = 200
_LICEN = b"licen"
_HTML = b"html"


@kernel
def lower(byte: int) -> int:
    return byte + 32 if 65 <= byte <= 90 else byte


@kernel
def is_word_byte(byte: int) -> bool:
    return 48 <= byte <= 57 or 97 <= lower(byte) <= 122 or byte >= 128


@kernel
def begins(data: Bytes, at: int, stop: int, word: bytes) -> bool:
    if at + len(word) > stop:
        return False
    for i in range(len(word)):  # noqa: SIM110
        if data[at + i] != word[i]:
            return False
    return True


@kernel
def is_blank(data: Bytes, at: int, stop: int) -> bool:
    for i in range(at, stop):  # noqa: SIM110
        if is_word_byte(int(data[i])):
            return False
    return True


@kernel
def _in_ruler(data: Bytes, at: int, i: int, stop: int) -> bool:
    """Whether the = at `i` is one of three or more."""
    first = i
    while first > at and data[first - 1] == 61:
        first -= 1
    last = i
    while last + 1 < stop and data[last + 1] == 61 and last - first < 2:
        last += 1
    return last - first >= 2


@kernel
def _is_prose(data: Bytes, at: int) -> bool:
    """Whether the first `CODE_BYTES` have as many spaces as words in running text."""
    spaces = 0
    for i in range(at, at + CODE_BYTES):
        if data[i] == 32:
            spaces += 1
    return spaces * 12 >= CODE_BYTES


@kernel
def _aside(data: Bytes, at: int, i: int, stop: int) -> int:
    """Where the bracket at `i` ends if it holds at least two words of prose and stands apart in a line that does; else -1."""
    if i == at or data[i - 1] != 32 or data[stop - 1] == 59:
        return -1
    spaces = 0
    for k in range(i + 1, min(i + _ASIDE_BYTES, stop)):
        c = data[k]
        if c == 93:
            return k if spaces and (k + 1 == stop or data[k + 1] in (32, 46, 44, 41)) else -1  # space . , )
        if c == 32:
            spaces += 1
        elif not is_word_byte(int(c)) and c not in (39, 44, 45, 46, 47, 58):  # ' , - . / :
            return -1
    return -1


@kernel
def _is_literal(data: Bytes, at: int, stop: int) -> bool:
    """Whether a line begins with a string of a program: r"..., b'..., L"..., or "...\\n" and what joins it to the next."""
    quote = at
    while quote < at + 2 and lower(int(data[quote])) in (98, 102, 108, 114, 117):  # b f l r u
        quote += 1
    c = data[quote] if quote + 2 < stop else 0
    if c not in (34, 39) or (data[quote + 1] == c and data[quote + 2] == c):
        return False
    if quote > at:
        return c == 34 or lower(int(data[quote - 1])) != 108  # not l'
    last = stop - 1
    while last > at + 3 and data[last] in (32, 41, 43, 44, 46, 59, 92):  # space ) + , . ; \\
        last -= 1
    return bool(data[last] == c and data[last - 1] == 110 and data[last - 2] == 92)


@kernel
def _after_tags(data: Bytes, at: int, stop: int) -> int:
    """Where the tags end that a line begins with, if they open a page and its body or a paragraph; `stop` if not."""
    for i in range(4):
        if at + 1 + i >= stop or lower(int(data[at + 1 + i])) != _HTML[i]:
            return stop
    prose = False
    while at < stop and (data[at] == 60 or data[at] <= 32):
        if data[at] == 60:
            name = lower(int(data[min(at + 1, stop - 1)]))
            after = lower(int(data[min(at + 2, stop - 1)]))
            prose |= (name == 98 and after == 111) or (name == 112 and after in (62, 32))  # <bo <p
            while at < stop and data[at] != 62:
                at += 1
        at += 1
    return at if prose and at < stop else stop


@kernel
def kind_of_line(data: Bytes, at: int, stop: int) -> int:
    """Blank, text or code."""
    if stop - at >= 3 and data[at] == 0xEF and data[at + 1] == 0xBB and data[at + 2] == 0xBF:
        at += 3
    while at < stop and data[at] <= 32:
        at += 1
    while stop > at and data[stop - 1] <= 32:
        stop -= 1
    if is_blank(data, at, stop):
        return BLANK
    first = data[at]
    second = data[at + 1] if at + 1 < stop else 0
    if first in (35, 37, 42, 59, 33):  # # % * ; !
        return CODE if first == 35 and second == 91 else TEXT | SIGNED
    if first == 47 and second in (47, 42):  # // /*
        return TEXT | SIGNED
    if first == 45 and second == 45:  # --
        return TEXT | SIGNED
    if first in (123, 40) and second in (45, 42, 35, 37, 33):  # {- {# {% (*
        return TEXT | SIGNED
    if (first == 64 and second == 42) or begins(data, at, stop, b"{{!") or begins(data, at, stop, b"[//]: "):  # @*
        return TEXT | SIGNED
    if first == 60:  # <!-- <%-- <# <?
        if second in (33, 37, 35, 63):
            return TEXT | SIGNED
        if second not in (80, 112) or at + 2 >= stop or data[at + 2] != 62:  # <p>
            at = _after_tags(data, at, stop)
            if at == stop or is_blank(data, at, stop):
                return CODE
    if stop - at > CODE_BYTES and not _is_prose(data, at):
        return CODE
    if first == 95 and begins(data, at, stop, b"__licen"):  # Python's __license__ = "..."
        return TEXT
    if first in (34, 39) and second not in (
        34,
        39,
    ):  # a string at the start of a statement, or a comment of Vim or Basic
        for i in range(at + 1, stop - 1):
            if data[i] == first and (
                data[i + 1] == 58 or (data[i + 1] == 44 and i + 2 == stop)
            ):  # ": and ", at the end
                return CODE
    if _is_literal(data, at, stop):
        return CODE
    if data[stop - 1] == 59 and data[stop - 2] in (39, 34):  # "; and ';
        return CODE
    aside = at - 1
    for i in range(at, stop):
        c = data[i]
        if c in (61, 91, 93, 123, 125):  # = [ ] { }
            if c == 61 and _in_ruler(data, at, i, stop):
                continue
            if c == 91 and i > aside:
                aside = _aside(data, at, i, stop)
            if i <= aside and c in (91, 93):
                continue
            return CODE
        if c == 58 and i + 1 < stop and data[i + 1] == 34:  # :" of JSON and of Go's tags
            return CODE
        if c == 40 and i > at and is_word_byte(int(data[i - 1])) and i + 1 < stop and data[i + 1] not in (115, 83):
            if i + 2 < stop and data[i + 2] == 41 and data[i + 1] in (99, 67):
                continue  # Copyright(c)
            if (
                i >= at + 3
                and lower(int(data[i - 3])) == 103
                and lower(int(data[i - 2])) == 112
                and lower(int(data[i - 1])) == 108
            ):
                continue  # GPL(v3)
            return CODE
    return TEXT


@kernel
def tag_at(data: Bytes, at: int, stop: int) -> int:
    """Where an SPDX tag begins, -1 for none."""
    for i in range(at + 3, stop - 15):
        if data[i] not in (88, 120) or data[i + 1] not in (32, 45):  # X x, space -
            continue
        if lower(int(data[i - 1])) == 100 and lower(int(data[i - 2])) == 112 and lower(int(data[i - 3])) == 115:
            k = 0
            while k < 5 and lower(int(data[i + 2 + k])) == _LICEN[k]:
                k += 1
            if k == 5:
                return i - 3
    return -1


@kernel
def kind_of_tagged_line(data: Bytes, at: int, stop: int, tag: int, kind: int, code: bool) -> int:
    """The kind of a line with an SPDX tag at `tag`, by where it stands in the line. `code`: a statement is before the line."""
    while data[at] <= 32:
        at += 1
    if (kind & SIGNED and not begins(data, at, stop, b"#define")) or begins(data, at, stop, b"__licen"):
        return kind
    quote = 0
    opening = at
    sign = -1  # of a comment that is told by what follows it
    i = at
    while i < tag:
        c = int(data[i])
        apart = i == at or data[i - 1] <= 32 or data[i - 1] in (41, 59, 125)  # ) ; }
        if quote:
            if c == 92:
                i += 1
            elif c == quote:
                quote = 0
        elif c in (34, 96) or (c == 39 and (i < at + 3 or not is_word_byte(int(data[i - 1])))):
            quote = c
            opening = i
            sign = -1
        elif apart and c == 47 and data[i + 1] in (42, 47) and i > at:  # /* //
            return TEXT | SIGNED
        elif apart and (c in (35, 37, 59) or (c == 45 and data[i + 1] == 45)) and i > at:  # # % ; --
            sign = i
        elif is_word_byte(c):
            sign = -1
        i += 1
    if sign >= 0:
        return TEXT | SIGNED
    first = at
    while first < at + 2 and lower(int(data[first])) in (98, 102, 114, 117):  # b f r u before a string
        first += 1
    if quote and opening >= first + 3:
        return CODE
    if quote and opening >= first:  # a string, or a comment of Vim or Basic
        for k in range(at, opening):
            if is_word_byte(int(data[k])) and k >= first:
                return CODE
        triple = opening == first + 2 or (data[first + 1] == quote and data[first + 2] == quote)
        closed = False
        for k in range(tag, stop):
            closed |= data[k] == quote
        return CODE if code and (closed or triple) else kind
    if quote:
        return CODE
    last = tag - 1
    while last > at and data[last] <= 32:
        last -= 1
    if data[at] == 60 and last > at and data[last] == 62:  # <p>
        return TEXT
    if tag > at and data[tag - 1] == 47:  # a regular expression
        return CODE
    return kind if kind != CODE or not is_blank(data, at, tag) else TEXT
