"""The hourly files of GH Archive, listed once and read as lines.

A file `2015-01-01-15.json.gz` has the events of one hour (https://www.gharchive.org), one JSON object on each line. Files are read from a
folder, whatever lies between, or from any fsspec URL. A few of the published ones are cut short: what can be read of a file
counts, and the damage is told; a line too long to be an event is left out.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError, TemporaryError
from stackbuild.sources.remote import errors_of, file_system, open_file

NAME: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)-(\d{1,2})\.json(\.gz)?")
READ: Final = 1 << 20  # compressed bytes at a time
BATCH: Final = 16 << 20  # bytes of lines at a time
LONGEST: Final = 32 << 20  # of a line; events have some kilobytes


@dataclass(frozen=True)
class HourFile:
    """A file as it was listed: what a frozen plan holds of it. `name`: that of the hour, as in "2015-01-01-15"."""

    name: str
    url: str
    size: int
    etag: str | None = None
    signed: bool = False

    @property
    def day(self) -> str:
        """Its date, as in "2015-01-01"."""
        return self.name.rpartition("-")[0]


def list_hours(root: str, signed: bool = False) -> tuple[HourFile, ...]:
    """The hourly files below a folder or URL, in order of time.

    InputError if there are none, or two of one hour; TemporaryError if a server does not answer.
    """
    found: dict[str, HourFile] = {}
    with errors_of(root, remote="://" in root):
        system, path = file_system(root, signed)
        if not system.exists(path):
            raise InputError(f"{root} is not there.")
        entries = system.find(path, detail=True).values()
        for entry in sorted(entries, key=lambda entry: str(entry["name"])):
            hour = _hour(str(entry["name"]).rpartition("/")[2])
            if hour is None or entry["type"] != "file":
                continue
            etag = entry.get("ETag") or entry.get("etag")
            url = str(system.unstrip_protocol(entry["name"]))
            if hour in found:
                raise InputError(f"{root} has the hour {hour} twice: {found[hour].url} and {url}. Remove one.")
            found[hour] = HourFile(
                hour, url, int(entry["size"]), etag.strip('"') if isinstance(etag, str) else None, signed
            )
    if not found:
        raise InputError(f"{root} has no file of GH Archive: they are called as in 2015-01-01-15.json.gz.")
    return tuple(sorted(found.values(), key=lambda file: (file.day, int(file.name.rpartition("-")[2]))))


def _hour(name: str) -> str | None:
    parts = NAME.fullmatch(name)
    if parts is None or int(parts[4]) > 23:
        return None
    try:
        day = date(int(parts[1]), int(parts[2]), int(parts[3]))
    except ValueError:
        return None
    return f"{day}-{int(parts[4])}"


def by_day(files: Sequence[HourFile]) -> list[list[HourFile]]:
    """The files of each date: what one task reads."""
    days: dict[str, list[HourFile]] = {}
    for file in files:
        days.setdefault(file.day, []).append(file)
    return list(days.values())


def lines(file: HourFile, left_out: Counter[str]) -> Iterator[pa.StringArray]:
    """The lines of a file that are not empty, each with its line feed, in batches of some megabytes.

    Counts in `left_out` what was not read: `damaged_files`, `long_lines`, and `not_utf8`, lines whose bad bytes were replaced.
    """
    failed: list[TemporaryError] = []
    held: list[bytes] = []
    size = 0
    skipping = False  # within a line that is too long
    with errors_of(file.url, "://" in file.url, failed), open_file(file.url, file.size, file.signed, failed) as raw:
        pieces = _inflated(raw, left_out) if file.url.endswith(".gz") else iter(lambda: raw.read(READ), b"")
        for piece in pieces:
            begin = piece.find(b"\n") + 1 if skipping else 0
            if skipping and not begin:
                continue
            skipping = False
            held.append(piece[begin:])
            size += len(held[-1])
            if size < BATCH:
                continue
            data = b"".join(held)
            end = data.rfind(b"\n") + 1
            yield from _split(data, end, left_out)
            held, size = [data[end:]], len(data) - end
            if size > LONGEST:
                left_out["long_lines"] += 1
                held, size, skipping = [], 0, True
        data = b"".join(held)
        yield from _split(data, len(data), left_out)


def _inflated(raw: BinaryIO, left_out: Counter[str]) -> Iterator[bytes]:
    """What a gzip file of one or more members holds, as far as it can be read."""
    inflate = zlib.decompressobj(wbits=31)
    data, begun = b"", False
    while data or (data := raw.read(READ)):
        begun = True
        try:
            piece = inflate.decompress(data, BATCH)
        except zlib.error:
            left_out["damaged_files"] += 1
            return
        if piece:
            yield piece
        data = inflate.unconsumed_tail
        if inflate.eof:
            data = inflate.unused_data.lstrip(b"\0")  # padding behind the last member
            inflate, begun = zlib.decompressobj(wbits=31), False
    if begun:
        left_out["damaged_files"] += 1
        yield inflate.flush()


def _split(data: bytes, end: int, left_out: Counter[str]) -> Iterator[pa.StringArray]:
    """The lines of the first `end` bytes of some text, without a copy of it."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8, end) == 10) + 1
    if end and (not len(ends) or ends[-1] != end):
        ends = np.append(ends, end)
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    found = pa.BinaryArray.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    try:
        text = found.cast(pa.string())
    except pa.ArrowInvalid:
        text = _replaced(found, left_out)
    if (np.diff(ends, prepend=0) <= 1).any():
        text = text.filter(pc.greater(pc.binary_length(text), 1))
    if len(text):
        yield text


def _replaced(found: pa.BinaryArray, left_out: Counter[str]) -> pa.StringArray:
    """Lines of which some are not UTF-8: one by one, as there are hardly any."""
    texts = []
    for line in found.to_pylist():
        text = line.decode("utf-8", "replace")
        left_out["not_utf8"] += text.encode() != line
        texts.append(text)
    return pa.array(texts, pa.string())
