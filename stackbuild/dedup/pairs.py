"""The second phase of near-duplicate removal: the pairs of files that share a band key of one bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stackbuild.dedup.candidates import candidate_pairs
from stackbuild.dedup.limits import Limits
from stackbuild.dedup.links import PAIRS
from stackbuild.dedup.numbers import partition_of, passes_for
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.tables import record_batch

if TYPE_CHECKING:
    from stackbuild.task import Task


def list_candidates(task: Task) -> None:
    """Write the pairs of files that share a key of this task's bucket, by the partition of the left file.

    A bucket too large for memory is read in passes, each over a range of its keys; one key's rows stay together.
    """
    options: NearDedupOptions = task.options
    limits = Limits.of(options.memory, options.permutations)
    rows = sum(output.groups.get(str(task.rank), 0) for output in task.outputs("bands"))
    passes = passes_for(rows, limits.bands)
    bits, more = task.partitions.bit_length() - 1, passes.bit_length() - 1
    listed = 0
    for pass_ in range(passes):
        keys, files = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for batch in task.read("bands", ["bucket", "key", "file"], group=task.rank, group_by="bucket"):
            key, file = np.asarray(batch.column("key")), np.asarray(batch.column("file"))
            if more:
                here = (key << np.uint64(bits)) >> np.uint64(64 - more) == pass_
                key, file = key[here], file[here]
            keys.append(key)
            files.append(file)
        for left, right in candidate_pairs(np.concatenate(keys), np.concatenate(files), at_once=limits.pairs):
            listed += len(left)
            partition = partition_of(left, task.partitions)
            with task.writer("pairs", PAIRS, group_by="partition") as writer:
                writer.write(record_batch(PAIRS, partition, left, right))
    task.stats["pairs_of_buckets"] = listed
