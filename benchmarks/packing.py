"""Order, packing and blending: what each costs per document, sample and element, beside plain ways to do the same.

    python -m benchmarks.packing [--figures packing blending permutation] [--rounds 3] [--json]

packing      documents of log-normal lengths (trainer 5.3), cut at --capacity, in windows of 2^20: best-fit-decreasing with
             the layout of bins. `python` is the same algorithm in plain Python on one window. `padding`: the share of bins that is empty.
blending     the order of samples of 10, 100 and 1,000 sources with weights by Zipf. `greedy` is Megatron's rule, compiled;
             `sorted` sorts the keys (k + 0.5) / weight, in blocks. `error`: the largest |count - share * t| of a prefix.
             `first block` is ours for one block 2,300 blocks (10^13 tokens in windows of 4,096) into the order, nothing kept.
permutation  elements of a permutation of 10^7, each computed alone, beside numpy's shuffle, which holds all of them.

All is single-threaded. With --json one object for each table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Comparison, options

WINDOW = 2**20  # documents that are packed together
BLOCKS = 4  # of samples that are blended
TIMES = 10.0  # as good as plain Python
SAMPLES_PER_SECOND = 5.0  # millions
ELEMENTS, PER_SECOND = 10_000_000, 20.0
Told = Callable[[], dict[str, Any]]


def windows(documents: int, capacity: int) -> Iterator[npt.NDArray[np.int64]]:
    """The lengths to pack, window by window: documents cut at the capacity."""
    random = np.random.default_rng(0)
    for first in range(0, documents, WINDOW):
        sizes = random.lognormal(6.3, 1.2, min(WINDOW, documents - first)).astype(np.int64) + 1
        rests = sizes % capacity
        yield np.concatenate([rests[rests > 0], np.full(int((sizes // capacity).sum()), capacity)])


def _told(documents: int, tokens: int, bins: int, capacity: int) -> dict[str, Any]:
    return {"size": documents / 1e6, "bins": bins, "padding": f"{1 - tokens / (bins * capacity):.5%}"}


def best_fit_layout(documents: int, capacity: int) -> Told:
    """Ours: the bin of each item, then the items of each bin."""
    from stackbuild.tokens.pack import best_fit, layout

    given = list(windows(documents, capacity))
    layout(*best_fit(given[0][:100], capacity))

    def work() -> dict[str, Any]:
        bins = 0
        for sizes in given:
            packed, count = best_fit(sizes, capacity)
            layout(packed, count)
            bins += count
        return _told(documents, sum(int(sizes.sum()) for sizes in given), bins, capacity)

    return work


def python_best_fit(documents: int, capacity: int) -> Told:
    """A histogram of lengths and a mask of the rooms that bins have, as one large integer."""
    given = [sizes.tolist() for sizes in windows(documents, capacity)]

    def work() -> dict[str, Any]:
        bins = 0
        for sizes in given:
            of_size: list[list[int]] = [[] for _ in range(capacity + 1)]
            for item, size in enumerate(sizes):
                of_size[size].append(item)
            of_room: list[list[list[int]]] = [[] for _ in range(capacity + 1)]
            mask = 0
            for size in range(capacity, 0, -1):
                for item in of_size[size]:
                    fitting = mask >> size
                    if fitting:
                        room = size + (fitting & -fitting).bit_length() - 1
                        chosen = of_room[room].pop()
                        if not of_room[room]:
                            mask ^= 1 << room
                    else:
                        room, chosen = capacity, []
                        bins += 1
                    chosen.append(item)
                    if room > size:
                        mask |= 1 << (room - size)
                        of_room[room - size].append(chosen)
        return _told(documents, sum(map(sum, given)), bins, capacity)

    return work


def _zipf(sources: int) -> list[float]:
    return [1 / rank for rank in range(1, sources + 1)]


def _blended(source: npt.NDArray[Any], sources: int) -> dict[str, Any]:
    """The largest error of a prefix: it is found beside the samples of each source."""
    largest = 0.0
    shares = np.array(_zipf(sources)) / np.sum(_zipf(sources))
    order = np.argsort(source, kind="stable")
    ends = np.cumsum(np.bincount(source, minlength=sources))
    for number, share in enumerate(shares):
        at = order[ends[number - 1] if number else 0 : ends[number]]
        given = np.arange(len(at))
        behind, ahead = given - share * at, given + 1 - share * (at + 1)
        largest = max(largest, -behind.min(initial=0.0), ahead.max(initial=0.0))
    return {"size": len(source) / 1e6, "error": f"{largest:.7f}"}


def mixture(sources: int, samples: int) -> Told:
    """Ours."""
    from stackbuild.tokens.blend import Mixture

    Mixture([1.0, 2.0], block=16).sources(0, 64)
    return lambda: {"source": Mixture(_zipf(sources)).sources(0, samples)[0]}


def far(sources: int, samples: int, block: int) -> Told:
    """Ours: one block far into the order, and what stands before it."""
    from stackbuild.tokens.blend import BLOCK, Mixture

    Mixture([1.0, 2.0], block=16).sources(0, 64)
    return lambda: {"source": Mixture(_zipf(sources)).sources(block * BLOCK, samples)[0], "is_far": True}


def megatron(sources: int, samples: int) -> Told:
    """Megatron's rule."""
    from stackbuild.tokens.blend import greedy

    greedy([1.0, 2.0], 4)
    return lambda: {"source": greedy(_zipf(sources), samples)[0]}


def by_keys(sources: int, samples: int) -> Told:
    """(k + 0.5) / weight for sample k of a source, sorted; of each block what floor(weight * t) says."""
    weights = np.array(_zipf(sources)) / np.sum(_zipf(sources))

    def work() -> dict[str, Any]:
        made = []
        before = np.zeros(sources, np.int64)
        for stop in range(WINDOW, samples + 1, WINDOW):
            after = np.floor(weights * stop).astype(np.int64)
            short = stop - int(after.sum())
            after[np.argsort(-(weights * stop - after), kind="stable")[:short]] += 1
            counts = np.maximum(after - before, 0)
            source = np.repeat(np.arange(sources, dtype=np.int32), counts)
            ranks = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
            made.append(source[np.argsort((before[source] + ranks + 0.5) / weights[source], kind="stable")])
            before = after
        return {"source": np.concatenate(made)}

    return work


def measured(target: str, **arguments: Any) -> Told:
    """A way of blending whose error is looked at after its work: CPU of the work alone counts."""
    import time

    work = globals()[target](**arguments)

    def timed() -> dict[str, Any]:
        started = time.process_time()
        found = work()
        cpu = time.process_time() - started
        about = {"error": ""} if found.get("is_far") else _blended(found["source"], arguments["sources"])
        return about | {"size": len(found["source"]) / 1e6, "work": cpu}

    return timed


def permuted(elements: int) -> Told:
    """Ours, in slices of a million."""
    from stackbuild.tokens.permute import Permutation

    order = Permutation(elements, 0, "benchmark")
    order.slice(0, 2)

    def work() -> dict[str, Any]:
        for start in range(0, elements, 1_000_000):
            order.slice(start, min(start + 1_000_000, elements))
        return {"size": elements / 1e6}

    return work


def shuffled(elements: int) -> Told:
    """numpy's Generator.permutation."""

    def work() -> dict[str, Any]:
        np.random.default_rng(0).permutation(elements)
        return {"size": elements / 1e6}

    return work


def main() -> None:
    """Measure what was asked for and print its tables, or an object for each."""
    parser = options(__doc__ or "")
    names = ["packing", "blending", "permutation"]
    parser.add_argument("--figures", nargs="+", choices=names, default=names)
    parser.add_argument("--documents", type=int, default=10 * WINDOW)
    parser.add_argument("--capacity", type=int, nargs="+", default=[4096, 8192, 16384])
    asked = parser.parse_args()
    used = ("stackbuild", "numba", "numpy")
    here = "benchmarks.packing:"
    for capacity in asked.capacity if "packing" in asked.figures else ():
        all_ = {"documents": asked.documents, "capacity": capacity}
        comparison = Comparison(
            "packing", "M documents per CPU-second", TIMES, asked.documents / 1e6, all_, used,
            shown=("bins", "padding"),
        )  # fmt: skip
        ways = {
            "ours": (f"{here}best_fit_layout", all_),
            "python": (f"{here}python_best_fit", {"documents": min(asked.documents, WINDOW), "capacity": capacity}),
        }
        comparison.take_turns(ways, asked.rounds)
        comparison.show(asked.json)
    for sources in (10, 100, 1000) if "blending" in asked.figures else ():
        all_ = {"sources": sources, "samples": BLOCKS * WINDOW}
        comparison = Comparison(
            "blending", "M samples per CPU-second", SAMPLES_PER_SECOND, all_["samples"] / 1e6, all_, used,
            absolute=True, shown=("error",), parts=("first block",),
        )  # fmt: skip
        ways = {
            name: (f"{here}measured", {"target": target, **all_})
            for name, target in (("ours", "mixture"), ("greedy", "megatron"), ("sorted", "by_keys"))
        }
        ways["first block"] = (
            f"{here}measured",
            {"target": "far", "sources": sources, "samples": WINDOW, "block": 2300},
        )
        comparison.take_turns(ways, asked.rounds)
        for runs in comparison.runs.values():
            runs[:] = [replace(run, cpu=run.told["work"]) for run in runs]
        comparison.show(asked.json)
    if "permutation" in asked.figures:
        all_ = {"elements": ELEMENTS}
        comparison = Comparison(
            "permutation", "M elements per CPU-second", PER_SECOND, ELEMENTS / 1e6, all_, used, absolute=True
        )
        ways = {"ours": (f"{here}permuted", all_), "numpy": (f"{here}shuffled", all_)}
        comparison.take_turns(ways, asked.rounds)
        comparison.show(asked.json)


if __name__ == "__main__":
    main()
