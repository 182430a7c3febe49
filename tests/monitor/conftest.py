"""A launch under way, and commands that answer as Slurm's would."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.monitor.launched import Launch
from tests.test_build import run
from tests.worlds import light, world


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = world(tmp_path_factory.mktemp("world"), repos=1, files=2)
    out = tmp_path_factory.mktemp("built") / "out"
    run(light(root, stages=["exact_dedup", "decode", "languages"], partitions=2), out)
    return out


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that answer as Slurm's would: the queue is a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "scontrol", "scancel", "squeue"):
        (folder / name).write_text(
            f"#!/bin/bash\n{'cat ' + str(folder / 'squeue.txt') if name == 'squeue' else 'exit 1'}\n"
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def launch(out: Path, path: Path) -> Launch:
    return Launch(out, path)


@pytest.fixture
def no_slurm(path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """The launch, seen from a machine without Slurm."""
    monkeypatch.setenv("PATH", str(path.parent / "nothing"))
    return launch
