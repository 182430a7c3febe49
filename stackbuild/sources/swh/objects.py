"""Where the contents of Software Heritage lie: a store of objects, each the gzip of a file's bytes under its plain SHA-1.

    /some/folder, file:///some/folder   files `<sha1>`, or `aa/bb/cc/<sha1>` by the first digits; found by looking
    https://host/prefix                 GET prefix/<sha1>
    s3://bucket/prefix                  unsigned: GET at the bucket's plain address; signed: through fsspec (s3fs)
    gs://…, abfs://…                    through fsspec with `signed`, if its package is installed

A store is asked through a `Session`, inside an event loop; it tells apart what can be told before the bytes are looked at.
No user, password or query of an address is in a message. Unsigned is the default, as the public bucket needs no signing.
"""

from __future__ import annotations

import os
import re
import stat
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from stackbuild.errors import InputError, MissingDependency
from stackbuild.sources.credentials import without_credentials

EMPTY_FILE: Final = (
    "da39a3ee5e6b4b0d3255bfef95601890afd80709"  # SHA-1 of no bytes: an object that the archive surely has
)

_HEX2 = re.compile("[0-9a-f]{2}")
_HEX40 = re.compile("[0-9a-f]{40}")
LOOKED_AT: Final = 1_000  # entries of a folder before it is said to hold no objects
DEPTH: Final = 4  # levels of two digits at most

Room = Callable[[int], Awaitable[None]]  # waits until so many bytes of memory may be used


class Answer(NamedTuple):
    """What a store says to one request.

    `kind`: "body" (the object's bytes as stored), "missing", "forbidden", "too_large" (more than was allowed), "busy" (asked to
    slow down) or "failed" (cut, reset, timed out, an error of the server). `wait`: seconds that the server asks to wait.
    `whole`: whether the transfer is known to have come to its end. `words`: for messages.
    """

    kind: Literal["body", "missing", "forbidden", "too_large", "busy", "failed"]
    body: bytes = b""
    wait: float | None = None
    whole: bool = True
    words: str = ""


class Session(ABC):
    """An open connection to a store; used within one event loop."""

    @abstractmethod
    async def get(self, name: str, most: int, room: Room) -> Answer:
        """The object `name` (40 digits) if it has at most `most` bytes. `room` is awaited before memory is used.

        Raises InputError if no object can be had from this store (an untrusted certificate, no such bucket).
        """

    async def close(self) -> None:
        """Let go of the connections."""
        return


class ObjectStore(ABC):
    """A place that objects come from. `shown`: its address without credentials."""

    shown: str

    @abstractmethod
    async def connect(self, timeout: float, deadline: float) -> Session:
        """A session whose requests fail after `timeout` seconds without a byte, and after `deadline` seconds."""


def open_store(url: str, signed: bool = False, endpoint_url: str | None = None) -> ObjectStore:
    """The store at an address (see the module).

    `signed`: with the credentials that fsspec's file system finds, else without any. `endpoint_url`: of an S3-compatible server;
    default AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, Amazon's. Raises InputError, and MissingDependency with the extra's name.
    """
    parts = urllib.parse.urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme in ("", "file") or len(scheme) == 1:
        if parts.netloc not in ("", "localhost") and scheme == "file":
            raise InputError(f"{url!r} names a folder of another machine; mount it, or serve it by HTTP.")
        return FolderStore(Path(urllib.request.url2pathname(parts.path) if scheme == "file" else url))
    if scheme in ("http", "https"):
        from stackbuild.sources.swh.http_store import HttpStore

        return HttpStore(url)
    if signed:
        from stackbuild.sources.swh.fsspec_store import FsspecStore

        return FsspecStore(url, endpoint_url or _endpoint())
    if scheme == "s3":
        from stackbuild.sources.swh.http_store import HttpStore

        return HttpStore(bucket_url(url, endpoint_url or _endpoint()), shown=without_credentials(url))
    raise InputError(
        f"{without_credentials(url)!r} is no store of objects: a folder, http(s)://… or s3://bucket/prefix; "
        "what fsspec reads besides needs `signed`."
    )


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def bucket_url(url: str, endpoint_url: str | None) -> str:
    """The plain address of `s3://bucket/prefix`: https://bucket.s3.amazonaws.com/prefix, or endpoint/bucket/prefix.

    Path style also for a bucket with a dot, which no certificate of Amazon's covers.
    """
    parts = urllib.parse.urlsplit(url)
    bucket, prefix = parts.netloc.rpartition("@")[2], urllib.parse.quote(parts.path.strip("/"))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket):
        raise InputError(f"{without_credentials(url)!r} names no bucket: s3://bucket/prefix")
    if endpoint_url:
        if urllib.parse.urlsplit(endpoint_url).scheme not in ("http", "https"):
            raise InputError(f"the endpoint {without_credentials(endpoint_url)!r} is no http(s) address")
        base = f"{endpoint_url.rstrip('/')}/{bucket}"
    elif "." in bucket:
        base = f"https://s3.amazonaws.com/{bucket}"
    else:
        base = f"https://{bucket}.s3.amazonaws.com"
    return f"{base}/{prefix}".rstrip("/")


def needs(extra: str, what: str, error: ImportError) -> MissingDependency:
    """The error for a store whose package is not installed."""
    return MissingDependency(f"{what} needs {error.name or error}: pip install 'stackbuild[{extra}]'")


# ---------------------------------------------------------------- a folder


class FolderStore(ObjectStore):
    """A folder of objects, flat or sliced. A symlink that leads out of the folder is not followed: "forbidden"."""

    def __init__(self, folder: Path):
        self.shown = str(folder)
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; a store of objects was expected.")
        self.root = os.path.realpath(folder)
        try:
            self.depths = _depths(self.root)
        except OSError as error:
            raise InputError(f"{folder} cannot be read ({error.strerror}).") from error
        if not self.depths:
            raise InputError(
                f"{folder} holds no objects: files named by 40 hexadecimal digits, or folders aa/bb/cc of them."
            )

    async def connect(self, timeout: float, deadline: float) -> Session:
        return FolderSession(self.root, self.depths)


def _depths(folder: str, depth: int = 0) -> tuple[int, ...]:
    """How many levels of two digits stand above the objects; both 0 and another if the folder is mixed."""
    found: set[int] = set()
    slices: list[str] = []
    with os.scandir(folder) as entries:
        for _, entry in zip(range(LOOKED_AT), entries, strict=False):
            if _HEX40.fullmatch(entry.name):
                found.add(depth)
            elif depth < DEPTH and _HEX2.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                slices.append(entry.name)
            if slices and found:
                break
    for name in sorted(slices):  # the first may be empty
        if below := _depths(f"{folder}/{name}", depth + 1):
            return tuple(sorted(found.union(below)))
    return tuple(sorted(found))


class FolderSession(Session):
    """Reads in the event loop: a local file takes less time than a thread does to be told of it."""

    def __init__(self, root: str, depths: tuple[int, ...]):
        self._root, self._depths = root, depths
        self._inside: dict[str, bool] = {}  # by folder of slices: whether it truly lies in the root

    async def get(self, name: str, most: int, room: Room) -> Answer:
        answer = Answer("missing")
        for depth in self._depths:
            slices = "".join(f"/{name[2 * level : 2 * level + 2]}" for level in range(depth))
            answer = await self._read(self._root + slices, name, most, room)
            if answer.kind != "missing":
                break
        return answer

    async def _read(self, folder: str, name: str, most: int, room: Room) -> Answer:
        try:
            if not self._is_inside(folder):
                return Answer("forbidden", words="a link that leads out of the store")
            try:
                number = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if not os.path.islink(f"{folder}/{name}"):
                    raise error
                real = os.path.realpath(f"{folder}/{name}", strict=True)
                if not real.startswith(self._root + os.sep):
                    return Answer("forbidden", words="a link that leads out of the store")
                number = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                info = os.fstat(number)
                if not stat.S_ISREG(info.st_mode):  # a folder, a pipe: no object
                    return Answer("missing")
                if info.st_size > most:
                    return Answer("too_large")
                await room(info.st_size)
                body = os.read(number, info.st_size)
                while len(body) < info.st_size and (more := os.read(number, info.st_size - len(body))):
                    body += more
                return Answer("body", body)
            finally:
                os.close(number)
        except (FileNotFoundError, NotADirectoryError):
            return Answer("missing")
        except PermissionError as error:
            return Answer("forbidden", words=str(error.strerror))
        except OSError as error:
            return Answer("failed", words=str(error.strerror))

    def _is_inside(self, folder: str) -> bool:
        if folder == self._root:
            return True
        known = self._inside.get(folder)
        if known is None:
            if len(self._inside) >= 65_536:  # there may be 16 million
                self._inside.clear()
            real = os.path.realpath(folder)
            known = self._inside[folder] = real.startswith(self._root + os.sep)
        return known
