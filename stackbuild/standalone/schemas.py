"""The narrow tables that pass between the tasks of near-duplicate removal on a table of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stackbuild.schema import ID
from stackbuild.standalone.options import DedupOptions

if TYPE_CHECKING:
    from stackbuild.task import Task

REMOVED = pa.schema(
    [
        pa.field("unit", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("reason", pa.string()),
    ]
)


def ids_schema(id_type: pa.DataType) -> pa.Schema:
    """Every row's id, by its hash: to find those that stand twice."""
    names = {"bucket": pa.int32(), "hash": pa.uint64(), "id": id_type, "unit": pa.int32(), "row": pa.int64()}
    return pa.schema([pa.field(name, kind) for name, kind in names.items()])


REASONS = pa.StringArray.from_buffers(
    2, pa.py_buffer(np.array([0, 10, 24], np.int32)), pa.py_buffer(b"exact_copynear_duplicate")
)


SOURCES = pa.schema([pa.field("source", pa.string()), pa.field("rows", pa.int64())])


def rows_schema(options: DedupOptions, id_type: pa.DataType) -> pa.Schema:
    """One narrow row for each row of the input that has a text. `content_id` is within its scope (`scoped`)."""
    return pa.schema(
        [
            pa.field("partition", pa.int32()),
            pa.field("content_id", ID),
            pa.field("unit", pa.int32()),
            pa.field("row", pa.int64()),
            pa.field("id", id_type),
            pa.field("scope", pa.string()),
            pa.field("source", pa.string()),
            pa.field("bytes", pa.int64()),
            *(pa.field(name, pa.int64()) for name in options.rank_names),
        ]
    )


def clustered_schema(options: DedupOptions, id_type: pa.DataType) -> pa.Schema:
    """A row that is in a cluster, with what was decided of its content."""
    return pa.schema(
        [
            *rows_schema(options, id_type),
            pa.field("cluster_id", ID),
            pa.field("kept_content_id", ID),
            pa.field("similarity", pa.float64()),
        ]
    )


def clusters_schema(id_type: pa.DataType) -> pa.Schema:
    """What the user reads: every row that is in a cluster of two or more."""
    return pa.schema(
        [
            pa.field("id", id_type),
            pa.field("content_id", pa.string()),  # hex of git's SHA-1 of the text
            pa.field("cluster_id", pa.string()),  # the smallest content_id in the cluster
            pa.field("cluster_size", pa.int64()),  # rows
            pa.field("kept", pa.bool_()),
            pa.field("kept_id", id_type),  # of the row that stays in this one's place
            pa.field("similarity", pa.float64()),  # with it; exact Jaccard of shingles, 1.0 for an exact copy
            pa.field("reason", pa.string()),  # exact_copy, near_duplicate; null for rows that stay
        ]
    )


# How survivor columns are compared: by one kind for all files, whatever each file's own type is.
RANK_TYPES = {"integer": pa.int64(), "date": pa.timestamp("us"), "number": pa.float64()}


def rank_kind(types: Sequence[pa.DataType | None]) -> str | None:
    """The kind that columns of these types are compared as (None: JSON, which has numbers); None if they have none in
    common."""
    if all(t is not None and (pa.types.is_timestamp(t) or pa.types.is_date(t)) for t in types):
        return "date"
    whole = [t is not None and (pa.types.is_integer(t) or pa.types.is_boolean(t)) and t != pa.uint64() for t in types]
    if all(whole):
        return "integer"
    other = (t is None or t == pa.uint64() or pa.types.is_floating(t) or pa.types.is_decimal(t) for t in types)
    return "number" if all(a or b for a, b in zip(whole, other, strict=True)) else None


def id_type_of(task: Task) -> pa.DataType:
    """The type of ids: whole numbers, or text."""
    return pa.int64() if task.params["id_type"] == "int64" else pa.string()
