"""Why an element ended: its own last attempt counts, and nothing that others or earlier attempts wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackbuild import scheduler
from stackbuild.launches import ATTEMPT, LaunchFolder, Submitted, Wave
from stackbuild.monitor import failures
from stackbuild.slurm.ends import ElementEnd, ends_of
from tests.slurm_units.conftest import Slurm

WAVE = Wave(5, 5, 1, "05-job", 1, 2, 10**9, 10**9, "01:00:00")
MEMORY = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=15.batch.\n"
CANCELLED = "slurmstepd: error: *** JOB 15 ON n1 CANCELLED AT 2026-01-01T10:00:00 DUE TO JOB REQUEUE ***\n"
NODE = "slurmstepd: error: *** JOB 15 ON n1 CANCELLED AT 2026-01-01T10:00:00 DUE TO NODE FAILURE, SEE LOG ***\n"


class One:
    """An element that has ended as FAILED, which says nothing of why."""

    def __init__(self, slurm: Slurm, out: Path):
        self.folder = LaunchFolder(out, "20260101-000000-abcd")
        for path in (self.folder.logs, self.folder.path / "events"):
            path.mkdir(parents=True)
        script = f"#!/bin/bash\n#SBATCH --job-name={self.folder.prefix}{WAVE.name}\n#SBATCH --array=0-0\n"
        self.array = scheduler.sbatch(script, ["--hold"])
        self.folder.note(Submitted(self.array, "array", 5, 1))
        slurm.end(self.array, "FAILED")

    def log(self, name: str, text: str) -> Path:
        path = self.folder.logs / name
        path.write_text(text)
        return path

    def slurms_log(self, text: str) -> None:
        self.log(f"{self.array}_0.out", text)

    def says(self, restart: int, status: int) -> None:
        told = {"job": "05-job", "number": 5, "wave": 1, "element": 0, "restart": restart}
        journal = self.folder.events_of(f"05.1-0.{restart}.7")
        journal.write(event="element", **told)
        journal.write(event="element-end", **told, status=status, reason="its reason")

    @property
    def end(self) -> ElementEnd:
        return ends_of(self.folder, WAVE)[0]


@pytest.fixture
def one(slurm: Slurm, tmp_path: Path) -> One:
    return One(slurm, tmp_path / "out")


def test_an_elements_own_last_log_counts_and_not_its_task_servers(one: One) -> None:
    one.log("05.1-0.10.server.log", MEMORY)
    assert (one.end.cause, one.end.log) == ("killed", str(one.folder.logs / f"{one.array}_0.out"))
    one.log("05.1-0.9.log", CANCELLED)
    own = one.log("05.1-0.10.log", NODE)
    assert (one.end.cause, one.end.log) == ("node_lost", str(own))


def test_the_log_of_another_element_of_that_beginning_does_not_count(one: One) -> None:
    own = one.log("05.1-0.0.log", "")
    one.log("05.1-01.0.log", MEMORY)
    assert (one.end.cause, one.end.log) == ("killed", str(own))


def test_an_element_that_could_not_begin_is_refused_in_the_words_of_its_log(one: One) -> None:
    one.slurms_log(f"{ATTEMPT}0\n")
    one.log("05.1-0.0.log", "stackbuild: cannot begin: node n3 cannot run /opt/env/bin/python\n")
    assert (one.end.cause, one.end.reason) == ("refused", "node n3 cannot run /opt/env/bin/python")


@pytest.mark.parametrize("words", [MEMORY, CANCELLED, NODE])
def test_what_ended_an_earlier_attempt_did_not_end_the_last(one: One, words: str) -> None:
    """Slurm's own log is one for all attempts, and each that was requeued left words in it."""
    one.slurms_log(f"{ATTEMPT}0\n{words}{ATTEMPT}1\n")
    assert one.end.cause == "killed"
    one.slurms_log(f"{ATTEMPT}0\n{words}{ATTEMPT}1\n{MEMORY}")
    assert one.end.cause == "out_of_memory"


def test_the_log_of_an_attempt_that_did_not_come_so_far_as_its_mark_counts_whole(one: One) -> None:
    one.slurms_log(NODE)
    assert one.end.cause == "node_lost"


@pytest.mark.parametrize(
    ("status", "cause"),
    [(3, "refused"), (4, "refused"), (6, "refused"), (7, "refused"), (70, "exception"), (75, "temporary")],
)
def test_a_reason_that_it_said_itself_counts_before_the_words_of_a_log(one: One, status: int, cause: str) -> None:
    """The kernel may have ended a child of it, whose task was then tried again."""
    one.says(0, status)
    one.slurms_log(f"{ATTEMPT}0\n{MEMORY}")
    assert (one.end.cause, one.end.status, one.end.reason) == (cause, status, "its reason")


@pytest.mark.parametrize(("status", "cause"), [(5, "killed"), (85, "time_limit"), (86, "time_limit"), (1, "exception")])
def test_a_status_that_leaves_open_why_is_explained_by_the_log_first(one: One, status: int, cause: str) -> None:
    """Whoever is sent TERM before a node is taken away ends as at a time limit."""
    one.says(0, status)
    assert one.end.cause == cause
    one.slurms_log(f"{ATTEMPT}0\n{NODE}")
    assert one.end.cause == "node_lost"


def test_the_end_of_a_log_is_read_even_if_it_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert failures.tail(str(path)) == ""
    path.write_bytes(b"x" * 50_000 + b"\xff oom-kill")
    said = failures.tail(str(path))
    assert said.endswith("oom-kill") and len(said) <= failures.TAIL_BYTES
