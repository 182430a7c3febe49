"""datatrove: its four MinHash stages, 5-grams, 25 buckets of 10, 64-bit xxhash, its English word splitter.

One task for each file; the filter writes Parquet as its writer does by default.
"""

from pathlib import Path

import files
import pyarrow.compute as pc
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.typeshelper import Languages


def work(folder, out, workers):
    shards = len(files.inputs(folder))
    config = MinhashConfig(
        n_grams=files.NGRAM, num_buckets=files.BANDS, hashes_per_bucket=files.ROWS,
        hash_config=HashConfig(precision=64, hash_fc="xxhash"),
    )  # fmt: skip
    told = f"{out}/told"

    def reader():
        return ParquetReader(folder, read_metadata=False, glob_pattern="*.parquet")

    stages = [
        ([reader(), MinhashDedupSignature(f"{told}/signatures", config=config, language=Languages.english)], shards),
        ([MinhashDedupBuckets(f"{told}/signatures", f"{told}/buckets", config=config)], files.BANDS),
        ([MinhashDedupCluster(f"{told}/buckets", f"{told}/remove", config=config, save_cluster_id=True)], 1),
        ([reader(), MinhashDedupFilter(f"{told}/remove"), ParquetWriter(out)], shards),
    ]
    for number, (pipeline, tasks) in enumerate(stages):
        logs = f"{told}/logs/{number}"
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=logs).run()


def tell(folder, out, workers):
    """`.clusters` holds pairs of 32-bit numbers: the place of a document in its shard, its cluster."""
    import numpy as np

    ids, groups = [], []
    for rank, path in enumerate(files.inputs(folder)):
        found = Path(out, "told", "remove", f"{rank:06d}.clusters")
        if not found.exists():
            continue
        table = files.read(path)
        read = table.filter(pc.greater(pc.binary_length(table["text"]), 0))["id"].to_pylist()  # it passes by empty ones
        pairs = np.fromfile(found, "<u4").reshape(-1, 2).tolist()
        ids += [read[place] for place, _ in pairs]
        groups += [cluster for _, cluster in pairs]
    files.write_groups(out, ids, groups)


if __name__ == "__main__":
    files.main(work, tell)
