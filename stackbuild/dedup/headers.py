"""Which bytes at the start of a file are a licence header, and so no sign of likeness.

Twenty-four thousand of eighty thousand files of a mixed corpus open with a licence or copyright comment; shared
headers made 264,931 pairs at J >= 0.7 instead of 42,570 and one family of 1,146 unlike files. So near-duplicates are
told from the text without it; the text itself keeps its header.

The rule. After a byte order mark and a `<?php` or `<?xml ... ?>` line, a file's leading comments are read one by one:
a block comment, or a run of line comments with one marker on consecutive lines. One that holds `copyright`,
`licen[sc]e` or `spdx` (any ASCII case) is left out; any other stays, and the scan goes on; code, text or an
open-ended comment ends it. String literals (Python's docstrings) are not comments. `#` before a C directive or `[`
(Rust) is code. Time is linear in the bytes passed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.dedup.tokenizing import Bytes, Offsets, utf8_buffers
from stackbuild.kernels import kernel

HEADERS = 8  # licence comments of one file that are left out; the scan stops there
BLOCKS = ((b"/*", b"*/"), (b"<!--", b"-->"), (b"{-", b"-}"), (b"(*", b"*)"))
LINES = (b"//", b"--", b"#", b";", b"%")
DIRECTIVES = (b"if", b"elif", b"else", b"endif", b"include", b"import", b"define", b"undef", b"pragma", b"error",
              b"warning", b"line", b"region", b"nullable")  # fmt: skip

_SPACE, _TAB, _RETURN, _HASH = 32, 9, 13, 35


@kernel
def _starts(data: npt.NDArray[np.uint8], at: int, stop: int, word: bytes) -> bool:
    """Whether `word` (lower case) stands at `at`, in any ASCII case."""
    if at + len(word) > stop:
        return False
    for i in range(len(word)):
        c = data[at + i]
        if 65 <= c <= 90:
            c += 32
        if c != word[i]:
            return False
    return True


@kernel
def _find(data: npt.NDArray[np.uint8], at: int, stop: int, word: bytes) -> int:
    """Where `word` first ends at or after `at`; -1 if it does not occur."""
    while at + len(word) <= stop:
        if data[at] == word[0] and _starts(data, at, stop, word):
            return at + len(word)
        at += 1
    return -1


@kernel
def _speaks_of_licence(data: npt.NDArray[np.uint8], at: int, stop: int) -> bool:
    for i in range(at, stop):
        c = data[i] | 32
        if (c == 99 and _starts(data, i, stop, b"copyright")) or (c == 115 and _starts(data, i, stop, b"spdx")):
            return True
        if c == 108 and (_starts(data, i, stop, b"license") or _starts(data, i, stop, b"licence")):
            return True
    return False


@kernel
def _is_directive(data: npt.NDArray[np.uint8], at: int, stop: int) -> bool:
    """Whether what follows a `#` makes it code: a directive of the C preprocessor, or a Rust attribute."""
    if _starts(data, at, stop, b"[") or _starts(data, at, stop, b"!["):
        return True
    for word in DIRECTIVES:  # noqa: SIM110  numba has no any() over a generator
        if _starts(data, at, stop, word):
            return True
    return False


@kernel
def _line_marker(data: npt.NDArray[np.uint8], at: int, stop: int) -> int:
    """The first byte of the line comment that starts at `at`, 0 if none does."""
    for marker in LINES:
        if _starts(data, at, stop, marker):
            return 0 if marker[0] == _HASH and _is_directive(data, at + 1, stop) else marker[0]
    return 0


@kernel
def _comment_end(data: npt.NDArray[np.uint8], at: int, stop: int) -> int:
    """The end of the comment that starts at `at`; `at` if none does, or if it never closes."""
    for opening, closing in BLOCKS:
        if _starts(data, at, stop, opening):
            end = _find(data, at + len(opening), stop, closing)
            return at if end < 0 else end
    marker = _line_marker(data, at, stop)
    if marker == 0:
        return at
    end = at
    while True:
        end = _find(data, at, stop, b"\n")
        if end < 0:
            return stop
        at = end
        while at < stop and (data[at] == _SPACE or data[at] == _TAB):
            at += 1
        if _line_marker(data, at, stop) != marker:
            return end


@kernel
def kept_spans(
    data: npt.NDArray[np.uint8], start: int, stop: int, header_blind: bool, spans: npt.NDArray[np.int64]
) -> int:
    """Write the half-open byte ranges of a file outside its licence headers to `spans`; return how many.

    `data`: uint8, a whole buffer; the file is `data[start:stop]`. `spans`: int64 of shape (HEADERS + 1, 2),
    overwritten.
    """
    count = 0
    begin = start
    at = start
    if header_blind:
        if stop - at >= 3 and data[at] == 0xEF and data[at + 1] == 0xBB and data[at + 2] == 0xBF:
            at += 3
        if _starts(data, at, stop, b"<?php"):
            at += 5
        elif _starts(data, at, stop, b"<?xml"):
            end = _find(data, at, stop, b"?>")
            at = at if end < 0 else end
        while count < HEADERS:
            while at < stop and (data[at] == _SPACE or _TAB <= data[at] <= _RETURN):
                at += 1
            end = _comment_end(data, at, stop)
            if end == at:
                break
            if _speaks_of_licence(data, at, end):
                spans[count, 0], spans[count, 1] = begin, at
                count += 1
                begin = end
            at = end
    spans[count, 0], spans[count, 1] = begin, stop
    return count + 1


@kernel
def _with_headers(data: Bytes, bounds: Offsets) -> npt.NDArray[np.bool_]:
    spans = np.empty((HEADERS + 1, 2), np.int64)
    found = np.empty(len(bounds) - 1, np.bool_)
    for file in range(len(found)):
        found[file] = kept_spans(data, bounds[file], bounds[file + 1], True, spans) > 1
    return found


def licence_headers(texts: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which of n texts open with a licence comment, one that `kept_spans` leaves out: bool of shape (n,); a null does
    not.
    """
    data, bounds = utf8_buffers(texts)
    return np.asarray(_with_headers(data, bounds))
