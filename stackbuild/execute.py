"""Run one task of a job: the code that a worker child executes, whatever launched it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.decisions import Decisions
from stackbuild.graph import Job, Node
from stackbuild.ingest import run_contents, run_ingest, run_occurrences
from stackbuild.plan import Build
from stackbuild.rows import KEEP, SIZE, Slice, tag_schema
from stackbuild.schema import CONTENTS, IDENTITY
from stackbuild.shards import Attempt, ShardManifest, find_manifest, open_parquet, read_row_group
from stackbuild.stage import Left, Stage, Verdict, judge, with_columns
from stackbuild.task import Task

QUARANTINE_SHARE = (
    0.01  # of a shard's rows; more than this and at least QUARANTINE_ROWS is a defect of the stage, not of the rows
)
QUARANTINE_ROWS = 10


def run_task(build: Build, job: Job, rank: int, params: dict[str, Any], isolate: bool = False) -> list[ShardManifest]:
    """Run a task and commit its shards; `isolate`: a row that raises is quarantined (the second try of a failed task)."""
    if job.kind == "ingest":
        return [run_ingest(build, rank)]
    if job.kind == "contents":
        return [run_contents(build, rank)]
    if job.kind == "occurrences":
        return [run_occurrences(build, rank)]
    if job.kind == "phase":
        return [run_phase(build, job, rank, params)]
    return run_rows(build, job.nodes, rank, isolate)


# ---------------------------------------------------------------- a phase


def run_phase(build: Build, job: Job, rank: int, params: dict[str, Any]) -> ShardManifest:
    """Run one task of a phase in an attempt of its own."""
    node, phase = job.nodes[0], job.phase
    assert phase is not None
    key = build.key(job, rank, params)
    attempt = Attempt(build.out, job.name, rank)
    decisions = Decisions(attempt, node.instance, build.plan.partitions)
    rows = build.rows(node, rank) if phase.tasks == "partition" else None
    contents = (lambda ids: contents_of(build, rank, ids)) if phase.tasks == "contents" else None
    try:
        task = Task(
            out=build.out,
            job=job.name,
            rank=rank,
            params=params,
            options=node.stage.options,
            seed=build.plan.seed,
            partitions=build.plan.partitions,
            tables=build.tables_for(node, phase.reads, phase.name),
            attempt=attempt,
            decisions=decisions,
            rows=rows.batches if rows else None,
            contents=contents,
            available=rows.available() if rows else (),
            declared=phase.columns,
        )
        phase.run(task)
        decisions.close()
        return attempt.commit(key, decisions.ledger, task.stats)
    except BaseException:
        attempt.discard()
        raise


def contents_of(build: Build, partition: int, ids: pa.Array | None) -> Any:
    """Batches of a contents partition, in id order; with `ids`, only those rows."""
    for output in build.contents(partition):
        with open_parquet(build.out, output) as file:
            for group in range(file.num_row_groups):
                if ids is not None:  # the narrow column first: most row groups may hold nothing that is asked for
                    there = read_row_group(build.out, output, file, group, ["content_id"])["content_id"]
                    wanted = pc.is_in(there, value_set=ids)
                    if not pc.any(wanted).as_py():
                        continue
                table = read_row_group(build.out, output, file, group, CONTENTS.names)
                yield from (table if ids is None else table.filter(wanted)).combine_chunks().to_batches()


# ---------------------------------------------------------------- rows


class Judging:
    """A stage at work on one partition: its attempt, its tag file, its decisions."""

    def __init__(self, build: Build, node: Node, partition: int):
        self.node, self.stage = node, node.stage
        self.attempt = Attempt(build.out, node.slug, partition)
        self.decisions = Decisions(self.attempt, node.instance, build.plan.partitions)
        self.schema = tag_schema(node.stage)
        self.writer = self.attempt.writer("tags", self.schema)
        self.quarantined = 0
        names = build.phase_tables(node)
        self.stage.load(
            Task(
                out=build.out,
                job=node.slug,
                rank=partition,
                params={},
                options=node.stage.options,
                seed=build.plan.seed,
                partitions=build.plan.partitions,
                tables=build.tables_for(node, names),
            )
        )


def run_rows(build: Build, nodes: Sequence[Node], partition: int, isolate: bool) -> list[ShardManifest]:
    """Judge a partition by the stages of a job that are not complete, reading it once; commit one shard for each stage."""
    judged: list[tuple[Node, ShardManifest]] = []
    for node in nodes:
        shard = find_manifest(build.out, node.slug, partition, build.rows_key(node, partition, judged))
        if shard is None:
            break
        judged.append((node, shard))
    todo = nodes[len(judged) :]
    if not todo:
        return [shard for _, shard in judged]
    rows = build.rows(todo[0], partition, judged)
    columns = _columns(todo, rows.available())
    at_work: list[Judging] = []
    try:
        for node in todo:
            at_work.append(Judging(build, node, partition))
        for piece in rows.slices(columns):
            judge_slice(piece, at_work, isolate)
        for one in at_work:
            one.decisions.close()
            key = build.rows_key(one.node, partition, judged)
            judged.append((one.node, one.attempt.commit(key, one.decisions.ledger, {})))
        return [shard for _, shard in judged]
    except BaseException:
        for one in at_work[len(judged) - (len(nodes) - len(todo)) :]:
            one.attempt.discard()
        raise


def _columns(nodes: Sequence[Node], available: Sequence[str]) -> list[str]:
    """What the stages need that is not made on the way."""
    made: set[str] = set()
    wanted: dict[str, None] = dict.fromkeys(IDENTITY)
    for node in nodes:
        needs = [*node.stage.needs(), *(["text"] if node.stage.rewrites_text and "text" in available else [])]
        wanted.update(dict.fromkeys(name for name in needs if name not in made))
        made |= {field.name for field in node.stage.adds}
        if node.stage.rewrites_text:
            made.add("text")
    return list(wanted)


def judge_slice(piece: Slice, stages: Sequence[Judging], isolate: bool) -> None:
    """Take a slice of the partition through the stages; each writes one tag row for each row of the base."""
    batch, rows, sizes = piece.batch, piece.rows, piece.sizes
    height = piece.stop - piece.start
    for one in stages:
        one.decisions.enter(batch.num_rows, int(sizes.sum()))
        bad: dict[int, str] = {}
        if batch.num_rows:
            try:
                tags, keep, left, text = _ask(one.stage, batch)
            except (MemoryError, KeyboardInterrupt):
                raise
            except Exception:
                if not isolate:
                    raise
                bad = find_bad_rows(one.stage, batch)
                one.quarantined += len(bad)
                if not bad or one.quarantined > max(QUARANTINE_ROWS, QUARANTINE_SHARE * one.decisions.ledger.rows_in):
                    raise
                good = np.setdiff1d(np.arange(batch.num_rows), np.array(list(bad), np.int64))
                _leave(
                    one,
                    batch,
                    np.array(list(bad), np.int64),
                    sizes,
                    "quarantined",
                    Verdict("error", pa.array([]), detail=None),
                    list(bad.values()),
                )
                batch, rows, sizes = batch.take(pa.array(good)), rows[good], sizes[good]
                tags, keep, left, text = _ask(one.stage, batch)
        else:
            tags, keep, left, text = {}, pa.array([], pa.bool_()), [], None
        for gone in left:
            _leave(one, batch, np.asarray(gone.rows), sizes, "dropped", gone.verdict)
        stays = np.asarray(keep).astype(bool)
        after = sizes
        if text is not None:
            after = np.asarray(pc.fill_null(pc.binary_length(text), 0)).astype(np.int64)
            after = np.where(stays, after, sizes)  # what leaves, leaves at the size that it came with
            one.decisions.ledger.bytes_delta += int((after - sizes).sum())
            tags = {**tags, SIZE: pa.array(after)}
            batch = with_columns(batch, {"text": text})
        one.writer.write(_aligned(one.schema, {**tags, KEEP: keep}, rows, height))
        batch = with_columns(batch, {name: array for name, array in tags.items() if name != SIZE})
        if not stays.all():
            where = pa.array(np.flatnonzero(stays))
            batch, rows, after = batch.take(where), rows[stays], after[stays]
        sizes = after
        one.decisions.stay(batch.num_rows, int(sizes.sum()))


def _ask(stage: Stage[Any], batch: pa.RecordBatch) -> tuple[dict[str, pa.Array], pa.Array, list[Left], pa.Array | None]:
    tags = {name: _whole(array) for name, array in stage.tags(batch).items()}
    tagged = with_columns(batch, tags)
    keep, left = judge(stage.verdicts(tagged), batch.num_rows)
    text = _whole(stage.text(tagged)) if stage.rewrites_text else None
    return tags, keep, left, text


def _whole(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _aligned(
    schema: pa.Schema, columns: dict[str, pa.Array], rows: npt.NDArray[np.int64], height: int
) -> pa.RecordBatch:
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
    rows: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
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


def find_bad_rows(stage: Stage[Any], batch: pa.RecordBatch) -> dict[int, str]:
    """The rows on which a stage raises, by halving, each with its error."""
    bad: dict[int, str] = {}
    waiting = [(0, batch.num_rows)]
    while waiting:
        start, stop = waiting.pop()
        try:
            _ask(stage, batch.slice(start, stop - start))
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:
            if stop - start == 1:
                bad[start] = f"{type(error).__name__}: {error}"[:500]
            else:
                middle = (start + stop) // 2
                waiting += [(start, middle), (middle, stop)]
    return dict(sorted(bad.items()))
