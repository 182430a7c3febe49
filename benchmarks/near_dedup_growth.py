"""How CPU and memory of ours grow with the input: parts of the corpus, and generated files with planted copies.

A part has whole projects, all their versions, in the order of a hash of their names, so that families stay whole and a
part lies within the next. Parts and generated files are kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import near_dedup_generate
from benchmarks.measure import NotMeasured, Run
from benchmarks.near_dedup_ours import run_whole
from benchmarks.near_dedup_peers import Input, Outcome, digest, opened

PARTS_MB = (60, 120, 250)
SEED = 1


@dataclass(frozen=True)
class Point:
    """Ours on one input. `found`, `found_high`: the share of planted pairs with J >= 0.7 and 0.8 in one cluster, or None."""

    name: str
    mb: float
    files: int
    runs: tuple[Run, ...]
    removed: int
    found: float | None = None
    found_high: float | None = None

    @property
    def cpu(self) -> float:
        return statistics.median(run.cpu for run in self.runs)

    @property
    def worker_mb(self) -> float:
        return max(run.peak_mb for run in self.runs)

    @property
    def tree_mb(self) -> float:
        return max(run.tree_mb for run in self.runs)


def measured(
    given: Input,
    cache: Path,
    env: Mapping[str, str],
    workers: int,
    rounds: int,
    generated_mb: float,
) -> list[Point]:
    """Ours at each size of the corpus, at the whole of it, and on as much and then `generated_mb` of generated files."""
    inputs = [(f"part of {mb} MB", part(given, mb, cache)) for mb in PARTS_MB if mb < 0.8 * given.mb]
    inputs.append(("corpus", given.paths))
    for mb in (given.mb, generated_mb):
        inputs.append((f"generated, {mb:,.0f} MB", generated(given, mb, cache)))
    points = []
    for name, paths in inputs:
        with opened(paths, cache) as one:
            try:
                ran = [run_whole((), one, cache, env, workers) for _ in range(rounds)]
            except NotMeasured as reason:
                print(f"{name}: {reason}", file=sys.stderr)
                continue
            found = ran[-1][1]
            runs = tuple(run for run, _ in ran)
            shares = planted(one, found) if name.startswith("generated") else (None, None)
            print(f"{name}: {runs[-1].cpu:.1f} CPU-s, {runs[-1].wall:.1f} s", file=sys.stderr)
            points.append(Point(name, one.mb, len(one.ids), runs, int(found.removed.sum()), *shares))
    return points


def exponent(points: Sequence[Point]) -> float:
    """The slope of log CPU over log bytes, by least squares: 1 is linear, less where start-up counts."""
    x, y = [math.log(point.mb) for point in points], [math.log(point.cpu) for point in points]
    return float(np.polyfit(x, y, 1)[0])


def exponents(points: Sequence[Point]) -> dict[str, float]:
    """Of all points, of the corpus' and of the generated files'."""
    kinds = {
        "all": list(points),
        "parts of the corpus": [point for point in points if point.found is None],
        "generated": [point for point in points if point.found is not None],
    }
    return {name: exponent(some) for name, some in kinds.items() if len(some) > 1}


def part(given: Input, mb: float, cache: Path) -> list[Path]:
    """Files of whole projects, up to about `mb` of text. SystemExit if the input has no column repo."""
    out = cache / "growth" / f"part-{given.key}-{mb:.0f}"
    ready = out / "ready"
    if not ready.exists():
        out.mkdir(parents=True, exist_ok=True)
        chosen = pa.array(sorted(projects(given, mb)))
        for path in given.paths:
            table = pq.read_table(path, columns=["id", "text", "repo"])
            table = table.filter(pc.is_in(project(table["repo"]), value_set=chosen))
            pq.write_table(table, out / path.name, compression="zstd", row_group_size=2000)
        ready.touch()
    return sorted(out.glob("*.parquet"))


def project(repos: pa.ChunkedArray) -> pa.ChunkedArray:
    """The name without the version: `debian/curl@8.14.1` is of `debian/curl`."""
    return pc.replace_substring_regex(repos, "@[^@]*$", "")


def projects(given: Input, mb: float) -> set[str]:
    """The projects of a part: in the order of a hash, each that still fits."""
    sizes: dict[str, int] = {}
    for path in given.paths:
        if "repo" not in pq.read_schema(path).names:
            raise SystemExit("--growth needs the column repo, by which families are kept whole.")
        table = pq.read_table(path, columns=["repo", "text"])
        told = pa.table({"project": project(table["repo"]), "size": pc.binary_length(table["text"])})
        for row in told.group_by("project").aggregate([("size", "sum")]).to_pylist():
            sizes[row["project"]] = sizes.get(row["project"], 0) + row["size_sum"]
    chosen, left = set(), mb * 1e6
    for name in sorted(sizes, key=lambda name: hashlib.blake2b(name.encode()).digest()):
        if sizes[name] <= left:
            chosen.add(name)
            left -= sizes[name]
    return chosen


def generated(given: Input, mb: float, cache: Path) -> list[Path]:
    """Generated files, made of the input."""
    key = digest(given.key, Path(near_dedup_generate.__file__).read_bytes(), str(SEED))
    out = cache / "growth" / f"generated-{key}-{mb:.0f}"
    if not (out / "ready").exists():
        near_dedup_generate.generate(out, given.paths, mb, SEED)
        (out / "ready").touch()
    return sorted(out.glob("*.parquet"))


def planted(given: Input, found: Outcome) -> tuple[float, float]:
    """The share of copies with J >= 0.7, and >= 0.8, to their original that are in its cluster."""
    columns = ["family", "copy", "similarity"]
    table = pa.concat_tables(pq.read_table(path, columns=columns) for path in given.paths)
    family, copy, similarity = (table[name].to_numpy() for name in columns)
    originals = np.full(int(family.max()) + 1, -1, np.int64)
    originals[family[copy == 0]] = np.flatnonzero(copy == 0)
    original = originals[family]
    together = (found.group == found.group[original]) & (found.group >= 0)

    def share(at_least: float) -> float:
        asked: npt.NDArray[np.bool_] = (copy > 0) & (similarity >= at_least) & (original >= 0)
        return float(together[asked].mean()) if asked.any() else 1.0

    return share(0.7), share(0.8)
