"""Parquet tables whose bytes follow from their rows alone, hashed while they are written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 65_536
SLICE_ROWS = 4_096
ROW_GROUP_BYTES = 16 << 20  # of the heavy column; a batch in memory is about this large
HEAVY = ("content", "text", "hashes")
NO_DICTIONARY = {"content", "text", "content_id", "blob_id", "path_bytes", "path", "signature", "hashes", "key", "file", "left",
                 "right", "root"}  # fmt: skip
RANDOM = {"signature", "hashes", "key"}  # nothing shortens them


class HashingFile:
    """A binary file opened for writing that knows the SHA-256 of what went through it."""

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "wb")  # noqa: SIM115  closed by close()
        self._hash = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        try:
            self._file.write(view)
        except OSError as error:
            self._name(error)
            raise
        self.bytes += len(view)
        return len(view)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._file.flush()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        if not self.closed:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
            except OSError as error:
                self._name(error)
                raise
            self.closed = True

    def _name(self, error: OSError) -> None:
        """Let an error of the system name the file: there may be several disks, and one of them is full."""
        error.filename = error.filename or str(self.path)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def group_ends(weights: npt.NDArray[np.int64] | None, rows: int, max_rows: int, max_bytes: int) -> list[int]:
    """Where full row groups end: a group is closed before the row that would take it over either limit.

    `weights`: bytes of each row, int64 (rows,), or None for a limit on rows alone. A row over the limit stands alone. The
    cut depends on the rows from the last cut on and on nothing else; the tail that may still grow is not listed.
    """
    ends: list[int] = []
    start = 0
    if weights is None:
        return list(range(max_rows, rows + 1, max_rows))
    total = np.cumsum(weights)
    while start < rows:
        before = int(total[start - 1]) if start else 0
        stop = int(np.searchsorted(total, before + max_bytes, side="right"))
        stop = min(max(stop, start + 1), start + max_rows)
        if stop >= rows and not (stop == start + max_rows and stop == rows):
            break
        ends.append(stop)
        start = stop
    return ends


class TableWriter:
    """A Parquet file whose row groups follow from its rows alone, however they arrive.

    `group_by` names an integer column, in which rows arrive in ascending order, whose every value gets row groups of its
    own, so that a reader of one value decodes nothing else; the values seen are kept in `groups`. `heavy`: the column of text
    or bytes that row groups are measured by, one of HEAVY unless named, as it is for tables that are not of our own schemas.
    `plain`: further columns that no dictionary shortens. `bloom`: column -> distinct values of a row group, for columns that get a
    Bloom filter.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        *,
        group_by: str | None = None,
        row_group_rows: int = ROW_GROUP_ROWS,
        row_group_bytes: int = ROW_GROUP_BYTES,
        compression_level: int = 1,
        release: bool = False,
        heavy: str | None = None,
        plain: Collection[str] = (),
        bloom: Mapping[str, int] | None = None,
    ):
        self.schema = schema
        self.rows = 0
        self.groups: dict[int, int] = {}
        self._group_by = group_by
        self._group: int | None = None  # the value at hand
        self._max_rows, self._max_bytes = row_group_rows, row_group_bytes
        self._heavy = heavy or next((name for name in HEAVY if name in schema.names), None)
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self._file = HashingFile(path)
        more: dict[str, Any] = {"use_content_defined_chunking": True, "write_page_index": True} if release else {}
        if bloom:
            more["bloom_filter_options"] = {name: {"ndv": values, "fpp": 0.01} for name, values in bloom.items()}
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._file, mode="w"),
            schema,
            **_compression(schema if heavy is None else pa.schema([]), compression_level),
            use_dictionary=[
                f.name
                for f in schema
                if f.name not in NO_DICTIONARY | {heavy, *plain} and not pa.types.is_nested(f.type)
            ],
            write_statistics=[f.name for f in schema if f.name not in HEAVY and f.name != heavy],
            write_page_checksum=True,
            **more,
        )

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        """Append rows; columns are taken by name and must fit the schema."""
        batches = data.to_batches() if isinstance(data, pa.Table) else [data]
        for batch in batches:
            if batch.num_rows:
                self._append(conform(batch, self.schema))

    def _append(self, batch: pa.RecordBatch) -> None:
        if self._group_by:
            values = np.asarray(batch.column(batch.schema.get_field_index(self._group_by)))
            cuts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), batch.num_rows]
            for start, stop in pairwise(cuts):
                value = int(values[start])
                if value != self._group:
                    if value in self.groups:
                        raise ValueError(
                            f"{self._group_by} {value} comes again behind {self._group}: rows are not sorted"
                        )
                    self._drain(final=True)
                    self.groups[value] = 0
                    self._group = value
                self.groups[value] += stop - start
                self._queue(batch.slice(start, stop - start))
        else:
            self._queue(batch)

    def _queue(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self._pending_bytes += int(self._weights(batch).sum()) if self._heavy else 0
        if self._pending_rows >= self._max_rows or self._pending_bytes > self._max_bytes:
            self._drain(final=False)

    def _weights(self, data: pa.RecordBatch | pa.Table) -> npt.NDArray[np.int64]:
        column = data.column(self._heavy)
        return byte_lengths(column)

    def _drain(self, final: bool) -> None:
        if not self._pending_rows:
            return
        table = pa.Table.from_batches(self._pending, self.schema)
        weights = self._weights(table) if self._heavy else None
        ends = group_ends(weights, table.num_rows, self._max_rows, self._max_bytes)
        if final and (not ends or ends[-1] < table.num_rows):
            ends.append(table.num_rows)
        start = 0
        for stop in ends:
            self._writer.write_table(table.slice(start, stop - start), row_group_size=stop - start)
            start = stop
        rest = table.slice(start)
        self.rows += start
        self._pending = rest.to_batches()
        self._pending_rows = rest.num_rows
        self._pending_bytes = int(self._weights(rest).sum()) if self._heavy and rest.num_rows else 0

    def close(self) -> None:
        """Write what is pending and make the file durable."""
        self._drain(final=True)
        self._writer.close()
        self._file.close()

    def abort(self) -> None:
        """Let go of the file; it is left for whoever removes the attempt."""
        self._pending = []
        self._pending_rows = 0
        with_suppressed(self._writer.close)
        with_suppressed(self._file.close)

    @property
    def sha256(self) -> str:
        return self._file.sha256

    @property
    def bytes(self) -> int:
        return self._file.bytes

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _compression(schema: pa.Schema, level: int) -> dict[str, Any]:
    """zstd, but for columns of random bits."""
    if RANDOM.isdisjoint(schema.names):
        return {"compression": "zstd", "compression_level": level}
    packed = [field.name for field in schema if field.name not in RANDOM]
    return {
        "compression": {field.name: "NONE" if field.name in RANDOM else "zstd" for field in schema},
        "compression_level": dict.fromkeys(packed, level),
    }


def in_order(table: pa.Table, order: npt.NDArray[np.int64] | pa.Array, rows: int = SLICE_ROWS) -> Iterator[pa.Table]:
    """The rows of a table of one chunk in an order, some thousand at a time, so that a sorted copy of heavy columns never
    stands whole in memory.

    The chunk is asked for because a take from several puts them together first, all of them for every slice.
    """
    if any(column.num_chunks > 1 for column in table.columns):
        raise ValueError("combine the table's chunks first")
    indices = order if isinstance(order, pa.Array) else arrow(order)
    for start in range(0, len(indices), rows):
        yield table.take(indices.slice(start, rows))


def with_suppressed(action: Any) -> None:
    """Run a clean-up that must not hide the error that led to it."""
    try:
        action()
    except Exception:
        return


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the schema's columns in its order, cast where the type differs; a missing column is null."""
    arrays = []
    for column in schema:
        index = batch.schema.get_field_index(column.name)
        if index < 0:
            arrays.append(pa.nulls(batch.num_rows, column.type))
            continue
        array = batch.column(index)
        arrays.append(array if array.type == column.type else array.cast(column.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def byte_lengths(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Bytes of each value of a column of text or bytes, int64 (n,); 0 for a null, and where a dictionary stands between."""
    if pa.types.is_dictionary(column.type) or pa.types.is_null(column.type):
        return np.zeros(len(column), np.int64)
    lengths = pc.binary_length(column)
    if not column.null_count:
        return np.asarray(lengths).astype(np.int64)
    return np.asarray(pc.fill_null(lengths, 0)).astype(np.int64)


def arrow(values: npt.NDArray[Any], null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Numbers or booleans of shape (n,) as an Arrow array, null where `null` says so, over the same memory."""
    valid = validity(null)
    if values.dtype == np.bool_:
        return pa.Array.from_buffers(
            pa.bool_(), len(values), [valid, pa.py_buffer(np.packbits(values, bitorder="little"))]
        )
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))])


def validity(null: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    """Arrow's validity bitmap of an array that is null where `null` (bool (n,)) says so; None where nothing is."""
    return None if null is None or not null.any() else pa.py_buffer(np.packbits(~null, bitorder="little"))


def record_batch(schema: pa.Schema, *columns: npt.NDArray[Any] | pa.Array) -> pa.RecordBatch:
    """A batch of these columns, numpy arrays or Arrow's, in the schema's order."""
    arrays = [column if isinstance(column, pa.Array) else arrow(column) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def display_paths(path_bytes: pa.Array) -> tuple[pa.Array, pa.Array]:
    """(`path`: "/" and the name with U+FFFD for bytes that are not UTF-8, `path_lossy`)."""
    try:
        text = path_bytes.cast(pa.string())
        lossy = pa.array(np.zeros(len(text), bool))
    except pa.ArrowInvalid:
        raw = path_bytes.to_pylist()
        decoded = [value.decode("utf-8", "replace") for value in raw]
        lossy = pa.array([name.encode() != value for name, value in zip(decoded, raw, strict=True)], pa.bool_())
        text = pa.array(decoded, pa.string())
    return pc.binary_join_element_wise("/", text, ""), lossy
