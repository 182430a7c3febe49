"""A small, hash-valid export of Software Heritage's graph, as ORC or Parquet, with a folder of its objects.

    export = make_export(tmp_path, "orc")
    export.root                     the export's folder: orc/<table>/<table>-<uuid>.orc, meta/export.json
    export.objects, .sliced         folders of gzip objects: <sha1>, and aa/bb/cc/<sha1>
    export.roots                    what has to be chosen for each origin (`Root`)
    export.expected_files(url)      [(path, mode, content_id)] of the chosen root, as `git ls-tree -r` has them; no gitlinks
    export.states[blob_id]          what the object folder does to a content, if it is not "ok"

Layout and columns: reference of the export's schema. Rows are in no order, and each table has two files, as there.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from stackbuild.sources.swh.orc_times import Tail, serialize
from stackbuild.swhid import GITLINK_MODE, TREE_MODE, blob_id, parse_tree
from tests.sources.swh.mini_world import PERSON, Root, World, mini_world

Format = Literal["orc", "parquet"]
METADATA = {"swh_model_version": "8.4.1", "swh_export_version": "1.12.0"}
ROWS = 200_000  # that are put together at a time
MICROSECOND = 1_000_000
SECONDS = pa.timestamp("s")  # as ORC is written, which has but one type of time
WILD = pa.struct([pa.field("seconds", pa.int64()), pa.field("microseconds", pa.uint32())])
TIME = "time"  # of a loader: microseconds
DATE = "date"  # from the wild: seconds

# Columns of each table; TIME and DATE have other types in each format.
SCHEMAS: dict[str, dict[str, Any]] = {
    "origin": {"id": pa.string(), "url": pa.string()},
    "origin_visit": {"origin": pa.string(), "visit": pa.int64(), "date": TIME, "type": pa.string()},
    "origin_visit_status": {
        "origin": pa.string(), "visit": pa.int64(), "date": TIME, "status": pa.string(), "snapshot": pa.string(),
        "type": pa.string(),
    },
    "snapshot": {"id": pa.string()},
    "snapshot_branch": {
        "snapshot_id": pa.string(), "name": pa.binary(), "target": pa.string(), "target_type": pa.string(),
    },
    "revision": {
        "id": pa.string(), "message": pa.binary(), "author": pa.binary(), "date": DATE, "date_offset": pa.int16(),
        "date_raw_offset_bytes": pa.binary(), "committer": pa.binary(), "committer_date": DATE,
        "committer_offset": pa.int16(), "committer_date_raw_offset_bytes": pa.binary(), "directory": pa.string(),
        "type": pa.string(), "raw_manifest": pa.binary(),
    },
    "revision_history": {"id": pa.string(), "parent_id": pa.string(), "parent_rank": pa.int32()},
    "release": {
        "id": pa.string(), "name": pa.binary(), "message": pa.binary(), "target": pa.string(),
        "target_type": pa.string(), "author": pa.binary(), "date": DATE, "date_offset": pa.int16(),
        "date_raw_offset_bytes": pa.binary(), "raw_manifest": pa.binary(),
    },
    "directory": {"id": pa.string(), "raw_manifest": pa.binary()},
    "directory_entry": {
        "directory_id": pa.string(), "name": pa.binary(), "type": pa.string(), "target": pa.string(),
        "perms": pa.int32(),
    },
    "content": {
        "sha1": pa.string(), "sha1_git": pa.string(), "sha256": pa.string(), "blake2s256": pa.string(),
        "length": pa.int64(), "status": pa.string(), "data": pa.binary(),
    },
    "skipped_content": {
        "sha1": pa.string(), "sha1_git": pa.string(), "sha256": pa.string(), "blake2s256": pa.string(),
        "length": pa.int64(), "status": pa.string(), "reason": pa.string(),
    },
}  # fmt: skip
# Which file a row lies in follows from this column: tables about one object share the files' uuids.
MAIN = {"origin": "url", "origin_visit": "origin", "origin_visit_status": "origin", "snapshot_branch": "snapshot_id",
        "directory_entry": "directory_id", "content": "sha1_git", "skipped_content": "sha256"}  # fmt: skip


@dataclass(frozen=True)
class MiniExport:
    """What was written, and what has to come out of it."""

    root: Path
    format: Format
    objects: Path
    sliced: Path
    world: World

    @property
    def roots(self) -> list[Root]:
        return self.world.roots

    @property
    def origins(self) -> list[str]:
        """All URLs, every spelling."""
        return sorted({visit.url for visit in self.world.visits})

    @property
    def states(self) -> dict[bytes, str]:
        return self.world.states

    def expected_root(self, url: str) -> Root:
        return next(root for root in self.roots if root.url == url)

    def expected_files(self, url: str) -> list[tuple[bytes, int, bytes]]:
        """(path, mode, content_id) of the files and symlinks of the root of an origin, sorted by path."""
        return [entry for entry in self.expected_tree(url) if entry[1] != GITLINK_MODE]

    def expected_tree(self, url: str) -> list[tuple[bytes, int, bytes]]:
        """The same with gitlinks."""
        directory = self.expected_root(url).directory
        return sorted(self.world.walk(directory)) if directory is not None else []

    def table_files(self, table: str) -> list[Path]:
        return sorted((self.root / self.format / table).iterdir())


def make_export(
    folder: Path, format: Format = "orc", world: World | None = None, objects: bool = True, files: int = 2
) -> MiniExport:
    """Write the export of a world (`mini_world()` unless given) into `folder`."""
    world = world or mini_world()
    root = folder / "graph" / "2026-06-04"
    for table, rows in _tables(world).items():
        _write(root / format / table, table, rows, format, files)
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "export.json").write_text(
        json.dumps({"flavor": "full", "export_start": "2026-06-04T00:00:00+00:00", "formats": [format], **METADATA})
    )
    export = MiniExport(root, format, folder / "content", folder / "sliced", world)
    if objects:
        _write_objects(export)
    return export


# ---------------------------------------------------------------- rows

Row = tuple[Any, ...]


def _tables(world: World) -> dict[str, Iterable[Row]]:
    """Rows of each table, as tuples in the order of its columns."""
    author = hashlib.sha256(PERSON).digest()
    urls = list(dict.fromkeys(visit.url for visit in world.visits))
    visits = {(v.url, v.visit): (v.url, v.visit, v.date, v.type) for v in reversed(world.visits)}
    commits = {i: commit for i, commit in world.commits.items() if i not in world.absent}
    return {
        "origin": [(hashlib.sha1(url.encode()).hexdigest(), url) for url in urls],
        "origin_visit": list(visits.values()),
        "origin_visit_status": [
            (v.url, v.visit, v.date, v.status, v.snapshot.hex() if v.snapshot else None, v.type) for v in world.visits
        ],
        "snapshot": [(i.hex(),) for i in world.snapshots],
        "snapshot_branch": [
            (i.hex(), name, target[1].hex(), target[0])  # an alias: the name in hexadecimal digits
            for i, branches in world.snapshots.items()
            for name, target in branches.items()
            if target is not None  # dangling branches are not written
        ],
        "revision": [
            (i.hex(), b"A change\n", author, c.date, 0, b"+0000", author, c.committer_date, 0, b"+0000", c.tree.hex(),
             "git", None)
            for i, c in commits.items()
        ],
        "revision_history": [
            (i.hex(), parent.hex(), rank) for i, c in commits.items() for rank, parent in enumerate(c.parents)
        ],
        "release": [
            (i.hex(), t.name, t.name, t.target.hex(), t.target_type, author, t.date, 0, b"+0000", None)
            for i, t in world.tags.items()
        ],
        "directory": [(i.hex(), world.raw_manifests.get(i)) for i in world.trees if i not in world.absent],
        "directory_entry": _entries(world),
        "content": (
            (*_hashes(i, data), len(data), "hidden" if i in world.hidden else "visible", None)
            for i, data in world.contents.items()
            if i not in world.absent and i not in world.skipped
        ),
        "skipped_content": [
            *((*_hashes(i, world.contents[i]), len(world.contents[i]), "absent", why) for i, why in world.skipped.items()),
            (None, None, "00" * 32, None, 200 << 20, "absent", "Content too large"),  # hashes may be null
        ],
    }  # fmt: skip


def _entries(world: World) -> Iterator[Row]:
    for identity, raw in world.trees.items():
        if identity not in world.absent:
            directory = identity.hex()
            for name, mode, target in parse_tree(raw):
                kind = {TREE_MODE: "dir", GITLINK_MODE: "rev"}.get(mode & 0o170000, "file")
                yield directory, name, kind, target.hex(), mode


def _hashes(identity: bytes, data: bytes) -> tuple[str, str, str, str]:
    return (
        blob_id(data).hex(),
        identity.hex(),
        hashlib.sha256(data).hexdigest(),
        hashlib.blake2s(data).hexdigest(),
    )


# ---------------------------------------------------------------- files


def schema_of(table: str, format: Format) -> pa.Schema:
    """The columns of a table as this format has them."""
    times = {TIME: pa.timestamp("us"), DATE: WILD} if format == "parquet" else {TIME: pa.timestamp("us"), DATE: SECONDS}
    return pa.schema([pa.field(name, times.get(kind, kind) if isinstance(kind, str) else kind)
                      for name, kind in SCHEMAS[table].items()])  # fmt: skip


def _write(folder: Path, table: str, rows: Iterable[Row], format: Format, files: int) -> None:
    folder.mkdir(parents=True)
    main = list(SCHEMAS[table]).index(MAIN.get(table, "id"))
    name = {"directory_entry": "directory", "snapshot_branch": "snapshot", "revision_history": "revision"}
    writers = []
    for number in range(files):
        identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{name.get(table, table)}/{number}")
        path = folder / f"{table}-{identity}.{format}"
        writers.append(_Writer(path, schema_of(table, format), table, format))
    for row in rows:
        writers[hashlib.sha1(str(row[main]).encode()).digest()[0] % files].add(row)
    for writer in writers:
        writer.close()


class _Writer:
    """A file of a table; rows come out in no order (that of a hash), some thousand at a time."""

    def __init__(self, path: Path, schema: pa.Schema, table: str, format: Format):
        self.schema, self.format, self.rows = schema, format, list[Row]()
        metadata = {"swh_object_type": table, "swh_uuid": path.stem[len(table) + 1 :], **METADATA}
        if format == "parquet":
            self.file = pq.ParquetWriter(path, schema.with_metadata(metadata), compression="zstd")
        else:
            self.file = orc.ORCWriter(str(path), compression="zstd")
        self.path, self.metadata = path, metadata

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if len(self.rows) >= ROWS:
            self.flush()

    def flush(self) -> None:
        self.rows.sort(key=lambda row: zlib.crc32(repr(row).encode()))
        columns = [list(column) for column in zip(*self.rows, strict=True)] or [[] for _ in self.schema]
        arrays = []
        for field, values in zip(self.schema, columns, strict=True):
            if field.type == WILD:
                seconds = pa.array(values, pa.int64())
                zeros = pa.array([0] * len(values), pa.uint32())
                arrays.append(pa.StructArray.from_arrays([seconds, zeros], fields=list(WILD), mask=seconds.is_null()))
            else:
                arrays.append(pa.array(values, field.type))
        table = pa.Table.from_arrays(arrays, schema=self.schema)
        if self.format == "parquet":
            self.file.write_table(table)
        else:
            self.file.write(table)
        self.rows.clear()

    def close(self) -> None:
        self.flush()
        self.file.close()
        if self.format == "orc":
            write_orc_metadata(self.path, self.metadata)


def write_orc_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Add key-value metadata to an ORC file, which pyarrow reads and cannot write."""
    with path.open("rb") as file:
        tail = Tail(file)
        file.seek(0)
        head = file.read(tail.head)
    for name, value in metadata.items():
        tail.footer.append((5, 2, serialize([(1, 2, name.encode()), (2, 2, value.encode())])))
    path.write_bytes(head + tail.end())


# ---------------------------------------------------------------- objects


def _write_objects(export: MiniExport) -> None:
    """A gzip file for each content that the export lists, in both layouts, damaged as `states` says."""
    world = export.world
    export.objects.mkdir(parents=True)
    for identity, data in world.contents.items():
        if identity in world.absent or identity in world.skipped:
            continue
        sha1 = blob_id(data)
        body = _damaged(gzip_object(data), world.states.get(sha1, "ok"))
        if body is None:
            continue
        name = sha1.hex()
        (export.objects / name).write_bytes(body)
        folder = export.sliced / name[:2] / name[2:4] / name[4:6]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


def gzip_object(data: bytes) -> bytes:
    """As Software Heritage compresses a content: a gzip frame without name or time."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


def _damaged(body: bytes, state: str) -> bytes | None:
    return {
        "ok": body,
        "missing": None,
        "zeroed": bytes(len(body)),
        "truncated": body[:-12],
        "hash_mismatch": gzip_object(b"another content\n"),
        "trailing_data": body + b"behind it",
        "not_gzip": gzip.decompress(body),
    }[state]
