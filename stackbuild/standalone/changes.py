"""Which rows of earlier files have another fate now than in the run before, in memory that does not grow with them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.dedup.numbers import Numbers
from stackbuild.dedup.scratch import ScratchRows
from stackbuild.shards import Output, read_batches
from stackbuild.standalone.folding import AT_ONCE, in_key_order, in_ranges
from stackbuild.standalone.reading import id_hashes
from stackbuild.standalone.schemas import clusters_schema
from stackbuild.tables import TableWriter, arrow, conform

CHANGES = "changes.parquet"
EARLIER, WAS_OUT, IS_OUT = 0, 1, 2  # what a record says of its id: an earlier file's; left then; leaves now


def changes_schema(id_type: pa.DataType) -> pa.Schema:
    """`kept`: whether the row stays now; if not, for which row and why, as in `clusters`."""
    told = clusters_schema(id_type)
    return pa.schema([told.field(name) for name in ("id", "kept", "kept_id", "similarity", "reason")])


def write_changes(out: Path, published: Sequence[Path], before: Sequence[Path], ids: Sequence[Output]) -> int:
    """Write OUT/changes.parquet, the rows of earlier files that stayed and leave now, or left and stay, by id; return how many.

    `published`, `before`: files of clusters, now and of the earlier run. `ids`: the earlier rows' ids, below OUT. Memory:
    what `in_ranges` holds, about 2^17 rows.
    """
    id_type = pq.read_schema(published[0]).field("id").type
    records = changes_schema(id_type).append(pa.field("says", pa.int8()))

    def read() -> Iterator[pa.RecordBatch]:
        for batch in read_batches(out, ids, ["id"]):
            yield _record(batch, EARLIER, records)
        for says, paths in ((WAS_OUT, before), (IS_OUT, published)):
            for path in paths:
                with pq.ParquetFile(path, pre_buffer=False) as file:
                    for batch in file.iter_batches(AT_ONCE, columns=records.names[:-1]):
                        yield _record(batch.filter(pc.invert(batch.column("kept"))), says, records)

    scratch = out / ".changes"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    scratch.mkdir()
    rows = sum(output.rows for output in ids) + sum(pq.read_metadata(path).num_rows for path in (*before, *published))
    changed, count = ScratchRows(scratch, "changed", records), 0
    for piece in in_ranges(read, rows, records, _range_of, scratch):
        found = _changed(pa.Table.from_batches(piece(), records))
        count += len(found)
        changed.write(0, found)
    changed.finish()
    with TableWriter(scratch / CHANGES, changes_schema(id_type), release=True, compression_level=3) as writer:
        for table in in_key_order(partial(changed.read, 0), count, records, [("id", "ascending")], scratch):
            writer.write(table)
    os.replace(scratch / CHANGES, out / CHANGES)
    shutil.rmtree(scratch)
    return count


def _record(batch: pa.RecordBatch, says: int, schema: pa.Schema) -> pa.RecordBatch:
    return conform(batch.append_column("says", arrow(np.full(batch.num_rows, says, np.int8))), schema)


def _range_of(batch: pa.RecordBatch, ranges: int) -> Numbers:
    return (id_hashes(batch.column("id")) >> np.uint64(64 - (ranges.bit_length() - 1))).astype(np.int64)


def _changed(records: pa.Table) -> pa.Table:
    """Of all records of some ids those that leave now and came of earlier files, where they stayed, and those that left
    and stay now.
    """
    earlier, was, now = (records.filter(pc.equal(records["says"], says)) for says in (EARLIER, WAS_OUT, IS_OUT))

    def among(rows: pa.Table, others: pa.Table) -> pa.ChunkedArray:
        return pc.is_in(rows["id"], value_set=others["id"].combine_chunks())

    left = now.filter(pc.and_(among(now, earlier), pc.invert(among(now, was))))
    back = was.filter(pc.invert(among(was, now)))
    nothing = [pa.nulls(len(back), field.type) for field in records.schema][2:-1]
    kept = [back["id"], pa.array(np.ones(len(back), bool)), *nothing, back["says"]]
    return pa.concat_tables([left, pa.Table.from_arrays(kept, schema=records.schema)])
