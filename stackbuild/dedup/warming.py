"""Loads the compiled kernels of all phases, so that the children of a task server need not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stackbuild.dedup.components import Forest, pack
from stackbuild.dedup.links import agreement
from stackbuild.dedup.near_duplicates import near_duplicates
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.schema import ID


def warm() -> None:
    """Three small files, two of them twins."""
    words = " ".join(f"word{number}" for number in range(12)).encode()
    ends = np.array([0, len(words), 2 * len(words), 2 * len(words) + 3])
    texts = pa.Array.from_buffers(
        pa.large_string(), 3, [None, pa.py_buffer(ends), pa.py_buffer(words + words + b"end")]
    )
    ids = pa.Array.from_buffers(ID, 3, [None, pa.py_buffer(bytes(range(60)))])
    near_duplicates(pa.Table.from_arrays([ids, texts], ["content_id", "text"]), options=NearDedupOptions())
    forest, files = Forest(), np.arange(2)
    forest.add(files[:1], files[1:])
    pack(forest.labels()[1], 1)
    agreement(np.zeros((1, 4), np.uint8), np.zeros((1, 4), np.uint8), files[:1])
