"""An export of Software Heritage's graph made from real git repositories, all of their history, in bounded memory.

Objects are read as `git cat-file` streams them, trees are parsed and printed as hexadecimal digits by a compiled kernel, and tables are
written in batches as ORC, ENTRIES_OF_FILE rows of `directory_entry` to a file. A repository is several origins: its newest
commit is one, and commits spread over its history are the others, as forks that stopped there. Columns that nothing of ours reads
are not written; objects of the newest trees come first, so that a small export is a part of a large one.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import orc

from benchmarks.git_ingest import environment
from stackbuild.kernels import kernel
from stackbuild.sources.swh.tables import KINDS

BATCH_BYTES = 8 << 20  # of raw trees that are parsed at a time
ENTRIES_OF_FILE = 1_000_000
VISITED = 1_750_000_000_000_000  # microseconds
ENTRIES = pa.schema(
    {
        "directory_id": pa.string(),
        "name": pa.binary(),
        "type": pa.string(),
        "target": pa.string(),
        "perms": pa.int32(),
    }
)
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True)
class Origin:
    """A repository, or a fork of it: `revision` and `directory` are hexadecimal."""

    url: str
    repository: Path
    revision: str
    directory: str


@dataclass
class Export:
    """What was written: rows of each table, and the origins."""

    root: Path
    rows: dict[str, int] = field(default_factory=dict)
    origins: list[Origin] = field(default_factory=list)


def make_export(folder: Path, repositories: Sequence[Path], entries: int, forks: int) -> Export:
    """Write an export of at most `entries` directory entries (all of the forks' trees, then others; none for 0) and `forks` origins
    for each repository."""
    export = Export(folder / "graph" / "2026-06-04")
    tables = Tables(export)
    visits: list[tuple[Any, ...]] = []
    branches: list[tuple[Any, ...]] = []
    for repository in repositories:
        commits = git(repository, "log", "--format=%H %T %at", "HEAD").splitlines()
        tables.add(
            "revision",
            {
                "id": pa.string(),
                "directory": pa.string(),
                "date": pa.timestamp("s"),
                "committer_date": pa.timestamp("s"),
            },
            [(one, tree, int(at), int(at)) for one, tree, at in map(str.split, commits)],
        )
        for number in range(forks):
            revision, tree, _ = commits[number * len(commits) // forks].split()
            name = (repository.parent if repository.name == ".git" else repository).name.removesuffix(".git")
            origin = Origin(f"https://github.com/owner{number}/{name}", repository, revision, tree)
            snapshot = hashlib.sha1(origin.url.encode()).hexdigest()
            export.origins.append(origin)
            visits.append((origin.url, 1, VISITED, "full", snapshot, "git"))
            branches.append((snapshot, b"HEAD", b"refs/heads/main".hex(), "alias"))
            branches.append((snapshot, b"refs/heads/main", revision, "revision"))
    text, number = pa.string(), pa.int64()
    tables.add(
        "origin_visit_status",
        {"origin": text, "visit": number, "date": pa.timestamp("us"), "status": text, "snapshot": text, "type": text},
        visits,
    )
    tables.add(
        "snapshot_branch", {"snapshot_id": text, "name": pa.binary(), "target": text, "target_type": text}, branches
    )
    tables.add("release", {"id": text, "target": text, "target_type": text}, [])
    hashes = {"sha1": text, "sha1_git": text, "length": number, "status": text}
    tables.add("skipped_content", {**hashes, "reason": text}, [])
    for repository in repositories:
        rows = (
            (hashlib.sha1(data, usedforsecurity=False).hexdigest(), name.decode(), len(data), "visible")
            for name, data in objects(repository, every(repository, "blob"))
        )
        while some := list(islice(rows, 100_000)):
            tables.add("content", hashes, some)
    if entries:
        _entries(tables, repositories, entries)
    else:
        tables.write("directory_entry", ENTRIES, ENTRIES.empty_table())
    tables.close()
    (export.root / "meta").mkdir()
    (export.root / "meta" / "export.json").write_text(json.dumps({"flavor": "full", "formats": ["orc"]}))
    return export


def _entries(tables: Tables, repositories: Sequence[Path], most: int) -> None:
    """Trees of the origins, then all others, each once."""
    seen: set[bytes] = set()
    for first in (True, False):
        for repository in repositories:
            if first:
                roots = [one.directory.encode() for one in tables.export.origins if one.repository == repository]
                waiting: Iterator[bytes] = reachable(repository, roots)
            else:
                waiting = every(repository, "tree")
            ids, sizes, parts, held = list[bytes](), list[int](), list[bytes](), 0
            for name, data in objects(repository, (one for one in waiting if one not in seen)):
                if not first and tables.rows("directory_entry") + held // 40 >= most:
                    break
                seen.add(name)
                ids.append(name)
                sizes.append(len(data))
                parts.append(data)
                held += len(data)
                if held >= BATCH_BYTES:
                    tables.write("directory_entry", ENTRIES, entries_of(ids, sizes, parts))
                    ids, sizes, parts, held = [], [], [], 0
            if ids:
                tables.write("directory_entry", ENTRIES, entries_of(ids, sizes, parts))


def reachable(repository: Path, trees: Sequence[bytes]) -> Iterator[bytes]:
    """These trees and all below them, each once."""
    words = ["rev-list", "--objects", "--no-object-names", "--filter=blob:none", "--stdin"]
    found = git(repository, *words, given=b"\n".join(trees)).encode()
    yield from found.split()


def every(repository: Path, kind: str) -> Iterator[bytes]:
    """The ids of all objects of a kind."""
    words = ["cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objecttype) %(objectname)"]
    start = kind + " "
    for line in git(repository, *words).splitlines():
        if line.startswith(start):
            yield line[len(start) :].encode()


def objects(repository: Path, names: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(id, bytes) of objects, as git streams them."""
    words = ["git", "--git-dir", str(repository), "cat-file", "--batch", "--buffer"]
    with tempfile.TemporaryFile() as given:
        given.writelines(name + b"\n" for name in names)
        given.seek(0)
        with subprocess.Popen(words, stdin=given, stdout=subprocess.PIPE, env=environment()) as run:
            assert run.stdout is not None
            try:
                while head := run.stdout.readline():
                    name, kind, *size = head.split()
                    if not size:
                        raise SystemExit(f"{repository} lacks {name.decode()}: {kind.decode()}")
                    yield name, run.stdout.read(int(size[0]))
                    run.stdout.read(1)
            finally:  # whoever has enough of them stops here
                run.terminate()


def git(repository: Path, *words: str, given: bytes = b"") -> str:
    """What a git command prints."""
    command = ["git", "--git-dir", str(repository), *words]
    return subprocess.run(command, input=given, env=environment(), check=True, capture_output=True).stdout.decode()


# ---------------------------------------------------------------- tables


class Tables:
    """The files of an export, a new one of `directory_entry` when the last is full."""

    def __init__(self, export: Export):
        self.export = export
        self._open: dict[str, tuple[Any, int, int]] = {}  # table -> (writer, rows in it, number of the file)

    def rows(self, table: str) -> int:
        return self.export.rows.get(table, 0)

    def add(self, table: str, columns: dict[str, pa.DataType], rows: Sequence[tuple[Any, ...]]) -> None:
        schema = pa.schema(columns)
        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        arrays = [pa.array(list(one), kind) for one, kind in zip(values, schema.types, strict=True)]
        self.write(table, schema, pa.table(arrays, schema=schema))

    def write(self, table: str, schema: pa.Schema, rows: pa.Table) -> None:
        writer, held, number = self._open.get(table, (None, 0, 0))
        if writer is None or (table == "directory_entry" and held >= ENTRIES_OF_FILE):
            if writer is not None:
                writer.close()
            number += 1
            path = self.export.root / "orc" / table / f"{table}-{number:04d}.orc"
            path.parent.mkdir(parents=True, exist_ok=True)
            writer, held = orc.ORCWriter(str(path), compression="zstd"), 0
        writer.write(rows)
        self._open[table] = writer, held + len(rows), number
        self.export.rows[table] = self.rows(table) + len(rows)

    def close(self) -> None:
        for writer, _, _ in self._open.values():
            writer.close()


def entries_of(ids: Sequence[bytes], sizes: Sequence[int], parts: Sequence[bytes]) -> pa.Table:
    """The rows of raw trees."""
    raw = np.frombuffer(b"".join(parts), np.uint8)
    ends = np.cumsum(np.array(sizes, np.int64))
    owners = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 40)
    rows = int(_count(raw, ends))
    directory, target = np.empty((rows, 40), np.uint8), np.empty((rows, 40), np.uint8)
    offsets, names = np.zeros(rows + 1, np.int32), np.empty(len(raw), np.uint8)
    kinds, perms = np.empty(rows, np.int8), np.empty(rows, np.int32)
    _fill(raw, ends, owners, DIGITS, directory, target, offsets, names, kinds, perms)
    arrays = [
        _text(directory),
        pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(names)]),
        pa.array(KINDS).take(pa.array(kinds)),
        _text(target),
        pa.array(perms),
    ]
    return pa.table(arrays, schema=ENTRIES)


def _text(digits: Any) -> pa.Array:
    offsets = np.arange(0, 40 * len(digits) + 1, 40, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(digits), [None, pa.py_buffer(offsets), pa.py_buffer(digits)])


@kernel
def _count(raw: Any, ends: Any) -> Any:
    """How many entries raw trees have."""
    at, rows = 0, 0
    while at < len(raw):
        while raw[at] != 0:
            at += 1
        at += 21
        rows += 1
    return rows


@kernel
def _fill(
    raw: Any,
    ends: Any,
    owners: Any,
    digits: Any,
    directory: Any,
    target: Any,
    offsets: Any,
    names: Any,
    kinds: Any,
    perms: Any,
) -> Any:
    """Fill the columns; a mode that is none of git's four types is a file's."""
    at, row, tree, end = 0, 0, 0, 0
    while at < len(raw):
        while at >= ends[tree]:
            tree += 1
        mode = 0
        while raw[at] != 32:
            mode = mode * 8 + raw[at] - 48
            at += 1
        at += 1
        while raw[at] != 0:
            names[end] = raw[at]
            end += 1
            at += 1
        at += 1
        for byte in range(20):
            target[row, 2 * byte] = digits[raw[at + byte] >> 4]
            target[row, 2 * byte + 1] = digits[raw[at + byte] & 15]
        directory[row] = owners[tree]
        kind = mode & 0o170000
        kinds[row] = 1 if kind == 0o040000 else 2 if kind == 0o160000 else 0
        perms[row] = mode
        offsets[row + 1] = end
        at += 20
        row += 1
