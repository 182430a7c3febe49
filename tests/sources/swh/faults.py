"""A store of objects that misbehaves as told, served by aiohttp in a thread; and contents to put into it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType

from stackbuild.swhid import content_id
from stackbuild.wanted import Wanted


def packed(data: bytes) -> bytes:
    """A gzip frame as the archive writes it: no name, no time."""
    encoder = zlib.compressobj(wbits=31)
    return encoder.compress(data) + encoder.flush()


def wanted_for(data: bytes, length: bool = True) -> Wanted:
    return Wanted(hashlib.sha1(data).digest(), content_id(data), len(data) if length else None)


def contents(count: int, seed: int = 1, most: int = 4_000) -> list[bytes]:
    """Different texts, the first one empty."""
    rng = random.Random(seed)
    return [b"", *(b"%d %d\n" % (seed, number) + rng.randbytes(rng.randrange(most)) for number in range(1, count))]


def folder_of(path: Path, data: list[bytes], sliced: bool = False) -> Path:
    """A folder of objects."""
    for one in data:
        name = hashlib.sha1(one).hexdigest()
        place = path / name[:2] / name[2:4] / name[4:6] if sliced else path
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(packed(one))
    return path


@cache
def bomb(megabytes: int = 400) -> bytes:
    """A gzip of so many MB of NUL bytes, a thousandth as long."""
    encoder = zlib.compressobj(wbits=31)
    return b"".join(encoder.compress(bytes(1 << 20)) for _ in range(megabytes)) + encoder.flush()


FINAL: dict[str, Callable[[bytes], bytes]] = {  # what is stored instead, by the state that it should be told as
    "zeroed": lambda data: bytes(max(24, len(packed(data)))),
    "not_gzip": lambda data: b"<html>not found</html>",
    "truncated": lambda data: packed(data)[:-5],
    "trailing_data": lambda data: packed(data) + b"\n",
    "too_large": lambda data: packed(data + b"more"),
    "hash_mismatch": lambda data: packed(bytes([byte ^ 1 for byte in data]) or b""),
}


class FaultServer:
    """`how[name]`: what is done with requests for that object, one word for each request, the last for all further.

    Words: ok, missing, forbidden, one of FINAL, busy, busy_after, limited, error, reset, cut, cut_plain, slow, redirect, unsafe,
    far, encoded, chunked, bomb, hang. `default`: for objects that `how` says nothing of.
    """

    def __init__(self, data: list[bytes], default: str = "ok", delay: float = 0.0):
        self.data = {hashlib.sha1(one).hexdigest(): one for one in data}
        self.how: dict[str, list[str]] = {}
        self.default, self.delay = default, delay
        self.capacity = 1 << 30  # requests at a time before it says 503
        self.requests: Counter[str] = Counter()
        self.in_flight = self.most = 0
        self.history: list[tuple[float, int]] = []  # requests in flight when one came
        self.seen: list[dict[str, str]] = []
        self.url = self.far = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()

    def tell(self, one: bytes, *words: str) -> None:
        self.how[hashlib.sha1(one).hexdigest()] = list(words)

    def __enter__(self) -> FaultServer:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _run(self) -> None:
        from aiohttp import web

        asyncio.set_event_loop(self._loop)

        async def start() -> web.AppRunner:
            app = web.Application()
            app.router.add_get("/{prefix}/{name}", self._answer)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/content"
            return runner

        runner = self._loop.run_until_complete(start())
        self._loop.call_soon(self._started.set)
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _answer(self, request):  # type: ignore[no-untyped-def]
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        self.history.append((time.monotonic(), self.in_flight))
        try:
            return await self._say(request)
        finally:
            self.in_flight -= 1

    async def _say(self, request):  # type: ignore[no-untyped-def]
        from aiohttp import web

        name = request.match_info["name"]
        words = self.how.get(name, [self.default])
        word = words[min(self.requests[name], len(words) - 1)]
        self.requests[name] += 1
        if len(self.seen) < 20:
            self.seen.append(dict(request.headers))
        if request.match_info["prefix"] == "elsewhere":
            word = "ok"
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.in_flight > self.capacity:
            word = "busy"
        data = self.data.get(name)
        if word == "forbidden":
            return web.Response(status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
        if word in ("busy", "error", "busy_after", "limited"):
            headers = {"busy_after": {"Retry-After": "1"}, "limited": {"X-RateLimit-Reset": f"{time.time() + 1:.0f}"}}
            status = {"error": 500, "limited": 429}.get(word, 503)
            return web.Response(status=status, headers=headers.get(word), body=b"<Error><Code>SlowDown</Code></Error>")
        if word == "no_bucket":
            return web.Response(status=404, body=b"<Error><Code>NoSuchBucket</Code></Error>")
        if data is None or word == "missing":
            return web.Response(status=404, body=b"<Error><Code>NoSuchKey</Code></Error>")
        if word == "reset":
            request.transport.abort()
            return web.Response()
        body = FINAL[word](data) if word in FINAL else packed(data)
        if word in ("cut", "cut_plain"):
            head = f"Content-Length: {len(body)}\r\n" if word == "cut" else "Connection: close\r\n"
            request.transport.write(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body[: len(body) // 2])
            request.transport.close()
            return web.Response()
        if word == "slow":
            response = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await response.prepare(request)
            for start in range(0, len(body), 1 + len(body) // 5):
                await response.write(body[start : start + 1 + len(body) // 5])
                await asyncio.sleep(0.02)
            return response
        if word == "hang":
            await asyncio.sleep(3600)
        if word == "redirect":
            return web.Response(status=302, headers={"Location": f"/elsewhere/{name}"})
        if word == "far":
            return web.Response(status=307, headers={"Location": f"{self.far}/{name}"})
        if word == "unsafe":
            return web.Response(status=302, headers={"Location": "file:///etc/passwd"})
        if word == "region":
            return web.Response(status=301, headers={"x-amz-bucket-region": "eu-west-3"})
        if word == "encoded":
            return web.Response(body=body, headers={"Content-Encoding": "gzip"})
        if word == "chunked":
            response = web.StreamResponse()
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(body)
            return response
        if word == "bomb":
            return web.Response(body=bomb())
        return web.Response(body=body)


@contextmanager
def serving(data: list[bytes], default: str = "ok", delay: float = 0.0) -> Iterator[FaultServer]:
    with FaultServer(data, default, delay) as server:
        yield server
