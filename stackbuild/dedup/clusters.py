"""The last phase of near-duplicate removal: the clusters of one group of components, and who stays of each.

A group's pairs are verified on the shingle sets that the phase before wrote, survivors are chosen, and every file of a
cluster gets a row: its cluster, whether it stays, and if not which file stays in its place and how similar the two are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.candidates import Numbers, pack
from stackbuild.dedup.near_duplicates import rank_column
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.shingles import Hashes
from stackbuild.dedup.survivors import Floats, Solution, collapse, keep_places, solve
from stackbuild.dedup.verify import jaccard_pairs
from stackbuild.errors import InputError
from stackbuild.hashing import content_buckets
from stackbuild.schema import ID

if TYPE_CHECKING:
    from stackbuild.task import Task

SETS_AT_ONCE = 1 << 24  # shingles of a group in memory (128 MB), twice if a group has more

CLUSTERS = pa.schema(
    [
        pa.field("partition", pa.int32()),
        pa.field("content_id", ID),
        pa.field("cluster_id", ID),  # the smallest content_id of the cluster
        pa.field("cluster_size", pa.int64()),
        pa.field("kept", pa.bool_()),
        pa.field("kept_content_id", ID),
        pa.field(
            "similarity", pa.float64()
        ),  # exact Jaccard with the kept file; null for kept files and without a check
        pa.field("repo_name", pa.string()),
        pa.field("path", pa.string()),
        pa.field("detail", pa.string()),  # repository and path of the kept file
    ]
)


def sets_schema(options: NearDedupOptions) -> pa.Schema:
    """What `solve` knows of a member: its place, its survivor columns as int64 and its distinct shingles, ascending."""
    return pa.schema(
        [
            pa.field("group", pa.int32()),
            pa.field("component", pa.int64()),
            pa.field("file", pa.int64()),
            pa.field("content_id", ID),
            *(pa.field(name.removeprefix("-"), pa.int64()) for name in options.survivor),
            pa.field("repo_name", pa.string()),
            pa.field("path", pa.string()),
            pa.field("shingles", pa.int64()),
            pa.field("hashes", pa.large_list(pa.uint64())),
        ]
    )


def id_values(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Ids as 'S20' of shape (n,), which numpy compares as bytes of one length (NULs at the end are padding and value
    alike).
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(array):
        return np.empty(0, "S20")
    if array.null_count:
        raise InputError(f"content_id is null in {array.null_count} rows.")
    return np.frombuffer(array.buffers()[1], "S20", count=len(array), offset=20 * array.offset)


def partition_of(ids: pa.Array, partitions: int) -> Numbers:
    """The partition of each content_id, int64 (n,)."""
    values = np.ascontiguousarray(id_values(ids))
    return content_buckets(values.view(np.uint8).reshape(-1, 20), partitions)


def solve_group(task: Task) -> None:
    """Verify a group's pairs exactly, choose its survivors and write its clusters, ordered by content_id."""
    options: NearDedupOptions = task.options
    group = int(task.params["group"])
    light = [name for name in sets_schema(options).names if name != "hashes"]
    members = pa.Table.from_batches(
        list(task.read("sets", light, group=group, group_by="group")),
        pa.schema([sets_schema(options).field(name) for name in light]),
    )
    files = np.asarray(members["file"])
    edges = list(task.read("edges", ["group", "left", "right"], group=group, group_by="group"))
    left, right = (
        np.concatenate([np.zeros(0, np.int64), *(np.asarray(e.column(name)) for e in edges)])
        for name in ("left", "right")
    )
    left, right = np.searchsorted(files, left), np.searchsorted(files, right)
    columns = [rank_column(members[name.removeprefix("-")], name) for name in options.survivor]
    places = keep_places(columns, files)
    if options.verify:
        sets = GroupSets(task, group, np.asarray(members["shingles"]), options.threshold)
        solution = solve(places, left, right, sets.similarities, options.threshold)
    else:
        solution = collapse(places, left, right)
    with task.writer("clusters", CLUSTERS, group_by="partition") as writer:
        writer.write(_cluster_rows(members, solution, task.partitions))


class GroupSets:
    """The shingle sets of one group, read from disk in blocks of SETS_AT_ONCE shingles (one file at least), two at
    most at a time.
    """

    def __init__(self, task: Task, group: int, shingles: Numbers, at_least: float):
        self._task, self._group, self._at_least = task, group, at_least
        self._total = np.concatenate((np.zeros(1, np.int64), np.cumsum(shingles)))
        self._block_of = pack(shingles, SETS_AT_ONCE)
        self._starts = np.append(np.flatnonzero(np.diff(self._block_of, prepend=-1)), len(shingles))
        self._held: dict[int, Hashes] = {}

    def similarities(self, left: Numbers, right: Numbers) -> Floats:
        """Exact Jaccard of pairs of members (row numbers, left < right), float64; 0.0 where it is below the
        threshold.
        """
        result = np.zeros(len(left), np.float64)
        blocks = self._block_of[left] << 32 | self._block_of[right]
        for pair in np.unique(blocks):
            here = np.flatnonzero(blocks == pair)
            first, second = int(pair) >> 32, int(pair) & 0xFFFFFFFF
            self._held = {block: hashes for block, hashes in self._held.items() if block in (first, second)}
            a, b = self._block(first), self._block(second)
            i, j = left[here] - self._starts[first], right[here] - self._starts[second]
            result[here] = jaccard_pairs(a, self._offsets(first), b, self._offsets(second), i, j, self._at_least)
        return result

    def _offsets(self, block: int) -> Numbers:
        bounds = self._total[self._starts[block] : self._starts[block + 1] + 1]
        return np.asarray(bounds - bounds[0])

    def _block(self, block: int) -> Hashes:
        if block not in self._held:
            start, stop, row, found = (
                int(self._starts[block]),
                int(self._starts[block + 1]),
                0,
                [np.zeros(0, np.uint64)],
            )
            for batch in self._task.read("sets", ["group", "hashes"], group=self._group, group_by="group"):
                begin, end = max(start - row, 0), min(stop - row, batch.num_rows)
                if begin < end:
                    found.append(np.asarray(batch.column("hashes").slice(begin, end - begin).flatten()))
                row += batch.num_rows
            self._held[block] = np.concatenate(found)
        return self._held[block]


def _cluster_rows(members: pa.Table, found: Solution, partitions: int) -> pa.RecordBatch:
    """The members of clusters of two and more; `members` ascend by content_id."""
    rows = np.flatnonzero(found.size > 1)
    kept_by = found.kept_by[rows]
    twin = pa.array(np.maximum(kept_by, 0), mask=kept_by < 0)
    ids = members["content_id"].combine_chunks()
    at = pa.array(rows)
    similarity = found.similarity[rows]
    known = {
        "partition": pa.array(partition_of(ids.take(at), partitions)),
        "content_id": ids.take(at),
        "cluster_id": ids.take(pa.array(found.cluster[rows])),
        "cluster_size": pa.array(found.size[rows]),
        "kept": pa.array(kept_by < 0),
        "kept_content_id": ids.take(twin),
        "similarity": pa.array(similarity, mask=np.isnan(similarity)),
        "repo_name": members["repo_name"].combine_chunks().take(at),
        "path": members["path"].combine_chunks().take(at),
    }
    names = pc.binary_join_element_wise(members["repo_name"], members["path"], " ").combine_chunks()
    known["detail"] = names.take(twin)
    return pa.RecordBatch.from_arrays([known[field.name].cast(field.type) for field in CLUSTERS], schema=CLUSTERS)
