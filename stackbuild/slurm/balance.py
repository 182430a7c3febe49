"""Which tasks an array element takes, and how many elements a job gets."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stackbuild.cluster import SlurmOptions
from stackbuild.estimate.model import ELEMENT_SECONDS
from stackbuild.estimate.rates import load_rates
from stackbuild.estimate.steps import work_of
from stackbuild.estimate.swh import load_swh_rates, of_walk
from stackbuild.graph import INGEST, Job
from stackbuild.launches import Wave
from stackbuild.plan import Build
from stackbuild.pool import TaskSpec
from stackbuild.sources.row_files import UNIT_BYTES
from stackbuild.sources.swh.stage import SwhWalk

CHAIN_SECONDS = 1_200.0  # of work that one element may have, of jobs that it takes one after the other


@dataclass(frozen=True)
class Expected:
    """What the scale model says of a job before what it reads is there: tasks, and CPU-seconds of all of them."""

    tasks: int
    seconds: float


def expected(build: Build) -> dict[str, Expected]:
    """By job name. Files are taken to be as large, and as much of them to be kept, as in the corpus that was measured: good
    enough to share work out, and nothing that comes out depends on it."""
    rates, units = load_rates(), build.plan.units
    size = float(max(1, sum(unit.bytes for unit in units)))
    corpus = replace(rates.corpus.sized(size, None, float(len(units)), UNIT_BYTES), partitions=build.plan.partitions)
    works = work_of(build.jobs, corpus.of_recipe(build.plan.recipe, build.nodes))
    found = {
        job.name: Expected(max(1, math.ceil(work.tasks)), rates.of(work).cpu.of(work))
        for job, work in zip(build.jobs, works, strict=True)
    }
    walks: dict[str, dict[str, tuple[int, float]]] = {}
    for job in build.jobs:
        stage = job.nodes[0].stage if job.phase is not None else None
        if isinstance(stage, SwhWalk) and job.phase is not None:
            name = job.nodes[0].instance
            if name not in walks:
                walks[name] = of_walk(stage, build.plan.partitions, load_swh_rates())
            tasks, seconds = walks[name][job.phase.name]
            found[job.name] = Expected(max(1, tasks), seconds)
    return found


def elements_for(tasks: int, seconds: float, options: SlurmOptions, cpus: int | None = None) -> int:
    """How many elements a job of so many tasks and CPU-seconds gets: as many as have minutes of work each, unless the recipe
    says how many tasks each takes. `cpus`: tasks at once in one, if not the recipe's."""
    if options.tasks_per_job:
        return max(1, -(-tasks // options.tasks_per_job))
    wanted = math.ceil(seconds / ELEMENT_SECONDS / (cpus or options.cpus))
    return max(1, min(wanted, tasks, options.max_elements))


def chained(waves: Sequence[Wave], seconds: Sequence[float]) -> list[Wave]:
    """Waves of one element that follow each other become one, while they have minutes of work together and not hours.

    `seconds`: that an element of each has to do. It asks for no more memory than one of them did: it runs fewer tasks at once.
    """
    found: list[Wave] = []
    spent = 0.0
    for wave, more in zip(waves, seconds, strict=True):
        if found and found[-1].elements == wave.elements == 1 and spent + more <= CHAIN_SECONDS:
            both = (found[-1], wave)
            memory = max(one.memory for one in both)
            cpus = min(max(one.cpus for one in both), max(one.cpus * one.memory for one in both) // memory)
            found[-1] = replace(found[-1], last=wave.last, cpus=cpus, memory=memory)
            spent += more
        else:
            found.append(wave)
            spent = more
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
    if job.phase is not None and isinstance(job.nodes[0].stage, SwhWalk) and specs and "file" in specs[0].params:
        return [float(max(1, job.nodes[0].stage.file_of(spec.params).size)) for spec in specs]
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
