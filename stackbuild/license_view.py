"""The licence of every file of a repository, and the evidence that it follows from, out of a finished build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError
from stackbuild.graph import Node
from stackbuild.hashing import content_buckets, id_bytes, owner_bucket
from stackbuild.housekeeping import finished
from stackbuild.plan import Build
from stackbuild.schema import LICENSE_FIELDS
from stackbuild.shards import read_batches

COLUMNS = [field.name for field in LICENSE_FIELDS]


@dataclass(frozen=True)
class FileLicense:
    """One file of a repository: what it is as part of it, and what its content is, all copies and its header considered."""

    path: str
    license_class: str
    keys: tuple[str, ...]
    evidence: tuple[Mapping[str, Any], ...]

    @property
    def reason(self) -> tuple[str, tuple[str, ...]]:
        """The class and, in words, the evidence that decides: files that agree in both are told together."""
        return self.license_class, tuple(words(one) for one in self.evidence if one["decides"])


def files_of(out: Path, repo_name: str) -> dict[str, list[FileLicense]]:
    """The files of a repository that were judged, by revision, in the order of their paths.

    InputError if the build is not complete, has no stage `licenses`, was cleaned, or never read the repository. Reads the
    licence columns of all contents of the partitions that hold its files.
    """
    build = finished(out)
    stage = next((node for node in build.nodes if node.stage.name == "licenses"), None)
    if stage is None:
        raise InputError(f"The recipe of {out} has no stage licenses.")
    merge = next(node for node in build.nodes if node.stage.makes_files)
    rows = _occurrences(build, merge, repo_name)
    if not len(rows):
        raise InputError(f"{out} has no files of {repo_name}: `stackbuild check` tells whether it was read.")
    told = _with_copies(build, rows)
    found: dict[str, list[FileLicense]] = {}
    for row in told.sort_by([("revision_id", "ascending"), ("path_bytes", "ascending")]).to_pylist():
        found.setdefault(row["revision_id"], []).append(
            FileLicense(
                row["path"],
                row["license_class"] or "unknown",
                tuple(row["detected_licenses"] or ()),
                tuple(_seen_from(repo_name, row["kept_of"], one) for one in row["license_evidence"] or ()),
            )
        )
    return found


def _occurrences(build: Build, merge: Node, repo_name: str) -> pa.Table:
    """The rows of a repository as they stood before copies were merged."""
    names = ["repo_name", "revision_id", "path", "path_bytes", "content_id", *COLUMNS]
    rows = build.rows(merge, owner_bucket(repo_name, build.plan.partitions))
    wanted = [part.batch.filter(pc.equal(part.batch.column("repo_name"), repo_name)) for part in rows.slices(names)]
    return pa.Table.from_batches(wanted).combine_chunks() if wanted else pa.table({name: [] for name in names})


def _with_copies(build: Build, rows: pa.Table) -> pa.Table:
    """The rows with the licence of their contents, and `kept_of`, the repository of the copy that was kept."""
    ids = rows["content_id"].combine_chunks()
    tables = []
    for bucket in np.unique(content_buckets(id_bytes(ids), build.plan.partitions)).tolist():
        outputs, _ = build.base("file", bucket)
        for batch in read_batches(build.out, outputs, ["content_id", "repo_name", *COLUMNS]):
            tables.append(pa.Table.from_batches([batch.filter(pc.is_in(batch.column("content_id"), value_set=ids))]))
    merged = pa.concat_tables(tables).combine_chunks()
    at = pc.index_in(ids, value_set=merged["content_id"].combine_chunks())
    for name in COLUMNS:
        place = rows.schema.get_field_index(name)
        column = merged[name].take(at)
        rows = rows.set_column(place, rows.schema.field(name), pa.chunked_array(column.chunks, column.type))
    return rows.append_column("kept_of", merged["repo_name"].take(at))


def _seen_from(repo_name: str, kept_of: str, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    """Evidence of a content as one of its copies has it: `repo_name` names another repository than that of this copy."""
    if evidence["kind"] == "header":
        return evidence
    of = evidence["repo_name"] or kept_of
    return {**evidence, "repo_name": None if of == repo_name else of}


def words(evidence: Mapping[str, Any]) -> str:
    """One piece of evidence in a line."""
    unread = evidence["kind"] == "license_file" and not evidence["engine"]
    what = evidence["expression"] or f"a licence that {'was not read' if unread else 'nobody recognises'}"
    where = {"host": "the host", "header": "its own header"}.get(evidence["kind"], evidence["path"])
    if evidence.get("repo_name"):
        where = f"{where} of {evidence['repo_name']}"
    if evidence.get("first_line"):
        last = evidence.get("last_line")
        where += f":{evidence['first_line']}" + (f"-{last}" if last and last != evidence["first_line"] else "")
    how = ", ".join(
        text
        for text in (
            evidence["kind"] if evidence["kind"] not in ("license_file", "header", "host") else "",
            evidence["engine"] or "",
            f"{evidence['score']:.2f}" if evidence["score"] is not None and evidence["expression"] else "",
        )
        if text
    )
    said = f" ({evidence['said']!r})" if evidence.get("said") and evidence["said"] != evidence["expression"] else ""
    return f"{what}{said}{':' if unread else ' by'} {where}" + (f" [{how}]" if how else "")


# ---------------------------------------------------------------- as a tree


@dataclass
class Folder:
    """A folder of a repository: its files that are told one by one, and its folders. `alike`: all below have this reason."""

    name: str
    files: int = 0
    alike: tuple[str, tuple[str, ...]] | None = None
    own: list[FileLicense] = field(default_factory=list)
    folders: dict[str, Folder] = field(default_factory=dict)


def tree(files: Sequence[FileLicense]) -> Folder:
    """The folders of some files, in order, with what all files below each have in common."""
    root = Folder("/")
    for file in files:
        here = root
        for name in file.path.strip("/").split("/")[:-1]:
            here = here.folders.setdefault(name, Folder(name + "/"))
        here.own.append(file)
    for folder in reversed(list(_below(root))):
        reasons = {file.reason for file in folder.own} | {one.alike for one in folder.folders.values()}
        folder.files = len(folder.own) + sum(one.files for one in folder.folders.values())
        folder.alike = reasons.pop() if len(reasons) == 1 else None
    return root


def _below(folder: Folder) -> Iterator[Folder]:
    """A folder and all below it, without recursion: paths may be deep."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        yield here
        waiting.extend(here.folders.values())
