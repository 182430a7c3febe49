"""Rows that arrive in any order and are written sorted by a group, more of them than memory holds.

Every task of one phase writes for every group of the next. If each wrote what it holds whenever that is full, a group
would be in as many pieces as there were such runs, and reading them all back would cost runs times groups. So rows that
do not fit wait in scratch files, one for each range of groups, and each range is sorted in memory and written once: a
reader of a group opens one file of each task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stackbuild.dedup.limits import MOST_RANGES
from stackbuild.dedup.numbers import Numbers
from stackbuild.dedup.scratch import ScratchRows
from stackbuild.tables import arrow, in_order

if TYPE_CHECKING:
    from stackbuild.task import Task


class Spill:
    """A table of one task, sorted by `by` = ("group", ...) and written in files that each hold a range of groups.

    `groups`: how many there are, a power of two; values of "group" are below it. `expected`: bytes of all rows, about: it
    decides how many ranges there are, and has to follow from the input alone. `at_once`: bytes in memory. `row_group`: rows
    and bytes of a row group.
    """

    def __init__(
        self,
        task: Task,
        name: str,
        schema: pa.Schema,
        by: Sequence[str],
        *,
        groups: int,
        expected: int,
        at_once: int,
        row_group: tuple[int, int],
    ):
        self._task, self._name, self._schema, self._by = task, name, schema, by
        self._at_once, self._row_group = at_once, row_group
        wanted = 1 << max(0, -(-expected // max(at_once, 1)) - 1).bit_length()
        self._width = max(1, groups // min(wanted, MOST_RANGES))  # groups of a range
        self._ranges = groups // self._width
        self._scratch: ScratchRows | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._held = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Take rows in."""
        self._waiting.append(rows)
        self._held += rows.nbytes
        if self._held >= self._at_once and self._ranges > 1:
            self._spill()

    def _together(self) -> tuple[pa.Table, Numbers]:
        """What is in memory as one chunk, and its order."""
        table = pa.Table.from_batches(self._waiting, self._schema).combine_chunks()
        self._waiting, self._held = [], 0
        return table, np.lexsort([np.asarray(table[name]) for name in reversed(self._by)])

    def _spill(self) -> None:
        if self._scratch is None:
            self._scratch = ScratchRows(self._task.scratch, self._name, self._schema)
        table, order = self._together()
        ranges = np.asarray(table["group"])[order] // self._width
        for number in np.unique(ranges).tolist():
            first, stop = np.searchsorted(ranges, (number, number + 1)).tolist()
            self._scratch.write(number, table.take(arrow(order[first:stop])).combine_chunks())

    def close(self) -> None:
        """Write the table."""
        if self._scratch is None:
            self._write()
            return
        if self._waiting:
            self._spill()
        for number in self._scratch.finish():
            self._waiting = list(self._scratch.read(number))
            self._write()
            self._scratch.drop(number)

    def _write(self) -> None:
        if not self._waiting:
            return
        table, order = self._together()
        rows, size = self._row_group
        with self._task.writer(
            self._name, self._schema, group_by="group", row_group_rows=rows, row_group_bytes=size
        ) as writer:
            for part in in_order(table, order, rows):
                writer.write(part)
