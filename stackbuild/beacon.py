"""What a task says of itself while it runs: where it is, and how many rows and bytes it has read.

The task server gives each child a page of shared memory; the child writes to it, the server looks. No file, no lock: a
torn reading is a wrong word on a screen and nothing else. In a process without a page, all of this does nothing.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

PAGE_BYTES = 4_096
HEAD = struct.Struct("<QQQ")  # rows, bytes, length of the words

_page: mmap.mmap | None = None
_rows = _bytes = 0


@dataclass(frozen=True)
class Reading:
    """What a page holds: rows and bytes read so far, and where the task is."""

    rows: int = 0
    bytes: int = 0
    where: str = ""


def page() -> mmap.mmap:
    """A page to be shared with a child that is forked after this."""
    return mmap.mmap(-1, PAGE_BYTES)


def attach(shared: mmap.mmap) -> None:
    """Write to this page from now on (in the child)."""
    global _page, _rows, _bytes
    _page, _rows, _bytes = shared, 0, 0


def at(where: str) -> None:
    """Say where the task is, in words for people: a stage and rows, a file."""
    if _page is not None:
        words = where.encode("utf-8", "replace")[: PAGE_BYTES - HEAD.size]
        _page[HEAD.size : HEAD.size + len(words)] = words
        HEAD.pack_into(_page, 0, _rows, _bytes, len(words))


def add(rows: int, size: int) -> None:
    """Count rows and bytes that were read."""
    global _rows, _bytes
    _rows, _bytes = _rows + rows, _bytes + size
    if _page is not None:
        struct.pack_into("<QQ", _page, 0, _rows, _bytes)


def read(shared: mmap.mmap) -> Reading:
    """What the child has said so far."""
    rows, size, length = HEAD.unpack_from(shared, 0)
    words = shared[HEAD.size : HEAD.size + min(length, PAGE_BYTES - HEAD.size)]
    return Reading(rows, size, words.decode("utf-8", "replace"))
