"""The walk of a Software Heritage export: directory entries per CPU-second, by phase and by level, and what memory it takes.

    python -m benchmarks.git_histories REPOSITORIES
    python -m benchmarks.swh_walk --repositories REPOSITORIES [--entries 2.5 5 10] [--forks N] [--partitions N] [--work DIR]

REPOSITORIES holds real git repositories (any, bare or not); the exports, one for each number of millions of entries, are made from
their history (`benchmarks/swh_export.py`). Each is walked by the phases of a build, from the files of visits to the contents that
are asked for, one task at a time; the files found are compared with `git ls-tree -r` of up to 64 origins. CPU and memory are of the
tasks, each a process, without what they share with the server that they are forked from.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from benchmarks.git_ingest import environment
from benchmarks.measure import versions
from benchmarks.swh_export import Export, Origin, make_export
from stackbuild.build import Request, resolve
from stackbuild.journal import driver_journal
from stackbuild.launch import Launch
from stackbuild.launches import read_events
from stackbuild.local import Local
from stackbuild.plan import Build
from stackbuild.schema import ID
from stackbuild.shards import read_batches

SOURCE = "00-swh"
COMPARED = 64  # origins, at most
LAST = "resolve"  # what follows is the fetch, which has a benchmark of its own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=Path, required=True, help="a folder of git repositories")
    parser.add_argument("--entries", type=float, nargs="+", default=[2.5, 5, 10], help="millions, one export for each")
    parser.add_argument("--forks", type=int, default=8, help="origins of each repository, spread over its history")
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--memory", type=int, default=256, help="MiB of a join")
    parser.add_argument("--work", type=Path, help="a folder for exports and builds, which stay; else a temporary one")
    parser.add_argument("--json", action="store_true", help="print one object")
    asked = parser.parse_args()
    repositories = repositories_in(asked.repositories)
    if not repositories:
        raise SystemExit(f"{asked.repositories} holds no git repository; see python -m benchmarks.git_histories.")
    with tempfile.TemporaryDirectory() as temporary:
        found = []
        for millions in asked.entries:
            folder = (asked.work or Path(temporary)) / f"{millions:g}M-{asked.forks}"
            export = made(folder, repositories, int(millions * 1e6), asked.forks)
            build = walk(export, folder / f"out-{asked.partitions}-{asked.memory}", asked.partitions, asked.memory)
            found.append(figures(export, build))
            if asked.work is None:
                shutil.rmtree(folder)
    result = {"name": "swh_walk", "versions": versions("duckdb", "pyarrow", "numba"), "partitions": asked.partitions,
              "memory_mib": asked.memory, "forks": asked.forks, "walks": found}  # fmt: skip
    print(json.dumps(result)) if asked.json else show(result)


def repositories_in(folder: Path) -> list[Path]:
    """The git folders of the repositories of a folder that have a commit, by name."""
    found = []
    for path in sorted(folder.iterdir()):
        git = path / ".git" if (path / ".git").is_dir() else path
        words = ["git", "--git-dir", str(git), "rev-parse", "HEAD"]
        if (git / "objects").is_dir() and not subprocess.run(
            words, check=False, capture_output=True, env=environment()
        ).returncode:
            found.append(git)
    return found


def made(folder: Path, repositories: Sequence[Path], entries: int, forks: int) -> Export:
    """The export, from the folder if it is there."""
    told = folder / "export.json"
    if not told.exists():
        shutil.rmtree(folder, ignore_errors=True)
        export = make_export(folder, repositories, entries, forks)
        origins = [[one.url, str(one.repository), one.revision, one.directory] for one in export.origins]
        told.write_text(json.dumps({"root": str(export.root), "rows": export.rows, "origins": origins}))
    body = json.loads(told.read_text())
    origins = [Origin(url, Path(repository), *ids) for url, repository, *ids in body["origins"]]
    return Export(Path(body["root"]), body["rows"], origins)


def walk(
    export: Export, out: Path, partitions: int, memory: int, last: str = LAST, objects: Path | None = None
) -> Build:
    """Run the phases of a build, anew, up to the one named."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    source = {"kind": "swh", "export": str(export.root), "objects": str(objects or out), "join_memory": memory << 20}
    recipe = {"name": "swh_walk", "seed": 1, "partitions": partitions, "source": [source], "stages": ["exact_dedup", "decode", "languages"],
              "outputs": ["dataset"], "exact_dedup": {"winner": ["-revision_date"]}}  # fmt: skip
    plan = resolve(Request(recipe, out, out, workers=1))
    build = Build(out, plan)
    executor = Local(out, plan.save(out), 1)
    launch = Launch(build, executor, 1)
    try:
        for job in build.jobs:
            launch.run_job(job, driver_journal(out))
            if job.name == f"{SOURCE}.{last}":
                break
    finally:
        executor.close()
    return build


# ---------------------------------------------------------------- figures


def phases_of(build: Build) -> list[dict[str, Any]]:
    """What each phase that ran took and left."""
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in read_events(build.out / "launches" / "journal.jsonl"):
        if event["event"] == "task":
            events[event["job"]].append(event)
    phases = []
    for name, ran in events.items():
        rows: Counter[str] = Counter()
        stats: Counter[str] = Counter()
        written = 0
        for shard in build.shards(name):
            stats.update({key: value for key, value in shard.stats.items() if isinstance(value, int)})
            for output in shard.outputs:
                rows[output.table] += output.rows
                written += output.bytes
        phases.append(
            {
                "phase": name.rpartition(".")[2],
                "tasks": len(ran),
                "cpu": sum(event["cpu"] for event in ran),
                "peak_mb": max(event["private"] for event in ran) / 1e6,
                "written": written,
                "rows": dict(rows),
                "stats": dict(stats),
            }
        )
    return phases


def figures(export: Export, build: Build) -> dict[str, Any]:
    """What each phase took, and the origins whose files are not as git lists them."""
    looked_at = export.origins[:: -(-len(export.origins) // COMPARED)]
    return {
        "rows": export.rows,
        "origins": len(export.origins),
        "phases": phases_of(build),
        "compared": len(looked_at),
        "not_as_git_lists": not_as_git_lists(looked_at, build),
    }


def not_as_git_lists(origins: Sequence[Origin], build: Build) -> list[str]:
    """The origins below whose root the walk found something else than `git ls-tree -r` lists."""
    found: dict[bytes, Counter[tuple[bytes, int, bytes]]] = {bytes.fromhex(one.directory): Counter() for one in origins}
    roots = pa.array(list(found), ID)
    for depth in range(build.limits.depth):
        job = f"{SOURCE}.level-{depth:02d}"
        for table in (f"files-{depth:02d}", f"links-{depth:02d}"):
            for batch in read_batches(build.out, build.outputs(job, table), ["root", "path", "mode", "target"]):
                rows = batch.filter(pc.is_in(batch.column("root"), value_set=roots))
                columns = (rows.column(name).to_pylist() for name in ("root", "path", "mode", "target"))
                for root, *entry in zip(*columns, strict=True):
                    found[root][tuple(entry)] += 1
    return [one.url for one in origins if found[bytes.fromhex(one.directory)] != listed(one)]


def listed(origin: Origin) -> Counter[tuple[bytes, int, bytes]]:
    """What git lists below the root of an origin."""
    words = ["git", "--git-dir", str(origin.repository), "ls-tree", "-r", "-z", origin.directory]
    found = Counter[tuple[bytes, int, bytes]]()
    for line in subprocess.run(words, env=environment(), check=True, capture_output=True).stdout.split(b"\0")[:-1]:
        head, _, path = line.partition(b"\t")
        mode, _, target = head.split()
        found[path, int(mode, 8), bytes.fromhex(target.decode())] += 1
    return found


def show(result: dict[str, Any]) -> None:
    """A table for each export, and the sums side by side."""
    console = Console(width=None if sys.stdout.isatty() else 130)
    for one in result["walks"]:
        entries = one["rows"]["directory_entry"]
        table = Table(title=f"{entries:,} entries, {one['origins']} origins", title_justify="left")
        table.add_column("phase")
        for column in ("tasks", "CPU-s", "peak MB", "MB written", "places", "entries read", "found", "entries/CPU-s"):
            table.add_column(column, justify="right")
        before = 0
        for phase in one["phases"]:
            rows, stats = phase["rows"], phase["stats"]
            level = phase["phase"].startswith("level")
            read = stats.get("entries_read", entries) if level else stats.get("rows_in", 0)
            found = (
                sum(count for name, count in rows.items() if not name.startswith("frontier"))
                if level
                else sum(rows.values())
            )
            table.add_row(
                phase["phase"], str(phase["tasks"]), f"{phase['cpu']:.2f}", f"{phase['peak_mb']:,.0f}",
                f"{phase['written'] / 1e6:,.1f}", f"{before:,}" if level else "", f"{read:,}" if read else "", f"{found:,}",
                f"{read / phase['cpu']:,.0f}" if read else "",
            )  # fmt: skip
            before = next((count for name, count in rows.items() if name.startswith("frontier")), 0)
        console.print(table)
    table = Table(title="Sums", title_justify="left")
    for column in (
        "entries",
        "found",
        "convert, entries/CPU-s",
        "levels, CPU-s",
        "entries found/CPU-s",
        "peak MB of a level",
        "as git lists",
    ):
        table.add_column(column, justify="right")
    for one in result["walks"]:
        sums = summed(one)
        table.add_row(
            f"{sums['entries']:,}", f"{sums['found']:,}", f"{sums['convert']:,.0f}", f"{sums['levels_cpu']:.1f}",
            f"{sums['found_rate']:,.0f}", f"{sums['peak_mb']:,.0f}", "no" if one["not_as_git_lists"] else "yes",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"{result['partitions']} partitions, {result['memory_mib']} MiB of a join; {result['versions']}",
        highlight=False,
    )


def summed(one: dict[str, Any]) -> dict[str, Any]:
    """What all levels of a walk took, and found."""
    levels = [phase for phase in one["phases"] if phase["phase"].startswith("level")]
    converted = next(phase for phase in one["phases"] if phase["phase"] == "convert")
    found = sum(count for phase in levels for count in phase["rows"].values())
    cpu = sum(phase["cpu"] for phase in levels)
    return {
        "entries": one["rows"]["directory_entry"],
        "found": found,
        "levels_cpu": cpu,
        "found_rate": found / cpu,
        "peak_mb": max(phase["peak_mb"] for phase in levels),
        "convert": converted["stats"]["rows_in"] / converted["cpu"],
    }


if __name__ == "__main__":
    main()
