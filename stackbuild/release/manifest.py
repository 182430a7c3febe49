"""The SWHID manifest: what a dataset is made of, so that anyone can check it, and fetch it again.

`OUT/manifest/header.json` says of what and how; the rows (layout.manifest_rows.MANIFEST) lie beside it, one Parquet file
for each dataset file, in the same order; `tree/` has what proves their places (layout.trees). `verify.py` checks all this,
`regenerate.py` makes the dataset of it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.shards import Output, canonical_json, file_sha256
from stackbuild.tables import conform

FORMAT_VERSION = 2
TREE = "tree"
PLACE = pa.schema(
    [pa.field("file", pa.int32()), pa.field("row", pa.int64())]
)  # of a manifest row: which file, which row
BATCH_ROWS = 16_384


# ---------------------------------------------------------------- written


@dataclass(frozen=True)
class Released:
    """A file of the dataset and that of its manifest rows. `filled_sha256`: of the dataset file with its text, where it is
    released without."""

    rows: Output
    dataset: Output
    filled_sha256: str | None = None


def header(
    out: Path,
    files: Mapping[str, Released],
    trees: Mapping[str, Output],
    description: Mapping[str, Any],
    made: Mapping[str, Any],
) -> bytes:
    """header.json: the recipe and its stages with options, the tools, and every file with its SHA-256, as canonical JSON.

    `files`: by release path. `trees`: by path below the manifest. `made`: the keys `content`, `transforms` and `writer`,
    which say how the text came about and how files were written. InputError if the rows on disk are not what was committed.
    """
    root = hashlib.sha256()
    count = 0
    listed: list[dict[str, Any]] = []
    for name, file in sorted(files.items()):
        path = out / file.rows.file
        if file_sha256(path) != file.rows.sha256:
            raise InputError(f"{path} does not hash to {file.rows.sha256}; remove it and build again.")
        rows_here = 0
        for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(BATCH_ROWS, columns=list(ROOT_COLUMNS)):
            root.update(root_bytes(batch))
            rows_here += batch.num_rows
        count += rows_here
        entry = {
            "manifest": name,
            "manifest_sha256": file.rows.sha256,
            "dataset": name,
            "dataset_sha256": file.dataset.sha256,
            "rows": rows_here,
        }
        listed.append(entry if file.filled_sha256 is None else {**entry, "filled_sha256": file.filled_sha256})
    body = {
        "format": FORMAT_VERSION,
        "name": description["recipe"]["name"],
        "seed": description["seed"],
        "recipe": description["recipe"],
        "recipe_digest": description["recipe_digest"],
        "stackbuild": description["stackbuild"],
        "engines": description["engines"],
        "order": "language, folded owner, repo_name, revision_id, path_bytes, content_id",
        "rows": count,
        "rows_sha256": root.hexdigest(),  # over swhid, repo_name, revision_id, path bytes of all rows in order
        "files": listed,
        "trees": [
            {"file": name, "sha256": output.sha256, "rows": output.rows} for name, output in sorted(trees.items())
        ],
        **made,
    }
    return canonical_json(body) + b"\n"


ROOT_COLUMNS = ("swhid", "repo_name", "revision_id", "path_bytes")


def root_bytes(batch: pa.RecordBatch) -> bytes:
    """What rows add to `rows_sha256`; columns: ROOT_COLUMNS."""
    columns = [batch.column(name).cast(pa.binary()).to_pylist() for name in ROOT_COLUMNS]
    return b"".join(b"\0".join(part or b"" for part in row) + b"\n" for row in zip(*columns, strict=True))


# ---------------------------------------------------------------- read


@dataclass(frozen=True)
class Manifest:
    """A manifest on disk. `files`: the header's entries; `trees`: those of its table `tree`."""

    folder: Path
    header: dict[str, Any]

    @property
    def files(self) -> list[dict[str, Any]]:
        return list(self.header["files"])

    @property
    def trees(self) -> list[dict[str, Any]]:
        return list(self.header["trees"])

    def rows(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows in order, with the columns of `schema`; `file` and `row` of PLACE say where they stand."""
        for number, entry in enumerate(self.files):
            yield from placed(self.folder / entry["manifest"], schema, number, entry["manifest_sha256"])

    def tree_rows(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows of the table `tree`, likewise."""
        for number, entry in enumerate(self.trees):
            yield from placed(self.folder / entry["file"], schema, number, entry["sha256"])

    def place(self, file: int, row: int) -> str:
        """A row for a message."""
        return f"{self.folder / self.files[file]['manifest']}, row {row}"


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a folder; InputError if header.json is missing, torn, of another format, or names a file elsewhere."""
    path = folder / "header.json"
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); write it with `stackbuild manifest write`."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}).") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT_VERSION:
        found = body.get("format") if isinstance(body, dict) else None
        raise InputError(
            f"{path} is a manifest of format {found!r}; this stackbuild reads {FORMAT_VERSION}. Build the dataset again with "
            "this version, or read the manifest with the one that wrote it."
        )
    listed(path, body, "files", ("manifest", "dataset"), ("manifest_sha256", "dataset_sha256"))
    listed(path, body, "trees", ("file",), ("sha256",))
    return Manifest(folder, body)


def listed(header: Path, body: dict[str, Any], key: str, names: Sequence[str], hashes: Sequence[str]) -> None:
    """InputError unless the header's list names files below its folder, each with hash and rows."""
    entries = body.get(key)
    if not isinstance(entries, list):
        raise InputError(f"{header} has no list of {key}.")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in (*names, *hashes)):
            raise InputError(f"{header}: entry {number} of {key} lacks one of {', '.join((*names, *hashes))}.")
        if not isinstance(entry.get("rows"), int):
            raise InputError(f"{header}: entry {number} of {key} does not say how many rows it has.")
        for name in names:
            path = PurePosixPath(entry[name])
            if path.is_absolute() or ".." in path.parts or "\0" in entry[name]:
                raise InputError(
                    f"{header}: entry {number} of {key} names {entry[name]!r}, which is not below its folder."
                )


def placed(path: Path, schema: pa.Schema, number: int, sha256: str = "") -> Iterator[pa.RecordBatch]:
    """Batches of a Parquet file with the columns of `schema`; those of PLACE in it are made: `file` is `number`, `row`
    counts. InputError names the file if it cannot be read, lacks a column, or has one of another type."""
    made = set(PLACE.names) & set(schema.names)
    expected = f"; expected SHA-256 {sha256}" if sha256 else ""
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            there = set(file.schema_arrow.names)
            wanted = [name for name in schema.names if name not in made]
            if missing := [name for name in wanted if name not in there]:
                raise InputError(f"{path} has no column {missing[0]}{expected}.")
            first = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                row = pa.array(np.arange(first, first + batch.num_rows))
                columns = {name: batch.column(name) for name in batch.schema.names if name not in made}
                columns["row"], columns["file"] = row, pa.repeat(pa.scalar(number, pa.int32()), batch.num_rows)
                first += batch.num_rows
                yield conform(pa.RecordBatch.from_pydict(columns), schema)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}){expected}.") from error
