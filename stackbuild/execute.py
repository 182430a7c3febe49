"""Run one task of a job: the code that a worker child executes, whatever launched it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stackbuild import beacon
from stackbuild.decisions import Decisions
from stackbuild.errors import BadRows
from stackbuild.gather import run_contents, run_occurrences
from stackbuild.graph import Job, Node
from stackbuild.ingest import run_ingest
from stackbuild.judging import Judging, Try, judge_slice, largest, load_stage, shortened
from stackbuild.parts import Part, commit_part, commit_shard, find_part, of_part, part_key
from stackbuild.plan import Build
from stackbuild.rows import Rows
from stackbuild.schema import CONTENTS, IDENTITY
from stackbuild.shards import Attempt, ShardManifest, find_manifest, open_parquet, read_row_group
from stackbuild.task import Task

PLAIN = Try()
WHOLE = Part(0, 0, 0, 1)  # a task that is not cut
GATHER = {"contents": run_contents, "occurrences": run_occurrences}
Judged = list[tuple[Node, ShardManifest]]


def run_task(build: Build, job: Job, rank: int, params: dict[str, Any], how: Try = PLAIN) -> bool:
    """Run a task and commit its shards. True: it is complete; False: a part was committed (`how.one_part`) and there is more."""
    if job.kind == "phase":
        return run_phase(build, job, rank, params, how)
    if job.kind == "rows":
        return run_rows(build, job.nodes, rank, how)
    unit = build.plan.units[rank] if job.kind == "ingest" else None
    what = shortened(str(unit.repo_name or unit.where.get("path", unit.kind))) if unit else f"partition {rank}"
    beacon.at(f"{job.kind}, {what}")
    shard = GATHER[job.kind](build, rank, how.one_part) if job.kind in GATHER else run_ingest(build, rank)
    beacon.add(*((shard.ledger.rows_in, shard.ledger.bytes_in) if unit else read_by(build, job, rank)))
    return True


def read_by(build: Build, job: Job, rank: int) -> tuple[int, int]:
    """Rows that a task of contents or occurrences read, and about how many bytes."""
    outputs = [(o, o.groups[str(rank)]) for o in build.bucket_outputs(job.kind, rank)]
    return sum(rows for _, rows in outputs), sum(output.bytes * rows // output.rows for output, rows in outputs)


# ---------------------------------------------------------------- a phase


def run_phase(build: Build, job: Job, rank: int, params: dict[str, Any], how: Try) -> bool:
    """Run one task of a phase, each of its parts in an attempt of its own."""
    node, phase = job.nodes[0], job.phase
    assert phase is not None
    key = build.key(job, rank, params)
    parts = [WHOLE]
    if phase.parts:
        parts = build.contents_parts(rank) if phase.tasks == "contents" else build.parts(node, rank)
    made: list[ShardManifest] = []
    ran = False
    for part in parts:
        found = None if part.whole else find_part(build.out, job.name, rank, part_key(key, part), part)
        if found is None:
            if ran and how.one_part:
                return False
            found = _run_part(build, job, rank, params, key, part)
            ran = True
        made.append(found)
    commit_shard(build.out, job.name, rank, key, made)
    return True


def _run_part(build: Build, job: Job, rank: int, params: dict[str, Any], key: str, part: Part) -> ShardManifest:
    """Run a phase over a part of its rows or contents and commit it."""
    node, phase = job.nodes[0], job.phase
    assert phase is not None
    rows = build.rows(node, rank, part=None if part.whole else part) if phase.tasks == "partition" else None
    attempt = Attempt(build.out, job.name, rank)
    decisions = Decisions(attempt, node.instance, build.plan.partitions)
    beacon.at(f"{node.instance}, {phase.name}, task {rank}")
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
            rows=(lambda columns: _batches(rows, columns, f"{node.instance}, {phase.name}", rank)) if rows else None,
            contents=(lambda ids: contents_of(build, rank, ids, None if part.whole else part))
            if phase.tasks == "contents"
            else None,
            before=rows.before if rows else lambda: 0,
            available=rows.available() if rows else (),
            declared=phase.columns,
        )
        phase.run(task)
        decisions.close()
        return commit_part(attempt, part_key(key, part), part, decisions.ledger, task.stats)
    except BaseException:
        attempt.discard()
        raise


def _batches(rows: Rows, columns: Sequence[str], who: str, partition: int) -> Iterator[pa.RecordBatch]:
    """The rows that are still in, as batches; whoever watches is told where the task is."""
    for piece in rows.slices(columns):
        if piece.batch.num_rows:
            where = f"rows {piece.start:,} to {piece.stop:,} of partition {partition}"
            beacon.at(f"{who}, {where}{largest(piece.batch, piece.sizes)}")
            yield piece.batch
            beacon.add(piece.batch.num_rows, int(piece.sizes.sum()))
        beacon.at(f"{who}, reading partition {partition} from row {piece.stop:,} on")


def contents_of(
    build: Build, partition: int, ids: pa.Array | None, part: Part | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of a contents partition, or of a part of it, in id order; with `ids`, only those rows."""
    first = 0  # row of the row group at hand
    for output in build.contents(partition):
        with open_parquet(build.out, output) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                start, stop = (max(part.start - first, 0), min(part.stop - first, rows)) if part else (0, rows)
                first += rows
                if start >= stop:
                    continue
                if ids is not None:  # the narrow column first: most row groups may hold nothing that is asked for
                    there = read_row_group(build.out, output, file, group, ["content_id"])["content_id"]
                    wanted = pc.is_in(there, value_set=ids)
                    if not pc.any(wanted.slice(start, stop - start)).as_py():
                        continue
                table = read_row_group(build.out, output, file, group, CONTENTS.names).slice(start, stop - start)
                if ids is not None:
                    table = table.filter(wanted.slice(start, stop - start))
                beacon.at(f"contents {first - rows + start:,} to {first - rows + stop:,} of partition {partition}")
                yield from table.combine_chunks().to_batches()
                beacon.add(table.num_rows, int(pc.sum(table["length"]).as_py() or 0))


# ---------------------------------------------------------------- rows


def run_rows(build: Build, nodes: Sequence[Node], partition: int, how: Try) -> bool:
    """Judge a partition by the stages of a job that are not complete, reading it once, part by part; commit one shard for
    each stage."""
    judged: Judged = []
    for node in nodes:
        shard = find_manifest(build.out, node.slug, partition, build.rows_key(node, partition, judged))
        if shard is None:
            break
        judged.append((node, shard))
    todo = nodes[len(judged) :]
    if not todo:
        return True
    parts = build.parts(todo[0], partition)
    there = [_committed(build, nodes, partition, part, judged) for part in parts]
    missing = [number for number, here in enumerate(there) if len(here) < len(nodes)]
    quarantined = Counter[str]()
    for here in there:
        quarantined.update({node.slug: shard.ledger.quarantined for node, shard in here})
    for node in todo if missing else ():
        load_stage(build, node, partition)
    bad: list[Judging] = []
    for number in missing[:1] if how.one_part else missing:
        at_work = _judge(build, nodes, partition, parts, number, there[number], how, quarantined)
        for one in at_work:
            quarantined[one.node.slug] = one.quarantined
        if any(one.first_unsuspected for one in at_work):
            bad += at_work
            discard(at_work)
        else:
            _commit(build, partition, parts[number], at_work, there[number])
    if bad:
        raise bad_rows(bad, partition)
    if how.one_part and len(missing) > 1:
        return False
    for place, node in enumerate(() if parts[0].whole else todo, len(judged)):
        key = build.rows_key(node, partition, judged)
        judged.append((node, commit_shard(build.out, node.slug, partition, key, [here[place][1] for here in there])))
    return True


def _committed(build: Build, nodes: Sequence[Node], partition: int, part: Part, judged: Judged) -> Judged:
    """What the stages have committed of a part, up to the first that has not; `judged`: those whose shard is complete."""
    here = [(node, of_part(shard, "tags", part)) for node, shard in judged]
    for node in () if part.whole else nodes[len(here) :]:
        key = part_key(build.rows_key(node, partition, here), part)
        found = find_part(build.out, node.slug, partition, key, part)
        if found is None:
            break
        here.append((node, found))
    return here


def _judge(
    build: Build,
    nodes: Sequence[Node],
    partition: int,
    parts: Sequence[Part],
    number: int,
    here: Judged,
    how: Try,
    quarantined: Counter[str],
) -> list[Judging]:
    """Judge one part by the stages that have not committed it (`here`: those that have)."""
    todo = nodes[len(here) :]
    rows = build.rows(todo[0], partition, here, parts[number])
    columns = _columns(todo, rows.available())
    at_work: list[Judging] = []
    try:
        for node in todo:
            at_work.append(Judging(build, node, partition, how, parts[-1].stop, quarantined[node.slug]))
        for piece in rows.slices(columns):
            judge_slice(piece, at_work)
        for one in at_work:
            one.decisions.close()
        return at_work
    except BaseException:
        discard(at_work)
        raise


def _commit(build: Build, partition: int, part: Part, at_work: Sequence[Judging], here: Judged) -> None:
    """Commit what each stage wrote of a part, and add it to what is there."""
    waiting = list(at_work)
    try:
        while waiting:
            one = waiting[0]
            key = part_key(build.rows_key(one.node, partition, here), part)
            here.append((one.node, commit_part(one.attempt, key, part, one.decisions.ledger, {})))
            del waiting[0]
    except BaseException:
        discard(waiting)
        raise


def discard(at_work: Sequence[Judging]) -> None:
    for one in at_work:
        one.attempt.discard()


def bad_rows(stages: Sequence[Judging], partition: int) -> BadRows:
    """The error that names the rows which raised and which no earlier process named."""
    rows: dict[str, list[int]] = {}
    for one in stages:
        if one.raised:
            rows.setdefault(one.node.instance, []).extend(one.raised)
    first = next(one for one in stages if one.first_unsuspected)
    count = len(rows[first.node.instance])
    return BadRows(
        f"{first.node.instance} raised on {count:,} row(s) of partition {partition}; the first: {first.first_unsuspected}",
        rows,
    )


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
