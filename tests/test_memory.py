"""Memory: how much there is, who has it, and that a task which outgrows its share is ended by us, named, and alone."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stackbuild import memory
from tests.worlds import install_stage, recipe, world

MB = 10**6
STAGE = """
import json, os, time
from pathlib import Path
import pyarrow as pa
from stackbuild.stage import Options, Stage, Verdict

class Eater(Stage[Options]):
    name = "eater"
    reads = ("content_id",)

    def verdicts(self, files):
        if files.num_rows:
            rank = files["content_id"][0].as_py()[0] >> 7
            folder = Path(os.environ["STACKBUILD_ORDERS"])
            orders = sorted(folder.glob(f"{rank}.*"))
            if orders:
                orders[0].unlink()
            held = []
            while orders and len(held) < 100:
                held.append(b"1" * (16 << 20))
                time.sleep(0.05)
        yield Verdict("mood", pa.array([True] * files.num_rows))
"""
# Everything but the stage is complete; then a pool runs it in a task server with little room.
DRIVER = """
import json, os, shutil, sys
from pathlib import Path
from stackbuild import build as building, memory
from stackbuild.build import Request
from stackbuild.pool import Pool, TaskServer, TaskSpec
body, out, orders = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
build = building.run(Request(body, Path("/"), out, 1)).build
job = next(job for job in build.jobs if job.kind == "rows")
eater = next(node for node in job.nodes if node.instance == "eater")
for path in (out / "stages" / eater.slug / "manifests").iterdir():
    path.unlink()
for name in sys.argv[4:]:
    (orders / name).touch()
plan = out / "plans" / f"{build.plan.digest[:24]}.json"
server = TaskServer(out, plan, out / "server.log", 2 * memory.resident() + 500_000_000)
pool, events, where = Pool(server, 2, out / "logs"), [], set()
(out / "logs").mkdir()
pool.ended = lambda one: events.append(one.event(job.name))
pool.idle = lambda: bool(where.update(r.beat["where"] for r in pool.running.values() if "where" in r.beat))
failures = pool.run(job.name, [TaskSpec(rank, params) for rank, params in enumerate(build.task_params(job))])
server.close()
complete = [rank for rank in range(2) if build.found(job, rank, {}) is not None]
print(json.dumps({"failures": [[f.rank, str(f.cause), f.reason] for f in failures], "events": events, "complete": complete,
                  "where": sorted(where)}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    package = install_stage(tmp_path_factory.mktemp("package"), "eater", "Eater", STAGE)
    return {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{Path(__file__).parent.parent}"}


def run(folder: Path, environment: dict[str, str], *orders: str) -> dict[str, Any]:
    stages = ["exact_dedup", "decode", "languages", "signals", "eater"]
    root = world(folder / "world", repos=2, files=3)
    body = recipe(root, partitions=2, stages=stages, outputs=["dataset"], exact_dedup={"winner": ["-revision_date"]})
    del body["license_filter"], body["tokens"]
    (folder / "orders").mkdir()
    command = [sys.executable, "-c", DRIVER, json.dumps(body), str(folder / "out"), str(folder / "orders"), *orders]
    environment = {**environment, "STACKBUILD_ORDERS": str(folder / "orders")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_a_task_that_outgrows_its_memory_is_ended_named_and_tried_again(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    found = run(tmp_path, environment, "1.first")
    assert found["failures"] == [] and found["complete"] == [0, 1]
    [ended] = [event for event in found["events"] if event["status"]]
    assert (ended["rank"], ended["cause"], ended["status"]) == (1, "out_of_memory", -9)
    words = ended["message"]
    assert "task 1 of" in words and "eater" in words.split("It was at: ")[1] and "MB" in words
    [well] = [event for event in found["events"] if event["rank"] == 0]
    assert well["status"] == 0  # the other went on
    assert any("eater" in where for where in found["where"])


@pytest.mark.slow
def test_one_that_outgrows_it_alone_too_fails_as_out_of_memory(tmp_path: Path, environment: dict[str, str]) -> None:
    found = run(tmp_path, environment, "0.first", "0.second")
    [[rank, cause, reason]] = found["failures"]
    assert (rank, cause) == (0, "out_of_memory") and "when 1 task(s)" in reason
    assert found["complete"] == [1]


# ---------------------------------------------------------------- the numbers


def child_that_holds(size: int, shared: mmap.mmap | None = None) -> tuple[int, int]:
    """A child that has touched so much memory; (process, descriptor that lets it end when it is closed)."""
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(go_write)
        held = bytearray(os.urandom(4096)) * (size // 4096)
        if shared is not None:
            for page in range(0, len(shared), memory.PAGE):  # not from a buffer: a freed one may stay with the process
                shared[page] = 2
        os.write(ready_write, b"x")
        os.read(go_read, 1)
        os._exit(len(held) > size)
    os.close(go_read)
    os.read(ready_read, 1)
    os.close(ready_read)
    os.close(ready_write)
    return pid, go_write


def test_what_a_process_alone_holds_is_told_from_what_it_shares() -> None:
    shared = mmap.mmap(-1, 50 * MB)
    shared[: len(shared)] = b"1" * len(shared)
    pid, end = child_that_holds(100 * MB, shared)
    own, all_ = memory.private(pid), memory.resident(pid)
    os.close(end)
    os.waitpid(pid, 0)
    assert 100 * MB <= own <= 130 * MB
    assert all_ >= own + 50 * MB


def test_a_process_that_is_gone_holds_nothing() -> None:
    pid, end = child_that_holds(0)
    os.close(end)
    os.waitpid(pid, 0)
    assert memory.resident(pid) == memory.private(pid) == 0
    assert memory.resident() > 10 * MB


def cgroups(folder: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> Path:
    """The folder of this process's memory cgroup in a tree of our own, for a kernel of either kind."""
    lines = {1: "4:memory:/slurm/job_1/step_batch\n2:cpu:/x\n", 2: "0::/slurm/job_1/step_batch\n"}[version]
    monkeypatch.setattr(memory, "CGROUPS", folder)
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self: lines if str(self) == "/proc/self/cgroup" else real(self))
    here = folder / ("memory" if version == 1 else "") / "slurm" / "job_1" / "step_batch"
    here.mkdir(parents=True)
    return here


@pytest.mark.parametrize(("version", "name"), [(1, "memory.limit_in_bytes"), (2, "memory.max")])
def test_the_limit_is_the_least_of_the_machines_and_all_groups_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, name: str
) -> None:
    machine = memory.limit()
    here = cgroups(tmp_path, monkeypatch, version)
    assert memory.limit() >= machine
    (here / name).write_text("max\n" if version == 2 else str(2**63 - 4096))
    assert memory.limit() >= machine
    (here.parent / name).write_text("300000000\n")
    assert memory.limit() == 300 * MB
    (here / name).write_text("200000000\n")
    assert memory.limit() == 200 * MB


@pytest.mark.parametrize(("version", "name"), [(1, "memory.oom_control"), (2, "memory.events")])
def test_kills_by_the_kernel_are_counted_in_the_own_group_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, name: str
) -> None:
    here = cgroups(tmp_path, monkeypatch, version)
    assert memory.kernel_kills() == 0
    (here.parent / name).write_text("oom 9\noom_kill 9\n")
    assert memory.kernel_kills() == 0
    (here / name).write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\noom_group_kill 5\n")
    assert memory.kernel_kills() == 2
