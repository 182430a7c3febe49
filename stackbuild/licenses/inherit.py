"""What speaks for a file from its folder and the folders above: licence files, manifests, notices.

The Stack v2 (Lozhkov et al. 2024, get_license_types.py): the base path of a licence file is its folder; the licences of
one base path of one revision are united, and a file inherits from every base path that its own path begins with: no
nearest-wins ("union"). Ours ("nearest"): of a group of kinds of evidence the nearest folder speaks (`policy`).

Either way each base path here gets what speaks for its files, itself and the base paths above it taken together, so that
a file has to find only the nearest one. That takes the rows of licence-named files alone, sorted by (repository,
revision, folder): in this order the base paths above one are a stack, and files find theirs by the same walk. Both are
linear, whatever the depth and number.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.licenses.answer import Spoken
from stackbuild.licenses.decide import UNKNOWN_REFERENCE, representatives
from stackbuild.licenses.expression import Keys, keys_of
from stackbuild.licenses.lists import SEVERITY
from stackbuild.licenses.policy import Policy
from stackbuild.licenses.reading import KEPT, NAMES, SAID, folders, kind_of
from stackbuild.licenses.weigh import weighed
from stackbuild.schema import EVIDENCE, ID

# What one file carries at most: the worst ones. Ten thousand licences in the root of a repository would else be copied
# to each of its files. A decision is made from all of them.
EVIDENCE_LIMIT = 8
KEYS_LIMIT = 128
ROWS_WRITTEN = 4_096

DETECTIONS = pa.schema(
    [
        pa.field("partition", pa.uint16(), nullable=False),  # of the occurrences that want it
        pa.field("content_id", ID, nullable=False),
        pa.field("format", pa.string(), nullable=False),  # as what it was read
        pa.field("said", pa.list_(SAID), nullable=False),
    ]
)
LICENSE_FILES = pa.schema(
    [
        pa.field("repo_name", pa.string()),
        pa.field("revision_id", pa.string()),
        pa.field("folder", pa.binary()),  # that it speaks for
        pa.field("path", pa.string()),
        pa.field("content_id", ID),
        pa.field("format", pa.string()),
    ]
)
VERDICTS = pa.schema(
    [
        pa.field("partition", pa.uint16(), nullable=False),
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        pa.field("folder", pa.binary(), nullable=False),  # of the source, ends in "/" or is empty (the root)
        pa.field("group", pa.int8(), nullable=False),  # of the policy's order, that decides
        pa.field("keys", pa.list_(pa.string()), nullable=False),  # all that were detected, the worst KEYS_LIMIT
        pa.field("counting", pa.list_(pa.string()), nullable=False),  # of those that count, one of each kind
        pa.field("unrecognised", pa.bool_(), nullable=False),
        pa.field("evidence", pa.list_(EVIDENCE), nullable=False),
    ]
)
Found = Mapping[tuple[bytes, str], Sequence[Mapping[str, Any]]]  # rows of SAID by content_id and format

Rank = tuple[int, int, str, str]  # worst first, then nearest, then by path and expression


# ---------------------------------------------------------------- base paths


@dataclass(frozen=True)
class Part:
    """What evidence of one kind, or of several together, says. `refers`: no more than that a licence stands elsewhere."""

    keys: Keys
    counting: Keys
    unrecognised: bool
    refers: bool
    evidence: tuple[tuple[Rank, dict[str, Any]], ...]

    def depth(self) -> int:
        """The bytes of the nearest folder that it is from; one that only refers to a licence is no nearer."""
        return max((-rank[1] for rank, _ in self.evidence if rank[3] != UNKNOWN_REFERENCE), default=0)

    def worst(self) -> int:
        """How bad the worst of it is."""
        return -self.evidence[0][0][0]

    def beside(self, other: Part) -> Part:
        """This and another together."""
        keys = other.keys if self.keys <= other.keys else self.keys | other.keys
        counting = other.counting if self.counting <= other.counting else self.counting | other.counting
        evidence = heapq.nsmallest(EVIDENCE_LIMIT, (*self.evidence, *other.evidence), key=_rank)
        unrecognised = self.unrecognised or other.unrecognised
        return Part(keys, counting, unrecognised, self.refers and other.refers, tuple(evidence))


Parts = dict[str, Part]  # by kind


def _rank(item: tuple[Rank, dict[str, Any]]) -> Rank:
    return item[0]


def _united(own: Parts, above: Parts) -> Parts:
    """All of a folder and of those above it."""
    return {
        kind: own[kind].beside(above[kind]) if kind in own and kind in above else own.get(kind) or above[kind]
        for kind in {**above, **own}
    }


def _nearest(own: Parts, above: Parts, policy: Policy) -> Parts:
    """Of each group of kinds what the folder says itself, else what is said above; see `PolicyData.order`. What only refers
    to a licence that stands elsewhere hides nothing.
    """
    found: Parts = {}
    for group in policy.data.order:
        first = own.get(group[0])
        hidden = first is not None and not first.refers
        for kind in group:
            mine, theirs = own.get(kind), None if hidden else above.get(kind)
            speaks = theirs if theirs is not None and (mine is None or mine.refers) else mine
            if speaks is not None:
                found[kind] = speaks
    return found


def deciding(parts: Parts, policy: Policy) -> tuple[int, Part]:
    """(the place of the group that decides, what it says): the strongest that says more than that something stands
    elsewhere, else the strongest. A weaker one that stands nearer and is less permissive is added: the read-me of a library in a
    folder of its own. `parts` is not empty.
    """
    groups = []
    for place, group in enumerate(policy.data.order):
        here = [parts[kind] for kind in group if kind in parts]
        if here:
            whole = here[0]
            for other in here[1:]:
                whole = whole.beside(other)
            groups.append((place, whole))
    place, whole = next((one for one in groups if not one[1].refers), groups[0])
    for weaker, part in groups:
        if weaker > place and not part.refers and part.depth() > whole.depth() and part.worst() > whole.worst():
            whole = whole.beside(part)
    return place, whole


def inherited(files: pa.Table, found: Found, policy: Policy, partition: int) -> Iterator[pa.RecordBatch]:
    """Yield VERDICTS for the files that speak for folders (LICENSE_FILES), by repository, revision and folder.

    A file that is named as a licence and whose bytes nobody read (not in `found`) is one that nobody recognised.
    """
    order = [(name, "ascending") for name in ("repo_name", "revision_id", "folder", "path", "content_id")]
    rows = (row for batch in files.sort_by(order).to_batches(ROWS_WRITTEN) for row in batch.to_pylist())
    pending: list[dict[str, Any]] = []
    worst = lru_cache(maxsize=64)(lambda keys: worst_keys(keys, policy))  # folders share the sets of those above
    for (repo, revision), group in groupby(rows, key=lambda row: (row["repo_name"], row["revision_id"])):
        above: list[tuple[bytes, Parts]] = []
        for folder, members in groupby(group, key=lambda row: row["folder"]):
            own = _said(folder, members, found, policy)
            if not own:
                continue
            while above and not folder.startswith(above[-1][0]):
                above.pop()
            theirs = above[-1][1] if above else {}
            parts = _united(own, theirs) if policy.data.inheritance == "union" else _nearest(own, theirs, policy)
            above.append((folder, parts))
            place, part = deciding(parts, policy)
            pending.append(
                {
                    "partition": partition,
                    "repo_name": repo,
                    "revision_id": revision,
                    "folder": folder,
                    "group": place,
                    "keys": worst(part.keys),
                    "counting": sorted(part.counting),
                    "unrecognised": part.unrecognised,
                    "evidence": _evidence(parts, part),
                }
            )
            if len(pending) == ROWS_WRITTEN:
                yield pa.RecordBatch.from_pylist(pending, VERDICTS)
                pending = []
    if pending:
        yield pa.RecordBatch.from_pylist(pending, VERDICTS)


def _evidence(parts: Parts, part: Part) -> list[dict[str, Any]]:
    """What decides, then what else speaks, EVIDENCE_LIMIT in all."""
    decides = [{**words, "decides": True} for _, words in part.evidence]
    known = {id(words) for _, words in part.evidence}
    others = heapq.nsmallest(EVIDENCE_LIMIT, (one for each in parts.values() for one in each.evidence), key=_rank)
    return (decides + [{**words, "decides": False} for _, words in others if id(words) not in known])[:EVIDENCE_LIMIT]


def _said(folder: bytes, files: Iterable[Mapping[str, Any]], found: Found, policy: Policy) -> Parts:
    """What the files that speak for one folder say, by kind."""
    spoken: dict[str, list[tuple[str | None, Rank, dict[str, Any]]]] = {}
    for file in files:
        kind = kind_of(file["format"])
        if kind == "path_rule":
            kind = "license_file"  # debian/copyright in prose
        read = found.get((file["content_id"], file["format"]))
        if read is None:  # its bytes are not there
            read = [{"expression": None, "score": 0.0}] if file["format"] == "license" else []
        for one in weighed(read, policy):
            if one.get("said") in (KEPT, NAMES) and "copyright" in file["path"].rpartition("/")[2].lower():
                continue  # whose it is, as the name says, and not under what
            expression = one["expression"]
            bad = SEVERITY["unknown"]
            if expression is not None:
                bad = max(map(policy.severity, policy.keys([expression])), default=0)
            words = {"path": file["path"], "kind": kind, **{name: one.get(name) for name in CARRIED}}
            rank = (-bad, -len(folder), file["path"], expression or "")
            spoken.setdefault(kind, []).append((expression, rank, words))
    return {kind: _part(rows, policy) for kind, rows in spoken.items()}


CARRIED = ("expression", "engine", "score", "first_line", "last_line", "said")


def _part(spoken: Sequence[tuple[str | None, Rank, dict[str, Any]]], policy: Policy) -> Part:
    expressions = {expression for expression, _, _ in spoken if expression is not None}
    best = heapq.nsmallest(EVIDENCE_LIMIT, ((rank, words) for _, rank, words in spoken), key=_rank)
    return Part(
        frozenset().union(*map(keys_of, expressions)),
        representatives(policy.keys(expressions), policy),
        any(expression is None for expression, _, _ in spoken),
        all(expression == UNKNOWN_REFERENCE for expression, _, _ in spoken),
        tuple(best),
    )


def worst_keys(keys: Keys, policy: Policy) -> list[str]:
    """The keys, sorted; of more than `KEYS_LIMIT` the worst."""
    if len(keys) <= KEYS_LIMIT:
        return sorted(keys)
    return sorted(heapq.nsmallest(KEYS_LIMIT, keys, key=lambda key: (-policy.severity(key), key)))


# ---------------------------------------------------------------- files find their base path


class Verdicts:
    """The base paths of a partition, in memory, for its files to find theirs."""

    def __init__(self, table: pa.Table):
        table = table.combine_chunks()
        self.rows = table.num_rows
        self.group, self.keys, self.counting, self.evidence, self._folders = (
            table[name].combine_chunks() if table.num_rows else pa.array([], table.schema.field(name).type)
            for name in ("group", "keys", "counting", "evidence", "folder")
        )
        self.unrecognised: list[bool] = table["unrecognised"].to_pylist()
        owners = list(zip(table["repo_name"].to_pylist(), table["revision_id"].to_pylist(), strict=True))
        starts = [row for row in range(self.rows) if row == 0 or owners[row] != owners[row - 1]]
        ends = [*starts[1:], self.rows]
        self._ranges = {owners[start]: (start, stop) for start, stop in zip(starts, ends, strict=False)}
        if len(self._ranges) != len(starts):
            raise ValueError("verdicts are not sorted by repository and revision")

    def spoken(self, row: int) -> Spoken:
        """What a base path says."""
        keys, counting = self.keys[row].as_py(), frozenset(self.counting[row].as_py())
        return Spoken(self.group[row].as_py(), keys, counting, self.unrecognised[row], self.evidence[row].as_py())

    def nearest(self, files: pa.RecordBatch) -> npt.NDArray[np.int64]:
        """The row of the nearest base path of each of n files (repo_name, revision_id, path_bytes): int64 (n,), -1 for
        none.
        """
        columns = (
            files.column("repo_name"),
            files.column("revision_id"),
            folders(files.column("path_bytes")),
        )
        encoded = [column.dictionary_encode() for column in columns]
        codes = np.zeros(files.num_rows, np.int64)
        for (
            column
        ) in encoded:  # at most n values each: the product of two stays below 2^63, so the third is folded in after
            _, codes = np.unique(
                codes * max(len(column.dictionary), 1) + np.asarray(column.indices), return_inverse=True
            )
        _, first, of_file = np.unique(codes.reshape(-1), return_index=True, return_inverse=True)
        repos, revisions, places = (column.take(pa.array(first)).to_pylist() for column in columns)
        found = np.full(len(first), -1, np.int64)
        order = sorted(range(len(first)), key=lambda one: (repos[one], revisions[one], places[one]))
        for owner, group in groupby(order, key=lambda one: (repos[one], revisions[one])):
            if owner in self._ranges:
                self._walk(owner, list(group), places, found)
        return found[of_file.reshape(-1)]

    def _walk(
        self, owner: tuple[str, str], group: list[int], places: list[bytes], found: npt.NDArray[np.int64]
    ) -> None:
        """Walk the sorted folders of a revision and its sorted base paths side by side, with the open base paths on a
        stack.
        """
        start, stop = self._ranges[owner]
        bases = self._folders.slice(start, stop - start).to_pylist()
        opened: list[int] = []
        following = 0
        for one in group:
            place = places[one]
            while following < len(bases) and bases[following] <= place:
                while opened and not bases[following].startswith(bases[opened[-1]]):
                    opened.pop()
                opened.append(following)
                following += 1
            while opened and not place.startswith(bases[opened[-1]]):
                opened.pop()
            if opened:
                found[one] = start + opened[-1]
