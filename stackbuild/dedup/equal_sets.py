"""Files of one and the same set of shingles in exact mode: one of them stands for all, or m of them would make m²/2 pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.dedup.candidates import Keys
from stackbuild.dedup.numbers import Numbers


def of_one_set(files: Numbers, sets: Keys) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """Of each row (the smallest file with the same set, int64; whether that is another file than its own).

    Files of one set have the same rows but for their numbers, as shingles are ordered by what all files share. So where
    one of them has a row all have, and every bucket chooses the same file for them. What is told apart by 64 bits meets
    by chance once in 10^19 pairs of files of a bucket; then a pair may be lost, as every pair is checked, none invented.
    """
    encoded = pa.array(files).dictionary_encode()
    known, file = np.asarray(encoded.dictionary), np.asarray(encoded.indices)
    of = np.empty(len(known), np.uint64)
    of[file] = sets
    order = np.lexsort((known, of))
    ordered = of[order]
    starts = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    first = np.empty(len(known), np.int64)
    first[order] = known[order[starts]][np.cumsum(starts) - 1]
    return first[file], (first != known)[file]


def stars(
    first: Numbers, files: Numbers, rows: npt.NDArray[np.bool_], at_once: int
) -> Iterator[tuple[Numbers, Numbers]]:
    """The pairs of these rows' files with the smallest file of their set. `rows`: those at position 0, which a file of
    a set that others have too has in one bucket alone: no shingle of it is the file's own."""
    left, right = first[rows], files[rows]
    order = np.lexsort((right, left))
    for start in range(0, len(order), max(at_once, 1)):
        part = order[start : start + max(at_once, 1)]
        yield left[part], right[part]
