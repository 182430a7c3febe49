"""Exact and near copies out of anyone's tables: the tasks of `reading`, those of `stackbuild.dedup`, those of `deciding`.

Every task reads what its predecessors committed and commits its own files under a key of all that they depend on, so that a
run that was killed goes on where it stopped, and nothing in the result depends on how many workers, partitions or input files
there were. OUT holds `data/` (the rows that stay), `clusters/` (who left, and for whom), `report.json`, and `stages/` (what
later runs build on; may be removed).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild.errors import InputError, StackbuildError, UsageError
from stackbuild.shards import (
    Output,
    ShardManifest,
    canonical_json,
    digest,
    file_sha256,
    read_batches,
    write_atomically,
)
from stackbuild.standalone.earlier import NOTHING, Earlier, identity_of, keep, take_up, write_changes
from stackbuild.standalone.inputs import InputUnit, plan_units, read_lines, read_unit, schema_of
from stackbuild.standalone.options import DedupOptions
from stackbuild.standalone.running import Step, Talk, TaskOf, Workers
from stackbuild.standalone.schemas import SOURCES

VERSION = 1
PARTITION_BYTES = 512 << 20  # of text in a partition, about
WORKER_BYTES = 256 << 20  # of text that another worker is worth starting for
MOST_PARTITIONS = 1 << 14

BEFORE = (
    Step("sketch", "standalone.reading", "sketch", "unit"),
    Step("ids", "standalone.deciding", "check_ids", "partition", ("ids",)),
    Step("copies", "standalone.deciding", "choose_copies", "partition", ("rows",)),
)
MINHASH = (Step("candidates", "dedup.pairs", "list_candidates", "partition", ("bands",)),)
EXACT = (
    Step("frequencies", "dedup.exact_mode", "count", "partition", ("sketches",)),
    Step("order", "dedup.exact_mode", "merge", "one", ("counts",)),
    Step("prefixes", "dedup.exact_mode", "list_prefixes", "partition", ("sketches", "order")),
    Step("candidates", "dedup.exact_mode", "list_candidates", "partition", ("prefixes",)),
)
AFTER = (
    Step("links", "dedup.links", "link", "partition", ("pairs", "sketches")),
    Step("estimates", "dedup.links", "estimate", "partition", ("links", "sketches")),
    Step("roots", "dedup.components", "find_roots", "partition", ("stars",)),
    Step("components", "dedup.components", "join_roots", "one", ("merges", "roots")),
    Step("sets", "dedup.members", "gather", "partition", ("roots", "labels", "groups", "sketches", "edges", "files")),
    Step("solve", "dedup.clusters", "solve_group", "group", ("groups", "group_edges", "sets")),
    Step("rows", "standalone.deciding", "cluster_rows", "partition", ("rows", "clusters")),
    Step("decide", "standalone.deciding", "decide", "partition", ("clustered",)),
    Step("publish", "standalone.deciding", "publish_clusters", "one", ("decided",)),
    Step("write", "standalone.deciding", "write_rows", "unit", ("removed",)),
)


def steps(options: DedupOptions) -> tuple[Step, ...]:
    """The steps, in their order; how candidates are found is the recipe's."""
    return (*BEFORE, *(EXACT if options.exact else MINHASH), *AFTER)


# ---------------------------------------------------------------- the driver


class Run:
    """One run of the list of steps over one folder."""

    def __init__(
        self,
        out: Path,
        units: Sequence[InputUnit],
        options: DedupOptions,
        seed: int,
        partitions: int,
        id_type: str,
        earlier: Earlier,
    ):
        self.out, self.units, self.options, self.seed, self.partitions = out, units, options, seed, partitions
        self.id_type, self.earlier = id_type, earlier
        self.tables: dict[str, list[Output]] = {}
        for outputs in earlier.outputs:
            self._add(outputs)
        self.stats: dict[str, list[dict[str, Any]]] = {}

    def _add(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self.tables.setdefault(output.table, []).append(output)

    def tasks(self, step: Step) -> list[TaskOf]:
        """The tasks of a step, whose inputs are all committed."""
        tables = {name: self.tables.get(name, []) for name in step.reads}
        if step.per == "unit":
            params: list[dict[str, Any]] = [{"unit": asdict(unit)} for unit in self.units]
        elif step.per == "group":
            groups = sum(output.rows for output in self.tables["groups"])
            params = [{"group": group} for group in range(groups)]
        else:
            params = [{} for _ in range(1 if step.per == "one" else self.partitions)]
        inputs = {name: [output.identity() for output in outputs] for name, outputs in tables.items()}
        common = digest([VERSION, code(), step.function, self.options.model_dump(mode="json"), self.seed, self.partitions,
                         self.id_type, inputs])  # fmt: skip
        listed = self.out / "stages" / step.name / f"inputs-{common[:24]}.json"
        write_atomically(listed, canonical_json({name: [vars(o) for o in outputs] for name, outputs in tables.items()}))
        found = []
        for place, given in enumerate(params):
            unit = self.units[place].identity() if step.per == "unit" else None
            rank = self.units[place].number if step.per == "unit" else place
            key = digest([common, step.name, rank, unit])
            params_ = given | {"id_type": self.id_type}
            found.append(
                TaskOf(str(self.out), step, rank, params_, self.options, self.seed, self.partitions, listed, key)
            )
        return found

    def take(self, step: Step, made: Sequence[ShardManifest]) -> None:
        """Make what a step committed the input of those that follow."""
        for shard in made:
            self._add(shard.outputs)
        self.stats[step.name] = [shard.stats for shard in made]

    def total(self, step: str, name: str) -> int:
        """The sum of a statistic over a step's tasks."""
        return sum(int(one.get(name, 0)) for one in self.stats[step])


@cache
def code() -> str:
    """A digest of the code and of the libraries that the result follows from."""
    folder = Path(__file__).parents[1]
    files = [*sorted(folder.glob("dedup/*.py")), *sorted(folder.glob("standalone/*.py"))]
    files += [folder / f"{name}.py" for name in ("hashing", "schema", "shards", "tables", "task")]
    return digest(
        [[file.name, file_sha256(file)] for file in files]
        + [metadata.version(name) for name in ("numba", "numpy", "pyarrow")]
    )


def workers_for(units: Sequence[InputUnit]) -> int:
    """All cores, but not more than there is work for: a second process costs a second of CPU before it does any."""
    return min(os.cpu_count() or 1, 1 + sum(unit.bytes for unit in units) // WORKER_BYTES)


def partitions_for(units: Sequence[InputUnit]) -> int:
    """A power of two: one for each PARTITION_BYTES of text."""
    wanted = sum(unit.bytes for unit in units) // PARTITION_BYTES
    return min(1 << max(0, wanted).bit_length(), MOST_PARTITIONS)


def deduplicate(
    paths: Sequence[str],
    out: Path,
    options: DedupOptions,
    *,
    seed: int = 42,
    workers: int | None = 1,
    partitions: int | None = None,
    earlier: Path | None = None,
    talk: Talk = lambda what, done, of: None,
) -> dict[str, Any]:
    """Find exact and near copies among the rows of files and write the rows that stay to OUT; returns the report.

    `paths`: Parquet, JSON lines or Arrow files, folders of them, or globs. `workers`: processes; None: by the size.
    `partitions`: a power of two; more of them need less memory, the result is the same. `earlier`: the OUT of a run over
    other files, to be taken together with these: `clusters` is what one run over all would give, `data` has the new files'
    rows, `changes.parquet` the earlier rows whose fate changed. UsageError for columns that are not there, InputError for
    files that do not read and for ids that are not unique, PartialFailure when a worker was killed.
    """
    units = plan_units(paths, options.text_column)
    refuse_own_output(units, out)
    id_type = check_columns(units, options)
    partitions = partitions or partitions_for(units)
    before = NOTHING
    if earlier is not None:
        before = take_up(earlier, out, identity_of(options, seed, partitions, id_type, code()))
        partitions, id_type = before.partitions, before.id_type
        units = [replace(unit, number=unit.number + len(before.units)) for unit in units]
    if partitions & (partitions - 1) or not 0 < partitions <= MOST_PARTITIONS:
        raise UsageError(f"--partitions {partitions}: write a power of two up to {MOST_PARTITIONS}.")
    out.mkdir(parents=True, exist_ok=True)
    run = Run(out, units, options, seed, partitions, id_type, before)
    with Workers(workers or workers_for(units)) as pool:
        for step in steps(options):
            made = pool.run(step, run.tasks(step), talk)
            run.take(step, made)
            if step.name == "sketch":
                keep(out, identity_of(options, seed, partitions, id_type, code()), units, made, before)
            if step.name == "ids":
                _refuse_repeated(run)
    report = reported(run)
    _publish(run, report)
    return report


def check_columns(units: Sequence[InputUnit], options: DedupOptions) -> str:
    """The type of ids, int64 or string. UsageError names a column that a file does not have."""
    needed = [
        options.text_column,
        options.id_column,
        options.scope_column,
        options.source_column,
        *options.survivor_columns,
    ]
    id_type = None
    for unit in units:
        schema = schema_of(unit)
        if schema is None:
            id_type = id_type or _id_type_of_lines(unit, options)
            continue
        for column in needed:
            if column is not None and column not in schema.names:
                raise UsageError(
                    f"{unit.path} has no column {column!r}; it has {', '.join(schema.names[:30])}. "
                    "Name it: --text-column, --id-column (or --no-id-column), --scope-column, --survivor."
                )
        text = schema.field(options.text_column).type
        text = text.value_type if pa.types.is_dictionary(text) else text
        if not any(is_(text) for is_ in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
                                         pa.types.is_large_binary, pa.types.is_string_view, pa.types.is_binary_view)):  # fmt: skip
            raise UsageError(f"{unit.path}: the column {options.text_column!r} is {text}, not text.")
        if options.id_column and id_type is None:
            id_type = "int64" if pa.types.is_integer(schema.field(options.id_column).type) else "string"
    return id_type or "string"


def _id_type_of_lines(unit: InputUnit, options: DedupOptions) -> str:
    for _, line in read_lines(unit):
        try:
            value = json.loads(line).get(options.id_column)
        except (ValueError, AttributeError, RecursionError):
            return "string"  # told with its line when the unit is read
        return "int64" if isinstance(value, int) and not isinstance(value, bool) else "string"
    return "string"


def refuse_own_output(units: Sequence[InputUnit], out: Path) -> None:
    """UsageError if an input lies in the output folder."""
    inside = next((unit.path for unit in units if out.resolve() in Path(unit.path).resolve().parents), None)
    if inside:
        raise UsageError(f"{inside} lies in the output folder {out}; write to another.")


def _refuse_repeated(run: Run) -> None:
    found = sorted(tuple(one["repeated"]) for one in run.stats["ids"] if "repeated" in one)
    if not found:
        return
    unit, row = next(unit for unit in run.units if unit.number == found[0][0]), found[0][1]
    raise InputError(
        f"{run.options.id_column} {_id_at(unit, row, run.options)!r} of row {row} of {unit.path} stands in an earlier row too; "
        "each row needs an id of its own (--no-id-column: rows are named by file and number)."
    )


def _id_at(unit: InputUnit, row: int, options: DedupOptions) -> Any:
    assert options.id_column
    if unit.kind == "lines":
        return next(json.loads(line).get(options.id_column) for number, line in read_lines(unit) if number == row)
    for first, batch in read_unit(unit, [options.id_column]):
        if first <= row < first + batch.num_rows:
            return batch.column(0)[row - first].as_py()
    return None


# ---------------------------------------------------------------- what the user gets


def reported(run: Run) -> dict[str, Any]:
    """report.json: what was read, what left by which reason, what was asked for."""
    rows = run.total("sketch", "rows") + sum(int(one["rows"]) for one in run.earlier.stats)
    removed = {name: run.total("decide", name) for name in ("exact_copy", "near_duplicate")}
    kept, written, left = rows - sum(removed.values()), run.total("write", "kept"), run.total("write", "removed")
    if run.total("sketch", "rows") != written + left or (not run.earlier.units and written != kept):
        raise StackbuildError(
            f"{rows:,} rows were read, {written:,} were written and {sum(removed.values()):,} left: they do not add up."
        )
    report: dict[str, Any] = {
        "version": VERSION,
        "rows": rows,
        "kept": kept,
        "removed": removed,
        "bytes": run.total("sketch", "bytes") + sum(int(one["bytes"]) for one in run.earlier.stats),
        "removed_bytes": {name: run.total("decide", f"{name}_bytes") for name in removed},
        "contents": run.total("copies", "contents"),
        "candidate_pairs": run.total("links", "candidate_pairs"),
        "likely_pairs": run.total("estimates", "likely_pairs"),
        "largest_cluster": max((int(one.get("largest_cluster", 0)) for one in run.stats["solve"]), default=0),
        "options": run.options.model_dump(mode="json", exclude={"memory"}),  # which changes nothing here
        "seed": run.seed,
    }
    if run.earlier.units:
        report["earlier_rows"] = sum(int(one["rows"]) for one in run.earlier.stats)
        clusters = [run.out / output.file for output in run.tables["published"]]
        report["changes"] = write_changes(run.out, clusters, run.earlier)
    if run.options.source_column:
        report["alarms"] = alarms(run)
    if run.options.compares_headers:
        names = ("removed", "removed_with_headers", "removed_by_headers_alone")
        report["headers"] = {name: run.total("solve", name) for name in names}
    return report


def alarms(run: Run) -> list[dict[str, Any]]:
    """The sources that lose `alarm_share` of their rows or more and have `alarm_files` or more, the largest loss first."""
    counts = []
    for name in ("sources", "losses"):
        table = pa.Table.from_batches(list(read_batches(run.out, run.tables.get(name, []))), SOURCES)
        counts.append(table.group_by("source").aggregate([("rows", "sum")]).rename_columns(["source", name]))
    both = counts[0].join(counts[1], "source")
    found = [
        {"source": row["source"], "rows": row["sources"], "removed": row["losses"] or 0}
        for row in both.to_pylist()
        if row["sources"] >= run.options.alarm_files
        and (row["losses"] or 0) >= run.options.alarm_share * row["sources"]
    ]
    return sorted(found, key=lambda row: (-row["removed"], str(row["source"])))


def _publish(run: Run, report: dict[str, Any]) -> None:
    """Link the results into OUT, each folder replaced at once."""
    data = {unit.name: output for unit, output in zip(run.units, run.tables["data"], strict=True)}
    clusters = list(run.tables["published"])
    named = {f"part-{i:05d}-of-{len(clusters):05d}.parquet": output for i, output in enumerate(clusters)}
    for folder, files in (("data", data), ("clusters", named)):
        temporary, target, old = run.out / f".{folder}.new", run.out / folder, run.out / f".{folder}.old"
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        for name, output in files.items():
            os.link(run.out / output.file, temporary / name)
        if target.exists():
            os.rename(target, old)
        os.rename(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    write_atomically(run.out / "report.json", (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
