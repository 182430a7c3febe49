"""Rules that name paths (REUSE.toml, .reuse/dep5, debian/copyright, FILE.license), and which of them a file is under.

Of the rules of one file the last that matches a path holds for it; of the files that do, FILE.license, which is about that
file alone, then the one in the nearest folder (REUSE specification 3.3, "closest"), there REUSE.toml before dep5 before
debian/copyright, but a rule that overrides is stronger than all in folders below it. One that says "aggregate"
counts together with the header of the file (`copies`); the others give way to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.licenses.decide import UNKNOWN
from stackbuild.licenses.declared import Declaration, governing
from stackbuild.licenses.inherit import CARRIED, Found
from stackbuild.licenses.policy import Policy
from stackbuild.licenses.reading import SAID, kind_of
from stackbuild.licenses.tags import joined
from stackbuild.licenses.weigh import Row, what_counts

PATH_RULES = pa.schema(
    [
        pa.field("partition", pa.uint16(), nullable=False),
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        pa.field("folder", pa.binary(), nullable=False),  # that its globs are relative to
        pa.field("path", pa.string(), nullable=False),  # of the file that holds it
        *SAID,
    ]
)
Owner = tuple[str, str]
SIDECAR = ".license"  # FILE.license is about FILE
WEAKER_FIRST = ("debian/copyright", ".reuse/dep5", "REUSE.toml")


def rules_of(files: pa.Table, found: Found, policy: Policy, partition: int) -> Iterator[pa.RecordBatch]:
    """The rules that files (LICENSE_FILES) hold, by repository, revision, folder and file, in the order of the file. All
    that a FILE.license says is one rule.
    """
    order = [(name, "ascending") for name in ("repo_name", "revision_id", "folder", "path")]
    formats = [name for name in files["format"].unique().to_pylist() if kind_of(name) == "path_rule"]
    files = files.filter(pc.is_in(files["format"], value_set=pa.array(formats, pa.string()))).sort_by(order)
    for batch in files.to_batches(4_096):
        rows = [
            {"partition": partition, **{name: file[name] for name in PATH_RULES.names[1:5]}, **said}
            for file in batch.to_pylist()
            for said in _rules(found.get((file["content_id"], file["format"]), ()), file["format"], policy)
        ]
        if rows:
            yield pa.RecordBatch.from_pylist(rows, PATH_RULES)


def _rules(read: Sequence[Row], format_: str, policy: Policy) -> list[Row]:
    """The rows of SAID among those of one file that are rules."""
    rules = [one for one in read if one["globs"]]
    if not format_.startswith("sidecar:"):
        return rules
    counting = what_counts(rules, policy)
    return [together(counting)] if counting else []


def together(said: Sequence[Row]) -> Row:
    """Several things that one text says of the same files, as one row of SAID: all of them hold."""
    named = any(one["expression"] for one in said)
    expressions = frozenset(one["expression"] or UNKNOWN for one in said)
    lines = [(one["first_line"], one["last_line"]) for one in said if one.get("first_line")]
    return {
        **said[0],
        "expression": joined(expressions) if named else None,
        "engine": ", ".join(dict.fromkeys(one["engine"] for one in said)),
        "score": min(one["score"] for one in said),
        "first_line": min((first for first, _ in lines), default=None),
        "last_line": max((last for _, last in lines), default=None),
    }


class PathRules:
    """The path rules of a partition, in memory."""

    def __init__(self, table: pa.Table):
        self.rows: list[dict[str, Any]] = table.to_pylist()
        self._owners: dict[Owner, list[tuple[bytes, int, int]]] = {}  # (folder, first row, the row behind the last)
        self._single: dict[Owner, dict[bytes, int]] = {}  # the rule of each file that has one of its own
        numbered = enumerate(self.rows)
        for key, group in groupby(numbered, key=lambda one: tuple(one[1][n] for n in PATH_RULES.names[1:5])):
            rows = [number for number, _ in group]
            if key[3].endswith(SIDECAR):
                file = key[2] + key[3].rsplit("/", 1)[-1].removesuffix(SIDECAR).encode()
                self._single.setdefault(key[:2], {}).update({file: rows[-1], file + SIDECAR.encode(): rows[-1]})
            else:
                self._owners.setdefault(key[:2], []).append((key[2], rows[0], rows[-1] + 1))
        self._known = self._owners.keys() | self._single.keys()
        self._names = pa.array(sorted({repo for repo, _ in self._known}), pa.string())

    def of_files(self, files: pa.RecordBatch) -> npt.NDArray[np.int64]:
        """The rule that each of n files (repo_name, revision_id, path_bytes) is under: its row, int64 (n,), -1 for none."""
        result = np.full(files.num_rows, -1, np.int64)
        if not self._known:
            return result
        rows = np.flatnonzero(np.asarray(pc.is_in(files.column("repo_name"), value_set=self._names)))
        here = files.select(["repo_name", "revision_id", "path_bytes"]).take(pa.array(rows))
        owners = list(zip(here.column("repo_name").to_pylist(), here.column("revision_id").to_pylist(), strict=True))
        places: dict[Owner, list[int]] = {}
        for place, owner in enumerate(owners):
            if owner in self._known:
                places.setdefault(owner, []).append(place)
        for owner, own in places.items():
            result[rows[own]] = self._of_owner(owner, here.column("path_bytes").take(pa.array(own)))
        return result

    def _of_owner(self, owner: Owner, paths: pa.Array) -> npt.NDArray[np.int64]:
        result = np.full(len(paths), -1, np.int64)
        final = np.zeros(len(paths), bool)
        for folder, start, stop in sorted(self._owners.get(owner, ()), key=self._strength):
            below = np.flatnonzero(np.asarray(pc.starts_with(paths, pattern=folder)) & ~final)
            if not len(below):
                continue
            relative = pc.binary_replace_slice(paths.take(pa.array(below)), 0, len(folder), b"")
            found = governing(
                [Declaration("reuse", None, "", 0, tuple(row["globs"])) for row in self.rows[start:stop]], relative
            )
            ruled, rule = below[found >= 0], start + found[found >= 0].astype(np.int64)
            result[ruled] = rule
            final[ruled] = [self.rows[number]["precedence"] == "override" for number in rule.tolist()]
        single = self._single.get(owner, {})
        at = pc.index_in(paths, value_set=pa.array(list(single), pa.binary()))
        own = np.flatnonzero(np.asarray(at.is_valid()) & ~final)
        result[own] = np.array(list(single.values()), np.int64)[np.asarray(at.take(pa.array(own)))] if len(own) else 0
        return result

    def _strength(self, one: tuple[bytes, int, int]) -> tuple[int, int, bytes, int]:
        """Of the files with rules the stronger later."""
        folder, start, _ = one
        path = self.rows[start]["path"]
        return (
            len(folder),
            next((place for place, end in enumerate(WEAKER_FIRST) if path.endswith(end)), 0),
            folder,
            start,
        )

    def whole(self, number: int) -> int:
        """The length of the folder that a rule is about as a whole, -1 if it names anything else or overrides. Such a rule says no
        more than a licence file in that folder would.
        """
        row = self.rows[number]
        whole = row["precedence"] != "override" and set(row["globs"]) <= {"*", "**"}
        return len(row["folder"]) if whole else -1

    def evidence(self, number: int) -> dict[str, Any]:
        """A row of EVIDENCE."""
        row: Mapping[str, Any] = self.rows[number]
        kind = row["precedence"] if row["precedence"] in ("override", "aggregate") else "path_rule"
        return {"path": row["path"], "kind": kind, **{name: row[name] for name in CARRIED}}
