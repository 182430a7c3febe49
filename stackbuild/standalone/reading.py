"""The first task of near-duplicate removal on a table of one's own: a unit of input is read once.

A content is the SHA-1 that git gives the text's bytes, as everywhere in the project. Files are compared within a scope: the
id that contents are compared by has the scope's hash in it, so that one text in two languages is two files.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.near_duplicates import rank_values
from stackbuild.dedup.numbers import file_numbers, partition_of
from stackbuild.dedup.sketches import Sketcher, by_column
from stackbuild.dedup.tokenizing import utf8_buffers
from stackbuild.errors import InputError
from stackbuild.hashing import id_bytes
from stackbuild.kernels import kernel
from stackbuild.schema import ID
from stackbuild.standalone.inputs import InputUnit, buffered, read_lines, read_unit
from stackbuild.standalone.options import DedupOptions
from stackbuild.standalone.schemas import id_type_of, ids_schema, rows_schema
from stackbuild.tables import arrow, byte_lengths, record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task

HELD_ROWS = 1 << 18  # of narrow tables in memory before a sorted run is written
SEEN = 1 << 20  # contents of a task that are known to be sketched


def sketch(task: Task) -> None:
    """Read a unit once: its rows' contents, ids and survivor columns, and the sketch of each content."""
    unit = InputUnit(**task.params["unit"])
    options: DedupOptions = task.options
    id_type = id_type_of(task)
    sketcher = Sketcher(task, bands=not options.exact)
    rows = Narrow(task, "rows", rows_schema(options, id_type), "partition")
    named = Narrow(task, "ids", ids_schema(id_type), "bucket")
    seen, size, count = np.zeros(0, np.int64), 0, 0
    for first, read in _batches(unit, options):
        batch = read
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
    bounds = np.frombuffer(offsets, np.int64 if large else np.int32)[
        texts.offset : texts.offset + len(texts) + 1
    ].tolist()
    view = memoryview(data) if data is not None else memoryview(b"")
    digests = bytearray()
    for start, stop in itertools.pairwise(bounds):
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
        [np.frombuffer(hashlib.blake2b(repr(name).encode(), digest_size=20).digest(), np.uint8) for name in names],
        np.uint8,
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
        if (
            pa.types.is_binary(ids.type)
            or pa.types.is_large_binary(ids.type)
            or pa.types.is_fixed_size_binary(ids.type)
        ):
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
            raise InputError(
                f"{unit.path}: {name} is no number and no date to choose survivors by ({error})."
            ) from error
    partition = partition_of(file_numbers(contents), partitions)
    sizes = byte_lengths(batch.column("text"))
    where = np.full(n, unit.number, np.int32)
    return record_batch(rows_schema(options, id_type), partition, contents, where, numbers, ids, *words, sizes, *ranks)


@kernel
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
