"""A new folder of tokens, written beside its place and renamed into it: it is there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import UsageError
from stackbuild.shards import fsync_directory


@contextlib.contextmanager
def new_folder(dest: str | Path) -> Iterator[Path]:
    """A folder to write into, which becomes `dest` when the context ends well, and is removed when it does not.

    UsageError if `dest` is there and not empty. What a killed run left beside is removed first.
    """
    dest = Path(os.path.abspath(dest))
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UsageError(f"{dest} is there already; name a folder that is not, or is empty")
    part = dest.with_name(f".{dest.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for path in part.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        fsync_directory(part)
        if dest.exists():
            dest.rmdir()
        os.rename(part, dest)
        fsync_directory(dest.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class TableFile:
    """Writes a document table from Arrow tables, a row group each. `sha256`: hex digest of the file, after the context."""

    def __init__(self, path: str | Path, schema: pa.Schema):
        self.path, self.schema = str(path), schema
        self.rows = 0
        self.sha256 = ""

    def __enter__(self) -> Self:
        self._file = open(self.path, "w+b")
        self._writer = pq.ParquetWriter(self._file, self.schema, compression="zstd", compression_level=1)
        return self

    def write(self, table: pa.Table) -> None:
        """Append a table of the schema's columns; one without rows writes nothing."""
        if table.num_rows:
            self._writer.write_table(table.cast(self.schema), row_group_size=table.num_rows)
            self.rows += table.num_rows

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> Any:
        try:
            self._writer.close()
            if kind is None:
                self._file.flush()
                self._file.seek(0)
                self.sha256 = hashlib.file_digest(self._file, "sha256").hexdigest()
        finally:
            self._file.close()
