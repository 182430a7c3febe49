"""Objects of Software Heritage fetched per CPU-second: ours against boto3, smart_open and s3fs, at the same local server.

    python -m benchmarks.swh_fetch [--objects N] [--rounds N] [--all] [--json]

The objects are the interpreter's own library, each file as the archive keeps it (gzip under its SHA-1), in a bucket of localbucket,
which runs as a process of its own and counts for nobody. Every way inflates within the known length and verifies length, SHA-1
and git SHA-1 by the same code, so that what differs is the client. The server takes some 45 ms for a request on one connection:
the peers use threads to get on, and one runs without. boto3 and smart_open are no dependencies; what is not there is not measured.
"""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Comparison, options
from stackbuild.sources.swh.inflate import judge
from stackbuild.swhid import content_id
from stackbuild.wanted import Wanted

BUCKET, PREFIX = "softwareheritage", "content"
LONGEST = 100_000
THREADS = 16
ONE_THREAD = 300  # objects of the peer without threads
Work = Callable[[], dict[str, Any]]


def wanted_of(listed: str) -> list[Wanted]:
    rows = json.loads(Path(listed).read_text())
    return [Wanted(bytes.fromhex(blob), bytes.fromhex(content), length) for blob, content, length in rows]


def ours(url: str, listed: str, endpoint: str | None = None, signed: bool = False, cache: str | None = None) -> Work:
    """`fetch`, or `fetch_cached` from a cache."""
    from stackbuild.sources.swh.fetch import fetch, open_store
    from stackbuild.sources.swh.loop import new_loop
    from stackbuild.sources.swh.packed import PackedCache, fetch_cached

    wanted, store = wanted_of(listed), open_store(url, signed=signed, endpoint_url=endpoint)
    new_loop().close()  # what is imported for it is start-up, as a peer's client is

    def work() -> dict[str, Any]:
        got = fetch_cached(store, wanted, PackedCache(Path(cache))) if cache else fetch(store, wanted)
        return tell(one.data for one in got)

    return work


def tell(found: Iterable[bytes | None]) -> dict[str, Any]:
    lengths = [len(one) for one in found if one is not None]
    return {"size": len(lengths), "bytes": sum(lengths)}


def _in_threads(get: Callable[[str], bytes], wanted: list[Wanted], threads: int) -> dict[str, Any]:
    def one(item: Wanted) -> bytes | None:
        assert item.length is not None
        return judge(get(item.blob_id.hex()), item, item.length)[1]

    if threads == 1:
        return tell(map(one, wanted[:ONE_THREAD]))
    with ThreadPoolExecutor(threads) as pool:
        return tell(pool.map(one, wanted))


def _client(endpoint: str) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    settings = Config(signature_version=UNSIGNED, max_pool_connections=THREADS, s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=endpoint, config=settings, region_name="us-east-1")


def by_boto3(endpoint: str, listed: str, threads: int = THREADS) -> Work:
    """Unsigned, one client for all threads, as its documentation says."""
    client, wanted = _client(endpoint), wanted_of(listed)

    def get(name: str) -> bytes:
        return bytes(client.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}")["Body"].read())

    return partial(_in_threads, get, wanted, threads)


def by_smart_open(endpoint: str, listed: str) -> Work:
    """As The Stack v2's card does it; its own decompression is off, as the name has no suffix."""
    import smart_open

    client, wanted = _client(endpoint), wanted_of(listed)

    def get(name: str) -> bytes:
        with smart_open.open(
            f"s3://{BUCKET}/{PREFIX}/{name}", "rb", compression="disable", transport_params={"client": client}
        ) as file:
            return bytes(file.read())

    return partial(_in_threads, get, wanted, THREADS)


def make(folder: Path, objects: int) -> list[tuple[str, str, int]]:
    """Write the objects; (SHA-1, git SHA-1, length) of each."""
    rows: list[tuple[str, str, int]] = []
    seen: set[str] = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if len(rows) == objects:
            break
        data = path.read_bytes()[:LONGEST]
        name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if name not in seen:
            seen.add(name)
            encoder = zlib.compressobj(wbits=31)
            (folder / name).write_bytes(encoder.compress(data) + encoder.flush())
            rows.append((name, content_id(data).hex(), len(data)))
    return rows


def serve(buckets: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [sys.executable, "-m", "localbucket", str(buckets), "--port", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.05)
    raise SystemExit("localbucket did not start; it is in the extra dev")


def main() -> None:
    """Make the objects, start the server, measure."""
    parser = options(__doc__ or "")
    parser.add_argument("--objects", type=int, default=3_000)
    parser.add_argument("--all", action="store_true", help="also boto3 without threads, and ours through s3fs: slow")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder = place / "buckets" / BUCKET / PREFIX
        folder.mkdir(parents=True)
        rows = make(folder, arguments.objects)
        listed = place / "wanted.json"
        listed.write_text(json.dumps(rows))
        server, endpoint = serve(place / "buckets")
        try:
            url = f"s3://{BUCKET}/{PREFIX}"
            ask = {"listed": str(listed), "endpoint": endpoint}
            theirs = "benchmarks.swh_fetch:"
            mine = f"{theirs}ours"
            comparison = Comparison(
                "swh_fetch",
                "objects/CPU-s",
                5.0,
                float(len(rows)),
                {"objects": len(rows), "bytes": sum(row[2] for row in rows), "threads": THREADS},
                ("aiohttp", "uvloop", "boto3", "smart_open", "s3fs", "localbucket"),
                shown=("size", "bytes"),
                parts=("a folder", "packed cache", "ours by s3fs"),
            )
            cache = str(place / "cache")
            ours(str(folder), str(listed), cache=cache)()
            ways: dict[str, tuple[str, dict[str, Any]]] = {
                "ours": (mine, {"url": url} | ask),
                "boto3": (f"{theirs}by_boto3", ask),
                "smart_open": (f"{theirs}by_smart_open", ask),
                "a folder": (mine, {"url": str(folder), "listed": str(listed)}),
                "packed cache": (mine, {"url": str(folder), "listed": str(listed), "cache": cache}),
            }
            if arguments.all:
                ways["boto3, one thread"] = (f"{theirs}by_boto3", ask | {"threads": 1})
                ways["ours by s3fs"] = (mine, {"url": url, "signed": True} | ask)
            comparison.take_turns(ways, arguments.rounds)
            comparison.show(arguments.json)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
