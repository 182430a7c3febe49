"""What of licence headers and copyright lines stays: who wrote a work has to be named with it.

StarCoder's redaction had no such exception and took names out of notices (starcoder1 3.13), which the licences forbid. A
protected line is one with a copyright notice, with those behind it up to one without letters; and the comment that begins
a file, if it speaks of copyright or a licence.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from stackbuild.pii.patterns import compiled
from stackbuild.pii.spans import Span, Texts

Headers = Literal["keep_names", "keep_all", "redact"]
PERSONAL: Final = {"keep_names": frozenset({"NAME", "USERNAME"}), "keep_all": frozenset({"NAME", "USERNAME", "EMAIL"})}
HEADER_BYTES: Final = 16 * 1024  # of a file are looked at for its first comment
NOTICE_LINES: Final = 40  # behind a copyright line

_NOTICE = compiled(
    r"(?i:copyright)|\([cC]\)[ \t]{0,8}(?:[0-9]{4}|[A-Z])|\xc2\xa9|&copy;|\\\(co|SPDX-FileContributor"
)  # RE2: whole files are searched
_SPEAKS = compiled(r"(?i:copyright|licen[cs]e)|\xc2\xa9|SPDX-")
_COMMENT = re.compile(rb"\s*(?:#|//|--|;|%|\"|'|\*|dnl\b|rem\b|\.\.|!|$)", re.IGNORECASE)
_BLOCKS: Final = (
    (b"/*", b"*/"), (b"<!--", b"-->"), (b'"""', b'"""'), (b"'''", b"'''"), (b"(*", b"*)"), (b"{-", b"-}"), (b"=begin", b"=end"),
)  # fmt: skip
_LETTERS = re.compile(rb"[A-Za-z\x80-\xff]{2}")


def kept(spans: Iterable[Span], texts: Texts, headers: Headers) -> Iterator[Span]:
    """The spans of a batch without those that stay where they are."""
    personal = PERSONAL.get(headers, frozenset())
    file, regions = -1, list[tuple[int, int]]()
    for span in sorted(spans):
        if span.entity in personal:
            if file < 0 or span.start >= texts.offsets[file + 1]:
                file = texts.file_of(span.start)
                regions = protected(texts, file)
            at = bisect_right(regions, (span.start, span.start + (1 << 62)))
            if any(low <= span.start < high for low, high in (regions[:1] + regions[max(0, at - 1) : at])):
                continue
        yield span


def protected(texts: Texts, file: int) -> list[tuple[int, int]]:
    """Bytes of a batch's buffer that are header (the first of them) or notice in one of its files: [start, end), ascending."""
    low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
    text = texts.read(low, high)
    end = first_comment(text[:HEADER_BYTES])
    found = [(low, low + (end if end and _SPEAKS.search(text[:end]) else 0))]
    at = 0
    while notice := _NOTICE.search(text, at):
        start = text.rfind(b"\n", 0, notice.start()) + 1
        at = notice_end(text, notice.end())
        found.append((low + start, low + at))
    return found


def notice_end(text: bytes, at: int) -> int:
    """The end of the notice whose first line holds byte `at`: before the next line without letters."""
    for _ in range(NOTICE_LINES):
        stop = text.find(b"\n", at)
        if stop < 0:
            return len(text)
        following = text.find(b"\n", stop + 1)
        if not _LETTERS.search(text, stop + 1, following if following >= 0 else len(text)):
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
