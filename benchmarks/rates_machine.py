"""What does not show in a build's journal: what a piece of an exchanged table costs, how a chain's CPU is shared among its stages,
what a process takes to start and to list manifests. Measured on complete builds of `benchmarks.rates`.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import ROOT, cpu_seconds
from stackbuild.estimate.corpus import Work
from stackbuild.estimate.rates import Cost, corpus_of
from stackbuild.estimate.steps import job_key, work_of
from stackbuild.launches import read_events
from stackbuild.plan import Build
from stackbuild.tables import ROW_GROUP_ROWS

FACTORS = tuple(one.name for one in fields(Cost))
GROUPS = 64  # of a file that tells what they cost to look through
CUT = 8  # row groups of a file that tell what one costs to write
MERGES = 1 << 20  # of roots, to tell what components hold


def fit(works: Sequence[Work], values: Sequence[float], factors: Sequence[str], least: float) -> Cost:
    """The coefficients, none below 0, with the least squares of relative errors; `least`: below it errors count as if at it."""
    counts = {"task": "tasks", "row": "rows", "byte": "bytes", "piece": "pieces", "footer": "footers"}
    matrix = np.array([[getattr(work, counts[name]) for name in factors] for work in works], float)
    target = np.array(values, float)
    weight = 1 / np.maximum(target, least)
    matrix, target = matrix * weight[:, None], target * weight
    best: tuple[float, dict[str, float]] = (float(target @ target), {})
    used = [index for index in range(len(factors)) if matrix[:, index].any()]
    for count in range(1, min(len(used), len(works)) + 1):
        for chosen in itertools.combinations(used, count):
            part = matrix[:, chosen]
            scale = np.abs(part).max(axis=0)
            found, _, rank, _ = np.linalg.lstsq(part / scale, target, rcond=1e-9)
            if rank < count or (found < 0).any():
                continue
            error = float(((part / scale) @ found - target) @ ((part / scale) @ found - target))
            if error < best[0] * 0.999:
                best = error, {factors[i]: float(v) for i, v in zip(chosen, found / scale, strict=True)}
    return Cost(**best[1])


# ---------------------------------------------------------------- tables that change hands

# (who writes it, who reads it, its files, the column that it is cut by)
EXCHANGED = (
    ("ingest", ("contents",), "00-ingest/data/*/contents-*", "bucket"),
    ("ingest", ("occurrences",), "00-ingest/data/*/occurrences-*", "owner_bucket"),
    ("licenses.wanted", ("licenses.detect",), "*licenses.wanted/data/*/wanted-*", "bucket"),
    ("licenses.detect", ("licenses.inherit",), "*licenses.detect/data/*/detections-*", "partition"),
    ("exact_dedup.runs", ("exact_dedup.files",), "*exact_dedup.runs/data/*/runs-*", "bucket"),
    ("near_dedup.signatures", ("near_dedup.candidates",), "*near_dedup.signatures/data/*/bands-*", "bucket"),
    ("near_dedup.candidates", ("near_dedup.links",), "*near_dedup.candidates/data/*/pairs-*", "partition"),
    ("near_dedup.links", ("near_dedup.estimates",), "*near_dedup.links/data/*/links-*", "partition"),
    ("near_dedup.estimates", ("near_dedup.roots",), "*near_dedup.estimates/data/*/stars-*", "partition"),
    ("near_dedup.sets", ("near_dedup.solve",), "*near_dedup.sets/data/*/sets-*", "group"),
    (
        "near_dedup.solve",
        ("near_dedup+pii+opt_out", "layout.clusters"),
        "*near_dedup.solve/data/*/clusters-*",
        "partition",
    ),
    (
        "layout.runs",
        ("layout.repos", "index.names", "layout.decisions"),
        "*layout.runs/data/*/pointers-*",
        "owner_bucket",
    ),
    ("layout.runs", ("layout.files",), "*layout.runs/data/*/runs-*", "language_key"),
)


def exchanges(few: Build, many: Build) -> dict[str, Cost]:
    """For each job, CPU-seconds of a piece that it writes or reads, and of a row group that it passes over to find one.

    `few`, `many`: the same input in few and in many partitions; the row groups of a table tell the two apart.
    """
    rows, times, pieces = [], [], []

    def look(paths: Sequence[Path], column: str) -> None:
        leaves, groups, finding, taking = reading(paths, column)
        rows.append((1.0, leaves, groups, groups * leaves))
        times.append(finding)
        pieces.append(taking)

    for _, _, pattern, column in EXCHANGED:
        for build in (few, many):
            look(files(build, pattern), column)
    with tempfile.TemporaryDirectory() as folder:  # of wide tables the corpus, which has two owners, makes few groups
        for _, _, pattern, column in EXCHANGED:
            look([regrouped(path, column, Path(folder)) for path in files(few, pattern)[:4]], column)
    per_file, per_leaf, per_group, per_chunk = nonnegative(rows, times)
    cut = [(leaves, writing(files(many, pattern), column)) for (_, leaves, groups, _), (_, _, pattern, column)
           in zip(rows[1 : 2 * len(EXCHANGED) : 2], EXCHANGED, strict=True) if groups >= CUT]  # fmt: skip
    written, written_leaf, _, _ = nonnegative([(1.0, leaves, 0.0, 0.0) for leaves, _ in cut], [time for _, time in cut])
    found: dict[str, Cost] = {}
    for number, (writer, readers, _, _) in enumerate(EXCHANGED):
        leaves = rows[2 * number + 1][1]
        own = found.get(writer, Cost())  # who reads one table and writes another is told the dearer piece
        found[writer] = replace(own, piece=max(own.piece, written + written_leaf * leaves))
        taken = Cost(piece=per_file + per_leaf * leaves + pieces[2 * number + 1], footer=per_group + per_chunk * leaves)
        for reader in readers:
            found[reader] = found.get(reader, Cost()).plus(taken)
    return found


def files(build: Build, pattern: str) -> list[Path]:
    """The largest files of a table."""
    return sorted((build.out / "stages").glob(pattern), key=lambda path: -path.stat().st_size)[:12]


def regrouped(path: Path, column: str, folder: Path) -> Path:
    """A copy of a table's file, whose rows are cut evenly into GROUPS groups instead."""
    from stackbuild.tables import TableWriter

    table = pq.read_table(path)
    groups = np.arange(table.num_rows) * GROUPS // max(1, table.num_rows)
    place = table.schema.get_field_index(column)
    table = table.set_column(place, table.schema.field(place), pa.array(groups).cast(table.schema.field(place).type))
    copy = folder / f"{path.parent.name}-{path.name}"
    with TableWriter(copy, table.schema, group_by=column) as writer:
        writer.write(table)
    return copy


def nonnegative(rows: Sequence[Sequence[float]], times: Sequence[float]) -> list[float]:
    """Coefficients of four factors by `fit`, whose factors only lend their names."""
    works = [Work("", (), row[0], rows=row[1], bytes=row[2], pieces=row[3]) for row in rows]
    cost = fit(works, times, ("task", "row", "byte", "piece"), 2e-4)
    return [cost.task, cost.row, cost.byte, cost.piece]


def reading(paths: Sequence[Path], column: str) -> tuple[float, float, float, float]:
    """(leaf columns, row groups, CPU-seconds to open it and look for a value's row groups, to read one) of a file in the mean."""
    from stackbuild.footers import _footer, footer_of, row_groups_of

    leaves = groups = finding = taking = 0.0
    for path in paths:
        for _ in range(3):
            _footer.cache_clear()  # who reads of many files keeps no footer for long
            began = time.process_time()
            metadata = footer_of(path).metadata
            with pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True, pre_buffer=False) as file:
                row_groups_of(file, path, column, -1)
                finding += time.process_time() - began
                groups += file.num_row_groups
                leaves += file.metadata.num_columns
                began = time.process_time()
                if file.num_row_groups:
                    file.read_row_group(0, use_threads=False).combine_chunks()
                taking += time.process_time() - began
    count = 3 * len(paths)
    return leaves / count, groups / count, finding / count, taking / count


def writing(paths: Sequence[Path], column: str) -> float:
    """CPU-seconds that a row group of its own takes, over rows in row groups that are as large as they may be."""
    from stackbuild.tables import TableWriter

    spent, groups = {True: 0.0, False: 0.0}, 0
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            table = pq.read_table(path)
            for grouped in (True, False):
                began = time.process_time()
                writer = TableWriter(Path(folder, "x"), table.schema, group_by=column if grouped else None)
                with writer:
                    writer.write(table)
                spent[grouped] += time.process_time() - began
                groups += len(writer.groups)
    return max(2e-5, (spent[True] - spent[False]) / (groups - len(paths)))


# ---------------------------------------------------------------- stages of a chain


def stage_shares(build: Build) -> dict[str, dict[str, float]]:
    """For each chain of row stages, the CPU-seconds of each stage that can be run by itself, over two partitions."""
    found: dict[str, dict[str, float]] = {}
    for job in build.jobs:
        if job.kind != "rows" or len(job.nodes) == 1:
            continue
        times = {node.stage.name: 0.0 for node in job.nodes if not node.stage.phases() and node.stage.name != "opt_out"}
        for node in job.nodes:
            if node.stage.name not in times:
                continue
            rows = build.rows(node, 0)
            columns = [
                *node.stage.needs(),
                *(["text"] if node.stage.rewrites_text and "text" in rows.available() else []),
            ]
            for turn in range(2):  # the first compiles
                for batch in rows.batches(dict.fromkeys(["content_id", *columns])):
                    began = time.thread_time()
                    judge(node.stage, batch)
                    times[node.stage.name] += (time.thread_time() - began) if turn else 0.0
        found["+".join(node.stage.name for node in job.nodes)] = times
    return found


def judge(stage: Any, batch: pa.RecordBatch) -> None:
    from stackbuild.stage import with_columns

    tagged = with_columns(batch, stage.tags(batch))
    list(stage.verdicts(tagged))
    if stage.rewrites_text:
        stage.text(tagged)


# ---------------------------------------------------------------- the machine


def machine(full: Build, many: Build) -> dict[str, float]:
    """What does not belong to one job: of a build, and of one in many partitions."""
    corpus = corpus_of(full)
    entries, outputs = manifests()
    events = [e for e in read_events(full.out / "launches" / "journal.jsonl") if e.get("event") == "task"]
    shared = {e["job"]: e["memory"] - e["private"] for e in events}
    detect = next(job.name for job in full.jobs if job.name.endswith(".detect"))
    server = max(size for job, size in shared.items() if job != detect)
    published = [publish_seconds(build) for build in (full, many)]
    slope = max(0.0, (published[1][0] - published[0][0]) / max(1, published[1][1] - published[0][1]))
    resolving, hashing = resolve_seconds(full)
    stored = sum(o.bytes for o in full.outputs("00-contents", "contents")) / corpus.bytes
    return {
        "server_bytes": server,
        "preload_bytes": max(0.0, shared[detect] - server),
        "entry_bytes": entries[0], "entry_seconds": entries[1],
        "output_bytes": outputs[0], "output_seconds": outputs[1],
        **key_seconds(many),
        "plan_row_seconds": plan_seconds(),
        "resolve": max(0.0, resolving - hashing),
        "resolve_byte": hashing / corpus.bytes,
        "publish": max(0.0, published[0][0] - slope * published[0][1]),
        "publish_file": slope,
        "stored": stored,
        "component_bytes": component_bytes(),
    }  # fmt: skip


def least(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of the quickest of three: what is beside it on the machine makes nothing quicker."""
    found = []
    for _ in range(3):
        began = clock()
        work()
        found.append(clock() - began)
    return min(found)


def manifests() -> tuple[tuple[float, float], tuple[float, float]]:
    """((bytes, CPU-seconds) of an entry of `groups`, the same of a file) when a process lists the shards of a job."""
    from stackbuild.shards import Ledger, Output, ShardManifest, load_manifest, manifest_path, publish_manifest

    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for number, (files, groups) in enumerate(((400, 0), (4, 4_096))):
            for rank in range(16):
                made = {str(group): 300 + group for group in range(groups)}
                outputs = tuple(Output("t", f"{number}/{rank}/{i}", 1, 1, f"{i:064}", made) for i in range(files))
                publish_manifest(out, ShardManifest(str(number), rank, "k" * 64, "a", outputs, Ledger(), {}))
            tracemalloc.start()
            held = [load_manifest(manifest_path(out, str(number), rank, "k" * 64)) for rank in range(16)]
            size = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            spent = least(
                lambda number=number: [load_manifest(manifest_path(out, str(number), r, "k" * 64)) for r in range(16)]
            )
            figures[number] = size / len(held), spent / len(held)
    file = figures[0][0] / 400, figures[0][1] / 400
    entry = tuple(max(0.0, (figures[1][i] - 4 * file[i]) / (4 * 4_096)) for i in range(2))
    return (entry[0], entry[1]), file


def key_seconds(build: Build) -> dict[str, float]:
    """CPU-seconds for each file that the keys of a job's tasks name, and for each task whose shard is looked for."""
    from stackbuild.launch import complete_tasks
    from stackbuild.pool import TaskSpec

    works = {work.job: work for work in work_of(build.jobs, corpus_of(build))}
    counted, times = [], []
    for number, job in enumerate(build.jobs):
        if job.kind == "rows" or (job.phase is not None and not job.phase.reads):
            continue
        work = works[job_key(job)]
        specs = [TaskSpec(rank, params) for rank, params in enumerate(build.task_params(job))]
        spent = []
        for _ in range(3):
            anew = Build(build.out, build.plan)  # which has told nothing yet
            anew.prepare(anew.jobs[number])
            began = time.process_time()
            complete_tasks(anew, anew.jobs[number], specs)
            spent.append(time.process_time() - began)
        counted.append(Work("", (), work.tasks, work.keyed))
        times.append(min(spent))
    key = fit(counted, times, ("task", "row"), 2e-4).row
    rest = sum(times) - key * sum(work.rows for work in counted)  # in the mean: jobs differ
    return {"key_seconds": key, "task_seconds": max(0.0, rest) / sum(work.tasks for work in counted)}


def plan_seconds() -> float:
    """CPU-seconds for each row that the files of the release are planned from."""
    from stackbuild.layout.stage import COUNTS, Layout
    from stackbuild.stage import PhaseOutputs

    count = 200_000
    owners = pa.array([f"owner-{number % 50_000}" for number in range(count)])
    languages = pa.array([f"language-{number // 50_000}" for number in range(count)])
    ones = pa.array(np.ones(count, np.int64))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/counts.parquet"
        pq.write_table(pa.table([languages, owners, ones, ones], schema=COUNTS), path)
        return least(lambda: Layout().plan_files(PhaseOutputs({"counts": [path]}, 1, 0))) / count


def component_bytes() -> float:
    """Bytes for each merge of two roots that are held at once while all are joined."""
    from stackbuild.dedup.components import Forest

    draw = np.random.default_rng(1)
    roots = draw.integers(0, 1 << 62, 2 * MERGES)  # most stand in few merges
    left, right = roots[:MERGES], roots[draw.integers(0, len(roots), MERGES)]
    tracemalloc.start()
    forest = Forest()
    for start in range(0, MERGES, ROW_GROUP_ROWS):
        forest.add(left[start : start + ROW_GROUP_ROWS], right[start : start + ROW_GROUP_ROWS])
    forest.labels()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / MERGES


def resolve_seconds(build: Build) -> tuple[float, float]:
    """(wall seconds to plan the input again in this process, CPU-seconds of these that hash it)."""
    from stackbuild.build import Request, resolve
    from stackbuild.sources.row_files import examine

    request = Request(build.plan.recipe, ROOT, build.out / "nowhere", workers=1)
    paths = sorted({Path(unit.where["path"]) for unit in build.plan.units})
    return least(lambda: resolve(request, keep=False), time.monotonic), least(lambda: [examine(path) for path in paths])


def publish_seconds(build: Build) -> tuple[float, int]:
    """(wall seconds to publish a complete build again, files)."""
    from stackbuild.build import finish, published

    return least(lambda: finish(build), time.monotonic), len(published(build.out))


def start_cpu(build: Build, job: str) -> float:
    """CPU-seconds of a process that opens the build and of a task server that is ready for a job and does none of it."""
    words = [sys.executable, "-c", START, str(build.out), job]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return least(lambda: subprocess.run(words, check=True, cwd=ROOT, env=environment), cpu_seconds)


START = """
import sys, tempfile
from pathlib import Path
from stackbuild.status import opened
from stackbuild.pool import TaskServer
from stackbuild.launch import complete_tasks
build = opened(Path(sys.argv[1]))
job = next(job for job in build.jobs if job.name == sys.argv[2])
build.prepare(job)
with tempfile.TemporaryDirectory() as folder:
    server = TaskServer(build.out, build.out / "plans" / f"{build.plan.digest[:24]}.json", Path(folder, "log"))
    server.job(job.name)
    server.close()
"""
