"""Print the tables of docs/scale.md and docs/slurm.md from the rates that stackbuild brings.

    python -m benchmarks.scale [--prediction RATES.json] [--write] [--json]

RATES.json is what `python -m benchmarks.rates … --json` printed: how well the table predicts a build that its fit did not see.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT
from stackbuild.estimate.corpus import REPOSITORIES_OF_OWNER, Corpus
from stackbuild.estimate.model import Cluster, Estimate, estimate, hours, propose, size
from stackbuild.estimate.rates import Rates, load_rates
from stackbuild.recipe import load

# Bytes, files and repositories as published; v3's files are this project's assumption ("more than 10 G").
SIZES = {
    "v1, permissive, 30 languages": (3.136e12, 317.4e6, None),
    "v1, all licences": (6.815e12, 545.8e6, None),
    "v1, all that was kept": (92.36e12, 5.28e9, 137.36e6),
    "v2": (67.5e12, 3.28e9, 104.2e6),
    "v3": (113.7e12, 10e9, 224e6),
}
# The Stack v2's own machines: nodes of 32 CPUs with 21 GB for each. The folder is an assumption: 20 GB and 20,000 opens a second.
NODES = Cluster(nodes=32, cpus=32, memory=672e9, bandwidth=20e9, metadata=20_000)
SHARDS = 4_096  # of tokens
# What a recipe for more than a few terabytes says besides: bytes that a near-duplicate task holds, and of text in a part.
MEMORY, PART_BYTES = 4 << 30, 4 << 30
MEMORIES = {"the default, 24 MiB": None, "256 MiB": 256 << 20, "1 GiB": 1 << 30, "4 GiB": 4 << 30, "16 GiB": 16 << 30}
# Near-deduplication of The Stack v1 as published: (what, bytes, files if told, cores, hours).
PUBLISHED = (
    ("v1's Java, 42 M files, 319 GB", 319e9, 42e6, 10 * 16, 40 / 60),
    ("v1's JSON, 1.3 TB", 1.3e12, None, 15 * 16, 5.0),
)
TERABYTE_PARTITIONS, TERABYTE_MEMORY = 256, 512 << 20
LEAST_SECONDS = 1.5  # of a job that has a line of its own among the predictions
UNIT_BYTES = 64 << 20
PAGES = [ROOT / "docs" / name for name in ("scale.md", "slurm.md")]
FIGURES = [
    *("partitions", "tasks", "CPU-h", "to find pieces", "disk", "files in OUT", "largest task with its server", "wall"),
    "most of it",
]


def corpus_of(rates: Rates, bytes_: float, files: float, repositories: float | None) -> Corpus:
    """A corpus in which every content is there once."""
    found = rates.corpus.sized(bytes_, files, None, UNIT_BYTES)
    if repositories:
        found = replace(found, repositories=repositories, owners=repositories / REPOSITORIES_OF_OWNER)
    return replace(found, kept={**found.kept, "exact_dedup": (1.0, 1.0)})


def stage_rows(rates: Rates, recipe: dict[str, Any]) -> list[list[str]]:
    """Of each job: CPU-hours and bytes for a TB of small and of large files, memory of a task, what a build of a TB adds."""
    found = {}
    for mean in (6_300, 20_600):
        corpus = replace(corpus_of(rates, 1e12, 1e12 / mean, None), partitions=TERABYTE_PARTITIONS)
        found[mean] = estimate(recipe, corpus, NODES, rates)
    rows = []
    for small, large in zip(found[6_300].jobs, found[20_600].jobs, strict=True):
        cpu = [f"{one.cpu / 3600:.2f}" for one in (small, large)]
        rows.append([small.job, f"{small.tasks:,}", *cpu, size(small.memory), size(small.shared), size(small.written)])
    sums = [found[mean].cpu / 3600 for mean in (6_300, 20_600)]
    rows.append(["all", "", f"{sums[0]:.1f}", f"{sums[1]:.1f}", "", "", size(found[6_300].disk)])
    return rows


def sizing_rows(rows: list[list[str]]) -> list[list[str]]:
    """What a recipe's `[slurm]` table is chosen by, of the same rows."""
    return [[row[0], *row[2:6]] for row in rows]


def prediction_rows(found: dict[str, Any]) -> list[list[str]]:
    """Measured and predicted CPU and bytes of each job, largest first; the small ones together."""
    large = [one for one in found["jobs"] if max(one["cpu"], one["told"]) >= LEAST_SECONDS]
    small = [one for one in found["jobs"] if one not in large]
    names = ("cpu", "told", "written", "written_told")
    sums = {name: sum(one[name] for one in small) for name in names}
    total = {name: sum(one[name] for one in found["jobs"]) for name in names}
    told = [
        *sorted(large, key=lambda one: -one["cpu"]),
        {"job": f"{len(small)} others", **sums},
        {"job": "all", **total},
    ]
    return [
        [one["job"], f"{one['cpu']:.1f}", f"{one['told']:.1f}", f"{one['told'] / one['cpu'] - 1:+.0%}",
         f"{one['written'] / 1e6:,.1f}", f"{one['written_told'] / 1e6:,.1f}"] for one in told
    ]  # fmt: skip


def recipe_for(memory: int | None = None, part_bytes: int | None = None) -> dict[str, Any]:
    """The default recipe with many shards of tokens."""
    sets = [f"tokens.shards={SHARDS}"]
    sets += [f"near_dedup.memory={memory}"] if memory else []
    sets += [f"part_bytes={part_bytes}"] if part_bytes else []
    return load("default", sets).resolved()


def size_rows(rates: Rates, recipe: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, (bytes_, files, repositories) in SIZES.items():
        found = propose(recipe, corpus_of(rates, bytes_, files, repositories), NODES, rates)
        rows.append([name, size(bytes_), f"{files / 1e9:.2f} G", *told(found)])
    return rows


def published_rows(rates: Rates, recipe: dict[str, Any]) -> list[list[str]]:
    """CPU-hours of near-deduplication, theirs (cores times hours) and as estimated, in partitions of some 4 GB."""
    rows = []
    for what, bytes_, files, cores, hours_ in PUBLISHED:
        corpus = corpus_of(rates, bytes_, files or bytes_ / rates.corpus.bytes * rates.corpus.files, None)
        partitions = 1 << max(0, round(math.log2(bytes_ / 4e9)))
        found = estimate(recipe, replace(corpus, partitions=partitions), NODES, rates)
        ours = sum(one.cpu for one in found.jobs if one.job.startswith("near_dedup."))
        rows.append([what, f"{cores * hours_:,.0f}", f"{ours / 3600:,.1f}"])
    return rows


def told(found: Estimate) -> list[str]:
    worst = max(found.jobs, key=lambda one: one.memory + one.shared)
    limits = [f"{name} {hours(value)}" for name, value in list(found.time_by_limit().items())[:3]]
    return [
        f"{found.corpus.partitions:,}",
        f"{sum(one.tasks for one in found.jobs) / 1e6:.2f} M",
        f"{found.cpu / 3600:,.0f}",
        f"{found.exchange / found.cpu:.0%}",
        size(found.disk),
        f"{found.inodes / 1e6:,.1f} M",
        f"{size(worst.memory + worst.shared)} ({worst.job})",
        hours(found.wall) if found.fits else "does not fit",
        ", ".join(limits),
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def partition_rows(rates: Rates, recipe: dict[str, Any]) -> list[list[str]]:
    """v2's size in more and more partitions."""
    rows = []
    bytes_, files, repositories = SIZES["v2"]
    for bits in range(8, 17, 2):
        corpus = replace(corpus_of(rates, bytes_, files, repositories), partitions=1 << bits)
        found = estimate(recipe, corpus, NODES, rates)
        rows.append([size(bytes_ / (1 << bits)), *told(found)])
    return rows


def memory_rows(rates: Rates) -> list[list[str]]:
    """v2's size with more and more memory for near-duplicates."""
    bytes_, files, repositories = SIZES["v2"]
    corpus = corpus_of(rates, bytes_, files, repositories)
    return [
        [name, *told(propose(recipe_for(memory, PART_BYTES), corpus, NODES, rates))]
        for name, memory in MEMORIES.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prediction", type=Path, help="what `benchmarks.rates --json` printed")
    parser.add_argument("--write", action="store_true", help="replace the tables of the page")
    parser.add_argument("--json", action="store_true", help="print one object")
    asked = parser.parse_args()
    rates = load_rates()
    recipe, large = recipe_for(TERABYTE_MEMORY), recipe_for(MEMORY, PART_BYTES)
    stages, sizes, partitions = stage_rows(rates, recipe), size_rows(rates, large), partition_rows(rates, large)
    memories = memory_rows(rates)
    if asked.json:
        found = {"stages": stages, "sizes": sizes, "partitions": partitions, "memories": memories}
        print(json.dumps({"name": "scale", **found}))
        return
    job = ["job", "tasks", "CPU-h, 6.3 kB files", "CPU-h, 20.6 kB files", "memory", "shared", "written"]
    tables = {
        "stages": table(job, stages),
        "sizes": table(["size of", "bytes", "files", *FIGURES], sizes),
        "partitions": table(["a partition's text", *FIGURES], partitions),
        "memories": table(["`near_dedup.memory`", *FIGURES], memories),
        "published": table(
            ["near-duplicates of", "CPU-h, published", "CPU-h, this model"], published_rows(rates, recipe)
        ),
        "sizing": table([job[0], *job[2:6]], sizing_rows(stages)),
    }
    if asked.prediction:
        head = ["job", "CPU-s", "predicted", "", "MB written", "predicted"]
        tables["prediction"] = table(head, prediction_rows(json.loads(asked.prediction.read_text())))
    if asked.write:
        for page in PAGES:
            text = page.read_text()
            for name, lines in tables.items():
                text = re.sub(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\g<1>{lines}\n\g<2>", text, flags=re.S)
            page.write_text(text)
        return
    print("\n\n".join(tables.values()))


if __name__ == "__main__":
    main()
