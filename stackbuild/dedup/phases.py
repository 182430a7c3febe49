"""The five phases of near-duplicate removal, each bounded in memory by constants of this module and by one group of
files.

  signatures   a partition's files  ->  bands (key, file; row groups by bucket), signatures (for look-ups)
  candidates   a bucket of keys     ->  pairs of files that share a band key
  components   all pairs, once      ->  groups of whole components, their members and edges
  sets         a partition's files  ->  shingle sets of members, row groups by group
  solve        a group              ->  clusters: who stays, and whom each removed file names

A file is numbered `partition << 40 | row`, its row being its place among the partition's rows that are still in. Rows
ascend by content_id and partitions are ranges of it, so numbers ascend with content_id whatever the number of
partitions, and nothing that is released depends on that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.candidates import Numbers, candidate_pairs, join, pack, roots
from stackbuild.dedup.clusters import id_values, sets_schema
from stackbuild.dedup.near_duplicates import near_duplicates, rank_values, scope_hashes
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.shingles import Hashes, shingle_sets
from stackbuild.dedup.signatures import band_keys, permutation_constants, sign_texts
from stackbuild.errors import InputError
from stackbuild.schema import ID
from stackbuild.tables import in_order

if TYPE_CHECKING:
    from stackbuild.task import Task

RUN_ROWS = 1 << 21  # band rows in memory before a sorted run is written (32 MB)
BUCKET_ROWS = 1 << 22  # band rows of one bucket in memory; a larger bucket is read in passes, each a range of keys
EDGES_AT_ONCE = 1 << 22  # pairs in memory while they are assigned to groups (64 MB)
GROUP_FILES = 20_000  # files of a group of components; one component may be larger
RUN_HASHES = 1 << 23  # shingles in memory before a sorted run of sets is written (64 MB)
SET_ROWS = 512  # files in a row group of sets

BANDS = pa.schema([pa.field("bucket", pa.uint16()), pa.field("key", pa.uint64()), pa.field("file", pa.int64())])
PAIRS = pa.schema([pa.field("left", pa.int64()), pa.field("right", pa.int64())])
MEMBERS = pa.schema(
    [
        pa.field("partition", pa.int32()),
        pa.field("file", pa.int64()),
        pa.field("component", pa.int64()),
        pa.field("group", pa.int32()),
    ]
)
EDGES = pa.schema([pa.field("group", pa.int32()), *PAIRS])
GROUPS = pa.schema([pa.field("group", pa.int32()), pa.field("files", pa.int64())])

ROW_BITS = 40


def signatures_schema(options: NearDedupOptions) -> pa.Schema:
    """Signatures for look-ups: `signature` is `permutations` little-endian uint32, null for a file without shingles."""
    return pa.schema(
        [
            pa.field("content_id", ID),
            pa.field("scope", pa.string()),
            pa.field("signature", pa.binary(4 * options.permutations)),
        ]
    )


# ---------------------------------------------------------------- the rows of a partition


def numbered(task: Task, columns: Sequence[str]) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
    """The batches of a partition or of a part of it, each with its files' numbers; InputError if content_ids repeat or do not
    ascend."""
    row, last = task.first, b""
    for batch in task.batches(["content_id", *columns]):
        ids = id_values(batch.column("content_id"))
        if len(ids) and (bytes(ids[0]).ljust(20, b"\0") <= last or (ids[1:] <= ids[:-1]).any()):
            raise InputError(
                f"Near-duplicates: the content_ids of partition {task.rank} repeat or do not ascend; "
                "files must be one per content (exact_dedup) and sorted by it."
            )
        if len(ids):
            last = bytes(ids[-1]).ljust(20, b"\0")
        yield np.arange(row, row + batch.num_rows, dtype=np.int64) + (task.rank << ROW_BITS), batch
        row += batch.num_rows


# ---------------------------------------------------------------- signatures


def sign(task: Task) -> None:
    """Sign the files of a partition and write their band keys, in runs sorted by bucket."""
    options: NearDedupOptions = task.options
    bands, per_band = options.layout
    a, b = permutation_constants(task.seed, options.permutations)
    language = ["language"] if options.scope == "language" else []
    keys, files, held = list[Hashes](), list[Numbers](), 0
    with task.writer("signatures", signatures_schema(options), row_group_rows=8192) as lookup:
        for numbers, batch in numbered(task, ["text", *language]):
            signatures, counts = sign_texts(batch.column("text"), options.shingling, a, b)
            languages = batch.column("language") if language else None
            signed = np.flatnonzero(counts)
            scopes = scope_hashes(languages, batch.num_rows)
            keys.append(band_keys(signatures[signed], scopes[signed], bands, per_band).reshape(-1))
            files.append(np.repeat(numbers[signed], bands))
            held += len(keys[-1])
            lookup.write(_signature_rows(batch, languages, signatures, counts, options))
            if held >= RUN_ROWS:
                _write_bands(task, keys, files)
                keys, files, held = [], [], 0
    _write_bands(task, keys, files)


def _signature_rows(
    batch: pa.RecordBatch,
    languages: pa.Array | None,
    signatures: npt.NDArray[np.uint32],
    counts: Numbers,
    options: NearDedupOptions,
) -> pa.RecordBatch:
    raw = pa.Array.from_buffers(
        pa.binary(4 * options.permutations), batch.num_rows, [None, pa.py_buffer(signatures.astype("<u4"))]
    )
    signed = pc.if_else(pa.array(counts > 0), raw, pa.scalar(None, raw.type))
    scope = languages.cast(pa.string()) if languages is not None else pa.nulls(batch.num_rows, pa.string())
    return pa.RecordBatch.from_arrays([batch.column("content_id"), scope, signed], schema=signatures_schema(options))


def _write_bands(task: Task, keys: Sequence[Hashes], files: Sequence[Numbers]) -> None:
    """One run: a file of the table, sorted by bucket (the leading bits of the key)."""
    key = np.concatenate([np.zeros(0, np.uint64), *keys])
    file = np.concatenate([np.zeros(0, np.int64), *files])
    bits = task.partitions.bit_length() - 1
    bucket = (key >> np.uint64(64 - bits)).astype(np.uint16) if bits else np.zeros(len(key), np.uint16)
    order = np.argsort(bucket, kind="stable")
    with task.writer("bands", BANDS, group_by="bucket") as writer:
        writer.write(pa.RecordBatch.from_arrays([pa.array(v[order]) for v in (bucket, key, file)], schema=BANDS))


# ---------------------------------------------------------------- candidates


def list_candidates(task: Task) -> None:
    """Write the pairs of files that share a key of this task's bucket; a bucket too large for memory is read in
    passes.
    """
    rows = sum(output.groups.get(str(task.rank), 0) for output in task.outputs("bands"))
    passes = 1 << max(0, (rows - 1) // BUCKET_ROWS).bit_length()
    bits, finer = task.partitions.bit_length() - 1, passes.bit_length() - 1
    pairs = 0
    with task.writer("pairs", PAIRS) as writer:
        for part in range(passes):
            keys, files = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
            for batch in task.read("bands", ["bucket", "key", "file"], group=task.rank, group_by="bucket"):
                key, file = np.asarray(batch.column("key")), np.asarray(batch.column("file"))
                if finer:
                    here = ((key << np.uint64(bits)) >> np.uint64(64 - finer)) == part
                    key, file = key[here], file[here]
                keys.append(key)
                files.append(file)
            for left, right in candidate_pairs(np.concatenate(keys), np.concatenate(files)):
                pairs += len(left)
                writer.write(pa.RecordBatch.from_arrays([pa.array(left), pa.array(right)], schema=PAIRS))
    task.stats["candidate_pairs"] = pairs


# ---------------------------------------------------------------- components


def find_components(task: Task) -> None:
    """Join all pairs into components and pack these into groups; memory: 32 bytes for each file with a candidate."""
    files = _files_with_candidates(task)
    parents = np.arange(len(files), dtype=np.int64)
    for left, right in _pairs(task):
        join(parents, np.searchsorted(files, left), np.searchsorted(files, right))
    _, component, sizes = np.unique(roots(parents), return_inverse=True, return_counts=True)
    groups = pack(sizes.astype(np.int64), GROUP_FILES)
    group = groups[component].astype(np.int32)
    with task.writer("members", MEMBERS, group_by="partition") as writer:
        partition = (files >> ROW_BITS).astype(np.int32)
        writer.write(
            pa.RecordBatch.from_arrays(
                [pa.array(v) for v in (partition, files, component.astype(np.int64), group)], schema=MEMBERS
            )
        )
    with task.writer("groups", GROUPS) as writer:
        counts = np.bincount(group)
        writer.write(
            pa.RecordBatch.from_arrays(
                [pa.array(np.arange(len(counts), dtype=np.int32)), pa.array(counts)], schema=GROUPS
            )
        )
    held, waiting = 0, list[tuple[Numbers, Numbers]]()
    for left, right in _pairs(task):
        waiting.append((left, right))
        held += len(left)
        if held >= EDGES_AT_ONCE:
            _write_edges(task, files, group, waiting)
            held, waiting = 0, []
    _write_edges(task, files, group, waiting)
    task.stats.update(
        files_with_candidates=len(files), components=len(sizes), largest_component=int(sizes.max(initial=0))
    )


def _pairs(task: Task) -> Iterator[tuple[Numbers, Numbers]]:
    for batch in task.read("pairs"):
        yield np.asarray(batch.column("left")), np.asarray(batch.column("right"))


def _files_with_candidates(task: Task) -> Numbers:
    """The numbers of all files of a pair, ascending, without repeats."""
    known, waiting, held = np.zeros(0, np.int64), list[Numbers](), 0
    for left, right in _pairs(task):
        waiting.append(np.union1d(left, right))
        held += len(waiting[-1])
        if held > max(len(known), EDGES_AT_ONCE):
            known = np.unique(np.concatenate((known, *waiting)))
            waiting, held = [], 0
    return np.unique(np.concatenate((known, *waiting)))


def _write_edges(
    task: Task, files: Numbers, group: npt.NDArray[np.int32], waiting: Sequence[tuple[Numbers, Numbers]]
) -> None:
    """One run of edges, sorted by group."""
    left = np.concatenate([np.zeros(0, np.int64), *(pair[0] for pair in waiting)])
    right = np.concatenate([np.zeros(0, np.int64), *(pair[1] for pair in waiting)])
    of = group[np.searchsorted(files, left)] if len(left) else np.zeros(0, np.int32)
    order = np.argsort(of, kind="stable")
    with task.writer("edges", EDGES, group_by="group") as writer:
        writer.write(pa.RecordBatch.from_arrays([pa.array(v[order]) for v in (of, left, right)], schema=EDGES))


# ---------------------------------------------------------------- sets


def make_sets(task: Task) -> None:
    """Write what `solve` needs of the members among a partition's files, in runs sorted by group."""
    options: NearDedupOptions = task.options
    batches = list(task.read("members", ["file", "component", "group"], group=task.rank, group_by="partition"))
    members = pa.Table.from_batches(
        batches, pa.schema([MEMBERS.field(n) for n in ("file", "component", "group")])
    ).combine_chunks()
    files = np.asarray(members["file"])
    text = ["text"] if options.verify else []
    columns = list(dict.fromkeys([*text, "repo_name", "path", *options.survivor_columns]))
    waiting, held = list[pa.RecordBatch](), 0
    if len(files):
        for numbers, batch in numbered(task, columns):
            start, stop = np.searchsorted(files, [numbers[0], numbers[-1] + 1]) if len(numbers) else (0, 0)
            if start == stop:
                continue
            rows = batch.take(pa.array(files[start:stop] - numbers[0]))
            waiting.append(_set_rows(rows, members.slice(start, stop - start), options))
            held += pc.sum(waiting[-1].column("shingles")).as_py() or 0
            if held >= RUN_HASHES:
                _write_sets(task, waiting)
                waiting, held = [], 0
    _write_sets(task, waiting)


def _set_rows(rows: pa.RecordBatch, members: pa.Table, options: NearDedupOptions) -> pa.RecordBatch:
    if options.verify:
        hashes, offsets = shingle_sets(rows.column("text"), options.shingling)
    else:
        hashes, offsets = np.zeros(0, np.uint64), np.zeros(rows.num_rows + 1, np.int64)
    known = {
        **{name: members[name].combine_chunks() for name in members.column_names},
        **{name: rows.column(name) for name in ("content_id", "repo_name", "path")},
        "shingles": pa.array(np.diff(offsets)),
        "hashes": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(hashes)),
    }
    for name, column in zip(options.survivor, options.survivor_columns, strict=True):
        known[name.removeprefix("-")] = rank_values(rows.column(column), name.removeprefix("-"))
    schema = sets_schema(options)
    return pa.RecordBatch.from_arrays([known[field.name].cast(field.type) for field in schema], schema=schema)


def _write_sets(task: Task, waiting: Sequence[pa.RecordBatch]) -> None:
    schema = sets_schema(task.options)
    table = pa.Table.from_batches(waiting, schema).combine_chunks()
    order = np.argsort(np.asarray(table["group"]), kind="stable")
    with task.writer("sets", schema, group_by="group", row_group_rows=SET_ROWS) as writer:
        for part in in_order(table, order, SET_ROWS):
            writer.write(part)


def warm() -> None:
    """Load the compiled kernels of all phases, so that no child does: three small files, two of them twins."""
    words = " ".join(f"word{number}" for number in range(12))
    texts = pa.array([words, f"{words} more", "other"], pa.large_string())
    ids = pa.array([bytes([number] * 20) for number in range(3)], ID)
    near_duplicates(pa.table({"content_id": ids, "text": texts}), options=NearDedupOptions())
    parents = np.arange(2)
    join(parents, parents[:1], parents[1:])
    pack(roots(parents), 1)
