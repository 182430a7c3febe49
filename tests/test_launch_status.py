"""The status of a launch on a cluster: its folder is written as elements and gates write it, Slurm is a queue that answers."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stackbuild.beats import STALE_SECONDS, Beat, Heart
from stackbuild.cli import main
from stackbuild.cli import status as screen
from stackbuild.cluster import SlurmOptions
from stackbuild.errors import InputError
from stackbuild.journal import driver_journal
from stackbuild.launches import Frozen, LaunchFolder, Submitted, Wave
from stackbuild.monitor import elements
from stackbuild.monitor.elements import seconds
from stackbuild.monitor.progress import AtWork, BuildStatus, JobStatus, Tally, quantile, working
from stackbuild.pool import Ended, Pool, Running, TaskSpec
from stackbuild.retries import Cause, Failure
from stackbuild.slurm.gate import Gate, failed
from stackbuild.status import Look, opened, status_of
from tests.test_build import run
from tests.test_status import exit_of
from tests.worlds import light, world

TASKS = 4  # of each job


class Nobody:
    """What a pool that runs nothing gives its tasks to."""

    def job(self, name: str) -> None: ...
    def start(self, spec: TaskSpec, how: Any, log: Path) -> None: ...
    def wait(self, seconds: float | None = None) -> list[dict[str, Any]]:
        return []


class Launch:
    """A launch under way: five jobs of four tasks, told by the writers that a real one has."""

    def __init__(self, out: Path, path: Path, last: int = 0):
        self.out, self.bin, self.lines = out, path, path / "squeue.txt"
        self.jobs = opened(out).jobs[:5]
        self.folder = LaunchFolder(out, "20260101-000000-abcd")
        driver_journal(out).write(event="start", plan="p", executor="slurm", launch=self.folder.id, pid=1)
        names = [job.name for job in self.jobs]
        settings = SlurmOptions().model_dump(mode="json")
        tasks = dict.fromkeys(names[1:], TASKS)
        self.folder.freeze(Frozen(self.folder.id, "p", "plans/p.json", "c", settings, names, {names[0]: 3}, tasks))
        body = json.loads((out / "build.json").read_bytes())
        (out / "build.json").write_text(json.dumps({**body, "complete": False}))
        self.queued: dict[tuple[str, int | None], list[str]] = {}
        self.slurm_id = 100
        self.arrays: dict[tuple[int, int], str] = {}
        for number in range(1, 5):
            if number == 1 or number > last:
                chain = max(last, number) if number == 1 else number
                self.submit(number, last=chain, size=1 if chain > number else 2)
        self.note(Submitted("900", "publish", 5, 1), "publish")
        self.folder.mark("released")

    def submit(
        self, number: int, wave: int = 1, last: int | None = None, ranks: list[int] | None = None, size: int = 2
    ) -> Wave:
        """An array of elements, and its gate."""
        name = self.jobs[number].name
        made = Wave(number, last or number, wave, name, size, 2, 10**9, 10**9, "01:00:00", ranks)
        self.folder.add_wave(made)
        self.slurm_id += 2
        self.arrays[number, wave] = str(self.slurm_id)
        self.note(Submitted(str(self.slurm_id), "array", number, wave, 0, size), made.name)
        self.note(Submitted(str(self.slurm_id + 1), "gate", number, wave), f"{made.name}-gate")
        return made

    def note(self, one: Submitted, what: str) -> None:
        self.folder.note(one)
        for index in range(one.elements) if one.kind == "array" else [None]:
            self.slurm_says(one.slurm, index, "PENDING", "Dependency", name=what)

    # ------------------------------------------------------------ Slurm

    def slurm_says(self, array: str, index: int | None, state: str, reason: str = "None", node: str = "", elapsed: str = "1:00",
                   name: str | None = None) -> None:  # fmt: skip
        before = self.queued.get((array, index), [""] * 8)
        full = f"{self.folder.prefix}{name}" if name else before[3]
        identity = array if index is None else f"{array}_{index}"
        self.queued[array, index] = [
            identity,
            array,
            "N/A" if index is None else str(index),
            full,
            state,
            reason,
            node,
            elapsed,
        ]
        self.lines.write_text("".join("|".join(line) + "\n" for line in self.queued.values()))

    def element_is(
        self, number: int, element: int, state: str, reason: str = "None", wave: int = 1, **more: str
    ) -> None:
        self.slurm_says(self.arrays[number, wave], element, state, reason, **more)

    def all_are(self, state: str, reason: str = "None") -> None:
        for array, index in list(self.queued):
            self.slurm_says(array, index, state, reason)

    def forget(self) -> None:
        """The queue knows nothing of the launch any more."""
        self.queued.clear()
        self.lines.write_text("")

    # ------------------------------------------------------------ what elements and gates tell

    def begin(self, number: int, element: int, tasks: int = 2, cached: int = 0, wave: int = 1, restart: int = 0, node: str = "n1",
              host: int | None = None) -> None:  # fmt: skip
        self.element_is(host or number, element, "RUNNING", wave=wave, node=node)
        self.told(number, element, wave, restart, host).write(
            event="element", **self.place(number, element, wave), of=2, tasks=tasks, cached=cached, node=node, slurm="7",
            restart=restart, pid=os.getpid(),
        )  # fmt: skip

    def task(
        self,
        number: int,
        element: int,
        rank: int,
        wave: int = 1,
        restart: int = 0,
        host: int | None = None,
        **more: Any,
    ) -> None:
        """A try that ended; `cause`: it failed of this."""
        cause, status = more.pop("cause", None), 0
        log = self.folder.logs / self.jobs[number].name / f"{rank:05d}.{wave}.7.{restart}.1.log"
        if cause:
            status = 1
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("one line\nlast words\x1b[2J\n")
            more["failure"] = Failure(rank, more.pop("message", "no good"), 5, str(log), cause)
        one = Ended(
            rank, more.pop("attempt", 1), status, **{"cpu": 1.0, "wall": 2.0, "rows": 10, "bytes": 1000, **more}
        )
        event = {**one.event(self.jobs[number].name), **self.place(number, element, wave)}
        self.told(number, element, wave, restart, host).write(**event)

    def end(self, number: int, element: int, status: int = 0, reason: str = "", wave: int = 1, restart: int = 0,
            host: int | None = None) -> None:  # fmt: skip
        place = self.place(number, element, wave)
        journal = self.told(number, element, wave, restart, host)
        journal.write(event="element-end", **place, restart=restart, status=status, reason=reason)

    def place(self, number: int, element: int, wave: int) -> dict[str, Any]:
        return {"job": self.jobs[number].name, "number": number, "wave": wave, "element": element}

    def told(self, number: int, element: int, wave: int, restart: int, host: int | None) -> Any:
        return self.folder.events_of(f"{host or number:02d}.{wave}-{element}.{restart}.7")

    def beat(self, number: int, element: int, ranks: Sequence[int], wave: int = 1, age: float = 0.0, host: int | None = None,
             **said: Any) -> None:  # fmt: skip
        name = f"{host or number:02d}.{wave}-{element}"
        pool = Pool(Nobody(), 2, self.folder.logs)
        for rank in ranks:
            where = {
                "rank": rank,
                "rows": 5,
                "bytes": 500,
                "where": "decode, rows 1 to 2",
                "memory": 10**6,
                "wall": 3.0,
            }
            pool.running[rank] = Running(TaskSpec(rank, {}), 1, Path("log"), {**where, **said})
        heart = Heart(self.folder.beats / f"{name}.json", Beat(name, self.jobs[number].name, 2, node="n1", limit=10**9))
        heart.tick(pool)
        if age:
            body = json.loads(heart.path.read_bytes())
            heart.path.write_text(json.dumps({**body, "time": body["time"] - age}))

    def gate(
        self, number: int, complete: int, failures: Sequence[Failure] = (), again: Wave | None = None, wave: int = 1
    ) -> None:
        """What the gate of a wave says, and what follows from it in the queue."""
        mine = self.folder.wave(self.folder.wave_path(number, wave))
        writer = f"{mine.name}-gate.0.7"
        Gate(self.folder, mine, writer, self.folder.events_of(writer))._told(
            self.jobs[number], number, complete, TASKS, failures, again
        )
        array = self.arrays[number, wave]
        for element in range(2):
            self.slurm_says(array, element, "COMPLETED")
        self.slurm_says(str(int(array) + 1), None, "COMPLETED" if again or not failures else "FAILED")

    def job(self, number: int) -> JobStatus:
        return status_of(self.out).jobs[number]

    def run_whole(self, number: int) -> None:
        """A job from its beginning to its end."""
        for element in range(2):
            self.begin(number, element)
            for rank in (2 * element, 2 * element + 1):
                self.task(number, element, rank)
            self.end(number, element)
        self.gate(number, TASKS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = world(tmp_path_factory.mktemp("world"), repos=1, files=2)
    out = tmp_path_factory.mktemp("built") / "out"
    run(light(root, stages=["exact_dedup", "decode", "languages"], partitions=2), out)
    return out


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that answer as Slurm's would: the queue is a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "scontrol", "scancel", "squeue"):
        (folder / name).write_text(
            f"#!/bin/bash\n{'cat ' + str(folder / 'squeue.txt') if name == 'squeue' else 'exit 1'}\n"
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def launch(out: Path, path: Path) -> Launch:
    return Launch(out, path)


@pytest.fixture
def no_slurm(path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """The launch, seen from a machine without Slurm."""
    monkeypatch.setenv("PATH", str(path.parent / "nothing"))
    return launch


def text_of(out: Path, width: int = 120, height: int | None = None) -> str:
    """What the screen shows."""
    console = Console(file=io.StringIO(), width=width, height=height or 100, force_terminal=False)
    status = status_of(out)
    console.print(screen.view(out, status, console, fit=height is not None))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def counts(job: JobStatus) -> tuple[int, int, int, int, int]:
    assert job.tasks == job.done + job.running + job.pending + job.failed and job.done == job.cached + job.ran
    return job.tasks, job.done, job.running, job.pending, job.failed


# ---------------------------------------------------------------- how far it is


def test_a_launch_in_the_queue_of_which_nothing_began_waits(launch: Launch) -> None:
    for element in range(2):
        launch.element_is(1, element, "PENDING", "Priority")
    status = status_of(launch.out)
    assert (status.state, status.executor, status.launch) == ("waiting", "slurm", launch.folder.id)
    assert [job.state for job in status.jobs] == ["done", "pending", "waiting", "waiting", "waiting"]
    assert "Priority (others come first)" in status.jobs[1].reason and launch.jobs[1].name in status.jobs[2].reason
    assert status.exit_code == 0 and "--watch" in status.next[0] and status.publish == "waiting"


def test_tasks_are_counted_from_what_elements_found_complete_ended_and_have_at_work(launch: Launch) -> None:
    launch.begin(1, 0, tasks=2, cached=1)
    launch.beat(1, 0, [1])
    assert counts(launch.job(1)) == (TASKS, 1, 1, 2, 0)
    launch.begin(1, 1, tasks=3)  # now all have begun, and how many tasks there are is known
    launch.task(1, 1, 2)
    launch.task(1, 1, 3, more=True)  # a part of it
    status = status_of(launch.out)
    assert status.state == "running" and counts(status.jobs[1]) == (5, 2, 1, 2, 0)
    assert (status.jobs[1].cached, status.jobs[1].ran, status.jobs[1].state) == (1, 1, "running")
    assert (status.jobs[1].rows, status.jobs[1].bytes) == (25, 2500)
    launch.beat(1, 0, [1], wall=1.0)
    launch.task(1, 0, 1)  # it ended after the beat
    assert counts(launch.job(1)) == (5, 3, 0, 2, 0)
    assert not status.jobs[1].at_work[0].straggler and status.jobs[1].at_work[0].where == "decode, rows 1 to 2"


def test_a_job_some_of_whose_tasks_were_complete_at_submission_counts_them(launch: Launch) -> None:
    launch.folder.wave_path(1, 1).unlink()
    launch.folder.add_wave(Wave(1, 1, 1, launch.jobs[1].name, 2, 2, 10**9, 10**9, "1", ranks=[1, 3]))
    launch.begin(1, 0, tasks=1)
    launch.task(1, 0, 1)
    job = launch.job(1)
    assert counts(job) == (TASKS, 3, 0, 1, 0) and (job.cached, job.ran) == (2, 1)


def test_a_job_is_done_when_its_gate_says_so_and_the_launch_when_all_is_published(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.task(1, 0, 0)
    launch.task(1, 0, 1)
    launch.end(1, 0)
    launch.begin(1, 1)
    launch.task(1, 1, 2)
    launch.task(1, 1, 3)
    launch.end(1, 1)
    job = launch.job(1)
    assert counts(job) == (TASKS, TASKS, 0, 0, 0) and job.state == "running" and "gate" in job.reason
    launch.gate(1, TASKS)
    assert launch.job(1).state == "done"
    for number in (2, 3, 4):
        launch.run_whole(number)
    launch.slurm_says("900", None, "RUNNING")
    status = status_of(launch.out)
    assert status.state == "running" and status.publish == "running"
    launch.folder.events_of("publish.0.7").write(event="end", plan="p", ran=16, tasks=19)
    body = json.loads((launch.out / "build.json").read_bytes())
    (launch.out / "build.json").write_text(json.dumps({**body, "complete": True}))
    status = status_of(launch.out)
    assert status.state == status.publish == "done" and all(job.state == "done" for job in status.jobs)
    assert exit_of("status", launch.out)[0] == 0


def test_an_attempt_counts_anew_and_what_failed_in_the_one_before_is_not_failed(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.task(1, 0, 0)
    for attempt in (1, 2, 3):
        launch.task(1, 0, 1, cause=Cause.EXCEPTION, attempt=attempt)
    assert counts(launch.job(1)) == (TASKS, 1, 0, 2, 1) and len(status_of(launch.out).failures) == 1
    launch.element_is(1, 0, "PENDING", "BeginTime")  # its node is lost
    status = status_of(launch.out)
    assert counts(status.jobs[1]) == (TASKS, 1, 0, 3, 0) and not status.failures
    assert status.jobs[1].state == "pending" and status.jobs[1].requeues == 1
    launch.begin(1, 0, cached=1, restart=1, node="n2")
    launch.beat(1, 0, [1])
    status = status_of(launch.out)
    assert counts(status.jobs[1]) == (TASKS, 1, 1, 2, 0) and status.jobs[1].requeues == 1
    launch.end(1, 0, status=0, restart=0)  # the first attempt, on a node that was cut off, says its last word late
    assert status_of(launch.out).jobs[1].elements == {"running": 1, "waiting": 1}


def test_a_failure_is_one_when_its_tries_are_used_up(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.task(1, 0, 0, cause=Cause.EXCEPTION)
    assert counts(launch.job(1)) == (TASKS, 0, 0, 4, 0) and launch.job(1).retries == 1
    launch.task(1, 0, 1, cause=Cause.DISK)
    assert counts(launch.job(1)) == (TASKS, 0, 0, 3, 1)


def test_tasks_of_a_further_wave_are_not_failed(launch: Launch) -> None:
    for element in range(2):
        launch.begin(1, element)
        launch.task(1, element, 2 * element)
        for attempt in (1, 2):
            launch.task(1, element, 2 * element + 1, cause=Cause.MEMORY, attempt=attempt)
        launch.end(1, element, status=5, reason="1 of 2 tasks failed")
    assert counts(launch.job(1)) == (TASKS, 2, 0, 0, 2)
    second = replace(launch.folder.wave(launch.folder.wave_path(1, 1)), wave=2, ranks=[1, 3])
    launch.gate(1, 2, [Failure(rank, "out of memory", 5, "", Cause.MEMORY) for rank in (1, 3)], second)
    job = launch.job(1)
    assert counts(job) == (TASKS, 2, 0, 2, 0) and job.state == "pending" and "2 tasks" in job.reason
    launch.submit(1, 2, ranks=[1, 3])
    launch.begin(1, 0, tasks=1, wave=2)
    launch.task(1, 0, 1, wave=2)
    job = launch.job(1)
    assert counts(job) == (TASKS, 3, 0, 1, 0) and job.waves == 2 and not status_of(launch.out).failures
    assert job.cached == 0 and job.ran == 3


def test_a_chain_is_at_one_of_its_jobs(out: Path, path: Path) -> None:
    launch = Launch(out, path, last=3)
    for number in (1, 2):
        launch.begin(number, 0, tasks=TASKS, host=1)
        launch.task(number, 0, 0, host=1)
        if number == 1:
            for rank in (1, 2, 3):
                launch.task(1, 0, rank, host=1)
            launch.end(1, 0, host=1)
    launch.beat(2, 0, [1, 2], host=1)
    status = status_of(out)
    assert [job.state for job in status.jobs[:3]] == ["done", "done", "running"] and status.jobs[3].state == "waiting"
    assert counts(status.jobs[2]) == (TASKS, 1, 2, 1, 0)


# ---------------------------------------------------------------- how it ends


def test_a_job_that_is_given_up_fails_the_launch_and_blocks_what_follows(launch: Launch) -> None:
    launch.begin(1, 0, node="n3")
    launch.task(1, 0, 0)
    for attempt in (1, 2, 3):
        launch.task(1, 0, 1, cause=Cause.EXCEPTION, attempt=attempt, message="ValueError: a \x1b[31m name")
    launch.end(1, 0, status=5, reason="1 of 2 tasks failed")
    launch.begin(1, 1)
    launch.task(1, 1, 2)
    launch.task(1, 1, 3)
    launch.end(1, 1)
    log = launch.folder.logs / launch.jobs[1].name / "00001.1.7.0.1.log"
    element_log, slurm_log = launch.folder.logs / "01.1-0.0.log", launch.folder.logs / f"{launch.arrays[1, 1]}_0.out"
    element_log.write_text("of the element\n")
    slurm_log.write_text("slurmstepd: words\n")
    gate = [Failure(1, "ValueError: a \x1b[31m name", 5, str(log), Cause.EXCEPTION)]
    launch.gate(1, 3, gate)
    error = InputError("1 of 4 tasks failed")
    failed(launch.folder.events_of("01.1-gate.0.7"), error, job=launch.jobs[1].name, number=1)
    for array, index in list(launch.queued):
        if launch.queued[array, index][4] == "PENDING":
            launch.slurm_says(array, index, "CANCELLED", "DependencyNeverSatisfied")
    status = status_of(launch.out)
    assert status.state == "failed" and "1 of 4 tasks failed" in status.message and status.exit_code == 5
    assert [job.state for job in status.jobs] == ["done", "failed", "blocked", "blocked", "blocked"]
    assert counts(status.jobs[1]) == (TASKS, 3, 0, 0, 1) and "(1 failed)" in status.jobs[4].reason
    [one] = status.failures
    assert (one["rank"], one["cause"], one["node"], one["slurm"]) == (1, "exception", "n3", f"{launch.arrays[1, 1]}_0")
    assert one["logs"] == [str(log), str(element_log), str(slurm_log)] and one["lines"][-1].startswith("last words")
    assert status.next[0] == f"stackbuild logs {launch.out} --failed" and "mend the stage" in status.next[1]
    shown = text_of(launch.out)
    assert "\x1b" not in shown and "ValueError" in shown and "last words" in shown and "blocked" in shown
    assert exit_of("status", launch.out)[0] == exit_of("status", launch.out, "--watch")[0] == 5


def test_logs_of_a_launch_are_the_tasks_the_elements_and_slurms_own(
    launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    test_a_job_that_is_given_up_fails_the_launch_and_blocks_what_follows(launch)
    old = launch.out / "launches" / "logs" / "00-ingest" / "00000.1.log"
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text("of a run before\n")
    (launch.folder.logs / "02.1-gate.0.log").write_text("of a gate\n")
    failed_, whole = logs(launch.out, "--failed"), logs(launch.out)
    for text in (failed_, whole):
        assert "last words" in text and "of the element" in text and "slurmstepd: words" in text and "\x1b" not in text
        assert "of a run before" not in text
    assert "of a gate" in whole and "of a gate" not in failed_


def logs(out: Path, *arguments: str) -> str:
    said, before = io.StringIO(), sys.argv
    sys.argv = ["stackbuild", "logs", str(out), *arguments]
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main()
    finally:
        sys.argv = before
    return said.getvalue()


@pytest.mark.parametrize(
    ("state", "words", "cause"),
    [
        ("NODE_FAIL", "", "node_lost"),
        ("TIMEOUT", "", "time_limit"),
        ("OUT_OF_MEMORY", "", "out_of_memory"),
        ("FAILED", "slurmstepd: error: Detected 1 oom_kill event", "out_of_memory"),
        ("FAILED", "", "killed"),
    ],
)
def test_an_element_that_died_without_a_word_is_a_failure_of_slurms_cause(
    launch: Launch, state: str, words: str, cause: str
) -> None:
    launch.begin(1, 0, node="n2")
    launch.task(1, 0, 0)
    launch.begin(1, 1)
    launch.element_is(1, 0, state)
    (launch.folder.logs / f"{launch.arrays[1, 1]}_0.out").write_text(words)
    status = status_of(launch.out)
    assert status.state == "running" and counts(status.jobs[1]) == (TASKS, 1, 0, 2, 1)
    [one] = status.failures
    assert (one["rank"], one["element"], one["cause"], one["node"]) == (None, 0, cause, "n2")


def test_a_launch_that_was_cancelled_says_so_and_counts_nothing_as_failed(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.beat(1, 0, [0, 1])
    launch.folder.mark("cancelled")
    status = status_of(launch.out)
    assert status.state == "cancelled" and [job.state for job in status.jobs[1:]] == ["stopped"] * 4
    assert counts(status.jobs[1]) == (TASKS, 0, 0, 4, 0) and status.exit_code == 0
    assert exit_of("status", launch.out, "--watch")[0] == 130


def test_jobs_that_somebody_cancelled_by_hand_cancel_the_launch(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.all_are("CANCELLED")
    status = status_of(launch.out)
    assert status.state == "cancelled" and not status.failures and counts(status.jobs[1]) == (TASKS, 0, 0, 4, 0)


def test_a_gate_that_slurm_ended_fails_the_launch(launch: Launch) -> None:
    for element in range(2):
        launch.begin(1, element)
        launch.end(1, element)
    launch.all_are("CANCELLED")
    for element in range(2):
        launch.element_is(1, element, "COMPLETED")
    launch.slurm_says(str(int(launch.arrays[1, 1]) + 1), None, "TIMEOUT")
    status = status_of(launch.out)
    assert status.state == "failed" and [job.state for job in status.jobs[1:3]] == ["failed", "blocked"]
    assert status.failures[0]["cause"] == "time_limit" and "gate" in status.failures[0]["message"]


def test_a_launch_that_failed_in_publishing_blames_no_job(launch: Launch) -> None:
    for number in (1, 2, 3, 4):
        launch.run_whole(number)
    (launch.folder.logs / "publish.0.log").write_text("stackbuild: no room\n")
    failed(launch.folder.events_of("publish.0.7"), InputError("no room"), job="publish")
    launch.slurm_says("900", None, "FAILED")
    status = status_of(launch.out)
    assert status.state == status.publish == "failed" and all(job.state == "done" for job in status.jobs)
    assert status.failures[0]["job"] == "publish" and status.failures[0]["lines"] == ["stackbuild: no room"]


def test_an_element_that_could_not_begin_is_told_with_its_reason(launch: Launch) -> None:
    launch.end(1, 0, status=4, reason="stackbuild is not what was submitted")
    launch.element_is(1, 0, "FAILED")
    launch.element_is(1, 1, "RUNNING")
    status = status_of(launch.out)
    assert status.state == "running" and "not what was submitted" in status.failures[0]["message"]
    assert status.failures[0]["rank"] is None and counts(status.jobs[1])[4] == 0


def test_a_submission_that_was_cut_short_is_stopped(launch: Launch) -> None:
    lines = (launch.folder.path / "jobs.jsonl").read_text().splitlines(keepends=True)
    (launch.folder.path / "jobs.jsonl").write_text("".join(line for line in lines if "released" not in line))
    launch.forget()
    status = status_of(launch.out)
    assert status.state == "stopped" and "not submitted whole" in status.notes[-1] and status.exit_code == 0


def test_what_the_queue_has_forgotten_accounting_may_know(launch: Launch, path: Path) -> None:
    launch.begin(1, 0)
    launch.begin(1, 1)
    launch.forget()
    array = launch.arrays[1, 1]
    (path / "sacct").write_text(f"#!/bin/bash\necho '{array}_0|NODE_FAIL'; echo '{array}_1|COMPLETED'\n")
    (path / "sacct").chmod(0o755)
    status = status_of(launch.out)
    assert status.state == "failed" and [one["cause"] for one in status.failures] == ["node_lost"]
    assert counts(status.jobs[1])[4] == 2


def test_without_accounting_what_is_gone_and_said_nothing_has_failed(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.task(1, 0, 0)
    launch.forget()
    status = status_of(launch.out)
    assert status.state == "failed" and counts(status.jobs[1]) == (TASKS, 1, 0, 2, 1)
    assert status.jobs[2].state == "blocked"


# ---------------------------------------------------------------- stuck, slow, unseen


def test_an_element_that_runs_and_gives_no_sign_is_stalled_until_it_is_begun_again(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.beat(1, 0, [0], age=STALE_SECONDS + 30)
    launch.element_is(1, 0, "RUNNING", elapsed="1:00:00")
    status = status_of(launch.out)
    assert [one["who"] for one in status.jobs[1].stalled] == ["01.1-0"] and "no sign" in text_of(launch.out)
    assert any("scontrol requeue" in step for step in status.next)
    launch.element_is(1, 0, "RUNNING", elapsed="0:05")  # another attempt, which has not yet told of itself
    assert not launch.job(1).stalled


def test_without_slurm_beats_tell_what_is_alive(no_slurm: Launch) -> None:
    launch = no_slurm
    status = status_of(launch.out)
    assert status.state == "waiting" and "files alone" in status.notes[0]
    launch.begin(1, 0)
    launch.beat(1, 0, [0, 1])
    assert counts(launch.job(1)) == (TASKS, 0, 2, 2, 0) and status_of(launch.out).state == "running"


def test_without_slurm_and_without_a_sign_a_launch_is_stopped_and_the_note_says_how_that_is_known(
    no_slurm: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, real = no_slurm, time.time
    launch.begin(1, 0)
    launch.beat(1, 0, [0])
    monkeypatch.setattr("time.time", lambda: real() + 600)
    status = status_of(launch.out)
    assert status.state == "stopped" and "10 min" in status.notes[-1] and "still be in the queue" in status.notes[-1]


def test_a_slurm_that_does_not_answer_is_told_and_no_error(launch: Launch, path: Path) -> None:
    launch.begin(1, 0)
    launch.beat(1, 0, [0])
    (path / "squeue").write_text("#!/bin/bash\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    status = status_of(launch.out)
    assert status.state == "running" and "Unable to contact" in status.notes[0]


def test_slurm_is_asked_seldom_while_somebody_watches(launch: Launch, path: Path) -> None:
    count = path / "asked"
    (path / "squeue").write_text(f"#!/bin/bash\necho >> {count}\ncat {launch.lines}\n")
    look = Look(launch.out)
    for _ in range(5):
        look.status()
    assert len(count.read_text()) == 1


def test_what_began_after_slurm_was_asked_is_known(launch: Launch) -> None:
    look = Look(launch.out)
    assert look.status().jobs[1].state == "waiting"
    launch.begin(1, 0)
    launch.beat(1, 0, [0])
    status = look.status()
    assert status.state == "running" and counts(status.jobs[1]) == (TASKS, 0, 1, 3, 0)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("0:07", 7),
        ("12:34", 754),
        ("1:02:03", 3723),
        ("2-01:00:00", 176_400),
        ("INVALID", float("inf")),
        ("", float("inf")),
    ],
)
def test_slurms_durations(said: str, meant: float) -> None:
    assert seconds(said) == meant


def test_events_of_strangers_are_passed_over(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.task(1, 0, 0)
    before = status_of(launch.out).jobs
    journal = launch.folder.events_of("01.1-1.0.9")
    for event in ("element", "task", "element-end", "gate", "job-end"):
        journal.write(event=event)
        journal.write(event=event, job=3, number="1", wave=None, element=[])
    journal.write(
        event="gate", job=launch.jobs[4].name, number=99, wave=1, complete=0, of=1, failures=[{}, 3], again=None
    )
    with open(journal.path, "ab") as file:
        file.write(b'\xff\n[]\n{"event": "task", "ti\n')
    (launch.folder.beats / "01.1-0.json").write_text('{"who": 3}')
    (launch.folder.beats / "01.1-1.json").write_bytes(b"\xff{")
    assert status_of(launch.out).jobs == before


def test_a_launch_json_that_is_not_whole_is_an_input_error(launch: Launch) -> None:
    for text in ("", "{", "[]", "{}", '{"id": "x", "more": 1}'):
        (launch.folder.path / "launch.json").write_text(text)
        assert exit_of("status", launch.out)[0] == exit_of("logs", launch.out, "--failed")[0] == 4, text


# ---------------------------------------------------------------- numbers


def tally(*walls: float, end: float = 1000.0) -> Tally:
    found = Tally()
    for rank, wall in enumerate(walls):
        one = Ended(rank, 1, 0, cpu=1.0, wall=wall, rows=100, bytes=1000).event("job")
        found.add({**one, "time": end})
    return found


def test_a_rate_counts_the_share_of_a_try_that_lies_in_the_last_minute() -> None:
    job = JobStatus("job", 10, state="running", started=0.0, pending=5)
    found = tally(20.0, 120.0)  # all of the first; a quarter of the second lies in the minute that ends in 30 s
    at_work = [AtWork(7, rows=30, bytes=300, wall=10.0)]
    found.fill(job, at_work, 1030.0)
    assert job.rows_per_s == round((100 + 100 * 30 / 120 + 30) / 60, 1) and job.rows == 230
    found.fill(job, at_work, 2000.0)
    assert job.rows_per_s == round(30 / 60, 1)


def test_what_is_left_of_a_job_is_its_tasks_mean_over_those_at_work() -> None:
    job = JobStatus("job", 10, state="running", pending=4)
    at_work = [AtWork(5, wall=4.0), AtWork(6, wall=10.0)]
    assert tally(8.0, 12.0).eta(job, at_work) == (6 + 1 + 4 * 10) / 2
    assert Tally().eta(job, at_work) is None and tally(8.0).eta(job, []) is None
    job.pending = 0
    assert tally(8.0, 12.0).eta(job, [AtWork(5, wall=60.0)]) is None  # longer than any before: nobody knows


def test_a_straggler_takes_several_times_what_most_did() -> None:
    job = JobStatus("job", 10, state="running", started=0.0)
    at_work = [AtWork(8, wall=29.0), AtWork(9, wall=31.0)]
    tally(*[10.0] * 5).fill(job, at_work, 1000.0)
    assert [(one.rank, one.straggler) for one in job.at_work] == [(9, True), (8, False)]
    tally(*[10.0] * 4).fill(job, at_work, 1000.0)  # too few ended to know
    assert not any(one.straggler for one in job.at_work)
    assert (job.p50, job.p95, job.longest) == (10.0, 10.0, 10.0)


def test_a_task_in_parts_took_what_its_parts_took() -> None:
    found = Tally()
    for more in (True, True, False):
        found.add({**Ended(3, 1, 0, more, wall=2.0).event("job"), "time": 1.0})
    assert found.walls == [6.0]


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.95, 4), (0.25, 1), (0.0, 1), (1.0, 4)])
def test_quantiles(share: float, value: int) -> None:
    assert quantile([1, 2, 3, 4], share) == value


def test_entries_of_a_beat_that_are_not_whole_are_passed_over() -> None:
    beat = Beat(
        "e", "job", 3, time=0.0, running=[{}, {"rank": "x"}, 3, {"rank": 1, "wall": "long"}, {"rank": 2, "wall": 5}]
    )  # type: ignore[list-item]
    assert [(one.rank, one.wall) for one in working(beat, 10.0)] == [(1, 10.0), (2, 15.0)]


# ---------------------------------------------------------------- what is shown


def test_the_state_is_on_the_screen_however_narrow(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.beat(1, 0, [0, 1])
    for width in (80, 100, 200):
        lines = text_of(launch.out, width).splitlines()
        assert all(len(line) <= width for line in lines)
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


# ---------------------------------------------------------------- a run that a driver looks after


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
