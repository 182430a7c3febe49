"""Convert a file of an export to rows of one of our tables, sorted by its key, within a stated memory.

    with opened(file) as table:
        for piece in convert(table, ENTRIES, scratch, counts): writer.write(piece)

A file's rows are gathered up to a bound, sorted, and spilled as a run; runs are merged. A file that fits is never spilled.
What comes out follows from the file's rows and their order alone: neither batches, nor the bound, nor the runs change it,
and ORC and Parquet of the same rows give the same. Rows that are none (an id that is not 40 hexadecimal digits, an
unknown kind) are left out and counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError
from stackbuild.kernels import kernel
from stackbuild.schema import ID, TIMESTAMP
from stackbuild.sources.swh.export import BATCH_ROWS, TableFile
from stackbuild.sources.swh.row_order import bytes_of, merge, sorted_pieces, write_run
from stackbuild.sources.swh.tables import ALIAS, TARGET_TYPES, Column, TableSpec
from stackbuild.sources.timestamps import as_timestamps
from stackbuild.tables import TableWriter, arrow

MEMORY: Final = 256 << 20  # bytes for rows that are gathered and sorted; the interpreter and the reader come on top
COPIES: Final = (
    3  # of the gathered rows in memory: themselves, put together, and their order with a piece of them sorted
)
ROW_GROUP_ROWS: Final = 100_000
KINDS_READ: Final = {"id": "text", "target": "text", "word": "text", "text": "text", "name": "bytes", "bytes": "bytes",
                     "integer": "integer", "time": "time", "seconds": "time"}  # fmt: skip


@dataclass
class Counts:
    """What became of a file's rows: rows_in = rows_out + the sum of `left_out` (by reason) + `unwanted`.

    `unwanted`: rows of which the table holds nothing (`TableSpec.only`). `whole_seconds`: times have no fractions, because one of
    them is beyond what Arrow reads, or because only these are wanted.
    """

    rows_in: int = 0
    rows_out: int = 0
    unwanted: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    whole_seconds: bool = False
    runs: int = 0  # that were spilled


def convert(
    file: TableFile,
    spec: TableSpec,
    scratch: Path,
    counts: Counts,
    memory_bytes: int = MEMORY,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file as batches of `spec.schema`, sorted by `spec.key`. Runs are spilled into `scratch`.

    InputError if the file lacks a column, holds one of another kind, or is damaged.
    """
    needed = {column.theirs: KINDS_READ[column.how] for column in spec.columns}
    file.need(needed | ({spec.only: "bytes"} if spec.only else {}))
    batches = file.batches
    kinds = {column.how for column in spec.columns}
    if "seconds" in kinds or ("time" in kinds and file.has_wild_times):
        batches, counts.whole_seconds = file.batches_with_seconds, True
    rows = _converted(batches(spec.reads, batch_rows), file.file.url, spec, counts)
    runs: list[Path] = []
    for gathered in _gathered(rows, memory_bytes // COPIES):
        if gathered.last and not runs:
            yield from sorted_pieces(gathered.whole(), spec.key)
            return
        path = scratch / f"{spec.name}-{len(runs):06d}.arrow"
        write_run(path, sorted_pieces(gathered.whole(), spec.key))
        runs.append(path)
    counts.runs = len(runs)
    if runs:
        yield from merge(runs, spec.key, scratch)


def _converted(
    batches: Iterator[pa.RecordBatch], url: str, spec: TableSpec, counts: Counts
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        try:
            yield convert_batch(batch, spec, counts)
        except pa.ArrowInvalid as error:
            raise InputError(f"{url} cannot be read as {spec.name}: {error}") from error


@dataclass
class _Gathered:
    batches: list[pa.RecordBatch]
    last: bool

    def whole(self) -> pa.RecordBatch:
        """One batch; the single ones are let go of."""
        table = pa.Table.from_batches(self.batches)
        self.batches.clear()
        return table.combine_chunks().to_batches()[0]


def _gathered(batches: Iterator[pa.RecordBatch], limit: int) -> Iterator[_Gathered]:
    """Batches of `limit` bytes together, or of one that is larger."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        if held and size + batch.nbytes > limit:
            yield _Gathered(held, last=False)
            held, size = [], 0
        held.append(batch)
        size += batch.nbytes
    if held:
        yield _Gathered(held, last=True)


def writer_options(spec: TableSpec) -> dict[str, Any]:
    """How `TableWriter` writes a converted table: row groups that a range of keys can skip, a Bloom filter on its id."""
    heavy = {"heavy": "raw_manifest"} if "raw_manifest" in spec.schema.names else {}
    return {
        "row_group_rows": ROW_GROUP_ROWS,
        "plain": spec.plain,
        "bloom": {spec.bloom: ROW_GROUP_ROWS} if spec.bloom else {},
        **heavy,
    }


def convert_file(file: TableFile, spec: TableSpec, path: Path, scratch: Path, memory_bytes: int = MEMORY) -> Counts:
    """Convert a file to the Parquet file `path`."""
    counts = Counts()
    with TableWriter(path, spec.schema, **writer_options(spec)) as writer:
        for piece in convert(file, spec, scratch, counts, memory_bytes):
            writer.write(piece)
    return counts


# ---------------------------------------------------------------- one batch


def convert_batch(batch: pa.RecordBatch, spec: TableSpec, counts: Counts) -> pa.RecordBatch:
    """The rows of a batch of the export as rows of `spec.schema`, in the same order; those left out are counted."""
    counts.rows_in += batch.num_rows
    if spec.only is not None:
        wanted = batch.column(spec.only).is_valid()
        counts.unwanted += batch.num_rows - int(pc.sum(wanted).as_py() or 0)
        batch = batch.filter(wanted)
    arrays: list[pa.Array] = []
    keep = np.ones(batch.num_rows, bool)
    kinds: Mapping[str, Column] = {column.name: column for column in spec.columns}
    for column in spec.columns:
        theirs = batch.column(column.theirs)
        bad: npt.NDArray[np.bool_] | None
        if column.how == "target":
            types = _words(batch.column(kinds["target_type"].theirs), TARGET_TYPES)
            array, bad = _targets(theirs, np.asarray(pc.equal(types, ALIAS).fill_null(False)))
            made, reason = [array], "neither 40 hexadecimal digits nor those of a name"
        else:
            made, bad, reason = _CONVERSIONS[column.how](theirs, column)
        if theirs.null_count and not column.nullable and column.how != "time":
            null = np.asarray(theirs.is_null()) & keep
            _count(counts, f"{column.theirs}: null", null)
            keep &= ~null
        if bad is not None:
            _count(counts, f"{column.theirs}: {reason}", bad & keep)
            keep &= ~bad
        arrays += made
    rows = pa.RecordBatch.from_arrays(arrays, schema=spec.schema)
    if not keep.all():
        rows = rows.filter(arrow(keep))
    counts.rows_out += rows.num_rows
    return rows


def _count(counts: Counts, reason: str, rows: npt.NDArray[np.bool_]) -> None:
    if found := int(np.count_nonzero(rows)):
        counts.left_out[reason] += found


Made = tuple[list[pa.Array], "npt.NDArray[np.bool_] | None", str]  # columns, rows that are none (null ones apart), why


def _ids(array: pa.Array, column: Column) -> Made:
    text = _plain(array, pa.string())
    ids, null, bad = unhex(text)
    valid = None if not null.any() else pa.py_buffer(np.packbits(~null, bitorder="little"))
    made = pa.Array.from_buffers(ID, len(text), [valid, pa.py_buffer(ids)])
    return [made], bad if bad.any() else None, "not 40 hexadecimal digits"


def _plain_bytes(array: pa.Array, column: Column) -> Made:
    return [_plain(array, pa.binary())], None, ""


def _names(array: pa.Array, column: Column) -> Made:
    """A name of a tree has no "/" or NUL in it, and is not empty: such a row would be a path of somewhere else."""
    names = _plain(array, pa.binary())
    offsets, data = bytes_of(names)
    part = data[offsets[0] : offsets[-1]]
    if (np.diff(offsets) > 0).all() and not (part == ord("/")).any() and not (part == 0).any():
        return [names], None, ""
    return [names], _no_name(offsets, data), "no name that a folder can hold"


def _text(array: pa.Array, column: Column) -> Made:
    text = _plain(array, pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:  # seldom enough for a loop over the batch
        raw = text.view(pa.binary()).to_pylist()
        bad = np.array([value is not None and not _is_utf8(value) for value in raw], bool)
        blank = pa.array([None if wrong else value for value, wrong in zip(raw, bad, strict=True)], pa.binary())
        return [blank.cast(pa.string())], bad, "not UTF-8"
    return [text], None, ""


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _word(array: pa.Array, column: Column) -> Made:
    words = _words(array, column.words)
    bad = np.asarray(pc.and_(words.is_null(), array.is_valid()))
    return [words], bad if bad.any() else None, f"none of {', '.join(column.words)}"


def _integer(array: pa.Array, column: Column) -> Made:
    kind = column.fields()[0].type
    if array.type == kind:
        return [array], None, ""
    wide = array.cast(pa.int64(), safe=False)  # only uint64 has more, which no column of an export is
    limit = 2 ** (kind.bit_width - 1)
    bad = np.asarray(pc.or_(pc.less(wide, -limit), pc.greater(wide, limit - 1)).fill_null(False))
    return [wide.cast(kind, safe=False)], bad if bad.any() else None, "out of range"


def _time(array: pa.Array, column: Column) -> Made:
    return list(times(array)), None, ""


def _seconds(array: pa.Array, column: Column) -> Made:
    return [times(array)[1]], None, ""


_CONVERSIONS: Final = {
    "id": _ids,
    "bytes": _plain_bytes,
    "name": _names,
    "text": _text,
    "word": _word,
    "integer": _integer,
    "time": _time,
    "seconds": _seconds,
}


def _plain(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Without dictionary, with 32-bit offsets."""
    return array if array.type == kind else array.cast(kind)


def _words(array: pa.Array, words: tuple[str, ...]) -> pa.Array:
    """The place of each word, int8, null where there is none."""
    return pc.index_in(_plain(array, pa.string()), value_set=pa.array(words)).cast(pa.int8())


def times(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """(timestamp[ns], null beyond its range; int64 whole seconds since 1970, rounded down) of any type that times have:
    timestamps, structs of seconds and microseconds, int64 seconds, or null.
    """
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), TIMESTAMP), pa.nulls(len(array), pa.int64())
    fraction = pa.scalar(0, pa.int64())
    if pa.types.is_struct(array.type):
        seconds, micros = (part.cast(pa.int64(), safe=False) for part in array.flatten())
        fraction = pc.multiply(micros, pa.scalar(1000, pa.int64()))
    elif pa.types.is_integer(array.type):
        seconds = array.cast(pa.int64())
    else:
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
        ticks = np.asarray(array.cast(pa.int64()).fill_null(0))
        null = np.asarray(array.is_null())
        return as_timestamps(array.cast(pa.timestamp(array.type.unit))), arrow(ticks // per_second, null)
    limit = (2**63 - 1) // 10**9 - 1
    fits = pc.and_(pc.less_equal(seconds, limit), pc.greater_equal(seconds, -limit))
    near = pc.if_else(fits, seconds, pa.scalar(None, pa.int64()))
    stamps = pc.add(pc.multiply(near, pa.scalar(10**9, pa.int64())), fraction)
    return stamps.cast(TIMESTAMP), seconds


def unhex(text: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(ids uint8 (n, 20), null bool (n,), neither null nor 40 hexadecimal digits bool (n,)) of a string column."""
    offsets, data = bytes_of(text)
    null = np.asarray(text.is_null()) if text.null_count else np.zeros(len(text), bool)
    ids = np.zeros((len(text), 20), np.uint8)
    good = _unhex(offsets, data, ids)
    return ids, null, ~(good | null)


def _targets(array: pa.Array, alias: npt.NDArray[np.bool_]) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """What the digits stand for, binary; bad: of an odd number, no digits, or not 40 of them where it is no alias."""
    text = _plain(array, pa.string())
    offsets, data = bytes_of(text)
    ends, out, bad = _unhex_any(offsets, data, DIGITS, alias)
    valid = text.buffers()[0] if not text.offset else None
    if text.null_count and valid is None:
        valid = pa.py_buffer(np.packbits(np.asarray(text.is_valid()), bitorder="little"))
    bad &= np.asarray(text.is_valid())
    made = pa.Array.from_buffers(pa.binary(), len(text), [valid, pa.py_buffer(ends), pa.py_buffer(out)])
    return made, bad


# ---------------------------------------------------------------- kernels

DIGITS: Final = np.full(256, 255, np.uint8)  # the value of each hexadecimal digit, 255 for any other byte
for _value, _digit in enumerate("0123456789abcdef"):
    DIGITS[ord(_digit)] = DIGITS[ord(_digit.upper())] = _value


@kernel
def _unhex(offsets: Any, data: Any, ids: Any) -> Any:
    """Fill `ids`; whether each text is 40 digits, bool (n,). By arithmetic, of which the compiler makes vector instructions."""
    rows = len(offsets) - 1
    good = np.zeros(rows, np.bool_)
    values = np.empty(40, np.uint8)
    for row in range(rows):
        start = offsets[row]
        if offsets[row + 1] - start != 40:
            continue
        text = data[start : start + 40]
        bad = np.uint8(0)
        for at in range(40):
            byte = text[at]
            digit, letter = np.uint8(byte - np.uint8(48)), np.uint8((byte | np.uint8(32)) - np.uint8(97))
            values[at] = digit if digit < np.uint8(10) else np.uint8(letter + np.uint8(10))
            bad |= np.uint8(digit >= np.uint8(10) and letter >= np.uint8(6))
        for at in range(20):
            ids[row, at] = (values[2 * at] << np.uint8(4)) | (values[2 * at + 1] & np.uint8(15))
        good[row] = bad == 0
    return good


@kernel
def _unhex_any(offsets: Any, data: Any, digits: Any, alias: Any) -> Any:
    """(offsets int32 (n + 1,), data uint8, bad bool (n,)) of texts of any number of digits; bad ones are empty."""
    rows = len(offsets) - 1
    ends = np.zeros(rows + 1, np.int32)
    out = np.zeros((offsets[rows] - offsets[0]) // 2, np.uint8)
    bad = np.zeros(rows, np.bool_)
    end = 0
    for row in range(rows):
        start, size = offsets[row], offsets[row + 1] - offsets[row]
        worst = np.uint8(0)
        if size % 2 or (size != 40 and not alias[row]):
            bad[row] = True
        else:
            for at in range(size // 2):
                high, low = digits[data[start + 2 * at]], digits[data[start + 2 * at + 1]]
                worst |= high | low
                out[end + at] = (high << np.uint8(4)) | (low & np.uint8(15))
            if worst < 16:
                end += size // 2
            else:
                bad[row] = True
        ends[row + 1] = end
    return ends, out[:end], bad


@kernel
def _no_name(offsets: Any, data: Any) -> Any:
    """Whether each name is empty or has "/" or NUL in it, bool (n,)."""
    rows = len(offsets) - 1
    bad = np.zeros(rows, np.bool_)
    for row in range(rows):
        found = offsets[row] == offsets[row + 1]
        for at in range(offsets[row], offsets[row + 1]):
            found |= data[at] == 47 or data[at] == 0
        bad[row] = found
    return bad
