"""How far the jobs of a launch are: from what elements found complete, what ended and what beats tell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from stackbuild.launches import Wave
from stackbuild.retries import Cause, Failure
from stackbuild.status import status_of
from tests.monitor.launched import TASKS, Launch, counts
from tests.test_status import exit_of


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
    launch.told(1, 0, 1, 0, None).write(
        event="element", **launch.place(1, 0, 1), of=2, tasks=2, cached=0, node="n1", restart=0
    )
    assert counts(launch.job(1)) == (
        TASKS,
        1,
        1,
        2,
        0,
    )  # the first attempt, on a node that was cut off, is not the last
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
    launch.begin(1, 1, tasks=1, wave=2)
    launch.task(1, 1, 3, wave=2, cause=Cause.MEMORY)
    assert counts(launch.job(1)) == (TASKS, 3, 0, 1, 0)  # its tries in this wave are counted anew


def test_a_chain_is_at_one_of_its_jobs(out: Path, path: Path) -> None:
    launch = Launch(out, path, last=3)
    launch.begin(1, 0, tasks=0, host=1)
    launch.end(1, 0, host=1)
    assert [job.state for job in status_of(out).jobs[1:4]] == ["done", "waiting", "waiting"]  # between two of them
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
