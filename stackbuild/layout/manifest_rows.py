"""The rows of the SWHID manifest: what identifies each released file, and how its text was made from its bytes.

Columns follow the Software Heritage manifest of `docs/formats.md`: identity (content SWHID, plain SHA-1, length, mode, path
bytes, root directory, revision, snapshot, branch, origin, visit date), derivation (encoding, lossless, transforms, SHA-256
of the emitted UTF-8), and the place in the release (file and row).
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.schema import DATASET

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
        pa.field("text_sha256", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)


def manifest_rows(table: pa.Table, first: int) -> pa.Table:
    """Rows of MANIFEST for released rows (schema.DATASET and `mode`), the first of which is row `first` of its file."""
    texts = (hashlib.sha256(value.as_buffer()).hexdigest() for chunk in table["content"].chunks for value in chunk)
    columns = {
        "swhid": pc.binary_join_element_wise("swh:1:cnt:", table["content_id"], ""),
        "sha1": table["blob_id"],
        "mode": table["mode"],
        **{name: table[name] for name in TAKEN},
        "text_sha256": pa.array(texts, pa.string()),
        "row": pa.array(np.arange(first, first + table.num_rows)),
    }
    return pa.table([columns[field.name] for field in MANIFEST], schema=MANIFEST)
