"""The footers of committed Parquet files: read once for many looks, and asked which row groups hold what."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stackbuild.errors import InputError

FOOTERS = 96  # of committed files that a process keeps; a reader of one group after the other opens the same ones


class Footer:
    """What the end of a committed file says, read once: its metadata, and which row groups hold each value of a column."""

    def __init__(self, path: str):
        self.metadata = pq.read_metadata(path)
        self.groups: dict[str, dict[Any, list[int]]] = {}


@lru_cache(FOOTERS)
def _footer(path: str, size: int, changed: int) -> Footer:
    return Footer(path)


def footer_of(path: Path) -> Footer:
    """The footer of a committed file, as it now is."""
    stat = path.stat()
    return _footer(str(path), stat.st_size, stat.st_mtime_ns)


def row_groups_of(file: pq.ParquetFile, path: Path, column: str, value: int) -> list[int]:
    """The row groups of this value of the column; each holds one value alone, as `TableWriter` writes them."""
    known = footer_of(path).groups
    if column not in known:
        found, index = dict[Any, list[int]](), leaf_of(file, column)
        for group in range(file.num_row_groups):
            ends = ends_of(file, group, index)
            if ends is None or ends[0] != ends[1]:
                raise InputError(
                    f"Row group {group} holds several values of {column}; it was not written in groups of it."
                )
            found.setdefault(ends[0], []).append(group)
        known[column] = found
    return known[column].get(value, [])


def may_hold(file: pq.ParquetFile, group: int, index: int, first: Any, last: Any) -> bool:
    """Whether a row group's statistics of a leaf column leave room for a value from first to last."""
    ends = ends_of(file, group, index)
    return ends is None or not (ends[1] < first or ends[0] > last)


def leaf_of(file: pq.ParquetFile, column: str) -> int:
    """The number of a flat column among a file's leaves."""
    return next(leaf for leaf in range(len(file.schema)) if file.schema.column(leaf).path == column)


def ends_of(file: pq.ParquetFile, group: int, index: int) -> tuple[Any, Any] | None:
    """The smallest and the largest value of a leaf column in a row group, None if its statistics do not say."""
    statistics = file.metadata.row_group(group).column(index).statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None
