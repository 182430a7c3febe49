"""The whole pipeline on a corpus, without tokenization: MB of text per CPU-second, memory, and each job's share.

    python -m benchmarks.pipeline PARQUET ... [--rounds N] [--json]

The input (columns text, path, repo) is read through the `parquet` source with the default recipe's stages; every licence class is
kept, so that later stages have work. CPU is that of the whole process tree; the figure is over the tasks alone, and what driver and
task server take (imports, ScanCode's index, compiled kernels) is shown apart. Memory is the largest of any task beyond what it
shares with the task server (ScanCode's index, libraries), and what the largest server shares.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

GOAL = 15.0
MUST = 8.0
MEMORY_MB = 600
RECIPE = """
name = "benchmark"
extends = "default.toml"
partitions = 8
outputs = ["dataset"]
[[source]]
kind = "parquet"
paths = {paths}
columns = {{ content = "text", path = "path", repo_name = "repo" }}
[license_filter]
keep = ["permissive", "no_license", "unknown", "weak_copyleft", "non_permissive"]
"""


def one(files: list[str], workers: int) -> dict[str, Any]:
    """Build once; CPU-seconds of the tree, of each job's tasks, bytes of text, memory of tasks."""
    with tempfile.TemporaryDirectory() as folder:
        recipe, out = Path(folder, "recipe.toml"), Path(folder, "out")
        recipe.write_text(RECIPE.format(paths=json.dumps(files)))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [
            sys.executable,
            "-m",
            "stackbuild",
            "build",
            str(recipe),
            "-o",
            str(out),
            "-j",
            str(workers),
            "--json",
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        events = [json.loads(line) for line in (out / "launches" / "journal.jsonl").read_text().splitlines()]
    jobs = {e["job"]: e for e in events if e["event"] == "job-end"}
    return {
        "bytes": json.loads(done.stdout)["funnel"][0]["bytes_in"],
        "tree": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "jobs": {name: e["cpu"] for name, e in jobs.items()},
        "private": max(e["private"] for e in jobs.values()),
        "shared": max(e["memory"] - e["private"] for e in jobs.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    runs = [one([str(Path(name).resolve()) for name in asked.files], asked.workers) for _ in range(asked.rounds)]
    tasks = statistics.median(sum(run["jobs"].values()) for run in runs)
    tree = statistics.median(run["tree"] for run in runs)
    size = runs[0]["bytes"] / 1e6
    result = {
        "name": "pipeline",
        "unit": "MB/CPU-s",
        "ours": round(size / tasks, 2),
        "peers": {},
        "ratio": None,
        "goal": GOAL,
        "meets": size / tasks >= GOAL,
        "must": MUST,
        "whole_tree": round(size / tree, 2),
        "startup_cpu_seconds": round(tree - tasks, 2),
        "private_memory_mb": round(max(run["private"] for run in runs) / 1e6),
        "shared_memory_mb": round(max(run["shared"] for run in runs) / 1e6),
        "versions": {name: metadata.version(name) for name in ("stackbuild", "pyarrow", "numba", "enry-python")},
        "input": {"files": len(asked.files), "mb": round(size, 1)},
    }
    if asked.json:
        print(json.dumps(result))
        return
    print(
        f"{size:,.1f} MB: {result['ours']} MB/CPU-s over tasks (must {MUST}, goal {GOAL}), {result['whole_tree']} with start-up"
    )
    print(
        f"start-up {result['startup_cpu_seconds']} CPU-s; own memory of the largest task "
        f"{result['private_memory_mb']} MB (must be below {MEMORY_MB}), shared once {result['shared_memory_mb']} MB"
    )
    shares = {name: statistics.median(run["jobs"][name] for run in runs) for name in runs[0]["jobs"]}
    for name, cpu in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {cpu / tasks:6.1%}  {cpu:7.2f} CPU-s  {name}")


if __name__ == "__main__":
    main()
