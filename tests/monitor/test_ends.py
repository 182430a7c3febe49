"""How a launch ends, and what is said of what failed in it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from stackbuild.errors import InputError
from stackbuild.launches import ATTEMPT
from stackbuild.monitor import failures
from stackbuild.retries import Cause, Failure
from stackbuild.slurm.gate import failed
from stackbuild.status import status_of
from tests.monitor.launched import TASKS, Launch, counts, logs, text_of
from tests.test_status import exit_of


def give_up(launch: Launch) -> None:
    """A task fails in all its tries, and the gate gives the job up."""
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


def test_a_job_that_is_given_up_fails_the_launch_and_blocks_what_follows(launch: Launch) -> None:
    give_up(launch)
    status = status_of(launch.out)
    assert status.state == "failed" and "1 of 4 tasks failed" in status.message and status.exit_code == 5
    assert [job.state for job in status.jobs] == ["done", "failed", "blocked", "blocked", "blocked"]
    assert counts(status.jobs[1]) == (TASKS, 3, 0, 0, 1) and "(1 failed)" in status.jobs[4].reason
    [one] = status.failures
    assert (one["rank"], one["cause"], one["node"], one["slurm"]) == (1, "exception", "n3", f"{launch.arrays[1, 1]}_0")
    names = ["00001.1.7.0.1.log", "01.1-0.0.log", f"{launch.arrays[1, 1]}_0.out"]
    assert [Path(log).name for log in one["logs"]] == names and one["lines"][-1].startswith("last words")
    assert status.next[0] == f"stackbuild logs {launch.out} --failed" and "mend the stage" in status.next[1]
    shown = text_of(launch.out)
    assert "\x1b" not in shown and "ValueError" in shown and "last words" in shown and "blocked" in shown
    assert exit_of("status", launch.out)[0] == exit_of("status", launch.out, "--watch")[0] == 5


def test_logs_of_a_launch_are_the_tasks_the_elements_and_slurms_own(
    launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_up(launch)
    old = launch.out / "launches" / "logs" / "00-ingest" / "00000.1.log"
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text("of a run before\n")
    (launch.folder.logs / "02.1-gate.0.log").write_text("of a gate\n")
    failed_, whole = logs(launch.out, "--failed"), logs(launch.out)
    for text in (failed_, whole):
        assert "last words" in text and "of the element" in text and "slurmstepd: words" in text and "\x1b" not in text
        assert "of a run before" not in text
    assert "of a gate" in whole and "of a gate" not in failed_


def test_a_log_is_shown_once_and_by_one_name_however_the_folder_is_named(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up(launch)
    monkeypatch.chdir(launch.out.parent)
    shown = [line for line in logs(Path(launch.out.name), "--failed").splitlines() if line.startswith("==> ")]
    assert len(shown) == len(set(map(os.path.realpath, shown))) == 3 and all(
        f"==> {launch.out}/" in line for line in shown
    )


@pytest.mark.parametrize(
    ("state", "words", "cause"),
    [
        ("NODE_FAIL", "", "node_lost"),
        ("TIMEOUT", "", "time_limit"),
        ("OUT_OF_MEMORY", "", "out_of_memory"),
        ("FAILED", "slurmstepd: error: Detected 1 oom_kill event", "out_of_memory"),
        ("FAILED", "", "killed"),
        ("FAILED", "ModuleNotFoundError: No module named 'pyarrow'", "refused"),
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


def test_an_element_did_not_die_of_what_ended_an_attempt_before(launch: Launch) -> None:
    """Slurm's own log is one for all attempts of an element."""
    launch.begin(1, 0, restart=1)
    launch.element_is(1, 0, "FAILED")
    out = launch.folder.logs / f"{launch.arrays[1, 1]}_0.out"
    out.write_text(
        f"{ATTEMPT}0\nslurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE TO NODE FAILURE ***\n{ATTEMPT}1\n"
    )
    assert [one["cause"] for one in status_of(launch.out).failures] == ["killed"]
    launch.end(1, 0, restart=1, status=4, reason="it is not what was submitted")
    with open(out, "a") as file:
        file.write("slurmstepd: error: Detected 1 oom-kill event(s)\n")  # of a child that it survived
    assert [one["cause"] for one in status_of(launch.out).failures] == ["refused"]


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


def test_an_element_that_somebody_cancelled_while_others_go_on_has_failed_with_its_tasks(launch: Launch) -> None:
    launch.begin(1, 0)
    launch.begin(1, 1)
    launch.task(1, 0, 0)
    launch.task(1, 0, 1, cause=Cause.KILLED, message="killed by signal 15")
    launch.element_is(1, 0, "CANCELLED")
    launch.beat(1, 1, [2, 3])
    status = status_of(launch.out)
    assert status.state == "running" and counts(status.jobs[1]) == (TASKS, 1, 2, 0, 1)
    assert status.jobs[1].retries == 0  # nobody tries it again, but for its gate


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


REFUSAL = "stackbuild: cannot begin: node n1 cannot run /opt/none/bin/python: it is not there\n"


def slurms_logs(launch: Launch) -> None:
    """What Slurm opens for each job that begins."""
    for job in (f"{launch.arrays[1, 1]}_0", f"{launch.arrays[1, 1]}_1", str(int(launch.arrays[1, 1]) + 1)):
        (launch.folder.logs / f"{job}.out").write_text(f"{ATTEMPT}0\n")


@pytest.mark.parametrize("remembered", [True, False])
def test_what_died_before_it_could_say_anything_is_known_from_its_log_whatever_the_queue_has_forgotten(
    launch: Launch, remembered: bool
) -> None:
    """Slurm forgets a job some minutes after its end, and many sites have no accounting."""
    slurms_logs(launch)
    for name in ("01.1-0.0.log", "01.1-1.0.log", "01.1-gate.0.log"):
        (launch.folder.logs / name).write_text(REFUSAL)
    launch.all_are("CANCELLED")
    for index in (0, 1):
        launch.element_is(1, index, "FAILED")
    launch.slurm_says(str(int(launch.arrays[1, 1]) + 1), None, "FAILED")
    if not remembered:
        launch.forget()
    status = status_of(launch.out)
    assert status.state == "failed" and status.exit_code == 5 and status.jobs[1].state == "failed"
    assert [one["element"] for one in status.failures] == [0, 1, None]
    assert all(one["cause"] == "refused" and "cannot run /opt" in one["message"] for one in status.failures)
    assert "/opt/none/bin/python" in logs(launch.out, "--failed")


def test_a_gate_that_died_after_its_elements_ended_well_is_the_failure_and_names_its_jobs(
    out: Path, path: Path
) -> None:
    launch = Launch(out, path, last=4)
    for number in (1, 2, 3, 4):
        launch.begin(number, 0, tasks=TASKS, host=1)
        for rank in range(TASKS):
            launch.task(number, 0, rank, host=1)
        launch.end(number, 0, host=1)
    (launch.folder.logs / "01.1-gate.0.log").write_text("")
    (launch.folder.logs / f"{int(launch.arrays[1, 1]) + 1}.out").write_text(f"{ATTEMPT}0\nslurmstepd: oom-kill\n")
    launch.forget()
    status = status_of(launch.out)
    [one] = status.failures
    assert status.state == "failed" and one["cause"] == "out_of_memory"
    assert one["log"].endswith(".out") and one["lines"]  # the log that the lines are of
    first, last = launch.jobs[1].name, launch.jobs[4].name
    assert f", for {first} to {last}, ended and left no word" in one["message"]


def test_a_folder_that_is_full_is_told_to_be_made_room_in_though_nothing_could_say_so(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch.begin(1, 0)
    launch.task(1, 0, 1, cause=Cause.KILLED, message="ended with status 1")
    launch.forget()
    assert not any("make room" in step for step in status_of(launch.out).next)
    monkeypatch.setattr(failures.shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
    steps = status_of(launch.out).next
    assert "make room" in steps[1] and "the node's" in steps[2]


def test_jobs_that_leave_no_log_at_all_do_not_see_the_folder(launch: Launch) -> None:
    launch.all_are("CANCELLED")
    for index in (0, 1):
        launch.element_is(1, index, "FAILED")
    launch.slurm_says(str(int(launch.arrays[1, 1]) + 1), None, "FAILED")
    status = status_of(launch.out)
    assert status.state == "failed" and len(status.failures) == 3
    for one in status.failures:
        assert one["cause"] == "refused" and f"is {launch.out} a folder that the nodes see" in one["message"]
    launch.forget()  # cancelled before it began, or so: nobody can tell any more
    status = status_of(launch.out)
    assert status.state == "stopped" and f"{launch.out} is no folder that the nodes see" in status.notes[-1]


def test_an_element_that_somebody_cancelled_is_no_failure_of_a_launch_that_the_queue_has_forgotten(
    launch: Launch,
) -> None:
    launch.begin(1, 0)
    slurms_logs(launch)
    words = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T10:00:00 ***\n"
    for index in (0, 1):
        (launch.folder.logs / f"{launch.arrays[1, 1]}_{index}.out").write_text(f"{ATTEMPT}0\n{words}")
    launch.forget()
    status = status_of(launch.out)
    assert status.state == "cancelled" and {one["cause"] for one in status.failures} == {"cancelled"}


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
