"""A new folder of tokens, written beside its place and renamed into it: it is there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
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

    UsageError if `dest` is there and not empty, or another process writes it. What a killed run left beside is removed first.
    """
    dest = Path(os.path.abspath(dest))
    part = dest.with_name(f".{dest.name}.part")
    with _alone(part, dest):
        if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
            part.rmdir()
            raise UsageError(f"{dest} is there already; name a folder that is not, or is empty")
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


@contextlib.contextmanager
def _alone(part: Path, dest: Path) -> Iterator[None]:
    """Hold the new, empty folder `part`; UsageError if another process does. The lock is on the folder itself and goes with it."""
    part.mkdir(parents=True, exist_ok=True)
    handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(handle), os.stat(part))
        except OSError:  # held, or removed or renamed by who held it
            ours = False
        if not ours:
            raise UsageError(f"Another stackbuild is writing {dest}; wait for it, or name another folder")
        for left in part.iterdir():
            left.unlink()
        yield
    finally:
        os.close(handle)


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
