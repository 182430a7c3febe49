"""What `stackbuild build --executor slurm` says: why a launch did not end well, and what to do."""

from __future__ import annotations

import json
import os
import pwd
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackbuild.build import Request
from stackbuild.cli import slurm as telling
from stackbuild.errors import StackbuildError, UsageError
from stackbuild.launches import LaunchFolder, last_launch, refuse_while_on_cluster
from stackbuild.slurm import follow
from stackbuild.slurm.follow import cancel
from stackbuild.status import status_of
from tests.slurm_units.conftest import Slurm, small

NO_PYTHON = "/var/spool/slurm_script: line 35: /opt/none/bin/python: No such file or directory\n"


@pytest.fixture
def build(slurm: Slurm, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """The command, in a folder with a blank in its name."""
    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(follow, "ASK_SECONDS", 0.02)

    def run(wait: bool = False, **settings: Any) -> bool:
        recipe = small(root, **({"slurm": settings} if settings else {}))
        request = Request(recipe, Path("/"), tmp_path / "the out", 1)
        return telling.submit(request, follow=wait, dry_run=False, as_json=False)

    return run


@pytest.fixture
def folder(build: Callable[..., bool], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> LaunchFolder:
    """A launch that was submitted."""
    build()
    capsys.readouterr()
    found = last_launch(tmp_path / "the out")
    assert found is not None
    return found


def test_what_was_submitted_is_said_on_one_line(
    build: Callable[..., bool], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    build(venv=str(tmp_path / "none"))
    note, submitted = capsys.readouterr().err.splitlines()
    assert note.startswith("note: ") and f"{tmp_path}/none/bin/python" in note
    assert submitted.startswith("launch ") and " were submitted as " in submitted


def test_a_job_that_slurm_refuses_is_named_with_what_it_asks_for(
    slurm: Slurm, build: Callable[..., bool], tmp_path: Path
) -> None:
    slurm.order(sbatch_3="fail")  # the array of the second job
    with pytest.raises(StackbuildError) as raised:
        build(memory="2.5GB", shared_memory="1GB", cpus=2, tasks_per_job=1)
    words = "asks for 6 GB ([slurm] cpus = 2 times memory = 2.5 GB, and shared_memory = 1 GB) and for time = 01:00:00: sbatch"
    assert words in str(raised.value) and slurm.live == {}
    [path] = (tmp_path / "the out" / "launches").glob("2*/waves/01.1.json")
    assert f"take {json.loads(path.read_text())['job']}, an element" in str(raised.value)


def test_values_that_a_launch_under_way_was_not_submitted_with_are_told_to_be_ignored(
    slurm: Slurm, build: Callable[..., bool], folder: LaunchFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who raises `memory` at night and builds again must not believe that it took."""
    jobs = set(slurm.jobs)
    build()
    said = capsys.readouterr().err
    assert "under way already" in said and "[slurm]" not in said
    build(memory="100GB", max_memory="500GB", cpus=2, venv="")
    said = capsys.readouterr().err
    assert "[slurm] memory, max_memory of now" in said
    assert f"`{shlex.join(['stackbuild', 'cancel', str(folder.out)])}`" in said
    assert set(slurm.jobs) == jobs


@pytest.mark.parametrize("sight", ["seeing", "blind"])
def test_another_users_launch_under_way_is_refused_with_whose_it_is_and_ended_by_nobody_else(
    slurm: Slurm, build: Callable[..., bool], folder: LaunchFolder, monkeypatch: pytest.MonkeyPatch, sight: str
) -> None:
    """`squeue --me` shows nothing of it, and where jobs are private no question does."""
    user, jobs = pwd.getpwuid(os.getuid()).pw_name, slurm.jobs
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    slurm.order(stranger=sight)
    for way in (build, lambda: cancel(folder.out), lambda: refuse_while_on_cluster(folder.out)):
        with pytest.raises(UsageError, match=f"Launch {folder.id} of user {user} builds .*have {user} end it"):
            way()
    assert slurm.jobs == jobs and not folder.marked("cancelled")
    status = status_of(folder.out)
    assert status.state == "waiting" and bool(status.notes) == (sight == "blind")
    for number, job in jobs.items():
        slurm.end(number, "CANCELLED", range(max(1, job["elements"])))
    if sight == "blind":  # nobody can know that it is over
        with pytest.raises(UsageError, match=str(folder.path)):
            build()
        folder.path.rename(folder.out / "moved away")
    build()
    assert len(slurm.jobs) > len(jobs)


def test_root_may_end_anybodys_launch(slurm: Slurm, folder: LaunchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads((folder.path / "launch.json").read_text())
    (folder.path / "launch.json").write_text(json.dumps({**body, "uid": 4242}))
    slurm.order(stranger="seeing")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert "cancelled" in cancel(folder.out)
    assert slurm.live == {}


def dies(slurm: Slurm, folder: LaunchFolder, words: str) -> None:
    """The first array's elements and its gate end before they can say anything, and Slurm cancels the rest."""
    first = [one for one in folder.submitted() if one.number == 0]
    for one in first:
        name = "00.1-0.0.log" if one.kind == "array" else "00.1-gate.0.log"
        (folder.logs / name).write_text(words)
    for number, job in slurm.jobs.items():
        state = "FAILED" if number in {one.slurm for one in first} else "CANCELLED"
        slurm.end(number, state, range(max(1, job["elements"])))


def test_who_waits_for_a_launch_that_could_say_nothing_is_told_why_and_what_to_do(
    slurm: Slurm, build: Callable[..., bool], folder: LaunchFolder, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real, looks = follow.live_jobs, [0]

    def watched(launch: LaunchFolder) -> Any:
        looks.append(0)
        if len(looks) == 3:
            dies(slurm, folder, NO_PYTHON)
        return real(launch)

    monkeypatch.setattr(follow, "live_jobs", watched)
    with pytest.raises(StackbuildError, match="none said a last word") as raised:
        build(wait=True)
    assert raised.value.exit_code == 5
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith("failed: ") for line in said)
    assert all("refused: /opt/none/bin/python: No such file" in line for line in said if line.startswith("failed: "))
    assert f"    | {NO_PYTHON.strip()}" in said
    assert f"next: {shlex.join(['stackbuild', 'logs', str(folder.out), '--failed'])}" in said
