"""The text that has to go with files that are passed on: whose they are, under which licence, and the licences' own words.

MIT, BSD, Apache and most others ask that the copyright notice and the licence travel with every copy; neither release of The
Stack shipped them. What is written here is taken from the evidence of the released files: the licence files that decided, read
from the build's contents, and the notices at the head of the files themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.graph import is_transition
from stackbuild.hashing import content_buckets, id_bytes, owner_bucket
from stackbuild.housekeeping import finished
from stackbuild.licenses.text import decode, normal_form
from stackbuild.plan import Build
from stackbuild.shards import read_batches
from stackbuild.status import described

HOLDER = re.compile(r"copyright|©|^\W*\(c\)", re.IGNORECASE)
HOLDERS_SHOWN, HOLDER_CHARS = 200, 300
COLUMNS = ("repo_name", "repo_url", "revision_id", "path", "license_evidence")

Place = tuple[str, str]  # a repository and a path in it


@dataclass
class Component:
    """What is passed on of one revision of a repository."""

    repo_name: str
    revision_id: str
    url: str | None
    files: list[str] = field(default_factory=list)
    expressions: dict[str, None] = field(default_factory=dict)
    texts: dict[Place, None] = field(default_factory=dict)  # licence files
    headers: list[tuple[str, int]] = field(default_factory=list)  # a file, and the last line of its own notice


@dataclass(frozen=True)
class Selection:
    """Which files of the dataset: those of some repositories, some single ones (repository and path), or all."""

    repositories: frozenset[str] = frozenset()
    files: frozenset[Place] = frozenset()

    def rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch that are selected."""
        if not self.repositories and not self.files:
            return batch
        names = self.repositories | {repo for repo, _ in self.files}
        found = batch.filter(pc.is_in(batch.column("repo_name"), value_set=pa.array(sorted(names), pa.string())))
        chosen = [
            repo in self.repositories or (repo, path) in self.files
            for repo, path in zip(found.column("repo_name").to_pylist(), found.column("path").to_pylist(), strict=True)
        ]
        return found.filter(pa.array(chosen, pa.bool_()))


def notice(out: Path, selection: Selection, list_files: bool = False) -> Iterator[str]:
    """The notice in lines. InputError if the build is not complete or was cleaned, or nothing is selected.

    Memory: the paths of the selected files and the licence texts, each once.
    """
    build = finished(out)
    names = [name for name in described(out)["files"] if name.startswith("dataset/data/")]
    components = _components([out / name for name in sorted(names)], selection)
    if not components:
        raise InputError(f"No file of the dataset in {out} was selected; `stackbuild check` tells what is in it.")
    texts = dict(_texts(build, {place: None for one in components for place in one.texts}))
    own = dict(_texts(build, {(one.repo_name, path): None for one in components for path, _ in one.headers}))
    numbers: dict[str, int] = {}  # of licence texts, by their normal form
    shown: list[str] = []
    yield f"This collection holds files of {len(components):,} projects. Each is under the licence of its authors."
    for component in components:
        yield ""
        yield f"{component.repo_name} {component.revision_id}" + (f" ({component.url})" if component.url else "")
        yield f"  {len(component.files):,} files; licence: {' AND '.join(component.expressions) or 'none stated'}"
        heads = [own[component.repo_name, path][:last] for path, last in component.headers
                 if (component.repo_name, path) in own]  # fmt: skip
        lines = [line for place in component.texts for line in texts.get(place, [])]
        for holder in _holders([*lines, *(line for head in heads for line in head)]):
            yield f"  {holder}"
        for place in component.texts:
            if place in texts:
                text = "\n".join(texts[place])
                number = numbers.setdefault(normal_form(text), len(numbers) + 1)
                if number > len(shown):
                    shown.append(text)
                yield f"  {place[1]}{'' if place[0] == component.repo_name else f' of {place[0]}'}: text {number} below"
        if list_files:
            yield from (f"    {path}" for path in component.files)
    for number, text in enumerate(shown, 1):
        yield ""
        yield f"---- text {number}"
        yield text


def _components(paths: Iterable[Path], selection: Selection) -> list[Component]:
    """The projects of the selected files, by name and revision."""
    found: dict[tuple[str, str], Component] = {}
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(COLUMNS)):
                for row in selection.rows(batch).to_pylist():
                    key = row["repo_name"], row["revision_id"]
                    component = found.setdefault(key, Component(*key, row["repo_url"]))
                    component.files.append(row["path"])
                    for one in row["license_evidence"] or ():
                        _add(component, row["path"], one)
    for component in found.values():
        component.files.sort()
        component.headers.sort()
    return [found[key] for key in sorted(found)]


def _add(component: Component, path: str, evidence: Mapping[str, Any]) -> None:
    if not evidence["decides"]:
        return
    if evidence["expression"]:
        component.expressions.setdefault(evidence["expression"])
    if evidence["kind"] in ("license_file", "notice"):
        component.texts.setdefault((evidence["repo_name"] or component.repo_name, evidence["path"]))
    elif evidence["kind"] == "header" and evidence["first_line"]:
        component.headers.append((path, evidence["last_line"] or evidence["first_line"]))


def _holders(lines: Iterable[str]) -> list[str]:
    """The lines that name who holds a copyright, each once."""
    found = dict.fromkeys(
        " ".join(line.strip(" \t*#/;%-!").split())[:HOLDER_CHARS]
        for line in lines
        if HOLDER.search(line[:HOLDER_CHARS])
    )
    named = [line for line in found if re.search(r"[0-9]{4}|\(c\)|©", line, re.IGNORECASE)]
    return named[:HOLDERS_SHOWN]


def _texts(build: Build, places: Mapping[Place, None]) -> Iterator[tuple[Place, list[str]]]:
    """The lines of files that the build read, whether they are released or not."""
    ids = _content_ids(build, places)
    by_bucket: dict[int, dict[bytes, list[Place]]] = {}
    for place, content_id in ids.items():
        raw = np.frombuffer(content_id, np.uint8).reshape(1, 20)
        bucket = int(content_buckets(raw, build.plan.partitions)[0])
        by_bucket.setdefault(bucket, {}).setdefault(content_id, []).append(place)
    for bucket, wanted in sorted(by_bucket.items()):
        values = pa.array(sorted(wanted), pa.binary(20))
        for batch in read_batches(build.out, build.contents(bucket), ["content_id", "content"]):
            rows = batch.filter(pc.is_in(batch.column("content_id"), value_set=values))
            for content_id, content in zip(
                rows.column("content_id").to_pylist(), rows.column("content").to_pylist(), strict=True
            ):
                lines = (decode(content) or "").splitlines()
                yield from ((place, lines) for place in wanted[content_id])


def _content_ids(build: Build, places: Mapping[Place, None]) -> dict[Place, bytes]:
    """The content of each place, of the first revision that has it."""
    merge = next(node for node in build.nodes if is_transition(node.stage))
    by_bucket: dict[int, list[Place]] = {}
    for place in places:
        by_bucket.setdefault(owner_bucket(place[0], build.plan.partitions), []).append(place)
    found: dict[Place, bytes] = {}
    for bucket, wanted in sorted(by_bucket.items()):
        names = pa.array(sorted({repo for repo, _ in wanted}), pa.string())
        paths = pa.array(sorted({path for _, path in wanted}), pa.string())
        for part in build.rows(merge, bucket).slices(["repo_name", "path", "content_id"]):
            batch = part.batch
            here = pc.and_(
                pc.is_in(batch.column("repo_name"), value_set=names), pc.is_in(batch.column("path"), value_set=paths)
            )
            rows = batch.filter(here)
            for repo, path, raw in zip(
                rows.column("repo_name").to_pylist(), rows.column("path").to_pylist(),
                id_bytes(rows.column("content_id")), strict=True,
            ):  # fmt: skip
                if (repo, path) in places:
                    found.setdefault((repo, path), raw.tobytes())
    return found


def listed(lines: Sequence[str]) -> frozenset[Place]:
    """Files from lines of "repository path"; InputError names a line that is not."""
    found = set()
    for number, line in enumerate(lines, 1):
        repo, _, path = line.strip().partition(" ")
        if not repo:
            continue
        if not path.strip():
            raise InputError(f"line {number}: {line.strip()[:200]!r} is not a repository and a path.")
        found.add((repo, "/" + path.strip().lstrip("/")))
    return frozenset(found)
