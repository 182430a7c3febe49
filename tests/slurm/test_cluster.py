"""The cluster itself: what the scenarios rely on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, kernel_limits
from tests.slurm.processes import alive, environ, processes


def submit(cluster: Cluster, folder: Path, body: str, *options: str) -> str:
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\n{body}\n")
    return cluster.run(
        "sbatch", "--parsable", "-o", f"{folder}/%A_%a.%N.out", "--open-mode=append", *options, str(script)
    ).stdout.strip()


def test_an_array_runs_on_all_three_nodes(cluster: Cluster, tmp_path: Path) -> None:
    submit(cluster, tmp_path, "sleep 0.5; echo $SLURMD_NODENAME", "--array=0-5", "-J", "spread")
    jobs = cluster.wait_until_quiet("spread")
    assert [job.state for job in jobs] == ["COMPLETED"] * 6
    assert {job.node for job in jobs} == {"n1", "n2", "n3"}
    assert {path.read_text().strip() for path in tmp_path.glob("*.out")} == {"n1", "n2", "n3"}


def test_a_crashed_nodes_job_runs_again_elsewhere_and_a_cut_ones_runs_on(cluster: Cluster, tmp_path: Path) -> None:
    body = (
        f"echo $SLURMD_NODENAME >> {tmp_path}/started; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; "
        f"echo $SLURMD_NODENAME >> {tmp_path}/ended"
    )
    started, ended = tmp_path / "started", tmp_path / "ended"

    def lines(path: Path) -> list[str]:
        return path.read_text().split() if path.exists() else []

    submit(cluster, tmp_path, body, "--requeue", "-J", "broken")
    cluster.wait_for(lambda: len(lines(started)) == 1, "the job runs")
    first = cluster.node(lines(started)[0])
    first.crash()
    assert not first.processes()
    first.down()
    cluster.wait_for(lambda: len(lines(started)) == 2, "the job runs again")
    second = cluster.node(lines(started)[1])
    assert second is not first
    second.cut()
    second.down()
    cluster.wait_for(lambda: len(lines(started)) == 3, "the job runs a third time")
    (tmp_path / "go").touch()
    cluster.wait_for(lambda: len(lines(ended)) == 2, "both copies end")
    assert set(lines(ended)) == {second.name, lines(started)[2]}


def test_a_job_over_its_memory_is_ended_by_the_kernel(slurm: None, tmp_path: Path) -> None:
    if not kernel_limits():
        pytest.skip("the memory hierarchy of cgroup v1 is not writable here")
    with Cluster(nodes=1, cgroup=True) as cluster:
        submit(cluster, tmp_path, f"{sys.executable} -c 'x = bytearray(400 << 20)'", "--mem=100", "-J", "hungry")
        assert [job.state for job in cluster.wait_until_quiet("hungry")] == ["OUT_OF_MEMORY"]


def test_nothing_is_left_when_the_session_is_killed(slurm: None, tmp_path: Path) -> None:
    script = (
        "import time; from tests.slurm.cluster import Cluster\n"
        "cluster = Cluster(nodes=1).start()\n"
        "cluster.run('sbatch', '-o', '/dev/null', '--wrap', 'sleep 300')\n"
        "cluster.wait_for(lambda: cluster.jobs()[0].state == 'RUNNING' and cluster.nodes[0].processes(), 'it runs')\n"
        "print(cluster.state, flush=True); time.sleep(300)"
    )
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        state = Path(session.stdout.readline().strip())
        assert state.is_dir()
        session.kill()
    end = time.monotonic() + 30
    while state.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not state.exists()
    assert not [pid for pid in processes() if alive(pid) and f"SLURM_CONF={state}/slurm.conf" in environ(pid)]
