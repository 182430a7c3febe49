"""What Slurm's commands answer, and how they are asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

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


# ---------------------------------------------------------------- a controller that does not answer

SCRIPT = "#!/bin/bash\n#SBATCH --job-name=stackbuild-a-00.1\n"
SAID = [  # by Slurm 22.05 whose controller was stopped, and ended
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "slurm_load_ctl_conf error: Socket timed out on send/recv operation",
    "Unexpected message received for job 1\nslurm_suspend error: Unexpected message received",
    "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "scancel: error: Kill job error on job id 1: Unable to contact slurm controller (connect failure)",
    "allocation failure: Unable to contact slurm controller (connect failure)",
]


def fails(times: int, said: str, then: str = "") -> str:
    """Lines of a command that fails so often, and then does something else."""
    return (
        f'[ "$(cat 2>/dev/null $0.calls | wc -l)" -lt {times} ] && {{ echo >>$0.calls; cat >&2 <<"END"; exit 1; }}\n'
        f"{said}\nEND\n{then}"
    )


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made."""
    made: list[float] = []
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=time.monotonic, sleep=made.append))
    return made


@pytest.mark.parametrize("said", SAID)
def test_what_is_passing_is_asked_again_after_some_seconds(command: Command, pauses: list[float], said: str) -> None:
    command("squeue", fails(2, said, answer("7|7|N/A|x|RUNNING|None|n1|0:01")))
    assert [one.id for one in scheduler.queue("x")] == ["7"]
    assert pauses == list(scheduler.PAUSES)


@pytest.mark.parametrize("said", SAID)
def test_what_does_not_pass_is_told_after_three_tries(command: Command, pauses: list[float], said: str) -> None:
    asked = command("scontrol", fails(9, said))
    with pytest.raises(SchedulerError, match=said.splitlines()[0].replace("(", "[(]").replace(")", "[)]")):
        scheduler.depend("5", "afterok:4")
    assert asked.read_text().splitlines().count("update") == 3 and len(pauses) == 2


@pytest.mark.parametrize(
    "said", ["invalid partition specified", "Invalid job id specified", "Job violates a limit", ""]
)
def test_a_refusal_is_taken_for_an_answer(command: Command, pauses: list[float], said: str) -> None:
    for name in ("squeue", "sbatch"):
        command(name, f"echo '{said}' >&2; exit 1")
    for refused in (lambda: scheduler.queue("x"), lambda: scheduler.sbatch(SCRIPT, known=())):
        with pytest.raises(SchedulerError):
            refused()
    assert pauses == []


def test_somebody_who_looks_on_is_not_kept_waiting(command: Command, pauses: list[float]) -> None:
    command("squeue", fails(1, SAID[3]))
    with pytest.raises(SchedulerError):
        scheduler.queue("x", patient=False)
    command("sacct", fails(1, SAID[3], answer("7|FAILED")))
    assert scheduler.accounted(["7"], patient=False) == {} and pauses == []


def test_a_controller_that_does_not_know_its_nodes_yet_has_not_refused(command: Command, pauses: list[float]) -> None:
    """As Slurm 22.05 says in the first seconds after its controller began anew."""
    said = "allocation failure: Requested node configuration is not available"
    command("sbatch", fails(2, said, "exit 0"))
    scheduler.check(SCRIPT)
    assert pauses == list(scheduler.PAUSES)
    command("sbatch", fails(9, said))
    with pytest.raises(SchedulerError, match=said):
        scheduler.check(SCRIPT)


def test_a_command_that_took_a_minute_to_fail_is_not_run_again(
    command: Command, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "WAIT_SECONDS", 0.0)
    command("scancel", fails(1, SAID[4]))
    with pytest.raises(SchedulerError):
        scheduler.cancel(["7"])
    assert pauses == []


def test_a_job_that_was_released_although_slurm_did_not_say_so_may_have_ended(
    command: Command, pauses: list[float]
) -> None:
    ended = "echo 'Job has already finished for job 5' >&2; exit 1"
    command("scontrol", fails(1, SAID[2], ended))
    scheduler.release(["5"])
    command("scontrol", ended)
    with pytest.raises(SchedulerError):
        scheduler.release(["5"])


# What a queue says of jobs of a name, and of a name that begins so.
LINES_OF = "{0}_[0-3]|{0}|0-3|stackbuild-a-00.1|PENDING|JobHeldUser||0:00\n{1}|{1}|N/A|stackbuild-a-00.1-gate|PENDING|None||0:00"


def test_what_slurm_took_and_did_not_say_is_not_submitted_again(command: Command, pauses: list[float]) -> None:
    said = command("sbatch", fails(1, SAID[0], "echo 99"))
    command("squeue", answer(LINES_OF.format(7, 8)))
    assert scheduler.sbatch(SCRIPT, ["--hold"], known=()) == "7"
    assert said.read_text().splitlines().count("--parsable") == 1 and len(pauses) == 1


def test_what_slurm_did_not_take_is_submitted_again(command: Command, pauses: list[float]) -> None:
    said = command("sbatch", fails(2, SAID[0], "echo 99"))
    command("squeue", answer(LINES_OF.format(7, 8)))
    command("scancel", "")
    assert scheduler.sbatch(SCRIPT, ["--hold"], known=["7"]) == "99"
    assert said.read_text().splitlines().count("--parsable") == 3 and len(pauses) == 2


def test_a_job_that_turns_up_after_its_second_is_cancelled(command: Command, pauses: list[float]) -> None:
    command("sbatch", fails(1, SAID[0], "echo 99"))
    late = answer(LINES_OF.format(7, 8) + "\n" + LINES_OF.format(99, 98) + "\n" + LINES_OF.format(5, 4))
    command("squeue", '[ -e "$0.asked" ] || { touch "$0.asked"; exit 0; }\n' + late)
    cancelled = command("scancel", "")
    assert scheduler.sbatch(SCRIPT, known=["5"]) == "99"
    assert cancelled.read_text().split() == ["--quiet", "7"]


def test_nothing_is_submitted_again_where_it_cannot_be_looked_for(command: Command, pauses: list[float]) -> None:
    said = command("sbatch", fails(1, SAID[0], "echo 99"))
    command("squeue", "exit 1")
    for script, known in ((SCRIPT, ()), (SCRIPT, None), ("#!/bin/bash\n", ())):
        (said.parent / "bin" / "sbatch.calls").unlink(missing_ok=True)
        with pytest.raises(SchedulerError):
            scheduler.sbatch(script, known=known)
    assert said.read_text().splitlines().count("--parsable") == 3


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
        patch.setattr(scheduler, "_run", lambda *_, **__: f"7|7|N/A|{name}|RUNNING|None|n1|0:01\n{ours}\n")
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
