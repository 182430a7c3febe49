r"""Which files really are near-duplicates: every pair at or above a Jaccard similarity, found without sketches.

Made to judge `stackbuild.dedup` and its peers, so it shares no code with either: Python's `re` finds the words (`\w+` in lower
case), each distinct word is numbered by blake2b, a file is the set of its 5-grams, and pairs are found by prefix
filtering (Chaudhuri et al. 2006; Bayardo et al. 2007): with shingles ordered from rare to common, two sets of similarity
t share one of the first |x| - ceil(t |x|) + 1 shingles of each. What it finds is counted exactly.

Only the rule for licence headers, where texts are judged without them, is the package's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

NGRAM = 5
WORD = re.compile(r"\w+")

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """The pairs of n files: `left` < `right` (int64), `similarity` (float64). `sizes`: distinct shingles of each (int64).

    `text`: int64 (n,), the same number for texts that are byte for byte the same.
    """

    left: Numbers
    right: Numbers
    similarity: Floats
    sizes: Numbers
    text: Numbers


class WordNumbers(dict[str, int]):
    """64 bits for each word, told once."""

    def __missing__(self, word: str) -> int:
        number = int.from_bytes(
            hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
        )
        self[word] = number
        return number


def shingle_sets(texts: Iterable[str]) -> tuple[Hashes, Numbers]:
    """The distinct 5-grams of each text: (uint64, ascending within a text; int64 offsets of shape (n + 1,))."""
    number = WordNumbers()
    factors = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(NGRAM)], np.uint64)
    sets, offsets = [np.zeros(0, np.uint64)], [0]
    for text in texts:
        words = np.array([number[word] for word in WORD.findall(text.lower())], np.uint64)
        shingles = np.zeros(max(len(words) - NGRAM + 1, 0), np.uint64)
        for place in range(NGRAM if len(shingles) else 0):
            shingles += words[place : place + len(shingles)] * factors[place]
        sets.append(np.unique(shingles))
        offsets.append(offsets[-1] + len(sets[-1]))
    return np.concatenate(sets), np.array(offsets, np.int64)


def without_headers(texts: Iterable[pa.Array]) -> Iterator[str]:
    """The texts without what the package takes for licence headers; a space stands for what is cut."""
    from stackbuild.dedup.headers import HEADERS, kept_spans
    from stackbuild.dedup.tokenizing import utf8_buffers

    spans = np.empty((HEADERS + 1, 2), np.int64)
    for batch in texts:
        data, bounds = utf8_buffers(batch)
        for row in range(len(batch)):
            parts = kept_spans(data, bounds[row], bounds[row + 1], True, spans)
            pieces = [data[spans[part, 0] : spans[part, 1]].tobytes() for part in range(parts)]
            yield b" ".join(pieces).decode("utf-8", "replace")


def rare_first(hashes: Hashes, offsets: Numbers) -> tuple[npt.NDArray[np.int32], Numbers]:
    """Each shingle as its place among all, rare before common, ascending within a set; and how often each stands."""
    distinct, places, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    rank = np.empty(len(distinct), np.int32)
    order = np.argsort(counts, kind="stable")
    rank[order] = np.arange(len(distinct), dtype=np.int32)
    ranked = rank[places]
    _sort_within(ranked, offsets)
    return ranked, counts[order]


@njit(cache=True, nogil=True)
def _sort_within(ranked: npt.NDArray[np.int32], offsets: Numbers) -> None:
    for row in range(len(offsets) - 1):
        ranked[offsets[row] : offsets[row + 1]].sort()


@njit(cache=True, nogil=True)
def in_common(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> int:
    """How many values two ascending arrays without repeats have in common."""
    found = i = j = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            found += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return found


@njit(cache=True, nogil=True)
def _join(
    ranked: npt.NDArray[np.int32], offsets: Numbers, counts: Numbers, order: Numbers, threshold: float
) -> tuple[Numbers, Numbers, Floats]:
    """`order`: the sets from small to large, so that each is compared with those before it that are large enough."""
    starts = np.zeros(len(counts) + 1, np.int64)
    sizes = offsets[1:] - offsets[:-1]
    prefixes = np.empty(len(sizes), np.int64)
    for row in range(len(sizes)):
        prefixes[row] = sizes[row] - int(np.ceil(threshold * sizes[row] - 1e-9)) + 1 if sizes[row] else 0
        for at in range(offsets[row], offsets[row] + prefixes[row]):
            starts[ranked[at] + 1] += counts[ranked[at]] > 1
    starts = np.cumsum(starts)
    filled, first = starts[:-1].copy(), starts[:-1].copy()
    posted = np.empty(starts[-1], np.int64)
    met = np.full(len(sizes), -1, np.int64)
    left, right, similarity = np.empty(1024, np.int64), np.empty(1024, np.int64), np.empty(1024, np.float64)
    made = 0
    for row in order:
        mine = ranked[offsets[row] : offsets[row + 1]]
        for shingle in mine[: prefixes[row]]:
            if counts[shingle] < 2:
                continue
            while first[shingle] < filled[shingle] and sizes[posted[first[shingle]]] < threshold * len(mine) - 1e-9:
                first[shingle] += 1
            for at in range(first[shingle], filled[shingle]):
                other = posted[at]
                if met[other] == row:
                    continue
                met[other] = row
                theirs = ranked[offsets[other] : offsets[other + 1]]
                common = in_common(mine, theirs)
                value = common / (len(mine) + len(theirs) - common)
                if value >= threshold:
                    if made == len(left):
                        left = np.concatenate((left, np.empty_like(left)))
                        right = np.concatenate((right, np.empty_like(right)))
                        similarity = np.concatenate((similarity, np.empty_like(similarity)))
                    left[made], right[made], similarity[made] = min(row, other), max(row, other), value
                    made += 1
            posted[filled[shingle]] = row
            filled[shingle] += 1
    return left[:made], right[:made], similarity[:made]


def all_pairs(hashes: Hashes, offsets: Numbers, threshold: float) -> tuple[Numbers, Numbers, Floats]:
    """Every pair of sets with a Jaccard similarity of at least the threshold: (left, right, similarity), ascending."""
    ranked, counts = rare_first(hashes, offsets)
    order = np.argsort(np.diff(offsets), kind="stable")
    left, right, similarity = _join(ranked, offsets, counts.astype(np.int64), order, threshold)
    order = np.lexsort((right, left))
    return left[order], right[order], similarity[order]


def truth(batches: Iterable[pa.Array], threshold: float, header_blind: bool) -> Truth:
    """All pairs of the texts in some batches. Memory: 8 bytes a shingle, some five times over."""
    kept, digests = [], []
    for batch in batches:
        kept.append(batch)
        digests += [hashlib.blake2b(text.as_buffer(), digest_size=8).digest() for text in batch]
    texts = without_headers(kept) if header_blind else (text for batch in kept for text in batch.to_pylist())
    hashes, offsets = shingle_sets(texts)
    left, right, similarity = all_pairs(hashes, offsets, threshold)
    same = np.unique(np.frombuffer(b"".join(digests), np.uint64), return_inverse=True)[1]
    return Truth(left, right, similarity, np.diff(offsets), same.astype(np.int64))
