"""What a fetch tells of contents, as rows: their bytes, what became of each, and the files at their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from stackbuild.schema import CONTENTS, ID
from stackbuild.sources.swh.partitions import BUCKET_FIELD
from stackbuild.wanted import Fetched, Wanted

FETCHED = pa.schema([BUCKET_FIELD, *CONTENTS])
WRITTEN_ROWS, WRITTEN_BYTES = 4_096, 8 << 20  # of contents that are written at a time
# A file at its place: what was found, and the content that lies there, or the rule by which it leaves.
PLACED = pa.schema(
    [
        pa.field("root", ID, nullable=False),
        pa.field("path", pa.binary(), nullable=False),
        pa.field("mode", pa.int32(), nullable=False),
        pa.field("content_id", ID, nullable=False),
        pa.field("blob_id", ID),
        pa.field("length", pa.int64()),
        pa.field("rule", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("detail", pa.string()),
    ]
)
STATES = pa.schema([*(field for field in PLACED if field.name not in ("root", "path", "mode"))])


def wanted_of(batch: pa.RecordBatch) -> Iterator[Wanted]:
    """What to fetch, of rows with blob_id, content_id and length."""
    columns = (batch.column(name).to_pylist() for name in ("blob_id", "content_id", "length"))
    for blob_id, content_id, length in zip(*columns, strict=True):
        yield Wanted(blob_id, content_id, length)


def gathered(fetched: Iterator[Fetched]) -> Iterator[list[Fetched]]:
    """What came, in lists of at most `WRITTEN_ROWS`, and of about `WRITTEN_BYTES`."""
    held: list[Fetched] = []
    size = 0
    for one in fetched:
        held.append(one)
        size += len(one.data or b"")
        if size >= WRITTEN_BYTES or len(held) == WRITTEN_ROWS:
            yield held
            held, size = [], 0
    if held:
        yield held


def contents_of(partition: int, fetched: Sequence[Fetched]) -> pa.RecordBatch:
    """The contents that came, as rows of FETCHED."""
    came = [(one.wanted.content_id, one.wanted.blob_id, one.data) for one in fetched if one.data is not None]
    ids, blobs, data = zip(*came, strict=True) if came else ((), (), ())
    columns = ([partition] * len(data), ids, blobs, list(map(len, data)), data)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, FETCHED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=FETCHED)


def states_of(fetched: Sequence[Fetched]) -> pa.Table:
    """What became of each, as rows of STATES."""
    rows = [
        (one.wanted.content_id, one.wanted.blob_id, one.wanted.length, None if one.data is not None else one.state)
        for one in fetched
    ]
    nothing = [None] * len(rows)
    columns = (*zip(*rows, strict=True), nothing, nothing, nothing)
    return pa.table([pa.array(c, field.type) for c, field in zip(columns, STATES, strict=True)], schema=STATES)
