"""What a unit of work costs in the phases of a Software Heritage source, for `stackbuild/estimate/swh_rates.toml`.

    python -m benchmarks.git_histories REPOSITORIES
    python -m benchmarks.swh_rates --repositories REPOSITORIES --work DIR [--write]

  convert   a row of each table, made of random ids
  origins   a repository in the phases from its visits to its root: forks of every state of the repositories
  levels    an entry that is read, a place that is found, a task: least squares over walks that differ in entries and in forks
  resolve   a content that is asked for, and one of the export's
  footer    a row group in a footer in which a task looks for its own
  fetch     an object from a local S3-compatible server, and what the phase does with it besides, from a folder

Walks that are in DIR are not made again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from benchmarks import swh_convert, swh_fetch
from benchmarks.measure import cpu_seconds, versions, way
from benchmarks.rates import inline, scalar
from benchmarks.rates_machine import nonnegative
from benchmarks.swh_export import DIGITS, Export, every, objects
from benchmarks.swh_walk import figures, made, phases_of, repositories_in, walk
from stackbuild.estimate.swh import RATES_FILE
from stackbuild.footers import _footer, footer_of, row_groups_of
from stackbuild.shards import read_batches
from stackbuild.sources.swh.convert import convert_file, writer_options
from stackbuild.sources.swh.export import open_export, opened
from stackbuild.sources.swh.partitions import BUCKET, BUCKET_FIELD
from stackbuild.sources.swh.tables import BRANCHES, CONTENTS, RELEASES, REVISIONS, VISITS, TableSpec
from stackbuild.sources.swh.tables import ENTRIES as ENTRIES_TABLE
from stackbuild.swhid import blob_id
from stackbuild.tables import TableWriter

WALKS = ((2.5, 200), (5, 200), (10, 200), (2.5, 8), (5, 8), (10, 8))  # millions of entries, forks of each repository
PARTITIONS, MEMORY = 4, 256
ROWS, ENTRIES = 400_000, 4_000_000  # of a table that is converted
FORKS = 25_000  # of each repository, where nothing is walked
FETCHED, OF_SERVER = 2, 3_000  # repositories whose contents are fetched from a folder; objects from the server
GROUPS = 1_000  # row groups of a footer
CONVERTED = (CONTENTS, REVISIONS, RELEASES, BRANCHES, VISITS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for exports and builds, which stay")
    parser.add_argument("--write", action="store_true", help="replace the table of the package")
    asked = parser.parse_args()
    repositories = repositories_in(asked.repositories)
    walks = [walked(asked.work, repositories, *one) for one in WALKS]
    rates = {
        "convert": {"entries": of_entries(), **{spec.name: converting(spec) for spec in CONVERTED}},
        "origin": of_origins(asked.work, repositories),
        "level": of_levels(walks),
        "resolve": of_resolve(walks),
        "fetch": of_fetch(asked.work, repositories),
        "footer": of_footers(),
    }
    text = written(rates, walks)
    (RATES_FILE if asked.write else asked.work / "swh_rates.toml").write_text(text)
    print(text)


def walked(work: Path, repositories: Sequence[Path], millions: float, forks: int) -> dict[str, Any]:
    """The figures of a walk."""
    folder = work / f"{millions:g}M-{forks}"
    told = folder / "figures.json"
    if not told.exists():
        export = made(folder, repositories, int(millions * 1e6), forks)
        found = figures(export, walk(export, folder / "out", PARTITIONS, MEMORY))
        if found["not_as_git_lists"]:
            raise SystemExit(f"{folder}: not as git lists them: {found['not_as_git_lists']}")
        told.write_text(json.dumps(found))
    body: dict[str, Any] = json.loads(told.read_text())
    return body


def phase(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["phases"] if one["phase"] == name)


def of_entries() -> dict[str, float]:
    """Of random ids, as those of a whole graph are: those of a few histories are often the same, and shorter on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x", "orc", "directory_entry", "directory_entry-1.orc")
        swh_convert.generate(path, ENTRIES)
        run = way("benchmarks.swh_convert:ours", {"path": str(path), "memory_mb": 256})
    return {"row": run.cpu / ENTRIES, "bytes": run.told["parquet_mb"] * 1e6 / ENTRIES}


def of_levels(walks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    levels = [one for found in walks for one in found["phases"] if one["phase"].startswith("level")]
    rows = [(one["stats"]["entries_read"], sum(one["rows"].values()), one["tasks"], 0.0) for one in levels]
    read, place, task, _ = nonnegative(rows, [one["cpu"] for one in levels])
    written = sum(one["written"] for one in levels) / sum(sum(one["rows"].values()) for one in levels)
    return {"entry": read, "place": place, "task": task, "bytes": written}


def of_resolve(walks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What is asked for are the places of files; all contents are read, as nearly all are asked for."""
    cpu = rows = written = asked = 0.0
    for found in walks:
        one = phase(found, "resolve")
        asked += sum(count for p in found["phases"] for name, count in p["rows"].items() if name.startswith("files"))
        cpu, written = cpu + one["cpu"], written + one["written"]
        rows += one["rows"]["wanted"]
    return {"place": cpu / asked, "bytes": written / rows}


def of_origins(work: Path, repositories: Sequence[Path]) -> dict[str, float]:
    export = made(work / f"0M-{FORKS}", repositories, 0, FORKS)
    build = walk(export, work / f"0M-{FORKS}" / "out", PARTITIONS, MEMORY, last="start")
    ran = [one for one in phases_of(build) if one["phase"] != "convert"]
    count = len(export.origins)
    return {"row": sum(one["cpu"] for one in ran) / count, "bytes": sum(one["written"] for one in ran) / count}


def converting(spec: TableSpec) -> dict[str, float]:
    """CPU and bytes of a row of random ids."""
    draw = np.random.default_rng(3)
    columns: dict[str, pa.Array] = {}
    kinds = {"target_type": "revision", "status": "visible" if spec is CONTENTS else "full", "type": "git"}
    for column in spec.columns:
        if column.how in ("id", "target"):
            columns[column.theirs] = hexadecimal(draw)
        elif column.theirs in kinds:
            columns[column.theirs] = pa.array([kinds[column.theirs]] * ROWS)
        elif column.how in ("seconds", "time"):
            columns[column.theirs] = pa.array(draw.integers(10**9, 2 * 10**9, ROWS)).cast(pa.timestamp("s"))
        elif column.how == "integer":
            columns[column.theirs] = pa.array(draw.integers(0, 100_000, ROWS))
        else:
            text = [f"https://github.com/owner{number}/refs/heads/{number}" for number in draw.permutation(ROWS)]
            columns[column.theirs] = pa.array(text if column.how == "text" else [one.encode() for one in text])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x", "orc", spec.source, f"{spec.source}-1.orc")
        path.parent.mkdir(parents=True)
        orc.write_table(pa.table(columns), str(path), compression="zstd")
        out = Path(folder, "out.parquet")
        cpu = 0.0
        for _ in range(2):  # the first compiles
            started = cpu_seconds()
            with opened(open_export(str(Path(folder, "x"))).table(spec.source)[0]) as table:
                convert_file(table, spec, out, Path(folder))
            cpu = cpu_seconds() - started
        return {"row": cpu / ROWS, "bytes": out.stat().st_size / ROWS}


def hexadecimal(draw: np.random.Generator, rows: int = ROWS) -> pa.Array:
    digits = DIGITS[draw.integers(0, 16, 40 * rows, np.uint8)]
    offsets = np.arange(0, 40 * rows + 1, 40, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(digits)])


def of_fetch(work: Path, repositories: Sequence[Path]) -> dict[str, float]:
    """`object`: from a server; `keep`: what the phase does with each besides; `bytes`: that it leaves for each byte of an object."""
    smallest = sorted(repositories, key=lambda path: sum(one.stat().st_size for one in path.rglob("*.pack")))[:FETCHED]
    folder = work / "fetch"
    export: Export = made(folder, smallest, 1, 8)
    store = folder / "content"
    if not store.exists():
        store.mkdir()
        for repository in smallest:
            for _, data in objects(repository, every(repository, "blob")):
                packer = zlib.compressobj(wbits=31)
                (store / blob_id(data).hex()).write_bytes(packer.compress(data) + packer.flush())
    kept = folder / "cache"
    shutil.rmtree(kept, ignore_errors=True)
    os.environ["STACKBUILD_CACHE"] = str(kept)
    build = walk(export, folder / "out", PARTITIONS, MEMORY, last="fetch", objects=store)
    cache = sum(path.stat().st_size for path in kept.rglob("*.parquet"))
    one = phases_of(build)[-1]
    count = sum(shard.stats["states"].get("ok", 0) for shard in build.shards("00-swh.fetch"))
    asked = [one for batch in read_batches(build.out, build.outputs("00-swh.resolve", "wanted"), ["blob_id"])
             for one in batch.column(0).to_pylist()]  # fmt: skip
    stored = sum((store / one.hex()).stat().st_size for one in asked)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "buckets", swh_fetch.BUCKET, swh_fetch.PREFIX)
        place.mkdir(parents=True)
        rows = swh_fetch.make(place, OF_SERVER)
        listed = Path(name, "wanted.json")
        listed.write_text(json.dumps(rows))
        server, endpoint = swh_fetch.serve(Path(name, "buckets"))
        try:
            url = f"s3://{swh_fetch.BUCKET}/{swh_fetch.PREFIX}"
            target = "benchmarks.swh_fetch:ours"
            runs = [way(target, {"url": url, "listed": str(listed), "endpoint": endpoint}) for _ in range(3)]
            local = [way(target, {"url": str(place), "listed": str(listed)}) for _ in range(3)]
        finally:
            server.terminate()
            server.wait()
    by_server, by_folder = (sorted(run.cpu for run in some)[1] / len(rows) for some in (runs, local))
    return {
        "object": by_server,
        "keep": max(0.0, one["cpu"] / count - by_folder),
        "bytes": (one["written"] + cache) / stored,
    }


def of_footers() -> dict[str, float]:
    """CPU and bytes of a row group in a footer that is read to find one's own."""
    schema = pa.schema([BUCKET_FIELD, *ENTRIES_TABLE.schema])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.parquet")
        options = writer_options(ENTRIES_TABLE)
        with TableWriter(path, schema, group_by=BUCKET, **options) as writer:
            for bucket in range(GROUPS):
                ids = hexadecimal(np.random.default_rng(bucket), 3).to_pylist()
                columns = [
                    [bucket] * 3,
                    [bytes.fromhex(one) for one in ids],
                    [b"a", b"b", b"c"],
                    [0] * 3,
                    [bytes(20)] * 3,
                    [33188] * 3,
                ]
                arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
                writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
        times = []
        for _ in range(5):
            _footer.cache_clear()
            started = cpu_seconds()
            with pq.ParquetFile(path, metadata=footer_of(path).metadata) as file:
                row_groups_of(file, path, BUCKET, 7)
            times.append(cpu_seconds() - started)
        return {"group": sorted(times)[2] / GROUPS, "bytes": pq.read_metadata(path).serialized_size / GROUPS}


def written(rates: Mapping[str, Any], walks: Sequence[Mapping[str, Any]]) -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    levels = [one["rows"] for one in walks[2]["phases"] if one["phase"].startswith("level")]
    files = sum(count for one in levels for name, count in one.items() if name.startswith("files"))
    further = [count for one in levels for name, count in one.items() if name.startswith("frontier")]
    standing = [walks[2]["origins"], *further]
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} shared cores, {model}",
        "method": "python -m benchmarks.swh_rates",
        "versions": ", ".join(f"{name} {version}" for name, version in versions("duckdb", "pyarrow", "numba").items()),
    }
    text = [
        "# CPU-seconds and bytes of a unit of work. Written by `python -m benchmarks.swh_rates --write`; see docs/swh-scale.md."
    ]
    text += ["", "[about]", *(f"{name} = {scalar(value)}" for name, value in about.items())]
    text += ["", "[walk]"]
    text += [f"standing = {shares(standing, files)}", f"found = {shares([sum(one.values()) for one in levels], files)}"]
    for name, body in rates.items():
        if name == "convert":
            text += ["", "[convert]", *(f"{table} = {inline(one)}" for table, one in body.items())]
        else:
            text += ["", f"[{name}]", *(f"{key} = {scalar(value)}" for key, value in body.items())]
    return "\n".join(text) + "\n"


def shares(counts: Sequence[int], files: int) -> str:
    """Counts by level for each file of a walk."""
    return json.dumps([float(f"{one / files:.3g}") for one in counts])


if __name__ == "__main__":
    main()
