"""Which licence files speak for a file: those in its folder and in every folder above, all together.

The Stack v2 (Lozhkov et al. 2024, get_license_types.py): the base path of a licence file is its folder; the licences of
one base path of one revision are united, and a file inherits from every base path that its own path begins with. There
is no nearest-wins. Here each base path gets the union of itself and the base paths above it, so that a file has to find
only the nearest one. That takes the rows of licence-named files alone, sorted by (repository, revision, folder): in
this order the base paths above one are a stack, and files find theirs by the same walk. Both are linear, whatever the
depth and number.
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
import pyarrow.compute as pc

from stackbuild.licenses.decide import Policy, representatives
from stackbuild.licenses.expression import Keys
from stackbuild.licenses.lists import SEVERITY
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
        pa.field("keys", pa.list_(pa.string()), nullable=False),
        pa.field("expressions", pa.list_(pa.string()), nullable=False),
        pa.field("engine", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
LICENSE_FILES = pa.schema(
    [
        pa.field("repo_name", pa.string()),
        pa.field("revision_id", pa.string()),
        pa.field("folder", pa.binary()),
        pa.field("path", pa.string()),
        pa.field("content_id", ID),
        pa.field("license_named", pa.bool_()),  # the name is of a licence proper
    ]
)
VERDICTS = pa.schema(
    [
        pa.field("partition", pa.uint16(), nullable=False),
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        pa.field("folder", pa.binary(), nullable=False),  # of the source, ends in "/" or is empty (the root)
        pa.field("keys", pa.list_(pa.string()), nullable=False),  # all that were detected, the worst KEYS_LIMIT
        pa.field("counting", pa.list_(pa.string()), nullable=False),  # of those that count, one of each kind
        pa.field("unrecognised", pa.bool_(), nullable=False),
        pa.field("evidence", pa.list_(EVIDENCE), nullable=False),
    ]
)

Rank = tuple[int, int, str, str]  # worst first, then nearest, then by path and expression


def folders(path_bytes: pa.Array) -> pa.Array:
    """The folder of each path (binary, length n), with its "/"; empty for the root."""
    return pc.replace_substring_regex(path_bytes, r"[^/]*\z", "")


# ---------------------------------------------------------------- base paths


@dataclass(frozen=True)
class Speaking:
    """What speaks for the files of one folder."""

    keys: Keys
    counting: Keys
    unrecognised: bool
    evidence: tuple[tuple[Rank, dict[str, Any]], ...]

    def beside(self, above: Speaking) -> Speaking:
        """This and what speaks for the folder above."""
        keys = above.keys if self.keys <= above.keys else self.keys | above.keys
        counting = above.counting if self.counting <= above.counting else self.counting | above.counting
        evidence = heapq.nsmallest(EVIDENCE_LIMIT, (*self.evidence, *above.evidence), key=_rank)
        return Speaking(keys, counting, self.unrecognised or above.unrecognised, tuple(evidence))


def _rank(item: tuple[Rank, dict[str, Any]]) -> Rank:
    return item[0]


def inherited(
    files: pa.Table, detections: Mapping[bytes, Mapping[str, Any]], policy: Policy, partition: int
) -> Iterator[pa.RecordBatch]:
    """Yield VERDICTS for licence-named files (LICENSE_FILES), sorted by repository, revision and folder.

    `detections`: rows of DETECTIONS by content_id. A file that is named as a licence and has none is one that nobody
    recognised.
    """
    order = [(name, "ascending") for name in ("repo_name", "revision_id", "folder", "path", "content_id")]
    rows = (row for batch in files.sort_by(order).to_batches(ROWS_WRITTEN) for row in batch.to_pylist())
    pending: list[dict[str, Any]] = []
    worst = lru_cache(maxsize=64)(lambda keys: worst_keys(keys, policy))  # folders share the sets of those above
    for (repo, revision), group in groupby(rows, key=lambda row: (row["repo_name"], row["revision_id"])):
        above: list[tuple[bytes, Speaking]] = []
        for folder, members in groupby(group, key=lambda row: row["folder"]):
            own = _speaking(folder, members, detections, policy)
            if own is None:
                continue
            while above and not folder.startswith(above[-1][0]):
                above.pop()
            whole = own.beside(above[-1][1]) if above else own
            above.append((folder, whole))
            pending.append(
                {
                    "partition": partition,
                    "repo_name": repo,
                    "revision_id": revision,
                    "folder": folder,
                    "keys": worst(whole.keys),
                    "counting": sorted(whole.counting),
                    "unrecognised": whole.unrecognised,
                    "evidence": [words for _, words in whole.evidence],
                }
            )
            if len(pending) == ROWS_WRITTEN:
                yield pa.RecordBatch.from_pylist(pending, VERDICTS)
                pending = []
    if pending:
        yield pa.RecordBatch.from_pylist(pending, VERDICTS)


def _speaking(
    folder: bytes, files: Iterable[Mapping[str, Any]], detections: Mapping[bytes, Mapping[str, Any]], policy: Policy
) -> Speaking | None:
    """What the licence files of one folder say; None if they say nothing."""
    keys: set[str] = set()
    expressions: set[str] = set()
    unrecognised = False
    evidence: list[tuple[Rank, dict[str, Any]]] = []
    for file in files:
        detection = detections.get(file["content_id"], {})
        found: Sequence[str | None] = detection.get("expressions") or ()
        if not found and file["license_named"]:
            unrecognised = True
            found = [None]
        keys.update(detection.get("keys", ()))
        for expression in found:
            bad = SEVERITY["unknown"]
            if expression is not None:
                expressions.add(expression)
                bad = max(map(policy.severity, policy.keys([expression])), default=0)
            words = {"path": file["path"], "expression": expression, "kind": "license_file",
                     "engine": detection.get("engine"), "score": detection.get("score", 0.0)}  # fmt: skip
            evidence.append(((-bad, -len(folder), file["path"], expression or ""), words))
    if not evidence:
        return None
    best = heapq.nsmallest(EVIDENCE_LIMIT, evidence, key=_rank)
    return Speaking(frozenset(keys), representatives(policy.keys(expressions), policy), unrecognised, tuple(best))


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
        self.keys, self.counting, self.evidence, self._folders = (
            table[name].combine_chunks() if table.num_rows else pa.array([], table.schema.field(name).type)
            for name in ("keys", "counting", "evidence", "folder")
        )
        self.unrecognised: list[bool] = table["unrecognised"].to_pylist()
        owners = list(zip(table["repo_name"].to_pylist(), table["revision_id"].to_pylist(), strict=True))
        starts = [row for row in range(self.rows) if row == 0 or owners[row] != owners[row - 1]]
        ends = [*starts[1:], self.rows]
        self._ranges = {owners[start]: (start, stop) for start, stop in zip(starts, ends, strict=False)}
        if len(self._ranges) != len(starts):
            raise ValueError("verdicts are not sorted by repository and revision")

    def nearest(self, files: pa.RecordBatch) -> npt.NDArray[np.int64]:
        """The row of the nearest base path of each of n files (repo_name, revision_id, path_bytes): int64 (n,), -1 for
        none.
        """
        columns = (files.column("repo_name"), files.column("revision_id"), folders(files.column("path_bytes")))
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
