"""Parquet shards written atomically, with a checksum and a completion marker.

Each attempt writes under a name of its own. On a clean end its files are flushed and hashed, and a manifest that lists them
is committed by an exclusive link: the first attempt wins, a later one withdraws, and an exception or a kill leaves nothing
that anyone reads. Readers take their files from manifests alone, never from a glob.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.counts import Ledger
from stackbuild.errors import InputError
from stackbuild.footers import footer_of, leaf_of, may_hold, row_groups_of
from stackbuild.tables import TableWriter, conform

MANIFEST_VERSION = 1


# ---------------------------------------------------------------- canonical JSON and digests


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and nothing but ASCII (names may hold lone surrogates): equal values, equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file by rename, flushed: a reader sees the old bytes or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


# ---------------------------------------------------------------- attempts and manifests


@dataclass(frozen=True)
class Output:
    """A committed file: table name, path relative to the output folder, rows (-1 if not a table), bytes, SHA-256 and groups."""

    table: str
    file: str
    rows: int
    bytes: int
    sha256: str
    groups: dict[str, int] = field(default_factory=dict)

    def identity(self) -> list[Any]:
        """What another shard's key takes of this file: its name has an attempt in it and does not count."""
        return [self.table, self.rows, self.sha256]


@dataclass(frozen=True)
class ShardManifest:
    """What a shard's one winning attempt left: see the module's text."""

    job: str
    rank: int
    key: str
    attempt: str
    outputs: tuple[Output, ...]
    ledger: Ledger
    stats: dict[str, Any]

    def table(self, name: str) -> list[Output]:
        return [output for output in self.outputs if output.table == name]


class Attempt:
    """One try at a shard: a folder of its own, committed as a whole or not at all.

    `replaces`: the attempt whose provisional manifest this one is to replace, if it is still there when this is committed.
    """

    def __init__(self, out: Path, job: str, rank: int, replaces: str | None = None):
        self.out, self.job, self.rank = out, job, rank
        self.name, self.replaces = secrets.token_hex(6), replaces
        self.folder = out / "stages" / job / "data" / f"{rank:05d}-{self.name}"
        self.folder.mkdir(parents=True)
        self._writers: list[tuple[str, Path, TableWriter]] = []
        self._files: list[tuple[str, Path]] = []

    def writer(self, table: str, schema: pa.Schema, **options: Any) -> TableWriter:
        """A Parquet file of the named table; several of one name keep their order."""
        path = self.folder / f"{table}-{len(self._writers):03d}.parquet"
        writer = TableWriter(path, schema, **options)
        self._writers.append((table, path, writer))
        return writer

    def file(self, table: str, suffix: str) -> Path:
        """A path for a file that is not a table; it is hashed at commit."""
        path = self.folder / f"{table}-{len(self._files):03d}{suffix}"
        self._files.append((table, path))
        return path

    def adopt(self, table: str, path: Path) -> None:
        """Take a file that something else wrote into the attempt's folder."""
        self._files.append((table, path))

    def commit(self, key: str, ledger: Ledger, stats: dict[str, Any], path: Path | None = None) -> ShardManifest:
        """Seal the files and publish the manifest; if another attempt was first, withdraw and return that one's.

        A manifest one of whose files is gone, or that this attempt was to replace, is replaced. `path`: of the manifest, if it is not
        the shard's (`parts.py`).
        """
        ledger.check(f"{self.job}, shard {self.rank}")
        outputs = []
        for table, written, writer in self._writers:
            writer.close()
            groups = {str(k): v for k, v in writer.groups.items()}
            outputs.append(Output(table, self._relative(written), writer.rows, writer.bytes, writer.sha256, groups))
        for table, written in self._files:
            with open(written, "rb") as file:
                os.fsync(file.fileno())
            outputs.append(Output(table, self._relative(written), -1, written.stat().st_size, file_sha256(written)))
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        fsync_directory(self.folder)
        fsync_directory(self.folder.parent)
        manifest = ShardManifest(self.job, self.rank, key, self.name, tuple(outputs), ledger, stats)
        first = committed(self.out, manifest, path, self.replaces)
        if first is not manifest:
            self.discard()
        return first

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.out))

    def discard(self) -> None:
        """Remove what this attempt wrote."""
        for _, _, writer in self._writers:
            writer.abort()
        shutil.rmtree(self.folder, ignore_errors=True)


def manifest_path(out: Path, job: str, rank: int, key: str) -> Path:
    return out / "stages" / job / "manifests" / f"{rank:05d}-{key[:24]}.json"


def committed(
    out: Path, manifest: ShardManifest, path: Path | None = None, replaces: str | None = None
) -> ShardManifest:
    """Publish a manifest; the one that holds from now on, which is another attempt's if that was first.

    `replaces`: an attempt that could not read all of its input. Only what was there when this one began is replaced: of two
    copies of a task the first counts, also where neither could read everything.
    """
    if publish_manifest(out, manifest, path=path):
        return manifest
    winner = find_manifest(out, manifest.job, manifest.rank, manifest.key, path)
    if winner is not None and (winner.attempt != replaces or not winner.stats.get("provisional")):
        return winner
    publish_manifest(out, manifest, replace=True, path=path)  # the other lacks a file, or what it could not read
    return manifest


def publish_manifest(out: Path, manifest: ShardManifest, replace: bool = False, path: Path | None = None) -> bool:
    """Link the manifest under its shard and key; False if another attempt was first, unless that is to be replaced."""
    body = {
        "version": MANIFEST_VERSION,
        "job": manifest.job,
        "rank": manifest.rank,
        "key": manifest.key,
        "attempt": manifest.attempt,
        "outputs": [vars(output) for output in manifest.outputs],
        "ledger": vars(manifest.ledger),
        "stats": manifest.stats,
    }
    body["digest"] = digest(body)
    target = path or manifest_path(out, manifest.job, manifest.rank, manifest.key)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two that put the parts of a shard together have one attempt's name between them.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        with open(temporary, "wb") as file:
            file.write(canonical_json(body))
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, target)
        else:
            os.link(temporary, target)
        won = True
    except FileExistsError:
        # On NFS the link may have been made although the client saw an error: our inode under the name means we won.
        won = os.stat(temporary).st_ino == os.stat(target).st_ino
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(target.parent)
    return won


def load_manifest(path: Path) -> ShardManifest:
    """Read a shard manifest; InputError if it is torn or was changed by hand."""
    try:
        body = json.loads(path.read_bytes())
        stated = body.pop("digest")
        if body["version"] != MANIFEST_VERSION:
            raise InputError(
                f"{path} is of manifest version {body['version']}; this stackbuild reads {MANIFEST_VERSION}."
            )
        if digest(body) != stated:
            raise InputError(
                f"{path} does not hash to the digest that it states ({stated}); remove it and build again."
            )
        return ShardManifest(
            body["job"],
            body["rank"],
            body["key"],
            body["attempt"],
            tuple(Output(**output) for output in body["outputs"]),
            Ledger(**body["ledger"]),
            body["stats"],
        )
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); run the same build again.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a whole shard manifest ({error}); remove it and build again.") from error


def find_manifest(out: Path, job: str, rank: int, key: str, path: Path | None = None) -> ShardManifest | None:
    """The committed manifest of a shard for exactly this key; None if there is none, or one of its files was removed.

    InputError if a file is there and not as long as it should be: that is damage, which nobody should build on.
    """
    path = path or manifest_path(out, job, rank, key)
    if not path.exists():
        return None
    manifest = load_manifest(path)
    if manifest.key != key or manifest.job != job or manifest.rank != rank:
        raise InputError(
            f"{path} belongs to {manifest.job}, shard {manifest.rank}, key {manifest.key}; expected key {key}."
        )
    for output in manifest.outputs:
        target = out / output.file
        if not target.exists():
            return None
        if target.stat().st_size != output.bytes:
            raise InputError(
                f"{target} has not the {output.bytes} bytes with SHA-256 {output.sha256} that its manifest says. "
                f"Remove {path} and build again to make it anew."
            )
    return manifest


# ---------------------------------------------------------------- reading


def open_parquet(out: Path, output: Output) -> pq.ParquetFile:
    """Open a committed table; InputError names the file and its hash if it is torn."""
    path = out / output.file
    try:
        metadata = footer_of(path).metadata
        return pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise corrupt(path, output, error) from error


def corrupt(path: Path, output: Output, error: BaseException) -> InputError:
    """The error for a table that does not read."""
    return InputError(f"{path} cannot be read ({error}); it should hash to SHA-256 {output.sha256}.")


def read_batches(
    out: Path,
    outputs: Iterable[Output],
    columns: Sequence[str] | None = None,
    group: int | None = None,
    group_by: str = "",
    between: tuple[str, Any, Any] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of tables, a row group each; with `group`, only the row groups of that value of `group_by`; with
    `between` = (column, first, last), only those that may hold a value in this range."""
    for output in outputs:
        if group is not None and str(group) not in output.groups:
            continue
        with open_parquet(out, output) as file:
            wanted = (
                list(range(file.num_row_groups))
                if group is None
                else row_groups_of(file, out / output.file, group_by, group)
            )
            if between is not None:
                leaf = leaf_of(file, between[0])
                wanted = [index for index in wanted if may_hold(file, index, leaf, *between[1:])]
            for index in wanted:
                table = read_row_group(out, output, file, index, columns)
                yield from table.combine_chunks().to_batches()


def read_row_group(
    out: Path, output: Output, file: pq.ParquetFile, index: int, columns: Sequence[str] | None
) -> pa.Table:
    """One row group of a committed table; InputError names the file and its hash if it is torn."""
    try:
        return file.read_row_group(index, columns=list(columns) if columns is not None else None, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise corrupt(out / output.file, output, error) from error


def read_table(
    out: Path,
    outputs: Sequence[Output],
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    group: int | None = None,
    group_by: str = "",
) -> pa.Table:
    """All rows of tables, in memory; an empty table of the schema if there are none."""
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    batches = [conform(batch, schema) for batch in read_batches(out, outputs, columns, group, group_by)]
    return pa.Table.from_batches(batches, schema)
