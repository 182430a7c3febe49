"""Answer "is it in the dataset, and why not?" from a build's published folders.

A query is an owner, owner/repo, a SWHID, a bare 40-digit id, or a file or folder on this machine, which is looked up by its
content. The answer names what is kept and, for what is not, the stage, rule, value and threshold of each file that left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.hashing import owner_bucket, owner_of
from stackbuild.origins import GITHUB, canonical_url, name_of_url, origin_digests
from stackbuild.swhid import content_id

HEX_ID = re.compile(r"[0-9a-fA-F]{40}")
SWHID = re.compile(r"swh:1:(cnt|dir|rev|rel|snp|ori):([0-9a-f]{40})(;.*)?", re.DOTALL | re.IGNORECASE)
GITHUB_NAME = re.compile(r"[a-z0-9_-]+(/[a-z0-9_.-]+)?")  # folded
PLACES = ("/", "./", "../", "~")  # what a query that means a file or folder begins with, whatever the index knows
ID_COLUMNS = {"dir": "directory_id", "rev": "revision_id", "snp": "snapshot_id"}
LARGEST_FILE = 1 << 30
SHOWN = 5  # names in a note
PRIVATE = "What the opt-out list removed is private to the keeper of the build."


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
        self.names = parts(out / "index", "names")
        self.contents = parts(out / "index", "contents")
        self.decisions = parts(out / "decisions", "part")
        self.private = parts(out / "private", "decisions")
        if not self.names or not self.contents:
            raise InputError(
                f'{out} has no index: add "index" to the outputs of its recipe and build again, '
                "or name the output folder of a finished build."
            )
        if any(len(table) not in (0, len(self.names)) for table in (self.decisions, self.private)):
            raise InputError(f"index, decisions and private of {out} are of different builds; run the build again.")
        if not all(os.access(path, os.R_OK) for path in self.private):
            self.private = []  # kept from us: who asks is not the keeper

    def ask(self, query: str, why: bool = False) -> list[Answer]:
        """Answer one query; a folder gives an answer for each file in it."""
        if match := SWHID.fullmatch(query):
            kind, digits = match[1].lower(), match[2].lower()
            if kind == "cnt":
                return [self.by_content(query, digits, why)]
            if kind == "ori":
                return [self.by_origin(query, digits, why)]
            return [self.by_id(query, ID_COLUMNS.get(kind, "revision_id"), digits, why)]
        if query[:4].lower() == "swh:":
            return [Answer(query, "SWHID", note="this is no SWHID: swh:1:, cnt, dir, rev, rel, snp or ori, 40 digits")]
        if HEX_ID.fullmatch(query):
            digits = query.lower()
            answer = self.by_content(query, digits, why)
            return [answer if answer.seen else self.by_id(query, "revision_id", digits, why)]
        if query.startswith(PLACES) or query in (".", ".."):
            return self.by_place(query, why)
        answer = self.by_name(query, why)
        if not exists(query):
            return [answer]
        if not answer.seen:
            return self.by_place(query, why)
        answer.note = f"{answer.note} There is a file or folder of this name here too: ask for ./{query}.".strip()
        return [answer]

    # ---- repositories

    def by_name(self, query: str, why: bool) -> Answer:
        """An owner, or a repository: as it is called in the tables, or by a URL."""
        answer = Answer(query, "owner" if "/" not in query else "repository")
        for name in filter(valid, dict.fromkeys((query.strip().casefold(), canonical_name(query)))):
            places = [("name" if "/" in name else "owner", name)]
            if "/" in name and owner_of(f"{name}/_") == name:  # host/owner
                places.append(("owner", name))
            for column, wanted in places:
                bucket = owner_bucket(name if column == "name" else f"{name}/_", len(self.names))
                rows = read(self.names[bucket], pc.field(column) == wanted).to_pylist()
                self._repositories(answer, rows, why, bucket)
                if why or not rows:
                    fold: Callable[[str], str] = owner_of if column == "owner" else str.casefold
                    self._private(answer, bucket, fold, {wanted})
                if answer.seen:
                    answer.kind = "repository" if column == "name" else "owner"
                    return answer
        return self._by_other_name(answer, why)

    def _by_other_name(self, answer: Answer, why: bool) -> Answer:
        """A repository, or those of an owner, under a name that it once bore: every bucket is looked through."""
        wanted = canonical_name(answer.query)
        if not GITHUB_NAME.fullmatch(wanted) or "other_names" not in pq.read_schema(self.names[0]).names:
            return answer
        name = f"(^| ){re.escape(wanted)}" + ("( |$)" if "/" in wanted else "/")
        self._everywhere(answer, pc.match_substring_regex(pc.field("other_names"), name, ignore_case=True), why)
        if answer.repositories:
            names = sorted({row["repo_name"] for row in answer.repositories})
            shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            what = "a former or later name" if "/" in wanted else "a former or later owner"
            answer.note = f"{answer.query} is {what} of {shown}. {answer.note}".strip()
        return answer

    def by_id(self, query: str, column: str, digits: str, why: bool) -> Answer:
        """A revision, directory or snapshot."""
        is_it = (pc.field(column) == digits) | pc.ends_with(pc.field(column), pattern=f":{digits}")
        return self._everywhere(Answer(query, column.removesuffix("_id")), is_it, why)

    def by_origin(self, query: str, digits: str, why: bool) -> Answer:
        """An origin by the SHA-1 of its URL, in any of the URL's common spellings."""
        known = {
            url
            for path in self.names
            for url in pc.unique(read(path, columns=["repo_url"])["repo_url"]).to_pylist()
            if url
        }
        urls = pa.array(sorted(url for url in known if digits in origin_digests(url)), pa.string())
        return self._everywhere(Answer(query, "origin"), pc.is_in(pc.field("repo_url"), value_set=urls), why)

    def _everywhere(self, answer: Answer, is_it: pc.Expression, why: bool) -> Answer:
        """Fill in an answer from every bucket."""
        for bucket, path in enumerate(self.names):
            rows = read(path, is_it).to_pylist()
            self._repositories(answer, rows, why, bucket)
            if why and rows:
                self._private(answer, bucket, str, {row["repo_name"] for row in rows})
        return answer

    def _repositories(self, answer: Answer, rows: list[dict[str, Any]], why: bool, bucket: int) -> None:
        answer.repositories += rows
        answer.seen |= bool(rows)
        answer.found |= any(row["kept"] for row in rows)
        if why and rows and not self.decisions:
            answer.note = f"{self.out} has no decisions: only the counts by rule are known."
        elif why and rows:
            names = pa.array(sorted({row["repo_name"] for row in rows}), pa.string())
            is_of = pc.is_in(pc.field("repo_name"), value_set=names)
            answer.decisions += read(self.decisions[bucket], is_of).to_pylist()

    def _private(self, answer: Answer, bucket: int, fold: Callable[[str], str], wanted: set[str]) -> None:
        """Add what left so that nobody is told, of repositories whose folded name is wanted; only the keeper has it."""
        if not self.private:
            return
        table = read(self.private[bucket])
        names = [name for name in pc.unique(table["repo_name"]).to_pylist() if fold(name) in wanted]
        hits = table.filter(pc.is_in(table["repo_name"], value_set=pa.array(names, pa.string()))).to_pylist()
        if hits:
            answer.seen = True
            answer.decisions += [{**row, "private": True} for row in hits]
            answer.note = PRIVATE

    # ---- contents

    def by_place(self, place: str, why: bool) -> list[Answer]:
        """A file on this machine by its bytes, or every file below a folder."""
        if place.startswith("~") and valid(place):
            place = os.path.expanduser(place)
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
            ids = pa.array(sorted({digits for _, digits in wanted}), pa.string())
            table = read(self.contents[bucket], pc.is_in(pc.field("content_id"), value_set=ids))
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
        binary_ids = pa.array(list(open_), pa.binary(20))
        for path, private in (
            (path, table is self.private) for table in (self.decisions, self.private) for path in table
        ):
            hits = read(path, pc.is_in(pc.field("content_id"), value_set=binary_ids))
            for row in hits.to_pylist():
                for answer in open_[row["content_id"]]:
                    answer.decisions.append({**row, "private": True} if private else row)
                    answer.seen = True
                    answer.note = PRIVATE if private else answer.note


def canonical_name(query: str) -> str:
    """The folded name that sources give to what a query names: an URL, `user@host:path`, `host/path` or a name.

    A page within a repository, as a browser shows it, names the repository.
    """
    name = query.strip()
    url = canonical_url(name)
    if url is None and "." in name.split("/", 1)[0] and "/" in name:
        url = canonical_url(f"https://{name}")
    if url is None:
        return name.rstrip("/").removesuffix(".git").rstrip("/").casefold()
    name = name_of_url(url).casefold().split("/-/", 1)[0]
    if name.startswith(f"{GITHUB}/"):  # an owner, or more than owner/repo
        name = "/".join(name.split("/")[1:3])
    return name


def parts(folder: Path, stem: str) -> list[Path]:
    """The files of a published table in order, none if it is not there; InputError if some of them are wanting."""
    found = sorted(folder.glob(f"{stem}-*-of-*.parquet"))
    if [path.name for path in found] != [f"{stem}-{k:05d}-of-{len(found):05d}.parquet" for k in range(len(found))]:
        raise InputError(f"Some of the files {folder / stem}-*.parquet are missing or too many; run the build again.")
    return found


def read(path: Path, filters: pc.Expression | None = None, columns: list[str] | None = None) -> pa.Table:
    """The rows of a file for which an expression is true; InputError if it is torn or has other columns."""
    try:
        return pq.read_table(path, columns=columns, filters=filters)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be read ({reason}). `stackbuild verify` tells what else is damaged; run the build again."
        ) from error


def valid(name: str) -> bool:
    """Whether a text can name anything at all: not empty, UTF-8, without a NUL."""
    try:
        return bool(name.encode()) and "\0" not in name
    except UnicodeEncodeError:
        return False


def exists(query: str) -> bool:
    """Whether there is such a file or folder here; any text may be asked for."""
    try:
        return os.path.exists(query)
    except ValueError:
        return False


def files_below(folder: str) -> Iterator[str]:
    """Regular files below a folder, in order, without following links or entering .git."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        yield from (
            path
            for name in sorted(names)
            if os.path.isfile(path := os.path.join(root, name)) and not os.path.islink(path)
        )
