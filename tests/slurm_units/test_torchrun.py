"""The batch script of the trainer's launcher."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from stackbuild.cluster import SlurmOptions
from stackbuild.errors import UsageError
from stackbuild.slurm.torchrun import main, script
from tests.slurm_units.conftest import Slurm


def test_a_log_folder_with_spaces_and_percent_signs_is_one_word() -> None:
    text = script(2, 4, ["train.main", "--lr", "1e-4 # high"], SlurmOptions(), Path('/my logs/100%/"a"'))
    [line] = [line for line in text.splitlines() if line.startswith("#SBATCH --output=")]
    assert shlex.split(line[8:]) == ['--output=/my logs/100%%/"a"/%j.out']
    assert "-m train.main --lr '1e-4 # high'" in text


def test_nothing_to_run_is_refused() -> None:
    for nodes, processes, command in ((0, 1, ["m"]), (1, 0, ["m"]), (1, 1, [])):
        with pytest.raises(UsageError):
            script(nodes, processes, command, SlurmOptions(), Path("/logs"))


def test_what_slurm_refuses_is_told_in_a_line(slurm: Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.order(sbatch_always="fail")
    assert main(["--log", str(tmp_path / "logs"), "--", "train.main"]) == 5
    assert "told to fail" in capsys.readouterr().err
