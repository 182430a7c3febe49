"""What a unit of work costs: CPU-seconds, bytes and memory for each job, measured on a real build.

`rates.toml` beside this module was written by `python -m benchmarks.rates` and says where, when and of what. A user's own
build calibrates it: each job's figures are multiplied by what that build took over what the table says it should have taken,
and the corpus (what the stages keep, how many licence files and near-duplicates there are) is that build's own.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stackbuild.errors import InputError
from stackbuild.estimate.corpus import Corpus, Work
from stackbuild.estimate.near_dedup import NAME_BYTES, SHINGLE_BYTES, drawn
from stackbuild.estimate.steps import job_key, work_of
from stackbuild.graph import INGEST
from stackbuild.hashing import owner_of
from stackbuild.launches import read_events
from stackbuild.plan import Build
from stackbuild.shards import read_batches

RATES_FILE = Path(__file__).with_name("rates.toml")
LEAST_SECONDS = 0.5  # of CPU that a job must have taken to say anything about its rate


@dataclass(frozen=True)
class Cost:
    """A figure as a sum over what a job has to do: so much for each task, row, byte, piece and footer (`corpus.Work`)."""

    task: float = 0.0
    row: float = 0.0
    byte: float = 0.0
    piece: float = 0.0
    footer: float = 0.0

    def of(self, work: Work) -> float:
        return (
            self.task * work.tasks
            + self.row * work.rows
            + self.byte * work.bytes
            + self.piece * work.pieces
            + self.footer * work.footers
        )

    def times(self, factor: float) -> Cost:
        return Cost(*(getattr(self, one.name) * factor for one in fields(self)))

    def plus(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True)
class JobRate:
    """Of one job. `cpu`: seconds. `written`: bytes committed. `memory`: bytes of one task, beside what all share. `inodes`:
    files and folders for each task. `start`: CPU-seconds until a task server is ready for it.

    Of a chain of row stages, `cpu` is of reading and writing alone: the stages have rates of their own.
    """

    cpu: Cost = field(default_factory=Cost)
    written: Cost = field(default_factory=Cost)
    memory: Cost = field(default_factory=Cost)
    inodes: float = 5.0
    start: float = 5.0


@dataclass(frozen=True)
class Rates:
    """A table of rates. `machine` holds what does not belong to one job. A job or stage of which the table says nothing is
    taken to cost as others of its kind do."""

    about: Mapping[str, str]
    machine: Mapping[str, float]
    corpus: Corpus
    jobs: Mapping[str, JobRate]
    stages: Mapping[str, Cost]

    def known(self, work: Work) -> bool:
        """Whether the job, or each of its stages, was measured."""
        return work.job in self.jobs or (bool(work.stages) and all(stage in self.stages for stage in work.stages))

    def of(self, work: Work) -> JobRate:
        """The rate of a job, stages included. A chain of row stages that was not measured as such costs what its stages cost,
        and to read and write as the measured chain with most stages in common."""
        if not work.stages:
            return self.jobs.get(work.job, self.typical)
        nearest = self.chain(work)
        cpu = nearest.cpu
        for stage in work.stages:
            cpu = cpu.plus(self.stages.get(stage, self.typical_stage))
        return replace(nearest, cpu=cpu)

    def chain(self, work: Work) -> JobRate:
        """What a chain of row stages costs without its stages, as measured or as the nearest that was."""
        if work.job in self.jobs:
            return self.jobs[work.job]
        chains = [name for name in self.jobs if set(name.split("+")) & set(self.stages)]
        if not chains:
            return self.typical
        best = max(chains, key=lambda name: (len(set(name.split("+")) & set(work.stages)), name))
        return self.jobs[best]

    @cached_property
    def typical(self) -> JobRate:
        """A job over all text, for phases that nobody measured."""
        return self.jobs["near_dedup.signatures"]

    @cached_property
    def typical_stage(self) -> Cost:
        """The mean of the measured row stages, for those that nobody measured."""
        costs = [cost for cost in self.stages.values() if cost != Cost()]
        return Cost(*(sum(getattr(cost, one.name) for cost in costs) / len(costs) for one in fields(Cost)))


def load_rates(path: Path = RATES_FILE) -> Rates:
    """Read a table of rates; InputError if it is none."""
    try:
        body = tomllib.loads(path.read_text())
        corpus = {**body["corpus"], "kept": {k: tuple(v) for k, v in body["corpus"]["kept"].items()}}
        jobs = {name: job_rate(entry) for name, entry in body["job"].items()}
        stages = {name: Cost(**entry) for name, entry in body["stage"].items()}
        return Rates(body["about"], body["machine"], Corpus(**corpus), jobs, stages)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no table of rates ({type(error).__name__}: {error}).") from error


def job_rate(entry: Mapping[str, Any]) -> JobRate:
    cpu, written, memory = (Cost(**entry[name]) for name in ("cpu", "written", "memory"))
    return JobRate(cpu, written, memory, entry["inodes"], entry["start"])


# ---------------------------------------------------------------- from a build


@dataclass
class Measured:
    """What the tasks of a job took in their last whole run, and what they left. `counted`: tasks that were seen to run."""

    tasks: int = 0
    counted: int = 0
    cpu: float = 0.0
    memory: int = 0
    written: int = 0
    files: int = 0


def measured_jobs(build: Build) -> dict[str, Measured]:
    """By job key. CPU of the last try that ended well of each task, in any run of the folder, of the driver or on a cluster."""
    last: dict[tuple[str, int], dict[str, Any]] = {}
    launches = build.out / "launches"
    for path in [launches / "journal.jsonl", *sorted(launches.glob("*/events/*.jsonl"))]:
        for event in read_events(path):
            if event.get("event") == "task" and event.get("status") == 0:
                key = (event["job"], event["rank"])
                if key not in last or not event.get("more"):
                    last[key] = event
    found: dict[str, Measured] = {}
    for job in build.jobs:
        one = Measured()
        shards = [shard for name in job.shard_jobs for shard in build.shards(name)]
        one.tasks = len(shards) // len(job.shard_jobs)
        one.written = sum(output.bytes for shard in shards for output in shard.outputs)
        one.files = sum(len(shard.outputs) for shard in shards)
        events = [event for (name, _), event in last.items() if name == job.name]
        one.counted = len(events)
        one.cpu = sum(event["cpu"] for event in events)
        one.memory = max((event.get("private", 0) for event in events), default=0)
        found[job_key(job)] = one
    return found


def corpus_of(build: Build) -> Corpus:
    """What a complete build was of, from its manifests."""
    ingested = build.ledger(INGEST.name)
    kept: dict[str, tuple[float, float]] = {}
    for node in build.nodes:
        phases = node.stage.phases()
        if node.stage.makes_files:
            ledger = build.ledger(node.phase_job(phases[-1]))
        elif (build.out / "stages" / node.slug / "manifest.json").exists():
            ledger = build.ledger(node.slug)
        else:
            continue
        if ledger.rows_in:
            kept[node.instance] = (ledger.rows_out / ledger.rows_in, ledger.bytes_out / max(1, ledger.bytes_in))
    stats = _stats(build)
    occurrences = max(1, ingested.rows_out)
    licence_files = sum(one.get("license_files", 0) for one in stats["licenses.wanted"])
    corpus = Corpus(
        files=occurrences,
        bytes=max(1, ingested.bytes_out),
        units=len(build.plan.units),
        partitions=build.plan.partitions,
        repositories=max(1, sum(output.rows for output in build.outputs(INGEST.name, "origins"))),
        owners=max(1, owners_of(build)),
        kept=kept,
        licence_files=licence_files / occurrences,
        licence_contents=sum(one.get("contents", 0) for one in stats["licenses.detect"]) / max(1, licence_files),
        languages=max(1, len({one.get("language") for one in stats["layout.files"]})),
    ).of_recipe(build.plan.recipe, build.nodes)
    return with_near_dedup(corpus, build, stats)


def with_near_dedup(corpus: Corpus, build: Build, stats: Mapping[str, Sequence[Mapping[str, Any]]]) -> Corpus:
    """The corpus with what near_dedup found; as it is if the build has no such stage."""
    node = next((node for node in build.nodes if node.stage.name == "near_dedup"), None)
    if node is None:
        return corpus

    def total(phase: str, name: str) -> float:
        return float(sum(one.get(name, 0) for one in stats[f"near_dedup.{phase}"]))

    def rows(phase: str, name: str) -> float:
        return float(sum(output.rows for output in build.outputs(node.phase_job(phase), name)))

    ledger = build.ledger(node.slug)
    files, size = max(1.0, ledger.rows_in), max(1.0, ledger.bytes_in)
    members, pairs = total("roots", "files_with_candidates"), max(1.0, total("links", "candidate_pairs"))
    sketches, shingles = max(1.0, rows("signatures", "sketches")), max(1.0, total("signatures", "shingles"))
    sets = sum(output.bytes for output in build.outputs(node.phase_job("sets"), "sets"))
    of_member = (sets / max(1.0, members) - NAME_BYTES) / SHINGLE_BYTES
    found = replace(
        corpus,
        sketched=sketches / files,
        shingles=shingles / size / (sketches / files),
        candidates=members / files,
        larger=max(0.1, of_member / (shingles / sketches)) if corpus.verify and members else 1.0,
        pairs=pairs / max(1.0, members),
        shared=drawn(len(build.outputs(node.phase_job("candidates"), "pairs")), rows("candidates", "pairs") / pairs),
        likely=total("estimates", "likely_pairs") / pairs,
        merges=rows("roots", "merges") / max(1.0, members),
        stars=drawn(corpus.partitions, rows("estimates", "stars") / max(1.0, members)),
    )
    if not corpus.exact:
        return replace(found, met=total("candidates", "shared_rows") / max(1.0, rows("signatures", "bands")))
    return replace(found, prefixes=rows("prefixes", "prefixes") / sketches)


def owners_of(build: Build) -> int:
    """How many owners the repositories have that were read."""
    names: set[str] = set()
    for batch in read_batches(build.out, build.outputs(INGEST.name, "origins"), ["repo_name"]):
        names.update(owner_of(name) for name in batch.column(0).dictionary_encode().dictionary.to_pylist())
    return len(names)


def _stats(build: Build) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for job in build.jobs:
        if job.kind == "phase":
            found[job_key(job)] += [shard.stats for shard in build.shards(job.name)]
    return found


def calibrated(rates: Rates, build: Build) -> tuple[Rates, list[str]]:
    """The table by a build of one's own, and the jobs of which that build said nothing (found again, or too short)."""
    corpus, measured = corpus_of(build), measured_jobs(build)
    works = work_of(build.jobs, corpus)
    jobs, stages, silent = dict(rates.jobs), dict(rates.stages), []
    for work in works:
        one, rate = measured[work.job], rates.of(work)
        cpu = _ratio(one.cpu, rate.cpu.of(work), one.counted == one.tasks and one.cpu >= LEAST_SECONDS)
        written = _ratio(one.written, rate.written.of(work), True)
        memory = _ratio(one.memory, rate.memory.of(work.of_largest), one.memory > 0)
        if cpu is None:
            silent.append(work.job)
        own = rates.chain(work) if work.stages else rate
        jobs[work.job] = replace(
            own,
            cpu=own.cpu.times(cpu or 1.0),
            written=own.written.times(written or 1.0),
            memory=own.memory.times(memory or 1.0),
        )
        for stage in work.stages:
            if stage in stages:
                stages[stage] = rates.stages[stage].times(cpu or 1.0)
    about = {**rates.about, "calibrated": "by a build of the user's"}
    return replace(rates, about=about, corpus=corpus, jobs=jobs, stages=stages), silent


def _ratio(seen: float, told: float, counts: bool) -> float | None:
    return seen / told if counts and told > 0 else None
