"""Passes over rows in an order that they do not have, in memory that does not grow with them.

DuckDB sorts and groups what a stream of batches gives it and spills to a folder of its own what does not fit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from stackbuild import memory
from stackbuild.errors import InputError, StackbuildError

if TYPE_CHECKING:
    import duckdb

Batches = Callable[[], Iterator[pa.RecordBatch]]  # a new stream with each call
BATCH_ROWS = 8_192
LEAST, MOST = 128 << 20, 4 << 30  # bytes that DuckDB may hold
WIDE_ROWS = 1 << 40  # a place is file * WIDE_ROWS + row


def allowance() -> int:
    """Bytes that DuckDB may hold: a quarter of what the process may, from 128 MiB to 4 GiB."""
    return max(LEAST, min(memory.limit() // 4, MOST))


@contextmanager
def passes(bytes_held: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that holds `bytes_held` (`allowance` unless given) and spills the rest; StackbuildError if it cannot."""
    import duckdb

    held = bytes_held or allowance()
    with tempfile.TemporaryDirectory(prefix="stackbuild-") as spill, duckdb.connect() as connection:
        connection.execute("SET temp_directory = $folder", {"folder": spill})
        connection.execute(f"SET memory_limit = '{held >> 20}MiB'")
        connection.execute(f"SET threads = {max(1, min(4, held >> 27))}")  # each sorts within its share
        connection.execute("SET preserve_insertion_order = false")
        try:
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise StackbuildError(
                f"{held >> 20} MiB of memory or the disk for spill do not suffice: {error}"
            ) from error
        except duckdb.Error as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, StackbuildError):
                raise cause from None
            raise InputError(f"The rows cannot be sorted: {str(error).splitlines()[0]}") from error


def ordered(
    connection: duckdb.DuckDBPyConnection, tables: Mapping[str, tuple[pa.Schema, Batches]], query: str
) -> Iterator[pa.RecordBatch]:
    """The batches of a query over named streams of batches. An error of a stream is raised as it is."""
    with streams(connection, tables):
        found: pa.RecordBatchReader = connection.sql(query).to_arrow_reader(BATCH_ROWS)  # `execute` would hold all rows
        yield from found


@contextmanager
def streams(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, tuple[pa.Schema, Batches]]) -> Iterator[None]:
    """Let a connection read named streams of batches, each once."""
    import duckdb

    failed: list[BaseException] = []

    def watched(batches: Batches) -> Iterator[pa.RecordBatch]:
        try:
            yield from batches()
        except BaseException as error:
            failed.append(error)  # DuckDB would make a text of it
            raise

    for name, (schema, batches) in tables.items():
        connection.register(name, pa.RecordBatchReader.from_batches(schema, watched(batches)))
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError):
        if failed:
            raise failed[0] from None
        raise
    finally:
        for name in tables:
            connection.unregister(name)
