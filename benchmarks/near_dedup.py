"""Near-duplicates of Parquet files: ours, with its exact check, against datasketch's MinHash and LSH without one.

    python benchmarks/near_dedup.py [PARQUET ...] [--text-column text] [--rounds N] [--json]

Without files the input is this Python's standard library, each module twice more with some of its lines changed. Both
read the same Parquet column, use word 5-grams at a threshold of 0.7, and say which files stay; datasketch gets its
shingles from a regular expression, has 256 permutations and its own choice of bands, and joins what its buckets join.
Each run is a process of its own; the two take turns; the figure is MB of text per CPU-second without imports and
compilation, which are shown apart. `signatures` is the first phase of ours alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

GOAL = 10.0  # times datasketch; datatrove and the whole build are measured by benchmarks/pipeline.py

READ = """
import hashlib, json, resource, sys
import pyarrow as pa, pyarrow.parquet as pq
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def texts(paths, column):
    table = pa.concat_tables(pq.read_table(path, columns=[column], use_threads=False) for path in paths)
    return table[column].cast(pa.large_string())
def tell(start, read, files, size, kept, **more):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"start": start, "cpu": cpu() - read, "files": files, "bytes": size, "kept": kept, "peak_mb": peak}
    print(json.dumps(found | more))
column, *paths = sys.argv[1:]
"""

OURS = (
    READ
    + """
from stackbuild.dedup.near_duplicates import near_duplicates
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.signatures import permutation_constants, sign_texts
options = NearDedupOptions(scope="global")
words = " ".join(f"w{i}" for i in range(40))
near_duplicates(pa.table({"text": pa.array([words, words], pa.large_string()), "content_id": [1, 2]}), options=options)
start = cpu()
column = texts(paths, column)
near = near_duplicates(pa.table({"text": column, "content_id": pa.array(range(len(column)))}), options=options)
kept = sum(near["kept"].to_pylist())
done = cpu()
size = sum(len(t.encode()) for t in column.to_pylist())
a, b = permutation_constants(42, options.permutations)
before = cpu()
for chunk in column.chunks:
    sign_texts(chunk, options.shingling, a, b)
signing = cpu() - before
tell(start, start + (cpu() - done), len(column), size, kept, signatures=signing)
"""
)

DATASKETCH = (
    READ
    + """
import re
from datasketch import MinHash, MinHashLSH
start = cpu()
word = re.compile(r"\\w+")
column = texts(paths, column).to_pylist()
lsh, parents = MinHashLSH(0.7, 256), list(range(len(column)))
def root(i):
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i
for i, text in enumerate(column):
    words = word.findall(text.lower())
    if len(words) < 5:
        continue
    sketch = MinHash(256)
    sketch.update_batch([" ".join(words[j : j + 5]).encode() for j in range(len(words) - 4)])
    for other in lsh.query(sketch):
        parents[root(i)] = root(other)
    lsh.insert(i, sketch)
kept = sum(root(i) == i for i in range(len(column)))
tell(start, start, len(column), 0, kept)
"""
)


def standard_library(folder: Path) -> list[str]:
    """The modules of the running Python and two edited copies of each, as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = random.Random(0)
    texts = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*/*.py"))[:900]:
        if "site-packages" in path.parts:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        texts.append(text)
        for share in (0.01, 0.15):
            lines = text.splitlines(keepends=True)
            changed = [f"x{draw.random()} = {n}\n" if draw.random() < share else line for n, line in enumerate(lines)]
            texts.append("".join(changed))
    target = folder / "input.parquet"
    pq.write_table(pa.table({"text": pa.array(texts, pa.large_string())}), target, compression="zstd")
    return [str(target)]


def measure(code: str, column: str, paths: list[str]) -> dict[str, Any]:
    """One run in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-c", code, column, *paths],
        check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parquet", nargs="*")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = given.parquet or standard_library(Path(folder))
        runs: dict[str, list[dict[str, Any]]] = {"stackbuild": [], "datasketch": []}
        measure(OURS, given.text_column, paths)  # compiles
        for _ in range(given.rounds):
            runs["stackbuild"].append(measure(OURS, given.text_column, paths))
            runs["datasketch"].append(measure(DATASKETCH, given.text_column, paths))
    ours = runs["stackbuild"][0]
    megabytes = ours["bytes"] / 1e6
    rate = {name: megabytes / statistics.median(run["cpu"] for run in found) for name, found in runs.items()}
    signing = megabytes / statistics.median(run["signatures"] for run in runs["stackbuild"])
    ratio = rate["stackbuild"] / rate["datasketch"]
    report = {
        "name": "near_dedup",
        "unit": "MB/CPU-s",
        "ours": rate["stackbuild"],
        "peers": {"datasketch": rate["datasketch"]},
        "ratio": ratio,
        "goal": GOAL,
        "meets": ratio >= GOAL,
        "signatures": signing,
        "versions": {
            name: importlib.metadata.version(name) for name in ("stackbuild", "datasketch", "numba", "pyarrow")
        }
        | {"python": platform.python_version()},
        "input": {"files": ours["files"], "bytes": ours["bytes"]},
    }
    if given.json:
        print(json.dumps(report))
        return
    print(f"{ours['files']:,} files, {megabytes:.1f} MB; signatures alone {signing:.0f} MB/CPU-s")
    print(f"{'':12}{'MB/CPU-s':>10}{'start, s':>10}{'peak, MB':>10}{'kept':>10}")
    for name, found in runs.items():
        start, peak = (statistics.median(run[key] for run in found) for key in ("start", "peak_mb"))
        print(f"{name:12}{rate[name]:10.1f}{start:10.1f}{peak:10.0f}{found[0]['kept']:10,}")
    print(f"ratio {ratio:.1f}, goal {GOAL:.0f}")


if __name__ == "__main__":
    main()
