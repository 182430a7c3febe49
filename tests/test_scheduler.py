"""What Slurm's commands answer, and how they are asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild import scheduler
from stackbuild.scheduler import PENDING, RUNNING, SchedulerError

Command = Callable[[str, str], Path]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Makes a command that writes its arguments down, then runs some lines of shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >>{tmp_path}/{name}.said\n{body}\n')
        path.chmod(0o755)
        return tmp_path / f"{name}.said"

    return make


def answer(lines: str) -> str:
    return f"cat <<'END'\n{lines}\nEND"


# ---------------------------------------------------------------- sbatch


@pytest.mark.parametrize("text", ["123", "123;cluster", "a warning of the site\n123"])
def test_the_id_is_the_last_line_of_what_sbatch_says(command: Command, text: str) -> None:
    command("sbatch", "cat >/dev/null\n" + answer(text))
    assert scheduler.sbatch("#!/bin/bash\n") == "123"


@pytest.mark.parametrize("text", ["", "Submitted batch job 12", "12 3", "error"])
def test_an_answer_without_an_id_is_an_error(command: Command, text: str) -> None:
    command("sbatch", "cat >/dev/null\n" + answer(text))
    with pytest.raises(SchedulerError):
        scheduler.sbatch("#!/bin/bash\n")


def test_a_refusal_is_told_in_slurms_own_words(command: Command) -> None:
    command("sbatch", "cat >/dev/null; echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1")
    with pytest.raises(SchedulerError, match="invalid partition specified: nowhere"):
        scheduler.sbatch("#!/bin/bash\n", ["--hold"])


def test_a_command_that_does_not_answer_is_an_error(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "WAIT_SECONDS", 0.3)
    command("squeue", "exec sleep 30")
    with pytest.raises(SchedulerError, match="did not answer"):
        scheduler.queue("x")


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not scheduler.available()
    with pytest.raises(SchedulerError, match="PATH"):
        scheduler.queue("x")


def test_what_a_job_was_given_is_not_given_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_EXPORT", "SRUN_DEBUG", "SLURMD_NODENAME", "SQUEUE_STATES", "SCANCEL_NAME"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "/c")
    kept = scheduler.clean_environment()
    assert kept["SLURM_CONF"] == "/c" and kept["PATH"] == os.environ["PATH"]
    assert not [
        name
        for name in kept
        if name.startswith(("SLURM", "SBATCH", "SRUN", "SQUEUE", "SCANCEL")) and name != "SLURM_CONF"
    ]


# ---------------------------------------------------------------- squeue

LINES = """\
100_0|100|0|stackbuild-a-00.1|RUNNING|None|n1|1:23
100_1|100|1|stackbuild-a-00.1|PENDING|Resources||0:00
100_2|100|2|stackbuild-a-00.1|COMPLETING|None|n2|1:00
101|101|N/A|stackbuild-a-00.1-gate|PENDING|Dependency||0:00
102|102|N/A|stackbuild-ab-00.1-gate|RUNNING|None|n1|0:10
103|103|N/A|somebody's|name|stackbuild-a-x|RUNNING|None|n3|2:00
104|104|N/A||PENDING|(null)||0:00
105|105|N/A|x|stackbuild-a-|PENDING|None||0:00
106_[3-900%4]|106|3-900%4|stackbuild-a-01.1|PENDING|Priority||0:00
107|107|N/A|stackbuild-a-02.1-gate|CANCELLED by 0|None||0:00
108_7|108|7|stackbuild-a-03.1|REQUEUE_HOLD|job requeued in held state||0:00
109|109
"""


def test_only_jobs_of_the_name_are_taken_whatever_others_are_called(command: Command) -> None:
    said = command("squeue", answer(LINES))
    found = {one.id: one for one in scheduler.queue("stackbuild-a-")}
    assert list(found) == ["100_0", "100_1", "100_2", "101", "106_[3-900%4]", "107", "108_7"]
    assert [one.id for one in found.values() if one.live] == [
        "100_0",
        "100_1",
        "100_2",
        "101",
        "106_[3-900%4]",
        "108_7",
    ]
    assert (found["100_1"].array, found["100_1"].index, found["100_1"].reason) == ("100", 1, "Resources")
    assert (found["101"].array, found["101"].index) == ("101", None)
    assert (found["106_[3-900%4]"].array, found["106_[3-900%4]"].index) == (
        "106",
        None,
    )  # a part that still waits, unsplit
    assert {"--me", "--array"} <= set(said.read_text().splitlines())


def test_ended_jobs_are_asked_for_only_if_they_are_wanted(command: Command) -> None:
    said = command("squeue", "")
    assert scheduler.queue("x") == []
    assert "all" not in said.read_text().split()
    scheduler.queue("x", ended=True)
    assert "all" in said.read_text().split()


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=40))
def test_no_name_of_a_job_breaks_the_reading_of_others(name: str) -> None:
    ours = "100_0|100|0|stackbuild-a-00.1|RUNNING|None|n1|1:23"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "_run", lambda *_: f"7|7|N/A|{name}|RUNNING|None|n1|0:01\n{ours}\n")
        found = scheduler.queue("stackbuild-a-")
    assert [one.id for one in found if one.id != "7"] == ["100_0"]


def test_every_state_in_which_slurm_may_yet_run_a_job_is_live() -> None:
    """squeue(1), job state codes; what is not live has ended."""
    ended = [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
    others = [
        "CONFIGURING",
        "COMPLETING",
        "PENDING",
        "RUNNING",
        "RESV_DEL_HOLD",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "REQUEUED",
        "RESIZING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
    ]
    assert set(others) == PENDING | RUNNING and not set(ended) & (PENDING | RUNNING)


# ---------------------------------------------------------------- sacct, scontrol, scancel


def test_accounting_says_of_an_element_what_its_step_knows(command: Command) -> None:
    lines = (
        "100_0|FAILED\n100_0.batch|FAILED\n100_0.0|OUT_OF_MEMORY\n100_1|CANCELLED by 7\n100_1.extern|COMPLETED\n"
        "100_2|COMPLETED\n101|RUNNING"
    )
    said = command("sacct", answer(lines))
    assert scheduler.accounted(["100_0", "100_1"]) == {"100_0": "OUT_OF_MEMORY", "100_1": "CANCELLED"}
    assert "100" in said.read_text().splitlines()


def test_accounting_is_asked_of_arrays_so_that_the_command_stays_short(command: Command) -> None:
    said = command("sacct", "")
    assert scheduler.accounted(f"1234567_{index}" for index in range(30_000)) == {}
    assert said.read_text().splitlines().count("1234567") == 1 and said.stat().st_size < 1_000


def test_a_site_without_accounting_is_no_error(command: Command) -> None:
    assert scheduler.accounted(["1"]) == {}
    command("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert scheduler.accounted(["1"]) == {} and scheduler.accounted([]) == {}


@pytest.mark.parametrize(("text", "size"), [("MaxArraySize            = 4001", 4001), ("Other = 3", 1001)])
def test_the_sites_limit_of_arrays(command: Command, text: str, size: int) -> None:
    command("scontrol", answer("AccountingStorage = none\n" + text))
    assert scheduler.max_array_size() == size


def test_many_jobs_are_cancelled_in_commands_that_are_not_too_long_and_none_without_a_command(command: Command) -> None:
    said = command("scancel", "echo end >>" + "$0.calls")
    scheduler.cancel([])
    assert not said.exists()
    scheduler.cancel(str(number) for number in range(450))
    lines = said.read_text().splitlines()
    assert [line for line in lines if line != "--quiet"] == [str(number) for number in range(450)]
    assert lines.count("--quiet") == 3
