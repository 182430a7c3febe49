"""Joins of an export that is larger than DuckDB's memory spill, and give the same bytes as in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stackbuild.sources.swh import session as sessions
from stackbuild.sources.swh import walk
from stackbuild.sources.swh.resolve import resolve
from stackbuild.sources.swh.session import session
from stackbuild.sources.swh.tables import CONTENTS, DIR, ENTRIES, FILE, SKIPPED, VISIBLE
from stackbuild.sources.unit import Limits
from stackbuild.tables import TableWriter, arrow

SMALL = 100 << 20
DIRECTORIES, EACH, ROOTS = 20_000, 20, 4  # 1.6 million places that are reached


def ids(draw: np.random.Generator, count: int) -> pa.Array:
    data = draw.integers(0, 256, 20 * count, np.uint8)
    return pa.Array.from_buffers(pa.binary(20), count, [None, pa.py_buffer(data)])


def world() -> tuple[pa.Table, pa.Table]:
    """(where the walk stands: each directory at a place below each of some roots; the directories' entries), in no order."""
    draw = np.random.default_rng(5)
    nodes, roots = ids(draw, DIRECTORIES), ids(draw, ROOTS)
    rows = DIRECTORIES * EACH
    of_entry = arrow(np.repeat(np.arange(DIRECTORIES), EACH))
    names = pa.array([b"a name of a file %d" % (row % EACH) for row in range(rows)], pa.binary())
    kinds = np.where(np.arange(rows) % EACH == 0, DIR, FILE).astype(np.int8)
    modes = np.where(kinds == DIR, walk.DIRECTORY_MODE, 0o100644).astype(np.int32)
    columns = [nodes.take(of_entry), names, arrow(kinds), ids(draw, rows), arrow(modes)]
    entries = pa.table(columns, schema=ENTRIES.schema).take(arrow(draw.permutation(rows)))
    places = DIRECTORIES * ROOTS
    paths = pa.array([b"src/folder/of/many/%d" % (row % DIRECTORIES) for row in range(places)], pa.binary())
    standing = [
        nodes.take(arrow(np.arange(places) % DIRECTORIES)), roots.take(arrow(np.arange(places) // DIRECTORIES)), paths,
    ]  # fmt: skip
    return pa.table(standing, schema=walk.FRONTIER), entries


def hashes(folder: Path, tables: dict[str, Iterator[pa.RecordBatch]]) -> tuple[dict[str, str], int]:
    """(SHA-256 of each table as it is written, the most bytes that were spilled)."""
    found, spilled = {}, 0
    for name, batches in tables.items():
        first = next(batches, None)
        if first is None:
            continue
        with TableWriter(folder / f"{name}.parquet", first.schema) as writer:
            writer.write(first)
            for batch in batches:
                writer.write(batch)
                spilled = max(spilled, sum(path.stat().st_size for path in (folder / "spill").iterdir()))
        found[name] = writer.sha256
    return found, spilled


@pytest.mark.slow
def test_a_level_and_what_it_finds_are_the_same_in_a_hundred_megabytes(tmp_path: Path) -> None:
    standing, entries = world()
    known = len(entries) // 2
    contents = pa.table(
        [entries["target"].slice(0, known), entries["directory_id"].slice(0, known), arrow(np.arange(known)),
         arrow(np.full(known, VISIBLE, np.int8))],
        schema=CONTENTS.schema,
    ).to_batches()  # fmt: skip
    targets = entries.select(["target"]).to_batches()
    every: list[tuple[dict[str, str], dict[str, str]]] = []
    for memory in (SMALL, sessions.MEMORY):
        with session(tmp_path / "spill", memory) as connection:
            some = walk.level(
                connection, iter(standing.to_batches()), lambda _: iter(entries.to_batches(9_999)), 3, Limits()
            )
            level, spilled = hashes(
                tmp_path, {name: getattr(some, name) for name in ("files", "frontier", "links", "left")}
            )
            assert spilled > 10 << 20 or memory > SMALL
        with session(tmp_path / "spill", memory) as connection:
            wanted, refused = resolve(
                connection,
                (batch for _ in range(ROOTS) for batch in targets),
                lambda _: iter(contents * 2),  # written at least once
                lambda _: iter(SKIPPED.schema.empty_table().to_batches()),
                Limits(file_bytes=100_000),
            )
            answered, _ = hashes(tmp_path, {"wanted": wanted, "refused": refused})
        every.append((level, answered))
    assert every[0] == every[1] and set(every[0][0]) == {"files", "frontier"} and len(every[0][1]) == 2
