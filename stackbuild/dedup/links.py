"""From candidate pairs to the edges of likely near-duplicates, before any set is compared.

A pair is known by the buckets that it shares, often by many. `link` gathers the pairs of a partition's files (the left
ones), drops repeats and sends each on to the partition of its right file, with the left file's signature; `estimate`
lays it beside the right one's. Of each slot eight bits go along: 252 bytes for a pair, whose agreement tells the
similarity nearly as well as 32 do. A pair stays unless its estimate is so low that a pair at the threshold would have
it once in 10^9 times, by the binomial distribution of independent slots. That drops most of the pairs which the bands met
by chance, and with them the giant components that those would chain together in a large corpus.

Without the exact check (the published rule) and in exact mode every pair is an edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.dedup.candidates import distinct_pairs
from stackbuild.dedup.components import Forest, write_stars
from stackbuild.dedup.limits import Limits
from stackbuild.dedup.numbers import Numbers, finer, partition_of, passes_for
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.sketches import fixed_binary, signature_rows
from stackbuild.kernels import kernel
from stackbuild.tables import arrow, record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task

MISSED = 1e-9  # of the pairs at the threshold
LINK_ROWS = 32_768  # pairs whose signatures are in memory

Low = npt.NDArray[np.uint8]

PAIRS = pa.schema([pa.field("partition", pa.int32()), pa.field("left", pa.int64()), pa.field("right", pa.int64())])
EDGES = PAIRS  # by the partition of the right file


def links_schema(options: NearDedupOptions) -> pa.Schema:
    """`signature`: the low eight bits of the left file's slots; null where nothing is estimated."""
    return pa.schema([*PAIRS, pa.field("signature", pa.binary(options.permutations))])


def least_agreement(threshold: float, slots: int) -> int:
    """Slots of `slots` in which two files must agree in eight bits to be compared exactly.

    At the threshold t a slot agrees with p = t + (1 - t) / 256. The bound is the largest number of slots below which the
    binomial distribution of `slots` and p has no more than MISSED.
    """
    p = threshold + (1 - threshold) / 256
    if p >= 1:
        return slots
    below = 0.0
    for agreeing in range(slots + 1):
        ways = math.lgamma(slots + 1) - math.lgamma(agreeing + 1) - math.lgamma(slots - agreeing + 1)
        below += math.exp(ways + agreeing * math.log(p) + (slots - agreeing) * math.log1p(-p))
        if below > MISSED:
            return agreeing
    return slots


@kernel
def agreement(left: Low, right: Low, rows: Numbers) -> Numbers:
    """In how many slots `left[i]` and `right[rows[i]]` agree, int64 (n,); uint8 of shape (n, k) and (m, k)."""
    result = np.empty(len(left), np.int64)
    for i in range(len(left)):
        same = 0
        j = rows[i]
        for slot in range(left.shape[1]):
            same += left[i, slot] == right[j, slot]
        result[i] = same
    return result


def list_candidates_of(task: Task, pass_: int, passes: int) -> tuple[Numbers, Numbers]:
    """The distinct pairs whose left file is in one range of this partition."""
    lefts, rights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for batch in task.read("pairs", ["partition", "left", "right"], group=task.rank, group_by="partition"):
        left, right = np.asarray(batch.column("left")), np.asarray(batch.column("right"))
        if passes > 1:
            here = finer(left, task.partitions, passes) == pass_
            left, right = left[here], right[here]
        lefts.append(left)
        rights.append(right)
    return distinct_pairs(np.concatenate(lefts), np.concatenate(rights))


def rows_in(task: Task, table: str) -> int:
    """Rows of a table that is written by partition which are this task's."""
    return sum(output.groups.get(str(task.rank), 0) for output in task.outputs(table))


def link(task: Task) -> None:
    """Send each distinct pair of this partition's files to the partition of its right file."""
    options: NearDedupOptions = task.options
    limits = Limits.of(options.memory, options.permutations)
    pairs = rows_in(task, "pairs")
    passes = passes_for(pairs, limits.pairs)
    if estimates(options):
        passes = max(passes, passes_for(min(pairs, rows_in(task, "sketches")), limits.signatures))
    schema, count = links_schema(options), 0
    for pass_ in range(passes):
        left, right = list_candidates_of(task, pass_, passes)
        count += len(left)
        order = np.argsort(right, kind="stable")
        left, right = left[order], right[order]
        sketches = LowSignatures.of(task, left, limits) if estimates(options) else None
        with task.writer("links", schema, group_by="partition", row_group_rows=LINK_ROWS) as writer:
            for start in range(0, len(left), LINK_ROWS):
                part = slice(start, start + LINK_ROWS)
                low = pa.nulls(len(left[part]), schema.field("signature").type)
                if sketches is not None:
                    low = fixed_binary(sketches.take(left[part]))
                partition = partition_of(right[part], task.partitions)
                writer.write(record_batch(schema, partition, left[part], right[part], low))
    task.stats["candidate_pairs"] = count


def estimates(options: NearDedupOptions) -> bool:
    """Whether pairs are dropped by an estimate before they are checked."""
    return options.verify and not options.exact


class LowSignatures:
    """The low eight bits of some files' signatures."""

    def __init__(self, files: Numbers, low: Low):
        self._files, self._low = files, low

    @classmethod
    def of(cls, task: Task, wanted: Numbers, limits: Limits) -> LowSignatures:
        """Read those of a partition's files; `wanted` int64, with repeats. Of several files of a number the first counts,
        by content_id."""
        options: NearDedupOptions = task.options
        files = np.unique(wanted)
        low = np.zeros((len(files), options.permutations), np.uint8)
        holder = np.full(len(files), b"\xff" * 20, "S20")
        columns = ["partition", "file", "content_id", "signature"]
        for batch in task.read("sketches", columns, task.rank, "partition") if len(files) else ():
            here = np.asarray(batch.column("file"))
            rows, at = matched(here, files)
            if not len(rows):
                continue
            part = batch.take(arrow(rows))
            ids = np.frombuffer(part.column("content_id").buffers()[1], "S20", len(rows))
            best = np.argsort(ids, kind="stable")[::-1]  # what is written last stays
            best = best[ids[best] <= holder[at[best]]]
            holder[at[best]] = ids[best]
            low[at[best]] = signature_rows(part.column("signature"), options.permutations)[best].astype(np.uint8)
        return cls(files, low)

    def take(self, files: Numbers) -> Low:
        """Of these files, uint8 of shape (n, k)."""
        return self._low[np.searchsorted(self._files, files)]

    def agreement(self, low: Low, files: Numbers) -> Numbers:
        """Slots in which row i of `low` agrees with file i, int64 (n,)."""
        return np.asarray(agreement(low, self._low, np.searchsorted(self._files, files)))


def matched(values: Numbers, among: Numbers) -> tuple[Numbers, Numbers]:
    """(rows of `values` that are in `among`, ascending and distinct; where in it), int64."""
    if not len(among):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(among, values), len(among) - 1)
    rows = np.flatnonzero(among[at] == values)
    return rows, at[rows]


def estimate(task: Task) -> None:
    """Write the edges whose right file is in this partition, and the stars of their components."""
    options: NearDedupOptions = task.options
    limits = Limits.of(options.memory, options.permutations)
    forest, count = Forest(limits.pairs), 0
    with task.writer("edges", EDGES, group_by="partition") as writer:
        for left, right in _likely(task, options, limits):
            count += len(left)
            forest.add(left, right)
            partition = np.full(len(left), task.rank, np.int32)
            writer.write(record_batch(EDGES, partition, left, right))
    write_stars(task, forest)
    task.stats["likely_pairs"] = count


def _likely(task: Task, options: NearDedupOptions, limits: Limits) -> Iterator[tuple[Numbers, Numbers]]:
    if not estimates(options):
        for batch in task.read("links", ["partition", "left", "right"], task.rank, "partition"):
            yield np.asarray(batch.column("left")), np.asarray(batch.column("right"))
        return
    least = least_agreement(options.threshold, options.permutations)
    files = min(rows_in(task, "links"), rows_in(task, "sketches"))
    passes = passes_for(files, limits.signatures)
    for pass_ in range(passes):
        sketches = LowSignatures.of(task, _rights(task, pass_, passes), limits)
        for batch in task.read("links", None, task.rank, "partition"):
            left, right = np.asarray(batch.column("left")), np.asarray(batch.column("right"))
            low = low_rows(batch.column("signature"), options.permutations)
            if passes > 1:
                here = finer(right, task.partitions, passes) == pass_
                left, right, low = left[here], right[here], low[here]
            likely = sketches.agreement(low, right) >= least
            yield left[likely], right[likely]


def low_rows(column: pa.Array, permutations: int) -> Low:
    """A column of 8-bit signatures, none null, as uint8 of shape (n, permutations)."""
    raw = np.frombuffer(column.buffers()[1], np.uint8, len(column) * permutations, column.offset * permutations)
    return raw.reshape(-1, permutations)


def _rights(task: Task, pass_: int, passes: int) -> Numbers:
    """The distinct right files of one range of this partition."""
    known: list[Numbers] = []
    for batch in task.read("links", ["partition", "right"], task.rank, "partition"):
        right = np.unique(np.asarray(batch.column("right")))
        known.append(right[finer(right, task.partitions, passes) == pass_] if passes > 1 else right)
        if len(known) > 64:
            known = [np.unique(np.concatenate(known))]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *known]))
