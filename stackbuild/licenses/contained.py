"""Source files whose text is not the bytes that they are made of: UTF-16, and Jupyter notebooks.

A notebook is JSON whose cells have their lines as strings: `"source": ["# Copyright\\n", ...]`, in nbformat 3 `"input"` too.
Read are the cells of the 64 KB from `"cells"` (nbformat 3: `"worksheets"`) on; outputs and metadata say nothing. A file
that does not begin with one of a notebook's keys costs the reading of its first bytes. Time is linear.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.licenses.line_kinds import Bytes, Offsets, begins

CELL_BYTES = 65_536

_KEYS = (b'"cells"', b'"metadata"', b'"nbformat', b'"worksheets"')
_CELLS = re.compile(rb'"(?:cells|worksheets)"\s*:\s*\[')
_SOURCE = re.compile(rb'"(?:source|input)"\s*:\s*(\[?)')
_STRING = re.compile(rb'[\s,]*"([^"\\]*(?:\\.[^"\\]*)*)(?:"|\\?\Z)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_BREAK = re.compile(r"[\r\n]")


@dataclass(frozen=True)
class Cells:
    """The first cells of a notebook as a text, and for each line of it the first and last byte in the file, half open."""

    text: bytes
    spans: list[tuple[int, int]]


@kernel
def notebooks(data: Bytes, offsets: Offsets) -> Offsets:
    """Which files begin as a notebook does: int64, their places."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for file in range(len(offsets) - 1):
        at, stop = offsets[file], offsets[file + 1]
        if begins(data, at, stop, b"\xef\xbb\xbf"):
            at += 3
        opened = False
        while at < stop and (data[at] <= 32 or (data[at] == 123 and not opened)):  # {
            opened |= data[at] == 123
            at += 1
        if opened:
            for key in _KEYS:
                found[file] |= begins(data, at, stop, key)
    return np.flatnonzero(found)


def cells_of(content: bytes) -> Cells | None:
    """The first cells of a notebook; None if the file is none."""
    opening = _CELLS.search(content)
    if opening is None or content.find(b'"cell_type"', opening.end()) < 0:
        return None
    end = min(len(content), opening.end() + CELL_BYTES)
    lines: list[bytes] = []
    spans: list[tuple[int, int]] = []
    at = opening.end()
    while found := _SOURCE.search(content, at, end):
        at = found.end()
        while string := _STRING.match(content, at, end):
            at = string.end()
            for first, stop in _lines(content, *string.span(1)):
                lines.append(_plain(content[first:stop]))
                spans.append((first, stop))
            if not found[1]:
                break
        lines.append(b"")
        spans.append((at, at))
    return Cells(b"\n".join(lines), spans)


def _lines(content: bytes, first: int, stop: int) -> list[tuple[int, int]]:
    """Where the lines of a JSON string are."""
    lines = []
    for escape in _ESCAPE.finditer(content, first, stop):
        if escape[1] == b"n":
            lines.append((first, escape.start()))
            first = escape.end()
    if first < stop or not lines:
        lines.append((first, stop))
    return lines


def _plain(raw: bytes) -> bytes:
    """A line of a JSON string without its escapes, in UTF-8."""
    if b"\\" not in raw:
        return raw.replace(b"\r", b" ").replace(b"\n", b" ")
    try:
        text: str = json.loads(b'"' + raw + b'"', strict=False)
    except ValueError:
        text = raw.decode("utf-8", "replace")
    return _BREAK.sub(" ", text).encode("utf-8", "replace")


def line_at(content: bytes, at: int) -> int:
    """The number of the line that holds a byte, the first is 1."""
    ends = content.count(b"\n", 0, at) + content.count(b"\r", 0, at) - content.count(b"\r\n", 0, at)
    return 1 + ends


def wide_files(data: Bytes, offsets: Offsets) -> Offsets:
    """Which files are UTF-16 or UTF-32 by their mark, or UTF-16 by the zeros of their first letters: int64, their places."""
    heads = np.zeros((len(offsets) - 1, 8), np.uint8)
    sizes = np.diff(offsets)
    for byte in range(8):
        there = np.flatnonzero(sizes > byte)
        heads[there, byte] = data[offsets[:-1][there] + byte]
    marked = ((heads[:, 0] == 0xFF) & (heads[:, 1] == 0xFE)) | ((heads[:, 0] == 0xFE) & (heads[:, 1] == 0xFF))
    zero = heads == 0
    letters = ((heads >= 32) & (heads < 127)) | (heads == 10) | (heads == 13) | (heads == 9)
    little = zero[:, 1::2].all(axis=1) & letters[:, 0::2].all(axis=1)
    big = zero[:, 0::2].all(axis=1) & letters[:, 1::2].all(axis=1)
    return np.flatnonzero((sizes >= 8) & (marked | little | big))


def wide_encoding(content: bytes) -> tuple[str, int]:
    """The encoding of a wide file and the length of its mark."""
    if content[:4] == b"\xff\xfe\0\0":
        return "utf-32-le", 4
    if content[:2] == b"\xff\xfe":
        return "utf-16-le", 2
    if content[:2] == b"\xfe\xff":
        return "utf-16-be", 2
    return ("utf-16-be", 0) if content[:1] == b"\0" else ("utf-16-le", 0)
