"""Which element does which task: each task once, the same wherever it is worked out, and longest first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.cluster import SlurmOptions
from stackbuild.launches import LaunchFolder, Wave
from stackbuild.plan import Build
from stackbuild.pool import TaskSpec
from stackbuild.slurm.balance import CHAIN_SECONDS, assign, chained, costs_of, elements_for, expected
from stackbuild.slurm.executor import SlurmExecutor

COSTS = st.lists(st.floats(0, 1e12) | st.just(1.0), max_size=120)


@settings(deadline=None)
@given(COSTS, st.integers(1, 70))
def test_each_task_is_taken_by_exactly_one_element(costs: list[float], elements: int) -> None:
    shares = assign(costs, elements)
    assert len(shares) == elements
    assert sorted(task for share in shares for task in share) == list(range(len(costs)))


@settings(deadline=None)
@given(COSTS, st.integers(1, 70))
def test_no_element_has_much_more_than_another(costs: list[float], elements: int) -> None:
    """Longest first, each to whoever has least: no more than the mean and one task above it (Graham 1969)."""
    loads = [sum(costs[task] for task in share) for share in assign(costs, elements)]
    if costs:
        assert max(loads) <= (sum(costs) / elements + max(costs)) * (1 + 1e-9)
    for share in assign(costs, elements):
        assert [costs[task] for task in share] == sorted((costs[task] for task in share), reverse=True)


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.floats(0, 1e12) | st.sampled_from([1.0, 2.0, 0.1 + 0.2]), min_size=1, max_size=60), st.integers(1, 9)
)
def test_every_process_works_out_the_same(costs: list[float], elements: int) -> None:
    script = "import json, sys; from stackbuild.slurm.balance import assign; print(json.dumps(assign(*json.load(sys.stdin))))"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps([costs, elements]), env=environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert json.loads(done.stdout) == assign(costs, elements)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3_000), st.integers(1, 1_500))
def test_arrays_split_at_the_limit_hold_every_element_once(elements: int, limit: int) -> None:
    wave = Wave(3, 3, 1, "03-job", elements, 1, 10**9, 10**9, "60")
    executor = SlurmExecutor(LaunchFolder(Path("/o"), "x"), Path("/o/p"), wave, SlurmOptions(), limit)
    covered: list[int] = []
    for first, count, script in executor.scripts():
        assert 1 <= count <= limit
        assert f"#SBATCH --array=0-{count - 1}\n" in script
        assert f"element=$((SLURM_ARRAY_TASK_ID + {first}))\n" in script
        covered += range(first, first + count)
    assert covered == list(range(elements))


@settings(deadline=None)
@given(st.integers(1, 100_000), st.floats(0, 1e10), st.integers(0, 500), st.integers(1, 64), st.integers(1, 2_000))
def test_a_job_has_at_least_one_element_and_no_more_than_tasks(
    tasks: int, seconds: float, tasks_per_job: int, cpus: int, most: int
) -> None:
    options = SlurmOptions(tasks_per_job=tasks_per_job, cpus=cpus, max_elements=most)
    elements = elements_for(tasks, seconds, options)
    assert 1 <= elements <= tasks
    if tasks_per_job:
        assert (elements - 1) * tasks_per_job < tasks <= elements * tasks_per_job
    else:
        assert elements <= most


def test_an_element_has_minutes_of_work() -> None:
    assert elements_for(1_000, 2 * 3_000.0, SlurmOptions(cpus=2)) == 10
    assert elements_for(1_000, 1.0, SlurmOptions()) == 1


def test_what_is_expected_of_a_job_is_known_for_every_one_and_grows_with_the_input(complete: Build) -> None:
    small = expected(complete)
    units = [replace(unit, bytes=unit.bytes * 1_000_000) for unit in complete.plan.units]
    large = expected(Build(complete.out, replace(complete.plan, units=units)))
    assert list(small) == list(large) == [job.name for job in complete.jobs]
    for job in complete.jobs:
        assert 1 <= small[job.name].tasks <= large[job.name].tasks
        assert 0 < small[job.name].seconds <= large[job.name].seconds
        if job.kind in ("ingest", "contents", "rows"):  # what only some files are of grows with these
            assert small[job.name].tasks == len(complete.shards(job.shard_jobs[0]))
            assert large[job.name].seconds > 10 * small[job.name].seconds


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0.1, 2 * CHAIN_SECONDS)), min_size=1, max_size=30))
def test_a_chain_leaves_no_job_out_and_is_of_single_elements(jobs: list[tuple[int, float]]) -> None:
    elements, seconds = [count for count, _ in jobs], [each for _, each in jobs]
    waves = [
        Wave(n, n, 1, f"{n}", count, count, 10**9, 10**9, "60", [0] if n == 0 else None)
        for n, count in enumerate(elements)
    ]
    found = chained(waves, seconds)
    assert [number for wave in found for number in range(wave.number, wave.last + 1)] == list(range(len(elements)))
    for wave in found:
        if wave.last > wave.number:
            assert all(elements[number] == 1 for number in range(wave.number, wave.last + 1))
            assert sum(seconds[wave.number : wave.last + 1]) <= CHAIN_SECONDS * (1 + 1e-9)
    assert found[0].ranks == [0]


def test_a_task_weighs_what_it_reads(complete: Build) -> None:
    for job in complete.jobs:
        specs = [TaskSpec(rank, params) for rank, params in enumerate(complete.task_params(job))]
        costs = costs_of(complete, job, specs)
        assert len(costs) == len(specs) and all(cost > 0 for cost in costs)
    rows = next(job for job in complete.jobs if job.kind == "rows")
    costs = costs_of(complete, rows, [TaskSpec(rank, {}) for rank in range(4)])
    assert len(set(costs)) > 1
    assert costs_of(complete, rows, [TaskSpec(2, {})]) == pytest.approx([costs[2]])
