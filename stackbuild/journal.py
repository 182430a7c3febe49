"""OUT/launches: what was started and how it ended, one JSON object a line, and where logs are; and OUT/.lock, which a driver
holds and which says who that is.

The driver writes journal.jsonl and nobody else does. What runs on a cluster writes below `launches/<id>/events`, a file for
each writer, because appends of several machines to one file get lost.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from stackbuild.errors import StackbuildError, UsageError, command

GLANCE_SECONDS = 0.5  # who only looks whether a folder is held has its lock for a moment
# What says that another has the lock, flock(2) and fcntl(2); any other error says that nobody can have one here.
HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)


class Journal:
    """A file of events that this process alone appends to."""

    def __init__(self, path: Path):
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, flush: bool = False, **event: Any) -> None:
        """Append an event with its time; `flush`: it is on disk when this returns."""
        line = json.dumps({"time": round(time.time(), 6), **event}).encode() + b"\n"
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


def log_folder(logs: Path, job: str) -> Path:
    """Where below LOGS the logs of a job's tries are: in a folder of its name. That of many row stages is longer than a name may
    be (255 bytes); it is cut, and a digest tells it from others that begin so."""
    if len(name := job.encode()) > 255:
        job = f"{name[:200].decode(errors='ignore')}~{hashlib.sha256(name).hexdigest()[:8]}"
    return logs / job


@dataclass(frozen=True)
class Holder:
    """Who holds an output folder. `began`: when its process did, in ticks since the machine's start, for a process's number is
    another's later. `builds`: it runs the tasks of a build, and SIGTERM may end it."""

    host: str
    pid: int
    began: int
    builds: bool


@contextmanager
def only_one(out: Path, wait: float = 0.0, builds: bool = False) -> Iterator[None]:
    """Hold the output folder: two drivers at once would do the same work twice. `wait`: seconds to wait for another. `builds`:
    see `Holder`. UsageError if the folder can be no output folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} is not a folder and cannot be made one: {error.strerror}.") from error
    try:
        lock = open(out / ".lock", "a+b")  # noqa: SIM115  closed below
    except OSError as error:
        raise UsageError(f"{out} cannot be written to ({error.strerror}); whose is it?") from error
    with lock as file:
        deadline = time.monotonic() + max(wait, GLANCE_SECONDS)
        while not took(file, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise StackbuildError(
                    f"Another stackbuild is building {out}; wait for it, or see `{command('stackbuild', 'status', out)}`."
                )
            time.sleep(min(1.0, max(wait, GLANCE_SECONDS / 10)))
        me = Holder(socket.gethostname(), os.getpid(), began(os.getpid()), builds)
        with suppress(OSError):  # a full disk must not keep anybody from making room
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps(asdict(me)).encode())
        yield


def took(file: IO[bytes], kind: int) -> bool:
    """Take a lock of an open file; False if another has it, UsageError if the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        raise UsageError(
            f"The file system of {file.name} has no locks ({error.strerror}), so nothing can keep two builds apart there. Give an "
            "output folder on another one, or have it mounted with them (Lustre: -o flock; NFS: with its lock service)."
        ) from error
    return True


def holder(out: Path) -> Holder | None:
    """Who wrote last that it holds a folder, which it need not do any more; None if nobody did."""
    try:
        return Holder(**json.loads((out / ".lock").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def began(pid: int) -> int:
    """When a process of this machine began, in clock ticks since the machine's start (proc(5), stat, field 22); 0 if there is
    none of that number."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
