"""Whether a manifest holds, level by level (Software Heritage practice): 0 the files are those of the header and the rows
are well formed; 1 the bytes are those of the ids: length, SHA-1 and git SHA-1; 2 each path lies in the root directory that
its row names; 3 the revision has this root; 4 the emitted text is what becomes of the bytes.

Each level counts rows: ok; missing upstream; taken down (the store refuses it); changed; unchecked, with the reason. Every
pass is over a sorted stream (`passes.py`), so that memory does not grow with the manifest, but for the largest tree.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError
from stackbuild.release.manifest import PLACE, ROOT_COLUMNS, Manifest, root_bytes
from stackbuild.release.passes import WIDE_ROWS, ordered, passes
from stackbuild.release.supply import CHANGED, OK, STATES, UNCHECKED, Supply, answered
from stackbuild.schema import MANIFEST_TREE, TRANSFORMS
from stackbuild.shards import file_sha256
from stackbuild.swhid import MalformedTree, TreeBuilder, content_id
from stackbuild.wanted import Fetched, Wanted

SHOWN = 10  # problems of a level
NAMES = ("syntax", "bytes", "paths in their trees", "roots of their revisions", "emitted text")
TEXT_BYTES = 32 << 20  # of contents that are made into text at a time

SWHID: Final = r"^swh:1:cnt:[0-9a-f]{40}(;.*)?\z"  # qualifiers are accepted and count for nothing
HEX: Final = {"sha1": r"^[0-9a-f]{40}\z", "text_sha256": r"^[0-9a-f]{64}\z"}
BAD_PATH: Final = r"^/|^\z|(^|/)\.{0,2}(/|\z)|\x00"  # absolute, empty, or with an empty part, "." or ".."


@dataclass
class Level:
    """How one level went, in rows; `problems` names the first of those that do not hold, `reasons` why rows are unchecked."""

    level: int
    ok: int = 0
    missing: int = 0
    taken_down: int = 0
    changed: int = 0
    malformed: int = 0
    unchecked: int = 0
    problems: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        return not self.changed and not self.malformed

    @property
    def gone(self) -> int:
        return self.missing + self.taken_down

    def count(self, state: str, rows: int = 1, problem: str = "") -> None:
        """Count rows of a state; `problem`: where and what, or the reason why they are unchecked."""
        setattr(self, state, getattr(self, state) + rows)
        if state == UNCHECKED:
            self.reasons[problem] += rows
        elif state != OK and len(self.problems) < SHOWN:
            self.problems.append(problem)


REPLAY_COLUMNS = ("repo_name", "language")  # of a file, which a stage may look at beside its text


class Replay(Protocol):
    """Makes text of bytes again as the header says (`stackbuild.replay`)."""

    def texts(self, raw: Sequence[bytes], rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        """The UTF-8 of each text, or in words why there is none; `rows`: src_encoding, transforms and REPLAY_COLUMNS of each."""
        ...

    def refused(self, transforms: Sequence[dict[str, Any]]) -> str | None:
        """Why the transforms of a row cannot be done again here; None if they can."""
        ...


# repository, revision -> the root that its source has, or in words why nobody can tell
Roots = Callable[[str, str], tuple[bytes | None, str]]


# ---------------------------------------------------------------- 0


def verify_syntax(manifest: Manifest, dataset: Path | None) -> Level:
    """The files of manifest and dataset hash to the header and are all that there are; every id, path and place is well
    formed; no path of a revision stands twice. `dataset`: None to look at the manifest alone."""
    result = Level(0)
    sides = [(manifest.folder, [(e["manifest"], e["manifest_sha256"]) for e in manifest.files])]
    sides[0][1].extend((entry["file"], entry["sha256"]) for entry in manifest.trees)
    if dataset is not None:
        sides.append((dataset, [(e["dataset"], e["dataset_sha256"]) for e in manifest.files]))
    for folder, files in sides:
        for name, sha256 in files:
            path = folder / name
            if not path.is_file() or file_sha256(path) != sha256:
                result.count("malformed", problem=f"{path} is missing or does not hash to {sha256}")
        named = {name for name, _ in files}
        there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix == ".parquet" or p.is_symlink()}
        for extra in sorted(there - named):
            result.count("malformed", problem=f"{folder / extra} is not in the header")
    if not result.holds:
        return result
    root, rows = hashlib.sha256(), [0] * len(manifest.files)
    for batch in manifest.rows(pa.schema([*ROWS, *PLACE])):
        root.update(root_bytes(batch))
        file = batch.column("file")[0].as_py() if batch.num_rows else 0
        rows[file] += batch.num_rows
        well_formed(manifest, batch, result)
    for entry, count in zip(manifest.files, rows, strict=True):
        if entry["rows"] != count:
            where = manifest.folder / entry["manifest"]
            result.count("malformed", problem=f"{where} has {count} rows, the header says {entry['rows']}")
    stated = (manifest.header.get("rows"), manifest.header.get("rows_sha256"))
    if stated != (sum(rows), root.hexdigest()):
        result.count("malformed", problem=f"{manifest.folder / 'header.json'} states rows or rows_sha256 of other rows")
    twice(manifest, result)
    result.ok = max(0, sum(rows) - result.malformed)
    return result


ROWS = pa.schema(
    [
        ("swhid", pa.string()),
        ("sha1", pa.string()),
        ("repo_name", pa.string()),
        ("revision_id", pa.string()),
        ("path_bytes", pa.binary()),
        ("length", pa.int64()),
        ("text_sha256", pa.string()),
    ]
)


def well_formed(manifest: Manifest, batch: pa.RecordBatch, result: Level) -> None:
    """Count the rows of a batch that are not, each with file and row."""
    none = pa.array(np.zeros(batch.num_rows, bool))

    def bad(name: str, pattern: str, matching: bool) -> pa.Array:
        found = pc.match_substring_regex(batch.column(name), pattern)
        return pc.fill_null(found if matching else pc.invert(found), True)

    checks = {
        "is not a SWHID of a content": bad("swhid", SWHID, False),
        "is not a path below the root": bad("path_bytes", BAD_PATH, True),
        "has no SHA-1": bad("sha1", HEX["sha1"], False),
        "has no SHA-256 of its text": bad("text_sha256", HEX["text_sha256"], False),
        "has no length": pc.fill_null(pc.less(batch.column("length"), 0), True),
        "names no repository or revision": pc.or_(
            pc.is_null(batch.column("repo_name")), pc.is_null(batch.column("revision_id"))
        ),
    }
    seen = none
    for what, wrong in checks.items():
        new = pc.and_(wrong, pc.invert(seen))
        seen = pc.or_(seen, wrong)
        for index in pc.indices_nonzero(new).to_pylist():
            row = {name: batch.column(name)[index].as_py() for name in batch.schema.names}
            value = row["swhid"] if "SWHID" in what else row["path_bytes"]
            shown = ascii(value)[:120]
            place = manifest.place(row["file"], row["row"])
            result.count("malformed", problem=f"{place} ({ascii(row['repo_name'])[:120]}): {shown} {what}")


def twice(manifest: Manifest, result: Level) -> None:
    """Count the rows whose path of a revision stands in an earlier row too."""
    schema = pa.schema([*(ROWS.field(name) for name in ROOT_COLUMNS[1:]), *PLACE])
    query = f"""SELECT repo_name, path_bytes, min(file::BIGINT * {WIDE_ROWS} + row) AS first,
        max(file::BIGINT * {WIDE_ROWS} + row) AS last, count(*) AS n
        FROM rows GROUP BY repo_name, revision_id, path_bytes HAVING count(*) > 1 ORDER BY last"""
    with passes() as connection:
        for batch in ordered(connection, {"rows": (schema, lambda: manifest.rows(schema))}, query):
            for row in batch.to_pylist():
                first, last = (manifest.place(*divmod(row[name], WIDE_ROWS)) for name in ("first", "last"))
                what = (
                    f"{ascii(row['repo_name'])[:120]} {ascii(row['path_bytes'])[:120]} is there twice, first in {first}"
                )
                result.count("malformed", row["n"] - 1, f"{last}: {what}")


# ---------------------------------------------------------------- 1 and 4

DERIVED = pa.schema(
    [
        ("swhid", pa.string()),
        ("sha1", pa.string()),
        ("length", pa.int64()),
        ("src_encoding", pa.string()),
        ("transforms", TRANSFORMS),
        ("text_sha256", pa.string()),
        *((name, pa.string()) for name in REPLAY_COLUMNS),
    ]
)


@dataclass
class Content:
    """A content and the rows that are made of it."""

    wanted: Wanted
    rows: list[dict[str, Any]]


def verify_bytes(manifest: Manifest, supply: Supply, replay: Replay | None) -> list[Level]:
    """Level 1, and with a `replay` level 4, in one pass over the bytes."""
    first, fourth = Level(1), Level(4)
    ready: list[tuple[bytes, dict[str, Any]]] = []
    size = 0
    for content, answer in answered(contents_of(manifest), lambda content: content.wanted, supply):
        state, problem = judged(answer)
        place = manifest.place(content.rows[0]["file"], content.rows[0]["row"])
        what = (
            f"{place}: swh:1:cnt:{content.wanted.content_id.hex()}: {problem}" if content.wanted.content_id else place
        )
        first.count(state, len(content.rows), answer.state if state == UNCHECKED else what)
        if replay is None:
            continue
        if state != OK or answer.data is None:
            reason = "its bytes could not be had" if state != CHANGED else "its bytes are not those of its id"
            fourth.count(UNCHECKED, len(content.rows), reason)
            continue
        ready += [(answer.data, row) for row in content.rows]
        size += len(answer.data) * len(content.rows)
        if size >= TEXT_BYTES:
            verify_texts(manifest, ready, replay, fourth)
            ready, size = [], 0
    if replay is None:
        return [first]
    verify_texts(manifest, ready, replay, fourth)
    return [first, fourth]


def contents_of(manifest: Manifest) -> Iterator[Content]:
    """The contents of all rows by content_id, each with the rows that want just this length and SHA-1."""
    schema = pa.schema([*DERIVED, *PLACE])
    query = "SELECT * REPLACE (substr(swhid, 11, 40) AS swhid) FROM rows ORDER BY swhid, sha1, length, file, row"
    with passes() as connection:
        batches = ordered(connection, {"rows": (schema, lambda: manifest.rows(schema))}, query)
        rows = chain.from_iterable(batch.to_pylist() for batch in batches)
        for (identifier, sha1, length), group in groupby(rows, itemgetter("swhid", "sha1", "length")):
            yield Content(Wanted(bytes.fromhex(sha1), bytes.fromhex(identifier), length), list(group))


def judged(answer: Fetched) -> tuple[str, str]:
    """(state of the rows, what is wrong in words) of an answer; bytes are hashed whoever brought them."""
    wanted = answer.wanted
    if answer.state != "ok" or answer.data is None:
        words = {"missing": "its bytes are not there", "forbidden": "its bytes are withheld by the store"}
        return STATES.get(answer.state, CHANGED), words.get(answer.state, f"its bytes came {answer.state}")
    sha1, length = hashlib.sha1(answer.data, usedforsecurity=False).digest(), len(answer.data)
    known = wanted.content_id is None or content_id(answer.data) == wanted.content_id
    if known and sha1 == wanted.blob_id and wanted.length in (None, length):
        return OK, ""
    return CHANGED, f"its bytes have SHA-1 {sha1.hex()} and length {length}"


def verify_texts(manifest: Manifest, ready: list[tuple[bytes, dict[str, Any]]], replay: Replay, result: Level) -> None:
    """Count the rows whose text, made again, has the SHA-256 that they state."""
    doable = []
    for data, row in ready:
        reason = replay.refused(row["transforms"] or [])
        if reason is None:
            doable.append((data, row))
        else:
            result.count(UNCHECKED, problem=reason)
    texts = replay.texts([data for data, _ in doable], [row for _, row in doable])
    for (_, row), text in zip(doable, texts, strict=True):
        found = hashlib.sha256(text).hexdigest() if isinstance(text, bytes) else text
        good = found == row["text_sha256"]
        where = manifest.place(row["file"], row["row"])
        what = "its text has SHA-256 " + found if isinstance(text, bytes) else found
        result.count(OK if good else CHANGED, problem=f"{where}: {what}, the row says {row['text_sha256']}")


# ---------------------------------------------------------------- 2

PATHS = pa.schema(
    [
        *(ROWS.field(name) for name in ("repo_name", "revision_id", "path_bytes", "swhid")),
        ("mode", pa.int32()),
        ("directory_id", pa.string()),
    ]
)


def verify_paths(manifest: Manifest) -> Level:
    """The root directory, made again from the rows of a revision and the manifest's table `tree`, is the one that they name."""
    result = Level(2)
    rows, tree = pa.schema([*PATHS, *PLACE]), MANIFEST_TREE
    query = """SELECT repo_name, revision_id, path_bytes, mode, unhex(substr(swhid, 11, 40)) AS target, directory_id, file, row
        FROM rows UNION ALL BY NAME SELECT * FROM tree ORDER BY repo_name, revision_id, path_bytes, file NULLS LAST, row"""
    tables = {"rows": (rows, lambda: manifest.rows(rows)), "tree": (tree, lambda: manifest.tree_rows(tree))}
    with passes() as connection:
        batches = ordered(connection, tables, query)
        entries = chain.from_iterable(batch.to_pylist() for batch in batches)
        for (repo, revision), group in groupby(entries, itemgetter("repo_name", "revision_id")):
            verify_tree(manifest, f"{ascii(repo)[:120]} at {ascii(revision)[:80]}", list(group), result)
    return result


def verify_tree(manifest: Manifest, what: str, entries: list[dict[str, Any]], result: Level) -> None:
    """Count the rows of one revision."""
    mine = [entry for entry in entries if entry["file"] is not None]
    if not mine:
        return
    if any(entry["target"] is None for entry in entries):
        result.count(UNCHECKED, len(mine), "its tree was not read whole, or may not be shown")
        return
    named = [entry for entry in mine if entry["directory_id"] is not None]
    if len(named) < len(mine):
        result.count(UNCHECKED, len(mine) - len(named), "its revision names no root directory")
    if not named:
        return
    builder = TreeBuilder()
    try:
        for entry in entries:
            builder.add(entry["path_bytes"], entry["mode"] or 0, entry["target"])
        actual = builder.root().hex()
    except MalformedTree as error:
        actual = f"none: {error}"
    wrong = [entry for entry in named if entry["directory_id"] != actual]
    if wrong:
        place = manifest.place(wrong[0]["file"], wrong[0]["row"])
        stated = wrong[0]["directory_id"]
        result.count(CHANGED, len(wrong), f"{place}: {what}: the root directory is {actual}, the row says {stated}")
    result.count(OK, len(named) - len(wrong))


# ---------------------------------------------------------------- 3


def verify_roots(manifest: Manifest, roots: Roots) -> Level:
    """The source's revision has the root directory that the rows name."""
    result = Level(3)
    schema = pa.schema([*(PATHS.field(name) for name in ("repo_name", "revision_id", "directory_id")), *PLACE])
    query = f"""SELECT repo_name, revision_id, directory_id, count(*) AS n, min(file::BIGINT * {WIDE_ROWS} + row) AS first
        FROM rows GROUP BY ALL ORDER BY ALL"""
    with passes() as connection:
        for batch in ordered(connection, {"rows": (schema, lambda: manifest.rows(schema))}, query):
            for row in batch.to_pylist():
                if row["directory_id"] is None:
                    result.count(UNCHECKED, row["n"], "its revision names no root directory")
                    continue
                actual, reason = roots(row["repo_name"], row["revision_id"])
                place = manifest.place(*divmod(row["first"], WIDE_ROWS))
                what = f"{ascii(row['repo_name'])[:120]} at {ascii(row['revision_id'])[:80]}"
                if actual is None:
                    result.count(UNCHECKED, row["n"], reason)
                elif actual.hex() == row["directory_id"]:
                    result.count(OK, row["n"])
                else:
                    stated = row["directory_id"]
                    problem = f"{place}: {what} has the root directory {actual.hex()}, the row says {stated}"
                    result.count(CHANGED, row["n"], problem)
    return result


def require(results: Sequence[Level]) -> None:
    """InputError with what does not hold, if anything does not."""
    if problems := [problem for result in results if not result.holds for problem in result.problems]:
        raise InputError("The manifest does not hold:\n" + "\n".join(f"  {problem}" for problem in problems))
