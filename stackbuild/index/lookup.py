"""Answer "is it in the dataset, and why not?" from a build's published folders.

A query is an owner, owner/repo, a SWHID, a bare 40-digit id, or a file or folder on this machine, which is looked up by its
content. The answer names what is kept and, for what is not, the stage, rule, value and threshold of each file that left.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.hashing import owner_bucket, owner_of
from stackbuild.swhid import content_id

HEX_ID = re.compile(r"[0-9a-fA-F]{40}")
SWHID = re.compile(r"swh:1:(cnt|dir|rev|rel|snp|ori):([0-9a-fA-F]{40})(;.*)?", re.DOTALL)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
SCP = re.compile(r"(?:[^@/:\s]+@)?([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+):(?!/)(\S+)")
PLACES = ("/", "./", "../", "~")  # what a query that means a file or folder begins with, whatever the index knows
ID_COLUMNS = {"dir": "directory_id", "rev": "revision_id", "snp": "snapshot_id"}
LARGEST_FILE = 1 << 30


@dataclass
class Answer:
    """What is known of one query: `found` if anything of it is released; `seen` if it was read at all.

    A decision that is private to the keeper of the build has `private` set.
    """

    query: str
    kind: str
    found: bool = False
    seen: bool = False
    repositories: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


class Lookup:
    """Opens the look-up tables of a build; each query reads one bucket or a column, never the texts."""

    def __init__(self, out: Path):
        self.out = out
        self.names = sorted((out / "index").glob("names-*.parquet"))
        self.contents = sorted((out / "index").glob("contents-*.parquet"))
        self.decisions = sorted((out / "decisions").glob("*.parquet"))
        self.private = sorted((out / "private").glob("decisions-*.parquet"))
        if not self.names or not self.contents:
            raise InputError(
                f'{out} has no index: add "index" to the outputs of its recipe and build again, '
                "or name the output folder of a finished build."
            )

    def ask(self, query: str, why: bool = False) -> list[Answer]:
        """Answer one query; a folder gives an answer for each file in it."""
        if match := SWHID.fullmatch(query):
            kind, digits = match[1], match[2].lower()
            if kind == "cnt":
                return [self.by_content(query, digits, why)]
            if kind == "ori":
                return [self.by_origin(query, digits, why)]
            return [self.by_id(query, ID_COLUMNS.get(kind, "revision_id"), digits, why)]
        if query.startswith("swh:"):
            return [Answer(query, "SWHID", note="this is no SWHID: swh:1:, cnt, dir, rev, rel, snp or ori, 40 digits")]
        if HEX_ID.fullmatch(query):
            digits = query.lower()
            answer = self.by_content(query, digits, why)
            return [answer if answer.seen else self.by_id(query, "revision_id", digits, why)]
        if query.startswith(PLACES) or query in (".", ".."):
            return self.by_place(os.path.expanduser(query), why)
        answer = self.by_name(query, why)
        if not exists(query):
            return [answer]
        if not answer.seen:
            return self.by_place(query, why)
        answer.note = f"{answer.note} There is a file or folder of this name here too: ask for ./{query}.".strip()
        return [answer]

    # ---- repositories

    def by_name(self, query: str, why: bool) -> Answer:
        """An owner, or a repository: as it is called in the tables, or as a URL."""
        answer = Answer(query, "owner" if "/" not in query else "repository")
        for name in dict.fromkeys((query.strip().casefold(), canonical_name(query))):
            if not valid(name):
                continue
            places = [("name" if "/" in name else "owner", name, owner_bucket(name, len(self.names)))]
            if owner_of(f"{name}/_") == name and "/" in name:  # host/owner
                places.append(("owner", name, owner_bucket(f"{name}/_", len(self.names))))
            for column, wanted, bucket in places:
                table = pq.read_table(self.names[bucket])
                self._repositories(answer, table.filter(pc.equal(table[column], wanted)), why, bucket)
                if not answer.seen:
                    self._opted_out(answer, column, wanted, bucket)
                if answer.seen:
                    answer.kind = "repository" if column == "name" else "owner"
                    return answer
        return answer

    def by_id(self, query: str, column: str, digits: str, why: bool) -> Answer:
        """A revision, directory or snapshot."""
        answer = Answer(query, column.removesuffix("_id"))
        for bucket, path in enumerate(self.names):
            table = pq.read_table(path)
            values = pc.fill_null(table[column], "")
            self._repositories(
                answer, table.filter(pc.or_(pc.equal(values, digits), pc.ends_with(values, f":{digits}"))), why, bucket
            )
        return answer

    def by_origin(self, query: str, digits: str, why: bool) -> Answer:
        """An origin by the SHA-1 of its URL."""
        answer = Answer(query, "origin")
        for bucket, path in enumerate(self.names):
            table = pq.read_table(path)
            urls = [url for url in pc.unique(table["repo_url"]).to_pylist() if url and of_origin(url, digits)]
            self._repositories(
                answer, table.filter(pc.is_in(table["repo_url"], value_set=pa.array(urls, pa.string()))), why, bucket
            )
        return answer

    def _repositories(self, answer: Answer, table: pa.Table, why: bool, bucket: int) -> None:
        rows = table.to_pylist()
        answer.repositories += rows
        answer.seen |= bool(rows)
        answer.found |= any(row["kept"] for row in rows)
        if why and rows:
            names = pa.array(sorted({row["repo_name"] for row in rows}))
            decisions = pq.read_table(self.decisions[bucket])
            answer.decisions += decisions.filter(pc.is_in(decisions["repo_name"], value_set=names)).to_pylist()
            for row in self._private(bucket):
                if row["repo_name"] in {name.as_py() for name in names}:
                    answer.decisions.append(row)
                    answer.note = PRIVATE

    def _private(self, bucket: int) -> list[dict[str, Any]]:
        """The private decisions of a bucket: only the keeper of the build has them."""
        if not self.private:
            return []
        return [{**row, "private": True} for row in pq.read_table(self.private[bucket]).to_pylist()]

    def _opted_out(self, answer: Answer, column: str, wanted: str, bucket: int) -> None:
        """What left so that nobody is told."""
        fold = owner_of if column == "owner" else str.casefold
        if hits := [row for row in self._private(bucket) if fold(row["repo_name"]) == wanted]:
            answer.seen = True
            answer.decisions += hits
            answer.note = PRIVATE

    # ---- contents

    def by_place(self, place: str, why: bool) -> list[Answer]:
        """A file on this machine by its bytes, or every file below a folder."""
        if not exists(place):
            return [Answer(place, "file", note="there is no such file or folder here")]
        paths = [place] if os.path.isfile(place) else list(files_below(place))
        answers, ids = [], {}
        for path in paths:
            answers.append(Answer(path, "file"))
            try:
                size = os.path.getsize(path)
                if size > LARGEST_FILE:
                    answers[-1].note = f"not looked up: {size} bytes are more than any dataset file has"
                    continue
                with open(path, "rb") as file:
                    ids[len(answers) - 1] = content_id(file.read()).hex()
            except OSError as error:
                answers[-1].note = f"cannot be read: {error.strerror or error}"
        self._contents({number: (answers[number], digits) for number, digits in ids.items()}, why)
        return answers

    def by_content(self, query: str, digits: str, why: bool) -> Answer:
        """A content by its git SHA-1."""
        answer = Answer(query, "content")
        self._contents({0: (answer, digits)}, why)
        return answer

    def _contents(self, asked: Mapping[int, tuple[Answer, str]], why: bool) -> None:
        """Fill in answers by content; each table is read once, whatever number is asked for."""
        buckets: dict[int, list[tuple[Answer, str]]] = {}
        for answer, digits in asked.values():
            buckets.setdefault((int(digits[:4], 16) * len(self.contents)) >> 16, []).append((answer, digits))
        for bucket, wanted in sorted(buckets.items()):
            table = pq.read_table(
                self.contents[bucket], filters=[("content_id", "in", {digits for _, digits in wanted})]
            )
            rows: dict[str, list[dict[str, Any]]] = {}
            for row in table.to_pylist():
                rows.setdefault(row["content_id"], []).append(row)
            for answer, digits in wanted:
                answer.files = rows.get(digits, [])
                answer.found = answer.seen = bool(answer.files)
        open_: dict[bytes, list[Answer]] = {}
        for answer, digits in asked.values():
            if why or not answer.found:
                open_.setdefault(bytes.fromhex(digits), []).append(answer)
        if not open_:
            return
        ids = pa.array(list(open_), pa.binary(20))
        for path, private in (
            (path, table is self.private) for table in (self.decisions, self.private) for path in table
        ):
            hits = pq.read_table(path, filters=pc.is_in(pc.field("content_id"), ids))
            for row in hits.to_pylist():
                for answer in open_[row["content_id"]]:
                    answer.decisions.append({**row, "private": True} if private else row)
                    answer.seen = True
                    answer.note = PRIVATE if private else answer.note


PRIVATE = "What the opt-out list removed is private to the keeper of the build."


def canonical_name(query: str) -> str:
    """A repository's name from a URL, folded: scheme, credentials, port, github.com, `.git` and slashes at the end go;
    `user@host:path` is a URL too."""
    name = query.strip()
    if SCHEME.match(name):
        try:
            parts = urlsplit(name)
            name = f"{parts.hostname or ''}{parts.path}"
        except ValueError:
            pass
    elif scp := SCP.fullmatch(name):
        name = f"{scp[1]}/{scp[2]}"
    name = re.sub(r"^(?:www\.)?github\.com/", "", name, flags=re.IGNORECASE)
    return name.rstrip("/").removesuffix(".git").rstrip("/").casefold()


def valid(name: str) -> bool:
    """Whether a name can be of a repository at all: not empty, and UTF-8."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def exists(query: str) -> bool:
    try:
        return os.path.exists(query)
    except ValueError:
        return False


def of_origin(url: str, digits: str) -> bool:
    """Whether an origin's SWHID is of this URL, with or without `.git` (it is the SHA-1 of the URL as it was visited)."""
    return any(hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() == digits for text in (url, f"{url}.git"))


def files_below(folder: str) -> Iterator[str]:
    """Regular files below a folder, in order, without following links or entering .git."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        yield from (
            path
            for name in sorted(names)
            if os.path.isfile(path := os.path.join(root, name)) and not os.path.islink(path)
        )
