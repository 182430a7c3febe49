"""Following a launch and ending it: it waits no longer than there is something to wait for, and says how it ended."""

from __future__ import annotations

import fcntl
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stackbuild.build import Request
from stackbuild.errors import PartialFailure, StackbuildError, UsageError
from stackbuild.journal import began, driver_journal
from stackbuild.launches import under_way
from stackbuild.plan import Build
from stackbuild.scheduler import SchedulerError
from stackbuild.slurm import follow
from stackbuild.slurm.follow import Outcome, cancel, line_of, outcome, raise_for, wait
from stackbuild.slurm.submit import submit
from tests.slurm_units.conftest import Launched, Slurm


@pytest.fixture
def launch(slurm: Slurm, complete: Build, monkeypatch: pytest.MonkeyPatch) -> Launched:
    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(follow, "ASK_SECONDS", 0.02)
    made = Launched(slurm, complete, 5)
    driver_journal(complete.out).write(event="start", launch=made.folder.id)
    return made


def say(launch: Launched, event: str, **more: Any) -> None:
    launch.folder.events_of("05.1-gate.0.9").write(event=event, **more)


def silence(launch: Launched) -> None:
    """No job is left."""
    for number, job in launch.slurm.jobs.items():
        launch.slurm.end(number, indices=range(max(1, job["elements"])))


def test_the_end_of_a_launch_is_its_last_word(launch: Launched) -> None:
    assert outcome(launch.folder) is None
    say(launch, "end", ran=1, tasks=2, passing=0)
    found = wait(launch.folder, lambda line: None)
    assert found.state == "done"
    raise_for(found)


def test_a_failure_is_told_when_slurm_has_cleared_away_what_waited_for_it(launch: Launched) -> None:
    say(launch, "failed", message="1 of 4 tasks failed", exit_code=6)
    looks: list[float] = []
    real = follow.live_jobs

    def watched(folder: Any) -> Any:
        looks.append(time.monotonic())
        if len(looks) == 3:
            silence(launch)
        return real(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "live_jobs", watched)
        found = wait(launch.folder, lambda line: None)
    assert (found.state, found.exit_code, len(looks)) == ("failed", 6, 3)
    with pytest.raises(StackbuildError, match="1 of 4") as raised:
        raise_for(found)
    assert raised.value.exit_code == 6


def test_a_launch_of_which_no_job_is_left_and_that_said_nothing_is_lost(launch: Launched) -> None:
    silence(launch)
    found = wait(launch.folder, lambda line: None)
    assert (found.state, found.exit_code) == ("lost", 5) and launch.folder.id in found.message


def test_a_controller_that_does_not_answer_ends_nothing(launch: Launched) -> None:
    launch.slurm.order(squeue_always="fail")
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == follow.FORGOTTEN_LOOKS + 2:
            say(launch, "end", ran=1, tasks=1, passing=0)

    assert wait(launch.folder, tell).state == "done"
    assert all("told to fail" in line for line in told)


def test_a_cancelled_launch_is_told_as_such_and_ends_with_130(launch: Launched) -> None:
    assert "cancelled" in cancel(launch.build.out)
    assert launch.slurm.live == {}
    found = wait(launch.folder, lambda line: None)
    assert (found.state, found.exit_code) == ("cancelled", 130)
    with pytest.raises(UsageError, match="Nothing builds"):
        cancel(launch.build.out)


def test_a_cancel_that_failed_does_not_let_a_second_launch_in(launch: Launched) -> None:
    """Its jobs are still there: the next build ends them first, and submits nothing while it cannot."""
    out = launch.build.out
    launch.lose(5, 1)
    launch.slurm.order(scancel_always="fail")
    with pytest.raises(SchedulerError, match="told to fail"):
        cancel(out)
    first = set(launch.slurm.live)
    assert first and under_way(launch.folder)
    request = Request(launch.build.plan.recipe, Path("/"), out, 1)
    with pytest.raises(SchedulerError, match="told to fail"):
        submit(request, launch.options)
    assert set(launch.slurm.live) == first
    launch.slurm.order()
    done = submit(request, launch.options)
    assert not done.joined and set(launch.slurm.live) == set(done.jobs)


def test_inputs_that_may_come_back_make_the_build_end_with_5() -> None:
    raise_for(Outcome("done", end={"passing": 0}))
    with pytest.raises(PartialFailure, match="2 of the inputs"):
        raise_for(Outcome("done", end={"passing": 2}))


def test_nothing_to_cancel_is_a_usage_error(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        cancel(tmp_path)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any build."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


HOLD = """
import sys, time
from pathlib import Path
from stackbuild.journal import only_one
with only_one(Path(sys.argv[1]), builds=sys.argv[2] == "build"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(out: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that holds a folder."""
    command = [sys.executable, "-c", HOLD, str(out), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def old_start(out: Path, pid: int) -> None:
    """What the journal has of a run that ended long ago, and whose number another process has now."""
    driver_journal(out).write(event="start", executor="local", pid=pid, host=socket.gethostname())


def test_the_build_that_holds_the_folder_is_asked_to_end(slurm: Slurm, tmp_path: Path) -> None:
    with held(tmp_path, "build") as process:
        assert str(process.pid) in cancel(tmp_path)
        assert process.wait(30) == -signal.SIGTERM


def test_what_only_holds_the_folder_is_not_ended_nor_is_anybody_else(
    slurm: Slurm, tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    """The last start is of an old run while a build resolves its sources, and while `gc` or a submission holds the folder."""
    old_start(tmp_path, bystander.pid)
    with held(tmp_path, "gc") as process:
        with pytest.raises(UsageError, match=f"Process {process.pid} holds"):
            cancel(tmp_path)
        assert process.poll() is None and bystander.poll() is None


@pytest.mark.parametrize("change", [{"began": 1}, {"host": "elsewhere"}, {"pid": 2**22 + 1}, None])
def test_a_holder_that_is_not_known_for_sure_is_not_ended(
    slurm: Slurm, tmp_path: Path, bystander: subprocess.Popen[bytes], change: dict[str, Any] | None
) -> None:
    """Between its lock and its word, the word is of an earlier holder; an older stackbuild wrote none."""
    old_start(tmp_path, bystander.pid)
    body = {"host": socket.gethostname(), "pid": bystander.pid, "began": began(bystander.pid), "builds": True}
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(body | change) if change is not None else "")
        file.flush()
        with pytest.raises(UsageError, match="end it"):
            cancel(tmp_path)
    assert bystander.poll() is None


def test_every_event_is_told_once(launch: Launched) -> None:
    launch.tell(launch.wave, 0, "task", rank=3, status=1, cause="exception", message="boom\nand more", log="l")
    launch.tell(launch.wave, 0, "task", rank=4, status=0)
    launch.tell(launch.wave, 0, "element-end", status=85, reason="the time limit is near")
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == 2:
            say(launch, "gate", job="x", complete=3, of=4, again=2, failures=[{"cause": "killed"}])
        if len(told) == 3:
            say(launch, "end", passing=0)

    wait(launch.folder, tell)
    assert len(told) == 3
    assert told[0].endswith("task 3, attempt 1: exception: boom") and "goes on in a new attempt" in told[1]
    assert told[2] == "x: 1 of 4 tasks failed (killed); tried again as wave 2"


@pytest.mark.parametrize(
    "body", [{"event": "element"}, {"event": "job-end"}, {"event": "end"}, {"event": "failed", "message": "x"}]
)
def test_events_that_are_nobodys_news_are_no_line(body: dict[str, Any]) -> None:
    assert line_of(json.loads(json.dumps(body))) == ""
