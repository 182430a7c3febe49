"""A folder of immutable Parquet files, sorted by an id, in a sub-folder for each first byte: many writers, no lock to read.

A file is written under a temporary name, made durable, then renamed to a name that its hash makes; killed writers leave nothing
that is read. Small files of one first byte are merged when there are many. A row group is found by the statistics of the footer. A
file that cannot be read is set aside as `<name>.damaged` and told in `damaged`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.tables import SLICE_ROWS, TableWriter

SMALL_BYTES: Final = 4 << 20  # inflated; a file below may be merged with others
MERGED: Final = 16  # small files of a first byte before they are merged: no more than 64 MB
FOOTERS: Final = 2_048  # kept in memory
STALE_SECONDS: Final = 3_600.0  # a temporary file that old is of a writer that was killed
PART: Final = ".part-"
DAMAGED: Final = ".damaged"

log = logging.getLogger(__name__)
Merge = Callable[[pa.Table], pa.Table]  # of rows sorted by id, those that are kept


class Unreadable(Exception):
    """A file of the shelf is damaged."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What is known of a file: `least` and `most`: ids of each row group, ascending; `inflated`: bytes of all columns."""

    metadata: pq.FileMetaData
    least: list[bytes]
    most: list[bytes]
    inflated: int


class Shelf:
    """Rows of a schema by the binary(20) column `key`. `merge` says what is kept of rows with one id."""

    def __init__(self, folder: Path, schema: pa.Schema, key: str, merge: Merge, group_bytes: int):
        self.folder, self.schema, self.key = folder, schema, key
        self.damaged: dict[str, str] = {}  # by path within the folder, why
        self._merge, self._group_bytes = merge, group_bytes
        self._footers: OrderedDict[Path, Footer] = OrderedDict()

    # ------------------------------------------------------------ reading

    def find(self, keys: Sequence[bytes]) -> Iterator[tuple[Path, pa.Table]]:
        """The rows whose id is among `keys`, file by file, a row group at a time."""
        for first, group in groupby(sorted(set(keys)), lambda key: key[:1]):
            ids = list(group)
            seen: set[Path] = set()
            for _ in range(3):  # a file that was merged meanwhile is gone, its rows are in another
                paths = [path for path in self.files(first) if path not in seen]
                vanished = False
                for path in paths:
                    seen.add(path)
                    try:
                        for table in self._hits(path, ids):
                            yield path, table
                    except FileNotFoundError:
                        vanished = True
                    except Unreadable as error:
                        self.set_aside(path, str(error))
                if not vanished:
                    break

    def files(self, first: bytes) -> list[Path]:
        """The files for a first byte, in the order of their names."""
        folder = self.folder / first.hex()
        try:
            return sorted(folder / name for name in os.listdir(folder) if name.endswith(".parquet"))
        except FileNotFoundError:
            return []

    def all_files(self) -> Iterator[Path]:
        """Every file, by first byte."""
        for first in range(256):
            yield from self.files(bytes([first]))

    def _hits(self, path: Path, ids: list[bytes]) -> Iterator[pa.Table]:
        footer = self._footer(path)
        groups: set[int] = set()
        for one in ids:
            groups.update(range(bisect_left(footer.most, one), bisect_right(footer.least, one)))
        if not groups:
            return
        asked = pa.array(ids, pa.binary(20))
        with _reading(path), pq.ParquetFile(path, metadata=footer.metadata, page_checksum_verification=True) as file:
            for group in sorted(groups):
                found = pc.is_in(file.read_row_group(group, columns=[self.key]).column(0), value_set=asked)
                if pc.any(found).as_py():
                    yield file.read_row_group(group).filter(found)

    def _footer(self, path: Path) -> Footer:
        footer = self._footers.get(path)
        if footer is None:
            footer = self._footers[path] = self._read_footer(path)
            if len(self._footers) > FOOTERS:
                self._footers.popitem(last=False)
        else:
            self._footers.move_to_end(path)
        return footer

    def _read_footer(self, path: Path) -> Footer:
        with _reading(path):
            metadata = pq.read_metadata(path)
            if not metadata.schema.to_arrow_schema().equals(self.schema):
                raise Unreadable("other columns than a file of this cache has")
            column = self.schema.get_field_index(self.key)
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            bounds = [group.column(column).statistics for group in groups]
            if not all(one is not None and one.has_min_max for one in bounds):
                raise Unreadable("no statistics")
            least, most = [one.min for one in bounds], [one.max for one in bounds]
            return Footer(metadata, least, most, sum(group.total_byte_size for group in groups))

    def set_aside(self, path: Path, why: str) -> None:
        """Take a damaged file out of use, by another name, and tell of it."""
        name = str(path.relative_to(self.folder))
        self.damaged[name] = why
        self._footers.pop(path, None)
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_name(path.name + DAMAGED))
            log.warning("%s is damaged (%s): set aside, what it held is fetched again", path, why)

    # ------------------------------------------------------------ writing

    def add(self, table: pa.Table) -> list[Path]:
        """Write rows, in any order, for readers to come; the new files."""
        table = self._sorted(table)
        written: list[Path] = []
        start = 0
        firsts = _first_bytes(table.column(self.key).combine_chunks())
        for stop in [*(np.flatnonzero(np.diff(firsts)) + 1).tolist(), table.num_rows]:
            if stop > start:
                rows = table.slice(start, stop - start)
                written.append(self._write(rows))
                self._merge_small(rows.column(self.key)[0].as_py()[:1])
            start = stop
        return written

    def _sorted(self, table: pa.Table) -> pa.Table:
        table = table.combine_chunks()
        order = pc.sort_indices(table.column(self.key).cast(pa.binary()))
        return self._merge(table.take(order)).combine_chunks()

    def _write(self, table: pa.Table) -> Path:
        """One file of sorted rows with one first byte."""
        folder: Path = self.folder / table.column(self.key)[0].as_py()[:1].hex()
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{PART}{os.getpid()}-{time.monotonic_ns():x}"
        try:
            writer = TableWriter(
                part,
                self.schema,
                row_group_bytes=self._group_bytes,
                row_group_rows=4_096,
                compression_level=3,
            )
            with writer:
                for piece in table.to_batches(max_chunksize=SLICE_ROWS):
                    writer.write(piece)
            path = folder / f"{writer.sha256[:32]}.parquet"
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return path

    def _merge_small(self, first: bytes) -> None:
        """Merge the small files of a first byte if there are many, unless somebody else is at it."""
        files = self.files(first)
        if len(files) < MERGED:
            return
        folder = self.folder / first.hex()
        with open(folder / ".lock", "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            self._sweep(folder)
            small: list[tuple[Path, pa.Table]] = []
            for path in self.files(first):
                try:
                    if self._footer(path).inflated < SMALL_BYTES:
                        with _reading(path):
                            small.append((path, pq.read_table(path, page_checksum_verification=True)))
                except FileNotFoundError:
                    continue
                except Unreadable as error:
                    self.set_aside(path, str(error))
                if len(small) == MERGED:
                    break
            if len(small) < MERGED:
                return
            merged = self._write(self._sorted(pa.concat_tables([table for _, table in small])))
            for path, _ in small:
                if path != merged:
                    path.unlink(missing_ok=True)
                self._footers.pop(path, None)

    def _sweep(self, folder: Path) -> None:
        """Remove what killed writers left."""
        for name in os.listdir(folder):
            if name.startswith(PART):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - (folder / name).stat().st_mtime > STALE_SECONDS:
                        (folder / name).unlink()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What Arrow says of a damaged file is Unreadable; what the system says of it goes on as it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except pa.ArrowException as error:
        raise Unreadable(str(error).partition("\n")[0]) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise Unreadable(str(error).partition("\n")[0]) from error


def _first_bytes(ids: pa.FixedSizeBinaryArray) -> npt.NDArray[np.uint8]:
    """The first byte of each id, uint8 (n,)."""
    width = ids.type.byte_width
    flat = np.frombuffer(ids.buffers()[1], np.uint8)[ids.offset * width : (ids.offset + len(ids)) * width]
    return flat.reshape(-1, width)[:, 0]
