"""Stages at work on slices of a partition, and the rows on which one raises.

A row is put into quarantine only for an error that a second process reproduces: the first try of a task fails, a second
surveys the rows and says which raise, a third removes those that raise again (`Try`). What no row is to blame for, such as
a lack of memory or a file that cannot be read, fails the task in every try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild import beacon
from stackbuild.decisions import Decisions
from stackbuild.errors import StackbuildError
from stackbuild.graph import Node
from stackbuild.plan import Build
from stackbuild.rows import KEEP, SIZE, Slice, tag_schema
from stackbuild.schema import IDENTITY
from stackbuild.shards import Attempt
from stackbuild.stage import Left, Stage, Verdict, judge, with_columns
from stackbuild.task import Task

QUARANTINE_SHARE = 0.01  # of a shard's rows; more, and at least QUARANTINE_ROWS, is a defect of the stage
QUARANTINE_ROWS = 10
BLAMELESS = (MemoryError, OSError, StackbuildError)  # errors that are no row's fault
SHOWN = 120  # characters of a name in a message
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Try:
    """How a task is run this time.

    `mode`: plain: a row that raises fails the task. survey: all rows that raise are looked for; with any, the task fails and
    names them (`BadRows`). confirm: those among `suspects` that raise again are quarantined. `suspects`: by stage instance,
    the row numbers in the partition's base table that raised in an earlier process. `one_part`: one missing part is committed
    and no more, so that each part runs in a process of its own.
    """

    mode: Literal["plain", "survey", "confirm"] = "plain"
    suspects: Mapping[str, Sequence[int]] = field(default_factory=dict)
    one_part: bool = False


class Judging:
    """A stage at work on a part of a partition: its attempt, its tag file, its decisions, the rows that raised.

    `shard`: rows of the partition. `quarantined`: how many of them this stage put apart in other parts.
    """

    def __init__(self, build: Build, node: Node, partition: int, how: Try, shard: int, quarantined: int):
        self.node, self.stage, self.partition, self.how = node, node.stage, partition, how
        self.shard, self.quarantined = shard, quarantined
        self.attempt = Attempt(build.out, node.slug, partition)
        self.decisions = Decisions(self.attempt, node.instance, build.plan.partitions)
        self.schema = tag_schema(node.stage)
        self.writer = self.attempt.writer("tags", self.schema)
        self.suspects = frozenset(how.suspects.get(node.instance, ())) if how.mode == "confirm" else frozenset()
        self.raised: list[int] = []  # rows of the base that raised in this process
        self.first_unsuspected = ""  # the first of them that no earlier process named, in words


def load_stage(build: Build, node: Node, partition: int) -> None:
    """Let a stage open what it needs to judge a partition."""
    node.stage.load(
        Task(
            out=build.out,
            job=node.slug,
            rank=partition,
            params={},
            options=node.stage.options,
            seed=build.plan.seed,
            partitions=build.plan.partitions,
            tables=build.tables_for(node, build.phase_tables(node)),
        )
    )


# ---------------------------------------------------------------- a slice


def judge_slice(piece: Slice, stages: Sequence[Judging]) -> None:
    """Take a slice of the partition through the stages; each writes one tag row for each row of the base."""
    batch, rows, sizes = piece.batch, piece.rows, piece.sizes
    height = piece.stop - piece.start
    where = f"rows {piece.start:,} to {piece.stop:,} of partition {stages[0].partition}{largest(batch, sizes)}"
    read = int(sizes.sum())
    for one in stages:
        beacon.at(f"{one.node.instance}, {where}")
        one.decisions.enter(batch.num_rows, int(sizes.sum()))
        answer = Answer({}, pa.array([], pa.bool_()), [], None)
        if batch.num_rows:
            try:
                answer = ask(one.stage, batch)
            except BLAMELESS:
                raise
            except Exception:
                if one.how.mode == "plain":
                    raise
                stay = np.setdiff1d(np.arange(batch.num_rows), set_apart(one, batch, rows + piece.start, sizes))
                batch, rows, sizes = batch.take(pa.array(stay)), rows[stay], sizes[stay]
                if batch.num_rows:
                    answer = ask(one.stage, batch)  # raises if it takes several rows together to raise
        for gone in answer.left:
            _leave(one, batch, np.asarray(gone.rows), sizes, "dropped", gone.verdict)
        tags, stays = answer.tags, np.asarray(answer.keep).astype(bool)
        after = sizes
        if answer.text is not None:
            after = np.asarray(pc.fill_null(pc.binary_length(answer.text), 0)).astype(np.int64)
            after = np.where(stays, after, sizes)  # what leaves, leaves at the size that it came with
            one.decisions.ledger.bytes_delta += int((after - sizes).sum())
            tags = {**tags, SIZE: pa.array(after)}
            batch = with_columns(batch, {"text": answer.text})
        one.writer.write(_aligned(one.schema, {**tags, KEEP: answer.keep}, rows, height))
        batch = with_columns(batch, {name: array for name, array in tags.items() if name != SIZE})
        if not stays.all():
            kept = pa.array(np.flatnonzero(stays))
            batch, rows, after = batch.take(kept), rows[stays], after[stays]
        sizes = after
        one.decisions.stay(batch.num_rows, int(sizes.sum()))
    beacon.add(len(piece.rows), read)
    beacon.at(f"{stages[0].node.instance}, reading partition {stages[0].partition} from row {piece.stop:,} on")


@dataclass(frozen=True)
class Answer:
    """What a stage says of n rows: tags, keep (bool, n), who left by which rule, and the new text if it rewrites it."""

    tags: dict[str, pa.Array]
    keep: pa.Array
    left: list[Left]
    text: pa.Array | None


def ask(stage: Stage[Any], batch: pa.RecordBatch) -> Answer:
    """Ask a stage about a batch."""
    tags = {name: _whole(array) for name, array in stage.tags(batch).items()}
    tagged = with_columns(batch, tags)
    keep, left = judge(stage.verdicts(tagged), batch.num_rows)
    return Answer(tags, keep, left, _whole(stage.text(tagged)) if stage.rewrites_text else None)


def _whole(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _aligned(schema: pa.Schema, columns: dict[str, pa.Array], rows: Numbers, height: int) -> pa.RecordBatch:
    """Spread columns of the rows that were judged over all rows of the slice, null where a row had left before."""
    if len(rows) == height:
        arrays = [columns[field.name].cast(field.type) for field in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    where = np.full(height, -1, np.int64)
    where[rows] = np.arange(len(rows))
    indices = pa.array(where, mask=where < 0)
    arrays = [columns[f.name].cast(f.type).take(indices) if len(rows) else pa.nulls(height, f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _leave(
    one: Judging,
    batch: pa.RecordBatch,
    rows: Numbers,
    sizes: Numbers,
    outcome: str,
    verdict: Verdict,
    errors: list[str] | None = None,
) -> None:
    """Record the rows that one rule removed."""
    where = pa.array(rows)
    columns: dict[str, Any] = {name: batch.column(name).take(where) for name in IDENTITY}
    columns["rule"] = verdict.rule
    if verdict.value is not None:
        columns["value"] = _whole(verdict.value).take(where).cast(pa.float64())
    if verdict.threshold is not None:
        columns["threshold"] = pa.repeat(pa.scalar(float(verdict.threshold)), len(rows))
    if errors is not None:
        columns["detail"] = pa.array(errors)
    elif verdict.detail is not None:
        columns["detail"] = _whole(verdict.detail).take(where).cast(pa.string())
    if verdict.kept_content_id is not None:
        columns["kept_content_id"] = _whole(verdict.kept_content_id).take(where)
    one.decisions.add(columns, outcome, sizes[rows])


# ---------------------------------------------------------------- rows that raise


def set_apart(one: Judging, batch: pa.RecordBatch, numbers: Numbers, sizes: Numbers) -> Numbers:
    """Quarantine the rows that raise and remember their numbers; returns their places in the batch."""
    bad = find_bad_rows(one.stage, batch, allowed(one.shard) - one.quarantined)
    places = np.array(list(bad), np.int64)
    one.quarantined += len(bad)
    one.raised += numbers[places].tolist()
    for place, error in bad.items():
        if not one.first_unsuspected and int(numbers[place]) not in one.suspects:
            one.first_unsuspected = f"{name_of(batch, place)}: {error}"
    check_share(one.node.instance, one.partition, one.quarantined, one.shard)
    _leave(one, batch, places, sizes, "quarantined", Verdict("error", pa.array([])), list(bad.values()))
    return places


def allowed(rows: int) -> int:
    """How many of a shard's rows may be quarantined."""
    return max(QUARANTINE_ROWS, int(QUARANTINE_SHARE * rows))


def check_share(instance: str, partition: int, quarantined: int, rows: int) -> None:
    """StackbuildError if too many of a shard's rows are quarantined: then the stage is wrong, not they."""
    if quarantined > allowed(rows):
        raise StackbuildError(
            f"{instance} raised on {quarantined:,} or more of the {rows:,} rows of partition {partition}. At most {allowed(rows):,} "
            "may be put into quarantine; more of them are a defect of the stage. The log of the task's first try has its error."
        )


def find_bad_rows(stage: Stage[Any], batch: pa.RecordBatch, at_most: int) -> dict[int, str]:
    """The rows on which a stage raises, by halving, each with its error; no more are looked for beyond `at_most` of them."""
    bad: dict[int, str] = {}
    waiting = [(0, batch.num_rows)]
    while waiting and len(bad) <= at_most:
        start, stop = waiting.pop()
        try:
            ask(stage, batch.slice(start, stop - start))
        except BLAMELESS:
            raise
        except Exception as error:
            if stop - start == 1:
                bad[start] = f"{type(error).__name__}: {error}"[:500]
            else:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
    return dict(sorted(bad.items()))


def name_of(batch: pa.RecordBatch, row: int) -> str:
    """Repository and path of a row."""
    return shortened(f"{batch.column('repo_name')[row].as_py()}{batch.column('path')[row].as_py()}")


def shortened(name: str) -> str:
    """A name as it is shown: names come from strangers, so it is escaped, and cut if it is long."""
    name = repr(name)
    return name if len(name) <= SHOWN else f"{name[: SHOWN - 4]}…{name[0]}"


def largest(batch: pa.RecordBatch, sizes: Numbers) -> str:
    """The largest file of a batch, for whoever watches; "" if its name is not there."""
    if not batch.num_rows or not {"repo_name", "path"} <= set(batch.schema.names):
        return ""
    row = int(sizes.argmax())
    return f", the largest file {name_of(batch, row)} ({int(sizes[row]) / 1e6:,.1f} MB)"
