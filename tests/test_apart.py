"""Calls in a process of their own: what comes back, what a failure does, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stackbuild import apart as module
from stackbuild.apart import apart


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as a child of one that shares its pages."""
    monkeypatch.setattr(module, "_server", 1)


def where(*values: int) -> tuple[int, tuple[int, ...]]:
    return os.getpid(), values


def test_a_child_calls_in_a_fork_and_a_task_server_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for server, own in ((0, True), (os.getpid(), True), (1, False)):
        monkeypatch.setattr(module, "_server", server)
        process, values = apart(where, 1, 2)
        assert (process == os.getpid()) == own and values == (1, 2)


def test_an_answer_larger_than_a_pipe_comes_whole(child: None) -> None:
    assert apart(bytes, 3_000_000) == bytes(3_000_000)


def test_what_the_call_writes_to_is_gone(child: None) -> None:
    seen: list[int] = []
    assert apart(seen.append, 1) is None and seen == []


def test_an_error_is_raised_as_it_is(child: None, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        apart(divmod, 1, 0)


def killed(parent: int) -> int:
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def test_a_fork_that_is_killed_or_cannot_be_had_costs_no_answer(child: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert apart(killed, os.getpid()) == 7

    def none() -> int:
        raise BlockingIOError("no more processes")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", none)
    assert apart(where)[0] == os.getpid()
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_process_is_left_of_a_caller_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom stackbuild import apart\napart._server = 1\n"
        "def call(): Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)\napart.apart(call)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", program, str(told)])
    try:
        for _ in range(600):
            if told.exists() and told.read_text():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                caller.wait(0.1)
    finally:
        caller.kill()
        caller.wait()
    called = Path("/proc") / told.read_text() / "stat"
    for _ in range(100):
        if not called.exists() or called.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the fork outlives its caller")
