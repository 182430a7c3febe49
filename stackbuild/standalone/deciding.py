"""The tasks of near-duplicate removal that know rows, behind those that know contents alone (`stackbuild.dedup`).

check_ids         a bucket of ids  ->  the first id that stands twice
choose_copies     a partition      ->  files: of the rows of one content the best, which stands for all
cluster_rows      a partition      ->  clustered: the rows of contents that are in a cluster or there several times
decide            a range of clusters  ->  decided (what the user will read), removed (by unit)
publish_clusters  once             ->  the files of clusters
write_rows        a unit           ->  its rows that stay
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.clusters import CLUSTERS
from stackbuild.dedup.numbers import file_numbers, partition_of
from stackbuild.hashing import id_bytes
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


def check_ids(task: Task) -> None:
    """Tell the first row of this bucket whose id an earlier row has: `repeated` = [unit, row] in the task's statistics."""
    table = _read(task, "ids", ids_schema(id_type_of(task)), "bucket")
    hashes = np.asarray(table["hash"])
    shared = np.flatnonzero(np.isin(hashes, _repeated(hashes)))
    table = table.take(arrow(shared))
    table = table.take(pc.sort_indices(table, [(name, "ascending") for name in ("id", "unit", "row")])).combine_chunks()
    ids = table["id"].combine_chunks()
    again = np.flatnonzero(np.asarray(pc.equal(ids.slice(1), ids.slice(0, max(len(ids) - 1, 0))))) + 1
    if len(again):
        where = np.asarray(table["unit"]).astype(np.int64)[again], np.asarray(table["row"])[again]
        first = np.lexsort((where[1], where[0]))[0]
        task.stats["repeated"] = [int(where[0][first]), int(where[1][first])]


def _repeated(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    in_order = np.sort(hashes)
    return np.unique(in_order[1:][in_order[1:] == in_order[:-1]])


def choose_copies(task: Task) -> None:
    """Of the rows of each content the best, by the survivor columns and then the id, in order of content_id."""
    options: DedupOptions = task.options
    schema = rows_schema(options, id_type_of(task))
    table = _sorted(_read(task, "rows", schema, "partition"), ["content_id"], options)
    first = first_of(table["content_id"])
    files = table.filter(arrow(first))
    with task.writer("files", schema, group_by="partition") as writer:
        writer.write(files)
    if options.source_column:
        _write_sources(task, "sources", table)
    task.stats["contents"] = len(files)


def _write_sources(task: Task, name: str, rows: pa.Table) -> None:
    """How many of these rows there are of each source."""
    counted = rows.group_by("source").aggregate([([], "count_all")]).rename_columns(["source", "rows"])
    with task.writer(name, SOURCES) as writer:
        writer.write(counted)


def cluster_rows(task: Task) -> None:
    """The rows whose content is in a cluster, or is there more than once, by the partition of their cluster."""
    options: DedupOptions = task.options
    schema = clustered_schema(options, id_type_of(task))
    rows = _sorted(_read(task, "rows", rows_schema(options, id_type_of(task)), "partition"), ["content_id"], options)
    names = ("partition", "content_id", "cluster_id", "kept_content_id", "similarity")
    clusters = pa.Table.from_batches(
        list(task.read("clusters", names, task.rank, "partition")), pa.schema([CLUSTERS.field(name) for name in names])
    ).combine_chunks()
    at = pc.index_in(rows["content_id"], value_set=clusters["content_id"].combine_chunks())
    first = first_of(rows["content_id"])
    group = np.cumsum(first) - 1
    several = np.bincount(group, minlength=1)[group] > 1 if len(group) else first
    wanted = arrow(several | np.asarray(at.is_valid()))
    rows, at = rows.filter(wanted).combine_chunks(), at.filter(wanted)
    own = rows["content_id"].combine_chunks()
    cluster = pc.coalesce(clusters["cluster_id"].take(at).combine_chunks(), own)
    known = {name: rows[name].combine_chunks() for name in rows.column_names}
    known |= {
        "cluster_id": cluster,
        "kept_content_id": clusters["kept_content_id"].take(at).combine_chunks(),
        "similarity": clusters["similarity"].take(at).combine_chunks(),
        "partition": arrow(partition_of(file_numbers(cluster), task.partitions)),
    }
    out = Narrow(task, "clustered", schema, "partition")
    out.add(pa.RecordBatch.from_arrays([known[field.name] for field in schema], schema=schema))
    out.close()


def decide(task: Task) -> None:
    """The clusters of a range of cluster ids, as the user reads them, and the rows that leave, by unit."""
    options: DedupOptions = task.options
    id_type = id_type_of(task)
    rows = _read(task, "clustered", clustered_schema(options, id_type), "partition")
    rows = _sorted(rows, ["cluster_id", "content_id"], options).combine_chunks()
    contents = rows["content_id"].combine_chunks()
    best = first_of(contents)
    holders = np.flatnonzero(best)
    kept_content = pc.coalesce(rows["kept_content_id"].combine_chunks(), contents)
    holder = pc.index_in(kept_content, value_set=contents.take(arrow(holders)))
    kept_row = holders[np.asarray(holder)] if len(rows) else np.zeros(0, np.int64)
    kept = kept_row == np.arange(len(rows))
    copy = np.asarray(rows["kept_content_id"].is_null())
    similarity = np.where(copy, 1.0, np.asarray(rows["similarity"].combine_chunks()))
    reason = REASONS.take(arrow((~copy).astype(np.int64), kept))
    gone = arrow(~kept)
    cluster = rows["cluster_id"].combine_chunks()
    first = first_of(cluster)
    of = np.cumsum(first) - 1
    known = {
        "id": rows["id"].combine_chunks(),
        "content_id": hexadecimal(_unscoped(contents, rows, options)),
        "cluster_id": hexadecimal(_unscoped(cluster, rows, options)),
        "cluster_size": arrow((np.bincount(of)[of] if len(of) else of).astype(np.int64)),
        "kept": arrow(kept),
        "kept_id": rows["id"].combine_chunks().take(arrow(kept_row, kept)),
        "similarity": arrow(similarity, kept | np.isnan(similarity)),
        "reason": reason,
    }
    schema = clusters_schema(id_type)
    table = pa.Table.from_arrays([known[field.name] for field in schema], schema=schema)
    with task.writer("decided", schema) as writer:
        writer.write(table)
    left = Narrow(task, "removed", REMOVED, "unit")
    out = rows.filter(gone).combine_chunks()
    left.add(
        record_batch(REMOVED, *(out[name].combine_chunks() for name in ("unit", "row", "bytes")), reason.filter(gone))
    )
    left.close()
    if options.source_column:
        _write_sources(task, "losses", out)
    task.stats.update(_counts(rows, kept, np.asarray(copy)))


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
    read = task.read("removed", ["unit", "row"], unit.number, "unit")
    removed = np.sort(np.concatenate([np.zeros(0, np.int64), *(np.asarray(batch.column("row")) for batch in read)]))
    kept = 0
    if unit.kind == "lines":
        with task.file("data", ".jsonl").open("wb") as out:
            for number, line in read_lines(unit):
                at = int(np.searchsorted(removed, number))
                if at == len(removed) or removed[at] != number:
                    out.write(line + b"\n")
                    kept += 1
    else:
        with task.writer(
            "data", schema_of(unit), heavy=task.options.text_column, row_group_bytes=OUTPUT_BYTES
        ) as writer:
            for first, batch in read_unit(unit, None):
                stays = np.ones(batch.num_rows, bool)
                here = removed[np.searchsorted(removed, first) : np.searchsorted(removed, first + batch.num_rows)]
                stays[here - first] = False
                writer.write(batch if stays.all() else batch.filter(arrow(stays)))
        kept = writer.rows
    task.stats.update(kept=kept, removed=len(removed))


# ---------------------------------------------------------------- tables


def _read(task: Task, name: str, schema: pa.Schema, by: str) -> pa.Table:
    return pa.Table.from_batches(list(task.read(name, None, task.rank, by)), schema).combine_chunks()


def _sorted(table: pa.Table, keys: Sequence[str], options: DedupOptions) -> pa.Table:
    """Rows by `keys`, then best first: the survivor columns, nulls last, then the id."""
    order = [(name, "ascending") for name in keys]
    order += [
        (name.removeprefix("-"), "descending" if name.startswith("-") else "ascending") for name in options.survivor
    ]
    return table.take(pc.sort_indices(table, [*order, ("id", "ascending")])).combine_chunks()


def first_of(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bool_]:
    """Which rows of a sorted binary(20) column have another value than the row before, bool (n,)."""
    raw = id_bytes(column)
    first = np.ones(len(raw), bool)
    first[1:] = (raw[1:] != raw[:-1]).any(axis=1)
    return first


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
