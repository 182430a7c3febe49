"""Candidates in exact mode: every pair at the threshold, by the prefix-filtered join (`exact_join`) over sketches on disk.

  frequencies  a partition  ->  how many of its files hold a shingle, in a table of slots
  order        once         ->  the sum of all tables, by which shingles are ordered
  prefixes     a partition  ->  the rows of its files' prefixes, by bucket of their key
  candidates   a bucket     ->  pairs

A table takes two bytes for each shingle of all files, 512 MB at most; it is in memory with every task of the first three.
The other phases are those of MinHash, without its estimate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stackbuild.dedup.exact_join import (
    Counts,
    PrefixRows,
    count_shingles,
    exact_candidates,
    merge_counts,
    prefix_rows,
    table_bits,
)
from stackbuild.dedup.limits import Limits
from stackbuild.dedup.links import PAIRS
from stackbuild.dedup.numbers import BLIND, PLAIN, SEEING, Numbers, partition_of, passes_for, variant_of
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.shingles import Hashes
from stackbuild.dedup.sketches import hash_runs
from stackbuild.hashing import scope_hashes
from stackbuild.tables import arrow, record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task

PREFIXES = pa.schema(
    [
        pa.field("bucket", pa.uint16()),
        pa.field("key", pa.uint64()),
        pa.field("file", pa.int64()),
        pa.field("size", pa.int32()),
        pa.field("position", pa.int32()),
        pa.field("previous", pa.uint64()),
        pa.field("sets", pa.uint64()),
    ]
)


def count(task: Task) -> None:
    """Count the shingles of this partition's files."""
    table = np.zeros(1 << _bits(task), np.uint16)
    for hashes, offsets, scopes, _ in _sets(task):
        count_shingles(hashes, offsets, scopes, table)
    np.save(task.file("counts", ".npy"), table)


def _bits(task: Task) -> int:
    """The binary logarithm of the table's slots, by the bytes of all files of sketches, signatures among them: the same
    for all tasks of a run. How files were cut into tasks may change the bytes and so the table; no pair depends on it.
    """
    return table_bits(sum(output.bytes for output in task.outputs("sketches")) // 8)


def merge(task: Task) -> None:
    """Add up the tables of all partitions."""
    table: Counts | None = None
    for path in task.table("counts"):
        other = np.load(path, mmap_mode=None if table is None else "r")
        if table is None:
            table = other
        else:
            merge_counts(table, other)
    if table is not None:
        np.save(task.file("order", ".npy"), table)


def list_prefixes(task: Task) -> None:
    """Write the prefixes of this partition's files, in runs sorted by bucket (the leading bits of the key)."""
    options: NearDedupOptions = task.options
    limit = Limits.of(options.memory, options.permutations).bands
    table: Counts = np.load(task.table("order")[0], mmap_mode="r")
    waiting, held = list[PrefixRows](), 0
    for hashes, offsets, scopes, files in _sets(task):
        waiting.append(prefix_rows(hashes, offsets, scopes, files, np.asarray(table), options.threshold))
        held += len(waiting[-1].keys)
        if held >= limit:
            _write(task, waiting)
            waiting, held = [], 0
    _write(task, waiting)


def _sets(task: Task) -> Iterator[tuple[Hashes, Numbers, Hashes, Numbers]]:
    """(hashes, offsets, scopes, files) of this partition's sketches, in batches; a file that is there twice counts once."""
    seen, scoped = np.zeros(0, np.int64), task.options.scope == "language"
    for batch in task.read("sketches", ["partition", "file", "scope", "hashes"], task.rank, "partition"):
        files, first = np.unique(np.asarray(batch.column("file")), return_index=True)
        fresh = ~np.isin(files, seen)
        seen = np.concatenate((seen, files[fresh]))
        here = batch.take(arrow(np.sort(first[fresh])))
        hashes, offsets = hash_runs(here.column("hashes"))
        scopes = scope_hashes(here.column("scope") if scoped else None, here.num_rows)
        yield hashes, offsets, scopes, np.asarray(here.column("file"))


def _write(task: Task, waiting: Sequence[PrefixRows]) -> None:
    if not waiting:
        return
    rows = PrefixRows._make(np.concatenate(columns) for columns in zip(*waiting, strict=True))
    key = rows.keys
    bits = task.partitions.bit_length() - 1
    bucket = (key >> np.uint64(64 - bits)).astype(np.uint16) if bits else np.zeros(len(key), np.uint16)
    order = np.argsort(bucket, kind="stable")
    columns = (column[order] for column in (bucket, *rows))
    with task.writer("prefixes", PREFIXES, group_by="bucket") as writer:
        writer.write(record_batch(PREFIXES, *columns))


def list_candidates(task: Task) -> None:
    """Write the pairs of this task's bucket that may reach the threshold, by the partition of the left file."""
    options: NearDedupOptions = task.options
    limits = Limits.of(options.memory, options.permutations)
    rows = sum(output.groups.get(str(task.rank), 0) for output in task.outputs("prefixes"))
    passes = passes_for(rows, limits.bands)
    listed = 0
    for pass_ in range(passes):
        found = _rows_of(task, pass_, passes)
        for left, right in _pairs(found, options.threshold, limits.pairs):
            listed += len(left)
            with task.writer("pairs", PAIRS, group_by="partition") as writer:
                writer.write(record_batch(PAIRS, partition_of(left, task.partitions), left, right))
    task.stats["pairs_of_buckets"] = listed


def _rows_of(task: Task, pass_: int, passes: int) -> PrefixRows:
    """The rows of one range of this bucket's keys."""
    bits, more = task.partitions.bit_length() - 1, passes.bit_length() - 1
    parts = []
    for batch in task.read("prefixes", None, group=task.rank, group_by="bucket"):
        part = PrefixRows._make(np.asarray(batch.column(name)) for name in PREFIXES.names[1:])
        if more:
            here = (part.keys << np.uint64(bits)) >> np.uint64(64 - more) == pass_
            part = PrefixRows._make(column[here] for column in part)
        parts.append(part)
    if not parts:
        kinds = (np.uint64, np.int64, np.int32, np.int32, np.uint64, np.uint64)
        return PrefixRows._make(np.zeros(0, kind) for kind in kinds)
    return PrefixRows._make(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _pairs(rows: PrefixRows, threshold: float, at_once: int) -> Iterator[tuple[Numbers, Numbers]]:
    variants = variant_of(rows.files)
    views = [np.ones(len(variants), bool)] if (variants == PLAIN).all() else [variants != v for v in (SEEING, BLIND)]
    for view in views:
        part = rows if view.all() else PrefixRows._make(column[view] for column in rows)
        yield from exact_candidates(*part[:4], threshold, at_once, part.previous, part.sets)
