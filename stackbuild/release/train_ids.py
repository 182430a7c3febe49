"""A build's repositories in the layout of the-stack-v2-train-full-ids and -train-smol-ids: one row each, with `files`.

Columns, types and order are those of the dataset cards; what a build does not know (GitHub's dates of the last update and
push) is null. `blob_id` is the SHA-1, under which the object is found, so anyone who can fill those can fill these.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.schema import TIMESTAMP
from stackbuild.tables import TableWriter, conform

UNKNOWN = {"gha_updated_at": "gha_created_at", "gha_pushed_at": "gha_updated_at"}  # each behind which it stands


def published_schema(repos: pa.Schema) -> pa.Schema:
    """The published columns, from those of a build's table `repos`."""
    fields = list(repos)
    for name, before in UNKNOWN.items():
        at = next(index for index, field in enumerate(fields) if field.name == before) + 1
        fields.insert(at, pa.field(name, TIMESTAMP))
    return pa.schema(fields)


def write_train_ids(sources: list[Path], repos: pa.Schema, folder: Path) -> int:
    """Write data/train-*.parquet below a folder, a file for each of the sources that has rows; returns the repositories."""
    schema = published_schema(repos)
    filled = [path for path in sources if pq.read_metadata(path).num_rows]
    count = 0
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(filled):
        name = f"train-{number:05d}-of-{len(filled):05d}.parquet"
        with TableWriter(folder / "data" / name, schema, release=True, compression_level=3) as writer:
            for batch in batches(path):
                writer.write(conform(batch, schema))
        count += writer.rows
    return count


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Repositories, few at a time: one may have a million files."""
    yield from pq.ParquetFile(path, pre_buffer=False).iter_batches(64)
