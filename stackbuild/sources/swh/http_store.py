"""Objects over HTTP(S), S3 buckets that need no signing included: one GET for each, by aiohttp.

The body is taken as it is stored: no decompression by the client, whatever Content-Encoding says. Redirects are followed a
few times, never from https to http; user and password of an address go to its host alone.
"""

from __future__ import annotations

import asyncio
import email.utils
import re
import ssl
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from stackbuild.errors import InputError
from stackbuild.sources.credentials import without_credentials
from stackbuild.sources.swh.objects import Answer, ObjectStore, Room, Session, needs

if TYPE_CHECKING:
    import aiohttp

REDIRECTS: Final = 4
WORDS_BYTES: Final = 64 * 1024  # of the body of an error that are read, so that the connection can be used again
CHUNK: Final = 64 * 1024
SMALL_OBJECT: Final = 1024 * 1024
SLOW_DOWN: Final = frozenset({429, 503})
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,80})</Code>")


class HttpStore(ObjectStore):
    """Objects at `url`/<sha1>. Raises MissingDependency without aiohttp, InputError for what is no address."""

    def __init__(self, url: str, shown: str = ""):
        try:
            import aiohttp  # noqa: F401
        except ImportError as error:
            raise needs("swh", "a store of objects over HTTP", error) from error
        self.shown = shown or without_credentials(url)
        try:
            parts = urllib.parse.urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError as error:
            raise InputError(f"{self.shown!r} is no address of a store ({error}).") from error
        if not host or re.search(r"[\s\x00-\x1f]", url):
            raise InputError(f"{self.shown!r} is no address of a store: it has no host.")
        name = f"[{host}]" if ":" in host else host
        netloc = f"{name}:{port}" if port is not None else name
        self.base = urllib.parse.urlunsplit((parts.scheme.lower(), netloc, parts.path.rstrip("/") + "/", "", ""))
        self.query = f"?{parts.query}" if parts.query else ""  # a token, as some hosts give
        self.user = urllib.parse.unquote(parts.username) if parts.username is not None else None
        self.password = urllib.parse.unquote(parts.password or "")

    async def connect(self, timeout: float, deadline: float) -> Session:
        return HttpSession(self, timeout, deadline)


class HttpSession(Session):
    """One aiohttp session. How many requests run at a time is the fetcher's business, not its pool's."""

    def __init__(self, store: HttpStore, timeout: float, deadline: float):
        import aiohttp
        from yarl import URL

        self._store, self._url = store, URL
        self._errors = aiohttp.ClientError
        self._untrusted = aiohttp.ClientConnectorCertificateError
        self._auth = aiohttp.BasicAuth(store.user, store.password) if store.user is not None else None
        self._host = URL(store.base).origin()
        self._proxy = _proxy(store.base)
        # A timer for each read costs as much as the read: a small object has one for the whole instead.
        self._small = aiohttp.ClientTimeout(total=min(timeout, deadline))
        self._large = aiohttp.ClientTimeout(total=deadline, sock_connect=timeout, sock_read=timeout)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ttl_dns_cache=300, ssl=_tls() if store.base[:6] == "https:" else True
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "stackbuild", "Accept-Encoding": "identity"},
            skip_auto_headers=("Accept",),
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, name: str, most: int, room: Room) -> Answer:
        url = self._url(f"{self._store.base}{name}{self._store.query}", encoded=True)
        timeout = self._small if most <= SMALL_OBJECT else self._large
        try:
            for _ in range(REDIRECTS + 1):
                auth = self._auth if self._auth is not None and url.origin() == self._host else None
                async with self._session.get(
                    url, allow_redirects=False, auth=auth, proxy=self._proxy, timeout=timeout
                ) as response:
                    if response.status == 200:
                        return await _body(response, most, room)
                    if response.status not in (301, 302, 303, 307, 308):
                        return await self._refusal(response)
                    url = await self._next(url, response)
            return Answer("forbidden", words="too many redirects")
        except _Detour as error:
            return Answer("forbidden", words=str(error))
        except self._untrusted as error:
            raise InputError(
                f"the certificate of {self._store.shown} is not trusted ({error.certificate_error}); "
                "name your authority with SSL_CERT_FILE."
            ) from error
        except TimeoutError:
            return Answer("failed", words="timed out")
        except (self._errors, OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            return Answer("failed", words=type(error).__name__)

    async def _refusal(self, response: aiohttp.ClientResponse) -> Answer:
        status = response.status
        code = _CODE.search(await _words(response))
        words = f"{status} {code[1].decode()}" if code else str(status)
        if code and code[1] in (b"NoSuchBucket", b"InvalidBucketName"):
            raise InputError(f"{self._store.shown}: there is no such bucket ({words}).")
        if status in (404, 410):
            return Answer("missing", words=words)
        if status in SLOW_DOWN or (code and code[1] in (b"SlowDown", b"RequestLimitExceeded", b"Throttling")):
            return Answer("busy", wait=asked_to_wait(response.headers, time.time()), words=words)
        if status >= 500 or status in (408, 425) or status < 200 or 200 < status < 300:
            return Answer("failed", wait=asked_to_wait(response.headers, time.time()), words=words)
        return Answer("forbidden", words=words)

    async def _next(self, url: Any, response: aiohttp.ClientResponse) -> Any:
        """Where a redirect leads."""
        code = _CODE.search(await _words(response))
        location = response.headers.get("Location")
        if not location:
            region = response.headers.get("x-amz-bucket-region", "")
            where = f" is in region {region}" if re.fullmatch(r"[a-z0-9-]{1,40}", region) else " is elsewhere"
            said = f", {code[1].decode()}" if code else ""
            raise InputError(
                f"{self._store.shown}{where} ({response.status}{said}): name its endpoint with "
                "AWS_ENDPOINT_URL_S3=https://s3.REGION.amazonaws.com."
            )
        try:
            target = url.join(self._url(location, encoded=True))
        except ValueError as error:
            raise _Detour("a redirect to no address") from error
        if target.scheme not in ("http", "https") or (url.scheme == "https" and target.scheme == "http"):
            raise _Detour(f"a redirect to {target.scheme}, which is not safe")
        return target


class _Detour(Exception):
    """A redirect that is not followed."""


async def _words(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of an error's body."""
    data = b""
    while len(data) < WORDS_BYTES and (chunk := await response.content.read(CHUNK)):
        data += chunk
    return data


async def _body(response: aiohttp.ClientResponse, most: int, room: Room) -> Answer:
    announced = response.content_length
    if announced is not None:
        if announced > most:
            return Answer("too_large")
        await room(announced)
        return Answer("body", await response.read())  # never more than was announced; aiohttp raises if it is less
    parts: list[bytes] = []
    size = 0
    while chunk := await response.content.read(CHUNK):
        size += len(chunk)
        if size > most:
            return Answer("too_large")
        await room(size)
        parts.append(chunk)
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return Answer("body", b"".join(parts), whole=chunked)


def asked_to_wait(headers: Any, now: float) -> float | None:
    """Seconds to wait by Retry-After (seconds or a date) or X-RateLimit-Reset (a Unix time); None if neither says so."""
    after = (headers.get("Retry-After") or "").strip()
    if after:
        if re.fullmatch(r"\d{1,9}", after):
            return float(after)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - now)
        except (ValueError, OverflowError, TypeError):
            pass
    reset = (headers.get("X-RateLimit-Reset") or "").strip()
    if re.fullmatch(r"\d{1,12}", reset):
        return max(0.0, float(reset) - now)
    return None


def _proxy(base: str) -> str | None:
    """The proxy that the environment names for this store; looked up once, not for each object."""
    parts = urllib.parse.urlsplit(base)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    return proxy if proxy and proxy.startswith("http://") else None


def _tls() -> ssl.SSLContext:
    """The system's authorities, or SSL_CERT_FILE's; certifi's where there are none."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        try:
            import certifi

            context.load_verify_locations(certifi.where())
        except ImportError:
            pass
    return context
