"""Exact and near copies out of anyone's tables: the tasks of `reading`, those of `stackbuild.dedup`, those of `deciding`.

Every task reads what its predecessors committed and commits its own files under a key of all that they depend on, so that a
run that was killed goes on where it stopped, and nothing in the result depends on how many workers, partitions or input files
there were. OUT holds `data/` (the rows that stay), `clusters/` (who left, and for whom), `report.json`, and `stages/` (what
later runs build on; may be removed).
"""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild.errors import InputError, PartialFailure, StackbuildError, UsageError
from stackbuild.shards import (
    Output,
    ShardManifest,
    canonical_json,
    digest,
    file_sha256,
    read_batches,
    write_atomically,
)
from stackbuild.standalone.changes import write_changes
from stackbuild.standalone.columns import Kinds, check_columns
from stackbuild.standalone.earlier import NOTHING, Earlier, identity_of, keep, take_up
from stackbuild.standalone.inputs import InputUnit, plan_units, read_lines, read_unit
from stackbuild.standalone.options import DedupOptions
from stackbuild.standalone.running import Step, Talk, TaskOf, Workers, only_one, replace_folder, workers_for
from stackbuild.standalone.schemas import SOURCES
from stackbuild.standalone.steps import steps

VERSION = 1
PARTITION_BYTES = 512 << 20  # of text in a partition, about
PARTITION_ROWS = 1 << 19
MOST_PARTITIONS = 1 << 14


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
        kinds: Kinds,
        earlier: Earlier,
    ):
        self.out, self.units, self.options, self.seed, self.partitions = out, units, options, seed, partitions
        self.kinds, self.earlier = kinds, earlier
        self.tables: dict[str, list[Output]] = {}
        for outputs in (*earlier.outputs, earlier.solved):
            self._add(outputs)
        self.stats: dict[str, list[dict[str, Any]]] = {}
        self.made: dict[str, list[ShardManifest]] = {}

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
        used = (
            sketch_identity(self.options)
            if step.name == "sketch"
            else self.options.model_dump(mode="json", exclude=FREE)
        )
        common = digest([VERSION, code(), step.function, used, self.seed, self.partitions, asdict(self.kinds), inputs])
        listed = self.out / "stages" / step.name / f"inputs-{common[:24]}.json"
        write_atomically(listed, canonical_json({name: [vars(o) for o in outputs] for name, outputs in tables.items()}))
        found = []
        for place, given in enumerate(params):
            unit = self.units[place].identity() if step.per == "unit" else None
            rank = self.units[place].number if step.per == "unit" else place
            key = digest([common, step.name, rank, unit])
            params_ = given | {"id_type": self.kinds.id_type, "rank_kinds": self.kinds.ranks}
            found.append(
                TaskOf(str(self.out), step, rank, params_, self.options, self.seed, self.partitions, listed, key)
            )
        return found

    def take(self, step: Step, made: Sequence[ShardManifest]) -> None:
        """Make what a step committed the input of those that follow."""
        for shard in made:
            self._add(shard.outputs)
        self.stats[step.name] = [shard.stats for shard in made]
        self.made[step.name] = list(made)

    def total(self, step: str, name: str) -> int:
        """The sum of a statistic over a step's tasks."""
        return sum(int(one.get(name, 0)) for one in self.stats.get(step, ()))


@cache
def code() -> str:
    """A digest of the code and of the libraries that the result follows from."""
    folder = Path(__file__).parents[1]
    files = [*sorted(folder.glob("dedup/*.py")), *sorted(folder.glob("standalone/*.py"))]
    files += [folder / f"{name}.py" for name in ("footers", "hashing", "schema", "shards", "tables", "task")]
    files += [folder / "sources" / f"{name}.py" for name in ("arrow_stream", "json_lines")]
    return digest(
        [[file.name, file_sha256(file)] for file in files]
        + [metadata.version(name) for name in ("numba", "numpy", "pyarrow")]
        + [unicodedata.unidata_version]
    )


FREE = {"memory", "alarm_share", "alarm_files"}  # options that no table depends on


def sketch_identity(options: DedupOptions) -> dict[str, Any]:
    """What sketches and band keys depend on of the options: not the threshold, unless bands are sought by it."""
    later = {"threshold", "verify", "survivor", "bands"}
    return options.model_dump(mode="json", exclude=FREE | later) | {"layout": list(options.layout)}


def partitions_for(units: Sequence[InputUnit]) -> int:
    """A power of two: one for each PARTITION_BYTES of text or PARTITION_ROWS, about."""
    wanted = max(
        sum(unit.bytes for unit in units) // PARTITION_BYTES, sum(unit.rows for unit in units) // PARTITION_ROWS
    )
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
    units = plan_units(paths, options.text_column, leave_out=out)
    kinds = check_columns(units, options)
    if partitions is not None and (partitions & (partitions - 1) or not 0 < partitions <= MOST_PARTITIONS):
        raise UsageError(f"--partitions {partitions}: write a power of two up to {MOST_PARTITIONS}.")
    out.mkdir(parents=True, exist_ok=True)
    with only_one(out):
        try:
            return _run(out, units, options, seed, workers, partitions, kinds, earlier, talk)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise PartialFailure(
                f"{out} cannot be written to: {error.strerror or error}{where}. Mend it and run again."
            ) from error


def _run(
    out: Path,
    units: list[InputUnit],
    options: DedupOptions,
    seed: int,
    workers: int | None,
    partitions: int | None,
    kinds: Kinds,
    earlier: Path | None,
    talk: Talk,
) -> dict[str, Any]:
    before, same = NOTHING, identity_of(sketch_identity(options), seed, kinds, code())
    solving = options.model_dump(mode="json", exclude=FREE)
    if earlier is not None:
        before = take_up(earlier, out, same, solving)
        if partitions not in (None, before.partitions):
            raise UsageError(f"{earlier} has {before.partitions} partitions, not {partitions}; leave --partitions out.")
        units = [replace(unit, number=unit.number + len(before.units)) for unit in units]
    partitions = before.partitions or partitions or partitions_for(units)
    run = Run(out, units, options, seed, partitions, kinds, before)
    with Workers(workers or workers_for(units)) as pool:
        for step in steps(options, bool(before.solved)):
            run.take(step, pool.run(step, run.tasks(step), talk))
            if step.name == "ids":
                _refuse_repeated(run)
    report = reported(run)
    _publish(run, report)
    keep(out, same | {"partitions": partitions, "clusters": list(clusters_of(run))}, units, run.made, before, solving)
    tidy(run)
    return report


def _refuse_repeated(run: Run) -> None:
    found = sorted(tuple(one["repeated"]) for one in run.stats["ids"] if "repeated" in one)
    if not found:
        return
    unit, row = next(unit for unit in (*run.earlier.units, *run.units) if unit.number == found[0][0]), found[0][1]
    if run.options.id_column is None:
        raise InputError(f"{unit.path} is among the earlier files too; a row's name is its file's and its number.")
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
    solved = [*run.stats["solve"], *run.stats.get("unchanged", ())]
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
        "largest_cluster": max((int(one.get("largest_cluster", 0)) for one in solved), default=0),
        "options": run.options.model_dump(mode="json", exclude=FREE | {"survivor"}),
        "seed": run.seed,
    }
    if run.earlier.units:
        report["earlier_rows"] = sum(int(one["rows"]) for one in run.earlier.stats)
        clusters = [run.out / output.file for output in run.tables["published"]]
        report["unchanged_components"] = run.total("unchanged", "unchanged")
        ids = [output for made in run.earlier.outputs for output in made if output.table == "ids"]
        report["changes"] = write_changes(run.out, clusters, run.earlier.clusters, ids)
    if run.options.source_column:
        report["alarms"] = alarms(run)
    if run.options.compares_headers:
        names = ("removed", "removed_with_headers")
        report["headers"] = {name: sum(int(one[name]) for one in solved) for name in names}
    return report


def tidy(run: Run) -> None:
    """Remove what attempts that were killed and runs with other options or inputs left in OUT."""
    used = {(run.out / output.file).parent for outputs in run.tables.values() for output in outputs}
    for folder in run.out.glob("stages/*/data/*"):
        if folder not in used:
            shutil.rmtree(folder, ignore_errors=True)
    for path in run.out.glob("stages/earlier/*"):
        if run.out / "stages" / "earlier" not in used:
            path.unlink(missing_ok=True)


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


def clusters_of(run: Run) -> dict[str, Output]:
    """The files of `clusters/` by their names."""
    clusters = run.tables["published"]
    return {f"part-{i:05d}-of-{len(clusters):05d}.parquet": output for i, output in enumerate(clusters)}


def _publish(run: Run, report: dict[str, Any]) -> None:
    """Link the results into OUT, each folder replaced at once."""
    data = {unit.name: output for unit, output in zip(run.units, run.tables["data"], strict=True)}
    for folder, files in (("data", data), ("clusters", clusters_of(run))):
        replace_folder(run.out, folder, files)
    write_atomically(run.out / "report.json", (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
