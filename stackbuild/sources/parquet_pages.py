"""The pages of a Parquet column chunk, from their headers alone: how much memory decoding takes, before it is taken.

A footer says what its writer pleased: a page of 46 kB inflates to 1.5 GB, and a reader allocates what the page header
announces. Page headers (parquet.thrift: PageHeader, in Thrift's compact protocol) stand before each page and are walked
without reading the pages. Values behind a dictionary take no memory if they are read as one, so only pages count here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from stackbuild.errors import InputError
from stackbuild.sources.varint import varint

WINDOW: Final = 64 * 1024  # bytes of one header; statistics in it are at most a few kilobytes
DICTIONARY_PAGE: Final = 2
_BOOL = (1, 2)


@dataclass(frozen=True)
class Pages:
    """What decoding a chunk takes. `largest`: bytes of a page; `densest`: bytes per value of the worst data page."""

    largest: int
    densest: float


def measure(file: BinaryIO, column: Any) -> Pages:
    """Walk the page headers of a chunk (`pyarrow.parquet.ColumnChunkMetaData`). InputError if they are none."""
    starts = [at for at in (column.dictionary_page_offset, column.data_page_offset) if at is not None and at > 0]
    at, values, largest, densest = min(starts, default=-1), 0, 0, 0.0
    end = at + column.total_compressed_size
    while at < end and values < column.num_values:
        file.seek(at)
        header, length = read_struct(file.read(WINDOW))
        body: Any = header.get(5) or header.get(8) or {}
        inflated, packed, count = header.get(2), header.get(3), body.get(1, 0) if isinstance(body, dict) else None
        if not (isinstance(inflated, int) and isinstance(packed, int) and isinstance(count, int)):
            raise InputError(f"no page header at byte {at}")
        if min(inflated, packed, count) < 0:
            raise InputError(f"a page header with a negative size at byte {at}")
        values += count
        largest = max(largest, inflated)
        if header.get(1) != DICTIONARY_PAGE:
            densest = max(densest, inflated / max(count, 1))
        at += length + packed
    return Pages(largest, densest)


def read_struct(data: bytes) -> tuple[dict[int, Any], int]:
    """(fields by id, bytes used) of a Thrift struct in the compact protocol. InputError if it is none, or too long."""
    try:
        return _struct(data, 0, 0)
    except (IndexError, ValueError) as error:
        raise InputError("a page header is damaged or too long") from error


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > 8:
        raise ValueError("a struct that lies too deep")
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        delta, kind = head >> 4, head & 0x0F
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        fields[number], at = (kind == 1, at) if kind in _BOOL else _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """A value of a compact type: byte, i16 to i64, double, binary, list or set, struct. Page headers have no maps."""
    if kind in (3, *_BOOL):
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _zigzag(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = varint(data, at)
        return data[at : at + length], at + length
    if kind in (9, 10):
        head = data[at]
        at += 1
        length = head >> 4
        if length == 15:
            length, at = varint(data, at)
        items = []
        for _ in range(length):
            item, at = _value(data, at, head & 0x0F, depth)
            items.append(item)
        return items, at
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise ValueError(f"a field of type {kind}")
