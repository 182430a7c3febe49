"""A local cache of fetched contents: packed, verified when read, and a table of what did not come.

    CACHE/contents/<first byte of content_id>/<hash>.parquet      schema CONTENTS, sorted by content_id, zstd-3, 256 kB groups
    CACHE/not_fetched/<first byte of blob_id>/<hash>.parquet      NOT_FETCHED, sorted by blob_id

Packed, since a file for each content wastes half its blocks and a disk opens only some thousand a second. It holds no time and
no place: the same contents added in the same batches make the same files. Many processes may use one cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.schema import CONTENTS
from stackbuild.sources.swh.fetch import FetchOptions, fetched
from stackbuild.sources.swh.objects import ObjectStore
from stackbuild.sources.swh.shelf import Shelf
from stackbuild.swhid import blob_id, content_id
from stackbuild.wanted import OK, PASSING, Fetched, Wanted

GROUP_BYTES: Final = 256 * 1024  # of a row group: what one look-up inflates
FLUSH_BYTES: Final = 32 * 1024 * 1024  # of contents that are held until they are written
FLUSH_ROWS: Final = 50_000
ASKER: Final = frozenset({"too_large", "hash_mismatch"})  # as much of what was asked for as of the object

NOT_FETCHED: Final = pa.schema(
    [
        pa.field("blob_id", pa.binary(20), nullable=False),
        pa.field("content_id", pa.binary(20)),  # as asked
        pa.field("length", pa.int64()),  # as asked
        pa.field("store", pa.string(), nullable=False),  # its address, without credentials
        pa.field("state", pa.string(), nullable=False),  # "ok": it came after all
        pa.field("tries", pa.int32(), nullable=False),  # fetches that asked for it; the row with the most counts
    ]
)


class Tried(NamedTuple):
    """What became of a content when it was asked for before."""

    state: str
    tries: int


class Kept(NamedTuple):
    """A content of the cache, with the plain SHA-1 of its bytes."""

    blob_id: bytes
    data: bytes

    def is_what(self, wanted: Wanted) -> bool:
        """Whether it is also by key and length what is wanted; its git id is."""
        return self.blob_id == wanted.blob_id and wanted.length in (None, len(self.data))


class PackedCache:
    """A cache folder. `damaged`: files of it that were set aside, by name, and why."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.contents = Shelf(folder / "contents", CONTENTS, "content_id", _once, GROUP_BYTES)
        self.not_fetched = Shelf(folder / "not_fetched", NOT_FETCHED, "blob_id", _latest, GROUP_BYTES)

    @property
    def damaged(self) -> dict[str, str]:
        shelves = (self.contents, self.not_fetched)
        return {f"{shelf.folder.name}/{name}": why for shelf in shelves for name, why in shelf.damaged.items()}

    def find(self, ids: Iterable[bytes]) -> dict[bytes, Kept]:
        """By content_id, the contents of these that are here; both hashes are of the bytes as they were read."""
        found: dict[bytes, Kept] = {}
        damaged: dict[Path, str] = {}
        for path, table in self.contents.find(list(ids)):
            for row in table.select(["content_id", "content"]).to_pylist():  # hashlib takes Python's bytes
                data = row["content"]
                if content_id(data) == row["content_id"]:
                    found[row["content_id"]] = Kept(blob_id(data), data)
                else:
                    damaged[path] = f"{row['content_id'].hex()} does not hash to its id"
        for path, why in damaged.items():
            self.contents.set_aside(path, why)
        return found

    def add(self, contents: Iterable[Fetched]) -> None:
        """Keep contents that were fetched and verified."""
        data = [one.data for one in contents if one.data is not None]
        if not data:
            return
        columns = [
            pa.array([content_id(one) for one in data], pa.binary(20)),
            pa.array([one.wanted.blob_id for one in contents if one.data is not None], pa.binary(20)),
            pa.array(list(map(len, data)), pa.int64()),
            pa.array(data, pa.large_binary()),
        ]
        self.contents.add(pa.Table.from_arrays(columns, schema=CONTENTS))

    def tried(self, store: ObjectStore, wanted: Iterable[Wanted]) -> dict[Wanted, Tried]:
        """What this store said the last time to whoever asked for the same; without what came."""
        asked = {one.blob_id: one for one in wanted}
        found: dict[Wanted, Tried] = {}
        for _, table in self.not_fetched.find(list(asked)):
            for row in table.filter(pc.equal(table.column("store"), store.shown)).to_pylist():
                key = Wanted(row["blob_id"], row["content_id"], row["length"])
                if key not in found or found[key].tries < row["tries"]:
                    found[key] = Tried(row["state"], row["tries"])
        return found

    def note(self, store: ObjectStore, rows: Iterable[tuple[Wanted, Tried]]) -> None:
        """Keep what did not come, and with the state "ok" what came where it had not before."""
        records = [
            {
                "blob_id": one.blob_id,
                "content_id": one.content_id,
                "length": one.length,
                "store": store.shown,
                "state": tried.state,
                "tries": tried.tries,
            }
            for one, tried in rows
        ]
        if records:
            self.not_fetched.add(pa.Table.from_pylist(records, schema=NOT_FETCHED))


def fetch_cached(
    store: ObjectStore,
    wanted: Iterable[Wanted],
    cache: PackedCache,
    *,
    options: FetchOptions | None = None,
    again: Collection[str] = (),
) -> Iterator[Fetched]:
    """As `fetch.fetch`, but what the cache has is read from there, and what comes is kept in it.

    What this store said of an object before and is final is not asked again, unless its state is in `again`. Whatever ends the
    fetch, what had come by then is kept; a kill loses what was not written yet (32 MB at most).
    """
    options = options or FetchOptions()
    before: dict[Wanted, Tried] = {}  # of what is on its way and was tried before
    here: set[int] = set()  # which results, by identity, are the cache's
    came: list[Fetched] = []
    failed: list[tuple[Wanted, Tried]] = []
    held = 0

    def known(batch: list[Wanted]) -> list[Fetched | None]:
        found = cache.find(one.content_id for one in batch if one.content_id is not None)
        kept = [found.get(one.content_id) if one.content_id is not None else None for one in batch]
        kept = [it if it is not None and it.is_what(one) else None for one, it in zip(batch, kept, strict=True)]
        lacking = [one for one, it in zip(batch, kept, strict=True) if it is None]
        tried = cache.tried(store, lacking) if lacking else {}
        answers: list[Fetched | None] = []
        for one, it in zip(batch, kept, strict=True):
            earlier = tried.get(one)
            answer = None
            if it is not None:
                answer = Fetched(one, OK, it.data)
            elif earlier is not None and earlier.state != OK:
                if earlier.state in PASSING | ASKER or earlier.state in again:
                    before[one] = earlier
                else:
                    answer = Fetched(one, earlier.state)
            if answer is not None:
                here.add(id(answer))
            answers.append(answer)
        return answers

    def flush() -> None:
        nonlocal held
        cache.add(came)
        cache.note(store, failed)
        came.clear()
        failed.clear()
        held = 0

    results = fetched(store, wanted, options, known)
    try:
        for one in results:
            if id(one) in here:
                here.discard(id(one))
            else:
                earlier = before.pop(one.wanted, None)
                if one.data is not None:
                    came.append(one)
                    held += len(one.data)
                if one.data is None or earlier is not None:
                    failed.append((one.wanted, Tried(one.state, 1 + (earlier.tries if earlier else 0))))
                if held >= FLUSH_BYTES or len(came) + len(failed) >= FLUSH_ROWS:
                    flush()
            yield one
    finally:
        results.close()
        flush()


def _once(table: pa.Table) -> pa.Table:
    """One row for each id, of sorted rows; a content has no other bytes under the same id."""
    return table.filter(pa.array(_last_of(table.column("content_id"))))


def _latest(table: pa.Table) -> pa.Table:
    """The row with the most tries for each (content as asked, store)."""
    order = [(name, "ascending") for name in ("blob_id", "content_id", "length", "store", "tries", "state")]
    table = table.sort_by(order)
    last = np.zeros(table.num_rows, bool)
    for name in ("blob_id", "content_id", "length", "store"):
        last |= _last_of(table.column(name))
    return table.filter(pa.array(last))


def _last_of(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Where a run of equal values ends, bool (n,)."""
    codes = np.asarray(column.combine_chunks().dictionary_encode(null_encoding="encode").indices)
    return np.append(codes[1:] != codes[:-1], True)[: len(codes)]
