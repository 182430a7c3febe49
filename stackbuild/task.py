"""What a phase's `run` and a stage's `load` are given: their rows, the tables of earlier phases, and a place to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild.decisions import Decisions
from stackbuild.shards import Attempt, Output, read_batches
from stackbuild.tables import TableWriter

OpenRows = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
OpenContents = Callable[[pa.Array | None], Iterator[pa.RecordBatch]]


class Task:
    """One task of one phase. It reads what its plan lists and writes under its own attempt."""

    def __init__(
        self,
        *,
        out: Path,
        job: str,
        rank: int,
        params: Mapping[str, Any],
        options: Any,
        seed: int,
        partitions: int,
        tables: Mapping[str, Sequence[Output]],
        attempt: Attempt | None = None,
        decisions: Decisions | None = None,
        rows: OpenRows | None = None,
        contents: OpenContents | None = None,
        before: Callable[[], int] = lambda: 0,
        available: Sequence[str] = (),
        declared: Sequence[str] | None = None,
    ):
        self.out, self.job, self.rank, self.params, self.options = out, job, rank, params, options
        self.seed, self.partitions = seed, partitions
        self.available = list(available)  # columns that `batches` can give
        self._declared = declared  # text and content are in a task's key only if its phase names them
        self.stats: dict[str, Any] = {}
        self._decisions = decisions
        self._tables, self._attempt, self._rows, self._contents = tables, attempt, rows, contents
        self._before = before

    # ---- reading

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows still in of partition `rank`, with these columns (`text` and `content` among them, if asked for); of a
        phase with `parts`, those of the part at hand."""
        if self._rows is None:
            raise TypeError(f"{self.job} is not a task over a partition of rows")
        for name in ("text", "content"):
            if self._declared is not None and name in columns and name not in self._declared:
                raise TypeError(f"{self.job} reads {name} and does not name it among its columns")
        return self._rows(columns)

    @cached_property
    def first(self) -> int:
        """The place of the first row of `batches` among all rows of the partition that are still in."""
        return self._before()

    def contents(self, ids: pa.Array | None) -> Iterator[pa.RecordBatch]:
        """Batches of (content_id, blob_id, length, content) of contents partition `rank`, or of the part at hand, in id order;
        `ids`: only these."""
        if self._contents is None:
            raise TypeError(f"{self.job} is not a task over a partition of contents")
        return self._contents(ids)

    def outputs(self, table: str) -> Sequence[Output]:
        """The committed files of an earlier phase's table, in shard order."""
        if table not in self._tables:
            raise TypeError(f"{self.job} did not name the table {table} in what it reads")
        return self._tables[table]

    def table(self, table: str) -> list[str]:
        """The same as paths."""
        return [str(self.out / output.file) for output in self.outputs(table)]

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        group: int | None = None,
        group_by: str = "",
        between: tuple[str, Any, Any] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Batches of a table, a row group each; with `group`, only those written for that value of `group_by`; with
        `between` = (column, first, last), only those that may hold a value in this range."""
        return read_batches(self.out, self.outputs(table), columns, group, group_by, between)

    # ---- writing

    def writer(self, table: str, schema: pa.Schema, group_by: str | None = None, **options: Any) -> TableWriter:
        """Open the table of this phase; rows arrive ascending in `group_by`, which gets row groups of its own per value."""
        return self.attempt.writer(table, schema, group_by=group_by, **options)

    def file(self, table: str, suffix: str) -> Path:
        """A path to write a file that is not a table to (a tokenizer, a .bin)."""
        return self.attempt.file(table, suffix)

    @property
    def folder(self) -> Path:
        """The attempt's folder, for files whose names are given by another writer; register them with `adopt`."""
        return self.attempt.folder

    def adopt(self, table: str, path: Path) -> None:
        """Make a file that was written below `folder` part of what is committed."""
        self.attempt.adopt(table, path)

    @property
    def decisions(self) -> Decisions:
        """The ledger and the decisions of a phase that removes rows itself (`Phase.removes`)."""
        if self._decisions is None:
            raise TypeError(f"{self.job} removes nothing")
        return self._decisions

    @property
    def attempt(self) -> Attempt:
        if self._attempt is None:
            raise TypeError(f"{self.job} reads only")
        return self._attempt

    @property
    def scratch(self) -> Path:
        """A folder for spill, removed with the attempt's end."""
        folder = self.attempt.folder / "scratch"
        folder.mkdir(exist_ok=True)
        return folder
