"""Fill-in-the-middle in treated tokens per CPU-second: only the words at cuts encoded anew, against all of every part.

    python -m benchmarks.fim PARQUET ... [--tokenizer tokenizer.json] [--rounds 3] [--json]

PARQUET are files of `benchmarks.corpus` (column `text`). Without a tokenizer, one of 49,152 entries is trained on them. Every
file is encoded before (start-up), then every fragment is treated, half of them in SPM, with the same draws in each way: `ours` for
shards of this package, `checked` with the text of every fragment encoded to see whether the tokens are this tokenizer's, `library`
by `tokenizers` alone, which decodes, cuts and encodes the parts whole. All in one thread, each in a process of its own, in turn.
`anew`: part of the tokens that was encoded; `same`: whether the ids are those of `library`.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Comparison, options, way
from benchmarks.tokens import dataset_of, trained

GOAL = 5.0  # million tokens per CPU-second
BATCH = 64  # fragments at a time
ROOM = 1 << 20


def _batches(files: list[str], tokenizer: str) -> tuple[Any, list[tuple[Any, Any, Any]]]:
    """The encoder, and (ids, offsets, draws) of each batch."""
    from stackbuild.tokens.bpe import Vocabulary
    from stackbuild.tokens.encode import Encoder
    from stackbuild.tokens.fast import NAME
    from stackbuild.tokens.fim import draws

    encoder = Encoder(Vocabulary(tokenizer), NAME)
    made, number = [], 0
    for texts in _texts(files):
        pieces = encoder.encode_array(texts)
        made.append((pieces.ids, pieces.offsets, draws(1, 0, np.arange(number, number + len(texts)), 0)))
        number += len(texts)
    return encoder, made


def _texts(files: list[str]) -> Iterator[pa.Array]:
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH, columns=["text"], use_threads=False):
                yield batch.column(0).cast(pa.large_string())


def ours(files: list[str], tokenizer: str, check: bool) -> Callable[[], dict[str, Any]]:
    """`Infiller.treat_many`."""
    from stackbuild.tokens.fim import Infiller
    from stackbuild.tokens.fim_options import FimOptions

    encoder, batches = _batches(files, tokenizer)
    infiller = Infiller(encoder, FimOptions(min_characters=0), check=check)
    infiller.treat_many(*batches[0], ROOM)  # compiled code is loaded

    def work() -> dict[str, Any]:
        digest, tokens, anew = hashlib.sha256(), 0, 0
        for ids, offsets, bits in batches:
            done = infiller.treat_many(ids, offsets, bits, ROOM)
            if done.codes.any():
                raise AssertionError("a fragment was left alone")
            digest.update(done.ids.data)
            tokens, anew = tokens + done.tokens, anew + done.anew
        size = sum(len(ids) for ids, _, _ in batches) / 1e6
        return {"size": size, "anew": anew / tokens, "ids": digest.hexdigest()}

    return work


def library(files: list[str], tokenizer: str) -> Callable[[], dict[str, Any]]:
    """`tokenizers`: decode_batch, cuts between characters, encode_batch_fast of the parts."""
    from stackbuild.tokens.counter import below, happens
    from stackbuild.tokens.fim import sentinel_ids

    encoder, batches = _batches(files, tokenizer)
    loaded, (prefix, suffix, middle) = encoder.vocabulary.tokenizer, sentinel_ids(encoder.vocabulary)
    below(np.zeros(1, np.uint64), 1)

    def work() -> dict[str, Any]:
        digest = hashlib.sha256()
        for ids, offsets, bits in batches:
            lists = [ids[start:end].tolist() for start, end in pairwise(offsets)]
            texts = loaded.decode_batch(lists, skip_special_tokens=False)
            counts = np.array([len(text) + 1 for text in texts], np.uint64)
            cuts = np.sort(np.column_stack([below(bits.first, counts), below(bits.second, counts)]), axis=1).tolist()
            spm = happens(bits.spm, 0.5).tolist()
            parts = []
            for text, (first, second), joint in zip(texts, cuts, spm, strict=True):
                start = 0 if joint else first
                parts += [text[:start], text[start:second], text[second:]]
            encoded = [encoding.ids for encoding in loaded.encode_batch_fast(parts, add_special_tokens=False)]
            made: list[int] = []
            for one, two, three in zip(encoded[::3], encoded[1::3], encoded[2::3], strict=True):
                made += [prefix, *one, suffix, *three, middle, *two]
            digest.update(np.array(made, ids.dtype).data)
        return {"size": sum(len(ids) for ids, _, _ in batches) / 1e6, "anew": 1.0, "ids": digest.hexdigest()}

    return work


def main() -> None:
    """Measure every way in turn and print the table, or one object."""
    parser = options(__doc__ or "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tokenizer", help="a tokenizer.json with the sentinels of fill-in-the-middle")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.tokenizer is None:
            files = [folder / f"{number:03d}.parquet" for number in range(len(asked.files))]
            for path, out in zip(asked.files, files, strict=True):
                dataset_of(path, out)
            asked.tokenizer = trained(files, folder)
        _measure(asked)


def _measure(asked: argparse.Namespace) -> None:
    given = {"files": [str(file) for file in asked.files], "tokenizer": asked.tokenizer}
    way("benchmarks.fim:ours", given | {"check": True})  # kernels are compiled once for a machine
    comparison = Comparison(
        "fim", "M tokens per CPU-second", GOAL, 1.0, {"files": len(asked.files)}, ("stackbuild", "numba", "numpy", "tokenizers"),
        absolute=True, shown=("anew", "same"), parts=("checked",),
    )  # fmt: skip
    ways = {
        "ours": ("benchmarks.fim:ours", given | {"check": False}),
        "checked": ("benchmarks.fim:ours", given | {"check": True}),
        "library": ("benchmarks.fim:library", given),
    }
    comparison.take_turns(ways, asked.rounds)
    expected = comparison.runs["library"][0].told["ids"]
    for runs in comparison.runs.values():
        for run in runs:
            run.told["same"] = run.told["ids"] == expected
    comparison.input["million_tokens"] = comparison.size = comparison.runs["ours"][0].told["size"]
    comparison.show(asked.json)


if __name__ == "__main__":
    main()
