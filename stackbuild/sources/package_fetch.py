"""Fetching from a package index: bounded, patient, and checked against the announced hashes.

A page of the web can name neither local files nor an unencrypted detour; credentials of an index are sent to its host
alone and stand in no plan and no message. What does not answer is asked three times more, then the build ends with 75
(try again); what is absent or refused is said at once.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import ssl
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final, Protocol, TypeVar

from stackbuild.errors import InputError, TemporaryError
from stackbuild.sources.package_settings import PipSettings, host_of, without_userinfo

ACCEPT: Final = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
PAGE_BYTES: Final = 64 * 1024 * 1024  # the longest page of the public index has about 30 MB
CHUNK: Final = 256 * 1024
DEADLINE: Final = 1800.0  # seconds for one file, however slowly it drips
BACK_OFF: Final = (0.5, 1.0, 2.0)  # seconds before each retry

T = TypeVar("T")


class Readable(Protocol):
    """What a response and a file have in common."""

    def read(self, size: int, /) -> bytes: ...


class Absent(Exception):
    """The server says that there is no such thing (404, 410)."""


class TooLarge(Exception):
    """The file is larger than allowed."""


class HashMismatch(InputError):
    """What came is not what the index announced."""


class Fetcher:
    """Opens URLs as pip would. Safe to share between threads."""

    def __init__(self, settings: PipSettings):
        self.settings = settings
        context = ssl.create_default_context(
            cafile=settings.cert
        )  # without one: SSL_CERT_FILE, SSL_CERT_DIR, the system
        if not settings.cert and not context.cert_store_stats()["x509_ca"]:
            try:
                import certifi

                context.load_verify_locations(certifi.where())
            except ImportError:
                pass
        if settings.client_cert:
            context.load_cert_chain(settings.client_cert)
        proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else None
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(proxies),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(self),
        ):
            self._opener.add_handler(handler)

    def authorize(self, request: urllib.request.Request) -> urllib.request.Request:
        """Add the credentials of the request's host, if pip has any; they do not follow a redirect."""
        userinfo = self.settings.credentials.get(host_of(request.full_url))
        if userinfo is not None:
            token = base64.b64encode((userinfo if ":" in userinfo else userinfo + ":").encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        return request

    def page(self, url: str) -> tuple[str, str, bytes]:
        """(URL after redirects, content type, body) of an index page. Raises Absent, InputError, TemporaryError."""

        def take(response: Readable, final: str, content_type: str) -> tuple[str, str, bytes]:
            body = response.read(PAGE_BYTES + 1)
            if len(body) > PAGE_BYTES:
                raise InputError(f"the index page {url} has more than {PAGE_BYTES:,} bytes; is that an index?")
            return final, content_type, body

        return self._patiently(url, take)

    def download(self, url: str, folder: Path, hashes: Mapping[str, str], max_bytes: int) -> tuple[Path, str, int]:
        """Fetch a file to a temporary name in `folder`: (path, SHA-256, size). The caller renames it.

        Raises Absent, TooLarge, HashMismatch (after the retries: a transfer may have been cut), TemporaryError.
        """
        folder.mkdir(parents=True, exist_ok=True)

        def take(response: Readable, final: str, content_type: str) -> tuple[Path, str, int]:
            until = time.monotonic() + DEADLINE
            sums = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *hashes}}
            descriptor, name = tempfile.mkstemp(prefix=".part-", dir=folder)
            try:
                size = 0
                with os.fdopen(descriptor, "wb") as out:
                    while chunk := response.read(CHUNK):
                        size += len(chunk)
                        if size > max_bytes:
                            raise TooLarge
                        if time.monotonic() > until:
                            raise TimeoutError(f"not done after {DEADLINE:.0f} s")
                        for digest in sums.values():
                            digest.update(chunk)
                        out.write(chunk)
                    for kind, announced in hashes.items():
                        if sums[kind].hexdigest() != announced:
                            raise HashMismatch(
                                f"{without_userinfo(url)} has {kind} {sums[kind].hexdigest()} where the index says "
                                f"{announced}: it is damaged or not what was published. Nothing of it is used."
                            )
                    out.flush()
                    os.fsync(out.fileno())
                return Path(name), sums["sha256"].hexdigest(), size
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

        return self._patiently(url, take)

    def _patiently(self, url: str, take: Callable[[Readable, str, str], T]) -> T:
        """Open `url` and hand the response to `take`; again after a failure that may pass."""
        shown = without_userinfo(url)
        last: Exception | None = None
        for pause in (*BACK_OFF, None):
            try:
                return self._once(url, take)
            except urllib.error.HTTPError as error:
                if error.code in (404, 410):
                    raise Absent(shown) from error
                if error.code != 429 and error.code < 500:
                    hint = "; check the credentials of pip's index" if error.code in (401, 403) else ""
                    raise InputError(f"{shown} is refused ({error.code} {error.reason}){hint}.") from error
                last = error
            except http.client.InvalidURL as error:
                raise InputError(f"{shown!r} is not a URL that can be asked ({error}).") from error
            except ssl.SSLCertVerificationError as error:
                raise _untrusted(shown, error) from error
            except urllib.error.URLError as error:
                if isinstance(error.reason, ssl.SSLCertVerificationError):
                    raise _untrusted(shown, error.reason) from error
                last = error
            except (http.client.HTTPException, OSError, HashMismatch) as error:
                last = error
            if pause is not None:
                time.sleep(pause)
        if isinstance(last, HashMismatch):
            raise last
        raise TemporaryError(
            f"{shown} does not answer, asked {len(BACK_OFF) + 1} times ({last}). Try again later."
        ) from last

    def _once(self, url: str, take: Callable[[Readable, str, str], T]) -> T:
        if urllib.parse.urlsplit(url).scheme == "file":
            path = Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
            try:
                with path.open("rb") as file:
                    return take(file, url, "text/html")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise Absent(str(path)) from error
        request = urllib.request.Request(without_userinfo(url), headers={"Accept": ACCEPT, "User-Agent": "stackbuild"})
        with self._opener.open(self.authorize(request), timeout=self.settings.timeout) as response:
            whole = _Whole(response, response.headers.get("Content-Length") or "")
            return take(whole, without_userinfo(response.geturl()), response.headers.get("Content-Type") or "")


class _Whole:
    """A response that says when its body ends before the announced length; http.client does not."""

    def __init__(self, response: Readable, announced: str):
        self._response = response
        self._missing = int(announced) if announced.isascii() and announced.isdigit() else 0

    def read(self, size: int) -> bytes:
        data = self._response.read(size)
        self._missing -= len(data)
        if len(data) < size and self._missing > 0:
            raise ConnectionError(f"the transfer was cut {self._missing} bytes before its end")
        return data


def _untrusted(url: str, error: ssl.SSLCertVerificationError) -> InputError:
    return InputError(
        f"the certificate of {url} is not trusted ({error.verify_message}); "
        "name your authority with `pip config set global.cert FILE`."
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only, never from https to http."""

    def __init__(self, fetcher: Fetcher):
        self._fetcher = fetcher

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (scheme == "http" and req.type == "https"):
            raise InputError(
                f"{without_userinfo(req.full_url)} redirects to {without_userinfo(newurl)!r}, which is not safe."
            )
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        return None if found is None else self._fetcher.authorize(found)
