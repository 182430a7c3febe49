"""Components that are as an earlier run found them: their clusters are taken over, and only the others are solved.

What becomes of a component follows from its files, their survivor columns and its edges, by the options and the code. A
run writes down a digest of these for every component (`SOLVED`). A run on top of it that has the same options compares:

  find_unchanged  a group  ->  the clusters, verified pairs and digests of components that are as they were, and the files
                               of all others (`members.CHANGED`), whose sets are gathered next
  solve_group     a group  ->  the same tables of the others

Together these are the tables that a run over all files writes, so that the next run can build on either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.clusters import CLUSTERS, EDGES, Group, View, edge_rows, solve_members
from stackbuild.dedup.links import matched
from stackbuild.dedup.members import CHANGED
from stackbuild.dedup.near_duplicates import rank_column
from stackbuild.dedup.numbers import SEEING, Numbers, partition_of
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.hashing import id_bytes
from stackbuild.shards import read_batches
from stackbuild.tables import arrow, record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task

DIGEST_BYTES = 16

SOLVED = pa.schema(
    [
        pa.field("group", pa.int32()),
        pa.field("component", pa.int64()),
        pa.field("digest", pa.binary(DIGEST_BYTES)),  # of all that its solution follows from
        pa.field("removed", pa.int64()),  # files
        pa.field("removed_with_headers", pa.int64()),  # 0 if headers are not compared
        pa.field("largest_cluster", pa.int64()),
    ]
)
VERIFIED = pa.schema([pa.field("group", pa.int32()), *EDGES])

Digests = npt.NDArray[np.bytes_]


class Components:
    """The components of a group: `labels`, their smallest files, int64 ascending; `of`: the place in it of each member."""

    def __init__(self, group: Group):
        self._group = group
        self.labels, of = np.unique(np.asarray(group.members["component"]), return_inverse=True)
        self.of = of.astype(np.int64)

    def count(self, places: Numbers) -> Numbers:
        """How many of these members are in each, int64 (n,)."""
        return np.bincount(self.of[places], minlength=len(self.labels)).astype(np.int64)

    def largest_cluster(self, view: View) -> Numbers:
        """Files of the largest cluster of each, int64 (n,)."""
        largest = np.zeros(len(self.labels), np.int64)
        np.maximum.at(largest, self.of[view.places], view.found.size)
        return largest

    def digests(self) -> Digests:
        """BLAKE2b of each component's files and edges, 'S16' (n,), whatever the order they came in and whoever else is there.

        128 bits: that a component which changed has its old digest is not to be expected of any corpus. It is a call for each
        component of two files or more, a microsecond or two.
        """
        if not len(self.labels):
            return np.zeros(0, f"S{DIGEST_BYTES}")
        left, right = self._group.edges  # ascending, as the members are
        members, pairs = np.argsort(self.of, kind="stable"), np.argsort(self.of[left], kind="stable")
        facts = _facts(self._group, self.count(members)[self.of])[members]
        row, files = facts.shape[1], self._group.files.astype("<i8", copy=False)
        rows, lefts, rights = facts.reshape(-1).data, files[left[pairs]].data, files[right[pairs]].data
        ends = np.cumsum(self.count(members)) * row, np.cumsum(self.count(left))
        made, begin, first = bytearray(), 0, 0
        for end, last in zip(ends[0].tolist(), ends[1].tolist(), strict=True):
            hashed = hashlib.blake2b(rows[begin:end], digest_size=DIGEST_BYTES)
            hashed.update(lefts[first:last])
            hashed.update(rights[first:last])
            made += hashed.digest()
            begin, first = end, last
        return np.frombuffer(bytes(made), f"S{DIGEST_BYTES}")


def _facts(group: Group, sizes: Numbers) -> Numbers:
    """All that the solution of a component follows from but its edges, little-endian int64 (members, k). `sizes`: of the
    component of each.
    """
    options: NearDedupOptions = group.options
    members = group.members
    ids = np.zeros((len(members), 24), np.uint8)
    ids[:, :20] = id_bytes(members["content_id"])
    columns = [sizes, group.files, *ids.view("<i8").T, *_scopes(members["scope"]).T, np.asarray(members["shingles"])]
    for name in options.survivor:
        rank = rank_column(members[name.removeprefix("-")], name)
        columns += [rank.values, rank.valid]
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype="<i8")


def _scopes(names: pa.ChunkedArray) -> Numbers:
    """A hash of each name (none is a name too), int64 (n, 2)."""
    encoded = names.combine_chunks().dictionary_encode(null_encoding="encode")
    hashes = [hashlib.blake2b(repr(name).encode(), digest_size=16).digest() for name in encoded.dictionary.to_pylist()]
    found: Numbers = np.frombuffer(b"".join(hashes), "<i8").reshape(-1, 2)[np.asarray(encoded.indices)]
    return found


# ---------------------------------------------------------------- tasks


def find_unchanged(task: Task) -> None:
    """Take over what an earlier run found of the components of this group that are as they were; list the files of the
    others.
    """
    number = int(task.params["group"])
    group = Group(task, number)
    components = Components(group)
    known = _solved_rows(_earlier(task, "solved", number))
    rows, at = matched(components.labels, np.asarray(known["component"]))
    same = components.digests()[rows] == _digests(known)[at]
    rows, at = rows[same], at[same]
    taken = np.zeros(len(components.labels), bool)
    taken[rows] = True
    changed = np.flatnonzero(~taken[components.of])
    with task.writer("changed", CHANGED, group_by="partition") as writer:
        files, shingles = group.files[changed], np.asarray(group.members["shingles"])[changed]
        labels = components.labels[components.of[changed]]
        writer.write(record_batch(CHANGED, partition_of(files, task.partitions), files, labels, shingles))
    kept = known.take(arrow(at)).combine_chunks()
    with task.writer("solved", SOLVED, group_by="group") as writer:
        for batch in kept.to_batches():
            writer.write(_in_group(number, batch))
    places = group.places_without(SEEING)
    places = places[taken[components.of[places]]]
    _take_over(task, number, group.members["content_id"].combine_chunks().take(arrow(places)))
    task.stats.update(
        removed=pc.sum(kept["removed"]).as_py() or 0,
        removed_with_headers=pc.sum(kept["removed_with_headers"]).as_py() or 0,
        largest_cluster=pc.max(kept["largest_cluster"]).as_py() or 0,
        unchanged=len(at),
        components=len(components.labels),
    )


def _take_over(task: Task, number: int, ids: pa.Array) -> None:
    """Write what the earlier run found of the files of these content_ids."""
    rows = [
        batch.filter(pc.is_in(batch.column("content_id"), value_set=ids))
        for batch in _earlier(task, "clusters", number)
    ]
    clusters = pa.Table.from_batches(rows, CLUSTERS)
    with task.writer("clusters", CLUSTERS, group_by="partition") as writer:
        writer.write(clusters.take(pc.sort_indices(clusters["content_id"])))
    with task.writer("verified", VERIFIED, group_by="group") as writer:
        for batch in _earlier(task, "verified", number):
            writer.write(_in_group(number, batch.filter(pc.is_in(batch.column("left"), value_set=ids))))


def solve_group(task: Task) -> None:
    """Solve the components of a group but for those that were taken over, and write down what they were solved from."""
    number = int(task.params["group"])
    done = _solved_rows(task.read("solved", None, number, "group"))
    group = Group(task, number, np.asarray(done["component"]) if len(done) else None)
    decides, with_headers = solve_members(task, group)
    with task.writer("verified", VERIFIED, group_by="group") as writer:
        writer.write(_in_group(number, edge_rows(group.members, decides)))
    components = Components(group)
    digests = pa.py_buffer(components.digests().tobytes())
    gone_with_headers = np.zeros(0, np.int64) if with_headers is None else with_headers.gone
    rows = record_batch(
        SOLVED,
        np.full(len(components.labels), number, np.int32),
        components.labels,
        pa.Array.from_buffers(pa.binary(DIGEST_BYTES), len(components.labels), [None, digests]),
        components.count(decides.gone),
        components.count(gone_with_headers),
        components.largest_cluster(decides),
    )
    with task.writer("solved", SOLVED, group_by="group") as writer:
        writer.write(rows)


# ---------------------------------------------------------------- tables


def _earlier(task: Task, table: str, group: int) -> Iterator[pa.RecordBatch]:
    """What the earlier run wrote of the components that are in a group now: its groups may be more or fewer, both a power of
    two, and a component's is in the leading bits of its hash (`group_of`).
    """
    ours, theirs = (sum(output.rows for output in task.outputs(name)) for name in ("groups", "earlier_groups"))
    first, last = group * theirs // ours, ((group + 1) * theirs - 1) // ours
    wanted = {str(number) for number in range(first, last + 1)}
    yield from read_batches(task.out, [o for o in task.outputs(f"earlier_{table}") if wanted & o.groups.keys()])


def _in_group(number: int, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows with the number of their group, whatever it was before, in the first column."""
    names = [name for name in rows.schema.names if name != "group"]
    group = pa.array(np.full(rows.num_rows, number, np.int32))
    return pa.RecordBatch.from_arrays([group, *(rows.column(name) for name in names)], ["group", *names])


def _solved_rows(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Rows of SOLVED, ascending by component."""
    table = pa.Table.from_batches(list(batches), SOLVED)
    return table.take(pc.sort_indices(table["component"])).combine_chunks()


def _digests(solved: pa.Table) -> Digests:
    if not len(solved):
        return np.zeros(0, f"S{DIGEST_BYTES}")
    column = solved["digest"].combine_chunks()
    return np.frombuffer(column.buffers()[1], f"S{DIGEST_BYTES}", len(column), DIGEST_BYTES * column.offset)
