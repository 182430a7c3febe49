"""Numbers of seven bits a byte, as Thrift and Protocol Buffers write them."""

from __future__ import annotations


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(the number at a place, where it ends). ValueError beyond 64 bits, IndexError beyond the data."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number with more than 64 bits")
