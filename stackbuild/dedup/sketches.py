"""The first phase of near-duplicate removal: each text is read once, and what later phases need of it is written.

  sketches   signature and distinct shingle hashes of each file, by partition of the file
  bands      its band keys, by bucket (the leading bits of the key)

Both are kept with the build, for look-ups and for builds to come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.limits import SKETCH_ROWS, Limits
from stackbuild.dedup.numbers import BLIND, PLAIN, SEEING, Numbers, file_numbers, partition_of
from stackbuild.dedup.options import NearDedupOptions, Shingling
from stackbuild.dedup.shingles import Hashes
from stackbuild.dedup.signatures import Signatures, Sketches, band_keys, permutation_constants, sketch_texts
from stackbuild.errors import InputError
from stackbuild.hashing import id_bytes, scope_hashes
from stackbuild.schema import ID
from stackbuild.tables import ROW_GROUP_ROWS, arrow, byte_lengths, record_batch, validity

if TYPE_CHECKING:
    from stackbuild.task import Task

SKETCH_BYTES = 2 << 20  # of text that is sketched at a time, unless one file is longer

BANDS = pa.schema([pa.field("bucket", pa.uint16()), pa.field("key", pa.uint64()), pa.field("file", pa.int64())])


def sketches_schema(options: NearDedupOptions) -> pa.Schema:
    """`signature`: `permutations` little-endian uint32. `hashes`: the distinct shingles, ascending, little-endian uint64.
    Both are null for a file without shingles.
    """
    return pa.schema(
        [
            pa.field("partition", pa.int32()),
            pa.field("file", pa.int64()),
            pa.field("content_id", ID),
            pa.field("scope", pa.string()),
            pa.field("shingles", pa.int64()),
            pa.field("signature", pa.binary(4 * options.permutations)),
            pa.field("hashes", pa.large_binary()),
        ]
    )


def variants(texts: pa.Array, rows: Numbers, options: NearDedupOptions) -> Iterator[tuple[int, Numbers, Shingling]]:
    """How rows of texts are sketched: (variant, which of the rows, shingling), each text once, or twice if its header is
    compared.
    """
    if not options.compares_headers:
        yield PLAIN, np.arange(len(rows)), options.shingling
        return
    from stackbuild.dedup.headers import licence_headers

    headed = licence_headers(texts)[rows]
    yield PLAIN, np.flatnonzero(~headed), options.shingling
    yield BLIND, np.flatnonzero(headed), options.shingling
    yield SEEING, np.flatnonzero(headed), options.seeing


class Sketcher:
    """Writes the sketches and band keys of the files of one task, however they arrive, in sorted runs of bounded size."""

    def __init__(self, task: Task, bands: bool = True):
        self._task, self._options = task, task.options
        self._limits = Limits.of(self._options.memory, self._options.permutations)
        self._a, self._b = permutation_constants(task.seed, self._options.permutations)
        self._bands = bands
        self._keys: list[Hashes] = []
        self._files: list[Numbers] = []
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self.shingles = 0
        self.scopes: Counter[str] = Counter()  # files by scope

    def add(self, ids: pa.Array, texts: pa.Array, scopes: pa.Array | None, rows: Numbers | None = None) -> None:
        """Sketch n files: content_id binary(20), text string or binary, scope string or None; of these the `rows`, int64
        ascending, or all. Texts are read where they are.
        """
        if rows is None:
            rows = np.arange(len(texts))
        names = None if scopes is None else scopes.take(arrow(rows))
        hashes = scope_hashes(names, len(rows))
        if names is not None:
            for value in pc.value_counts(names.cast(pa.string())).to_pylist():
                self.scopes[value["values"] or ""] += value["counts"]
        ids = ids.take(arrow(rows))
        for start, stop in _runs(byte_lengths(texts)[rows]):
            first, size = int(rows[start]), stop - start
            here = None if names is None else names.slice(start, size)
            run = texts.slice(first, int(rows[stop - 1]) + 1 - first)
            self._add(ids.slice(start, size), run, here, hashes[start:stop], rows[start:stop] - first)

    def _add(self, ids: pa.Array, texts: pa.Array, names: pa.Array | None, scopes: Hashes, rows: Numbers) -> None:
        numbers = file_numbers(ids)
        for variant, chosen, shingling in variants(texts, rows, self._options):
            if not len(chosen):
                continue
            at = arrow(chosen)
            made = sketch_texts(texts, shingling, self._a, self._b, rows[chosen])
            files = numbers[chosen] | variant
            self._add_bands(made, files, scopes[chosen])
            self._waiting.append(self._rows_of(made, files, ids.take(at), None if names is None else names.take(at)))
            self._bytes += made.hashes.nbytes + made.signatures.nbytes
            self.shingles += len(made.hashes)
            if self._bytes >= self._options.memory // 2:
                self._write_sketches()

    def _add_bands(self, made: Sketches, files: Numbers, scopes: Hashes) -> None:
        if not self._bands:
            return
        bands, per_band = self._options.layout
        signed = np.flatnonzero(np.diff(made.offsets))
        signatures = made.signatures if len(signed) == len(files) else made.signatures[signed]
        self._keys.append(band_keys(signatures, scopes[signed], bands, per_band).reshape(-1))
        self._files.append(np.repeat(files[signed], bands))
        self._rows += len(self._keys[-1])
        if self._rows >= self._limits.bands:
            self._write_bands()

    def _rows_of(self, made: Sketches, files: Numbers, ids: pa.Array, names: pa.Array | None) -> pa.RecordBatch:
        shingles = np.diff(made.offsets)
        none = shingles == 0
        signature = fixed_binary(made.signatures.astype("<u4", copy=False), none)
        hashes = large_binary(made.hashes, made.offsets, none)
        schema = sketches_schema(self._options)
        scope = pa.nulls(len(files), pa.string()) if names is None else names.cast(pa.string())
        partition = partition_of(files, self._task.partitions)
        return record_batch(schema, partition, files, ids, scope, shingles, signature, hashes)

    def _write_sketches(self) -> None:
        schema = sketches_schema(self._options)
        with self._task.writer(
            "sketches", schema, group_by="partition", row_group_rows=SKETCH_ROWS, row_group_bytes=SKETCH_BYTES
        ) as writer:
            for batch in by_column(self._waiting, "partition"):
                writer.write(batch)
        self._waiting, self._bytes = [], 0
        pa.default_memory_pool().release_unused()

    def _write_bands(self) -> None:
        """One run: a file of the table, sorted by bucket (the leading bits of the key)."""
        key = np.concatenate([np.zeros(0, np.uint64), *self._keys])
        self._keys = []
        file = np.concatenate([np.zeros(0, np.int64), *self._files])
        self._files, self._rows = [], 0
        bits = self._task.partitions.bit_length() - 1
        bucket = (key >> np.uint64(64 - bits)).astype(np.uint16) if bits else np.zeros(len(key), np.uint16)
        order = np.argsort(bucket, kind="stable") if bits else None
        with self._task.writer("bands", BANDS, group_by="bucket") as writer:
            for start in range(0, len(key), ROW_GROUP_ROWS):
                run = slice(start, start + ROW_GROUP_ROWS) if order is None else order[start : start + ROW_GROUP_ROWS]
                writer.write(record_batch(BANDS, bucket[run], key[run], file[run]))

    def close(self) -> None:
        """Write what is in memory."""
        if self._bands:
            self._write_bands()
        self._write_sketches()


def sketch(task: Task) -> None:
    """Sketch the files of a partition, or of a part of one."""
    options: NearDedupOptions = task.options
    language = ["language"] if options.scope == "language" else []
    sketcher, last = Sketcher(task, bands=not options.exact), b""
    for batch in task.batches(["content_id", "text", *language]):
        ids = batch.column("content_id")
        last = _refuse_disorder(ids, last, task.rank)
        sketcher.add(ids, batch.column("text"), batch.column("language") if language else None)
    sketcher.close()
    task.stats.update(shingles=sketcher.shingles, scopes=dict(sketcher.scopes))


def _refuse_disorder(ids: pa.Array, last: bytes, partition: int) -> bytes:
    """The last of these content_ids; InputError if they do not ascend from `last` on."""
    if not len(ids):
        return last
    if ids.null_count:
        raise InputError(f"content_id is null in {ids.null_count} rows of partition {partition}.")
    raw = np.ascontiguousarray(id_bytes(ids))
    values = raw.view("S20").reshape(-1)
    if (last and values[0].ljust(20, b"\0") <= last) or (values[1:] <= values[:-1]).any():
        raise InputError(
            f"Near-duplicates: the content_ids of partition {partition} repeat or do not ascend; "
            "files must be one per content (exact_dedup) and sorted by it."
        )
    return bytes(raw[-1].tobytes())


# ---------------------------------------------------------------- Arrow buffers


def _runs(lengths: Numbers) -> Iterator[tuple[int, int]]:
    """Runs of rows of about SKETCH_BYTES of text."""
    if not len(lengths):
        return
    run = (np.cumsum(lengths) - lengths) // SKETCH_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(run)) + 1).tolist(), len(lengths)]
    yield from pairwise(cuts)


def fixed_binary(values: npt.NDArray[np.generic], null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """The rows of an array of shape (n, k) as binary of one width, null where `null` says so, without a copy."""
    width = values.itemsize * values.shape[1]
    return pa.Array.from_buffers(
        pa.binary(width), len(values), [validity(null), pa.py_buffer(np.ascontiguousarray(values))]
    )


def large_binary(hashes: Hashes, offsets: Numbers, null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Runs of uint64 as large_binary: row i is `hashes[offsets[i]:offsets[i + 1]]`; `offsets` int64 (n + 1,) from 0."""
    bounds = pa.py_buffer(np.ascontiguousarray(offsets * 8))
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, [validity(null), bounds, pa.py_buffer(hashes)])


def hash_runs(column: pa.Array) -> tuple[Hashes, Numbers]:
    """What `large_binary` made: (uint64 of all rows, offsets int64 (n + 1,) from 0); a null row is empty.

    The hashes are a view where the buffer is aligned.
    """
    if not len(column):
        return np.zeros(0, np.uint64), np.zeros(1, np.int64)
    if column.null_count:
        column = column.fill_null(b"")
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64, len(column) + 1, 8 * column.offset)
    start, stop = int(bounds[0]), int(bounds[-1])
    if data is None or start == stop:
        return np.zeros(0, np.uint64), (bounds - start) // 8
    return np.frombuffer(data, np.uint64, (stop - start) // 8, start), (bounds - start) // 8


def signature_rows(column: pa.Array, permutations: int) -> Signatures:
    """A column of signatures, none null, as uint32 of shape (n, permutations)."""
    if not len(column):
        return np.zeros((0, permutations), np.uint32)
    raw = np.frombuffer(column.buffers()[1], "<u4", len(column) * permutations, 4 * permutations * column.offset)
    return raw.reshape(-1, permutations)


def by_column(batches: Sequence[pa.RecordBatch], name: str) -> Iterator[pa.RecordBatch]:
    """The rows of batches, ascending in an integer column, without a copy of all of them: a value after the other."""
    for value in sorted({int(v) for batch in batches for v in np.unique(np.asarray(batch.column(name)))}):
        for batch in batches:
            values = np.asarray(batch.column(name))
            rows = np.flatnonzero(values == value)
            if len(rows) == len(values):
                yield batch
            elif len(rows):
                at = int(rows[0])
                consecutive = int(rows[-1]) - at == len(rows) - 1
                yield batch.slice(at, len(rows)) if consecutive else batch.take(arrow(rows))
