"""Anyone's rows: Parquet, JSON lines and saved `datasets` folders, cut into units that are read by themselves.

A unit is a run of row groups of a Parquet file, of lines of an uncompressed JSON file, or a whole file of another kind.
Rows are numbered within their file, so that a number tells where a row lies.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError, UsageError
from stackbuild.sources import arrow_stream, json_lines
from stackbuild.sources.row_files import JSON_SUFFIXES, SUFFIXES, find, stem_of
from stackbuild.sources.unit import Skipped

UNIT_BYTES = 128 << 20  # decoded text of a unit, about
BATCH_BYTES = 2 << 20  # decoded text of a batch, about
MOST_ROWS = 8192  # of a batch
FEW_ROWS = 64  # that are decoded at a time where a dictionary hides how long they are
LINE_BYTES = 2048  # of a row whose file does not say how many it has; a guess for planning
LONGEST_LINE = 1 << 30  # bytes


@dataclass(frozen=True)
class InputUnit:
    """Rows of one file: `first` is the number of its first row; `start`, `stop`: row groups of a Parquet file, bytes of
    JSON lines, nothing else. `bytes`, `rows`: of the text, about. `stamp`: size and times of change of the file when planned."""

    number: int
    path: str
    kind: str  # parquet, lines, arrow
    first: int
    start: int
    stop: int
    bytes: int
    rows: int
    part: tuple[int, int]  # which unit of its file this is, of how many
    stamp: tuple[int, int, int]
    folder: str  # of the file, below what all inputs have in common

    def identity(self) -> list[Any]:
        """What the unit's output depends on."""
        return [self.path, self.kind, self.start, self.stop, *self.stamp]

    @property
    def name(self) -> str:
        """Of the file that its rows are written to."""
        stem, (number, of) = stem_of(Path(self.path)), self.part
        suffix = ".jsonl" if self.kind == "lines" else ".parquet"
        name = f"{stem}{suffix}" if of == 1 else f"{stem}-{number:05d}-of-{of:05d}{suffix}"
        return str(Path(self.folder, name))


def plan_units(
    paths: Sequence[str], text_column: str, unit_bytes: int = UNIT_BYTES, leave_out: Path | None = None
) -> list[InputUnit]:
    """The units of files, folders and globs, in the order of their paths. InputError if there is nothing to read.

    `leave_out`: a folder whose files are not read, though it lies in another that is (the output folder).
    """
    skipped: list[Skipped] = []
    outside = (str(leave_out.resolve()),) if leave_out else ()
    files = [path for path in find(tuple(paths), skipped, outside) if not _is_cache(path, paths)]
    if not files:
        why = "; ".join(f"{one.what}: {one.reason}" for one in skipped[:5]) or "nothing is there"
        raise InputError(f"No rows in {', '.join(paths)} ({why}). Known are {', '.join(SUFFIXES)}.")
    found: list[InputUnit] = []
    common = os.path.commonpath([path.parent.resolve() for path in files])
    for path in files:
        name = path.name.lower()
        kind = "lines" if name.endswith(JSON_SUFFIXES) else "parquet" if name.endswith(".parquet") else "arrow"
        stat = path.stat()
        cuts = {"parquet": _row_groups, "lines": _lines, "arrow": _whole}[kind](path, text_column, unit_bytes)
        folder = os.path.relpath(path.parent.resolve(), common)
        for number, (first, start, stop, size, rows) in enumerate(cuts):
            stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            part = (number, len(cuts))
            below = "" if folder == "." else folder
            found.append(InputUnit(len(found), str(path), kind, first, start, stop, size, rows, part, stamp, below))
    return _named_apart(found)


def _named_apart(units: list[InputUnit]) -> list[InputUnit]:
    """Refuse files of one name, whose output would have one name too."""
    seen: dict[str, str] = {}
    for unit in units:
        if seen.setdefault(unit.name, unit.path) != unit.path:
            raise UsageError(
                f"{seen[unit.name]} and {unit.path} would both be written to data/{unit.name}; rename one of them."
            )
    return units


def _is_cache(path: Path, paths: Sequence[str]) -> bool:
    """Whether a file that nobody named is one that `datasets` made for itself."""
    return path.name.startswith(("cache-", ".")) and str(path) not in paths


Cut = tuple[int, int, int, int, int]  # first row, start, stop, bytes, rows


def _row_groups(path: Path, text_column: str, unit_bytes: int) -> list[Cut]:
    with _opened(path) as file:
        metadata, cuts = file.metadata, list[Cut]()
        row = begun = held = first = 0
        for group in range(metadata.num_row_groups):
            columns = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
            size = sum(max(c.total_uncompressed_size, 0) for c in columns if c.path_in_schema == text_column)
            if group > begun and held + size > unit_bytes:
                cuts.append((first, begun, group, held, row - first))
                begun, first, held = group, row, 0
            held += size
            row += metadata.row_group(group).num_rows
        cuts.append((first, begun, metadata.num_row_groups, held, row - first))
        return cuts


def _lines(path: Path, text_column: str, unit_bytes: int) -> list[Cut]:
    """Cuts behind the line that passes each multiple of `unit_bytes`; a compressed file is one."""
    size = path.stat().st_size
    if not path.name.lower().endswith((".jsonl", ".ndjson")):
        return [(0, 0, size, 4 * size, 4 * size // LINE_BYTES)]
    cuts: list[Cut] = []
    with path.open("rb") as file:
        start = line = 0
        while start < size or not cuts:
            stop = min(start + unit_bytes, size)
            if stop < size:
                file.seek(stop)
                file.readline()
                stop = file.tell()
            ends = _newlines(file, start, stop) if stop < size else (stop - start) // LINE_BYTES
            cuts.append((line, start, stop, stop - start, ends))
            line += ends
            start = stop
            if size == 0:
                break
    return cuts


def _newlines(file: BinaryIO, start: int, stop: int) -> int:
    file.seek(start)
    count = 0
    while start < stop:
        piece = file.read(min(1 << 20, stop - start))
        if not piece:
            break
        count += piece.count(b"\n")
        start += len(piece)
    return count


def _whole(path: Path, text_column: str, unit_bytes: int) -> list[Cut]:
    size = path.stat().st_size
    return [(0, 0, size, size, size // LINE_BYTES)]


def _opened(path: Path | str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a whole Parquet file ({error}). Write it again, or leave it out.") from error


# ---------------------------------------------------------------- reading


def schema_of(unit: InputUnit) -> pa.Schema | None:
    """The schema of a unit's file; None for JSON lines, which have none."""
    if unit.kind == "lines":
        return None
    if unit.kind == "arrow":
        return arrow_stream.schema_of(unit.path)
    with _opened(unit.path) as file:
        return pa.schema([field.with_type(without_views(field.type)) for field in file.schema_arrow],
                         file.schema_arrow.metadata)  # fmt: skip


def without_views(kind: pa.DataType) -> pa.DataType:
    """The type that stands for one of views, on which Arrow can do little: it cannot even filter them."""
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(kind, kind)


def check_unchanged(unit: InputUnit) -> None:
    """InputError if the file is gone or is not the one that was planned."""
    try:
        stat = os.stat(unit.path)
    except OSError as error:
        raise InputError(f"{unit.path} cannot be read: {error.strerror}.") from error
    if (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) != tuple(unit.stamp):
        raise InputError(f"{unit.path} changed while it was read; run the same command again.")


def read_unit(unit: InputUnit, columns: Sequence[str] | None) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of the first row, batch) of a Parquet or Arrow unit with these columns, or all."""
    check_unchanged(unit)
    row = unit.first
    try:
        for batch in _parquet(unit, columns) if unit.kind == "parquet" else _arrow(unit, columns):
            yield row, _without_views(batch)
            row += batch.num_rows
        check_unchanged(unit)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{unit.path} is damaged: {error}. Write it again, or leave it out.") from error


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    schema = pa.schema([field.with_type(without_views(field.type)) for field in batch.schema], batch.schema.metadata)
    return batch if schema.equals(batch.schema) else batch.cast(schema)


def _parquet(unit: InputUnit, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    with _opened(unit.path) as file:
        for group in range(unit.start, unit.stop):
            metadata = file.metadata.row_group(group)
            named = [metadata.column(i) for i in range(metadata.num_columns)]
            size = sum(c.total_uncompressed_size for c in named if columns is None or c.path_in_schema in columns)
            rows = max(metadata.num_rows * BATCH_BYTES // max(size, 1), 1)
            if any(c.has_dictionary_page and c.physical_type == "BYTE_ARRAY" for c in named):
                rows = min(rows, FEW_ROWS)
            batches = file.iter_batches(
                int(min(rows, MOST_ROWS)), [group], None if columns is None else list(columns), use_threads=False
            )
            yield from gathered(batches)


def gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Small batches put together up to BATCH_BYTES and MOST_ROWS."""
    waiting, rows, size = list[pa.RecordBatch](), 0, 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if size >= BATCH_BYTES or rows >= MOST_ROWS:
            yield pa.concat_batches(waiting) if len(waiting) > 1 else batch
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_batches(waiting)


def _arrow(unit: InputUnit, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    names = list(columns) if columns is not None else arrow_stream.schema_of(unit.path).names
    for batch in arrow_stream.batches(unit.path, names):
        for start in range(0, batch.num_rows, MOST_ROWS):
            yield batch.slice(start, MOST_ROWS)


def read_lines(unit: InputUnit) -> Iterator[tuple[int, bytes]]:
    """(number, line) of a unit of JSON lines; blank lines have numbers and are passed over."""
    check_unchanged(unit)
    number = unit.first
    try:
        with open(unit.path, "rb") as raw:
            for line, length in json_lines.lines(_pieces(raw, unit), LONGEST_LINE):
                if line is None:
                    raise InputError(
                        f"{unit.path}, line {number + 1} has {length:,} bytes; {LONGEST_LINE:,} are allowed."
                    )
                if line.strip():
                    yield number, line
                number += 1
        check_unchanged(unit)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{unit.path} is damaged: {error}. Write it again, or leave it out.") from error


def _pieces(raw: BinaryIO, unit: InputUnit) -> Iterator[bytes]:
    name = unit.path.lower()
    if name.endswith(".gz"):
        with gzip.GzipFile(fileobj=raw) as plain:
            yield from iter(lambda: plain.read(1 << 20), b"")
        return
    if name.endswith(".zst"):
        with pa.CompressedInputStream(pa.PythonFile(raw), "zstd") as stream:
            yield from iter(lambda: stream.read(1 << 20), b"")
        return
    raw.seek(unit.start)
    left = unit.stop - unit.start
    while left > 0 and (piece := raw.read(min(1 << 20, left))):
        left -= len(piece)
        yield piece


def buffered(lines: Iterator[tuple[int, bytes]], size: int = BATCH_BYTES) -> Iterator[list[tuple[int, bytes]]]:
    """Lines, some megabytes at a time."""
    held, waiting = 0, list[tuple[int, bytes]]()
    for number, line in lines:
        waiting.append((number, line))
        held += len(line)
        if held >= size:
            yield waiting
            held, waiting = 0, []
    if waiting:
        yield waiting
