"""The SWHID manifest: what a dataset is made of, so that anyone can check it, and fetch it again.

`OUT/manifest/header.json` says of what and how; the rows (layout.manifest_rows.MANIFEST) lie beside it, one Parquet file
for each dataset file, in the same order. Verification has levels (Software Heritage practice): 0 the rows are well formed;
1 the bytes are those of the ids: length, SHA-1 and git SHA-1; 2 each path lies in the root directory that its row names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.shards import Output, canonical_json, file_sha256
from stackbuild.swhid import TreeBuilder, content_id, parse

FORMAT_VERSION = 1
SHOWN = 10


def header(out: Path, files: Mapping[str, tuple[Output, Output]], description: Mapping[str, Any]) -> bytes:
    """header.json: the recipe and its stages with options, the tools, and every file with its SHA-256, as canonical JSON.

    `files`: by release path, the committed files of the manifest's rows and of the dataset. InputError if the rows on disk
    are not the bytes that were committed.
    """
    root = hashlib.sha256()
    count = 0
    listed = []
    for name, (rows, dataset) in sorted(files.items()):
        path = out / rows.file
        if file_sha256(path) != rows.sha256:
            raise InputError(f"{path} does not hash to {rows.sha256}; remove it and build again.")
        table = pq.read_table(path, columns=["swhid", "repo_name", "revision_id", "path_bytes"])
        count += table.num_rows
        for batch in table.to_batches():
            for swhid, repo, revision, place in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                root.update(b"\0".join([swhid.encode(), repo.encode(), revision.encode(), place]) + b"\n")
        listed.append(
            {
                "manifest": name,
                "manifest_sha256": rows.sha256,
                "dataset": name,
                "dataset_sha256": dataset.sha256,
                "rows": table.num_rows,
            }
        )
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
    }
    return canonical_json(body) + b"\n"


# ---------------------------------------------------------------- verification


@dataclass
class Level:
    """How one level went: rows that are right, rows that could not be checked, and what is wrong with the others."""

    level: int
    ok: int = 0
    unchecked: int = 0
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def fail(self, text: str) -> None:
        self.wrong += 1
        if len(self.problems) < SHOWN:
            self.problems.append(text)


Contents = Iterator[tuple[bytes, bytes]]  # (content_id, bytes), each id once
# repository, revision, root id, and (path, mode, id) of all its entries; None for an entry whose id is not known
Trees = Iterator[tuple[str, str, str, list[tuple[bytes, int, bytes | None]]]]


def read_header(folder: Path) -> dict[str, Any]:
    """header.json of a manifest; InputError if it is missing or of another format."""
    path = folder / "header.json"
    try:
        body: dict[str, Any] = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); write it with `stackbuild manifest write`."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}).") from error
    if body.get("format") != FORMAT_VERSION:
        raise InputError(
            f"{path} is a manifest of format {body.get('format')}; this stackbuild reads {FORMAT_VERSION}."
        )
    return body


def rows(folder: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The manifest's rows, file by file in the header's order."""
    for entry in read_header(folder)["files"]:
        try:
            yield from pq.ParquetFile(folder / entry["manifest"]).iter_batches(16_384, columns=columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"{folder / entry['manifest']} cannot be read ({error}); expected SHA-256 {entry['manifest_sha256']}."
            ) from error


def verify_syntax(folder: Path, dataset: Path) -> Level:
    """Level 0: the files of manifest and dataset hash to the header and are all that there are, every SWHID parses, every
    path is relative without `..` and stands once."""
    result = Level(0)
    seen: set[bytes] = set()
    entries = read_header(folder)["files"]
    for below, kind in ((folder, "manifest"), (dataset, "dataset")):
        for entry in entries:
            path = below / entry[kind]
            if not path.exists() or file_sha256(path) != entry[f"{kind}_sha256"]:
                result.fail(f"{path} is missing or does not hash to {entry[f'{kind}_sha256']}")
        listed = {entry[kind] for entry in entries}
        there = {
            str(path.relative_to(below)) for path in below.rglob("*") if path.suffix == ".parquet" or path.is_symlink()
        }
        for extra in sorted(there - listed):
            result.fail(f"{below / extra} is not in the header")
    if result.wrong:
        return result
    for batch in rows(folder, ["swhid", "repo_name", "revision_id", "path_bytes"]):
        for swhid, repo, revision, path_bytes in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            place = f"{repo} {path_bytes!r}"
            key = hashlib.blake2b(b"\0".join([repo.encode(), revision.encode(), path_bytes]), digest_size=16).digest()
            try:
                parse(swhid)
            except Exception as error:
                result.fail(f"{place}: {error}")
                continue
            if path_bytes.startswith(b"/") or b".." in path_bytes.split(b"/") or not path_bytes:
                result.fail(f"{place}: not a path below the root")
            elif key in seen:
                result.fail(f"{place}: twice")
            else:
                result.ok += 1
            seen.add(key)
    return result


def verify_bytes(folder: Path, contents: Contents) -> Level:
    """Level 1: the bytes have the length, the SHA-1 and the git SHA-1 of the row."""
    result = Level(1)
    wanted: dict[bytes, tuple[str, int]] = {}
    for batch in rows(folder, ["swhid", "sha1", "length"]):
        for swhid, sha1, length in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            wanted[bytes.fromhex(swhid[-40:])] = (sha1, length)
    for identifier, data in contents:
        expected = wanted.pop(identifier, None)
        if expected is None:
            continue
        actual = (hashlib.sha1(data).hexdigest(), len(data))
        if content_id(data) != identifier or actual != expected:
            result.fail(f"swh:1:cnt:{identifier.hex()}: its bytes have SHA-1 {actual[0]} and length {actual[1]}")
        else:
            result.ok += 1
    for identifier in wanted:
        result.fail(f"swh:1:cnt:{identifier.hex()}: its bytes are not there")
    return result


def verify_paths(folder: Path, trees: Trees) -> Level:
    """Level 2: the root directory, built again from all entries of a revision, has the row's id and holds the row's path and content."""
    result = Level(2)
    wanted: dict[tuple[str, str], list[tuple[bytes, bytes, str | None]]] = {}
    for batch in rows(folder, ["repo_name", "revision_id", "path_bytes", "swhid", "directory_id"]):
        for repo, revision, path, swhid, directory in zip(
            *(column.to_pylist() for column in batch.columns), strict=True
        ):
            wanted.setdefault((repo, revision), []).append((path, bytes.fromhex(swhid[-40:]), directory))
    for repo, revision, root, entries in trees:
        mine = wanted.pop((repo, revision), [])
        if not mine:
            continue
        if any(identifier is None for _, _, identifier in entries):
            result.unchecked += len(mine)  # a file was left unread whose id its source did not tell
            continue
        builder = TreeBuilder()
        for path, mode, identifier in entries:
            builder.add(path, mode, identifier or b"")
        actual = builder.root().hex()
        there = {path: identifier for path, _, identifier in entries}
        for path, identifier, directory in mine:
            if directory is None:
                result.unchecked += 1
            elif directory != root or actual != root:
                result.fail(f"{repo} at {revision}: the root directory is {actual}, the manifest says {directory}")
            elif there.get(path) != identifier:
                result.fail(f"{repo} {path!r}: another content lies there")
            else:
                result.ok += 1
    result.unchecked += sum(len(rest) for rest in wanted.values())
    return result
