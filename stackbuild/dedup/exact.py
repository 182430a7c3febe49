"""Merge exact copies: one file for each content, told by its best occurrence.

Rule: The Stack v2's exact deduplication (code of the release, order of `get_license_types.py`), with its defect mended: the
licence is known for every copy before one is chosen, and every tie ends in the total order (content_id, repo_name,
revision_id, path_bytes), so that the choice does not depend on the order of rows. Copies that lose are merged, not dropped:
each is a decision that names the winner. What all copies together make of a file (its licence, where that of the origin counts) the
stages before say themselves (`Stage.merge_copies`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from stackbuild.dedup.options import LICENSE_RANK
from stackbuild.hashing import content_buckets, id_bytes
from stackbuild.identity import stage_identity
from stackbuild.schema import IDENTITY, OCCURRENCES
from stackbuild.stage import Options, Phase, Stage
from stackbuild.task import Task

RANKED = ("license_rank", "star_events_count", "fork_events_count", "revision_date", "visit_date", "committer_date")
TIES = ("content_id", "repo_name", "revision_id", "path_bytes")


class ExactDedupOptions(Options):
    """Which of several copies stands for the content."""

    winner: tuple[str, ...] = Field(
        ("license_rank", "-star_events_count", "-fork_events_count", "-revision_date", "-visit_date"),
        description="columns that rank copies, best first; a leading - means descending; nulls come last; "
        "license_rank is permissive < no_license < unknown < weak_copyleft < non_permissive, unless the policy of the "
        "licences ranks copies otherwise",
    )

    @field_validator("winner")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.removeprefix("-") not in RANKED:
                raise ValueError(f"{name!r} does not rank copies; choose among {', '.join(RANKED)}")
        return value


class ExactDedup(Stage[ExactDedupOptions]):
    """One file per content_id; the copies that lose are merged into it."""

    name = "exact_dedup"
    space = ("occurrence",)
    options_model = ExactDedupOptions
    makes_files = True

    def __init__(self, options: ExactDedupOptions | None = None):
        super().__init__(options)
        self.before: tuple[Stage[Any], ...] = ()

    def placed(self, instance: str, before: Sequence[Stage[Any]], behind: Sequence[Stage[Any]]) -> None:
        self.before = tuple(before)

    @property
    def carried(self) -> tuple[pa.Field, ...]:
        """Columns that stages over occurrences added: the winner's go with the file, the latest of a name."""
        fields = {field.name: field for one in self.before for field in one.adds if field.name not in one.private}
        return tuple(fields.values())

    def key(self) -> Mapping[str, Any]:
        carried = [str(field) for field in self.carried]
        return {"carried": carried, "before": [stage_identity(stage) for stage in self._mergers]}

    @property
    def _mergers(self) -> list[Stage[Any]]:
        return [stage for stage in self.before if type(stage).merge_copies is not Stage.merge_copies]

    def phases(self) -> Sequence[Phase]:
        columns = (*OCCURRENCES.names, *(field.name for field in self.carried))
        return (
            Phase("runs", self.runs, "partition", columns=columns, parts=True),
            Phase("files", self.files, "contents", reads=("runs", *self._merge_reads().values()), removes=True),
        )

    def _merge_reads(self) -> dict[tuple[str, str], str]:
        """Tables of the stages before, as they know them and as this stage names them."""
        return {(one.name, table): f"{one.name}.{table}" for one in self._mergers for table in one.merge_reads}

    def needs(self) -> tuple[str, ...]:
        return ("license_class",) if "license_rank" in self.options.winner else ()

    def files_schema(self) -> pa.Schema:
        """The schema of the files table: the winner's occurrence with what stages added to it, and the number of copies."""
        return pa.schema([*OCCURRENCES, *self.carried, pa.field("copies", pa.int64())])

    def runs(self, task: Task) -> None:
        """Sort occurrences of a partition by contents partition and id."""
        schema = pa.schema([pa.field("bucket", pa.uint16()), *OCCURRENCES, *self.carried])
        batches = list(task.batches(schema.names[1:]))
        with task.writer("runs", schema, group_by="bucket") as writer:
            if batches:
                table = pa.Table.from_batches(batches)
                buckets = content_buckets(id_bytes(table["content_id"]), task.partitions).astype(np.uint16)
                table = table.append_column("bucket", pa.array(buckets))
                writer.write(
                    table.take(pc.sort_indices(table, [("bucket", "ascending"), *((n, "ascending") for n in TIES)]))
                )

    def files(self, task: Task) -> None:
        """Choose the winner of each content in a partition, and record the copies that lose."""
        schema = self.files_schema()
        batches = list(task.read("runs", [f.name for f in schema if f.name != "copies"], task.rank, "bucket"))
        with task.writer("files", schema) as writer:
            if not batches:
                return
            table = pa.Table.from_batches(batches)
            ranks = [rank for rank in (stage.license_rank(table) for stage in self._mergers) if rank is not None]
            ordered = table.take(winners_first(table, self.options.winner, *ranks[-1:]))
            first, position = group_starts(ordered["content_id"])
            sizes = np.asarray(ordered["length"]).astype(np.int64)
            starts = np.flatnonzero(first)
            winners = ordered.take(pa.array(starts))
            for stage in self._mergers:
                for name, column in stage.merge_copies(task, ordered, starts).items():
                    winners = winners.set_column(
                        winners.schema.get_field_index(name), winners.schema.field(name), column
                    )
            copies = np.diff(np.append(starts, len(first)))
            writer.write(winners.append_column("copies", pa.array(copies, pa.int64())))
            lost = np.flatnonzero(~first)
            kept = winners.take(pa.array(position[lost]))
            task.decisions.enter(len(first), int(sizes.sum()))
            task.decisions.stay(len(winners), int(sizes[first].sum()))
            task.decisions.add(
                {
                    **{name: ordered[name].take(pa.array(lost)) for name in IDENTITY},
                    "rule": "exact_copy",
                    "kept_content_id": kept["content_id"],
                    "detail": pc.binary_join_element_wise(kept["repo_name"], kept["revision_id"], kept["path"], " "),
                },
                "merged",
                sizes[lost],
            )


def winners_first(table: pa.Table, order: Sequence[str], rank: pa.Array | None = None) -> pa.Array:
    """Indices that sort occurrences by content_id, best copy first, nulls last, ties by the total order. `rank`: what
    `license_rank` is for each, if not the rank of its class.
    """
    keys: list[tuple[str, str, str]] = [("content_id", "ascending", "at_end")]
    for name in order:
        column = name.removeprefix("-")
        if column == "license_rank":
            table = table.append_column(column, license_rank(table["license_class"]) if rank is None else rank)
        keys.append((column, "descending" if name.startswith("-") else "ascending", "at_end"))
    return pc.sort_indices(table, [*keys, *((name, "ascending", "at_end") for name in TIES[1:])])


def license_rank(classes: pa.ChunkedArray) -> pa.Array:
    """int8 rank of each license class; null for an unknown name."""
    index = pc.index_in(classes, value_set=pa.array(LICENSE_RANK))
    return index.cast(pa.int8())


def group_starts(ids: pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """(is the row the first of its id, which group it is in) for sorted binary(20) ids."""
    raw = id_bytes(ids)
    first = np.ones(len(raw), bool)
    first[1:] = (raw[1:] != raw[:-1]).any(axis=1)
    return first, np.cumsum(first) - 1
