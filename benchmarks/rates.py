"""Measure what each job of a build costs and write the table that `stackbuild plan --estimate` uses.

    python -m benchmarks.rates CORPUS --work DIR [--write] [--json]

CORPUS is what `benchmarks.corpus` makes (CORPUS/corpus, CORPUS/corpus-small). Builds of it with the default recipe (every licence
class kept, so that later stages have work) differ in size, in the size of files, in the number of partitions and in the memory
and mode of near_dedup, so that the cost of a task, of a row, of a byte, of a piece of an exchanged table and of a footer can be told
apart: each job's CPU, bytes and memory are fitted by least squares of relative errors with no coefficient below 0. One more build,
which the fit does not see, says how well the table predicts. A build in DIR that is complete is not made again. --write replaces
stackbuild/estimate/rates.toml.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.measure import ROOT, versions
from benchmarks.rates_machine import FACTORS, exchanges, fit, machine, stage_shares, start_cpu
from stackbuild.estimate.corpus import Corpus, Work
from stackbuild.estimate.rates import RATES_FILE, Cost, Measured, Rates, corpus_of, load_rates, measured_jobs
from stackbuild.estimate.steps import job_key, work_of
from stackbuild.plan import Build
from stackbuild.status import opened

SMALL, LARGE = 2_000, 20_000  # bytes: files below, and from, for the builds of small and of large files
PART = 102  # of 256: repositories of the build that the fit does not see
TEXT = '["dataset", "repos", "index"]'
TOKENS = '["dataset", "repos", "tokens", "index"]'
RECIPE = """
name = "rates"
extends = "default.toml"
partitions = {partitions}
outputs = {outputs}
[[source]]
kind = "parquet"
paths = ["{paths}"]
columns = {{ content = "text", path = "path", repo_name = "repo" }}
[license_filter]
keep = ["permissive", "no_license", "unknown", "weak_copyleft", "non_permissive"]
[near_dedup]
{near_dedup}
"""
QUICK_BYTES = 4e7  # of a task that ended before its memory was looked at
# Jobs that hold the bytes of a partition, a unit or a file at once; those whose memory is bounded by constants of their modules;
# the others hold a partition's rows. A row of a narrow table in memory, where none was seen:
HELD_BYTES = frozenset(("ingest", "contents", "layout.runs", "layout.files", "tokens.runs"))
BOUNDED = frozenset((
    "licenses.detect", "near_dedup.signatures", "near_dedup.order", "near_dedup.prefixes", "near_dedup.candidates",
    "near_dedup.links", "tokens.sample", "tokens.tokenizer", "tokens.shards", "tokens.manifest",
))  # fmt: skip
HELD_ROW_BYTES = 700.0
# Jobs that hold a bounded table and this for each row, by the arrays in their code: the builds are too small to show it.
ROW_BYTES = {
    "near_dedup.frequencies": 2.0,  # rows: slots of a table of shingles
    "near_dedup.estimates": 40.0,  # pairs: a forest of their files
    "near_dedup.roots": 80.0,  # stars
    "near_dedup.sets": 150.0,  # files, of which some are members with survivor columns and names
    "near_dedup.solve": 400.0,  # edges, of members with their names
}
# What jobs that one build has go by: CPU, and bytes written.
ONCE = {
    "near_dedup.frequencies": ("byte", "row"),
    "near_dedup.order": ("row", "task"),
    "near_dedup.prefixes": ("byte", "row"),
}
EXCHANGE_SEEN = 0.3  # of a job's CPU in a build: then the builds tell what it costs


@dataclass(frozen=True)
class Plan:
    """A build to measure: its input (a folder), partitions, outputs, and options of near_dedup."""

    name: str
    source: str
    partitions: int
    outputs: str = TEXT
    near_dedup: str = ""


PLANS = (
    Plan("csmall8", "corpus-small", 8, TOKENS),
    Plan("full8", "corpus", 8, TOKENS),
    Plan("large8", "large", 8, TOKENS),
    Plan("small8", "small", 8),
    Plan("small128", "small", 128),
    Plan("full64", "corpus", 64),
    Plan("full2", "corpus", 2),
    Plan("tight2", "corpus", 2, near_dedup="memory = 2097152"),  # in many passes
    Plan("exact8", "corpus", 8, near_dedup='mode = "exact"'),
)
UNSEEN = Plan("part16", "part", 16, TOKENS)
WHOLE, EXACT = "full8", "exact8"  # whose corpus the table takes
PARTED = "full64"  # which tells how often the same is said by many partitions


@dataclass(frozen=True)
class Seen:
    """One job in one build."""

    build: str
    work: Work
    measured: Measured


# ---------------------------------------------------------------- builds


def make_inputs(corpus: Path, work: Path) -> None:
    """The parts of the corpus that differ in the size of files, and two fifths of its repositories."""
    files = sorted((corpus / "corpus").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path, columns=["text", "path", "repo"]) for path in files])
    sizes = np.asarray(pc.binary_length(table["text"])).astype(np.int64)
    draws = np.array([hashlib.sha1(name.encode()).digest()[0] for name in table["repo"].to_pylist()])
    for name, mask in (("small", sizes < SMALL), ("large", sizes >= LARGE), ("part", draws < PART)):
        folder = work / "in" / name
        if folder.exists():
            continue
        folder.mkdir(parents=True)
        rows = table.filter(pa.array(mask)).combine_chunks()
        count = max(1, int(sizes[mask].sum() // 64e6))
        for number in range(count):
            start, stop = rows.num_rows * number // count, rows.num_rows * (number + 1) // count
            pq.write_table(rows.slice(start, stop - start), folder / f"{number:03d}.parquet", row_group_size=2_000)


def make(plan: Plan, corpus: Path, work: Path) -> Build:
    """Build, unless it is there, with one worker, so that tasks do not slow each other."""
    out, recipe = work / "out" / plan.name, work / f"{plan.name}.toml"
    if not complete(out):
        source = corpus / plan.source if (corpus / plan.source).exists() else work / "in" / plan.source
        recipe.write_text(
            RECIPE.format(partitions=plan.partitions, outputs=plan.outputs, paths=source, near_dedup=plan.near_dedup)
        )
        words = ["build", str(recipe), "--output", str(out), "--workers", "1", "--json"]
        command = [sys.executable, "-m", "stackbuild", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment)
    return opened(out)


def complete(out: Path) -> bool:
    return (out / "build.json").exists() and json.loads((out / "build.json").read_bytes())["complete"]


def seen(build: Build, name: str = "") -> tuple[Corpus, dict[str, Seen]]:
    corpus, measured = corpus_of(build), measured_jobs(build)
    return corpus, {work.job: Seen(name, work, measured[work.job]) for work in work_of(build.jobs, corpus)}


# ---------------------------------------------------------------- the fit


def fit_job(key: str, entries: Sequence[Seen], exchange: Cost) -> dict[str, Any]:
    """One entry of the table. `exchange`: what pieces and footers cost was measured by itself; it is scaled with the rest where
    it is seen in the builds, and taken as it is where it is not."""
    works = [one.work for one in entries]
    of_cpu, of_written = [("task", "row", "byte"), ("task", "row", "byte", "piece")]
    if key in ONCE:
        of_cpu, of_written = ((name,) for name in ONCE[key])
    share = max(exchange.of(one.work) / max(0.1, one.measured.cpu) for one in entries)
    scale = 1.0
    if share > EXCHANGE_SEEN:
        told_apart = [replace(work, pieces=exchange.of(work), footers=0.0) for work in works]
        cpu = fit(told_apart, [one.measured.cpu for one in entries], ("task", "row", "byte", "piece"), 0.5)
        scale, cpu = cpu.piece, replace(cpu, piece=0.0)
    if share <= EXCHANGE_SEEN or (scale == 0 and exchange.footer):
        scale = 1.0
        cpu = fit(works, [max(0.0, one.measured.cpu - exchange.of(one.work)) for one in entries], of_cpu, 0.5)
    return {
        "cpu": told(cpu.plus(exchange.times(scale))),
        "written": told(fit(works, [float(one.measured.written) for one in entries], of_written, 1e5)),
        "memory": told(memory_of(key, entries)),
    }


def memory_of(key: str, entries: Sequence[Seen]) -> Cost:
    """Of a task: see HELD_BYTES and BOUNDED."""
    seen_ = [(one.work.of_largest, float(one.measured.memory)) for one in entries if one.measured.memory > 0]
    most = max([QUICK_BYTES, *(size for _, size in seen_)])
    if key in ROW_BYTES:
        most = max([QUICK_BYTES, *(size - ROW_BYTES[key] * work.rows for work, size in seen_)])
        return Cost(task=most, row=ROW_BYTES[key])
    if key in BOUNDED or not entries[0].work.rows:
        return Cost(task=most)
    factor = "byte" if key in HELD_BYTES else "row"
    found = fit([work for work, _ in seen_], [size for _, size in seen_], ("task", factor), 40e6) if seen_ else Cost()
    if getattr(found, factor):
        return found
    return Cost(task=QUICK_BYTES, row=HELD_ROW_BYTES)


def told(cost: Cost) -> dict[str, float]:
    return {name: float(f"{getattr(cost, name):.4g}") for name in FACTORS if getattr(cost, name)}


def inodes_of(build: Build, job: str) -> float:
    """Files and folders for each task of a job: tables, folders, manifests and logs."""
    found = next(one for one in build.jobs if one.name == job)
    count = sum(1 for name in found.shard_jobs for _ in (build.out / "stages" / name).rglob("*"))
    logs = sum(1 for _ in (build.out / "launches" / "logs" / job).glob("*"))
    return (count + logs) / max(1, len(build.shards(found.shard_jobs[0])))


# ---------------------------------------------------------------- the table


def table(builds: Mapping[str, Build]) -> dict[str, Any]:
    """All of it."""
    observed: dict[str, list[Seen]] = {}
    corpora: dict[str, Corpus] = {}
    for name, build in builds.items():
        corpora[name], of_build = seen(build, name)
        for key, one in of_build.items():
            if name != EXACT or key not in observed:  # candidates of another kind
                observed.setdefault(key, []).append(one)
    full = builds[WHOLE]
    jobs = {job_key(job): (build, job.name) for build in (builds[EXACT], full) for job in build.jobs}
    exchange = exchanges(builds["small8"], builds["small128"])
    entries = {
        key: {
            **fit_job(key, found, exchange.get(key, Cost())),
            "inodes": round(inodes_of(*jobs[key]), 1),
            "start": round(start_cpu(*jobs[key]), 2),
        }
        for key, found in observed.items()
    }
    stages = apart(entries, stage_shares(full), observed)
    told_often = {name: getattr(corpora[PARTED], name) for name in ("shared", "stars", "merges")}
    corpus = {**vars(corpora[WHOLE]), **told_often, "prefixes": corpora[EXACT].prefixes}
    kept = {name: [round(rows, 5), round(size, 5)] for name, (rows, size) in corpus.pop("kept").items()}
    return {
        "about": about(full),
        "machine": {name: float(f"{value:.4g}") for name, value in machine(full, builds["small128"]).items()},
        "corpus": {**{k: (float(f"{v:.6g}") if isinstance(v, float) else v) for k, v in corpus.items()}, "kept": kept},
        "stage": stages,
        "job": entries,
    }


def apart(
    entries: dict[str, dict[str, Any]],
    shares: Mapping[str, Mapping[str, float]],
    observed: Mapping[str, Sequence[Seen]],
) -> dict[str, dict[str, float]]:
    """Take what stages cost by themselves out of the cost of their chain, which is left with reading and writing."""
    stages: dict[str, dict[str, float]] = {}
    for chain in (key for key, found in observed.items() if found[0].work.stages):
        stages |= {stage: {} for stage in chain.split("+")}  # by itself nothing: what it takes is in its chain
    for chain, times in shares.items():
        whole = next(
            one
            for one in observed[chain]
            if (one.work.tasks == 8 and one.measured.cpu > 5) or one is observed[chain][-1]
        )
        per_partition = whole.measured.cpu / whole.work.tasks
        cost = Cost(**entries[chain]["cpu"])
        rest = 1.0
        for stage, seconds in times.items():
            share = min(0.9, seconds / per_partition)
            rest -= share
            stages[stage] = told(Cost(row=cost.row * share, byte=cost.byte * share))
        rest = max(0.05, rest)
        entries[chain]["cpu"] = told(Cost(cost.task, cost.row * rest, cost.byte * rest, cost.piece, cost.footer))
    return stages


def about(build: Build) -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    corpus = corpus_of(build)
    known = versions("stackbuild", "pyarrow", "numba", "enry-python")
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} shared cores, {model}",
        "corpus": f"{corpus.bytes / 1e6:,.0f} MB, {corpus.files:,.0f} files of releases, of {corpus.repositories:,.0f} projects",
        "method": "python -m benchmarks.rates: builds with one worker, CPU of the tasks, relative least squares",
        "versions": ", ".join(f"{name} {version}" for name, version in known.items()),
    }


def quoted(key: str) -> str:
    return key if key.replace("_", "").isalnum() else json.dumps(key)


def scalar(value: Any) -> str:
    return (
        json.dumps(value)
        if not isinstance(value, float)
        else f"{value:.6g}"
        if value % 1 or abs(value) >= 1e16
        else f"{value:.1f}"
    )


def written(body: Mapping[str, Any]) -> str:
    head = "# What a unit of work costs. Written by `python -m benchmarks.rates --write`; see docs/scale.md.\n"
    lines = [head]
    for name in ("about", "machine"):
        lines += [f"\n[{name}]", *(f"{quoted(k)} = {scalar(v)}" for k, v in body[name].items())]
    corpus = dict(body["corpus"])
    kept = corpus.pop("kept")
    lines += ["\n[corpus]", *(f"{k} = {scalar(v)}" for k, v in corpus.items())]
    lines += ["\n[corpus.kept]", *(f"{quoted(k)} = {json.dumps(v)}" for k, v in kept.items())]
    lines += ["\n[stage]", *(f"{quoted(k)} = {inline(v)}" for k, v in body["stage"].items())]
    for key, entry in body["job"].items():
        lines += [f"\n[job.{quoted(key)}]"]
        lines += [f"{k} = {inline(v) if isinstance(v, Mapping) else scalar(v)}" for k, v in entry.items()]
    return "\n".join(line for line in lines).replace("\n\n\n", "\n\n") + "\n"


def inline(body: Mapping[str, float]) -> str:
    return "{ " + ", ".join(f"{k} = {scalar(v)}" for k, v in body.items()) + " }" if body else "{}"


# ---------------------------------------------------------------- how well it predicts


def compared(
    rates: Rates, build: Build, about_corpus: Callable[[Corpus], Corpus] = lambda corpus: corpus
) -> list[dict[str, Any]]:
    """Predicted and measured CPU and bytes of each job of a build; `about_corpus`: what the prediction knows of its corpus."""
    corpus, jobs = seen(build)
    found = []
    for work in work_of(build.jobs, about_corpus(corpus)):
        rate, one = rates.of(work), jobs[work.job].measured
        found.append({"job": work.job, "cpu": one.cpu, "told": rate.cpu.of(work), "written": one.written,
                      "written_told": rate.written.of(work)})  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and builds, which stay")
    parser.add_argument("--write", action="store_true", help="replace the table of the package")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    make_inputs(asked.corpus, asked.work)
    builds = {plan.name: make(plan, asked.corpus, asked.work) for plan in PLANS}
    text = written(table(builds))
    path = RATES_FILE if asked.write else asked.work / "rates.toml"
    path.write_text(text)
    rates = load_rates(path)
    unseen = make(UNSEEN, asked.corpus, asked.work)

    def blind(corpus: Corpus) -> Corpus:
        """Only the size is known, not what the stages will keep."""
        return rates.corpus.sized(corpus.bytes, corpus.files, corpus.units, 1.0)

    rows = compared(rates, unseen, lambda corpus: _with(blind(corpus), corpus))
    cpu, said = sum(row["cpu"] for row in rows), sum(row["told"] for row in rows)
    result = {
        "name": "rates", "unit": "predicted over measured CPU of a build that the fit did not see", "ours": said / cpu,
        "peers": {}, "ratio": None, "goal": None, "meets": None, "versions": versions("stackbuild", "pyarrow", "numba"),
        "input": {"bytes": corpus_of(unseen).bytes}, "written": sum(r["written_told"] for r in rows) / sum(r["written"] for r in rows),
        "jobs": rows,
    }  # fmt: skip
    if asked.json:
        print(json.dumps(result))
        return
    for row in rows:
        told_ = f"{row['cpu']:8.2f} CPU-s, told {row['told']:8.2f}"
        print(f"{row['job']:48} {told_}; {row['written'] / 1e6:8.1f} MB, told {row['written_told'] / 1e6:8.1f}")
    print(
        f"all: told {said:.1f} of {cpu:.1f} CPU-s ({said / cpu - 1:+.0%}), bytes {result['written'] - 1:+.0%}; {path}"
    )


def _with(corpus: Corpus, true: Corpus) -> Corpus:
    return replace(corpus, partitions=true.partitions)


if __name__ == "__main__":
    main()
