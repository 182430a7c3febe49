"""The scale model: what a build of so many bytes would take on so many nodes, and what would stop it first.

`steps.py` says what each job has to do, `rates.py` what that costs; this adds the cluster. Jobs run one after the other. A
job takes as long as the slowest of: its CPU-seconds on the slots that have memory for its tasks, its longest task, its bytes
through the shared folder, its files through the folder's metadata; and in front of that what one process does alone: it
starts, lists what the jobs before left, and tells the keys of all tasks. docs/scale.md states the assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from stackbuild.estimate.corpus import Corpus, Work
from stackbuild.estimate.near_dedup import BOUNDED
from stackbuild.estimate.rates import Rates
from stackbuild.estimate.steps import work_of
from stackbuild.graph import jobs_of, nodes_of
from stackbuild.sources.ahead import THREADS

MAX_PARTITIONS = 1 << 16  # buckets are uint16
CHUNK_BYTES = 100.0  # of a column of a row group in its file's footer
NARROW = 4  # columns of a table of numbers
# Columns of the tables in whose footers a job, or a stage, looks for its pieces, where these are wider.
COLUMNS = {
    "occurrences": 25,
    "exact_dedup.files": 34,
    "near_dedup.solve": 8,  # in the mean of members and edges, which have the most pieces
    "near_dedup": 10,
    "layout.files": 55,
    "layout.repos": 32,
    "layout.decisions": 17,
    "layout.clusters": 10,
    "index.names": 32,
}
LONGEST = 3.0  # the longest task over the mean: shards are cut by count of ids, and files are not alike
MARGIN = 1.1  # of memory that is asked for over what is expected
TENTH = 10**8  # bytes, of a gigabyte: in these sizes are told
HELD_BYTES = 40e6  # of a task that holds next to nothing
TABLES_HELD = 2.0  # what a task of near_dedup holds grows by, over its `memory`: the table, and what is made of it
MANY_PASSES = 3.0  # of a task through its input, from which these are what is to be mended
ELEMENT_SECONDS = 300.0  # of work that an array element should have: its start costs some seconds


@dataclass(frozen=True)
class Cluster:
    """Where a build runs. `memory`: bytes of a node; `bandwidth`: bytes a second of the shared folder, reading and writing
    together, all nodes; `metadata`: files that it creates or opens in a second; `job_seconds`: from the end of a job to the
    first task of the next, waiting in the queue apart."""

    nodes: int = 1
    cpus: int = 2
    memory: float = 64e9
    bandwidth: float = 2e9
    metadata: float = 5_000.0
    job_seconds: float = 20.0


@dataclass(frozen=True)
class JobEstimate:
    """One job. Times in seconds, sizes in bytes. `memory`: of one task; `shared`: of a task server beside its tasks, which
    holds the manifests of what was before. `limits`: wall seconds if each were the only one; `wall`: of the job."""

    job: str
    tasks: int
    cpu: float
    exchange: float  # CPU-seconds of `cpu` that finding pieces takes
    startup: float  # CPU-seconds beside
    memory: float
    shared: float
    read: float
    written: float
    inodes: int
    slots: int
    elements: int
    limits: Mapping[str, float]
    wall: float
    known: bool = True
    passes: float = 1.0

    @property
    def limit(self) -> str:
        return max(self.limits, key=lambda name: self.limits[name])


@dataclass(frozen=True)
class Estimate:
    """A whole build."""

    corpus: Corpus
    cluster: Cluster
    jobs: Sequence[JobEstimate]
    resolve: float  # seconds that the driver hashes inputs, alone
    publish: float
    rates: Mapping[str, str] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        return sum(one.cpu + one.startup for one in self.jobs)

    @property
    def wall(self) -> float:
        return self.resolve + sum(one.wall for one in self.jobs) + self.publish

    @property
    def disk(self) -> float:
        """All that is committed stays until `stackbuild clean`; products are links to it."""
        return sum(one.written for one in self.jobs)

    @property
    def inodes(self) -> int:
        return sum(one.inodes for one in self.jobs)

    @property
    def exchange(self) -> float:
        return sum(one.exchange for one in self.jobs)

    @property
    def startup(self) -> float:
        return sum(one.startup for one in self.jobs)

    @property
    def settings(self) -> dict[str, Any]:
        """Values of `[slurm]` that go with it: an element takes a node and no more; jobs that need more than a CPU's share of its
        memory run fewer tasks at once."""
        node = math.floor(self.cluster.memory / TENTH) * TENTH
        shared = math.ceil(max(one.shared for one in self.jobs) * MARGIN / TENTH) * TENTH
        shared = max(TENTH, min(shared, node - self.cluster.cpus * TENTH))
        share = max(TENTH, math.floor((node - shared) / self.cluster.cpus / TENTH) * TENTH)
        asked = {one.job.split("+")[0]: min(one.memory * MARGIN, node - shared) for one in self.jobs}
        return {
            "cpus": self.cluster.cpus,
            "memory": gigabytes(min(share, max(asked.values()))),
            "shared_memory": gigabytes(shared),
            "max_memory": gigabytes(node),
            "job_memory": {job: gigabytes(memory) for job, memory in asked.items() if memory > share},
        }

    @property
    def fits(self) -> bool:
        return all(one.slots for one in self.jobs)

    def time_by_limit(self) -> dict[str, float]:
        """Wall seconds by what bounds the jobs, largest first."""
        total = {"hashing the input before the start": self.resolve, "publishing": self.publish}
        for one in self.jobs:
            serial = one.limits["serial"]
            total["serial"] = total.get("serial", 0.0) + serial
            total[one.limit] = total.get(one.limit, 0.0) + one.wall - serial
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def bottleneck(self) -> str:
        """What stops or slows it first, with its figure and what would move it."""
        if not self.fits:
            tight = [one for one in self.jobs if not one.slots]
            worst = max(tight, key=lambda one: one.memory + one.shared)
            which = "shared" if worst.shared > worst.memory else "memory"
            return (
                f"memory: a task of {worst.job} takes {size(worst.memory)} beside the {size(worst.shared)} that its task server "
                f"holds, and a node has {size(self.cluster.memory)}. {MOVES[which]}"
            )
        name, seconds = next(iter(self.time_by_limit().items()))
        slow = max(self.jobs, key=lambda one: one.limits.get(name, 0.0))
        moves = MOVES["passes"].format(slow.passes) if slow.passes >= MANY_PASSES else MOVES.get(name, "")
        return f"{name}: {hours(seconds)} of {hours(self.wall)}, most of it in {slow.job}. {moves}".strip()

    def to_json(self) -> dict[str, Any]:
        return {
            "bytes": self.corpus.bytes,
            "files": self.corpus.files,
            "units": self.corpus.units,
            "partitions": self.corpus.partitions,
            "cluster": asdict(self.cluster),
            "tasks": sum(one.tasks for one in self.jobs),
            "elements": sum(one.elements for one in self.jobs),
            "cpu_hours": self.cpu / 3600,
            "wall_hours": self.wall / 3600,
            "peak_disk": self.disk,
            "inodes": self.inodes,
            "fits": self.fits,
            "time_by_limit": self.time_by_limit(),
            "bottleneck": self.bottleneck(),
            "slurm": self.settings,
            "resolve": self.resolve,
            "publish": self.publish,
            "jobs": [{**asdict(one), "limits": dict(one.limits), "limit": one.limit} for one in self.jobs],
            "rates": dict(self.rates),
        }


MOVES = {
    "cpu": "More nodes shorten it in proportion.",
    "exchange": "Fewer, larger partitions (more memory for a task), or an exchange in two passes, which the engine does not have.",
    "few tasks": "It has fewer tasks than there are slots: more partitions, or more [tokens] shards; one task alone cannot be spread.",
    "footers": "Most of what is read are footers of exchanged tables: fewer, larger partitions (more memory for a task), or an "
    "exchange in two passes, which the engine does not have.",
    "longest task": "More partitions for a job over partitions; a job with a single task cannot be spread.",
    "bandwidth": "A faster shared folder, or fewer stages that read text in jobs of their own.",
    "metadata": "Fewer partitions and larger units; a folder whose metadata are spread over several servers.",
    "serial": "Fewer partitions and larger units: one process lists what the jobs before left and tells the tasks' keys.",
    "passes": "Each task reads its input {:,.0f} times: more [near_dedup] memory (it changes no result), or more partitions.",
    "memory": "Nodes with more memory, or more partitions.",
    "shared": "Fewer partitions and larger units: the lists of pieces in the manifests would have to be read in parts, which the "
    "engine does not do.",
    "hashing the input before the start": "One machine hashes every input file, with 8 threads; several recipes over parts of the "
    "input, or hashing in tasks, which the engine does not do.",
    "publishing": "Larger files of the release ([layout] file_bytes).",
}


def estimate(recipe: Mapping[str, Any], corpus: Corpus, cluster: Cluster, rates: Rates) -> Estimate:
    """What a build of a resolved recipe over such a corpus takes; needs no source."""
    nodes = nodes_of(dict(recipe))
    jobs, corpus = jobs_of(nodes), corpus.of_recipe(recipe, nodes)
    works = work_of(jobs, corpus)
    found = [estimate_job(work, corpus, cluster, rates) for work in works]
    machine = rates.machine
    published = sum(one.outputs for one in works if one.job in PUBLISHED)
    return Estimate(
        corpus,
        cluster,
        found,
        resolve=machine["resolve"]
        + corpus.bytes
        * max(machine["resolve_byte"] / min(THREADS, cluster.cpus), machine["stored"] / cluster.bandwidth),
        publish=machine["publish"] + published * machine["publish_file"],
        rates=rates.about,
    )


PUBLISHED = ("layout.files", "layout.repos", "layout.decisions", "layout.clusters", "index.names", "tokens.shards")


PRELOADED = ("licenses.detect", "licenses.headers")  # whose tasks share ScanCode's index


def estimate_job(work: Work, corpus: Corpus, cluster: Cluster, rates: Rates) -> JobEstimate:
    """One job: its sums, and what each resource alone would make it last."""
    rate, machine = rates.of(work), rates.machine
    tasks = max(1, math.ceil(work.tasks))
    cpu = rate.cpu.of(work)
    exchange = rate.cpu.piece * work.pieces + rate.cpu.footer * work.footers
    memory = memory_of(work, corpus, rates)
    manifests = work.held * machine["entry_bytes"] + work.held_files * machine["output_bytes"]
    shared = machine["server_bytes"] + manifests + (machine["preload_bytes"] if work.job in PRELOADED else 0.0)
    slots = cluster.nodes * min(cluster.cpus, int(max(0.0, cluster.memory - shared) // max(memory, 1e6)))
    used = max(1, min(slots, tasks))
    mean = cpu / tasks
    # So many tasks keep all slots of an element busy for long enough.
    per_element = max(1.0, ELEMENT_SECONDS / max(mean, 1e-3)) * cluster.cpus
    elements = max(min(cluster.nodes, math.ceil(tasks / cluster.cpus)), math.ceil(tasks / per_element))
    load = work.held * machine["entry_seconds"] + work.held_files * machine["output_seconds"]
    load += work.planned * machine["plan_row_seconds"]
    start = rate.start + 2 * load  # an element lists the manifests, and its task server does
    keys = work.keyed * machine["key_seconds"] + tasks * machine["task_seconds"]
    footers = work.footers * CHUNK_BYTES * max(COLUMNS.get(name, NARROW) for name in (work.job, *work.stages))
    read = (work.read or work.bytes * machine["stored"]) + footers
    written = rate.written.of(work)
    inodes = math.ceil(max(tasks * rate.inodes, tasks + work.outputs))
    name = "few tasks" if tasks < slots else "exchange" if exchange > cpu / 2 else "cpu"
    limits = {
        name: (cpu + keys + elements * start) / used,
        "longest task": mean * (LONGEST if tasks > used else 1.0),
        "footers" if footers > (read + written) / 2 else "bandwidth": (read + written) / cluster.bandwidth,
        "metadata": (inodes + work.opened) / cluster.metadata,
        "serial": cluster.job_seconds + start + 2 * keys,
    }
    parallel = max(value for key, value in limits.items() if key != "serial")
    return JobEstimate(
        work.job, tasks, cpu, exchange, elements * start + keys, memory, shared, read, written, inodes, slots, elements, limits,
        parallel + limits["serial"], rates.known(work), work.passes,
    )  # fmt: skip


def memory_of(work: Work, corpus: Corpus, rates: Rates) -> float:
    """Bytes of one task, the largest."""
    if work.job == "near_dedup.components":  # it holds what it is of, whatever was measured
        return HELD_BYTES + rates.machine["component_bytes"] * work.rows
    largest = work.of_largest
    memory = rates.of(work).memory.of(largest)
    if work.job in BOUNDED:
        held = min(corpus.table_bytes, largest.bytes / work.passes)
        memory += TABLES_HELD * max(0.0, held - rates.corpus.table_bytes)
    return memory


def propose(recipe: Mapping[str, Any], corpus: Corpus, cluster: Cluster, rates: Rates) -> Estimate:
    """The estimate with the power of two of partitions that is through first; where none fits, with the one that comes nearest."""
    found = []
    for bits in range(MAX_PARTITIONS.bit_length()):
        found.append(estimate(recipe, replace(corpus, partitions=1 << bits), cluster, rates))
    fitting = [one for one in found if one.fits]
    if fitting:
        return min(fitting, key=lambda one: (one.wall, one.corpus.partitions))
    return min(found, key=lambda one: max(job.memory + job.shared for job in one.jobs))


def gigabytes(count: float) -> str:
    """A size as recipes have it, rounded up."""
    return f"{math.ceil(count / TENTH) / 10:g}GB"


def size(count: float) -> str:
    """Bytes for people."""
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def hours(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:,.1f} days"
