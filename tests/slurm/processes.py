"""Processes of this machine as /proc tells of them: whose they are, whether they live, and their end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environ(pid: int) -> set[str]:
    """A process's first environment; a dead one has none."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0"))
    except OSError:
        return set()


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def files(pid: int) -> set[str]:
    """Paths of what a process holds open."""
    found = set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(entry.path))
    return found


def with_children(pids: set[int]) -> set[int]:
    """These processes and all below them."""
    parents: dict[int, list[int]] = {}
    for pid in processes():
        with suppress(OSError, IndexError, ValueError):
            # The name in the second field may hold blanks and brackets.
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(pid)
    todo, found = list(pids), set(pids)
    while todo:
        new = [child for child in parents.get(todo.pop(), ()) if child not in found]
        found.update(new)
        todo.extend(new)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def kill_all(which: Callable[[], set[int]]) -> None:
    """Kill these processes until none is found: one may fork between the listing and the signal."""
    for _ in range(100):
        left = {pid for pid in which() if alive(pid)} - {os.getpid()}
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    raise RuntimeError(f"processes that do not die: {left}")
