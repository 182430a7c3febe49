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
from stackbuild.errors import InputError, UsageError
from stackbuild.hashing import id_bytes
from stackbuild.kernels import kernel
from stackbuild.schema import ID
from stackbuild.standalone.inputs import InputUnit, buffered, read_lines, read_unit
from stackbuild.standalone.lean import settle
from stackbuild.standalone.options import DedupOptions
from stackbuild.standalone.schemas import RANK_TYPES, id_type_of, ids_schema, rows_schema
from stackbuild.tables import byte_lengths, record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task

HELD_ROWS = 1 << 18  # of narrow tables in memory before a sorted run is written
SEEN = 1 << 18  # contents of a task that are known to be sketched


def sketch(task: Task) -> None:
    """Read a unit once: its rows' contents, ids and survivor columns, and the sketch of each content."""
    unit = InputUnit(**task.params["unit"])
    options: DedupOptions = task.options
    id_type = id_type_of(task)
    sketcher = Sketcher(task, bands=not options.exact)
    rows = Narrow(task, "rows", rows_schema(options, id_type), "partition")
    named = Narrow(task, "ids", ids_schema(id_type), "bucket")
    seen, size, count = Seen(), 0, 0
    for turn, (first, read) in enumerate(_batches(unit, options)):
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
        ranks = _ranks(batch, unit, options, task.params["rank_kinds"])
        rows.add(_narrow(contents, unit, numbers, ids, batch, ranks, options, task.partitions, id_type))
        sketcher.add(contents, texts, scopes, seen.fresh(contents))
        if not turn:
            settle()  # the kernels are loaded
    sketcher.close()
    rows.close()
    named.close()
    task.stats.update(rows=count, bytes=size, shingles=sketcher.shingles)


def _batches(unit: InputUnit, options: DedupOptions) -> Iterator[tuple[Any, pa.RecordBatch]]:
    """Batches of (row numbers or the first one) and our columns: text, id, scope, source and those of `survivor`."""
    wanted = {"text": options.text_column, "id": options.id_column, "scope": options.scope_column}
    wanted |= {"source": options.source_column}
    ranks = dict(zip(options.rank_names, options.preferred_columns, strict=True))
    theirs = {ours: column for ours, column in wanted.items() if column} | {f"rank:{k}": v for k, v in ranks.items()}
    if unit.kind == "lines":
        known, any_line = set[str](), False
        for lines in buffered(read_lines(unit)):
            yield _parsed(unit, lines, theirs, known)
            any_line = True
        missing = [column for column in theirs.values() if any_line and column not in known]
        if missing:
            raise UsageError(
                f"No line of {unit.path} has {', '.join(map(repr, missing))}; there are {', '.join(sorted(known)[:30])}."
            )
        return
    for first, batch in read_unit(unit, list(dict.fromkeys(theirs.values()))):
        yield first, pa.RecordBatch.from_arrays([_plain(batch.column(c)) for c in theirs.values()], list(theirs))


def _parsed(
    unit: InputUnit, lines: Sequence[tuple[int, bytes]], theirs: dict[str, str], known: set[str]
) -> tuple[npt.NDArray[np.int64], pa.RecordBatch]:
    columns: dict[str, list[Any]] = {name: [] for name in theirs}
    for number, line in lines:
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is not an object")
            known.update(row)
            for name, column in theirs.items():
                if column not in row and name == "text":
                    raise ValueError(f"it has no {column!r}; it has {', '.join(map(str, list(row)[:30]))}")
                columns[name].append(row.get(column))
            for name in ("text", "scope", "source"):
                if name in columns and not isinstance(columns[name][-1], str | None):
                    raise ValueError(f"{theirs[name]!r} is not text")
            for name, column in theirs.items():
                if name.startswith("rank:") and not isinstance(columns[name][-1], int | float | None):
                    raise ValueError(f"{column!r} is no number to choose survivors by")
        except (ValueError, RecursionError) as error:
            raise InputError(f"{unit.path}, line {number + 1}: {str(error)[:300]}.") from error
    try:
        arrays = [
            pa.array([v.encode("utf-8", "surrogatepass") if v is not None else None for v in values], pa.large_binary())
            if name == "text" else pa.array([None if v is None else float(v) for v in values], pa.float64())
            if name.startswith("rank:") else pa.array(values)
            for name, values in columns.items()
        ]  # fmt: skip
    except (pa.ArrowException, ValueError, OverflowError) as error:
        where = f"lines {lines[0][0] + 1} to {lines[-1][0] + 1}"
        raise InputError(f"{unit.path}, {where}: a column is not of one type ({error}).") from error
    return np.array([number for number, _ in lines], np.int64), pa.RecordBatch.from_arrays(arrays, list(columns))


def _plain(column: pa.Array) -> pa.Array:
    """A column without a dictionary; one of nulls alone as text."""
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
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


def _ranks(batch: pa.RecordBatch, unit: InputUnit, options: DedupOptions, kinds: Sequence[str]) -> list[pa.Array]:
    """The survivor columns as int64 of the same order."""
    ranks = []
    for name, column, kind in zip(options.rank_names, options.preferred_columns, kinds, strict=True):
        try:
            ranks.append(rank_values(batch.column(f"rank:{name}").cast(RANK_TYPES[kind], safe=kind == "integer"), name))
        except pa.ArrowException as error:
            raise InputError(
                f"{unit.path}: {column!r} is no number and no date to choose survivors by ({error})."
            ) from error
    return ranks


def _narrow(
    contents: pa.Array,
    unit: InputUnit,
    numbers: npt.NDArray[np.int64],
    ids: pa.Array,
    batch: pa.RecordBatch,
    ranks: Sequence[pa.Array],
    options: DedupOptions,
    partitions: int,
    id_type: pa.DataType,
) -> pa.RecordBatch:
    n = len(contents)
    words = [
        batch.column(name).cast(pa.string()) if name in batch.schema.names else pa.nulls(n, pa.string())
        for name in ("scope", "source")
    ]
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


class Seen:
    """The contents of a task that are known to be sketched, up to some number: what is forgotten is sketched again."""

    def __init__(self) -> None:
        self._ids = np.zeros(0, "S20")

    def fresh(self, contents: pa.Array) -> npt.NDArray[np.int64]:
        """The rows, ascending, of contents that were not seen before, each once."""
        raw = np.ascontiguousarray(id_bytes(contents)).view("S20").reshape(-1)
        ids, first = np.unique(raw, return_index=True)
        at = np.minimum(np.searchsorted(self._ids, ids), max(len(self._ids) - 1, 0))
        known = self._ids[at] == ids if len(self._ids) else np.zeros(len(ids), bool)
        added = ids[~known]
        self._ids = added if len(self._ids) > SEEN else np.sort(np.concatenate((self._ids, added)), kind="stable")
        return np.sort(first[~known])


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
