"""Answer "is it in the dataset, and why not?" from a build's published folders.

A query is an owner, owner/repo, a SWHID, a bare 40-digit id, or a file or folder on this machine, which is looked up by its
content. The answer names what is kept and, for what is not, the stage, rule, value and threshold of each file that left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.hashing import owner_bucket, owner_of
from stackbuild.swhid import content_id

HEX_ID = re.compile(r"[0-9a-f]{40}")
SWHID = re.compile(r"swh:1:(cnt|dir|rev|rel|snp):([0-9a-f]{40})(;.*)?")
ID_COLUMNS = {"dir": "directory_id", "rev": "revision_id", "snp": "snapshot_id"}
LARGEST_FILE = 1 << 30


@dataclass
class Answer:
    """What is known of one query: `found` if anything of it is released; `seen` if it was read at all."""

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
            kind, digits = match[1], match[2]
            return [
                self.by_content(query, digits, why)
                if kind == "cnt"
                else self.by_id(query, ID_COLUMNS.get(kind, "revision_id"), digits, why)
            ]
        if HEX_ID.fullmatch(query):
            answer = self.by_content(query, query, why)
            return [answer if answer.seen else self.by_id(query, "revision_id", query, why)]
        if os.path.isdir(query):
            return [self.by_file(path, why) for path in files_below(query)]
        if os.path.isfile(query):
            return [self.by_file(query, why)]
        return [self.by_name(query, why)]

    # ---- repositories

    def by_name(self, query: str, why: bool) -> Answer:
        """An owner, or a repository."""
        name = canonical_name(query)
        answer = Answer(query, "repository" if "/" in name else "owner")
        bucket = owner_bucket(name, len(self.names))
        table = pq.read_table(self.names[bucket])
        column, wanted = ("name", name) if "/" in name else ("owner", owner_of(name))
        self._repositories(answer, table.filter(pc.equal(table[column], wanted)), why, bucket)
        if not answer.seen:
            self._opted_out(answer, column, wanted, bucket)
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

    def _repositories(self, answer: Answer, table: pa.Table, why: bool, bucket: int) -> None:
        rows = table.to_pylist()
        answer.repositories += rows
        answer.seen |= bool(rows)
        answer.found |= any(row["kept"] for row in rows)
        if why and rows:
            names = pa.array(sorted({row["repo_name"] for row in rows}))
            decisions = pq.read_table(self.decisions[bucket])
            answer.decisions += decisions.filter(pc.is_in(decisions["repo_name"], value_set=names)).to_pylist()

    def _opted_out(self, answer: Answer, column: str, wanted: str, bucket: int) -> None:
        """Only the keeper of the build can see this: the private decisions never leave it."""
        if not self.private:
            return
        table = pq.read_table(self.private[bucket], columns=["repo_name", "stage", "rule", "path", "revision_id"])
        fold = owner_of if column == "owner" else str.casefold
        hits = [row for row in table.to_pylist() if fold(row["repo_name"]) == wanted]
        if hits:
            answer.seen = True
            answer.decisions += hits
            answer.note = "It was opted out; this answer is private to the keeper of the build."

    # ---- contents

    def by_file(self, path: str, why: bool) -> Answer:
        """A file on this machine, by its bytes."""
        size = os.path.getsize(path)
        if size > LARGEST_FILE:
            return Answer(path, "file", note=f"not looked up: {size} bytes are more than any dataset file has")
        with open(path, "rb") as file:
            return self.by_content(path, content_id(file.read()).hex(), why, "file")

    def by_content(self, query: str, digits: str, why: bool, kind: str = "content") -> Answer:
        """A content by its git SHA-1."""
        answer = Answer(query, kind)
        bucket = (int(digits[:4], 16) * len(self.contents)) >> 16
        table = pq.read_table(self.contents[bucket], filters=[("content_id", "=", digits)])
        answer.files = table.to_pylist()
        answer.found = answer.seen = bool(answer.files)
        if why or not answer.found:
            raw = bytes.fromhex(digits)
            for path in (*self.decisions, *self.private):
                hits = pq.read_table(path, filters=[("content_id", "=", raw)])
                answer.decisions += hits.to_pylist()
            answer.seen |= bool(answer.decisions)
        return answer


def canonical_name(query: str) -> str:
    """A repository name or URL, folded: scheme, credentials, github.com, `.git` and slashes at the end go."""
    name = re.sub(r"^(?:[a-z+]+://|git@)(?:[^@/]*@)?", "", query.strip())
    name = re.sub(r"^github\.com[/:]", "", name, flags=re.IGNORECASE)
    return name.rstrip("/").removesuffix(".git").rstrip("/").casefold()


def files_below(folder: str) -> Iterator[str]:
    """Regular files below a folder, in order, without following links or entering .git."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        yield from (
            path
            for name in sorted(names)
            if os.path.isfile(path := os.path.join(root, name)) and not os.path.islink(path)
        )
