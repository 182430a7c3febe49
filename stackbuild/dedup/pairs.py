"""The second phase of near-duplicate removal: the pairs of files that share a band key of one bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stackbuild.dedup.candidates import Keys, SharedKeys, candidate_pairs
from stackbuild.dedup.limits import Limits
from stackbuild.dedup.links import PAIRS
from stackbuild.dedup.numbers import partition_of, passes_for
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.tables import record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task


def list_candidates(task: Task) -> None:
    """Write the pairs of files that share a key of this task's bucket, by the partition of the left file.

    The bucket is read once to tell keys that stand alone, once to count the others, and then in as many passes as these
    need memory for, each over a range of keys; one key's rows stay together.
    """
    options: NearDedupOptions = task.options
    limits = Limits.of(options.memory, options.permutations)
    known = SharedKeys(sum(output.groups.get(str(task.rank), 0) for output in task.outputs("bands")))
    for key, _ in _rows(task, ["bucket", "key"]):
        known.add(key)
    shared = sum(int(known.shared(key).sum()) for key, _ in _rows(task, ["bucket", "key"]))
    passes = passes_for(shared, limits.bands)
    bits, more = task.partitions.bit_length() - 1, passes.bit_length() - 1
    listed = 0
    for pass_ in range(passes):
        keys, files = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for key, batch in _rows(task, ["bucket", "key", "file"]):
            here = known.shared(key)
            if more:
                here &= (key << np.uint64(bits)) >> np.uint64(64 - more) == pass_
            keys.append(key[here])
            files.append(np.asarray(batch.column("file"))[here])
        for left, right in candidate_pairs(np.concatenate(keys), np.concatenate(files), at_once=limits.pairs):
            listed += len(left)
            partition = partition_of(left, task.partitions)
            with task.writer("pairs", PAIRS, group_by="partition") as writer:
                writer.write(record_batch(PAIRS, partition, left, right))
    task.stats.update(pairs_of_buckets=listed, shared_rows=shared)


def _rows(task: Task, columns: list[str]) -> Iterator[tuple[Keys, pa.RecordBatch]]:
    for batch in task.read("bands", columns, group=task.rank, group_by="bucket"):
        yield np.asarray(batch.column("key")), batch
