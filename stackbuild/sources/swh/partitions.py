"""Tables of the walk by partition: each row lies in that of an id, or of a repository, and is read by the task of that partition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from stackbuild.hashing import content_buckets, id_bytes
from stackbuild.schema import ID
from stackbuild.sources.swh.convert import Counts, convert_batch
from stackbuild.sources.swh.row_order import sorted_pieces
from stackbuild.sources.swh.tables import TableSpec
from stackbuild.sources.swh.visits import buckets
from stackbuild.task import Task

BUCKET = "bucket"
BUCKET_FIELD = pa.field(BUCKET, pa.uint16(), nullable=False)


def mine(task: Task, table: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a table in this task's partition."""
    for batch in task.read(table, schema.names, task.rank, BUCKET):
        yield pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema)


def has_any(task: Task, table: str) -> bool:
    """Whether a table has rows in this task's partition, from what its files say of themselves."""
    return any(str(task.rank) in output.groups for output in task.outputs(table))


def bucketed(batch: pa.RecordBatch, name: str, partitions: int) -> pa.RecordBatch:
    """A batch with the partition of an id; rows without the id are no rows of any partition."""
    if batch.column(name).null_count:
        batch = batch.filter(batch.column(name).is_valid())
    ids = batch.column(name)
    ids = ids if ids.type == ID else ids.cast(ID)
    bucket = pa.array(content_buckets(id_bytes(ids), partitions).astype(np.uint16))
    return pa.RecordBatch.from_arrays([bucket, *batch.columns], [BUCKET, *batch.schema.names])


def write_by(task: Task, name: str, schema: pa.Schema, rows: Iterable[pa.RecordBatch], by: str) -> None:
    """Write rows that are sorted by an id, grouped by its partition."""
    write(task, name, pa.schema([BUCKET_FIELD, *schema]), (bucketed(batch, by, task.partitions) for batch in rows))


def write_by_repository(task: Task, name: str, schema: pa.Schema, rows: pa.Table) -> None:
    """Write rows grouped by the partition of the name in their column `repository`, in a total order."""
    bucket = pa.array(buckets(rows["repository"].combine_chunks(), task.partitions))
    rows = rows.append_column(BUCKET_FIELD, bucket)
    rows = rows.sort_by([(BUCKET, "ascending"), *((field, "ascending") for field in schema.names)])
    write(task, name, pa.schema([BUCKET_FIELD, *schema]), rows.to_batches())


def write(task: Task, name: str, schema: pa.Schema, rows: Iterable[pa.RecordBatch], **options: Any) -> None:
    """Write a table grouped by its column `bucket`; no file if there is no row."""
    writer = None
    grouped = BUCKET if BUCKET in schema.names else None
    for batch in rows:
        if batch.num_rows:
            writer = writer or task.writer(name, schema, group_by=grouped, **options)
            writer.write(batch)
    if writer is not None:
        writer.close()


def warm(spec: TableSpec) -> None:
    """Compile what the conversion of a table runs through, on a row of it."""
    kinds = {
        "id": "00" * 20,
        "target": "00" * 20,
        "text": "a",
        "name": b"a",
        "bytes": b"a",
        "integer": 1,
        "time": 1,
        "seconds": 1,
    }
    types = {"time": pa.timestamp("us"), "seconds": pa.int64()}
    row = {
        c.theirs: pa.array([c.words[0] if c.how == "word" else kinds[c.how]], types.get(c.how)) for c in spec.columns
    }
    list(sorted_pieces(convert_batch(pa.record_batch(row), spec, Counts()), spec.key))
