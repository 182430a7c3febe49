"""Files of others, on a disk or behind any fsspec URL: opened, and what goes wrong with them as an error that names the file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, Final
from urllib.parse import unquote

import fsspec
import pyarrow as pa

from stackbuild.errors import InputError, MissingDependency, StackbuildError, TemporaryError
from stackbuild.sources.credentials import hidden

REMOTE_BLOCK: Final = 4 << 20  # bytes of one request; a column's stripe is mostly larger


@contextlib.contextmanager
def open_file(url: str, size: int, signed: bool, failed: list[TemporaryError]) -> Iterator[BinaryIO]:
    """A file as it was listed, to be read; InputError if it has another size now. Use it within `errors_of`, with its `failed`."""
    system, path = file_system(url, signed)
    now = int(system.size(path))
    if now != size:
        raise InputError(f"{hidden(url, url)} has {now} bytes; it had {size} when it was listed.")
    if not is_remote(url):
        with open(path, "rb") as file:
            yield file
        return
    with system.open(path, "rb", block_size=REMOTE_BLOCK, cache_type="readahead") as far:
        yield io.BufferedReader(_Remote(far, url, failed))


class _Remote(io.RawIOBase):
    """A file on a server. What its client raises is kept in `failed`, as readers of ORC and Parquet make errors of damage of it."""

    def __init__(self, file: Any, url: str, failed: list[TemporaryError]):
        self._file, self._url, self._failed = file, url, failed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:  # each client has errors of its own
            words = hidden(str(error) or type(error).__name__, self._url)
            self._failed.append(TemporaryError(f"{hidden(self._url, self._url)} cannot be read now: {words}"))
            raise self._failed[-1] from error
        buffer[: len(data)] = data
        return len(data)


def file_system(url: str, signed: bool) -> tuple[Any, str]:
    """(fsspec file system, path on it)."""
    protocol = url.partition("://")[0] if "://" in url else "file"
    options: dict[str, Any] = {"anon": not signed} if protocol in ("s3", "s3a") else {}
    try:
        system, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        extra = " pip install 'stackbuild[s3]'" if protocol in ("s3", "s3a") else ""
        raise MissingDependency(f"{protocol}:// needs a package that is not installed ({error}):{extra}") from error
    except ValueError as error:
        raise InputError(f"{hidden(url, url)} is no address that can be read: {error}") from error
    return system, path


def is_remote(url: str) -> bool:
    return not url.startswith(("file:", "/")) and "://" in url


@contextlib.contextmanager
def errors_of(url: str, remote: bool, failed: list[TemporaryError] | None = None) -> Iterator[None]:
    """What goes wrong with a file or server, as an error that names it. `failed`: of a file that is being read, what its server
    did (`_Remote`).
    """
    shown = hidden(unquote(url), url)
    try:
        yield
    except StackbuildError:
        raise
    except Exception as error:
        if failed:
            raise failed[-1] from error
        if (named := _named(error, shown, url, remote, failed is not None)) is error:
            raise
        raise named from error


def _named(error: Exception, shown: str, url: str, remote: bool, reading: bool) -> Exception:
    """The error to raise for one of a file system or of Arrow."""
    words = hidden(str(error) or type(error).__name__, url)
    if isinstance(error, FileNotFoundError):
        return InputError(f"{shown} is not there.")
    if isinstance(error, PermissionError):
        return InputError(f"{shown} may not be read: {words}")
    # Arrow tells damage also by an OSError without a number; a server's client has errors of its own.
    plain = type(error) in (OSError, EOFError, ValueError) and not getattr(error, "errno", None)
    if isinstance(error, (pa.ArrowException, UnicodeDecodeError)) or (reading and plain):
        return InputError(f"{shown} is damaged: {words}. Fetch it again.")
    if remote:
        return TemporaryError(f"{shown} cannot be read now: {words}")
    return InputError(f"{shown} cannot be read: {words}") if isinstance(error, OSError) else error
