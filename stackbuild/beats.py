"""What is at work right now: a small file for each driver or array element, replaced every few seconds.

A journal says what ended; this says what runs, how far it is and how much memory it holds, so that `stackbuild status` can
tell slow from stuck. A beat that has stopped is itself the news.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stackbuild.pool import Ended, Pool

EVERY_SECONDS = 5.0
STALE_SECONDS = 60.0  # a beat this old is of something that died or hangs


@dataclass
class Beat:
    """A driver's or an element's state.

    `running`: for each task at work its rank, attempt, rows, bytes, where it is, memory (bytes) and wall (seconds).
    """

    who: str
    job: str
    tasks: int
    node: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    time: float = 0.0
    done: int = 0
    failed: int = 0
    rows: int = 0  # read by tasks that ended
    bytes: int = 0
    limit: int = 0  # bytes of memory that all may take together
    running: list[dict[str, Any]] = field(default_factory=list)

    def count(self, one: Ended) -> None:
        """Count a try that ended."""
        self.rows, self.bytes = self.rows + one.rows, self.bytes + one.bytes
        self.done += one.status == 0 and not one.more
        self.failed += one.status != 0


class Heart:
    """Writes a beat every few seconds while a pool runs."""

    def __init__(self, path: Path, beat: Beat):
        self.path, self.beat = path, beat
        path.parent.mkdir(parents=True, exist_ok=True)

    def tick(self, pool: Pool, force: bool = False) -> None:
        """Write, if it is time to. A full disk must not end what it tells of."""
        now = time.time()
        if not force and now - self.beat.time < EVERY_SECONDS:
            return
        self.beat.time = now
        self.beat.running = [{"attempt": r.attempt, **r.beat, "rank": rank} for rank, r in pool.running.items()]
        temporary = self.path.with_name(f".{self.path.name}.{self.beat.pid}")
        try:
            temporary.write_text(json.dumps(asdict(self.beat)))
            os.replace(temporary, self.path)
        except OSError:
            return

    def stop(self) -> None:
        """Take the file away: nothing runs any more."""
        self.path.unlink(missing_ok=True)


def beats(folder: Path) -> list[Beat]:
    """All beats of a folder that can be read, by name."""
    found = []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            found.append(Beat(**json.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError):
            continue
    return found
