"""Languages: our stage against enry called on whole files, as The Stack v2 did, and Pygments' guess.

    python benchmarks/languages.py [--input PARQUET ...] [--rounds N] [--json]

All name the language of the same files; ours and enry also tell vendored and generated. The last column is how many
got a name. Pygments reads every twentieth file. Each run is a process of its own; they take turns. Reading and imports
are start-up, shown apart.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

NAME, GOAL = "languages", 60.0
DISTRIBUTIONS = ("stackbuild", "enry-python", "pygments", "pyarrow")
EXTRA = "files named"
SUFFIXES = {
    ".py",
    ".pyi",
    ".h",
    ".c",
    ".js",
    ".css",
    ".html",
    ".json",
    ".txt",
    ".md",
    ".rst",
    ".toml",
    ".pyx",
    ".hpp",
    ".sh",
}
BYTES = 60 * 1024 * 1024

READ = """
import json, resource, sys
import pyarrow as pa, pyarrow.parquet as pq
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def tell(start, before, files, size, extra):
    spent = cpu() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"start": start, "cpu": spent, "files": files, "bytes": size, "peak_mb": peak, "extra": extra}))
COLUMNS = ["text", "path"]
table = pa.concat_tables(pq.read_table(path, columns=COLUMNS, use_threads=False) for path in sys.argv[1:])
"""

OURS = (
    READ
    + """
from stackbuild.languages.languages import Languages
stage = Languages()
files = pa.record_batch({"text": table["text"].cast(pa.large_string()).combine_chunks(),
                         "path_bytes": table["path"].cast(pa.binary()).combine_chunks()})
stage.tags(files.slice(0, 100))
start = before = cpu()
found = stage.tags(files)
tell(start, before, files.num_rows, files["text"].nbytes, files.num_rows - found["language"].null_count)
"""
)
ENRY = (
    READ
    + """
import enry
texts, paths = [text.encode() for text in table["text"].to_pylist()], table["path"].to_pylist()
for path, text in zip(paths[:100], texts):
    enry.get_language(path, text)
start = before = cpu()
found = [
    (enry.get_language(path, text), enry.is_vendor(path), enry.is_generated(path, text))
    for path, text in zip(paths, texts)
]
tell(start, before, len(texts), sum(map(len, texts)), sum(bool(one[0]) for one in found))
"""
)
PYGMENTS = (
    READ
    + """
from pygments.lexers import guess_lexer_for_filename
from pygments.util import ClassNotFound
texts, paths = table["text"].to_pylist()[::20], table["path"].to_pylist()[::20]
def name(path, text):
    try:
        return guess_lexer_for_filename(path, text).name
    except ClassNotFound:
        return None
name("a.py", "x = 1")
start = before = cpu()
found = [name(path.rsplit("/", 1)[-1], text) for path, text in zip(paths, texts)]
tell(start, before, len(texts), sum(len(text.encode()) for text in texts), sum(map(bool, found)))
"""
)
PROGRAMS = {"ours": OURS, "enry on whole files": ENRY, "pygments": PYGMENTS}


def build(folder: Path) -> str:
    """A Parquet file of this Python's source, its own library's and the installed packages'."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, str]] = []
    size = 0
    for root in (Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))):
        for path in sorted(root.rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and size < BYTES:
                text = path.read_text("utf-8", "replace")
                rows.append({"path": str(path.relative_to(root)), "text": text})
                size += len(text)
    pq.write_table(pa.Table.from_pylist(rows), folder / "input.parquet")
    return str(folder / "input.parquet")


def run(program: str, *arguments: str) -> dict[str, Any] | None:
    """One process: what it tells, None if something that it needs is not installed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        if "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr:
            return None
        raise SystemExit(done.stderr)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def versions(*names: str) -> dict[str, str]:
    """Of the interpreter and what is installed of these distributions."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Build or take the input, let all take turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--input", nargs="*", default=[], help="Parquet files with the columns text and path")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = options.input or [build(Path(folder))]
        told: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.rounds):
            for name, program in PROGRAMS.items():
                found = run(program, *paths)
                if found is not None:
                    told.setdefault(name, []).append(found)
    rates = {name: statistics.median(one["bytes"] / one["cpu"] / 1e6 for one in many) for name, many in told.items()}
    peers = {name: round(rates[name], 2) if name in rates else None for name in PROGRAMS if name != "ours"}
    measured = [rate for rate in peers.values() if rate]
    ratio = round(rates["ours"] / max(measured), 2) if measured else None
    result = {
        "name": NAME,
        "unit": "MB/CPU-s",
        "ours": round(rates["ours"], 2),
        "peers": peers,
        "ratio": ratio,
        "goal": GOAL,
        "meets": rates["ours"] >= GOAL,
        "versions": versions(*DISTRIBUTIONS),
        "input": {"files": told["ours"][0]["files"], "bytes": told["ours"][0]["bytes"]},
    }
    if options.json:
        print(json.dumps(result | {"runs": told}))
        return
    print(f"{'':24}{'MB/CPU-s':>10}{'CPU-s':>9}{'start':>8}{'peak MB':>9}  {EXTRA}")
    for name in PROGRAMS:
        if name not in told:
            print(f"{name:24}{'not measured':>12}: not installed")
            continue
        one = told[name][-1]
        print(f"{name:24}{rates[name]:10.2f}{one['cpu']:9.2f}{one['start']:8.2f}{one['peak_mb']:9.0f}  {one['extra']}")
    verdict = "met" if result["meets"] else "not met"
    print(f"goal {GOAL} MB/CPU-s: {verdict}; against the fastest peer: {ratio}; {result['versions']}")


if __name__ == "__main__":
    main()
