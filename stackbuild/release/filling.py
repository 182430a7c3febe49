"""A folder that is filled with contents piece by piece: what is complete stays over a kill, what could not be had is told.

`OUT/dataset` gets the files. `OUT/.filling` has a mark for each complete piece, with the rows that are missing from it; a
file is renamed to its place before its mark is written, so that what has a mark is whole. A piece from which rows are missing
is tried again by the next run. `OUT/missing.parquet` lists those rows when all pieces were tried.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError, UsageError
from stackbuild.release.passes import ordered, passes
from stackbuild.release.supply import CHANGED, MISSING, TAKEN_DOWN, UNCHECKED
from stackbuild.shards import canonical_json, digest, fsync_directory, write_atomically
from stackbuild.tables import TableWriter

MARKS = ".filling"
MISSING_FILE = "missing.parquet"
LOST = pa.schema(
    [
        ("file", pa.string()),  # of the dataset from which the row is missing
        ("row", pa.int64()),  # in the file that lists it
        ("state", pa.string()),  # missing, taken_down, changed, unchecked
        ("detail", pa.string()),  # what the store said, or what is wrong
        ("swhid", pa.string()),
        ("sha1", pa.string()),
        ("repo_name", pa.string()),
        ("path", pa.string()),
    ]
)
WORDS = {
    MISSING: "missing upstream",
    TAKEN_DOWN: "taken down",
    CHANGED: "changed",
    UNCHECKED: "not answered for",
}


@dataclass
class Filled:
    """What came of it. `rows`: with their content. `lost`: rows without, by state. `other_bytes`: files whose rows are those
    that were asked for and whose bytes differ, as another writer wrote them."""

    files: int = 0
    rows: int = 0
    found: int = 0  # files that were complete before
    lost: Counter[str] = field(default_factory=Counter)
    other_bytes: int = 0


class Folder:
    """The folder of one filling. `what`: names what it is filled from; UsageError if it is filled from something else, or
    holds something else."""

    def __init__(self, out: Path, what: Any):
        self.out, self.marks = out, out / MARKS
        name = digest(what)
        stated = self.marks / "from.json"
        if stated.exists():
            if stated.read_bytes() != canonical_json(name):
                raise UsageError(f"{out} is being filled from something else; give --output a folder of its own.")
        else:
            if any(path.name != ".lock" for path in out.iterdir()):
                raise UsageError(f"{out} is there and not of a regeneration; give --output a folder of its own.")
            self.marks.mkdir()
            write_atomically(stated, canonical_json(name))

    def complete(self, name: str) -> dict[str, Any] | None:
        """The mark of a piece that is complete, from which no row is missing."""
        try:
            mark: dict[str, Any] = json.loads(self._mark(name).read_bytes())
            size = (self.out / "dataset" / name).stat().st_size
        except (OSError, ValueError):
            return None
        return mark if not mark["lost"] and size == mark["bytes"] else None

    def piece(self, name: str) -> Piece:
        """Begin a piece; what a killed run left of it goes."""
        return Piece(self, name)

    def _mark(self, name: str) -> Path:
        return self.marks / f"{digest(name)[:24]}.json"

    def lost_of(self, name: str) -> Path:
        return self.marks / f"{digest(name)[:24]}.parquet"

    def conclude(self, names: list[str]) -> None:
        """Put the lists of missing rows together, sorted by file and row; none is left if nothing is missing."""
        target, fresh = self.out / MISSING_FILE, self.marks / "missing.parquet"
        found = [path for path in map(self.lost_of, names) if path.exists()]
        if not found:
            target.unlink(missing_ok=True)
            return
        stream = {
            "lost": (
                LOST,
                lambda: (batch for path in found for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches()),
            )
        }
        with TableWriter(fresh, LOST, compression_level=3) as writer, passes() as connection:
            for batch in ordered(connection, stream, "SELECT * FROM lost ORDER BY file, row"):
                writer.write(batch)
        os.replace(fresh, target)
        fsync_directory(self.out)


class Piece:
    """One file while it is written: rows that have their content, and the list of those that have not."""

    def __init__(self, folder: Folder, name: str):
        self.folder, self.name = folder, name
        self.partial = folder.marks / f"{digest(name)[:24]}.partial"
        self.lost: Counter[str] = Counter()
        self._lost_rows: list[dict[str, Any]] = []
        self._lost_writer: TableWriter | None = None
        folder._mark(name).unlink(missing_ok=True)

    def writer(self, schema: pa.Schema, **options: Any) -> TableWriter:
        return TableWriter(self.partial, schema, **options)

    def lose(self, row: int, state: str, detail: str, told: dict[str, Any]) -> None:
        """Note a row that could not be had; `told`: swhid, sha1, repo_name and path."""
        self.lost[state] += 1
        self._lost_rows.append({"file": self.name, "row": row, "state": state, "detail": detail, **told})
        if len(self._lost_rows) >= 4_096:
            self._write_lost()

    def _write_lost(self) -> None:
        if self._lost_writer is None:
            self._lost_writer = TableWriter(self.folder.lost_of(self.name), LOST)
        self._lost_writer.write(pa.Table.from_pylist(self._lost_rows, LOST))
        self._lost_rows.clear()

    def commit(self, writer: TableWriter) -> None:
        """Put the file in its place and mark it; its writer is closed."""
        if self._lost_rows:
            self._write_lost()
        if self._lost_writer is not None:
            self._lost_writer.close()
        else:
            self.folder.lost_of(self.name).unlink(missing_ok=True)
        target = self.folder.out / "dataset" / self.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.partial, target)
        fsync_directory(target.parent)
        mark = {"bytes": writer.bytes, "sha256": writer.sha256, "rows": writer.rows, "lost": dict(self.lost)}
        write_atomically(self.folder._mark(self.name), canonical_json(mark))


def exact_batches(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of just `rows`, the last one apart."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        if count < rows:
            continue
        table = pa.Table.from_batches(waiting).combine_chunks()
        whole = count - count % rows
        for start in range(0, whole, rows):
            yield from table.slice(start, rows).to_batches()
        rest = table.slice(whole)
        waiting, count = rest.to_batches(), rest.num_rows
    if count:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()


def refuse_no_output(source: Path, out: Path) -> None:
    """InputError if a folder would be filled from itself."""
    if source.exists() and (out.resolve() == source.resolve() or out.resolve().is_relative_to(source.resolve())):
        raise InputError(f"{out} lies in {source}, from which it is to be filled; give --output another folder.")
