"""The trainer's launcher on two nodes of a real Slurm: one torchrun on each, which find each other and train together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster

ROOT = Path(__file__).parents[2]


def test_torchrun_on_two_nodes_trains_one_model(cluster: Cluster, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed (the train extra)")
    table = {"memory": "1500MB", "cpus": 1, "time": "00:05:00"}
    (tmp_path / "slurm.json").write_text(json.dumps(table))
    command = [sys.executable, "-m", "stackbuild.slurm.torchrun", "--nodes", "2", "--processes", "1", "--wait"]
    command += [
        "--slurm",
        str(tmp_path / "slurm.json"),
        "--log",
        str(tmp_path / "logs"),
        "--",
        "tests.slurm.ddp",
        str(tmp_path),
    ]
    environment = {**cluster.environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    logs = "".join(path.read_text() for path in sorted((tmp_path / "logs").iterdir()))
    assert done.returncode == 0, done.stderr + logs
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert {rank["world"] for rank in ranks} == {2}
    assert len({rank["node"] for rank in ranks}) == 2
    assert {rank["sum"] for rank in ranks} == {3.0}
    assert ranks[0]["weights"] == ranks[1]["weights"]
