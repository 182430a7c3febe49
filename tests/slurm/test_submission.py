"""What a user does on a login node, and what happens to it there: submitting, killing what submits, submitting again, cancelling."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Prepared
from tests.slurm.scenario import Scenario

MOODY = 5  # number of the job with the stage that misbehaves
QUICKLY = ("--wait", "--set", "slurm.tasks_per_job=8")  # what is left in one element: the table changes no byte
Begun = Callable[..., Scenario]


def started(build: Scenario, *arguments: str, path: Path | None = None) -> subprocess.Popen[str]:
    """`stackbuild build`, running; `path`: a folder whose commands it finds first."""
    command = build.command("build", build.recipe, "--output", build.out, "--executor", "slurm", *arguments)
    environment = dict(build.environment)
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.Popen(
        command, env=environment, cwd=build.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


# Submits some jobs; the sixth time that it is called it does nothing until its caller is gone.
HANGING = """#!/bin/sh
echo >> "$(dirname "$0")/calls"
[ "$(wc -l < "$(dirname "$0")/calls")" -le 5 ] && exec {sbatch} "$@"
while kill -0 $PPID 2>/dev/null; do sleep 0.1; done
"""


def test_a_dry_run_prints_scripts_that_slurm_takes_and_leaves_nothing(begun: Begun) -> None:
    build = begun(tasks_per_job=3)
    before = sorted(build.out.rglob("*"))
    jobs = json.loads(build.build("--dry-run", "--json").stdout)
    assert sorted(build.out.rglob("*")) == before
    assert len(jobs) == 13  # an array and a gate for each of six jobs, and one that publishes
    for job in jobs:
        done = subprocess.run(
            ["sbatch", "--test-only"],
            input=job["script"],
            env=build.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + job["script"]


def test_killed_while_it_submits_nothing_runs_and_the_next_build_does_it_all(
    begun: Begun, prepared: Prepared, tmp_path: Path
) -> None:
    build = begun(tasks_per_job=3)
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(HANGING.format(sbatch=shutil.which("sbatch", path=build.environment["PATH"])))
    sbatch.chmod(0o755)

    def waiting() -> set[int]:
        return {job.array for job in build.cluster.jobs("stackbuild-") if not job.finished}

    with started(build, path=tmp_path) as driver:
        calls = tmp_path / "calls"
        build.cluster.wait_for(lambda: calls.exists() and calls.stat().st_size == 6, "some jobs are submitted")
        os.kill(driver.pid, signal.SIGKILL)
    ids = waiting()
    assert 3 <= len(ids) <= 5
    time.sleep(3)
    assert not any(build.began(rank) for rank in range(8))
    assert {job.state for job in build.cluster.jobs("stackbuild-") if job.array in ids} == {"PENDING"}
    build.saw(lambda status: status["state"] in ("waiting", "stopped"), "nothing runs")
    build.build(*QUICKLY)
    assert {job.state for job in build.cluster.jobs("stackbuild-") if job.array in ids} == {"CANCELLED"}
    assert [len(build.began(rank)) for rank in range(8)] == [1] * 8
    build.same_as(prepared.reference)


def test_killed_after_it_submitted_the_build_goes_on(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    build.order(0, "wait")
    with started(build, "--wait") as driver:
        build.wait_began(0)
        os.kill(driver.pid, signal.SIGKILL)
    build.saw(lambda status: status["state"] == "running" and status["jobs"][MOODY]["running"] >= 1, "it runs")
    build.go()
    build.finish()
    build.same_as(prepared.reference)


def test_a_build_that_is_under_way_is_joined_and_another_one_refused(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    build.order(0, "wait")
    build.build()
    build.wait_began(0)
    before = build.jobs()
    said = build.build().stderr
    assert "nothing was submitted" in said and build.launch.name in said
    refused = build.build("--set", "seed=8", expect=2)
    assert build.launch.name in refused.stderr and "stackbuild cancel" in refused.stderr
    locally = build.build(executor="local", expect=2)
    assert build.launch.name in locally.stderr
    assert {job.identity for job in build.jobs()} == {job.identity for job in before}
    build.go()
    build.build("--wait")
    assert [len(build.began(rank)) for rank in range(8)] == [1] * 8
    build.same_as(prepared.reference)


def test_a_cancelled_build_is_resumed(begun: Begun, prepared: Prepared) -> None:
    """In a folder, too, whose name sbatch, the shell and Slurm's own patterns could each take for something else."""
    build = begun(out="o u t '100%j' $HOME #1", tasks_per_job=3)
    for rank in range(8):
        build.order(rank, "wait")
    build.build()
    at_work = build.wait_at_work(6)
    build.go(at_work[0])
    stage = build.out / "stages" / "05-moody" / "manifests"
    build.cluster.wait_for(lambda: any(stage.glob("*.json")), "one task is complete")
    build.stackbuild("cancel", build.out)
    assert {job.state for job in build.end()} == {"CANCELLED"}
    build.saw(lambda status: status["state"] == "cancelled" and status["jobs"][MOODY]["ran"] == 1, "cancelled")
    build.stackbuild("cancel", build.out, expect=2)
    build.go()
    build.build(*QUICKLY)
    assert len(build.began(at_work[0])) == 1
    build.same_as(prepared.reference)


@pytest.mark.long
def test_no_array_is_left_unwaited_for_when_there_are_more_tasks_than_one_may_hold(
    slurm: None, prepared: Prepared, tmp_path: Path
) -> None:
    with Cluster(nodes=2, max_array=3) as cluster:
        build = prepared.scenario(cluster, tmp_path / "build", tasks_per_job=1, cpus=1)
        for rank in range(3):  # all of the first array
            build.order(rank, "raise", "raise", "raise")
        failed = build.build("--wait", expect=5)
        assert "3 of 8 tasks" in failed.stderr and "told to raise" in failed.stderr
        assert [(one["first"], one["elements"]) for one in build.submitted("array", MOODY)] == [(0, 3), (3, 3), (6, 2)]
        assert {event["number"] for event in build.events("element")} == {MOODY}
        others = [job for job in build.end() if not job.name.endswith(("-05.1", "-05.1-gate"))]
        assert {job.state for job in others} == {"CANCELLED"}
        assert not build.events("failed")[1:]  # no gate behind it began, only to say that this one failed
        told = build.status()
        assert told["state"] == "failed" and told["jobs"][MOODY]["state"] == "failed"
        assert [(one["rank"], one["cause"]) for one in told["failures"]] == [(rank, "exception") for rank in range(3)]
        assert {job["state"] for job in told["jobs"][MOODY + 1 :]} == {"blocked"}
        assert "RuntimeError: told to raise in partition 2" in build.stackbuild("logs", build.out, "--failed").stdout
        build.build(*QUICKLY)
        build.same_as(prepared.reference)


@pytest.fixture
def small_disk(slurm: None, tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64m", "tmpfs"]
    if subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_shared_folder_ends_the_build_by_name_and_it_is_resumed(
    cluster: Cluster, prepared: Prepared, small_disk: Path, tmp_path: Path
) -> None:
    build = prepared.scenario(cluster, tmp_path / "build", out=small_disk / "out")
    for rank in range(8):
        build.order(rank, "wait")
    build.build()
    build.wait_at_work(2)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(b"\0" * (free - 8192))
    build.go()
    build.end()
    assert not build.events("end")
    told = build.status()
    assert told["state"] == "failed"
    failed = [one for one in told["failures"] if one["rank"] is not None]
    assert failed and {one["cause"] for one in failed} == {"disk_full"}
    assert any("make room" in step for step in told["next"])
    (small_disk / "filler").unlink()
    build.build("--wait")
    build.same_as(prepared.reference)


def test_a_build_that_no_node_has_memory_for_is_refused_and_waits_for_nothing(begun: Begun) -> None:
    build = begun(memory="100GB", max_memory="500GB")
    refused = build.build("--wait", expect=None)
    assert refused.returncode and "node configuration is not available" in refused.stderr
    assert not build.jobs()


def test_a_task_that_wants_more_memory_than_any_node_has_ends_the_build_and_says_so(
    slurm: None, prepared: Prepared, tmp_path: Path
) -> None:
    with Cluster(nodes=1, memory_mb=1200) as cluster:
        build = prepared.scenario(cluster, tmp_path / "build")
        build.order(4, "eat", "eat")
        ended = build.build("--wait", expect=None)
        assert ended.returncode and "node configuration is not available" in ended.stderr
        assert all(job.finished for job in build.end())
