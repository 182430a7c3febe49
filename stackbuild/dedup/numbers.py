"""How near-duplicate removal numbers files: by their content, so that nothing depends on where a file lies.

A file's number is the first 61 bits of its content_id and two bits for the variant, an int64 at least 0. Numbers ascend
with content_id, and the leading bits of a number are its partition, as those of a content_id are. Two contents whose ids
agree in 61 bits share a number (five pairs are expected among ten thousand million files): the smaller content_id holds
it, the other is compared with nobody and stays.

A file that opens with a licence header is in the work twice if the recipe asks what headers would change: once without
its header (BLIND), which decides, and once with it (SEEING), which is only counted. All other files are PLAIN.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.errors import InputError
from stackbuild.hashing import id_bytes

PLAIN, BLIND, SEEING = 0, 2, 3
NUMBER_BITS = 63
VARIANT_BITS = 2

Numbers = npt.NDArray[np.int64]


def file_numbers(ids: pa.Array | pa.ChunkedArray) -> Numbers:
    """The number of each content_id (binary(20), none null) as a plain file, int64 (n,)."""
    if ids.null_count:
        raise InputError(f"content_id is null in {ids.null_count} rows.")
    head = np.ascontiguousarray(id_bytes(ids)[:, :8]).view(">u8").reshape(-1).astype(np.uint64)
    return (head >> np.uint64(3) << np.uint64(VARIANT_BITS)).astype(np.int64)


def partition_of(numbers: Numbers, partitions: int) -> npt.NDArray[np.int32]:
    """The partition of each file: the leading bits of its number, int32 (n,). `partitions`: a power of two."""
    return (numbers >> (NUMBER_BITS - (partitions.bit_length() - 1))).astype(np.int32)


def variant_of(numbers: Numbers) -> Numbers:
    """PLAIN, BLIND or SEEING of each file, int64 (n,)."""
    return numbers & ((1 << VARIANT_BITS) - 1)


def finer(numbers: Numbers, partitions: int, passes: int) -> Numbers:
    """Which of `passes` (a power of two) ranges of its partition each number is in, int64 (n,)."""
    bits, more = partitions.bit_length() - 1, passes.bit_length() - 1
    return (numbers >> (NUMBER_BITS - bits - more)) & (passes - 1)


def passes_for(rows: int, at_once: int) -> int:
    """How many passes, a power of two, keep about `at_once` of `rows` evenly spread rows in memory at a time."""
    return 1 << max(0, -(-rows // max(at_once, 1)) - 1).bit_length()


def id_values(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Ids as 'S20' of shape (n,), which numpy compares as bytes of one length (NULs at the end are padding and value
    alike).
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(array):
        return np.empty(0, "S20")
    return np.frombuffer(array.buffers()[1], "S20", count=len(array), offset=20 * array.offset)
