"""What a group of components is solved with: its files' sets and survivor columns, and its edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.components import group_of, labelled
from stackbuild.dedup.limits import MEMBER_BYTES, SET_ROWS, Limits
from stackbuild.dedup.links import matched
from stackbuild.dedup.near_duplicates import rank_values
from stackbuild.dedup.numbers import VARIANT_BITS, Numbers, file_numbers, id_values
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.sketches import SKETCH_BYTES, by_column
from stackbuild.dedup.spill import Spill
from stackbuild.errors import InputError
from stackbuild.schema import ID
from stackbuild.tables import ROW_GROUP_BYTES, ROW_GROUP_ROWS, arrow, record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task

SETS = pa.schema(
    [
        pa.field("group", pa.int32()),
        pa.field("component", pa.int64()),
        pa.field("file", pa.int64()),
        pa.field("content_id", ID),
        pa.field("hashes", pa.large_binary()),  # the distinct shingles, ascending
    ]
)
GROUP_EDGES = pa.schema([pa.field("group", pa.int32()), pa.field("left", pa.int64()), pa.field("right", pa.int64())])


def members_schema(options: NearDedupOptions) -> pa.Schema:
    """What `solve` knows of a member but its shingles: its place, how many shingles it has, its survivor columns as int64."""
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
        ]
    )


def gather(task: Task) -> None:
    """Send the sets, survivor columns and edges of this partition's files to the groups of their components."""
    options: NearDedupOptions = task.options
    limits = Limits.of(options.memory, options.permutations)
    files, labels = labelled(task)
    groups = sum(output.rows for output in task.outputs("groups"))
    facts = Facts(task, np.unique(files >> VARIANT_BITS))
    members = Spill(
        task,
        "members",
        members_schema(options),
        ("group",),
        groups=groups,
        expected=max(MEMBER_BYTES * len(files), 2 * facts.bytes),  # paths may be long
        at_once=options.memory // 2,
        row_group=(ROW_GROUP_ROWS, ROW_GROUP_BYTES),
    )
    sets = Spill(
        task,
        "sets",
        SETS,
        ("group", "component"),
        groups=groups,
        expected=sketched_bytes(task) if options.verify and len(files) else 0,
        at_once=8 * limits.hashes,
        row_group=(SET_ROWS, SKETCH_BYTES),
    )
    columns = ["partition", "file", "content_id", "scope", "shingles", *(["hashes"] if options.verify else [])]
    for batch in task.read("sketches", columns, task.rank, "partition") if len(files) else ():
        rows, at = matched(np.asarray(batch.column("file")), files)
        if not len(rows):
            continue
        found = batch.take(arrow(rows))
        place = [arrow(group_of(labels[at], groups).astype(np.int32)), arrow(labels[at])]
        members.add(facts.of(found, place))
        if options.verify:
            sets.add(record_batch(SETS, *place, *(found.column(name) for name in ("file", "content_id", "hashes"))))
    members.close()
    sets.close()
    _write_edges(task, files, labels, groups, limits)


def sketched_bytes(task: Task) -> int:
    """Bytes of this partition's sketches, about; what is in files that hold several partitions is shared out by rows."""
    outputs = [output for output in task.outputs("sketches") if output.rows]
    return sum(output.bytes * output.groups.get(str(task.rank), 0) // output.rows for output in outputs)


class Facts:
    """Survivor columns and names of this partition's files whose number is among `numbers` (without their variants)."""

    def __init__(self, task: Task, numbers: Numbers):
        options: NearDedupOptions = task.options
        self._schema = members_schema(options)
        names = tuple(dict.fromkeys((*options.survivor_columns, "repo_name", "path")))
        ours = [name.removeprefix("-") for name in options.survivor]
        kept = pa.schema([self._schema.field(name) for name in ("content_id", *ours, "repo_name", "path")])
        found = []
        for batch in task.batches(["content_id", *names]) if len(numbers) else ():
            rows, _ = matched(file_numbers(batch.column("content_id")) >> VARIANT_BITS, numbers)
            if not len(rows):
                continue
            here = batch.take(arrow(rows))
            arrays = [here.column("content_id")]
            for survivor, column in zip(ours, options.survivor_columns, strict=True):
                arrays.append(rank_values(here.column(column), survivor))
            arrays += [here.column("repo_name").cast(pa.string()), here.column("path").cast(pa.string())]
            found.append(pa.RecordBatch.from_arrays(arrays, schema=kept))
        table = pa.Table.from_batches(found, kept)
        self._table = table.take(pc.sort_indices(table["content_id"])).combine_chunks()
        self._ids = id_values(self._table["content_id"])
        self.bytes = self._table.nbytes

    def of(self, sketched: pa.RecordBatch, place: Sequence[pa.Array]) -> pa.RecordBatch:
        """The rows of `members` for rows of sketches; `place`: their groups and components."""
        ids = id_values(sketched.column("content_id"))
        at = np.searchsorted(self._ids, ids)
        if not np.array_equal(self._ids[np.minimum(at, len(self._ids) - 1)], ids):
            raise InputError("There are sketches of contents that are no files of their partition.")
        rows = self._table.take(arrow(at))
        known = dict(zip(("group", "component"), place, strict=True))
        known |= {name: sketched.column(name) for name in ("file", "content_id", "scope", "shingles")}
        known |= {name: rows[name].combine_chunks() for name in rows.column_names if name != "content_id"}
        return pa.RecordBatch.from_arrays([known[field.name] for field in self._schema], schema=self._schema)


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
