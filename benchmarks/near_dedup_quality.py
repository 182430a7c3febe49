"""How good a near-dedup is: what a tool removed and grouped, against the exact pairs.

Pairs and files are those with shingles; a removed file without any counts as having a twin if a copy of its bytes stays.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import near_dedup_oracle
from benchmarks.near_dedup_oracle import Truth, truth
from benchmarks.near_dedup_peers import Input, Outcome, digest

THRESHOLD = 0.7
BANDS = (0.70, 0.75, 0.80, 0.90, 1.01)  # recall is told within each two neighbours
HIGH = 0.8  # files with a twin at or above are told apart

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Quality:
    """Shares are of 1. `named_twin`: removed files that name a file that stays and is a pair of theirs (None: none named).

    `found`, `found_high`: files with a twin at J >= 0.7 and 0.8 that are in a group with such a twin.
    """

    judged_by: str
    pairs: int
    removed: int
    kept_twin: float
    named_twin: float | None
    any_twin: float
    recall: float
    recall_by_band: tuple[float, ...]
    precision: float
    surviving: int
    found: float
    found_high: float

    def told(self) -> dict[str, Any]:
        return asdict(self)


def exact(given: Input, cache: Path, header_blind: bool) -> Truth:
    """The exact pairs of the input, kept in the cache folder."""
    from stackbuild.dedup import headers

    rule = inspect.getsource(headers) if header_blind else ""
    key = digest(given.key, inspect.getsource(near_dedup_oracle), rule, str(THRESHOLD))
    path = cache / "results" / f"exact-{key}.npz"
    if path.exists():
        with np.load(path) as found:
            return Truth(*(found[name] for name in ("left", "right", "similarity", "sizes", "text")))
    made = truth(given.texts(), THRESHOLD, header_blind)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **asdict(made))
    return made


def judge(exact: Truth, found: Outcome, judged_by: str) -> Quality:
    """Compare what a tool did with the exact pairs of the same files."""
    left, right, similarity = exact.left, exact.right, exact.similarity
    together = (found.group[left] == found.group[right]) & (found.group[left] >= 0)
    removed = found.removed
    kept = _touched(removed, left, right, ~removed) | _copy_stays(exact, removed)
    any_ = _touched(removed, left, right, np.ones_like(removed)) | kept
    members = np.bincount(found.group[found.group >= 0])
    inside = int((members * (members - 1) // 2).sum())
    bands = [(similarity >= low) & (similarity < high) for low, high in pairwise(BANDS)]
    return Quality(
        judged_by=judged_by,
        pairs=len(left),
        removed=int(removed.sum()),
        kept_twin=_share(kept[removed]),
        named_twin=_named(exact, found),
        any_twin=_share(any_[removed]),
        recall=_share(together),
        recall_by_band=tuple(_share(together[band]) for band in bands),
        precision=int(together.sum()) / inside if inside else 1.0,
        surviving=int((~removed[left] & ~removed[right]).sum()),
        found=_found(exact, together, THRESHOLD),
        found_high=_found(exact, together, HIGH),
    )


def same_pairs(given: Input, exact: Truth, header_blind: bool) -> str | None:
    """What the package's own exact join says of the same texts; None if it has none."""
    try:
        from stackbuild.dedup.exact_join import exact_pairs
    except ImportError:
        return None
    import pyarrow as pa

    from stackbuild.dedup.options import Shingling
    from stackbuild.dedup.shingles import shingle_sets

    texts = pa.chunked_array(list(given.texts())).cast(pa.large_string()).combine_chunks()
    hashes, offsets = shingle_sets(texts, replace(Shingling(), header_blind=header_blind))
    left, right, _ = exact_pairs(hashes, offsets, THRESHOLD)
    low, high = np.minimum(left, right).astype(np.int64), np.maximum(left, right).astype(np.int64)
    theirs, ours = low << 32 | high, exact.left << 32 | exact.right
    both = len(np.intersect1d(theirs, ours))
    return f"{both:,} pairs found by both, {len(theirs) - both:,} by the package alone, {len(ours) - both:,} by the oracle alone"


def _touched(of: Flags, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], twins: Flags) -> Flags:
    """The files that have a pair with one of `twins`."""
    result = np.zeros_like(of)
    result[left[twins[right]]] = True
    result[right[twins[left]]] = True
    return result


def _copy_stays(exact: Truth, removed: Flags) -> Flags:
    stays = np.zeros(int(exact.text.max(initial=-1)) + 1, np.bool_)
    stays[exact.text[~removed]] = True
    return (exact.sizes == 0) & stays[exact.text]


def _named(exact: Truth, found: Outcome) -> float | None:
    if found.named is None:
        return None
    rows = np.flatnonzero(found.removed)
    twins = found.named[rows]
    pairs = exact.left << 32 | exact.right
    paired = np.isin(np.minimum(rows, twins) << 32 | np.maximum(rows, twins), pairs)
    copies = (exact.sizes[rows] == 0) & (exact.text[rows] == exact.text[twins])
    return _share((twins >= 0) & ~found.removed[twins] & (paired | copies))


def _found(exact: Truth, together: Flags, at_least: float) -> float:
    """The share of the files with a twin at or above a similarity that share a group with one."""
    high = exact.similarity >= at_least
    has, met = np.zeros(len(exact.sizes), np.bool_), np.zeros(len(exact.sizes), np.bool_)
    for flags, pairs in ((has, high), (met, high & together)):
        flags[exact.left[pairs]] = True
        flags[exact.right[pairs]] = True
    return _share(met[has])


def _share(flags: Flags) -> float:
    return float(flags.mean()) if len(flags) else 1.0
