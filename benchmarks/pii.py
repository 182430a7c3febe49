"""Personal data: find and redact e-mail addresses, IP addresses and keys, against peers on the same source code.

    python benchmarks/pii.py [--input PARQUET ...] [--rounds N] [--json]

Ours is the whole stage: gate, rules, replacement and the second search. The peers find only. "python re" is the idea of
SantaCoder, expressions for e-mail and IP over each text; detect-secrets and presidio are measured if installed. The
input is built from this Python's library and packages. Each run is a process of its own.
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

NAME, GOAL, BYTES = "pii", 20.0, 60_000_000
DISTRIBUTIONS = ("stackbuild", "google-re2", "pyahocorasick", "numba", "pyarrow", "detect-secrets", "presidio-analyzer")
SUFFIXES = (".py", ".pyi", ".h", ".hpp", ".c", ".pyx", ".js", ".css", ".html", ".json", ".txt", ".md", ".rst", ".toml")

READ = """
import json, re, resource, sys
import pyarrow as pa, pyarrow.parquet as pq
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def tell(start, before, files, size, found):
    spent = cpu() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"start": start, "cpu": spent, "files": files, "bytes": size, "peak_mb": peak, "extra": found}))
table = pa.concat_tables(pq.read_table(path, columns=["text"], use_threads=False) for path in sys.argv[1:])
"""

OURS = (
    READ
    + """
import pyarrow.compute as pc
from stackbuild.pii.stage import Pii
from stackbuild.stage import with_columns
stage = Pii()
stage.warm()
table = table.set_column(0, "text", table["text"].cast(pa.large_string()))
batches = table.combine_chunks().to_batches(max_chunksize=4096)
size = sum(pc.sum(pc.binary_length(batch["text"])).as_py() or 0 for batch in batches)
start = before = cpu()
found = 0
for batch in batches:
    tags = stage.tags(batch)
    stage.text(with_columns(batch, tags))
    found += pc.sum(tags["redactions"]).as_py() or 0
tell(start, before, table.num_rows, size, found)
"""
)
PYTHON = (
    READ
    + r"""
EMAIL = re.compile(r"[^\s@,?!;:\"'=<>()\[\]{}/\\#]+@(?:[\w-]{1,64}\.){1,10}[A-Za-z]{2,63}\b")
OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
IP = re.compile(
    rf"(?<![\w.]){OCTET}(?:\.{OCTET}){{3}}(?![\w.])"
    r"|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?![\w:])"
)
texts = table["text"].to_pylist()
size = sum(len(text.encode()) for text in texts)
start = before = cpu()
found = sum(1 for text in texts for expression in (EMAIL, IP) for _ in expression.finditer(text))
tell(start, before, len(texts), size, found)
"""
)
DETECT_SECRETS = (
    READ
    + """
from detect_secrets.core.scan import scan_line
from detect_secrets.settings import default_settings
texts = table["text"].to_pylist()[::50]
size = sum(len(text.encode()) for text in texts)
start = before = cpu()
with default_settings():
    found = sum(1 for text in texts for line in text.splitlines() for _ in scan_line(line))
tell(start, before, len(texts), size, found)
"""
)
PRESIDIO = (
    READ
    + """
from presidio_analyzer.predefined_recognizers import IpRecognizer
recogniser = IpRecognizer()
texts = table["text"].to_pylist()[::20]
size = sum(len(text.encode()) for text in texts)
start = before = cpu()
found = sum(len(recogniser.analyze(text, ["IP_ADDRESS"], None)) for text in texts)
tell(start, before, len(texts), size, found)
"""
)
PROGRAMS = {"ours": OURS, "python re (2 kinds)": PYTHON, "detect-secrets": DETECT_SECRETS, "presidio IP only": PRESIDIO}


def build(folder: Path) -> str:
    """A Parquet file of this Python's library and the installed packages."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts: list[str] = []
    size = 0
    for root in (Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))):
        for path in sorted(root.rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and size < BYTES:
                texts.append(path.read_text("utf-8", "replace"))
                size += len(texts[-1])
    pq.write_table(pa.table({"text": pa.array(texts, pa.large_string())}), folder / "input.parquet")
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


def versions() -> dict[str, str]:
    """Of the interpreter and what is installed of DISTRIBUTIONS."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Build or take the input, let all take turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--input", nargs="*", default=[], help="Parquet files with the column text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    told: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = options.input or [build(Path(folder))]
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
        "versions": versions(),
        "input": {"files": told["ours"][0]["files"], "bytes": told["ours"][0]["bytes"]},
    }
    if options.json:
        print(json.dumps(result | {"runs": told}))
        return
    print(f"{'':24}{'MB/CPU-s':>10}{'CPU-s':>9}{'start':>8}{'peak MB':>9}  findings")
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
