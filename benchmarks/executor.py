"""What it costs to have tasks run by an executor: the same shards directly in a loop, locally, through datatrove, through Slurm.

    python -m benchmarks.executor PARQUET ... [--partitions 256] [--rounds N] [--slurm] [--json]

The input (columns text, path, repo) is built up to the job that decodes, tells languages, measures and filters; that job alone is
run each way, on a copy of the folder; the executors have two tasks at work at once:

    direct       run_task in a loop, in one process: what an executor can at best do
    local        the task server, a forked child for each shard, as `stackbuild build` does
    datatrove    LocalPipelineExecutor with the same job as a step, a rank for each shard
    slurm        an array on a cluster of three nodes on this machine (`tests/slurm/cluster.py`), two tasks at once in an element

CPU is that of the whole process tree, orphans too; on Slurm it is what each element of the array and its children took. The
figure is the overhead of an element of an array over the direct way: what a task server takes to start, and what a shard takes
more than in the loop, set against 300 CPU-seconds of shards of 64 MB, of which this input has smaller ones. With --slurm the time
from submission to the first shard that is committed is told too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, command, cpu_seconds, versions

GOAL = 0.05
SHARD_BYTES = 64e6
ELEMENT_SECONDS = 300.0
FEW = 16  # shards of the short run, from which the start is told
JOB = "decode"
RECIPE = """
name = "executor"
extends = "default.toml"
partitions = {partitions}
outputs = ["dataset"]
stages = ["exact_dedup", "decode", "languages", "signals", "filters"]
[[source]]
kind = "parquet"
paths = {paths}
columns = {{ content = "text", path = "path", repo_name = "repo" }}
[exact_dedup]
winner = ["-star_events_count"]
[slurm]
cpus = 2
memory = "700MB"
shared_memory = "700MB"
tasks_per_job = {per_element}
time = "00:30:00"
"""


# ---------------------------------------------------------------- in a process of their own


def opened(out: Path) -> tuple[Any, Any, Path]:
    """(build, the job, path of its plan)."""
    from stackbuild.frozen_plan import Plan
    from stackbuild.plan import Build

    path = next(path for path in (out / "plans").glob("*.json") if path.name != "sources.json")
    build = Build(out, Plan.load(path))
    return build, next(job for job in build.jobs if JOB in job.name), path


def prepare(recipe: str, out: str, workers: str) -> None:
    """Build everything before the job."""
    from stackbuild.build import Request, resolve
    from stackbuild.journal import driver_journal
    from stackbuild.launch import Launch
    from stackbuild.local import Local
    from stackbuild.plan import Build
    from stackbuild.recipe import load

    loaded = load(recipe, [])
    folder = Path(out)
    request = Request(loaded.resolved(), loaded.folder, folder, int(workers))
    plan = resolve(request)
    path = plan.save(folder)
    build = Build(folder, plan)
    local = Local(folder, path, int(workers))
    try:
        launch = Launch(build, local, int(workers))
        for job in build.jobs:
            if JOB in job.name:
                return
            launch.run_job(job, driver_journal(folder))
    finally:
        local.close()


def direct(out: str, shards: str) -> None:
    """Every shard in this process."""
    from stackbuild.execute import run_task

    build, job, _ = opened(Path(out))
    for rank, params in enumerate(build.task_params(job)[: int(shards)]):
        run_task(build, job, rank, params)


def local(out: str, shards: str) -> None:
    """A child for each, forked from the task server."""
    from stackbuild.local import Local
    from stackbuild.pool import TaskSpec

    build, job, path = opened(Path(out))
    specs = [TaskSpec(rank, params) for rank, params in enumerate(build.task_params(job)[: int(shards)])]
    executor = Local(build.out, path, workers=2)
    logs = build.out / "launches" / "logs" / job.name
    logs.mkdir(parents=True)
    try:
        failures = executor.run(job, specs, logs, lambda ended: None)
    finally:
        executor.close()
    if failures:
        raise SystemExit(f"{len(failures)} of {len(specs)} tasks failed: {failures[0].reason}")


def datatrove(out: str, shards: str) -> None:
    """A rank for each shard in datatrove's pool."""
    from datatrove.executor.local import LocalPipelineExecutor

    from stackbuild.local import JobStep

    build, job, path = opened(Path(out))
    tasks = len(build.task_params(job))
    step = JobStep(out, str(path), job.name)
    executor = LocalPipelineExecutor(
        [step], tasks=tasks, local_tasks=int(shards), workers=2, logging_dir=f"{out}/datatrove", skip_completed=False
    )
    executor.run()


WAYS = {"prepare": prepare, "direct": direct, "local": local, "datatrove": datatrove}


# ---------------------------------------------------------------- measuring


def run(way: str, *arguments: str) -> tuple[float, float]:
    """(CPU-seconds of the tree, wall seconds) of a way in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.executor", "--way", way, *arguments]
    found, _ = command(words, {"PYTHONHASHSEED": "0"})
    return found.cpu, found.wall


@contextmanager
def copied(base: Path, folder: Path) -> Iterator[Path]:
    """A copy of the prepared folder: files are links, as nothing is changed in place."""
    out = folder / "copy"
    shutil.copytree(base, out, copy_function=os.link, ignore=shutil.ignore_patterns("launches", ".lock"))
    try:
        yield out
    finally:
        shutil.rmtree(out)


def committed(out: Path) -> int:
    return len(list((out / "stages").glob(f"*-{JOB}/manifests/*.json")))


def measure(base: Path, folder: Path, way: str, shards: int) -> tuple[float, float]:
    with copied(base, folder) as out:
        cpu, wall = run(way, str(out), str(shards))
        if committed(out) != shards:
            raise SystemExit(f"{way} committed {committed(out)} of {shards} shards")
    return cpu, wall


def on_slurm(base: Path, folder: Path, recipe: Path) -> dict[str, float]:
    """The same job as an array of three nodes; what follows it in the graph is not counted."""
    from tests.slurm.cluster import Cluster, install

    install()
    with Cluster(nodes=3, cpus=2) as cluster, copied(base, folder) as out:
        words = [sys.executable, "-m", "stackbuild", "build", str(recipe), "--output", str(out)]
        started = time.time()
        environment = cluster.environment(OMP_NUM_THREADS="1")
        subprocess.run([*words, "--executor", "slurm", "--wait", "--json"], check=True, env=environment, cwd=ROOT,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        ours = [event for event in events(out) if JOB in event.get("job", "")]
    ends = [event for event in ours if event["event"] == "element-end"]
    gates = [event["time"] for event in ours if event["event"] == "gate"]
    tasks = [event for event in ours if event["event"] == "task"]
    first = min(event["time"] for event in ours if event["event"] == "element")
    return {
        "cpu": sum(event["cpu"] for event in ends),
        "wall": max(gates) - first,
        "elements": len(ends),
        "shards": len(tasks),
        "submit_to_element": first - started,
        "submit_to_first_shard": min(event["time"] for event in tasks) - started,
    }


def events(out: Path) -> list[dict[str, Any]]:
    lines = [line for path in out.glob("launches/*/events/*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def overhead(few: float, many: float, shards: int, loop_few: float, loop_many: float, size: float) -> dict[str, float]:
    """What a way takes to start, what it takes more for each shard, and the share of that in an element of 64 MB shards.

    `few`, `many`: CPU-seconds of FEW and of all shards; `loop_few`, `loop_many`: the same in a loop; `size`: bytes of all.
    """
    per_shard = (many - few) / (shards - FEW)
    in_loop = (loop_many - loop_few) / (shards - FEW)
    start, loop_start = few - FEW * per_shard, loop_few - FEW * in_loop
    cost = in_loop * SHARD_BYTES / (size / shards)  # of a shard of 64 MB in the loop
    in_element = max(1.0, ELEMENT_SECONDS / cost)
    more = (start - loop_start + in_element * (per_shard - in_loop)) / (loop_start + in_element * cost)
    return {"start": start, "per_shard": per_shard - in_loop, "in_element": more}


def main() -> None:
    if sys.argv[1:2] == ["--way"]:
        started = cpu_seconds()
        WAYS[sys.argv[2]](*sys.argv[3:])
        sys.stderr.write(f"{cpu_seconds() - started:.2f} CPU-s\n")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--partitions", type=int, default=256, help="shards; a power of two")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--slurm", action="store_true", help="also on a cluster on this machine; installs Debian's Slurm"
    )
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="executor-") as name:
        print_result(measured(asked, Path(name)), asked.json)


def measured(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all ways in turn."""
    import pyarrow.parquet as pq

    files = [str(Path(name).resolve()) for name in asked.files]
    size = sum(len(text.as_buffer()) for file in files for text in pq.read_table(file, columns=["text"])["text"])
    recipe, base = folder / "recipe.toml", folder / "base"
    shards = asked.partitions
    recipe.write_text(RECIPE.format(partitions=shards, paths=json.dumps(files), per_element=max(1, shards // 6)))
    run("prepare", str(recipe), str(base), "2")
    runs: dict[str, list[tuple[float, float]]] = {}
    for _ in range(asked.rounds):
        for way in ("direct", "local", "datatrove"):
            for count in (FEW, shards):
                runs.setdefault(f"{way}:{count}", []).append(measure(base, folder, way, count))
    slurm = on_slurm(base, folder, recipe) if asked.slurm else None

    def median(way: str, count: int, which: int = 0) -> float:
        return statistics.median(one[which] for one in runs[f"{way}:{count}"])

    loops = median("direct", FEW), median("direct", shards)
    ways = {
        way: {"cpu": median(way, shards), "wall": median(way, shards, 1), "ratio": median(way, shards) / loops[1],
              **overhead(median(way, FEW), median(way, shards), shards, *loops, size)}
        for way in ("direct", "local", "datatrove")
    }  # fmt: skip
    if slurm is not None:
        ways["slurm"] = {**slurm, "ratio": slurm["cpu"] / loops[1]}
    ours = ways["local"]["in_element"]
    return {
        "name": "executor",
        "unit": "CPU over direct, of an element of 300 CPU-s of 64 MB shards",
        "ours": ours,
        "peers": {"datatrove": ways["datatrove"]["in_element"]},
        "ratio": ours / ways["datatrove"]["in_element"] if ways["datatrove"]["in_element"] else None,
        "goal": GOAL,
        "meets": ours <= GOAL,
        "versions": versions("stackbuild", "datatrove", "pyarrow"),
        "input": {"shards": shards, "mb": round(size / 1e6, 1)},
        "ways": ways,
    }


def print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['input']['shards']} shards of {result['input']['mb']} MB", title_justify="left")
    for column in ("", "CPU-s", "wall s", "× direct", "start CPU-s", "ms more a shard", "more in an element"):
        table.add_column(column, justify="left" if not column else "right")
    for name, way in result["ways"].items():
        told = ["", "", ""]
        if "start" in way:
            told = [f"{way['start']:.1f}", f"{way['per_shard'] * 1e3:.0f}", f"{way['in_element']:.1%}"]
        table.add_row(name, f"{way['cpu']:.1f}", f"{way['wall']:.1f}", f"{way['ratio']:.2f}", *told)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if slurm := result["ways"].get("slurm"):
        console.print(
            f"Slurm: {slurm['elements']:.0f} elements; from submission to the first element {slurm['submit_to_element']:.1f} s, "
            f"to the first committed shard {slurm['submit_to_first_shard']:.1f} s",
            highlight=False,
        )
    console.print(f"goal {GOAL:.0%}: {'met' if result['meets'] else 'not met'}; {result['versions']}", highlight=False)


if __name__ == "__main__":
    main()
