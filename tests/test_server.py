"""The task server: nobody is left behind when the driver dies, and what a task holds is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.worlds import light, world

SCRIPT = (
    "import json, sys; from pathlib import Path; from stackbuild import build as b\n"
    "if __name__ == '__main__': b.run(b.Request(json.loads(sys.argv[1]), Path('/'), Path(sys.argv[2]), 2))"
)


def processes_of(out: Path) -> list[int]:
    """Processes in whose command line a folder stands: the driver, its task server and the server's children."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if os.fsencode(out) in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_driver_is_killed_nobody_is_left(tmp_path: Path, number: int) -> None:
    root = world(tmp_path / "world", repos=2, files=4)
    out = tmp_path / "out"
    driver = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(light(root)), str(out)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(processes_of(out)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(processes_of(out)) >= 2
    os.kill(driver.pid, number)
    driver.wait()
    deadline = time.monotonic() + 20
    while processes_of(out) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(out) == []


def test_the_journal_tells_what_a_task_held_beyond_the_server(tmp_path: Path) -> None:
    from tests.test_build import run

    run(light(world(tmp_path / "world", repos=1, files=2)), tmp_path / "out")
    tasks = [json.loads(line) for line in (tmp_path / "out" / "launches" / "journal.jsonl").read_text().splitlines()]
    tasks = [event for event in tasks if event["event"] == "task"]
    assert tasks and all(0 <= event["private"] < event["memory"] for event in tasks)
