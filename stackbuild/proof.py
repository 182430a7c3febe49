"""What a build can prove its manifest with: the bytes that it holds, and every entry of the trees that it read."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from stackbuild import schema
from stackbuild.graph import CONTENTS, INGEST, OCCURRENCES
from stackbuild.plan import Build
from stackbuild.shards import read_batches, read_table


def contents_held(build: Build) -> Iterator[tuple[bytes, bytes]]:
    """(content_id, bytes) of every content that was ingested."""
    for batch in read_batches(build.out, build.outputs(CONTENTS.name, "contents"), ["content_id", "content"]):
        yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)


def trees_read(build: Build) -> Iterator[tuple[str, str, str, list[tuple[bytes, int, bytes | None]]]]:
    """(repository, revision, root directory, entries) of every revision that names a root: files, links, files left unread."""
    links: dict[tuple[str, str], list[tuple[bytes, int, bytes | None]]] = {}
    for row in read_table(build.out, build.outputs(INGEST.name, "tree"), schema.TREE).to_pylist():
        links.setdefault((row["repo_name"], row["revision_id"]), []).append(
            (row["path_bytes"], row["mode"], row["target"])
        )
    columns = ["repo_name", "revision_id", "directory_id", "path_bytes", "mode", "content_id"]
    for shard in build.shards(OCCURRENCES.name):
        table = read_table(build.out, shard.table("occurrences"), schema.OCCURRENCES, columns)
        table = table.filter(pc.is_valid(table["directory_id"]))
        for key, part in revisions(table):
            entries = list(zip(*(part[name].to_pylist() for name in columns[3:]), strict=True))
            yield *key, part["directory_id"][0].as_py(), [*entries, *links.get(key, [])]


def revisions(table: pa.Table) -> Iterator[tuple[tuple[str, str], pa.Table]]:
    """Runs of equal (repo_name, revision_id) of a table sorted by them."""
    start = 0
    names, revisions_ = table["repo_name"].to_pylist(), table["revision_id"].to_pylist()
    for stop in range(1, table.num_rows + 1):
        if stop == table.num_rows or (names[stop], revisions_[stop]) != (names[start], revisions_[start]):
            yield (names[start], revisions_[start]), table.slice(start, stop - start)
            start = stop
