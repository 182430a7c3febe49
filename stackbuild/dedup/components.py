"""Connected components, in parallel: files that are joined by likely near-duplicates get one label.

Every task over the edges of a partition joins them in memory and tells each of its files the smallest file that it
reaches there (a star). A file whose stars agree has its root; where they disagree the roots are the same component,
which is an edge between roots (a merge). Merges are few, for a family of files that resemble each other has one
smallest file whoever looks at it; one task joins them and tells the roots whose label is another file. The work is
linear in the edges. It is one round of contraction as in Lulli et al. 2017 ("Fast connected components computation in
large graphs by vertex pruning") with its residual graph solved at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stackbuild.dedup.limits import groups_for
from stackbuild.dedup.numbers import Numbers, partition_of
from stackbuild.kernels import kernel
from stackbuild.tables import record_batch
from stackbuild.union_find import join, roots

if TYPE_CHECKING:
    from stackbuild.task import Task

STARS = pa.schema([pa.field("partition", pa.int32()), pa.field("file", pa.int64()), pa.field("root", pa.int64())])
ROOTS = pa.schema([pa.field("partition", pa.int32()), pa.field("file", pa.int64()), pa.field("root", pa.int64())])
MERGES = pa.schema([pa.field("left", pa.int64()), pa.field("right", pa.int64())])
LABELS = pa.schema([pa.field("root", pa.int64()), pa.field("label", pa.int64())])
GROUPS = pa.schema([pa.field("group", pa.int32())])

EDGES_AT_ONCE = 1 << 18  # that wait, 4 MB

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@kernel
def pack(sizes: Numbers, limit: int) -> Numbers:
    """Spread items over groups in their order: a group closes before the item that would take it over `limit`."""
    groups = np.empty(len(sizes), np.int64)
    group, filled = 0, 0
    for i in range(len(sizes)):
        if filled and filled + sizes[i] > limit:
            group += 1
            filled = 0
        filled += sizes[i]
        groups[i] = group
    return groups


class Forest:
    """Components of edges between numbered files that arrive in batches.

    Edges wait until there are `at_once`, or as many as files are known, before they are joined: every joining goes through
    all files, and one for each batch would be quadratic. Memory: 16 bytes for each file of an edge, three times as many
    while edges are joined, and 16 bytes for each edge that waits.
    """

    def __init__(self, at_once: int = EDGES_AT_ONCE) -> None:
        self._files = np.zeros(0, np.int64)
        self._parents = np.zeros(0, np.int64)
        self._at_once = at_once
        self._waiting: list[tuple[Numbers, Numbers]] = []
        self._held = 0

    def add(self, left: Numbers, right: Numbers) -> None:
        """Take edges in: int64 of shape (n,) each."""
        self._waiting.append((left, right))
        self._held += len(left)
        if self._held >= max(self._at_once, len(self._files)):
            self._join()

    def _join(self) -> None:
        if not self._held:
            return
        left, right = (np.concatenate(side) for side in zip(*self._waiting, strict=True))
        self._waiting, self._held = [], 0
        fresh = np.setdiff1d(np.union1d(left, right), self._files, assume_unique=True)
        if len(fresh):
            files = np.union1d(self._files, fresh)
            parents = np.arange(len(files))
            parents[np.searchsorted(files, self._files)] = np.searchsorted(files, self._files[self._parents])
            self._files, self._parents = files, parents
        join(self._parents, np.searchsorted(self._files, left), np.searchsorted(self._files, right))

    def labels(self) -> tuple[Numbers, Numbers]:
        """(files, ascending; the smallest file of each one's component), int64 (n,) each."""
        self._join()
        return self._files, self._files[roots(self._parents)]


# ---------------------------------------------------------------- phases


def write_stars(task: Task, forest: Forest) -> None:
    """The stars of one task's edges, by the partition of the file."""
    files, smallest = forest.labels()
    partition = partition_of(files, task.partitions)
    with task.writer("stars", STARS, group_by="partition") as writer:
        writer.write(record_batch(STARS, partition, files, smallest))


def find_roots(task: Task) -> None:
    """The root of each file of a partition, and the merges of roots that its files say are of one component."""
    stars = pa.Table.from_batches(
        list(task.read("stars", ["file", "root"], group=task.rank, group_by="partition")),
        pa.schema([STARS.field("file"), STARS.field("root")]),
    )
    files, smallest = np.asarray(stars["file"]), np.asarray(stars["root"])
    order = np.lexsort((smallest, files))
    files, smallest = files[order], smallest[order]
    first = np.concatenate(([True], files[1:] != files[:-1])) if len(files) else np.zeros(0, bool)
    mine = smallest[first][np.cumsum(first) - 1] if len(files) else smallest
    other = smallest != mine
    with task.writer("roots", ROOTS, group_by="partition") as writer:
        partition = np.full(int(first.sum()), task.rank, np.int32)
        writer.write(record_batch(ROOTS, partition, files[first], smallest[first]))
    pairs = np.unique(np.stack((mine[other], smallest[other]), axis=1), axis=0)
    with task.writer("merges", MERGES) as writer:
        writer.write(record_batch(MERGES, *np.ascontiguousarray(pairs.T)))
    task.stats["files_with_candidates"] = int(first.sum())


def join_roots(task: Task) -> None:
    """Join the merges of all partitions; tell the roots whose label is another, and how many groups there are."""
    forest = Forest()
    for batch in task.read("merges"):
        forest.add(np.asarray(batch.column("left")), np.asarray(batch.column("right")))
    files, labels = forest.labels()
    moved = files != labels
    with task.writer("labels", LABELS) as writer:
        writer.write(record_batch(LABELS, files[moved], labels[moved]))
    groups = groups_for(sum(output.rows for output in task.outputs("roots")), task.partitions)
    with task.writer("groups", GROUPS) as writer:
        writer.write(record_batch(GROUPS, np.arange(groups, dtype=np.int32)))
    task.stats["merged_roots"] = int(moved.sum())


def labelled(task: Task) -> tuple[Numbers, Numbers]:
    """(files of this partition that have an edge, ascending; their component's smallest file)."""
    batches = list(task.read("roots", ["file", "root"], group=task.rank, group_by="partition"))
    files, mine = (
        np.concatenate([np.zeros(0, np.int64), *(np.asarray(batch.column(name)) for batch in batches)])
        for name in ("file", "root")
    )
    distinct, place = np.unique(mine, return_inverse=True)
    labels = distinct.copy()
    for batch in task.read("labels"):
        old, new = np.asarray(batch.column("root")), np.asarray(batch.column("label"))
        at = np.minimum(np.searchsorted(distinct, old), max(len(distinct) - 1, 0))
        here = distinct[at] == old if len(distinct) else np.zeros(len(old), bool)
        labels[at[here]] = new[here]
    return files, labels[place] if len(files) else mine


def group_of(labels: Numbers, groups: int) -> Numbers:
    """The group of each component, int64 (n,): a hash of its label, for the smallest of many files starts with zeros.

    `groups`: a power of two.
    """
    bits = groups.bit_length() - 1
    if not bits:
        return np.zeros(len(labels), np.int64)
    return ((labels.astype(np.uint64) * _GOLDEN) >> np.uint64(64 - bits)).astype(np.int64)
