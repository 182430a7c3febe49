"""Submission: all or nothing runs, every id is on disk before the next is asked for, and a second one joins, refuses or clears
away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackbuild import build as building
from stackbuild.build import Request
from stackbuild.cluster import SlurmOptions
from stackbuild.errors import StackbuildError, UsageError
from stackbuild.launches import LaunchFolder, Wave, last_launch, refuse_while_on_cluster
from stackbuild.plan import Build
from stackbuild.scheduler import BARE, SchedulerError
from stackbuild.slurm.follow import cancel
from stackbuild.slurm.script import memory_of
from stackbuild.slurm.submit import Submission, dry_run, submit, waves_of
from stackbuild.status import status_of
from tests.slurm_units.conftest import Launched, Slurm, small
from tests.test_build import released

ROOT = Path(__file__).parent.parent.parent
OPTIONS = SlurmOptions(tasks_per_job=1)
SUBMIT = """
import json, sys
from pathlib import Path
from stackbuild.build import Request
from stackbuild.cluster import SlurmOptions
from stackbuild.slurm.submit import submit
submit(Request(json.loads(sys.argv[1]), Path("/"), Path(sys.argv[2]), 1), SlurmOptions(tasks_per_job=1))
"""


@pytest.fixture
def submitted(slurm: Slurm, root: Path, tmp_path: Path) -> Callable[..., Submission]:
    def run(options: SlurmOptions = OPTIONS, **changes: Any) -> Submission:
        return submit(Request(small(root, **changes), Path("/"), tmp_path / "out", 1), options)

    return run


def journalled(out: Path) -> list[str]:
    """The ids that the launches of a folder have written down."""
    lines = [line for path in out.glob("launches/*/jobs*.jsonl") for line in path.read_text().splitlines()]
    return [event["submitted"]["slurm"] for event in map(json.loads, lines) if event["event"] == "submitted"]


# ---------------------------------------------------------------- the whole graph


def test_a_gate_waits_for_all_arrays_of_its_job(slurm: Slurm, submitted: Callable[..., Submission]) -> None:
    """Arrays over the site's limit are split; what waited for the last alone went on without the others."""
    slurm.order(max_array=3)
    done = submitted()
    jobs = slurm.jobs
    for wave in done.waves:
        ids = [one for one in done.folder.submitted() if one.number == wave.number]
        arrays = [one for one in ids if one.kind == "array"]
        [gate] = [one for one in ids if one.kind == "gate"]
        waits = jobs[gate.slurm]["dependency"].split(",")
        assert waits[0] == "afterany:" + ":".join(one.slurm for one in arrays)
        elements = [one.first + index for one in arrays for index in range(one.elements)]
        assert elements == list(range(wave.elements))
        assert all(jobs[one.slurm]["elements"] == one.elements <= 3 for one in arrays)
    assert any(wave.elements == 4 for wave in done.waves)


def test_each_job_waits_for_the_good_end_of_the_gate_before_it(
    slurm: Slurm, submitted: Callable[..., Submission]
) -> None:
    done = submitted()
    gates = {one.number: one.slurm for one in done.folder.submitted() if one.kind == "gate"}
    previous: str | None = None
    for wave in done.waves:
        arrays = [one.slurm for one in done.folder.submitted() if (one.number, one.kind) == (wave.number, "array")]
        for array in arrays:
            assert slurm.jobs[array]["dependency"] == (f"afterok:{previous}" if previous else "")
        previous = gates[wave.number]
    [last] = [one.slurm for one in done.folder.submitted() if one.kind == "publish"]
    assert slurm.jobs[last]["dependency"] == f"afterok:{previous}"


def test_only_the_first_arrays_are_held_and_all_is_released_in_the_end(
    slurm: Slurm, submitted: Callable[..., Submission]
) -> None:
    slurm.order(max_array=2)
    done = submitted()
    first = [one.slurm for one in done.folder.submitted() if (one.number, one.kind) == (0, "array")]
    assert len(first) == 2
    assert [arguments for arguments in slurm.said("scontrol") if arguments[0] == "release"] == [
        ["release", n] for n in first
    ]
    assert slurm.calls[-1]["arguments"] == ["release", first[-1]]
    assert slurm.may_begin() == first
    assert done.folder.marked("released")


def test_every_id_is_on_disk_before_the_next_is_asked_for(
    slurm: Slurm, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackbuild import scheduler

    seen: list[tuple[list[str], list[str]]] = []
    real = scheduler.sbatch

    def watched(script: str, options: Any = (), **more: Any) -> str:
        seen.append((sorted(slurm.jobs), sorted(journalled(tmp_path / "out"))))
        return real(script, options, **more)

    monkeypatch.setattr(scheduler, "sbatch", watched)
    submit(Request(small(root), Path("/"), tmp_path / "out", 1), OPTIONS)
    assert len(seen) > 10 and all(taken == written for taken, written in seen)


def test_a_controller_that_answers_too_late_has_each_job_once(slurm: Slurm, root: Path, tmp_path: Path) -> None:
    submit(Request(small(root), Path("/"), tmp_path / "one", 1), OPTIONS)
    count = len(slurm.jobs)
    late = {f"sbatch_{call}": "busy after" for call in (count + 1, count + 2, 2 * count)}
    slurm.order(**late, scontrol_4="busy after")
    done = submit(Request(small(root), Path("/"), tmp_path / "other", 1), OPTIONS)
    names = [job["name"] for job in slurm.live.values() if job["name"].startswith(done.folder.prefix)]
    assert len(set(names)) == len(names) == count and names[-1].endswith("-publish")
    assert len(slurm.said("sbatch")) == 2 * count and set(done.jobs) == set(journalled(tmp_path / "other"))


def test_nothing_of_slurms_or_of_the_users_environment_is_passed_on(
    slurm: Slurm, submitted: Callable[..., Submission], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As it is where a build is submitted from inside a job, and where a shell knows secrets."""
    monkeypatch.setenv("SLURM_CONF", "/etc/of/the/cluster.conf")
    names = "SLURM_JOB_ID SLURM_MEM_PER_NODE SLURM_ARRAY_TASK_ID SBATCH_QOS SRUN_DEBUG SLURMD_NODENAME SQUEUE_FORMAT"
    for name in names.split():
        monkeypatch.setenv(name, "77")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-of-mine")
    monkeypatch.setenv("GITHUB_TOKEN", "s3cr3t-of-mine")
    submitted()
    for call in slurm.calls:
        foreign = [
            name for name in call["environment"] if name.startswith(("SLURM", "SBATCH", "SRUN", "SQUEUE", "SCANCEL"))
        ]
        assert foreign == ["SLURM_CONF"]
        if call["command"] == "sbatch":  # what it has, the job gets
            assert set(call["environment"]) <= {*BARE, "PWD", "SHLVL", "_"}
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if b"s3cr3t-of-mine" in path.read_bytes()]


def test_what_is_given_to_sbatch_is_kept_beside_what_it_did(slurm: Slurm, submitted: Callable[..., Submission]) -> None:
    done = submitted()
    kept = {path.read_text() for path in (done.folder.path / "scripts").iterdir()}
    assert kept == {call["script"] for call in slurm.calls if call["command"] == "sbatch"}


def test_the_dry_run_prints_what_is_submitted_and_submits_nothing(
    slurm: Slurm, root: Path, tmp_path: Path, submitted: Callable[..., Submission]
) -> None:
    slurm.order(max_array=3)
    request = Request(small(root), Path("/"), tmp_path / "out", 1)
    shown = dry_run(request, OPTIONS)
    assert slurm.said("sbatch") == [] and not (tmp_path / "out").exists()
    done = submitted()
    given = [call["script"] for call in slurm.calls if call["command"] == "sbatch"]
    assert [script.replace("LAUNCH", done.folder.id) for _, script in shown] == given


def test_the_dry_run_of_a_build_that_was_ended_between_tasks_and_manifest(slurm: Slurm, complete: Build) -> None:
    """All tasks of a job are complete and nothing says so yet: there is nothing to do in it, and no array of no elements."""
    request = Request(complete.plan.recipe, Path("/"), complete.out, 1)
    for job in complete.jobs[3:]:
        for name in job.shard_jobs:
            (complete.out / "stages" / name / "manifest.json").unlink()
    shown = dry_run(request, OPTIONS)
    arrays = [line for _, script in shown for line in script.splitlines() if line.startswith("#SBATCH --array")]
    assert all(line.startswith("#SBATCH --array=0-") and "--array=0--" not in line for line in arrays)
    assert not [script for _, script in shown if f"-{3:02d}." in script]


def test_a_complete_build_submits_the_publishing_job_alone(slurm: Slurm, complete: Build) -> None:
    done = submit(Request(complete.plan.recipe, Path("/"), complete.out, 1), OPTIONS)
    assert [job["name"].rpartition("-")[2] for job in slurm.jobs.values()] == ["publish"]
    assert slurm.may_begin() == done.jobs


# ---------------------------------------------------------------- what breaks meanwhile


def killed_at(call: str, how: str, slurm: Slurm, root: Path, out: Path) -> None:
    """Submit in a process of its own, which dies at a call of one of Slurm's commands."""
    slurm.order(**{call: how})
    command = [sys.executable, "-c", SUBMIT, json.dumps(small(root)), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    slurm.order()


@pytest.mark.parametrize(
    ("call", "how"),
    [
        ("sbatch_1", "kill after"),  # Slurm has the job, and its id is nowhere
        ("sbatch_5", "kill after"),
        ("sbatch_23", "kill after"),  # the publishing job
        ("scontrol_2", "kill"),  # before the release
    ],
)
def test_a_driver_that_dies_leaves_nothing_that_runs_and_the_next_one_clears_it_away(
    slurm: Slurm, root: Path, tmp_path: Path, submitted: Callable[..., Submission], call: str, how: str
) -> None:
    killed_at(call, how, slurm, root, tmp_path / "out")
    assert slurm.may_begin() == []
    left = set(slurm.jobs)
    if left:
        with pytest.raises(UsageError, match="cancel"):
            refuse_while_on_cluster(tmp_path / "out")
    done = submitted()
    assert set(slurm.live) == set(done.jobs) and not left & set(done.jobs)
    assert not done.joined


def test_what_a_dead_driver_left_can_be_cancelled(slurm: Slurm, root: Path, tmp_path: Path) -> None:
    killed_at("sbatch_5", "kill after", slurm, root, tmp_path / "out")
    assert "cancelled" in cancel(tmp_path / "out")
    assert slurm.live == {}


@pytest.mark.parametrize(
    "orders",
    [
        {"sbatch_1": "fail"},
        {"sbatch_6": "fail"},
        {"sbatch_6": "fail after"},
        {"scontrol_2": "fail"},
        {"sbatch_6": "fail", "squeue_1": "fail"},
    ],
)
def test_a_submission_that_fails_leaves_nothing_in_the_queue(
    slurm: Slurm, submitted: Callable[..., Submission], tmp_path: Path, orders: dict[str, str]
) -> None:
    slurm.order(**orders)
    with pytest.raises(SchedulerError, match="told to fail"):
        submitted()
    assert slurm.live == {}
    status = status_of(tmp_path / "out")
    assert status.state == "stopped" and "told to fail" in status.notes[-1]
    slurm.order()
    assert not submitted().joined
    assert not status_of(tmp_path / "out").notes


def test_a_build_that_is_under_way_is_joined(slurm: Slurm, submitted: Callable[..., Submission]) -> None:
    first = submitted()
    jobs = set(slurm.jobs)
    second = submitted()
    assert second.joined and second.folder.id == first.folder.id and second.jobs == first.jobs
    assert set(slurm.jobs) == jobs


def test_another_recipe_for_the_same_folder_is_refused_while_a_build_is_under_way(
    slurm: Slurm, submitted: Callable[..., Submission]
) -> None:
    submitted()
    jobs = set(slurm.jobs)
    with pytest.raises(UsageError, match="another recipe"):
        submitted(seed=8)
    assert set(slurm.jobs) == jobs


def test_a_command_that_is_refused_or_joins_leaves_the_frozen_sources_alone(
    slurm: Slurm, root: Path, tmp_path: Path, submitted: Callable[..., Submission]
) -> None:
    """What a launch under way resolved is what the next run of an unfinished build reads. Else what has come into a folder since
    was taken in by a command that did nothing, and the build's own command was then refused as another one's."""
    here = shutil.copytree(root, tmp_path / "world")
    sources = [{"kind": "directory", "paths": [str(path) for path in sorted(here.iterdir())]}]
    first = submitted(source=sources)
    frozen = tmp_path / "out" / "plans" / "sources.json"
    before = frozen.read_bytes()
    [*_, some] = sorted(here.iterdir())
    (some / "more.py").write_text("print('came later')\n" * 40)
    with pytest.raises(UsageError, match="another recipe"):
        submitted(source=sources, seed=8)
    assert frozen.read_bytes() == before
    joined = submitted(source=sources)
    assert joined.joined and joined.folder.id == first.folder.id
    assert frozen.read_bytes() == before


def test_a_local_build_is_refused_while_jobs_are_live_and_not_after(
    slurm: Slurm, submitted: Callable[..., Submission], root: Path, tmp_path: Path
) -> None:
    submitted()
    request = Request(small(root), Path("/"), tmp_path / "out", 1)
    with pytest.raises(UsageError, match="on Slurm"):
        building.run(request)
    cancel(tmp_path / "out")
    refuse_while_on_cluster(tmp_path / "out")


def test_each_launch_has_a_folder_of_its_own_and_the_old_one_is_not_written_over(
    slurm: Slurm, submitted: Callable[..., Submission], tmp_path: Path
) -> None:
    first = submitted()
    before = {path: path.read_bytes() for path in first.folder.path.rglob("*") if path.is_file()}
    cancel(tmp_path / "out")
    second = submitted()
    assert second.folder.id != first.folder.id
    found = last_launch(tmp_path / "out")
    assert found is not None and found.id == second.folder.id
    changed = [path for path, data in before.items() if path.read_bytes() != data]
    assert [path.name for path in changed] == ["jobs.jsonl"]  # which says that it was cancelled


def test_a_launch_that_has_said_its_last_word_is_not_under_way(slurm: Slurm, complete: Build) -> None:
    launch = Launched(slurm, complete, 5)
    LaunchFolder(complete.out, launch.folder.id).mark("released")
    (complete.out / "launches" / "journal.jsonl").write_text(
        json.dumps({"time": 1.0, "event": "start", "launch": launch.folder.id}) + "\n"
    )
    with pytest.raises(UsageError):
        refuse_while_on_cluster(complete.out)
    launch.folder.events_of("05.1-gate.0.1").write(event="failed", message="no", exit_code=5)
    refuse_while_on_cluster(complete.out)


def test_a_cancel_that_races_with_a_gate_takes_what_the_gate_submitted(
    slurm: Slurm, submitted: Callable[..., Submission], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackbuild import scheduler

    done = submitted()
    real, late = scheduler.cancel, []

    def cancelled(ids: Any) -> None:
        real(ids)
        if not late:
            script = f"#!/bin/bash\n#SBATCH --job-name={done.folder.prefix}05.2\n#SBATCH --array=0-0\n"
            late.append(scheduler.sbatch(script, ["--hold"]))

    monkeypatch.setattr(scheduler, "cancel", cancelled)
    cancel(tmp_path / "out")
    assert late and slurm.live == {}


def test_a_folder_that_slurm_cannot_write_to_is_refused_before_anything_is_made(
    slurm: Slurm, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(StackbuildError, match="backslash"):
        submit(Request(small(root), Path("/"), tmp_path / "a\\b", 1), OPTIONS)
    assert not (tmp_path / "a\\b").exists() and slurm.calls == []


def test_where_there_is_no_slurm_it_says_so(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no Slurm"):
        submit(Request(small(root), Path("/"), tmp_path / "out", 1), OPTIONS)


# ---------------------------------------------------------------- where, never what


def test_where_a_build_runs_changes_no_digest_and_is_in_nothing_that_is_released(complete: Build) -> None:
    """[slurm] and [ray] are nobody's business but the user's: two builds that differ in nothing else are one."""
    tables = {
        "slurm": {"partition": "of-whom", "account": "payer-17", "memory": "3GB", "sbatch": ["--constraint=fast-ones"]},
        "ray": {"address": "ray://head-of-whom:10001"},
    }
    before = released(complete.out) | {"build.json": (complete.out / "build.json").read_bytes()}
    told = building.run(Request({**complete.plan.recipe, **tables}, Path("/"), complete.out, 1))
    assert told.build.plan.digest == complete.plan.digest
    assert not any(report.ran for report in told.reports)
    assert released(complete.out) | {"build.json": (complete.out / "build.json").read_bytes()} == before
    words = (b"of-whom", b"payer-17", b"fast-ones")
    for path in complete.out.rglob("*"):
        assert not path.is_file() or not [word for word in words if word in path.read_bytes()], path


def test_a_job_asks_for_the_memory_that_the_recipe_gives_it(slurm: Slurm, complete: Build) -> None:
    """One job may need much more than the others, and should not make these as large."""
    given = {"contents": "3GB", "decode": 5 * 10**9}
    options = SlurmOptions(tasks_per_job=1, cpus=2, memory="1GB", shared_memory="1GB", job_memory=given)  # type: ignore[arg-type]
    shutil.rmtree(complete.out / "stages")
    asked = {}
    for _, script in dry_run(Request(complete.plan.recipe, Path("/"), complete.out, 1), options):
        lines = dict(
            line[10:].split("=", 1) for line in script.splitlines() if line.startswith("#SBATCH --") and "=" in line
        )
        if "array" in lines:
            asked[int(lines["job-name"].split("-")[-1].split(".")[0])] = (lines["mem"], int(lines["cpus-per-task"]))
    tasks = {job.name: 1 for job in complete.jobs}
    tasks |= {job.name: 3 for job in complete.jobs if job.kind == "contents"}
    tasks |= {job.name: 5 for job in complete.jobs if job.kind == "rows" and "decode" in job.name}
    assert sorted(tasks.values())[-2:] == [3, 5]
    for number, (memory, cpus) in asked.items():
        chain = range(number, min((later for later in asked if later > number), default=len(complete.jobs)))
        task = max(
            tasks[complete.jobs[one].name] for one in chain
        )  # jobs that share an element: what the largest takes
        assert memory == f"{-(-(task * cpus + 1) * 10**9 // 2**20)}M"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cpus": 64}, "130.0 GB"),
        ({"cpus": 2, "job_memory": {"contents": "63GB"}}, "65.0 GB"),
        ({"memory": "4GB", "max_memory": "9GB"}, "10.0 GB"),
        ({"shared_memory": "70GB"}, "74.0 GB"),
    ],
)
def test_an_element_that_would_ask_for_more_than_the_recipe_allows_is_refused_before_anything_is_made(
    slurm: Slurm, root: Path, tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    """max_memory bounded only what was tried again: the first wave took what it liked, and then nothing was tried again."""
    request = Request(small(root), Path("/"), tmp_path / "out", 1)
    for command in (submit, dry_run):
        with pytest.raises(UsageError, match=f"{words}.*max_memory"):
            command(request, SlurmOptions(**asked))
    assert not (tmp_path / "out").exists() and slurm.said("sbatch") == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cpus=st.integers(1, 16),
    memory=st.integers(1, 4),
    given_=st.dictionaries(st.sampled_from(["ingest", "contents", "occurrences", "decode"]), st.integers(1, 40)),
    alone=st.booleans(),
)
def test_no_job_asks_for_more_than_max_memory(
    complete: Build, cpus: int, memory: int, given_: dict[str, int], alone: bool
) -> None:
    """Jobs that share an element too, of which one may want many small tasks at once and another a large one."""
    shutil.rmtree(complete.out / "stages", ignore_errors=True)
    options = SlurmOptions(
        cpus=cpus,
        memory=memory * 10**9,
        shared_memory=10**9,
        job_memory={job: size * 10**9 for job, size in given_.items()},
        tasks_per_job=1 if alone else 0,
    )
    options = options.model_copy(update={"max_memory": options.element_memory})
    waves, _, _ = waves_of(complete, options, keep=False)
    for wave in waves:
        assert memory_of(wave) <= options.max_memory
        tasks = [given_.get(name, memory) for name in names_of(complete, wave)]
        assert wave.memory == max(tasks) * 10**9 and wave.cpus >= 1


def names_of(build: Build, wave: Wave) -> list[str]:
    """The jobs of a wave, as `job_memory` names them."""
    jobs = build.jobs[wave.number : wave.last + 1]
    return ["decode" if job.kind == "rows" else job.name.split("-", 1)[1] for job in jobs]


def test_memory_for_a_job_that_there_is_not_is_refused_and_those_that_are_there_are_named(
    slurm: Slurm, root: Path, tmp_path: Path
) -> None:
    options = SlurmOptions(job_memory={"near_dedup.set": "4GB"})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match=r"near_dedup.set, which is no job.*there are ingest, contents, occurrences"):
        dry_run(Request(small(root), Path("/"), tmp_path / "out", 1), options)


def test_more_time_than_the_partition_allows_is_refused(
    slurm: Slurm, root: Path, tmp_path: Path, submitted: Callable[..., Submission]
) -> None:
    """sbatch takes it, and lets it wait for ever."""
    slurm.order(
        partitions="PartitionName=cpu Default=YES MaxTime=00:30:00\nPartitionName=long Default=NO MaxTime=UNLIMITED"
    )
    for partition in ("", "cpu"):
        with pytest.raises(UsageError, match="more than 30 minutes"):
            submitted(SlurmOptions(time="00:31:00", partition=partition))
    assert slurm.said("sbatch") == []
    submitted(SlurmOptions(time="00:31:00", partition="cpu,long"))
    assert slurm.said("sbatch")
