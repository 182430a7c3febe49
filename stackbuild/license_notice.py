"""The text that has to go with files that are passed on: whose they are, under which licence, and the licences' own words.

MIT, BSD, Apache and most others ask that the copyright notice and the licence travel with every copy; neither release of The
Stack shipped them. What is written here is taken from the evidence of the released files: the licence files that decided, read
from the build's contents, and the notices at the head of the files themselves. Where a header, a rule or a manifest decided,
the texts are those of `LICENSES/` for its identifiers and of the licence files in force for the same licence. NOTICE files in
the folders above a file go with it, as section 4(d) of Apache-2.0 asks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.graph import INGEST
from stackbuild.hashing import content_buckets, owner_bucket
from stackbuild.housekeeping import finished
from stackbuild.licenses.declared.structured import read_toml
from stackbuild.licenses.expression import keys_of
from stackbuild.licenses.policy import Policy, load_policy
from stackbuild.licenses.tags import joined
from stackbuild.licenses.text import decode, normal_form
from stackbuild.licenses.unread import SPEAKING, speaking, unread
from stackbuild.plan import Build
from stackbuild.shards import read_batches
from stackbuild.status import described

# Who holds a copyright: SPDX's own line; a line of "copyright" with a year or sign; one that begins with the word or a sign and
# goes on with a name. "(c)" alone may be the third item of a list, so it wants a year.
SPDX_HOLDER = re.compile(r"SPDX-(?:File|Snippet)CopyrightText\s*:\s*(.+)", re.IGNORECASE)
DATED = re.compile(
    r"copyright.*\b(?:19|20)[0-9]{2}\b|\b(?:19|20)[0-9]{2}\b.*copyright|copyright\W{0,3}(?:\(c\)|©)", re.IGNORECASE
)
SIGNED = re.compile(r"(?:©|\(c\)\W{0,3}(?:by )?(?:19|20)[0-9]{2}\b|© ?\(c\))", re.IGNORECASE)
NAMED = re.compile(
    r"(?:portions |parts |some )?(?:copyright|copr\.?)(?: by|:)? +(?=[A-Z\"'@]|[^\x00-\x7f])(?-i:[^a-z])", re.IGNORECASE
)
NO_NAME = re.compile(
    r"copyright:? (?:act|and|as|disclaimer|holders?|in|information|is|law|laws|licen[cs]e|notices?|of|or|owners?|policy|protection"
    r"|rights?|statements?|terms|to)\b",
    re.IGNORECASE,
)
OF_LAW = re.compile(r"copyright (?:treaty|treaties|act|law|laws|convention)\b", re.IGNORECASE)
TEMPLATE = re.compile(r"[<\[{(](?:years?|yyyy|name of|copyright holder|owner|author)", re.IGNORECASE)
HOLDERS_SHOWN, HOLDER_CHARS = 200, 300
SHOWN = 5  # of what is asked for and not there
LINES_BELOW = 5  # of a header: REUSE's lines may name the licence before the holders
SHELF = r"(?i)(?:^|/)(?:NOTICE(?:\.(?:txt|md|rst))?|LICENSES/[^/]+)$"
RULES, TEXTS = ("path_rule", "override", "aggregate"), ("license_file", "notice")  # kinds of evidence
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
    stated: dict[Place, None] = field(default_factory=dict)  # a folder and what something else than a licence file says
    rules: dict[Place, None] = field(default_factory=dict)  # files of rules that name paths; they name holders too


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
    there = {(one.repo_name, path) for one in components for path in one.files}
    gone = sorted(
        (selection.repositories - {repo for repo, _ in there}) | {" ".join(one) for one in selection.files - there}
    )
    if gone:
        raise InputError(
            f"The dataset in {out} has no {', '.join(gone[:SHOWN])}{', …' if gone[SHOWN:] else ''}: a notice for these would be "
            "incomplete. `stackbuild check` tells why."
        )
    if not components:
        raise InputError(f"No file of the dataset in {out} was selected; `stackbuild check` tells what is in it.")
    asked = {place for one in components for place in (*one.texts, *one.rules)}
    asked |= {(one.repo_name, path) for one in components for path, _ in one.headers}
    ids, shelf = _content_ids(build, asked, {one.repo_name for one in components})
    for component in components:
        _add_shelf(component, sorted(shelf.get(component.repo_name, ())))
    wanted = {place for one in components for place in (*one.texts, *one.rules)} | asked
    texts = dict(_texts(build, {place: ids[place] for place in sorted(wanted) if place in ids}))
    numbers: dict[str, int] = {}  # of licence texts, by their normal form
    shown: list[str] = []
    yield (
        f"This collection holds files of {_count(len(components), 'project')}. Each is under the licence of its authors."
    )
    for component in components:
        repo = component.repo_name
        yield ""
        yield plain(f"{repo} {component.revision_id}" + (f" ({component.url})" if component.url else ""))
        stated = joined(frozenset(component.expressions)) if component.expressions else "none stated"
        yield plain(f"  {_count(len(component.files), 'file')}; licence: {stated}")
        for holder in _holders(_lines_of(component, texts)):
            yield plain(f"  {holder}")
        for place in component.texts:
            name = plain(place[1] + ("" if place[0] == repo else f" of {place[0]}"))
            if place not in texts:
                yield f"  {name}: the build has no bytes of it"
                continue
            text = "\n".join(texts[place])
            number = numbers.setdefault(normal_form(text), len(numbers) + 1)
            if number > len(shown):
                shown.append(text)
            yield f"  {name}: text {number} below"
        if list_files:
            yield from (plain(f"    {path}") for path in component.files)
    for number, text in enumerate(shown, 1):
        yield ""
        yield f"---- text {number}"
        yield "\n".join(map(_quoted, text.split("\n")))


def _quoted(line: str) -> str:
    """A line of a licence text, which shall not look like one of ours, nor speak to the terminal."""
    shown = line if line.isprintable() else "".join(c for c in line if c == "\t" or unicodedata.category(c) != "Cc")
    return f" {shown}" if shown.startswith("---- text") else shown


def plain(text: str) -> str:
    """One line, whatever a name holds: what is not printed is written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _lines_of(component: Component, texts: Mapping[Place, list[str]]) -> Iterator[str]:
    """The lines that may name the holders of a component."""
    for place in component.texts:
        yield from texts.get(place, [])
    for place in component.rules:
        yield from _named_by_rules(place[1], texts.get(place, []))
    for path, last in component.headers:
        yield from texts.get((component.repo_name, path), [])[: last + LINES_BELOW]


def _named_by_rules(path: str, lines: Sequence[str]) -> Iterator[str]:
    """The lines of a file of rules; of REUSE.toml the values of its annotations, as lines of SPDX."""
    if not path.endswith("/REUSE.toml"):
        yield from lines
        return
    annotations = (read_toml("\n".join(lines)) or {}).get("annotations", [])
    for one in annotations if isinstance(annotations, list) else ():
        said = one.get("SPDX-FileCopyrightText", ()) if isinstance(one, dict) else ()
        for holder in [said] if isinstance(said, str) else said if isinstance(said, list) else ():
            yield f"SPDX-FileCopyrightText: {holder}"


def _add_shelf(component: Component, paths: Sequence[str]) -> None:
    """Add NOTICE files, and the texts of what no licence file said, from those that the repository has (sorted `paths`)."""
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    above = {place for path in component.files for place in _above(path)}
    for folder, expression in component.stated:
        identifiers = {word for word in re.split(r"[\s()]+", expression) if word not in ("", "AND", "OR", "WITH")}
        places = list(_above(folder + "/"))
        for place in places:
            for path in by_folder.get(place + "/LICENSES", []):
                name = path.rpartition("/")[2]
                if known := {name, name.rpartition(".")[0]} & identifiers:
                    component.texts.setdefault((component.repo_name, path))
                    identifiers -= known
    for folder in sorted(above):
        for path in by_folder.get(folder, []):
            if _is_notice(path):
                component.texts.setdefault((component.repo_name, path))


def _is_notice(path: str) -> bool:
    return re.fullmatch(r"notice(?:\..*)?", path.rpartition("/")[2], re.IGNORECASE) is not None


def _above(path: str) -> Iterator[str]:
    """The folders that a path ("/a/b") lies in, the nearest first, without the slash at the end; the root is empty."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def _components(paths: Iterable[Path], selection: Selection) -> list[Component]:
    """The projects of the selected files, by name and revision."""
    found: dict[tuple[str, str], Component] = {}
    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(columns=list(COLUMNS)):
                for row in selection.rows(batch).to_pylist():
                    key = row["repo_name"], row["revision_id"]
                    component = found.setdefault(key, Component(*key, row["repo_url"]))
                    component.files.append(row["path"])
                    _add(component, row["path"], row["license_evidence"] or ())
    for component in found.values():
        component.files.sort()
        component.headers.sort()
    return [found[key] for key in sorted(found)]


def _add(component: Component, path: str, evidence: Sequence[Mapping[str, Any]]) -> None:
    """Take what a file's evidence says of it."""
    stated: set[str] = set()  # keys, by what is no licence file
    for one in evidence:
        repo, kind, expression = one["repo_name"] or component.repo_name, one["kind"], one["expression"]
        if not one["decides"]:
            continue
        if expression:
            component.expressions.setdefault(expression)
        if kind in TEXTS:
            component.texts.setdefault((repo, one["path"]))
        elif expression:
            stated |= keys_of(expression)
            component.stated.setdefault((path.rpartition("/")[0], expression))
        if kind == "header" and one["first_line"]:
            component.headers.append((path, one["last_line"] or one["first_line"]))
        elif kind in RULES:
            component.rules.setdefault((repo, one["path"]))
    for one in evidence if stated else ():
        if one["kind"] in TEXTS and stated & keys_of(one["expression"] or ""):
            component.texts.setdefault((one["repo_name"] or component.repo_name, one["path"]))


def _holders(lines: Iterable[str]) -> list[str]:
    """Who holds a copyright, by the lines that say so, each once."""
    found: dict[str, None] = {}
    for line in lines:
        bare = line[:HOLDER_CHARS].strip().removeprefix("<!--").removesuffix("-->").strip(" \t*#/;%-!")
        short = " ".join((bare if bare.count("<") == bare.count(">") else bare.strip("<>")).split())
        spdx = SPDX_HOLDER.search(short)
        if spdx:
            found.setdefault("Copyright " + re.sub(r"^(?:copyright\b|\(c\)|©|\s)+", "", spdx[1], flags=re.IGNORECASE))
        elif TEMPLATE.search(short) is None and names_holder(short):
            found.setdefault(short)
    return list(found)[:HOLDERS_SHOWN]


def names_holder(line: str) -> bool:
    """Whether a line, without comment signs, says who holds a copyright."""
    if OF_LAW.search(line):
        return False
    return (
        DATED.search(line) is not None
        or SIGNED.match(line) is not None
        or (NAMED.match(line) is not None and NO_NAME.match(line) is None)
    )


def _texts(build: Build, ids: Mapping[Place, bytes]) -> Iterator[tuple[Place, list[str]]]:
    """The lines of files that the build read, whether they are released or not."""
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


def _content_ids(
    build: Build, places: Set[Place], repositories: Set[str]
) -> tuple[dict[Place, bytes], dict[str, set[str]]]:
    """(the content of each place, and of NOTICE and LICENSES/* of some repositories; the paths of these): of the first
    revision that has it, of a link what it leads to.
    """
    merge = next(node for node in build.nodes if node.stage.makes_files)
    stage = next((node.stage for node in build.nodes if node.stage.name == "licenses"), None)
    policy: Policy = getattr(stage, "policy", None) or load_policy("stackbuild")
    by_bucket: dict[int, set[str]] = {}
    for repo in {repo for repo, _ in places} | repositories:
        by_bucket.setdefault(owner_bucket(repo, build.plan.partitions), set()).add(repo)
    paths = pa.array(sorted({path for _, path in places}), pa.string())
    found: dict[Place, bytes] = {}
    shelf: dict[str, set[str]] = {}

    def remember(rows: pa.RecordBatch) -> None:
        path = rows.column("path")
        on_shelf = pc.match_substring_regex(path, SHELF)
        asked = pc.or_(on_shelf, pc.is_in(path, value_set=paths))
        rows, on_shelf = rows.filter(asked), on_shelf.filter(asked)
        columns = (rows.column(name).to_pylist() for name in ("repo_name", "path", "content_id"))
        for repo, place, content_id, shelved in zip(*columns, on_shelf.to_pylist(), strict=True):
            if shelved and repo in repositories:
                shelf.setdefault(repo, set()).add(place)
                found.setdefault((repo, place), content_id)
            elif (repo, place) in places:
                found.setdefault((repo, place), content_id)

    for bucket, repos in sorted(by_bucket.items()):
        names = pa.array(sorted(repos), pa.string())
        read = []
        for part in build.rows(merge, bucket).slices(SPEAKING.names[:-1]):
            own = part.batch.filter(pc.is_in(part.batch.column("repo_name"), value_set=names))
            read.append(speaking(own, policy))
            remember(own)
        tree = (
            batch.filter(pc.is_in(batch.column("repo_name"), value_set=names))
            for batch in read_batches(build.out, build.outputs(INGEST.name, "tree"), None, bucket, "owner_bucket")
        )
        linked = unread(tree, pa.Table.from_batches(read, SPEAKING), policy)
        for batch in linked.filter(pc.is_valid(linked["content_id"])).to_batches():
            remember(batch)
    return found, shelf


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
