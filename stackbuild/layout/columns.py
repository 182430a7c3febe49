"""From inner columns to released ones: hex ids, and the row of a repository."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.hashing import hex_ids
from stackbuild.schema import CLASSIFIER_SCORE, CLASSIFIER_SCORES, DATASET, TIMESTAMP, UNKNOWN_LANGUAGE
from stackbuild.stage import with_columns

HEX = ("blob_id", "content_id", "cluster_id")

FILE_STRUCT = pa.struct(
    [
        pa.field("blob_id", pa.string()),
        pa.field("path", pa.string()),
        pa.field("content_id", pa.string()),
        pa.field("language", pa.string()),
        pa.field("length_bytes", pa.int64()),
        pa.field("detected_licenses", pa.list_(pa.string())),
        pa.field("license_type", pa.string()),
        pa.field("src_encoding", pa.string()),
        pa.field("is_vendor", pa.bool_()),
        pa.field("is_generated", pa.bool_()),
        pa.field("alphanum_fraction", pa.float32()),
        pa.field("alpha_fraction", pa.float32()),
        pa.field("num_lines", pa.int32()),
        pa.field("avg_line_length", pa.float32()),
        pa.field("max_line_length", pa.int32()),
    ]
)

# The Stack v2's train-ids layout: one row for each repository (dataset card of the-stack-v2-train-full-ids).
REPOS = pa.schema(
    [
        pa.field("repo_name", pa.string()),
        pa.field("repo_url", pa.string()),
        pa.field("snapshot_id", pa.string()),
        pa.field("revision_id", pa.string()),
        pa.field("directory_id", pa.string()),
        pa.field("branch_name", pa.string()),
        pa.field("visit_date", TIMESTAMP),
        pa.field("revision_date", TIMESTAMP),
        pa.field("committer_date", TIMESTAMP),
        pa.field("github_id", pa.int64()),
        pa.field("star_events_count", pa.int64()),
        pa.field("fork_events_count", pa.int64()),
        pa.field("gha_license_id", pa.string()),
        pa.field("gha_created_at", TIMESTAMP),
        pa.field("gha_language", pa.string()),
        pa.field("files", pa.list_(FILE_STRUCT)),
        pa.field("num_files", pa.int64()),
    ]
)


def released(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of schema.DATASET of a batch of files; what no stage of the recipe measured is null, but every file has a
    language: it is what the release is laid out by."""
    changed = {name: hex_ids(batch.column(name)) for name in HEX if name in batch.schema.names}
    batch = with_columns(batch, changed)
    if scored := [name for name in batch.schema.names if is_score(name)]:
        batch = with_columns(batch, {"classifier_scores": scores(batch, scored)})
    if "text" in batch.schema.names:
        batch = with_columns(batch, {"content": batch.column("text")})
    arrays = []
    for field in DATASET:
        index = batch.schema.get_field_index(field.name)
        array = pa.nulls(batch.num_rows, field.type) if index < 0 else batch.column(index).cast(field.type)
        arrays.append(pc.fill_null(array, UNKNOWN_LANGUAGE) if field.name == "language" else array)
    return pa.RecordBatch.from_arrays(arrays, schema=DATASET)


def is_score(column: str) -> bool:
    """Whether it is the column of an instance of the stage `classifier`."""
    return column == CLASSIFIER_SCORE or column.startswith(f"{CLASSIFIER_SCORE}_")


def scores(batch: pa.RecordBatch, columns: list[str]) -> pa.Array:
    """`classifier_scores` of n files: what each classifier, by its name in the recipe, gave the file; null for a file that none
    scored.
    """
    names = [":".join(["classifier", *filter(None, [name.removeprefix(CLASSIFIER_SCORE)[1:]])]) for name in columns]
    values = np.stack([np.asarray(pc.fill_null(batch.column(name), np.nan)) for name in columns], axis=1)
    there = ~np.isnan(values)
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    which = np.broadcast_to(np.arange(len(columns), dtype=np.int32), values.shape)[there]
    pairs = [pa.array(names, pa.string()).take(pa.array(which)), pa.array(values[there], pa.float32())]
    told = pa.StructArray.from_arrays(pairs, fields=list(CLASSIFIER_SCORES.value_type))
    none = pa.array(~there.any(axis=1))
    return pa.ListArray.from_arrays(pa.array(offsets), told, mask=none).cast(CLASSIFIER_SCORES)


def pointers(rows: pa.RecordBatch) -> pa.StructArray:
    """The `files` struct of The Stack v2's train-ids for each released row."""
    chars = rows.column("num_chars").cast(pa.float64())
    lines = pc.max_element_wise(rows.column("num_lines"), 1).cast(pa.float64())

    def fraction(name: str) -> pa.Array:
        return pc.if_else(
            pc.greater(chars, 0.0),
            pc.divide(rows.column(name).cast(pa.float64()), pc.max_element_wise(chars, 1.0)),
            0.0,
        )

    values = {
        "alphanum_fraction": fraction("alphanumeric_chars"),
        "alpha_fraction": fraction("alphabetic_chars"),
        "avg_line_length": pc.divide(chars, lines),
    }
    arrays = [(values[f.name] if f.name in values else rows.column(f.name)).cast(f.type) for f in FILE_STRUCT]
    return pa.StructArray.from_arrays(arrays, fields=list(FILE_STRUCT))


def repositories(table: pa.Table) -> pa.Table:
    """One row for each (repo_name, revision_id) of pointer rows sorted by them: origin columns, and its files."""
    names, revisions = table["repo_name"].combine_chunks(), table["revision_id"].combine_chunks()
    new = np.ones(len(table), bool)
    if len(table) > 1:
        same = pc.and_(pc.equal(names[1:], names[:-1]), pc.equal(revisions[1:], revisions[:-1]))
        new[1:] = ~np.asarray(same)
    starts = np.flatnonzero(new)
    offsets = np.append(starts, len(table)).astype(np.int32)
    files = pa.ListArray.from_arrays(pa.array(offsets), table["file"].combine_chunks())
    heads = table.take(pa.array(starts))
    columns = [
        files
        if f.name == "files"
        else pa.array(np.diff(offsets), pa.int64())
        if f.name == "num_files"
        else heads[f.name].combine_chunks()
        for f in REPOS
    ]
    return pa.Table.from_arrays(
        [c if isinstance(c, pa.Array) else pa.concat_arrays(c.chunks) for c in columns], schema=REPOS
    )
