"""The rows of a partition, with whatever columns are asked for.

A partition's base table is written once (occurrences, or one row per content). Each stage adds a tag file with one row for
each row of the base, in the same order, null where the row had left before, and a column `keep`. So a column is found by
slicing, never by a join; the bytes are met by walking two tables that are both sorted by content_id; and `text` is made
from the bytes by the stages that rewrite it, in their order. A large partition is written and read part by part (`parts.py`);
its tag files lie one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import RecipeError
from stackbuild.hashing import id_bytes
from stackbuild.parts import Part
from stackbuild.shards import Output, open_parquet, read_batches, read_row_group
from stackbuild.stage import Stage, with_columns
from stackbuild.tables import conform

KEEP = "keep"
SIZE = "size_after"  # bytes of the text after a stage that rewrites it
VIRTUAL = ("content", "text")
SLICE_ROWS = 65_536


@dataclass(frozen=True)
class Tagged:
    """A stage that has judged these rows, and its tag files for this partition, in order; `first`: the row of the base that
    they begin with."""

    stage: Stage  # type: ignore[type-arg]
    outputs: Sequence[Output]
    first: int = 0


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `stop` of the base: which of them are still in (row numbers), their columns and their sizes."""

    start: int
    stop: int
    rows: npt.NDArray[np.int64]
    batch: pa.RecordBatch
    sizes: npt.NDArray[np.int64]


def tag_schema(stage: Stage) -> pa.Schema:  # type: ignore[type-arg]
    """The schema of a stage's tag file."""
    size = [pa.field(SIZE, pa.int64())] if stage.rewrites_text else []
    return pa.schema([pa.field(KEEP, pa.bool_()), *stage.adds, *size])


class Rows:
    """One partition of occurrences or files, as the stages in `tagged` have left it.

    `base`: the partition's base table. `schema`: its schema. `contents`: the contents partition of the same range of ids.
    `part`: only these rows of it are read.
    """

    def __init__(
        self,
        out: Path,
        base: Sequence[Output],
        schema: pa.Schema,
        contents: Sequence[Output],
        tagged: Sequence[Tagged],
        part: Part | None = None,
    ):
        self.out, self.base, self.schema, self.contents, self.tagged = out, base, schema, contents, tagged
        self.start, self.stop = (part.start, part.stop) if part else (0, sum(output.rows for output in base))

    def before(self) -> int:
        """How many rows before these are still in."""
        keep = np.ones(self.start, bool)
        for tag in self.tagged:
            tags = read_rows(self.out, tag.outputs, tag_schema(tag.stage), [KEEP], 0, self.start)
            keep &= np.asarray(pc.fill_null(tags[KEEP], False))
        return int(keep.sum())

    def available(self) -> list[str]:
        """Names of the columns that `slices` can give."""
        text = any(tag.stage.rewrites_text for tag in self.tagged)
        return [
            *self.schema.names,
            *(["content"] if self.contents else []),
            *(["text"] if text else []),
            *(field.name for tag in self.tagged for field in tag.stage.adds),
        ]

    def slices(self, columns: Sequence[str]) -> Iterator[Slice]:
        """Yield the rows in order, numbered as in the base; slices in which none is left are yielded too, with empty batches."""
        wanted = list(dict.fromkeys(columns))
        rewriters = [tag for tag in self.tagged if tag.stage.rewrites_text] if "text" in wanted else []
        needed = dict.fromkeys([*wanted, "length", *(c for tag in rewriters for c in tag.stage.needs()),
                                *(field.name for tag in rewriters for field in tag.stage.adds)])  # fmt: skip
        needed.pop("text", None)
        with_content = needed.pop("content", "no") is None
        if with_content:
            needed["content_id"] = None
        table, keep, sizes = self._metadata(list(needed))
        for start, stop, content in self._content_slices(table) if with_content else _even_slices(len(keep)):
            rows = np.flatnonzero(keep[start:stop])
            here = table.slice(start, stop - start)
            batch = _one_batch(here if len(rows) == stop - start else here.take(pa.array(rows)))
            if content is not None:
                batch = with_columns(
                    batch, {"content": content if len(rows) == stop - start else content.take(pa.array(rows))}
                )
            for tag in rewriters:
                batch = with_columns(batch, {"text": tag.stage.text(batch)})
            # Without the base's not-null marks: a stage need not know which column has one.
            plain = pa.RecordBatch.from_arrays([batch.column(name) for name in wanted], names=wanted)
            yield Slice(self.start + start, self.start + stop, rows, plain, sizes[start:stop][rows])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows still in, as batches."""
        for piece in self.slices(columns):
            if piece.batch.num_rows:
                yield piece.batch

    def _metadata(self, columns: list[str]) -> tuple[pa.Table, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """The named columns of base and tags, who is still in, and the size of each file so far."""
        source: dict[str, Tagged | None] = dict.fromkeys(self.schema.names)
        for tag in self.tagged:
            source.update({field.name: tag for field in tag.stage.adds})
        if missing := [name for name in columns if name not in source]:
            raise RecipeError(
                f"No stage before this one gives the column {missing[0]!r}; there are {', '.join(self.available())}."
            )
        names = [name for name in columns if source[name] is None]
        table = read_rows(self.out, self.base, self.schema, names, self.start, self.stop)
        keep = np.ones(table.num_rows, bool)
        sizes = np.asarray(table["length"]).astype(np.int64)
        for tag in self.tagged:
            schema = tag_schema(tag.stage)
            names = [name for name in columns if source[name] is tag]
            extra = [SIZE] if tag.stage.rewrites_text else []
            start, stop = self.start - tag.first, self.stop - tag.first
            tags = read_rows(self.out, tag.outputs, schema, [KEEP, *names, *extra], start, stop)
            keep &= np.asarray(pc.fill_null(tags[KEEP], False))
            if extra:
                after = np.asarray(pc.fill_null(tags[SIZE], -1))
                sizes = np.where(after >= 0, after, sizes)
            for name in names:
                table = table.append_column(name, tags[name])
        return table.combine_chunks(), keep, sizes

    def _content_slices(self, table: pa.Table) -> Iterator[tuple[int, int, pa.Array]]:
        """Cut the rows along the contents' row groups: both are sorted by content_id."""
        ids = id_array(table["content_id"])
        position = 0
        if not len(ids):
            return
        between = ("content_id", table["content_id"][0].as_py(), table["content_id"][-1].as_py())
        for batch in read_batches(self.out, self.contents, ["content_id", "content"], between=between):
            if position >= len(ids):
                break
            have = id_array(batch.column(0))
            stop = int(np.searchsorted(ids, have[-1], side="right"))
            if stop > position:
                where = np.searchsorted(have, ids[position:stop])
                if not np.array_equal(have[np.minimum(where, len(have) - 1)], ids[position:stop]):
                    raise RecipeError("A file's bytes are not among the contents of its partition.")
                content = batch.column(1)
                yield position, stop, content if len(where) == len(have) else content.take(pa.array(where))
            position = stop
        if position < len(ids):
            raise RecipeError(f"{len(ids) - position} files have no bytes among the contents of their partition.")


def read_rows(
    out: Path, outputs: Sequence[Output], schema: pa.Schema, columns: Sequence[str], start: int, stop: int
) -> pa.Table:
    """Rows `start` to `stop` of a table, in memory; row groups without any of them are not read."""
    schema = pa.schema([schema.field(name) for name in columns])
    batches, first = [], 0
    for output in outputs:
        if first < stop and first + output.rows > start:
            with open_parquet(out, output) as file:
                at = first
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if at < stop and at + rows > start:
                        table = read_row_group(out, output, file, group, columns)
                        here = table.slice(max(start - at, 0), min(stop, at + rows) - max(start, at))
                        batches += [conform(batch, schema) for batch in here.to_batches()]
                    at += rows
        first += output.rows
    return pa.Table.from_batches(batches, schema)


def lengths_of(out: Path, outputs: Sequence[Output]) -> npt.NDArray[np.int64]:
    """The column `length` of a table, int64 (rows,)."""
    lengths = [np.asarray(batch.column(0)).astype(np.int64) for batch in read_batches(out, outputs, ["length"])]
    return np.concatenate([np.zeros(0, np.int64), *lengths])


def id_array(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Ids as a numpy array of fixed-width bytes, which numpy sorts and searches; trailing NULs are kept by a 21st byte."""
    raw = id_bytes(column)
    padded = np.ones((len(raw), 21), np.uint8)
    padded[:, :20] = raw
    return padded.view("S21").reshape(-1)


def _even_slices(rows: int) -> Iterator[tuple[int, int, None]]:
    for start in range(0, rows, SLICE_ROWS):
        yield start, min(start + SLICE_ROWS, rows), None


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    if batches:
        return batches[0]
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in table.schema], schema=table.schema)
