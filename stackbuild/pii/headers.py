"""What of licence headers and copyright lines stays: who wrote a work has to be named with it.

StarCoder's redaction had no such exception and took names out of notices (starcoder1 3.13), which the licences forbid. A
protected line is one with a copyright notice, with those behind it up to one without letters; and the comment that begins
a file, if it speaks of copyright or a licence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from stackbuild.pii.patterns import compiled
from stackbuild.pii.spans import Span, Texts

Headers = Literal["keep_names", "keep_all", "redact"]
PERSONAL: Final = {"keep_names": frozenset({"NAME", "USERNAME"}), "keep_all": frozenset({"NAME", "USERNAME", "EMAIL"})}
HEADER_BYTES: Final = 16 * 1024  # of a file are looked at for its first comment
NOTICE_BYTES: Final = 2 * 1024  # before a name, in which a copyright line protects it
LINE_BYTES: Final = 256  # of its own line behind it

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
    file = header = -1
    for span in sorted(spans):
        if span.entity in personal:
            if span.start >= texts.offsets[file + 1] or file < 0:
                file = texts.file_of(span.start)
                header = header_end(texts, file)
            if span.start < header or in_notice(texts, file, span.start):
                continue
        yield span


def header_end(texts: Texts, file: int) -> int:
    """Where the comment ends (a byte of the batch's buffer) that begins a file and speaks of copyright or a licence; the
    file's beginning if there is none."""
    low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
    head = texts.read(low, min(high, low + HEADER_BYTES))
    end = first_comment(head)
    return low + end if end and _SPEAKS.search(head[:end]) else low


def in_notice(texts: Texts, file: int, position: int) -> bool:
    """Whether a byte is on a line with a copyright notice, or on one behind it with no line without letters between them."""
    low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
    start = max(low, position - NOTICE_BYTES)
    before = texts.read(start, position)
    line = texts.read(position, min(high, position + LINE_BYTES)).partition(b"\n")[0]
    lines = (before + line).split(b"\n")
    for text in reversed(lines if start == low else lines[1:]):
        if _NOTICE.search(text):
            return True
        if not _LETTERS.search(text):
            return False
    return False


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
