"""Parquet to `.bin` in tokens per CPU-second: ours against tiktoken, `tokenizers` alone and datatrove's DocumentTokenizer.

    python -m benchmarks.tokens PARQUET ... [--tokenizer tokenizer.json] [--peers NAME,... | --peers none] [--rounds 3] [--json]

PARQUET are files of a dataset (column `content`) or of `benchmarks.corpus` (column `text`). Without a tokenizer, one of 49,152
entries is trained on them first. All encode the same files with the same vocabulary in one thread, each in a process of its
own, in turn. Ours also sorts by repository, renders, writes the index, the document table and three digests; `encoder` is ours
without all that, from Parquet to ids. Peers have virtual environments below --cache. Start-up (imports, loading of the
tokenizer) is shown apart; ours loads the tokenizer in the work, once for every shard. Every way's ids are compared with those of ours:
`same` must be True.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.measure import Comparison, NotMeasured, Run, command, options, way
from benchmarks.near_dedup_peers import PYARROW, SCRIPTS, Peer, environment

GOAL, MUST, STRETCH = 10.0, 5.0, 30.0  # million tokens per CPU-second
SHARDS = 1  # those of a corpus are larger than all of this input
PEERS = (
    Peer("tiktoken", "run_tokens.py", ("tiktoken==0.14.0", "numpy==2.4.6", PYARROW), "encode_ordinary"),
    Peer("tokenizers", "run_tokens.py", ("tokenizers==0.23.3", "numpy==2.4.6", PYARROW), "encode_batch_fast"),
    Peer(
        "datatrove",
        "run_tokens.py",
        ("datatrove==0.10.1", "tokenizers==0.23.3", "numpy==2.4.6", "orjson==3.13.0", "fasteners==0.20", PYARROW),
        "ParquetReader and DocumentTokenizer",
    ),
)


def ours(files: list[str], tokenizer: str) -> Callable[[], dict[str, Any]]:
    """Sorted runs, then every bucket's shard, by the fast backend."""
    from stackbuild.tokens.fast import NAME
    from stackbuild.tokens.job import encode_bucket
    from stackbuild.tokens.options import TokensOptions
    from stackbuild.tokens.runs import Buckets, write_run

    settings = TokensOptions(shards=SHARDS)
    _load_kernels(files[0], tokenizer)

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            made = [folder / f"run{number}" for number in range(len(files))]
            for file, run in zip(files, made, strict=True):
                write_run(file, Buckets(0, SHARDS), run)
            shards = [
                encode_bucket(made, bucket, tokenizer, settings, 0, folder / f"s{bucket}", backend=NAME)
                for bucket in range(SHARDS)
            ]
            return {"size": sum(shard["tokens"] for shard in shards) / 1e6}

    return work


def _load_kernels(file: str, tokenizer: str) -> None:
    """Encode a few files, so that compiled code is in memory: it belongs to the start of a process, not to its work."""
    from stackbuild.tokens.fast import NAME
    from stackbuild.tokens.job import encode_bucket
    from stackbuild.tokens.options import TokensOptions
    from stackbuild.tokens.runs import Buckets, write_run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with pq.ParquetFile(file) as source:
            pq.write_table(pa.Table.from_batches([next(source.iter_batches(8))]), folder / "few")
        write_run(folder / "few", Buckets(0, 1), folder / "run")
        encode_bucket([folder / "run"], 0, tokenizer, TokensOptions(shards=1), 0, folder / "shard", backend=NAME)


def encoder(files: list[str], tokenizer: str) -> Callable[[], dict[str, Any]]:
    """Ours from Parquet to ids in a file, as the peers."""
    from stackbuild.tokens.bpe import Vocabulary
    from stackbuild.tokens.encode import Encoder
    from stackbuild.tokens.fast import NAME

    loaded = Encoder(Vocabulary(tokenizer), NAME)
    loaded.encode_array(pa.array(["kernels are loaded"]))

    def work() -> dict[str, Any]:
        tokens = 0
        with tempfile.TemporaryFile() as out:
            for texts in _texts(files):
                ids, _ = loaded.encode_array(texts)
                out.write(ids.data)
                tokens += len(ids)
        return {"size": tokens / 1e6}

    return work


def _texts(files: Sequence[str | Path]) -> Iterator[pa.Array]:
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(256, columns=["content"], use_threads=False):
                yield batch.column(0).cast(pa.large_string())


def dataset_of(path: Path, out: Path) -> int:
    """A file with the columns of a dataset, from one that has them or one of the corpus; bytes of its texts."""
    from stackbuild.schema import DATASET

    table = pq.read_table(path)
    if "content" not in table.column_names:
        text = table["text"].cast(pa.large_string())
        ids = pa.array([f"{row:040x}" for row in range(len(table))])
        columns: dict[str, Any] = {
            "content_id": ids, "blob_id": ids, "repo_name": table["repo"], "revision_id": pa.array(["r"] * len(table)),
            "path": pc.binary_join_element_wise("/", table["path"].cast(pa.string()), ""),
            "path_bytes": table["path"].cast(pa.binary()), "language": table["lang"], "length": pc.utf8_length(text),
            "length_bytes": pc.binary_length(text), "content": text,
        }  # fmt: skip
        arrays = [
            columns[field.name].cast(field.type) if field.name in columns else pa.nulls(len(table), field.type)
            for field in DATASET
        ]
        table = pa.Table.from_arrays(arrays, schema=DATASET)
    pq.write_table(table, out, compression="zstd", compression_level=1, row_group_size=4096)
    return int(pc.sum(pc.binary_length(table["content"])).as_py())


def trained(files: Sequence[Path], folder: Path) -> str:
    """A tokenizer of the usual size, trained on a dataset."""
    from stackbuild.tokens.options import TokensOptions
    from stackbuild.tokens.sample import sample, train

    settings = TokensOptions()
    sample(files, settings, 0, folder / "sample.parquet")
    train(folder / "sample.parquet", settings, folder / "tokenizer.json")
    return str(folder / "tokenizer.json")


def _expected(files: Sequence[Path], tokenizer: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Our ids of all texts, without and with the closing token of each."""
    from stackbuild.tokens.bpe import Vocabulary
    from stackbuild.tokens.encode import Encoder
    from stackbuild.tokens.fast import NAME

    loaded = Encoder(Vocabulary(tokenizer), NAME)
    end = loaded.vocabulary.sentinels["<|endoftext|>"]
    plain, ended = [], []
    for texts in _texts(files):
        ids, offsets = loaded.encode_array(texts)
        plain.append(ids)
        ended.append(np.insert(ids, offsets[1:], end))
    return np.concatenate(plain), np.concatenate(ended)


def _peer(peer: Peer, cache: Path, folder: Path, tokenizer: str, expected: Sequence[npt.NDArray[Any]]) -> Run:
    """One run of a peer, its ids compared with ours."""
    python = environment(peer, cache)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        out = Path(name, "tokens")
        words = [str(python), str(SCRIPTS / peer.script), peer.name, str(folder), tokenizer, str(out)]
        try:
            run, output = command(words, {"PYTHONPATH": ""})
        except SystemExit as error:
            raise NotMeasured(str(error).strip().rsplit("\n", 1)[-1]) from error
        found = json.loads(output.strip().rsplit("\n", 1)[-1])
        ids = np.fromfile(out, np.uint16)
        same = bool(np.array_equal(ids, expected[found["told"]["ends"]]))
        return replace(run, cpu=found["cpu"], startup=found["startup"], told={"size": len(ids) / 1e6, "same": same})


def main() -> None:
    """Measure every way in turn and print the table, or one object."""
    parser = options(__doc__ or "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tokenizer", help="a tokenizer.json of fewer than 65,500 entries")
    parser.add_argument("--peers", type=lambda names: names.split(","), default=[peer.name for peer in PEERS])
    home = Path.home() / ".cache" / "stackbuild" / "benchmarks"
    parser.add_argument("--cache", type=Path, default=home, help="environments of peers")
    asked = parser.parse_args()
    asked.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked.cache) as name:
        folder = Path(name, "in")
        folder.mkdir()
        files = [folder / f"{number:03d}.parquet" for number in range(len(asked.files))]
        size = sum(dataset_of(path, out) for path, out in zip(asked.files, files, strict=True))
        tokenizer = asked.tokenizer or trained(files, Path(name))
        plain = Path(name, "plain.json")  # for the peers: a sentinel in a text is nothing but text
        plain.write_text(json.dumps(json.loads(Path(tokenizer).read_text()) | {"added_tokens": []}))
        expected = _expected(files, tokenizer)
        tokens = len(expected[0]) / 1e6
        about = {"files": len(files), "bytes": size, "million_tokens": tokens}
        comparison = Comparison(
            "tokens", "M tokens per CPU-second", GOAL, tokens, about, ("stackbuild", "numba", "numpy", "pyarrow"),
            absolute=True, shown=("same",), parts=("encoder",),
        )  # fmt: skip
        given = {"files": [str(file) for file in files], "tokenizer": str(tokenizer)}
        way("benchmarks.tokens:encoder", given)  # kernels are compiled once for a machine
        for _ in range(asked.rounds):
            for mine in ("ours", "encoder"):
                comparison.runs.setdefault(mine, []).append(way(f"benchmarks.tokens:{mine}", given))
            for peer in PEERS:
                if peer.name in asked.peers and peer.name not in comparison.missing:
                    try:
                        run = _peer(peer, asked.cache, folder, str(plain), expected)
                        comparison.runs.setdefault(peer.name, []).append(run)
                    except NotMeasured as reason:
                        comparison.missing[peer.name] = str(reason)
        comparison.show(asked.json)


if __name__ == "__main__":
    main()
