"""What is stuck, and what is said where Slurm cannot be asked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stackbuild.beats import STALE_SECONDS
from stackbuild.monitor.elements import seconds
from stackbuild.status import Look, status_of
from tests.monitor.launched import TASKS, Launch, counts, text_of
from tests.test_status import exit_of


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
