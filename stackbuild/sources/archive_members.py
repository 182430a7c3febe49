"""Members of tar and zip archives as streams: nothing is written to disk, and every size has a bound.

An archive comes from a stranger. Compressed streams are inflated in pieces of bounded size, headers have a largest
length, and the whole stops (`Refused`) when it passes a cap: members, bytes, or the ratio of inflated to compressed
bytes (194 kB of gzip become 200 MB). A cut or damaged archive is `Torn`: nothing of it may be used.

Compression is told from the first bytes, never from the name. gzip, bzip2, xz and lzma are the standard library's
decoders, zstd is pyarrow's. xz and zstd may ask for at most 128 MiB of window.
"""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Final, Literal

import pyarrow as pa

from stackbuild.errors import InputError
from stackbuild.sources.unit import Limits

COMPRESSED_CHUNK: Final = 64 * 1024
INFLATED_CHUNK: Final = 256 * 1024
WINDOW_BYTES: Final = 128 * 1024 * 1024  # zstd's own default; `xz -9` wants 65 MiB
HEADER_BYTES: Final = 1024 * 1024  # of one tar header with its long name and pax records
FREE_BYTES: Final = 64 * 1024 * 1024  # inflated bytes before the ratio counts (unit.Limits)
SYMLINK_BYTES: Final = 65_536
ZIP_ENTRY: Final = 46  # the fixed part of an entry in a zip's central directory

Kind = Literal[
    "file", "folder", "symlink", "hard_link", "special_file", "sparse_file", "encrypted", "unknown_compression"
]


class Torn(InputError):
    """The archive is cut, damaged or none at all. The message says where; the caller names the archive."""


class Refused(Exception):
    """The archive passed a cap: `rule`, what was measured and the cap."""

    def __init__(self, rule: str, value: float, threshold: float, detail: str):
        super().__init__(detail)
        self.rule, self.value, self.threshold, self.detail = rule, value, threshold, detail


@dataclass(slots=True)
class Member:
    """One header of an archive. `name`: raw bytes as stored. `target`: of a link. `read` yields its bytes, once."""

    name: bytes
    kind: Kind
    executable: bool
    size: int
    target: bytes
    read: Callable[[], Iterator[bytes]]


class Budget:
    """Counts what an archive has become so far against the caps of its unit. `packed`: its size in bytes."""

    def __init__(self, packed: int, limits: Limits):
        self.packed, self.limits = packed, limits
        self.members = self.bytes = 0

    def member(self) -> None:
        """Count a header."""
        self.members += 1
        if self.members > self.limits.unit_files:
            raise Refused("too_many_files", self.members, self.limits.unit_files, "more members than a unit may have")

    def inflated(self, count: int) -> None:
        """Count inflated bytes."""
        self.bytes += count
        if self.bytes > self.limits.unit_bytes:
            raise Refused("unit_too_large", self.bytes, self.limits.unit_bytes, "more bytes than a unit may have")
        if self.bytes > FREE_BYTES and self.bytes > self.limits.ratio * self.packed:
            ratio = self.bytes / max(self.packed, 1)
            raise Refused("archive_bomb", ratio, self.limits.ratio, "inflates too far for its size")


# ---------------------------------------------------------------- compressed streams


def plain(file: BinaryIO) -> Iterator[bytes]:
    """The bytes as they are."""
    while chunk := file.read(INFLATED_CHUNK):
        yield chunk


def gunzip(file: BinaryIO) -> Iterator[bytes]:
    """Inflate gzip members one after the other; what follows the last and is no member is left alone, as gzip does."""
    data = file.read(COMPRESSED_CHUNK)
    while True:
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            data = data or file.read(COMPRESSED_CHUNK)
            out = decoder.decompress(data, INFLATED_CHUNK)
            if not out and not data:
                raise EOFError("the compressed stream is cut")
            data = decoder.unconsumed_tail
            if out:
                yield out
        data = _next_stream(file, decoder.unused_data)
        if not data.startswith(b"\x1f\x8b"):
            return


def _decoded(new: Callable[[], Any], magic: bytes) -> Callable[[BinaryIO], Iterator[bytes]]:
    """Streams of bz2's and lzma's decoders, which share an interface; one after the other, as above."""

    def inflate(file: BinaryIO) -> Iterator[bytes]:
        data = file.read(COMPRESSED_CHUNK)
        while True:
            decoder = new()
            while not decoder.eof:
                if decoder.needs_input:
                    data = data or file.read(COMPRESSED_CHUNK)
                    if not data:
                        raise EOFError("the compressed stream is cut")
                else:
                    data = b""
                out = decoder.decompress(data, INFLATED_CHUNK)
                data = b""
                if out:
                    yield out
            data = _next_stream(file, decoder.unused_data)
            if not data.startswith(magic):
                return

    return inflate


def _next_stream(file: BinaryIO, rest: bytes) -> bytes:
    """What follows a stream, without the zero bytes that pad it."""
    rest = rest.lstrip(b"\0")
    while not rest and (chunk := file.read(COMPRESSED_CHUNK)):
        rest = chunk.lstrip(b"\0")
    return rest + file.read(COMPRESSED_CHUNK) if rest else b""


def unzstd(file: BinaryIO) -> Iterator[bytes]:
    """Inflate zstd frames; pyarrow raises OSError for a cut or damaged one and for a window beyond 128 MiB."""
    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream:
        while chunk := stream.read(INFLATED_CHUNK):
            yield chunk


COMPRESSIONS: Final[dict[bytes, Callable[[BinaryIO], Iterator[bytes]]]] = {
    b"\x1f\x8b": gunzip,
    b"BZh": _decoded(bz2.BZ2Decompressor, b"BZh"),
    b"\xfd7zXZ\0": _decoded(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_BYTES), b"\xfd7zXZ\0"),
    b"\x5d\0\0": _decoded(lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=WINDOW_BYTES), b"\x5d\0\0"),
    b"\x28\xb5\x2f\xfd": unzstd,
}


class Stream:
    """A forward-only file of inflated bytes: what `tarfile` reads from, with every byte counted."""

    def __init__(self, file: BinaryIO, budget: Budget):
        head = file.read(8)
        file.seek(0)
        self._inflate = next((f for magic, f in COMPRESSIONS.items() if head.startswith(magic)), plain)
        self.compressed = self._inflate is not plain
        self._chunks = self._inflate(file)
        self._file, self._budget = file, budget
        self._chunk, self._at, self._passed = b"", 0, 0  # bytes before the chunk
        self.last = b""  # what the latest `read` returned

    def tell(self) -> int:
        return self._passed + self._at

    def seek(self, position: int, whence: int = 0) -> int:
        """Skip forward."""
        for _ in self.pieces(position - self.tell()):
            pass
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer only at the end. For headers: more than HEADER_BYTES is refused."""
        if size < 0:
            raise Torn(f"a header before byte {self.tell()} of its contents has a negative length")
        if size > HEADER_BYTES:
            raise Refused("archive_bomb", size, HEADER_BYTES, "a header that is longer than any real one")
        end = self._at + size
        if end <= len(self._chunk):
            self.last = self._chunk[self._at : end]
            self._at = end
        else:
            self.last = b"".join(self.pieces(size))
        return self.last

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes in pieces; fewer only at the end."""
        while size > 0:
            if self._at == len(self._chunk):
                self._passed += len(self._chunk)
                self._at = 0
                self._chunk = self._inflated()
                if not self._chunk:
                    return
            piece = self._chunk[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def exactly(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes in pieces; Torn if there are fewer."""
        start = self.tell()
        yield from self.pieces(size)
        if self.tell() - start != size:
            raise Torn(f"it is cut at byte {self.tell()} of its contents, {size} were announced at byte {start}")

    def drain(self) -> None:
        """Read to the end, so that the checksums of the compressed stream are verified."""
        self._at = len(self._chunk)
        while chunk := self._inflated():
            self._passed += len(chunk)

    def _inflated(self) -> bytes:
        try:
            chunk = next(self._chunks, b"")
        except lzma.LZMAError as error:
            if "emory" in str(error):
                raise Refused("archive_bomb", WINDOW_BYTES, WINDOW_BYTES, "asks for too large a window") from error
            raise Torn(f"it is damaged before byte {self._file.tell()} ({error})") from error
        except OSError as error:
            if "too much memory" in str(error):
                raise Refused("archive_bomb", WINDOW_BYTES, WINDOW_BYTES, "asks for too large a window") from error
            raise Torn(f"it is damaged before byte {self._file.tell()} ({error})") from error
        except (zlib.error, EOFError) as error:
            raise Torn(f"it is cut or damaged before byte {self._file.tell()} ({error})") from error
        self._budget.inflated(len(chunk))
        return chunk


# ---------------------------------------------------------------- archives


def members(file: BinaryIO, limits: Limits) -> Iterator[Member]:
    """The members of an archive in its order. Raises Torn and Refused, also from `Member.read`."""
    packed = file.seek(0, 2)
    file.seek(0)
    budget = Budget(packed, limits)
    head = file.read(4)
    file.seek(0)
    found = zip_members if head in (b"PK\x03\x04", b"PK\x05\x06") else tar_members
    yield from found(file, budget)


def tar_members(file: BinaryIO, budget: Budget) -> Iterator[Member]:
    """A tar, compressed or not, in one pass. It has to end as tars do: at a block of zeros, or with its stream."""
    stream = Stream(file, budget)
    try:
        tar = tarfile.TarFile(
            mode="r",
            fileobj=stream,  # type: ignore[arg-type]
            encoding="utf-8",
            errors="surrogateescape",
        )
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            budget.member()
            size = info.size if info.isreg() else 0
            yield Member(
                name=info.name.encode("utf-8", "surrogateescape"),
                kind=_tar_kind(info),
                executable=bool(info.mode & 0o100),
                size=size,
                target=info.linkname.encode("utf-8", "surrogateescape"),
                read=partial(stream.exactly, size),
            )
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise Torn(f"no tar header at byte {stream.tell()} of its contents ({error})") from error
    # tarfile takes a bad header after the first for the end of the archive: only zeros or the end of the stream are.
    if stream.last.strip(b"\0") or 0 < len(stream.last) < tarfile.BLOCKSIZE:
        raise Torn(f"a header at byte {stream.tell() - len(stream.last)} of its contents is damaged or cut")
    if not stream.last and not stream.compressed:
        raise Torn(f"it is cut at byte {stream.tell()}: the block of zeros that ends a tar is missing")
    stream.drain()


def _tar_kind(info: tarfile.TarInfo) -> Kind:
    if info.isdir():
        return "folder"
    if info.issym():
        return "symlink"
    if info.islnk():
        return "hard_link"
    if info.issparse():
        return "sparse_file"
    return "file" if info.isreg() else "special_file"


def zip_members(file: BinaryIO, budget: Budget) -> Iterator[Member]:
    """A zip by its central directory. Its members are stored or deflated; other methods cannot be read in bounds."""
    with _torn_zip():
        _count_zip_entries(file, budget)
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                budget.member()
                mode = info.external_attr >> 16
                name = zip_name(info)
                yield Member(
                    name=name,
                    kind=_zip_kind(info, name, mode),
                    executable=bool(mode & 0o100),
                    size=info.file_size,
                    target=b"",
                    read=partial(_zip_bytes, archive, info, budget),
                )


@contextmanager
def _torn_zip() -> Iterator[None]:
    """What zipfile raises for a zip that is cut, damaged or lies about itself."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, LookupError, struct.error) as error:
        raise Torn(f"the zip is cut or damaged ({error})") from error
    except (NotImplementedError, RuntimeError, OverflowError) as error:
        raise Torn(f"the zip cannot be read ({error})") from error


def zip_name(info: zipfile.ZipInfo) -> bytes:
    """The raw name of a member (APPNOTE 4.4.4 bit 11, appendix D): UTF-8 if so flagged, else code page 437.

    Unix tools write UTF-8 without the flag, so unflagged bytes that are UTF-8 stay as they are. A name from DOS with
    backslashes and no slash is taken as Info-ZIP takes it: they part folders.
    """
    if info.flag_bits & 0x800:
        raw = info.orig_filename.encode("utf-8", "surrogateescape")
    else:
        raw = info.orig_filename.encode("cp437")
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            raw = info.orig_filename.encode("utf-8")
    return raw.replace(b"\\", b"/") if info.create_system == 0 and b"/" not in raw else raw


def _zip_kind(info: zipfile.ZipInfo, name: bytes, mode: int) -> Kind:
    if name.endswith(b"/") or stat.S_ISDIR(mode):
        return "folder"
    if info.flag_bits & 0x1:
        return "encrypted"
    if stat.S_IFMT(mode) and not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        return "special_file"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "unknown_compression"
    return "symlink" if stat.S_ISLNK(mode) else "file"


def _zip_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Iterator[bytes]:
    """A member's bytes; zipfile checks their CRC at the end and never inflates more than was asked for."""
    size = 0
    with _torn_zip():
        with archive.open(info) as stream:
            while chunk := stream.read(INFLATED_CHUNK):
                budget.inflated(len(chunk))
                size += len(chunk)
                yield chunk
        if size != info.file_size:
            raise EOFError(f"a member has {size} bytes where {info.file_size} were announced")


def _count_zip_entries(file: BinaryIO, budget: Budget) -> None:
    """Refuse a zip with too many members before zipfile makes an object of each (end record: APPNOTE 4.3.16)."""
    start = max(budget.packed - 65_557, 0)
    file.seek(start)
    tail = file.read()
    at = len(tail) - 22  # where zipfile looks first, then, for the sake of a comment, further up
    if not (tail[at : at + 4] == b"PK\x05\x06" and tail.endswith(b"\0\0")):
        at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return  # zipfile will say that it is none
    length, end = struct.unpack_from("<I", tail, at + 12)[0], start + at
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\x06\x07" and tail[at - 76 : at - 72] == b"PK\x06\x06":
        length, end = struct.unpack_from("<Q", tail, at - 36)[0], end - 76
    if length <= ZIP_ENTRY * budget.limits.unit_files:
        return
    file.seek(max(end - length, 0))
    count = 0
    while (header := file.read(ZIP_ENTRY)).startswith(b"PK\x01\x02") and len(header) == ZIP_ENTRY:
        count += 1
        if count > budget.limits.unit_files:
            raise Refused("too_many_files", count, budget.limits.unit_files, "more members than a unit may have")
        file.seek(sum(struct.unpack_from("<HHH", header, 28)), 1)
