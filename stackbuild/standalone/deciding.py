"""The tasks of near-duplicate removal that know rows, behind those that know contents alone (`stackbuild.dedup`).

check_ids         a bucket of ids  ->  the first id that stands twice
choose_copies     a partition      ->  files: of the rows of one content the best, which stands for all
cluster_rows      a partition      ->  clustered: the rows of contents that are in a cluster or there several times
decide            a range of clusters  ->  decided (what the user will read), removed (by unit)
publish_clusters  once             ->  the files of clusters
write_rows        a unit           ->  its rows that stay
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.clusters import CLUSTERS
from stackbuild.dedup.links import rows_in
from stackbuild.dedup.numbers import Numbers, file_numbers, finer, id_values, partition_of
from stackbuild.hashing import id_bytes
from stackbuild.schema import ID
from stackbuild.standalone.folding import (
    Fold,
    Read,
    Repeated,
    Tally,
    among,
    counted,
    first_of,
    first_rows,
    in_key_order,
    in_ranges,
)
from stackbuild.standalone.inputs import InputUnit, read_lines, read_unit, schema_of
from stackbuild.standalone.options import DedupOptions
from stackbuild.standalone.reading import Narrow, scoped
from stackbuild.standalone.schemas import (
    REASONS,
    REMOVED,
    SOURCES,
    clustered_schema,
    clusters_schema,
    id_type_of,
    ids_schema,
    rows_schema,
)
from stackbuild.tables import arrow, record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task

OUTPUT_BYTES = 8 << 20  # of text in a row group of what is written
PUBLISHED_ROWS = 1 << 20  # of a file of clusters

_SIZES = pa.schema([pa.field("cluster_id", ID), pa.field("rows", pa.int64())])


def check_ids(task: Task) -> None:
    """Tell the first row of this bucket whose id an earlier row has: `repeated` = [unit, row] in the task's statistics."""
    hashes = Repeated()
    for batch in task.read("ids", ["bucket", "hash"], task.rank, "bucket"):
        hashes.add(np.asarray(batch.column("hash")))
    shared = hashes.values()
    if not len(shared):
        return
    schema = ids_schema(id_type_of(task))
    keys = [(name, "ascending") for name in ("id", "unit", "row")]
    two = Fold(schema, first_rows(keys, "id", 2))
    for batch in task.read("ids", None, task.rank, "bucket"):
        two.add(batch.filter(arrow(among(np.asarray(batch.column("hash")), shared))))
    table = two.table()
    again = np.flatnonzero(~first_of(table["id"]))
    if len(again):
        where = np.asarray(table["unit"]).astype(np.int64)[again], np.asarray(table["row"])[again]
        first = np.lexsort((where[1], where[0]))[0]
        task.stats["repeated"] = [int(where[0][first]), int(where[1][first])]


def choose_copies(task: Task) -> None:
    """Of the rows of each content the best, by the survivor columns and then the id, in order of content_id."""
    options: DedupOptions = task.options
    schema = rows_schema(options, id_type_of(task))
    sources, contents = Tally(), 0
    with task.writer("files", schema, group_by="partition") as writer:
        for read in _rows_in_ranges(task, schema):
            best = Fold(schema, first_rows(best_first(["content_id"], options), "content_id"))
            for batch in read():
                if options.source_column:
                    sources.add(batch.column("source"))
                best.add(batch)
            writer.write(best.table())
            contents += len(best.table())
    if options.source_column:
        _write_sources(task, "sources", sources)
    task.stats["contents"] = contents


def _rows_in_ranges(task: Task, schema: pa.Schema) -> Iterator[Read]:
    """The rows of this partition, in ranges of their contents, ascending."""

    def range_of(batch: pa.RecordBatch, ranges: int) -> Numbers:
        return finer(file_numbers(batch.column("content_id")), task.partitions, ranges)

    rows = rows_in(task, "rows")
    return in_ranges(lambda: task.read("rows", None, task.rank, "partition"), rows, schema, range_of, task.scratch)


def _write_sources(task: Task, name: str, tally: Tally) -> None:
    """How many rows there are of each source."""
    with task.writer(name, SOURCES) as writer:
        writer.write(tally.table())


def cluster_rows(task: Task) -> None:
    """The rows whose content is in a cluster, or is there more than once, by the partition of their cluster."""
    options: DedupOptions = task.options
    schema = clustered_schema(options, id_type_of(task))
    names = ("partition", "content_id", "cluster_id", "kept_content_id", "similarity")
    clusters = pa.Table.from_batches(
        list(task.read("clusters", names, task.rank, "partition")), pa.schema([CLUSTERS.field(name) for name in names])
    )
    clusters = clusters.take(pc.sort_indices(clusters["content_id"])).combine_chunks()
    clustered = id_values(clusters["content_id"])
    out = Narrow(task, "clustered", schema, "partition")
    for read in _rows_in_ranges(task, rows_schema(options, id_type_of(task))):
        several = Repeated()
        for batch in read():
            several.add(id_values(batch.column("content_id")))
        known = several.values()
        for batch in read():
            ids = id_values(batch.column("content_id"))
            there = among(ids, clustered)
            at = arrow(np.searchsorted(clustered, ids), ~there)
            wanted = arrow(among(ids, known) | there)
            out.add(_clustered(batch.filter(wanted), clusters, at.filter(wanted), schema, task.partitions))
    out.close()


def _clustered(
    rows: pa.RecordBatch, clusters: pa.Table, at: pa.Array, schema: pa.Schema, partitions: int
) -> pa.RecordBatch:
    """Rows with what is said of their content in row `at` of `clusters`; where that is null, it is a cluster of its own."""
    cluster = pc.coalesce(clusters["cluster_id"].take(at).combine_chunks(), rows.column("content_id"))
    known = {name: rows.column(name) for name in rows.schema.names}
    known |= {
        "cluster_id": cluster,
        "kept_content_id": clusters["kept_content_id"].take(at).combine_chunks(),
        "similarity": clusters["similarity"].take(at).combine_chunks(),
        "partition": arrow(partition_of(file_numbers(cluster), partitions)),
    }
    return pa.RecordBatch.from_arrays([known[field.name] for field in schema], schema=schema)


def decide(task: Task) -> None:
    """The clusters of a range of cluster ids, as the user reads them, and the rows that leave, by unit.

    Memory: a piece of the rows, the best row of each content that stays, and the size of each cluster.
    """
    options: DedupOptions = task.options
    id_type = id_type_of(task)
    schema, clusters = clustered_schema(options, id_type), clusters_schema(id_type)

    def read() -> Iterator[pa.RecordBatch]:
        return task.read("clustered", None, task.rank, "partition")

    facts = Facts(read(), schema, options)
    left, losses = Narrow(task, "removed", REMOVED, "unit"), Tally()
    with task.writer("decided", clusters) as writer:
        keys = best_first(["cluster_id", "content_id"], options)
        for rows in in_key_order(read, rows_in(task, "clustered"), schema, keys, task.scratch):
            decided, kept = facts.of(rows, clusters)
            writer.write(decided)
            gone = arrow(~kept)
            out = rows.filter(gone).combine_chunks()
            reason = decided["reason"].combine_chunks().filter(gone)
            left.add(record_batch(REMOVED, *(out[name].combine_chunks() for name in ("unit", "row", "bytes")), reason))
            losses.add(out["source"].combine_chunks())
            copy = np.asarray(rows["kept_content_id"].is_null())
            for name, count in _counts(rows, kept, copy).items():
                task.stats[name] = task.stats.get(name, 0) + count
    left.close()
    if options.source_column:
        _write_sources(task, "losses", losses)


class Facts:
    """What a row of a cluster has to know of the others: how many they are, and the best row of the content that stays."""

    def __init__(self, rows: Iterator[pa.RecordBatch], schema: pa.Schema, options: DedupOptions):
        self._options = options
        sizes = Fold(_SIZES, counted("cluster_id", "rows"))
        names = ["content_id", *options.rank_names, "id", "unit", "row"]
        stays = pa.schema([schema.field(name) for name in names])
        best = Fold(stays, first_rows(best_first(["content_id"], options), "content_id"))
        for batch in rows:
            found = pc.value_counts(batch.column("cluster_id"))
            sizes.add(pa.RecordBatch.from_arrays([found.field(0), found.field(1)], schema=_SIZES))
            best.add(batch.filter(batch.column("kept_content_id").is_null()).select(names))
        self._sizes, self._best = sizes.table(), best.table()

    def of(self, rows: pa.Table, schema: pa.Schema) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
        """(rows as the user reads them; which of them stay)."""
        contents, cluster = rows["content_id"].combine_chunks(), rows["cluster_id"].combine_chunks()
        kept_content = pc.coalesce(rows["kept_content_id"].combine_chunks(), contents)
        at = pc.index_in(kept_content, value_set=self._best["content_id"].combine_chunks())
        holder = self._best.take(at).combine_chunks()
        kept = np.asarray(holder["row"]) == np.asarray(rows["row"])
        kept &= np.asarray(holder["unit"]) == np.asarray(rows["unit"])
        copy = np.asarray(rows["kept_content_id"].is_null())
        similarity = np.where(copy, 1.0, np.asarray(rows["similarity"].combine_chunks()))
        size = pc.index_in(cluster, value_set=self._sizes["cluster_id"].combine_chunks())
        known = {
            "id": rows["id"].combine_chunks(),
            "content_id": hexadecimal(_unscoped(contents, rows, self._options)),
            "cluster_id": hexadecimal(_unscoped(cluster, rows, self._options)),
            "cluster_size": self._sizes["rows"].take(size).combine_chunks(),
            "kept": arrow(kept),
            "kept_id": pc.if_else(arrow(kept), None, holder["id"].combine_chunks()),
            "similarity": arrow(similarity, kept | np.isnan(similarity)),
            "reason": REASONS.take(arrow((~copy).astype(np.int64), kept)),
        }
        return pa.Table.from_arrays([known[field.name] for field in schema], schema=schema), kept


def _counts(rows: pa.Table, kept: npt.NDArray[np.bool_], copy: npt.NDArray[np.bool_]) -> dict[str, Any]:
    sizes = np.asarray(rows["bytes"])
    exact, near = ~kept & copy, ~kept & ~copy
    found: dict[str, Any] = {
        "exact_copy": int(exact.sum()),
        "near_duplicate": int(near.sum()),
        "exact_copy_bytes": int(sizes[exact].sum()),
        "near_duplicate_bytes": int(sizes[near].sum()),
    }
    return found


def publish_clusters(task: Task) -> None:
    """The clusters of all ranges, one behind the other, in files whose bytes do not depend on how many ranges there were."""
    schema = clusters_schema(id_type_of(task))
    writer, rows = task.writer("published", schema, release=True, compression_level=3), 0
    for batch in task.read("decided"):
        if rows >= PUBLISHED_ROWS:
            writer.close()
            writer, rows = task.writer("published", schema, release=True, compression_level=3), 0
        room = PUBLISHED_ROWS - rows
        writer.write(batch.slice(0, room))
        rows += min(batch.num_rows, room)
        if batch.num_rows > room:
            writer.close()
            writer, rows = task.writer("published", schema, release=True, compression_level=3), batch.num_rows - room
            writer.write(batch.slice(room))
    writer.close()


def write_rows(task: Task) -> None:
    """Write the rows of a unit that stay, as they came."""
    unit = InputUnit(**task.params["unit"])
    gone = _marked(
        np.asarray(b.column("row")) - unit.first for b in task.read("removed", ["unit", "row"], unit.number, "unit")
    )
    kept = 0
    if unit.kind == "lines":
        with task.file("data", ".jsonl").open("wb") as out:
            for number, line in read_lines(unit):
                if number - unit.first >= len(gone) or not gone[number - unit.first]:
                    out.write(line + b"\n")
                    kept += 1
    else:
        with task.writer(
            "data", schema_of(unit), heavy=task.options.text_column, row_group_bytes=OUTPUT_BYTES
        ) as writer:
            for first, batch in read_unit(unit, None):
                here = gone[first - unit.first : first - unit.first + batch.num_rows]
                stays = np.ones(batch.num_rows, bool)
                stays[: len(here)] = ~here
                writer.write(batch if stays.all() else batch.filter(arrow(stays)))
        kept = writer.rows
    task.stats.update(kept=kept, removed=int(gone.sum()))


def _marked(numbers: Iterable[npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
    """Which numbers are among these, bool, as long as the largest asks for."""
    marked = np.zeros(0, bool)
    for some in numbers:
        more = int(some.max(initial=-1)) + 1 - len(marked)
        if more > 0:
            marked = np.concatenate((marked, np.zeros(max(more, len(marked)), bool)))
        marked[some] = True
    return marked


# ---------------------------------------------------------------- tables


def best_first(keys: Sequence[str], options: DedupOptions) -> list[tuple[str, str]]:
    """The order by `keys`, then best first: the survivor columns, nulls last, then the id."""
    order = [(name, "ascending") for name in keys]
    order += [
        (name.removeprefix("-"), "descending" if name.startswith("-") else "ascending") for name in options.survivor
    ]
    return [*order, ("id", "ascending")]


def _unscoped(contents: pa.Array, rows: pa.Table, options: DedupOptions) -> pa.Array:
    return scoped(contents, rows["scope"].combine_chunks() if options.scope_column else None)


def hexadecimal(ids: pa.Array) -> pa.Array:
    """binary(20) ids as text of 40 digits, string (n,)."""
    raw = id_bytes(ids)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[np.stack((raw >> 4, raw & 15), axis=2)]
    offsets = np.arange(len(raw) + 1, dtype=np.int32) * 40
    return pa.Array.from_buffers(
        pa.string(), len(raw), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digits))]
    )
