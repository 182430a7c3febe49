"""OUT/launches: what was started and how it ended, one JSON object a line, and the lock that a driver holds.

The driver writes journal.jsonl and nobody else does. What runs on a cluster writes below `launches/<id>/events`, a file for
each writer, because appends of several machines to one file get lost.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stackbuild.errors import StackbuildError, UsageError


class Journal:
    """A file of events that this process alone appends to."""

    def __init__(self, path: Path):
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, flush: bool = False, **event: Any) -> None:
        """Append an event with its time; `flush`: it is on disk when this returns."""
        line = json.dumps({"time": round(time.time(), 3), **event}).encode() + b"\n"
        with open(self.path, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # what a crash or a full disk cut short must not take this line with it
                    line = b"\n" + line
            file.write(line)
            if flush:
                file.flush()
                os.fsync(file.fileno())


def driver_journal(out: Path) -> Journal:
    """The journal of whoever holds the folder's lock."""
    return Journal(out / "launches" / "journal.jsonl")


@contextmanager
def only_one(out: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the output folder: two drivers at once would do the same work twice. `wait`: seconds to wait for another."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} is not a folder and cannot be made one: {error.strerror}.") from error
    with open(out / ".lock", "a+") as file:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise StackbuildError(
                        f"Another stackbuild is building {out}; wait for it, or see `stackbuild status {out}`."
                    ) from error
            time.sleep(min(1.0, wait))
        yield
