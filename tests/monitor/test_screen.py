"""What is shown, of a launch and of a run that a driver looks after."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stackbuild.beats import Beat, Heart
from stackbuild.cli import status as screen
from stackbuild.cli.plan import shown
from stackbuild.journal import driver_journal
from stackbuild.monitor import elements
from stackbuild.monitor.progress import BuildStatus, JobStatus
from stackbuild.pool import Ended, Pool, Running, TaskSpec
from stackbuild.retries import Cause, Failure
from stackbuild.status import Look, status_of
from tests.monitor.launched import Launch, Nobody, counts, text_of


def test_the_state_is_on_the_screen_however_narrow(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.beat(1, 0, [0, 1])
    for width in (80, 100, 200):
        lines = text_of(launch.out, width).splitlines()
        [first] = [number for number, line in enumerate(lines) if line.startswith("next:")]
        assert all(len(line) <= width for line in lines[:first])
        assert any(line.rstrip().endswith("running") for line in lines), width


def test_a_screen_that_is_watched_fits_the_terminal(launch: Launch) -> None:
    for number in (1, 2, 3):
        launch.run_whole(number)
    launch.begin(4, 0)
    launch.beat(4, 0, [0])
    whole = text_of(launch.out, 120, 24).splitlines()
    assert len(whole) <= 24 and any("decode" in line or "next:" in line for line in whole)
    small = text_of(launch.out, 120, 12).splitlines()
    assert len(small) <= 12 and any(line.startswith("3 jobs") for line in small) and "next:" in small[-1]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_to_be_copied_or_read_to_its_end_is_never_cut_or_broken(launch: Launch, terminal: bool) -> None:
    launch.begin(1, 0)
    words = "/" + "long/" * 40 + "python: No such file or directory"
    launch.task(1, 0, 0, cause=Cause.REFUSED, message="no")
    log = Path(status_of(launch.out).failures[0]["log"])
    log.write_text(words)
    lines = text_of(launch.out, 60, terminal=terminal).splitlines()
    assert f"    | {words}" in lines and f"    {log}" in lines
    assert f"next: stackbuild logs {launch.out} --failed" in lines
    assert terminal or any(line.startswith("failed: ") and line.endswith(": no") for line in lines)


def test_failures_of_one_reason_are_told_once(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.begin(1, 1)
    launch.gate(1, 1, [Failure(rank, "SIGTERM", 5, "x.log", Cause.CANCELLED) for rank in (0, 1, 3)])
    shown = text_of(launch.out)
    assert shown.count("SIGTERM") == 1 and "2 more, for the same reason" in shown


def test_names_of_strangers_do_not_draw_on_the_terminal(launch: Launch) -> None:
    launch.begin(1, 0, node="n\x1b[1m1")
    launch.beat(1, 0, [0], where="a\x1b[2J\u202e.py")
    launch.task(1, 0, 1, cause=Cause.REFUSED, message="bad \x07 file \u202e")
    shown = text_of(launch.out)
    assert not any(char in shown for char in "\x1b\x07\u202e") and "\\u202e" in shown
    lines = [line for _, line in screen.changes(status_of(launch.out))]
    assert not any(char in line for line in lines for char in "\x1b\x07\u202e\n")


def test_without_a_terminal_a_watcher_gets_a_line_for_each_change(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: Iterator[Any] = iter(
        [
            lambda: launch.begin(1, 0),
            lambda: launch.task(1, 0, 0),
            lambda: None,
            lambda: launch.task(1, 0, 1, cause=Cause.DISK, message="no space left"),
            lambda: launch.folder.mark("cancelled"),
        ]
    )
    monkeypatch.setattr(screen, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(elements, "ASK_SECONDS", 0.0)
    look = Look(launch.out)
    real = look.status

    def status() -> BuildStatus:
        next(steps)()
        return real()

    monkeypatch.setattr(look, "status", status)
    assert screen.follow(launch.out, look, real(), as_json=False).state == "cancelled"
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "1 of 4 tasks done" in line and "failed" not in line and "stopped" not in line][
        1:
    ] == []
    assert sum("no space left" in line for line in lines) == 1 and lines[-1].startswith("next:")


def test_on_a_terminal_a_watcher_sees_the_screen_until_the_end(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.beat(1, 0, [0])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "stackbuild", "status", str(launch.out), "--watch"]
    environment = {**os.environ, "COLUMNS": "100", "LINES": "40", "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # what a terminal says when nobody is at its other end
        while data := os.read(ours, 1 << 16):
            said += data
            if b"decode, rows 1 to 2" in said:
                launch.folder.mark("cancelled")
    os.close(ours)
    assert process.wait() == 130
    assert b"running on Slurm" in said and b"cancelled on Slurm" in said and said.count(b"next:") >= 2


def test_json_has_all_of_it_and_the_same_keys_for_a_local_run(
    built: Path, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch.begin(1, 0)
    launch.beat(1, 0, [0])
    found = []
    for out in (built, launch.out):
        screen.tell(out, status_of(out), as_json=True)
        found.append(json.loads(capsys.readouterr().out))
    local, cluster = found
    assert set(local) == set(cluster) >= {"state", "jobs", "failures", "executor", "launch", "notes", "publish", "next"}
    assert set(local["jobs"][0]) == set(cluster["jobs"][0]) and local["executor"] == "local"
    assert cluster["jobs"][1]["at_work"][0]["where"] == "decode, rows 1 to 2"


def test_a_local_run_under_way_shows_what_its_driver_tells(out: Path) -> None:
    journal = driver_journal(out)
    journal.write(event="start", plan="p", executor="local", workers=2, pid=1)
    journal.write(event="job", job="00-ingest", shard_jobs=["00-ingest"], tasks=9, cached=2)
    for rank in range(3):
        journal.write(**Ended(rank, 1, 0, cpu=1.0, wall=4.0, rows=10, bytes=100).event("00-ingest"))
    failure = Failure(3, "E: no", 5, "", Cause.EXCEPTION)
    journal.write(**Ended(3, 1, 1, wall=1.0, failure=failure).event("00-ingest"))
    pool = Pool(Nobody(), 2, out)
    pool.running[3] = Running(TaskSpec(3, {}), 2, out, {"rows": 7, "wall": 1.0, "where": "a.py"})
    Heart(out / "launches" / "beats" / "driver.json", Beat("driver", "00-ingest", 7)).tick(pool)
    with open(out / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = status_of(out)
        assert status.state == "running" and not status.failures  # it is tried again
        assert counts(status.jobs[0]) == (9, 5, 1, 3, 0)
        assert status.jobs[0].retries == 1 and status.jobs[0].eta and status.jobs[0].rows == 37
        assert "a.py" in text_of(out)
    status = status_of(out)
    assert status.state == "failed" and counts(status.jobs[0]) == (9, 5, 0, 3, 1) and not status.jobs[0].at_work


def test_jobs_without_tasks_are_told_together() -> None:
    """Of the 64 levels of a walk most find nobody standing."""
    levels = [JobStatus(f"00-swh.level-{k:02d}", 2 if k < 3 else 0, state="done") for k in range(64)]
    console = Console(width=100, file=(shown_text := io.StringIO()))
    console.print(screen.table_of(levels, 100, None))
    lines = [line for line in shown_text.getvalue().splitlines() if "done" in line]
    assert [line.split()[0] for line in lines] == ["swh.level-00", "swh.level-01", "swh.level-02", "61"]
    assert "61 without tasks" in lines[-1]


def test_a_plan_shows_jobs_that_differ_in_their_number_only_as_one() -> None:
    jobs = [{"job": f"00-swh.level-{k:02d}", "tasks": None, "complete": 0} for k in range(64)]
    jobs += [{"job": f"00-swh.follow-{k}", "tasks": 2, "complete": int(k < 2)} for k in range(3)]
    assert list(shown(jobs)) == [
        ("swh.level-00 … -63", "from its input", "0"),
        ("swh.follow-0 … -1", "2", "1"),
        ("swh.follow-2", "2", "0"),
    ]
