"""A build on Ray: the same bytes as a local one, whatever is raised, killed or lost on the way, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stackbuild import build as building
from stackbuild.cluster import RayOptions
from stackbuild.errors import UsageError
from stackbuild.on_ray import Ray
from stackbuild.retries import Cause
from stackbuild.slots import cause_of, words_of
from tests.slurm.scenario import RECIPE, Scenario, install_moody, make_input, release, told
from tests.worlds import recipe, world

ray = pytest.importorskip("ray", reason="the ray extra is not installed")


# ---------------------------------------------------------------- builds with a stage that misbehaves


@dataclass(frozen=True)
class Prepared:
    """`begun`: an output folder in which every task of the misbehaving stage has failed; `reference`: the same build, finished."""

    recipe: str
    package: Path
    begun: Path
    reference: Path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    source, package = make_input(folder / "input"), folder / "package"
    package.mkdir()
    install_moody(package)
    paths = ", ".join(f'"{path}"' for path in sorted((source / "folders").iterdir()))
    text = RECIPE.format(input=source, folders=paths)
    first = Scenario(None, text, folder / "begun", package)
    for rank in range(8):
        first.order(rank, *["raise"] * 3)
    first.build("--workers", "2", executor="local", expect=5)
    second = Scenario(None, text, folder / "reference", package)
    shutil.copytree(first.out, second.out)
    second.build("--workers", "2", executor="local")
    return Prepared(text, package, first.out, second.out)


class OnRay(Scenario):
    """A build on two slots of Ray, complete up to the stage that misbehaves; `ray`: the recipe's table."""

    def __init__(self, prepared: Prepared, folder: Path, **ray: Any):
        table = "\n".join(f"{name} = {json.dumps(value)}" for name, value in {"memory": "800MB", **ray}.items())
        super().__init__(None, f"{prepared.recipe}\n[ray]\n{table}\n", folder, prepared.package)
        shutil.copytree(prepared.begun, self.out, ignore=shutil.ignore_patterns("launches"))

    def ray(self, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.build("--workers", "2", executor="ray", expect=expect)
        wait_for(lambda: not self.left(), 20)
        return done

    def start(self) -> subprocess.Popen[str]:
        """The same, not waited for."""
        return subprocess.Popen(
            self.command("build", self.recipe, "--output", self.out, "--executor", "ray", "--workers", "2", "--json"),
            env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def at_work(self, rank: int, number: int = 1) -> int:
        """Wait until so many processes have begun to work on a partition; the last one's identity."""
        wait_for(lambda: len(self.began(rank)) >= number and bool(self.began(rank)[number - 1]))
        return int(self.began(rank)[number - 1]["pid"])

    def events(self, kind: str) -> list[dict[str, Any]]:
        return told([self.out / "launches" / "journal.jsonl"], kind)

    def tasks(self) -> list[dict[str, Any]]:
        """How each try ended that did not end well, as the journal says."""
        return [event for event in self.events("task") if event["status"]]

    def processes(self) -> dict[int, bytes]:
        """The processes that the build started and that run on, with their command lines."""
        mark, found = f"STACKBUILD_ORDERS={self.orders}\0".encode(), {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes()
            except OSError:
                continue
        return found

    def left(self) -> list[bytes]:
        return list(self.processes().values())


def wait_for(true: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def build(prepared: Prepared, tmp_path: Path) -> OnRay:
    return OnRay(prepared, tmp_path / "build")


# ---------------------------------------------------------------- the same bytes


@pytest.mark.slow
def test_the_same_bytes_with_a_local_worker_and_on_ray(tmp_path: Path) -> None:
    body, released = recipe(world(tmp_path / "world"), ray={"memory": "2GB"}), []
    for executor, workers in (("local", 1), ("ray", 2)):
        out = tmp_path / f"{executor}{workers}"
        building.run(building.Request(body, Path("/"), out, workers, executor))
        released.append((json.loads((out / "build.json").read_bytes())["files"], release(out)))
    assert released[0] == released[1]


# ---------------------------------------------------------------- what fails


@pytest.mark.slow
def test_a_task_that_raises_in_every_try_ends_in_exit_5_and_the_build_goes_on_from_there(
    build: OnRay, prepared: Prepared
) -> None:
    build.order(3, *["raise"] * 3)
    done = build.ray(expect=5)
    assert "1 of 8 tasks" in done.stderr and "moody raised on 11 or more of the" in done.stderr
    assert [len(build.began(rank)) for rank in range(8)] == [1, 1, 1, 3, 1, 1, 1, 1]
    [log] = (build.out / "launches" / "logs").glob("*/00003.1.log")
    assert "Traceback" in log.read_text() and "told to raise in partition 3" in log.read_text()
    build.ray()
    assert [len(build.began(rank)) for rank in range(8)] == [1, 1, 1, 4, 1, 1, 1, 1]
    build.same_as(prepared.reference)


@pytest.mark.slow
def test_a_task_killed_once_runs_again_and_one_killed_in_every_try_ends_in_exit_5(
    build: OnRay, prepared: Prepared
) -> None:
    build.order(1, "kill")
    build.order(6, "kill", "kill")
    done = build.ray(expect=5)
    assert "1 of 8 tasks" in done.stderr and "task 6: killed by signal 9" in done.stderr
    assert [len(build.began(rank)) for rank in range(8)] == [1, 2, 1, 1, 1, 1, 2, 1]
    build.ray()
    build.same_as(prepared.reference)


@pytest.mark.slow
def test_a_killed_slot_and_a_killed_task_server_cost_one_try_of_one_task(build: OnRay, prepared: Prepared) -> None:
    build.order(0, "wait")
    build.order(1, "wait")
    process = build.start()
    server = parent(build.at_work(0))
    slot = parent(parent(build.at_work(1)))
    assert slot != parent(server)
    os.kill(slot, signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(said)["funnel"]  # nothing of Ray's own on standard output
    assert [len(build.began(rank)) for rank in range(8)] == [2, 2, 1, 1, 1, 1, 1, 1]
    assert {(task["rank"], task["cause"]) for task in build.tasks()} == {(0, Cause.KILLED), (1, Cause.KILLED)}
    wait_for(lambda: not build.left(), 20)
    build.same_as(prepared.reference)


@pytest.mark.slow
def test_a_slot_that_dies_while_it_is_free_costs_a_try_at_most(build: OnRay, prepared: Prepared) -> None:
    build.order(0, "wait")
    process = build.start()
    busy = parent(parent(build.at_work(0)))
    wait_for(lambda: sum(event["status"] == 0 for event in build.events("task")) == 7)
    [free] = {pid for pid, command in build.processes().items() if command.startswith(b"ray::Slot")} - {busy}
    os.kill(free, signal.SIGKILL)
    build.go()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(build.tasks()) <= 1
    build.same_as(prepared.reference)


@pytest.mark.slow
def test_a_task_that_outgrows_its_slot_says_so_and_runs_again_with_more_memory(
    prepared: Prepared, tmp_path: Path
) -> None:
    build = OnRay(prepared, tmp_path / "build", memory="600MB")
    build.order(4, "eat")
    build.ray()
    [task] = build.tasks()
    assert (task["rank"], task["cause"]) == (4, Cause.MEMORY) and "outgrew its memory" in task["message"]
    build.same_as(prepared.reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        signal.SIGTERM,
        pytest.param(signal.SIGKILL, marks=pytest.mark.long),
    ],
)
def test_a_driver_that_ends_leaves_nobody_behind(build: OnRay, how: signal.Signals) -> None:
    build.order(0, "wait")
    process = build.start()
    build.at_work(0)
    [folder] = {
        Path(found.decode())
        for one in build.left()
        for found in re.findall(rb"(?:%b|/tmp)/ray-\w+" % re.escape(os.fsencode(tempfile.gettempdir())), one)
    }
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (-how if how is signal.SIGKILL else 130)
    wait_for(lambda: not any(b"stackbuild" in one or b"Slot" in one for one in build.left()), 20)
    wait_for(lambda: not build.left(), 150)  # Ray's agents look for their node every now and then
    if how is signal.SIGKILL:
        shutil.rmtree(folder)
    assert not folder.exists()


# ---------------------------------------------------------------- a cluster that is there


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A running cluster with one node, which has room for one task."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie in it
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args=NODE)
    yield made
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


NODE = {"num_cpus": 1, "memory": 10**9, "object_store_memory": 80 * 10**6, "include_dashboard": False}
IDLE = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("idle" if ray.cluster_resources()["CPU"] == ray.available_resources().get("CPU") else "busy")
"""


def idle(address: str) -> bool:
    """Whether the cluster is there and nothing holds any of it."""
    said = subprocess.run([sys.executable, "-c", IDLE, address], capture_output=True, text=True, check=True).stdout
    return "idle" in said.splitlines()  # Ray itself has more to say


@pytest.mark.slow
def test_a_node_that_joins_is_used_and_one_that_is_lost_costs_one_try_of_its_task(
    cluster: Any, prepared: Prepared, tmp_path: Path
) -> None:
    build = OnRay(prepared, tmp_path / "build", address=cluster.address)
    for rank in range(8):
        build.order(rank, "wait")
    process = build.start()
    wait_for(lambda: any(build.began(rank) for rank in range(8)))
    time.sleep(2)
    [first] = [rank for rank in range(8) if build.began(rank)]
    node = cluster.add_node(**NODE)
    wait_for(lambda: sum(bool(build.began(rank)) for rank in range(8)) == 2)
    [second] = [rank for rank in range(8) if build.began(rank) and rank != first]
    slot = parent(parent(build.at_work(second)))
    assert parent(slot) == node.all_processes["raylet"][0].process.pid
    cluster.remove_node(node, allow_graceful=False)
    wait_for(lambda: bool(build.tasks()))
    build.go()
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(said)["funnel"]  # nothing of Ray's own on standard output
    assert [len(build.began(rank)) for rank in range(8)] == [1 + (rank == second) for rank in range(8)]
    assert [(task["rank"], task["cause"]) for task in build.tasks()] == [(second, Cause.NODE)]
    wait_for(lambda: not build.left(), 20)
    wait_for(lambda: idle(cluster.address))
    build.same_as(prepared.reference)


@pytest.mark.slow
def test_of_a_node_that_is_cut_off_and_works_on_the_first_commit_counts(
    prepared: Prepared, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("initial_delay_ms", "period_ms", "timeout_ms"):  # else it is missed only after a minute
        monkeypatch.setenv(f"RAY_health_check_{name}", "1000")
    cluster = request.getfixturevalue("cluster")
    node = cluster.add_node(**NODE)
    build = OnRay(prepared, tmp_path / "build", address=cluster.address)
    for rank in range(8):
        build.order(rank, "wait", "wait")
    process = build.start()
    wait_for(lambda: sum(bool(build.began(rank)) for rank in range(8)) == 2)
    raylet = node.all_processes["raylet"][0].process.pid
    slots = {rank: parent(parent(build.at_work(rank))) for rank in range(8) if build.began(rank)}
    [(rank, slot)] = [(rank, slot) for rank, slot in slots.items() if parent(slot) == raylet]
    [other] = set(slots) - {rank}
    try:
        os.kill(slot, signal.SIGSTOP)
        os.kill(raylet, signal.SIGSTOP)
        wait_for(lambda: bool(build.tasks()))
        build.go(other)
        build.at_work(rank, 2)
        build.go(rank)  # the first try ends well on the node that is thought lost
        wait_for(lambda: not Path(f"/proc/{build.began(rank)[0]['pid']}").exists())
        build.go()
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert [(task["rank"], task["cause"]) for task in build.tasks()] == [(rank, Cause.NODE)]
        build.same_as(prepared.reference)
    finally:
        cluster.remove_node(node, allow_graceful=False)
        os.kill(slot, signal.SIGKILL)
    wait_for(lambda: not build.left(), 20)


class Impatient(OnRay):
    """The same, by a driver that waits for a slot only some seconds."""

    def command(self, *arguments: str | Path) -> list[str]:
        script = (
            "import sys; from stackbuild import slots; slots.PATIENCE_SECONDS = 3; sys.argv[0] = 'stackbuild'; "
            "from stackbuild.cli import main; main()"
        )
        return [sys.executable, "-c", script, *map(str, arguments)]


@contextmanager
def others(address: str, memory: int) -> Iterator[None]:
    """Somebody who holds some of a cluster's memory all the while."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHERS, address, str(memory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert "held\n" in iter(process.stdout.readline, "")
            yield
        finally:
            process.kill()


OTHERS = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
class Holder:
    def ready(self):
        return True
holder = ray.remote(Holder).options(num_cpus=0, memory=int(sys.argv[2])).remote()
ray.get(holder.ready.remote())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_task_that_ran_out_of_memory_waits_for_no_more_than_others_leave(
    cluster: Any, prepared: Prepared, tmp_path: Path
) -> None:
    """It wants all that a node has, to run alone; what others hold for good never becomes free, and that was waited for in silence."""
    build = Impatient(prepared, tmp_path / "build", memory="600MB", address=cluster.address)
    build.order(4, "eat")
    with others(cluster.address, 300 * 10**6):
        done = build.ray()
    [task] = build.tasks()
    assert (task["rank"], task["cause"]) == (4, Cause.MEMORY)
    assert "1.0 GB of memory free for task 4" in done.stderr and "it gets 0.6 GB" in done.stderr
    build.same_as(prepared.reference)


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_on_a_cluster(cluster: Any, prepared: Prepared, tmp_path: Path) -> None:
    build = OnRay(prepared, tmp_path / "build", address=cluster.address)
    build.order(0, "wait")
    process = build.start()
    build.at_work(0)
    process.kill()
    process.communicate()
    wait_for(lambda: not build.left())
    wait_for(lambda: idle(cluster.address))


@pytest.mark.slow
def test_a_cluster_that_cannot_run_the_build_is_refused_in_words(
    prepared: Prepared, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other" / "stackbuild").mkdir(parents=True)
    (tmp_path / "other" / "stackbuild" / "__init__.py").write_text("raise ImportError('an older stackbuild')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    cluster = request.getfixturevalue("cluster")
    build = OnRay(prepared, tmp_path / "build", address=cluster.address)
    done = build.ray(expect=5)
    assert (
        "an older stackbuild" in done.stderr and "Every node of the cluster needs the same environment" in done.stderr
    )


# ---------------------------------------------------------------- without a cluster


def test_without_ray_the_message_names_the_extra(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['ray'] = None; sys.argv = ['stackbuild', *sys.argv[1:]]\n"
        "from stackbuild.cli import main; main()"
    )
    world(tmp_path / "world", repos=1, files=1)
    text = RECIPE.replace(', "moody"', "").replace('[[source]]\nkind = "git"\npaths = ["{input}/git"]\n', "")
    text = text.format(folders=f'"{tmp_path}/world/repo0"')
    (tmp_path / "recipe.toml").write_text(text)
    arguments = ["build", str(tmp_path / "recipe.toml"), "--output", str(tmp_path / "out"), "--executor", "ray"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 7 and "pip install 'stackbuild[ray]'" in done.stderr


@pytest.mark.parametrize(
    ("address", "words"),
    [("ray://head:10001", "head node"), ("127.0.0.1:1", "No Ray cluster at"), ("here", "No Ray cluster at")],
)
def test_an_address_where_no_cluster_answers_is_refused_at_once(tmp_path: Path, address: str, words: str) -> None:
    executor = Ray(tmp_path, tmp_path / "plan.json", 2, RayOptions(address=address))
    with pytest.raises(UsageError, match=words):
        executor.open()
    executor.close()
    assert not ray.is_initialized()


def test_what_ray_says_of_a_lost_slot_is_told_apart_by_cause() -> None:
    errors = ray.exceptions
    words = "Worker exit type: SYSTEM_ERROR End of file. Some common causes include: (1) the process was killed by the OOM killer"
    killed = errors.ActorDiedError()
    killed.error_msg = f"The actor died.\n\tclass_name: Slot\n\tpid: 12\n\t{words}"
    assert cause_of(killed, errors) is Cause.KILLED
    assert words_of(killed) == "The actor died. Worker exit type: SYSTEM_ERROR End of file."
    assert cause_of(errors.OutOfMemoryError("low on memory"), errors) is Cause.MEMORY
    assert cause_of(errors.ActorUnavailableError("Socket closed", None), errors) is Cause.NODE
    assert cause_of(errors.NodeDiedError("gone"), errors) is Cause.NODE
    gone = errors.ActorDiedError()
    gone.error_msg = "The actor died because its node has died. Node Id: 12"
    assert cause_of(gone, errors) is Cause.NODE
    raised = errors.ActorDiedError()
    raised._actor_init_failed, raised.error_msg = True, "died\n  \x1b[36mray::Slot()\x1b[39m\n  ^^^^\nImportError: no"
    assert words_of(raised) == "ImportError: no"
