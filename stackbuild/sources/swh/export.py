"""Find and read an export of Software Heritage's graph, ORC or Parquet, on a disk or behind any fsspec URL.

An export is a folder of tables, `<format>/<table>/<table>-<uuid>.<format>`, with `meta/export.json` beside the format's
folder. It is listed once; a task opens one file by what the listing said (`ExportFile`). Columns are looked at in every file,
and read in batches of bounded rows, only those that are asked for: a `revision` file is mostly messages.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Final, Literal

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import orc

from stackbuild.errors import InputError, TemporaryError
from stackbuild.sources.remote import errors_of, file_system, is_remote, open_file
from stackbuild.sources.swh.orc_times import since_1970, utc_only, with_seconds

Format = Literal["orc", "parquet"]
FORMATS: Final[tuple[Format, ...]] = ("orc", "parquet")
KNOWN_TABLES: Final = frozenset({
    "origin", "origin_visit", "origin_visit_status", "snapshot", "snapshot_branch", "revision", "revision_history",
    "revision_extra_headers", "release", "directory", "directory_entry", "content", "skipped_content",
})  # fmt: skip
# The last major version of each program whose files are known; columns of earlier ones are looked at like all others.
MAJORS: Final = {"swh_model_version": 8, "swh_export_version": 1, "swh_dataset_version": 1}
BATCH_ROWS: Final = 65_536
META_BYTES: Final = 64 << 20
OLD: Final = "Exports of 2018 and 2019 have other tables and columns, which stackbuild does not read."


@dataclass(frozen=True)
class ExportFile:
    """A file of a table: what a frozen plan holds of it. `name`: below the format's folder; `size`, `etag`: as it was listed."""

    table: str
    format: Format
    url: str
    name: str
    size: int
    etag: str | None = None
    signed: bool = False


@dataclass(frozen=True)
class Export:
    """A listed export. `files`: by table of the export, each sorted by name. `metadata`: of meta/export.json, {} if there
    is none.
    """

    root: str
    format: Format
    files: Mapping[str, tuple[ExportFile, ...]]
    metadata: Mapping[str, Any]

    def table(self, table: str) -> tuple[ExportFile, ...]:
        """The files of a table; InputError if the export lacks it."""
        if not self.files.get(table):
            there = ", ".join(sorted(self.files)) or "none"
            raise InputError(f"the export {self.root} has no table {table}; there are: {there}. {OLD}")
        return self.files[table]

    def identity(self) -> list[list[Any]]:
        """[name, bytes, etag] of every file: what a manifest says of the export that it was made from."""
        return [[file.name, file.size, file.etag] for table in sorted(self.files) for file in self.files[table]]


def open_export(root: str, kind: Literal["auto", "orc", "parquet"] = "auto", signed: bool = False) -> Export:
    """List the export at `root`: its date's folder, its format's folder, or any folder of tables.

    `kind` = "auto" takes ORC where both are there. `signed`: use the S3 credentials of the environment; without, requests are
    anonymous. InputError if there is no export; MissingDependency if the file system's package is not there;
    TemporaryError if a server does not answer.
    """
    with errors_of(root, remote="://" in root):
        system, path = file_system(root, signed)
        formats = FORMATS if kind == "auto" else (kind,)
        places = [f"{path.rstrip('/')}/{name}" for name in formats] + [path.rstrip("/")]
        for place in places:
            if not system.isdir(place):
                continue
            tables = sorted(_name(e["name"]) for e in system.ls(place, detail=True) if e["type"] == "directory")
            for format in formats:
                files = {table: _table(system, place, table, format, signed) for table in tables}
                found = {table: listed for table, listed in files.items() if listed}
                if KNOWN_TABLES & found.keys():
                    return Export(root, format, found, _metadata(system, place))
        if not system.exists(path):
            raise InputError(f"{root} is not there.")
    wanted = " or ".join(formats)
    raise InputError(
        f"{root} is no export of Software Heritage's graph: neither it nor a folder {wanted} in it has tables "
        f"(folders such as directory_entry with .{' or .'.join(formats)} files). {OLD}"
    )


def _table(system: Any, place: str, table: str, format: Format, signed: bool) -> tuple[ExportFile, ...]:
    found = []
    for entry in system.ls(f"{place}/{table}", detail=True) if table in KNOWN_TABLES else ():
        name = _name(entry["name"])
        if entry["type"] != "directory" and name.endswith("." + format) and not name.startswith((".", "_")):
            etag = entry.get("ETag") or entry.get("etag")
            url = str(system.unstrip_protocol(entry["name"]))
            found.append(
                ExportFile(
                    table,
                    format,
                    url,
                    f"{table}/{name}",
                    int(entry["size"]),
                    etag.strip('"') if isinstance(etag, str) else None,
                    signed,
                )
            )
    return tuple(sorted(found, key=lambda file: file.name))


def _metadata(system: Any, place: str) -> dict[str, Any]:
    """meta/export.json beside the format's folder or in it."""
    for folder in (place.rpartition("/")[0], place):
        path = f"{folder}/meta/export.json"
        if system.exists(path):
            with system.open(path, "rb") as file:
                raw = file.read(META_BYTES)
            try:
                value = json.loads(raw)
            except ValueError as error:
                raise InputError(f"{path} is not JSON ({error}); fetch it again, or remove it.") from error
            return value if isinstance(value, dict) else {}
    return {}


# ---------------------------------------------------------------- reading one file


class TableFile:
    """An open file of a table. Use `opened`."""

    def __init__(self, file: ExportFile, source: pa.NativeFile, raw: BinaryIO, failed: list[TemporaryError]):
        self.file = file
        self._source, self._raw, self._failed = source, raw, failed
        if file.format == "orc":
            reader = orc.ORCFile(source)
            self.schema: pa.Schema = reader.schema
            self.rows = int(reader.nrows)
            metadata = dict(reader.metadata or {})
        else:
            self._parquet = pq.ParquetFile(source, pre_buffer=False)
            self.schema = self._parquet.schema_arrow
            self.rows = int(self._parquet.metadata.num_rows)
            metadata = dict(self._parquet.metadata.metadata or {})
        self.metadata = {_text(key): _text(value) for key, value in metadata.items() if _text(key).startswith("swh_")}

    def check_version(self) -> None:
        """InputError if it was written by a later major version than is known."""
        for name, known in MAJORS.items():
            version = self.metadata.get(name)
            if version is None:
                continue
            major = version.partition(".")[0]
            if not major.isdecimal() or int(major) > known:
                raise InputError(
                    f"{self.file.url} says {name} = {version[:40]!r}; this stackbuild knows major versions up to {known}. "
                    f"Take an older export, or a newer stackbuild."
                )

    def need(self, columns: Mapping[str, str]) -> None:
        """InputError unless the file has these columns, each of a kind that is known. `columns`: name -> kind, of KINDS."""
        for name, kind in columns.items():
            index = self.schema.get_field_index(name)
            if index < 0:
                there = ", ".join(self.schema.names)
                raise InputError(
                    f"table {self.file.table}: {self.file.url} has no column {name}; it has {there}. {OLD}"
                )
            found = self.schema.field(index).type
            if not ACCEPTED[kind](found):
                raise InputError(
                    f"table {self.file.table}: column {name} of {self.file.url} is of type {found}, which is not known "
                    f"for it ({kind} is expected). {OLD}"
                )

    def batches(self, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Batches of these columns, of at most `rows` rows, in the file's order."""
        with errors_of(self.file.url, is_remote(self.file.url), self._failed):
            if self.file.format == "orc":
                yield from _orc_batches(self._source, columns, rows)
            else:
                yield from self._parquet.iter_batches(rows, columns=list(columns), use_threads=False)

    def batches_with_seconds(self, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The same with the timestamps of an ORC file as int64 seconds since 1970, of any year (see `orc_times`).

        A Parquet file, whose wild dates are structs, is read as it is.
        """
        if self.file.format == "parquet":
            yield from self.batches(columns, rows)
            return
        with errors_of(self.file.url, is_remote(self.file.url), self._failed):
            utc_only(self._raw)
            source = pa.PythonFile(with_seconds(self._raw), mode="r")
            times = {name for name in columns if pa.types.is_timestamp(self.schema.field(name).type)}
            for batch in _orc_batches(source, columns, rows):
                yield _since_1970(batch, times)

    @cached_property
    def has_wild_times(self) -> bool:
        """Whether a timestamp of this ORC file is out of Arrow's range, so that its column cannot be read as it is."""
        times = [field.name for field in self.schema if pa.types.is_timestamp(field.type)]
        if self.file.format == "parquet" or not times:
            return False
        with errors_of(self.file.url, is_remote(self.file.url), self._failed):
            try:
                for _ in _orc_batches(self._source, times, BATCH_ROWS):
                    pass
            except pa.ArrowInvalid as error:
                if "out of range" not in str(error):
                    raise
                return True
        return False


def _orc_batches(source: Any, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """By Arrow's data sets, as `pyarrow.orc` reads only whole stripes, which hold millions of rows."""
    fragment = ds.OrcFileFormat().make_fragment(source)
    yield from fragment.to_batches(
        columns=list(columns), batch_size=rows, use_threads=False, batch_readahead=0, fragment_readahead=0
    )


def _since_1970(batch: pa.RecordBatch, times: set[str]) -> pa.RecordBatch:
    arrays = [
        since_1970(array) if name in times else array
        for name, array in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


@contextlib.contextmanager
def opened(file: ExportFile) -> Iterator[TableFile]:
    """Open a file of an export. InputError if it is damaged, of a later version, or not what was listed."""
    failed: list[TemporaryError] = []
    with contextlib.ExitStack() as stack:
        with errors_of(file.url, is_remote(file.url), failed):
            raw = stack.enter_context(open_file(file.url, file.size, file.signed, failed))
            source = pa.PythonFile(raw, mode="r") if is_remote(file.url) else stack.enter_context(pa.OSFile(raw.name))
            table = TableFile(file, source, raw, failed)
        table.check_version()
        yield table


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


# ---------------------------------------------------------------- what columns may be


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_null(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_time(kind: pa.DataType) -> bool:
    """A timestamp, or the struct that the exporter writes to Parquet for dates from the wild."""
    if pa.types.is_struct(kind):
        return [field.name for field in kind] == ["seconds", "microseconds"] and all(
            pa.types.is_integer(field.type) for field in kind
        )
    return bool(pa.types.is_timestamp(kind) or pa.types.is_null(kind))


def _is_integer(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


ACCEPTED: Final = {"text": _is_text, "bytes": _is_bytes, "integer": _is_integer, "time": _is_time}
