"""Peak memory of a process tree, seen while it runs: the sum of what its processes hold, and the most that one holds.

What counts is the proportional set size (a page that n processes share is an n-th of it in each), so that forked
workers are not counted twice; Linux tells it in `/proc/PID/smaps_rollup`. Peaks between two looks are missed.
"""

from __future__ import annotations

import threading
from pathlib import Path

EVERY = 0.1  # seconds between two looks; a look at a process of 1 GB takes some milliseconds


class TreeMemory(threading.Thread):
    """Looks at the descendants of a process (not at itself) until `stop`. `tree_mb`, `process_mb`: the peaks, in MB (2^20)."""

    def __init__(self, root: int):
        super().__init__(daemon=True)
        self.root = root
        self.tree_mb = self.process_mb = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(EVERY):
            held = [proportional_mb(pid) for pid in descendants(self.root)]
            self.tree_mb = max(self.tree_mb, sum(held))
            self.process_mb = max(self.process_mb, *held, 0.0)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def descendants(root: int) -> list[int]:
    """Children, their children, and so on; those that end meanwhile may be missing."""
    found, at = [root], 0
    while at < len(found):
        for path in Path(f"/proc/{found[at]}/task").glob("*/children"):
            try:
                found += [int(pid) for pid in path.read_text().split()]
            except OSError:
                continue
        at += 1
    return found[1:]


def proportional_mb(pid: int) -> float:
    """What a process holds; 0 once it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
