"""Tokens per CPU-second: our shards against `tokenizers` in a loop and datatrove's DocumentTokenizer.

    python benchmarks/tokens.py DATASET.parquet... [--tokenizer tokenizer.json] [--repeat 3] [--json]

DATASET are files of schema.DATASET (a build's dataset/data/*/*.parquet). Without a tokenizer one is trained on them
first. All encode the same files with the same tokenizer in one thread, each in a process of its own, in turn; ours
also sorts by repository, renders, writes the index, the document table and three digests. Start-up (imports, loading
the tokenizer) is shown apart. Sentinels in texts are tokens to the peers and letters to us, so counts may differ by
those and by headers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GOAL = 1.0  # of the library's own loop; a faster tokenizer is to raise it


def ours(files: list[str], tokenizer: str, folder: Path) -> Callable[[], int]:
    """Sorted runs, then every bucket's shard."""
    from stackbuild.tokens.job import TokensOptions, encode_bucket, runs

    options = TokensOptions(shards=4)

    def work() -> int:
        made = [folder / f"run{number}" for number in range(len(files))]
        for file, run in zip(files, made, strict=True):
            runs(file, options.shards, 0, run)
        buckets = range(options.shards)
        shards = [encode_bucket(made, bucket, tokenizer, options, 0, folder / f"s{bucket}") for bucket in buckets]
        return sum(shard["tokens"] for shard in shards)

    return work


def library(files: list[str], tokenizer: str, folder: Path) -> Callable[[], int]:
    """`encode_batch_fast` over Parquet batches, tokens to one file as uint16 or uint32."""
    import numpy as np
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(tokenizer)
    dtype = np.uint16 if loaded.get_vocab_size() < 65_500 else np.uint32

    def work() -> int:
        tokens = 0
        with open(folder / "tokens", "wb") as out:
            for file in files:
                for batch in pq.ParquetFile(file).iter_batches(256, columns=["content"]):
                    for encoding in loaded.encode_batch_fast(batch.column(0).to_pylist(), add_special_tokens=False):
                        out.write(np.array(encoding.ids, dtype).tobytes())
                        tokens += len(encoding.ids)
        return tokens

    return work


def datatrove(files: list[str], tokenizer: str, folder: Path) -> Callable[[], int]:
    """ParquetReader and DocumentTokenizer, no shuffling."""
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    (folder / "in").mkdir()
    for number, file in enumerate(files):
        (folder / "in" / f"{number}.parquet").symlink_to(Path(file).resolve())
    reader = ParquetReader(str(folder / "in"), text_key="content", id_key="content_id")
    writer = DocumentTokenizer(
        str(folder / "out"), tokenizer_name_or_path=tokenizer, eos_token="<|endoftext|>", shuffle_documents=False
    )
    _ = writer.tokenizer

    def work() -> int:
        writer.run(reader.run(None, 0, 1), 0, 1)
        return sum(path.stat().st_size for path in (folder / "out").glob("*.ds")) // writer.token_size

    return work


WAYS = {"ours": ours, "tokenizers": library, "datatrove": datatrove}


def measure(way: str, files: list[str], tokenizer: str) -> dict[str, Any]:
    """Run one way in this process and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        work = WAYS[way](files, tokenizer, Path(folder))
        startup = time.process_time()
        tokens = work()
        seconds = time.process_time() - startup
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"tokens": tokens, "seconds": seconds, "startup": startup, "memory": memory}


def main() -> None:
    """Measure every way in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokenizer")
    parser.add_argument("--vocab-size", type=int, default=49_152)
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the fastest of each way counts")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.files, arguments.tokenizer)))
        return

    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    size = sum(pc.sum(pq.read_table(file, columns=["length_bytes"]).column(0)).as_py() for file in arguments.files)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = arguments.tokenizer
        if tokenizer is None:
            from stackbuild.tokens.job import TokensOptions, sample, train

            options = TokensOptions(vocab_size=arguments.vocab_size)
            sample(arguments.files, options, 0, Path(folder, "sample"))
            tokenizer = str(Path(folder, "tokenizer.json"))
            train(Path(folder, "sample"), options, tokenizer)
        env = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        figures: dict[str, dict[str, Any]] = {}
        for way in [*WAYS] * arguments.repeat:
            command = [sys.executable, __file__, "--way", way, "--tokenizer", tokenizer, *arguments.files]
            told = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(told.splitlines()[-1])
            if way not in figures or found["seconds"] < figures[way]["seconds"]:
                figures[way] = found
    rates = {way: found["tokens"] / found["seconds"] / 1e6 for way, found in figures.items()}
    peers = {way: rate for way, rate in rates.items() if way != "ours"}
    ratio = rates["ours"] / max(peers.values())
    if arguments.json:
        names = ("stackbuild", "tokenizers", "datatrove", "pyarrow")
        result = {
            "name": "tokens",
            "unit": "million tokens per CPU-second",
            "ours": rates["ours"],
            "peers": peers,
            "ratio": ratio,
            "goal": GOAL,
            "meets": ratio >= GOAL,
            "versions": {name: importlib.metadata.version(name) for name in names},
            "input": {"files": len(arguments.files), "bytes": size, "tokens": figures["ours"]["tokens"]},
        }
        print(json.dumps(result))
        return
    print(f"{'':12}{'CPU-s':>8}{'start-up':>10}{'MB/CPU-s':>10}{'M tokens/CPU-s':>16}{'peak MB':>9}{'ratio':>7}")
    for way, found in figures.items():
        print(
            f"{way:12}{found['seconds']:8.1f}{found['startup']:10.1f}{size / found['seconds'] / 1e6:10.2f}"
            f"{rates[way]:16.2f}{found['memory']:9.0f}{rates['ours'] / rates[way]:7.2f}"
        )


if __name__ == "__main__":
    main()
