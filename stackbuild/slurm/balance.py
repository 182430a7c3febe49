"""Which tasks an array element takes, and how many elements a job gets."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from stackbuild.cluster import SlurmOptions
from stackbuild.graph import INGEST, Job
from stackbuild.launches import Wave
from stackbuild.plan import Build
from stackbuild.pool import TaskSpec

ELEMENT_SECONDS = 300.0  # of work that an element should have: its start costs some seconds
BYTES_PER_CPU_SECOND = 20e6  # of one job; a whole build is slower, and this errs towards more elements
CHAIN_SECONDS = 1_200.0  # of work that one element may have, of jobs that it takes one after the other


def elements_for(tasks: int, size: int, options: SlurmOptions) -> int:
    """How many elements a job of so many tasks and bytes gets: as many as have minutes of work each, unless the recipe says
    how many tasks each takes."""
    if options.tasks_per_job:
        return max(1, -(-tasks // options.tasks_per_job))
    wanted = size / BYTES_PER_CPU_SECOND / ELEMENT_SECONDS / options.cpus
    return int(max(1, min(-(-wanted // 1), tasks, options.max_elements)))


def chained(waves: Sequence[Wave], seconds: float) -> list[Wave]:
    """Waves of one element that follow each other become one, while they have minutes of work together and not hours.

    `seconds`: of work in each.
    """
    found: list[Wave] = []
    spent = 0.0
    for wave in waves:
        if found and found[-1].elements == wave.elements == 1 and spent + seconds <= CHAIN_SECONDS:
            found[-1] = replace(found[-1], last=wave.last, cpus=max(found[-1].cpus, wave.cpus))
            spent += seconds
        else:
            found.append(wave)
            spent = seconds
    return found


def assign(costs: Sequence[float], elements: int) -> list[list[int]]:
    """Positions in `costs` for each element: the longest first, each to whoever has least (LPT), the same everywhere."""
    loads = [(0.0, element) for element in range(elements)]
    taken: list[list[int]] = [[] for _ in range(elements)]
    for position in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        load, element = heapq.heappop(loads)
        taken[element].append(position)
        heapq.heappush(loads, (load + costs[position], element))
    return taken


def costs_of(build: Build, job: Job, specs: Sequence[TaskSpec]) -> list[float]:
    """What each task weighs: bytes that it reads where they are known, else all the same."""
    if job.kind == INGEST.kind:
        return [float(max(1, build.plan.units[spec.rank].bytes)) for spec in specs]
    if job.kind in ("contents", "occurrences"):
        outputs = build.outputs(INGEST.name, job.kind)
        size = [0.0] * build.plan.partitions
        for output in outputs:
            for group, rows in output.groups.items():
                size[int(group)] += output.bytes * rows / max(1, output.rows)
        return [1.0 + size[spec.rank] for spec in specs]
    if job.kind == "rows" or (job.phase is not None and job.phase.tasks == "partition"):
        return [1.0 + sum(output.bytes for output in build.base(job.nodes[0].space, s.rank)[0]) for s in specs]
    if job.phase is not None and job.phase.tasks == "contents":
        return [1.0 + sum(output.bytes for output in build.contents(spec.rank)) for spec in specs]
    return [1.0] * len(specs)
