"""The last phase of near-duplicate removal: the clusters of one group of components, and who stays of each.

A group's edges are verified on the shingle sets that the phase before sent, survivors are chosen, and every file of a
cluster gets a row: its cluster, whether it stays, and if not which file stays in its place and how similar the two are.
If headers are compared, the same is done for the files with their licence headers in, and only counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.candidates import distinct_pairs
from stackbuild.dedup.components import pack
from stackbuild.dedup.limits import Limits
from stackbuild.dedup.links import matched
from stackbuild.dedup.members import members_schema
from stackbuild.dedup.near_duplicates import rank_column
from stackbuild.dedup.numbers import BLIND, SEEING, Numbers, id_values, partition_of, variant_of
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.shingles import Hashes
from stackbuild.dedup.sketches import hash_runs
from stackbuild.dedup.survivors import Floats, Solution, collapse, keep_places, solve
from stackbuild.dedup.verify import jaccard_pairs
from stackbuild.kernels import kernel
from stackbuild.schema import ID
from stackbuild.tables import arrow

if TYPE_CHECKING:
    from stackbuild.task import Task

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
EDGES = pa.schema([pa.field("left", ID), pa.field("right", ID), pa.field("similarity", pa.float64())])


@dataclass(frozen=True)
class View:
    """Some members of a group, by their places, int64 ascending, and what became of them."""

    places: Numbers
    found: Solution

    @property
    def gone(self) -> Numbers:
        """The places of the members that leave."""
        return self.places[self.found.kept_by >= 0]


def solve_group(task: Task) -> None:
    """Verify a group's edges exactly, choose its survivors and write its clusters, ordered by content_id."""
    group = Group(task, int(task.params["group"]))
    decides, _ = solve_members(task, group)
    with task.writer("verified", EDGES) as writer:
        writer.write(edge_rows(group.members, decides))


def solve_members(task: Task, group: Group) -> tuple[View, View | None]:
    """Solve a group and write its clusters: (the files as they are compared; with their headers in, if that is counted)."""
    options: NearDedupOptions = task.options
    decides = group.view_without(SEEING)
    with task.writer("clusters", CLUSTERS, group_by="partition") as writer:
        writer.write(_cluster_rows(group.members.take(arrow(decides.places)), decides.found, task.partitions))
    removed: dict[str, Any] = {"removed": len(decides.gone), "largest_cluster": int(decides.found.size.max(initial=0))}
    if options.scope == "language":
        scopes = pc.value_counts(group.members["scope"].take(arrow(decides.gone))).to_pylist()
        removed["removed_by_scope"] = {value["values"] or "": value["counts"] for value in scopes}
    with_headers = group.view_without(BLIND) if options.compares_headers else None
    if with_headers is not None:
        removed["removed_with_headers"] = len(with_headers.gone)
    task.stats.update(removed)
    return decides, with_headers


class Group:
    """The members of one group, ascending by number (and so by content_id), and their edges.

    Members that are there several times count once; of two contents that share a number the smaller content_id does.
    """

    def __init__(self, task: Task, group: int, without: Numbers | None = None):
        """`without`: components, int64 ascending, that are left out."""
        self._task, self._group = task, group
        self.options: NearDedupOptions = task.options
        rows = list(task.read("members", None, group=group, group_by="group"))
        read = pa.Table.from_batches(rows, members_schema(self.options))
        if without is not None:
            read = read.filter(arrow(~_among(np.asarray(read["component"]), without)))
        order = pc.sort_indices(read, [("file", "ascending"), ("content_id", "ascending")])
        files = np.asarray(read["file"])[np.asarray(order)]
        first = np.concatenate(([True], files[1:] != files[:-1])) if len(files) else np.zeros(0, bool)
        self.members = read.take(order.filter(arrow(first))).combine_chunks()
        self.files = files[first]
        self.edges = self._read_edges(without is not None)  # places of members

    @cached_property
    def _sets(self) -> GroupSets | None:
        return GroupSets(self._task, self._group, self.members) if self.options.verify else None

    def _read_edges(self, some_left_out: bool) -> tuple[Numbers, Numbers]:
        edges = list(self._task.read("group_edges", ["group", "left", "right"], self._group, "group"))
        left, right = (
            np.concatenate([np.zeros(0, np.int64), *(np.asarray(e.column(name)) for e in edges)])
            for name in ("left", "right")
        )
        if some_left_out:
            here = _among(left, self.files)  # both files of an edge are of one component
            left, right = left[here], right[here]
        return distinct_pairs(np.searchsorted(self.files, left), np.searchsorted(self.files, right))

    def places_without(self, variant: int) -> Numbers:
        """The members that are not of a variant: the files as one way of looking at headers sees them."""
        return np.flatnonzero(variant_of(self.files) != variant)

    def view_without(self, variant: int) -> View:
        """The solution of the files as one way of looking at headers sees them."""
        places = self.places_without(variant)
        return View(places, self._solved(places))

    def _solved(self, view: Numbers) -> Solution:
        """The solution of some of the members, by their places in `view`."""
        place = np.full(len(self.files), -1, np.int64)
        place[view] = np.arange(len(view))
        left, right = place[self.edges[0]], place[self.edges[1]]
        both = (left >= 0) & (right >= 0)
        left, right = left[both], right[both]
        members = self.members.take(arrow(view))
        columns = [rank_column(members[name.removeprefix("-")], name) for name in self.options.survivor]
        places = keep_places(columns, view)
        sets = self._sets
        if sets is None:
            return collapse(places, left, right)

        def similarities(left: Numbers, right: Numbers) -> Floats:
            return sets.similarities(view[left], view[right])

        return solve(places, left, right, similarities, self.options.threshold)


def _among(values: Numbers, known: Numbers) -> npt.NDArray[np.bool_]:
    """Which values are known, bool (n,); `known` int64 ascending."""
    there = np.zeros(len(values), bool)
    there[matched(values, known)[0]] = True
    return there


class GroupSets:
    """The shingle sets of some members of a group, read from disk in blocks (one file at least), two at most at a time.

    Blocks are runs of components, in whose order the sets were written: so a block is read once, from the row groups that
    hold its components, and met by few others.
    """

    def __init__(self, task: Task, group: int, members: pa.Table):
        options: NearDedupOptions = task.options
        self._task, self._group, self._at_least = task, group, options.threshold
        components, files = np.asarray(members["component"]), np.asarray(members["file"])
        order = np.lexsort((files, components))
        shingles = np.asarray(members["shingles"])[order]
        blocks = pack(shingles, Limits.of(options.memory, options.permutations).block)
        starts = np.append(np.flatnonzero(np.diff(blocks, prepend=-1)), len(order))
        self._block_of, self._place = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        self._block_of[order] = blocks
        self._place[order] = np.arange(len(order)) - starts[blocks]
        self._blocks = [
            Block(
                components[here[0]],
                components[here[-1]],
                files[here],
                id_values(members["content_id"])[here],
                shingles[at],
            )
            for at, here in ((slice(*ends), order[slice(*ends)]) for ends in pairwise(starts.tolist()))
        ]
        self._held: dict[int, tuple[Hashes, Numbers]] = {}

    def similarities(self, left: Numbers, right: Numbers) -> Floats:
        """Exact Jaccard of pairs of members, float64; 0.0 where it is below the threshold."""
        result = np.zeros(len(left), np.float64)
        blocks = self._block_of[left] << 32 | self._block_of[right]
        for pair in np.unique(blocks):
            here = np.flatnonzero(blocks == pair)
            first, second = int(pair) >> 32, int(pair) & 0xFFFFFFFF
            self._held = {block: held for block, held in self._held.items() if block in (first, second)}
            (a, a_offsets), (b, b_offsets) = self._read(first), self._read(second)
            i, j = self._place[left[here]], self._place[right[here]]
            result[here] = jaccard_pairs(a, a_offsets, b, b_offsets, i, j, self._at_least)
        return result

    def _read(self, number: int) -> tuple[Hashes, Numbers]:
        """The sets of a block: (hashes, offsets)."""
        if number not in self._held:
            block = self._blocks[number]
            offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(block.shingles)))
            hashes = np.empty(int(offsets[-1]), np.uint64)
            by_file = np.argsort(block.files)
            between = ("component", int(block.first), int(block.last))
            columns = ["component", "file", "content_id", "hashes"]
            for batch in self._task.read("sets", columns, self._group, "group", between):
                rows, at = matched(np.asarray(batch.column("file")), block.files[by_file])
                places = by_file[at]
                same = id_values(batch.column("content_id"))[rows] == block.ids[places]
                found, bounds = hash_runs(batch.column("hashes"))
                scatter(found, bounds, rows[same], hashes, offsets, places[same])
            self._held[number] = hashes, offsets
        return self._held[number]


@dataclass(frozen=True)
class Block:
    """Members whose sets are in memory together: their first and last component, their numbers, ids and set sizes."""

    first: int
    last: int
    files: Numbers
    ids: npt.NDArray[np.bytes_]
    shingles: Numbers


@kernel
def scatter(found: Hashes, bounds: Numbers, rows: Numbers, out: Hashes, offsets: Numbers, places: Numbers) -> None:
    """Copy run `rows[i]` of `found` (from `bounds[row]` on) to run `places[i]` of `out` (from `offsets[place]` on)."""
    for i in range(len(rows)):
        begin, size = bounds[rows[i]], offsets[places[i] + 1] - offsets[places[i]]
        target = offsets[places[i]]
        for at in range(size):
            out[target + at] = found[begin + at]


def _cluster_rows(members: pa.Table, found: Solution, partitions: int) -> pa.RecordBatch:
    """The members of clusters of two and more; `members` ascend by content_id."""
    members = members.combine_chunks()
    rows = np.flatnonzero(found.size > 1)
    kept_by = found.kept_by[rows]
    twin = arrow(np.maximum(kept_by, 0), kept_by < 0)
    ids = members["content_id"].combine_chunks()
    at = arrow(rows)
    similarity = found.similarity[rows]
    files = np.asarray(members["file"])[rows]
    known = {
        "partition": arrow(partition_of(files, partitions)),
        "content_id": ids.take(at),
        "cluster_id": ids.take(arrow(found.cluster[rows])),
        "cluster_size": arrow(found.size[rows]),
        "kept": arrow(kept_by < 0),
        "kept_content_id": ids.take(twin),
        "similarity": arrow(similarity, np.isnan(similarity)),
        "repo_name": members["repo_name"].combine_chunks().take(at),
        "path": members["path"].combine_chunks().take(at),
    }
    names = pc.binary_join_element_wise(members["repo_name"], members["path"], " ").combine_chunks()
    known["detail"] = names.take(twin)
    return pa.RecordBatch.from_arrays([known[field.name].cast(field.type) for field in CLUSTERS], schema=CLUSTERS)


def edge_rows(members: pa.Table, view: View) -> pa.RecordBatch:
    """The verified pairs, by their content_ids: kept with the build, so that who left and why can be told again."""
    ids, found = members["content_id"].combine_chunks(), view.found
    left, right = (ids.take(arrow(view.places[side])) for side in (found.left, found.right))
    return pa.RecordBatch.from_arrays([left, right, arrow(found.edge_similarity)], schema=EDGES)
