"""S3-compatible servers for tests: localbucket as a process of its own over a folder, moto in this process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def localbucket(folder: Path, log: Path | None = None) -> Iterator[str]:
    """The endpoint of a server whose buckets are the folders in `folder`."""
    port = free_port()
    with open(log or os.devnull, "wb") as out:
        words = [sys.executable, "-m", "localbucket", str(folder), "--host", "127.0.0.1", "--port", str(port)]
        child = subprocess.Popen(words, stdout=out, stderr=out)
        try:
            until = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert child.poll() is None and time.monotonic() < until, "localbucket did not start"
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait(20)


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The endpoint of moto in this process. Anonymous reads need the ACL public-read there, as at Amazon's."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
