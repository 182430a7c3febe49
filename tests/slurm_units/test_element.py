"""An element of an array, as its job runs it: its share and nothing twice, only over what is complete and with the code that was
submitted, and stopped as it was asked to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stackbuild import build as building
from stackbuild.errors import InputError, TemporaryError
from stackbuild.journal import driver_journal, only_one
from stackbuild.launches import Wave
from stackbuild.parts import Part, part_path
from stackbuild.plan import Build
from stackbuild.pool import TaskSpec
from stackbuild.shards import canonical_json, publish_manifest
from stackbuild.slurm import publish
from stackbuild.slurm.code import code_digest
from stackbuild.slurm.element import close, gate, parts_of, see_inputs
from tests.slurm_units.conftest import Launched, Slurm, small
from tests.test_build import released

ROOT = Path(__file__).parent.parent.parent
ROWS = 5


@pytest.fixture
def launch(slurm: Slurm, complete: Build) -> Launched:
    made = Launched(slurm, complete, ROWS)
    made.lose(ROWS, 0, 1, 2, 3)
    return made


def start(
    launch: Launched, element: int, restart: int = 0, wave: Wave | None = None, job: int = 500
) -> subprocess.Popen[str]:
    wave = wave or launch.wave
    path = launch.folder.wave_path(wave.number, wave.wave)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": str(job + element),
        "SLURM_RESTART_COUNT": str(restart),
    }
    command = [sys.executable, "-m", "stackbuild.slurm.element", str(launch.build.out), str(path), str(element)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def heeds(process: subprocess.Popen[str], number: int) -> bool:
    """Whether a process has a handler for a signal."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    [caught] = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")]
    return bool(caught >> (number - 1) & 1)


def manifests(launch: Launched, number: int = ROWS) -> dict[str, list[str]]:
    """The shard manifests of a job, by the names of its folders."""
    return {
        name: sorted(path.name for path in (launch.build.out / "stages" / name / "manifests").iterdir())
        for name in launch.build.jobs[number].shard_jobs
    }


def tasks(launch: Launched) -> list[int]:
    return sorted(event["rank"] for event in launch.events("task") if event["status"] == 0)


def test_the_elements_of_a_job_do_each_task_once_and_leave_what_a_local_build_does(
    launch: Launched, complete: Build
) -> None:
    results = [ended(start(launch, element)) for element in range(2)]
    assert [status for status, _ in results] == [0, 0], results
    assert tasks(launch) == [0, 1, 2, 3]
    by_element = {event["element"]: event["tasks"] for event in launch.events("element")}
    assert sum(by_element.values()) == 4 and set(by_element) == {0, 1}
    assert {event["status"] for event in launch.events("element-end")} == {0}
    names = manifests(launch)
    assert all(len(found) == 4 for found in names.values())
    assert not any((launch.build.out / "stages" / name / "manifest.json").exists() for name in names)  # the gate's work
    assert list(launch.folder.beats.iterdir()) == []


def test_a_job_of_so_many_stages_that_no_folder_can_have_its_name_runs_here_and_there(
    slurm: Slurm, root: Path, tmp_path: Path
) -> None:
    stages = [
        "exact_dedup",
        "decode",
        "languages",
        "signals",
        *(f"filters:{'some-more-of-them-' * 2}{n}" for n in range(6)),
    ]
    build = building.run(building.Request(small(root, stages=stages), Path("/"), tmp_path / "out", 1)).build
    assert len(build.jobs[ROWS].name) > 255
    [log] = (tmp_path / "out" / "launches" / "logs").glob("*+*/00000.1.log")
    launch = Launched(slurm, build, ROWS)
    launch.lose(ROWS, 0, 1, 2, 3)
    assert [ended(start(launch, element)) for element in range(2)] == [(0, ""), (0, "")]
    assert len(list((launch.folder.logs / log.parent.name).glob("*.log"))) == 4


def test_what_is_complete_is_not_done_again(launch: Launched) -> None:
    assert ended(start(launch, 0))[0] == 0
    before = manifests(launch)
    assert ended(start(launch, 0, restart=1))[0] == 0
    assert manifests(launch) == before
    assert [event["cached"] for event in launch.events("element")] == [0, len(tasks(launch))]


def test_what_could_not_be_read_whole_is_read_once_more_in_a_launch_and_not_in_each_attempt(
    slurm: Slurm, complete: Build
) -> None:
    """An element that is requeued for its time limit would do nothing else, were that all it has time for."""
    launch, job = Launched(slurm, complete, 0, elements=1), complete.jobs[0]
    number = complete.shard_number(job, 1)
    [shard] = [one for one in complete.shards(job.name) if one.rank == number]
    publish_manifest(complete.out, replace(shard, stats={**shard.stats, "provisional": True}), replace=True)
    launch.tell(launch.wave, 0, "element", tasks=3, cached=2)
    launch.tell(launch.wave, 0, "task", rank=1, status=-9)  # killed in an attempt before
    assert ended(start(launch, 0, restart=1))[0] == 0
    assert tasks(launch) == [1]
    publish_manifest(complete.out, replace(shard, stats={**shard.stats, "provisional": True}), replace=True)
    assert ended(start(launch, 0, restart=2))[0] == 0
    assert tasks(launch) == [1]
    assert [event["cached"] for event in launch.events("element")] == [2, 2, 3]
    later = Launched(slurm, complete, 0, elements=1, name="20260102-000000-abcd")
    assert ended(start(later, 0))[0] == 0
    assert tasks(later) == [1]


def test_an_element_has_not_got_on_by_what_others_do(complete: Build) -> None:
    for number, mine, other in ((ROWS, [1, 3], 2), (0, [0, 2], 1)):
        job, specs = complete.jobs[number], [TaskSpec(rank, {}) for rank in mine]
        before, name = parts_of(complete, job, specs), job.shard_jobs[0]
        for rank, gain in ((other, 0), (mine[1], 1)):
            path = part_path(complete.out, name, complete.shard_number(job, rank), "k" * 64, Part(0, 0, 5, 2))
            assert path is not None
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}")
            assert parts_of(complete, job, specs) == before + gain


def test_two_attempts_at_once_leave_one_of_each_shard(launch: Launched) -> None:
    """As when a node is cut off: its element works on while Slurm begins it a second time."""
    wave = replace(launch.wave, wave=2, elements=1)
    launch.folder.add_wave(wave)
    both = [start(launch, 0, restart, wave) for restart in (0, 1)]
    results = [ended(process) for process in both]
    assert [status for status, _ in results] == [0, 0], results
    assert all(len(found) == 4 for found in manifests(launch).values())


@pytest.mark.parametrize("number", [2, ROWS - 1])  # one that it does not read from, too
@pytest.mark.parametrize("how", ["missing", "of another plan", "torn"])
def test_a_job_whose_predecessor_is_not_complete_does_not_begin(launch: Launched, how: str, number: int) -> None:
    """A dependency that let it through too early ends here and not in a short output."""
    before = launch.build.jobs[number].shard_jobs[0]
    path = launch.build.out / "stages" / before / "manifest.json"
    body = json.loads(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "of another plan":
        from stackbuild.shards import digest

        body = {"job": body["job"], "plan": "0" * 64, "shards": body["shards"]}
        path.write_bytes(canonical_json({**body, "digest": digest(body)}))
    else:
        path.write_bytes(path.read_bytes()[:-9])
    status, said = ended(start(launch, 0))
    assert status == 4 and before in said
    assert tasks(launch) == [] and not any(manifests(launch).values())
    [end] = launch.events("element-end")
    assert end["status"] == 4 and before in end["reason"]


def test_code_that_is_not_what_was_submitted_does_not_run(launch: Launched) -> None:
    frozen = launch.folder.frozen()
    body = json.loads((launch.folder.path / "launch.json").read_bytes())
    (launch.folder.path / "launch.json").write_bytes(canonical_json({**body, "code": "0" * 64}))
    status, said = ended(start(launch, 0))
    assert status == 4 and "edited or installed" in said and "run the same build again" in said
    assert tasks(launch) == []
    assert frozen.code == code_digest(launch.build)


@pytest.mark.parametrize("after", [{"executor": "slurm", "launch": "20260102-000000-abcd"}, {"executor": "local"}])
def test_an_element_of_a_launch_after_which_another_build_began_does_nothing(
    launch: Launched, after: dict[str, str]
) -> None:
    """Its node was cut off and came back, or somebody let it begin again. The other build may be of other code."""
    driver_journal(launch.build.out).write(event="start", plan=launch.build.plan.digest, **after)
    status, said = ended(start(launch, 0))
    assert status == 4 and f"Launch {launch.folder.id} is over" in said and str(launch.build.out) in said
    assert after.get("launch", "local") in said
    assert tasks(launch) == [] and not any(manifests(launch).values())


def test_a_launch_closes_no_job_when_another_build_has_begun(slurm: Slurm, complete: Build) -> None:
    """As an element of a chain would that Slurm has lost sight of."""
    launch = Launched(slurm, complete, ROWS)
    paths = [complete.out / "stages" / name / "manifest.json" for name in complete.jobs[ROWS].shard_jobs]
    for path in paths:
        path.unlink()
    driver_journal(complete.out).write(event="start", launch="20260102-000000-abcd")
    with pytest.raises(InputError, match="is over"):
        close(launch.folder, complete, ROWS)
    assert not any(path.exists() for path in paths)
    driver_journal(complete.out).write(event="start", launch=launch.folder.id)
    close(launch.folder, complete, ROWS)
    assert all(path.exists() for path in paths)


def test_an_edit_of_a_module_that_makes_the_output_changes_the_digest_of_the_code(
    complete: Build, tmp_path: Path
) -> None:
    """Seen by another process, on a copy of the package of which one module is edited."""
    import shutil

    shutil.copytree(ROOT / "stackbuild", tmp_path / "p" / "stackbuild", ignore=shutil.ignore_patterns("__pycache__"))
    plan = complete.out / "plans" / f"{complete.plan.digest[:24]}.json"
    script = (
        "import sys; from pathlib import Path; from stackbuild.frozen_plan import Plan; from stackbuild.plan import Build\n"
        "from stackbuild.slurm.code import code_digest\n"
        "print(code_digest(Build(Path(sys.argv[1]), Plan.load(Path(sys.argv[2])))))"
    )

    def seen() -> str:
        command = [sys.executable, "-c", script, str(complete.out), str(plan)]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "p")}
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert seen() == code_digest(complete)
    package, found = tmp_path / "p" / "stackbuild", [code_digest(complete)]
    for name in ("tables.py", "quality/signals.py", "sources/directory.py"):
        with open(package / name, "a") as file:
            file.write("\nEDITED = 1\n")
        found.append(seen())
    assert len(set(found)) == 4
    with open(package / "slurm" / "follow.py", "a") as file:  # which only looks on
        file.write("\nEDITED = 1\n")
    assert seen() == found[-1]


def test_a_plan_that_is_not_the_launchs_does_not_run(launch: Launched) -> None:
    body = json.loads((launch.folder.path / "launch.json").read_bytes())
    (launch.folder.path / "launch.json").write_bytes(canonical_json({**body, "plan": "0" * 64}))
    status, said = ended(start(launch, 0))
    assert status == 4 and "is not the plan" in said


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_while_it_gets_ready_begins_nothing(launch: Launched, number: int) -> None:
    process = start(launch, 0)
    wait_for(lambda: heeds(process, number))
    process.send_signal(number)
    status, said = ended(process)
    assert status == 86, said
    assert tasks(launch) == []
    [end] = launch.events("element-end")
    assert end["status"] == 86 and end["reason"] == (
        "SIGTERM" if number == signal.SIGTERM else "the time limit is near"
    )


def test_one_element_takes_a_chain_of_jobs_and_closes_each(slurm: Slurm, complete: Build) -> None:
    launch = Launched(slurm, complete, ROWS, last=ROWS + 1, elements=1)
    launch.lose(ROWS + 1, 0, 1)
    launch.lose(ROWS, 2)
    status, said = ended(start(launch, 0))
    assert status == 0, said
    ends = launch.events("element-end")
    assert [(event["number"], event["status"]) for event in ends] == [(ROWS, 0), (ROWS + 1, 0)]
    exist = [
        [(complete.out / "stages" / name / "manifest.json").exists() for name in complete.jobs[number].shard_jobs]
        for number in (ROWS, ROWS + 1)
    ]
    assert exist == [[True] * 3, [False]]  # the last one's is the gate's to write
    assert sorted((event["number"], event["rank"]) for event in launch.events("task")) == [
        (ROWS, 2),
        (ROWS + 1, 0),
        (ROWS + 1, 1),
    ]


# ---------------------------------------------------------------- the publishing job


def published(launch: Launched) -> int:
    return publish.main([str(launch.build.out), str(launch.folder.path)])


def test_the_last_job_publishes_what_a_local_build_does(slurm: Slurm, complete: Build) -> None:
    launch, before = Launched(slurm, complete, ROWS), released(complete.out)
    assert published(launch) == 0
    assert released(complete.out) == before
    [end] = launch.events("end")
    assert end["plan"] == complete.plan.digest and end["not_read"] == 0


def test_the_last_job_publishes_nothing_of_a_build_that_is_not_complete(slurm: Slurm, complete: Build) -> None:
    launch = Launched(slurm, complete, ROWS)
    launch.lose(ROWS, 1)
    before = released(complete.out)
    assert published(launch) != 0
    assert released(complete.out) == before
    [word] = launch.events("failed")
    assert "not complete" in word["message"]


def test_the_last_job_of_a_launch_after_which_another_began_publishes_nothing(slurm: Slurm, complete: Build) -> None:
    launch = Launched(slurm, complete, ROWS)
    (complete.out / "build.json").unlink()
    driver_journal(complete.out).write(event="start", executor="slurm", launch="20260102-000000-abcd")
    assert published(launch) == 4
    assert not (complete.out / "build.json").exists() and not launch.events("end")
    [word] = launch.events("failed")
    assert "is over" in word["message"] and word["exit_code"] == 4


def test_whoever_types_build_again_does_not_make_the_last_job_fail(slurm: Slurm, complete: Build) -> None:
    """To join a launch the folder is held for a moment; the publishing job waits for that."""
    launch, held, let_go = Launched(slurm, complete, ROWS), threading.Event(), threading.Event()

    def join() -> None:
        with only_one(complete.out):
            held.set()
            let_go.wait(30)

    thread = threading.Thread(target=join)
    thread.start()
    held.wait(30)
    threading.Timer(0.5, let_go.set).start()
    assert published(launch) == 0
    thread.join()


def test_a_node_that_sees_no_input_tells_so_and_does_not_empty_its_share(complete: Build, tmp_path: Path) -> None:
    """One input that is missing is told as not read; a node without the folder would tell so of everything it is given."""
    pending = [TaskSpec(rank, {}) for rank in range(len(complete.plan.units))]
    assert len(pending) > 1
    see_inputs(complete, pending)
    gone = [replace(unit, where={**unit.where, "path": str(tmp_path / "gone")}) for unit in complete.plan.units]
    some = replace(complete.plan, units=[*gone[:-1], complete.plan.units[-1]])
    see_inputs(Build(complete.out, some), pending)
    with pytest.raises(TemporaryError, match="sees none of"):
        see_inputs(Build(complete.out, replace(complete.plan, units=gone)), pending)
    see_inputs(complete, [])


def test_a_stage_manifest_that_a_client_sees_a_little_later_is_waited_for(complete: Build) -> None:
    path = complete.out / "stages" / "00-contents" / "manifest.json"
    kept = path.with_name("kept")
    path.rename(kept)
    threading.Timer(0.5, lambda: kept.rename(path)).start()
    gate(Build(complete.out, complete.plan), 3)
    path.rename(kept)
    with pytest.raises(InputError, match="00-contents is not complete"):
        gate(Build(complete.out, complete.plan), 3)
