"""From sources to occurrences and contents: the first job of every build; `gather.py` has the two that follow.

`ingest` (a task for each unit) hashes what a source yields and writes occurrences, one narrow row per (origin, revision,
path), grouped by owner, and the bytes, grouped by the leading bits of their content_id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild import registry, schema
from stackbuild.decisions import Decisions
from stackbuild.errors import InputError
from stackbuild.graph import INGEST, Node
from stackbuild.hashing import content_buckets, id_bytes, owner_bucket, uniform
from stackbuild.plan import Build
from stackbuild.rows import id_array
from stackbuild.shards import Attempt, ShardManifest, find_manifest, read_batches
from stackbuild.sources.unit import Entry, File, Limits, Link, Origin, Unit, Unread
from stackbuild.swhid import content_id as git_blob_id
from stackbuild.tables import conform, display_paths
from stackbuild.walks import products_of, walked

FLUSH_BYTES = 64 << 20
FLUSH_FILES = 100_000
FLUSH_ORIGINS = 250_000
# What was not read for a reason that may pass, though the unit's key stays the same: the next run tries again.
PASSING = frozenset({"unreadable", "missing_object", "corrupt_object", "hash_mismatch"})
BUCKET = "bucket"

ORIGIN = pa.schema(schema.ORIGIN_FIELDS)
INGESTED_CONTENTS = pa.schema([pa.field(BUCKET, pa.uint16(), nullable=False), *schema.CONTENTS])


# ---------------------------------------------------------------- ingest: one unit


def run_ingest(build: Build, rank: int) -> ShardManifest:
    """Read a unit; one that is torn yields nothing but its name and the reason."""
    unit = build.plan.units[rank]
    key = build.key(INGEST, rank, {})
    source = registry.source(unit.kind)
    options = source.options_model.model_validate(build.source_table(unit))
    number = build.shard_number(INGEST, rank)
    earlier = find_manifest(build.out, "00-ingest", number, key)
    replaces = earlier.attempt if earlier else None
    attempt = Attempt(build.out, "00-ingest", number, replaces)
    try:
        try:
            writer = UnitWriter(
                attempt, build.plan.partitions, sample_of(build.plan.recipe) if unit.repo_name is None else None
            )
            if (walk := build.walk_of(unit)) is not None:
                writer.walked(read_walk(build, walk, unit, attempt.folder / "scratch"))
            elif getattr(source, "columnar", False):
                for batch in source.read_batches(unit, options, build.limits):  # type: ignore[attr-defined]
                    writer.columns(batch)
            else:
                writer.entries(source.read(unit, options, build.limits), build.limits)
            writer.finish()
        except InputError as error:
            attempt.discard()
            attempt = Attempt(build.out, "00-ingest", number, replaces)
            writer = UnitWriter(attempt, build.plan.partitions)
            writer.finish()
            writer.stats.update(refused=str(error), provisional=True)
        return attempt.commit(key, writer.decisions.ledger, writer.stats)
    except BaseException:
        attempt.discard()
        raise


def read_walk(build: Build, walk: Node, unit: Unit, scratch: Path) -> Iterator[tuple[str, pa.RecordBatch]]:
    """What a walk found in the range of a unit."""
    source = walked(unit.kind)
    assert source is not None
    found, part = products_of(build, walk), int(unit.key["part"])

    def read(name: str, columns: pa.Schema) -> Iterator[pa.RecordBatch]:
        for batch in read_batches(build.out, found[name], columns.names, part, BUCKET):
            yield pa.RecordBatch.from_arrays([batch.column(field) for field in columns.names], schema=columns)

    options = source.options_model.model_validate(build.source_table(unit))
    yield from source.read_walk(read, options, build.limits, scratch)


def sample_of(recipe: dict[str, Any]) -> tuple[int, float] | None:
    """(seed, share) if the build takes a sample."""
    return (int(recipe["seed"]), float(recipe["sample"])) if recipe.get("sample") is not None else None


def sampled(table: pa.Table, sample: tuple[int, float] | None) -> pa.Table:
    """The rows whose repository is drawn."""
    if sample is None:
        return table
    names = table["repo_name"].combine_chunks().dictionary_encode()
    drawn = [uniform(sample[0], "sample", name) < sample[1] for name in names.dictionary.to_pylist()]
    return table.filter(pa.array(drawn, pa.bool_()).take(names.indices))


class UnitWriter:
    """Turns what a source yields into the three tables of a unit, in runs of bounded memory."""

    def __init__(self, attempt: Attempt, partitions: int, sample: tuple[int, float] | None = None):
        self.partitions = partitions
        self.sample = sample  # (seed, share of the repositories), for units that hold several
        self.attempt = attempt
        self.decisions = Decisions(attempt, "ingest", partitions)
        self.stats: dict[str, Any] = {"links": 0, "repos": 0}
        self._rows: list[tuple[Any, ...]] = []
        self._data: list[bytes] = []
        self._final = False  # what was not read will not be there another time
        self._links: list[tuple[str, str, bytes, int, bytes | None]] = []
        self._unread: list[tuple[Origin, Unread]] = []
        self._bytes = 0
        self._origin_rows: list[dict[str, Any]] = []  # of the files that wait to be written
        self._origins: list[pa.Table] = []

    # ---- entries, one by one

    def entries(self, stream: Iterator[Origin | Entry], limits: Limits) -> None:
        """Take a source's stream."""
        origin: Origin | None = None
        for item in stream:
            if isinstance(item, Origin):
                origin = item
                self._origin_rows.append(vars(item))
                self._tell(pa.Table.from_pylist([vars(item)], ORIGIN))
                self.stats["repos"] += 1
            elif origin is None:
                raise InputError("A source yielded a file before it said where it is from.")
            elif isinstance(item, File):
                content_id = item.content_id or git_blob_id(item.data)
                blob_id = hashlib.sha1(item.data).digest()
                self._rows.append(
                    (len(self._origin_rows) - 1, item.path, item.mode, content_id, blob_id, len(item.data))
                )
                self._data.append(item.data)
                self._bytes += len(item.data)
                if self._bytes >= FLUSH_BYTES or len(self._rows) >= FLUSH_FILES:
                    self._flush()
            elif isinstance(item, Link):
                self._links.append((origin.repo_name, origin.revision_id, item.path, item.mode, item.target))
            else:
                self._unread.append((origin, item))

    def _flush(self) -> None:
        if self._rows:
            numbers, paths, modes, content_ids, blob_ids, lengths = zip(*self._rows, strict=True)
            origins = pa.Table.from_pylist(self._origin_rows, ORIGIN).take(pa.array(numbers, pa.int64()))
            batch = pa.table(
                {
                    **{name: origins[name] for name in origins.schema.names},
                    "path_bytes": pa.array(paths, pa.binary()),
                    "mode": pa.array(modes, pa.int32()),
                    "content_id": pa.array(content_ids, schema.ID),
                    "blob_id": pa.array(blob_ids, schema.ID),
                    "length": pa.array(lengths, pa.int64()),
                    "content": pa.array(self._data, pa.large_binary()),
                }
            )
            self._write(batch)
        self._rows, self._data, self._bytes = [], [], 0
        self._origin_rows = self._origin_rows[-1:]

    # ---- batches of a columnar source

    def columns(self, batch: pa.RecordBatch) -> None:
        """Take a batch of origin columns, path_bytes, mode and content, and perhaps `rule`, `value`, `threshold` for what leaves."""
        table = sampled(pa.Table.from_batches([batch]), self.sample)
        self._tell(table)
        if "rule" in batch.schema.names:
            gone = pc.is_valid(table["rule"])
            self._leave(table.filter(gone))
            table = table.filter(pc.invert(gone))
        if not table.num_rows:
            return
        if (
            "length" in table.schema.names
        ):  # a source tells it for what it did not read; of what it read, the bytes tell
            table = table.drop_columns(["length"])
        content = table["content"].combine_chunks()
        views = [value.as_buffer() for value in content]
        content_ids = [git_blob_id(view) for view in views]
        blob_ids = [hashlib.sha1(view).digest() for view in views]
        self.stats["repos"] += table["repo_name"].combine_chunks().dictionary_encode().dictionary.__len__()
        for name, array in (
            ("content_id", pa.array(content_ids, schema.ID)),
            ("blob_id", pa.array(blob_ids, schema.ID)),
            ("length", pc.binary_length(content).cast(pa.int64())),
        ):
            table = table.append_column(name, array)
        for name in [f.name for f in schema.ORIGIN_FIELDS if f.name not in table.schema.names]:
            table = table.append_column(name, pa.nulls(table.num_rows, schema.OCCURRENCES.field(name).type))
        self._write(table)

    def _leave(self, table: pa.Table) -> None:
        lengths = table["length"] if "length" in table.schema.names else pa.nulls(table.num_rows, pa.int64())
        for row, length in zip(table.drop_columns(["content"]).to_pylist(), lengths.to_pylist(), strict=True):
            origin = Origin(row["repo_name"], row["revision_id"])
            self._unread.append(
                (
                    origin,
                    Unread(
                        row["path_bytes"],
                        row.get("mode") or 0o100644,
                        row["rule"],
                        length,
                        row.get("value"),
                        row.get("threshold"),
                        None,
                        row.get("detail"),
                    ),
                )
            )

    # ---- what a walk found

    def walked(self, found: Iterator[tuple[str, pa.RecordBatch]]) -> None:
        """Take the tables of a source that was walked: origins, files without their bytes, links, and what leaves.

        What an export lacks, and a store says of an object, is final: a walk with something to ask again is not complete.
        """
        self._final = True
        for kind, batch in found:
            table = pa.Table.from_batches([batch])
            if kind == "origins":
                self._tell(table)
                self.stats["repos"] += table.num_rows
            elif kind == "files":
                self._write_occurrences(table)
            elif kind == "links":
                self._links += [tuple(row.values()) for row in batch.to_pylist()]
            else:
                self._unread += [
                    (
                        Origin(row["repo_name"], row["revision_id"]),
                        Unread(
                            row["path_bytes"], row["mode"], row["rule"], row["length"], row["value"], row["threshold"],
                            row["content_id"], row["detail"],
                        ),
                    )
                    for row in batch.to_pylist()
                ]  # fmt: skip

    # ---- tables

    def _write(self, table: pa.Table) -> None:
        self._write_occurrences(table.drop_columns(["content"]))
        _, first = np.unique(id_array(table["content_id"]), return_index=True)
        bucket = content_buckets(id_bytes(table["content_id"])[first], self.partitions).astype(np.uint16)
        contents = table.select(["content_id", "blob_id", "length", "content"]).take(pa.array(first))
        with self.attempt.writer("contents", INGESTED_CONTENTS, group_by=BUCKET) as writer:
            writer.write(contents.append_column(BUCKET, pa.array(bucket)))

    def _write_occurrences(self, table: pa.Table) -> None:
        paths, lossy = display_paths(table["path_bytes"].combine_chunks())
        occurrences = (
            table.append_column("owner_bucket", self._owner_buckets(table))
            .append_column("path", paths)
            .append_column("path_lossy", lossy)
            .append_column("extension", extensions(paths))
        )
        order = pc.sort_indices(
            occurrences,
            [
                ("owner_bucket", "ascending"),
                ("repo_name", "ascending"),
                ("revision_id", "ascending"),
                ("path_bytes", "ascending"),
            ],
        )
        with self.attempt.writer("occurrences", schema.OCCURRENCES, group_by="owner_bucket") as writer:
            writer.write(occurrences.take(order))
        length = int(pc.sum(table["length"]).as_py())
        self.decisions.enter(table.num_rows, length)
        self.decisions.stay(table.num_rows, length)

    def _owner_buckets(self, table: pa.Table) -> pa.Array:
        names = table["repo_name"].combine_chunks().dictionary_encode()
        buckets = np.array([owner_bucket(name, self.partitions) for name in names.dictionary.to_pylist()], np.uint16)
        return pa.array(buckets[np.asarray(names.indices)])

    def _tell(self, table: pa.Table) -> None:
        """Remember the repositories of some rows, with all that is said of them, each once: rows of one revision may name
        several URLs."""
        if not table.num_rows:
            return
        whole = pa.Table.from_batches([conform(batch, ORIGIN) for batch in table.to_batches()], ORIGIN)
        distinct = whole.group_by(ORIGIN.names, use_threads=False).aggregate([])
        self._origins.append(distinct.select(ORIGIN.names).cast(ORIGIN))
        if sum(len(one) for one in self._origins) >= FLUSH_ORIGINS:
            self._write_origins()

    def _write_origins(self) -> None:
        if self._origins:
            table = pa.concat_tables(self._origins)
            table = table.append_column("owner_bucket", self._owner_buckets(table))
            order = pc.sort_indices(table, [(field.name, "ascending") for field in schema.ORIGINS])
            with self.attempt.writer("origins", schema.ORIGINS, group_by="owner_bucket") as writer:
                writer.write(table.take(order))
        self._origins = []

    def finish(self) -> None:
        """Write what is left over: repositories, links, files that were not read."""
        self._flush()
        self._write_origins()
        rows: list[tuple[str, str, bytes, int, bytes | None]] = [
            *self._links,
            *((o.repo_name, o.revision_id, u.path, u.mode, u.content_id) for o, u in self._unread),
        ]
        of_name = {name: owner_bucket(name, self.partitions) for name in {row[0] for row in rows}}
        tree = [dict(zip(schema.TREE.names, (of_name[row[0]], *row), strict=True)) for row in rows]
        tree.sort(key=itemgetter("owner_bucket"))  # stable: in the order of the source otherwise
        with self.attempt.writer("tree", schema.TREE, group_by="owner_bucket") as writer:
            writer.write(pa.Table.from_pylist(tree, schema.TREE))
        self.stats["links"] = len(self._links)
        if not self._final and (passing := sum(u.rule in PASSING for _, u in self._unread)):
            self.stats.update(provisional=True, passing=passing)
        if self._unread:
            paths, _ = display_paths(pa.array([u.path for _, u in self._unread], pa.binary()))
            lengths = [u.length or 0 for _, u in self._unread]
            self.decisions.enter(len(lengths), sum(lengths))
            self.decisions.add(
                {
                    "rule": pa.array([u.rule for _, u in self._unread]),
                    "value": pa.array([u.value for _, u in self._unread], pa.float64()),
                    "threshold": pa.array([u.threshold for _, u in self._unread], pa.float64()),
                    "detail": pa.array([u.detail for _, u in self._unread], pa.string()),
                    "repo_name": pa.array([o.repo_name for o, _ in self._unread]),
                    "revision_id": pa.array([o.revision_id for o, _ in self._unread]),
                    "path": paths,
                    "path_bytes": pa.array([u.path for _, u in self._unread], pa.binary()),
                    "content_id": pa.array([u.content_id for _, u in self._unread], schema.ID),
                    "length": pa.array([u.length for _, u in self._unread], pa.int64()),
                },
                "dropped",
                np.array(lengths, np.int64),
            )
        self.decisions.close()


def extensions(paths: pa.Array) -> pa.Array:
    """The extension of each base name without its dot, "" if it has none; a leading dot does not begin one."""
    found = pc.extract_regex(paths, r"[^/]\.(?P<extension>[^./]+)$")
    return pc.fill_null(pc.struct_field(found, "extension"), "")
