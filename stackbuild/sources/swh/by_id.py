"""Rows of a converted table that are of some ids, of one partition, without reading what holds none of them.

A converted table is sorted by its id within each file and partition. Of a row group its statistics say the range of its ids, and a
Bloom filter which are surely not in it; then its ids are read, and its other columns only if one of those asked for is among them.
So a level at which the walk stands in few places costs as many row groups as hold these, and not the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.footers import leaf_of, row_groups_of
from stackbuild.kernels import kernel
from stackbuild.schema import ID
from stackbuild.shards import Output, open_parquet, read_row_group
from stackbuild.sources.swh.bloom import SALTS, any_may_be_in, bits_of
from stackbuild.sources.swh.partitions import BUCKET, mine
from stackbuild.sources.swh.row_order import id_bytes
from stackbuild.sources.swh.session import Ids
from stackbuild.sources.swh.tables import TableSpec
from stackbuild.tables import arrow
from stackbuild.task import Task

ASKED_OF_FILTER: Final = 20_000  # ids in the range of a row group; of more it surely holds one


@dataclass
class Looked:
    """What was looked at. `rows_read`: of the row groups whose ids were read; `rows_skipped`: of those that were not."""

    rows_read: int = 0
    rows_skipped: int = 0


def rows_by_id(task: Task, spec: TableSpec, ids: Ids | None, looked: Looked) -> Iterator[pa.RecordBatch]:
    """The rows of a converted table in this task's partition that are of one of `ids`; all for None.

    A batch for each row group that has any, in the order of the files.
    """
    if ids is None:
        for batch in mine(task, spec.name, spec.schema):
            looked.rows_read += batch.num_rows
            yield batch
        return
    key, words = spec.key[0], _words(ids)
    for output in task.outputs(spec.name):
        if str(task.rank) not in output.groups:
            continue
        with open_parquet(task.out, output) as file, open(task.out / output.file, "rb") as raw:
            leaf = leaf_of(file, key)
            for group in row_groups_of(file, task.out / output.file, BUCKET, task.rank):
                rows = file.metadata.row_group(group).num_rows
                near = _within(file, group, leaf, ids, words)
                if not len(near) or not _may_hold(file, group, leaf, near, raw):
                    looked.rows_skipped += rows
                    continue
                looked.rows_read += rows
                batch = _rows(task, output, file, group, spec, near)
                if batch is not None:
                    yield batch


def rows_in(task: Task, spec: TableSpec, column: pa.ChunkedArray) -> Iterator[pa.RecordBatch]:
    """The rows of a converted table in this task's partition whose id stands in a column, which may hold nulls."""
    asked = pc.unique(column).drop_null().cast(pa.binary())
    ids = asked.take(pc.sort_indices(asked)).cast(ID)
    return rows_by_id(task, spec, id_bytes(ids), Looked())


def warm() -> None:
    """Compile what a look-up runs through."""
    one = np.frombuffer(bytes(20), np.uint8).reshape(1, 20)  # not to be written to, as views of Arrow's buffers
    any_may_be_in(np.frombuffer(bytes(32), np.uint32).reshape(1, 8), one, SALTS)
    _found(one, one)


def _words(ids: Ids) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each id as a number, which is in the same order."""
    return np.ascontiguousarray(ids[:, :8]).view(">u8").ravel().astype(np.uint64)


def _within(file: pq.ParquetFile, group: int, leaf: int, ids: Ids, words: npt.NDArray[np.uint64]) -> Ids:
    """Those ids that are in the range of a row group, by their first eight bytes; all if its statistics do not say."""
    statistics = file.metadata.row_group(group).column(leaf).statistics
    if statistics is None or not statistics.has_min_max:
        return ids
    first, last = (int.from_bytes(end[:8], "big") for end in (statistics.min, statistics.max))
    start = np.searchsorted(words, np.uint64(first), "left")
    return ids[start : np.searchsorted(words, np.uint64(last), "right")]


def _may_hold(file: pq.ParquetFile, group: int, leaf: int, ids: Ids, raw: Any) -> bool:
    """Whether the Bloom filter of a row group leaves room for one of the ids; True if it has none."""
    if len(ids) > ASKED_OF_FILTER:
        return True
    column = file.metadata.row_group(group).column(leaf)
    bits = bits_of(raw, column.bloom_filter_offset, column.bloom_filter_length)
    return bits is None or bool(any_may_be_in(bits, ids, SALTS))


def _rows(
    task: Task, output: Output, file: pq.ParquetFile, group: int, spec: TableSpec, ids: Ids
) -> pa.RecordBatch | None:
    """The rows of a row group that are of these ids, None if there are none."""
    key, schema = spec.key[0], spec.schema
    held = read_row_group(task.out, output, file, group, [key]).column(key).combine_chunks()
    found = _found(id_bytes(held), ids)
    if not found.any():
        return None
    rest = read_row_group(task.out, output, file, group, [name for name in schema.names if name != key])
    columns = {name: rest.column(name) for name in rest.column_names} | {key: held}
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    if not found.all():
        table = table.filter(arrow(found))
    return table.combine_chunks().to_batches()[0]


@kernel
def _found(rows: Any, ids: Any) -> Any:
    """Whether each of the sorted rows, uint8 (n, 20), is one of the sorted ids, bool (n,)."""
    found = np.zeros(len(rows), np.bool_)
    at = 0
    for row in range(len(rows)):
        while at < len(ids):
            order = np.int64(0)
            for byte in range(20):
                if ids[at, byte] != rows[row, byte]:
                    order = np.int64(ids[at, byte]) - np.int64(rows[row, byte])
                    break
            if order >= 0:
                found[row] = order == 0
                break
            at += 1
        else:
            break
    return found
