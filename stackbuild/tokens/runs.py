"""Sorted runs: the files of a dataset, ordered as documents need them, by an external sort.

The dataset is ordered by language and owner; a document needs all files of a repository, whatever their language. So
each dataset file becomes one run, sorted by (bucket, repo_name, revision_id, order, path_bytes, content_id), and a
bucket of all runs is merged as a stream. The bucket is a hash of the repository's name, and those that are held out have
buckets of their own behind the others (`Buckets`); `order` is the draw of `render.order_keys`.

A run is a Parquet file (zstd-1) whose row groups hold at most 16 MB of text and never two buckets; its footer tells
which row groups are whose. At most 32 runs are open at a time, more are merged in rounds. So memory is bounded by
`CHUNK` for `write_run`, and for `merged` by a row group of each open run.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.render.order import order_keys
from stackbuild.schema import ID

RUN = pa.schema(
    [
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        pa.field("order", pa.uint64(), nullable=False),
        pa.field("path_bytes", pa.binary(), nullable=False),
        pa.field("content_id", ID, nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("license_type", pa.string()),
        pa.field("language", pa.string()),
        pa.field("star_events_count", pa.int64()),
        pa.field("content", pa.large_string(), nullable=False),
    ]
)
KEY = RUN.names[:5]
CHUNK = 128 << 20  # text sorted in memory at a time
ROW_GROUP = 16 << 20  # text of a row group
HELD = 64 << 20  # text held of all open runs together, about
FAN_IN = 32
_FOOTER = b"stackbuild.buckets"
_READ = [name for name in RUN.names if name != "order"]


@dataclass(frozen=True)
class Buckets:
    """Which bucket a repository is in. `train`, `valid`: powers of two, `valid` 0 if nothing is held out; `held_out`: the
    names of those that are, whose buckets stand behind the others."""

    seed: int
    train: int
    valid: int = 0
    held_out: frozenset[str] = frozenset()

    @property
    def total(self) -> int:
        return self.train + self.valid

    def of(self, repo_name: str) -> int:
        """The bucket of a repository."""
        number = draw(self.seed, "shard", repo_name)
        return self.train + (number & (self.valid - 1)) if repo_name in self.held_out else number & (self.train - 1)


class RunWriter:
    """Writes a run: `write(bucket, table)` with tables of schema RUN, sorted, buckets in rising order."""

    def __init__(self, path: str | Path, buckets: int):
        self.path = str(path)
        self.groups = [0] * buckets  # row groups of each bucket
        self._bucket = 0
        self._waiting: list[pa.Table] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        self._writer = pq.ParquetWriter(
            self.path, RUN, compression="zstd", compression_level=1, use_dictionary=_READ[:2]
        )
        return self

    def write(self, bucket: int, table: pa.Table) -> None:
        """Append rows of a bucket; row groups have at most `ROW_GROUP` bytes of text, or one larger row."""
        if bucket != self._bucket:
            self._flush()
            self._bucket = bucket
        for part in cut(table, ROW_GROUP):
            size = _text_bytes(part)
            if self._bytes + size > ROW_GROUP:
                self._flush()
            self._waiting.append(part)
            self._bytes += size

    def _flush(self) -> None:
        rows = sum(part.num_rows for part in self._waiting)
        if rows:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=rows)
            self.groups[self._bucket] += 1
        self._waiting, self._bytes = [], 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
            self._writer.add_key_value_metadata({_FOOTER.decode(): json.dumps(self.groups)})
        self._writer.close()
        if kind is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)


def write_run(dataset_file: str | Path, buckets: Buckets, out_path: str | Path) -> dict[str, int]:
    """Write the run of one dataset file (schema.DATASET) and return {"files", "bytes"}.

    Files over `CHUNK` bytes of text are sorted in parts beside `out_path`, then merged. InputError if a column is
    missing or null where a file needs it.
    """
    counts = {"files": 0, "bytes": 0}
    chunks = _chunks(dataset_file)
    first, second = next(chunks, None), next(chunks, None)
    with contextlib.ExitStack() as spilled:
        parts: list[str] = []
        for table in chain([first] if first is not None else [], [second] if second is not None else [], chunks):
            counts["files"] += table.num_rows
            counts["bytes"] += _text_bytes(table)
            path = f"{out_path}.part{len(parts)}" if second is not None else str(out_path)
            if second is not None:
                spilled.callback(_remove, path)
            parts.append(path)
            _write_sorted(table, buckets, path)
        if second is not None or first is None:
            with RunWriter(out_path, buckets.total) as writer:
                for bucket in range(buckets.total):
                    for table in merged(parts, bucket, f"{out_path}.merge"):
                        writer.write(bucket, table)
    return counts


def merged(paths: Sequence[str | Path], bucket: int, scratch: str | Path) -> Iterator[pa.Table]:
    """Yield the rows of one bucket of all runs in order, as tables of schema RUN.

    The order of `paths` does not matter. `scratch` is a path that names of intermediate runs begin with; they are
    removed.
    """
    with contextlib.ExitStack() as stack:
        names, level = [str(path) for path in paths], 0
        while len(names) > FAN_IN:
            groups = [names[at : at + FAN_IN] for at in range(0, len(names), FAN_IN)]
            names = []
            for number, group in enumerate(groups):
                path = f"{scratch}.{bucket}.{level}.{number}"
                stack.callback(_remove, path)
                with RunWriter(path, bucket + 1) as writer:
                    for table in _merge([_bucket_rows(name, bucket, len(group)) for name in group]):
                        writer.write(bucket, table)
                names.append(path)
            level += 1
        yield from _merge([_bucket_rows(name, bucket, len(names)) for name in names])


def _chunks(path: str | Path) -> Iterator[pa.Table]:
    """The dataset file's rows in tables of at most about `CHUNK` bytes of text, content_id as binary(20)."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    with file:
        missing = set(_READ) - set(file.schema_arrow.names)
        if missing:
            raise InputError(f"{path}: no column {', '.join(sorted(missing))}: not a file of a dataset with contents")
        waiting: list[pa.Table] = []
        size = 0
        for batch in file.iter_batches(256, columns=_READ):
            table = _checked(pa.Table.from_batches([batch]), path)
            waiting.append(table)
            size += _text_bytes(table)
            if size >= CHUNK:
                yield pa.concat_tables(waiting)
                waiting, size = [], 0
        if waiting:
            yield pa.concat_tables(waiting)


def _checked(table: pa.Table, path: str | Path) -> pa.Table:
    for name in ("repo_name", "revision_id", "path", "path_bytes", "content_id", "content"):
        if table.column(name).null_count:
            raise InputError(f"{path}: a file without {name}; a document needs it")
    for name in ("repo_name", "revision_id", "path", "license_type", "language", "content"):
        _check_utf8(table, name, path)
    ids = table.column("content_id").combine_chunks()
    if not pc.all(pc.match_substring_regex(ids, r"\A[0-9a-f]{40}\z"), min_count=0).as_py():
        raise InputError(f"{path}: a content_id that is not 40 hex digits")
    raw = bytes.fromhex("".join(ids.to_pylist()))
    column = pa.FixedSizeBinaryArray.from_buffers(ID, len(ids), [None, pa.py_buffer(raw)])
    return table.set_column(table.schema.get_field_index("content_id"), "content_id", column)


def _check_utf8(table: pa.Table, name: str, path: str | Path) -> None:
    """InputError, naming the file, if a text of a column is not UTF-8: Parquet's readers do not look."""
    column = table.column(name)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        for row in range(table.num_rows):
            try:
                column.slice(row, 1).combine_chunks().validate(full=True)
            except pa.ArrowInvalid:
                of = table.slice(row, 1)
                repo, file = of.column("repo_name").cast(pa.binary())[0].as_py(), of.column("path_bytes")[0].as_py()
                raise InputError(f"{path}: {name} is not UTF-8, of {repo!r} at {file!r}") from error
        raise


def _write_sorted(table: pa.Table, buckets: Buckets, path: str) -> None:
    names = table.column("repo_name").to_pylist()
    order = order_keys(
        buckets.seed,
        names,
        table.column("revision_id").to_pylist(),
        table.column("path_bytes").to_pylist(),
        table.column("content_id").to_pylist(),
    )
    of_name = {name: buckets.of(name) for name in set(names)}
    bucket = np.fromiter((of_name[name] for name in names), np.int64, len(names))
    table = table.append_column("order", pa.array(order, pa.uint64())).select(RUN.names).cast(RUN)
    table = table.combine_chunks()  # once: `take` puts the chunks of a column together each time
    keyed = table.select(KEY).append_column("bucket", pa.array(bucket))
    rows = pc.sort_indices(keyed, sort_keys=[(name, "ascending") for name in ("bucket", *KEY)]).to_numpy()
    ends = np.searchsorted(bucket[rows], np.arange(buckets.total), "right").tolist()
    with RunWriter(path, buckets.total) as writer:
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            for at in range(start, end, 4096):
                writer.write(number, table.take(pa.array(rows[at : min(at + 4096, end)])))


def _bucket_rows(path: str, bucket: int, runs: int) -> Iterator[pa.Table]:
    """The rows of a bucket of one run in order, by small tables; `runs` share the memory of `HELD`."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16)
        groups = json.loads(file.metadata.metadata[_FOOTER])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is no sorted run of ours ({error!r}); write it again") from error
    with file:
        first = sum(groups[:bucket])
        for group in range(first, first + groups[bucket]):
            about = file.metadata.row_group(group)
            rows = max(1, about.num_rows * HELD // (runs * max(1, about.total_byte_size)))
            for batch in file.iter_batches(min(rows, 4096), row_groups=[group]):
                yield pa.Table.from_batches([batch], RUN)


def _merge(runs: Iterable[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """Merge sorted streams of tables: rows up to the smallest last key in hand are final, so they are sorted and go."""
    streams = list(runs)
    heads = [next(stream, None) for stream in streams]
    while True:
        lasts = [_key(head, head.num_rows - 1) for head in heads if head is not None]
        if not lasts:
            return
        limit = min(lasts)
        ready: list[pa.Table] = []
        for number, head in enumerate(heads):
            if head is None:
                continue
            rows = _rows_up_to(head, limit)
            if rows:
                ready.append(head.slice(0, rows))
                heads[number] = head.slice(rows) if rows < head.num_rows else next(streams[number], None)
        table = pa.concat_tables(ready)
        if len(ready) > 1:
            keys = [(name, "ascending") for name in KEY]
            table = table.combine_chunks().take(pc.sort_indices(table.select(KEY), sort_keys=keys))
        yield table


def _key(table: pa.Table, row: int) -> tuple[Any, ...]:
    return tuple(table.column(name)[row].as_py() for name in KEY)


def _rows_up_to(table: pa.Table, limit: tuple[Any, ...]) -> int:
    """How many rows of a sorted table have a key that is not above `limit`."""
    low, high = 0, table.num_rows
    if _key(table, 0) > limit:
        return 0
    while low < high:
        middle = (low + high) // 2
        if _key(table, middle) <= limit:
            low = middle + 1
        else:
            high = middle
    return low


def _lengths(table: pa.Table) -> npt.NDArray[np.int64]:
    lengths: npt.NDArray[np.int64] = pc.binary_length(table.column("content")).to_numpy()
    return lengths


def _text_bytes(table: pa.Table) -> int:
    return int(_lengths(table).sum())


def cut(table: pa.Table, size: int) -> Iterator[pa.Table]:
    """Cut a table into slices of at most `size` bytes of text, or one row."""
    ends = np.cumsum(_lengths(table))
    at, done = 0, 0
    while at < table.num_rows:
        end = max(at + 1, int(np.searchsorted(ends, done + size, "right")))
        yield table.slice(at, end - at)
        at, done = end, int(ends[end - 1])


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
