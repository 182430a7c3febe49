"""Causes told apart, from exit status, error file, Slurm's state and the words of real logs; and how often each is tried again."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.retries import (
    DISK_FULL,
    REMEDY,
    WAVES,
    WITHIN,
    Cause,
    Failure,
    How,
    Retries,
    element_cause,
    explain,
    going_on,
)


def failure(cause: Cause, rows: dict[str, list[int]] | None = None) -> Failure:
    return Failure(0, "why", 5, "log", cause, rows or {})


# ---------------------------------------------------------------- again, and how


def test_an_exception_is_looked_for_row_by_row_and_then_confirmed() -> None:
    tries = Retries()
    survey = tries.again(failure(Cause.EXCEPTION))
    assert survey == How("survey")
    confirm = tries.again(failure(Cause.EXCEPTION, {"decode": [3, 9]}))
    assert confirm == How("confirm", {"decode": [3, 9]})
    assert tries.again(failure(Cause.EXCEPTION)) is None


def test_what_ran_out_of_memory_runs_alone_and_part_by_part_and_stays_so() -> None:
    tries = Retries()
    assert tries.again(failure(Cause.MEMORY)) == How(one_part=True, alone=True)
    survey = tries.again(failure(Cause.EXCEPTION))
    assert survey == How("survey", one_part=True, alone=True)
    assert tries.again(failure(Cause.MEMORY)) is None


def test_a_survey_that_is_killed_is_a_survey_again() -> None:
    tries = Retries()
    tries.again(failure(Cause.EXCEPTION))
    assert tries.again(failure(Cause.KILLED)) == How("survey")
    tries.again(failure(Cause.EXCEPTION, {"x": [1]}))
    again = tries.again(failure(Cause.NODE))
    assert again == How("confirm", {"x": [1]})


def test_a_server_that_does_not_answer_is_waited_for_longer_each_time_and_nothing_else_is() -> None:
    tries = Retries()
    waits = [again.wait for _ in range(2) if (again := tries.again(failure(Cause.TEMPORARY)))]
    assert waits == sorted(set(waits)) and waits[0] > 0
    assert tries.again(failure(Cause.TEMPORARY)) is None
    tries = Retries()
    tries.again(failure(Cause.TEMPORARY))
    for cause in (Cause.EXCEPTION, Cause.MEMORY):
        again = tries.again(failure(cause))
        assert again is not None and again.wait == 0
    tries = Retries()
    tries.again(failure(Cause.TEMPORARY))
    again = tries.again(failure(Cause.KILLED))
    assert again is not None and again.wait == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(Cause)), max_size=40))
def test_no_history_of_failures_goes_on_for_ever(causes: list[Cause]) -> None:
    """Each cause has a number of its own, and a task is given up at the first that is used up."""
    tries, seen = Retries(), dict.fromkeys(Cause, 0)
    for cause in causes:
        seen[cause] += 1
        if tries.again(failure(cause)) is None:
            assert seen[cause] == WITHIN.get(cause, 0) + 1
            return
    assert all(seen[cause] <= WITHIN.get(cause, 0) for cause in Cause)
    assert len(causes) <= sum(WITHIN.values())


def test_what_a_second_try_cannot_mend_is_not_tried_again() -> None:
    for cause in (Cause.REFUSED, Cause.DISK, Cause.CANCELLED):
        assert Retries().again(failure(cause)) is None
        assert cause not in WAVES


def test_every_cause_says_what_to_do() -> None:
    text = going_on(Cause)
    assert all(REMEDY[cause] in text for cause in Cause) and "same command" in text


# ---------------------------------------------------------------- one try on this machine


def explained(folder: Path, status: int, body: Any = None, out_of_memory: bool = False) -> Failure:
    log = folder / "00000.1.log"
    if body is not None:
        Path(f"{log}.error").write_text(body if isinstance(body, str) else json.dumps(body))
    return explain(7, status, log, out_of_memory)


@pytest.mark.parametrize(
    ("status", "body", "cause", "code"),
    [
        (1, {"type": "ValueError", "message": "m", "exit_code": 1}, Cause.EXCEPTION, 5),
        (70, {"type": "ValueError", "message": "m", "exit_code": 70}, Cause.EXCEPTION, 5),
        (3, {"type": "RecipeError", "message": "m", "exit_code": 3}, Cause.REFUSED, 3),
        (4, {"type": "InputError", "message": "m", "exit_code": 4}, Cause.REFUSED, 4),
        (6, {"type": "PolicyRefusal", "message": "m", "exit_code": 6}, Cause.REFUSED, 6),
        (7, {"type": "MissingDependency", "message": "m", "exit_code": 7}, Cause.REFUSED, 7),
        (75, {"type": "TemporaryError", "message": "m", "exit_code": 75}, Cause.TEMPORARY, 75),
        (1, {"type": "MemoryError", "message": "m", "exit_code": 1}, Cause.MEMORY, 5),
        (1, {"type": "OSError", "message": "m", "exit_code": 1, "errno": errno.ENOSPC}, Cause.DISK, 5),
        (4, {"type": "InputError", "message": "m", "exit_code": 4, "errno": errno.EDQUOT}, Cause.DISK, 5),
        (-9, {"type": "OutOfMemory", "message": "m", "exit_code": 5, "cause": "out_of_memory"}, Cause.MEMORY, 5),
        (-11, None, Cause.KILLED, 5),
        (-15, None, Cause.KILLED, 5),
        (70, None, Cause.KILLED, 5),
        (1, '{"type": "ValueE', Cause.KILLED, 5),  # it died while it wrote, or the disk was full
        (1, "", Cause.KILLED, 5),
        (1, "[]", Cause.KILLED, 5),
        (1, '{"type": "X", "message": "m", "exit_code": null}', Cause.KILLED, 5),
    ],
)
def test_a_try_is_explained(tmp_path: Path, status: int, body: Any, cause: Cause, code: int) -> None:
    found = explained(tmp_path, status, body)
    assert (found.cause, found.exit_code, found.rank) == (cause, code, 7)
    assert found.reason and found.log == str(tmp_path / "00000.1.log")


def test_the_kernels_kill_for_memory_is_told_from_any_other(tmp_path: Path) -> None:
    assert explained(tmp_path, -9).cause is Cause.KILLED
    found = explained(tmp_path, -9, out_of_memory=True)
    assert found.cause is Cause.MEMORY and "out of memory" in found.reason


def test_what_could_not_say_where_it_was_is_told_by_the_page_that_it_shared(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    for status, memory, word in (
        (-9, True, "out of memory"),
        (-11, False, "a crash of the code"),
        (-15, False, "signal 15"),
    ):
        reason = explain(7, status, log, memory, "decode, rows 0 to 9 of partition 3").reason
        assert word in reason and reason.endswith("It was at: decode, rows 0 to 9 of partition 3")


def test_rows_that_a_survey_names_are_passed_on(tmp_path: Path) -> None:
    body = {"type": "RowErrors", "message": "m", "exit_code": 1, "rows": {"decode": [1, 5]}}
    assert explained(tmp_path, 1, body).rows == {"decode": [1, 5]}


# ---------------------------------------------------------------- an element of an array

LOGS = {  # as slurmstepd and the kernel wrote them
    "polled": "slurmstepd: error: Job 14 exceeded memory limit (73400320 > 52428800), being killed\n"
    "slurmstepd: error: Exceeded job memory limit\nslurmstepd: error: *** JOB 14 ON n1 CANCELLED AT 2026-01-01T10:00:00 ***\n",
    "cgroup": "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=15.batch. Some of your processes may have been killed by the "
    "cgroup out-of-memory handler.\n",
    "srun": "srun: error: n1: task 0: Out Of Memory\nslurmstepd: error: Detected 1 oom_kill event in StepId=16.0.\n",
    "time": "slurmstepd: error: *** JOB 17 ON n2 CANCELLED AT 2026-01-01T10:00:00 DUE TO TIME LIMIT ***\n",
    "node": "slurmstepd: error: *** JOB 18 ON n2 CANCELLED AT 2026-01-01T10:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n",
    "preempted": "slurmstepd: error: *** JOB 19 ON n2 CANCELLED AT 2026-01-01T10:00:00 DUE TO PREEMPTION ***\n",
    "cancelled": "slurmstepd: error: *** JOB 20 ON n1 CANCELLED AT 2026-01-01T10:00:00 ***\n",
    "full": "cat: write error: No space left on device\n",
    "quota": "OSError: [Errno 122] Disk quota exceeded\n",
    "requeued": "slurmstepd-n1: error: *** JOB 174 ON n1 CANCELLED AT 2026-01-01T10:00:00 DUE TO JOB REQUEUE ***\n",
    "quiet": "Traceback (most recent call last):\nValueError: boom\n",
    "no package": "Traceback (most recent call last):\n  File ...\nModuleNotFoundError: No module named 'pyarrow'\n",
    "no stackbuild": "/usr/bin/python3.11: Error while finding module specification for 'stackbuild.slurm.element' "
    "(ModuleNotFoundError: No module named 'stackbuild')\n",
    "survived": "ImportError: libx.so: cannot open shared object file\nwork goes on\n",
    "": "",
}


@pytest.mark.parametrize(
    ("state", "log", "cause"),
    [
        ("FAILED", "polled", Cause.MEMORY),  # the state says FAILED 0:9
        ("FAILED", "srun", Cause.MEMORY),  # and here FAILED 1:0
        ("FAILED", "cgroup", Cause.MEMORY),
        ("OUT_OF_MEMORY", "", Cause.MEMORY),
        ("COMPLETED", "cgroup", Cause.MEMORY),  # a child was killed, and the element ended by itself
        ("TIMEOUT", "", Cause.TIME),
        ("TIMEOUT", "time", Cause.TIME),
        ("", "time", Cause.TIME),  # no accounting, and forgotten by the controller
        ("CANCELLED", "time", Cause.TIME),
        ("DEADLINE", "", Cause.TIME),
        ("NODE_FAIL", "", Cause.NODE),
        ("PENDING", "node", Cause.NODE),
        ("CANCELLED", "node", Cause.NODE),
        ("BOOT_FAIL", "", Cause.NODE),
        ("PREEMPTED", "", Cause.NODE),
        ("CANCELLED", "preempted", Cause.NODE),
        ("CANCELLED", "", Cause.CANCELLED),
        ("CANCELLED by 1000", "cancelled", Cause.CANCELLED),
        ("CANCELLED+", "", Cause.CANCELLED),
        ("", "cancelled", Cause.CANCELLED),
        ("CANCELLED", "polled", Cause.MEMORY),
        ("FAILED", "quiet", Cause.KILLED),
        ("FAILED", "requeued", Cause.KILLED),  # nobody cancelled it
        ("FAILED", "full", Cause.DISK),
        ("FAILED", "quota", Cause.DISK),
        ("FAILED", "no package", Cause.REFUSED),
        ("", "no stackbuild", Cause.REFUSED),
        ("FAILED", "survived", Cause.KILLED),
        ("FAILED", "", Cause.KILLED),
        ("", "", Cause.KILLED),
        ("COMPLETED", "", Cause.KILLED),
    ],
)
def test_an_elements_end_is_explained_by_state_and_log(state: str, log: str, cause: Cause) -> None:
    assert element_cause(state, LOGS[log]) is cause


@settings(deadline=None)
@given(st.text(max_size=60))
def test_words_of_other_logs_are_no_cause_by_accident(text: str) -> None:
    assert element_cause("NODE_FAIL", text) is Cause.NODE  # a state that says why is believed


def test_an_element_that_found_no_room_says_so_whatever_its_log_could_hold() -> None:
    assert element_cause("FAILED", "", DISK_FULL) is Cause.DISK
    assert element_cause("", "", 5) is Cause.KILLED
