"""Objects through fsspec: private buckets, signed with the credentials that the file system finds (s3fs, gcsfs, adlfs).

An order of magnitude more CPU for each object than plain HTTP (docs/swh-objects.md), and no header of the answer is seen.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any, Final

from stackbuild.errors import InputError
from stackbuild.sources.credentials import without_credentials
from stackbuild.sources.swh.objects import Answer, ObjectStore, Room, Session, needs

REFUSALS: Final = frozenset({"NoSuchBucket", "InvalidBucketName"})
BUSY: Final = frozenset({"SlowDown", "503", "429", "RequestLimitExceeded", "Throttling"})


class FsspecStore(ObjectStore):
    """Objects at `url`/<sha1> by the file system of its scheme."""

    def __init__(self, url: str, endpoint_url: str | None = None):
        from fsspec import get_filesystem_class

        self.shown = without_credentials(url)
        self.scheme, _, path = url.partition("://")
        self.path = path.rstrip("/")
        if not self.path:
            raise InputError(f"{self.shown!r} names no bucket: {self.scheme}://bucket/prefix")
        try:
            self._kind = get_filesystem_class(self.scheme)
        except ImportError as error:
            raise needs(
                "s3" if self.scheme.startswith("s3") else self.scheme, f"{self.shown} with `signed`", error
            ) from error
        except ValueError as error:
            raise InputError(f"{self.shown!r} is no store of objects: fsspec knows no {self.scheme!r}.") from error
        self._options: dict[str, Any] = {}
        if endpoint_url and self.scheme in ("s3", "s3a"):
            self._options["endpoint_url"] = endpoint_url

    async def connect(self, timeout: float, deadline: float) -> Session:
        options = dict(self._options)
        if self.scheme in ("s3", "s3a"):  # tries are the fetcher's business
            options["config_kwargs"] = {
                "connect_timeout": timeout,
                "read_timeout": timeout,
                "retries": {"total_max_attempts": 1},
                "max_pool_connections": 1_024,
            }
        asynchronous = bool(getattr(self._kind, "async_impl", False))
        if asynchronous:
            options["asynchronous"] = True
        system = self._kind(skip_instance_cache=True, **options)
        if hasattr(system, "retries"):
            system.retries = 1
        return FsspecSession(self, system, asynchronous, deadline)


class FsspecSession(Session):
    """Asks for a range, so that a body is never longer than allowed."""

    def __init__(self, store: FsspecStore, system: Any, asynchronous: bool, deadline: float):
        self._store, self._system, self._asynchronous, self._deadline = store, system, asynchronous, deadline

    async def get(self, name: str, most: int, room: Room) -> Answer:
        path = f"{self._store.path}/{name}"
        try:
            async with asyncio.timeout(self._deadline):
                if self._asynchronous:
                    body = await self._system._cat_file(path, start=0, end=most + 1)
                else:
                    body = await asyncio.to_thread(self._system.cat_file, path, start=0, end=most + 1)
        except Exception as error:  # each file system has errors of its own
            return self._refusal(error)
        if len(body) > most:
            return Answer("too_large")
        await room(len(body))
        return Answer("body", bytes(body))

    async def close(self) -> None:
        client = getattr(self._system, "_s3", None)
        if client is not None:
            await client.close()

    def _refusal(self, error: Exception) -> Answer:
        code = _code(error)
        words = code or type(error).__name__
        if code in REFUSALS:
            raise InputError(f"{self._store.shown}: there is no such bucket ({code}).") from error
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
            raise InputError(
                f"no credentials were found for {self._store.shown} ({type(error).__name__}); "
                "leave `signed` out for a public bucket."
            ) from error
        if code in ("InvalidRange", "416"):  # an object of no bytes has no range
            return Answer("body")
        if isinstance(error, FileNotFoundError):
            return Answer("missing", words=words)
        if isinstance(error, PermissionError) or code in ("401", "403", "AccessDenied"):
            return Answer("forbidden", words=words)
        if code in BUSY or getattr(error, "errno", None) in (errno.EBUSY, errno.EAGAIN):
            return Answer("busy", words=words)
        return Answer("failed", words=words)


def _code(error: BaseException | None) -> str:
    """The code of an S3 error, which s3fs hides behind the error that it raises."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__ or error.__context__
    return ""
