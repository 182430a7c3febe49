"""What a group of components is solved with: its files' sets and survivor columns, and its edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup import limits as limits_of
from stackbuild.dedup.components import group_of, labelled
from stackbuild.dedup.limits import Limits
from stackbuild.dedup.links import matched
from stackbuild.dedup.near_duplicates import rank_values
from stackbuild.dedup.numbers import VARIANT_BITS, Numbers, file_numbers
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.sketches import SKETCH_BYTES, by_column
from stackbuild.schema import ID
from stackbuild.tables import arrow, in_order, record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task

GROUP_EDGES = pa.schema([pa.field("group", pa.int32()), pa.field("left", pa.int64()), pa.field("right", pa.int64())])


def sets_schema(options: NearDedupOptions) -> pa.Schema:
    """What `solve` knows of a member: its place, its survivor columns as int64 and its distinct shingles, ascending."""
    return pa.schema(
        [
            pa.field("group", pa.int32()),
            pa.field("component", pa.int64()),
            pa.field("file", pa.int64()),
            pa.field("content_id", ID),
            pa.field("scope", pa.string()),
            *(pa.field(name.removeprefix("-"), pa.int64()) for name in options.survivor),
            pa.field("repo_name", pa.string()),
            pa.field("path", pa.string()),
            pa.field("shingles", pa.int64()),
            pa.field("hashes", pa.large_binary()),
        ]
    )


def gather(task: Task) -> None:
    """Send the sets and edges of this partition's files to the groups of their components."""
    options: NearDedupOptions = task.options
    files, labels = labelled(task)
    groups = sum(output.rows for output in task.outputs("groups"))
    facts = _facts(task, np.unique(files >> VARIANT_BITS), options)
    limits = Limits.of(options.memory, options.permutations)
    waiting, held = list[pa.RecordBatch](), 0
    columns = ["partition", "file", "content_id", "scope", "shingles", *(["hashes"] if options.verify else [])]
    for batch in task.read("sketches", columns, task.rank, "partition") if len(files) else ():
        rows, at = matched(np.asarray(batch.column("file")), files)
        if not len(rows):
            continue
        members = batch.take(arrow(rows))
        waiting.append(_set_rows(members, labels[at], group_of(labels[at], groups), facts, options))
        held += int(pc.sum(waiting[-1].column("shingles")).as_py() or 0) if options.verify else len(rows)
        if held >= limits.hashes:
            _write_sets(task, waiting)
            held = 0
    _write_sets(task, waiting)
    _write_edges(task, files, labels, groups, limits)


def _facts(task: Task, numbers: Numbers, options: NearDedupOptions) -> pa.Table:
    """Survivor columns and names of this partition's files whose number is among `numbers` (without their variants)."""
    names = tuple(dict.fromkeys((*options.survivor_columns, "repo_name", "path")))
    fields = [pa.field("content_id", ID)]
    fields += [pa.field(name.removeprefix("-"), pa.int64()) for name in options.survivor]
    fields += [pa.field("repo_name", pa.string()), pa.field("path", pa.string())]
    found = []
    for batch in task.batches(["content_id", *names]) if len(numbers) else ():
        rows, _ = matched(file_numbers(batch.column("content_id")) >> VARIANT_BITS, numbers)
        if not len(rows):
            continue
        here = batch.take(arrow(rows))
        arrays = [here.column("content_id")]
        for survivor, column in zip(options.survivor, options.survivor_columns, strict=True):
            arrays.append(rank_values(here.column(column), survivor.removeprefix("-")))
        arrays += [here.column("repo_name").cast(pa.string()), here.column("path").cast(pa.string())]
        found.append(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))
    return pa.Table.from_batches(found, pa.schema(fields)).combine_chunks()


def _set_rows(
    members: pa.RecordBatch, labels: Numbers, groups: Numbers, facts: pa.Table, options: NearDedupOptions
) -> pa.RecordBatch:
    ids = members.column("content_id")
    of = facts.take(pc.index_in(ids, value_set=facts["content_id"].combine_chunks()))
    known = {name: of[name].combine_chunks() for name in facts.column_names if name != "content_id"}
    known |= {
        "group": arrow(groups.astype(np.int32)),
        "component": arrow(labels),
        "file": members.column("file"),
        "content_id": ids,
        "scope": members.column("scope"),
        "shingles": members.column("shingles"),
        "hashes": members.column("hashes") if options.verify else pa.nulls(len(ids), pa.large_binary()),
    }
    schema = sets_schema(options)
    return pa.RecordBatch.from_arrays([known[field.name].cast(field.type) for field in schema], schema=schema)


def _write_sets(task: Task, waiting: list[pa.RecordBatch]) -> None:
    """Write a run, and let go of its batches."""
    schema = sets_schema(task.options)
    table = pa.Table.from_batches(waiting, schema).combine_chunks()
    waiting.clear()
    order = np.lexsort((np.asarray(table["component"]), np.asarray(table["group"])))
    with task.writer(
        "sets", schema, group_by="group", row_group_rows=limits_of.SET_ROWS, row_group_bytes=SKETCH_BYTES
    ) as writer:
        for part in in_order(table, order, limits_of.SET_ROWS):
            writer.write(part)
    del table
    pa.default_memory_pool().release_unused()


def _write_edges(task: Task, files: Numbers, labels: Numbers, groups: int, limits: Limits) -> None:
    """The edges whose right file is this partition's, in runs sorted by group."""
    waiting, held = list[pa.RecordBatch](), 0
    for batch in task.read("edges", None, task.rank, "partition"):
        left, right = np.asarray(batch.column("left")), np.asarray(batch.column("right"))
        group = group_of(labels[np.searchsorted(files, right)], groups).astype(np.int32)
        waiting.append(record_batch(GROUP_EDGES, group, left, right))
        held += len(left)
        if held >= limits.pairs:
            _write_run(task, waiting)
            waiting, held = [], 0
    _write_run(task, waiting)


def _write_run(task: Task, waiting: Sequence[pa.RecordBatch]) -> None:
    with task.writer("group_edges", GROUP_EDGES, group_by="group") as writer:
        for batch in by_column(waiting, "group"):
            writer.write(batch)
