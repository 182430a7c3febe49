"""Bloom filters of Parquet row groups, asked for ids of 20 bytes.

A split-block filter with XXH64, as https://parquet.apache.org/docs/file-format/bloomfilter/ describes it: pyarrow writes them and cannot
be asked. A filter says "none of these" for certain, "perhaps" else; what is no such filter says "perhaps".
"""

from __future__ import annotations

from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.sources.varint import varint

# A header behind its number of bytes: split blocks, XXH64, uncompressed, each an empty struct in a union (Thrift, compact protocol).
REST: Final = bytes.fromhex("1c1c00001c1c00001c1c000000")
BLOCK: Final = 32  # bytes
SALTS: Final = np.array(
    [0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31], np.uint32
)


def bits_of(file: BinaryIO, offset: int | None, length: int | None) -> npt.NDArray[np.uint32] | None:
    """The filter at a place of a file, uint32 (blocks, 8); None if there is none that can be read."""
    if offset is None or length is None:
        return None
    file.seek(offset)
    data = file.read(length)
    if data[:1] != b"\x15":  # field 1, a number of 32 bits
        return None
    try:
        twice, at = varint(data, 1)
    except (IndexError, ValueError):
        return None
    size = twice >> 1
    if data[at : at + len(REST)] != REST or len(data) != at + len(REST) + size or not size or size % BLOCK:
        return None
    return np.frombuffer(data, np.uint32, offset=at + len(REST)).reshape(-1, 8)


@kernel
def any_may_be_in(bits: Any, ids: Any, salts: Any) -> Any:
    """Whether a filter leaves room for one of the ids, uint8 (n, 20)."""
    blocks = np.uint64(len(bits))
    for row in range(len(ids)):
        hashed = _xxh64(ids[row])
        block = bits[((hashed >> np.uint64(32)) * blocks) >> np.uint64(32)]
        key = np.uint32(hashed & np.uint64(0xFFFFFFFF))
        found = True
        for word in range(8):
            bit = np.uint32(key * salts[word]) >> np.uint32(27)
            if not block[word] >> bit & np.uint32(1):
                found = False
                break
        if found:
            return True
    return False


@kernel
def _xxh64(data: Any) -> Any:
    """XXH64 with seed 0 of 20 bytes: two numbers of eight, and one of four."""
    one, two, three = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
    four, five = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)
    hashed = five + np.uint64(20)
    for lane in range(2):
        value = np.uint64(0)
        for at in range(8):
            value |= np.uint64(data[8 * lane + at]) << np.uint64(8 * at)
        value *= two
        value = (value << np.uint64(31)) | (value >> np.uint64(33))
        hashed ^= value * one
        hashed = (hashed << np.uint64(27)) | (hashed >> np.uint64(37))
        hashed = hashed * one + four
    value = np.uint64(0)
    for at in range(4):
        value |= np.uint64(data[16 + at]) << np.uint64(8 * at)
    hashed ^= value * one
    hashed = (hashed << np.uint64(23)) | (hashed >> np.uint64(41))
    hashed = hashed * two + three
    hashed ^= hashed >> np.uint64(33)
    hashed *= two
    hashed ^= hashed >> np.uint64(29)
    hashed *= three
    return hashed ^ (hashed >> np.uint64(32))
