"""`stackbuild plan --estimate SIZE`: what a build of that size would take, without a source."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stackbuild.cluster import size_in_bytes
from stackbuild.errors import UsageError
from stackbuild.estimate.corpus import REPOSITORIES_OF_OWNER, Corpus
from stackbuild.estimate.model import MAX_PARTITIONS, Cluster, Estimate, JobEstimate, estimate, hours, propose, size
from stackbuild.estimate.rates import Rates, calibrated, load_rates

SMALL_PARTITION = 64e6  # the least that is worth a task
UNIT_BYTES = 64 << 20  # of a unit, where it is not told how many there are: what the parquet source takes for one
MOST = 1e15  # of anything that is counted

LOCAL_JOB_SECONDS = 0.5  # between jobs, where nobody waits for a scheduler


@dataclass(frozen=True)
class Asked:
    """What the command line says, in words; None: nothing."""

    size: str
    files: float | None = None
    units: float | None = None
    repositories: float | None = None
    partitions: int | None = None
    copies: float | None = None
    nodes: int = 1
    cpus: int = 2
    memory: str = "64GB"
    bandwidth: str = "2GB"
    metadata: float = 5_000.0
    rates: Path | None = None


def run_estimate(recipe: str, sets: list[str], asked: Asked, as_json: bool) -> None:
    """Print the estimate with the partitions that suit the size, or with those that are asked for."""
    from stackbuild.recipe import load

    found, small, silent = asked_for(load(recipe, sets).resolved(), asked)
    if as_json:
        print(json.dumps({**found.to_json(), "small_partitions": brief(small), "not_calibrated": silent}))
        return
    show(found, small, silent)


def brief(found: Estimate) -> dict[str, Any]:
    """The sums of an estimate."""
    return {key: value for key, value in found.to_json().items() if key not in ("jobs", "rates", "cluster")}


def asked_for(recipe: dict[str, Any], asked: Asked) -> tuple[Estimate, Estimate, list[str]]:
    """(the estimate, the same with partitions of some 64 MB, jobs that a build given as --rates says nothing of).

    UsageError for what is no size or no count.
    """
    for option, value in (
        ("--files", asked.files),
        ("--units", asked.units),
        ("--repositories", asked.repositories),
        ("--copies", asked.copies),
        ("--nodes", asked.nodes),
        ("--cpus-per-node", asked.cpus),
        ("--file-operations", asked.metadata),
    ):
        if value is not None and not 0 < value <= MOST:
            raise UsageError(f"{option} {value:g}: a number up to {MOST:g} is wanted.")
    rates, silent = load_rates(), list[str]()
    if asked.rates is not None:
        from stackbuild.status import opened

        rates, silent = calibrated(rates, opened(asked.rates))
    cluster = Cluster(
        nodes=asked.nodes,
        cpus=asked.cpus,
        memory=in_bytes("--memory-per-node", asked.memory),
        bandwidth=in_bytes("--bandwidth", asked.bandwidth),
        metadata=asked.metadata,
        job_seconds=LOCAL_JOB_SECONDS if asked.nodes == 1 else Cluster.job_seconds,
    )
    corpus = corpus_for(rates, asked)
    wanted = 1 << max(0, math.ceil(math.log2(corpus.bytes / SMALL_PARTITION)))
    small = estimate(recipe, replace(corpus, partitions=min(MAX_PARTITIONS, wanted)), cluster, rates)
    if asked.partitions is None:
        return propose(recipe, corpus, cluster, rates), small, silent
    if not 1 <= asked.partitions <= MAX_PARTITIONS or asked.partitions & (asked.partitions - 1):
        raise UsageError(f"--partitions {asked.partitions}: a power of two up to {MAX_PARTITIONS:,} is wanted.")
    return estimate(recipe, replace(corpus, partitions=asked.partitions), cluster, rates), small, silent


def corpus_for(rates: Rates, asked: Asked) -> Corpus:
    """The corpus of the rates at the size that is asked for."""
    corpus = rates.corpus.sized(
        in_bytes("--estimate", asked.size), asked.files, asked.units, min(UNIT_BYTES, rates.corpus.bytes)
    )
    if asked.repositories:
        corpus = replace(
            corpus, repositories=asked.repositories, owners=max(1.0, asked.repositories / REPOSITORIES_OF_OWNER)
        )
    if asked.copies is not None:
        if not asked.copies >= 1:
            raise UsageError(f"--copies {asked.copies}: 1 means that every content is there once.")
        once = 1 / asked.copies
        corpus = replace(corpus, kept={**corpus.kept, "exact_dedup": (once, once)})
    return corpus


def in_bytes(option: str, text: str) -> float:
    """Bytes from words such as 67.5TB."""
    value = size_in_bytes(text)
    if not isinstance(value, int) or not 0 < value <= 1e21:
        raise UsageError(f'{option} {text}: a size such as "67.5TB" or "512GiB" is wanted.')
    return float(value)


def show(found: Estimate, small: Estimate, silent: list[str]) -> None:
    """The jobs, the sums, and what stops it first."""
    corpus, cluster = found.corpus, found.cluster
    per = corpus.bytes / corpus.partitions
    table = Table(
        title=f"{size(corpus.bytes)} in {corpus.files:,.0f} files, {corpus.units:,.0f} units, on {cluster.nodes} node(s) of "
        f"{cluster.cpus} CPUs and {size(cluster.memory)}",
        title_justify="left",
    )
    table.add_column("job", no_wrap=True)
    for name in ("tasks", "CPU-h", "memory", "shared", "written", "wall", "bound by"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.jobs:
        table.add_row(*row(one))
    console = Console()
    if not console.is_terminal or console.width < 100:
        console.width = 110
    console.print(table)
    elements, tasks = sum(one.elements for one in found.jobs), sum(one.tasks for one in found.jobs)
    parts = [f"{name} {hours(value)}" for name, value in found.time_by_limit().items() if value >= found.wall / 100]
    lines = [
        f"partitions = {corpus.partitions}: {size(per)} of text each",
        f"{tasks:,} tasks in {elements:,} array elements",
        f"{found.cpu / 3600:,.1f} CPU-hours, of which {found.exchange / 3600:,.1f} to find pieces and "
        f"{found.startup / 3600:,.1f} to start",
        f"{size(found.disk)} of disk at its peak, {found.inodes:,} files and folders",
        f"{hours(found.wall)} in all: {', '.join(parts)}" if found.fits else "it does not fit: no time can be told",
        f"first bottleneck: {found.bottleneck()}",
    ]
    if small.corpus.partitions != corpus.partitions:
        each = size(small.corpus.bytes / small.corpus.partitions)
        needs = max(one.memory + one.shared for one in small.jobs)
        lines.append(
            f"with {small.corpus.partitions:,} partitions of {each}: {hours(small.wall) if small.fits else 'it does not fit'}, "
            f"{small.cpu / 3600:,.1f} CPU-hours, {small.inodes:,} files, up to {size(needs)} for a task and its server"
        )
    if cluster.nodes > 1 and found.fits:
        lines.append(f"[slurm] that goes with it: {settings(found)}")
    if guessed := [one.job for one in found.jobs if not one.known]:
        lines.append(f"not measured, taken as others of their kind: {', '.join(guessed)}")
    if silent:
        lines.append(f"too short or not run in the build of --rates, taken from the table: {', '.join(silent)}")
    lines.append(f"rates: {found.rates['date']}, {found.rates['machine']}; what is assumed: docs/scale.md")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def settings(found: Estimate) -> str:
    """The values of `[slurm]` as a recipe has them."""
    values = found.settings
    jobs = ", ".join(f'"{name}" = "{value}"' for name, value in values.pop("job_memory").items())
    told = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return ", ".join([*told, f"job_memory = {{ {jobs} }}"] if jobs else told)


def row(one: JobEstimate) -> list[str]:
    stages = one.job.split("+")
    name = one.job if len(stages) == 1 else f"{stages[0]}…"
    wall = hours(one.wall) if one.slots else "–"
    return [
        name, f"{one.tasks:,}", figure(one.cpu / 3600), size(one.memory), size(one.shared), size(one.written), wall,
        one.limit if one.slots else "memory",
    ]  # fmt: skip


def figure(value: float) -> str:
    """Three digits at most behind what counts."""
    return (
        f"{value:,.0f}"
        if value >= 100
        else f"{value:.{max(0, 2 - max(0, math.floor(math.log10(value)) if value > 0 else 0))}f}"
    )
