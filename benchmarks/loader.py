"""Training rows in tokens per CPU-second, with fill-in-the-middle, packing and the order of documents.

    python -m benchmarks.loader OUT [--capacity 4096 8192] [--samples 1000] [--rounds 3] [--json]

OUT is the folder of a build or of tokens. Each way makes the first samples in batches of 8, single-threaded, in a process of its
own, in turn: `ours` with the rates of 0.5 and 0.5, `library` the same rows with the parts of treated files encoded whole by
`tokenizers`, `plain` without fill-in-the-middle, `concatenation` documents end to end. The first window is packed before
(`rows` counts what that costs: an epoch's windows in seconds per 10^9 tokens). `p50`: the median of 200 single samples anywhere in
an epoch, in milliseconds of wall time. `padding`: part of the tokens.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Comparison, options, way

GOAL = 5.0  # million tokens per CPU-second
BATCH = 8


def rows(
    out: str, capacity: int, samples: int, rate: float, packing: str, library: bool
) -> Callable[[], dict[str, Any]]:
    """`Batches.batch`."""
    from stackbuild.tokens.batches import NOBODY, Batches
    from stackbuild.tokens.data_config import DataConfig
    from stackbuild.tokens.encode import LIBRARY, Encoder
    from stackbuild.tokens.fim import Infiller
    from stackbuild.tokens.fim_options import FimOptions

    config = DataConfig(sequence_length=capacity, packing=packing, fim=FimOptions(rate=rate))  # type: ignore[arg-type]
    batches = Batches(out, config, 0)
    if library and batches.infill is not None:
        batches.infill = Infiller(Encoder(batches.infill.encoder.vocabulary, LIBRARY), config.fim)
    epoch = sum(source.rows(0) for source in batches.sources)
    count = min(samples, epoch)
    batches.batch(0, 2 * BATCH)
    median = _median(batches, np.random.default_rng(0).integers(0, epoch, 200).tolist())

    def work() -> dict[str, Any]:
        padding, digest = 0, hashlib.sha256()
        for first in range(0, count, BATCH):
            made = batches.batch(first, min(BATCH, count - first))
            padding += int(np.count_nonzero(made.document == NOBODY))
            digest.update(made.tokens.data)
        return {
            "size": count * capacity / 1e6,
            "padding": f"{padding / (count * capacity):.4%}",
            "p50": f"{median:.2f} ms",
            "digest": digest.hexdigest(),
        }

    return work


def _median(batches: Any, places: list[int]) -> float:
    took = []
    for place in places:
        start = time.perf_counter()
        batches.batch(place, 1)
        took.append(time.perf_counter() - start)
    return 1e3 * statistics.median(took)


def count(out: str, capacity: int) -> Callable[[], dict[str, Any]]:
    """The counts of an epoch, with the document tables read."""
    from stackbuild.tokens.data_config import DataConfig
    from stackbuild.tokens.dataset import TokensDataset
    from stackbuild.tokens.source_rows import open_sources

    dataset, config = TokensDataset(out), DataConfig(sequence_length=capacity)
    for source in open_sources(dataset, config, 0, None):
        source.count(0)  # compiled code is loaded

    def work() -> dict[str, Any]:
        sources = open_sources(dataset, config, 0, None)
        made = sum(source.rows(0) for source in sources)
        tokens = sum(int(shard.tokens.sizes.sum()) for source in sources for shard in source.shards)
        documents = sum(source.documents for source in sources)
        return {"size": tokens / 1e9, "rows": made, "documents": documents}

    return work


def main() -> None:
    """Measure every way in turn and print the tables, or an object for each."""
    parser = options(__doc__ or "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--capacity", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--samples", type=int, default=1000)
    asked = parser.parse_args()
    used = ("stackbuild", "numba", "numpy", "tokenizers")
    for capacity in asked.capacity:
        given = {"out": str(asked.out), "capacity": capacity, "samples": asked.samples}
        ours = given | {"rate": 0.5, "packing": "best-fit", "library": False}
        way("benchmarks.loader:rows", ours | {"samples": BATCH})  # kernels are compiled once for a machine
        comparison = Comparison(
            "loader", "M tokens per CPU-second", GOAL, 1.0, given, used,
            absolute=True, shown=("padding", "p50"), parts=("plain", "concatenation"),
        )  # fmt: skip
        ways = {
            "ours": ("benchmarks.loader:rows", ours),
            "library": ("benchmarks.loader:rows", ours | {"library": True}),
            "plain": ("benchmarks.loader:rows", ours | {"rate": 0.0}),
            "concatenation": ("benchmarks.loader:rows", ours | {"packing": "concatenation"}),
        }
        comparison.take_turns(ways, asked.rounds)
        if comparison.runs["ours"][0].told["digest"] != comparison.runs["library"][0].told["digest"]:
            raise AssertionError("the library gives other rows")
        comparison.size = comparison.runs["ours"][0].told["size"]
        comparison.show(asked.json)
        counts = Comparison(
            "rows", "10^9 tokens per CPU-second", 0.0, 1.0, given, used, absolute=True, shown=("rows", "documents")
        )
        counts.take_turns(
            {"ours": ("benchmarks.loader:count", {"out": str(asked.out), "capacity": capacity})}, asked.rounds
        )
        counts.size = counts.runs["ours"][0].told["size"]
        counts.show(asked.json)


if __name__ == "__main__":
    main()
