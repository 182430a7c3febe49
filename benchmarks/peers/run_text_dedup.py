"""text-dedup 0.4.0: its command for MinHash, 5-grams, 250 permutations in 25 bands of 10, xxh3, two processes.

It reads Parquet and writes a `datasets` folder, which is read again to write Parquet (some percent of its CPU). Files
of fewer than five pieces of text leave.
"""

import pickle
from pathlib import Path

import files


def work(folder, out, workers):
    from datasets import load_from_disk
    from text_dedup.minhash import main

    told = Path(out, "told")
    told.mkdir(parents=True)
    words = {
        "path": "parquet", "data_dir": folder, "split": "train", "cache_dir": f"{told}/cache", "output": f"{told}/kept",
        "column": "text", "idx_column": "id", "ngram": files.NGRAM, "min_length": files.NGRAM,
        "num_perm": files.BANDS * files.ROWS, "threshold": files.THRESHOLD, "b": files.BANDS, "r": files.ROWS,
        "hash_func": "xxh3", "num_proc": workers,
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in words.items()]
    main([*arguments, "--debug", "--no-clean_cache"], standalone_mode=False)
    kept = load_from_disk(f"{told}/kept")
    kept.select_columns(["id", "text"]).to_parquet(f"{out}/kept.parquet")


def tell(folder, out, workers):
    """`uf.pkl` holds the parents of the ids that share a bucket with another."""
    with open(Path(out, "told", "kept", "uf.pkl"), "rb") as file:
        found = pickle.load(file)
    ids = list(found.parent)
    files.write_groups(out, ids, [found.find(id_) for id_ in ids])


if __name__ == "__main__":
    files.main(work, tell)
