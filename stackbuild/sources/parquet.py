"""Rows of Parquet, JSON lines and Arrow files (a saved `datasets` folder): each row is a file of some repository.

`columns` says which of their columns is ours; what is not there is null, or a constant (`repo_name_default`).
`revision_id` is the SHA-256 of the file, `path` is `row-<file>-<number>` (counted from 0) where there is no column for
it. A unit is a run of whole row groups, or lines, of about 64 MB; no row group is read twice.

Footers come from strangers: for the plan they are read in a process apart (`apart`). Before a row group is decoded its
page headers are walked (`parquet_pages`); values behind a dictionary stay there until they are measured. Rules:
`too_large` (a row, or a row group with a page beyond 256 MiB), `null_content`, `no_repo_name`, `unsafe_path`,
`long_path`, `too_deep`, `bad_json` (with the line), and, from the row on that passes a cap of the unit,
`too_many_files`, `unit_too_large`, `archive_bomb`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, field_validator, model_validator

from stackbuild.errors import InputError
from stackbuild.sources import arrow_stream, json_lines, parquet_pages
from stackbuild.sources.ahead import looked_at
from stackbuild.sources.apart import FooterReader
from stackbuild.sources.archive_members import Budget, Refused, Stream, Torn
from stackbuild.sources.origin_columns import ORIGIN, SLICE_BYTES, Frame, batches, plain, refusal
from stackbuild.sources.row_files import (
    JSON_SUFFIXES,
    SUFFIXES,
    Damaged,
    Part,
    check_planned,
    chunks,
    examine,
    find,
    parts,
    stem_of,
    theirs,
)
from stackbuild.sources.unit import Entry, File, Limits, Origin, ResolveContext, Skipped, SourceOptions, Unit, Unread

BATCH_BYTES: Final = 128 * 1024 * 1024  # what one step of decoding may take beside the pages at its ends
BATCH_ROWS: Final = 8192
PAGE_BYTES: Final = 256 * 1024 * 1024
BUFFER: Final = 256 * 1024
JOINED_BYTES: Final = 16 * 1024 * 1024
INTEGERS: Final = frozenset(name for name, kind in ORIGIN.items() if pa.types.is_integer(kind))
DATES: Final = tuple(name for name, kind in ORIGIN.items() if pa.types.is_timestamp(kind))
DEFAULT_COLUMNS: Final = {"content": "content", "path": "path", "repo_name": "repo_name"}


class ParquetOptions(SourceOptions):
    """`[[source]] kind = "parquet"`."""

    paths: tuple[str, ...] = Field(min_length=1, description="files, folders that are searched for them, or globs")
    columns: dict[str, str] = Field(DEFAULT_COLUMNS, description="ours = theirs; theirs may be dotted")
    repo_name_default: str | None = Field(None, min_length=1, description="where a row names no repository")
    repo_url_default: str | None = Field(None, min_length=1)
    revision_id_default: str | None = Field(None, min_length=1, description="instead of the file's SHA-256")
    branch_name_default: str | None = Field(None, min_length=1)
    gha_license_id_default: str | None = Field(None, min_length=1)

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        known = {"content", "path", *ORIGIN}
        if unknown := sorted(set(columns) - known):
            raise ValueError(f"{', '.join(unknown)}: no such column; there are {', '.join(sorted(known))}")
        if "content" not in columns:
            raise ValueError("columns has to say which one is `content`")
        return columns

    @model_validator(mode="after")
    def _named(self) -> ParquetOptions:
        if "repo_name" not in self.columns and self.repo_name_default is None:
            raise ValueError("name the repositories: columns.repo_name or repo_name_default")
        return self

    def defaults(self) -> dict[str, str]:
        """Constants by our name."""
        ends = len("_default")
        found = {name[:-ends]: value for name, value in self if name.endswith("_default")}
        return {name: value for name, value in found.items() if value is not None}

    def optional(self) -> frozenset[str]:
        """Columns that a file may lack: those that the recipe did not name, and a repository's name with a default."""
        optional = {"path", "repo_name"} if "columns" not in self.model_fields_set else set()
        return frozenset(optional if self.repo_name_default else optional - {"repo_name"})


class ParquetSource:
    """The source of kind "parquet"; see the module."""

    kind = "parquet"
    options_model = ParquetOptions
    columnar = True

    def units(self, options: ParquetOptions, context: ResolveContext) -> tuple[list[Unit], list[Skipped]]:
        """Hash every file and cut it into units, sorted by key. InputError if none can be read, or one lacks a column."""
        skipped: list[Skipped] = []
        paths = list(find(options.paths, skipped, context.leave_out))
        names = Counter(stem_of(path) for path in paths)
        units: list[Unit] = []
        seen: dict[str, Path] = {}
        with FooterReader() as reader:
            for done, (path, examined) in enumerate(looked_at(paths, examine), start=1):
                context.progress("hashing files and reading footers", done, len(paths))
                try:
                    sha256, size, cuts = examined()
                except Damaged as error:
                    skipped.append(Skipped(str(path), str(error)))
                    continue
                if sha256 in seen:
                    skipped.append(Skipped(str(path), f"has the same bytes as {seen[sha256]}"))
                    continue
                seen[sha256] = path
                found: list[Part] | Skipped
                if path.name.lower().endswith(JSON_SUFFIXES):
                    found = list(parts(path, options.columns, options.optional(), size, cuts))
                else:
                    found = reader.parts(path, options.columns, options.optional(), size)
                if isinstance(found, Skipped):
                    skipped.append(found)
                    continue
                stem = stem_of(path) if names[stem_of(path)] == 1 else f"{stem_of(path)}-{sha256[:12]}"
                where = {"path": str(path), "size": size, "mtime_ns": path.stat().st_mtime_ns}
                for part in found:
                    key = {"name": stem, "sha256": sha256, **part.key}
                    units.append(Unit(self.kind, key, where, part.bytes, None))
        if not units:
            reasons = "; ".join(f"{skip.what!r}: {skip.reason}" for skip in skipped[:5]) or "no file was found"
            raise InputError(
                f"no rows can be read: {reasons}. Check `paths` of the source; known are {', '.join(SUFFIXES)}."
            )
        return sorted(units, key=lambda unit: (unit.key["name"], unit.key["sha256"], unit.key["first"])), skipped

    def read_batches(self, unit: Unit, options: ParquetOptions, limits: Limits) -> Iterator[pa.RecordBatch]:
        """Yield batches of schema `origin_columns.BATCH`, of at most 64 MiB of contents each."""
        path = Path(unit.where["path"])
        check_planned(path, unit)
        frame = Frame(unit.key["name"], unit.key["sha256"], options.defaults(), unit.where["size"], limits)
        name = path.name.lower()
        rows = _json_lines if name.endswith(JSON_SUFFIXES) else _parquet if name.endswith(".parquet") else _arrow
        try:
            yield from rows(path, unit, options, frame)
        except Torn as error:
            raise InputError(f"{str(path)!r} cannot be used: {error}. Fetch it again, or leave it out.") from error
        except InputError as error:
            raise InputError(str(error) if str(path) in str(error) else f"{str(path)!r}: {error}") from error
        except (pa.ArrowException, OSError, EOFError, ValueError) as error:
            raise InputError(f"{str(path)!r} is damaged: {error}. Fetch it again, or leave it out.") from error

    def read(self, unit: Unit, options: ParquetOptions, limits: Limits) -> Iterator[Origin | Entry]:
        """The same rows as objects, with an Origin whenever it changes."""
        current: Origin | None = None
        for batch in self.read_batches(unit, options, limits):
            columns = {name: batch.column(name).to_pylist() for name in batch.schema.names if name not in DATES}
            columns |= {name: batch.column(name).cast(pa.int64()).to_pylist() for name in DATES}
            for row in range(batch.num_rows):
                origin = Origin(**{name: columns[name][row] for name in ORIGIN})
                if origin != current:
                    current = origin
                    yield origin
                path, mode, data = (columns[name][row] for name in ("path_bytes", "mode", "content"))
                if (rule := columns["rule"][row]) is None:
                    yield File(path, mode, data)
                else:
                    length, value, threshold, detail = (
                        columns[name][row] for name in ("length", "value", "threshold", "detail")
                    )
                    yield Unread(path, mode, rule, length, value, threshold, None, detail)


SOURCE = ParquetSource()


# ---------------------------------------------------------------- reading

Columns = dict[str, pa.Array]  # by our name, all of one length


def _parquet(path: Path, unit: Unit, options: ParquetOptions, frame: Frame) -> Iterator[pa.RecordBatch]:
    """The row groups of a unit, one after the other, each in steps that its page headers allow."""
    first, last = unit.key["row_groups"]
    number = unit.key["first"]
    schema = pq.read_schema(path)
    named = theirs(path, options.columns, options.optional(), schema)
    text = [column for ours, column in named.items() if ours not in (*INTEGERS, *DATES)]
    with (
        path.open("rb") as raw,
        pq.ParquetFile(path, read_dictionary=text, buffer_size=BUFFER, pre_buffer=False) as file,
    ):
        groups = [file.metadata.row_group(group) for group in range(first, last)]
        frame.packed = sum(
            chunk.total_compressed_size for group in groups for chunk in chunks(group, set(named.values()))
        )
        for group, metadata in enumerate(groups, start=first):
            pages = [parquet_pages.measure(raw, chunk) for chunk in chunks(metadata, set(named.values()))]
            end = number + metadata.num_rows
            if (largest := max(page.largest for page in pages)) > PAGE_BYTES:
                detail = f"row group {group}: a page takes {largest} bytes; its {metadata.num_rows} rows are left out"
                yield refusal(
                    frame, run_name(frame, number, end), "too_large", detail=detail, value=largest, threshold=PAGE_BYTES
                )
                number = end
                continue
            step = int(min(max(BATCH_BYTES // max(sum(page.densest for page in pages), 1), 1), BATCH_ROWS))
            stream = file.iter_batches(step, [group], list(named.values()), use_threads=False)
            for columns in gathered(_named(batch, named) for batch in stream):
                yield from _capped(columns, number, frame)
                number += len(columns["content"])
                if frame.over():
                    return


def _arrow(path: Path, unit: Unit, options: ParquetOptions, frame: Frame) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow stream."""
    number = unit.key["first"]
    named = theirs(path, options.columns, options.optional(), arrow_stream.schema_of(str(path)))
    tops = list(dict.fromkeys(column.partition(".")[0] for column in named.values()))
    for batch in arrow_stream.batches(str(path), tops):
        yield from _capped(_named(batch, named), number, frame)
        number += batch.num_rows
        if frame.over():
            return


def _json_lines(path: Path, unit: Unit, options: ParquetOptions, frame: Frame) -> Iterator[pa.RecordBatch]:
    """The lines of a unit; a bad one is counted by its number, from 0 in its name and from 1 in its words."""
    start, end = unit.key["bytes"]
    limits = frame.limits
    longest = 6 * limits.file_bytes + (1 << 20)  # a byte of text may take six in JSON
    frame.packed = end - start
    last = unit.key["first"]
    with path.open("rb") as file:
        stream = Stream(file, Budget(end - start, limits))
        if stream.compressed != path.name.lower().endswith((".gz", ".zst")):
            raise InputError(f"it is {'' if stream.compressed else 'not '}compressed, other than its name says")
        if not stream.compressed:
            file.seek(start)
        lines = json_lines.lines(stream.pieces(1 << 62 if stream.compressed else end - start), longest)
        try:
            for run in json_lines.runs(lines, unit.key["first"], options.columns, INTEGERS):
                for number, length in run.long:
                    name = run_name(frame, number, number + 1)
                    yield refusal(
                        frame, name, "too_large", detail=f"line {number + 1}", value=length, threshold=limits.file_bytes
                    )
                for number, reason in run.bad:
                    name = run_name(frame, number, number + 1)
                    yield refusal(frame, name, "bad_json", detail=f"line {number + 1}: {reason}")
                last = max([last, *run.numbers[-1:]])
                yield from _capped(run.arrays(), np.array(run.numbers, np.int64), frame)
                if frame.over():
                    return
        except Refused as cap:
            yield _rest(frame, last, cap.rule, cap.value, cap.threshold)


def gathered(stream: Iterator[Columns]) -> Iterator[Columns]:
    """Fewer and larger runs of rows: small ones are decoded and joined, one that means much stays as it is."""
    waiting: list[Columns] = []
    held = 0
    for columns in stream:
        size = sum(decoded_bytes(array) for array in columns.values())
        if size <= SLICE_BYTES:
            waiting.append({name: plain(array) for name, array in columns.items()})
            held += size
        if waiting and (size > SLICE_BYTES or held >= JOINED_BYTES):
            yield {name: pa.concat_arrays([part[name] for part in waiting]) for name in columns}
            waiting, held = [], 0
        if size > SLICE_BYTES:
            yield columns
    if waiting:
        yield {name: pa.concat_arrays([part[name] for part in waiting]) for name in waiting[0]}


def decoded_bytes(array: pa.Array) -> int:
    """What an array takes without its dictionary, in bytes."""
    if not pa.types.is_dictionary(array.type):
        return int(array.nbytes)
    if not (pa.types.is_integer(array.dictionary.type) or pa.types.is_floating(array.dictionary.type)):
        return int(pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0)
    return 8 * len(array)


def _named(batch: pa.RecordBatch, named: dict[str, str]) -> Columns:
    """The columns of a batch by our names."""
    found = {}
    for ours, column in named.items():
        if column in batch.schema.names:
            found[ours] = batch.column(column)
        else:
            first, *rest = column.split(".")
            found[ours] = pc.struct_field(batch.column(first), rest)
    return found


def _capped(columns: Columns, numbers: int | npt.NDArray[np.int64], frame: Frame) -> Iterator[pa.RecordBatch]:
    """Batches of the rows, and one row for those beyond a cap of the unit. `numbers`: theirs, or the first of a run."""
    if isinstance(numbers, int):
        numbers = np.arange(numbers, numbers + len(columns["content"]))
    if len(numbers):
        yield from batches(columns, numbers, frame)
    if cap := frame.over():
        yield _rest(frame, frame.stopped_at or 0, *cap)


def _rest(frame: Frame, number: int, rule: str, value: float, threshold: float) -> pa.RecordBatch:
    detail = f"row {number} and what follows it in this unit"
    return refusal(frame, f"row-{frame.stem}-{number}-on", rule, detail=detail, value=value, threshold=threshold)


def run_name(frame: Frame, start: int, stop: int) -> str:
    """The path of a row, or of a run of rows, that has none of its own."""
    return f"row-{frame.stem}-{start}" if stop == start + 1 else f"rows-{frame.stem}-{start}-{stop - 1}"
