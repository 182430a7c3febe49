"""Licence detection: ours against ScanCode with all its matchers, on the same texts.

    python -m benchmarks.licenses [spdx|npm|debian|tree|headers] [INPUT ...] [--cache DIR] [--sample N] [--json]

`npm` fetches packages into --cache once; `debian` reads /usr/share/doc or INPUT; `tree` the licence-named files below
INPUT, repetition and all; `headers` Parquet files. See `license_sets` for the sets and their truth. The peer reads one case
in --sample, and ours is measured on those too; each runs in a process of its own, and loading is not counted. The peer
reads the first 4 KB of files for their headers, as ours does.

hit: the licence is among those found (of a choice, any; -only and -or-later are one text). exact: and no other. wrong:
something is found, not that. unsafe: only permissive licences are found, and the truth is none. private MB: of a process
forked after loading, after 300 texts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import license_sets
from benchmarks.license_sets import Case

GOALS = {"spdx": 3.0, "npm": 3.0, "debian": 3.0, "tree": 3.0, "headers": 1.0}  # CPU-ms a file
HEAD_BYTES = 4_096
FORKED = 300


def cases_of(chosen: argparse.Namespace) -> list[Case]:
    """The cases of a set: distinct ones, or of a tree all."""
    inputs = [Path(one) for one in chosen.inputs]
    match chosen.set:
        case "spdx":
            return license_sets.distinct(license_sets.spdx())
        case "npm":
            return license_sets.distinct(license_sets.npm(Path(chosen.cache)))
        case "debian":
            return license_sets.distinct(license_sets.debian(inputs[0] if inputs else Path("/usr/share/doc")))
        case _:
            return list(license_sets.tree(inputs))


def peer_keys(content: bytes) -> tuple[str, ...]:
    """What ScanCode with all its matchers finds in a text."""
    from stackbuild.licenses import scancode
    from stackbuild.licenses.decide import UNKNOWN_REFERENCE
    from stackbuild.licenses.expression import keys_of

    found = scancode.index_().match(query_string=content.decode("utf-8", "replace"))
    named = {scancode.spdx_expression(one.rule.license_expression) for one in found if not one.rule.is_license_clue}
    named.discard(UNKNOWN_REFERENCE)
    return tuple({key for one in named if scancode.stands_for_a_license(one) for key in keys_of(one)})


def judged(cases: list[Case], answers: list[tuple[str, ...]]) -> dict[str, float]:
    """Shares of the cases whose truth is known."""
    from stackbuild.licenses.expression import keys_of, plain_key, read_expression
    from stackbuild.licenses.scancode import severity_of

    counts = {"hit": 0, "exact": 0, "wrong": 0, "unsafe": 0}
    known = [(case.truth, keys) for case, keys in zip(cases, answers, strict=True) if case.truth is not None]
    for truth, keys in known:
        wanted, found = ({plain_key(key) for key in one} for one in (keys_of(truth), keys))
        hit = bool(wanted & found) if " OR " in truth else wanted <= found
        bad = max(map(severity_of, read_expression(truth, "choice", severity_of)))
        counts["hit"] += hit
        counts["exact"] += hit and found <= wanted
        counts["wrong"] += bool(found) and not wanted & found
        counts["unsafe"] += bool(keys) and max(map(severity_of, keys)) <= 1 < bad
    return {name: count / len(known) for name, count in counts.items()} if known else {}


def private_mb(cases: list[Case]) -> float:
    """MB that a forked process holds for itself after `FORKED` texts."""
    from stackbuild.licenses.detect import Detector

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        detector = Detector()
        for case in cases[:FORKED]:
            for text in case.texts:
                detector.detect(text, case.named)
        rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
        os.write(writing, str(sum(map(int, re.findall(r"Private_\w+: +(\d+)", rollup)))).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        found = int(told.read()) / 1_024
    os.waitpid(pid, 0)
    return found


def measure_texts(engine: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run one engine over texts, in this process."""
    from stackbuild.licenses import detect
    from stackbuild.licenses.decide import UNKNOWN_REFERENCE

    cases = cases_of(chosen)[:: chosen.sample]
    detect.warm()
    private = private_mb(cases) if engine == "ours" else None
    detector = detect.Detector()
    answers, begun = [], time.process_time()
    for case in cases:
        if engine == "ours":
            found = [detector.detect(text, case.named).keys for text in case.texts]
        else:
            found = [peer_keys(text) for text in case.texts]
        answers.append(tuple({key for keys in found for key in keys if key != UNKNOWN_REFERENCE}))
    seconds = time.process_time() - begun
    files = sum(len(case.texts) for case in cases)
    size = sum(len(text) for case in cases for text in case.texts)
    return {
        "files": files,
        "ms": 1_000 * seconds / max(files, 1),
        "MB/s": size / 1e6 / max(seconds, 1e-9),
        "private MB": private,
        **judged(cases, answers),
    }


def measure_headers(engine: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Read the headers of all files, or of a sample with both engines."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from stackbuild.licenses import detect
    from stackbuild.licenses.expression import keys_of, plain_key
    from stackbuild.licenses.headers import Headers

    columns = []
    for path in chosen.inputs:
        name = next(one for one in ("text", "content") if one in pq.read_schema(path).names)
        columns += pq.read_table(path, columns=[name])[name].cast(pa.large_binary()).chunks
    contents = pa.chunked_array(columns).combine_chunks()
    contents = contents.take(pa.array(range(0, len(contents), chosen.sample)))
    detect.warm()
    Headers().scan(pa.array([b"// SPDX-License-Identifier: MIT\n"], pa.large_binary()))
    begun = time.process_time()
    rows = [
        row for at in range(0, len(contents), 4_096) for row in Headers().scan(contents[at : at + 4_096]).to_pylist()
    ]
    ours = time.process_time() - begun
    seconds, agree = ours, None
    if engine != "ours":
        begun = time.process_time()
        peer = [peer_keys(one.as_py()[:HEAD_BYTES]) for one in contents]
        seconds = time.process_time() - begun
        plain = [{plain_key(key) for key in keys} for keys in peer]
        own = [{plain_key(key) for key in keys_of((row and row["expression"]) or "")} for row in rows]
        agree = sum(one == other for one, other in zip(own, plain, strict=True)) / max(len(plain), 1)
    return {
        "files": len(contents),
        "ms": 1_000 * seconds / max(len(contents), 1),
        "MB/s": pc.sum(pc.binary_length(contents)).as_py() / 1e6 / max(seconds, 1e-9),
        "with licence": sum(row is not None and row["kind"] == "license" for row in rows) / max(len(rows), 1),
        "agree": agree,
    }


def apart(engine: str, chosen: argparse.Namespace, sample: int) -> dict[str, Any]:
    """A measurement in a process of its own."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.licenses",
        chosen.set,
        *chosen.inputs,
        "--engine",
        engine,
    ]
    command += ["--sample", str(sample), *(["--cache", chosen.cache] if chosen.cache else [])]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("set", nargs="?", default="spdx", choices=sorted(GOALS))
    parser.add_argument("inputs", nargs="*", metavar="INPUT")
    parser.add_argument("--cache", help="folder for what npm fetches (some 1.2 GB for a while, then 20 MB)")
    parser.add_argument("--sample", type=int, default=10, help="the peer reads one case in so many")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if (chosen.set in ("tree", "headers") and not chosen.inputs) or (chosen.set == "npm" and not chosen.cache):
        parser.error("tree and headers want INPUT, npm wants --cache")
    chosen.inputs = [str(Path(one).resolve()) for one in chosen.inputs]
    chosen.cache = str(Path(chosen.cache).resolve()) if chosen.cache else None
    if chosen.engine:
        measure = measure_headers if chosen.set == "headers" else measure_texts
        print(json.dumps(measure(chosen.engine, chosen)))
        return
    runs = [
        ("ours, all", "ours", 1),
        ("ours, sample", "ours", chosen.sample),
        ("ScanCode, sample", "scancode", chosen.sample),
    ]
    rows = {name: apart(engine, chosen, sample) for name, engine, sample in runs}
    ratio = rows["ScanCode, sample"]["ms"] / rows["ours, sample"]["ms"]
    versions = {name: metadata.version(name) for name in ("scancode-toolkit-mini", "licenseclassifier")}
    if chosen.json:
        body = {"name": f"licenses {chosen.set}", "unit": "CPU-ms per file", "ours": rows["ours, sample"]["ms"]}
        body |= {"peers": {"scancode": rows["ScanCode, sample"]["ms"]}, "ratio": ratio, "goal": GOALS[chosen.set]}
        body |= {"meets": rows["ours, all"]["ms"] <= GOALS[chosen.set], "versions": versions, "detail": rows}
        print(json.dumps(body))
        return
    columns = list(rows["ours, all"])
    print(f"| {chosen.set} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(cell(row.get(column)) for column in columns) + " |")
    print(f"\nratio {ratio:.1f}, " + ", ".join(" ".join(one) for one in versions.items()))


if __name__ == "__main__":
    main()
