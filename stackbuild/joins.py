"""DuckDB for the joins of one task: one thread, a stated memory limit, a spill folder of its own.

Results leave through ORDER BY of a total key, so that neither threads, spilling nor the order of the input can be seen in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild.errors import InputError

MEMORY = 256 << 20  # bytes for one session, beside Arrow's batches
ROWS = 65_536


@contextmanager
def session(scratch: Path, memory: int = MEMORY) -> Iterator[Any]:
    """A connection whose memory is bounded by `memory` bytes and which spills below `scratch`.

    InputError if it needs more than the memory and the disk can give.
    """
    import duckdb

    scratch.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.execute(f"SET memory_limit = '{max(memory >> 20, 16)}MiB'")
        connection.execute("SET temp_directory = $folder", {"folder": str(scratch)})
        connection.execute("SET preserve_insertion_order = false")
        try:
            yield connection
        except (duckdb.OutOfMemoryException, OSError) as error:
            # Arrow's reader, through which rows leave, tells it as an OSError.
            if isinstance(error, OSError) and not str(error).startswith("Out of Memory Error"):
                raise
            raise InputError(
                f"A join needs more than {memory >> 20} MiB, or more disk than there is below {scratch}: "
                f"{str(error).splitlines()[0]}"
            ) from error


def rows_of(connection: Any, query: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a query as batches of a schema, which the columns must be named by."""
    reader = connection.sql(query).to_arrow_reader(ROWS)
    for batch in reader:
        yield pa.RecordBatch.from_arrays([batch.column(field.name).cast(field.type) for field in schema], schema=schema)


def table_of(connection: Any, query: str, schema: pa.Schema) -> pa.Table:
    """All rows of a query."""
    return pa.Table.from_batches(rows_of(connection, query, schema), schema)


def stream(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatchReader:
    """Batches as DuckDB can scan them once."""
    return pa.RecordBatchReader.from_batches(schema, (batch.select(schema.names).cast(schema) for batch in batches))
