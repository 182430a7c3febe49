"""Joins over ids of the graph: binary(20) in Arrow and BLOB in DuckDB, which compares bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.joins import MEMORY, ROWS, rows_of, session, stream, table_of
from stackbuild.schema import ID
from stackbuild.sources.swh.row_order import id_bytes

__all__ = ["MEMORY", "MEMORY_OF_ID", "ROWS", "Ids", "ids_of", "rows_of", "session", "stream", "table_of"]

MEMORY_OF_ID = 256  # bytes of a session for each id that is asked for by itself, which takes 28 beside it

Ids = npt.NDArray[np.uint8]  # (n, 20), sorted, each once


def ids_of(connection: Any, table: str, column: str, memory: int) -> Ids | None:
    """The distinct ids in a column of a table; None if they are more than go with a session of so much memory."""
    most = memory // MEMORY_OF_ID
    query = f"SELECT DISTINCT {column} AS id FROM {table} ORDER BY id LIMIT {most + 1}"
    found = table_of(connection, query, pa.schema([pa.field("id", ID)]))
    return id_bytes(found["id"].combine_chunks()) if len(found) <= most else None
