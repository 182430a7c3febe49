"""From what was ingested to partitions: `contents` and `occurrences`, the second and third job of every build.

`contents` (a task for each partition) gathers the bytes of a range of ids, each once, sorted. `occurrences` gathers the rows of
its owners, sorted. A task reads its partition at once. One that ran out of memory runs in passes: ranges of what it sorts by,
one after the other, each read anew, so that it holds no more than the largest; what is written is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild import beacon, schema
from stackbuild.decisions import Decisions
from stackbuild.graph import CONTENTS, OCCURRENCES
from stackbuild.ingest import BUCKET
from stackbuild.plan import Build
from stackbuild.rows import id_array
from stackbuild.shards import Attempt, Output, ShardManifest, read_batches
from stackbuild.tables import conform, in_order

PASS_BYTES = 256 << 20  # of contents in a pass
PASS_ROWS = 500_000  # of occurrences in a pass, those of one repository apart
Pick = Callable[[pa.RecordBatch], pa.RecordBatch]  # the rows of a batch that belong to a pass


def run_contents(build: Build, rank: int, in_passes: bool = False) -> ShardManifest:
    """Gather the bytes of a range of ids: sorted by content_id, each once."""
    outputs = build.bucket_outputs("contents", rank)
    attempt = Attempt(build.out, "00-contents", rank)
    try:
        with attempt.writer("contents", schema.CONTENTS) as writer:
            for number, pick in enumerate(_id_ranges(build, outputs, rank) if in_passes else [_all]):
                beacon.at(f"contents, partition {rank}, range {number} of ids")
                for part in _in_order_of_ids(build, outputs, rank, pick):
                    writer.write(part)
        decisions = Decisions(attempt, "contents", build.plan.partitions)
        return attempt.commit(build.key(CONTENTS, rank, {}), decisions.ledger, {})
    except BaseException:
        attempt.discard()
        raise


def run_occurrences(build: Build, rank: int, in_passes: bool = False) -> ShardManifest:
    """Gather the occurrences of an owner bucket, in the total order of their identity.

    Sources may name one path of a revision twice: the first stays, by content_id and then by all that is known of it, so
    that it does not matter which source was read first; the rest leave, as a path is one file.
    """
    outputs = build.bucket_outputs("occurrences", rank)
    attempt = Attempt(build.out, "00-occurrences", rank)
    try:
        decisions = Decisions(attempt, "occurrences", build.plan.partitions)
        left: list[tuple[pa.Table, npt.NDArray[np.int64]]] = []
        with attempt.writer("occurrences", schema.OCCURRENCES) as writer:
            for number, pick in enumerate(_repository_ranges(build, outputs, rank) if in_passes else [_all]):
                beacon.at(f"occurrences, partition {rank}, range {number} of repositories")
                table = _in_order_of_identity(build, outputs, rank, pick)
                again = same_as_before(table, PATH)
                sizes = np.asarray(table["length"]).astype(np.int64)
                decisions.enter(table.num_rows, int(sizes.sum()))
                decisions.stay(int((~again).sum()), int(sizes[~again].sum()))
                left.append(_twice(table, again, sizes))
                writer.write(table.filter(pa.array(~again)))
        # Of all passes together: how many files are told in one run must not depend on how they were read.
        gone = pa.concat_tables([rows for rows, _ in left])
        decisions.add(
            {"rule": "duplicate_path", **{name: gone[name] for name in gone.column_names}},
            "dropped",
            np.concatenate([sizes for _, sizes in left]),
        )
        decisions.close()
        return attempt.commit(build.key(OCCURRENCES, rank, {}), decisions.ledger, {})
    except BaseException:
        attempt.discard()
        raise


PATH = ("repo_name", "revision_id", "path_bytes")


def _all(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


# ---------------------------------------------------------------- contents


def _in_order_of_ids(build: Build, outputs: Sequence[Output], rank: int, pick: Pick) -> Iterator[pa.Table]:
    """The contents that a pass picks, by id, each once."""
    read = read_batches(build.out, outputs, schema.CONTENTS.names, rank, BUCKET)
    batches = [picked for batch in read if (picked := pick(conform(batch, schema.CONTENTS))).num_rows]
    if not batches:
        return
    table = pa.Table.from_batches(batches).combine_chunks()
    batches.clear()
    ids = id_array(table["content_id"])
    order = np.argsort(ids, kind="stable")
    first = np.ones(len(order), bool)
    first[1:] = ids[order][1:] != ids[order][:-1]
    yield from in_order(table, order[first])


def _id_ranges(build: Build, outputs: Sequence[Output], rank: int) -> Iterator[Pick]:
    """For each pass, what picks its ids. Copies of a content count: they are read before they are told apart."""
    read = list(read_batches(build.out, outputs, ["content_id", "length"], rank, BUCKET))
    if not read:
        return
    ids = np.concatenate([id_array(batch.column(0)) for batch in read])
    sizes = np.concatenate([np.asarray(batch.column(1)).astype(np.int64) for batch in read])
    order = np.argsort(ids, kind="stable")
    ids, total = ids[order], np.cumsum(sizes[order])
    bounds = [None, *(ids[row] for row in _cuts(total, PASS_BYTES)), None]
    for low, high in pairwise(bounds):
        yield _of_ids(low, high)


def _of_ids(low: Any, high: Any) -> Pick:
    """Rows with low <= content_id < high; None is no bound."""

    def pick(batch: pa.RecordBatch) -> pa.RecordBatch:
        ids = id_array(batch.column("content_id"))
        inside = np.ones(len(ids), bool)
        if low is not None:
            inside &= ids >= low
        if high is not None:
            inside &= ids < high
        return batch.filter(pa.array(inside))

    return pick


def _cuts(total: npt.NDArray[np.int64], most: int) -> list[int]:
    """Rows at which to begin anew, given the running sum of what each row holds, so that a range holds about `most`."""
    if not len(total):
        return []
    marks = np.searchsorted(total, np.arange(most, int(total[-1]), most, dtype=np.int64), side="right")
    return [int(row) for row in np.unique(marks) if 0 < row < len(total)]


# ---------------------------------------------------------------- occurrences


def _in_order_of_identity(build: Build, outputs: Sequence[Output], rank: int, pick: Pick) -> pa.Table:
    """The occurrences that a pass picks, by repository, revision, path, content and all else."""
    read = read_batches(build.out, outputs, None, rank, "owner_bucket")
    batches = [picked for batch in read if (picked := pick(conform(batch, schema.OCCURRENCES))).num_rows]
    table = pa.Table.from_batches(batches, schema.OCCURRENCES)
    others = (name for name in schema.OCCURRENCES.names if name not in (*PATH, "content_id"))
    return table.take(pc.sort_indices(table, [(name, "ascending") for name in (*PATH, "content_id", *others)]))


def _twice(
    table: pa.Table, again: npt.NDArray[np.bool_], sizes: npt.NDArray[np.int64]
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """(the rows whose path was there before, with the content that stays; their sizes)."""
    gone = table.filter(pa.array(again))
    kept = np.maximum.accumulate(np.where(again, 0, np.arange(len(again))))[again]
    stays = table["content_id"].take(pa.array(kept))
    return gone.select(list(schema.IDENTITY)).append_column("kept_content_id", stays), sizes[again]


def _repository_ranges(build: Build, outputs: Sequence[Output], rank: int) -> Iterator[Pick]:
    """For each pass, what picks its repositories: whole ones, as a path that is there twice is told within one."""
    read = [
        batch.column(0).cast(pa.string())
        for batch in read_batches(build.out, outputs, ["repo_name"], rank, "owner_bucket")
    ]
    counts = pa.table({"name": pa.chunked_array(read, pa.string())}).group_by("name").aggregate([("name", "count")])
    counts = counts.sort_by("name")
    total = np.cumsum(np.asarray(counts["name_count"]).astype(np.int64))
    bounds = [None, *(counts["name"][row] for row in _cuts(total, PASS_ROWS)), None]
    for low, high in pairwise(bounds):
        yield _of_repositories(low, high)


def _of_repositories(low: pa.Scalar | None, high: pa.Scalar | None) -> Pick:
    """Rows with low <= repo_name < high; None is no bound."""

    def pick(batch: pa.RecordBatch) -> pa.RecordBatch:
        names = batch.column("repo_name").cast(pa.string())
        if low is not None:
            batch = batch.filter(pc.greater_equal(names, low))
            names = batch.column("repo_name").cast(pa.string())
        return batch.filter(pc.less(names, high)) if high is not None else batch

    return pick


def same_as_before(table: pa.Table, names: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """bool (rows,): whether a row of a sorted table has the values of the row before it in the named columns."""
    same = np.zeros(table.num_rows, bool)
    if table.num_rows > 1:
        same[1:] = True
        for name in names:
            column = table[name]
            same[1:] &= np.asarray(pc.equal(column.slice(1), column.slice(0, table.num_rows - 1)))
    return same
