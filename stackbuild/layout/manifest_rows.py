"""The rows of the SWHID manifest: what identifies each released file, and how its text was made from its bytes.

Columns follow the Software Heritage manifest of `docs/formats.md`: identity (content SWHID, plain SHA-1, length, mode, path
bytes, root directory, revision, snapshot, branch, origin, visit date), derivation (encoding, lossless, transforms, SHA-256
of the emitted UTF-8), and the place in the release (file and row).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.identity import text_version
from stackbuild.schema import DATASET, TRANSFORMS
from stackbuild.stage import Stage

TAKEN = (
    "repo_name", "repo_url", "revision_id", "directory_id", "snapshot_id", "branch_name", "visit_date", "path", "path_bytes", "path_lossy",
    "length", "src_encoding", "lossless", "language", "license_type", "detected_licenses", "redactions",
)  # fmt: skip

MANIFEST = pa.schema(
    [
        pa.field("swhid", pa.string(), nullable=False),
        pa.field("sha1", pa.string(), nullable=False),
        pa.field("mode", pa.int32()),
        *(DATASET.field(name) for name in TAKEN),
        pa.field("transforms", TRANSFORMS, nullable=False),  # what changed the decoded text, in order
        pa.field("text_sha256", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)


def manifest_rows(table: pa.Table, first: int, rewriters: Sequence[Stage[Any]] = ()) -> pa.Table:
    """Rows of MANIFEST for released rows (schema.DATASET and `mode`), the first of which is row `first` of its file.

    `rewriters`: the stages that changed decoded text, in order.
    """
    texts = (hashlib.sha256(value.as_buffer()).hexdigest() for chunk in table["content"].chunks for value in chunk)
    columns = {
        "swhid": pc.binary_join_element_wise("swh:1:cnt:", table["content_id"], ""),
        "sha1": table["blob_id"],
        "mode": table["mode"],
        **{name: table[name] for name in TAKEN},
        "transforms": transforms(table, rewriters),
        "text_sha256": pa.array(texts, pa.string()),
        "row": pa.array(np.arange(first, first + table.num_rows)),
    }
    return pa.table([columns[field.name] for field in MANIFEST], schema=MANIFEST)


def transforms(table: pa.Table, rewriters: Sequence[Stage[Any]]) -> pa.Array:
    """TRANSFORMS of each row (n): a stage that counts its replacements stands where it made any, another one everywhere."""
    counting = [stage for stage in rewriters if any(field.name == "redactions" for field in stage.adds)]
    counts = np.asarray(pc.fill_null(table["redactions"], 0)).astype(np.int64)
    # Two that count share a column, which tells of the last of them alone.
    counted = counting[0] if len(counting) == 1 else None
    there = np.zeros((len(table), len(rewriters)), bool)
    for column, stage in enumerate(rewriters):
        there[:, column] = (counts > 0) | (stage is not counted)
    rows, which = np.nonzero(there)
    names = pa.array([stage.name for stage in rewriters], pa.string()).take(pa.array(which))
    versions = pa.array([text_version(stage) for stage in rewriters], pa.string()).take(pa.array(which))
    known = np.array([stage is counted for stage in rewriters], bool)[which]
    number = pa.array(counts[rows], pa.int64(), mask=~known)
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    values = pa.StructArray.from_arrays([names, versions, number], fields=list(TRANSFORMS.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=TRANSFORMS)
