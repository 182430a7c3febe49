"""Rows that wait in scratch files, each file the rows of one range, until their range's turn comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa


class ScratchRows:
    """Rows of some ranges, each in a file `FOLDER/NAME-RANGE` that is made when its first rows come.

    Rows come back in the order in which they were written. What is open or left when an attempt dies goes with its folder.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema):
        self._folder, self._name, self._schema = folder, name, schema
        self._open: dict[int, tuple[IO[bytes], pa.RecordBatchStreamWriter]] = {}

    def write(self, number: int, rows: pa.RecordBatch | pa.Table) -> None:
        """Put rows behind those of the range."""
        if number not in self._open:
            file = open(self._path(number), "w+b")  # noqa: SIM115  closed by finish()
            self._open[number] = file, pa.ipc.new_stream(file, self._schema)
        self._open[number][1].write(rows)

    def finish(self) -> list[int]:
        """Nothing more comes; the ranges that have rows, ascending."""
        for file, writer in self._open.values():
            writer.close()
            file.close()
        numbers = sorted(self._open)
        self._open = {}
        return numbers

    def read(self, number: int) -> Iterator[pa.RecordBatch]:
        """The rows of a range; none of one that has no file."""
        if self._path(number).exists():
            with pa.OSFile(str(self._path(number))) as file, pa.ipc.open_stream(file) as stream:
                yield from stream

    def drop(self, number: int) -> None:
        """Remove a range's file, and give its memory back."""
        self._path(number).unlink(missing_ok=True)
        pa.default_memory_pool().release_unused()

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:03d}"
