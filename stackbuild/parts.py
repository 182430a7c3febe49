"""Large shards are cut into planned parts, each committed by itself; the shard's manifest lists the files of all of them.

A part is a run of rows. The cut follows from the rows and the recipe's `part_bytes` alone, never from load or retries, so the
files of a shard are the same however often its task was stopped, and a task that is run again goes on at the first part that
is not committed. Nobody reads a part's manifest but the task itself: readers take the shard's, which is there when all parts
are. A shard that is small enough is one part, which is the shard and has no manifest of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stackbuild.counts import Ledger
from stackbuild.errors import InputError
from stackbuild.shards import Attempt, ShardManifest, committed, digest, find_manifest
from stackbuild.tables import ROW_GROUP_BYTES, ROW_GROUP_ROWS, group_ends

PART_BYTES = 128 << 20


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` of a table, the part `number` (from 0) of `of`."""

    number: int
    start: int
    stop: int
    of: int

    @property
    def whole(self) -> bool:
        """Whether it is the table."""
        return self.of == 1


def cut(weights: npt.NDArray[np.int64], part_bytes: int) -> list[Part]:
    """Cut a table into parts of at most `part_bytes`, but for a row that is larger alone; a table without rows is one part.

    `weights`: bytes of each row, int64 (rows,). Parts are runs of what `TableWriter` makes row groups of when these are the
    bytes of its heavy column, so that no row group of contents is in two parts.
    """
    group_bytes = min(ROW_GROUP_BYTES, part_bytes)
    groups = np.array([0, *group_ends(weights, len(weights), ROW_GROUP_ROWS, group_bytes), len(weights)], np.int64)
    groups = np.unique(groups)
    total = np.concatenate((np.zeros(1, np.int64), np.cumsum(weights)))[groups]
    ends = group_ends(np.diff(total), len(groups) - 1, len(weights) + 1, part_bytes)
    bounds = [0, *(int(groups[end]) for end in ends if end < len(groups) - 1), len(weights)]
    of = len(bounds) - 1
    return [Part(number, bounds[number], bounds[number + 1], of) for number in range(of)]


# ---------------------------------------------------------------- manifests of parts


def part_key(key: str, part: Part) -> str:
    """The key of a part, given what would be the shard's key if the part's input were all; of a whole shard, the same."""
    if part.whole:
        return key
    return digest({"of": key, "part": [part.number, part.of], "rows": [part.start, part.stop]})


def part_path(out: Path, job: str, rank: int, key: str, part: Part) -> Path | None:
    """Where the manifest of a part lies, None for the shard's own place; `key` is the part's."""
    if part.whole:
        return None
    return out / "stages" / job / "parts" / f"{rank:05d}-{part.number:04d}-{key[:24]}.json"


def find_part(out: Path, job: str, rank: int, key: str, part: Part) -> ShardManifest | None:
    """The committed manifest of a part for exactly this key (`part_key`); InputError if it is torn."""
    return find_manifest(out, job, rank, key, part_path(out, job, rank, key, part))


def commit_part(attempt: Attempt, key: str, part: Part, ledger: Ledger, stats: dict[str, Any]) -> ShardManifest:
    """Commit an attempt as a part, or as the shard if that has one part only; the first attempt wins."""
    return attempt.commit(key, ledger, stats, part_path(attempt.out, attempt.job, attempt.rank, key, part))


def commit_shard(out: Path, job: str, rank: int, key: str, parts: Sequence[ShardManifest]) -> ShardManifest:
    """Make a shard complete: publish the manifest that lists the files of all its parts, in order, and sums their counts."""
    if len(parts) == 1:
        return parts[0]
    ledger = Ledger()
    for part in parts:
        ledger.add(part.ledger)
    outputs = tuple(output for part in parts for output in part.outputs)
    stats = summed([part.stats for part in parts])
    # The shard has no folder: its name is told by its parts, and is the same whoever puts them together.
    attempt = digest([part.attempt for part in parts])[:12]
    return committed(out, ShardManifest(job, rank, key, attempt, outputs, ledger, stats))


def of_part(shard: ShardManifest, table: str, part: Part) -> ShardManifest:
    """A complete shard as if it were one part of it: with that part's file of a table that each part has once."""
    files = shard.table(table)
    if len(files) != part.of:
        raise InputError(
            f"Shard {shard.rank} of {shard.job} has {len(files)} files of {table}, and not one for each of its {part.of} "
            "parts; remove its manifest and build again."
        )
    return replace(shard, outputs=(files[part.number],))


def summed(stats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of what parts tell in their statistics: numbers are added, tables within tables too."""
    total: dict[str, Any] = {}
    for one in stats:
        for name, value in one.items():
            if isinstance(value, Mapping):
                total[name] = summed([total.get(name, {}), value])
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"the statistic {name} of a part is no number and has no sum")
            else:
                total[name] = total.get(name, 0) + value
    return total
