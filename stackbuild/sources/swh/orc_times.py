"""Times of an ORC file as whole seconds, whatever year they are of.

Arrow gives ORC timestamps in nanoseconds, and refuses a whole column for one value outside 1677 to 2262; commits have such
dates. ORC stores a timestamp as two streams: seconds, coded exactly as a column of 64-bit integers is, and fractions (ORC
specification v1, "Timestamp Columns"). So the file is opened with a footer that calls its timestamps integers: the
seconds are read, the fractions are not touched. Nothing is copied: `Spliced` shows the file with another end.

Seconds count from 2015-01-01 in the writer's time zone; exports are written in UTC, which `utc_only` checks. ORC rounds them
towards 1970, so a time before it that has a fraction comes out a second late.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError
from stackbuild.sources.varint import varint

BASE: Final = 1_420_070_400  # 2015-01-01T00:00:00Z
LONG, TIMESTAMP, TIMESTAMP_INSTANT = 4, 9, 18  # kinds of types
CODECS: Final = {0: None, 1: "zlib", 5: "zstd"}  # what a footer is compressed by; the others are not written by anyone
UTC: Final = (b"", b"UTC", b"GMT", b"Etc/UTC")
FOOTER_BYTES: Final = 64 << 20
Fields = list[tuple[int, int, int | bytes]]  # number, wire type, value


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def parse(data: bytes) -> Fields:
    """The fields of a protobuf message, in order; ValueError or IndexError if the bytes are none."""
    fields: Fields = []
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = varint(data, at)
            fields.append((number, wire, value))
            continue
        size, at = varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
        if at + size > len(data):
            raise ValueError("a field beyond the end")
        fields.append((number, wire, data[at : at + size]))
        at += size
    return fields


def serialize(fields: Fields) -> bytes:
    out = bytearray()
    for number, wire, value in fields:
        out += _number(number << 3 | wire)
        if isinstance(value, int):
            out += _number(value)
        else:
            out += (_number(len(value)) if wire == 2 else b"") + value
    return bytes(out)


class Tail:
    """Postscript and footer of an ORC file. `head`: bytes before the footer."""

    def __init__(self, file: BinaryIO):
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - 256, 0))
        end = file.read()
        length = end[-1]
        self.postscript = parse(end[-1 - length : -1])
        stated = {number: value for number, _, value in self.postscript}
        footer_bytes, kind = stated.get(1, 0), stated.get(2, 0)
        if stated.get(8000) != b"ORC":
            raise ValueError("not the end of an ORC file")
        if not isinstance(footer_bytes, int) or kind not in CODECS or footer_bytes > min(size, FOOTER_BYTES):
            raise ValueError("a footer of no known kind")
        self.head = size - 1 - length - footer_bytes
        file.seek(self.head)
        self.codec = CODECS[kind]
        self.footer = parse(b"".join(_chunks(file.read(footer_bytes), self.codec)))

    def end(self) -> bytes:
        """Footer and postscript as a file ends with them; the footer stands in it uncompressed."""
        footer = serialize(self.footer)
        if self.codec is not None:
            footer = (len(footer) << 1 | 1).to_bytes(3, "little") + footer
        postscript = serialize([(n, w, len(footer) if n == 1 else value) for n, w, value in self.postscript])
        return footer + postscript + bytes([len(postscript)])


def _chunks(data: bytes, codec: str | None) -> Iterator[bytes]:
    """What compressed chunks hold: three bytes of length, of which one bit says that a chunk is not compressed."""
    if codec is None:
        yield data
        return
    at = 0
    while at < len(data):
        header = int.from_bytes(data[at : at + 3], "little")
        chunk = data[at + 3 : at + 3 + (header >> 1)]
        at += 3 + (header >> 1)
        if header & 1:
            yield chunk
        elif codec == "zlib":
            yield zlib.decompress(chunk, wbits=-15)
        else:
            yield pa.CompressedInputStream(pa.BufferReader(chunk), codec).read()


class Spliced(io.RawIOBase):
    """The first `head` bytes of a file and another end behind them."""

    def __init__(self, file: BinaryIO, head: int, end: bytes):
        self._file, self._head, self._end, self._at = file, head, end, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._head + len(self._end)}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = b""
        if self._at < self._head:
            self._file.seek(self._at)
            data = self._file.read(min(len(buffer), self._head - self._at))
        else:
            start = self._at - self._head
            data = self._end[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def utc_only(file: BinaryIO) -> None:
    """InputError unless the file's first stripe says that it was written in UTC, or says nothing."""
    try:
        tail = Tail(file)
        stripe = next((value for number, _, value in tail.footer if number == 3), None)
        if not isinstance(stripe, bytes):
            return
        place = {number: value for number, _, value in parse(stripe) if isinstance(value, int)}
        file.seek(place.get(1, 0) + place.get(2, 0) + place.get(3, 0))
        size = place.get(4, 0)
        if size > FOOTER_BYTES:
            raise ValueError(f"a stripe's footer of {size} bytes")
        footer = parse(b"".join(_chunks(file.read(size), tail.codec)))
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise InputError(f"its footer cannot be read: {error}") from error
    zone = next((value for number, _, value in footer if number == 3), b"")
    if zone not in UTC:
        raise InputError(f"its times are in the time zone {zone!r}; only UTC is read.")


def since_1970(seconds: pa.Array) -> pa.Array:
    """Seconds since 1970 from a column that `with_seconds` gave; null beyond an int64."""
    fits = pc.less_equal(seconds, pa.scalar(2**63 - 1 - BASE))
    return pc.if_else(fits, pc.add(seconds, pa.scalar(BASE)), pa.scalar(None, pa.int64()))


def with_seconds(file: BinaryIO) -> io.BufferedReader:
    """The same ORC file, its timestamps 64-bit integers: seconds since 2015. InputError if its end cannot be read."""
    try:
        tail = Tail(file)
        for place, (number, wire, value) in enumerate(tail.footer):
            if number == 4 and isinstance(value, bytes):
                fields = [
                    (n, w, LONG if n == 1 and v in (TIMESTAMP, TIMESTAMP_INSTANT) else v) for n, w, v in parse(value)
                ]
                tail.footer[place] = (number, wire, serialize(fields))
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise InputError(f"its footer cannot be read: {error}") from error
    return io.BufferedReader(Spliced(file, tail.head, tail.end()))
