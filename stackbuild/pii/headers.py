"""What of licence headers and copyright lines stays: who wrote a work has to be named with it.

StarCoder's redaction had no such exception and took names out of notices (starcoder1 3.13), which the licences forbid. A
protected line is one with a copyright notice, with those behind it up to one without letters; and the comment that begins
a file, if it speaks of copyright or a licence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, Literal

from stackbuild.pii.spans import Span, Texts

Headers = Literal["keep_names", "keep_all", "redact"]
PERSONAL: Final = {"keep_names": frozenset({"NAME", "USERNAME"}), "keep_all": frozenset({"NAME", "USERNAME", "EMAIL"})}
HEADER_BYTES: Final = 16 * 1024  # of a file are looked at for its first comment
NOTICE_LINES: Final = 40  # behind a copyright line

_NOTICE = re.compile(rb"(?i:copyright)|\([cC]\)[ \t]{0,8}(?:\d{4}|[A-Z])|\xc2\xa9|&copy;|\\\(co|SPDX-FileContributor")
_SPEAKS = re.compile(rb"copyright|licen[cs]e|\xc2\xa9|SPDX-", re.IGNORECASE)
_COMMENT = re.compile(rb"\s*(?:#|//|--|;|%|\"|'|\*|dnl\b|rem\b|\.\.|!|$)", re.IGNORECASE)
_BLOCKS: Final = (
    (b"/*", b"*/"), (b"<!--", b"-->"), (b'"""', b'"""'), (b"'''", b"'''"), (b"(*", b"*)"), (b"{-", b"-}"), (b"=begin", b"=end"),
)  # fmt: skip
_LETTERS = re.compile(rb"[A-Za-z\x80-\xff]{2}")


def kept(spans: Iterable[Span], texts: Texts, headers: Headers) -> Iterator[Span]:
    """The spans of a batch without those that stay where they are."""
    personal = PERSONAL.get(headers)
    if personal is None:
        yield from spans
        return
    for file, found in groupby(sorted(spans), key=lambda span: texts.file_of(span.start)):
        regions: Sequence[tuple[int, int]] | None = None
        for span in found:
            if span.entity in personal:
                if regions is None:
                    regions = protected(texts, file)
                if any(low <= span.start < high for low, high in regions):
                    continue
            yield span


def protected(texts: Texts, file: int) -> list[tuple[int, int]]:
    """Bytes of a batch's buffer that are header or notice in one of its files: [start, end), ascending by start."""
    low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
    whole = texts.read(low, high)
    found = []
    end = first_comment(whole[:HEADER_BYTES])
    if end and _SPEAKS.search(whole, 0, end):
        found.append((low, low + end))
    at = 0
    while notice := _NOTICE.search(whole, at):
        start = whole.rfind(b"\n", 0, notice.start()) + 1
        at = notice_end(whole, notice.end())
        found.append((low + start, low + at))
    return found


def notice_end(whole: bytes, at: int) -> int:
    """The end of the notice whose first line holds byte `at`: before the next line without letters."""
    for _ in range(NOTICE_LINES):
        stop = whole.find(b"\n", at)
        if stop < 0:
            return len(whole)
        following = whole.find(b"\n", stop + 1)
        line = whole[stop + 1 : following if following >= 0 else len(whole)]
        if not _LETTERS.search(line):
            return stop
        at = stop + 1
    return at


def first_comment(head: bytes) -> int:
    """Where the comment ends that begins a file, 0 if it begins otherwise. What opens a block is looked for its end; other
    lines are comments by their first characters in any of the common languages."""
    at = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    end = 0
    while at < len(head):
        stop = head.find(b"\n", at)
        stop = len(head) if stop < 0 else stop + 1
        line = head[at:stop].strip()
        block = next((pair for pair in _BLOCKS if line.startswith(pair[0])), None)
        if block is not None:
            close = head.find(block[1], head.find(block[0], at) + len(block[0]))
            if close < 0:
                return len(head)
            stop = head.find(b"\n", close)
            stop = len(head) if stop < 0 else stop + 1
        elif line and not _COMMENT.match(line) and not line.startswith((b"<?", b"<!", b"<%", b"package ", b"@echo")):
            break
        at = end = stop
    return end
