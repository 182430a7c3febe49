"""The task server: nobody is left behind when the driver dies, and what a task holds is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stackbuild import beacon, memory
from stackbuild.retries import Cause, explain, no_room
from stackbuild.server import Child, Server, run_child
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


def test_a_module_in_the_folder_where_the_command_is_typed_is_not_taken_for_anothers(tmp_path: Path) -> None:
    root, away = world(tmp_path / "world", repos=1, files=2), tmp_path / "away"
    away.mkdir()
    (away / "secrets.py").write_text("raise SystemExit('not the standard library')")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(light(root)))
    script = SCRIPT.replace("json.loads(sys.argv[1])", "json.loads(Path(sys.argv[1]).read_text())")
    subprocess.run([sys.executable, "-P", "-c", script, str(recipe), str(tmp_path / "out")], cwd=away, check=True)


class Usage:
    ru_maxrss, ru_utime, ru_stime = 1, 0.0, 0.0


def test_a_task_that_the_kernel_killed_for_memory_is_told_so_whoever_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two children are gone at once, and only one of them by the kernel's hand: the other must not use up its kill."""
    told: list[dict[str, Any]] = []
    kills = iter([0, 1, 1, 1])
    monkeypatch.setattr(memory, "kernel_kills", lambda: next(kills, 1))
    server = Server.__new__(Server)
    server.children = {pid: Child(rank, "", beacon.page(), 0, 0.0) for rank, pid in enumerate((7, 8, 9))}
    server._kills = memory.kernel_kills()
    ends = iter([(7, 0, Usage()), (8, signal.SIGKILL, Usage()), (9, signal.SIGKILL, Usage())])
    monkeypatch.setattr(os, "wait4", lambda *_: next(ends, (0, 0, None)))
    monkeypatch.setattr(server, "answer", lambda **words: told.append(words))
    server.reap()
    assert [(one["ended"], one["out_of_memory"]) for one in told] == [(0, False), (1, True), (2, False)]


def test_the_journal_tells_what_a_task_held_beyond_the_server(tmp_path: Path) -> None:
    from tests.test_build import run

    run(light(world(tmp_path / "world", repos=1, files=2)), tmp_path / "out")
    tasks = [json.loads(line) for line in (tmp_path / "out" / "launches" / "journal.jsonl").read_text().splitlines()]
    tasks = [event for event in tasks if event["event"] == "task"]
    assert tasks and all(0 <= event["private"] < event["memory"] for event in tasks)


def test_a_child_that_finds_no_room_says_so_by_its_status_when_it_cannot_write_it_down(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    (tmp_path / "task.log.error").symlink_to("/dev/full")
    status = run_child(None, None, {"log": str(log), "run": 0, "params": {}, "how": {}})
    (tmp_path / "task.log.error").unlink()  # to be read it is endless
    assert explain(0, status, log).cause is Cause.DISK


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), OSError("[Errno 122] Error writing bytes to file. Disk quota exceeded")],
)
def test_no_room_is_known_however_it_is_told(error: OSError) -> None:
    try:
        try:
            raise error
        except OSError as cause:
            raise ValueError("could not be written") from cause
    except ValueError as told:
        assert no_room(told)
    assert not no_room(ValueError("no space left on device"))
