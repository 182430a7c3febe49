"""What goes wrong on a cluster while a build runs: the release is the same as if nothing had, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, kernel_limits
from tests.slurm.conftest import Prepared
from tests.slurm.scenario import Scenario, told

MOODY = 5  # number of the job with the stage that misbehaves
Begun = Callable[..., Scenario]


def moody(status: dict[str, Any]) -> dict[str, Any]:
    """What a status says of that job."""
    return status["jobs"][MOODY]  # type: ignore[no-any-return]


def saw_at_work(build: Scenario, rank: int, **more: Any) -> None:
    """The status says where the task is at work, and what else it must."""
    node = build.began(rank)[-1]["SLURMD_NODENAME"]

    def true(status: dict[str, Any]) -> bool:
        where = [one["node"] for one in moody(status)["at_work"] if one["rank"] == rank]
        return status["state"] == "running" and where == [node] and all(moody(status)[k] == v for k, v in more.items())

    build.saw(true, f"task {rank} is at work on {node}")


def test_a_task_that_fails_twice_then_succeeds(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    build.order(2, "raise", "raise")
    build.build("--wait")
    assert [len(build.began(rank)) for rank in range(8)] == [1, 1, 3, 1, 1, 1, 1, 1]
    build.same_as(prepared.reference)
    assert moody(build.status())["retries"] == 2


def test_a_task_killed_minus_nine_runs_again_and_in_a_second_wave_if_it_must(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    build.order(5, "wait", "kill")
    build.build()
    pid = build.wait_began(5)["pid"]
    saw_at_work(build, 5, waves=1)
    os.kill(pid, signal.SIGKILL)
    build.finish()
    assert [len(build.began(rank)) for rank in range(8)] == [1, 1, 1, 1, 1, 3, 1, 1]
    [first, second] = [event for event in build.events("gate") if event["number"] == MOODY]
    assert [(f["rank"], f["cause"]) for f in first["failures"]] == [(5, "killed")]
    assert first["again"] == second["wave"] == 2 and not second["failures"]
    build.same_as(prepared.reference)
    assert moody(build.status())["waves"] == 2


def test_after_scancel_the_build_is_resumed(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    build.order(1, "wait")
    build.build()
    element = build.wait_began(1)["SLURM_ARRAY_TASK_ID"]
    [array] = build.submitted("array", MOODY)
    build.cluster.run("scancel", f"{array['slurm']}_{element}")
    jobs = build.end()
    states = {job.identity: job.state for job in jobs}
    assert states.pop(f"{array['slurm']}_{element}") == "CANCELLED"
    [gate] = build.submitted("gate", MOODY)
    assert states.pop(gate["slurm"]) == "FAILED"
    assert {state for name, state in states.items() if not name.startswith(f"{array['slurm']}_")} == {"CANCELLED"}
    build.saw(
        lambda status: (
            status["state"] in ("cancelled", "failed") and {one["cause"] for one in status["failures"]} == {"cancelled"}
        ),
        "cancelled",
    )
    build.build("--wait")
    assert len(build.began(1)) == 2
    build.same_as(prepared.reference)


@pytest.mark.parametrize("how", ["down", pytest.param("crash", marks=pytest.mark.long)])
def test_a_lost_nodes_tasks_run_again(begun: Begun, prepared: Prepared, how: str) -> None:
    build = begun()
    build.order(3, "wait", "wait")
    build.build()
    first = build.wait_began(3)
    node = build.cluster.node(first["SLURMD_NODENAME"])
    saw_at_work(build, 3, requeues=0)
    if how == "crash":
        node.crash()
    node.down()
    second = build.wait_began(3, 2)
    assert second["SLURM_RESTART_COUNT"] == "1"
    if how == "crash":  # the daemon of a node that is only down reports again, and the node is used
        assert second["SLURMD_NODENAME"] != node.name
    saw_at_work(build, 3, requeues=1)
    build.go()
    build.finish()
    assert len(build.began(3)) == 2
    build.same_as(prepared.reference)


@pytest.mark.long
def test_a_node_that_is_cut_off_works_on_and_the_first_to_commit_wins(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    for rank in range(8):
        build.order(rank, "wait", "wait")
    build.build()
    # Both tasks that are at work will run twice: of one the first copy commits first, of the other the second.
    early, late = build.wait_at_work(2)
    cut = build.cluster.node(build.began(early)[0]["SLURMD_NODENAME"])
    cut.cut()
    cut.down()
    build.wait_began(early, 2)
    build.wait_began(late, 2)
    build.go(early, 1)  # the copy that nobody sees any more
    build.go(late, 2)  # the copy that Slurm knows of
    stage = build.out / "stages" / "05-moody" / "manifests"
    build.cluster.wait_for(lambda: sum(1 for _ in stage.glob("*.json")) == 2, "both are committed")
    build.saw(lambda status: moody(status)["requeues"] == 1 and status["state"] == "running", "requeued")
    committed = {path: path.read_bytes() for path in stage.glob("*.json")}
    build.go()
    build.finish()
    build.cluster.wait_for(lambda: not cut.processes(), "the cut element has ended")
    assert {path: path.read_bytes() for path in committed} == committed
    build.same_as(prepared.reference)


@pytest.mark.long
def test_what_runs_on_of_a_launch_that_another_has_followed_closes_nothing(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    build.order(3, "wait", "wait")
    build.build()
    cut = build.cluster.node(build.wait_began(3)["SLURMD_NODENAME"])
    first = build.launch
    cut.cut()
    build.stackbuild("cancel", build.out)
    cut.down()
    build.cluster.wait_until_quiet(f"stackbuild-{first.name}-")
    build.build()
    build.wait_began(3, 2)
    build.go(3, 2)
    build.finish()
    assert build.launch != first
    closed = {path: path.stat().st_ino for path in (build.out / "stages").glob("*/manifest.json")}
    assert cut.processes()
    build.go(3, 1)
    build.cluster.wait_for(lambda: not cut.processes(), "the cut element has ended")
    assert {path: path.stat().st_ino for path in closed} == closed
    [end] = told(first.glob("events/*.jsonl"), "element-end")
    assert end["status"] == 4 and f"Launch {first.name} is over" in end["reason"]
    build.same_as(prepared.reference)


def test_a_controller_that_begins_anew_while_a_gate_looks(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    build.order(5, "kill", "kill")
    build.build()
    logs = build.launch / "logs"
    build.cluster.wait_for(lambda: any(logs.glob(f"{MOODY:02d}.1-gate.*.log")), "the gate has begun")
    with build.cluster.without_controller():
        time.sleep(8)
    build.finish()
    [first, second] = [event for event in build.events("gate") if event["number"] == MOODY]
    assert first["again"] == second["wave"] == 2 and not second["failures"]
    build.same_as(prepared.reference)


def test_an_element_that_reaches_its_time_limit_stops_and_goes_on(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    build.order(6, "wait")
    build.build()
    element = build.wait_began(6)["SLURM_ARRAY_TASK_ID"]
    [array] = build.submitted("array", MOODY)
    build.cluster.run("scontrol", "update", f"JobId={array['slurm']}_{element}", "EndTime=now+3")
    build.wait_began(6, 2)  # Slurm looks at the limits every half minute
    build.finish()
    # It is warned before, and requeued; or the limit is there first, and a second wave goes on.
    gates = [event for event in build.events("gate") if event["number"] == MOODY]
    assert {failure["cause"] for gate in gates for failure in gate["failures"]} <= {"time_limit"}
    first = next(event for event in build.events("element-end") if event["number"] == MOODY)
    assert first["status"] in (85, 86)  # stopped, and not broken
    build.same_as(prepared.reference)
    assert moody(build.status())["waves"] + moody(build.status())["requeues"] == 2


@pytest.mark.long
def test_the_last_elements_requeue_leaves_the_others_alone(begun: Begun, prepared: Prepared) -> None:
    build = begun(tasks_per_job=3)
    for rank in range(8):
        build.order(rank, "wait")
    build.build()
    elements: dict[str, list[int]] = {"0": [], "1": [], "2": []}
    for rank in build.wait_at_work(6):
        elements[build.began(rank)[0]["SLURM_ARRAY_TASK_ID"]].append(rank)
    one, other = elements["2"]
    build.go(one)  # an element that has got nowhere is not requeued
    stage = build.out / "stages" / "05-moody" / "manifests"
    build.cluster.wait_for(lambda: any(stage.glob("*.json")), "one is committed")
    [array] = build.submitted("array", MOODY)
    build.cluster.run("scancel", "--batch", "--signal=USR1", f"{array['slurm']}_2")
    assert build.wait_began(other, 2)["SLURM_RESTART_COUNT"] == "1"
    build.saw(lambda status: moody(status)["requeues"] == 1 and moody(status)["done"] == 1, "one element was requeued")
    build.go()
    build.cluster.wait_for(lambda: bool(build.events("gate")), "all elements have ended")
    assert [len(build.began(rank)) for rank in (one, *elements["0"], *elements["1"])] == [1] * 5
    restarted = {event["element"] for event in build.events("element") if event["restart"] and event["number"] == MOODY}
    assert restarted == {2}
    build.stackbuild("cancel", build.out)  # what is left goes into one element, so that the test is quick
    build.build("--wait", "--set", "slurm.tasks_per_job=8")
    build.same_as(prepared.reference)


def test_a_task_out_of_memory_gets_more(begun: Begun, prepared: Prepared) -> None:
    build = begun()
    build.order(4, "eat", "eat")
    build.build("--wait")
    assert len(build.began(4)) == 3
    [first, second] = [event for event in build.events("gate") if event["number"] == MOODY]
    assert [(f["rank"], f["cause"]) for f in first["failures"]] == [(4, "out_of_memory")]
    assert first["again"] == second["wave"] == 2
    build.same_as(prepared.reference)


@pytest.mark.long
def test_a_task_that_the_kernel_ended_for_memory_gets_more(slurm: None, prepared: Prepared, tmp_path: Path) -> None:
    if not kernel_limits():
        pytest.skip("the memory hierarchy of cgroup v1 is not writable here")
    with Cluster(nodes=1, cgroup=True) as cluster:
        build = prepared.scenario(cluster, tmp_path / "build")
        build.order(4, "gulp", "gulp")
        build.build("--wait")
        [first, second] = [event for event in build.events("gate") if event["number"] == MOODY]
        assert 4 in {f["rank"] for f in first["failures"]} and {f["cause"] for f in first["failures"]} == {
            "out_of_memory"
        }
        assert not second["failures"]
        build.same_as(prepared.reference)
