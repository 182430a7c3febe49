"""The tasks of near-duplicate removal that know rows: before and after those that know contents alone (`stackbuild.dedup`).

  sketch     a unit of input  ->  rows (by partition of their content), ids (by hash), sketches and bands
  check_ids  a bucket of ids  ->  the first id that stands twice
  copies     a partition      ->  files: of the rows of one content the best, which stands for all
  rows       a partition      ->  clustered: the rows of contents that are in a cluster or there several times
  decide     a range of clusters  ->  clusters (what the user reads), removed (by unit)
  publish    once             ->  the files of clusters
  write      a unit           ->  its rows that stay

A content is the SHA-1 that git gives the text's bytes, as everywhere in the project. Files are compared within a scope: the
id that contents are compared by has the scope's hash in it, so that one text in two languages is two files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from stackbuild.dedup.near_duplicates import rank_values
from stackbuild.dedup.numbers import file_numbers, partition_of
from stackbuild.dedup.sketches import Sketcher, by_column
from stackbuild.dedup.tokenizing import utf8_buffers
from stackbuild.errors import InputError
from stackbuild.hashing import id_bytes
from stackbuild.schema import ID
from stackbuild.standalone.inputs import InputUnit, buffered, read_lines, read_unit, schema_of
from stackbuild.standalone.options import DedupOptions
from stackbuild.tables import arrow, byte_lengths, record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task

HELD_ROWS = 1 << 18  # of narrow tables in memory before a sorted run is written
PUBLISHED_ROWS = 1 << 20  # of a file of clusters
SEEN = 1 << 20  # contents of a task that are known to be sketched

Ids = npt.NDArray[np.uint8]

REMOVED = pa.schema(
    [
        pa.field("unit", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("reason", pa.string()),
    ]
)


def ids_schema(id_type: pa.DataType) -> pa.Schema:
    """Every row's id, by its hash: to find those that stand twice."""
    names = {"bucket": pa.int32(), "hash": pa.uint64(), "id": id_type, "unit": pa.int32(), "row": pa.int64()}
    return pa.schema([pa.field(name, kind) for name, kind in names.items()])


REASONS = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 10, 24], np.int32)), pa.py_buffer(b"exact_copynear_duplicate"))


def rows_schema(options: DedupOptions, id_type: pa.DataType) -> pa.Schema:
    """One narrow row for each row of the input that has a text. `content_id` is within its scope (`scoped`)."""
    return pa.schema(
        [
            pa.field("partition", pa.int32()),
            pa.field("content_id", ID),
            pa.field("unit", pa.int32()),
            pa.field("row", pa.int64()),
            pa.field("id", id_type),
            pa.field("scope", pa.string()),
            pa.field("source", pa.string()),
            pa.field("bytes", pa.int64()),
            *(pa.field(name, pa.int64()) for name in options.rank_names),
        ]
    )


def clustered_schema(options: DedupOptions, id_type: pa.DataType) -> pa.Schema:
    """A row that is in a cluster, with what was decided of its content."""
    return pa.schema(
        [
            *rows_schema(options, id_type),
            pa.field("cluster_id", ID),
            pa.field("kept_content_id", ID),
            pa.field("similarity", pa.float64()),
        ]
    )


def clusters_schema(id_type: pa.DataType) -> pa.Schema:
    """What the user reads: every row that is in a cluster of two or more."""
    return pa.schema(
        [
            pa.field("id", id_type),
            pa.field("content_id", pa.string()),  # hex of git's SHA-1 of the text
            pa.field("cluster_id", pa.string()),  # the smallest content_id in the cluster
            pa.field("cluster_size", pa.int64()),  # rows
            pa.field("kept", pa.bool_()),
            pa.field("kept_id", id_type),  # of the row that stays in this one's place
            pa.field("similarity", pa.float64()),  # with it; exact Jaccard of shingles, 1.0 for an exact copy
            pa.field("reason", pa.string()),  # exact_copy, near_duplicate; null for rows that stay
        ]
    )


# ---------------------------------------------------------------- reading a unit


def sketch(task: Task) -> None:
    """Read a unit once: its rows' contents, ids and survivor columns, and the sketch of each content."""
    unit = InputUnit(**task.params["unit"])
    options: DedupOptions = task.options
    id_type = id_type_of(task)
    sketcher = Sketcher(task, bands=not options.exact)
    rows = Narrow(task, "rows", rows_schema(options, id_type), "partition")
    named = Narrow(task, "ids", ids_schema(id_type), "bucket")
    seen, size, count = np.zeros(0, np.int64), 0, 0
    for first, batch in _batches(unit, options):
        numbers = first + np.arange(batch.num_rows) if isinstance(first, int) else first
        texts = batch.column("text")
        there = pc.is_valid(texts)
        count += batch.num_rows
        size += int(pc.sum(pc.binary_length(texts)).as_py() or 0)
        ids = _row_ids(batch, unit, numbers, id_type)
        named.add(_id_rows(ids, unit, numbers, task.partitions))
        if not pc.all(there).as_py():
            batch, numbers, ids = batch.filter(there), numbers[np.asarray(there)], ids.filter(there)
            texts = batch.column("text")
        scopes = batch.column("scope") if options.scope_column else None
        contents = scoped(content_ids(texts), scopes)
        rows.add(_narrow(contents, unit, numbers, ids, batch, options, task.partitions, id_type))
        files = file_numbers(contents)
        _, once = np.unique(files, return_index=True)
        fresh = np.sort(once[~np.isin(files[once], seen)])
        seen = np.concatenate((seen, files[fresh]))[-SEEN:]
        at = arrow(fresh)
        sketcher.add(contents.take(at), texts.take(at), None if scopes is None else scopes.take(at))
    sketcher.close()
    rows.close()
    named.close()
    task.stats.update(rows=count, bytes=size, shingles=sketcher.shingles)


def id_type_of(task: Task) -> pa.DataType:
    """The type of ids: whole numbers, or text."""
    return pa.int64() if task.params["id_type"] == "int64" else pa.string()


def _batches(unit: InputUnit, options: DedupOptions) -> Iterator[tuple[Any, pa.RecordBatch]]:
    """Batches of (row numbers or the first one) and our columns: text, id, scope, source and those of `survivor`."""
    wanted = {"text": options.text_column, "id": options.id_column, "scope": options.scope_column}
    wanted |= {"source": options.source_column}
    ranks = dict(zip(options.rank_names, options.survivor_columns, strict=True))
    theirs = {ours: column for ours, column in wanted.items() if column} | {f"rank:{k}": v for k, v in ranks.items()}
    if unit.kind == "lines":
        for lines in buffered(read_lines(unit)):
            yield _parsed(unit, lines, theirs)
        return
    for first, batch in read_unit(unit, list(dict.fromkeys(theirs.values()))):
        yield first, pa.RecordBatch.from_arrays([_plain(batch.column(c)) for c in theirs.values()], list(theirs))


def _parsed(
    unit: InputUnit, lines: Sequence[tuple[int, bytes]], theirs: dict[str, str]
) -> tuple[npt.NDArray[np.int64], pa.RecordBatch]:
    columns: dict[str, list[Any]] = {name: [] for name in theirs}
    for number, line in lines:
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is not an object")
            for name, column in theirs.items():
                if column not in row and name == "text":
                    raise ValueError(f"it has no {column!r}; it has {', '.join(map(str, list(row)[:30]))}")
                columns[name].append(row.get(column))
            if not isinstance(columns["text"][-1], str | None):
                raise ValueError(f"{theirs['text']!r} is not text")
        except (ValueError, RecursionError) as error:
            raise InputError(f"{unit.path}, line {number + 1}: {str(error)[:300]}.") from error
    try:
        arrays = [
            pa.array([v.encode("utf-8", "surrogatepass") if v is not None else None for v in values], pa.large_binary())
            if name == "text" else pa.array(values)
            for name, values in columns.items()
        ]  # fmt: skip
    except (pa.ArrowException, ValueError, OverflowError) as error:
        where = f"lines {lines[0][0] + 1} to {lines[-1][0] + 1}"
        raise InputError(f"{unit.path}, {where}: a column is not of one type ({error}).") from error
    return np.array([number for number, _ in lines], np.int64), pa.RecordBatch.from_arrays(arrays, list(columns))


def _plain(column: pa.Array) -> pa.Array:
    """A column without a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def content_ids(texts: pa.Array) -> pa.Array:
    """git's SHA-1 of each text's bytes (a blob's id), binary(20); texts are string or binary without nulls."""
    if len(texts) == 0:
        return pa.array([], ID)
    large = pa.types.is_large_string(texts.type) or pa.types.is_large_binary(texts.type)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64 if large else np.int32)[texts.offset : texts.offset + len(texts) + 1].tolist()
    view = memoryview(data) if data is not None else memoryview(b"")
    digests = bytearray()
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        hashed = hashlib.sha1(b"blob %d\0" % (stop - start), usedforsecurity=False)
        hashed.update(view[start:stop])
        digests += hashed.digest()
    return pa.Array.from_buffers(ID, len(texts), [None, pa.py_buffer(bytes(digests))])


def scoped(contents: pa.Array, scopes: pa.Array | None) -> pa.Array:
    """Content ids within a scope: xored with a hash of its name, which is undone by doing it again."""
    if scopes is None:
        return contents
    encoded = scopes.cast(pa.string()).dictionary_encode(null_encoding="encode")
    names = encoded.dictionary.to_pylist()
    masks = np.array(
        [np.frombuffer(hashlib.blake2b(repr(name).encode(), digest_size=20).digest(), np.uint8) for name in names], np.uint8
    ).reshape(-1, 20)
    mixed = id_bytes(contents) ^ masks[np.asarray(encoded.indices)]
    return pa.Array.from_buffers(ID, len(contents), [None, pa.py_buffer(np.ascontiguousarray(mixed))])


def _row_ids(batch: pa.RecordBatch, unit: InputUnit, numbers: npt.NDArray[np.int64], id_type: pa.DataType) -> pa.Array:
    """The id of each row: the user's, or the file's name and the row's number."""
    if "id" not in batch.schema.names:
        return pa.array([f"{unit.path}:{number}" for number in numbers.tolist()], id_type)
    ids = batch.column("id")
    if ids.null_count:
        row = int(numbers[int(np.flatnonzero(~np.asarray(ids.is_valid()))[0])])
        raise InputError(f"{unit.path}: the id of row {row} is null; give each row an id of its own.")
    try:
        if pa.types.is_binary(ids.type) or pa.types.is_large_binary(ids.type) or pa.types.is_fixed_size_binary(ids.type):
            return pa.array([value.hex() for value in ids.to_pylist()], id_type)
        return ids.cast(id_type)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{unit.path}: ids are not all of the type of the first file's ({error}).") from error


def _id_rows(ids: pa.Array, unit: InputUnit, numbers: npt.NDArray[np.int64], partitions: int) -> pa.RecordBatch:
    hashes = id_hashes(ids)
    bits = partitions.bit_length() - 1
    bucket = (hashes >> np.uint64(64 - bits)).astype(np.int32) if bits else np.zeros(len(hashes), np.int32)
    where = np.full(len(hashes), unit.number, np.int32)
    return record_batch(ids_schema(ids.type), bucket, hashes, ids, where, numbers)


def _narrow(
    contents: pa.Array,
    unit: InputUnit,
    numbers: npt.NDArray[np.int64],
    ids: pa.Array,
    batch: pa.RecordBatch,
    options: DedupOptions,
    partitions: int,
    id_type: pa.DataType,
) -> pa.RecordBatch:
    n = len(contents)
    words = [
        batch.column(name).cast(pa.string()) if name in batch.schema.names else pa.nulls(n, pa.string())
        for name in ("scope", "source")
    ]
    ranks = []
    for name in options.rank_names:
        try:
            ranks.append(rank_values(batch.column(f"rank:{name}"), name))
        except pa.ArrowException as error:
            raise InputError(f"{unit.path}: {name} is no number and no date to choose survivors by ({error}).") from error
    partition = partition_of(file_numbers(contents), partitions)
    sizes = byte_lengths(batch.column("text"))
    where = np.full(n, unit.number, np.int32)
    return record_batch(rows_schema(options, id_type), partition, contents, where, numbers, ids, *words, sizes, *ranks)


@njit(cache=True, nogil=True)
def _fnv(data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    hashes = np.empty(len(bounds) - 1, np.uint64)
    for i in range(len(hashes)):
        value = np.uint64(0xCBF29CE484222325)
        for at in range(bounds[i], bounds[i + 1]):
            value = (value ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
        value = (value ^ (value >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        hashes[i] = value ^ (value >> np.uint64(29))
    return hashes


def id_hashes(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """FNV-1a of ids (int64 or string), mixed, uint64 (n,): where they meet, not whether they are equal."""
    return np.asarray(_fnv(*utf8_buffers(ids.cast(pa.string()))))


class Narrow:
    """A narrow table that arrives in any order and is written in runs sorted by one column."""

    def __init__(self, task: Task, name: str, schema: pa.Schema, by: str):
        self._task, self._name, self._schema, self._by = task, name, schema, by
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= HELD_ROWS:
            self.close()

    def close(self) -> None:
        """Write what is in memory."""
        if self._waiting:
            with self._task.writer(self._name, self._schema, group_by=self._by) as writer:
                for batch in by_column(self._waiting, self._by):
                    writer.write(batch)
        self._waiting, self._rows = [], 0


# ---------------------------------------------------------------- rows and contents


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
    task.stats["contents"] = len(files)


def cluster_rows(task: Task) -> None:
    """The rows whose content is in a cluster, or is there more than once, by the partition of their cluster."""
    options: DedupOptions = task.options
    schema = clustered_schema(options, id_type_of(task))
    rows = _sorted(_read(task, "rows", rows_schema(options, id_type_of(task)), "partition"), ["content_id"], options)
    clusters = pa.Table.from_batches(
        list(task.read("clusters", ["partition", "content_id", "cluster_id", "kept_content_id", "similarity"], task.rank, "partition")),
        pa.schema([("partition", pa.int32()), ("content_id", ID), ("cluster_id", ID), ("kept_content_id", ID), ("similarity", pa.float64())]),
    ).combine_chunks()  # fmt: skip
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
        "similarity": arrow(similarity, kept),
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
    removed = np.sort(
        np.concatenate([np.zeros(0, np.int64), *(np.asarray(b.column("row")) for b in task.read("removed", ["unit", "row"], unit.number, "unit"))])
    )  # fmt: skip
    kept = 0
    if unit.kind == "lines":
        with task.file("data", ".jsonl").open("wb") as out:
            for number, line in read_lines(unit):
                at = int(np.searchsorted(removed, number))
                if at == len(removed) or removed[at] != number:
                    out.write(line + b"\n")
                    kept += 1
    else:
        with task.writer("data", schema_of(unit), heavy=task.options.text_column) as writer:
            for first, batch in read_unit(unit, None):
                stays = np.ones(batch.num_rows, bool)
                here = removed[np.searchsorted(removed, first) : np.searchsorted(removed, first + batch.num_rows)]
                stays[here - first] = False
                writer.write(batch if stays.all() else batch.filter(arrow(stays)))
        kept = writer.rows
    task.stats["kept"] = kept


# ---------------------------------------------------------------- tables


def _read(task: Task, name: str, schema: pa.Schema, by: str) -> pa.Table:
    return pa.Table.from_batches(list(task.read(name, None, task.rank, by)), schema).combine_chunks()


def _sorted(table: pa.Table, keys: Sequence[str], options: DedupOptions) -> pa.Table:
    """Rows by `keys`, then best first: the survivor columns, nulls last, then the id."""
    order = [(name, "ascending") for name in keys]
    order += [(name.removeprefix("-"), "descending" if name.startswith("-") else "ascending") for name in options.survivor]
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
