"""Small releases written by hand, and folders of gzip objects to fetch their contents from."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.identity import writer_version
from stackbuild.layout.manifest_rows import MANIFEST, manifest_rows
from stackbuild.layout.trees import ENTRIES, proofs
from stackbuild.release.manifest import Manifest, Released, header, read_manifest
from stackbuild.schema import DATASET, MANIFEST_TREE
from stackbuild.shards import Output, file_sha256
from stackbuild.swhid import content_id, tree_ids
from stackbuild.tables import TableWriter
from stackbuild.wanted import Fetched, Wanted

ROW_GROUP_BYTES = 1 << 20
MADE = {
    "content": "text",
    "transforms": [],
    "writer": {**writer_version(), "row_group_bytes": ROW_GROUP_BYTES},
}


@dataclass(frozen=True)
class File:
    """A file of a repository; one that is not `released` only lies in its tree."""

    repo: str
    path: bytes
    data: bytes
    encoding: str = "UTF-8"
    mode: int = 0o100644
    released: bool = True
    revision: str = "1" * 40
    language: str = "Python"


def dataset_rows(files: Iterable[File]) -> list[dict[str, Any]]:
    """A row of DATASET with `mode` for each file."""
    roots: dict[tuple[str, str], str] = {}
    files = list(files)
    for key in {(file.repo, file.revision) for file in files}:
        mine = [(f.path, f.mode, content_id(f.data)) for f in files if (f.repo, f.revision) == key]
        roots[key] = tree_ids(mine)[b""].hex()
    return [
        {
            **dict.fromkeys(DATASET.names),
            "blob_id": hashlib.sha1(file.data).hexdigest(),
            "content_id": content_id(file.data).hex(),
            "directory_id": roots[file.repo, file.revision],
            "path": "/" + file.path.decode("utf-8", "replace"),
            "path_bytes": file.path,
            "path_lossy": False,
            "repo_name": file.repo,
            "revision_id": file.revision,
            "src_encoding": file.encoding,
            "language": file.language,
            "length": len(file.data),
            "redactions": 0,
            "mode": file.mode,
            "content": file.data.decode(file.encoding),
        }
        for file in files
    ]


def release(
    folder: Path,
    files: Iterable[File],
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row,
    made: dict[str, Any] = MADE,
) -> Manifest:
    """Write dataset/ and manifest/ below a folder. `change`: what becomes of a manifest row before it is written."""
    files = sorted(files, key=lambda file: (file.language, file.repo, file.revision, file.path))
    schema = pa.schema([*DATASET, ("mode", pa.int32())])
    rows = [row for row, file in zip(dataset_rows(files), files, strict=True) if file.released]
    listed: dict[str, Released] = {}
    for language in sorted({row["language"] for row in rows}):
        mine = [row for row in rows if row["language"] == language]
        table = pa.Table.from_pylist(mine, schema)
        told = [change(row) for row in manifest_rows(table, 0).to_pylist()]
        name = f"data/{language}/train-00000-of-00001.parquet"
        listed[name] = Released(
            written(folder, f"manifest/{name}", pa.Table.from_pylist(told, MANIFEST)),
            written(folder, f"dataset/{name}", table.select(DATASET.names)),
        )
    entries = [
        (f.repo, f.revision, f.path, f.mode, content_id(f.data), row["directory_id"])
        for f, row in zip(files, dataset_rows(files), strict=True)
    ]
    known = pa.Table.from_pylist([dict(zip(ENTRIES.names, entry, strict=True)) for entry in entries], ENTRIES)
    kept = [{"repo_name": f.repo, "revision_id": f.revision, "path_bytes": f.path} for f in files if f.released]
    places = pa.Table.from_pylist(kept, known.select(["repo_name", "revision_id", "path_bytes"]).schema)
    found = list(proofs(known, places, pa.array([False] * len(entries))))
    tree = pa.concat_tables([MANIFEST_TREE.empty_table(), *found])
    trees = {"tree/part-00000-of-00001.parquet": written(folder, "manifest/tree/part-00000-of-00001.parquet", tree)}
    description = {
        "recipe": {"name": "by-hand"},
        "seed": 7,
        "recipe_digest": "0" * 64,
        "stackbuild": "0",
        "engines": {},
    }
    (folder / "manifest" / "header.json").write_bytes(header(folder, listed, trees, description, made))
    return read_manifest(folder / "manifest")


def written(folder: Path, name: str, table: pa.Table) -> Output:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with TableWriter(path, table.schema, release=True, compression_level=3, row_group_bytes=ROW_GROUP_BYTES) as writer:
        writer.write(table)
    return Output("t", name, writer.rows, writer.bytes, writer.sha256)


def rewrite(folder: Path, name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the rows of a manifest's file, and what the header says of it, as a forger would."""
    path = folder / "manifest" / name
    table = pq.read_table(path)
    rows = change(table.to_pylist())
    with TableWriter(path, table.schema, release=True) as writer:
        writer.write(pa.Table.from_pylist(rows, table.schema))
    body = json.loads((folder / "manifest" / "header.json").read_bytes())
    from stackbuild.release.manifest import ROOT_COLUMNS, root_bytes

    for entry in body["files"]:
        if entry["manifest"] == name:
            entry["manifest_sha256"], entry["rows"] = file_sha256(path), len(rows)
    for entry in body["trees"]:
        if entry["file"] == name:
            entry["sha256"], entry["rows"] = file_sha256(path), len(rows)
    digest = hashlib.sha256()
    for entry in body["files"]:
        for batch in pq.read_table(folder / "manifest" / entry["manifest"], columns=list(ROOT_COLUMNS)).to_batches():
            digest.update(root_bytes(batch))
    body["rows"], body["rows_sha256"] = sum(entry["rows"] for entry in body["files"]), digest.hexdigest()
    (folder / "manifest" / "header.json").write_text(json.dumps(body))


# ---------------------------------------------------------------- objects


def objects(folder: Path, contents: Iterable[bytes]) -> Path:
    """A flat folder of gzip objects under their SHA-1."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in contents:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(gzip.compress(data, mtime=0))
    return folder


class FolderSupply:
    """A supply from such a folder; a file that says "forbidden" is refused."""

    def __init__(self, url: str | Path, signed: bool = False, cache: Path | None = None):
        self.folder = Path(url)

    def __call__(self, wanted: Iterator[Wanted]) -> Iterator[Fetched]:
        for one in wanted:
            path = self.folder / one.blob_id.hex()
            if not path.exists():
                yield Fetched(one, "missing")
            elif (raw := path.read_bytes()) == b"forbidden":
                yield Fetched(one, "forbidden")
            elif not raw.strip(b"\0"):
                yield Fetched(one, "zeroed")
            else:
                yield Fetched(one, "ok", gzip.decompress(raw))


def use_stand_in(patch: pytest.MonkeyPatch) -> None:
    """Let the commands take contents from `FolderSupply` where the package's own fetcher is not there."""
    try:
        import stackbuild.sources.swh.fetch  # noqa: F401
    except ModuleNotFoundError:
        patch.setattr("stackbuild.cli.manifest.Upstream", FolderSupply)
        patch.setattr("stackbuild.cli.regenerate.Upstream", FolderSupply)
