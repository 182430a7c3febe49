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

# The files of components that are to be solved, when others are as an earlier run found them.
CHANGED = pa.schema(
    [
        pa.field("partition", pa.int32()),
        pa.field("file", pa.int64()),
        pa.field("component", pa.int64()),
        pa.field("shingles", pa.int64()),
    ]
)


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
    files, labels = labelled(task)
    sets = Sets(task, sketched_bytes(task) if len(files) else 0) if task.options.verify else None
    _gather(task, files, labels, Members(task, files), sets)
    _write_edges(task, files, labels)


def gather_members(task: Task) -> None:
    """The same without the sets, whose bytes are not read: what tells whether a component is as it was."""
    files, labels = labelled(task)
    _gather(task, files, labels, Members(task, files), None)
    _write_edges(task, files, labels)


def gather_sets(task: Task) -> None:
    """The sets of this partition's files whose components are to be solved (`CHANGED`)."""
    if not task.options.verify:
        return
    batches = list(task.read("changed", None, task.rank, "partition"))
    files, labels, shingles = (
        np.concatenate([np.zeros(0, np.int64), *(np.asarray(batch.column(name)) for batch in batches)])
        for name in ("file", "component", "shingles")
    )
    order = np.argsort(files)
    _gather(task, files[order], labels[order], None, Sets(task, 8 * int(shingles.sum())))


class Members(Spill):
    """The table of that name."""

    def __init__(self, task: Task, files: Numbers):
        options: NearDedupOptions = task.options
        self._facts = Facts(task, np.unique(files >> VARIANT_BITS))
        super().__init__(
            task,
            "members",
            members_schema(options),
            ("group",),
            groups=_groups(task),
            expected=max(MEMBER_BYTES * len(files), 2 * self._facts.bytes),  # paths may be long
            at_once=options.memory // 2,
            row_group=(ROW_GROUP_ROWS, ROW_GROUP_BYTES),
        )

    def add_sketched(self, found: pa.RecordBatch, place: Sequence[pa.Array]) -> None:
        """Take rows of sketches in; `place`: their groups and components."""
        self.add(self._facts.of(found, place))


class Sets(Spill):
    """The table of that name; `expected`: bytes of all, about."""

    def __init__(self, task: Task, expected: int):
        options: NearDedupOptions = task.options
        super().__init__(
            task,
            "sets",
            SETS,
            ("group", "component"),
            groups=_groups(task),
            expected=expected,
            at_once=8 * Limits.of(options.memory, options.permutations).hashes,
            row_group=(SET_ROWS, SKETCH_BYTES),
        )

    def add_sketched(self, found: pa.RecordBatch, place: Sequence[pa.Array]) -> None:
        """As that of `Members`."""
        self.add(record_batch(SETS, *place, *(found.column(name) for name in ("file", "content_id", "hashes"))))


def _groups(task: Task) -> int:
    return sum(output.rows for output in task.outputs("groups"))


def _gather(task: Task, files: Numbers, labels: Numbers, members: Members | None, sets: Sets | None) -> None:
    """Write the tables of these files of the partition, int64 ascending with their components."""
    tables = [table for table in (members, sets) if table is not None]
    groups = _groups(task)
    columns = ["partition", "file", "content_id", "scope", "shingles", *(["hashes"] if sets is not None else [])]
    for batch in task.read("sketches", columns, task.rank, "partition") if len(files) else ():
        rows, at = matched(np.asarray(batch.column("file")), files)
        if not len(rows):
            continue
        found = batch.take(arrow(rows))
        place = [arrow(group_of(labels[at], groups).astype(np.int32)), arrow(labels[at])]
        for table in tables:
            table.add_sketched(found, place)
    for table in tables:
        table.close()


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


def _write_edges(task: Task, files: Numbers, labels: Numbers) -> None:
    """The edges whose right file is this partition's, in runs sorted by group."""
    limits, groups = Limits.of(task.options.memory, task.options.permutations), _groups(task)
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
