"""Files of rows (Parquet, JSON lines, Arrow streams): which there are, and how each is cut into units.

A footer is only believed for planning: what a row group really takes is measured when it is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.sources import arrow_stream
from stackbuild.sources.archives import matched
from stackbuild.sources.unit import Skipped, Unit

UNIT_BYTES: Final = 64 * 1024 * 1024
JSON_SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst")
SUFFIXES: Final = (*JSON_SUFFIXES, ".parquet", ".arrow")
EXPANSION: Final = 4  # of compressed lines; a guess for planning only


@dataclass(frozen=True)
class Part:
    """A run of a file: `key` has `first`, the number of its first row, and what else says which rows."""

    key: dict[str, Any]
    bytes: int


class Damaged(InputError):
    """A file that is there and does not read; the message says why, without its name. The others are read all the same."""


def find(paths: tuple[str, ...], skipped: list[Skipped], leave_out: tuple[str, ...] = ()) -> Iterator[Path]:
    """Each file once, in order of path: named, matched by a glob, or in a folder under a known suffix."""
    found: dict[str, Path] = {}
    for match, below in matched(paths, skipped, leave_out):
        for path in (match,) if below is None else below:
            if not path.lower().endswith(SUFFIXES):
                if below is None:
                    skipped.append(Skipped(path, f"is none of {', '.join(SUFFIXES)}"))
            elif not is_utf8(path):
                skipped.append(Skipped(path, "its path is not UTF-8: rename it"))
            elif os.path.isfile(path):
                found[os.path.realpath(path)] = Path(path)
            else:
                skipped.append(Skipped(path, "is no regular file"))
    yield from sorted(found.values())


def is_utf8(path: str) -> bool:
    """Whether a path is text: Arrow opens no other, and rows without a path are named by their file."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def stem_of(path: Path) -> str:
    """The name of a file without its suffix."""
    return next(path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.lower().endswith(suffix))


def examine(path: Path) -> tuple[str, int, list[tuple[int, int]]]:
    """(SHA-256, size, cuts) of a file. Cuts of uncompressed JSON lines: (offset, line number) about every 64 MB."""
    cuts, line, wanted = [(0, 0)], 0, UNIT_BYTES
    is_lines = path.name.lower().endswith((".jsonl", ".ndjson"))
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            at = 0
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                if is_lines:
                    end = chunk.find(b"\n", max(wanted - at, 0)) + 1 if wanted < at + len(chunk) else 0
                    if end:
                        cuts.append((at + end, line + chunk.count(b"\n", 0, end)))
                        wanted = at + end + UNIT_BYTES
                    line += chunk.count(b"\n")
                at += len(chunk)
    except OSError as error:
        raise Damaged(f"cannot be read: {error.strerror or error}") from error
    return digest.hexdigest(), at, [cut for cut in cuts if cut[0] < at or at == 0]


def parts(
    path: Path,
    columns: Mapping[str, str],
    optional: frozenset[str],
    size: int,
    cuts: list[tuple[int, int]],
    unit_bytes: int = UNIT_BYTES,
) -> Iterator[Part]:
    """The units of a file. Damaged if it is, InputError if it lacks a column, MemoryError if its footer is a bomb."""
    if path.name.lower().endswith(JSON_SUFFIXES):
        ends = [*(at for at, _ in cuts[1:]), size]
        expansion = 1 if len(cuts) > 1 or path.suffix in (".jsonl", ".ndjson") else EXPANSION
        for (start, first), end in zip(cuts, ends, strict=True):
            yield Part({"first": first, "bytes": [start, end]}, (end - start) * expansion)
        return
    if path.name.lower().endswith(".arrow"):
        try:
            schema = arrow_stream.schema_of(str(path))
        except InputError as error:
            raise Damaged(str(error).replace(f"{str(path)!r} ", "", 1)) from error
        theirs(path, columns, optional, schema)
        yield Part({"first": 0}, size)
        return
    try:
        metadata = pq.read_metadata(path)
        names = set(theirs(path, columns, optional, metadata.schema.to_arrow_schema()).values())
        row = 0
        begun: tuple[int, int, int] | None = None  # row group, row and bytes of the open run
        for group in range(metadata.num_row_groups):
            wanted = list(chunks(metadata.row_group(group), names))
            decoded = sum(max(chunk.total_uncompressed_size, 0) for chunk in wanted)
            if begun is not None and begun[2] + decoded > unit_bytes:
                yield Part({"first": begun[1], "row_groups": [begun[0], group]}, begun[2])
                begun = None
            begun = (group, row, decoded) if begun is None else (begun[0], begun[1], begun[2] + decoded)
            row += metadata.row_group(group).num_rows
        if begun is not None:
            yield Part({"first": begun[1], "row_groups": [begun[0], metadata.num_row_groups]}, begun[2])
    except MemoryError:  # Arrow's own is an ArrowException too
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged(f"is not a whole Parquet file ({error})") from error


def theirs(path: Path, columns: Mapping[str, str], optional: frozenset[str], found: pa.Schema) -> dict[str, str]:
    """Our name -> the column of the file; InputError if it lacks one, unless that is optional."""
    named = {}
    for ours, column in columns.items():
        field = found.field(column) if column in found.names else None
        if field is None and column.partition(".")[0] in found.names:
            field = _leaf(found, column)
        if field is None:
            if ours in optional:
                continue
            raise InputError(
                f"{str(path)!r} has no column {column!r} for {ours}; it has {', '.join(found.names[:30])}."
            )
        named[ours] = column
    return named


def _leaf(found: pa.Schema, column: str) -> pa.Field | None:
    """The field of a dotted name such as `metadata.path`."""
    first, *rest = column.split(".")
    field = found.field(first)
    for part in rest:
        if not pa.types.is_struct(field.type) or field.type.get_field_index(part) < 0:
            return None
        field = field.type.field(part)
    return field


def chunks(group: Any, names: set[str]) -> Iterator[Any]:
    """The column chunks of a row group that are read."""
    for number in range(group.num_columns):
        if group.column(number).path_in_schema in names:
            yield group.column(number)


def check_planned(path: Path, unit: Unit) -> None:
    """InputError if the file is not the planned one. It is hashed again only if its size or its time changed."""
    try:
        found = path.stat()
        if (found.st_size, found.st_mtime_ns) != (unit.where["size"], unit.where["mtime_ns"]):
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != unit.key["sha256"]:
                    raise InputError(f"{str(path)!r} is not the file that was planned; plan again")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
