"""`stackbuild plan`: the jobs of a build before it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from stackbuild.cli.build import short
from stackbuild.errors import InputError, UsageError


def run(
    recipe: str, output: Path | None, resolved: bool, schema: bool, sets: list[str], as_json: bool, offline: bool
) -> None:
    """Show the resolved values, the schema, or the jobs."""
    from stackbuild.recipe import json_schema, load, resolved_lines

    if schema:
        print(json.dumps(json_schema(), indent=1))
        return
    loaded = load(recipe, sets)
    if resolved:
        if as_json:
            print(json.dumps({"values": loaded.resolved(), "origins": {d: o for d, _, o in resolved_lines(loaded)}}))
            return
        for dotted, value, origin in resolved_lines(loaded):
            print(f"{dotted} = {json.dumps(value)}    # {origin}")
        return
    from stackbuild import build as building
    from stackbuild.plan import Build

    out = (output or Path("out")).resolve()
    request = building.Request(loaded.resolved(), loaded.folder, out, workers=1, offline=offline)
    plan = building.resolve(request, keep=False)
    jobs = jobs_of(Build(out, plan))
    size = sum(unit.bytes for unit in plan.units)
    if as_json:
        print(
            json.dumps(
                {
                    "plan": plan.digest,
                    "units": len(plan.units),
                    "bytes": size,
                    "jobs": jobs,
                    "skipped": plan.skipped,
                    "estimate": estimate(plan),
                }
            )
        )
        return
    table = Table(
        title=f"{loaded.values['name']}: {len(plan.units):,} units, {size / 1e6:,.1f} MB", title_justify="left"
    )
    table.add_column("job")
    table.add_column("tasks", justify="right")
    table.add_column("complete", justify="right")
    for name, tasks, complete in shown(jobs):
        table.add_row(name, tasks, complete)
    Console().print(table)
    for name, text in loaded.values["deviations"].items():
        print(f"deviation: {name}: {text}")
    for skip in plan.skipped:
        print(f"not read: {skip['what']}: {skip['reason']}")
    guess = estimate(plan)
    print(f"estimate: {guess['cpu_hours']:.2f} CPU-hours, {guess['disk_bytes'] / 1e6:,.0f} MB of disk")
    if "near_dedup" in loaded.values:
        show_curve(loaded.values["near_dedup"])


def shown(jobs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Name, tasks and how many are complete of each job; jobs that differ in their last number only are one line."""

    def alike(job: dict[str, Any]) -> tuple[str, str, str]:
        tasks = "from its input" if job["tasks"] is None else str(job["tasks"])
        return re.sub(r"-\d+$", "", short(job["job"])), tasks, str(job["complete"])

    for (name, tasks, complete), group in groupby(jobs, alike):
        first, *_, last = [short(job["job"]) for job in group] * 2
        yield (first if first == last else f"{first} … {last.removeprefix(name)}"), tasks, complete


def refuse_without_estimate(context: typer.Context) -> None:
    """UsageError if an option was given that says something of an estimate, and none is asked for."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        given = source is not None and source.name != "DEFAULT"
        if given and (getattr(option, "help", None) or "").startswith("With --estimate"):
            raise UsageError(
                f"{option.opts[0]} says something of an estimate only; add --estimate with a size, such as 67.5TB."
            )


def jobs_of(build: Any) -> list[dict[str, Any]]:
    """Each job with its tasks and how many are complete; None where that follows from what comes before."""
    found = []
    for job in build.jobs:
        try:
            params = build.task_params(job)
            complete = sum(build.found(job, rank, p) is not None for rank, p in enumerate(params))
            found.append({"job": job.name, "tasks": len(params), "complete": complete})
        except InputError:
            planned = job.phase is not None and callable(job.phase.tasks)
            found.append({"job": job.name, "tasks": None if planned else fixed(build, job), "complete": 0})
    return found


def fixed(build: Any, job: Any) -> int:
    """Tasks of a job whose number does not follow from its input."""
    if job.kind == "ingest":
        return len(build.plan.units)
    return 1 if job.phase is not None and job.phase.tasks == "one" else int(build.plan.partitions)


def estimate(plan: Any) -> dict[str, float]:
    """CPU-hours and bytes of disk that what was resolved takes, by the rates that stackbuild brings. A unit's bytes are those
    of its file or repository; the text in it may be some times as much."""
    from dataclasses import replace

    from stackbuild.estimate.model import Cluster
    from stackbuild.estimate.model import estimate as estimated
    from stackbuild.estimate.rates import load_rates

    rates = load_rates()
    size = max(1, sum(unit.bytes for unit in plan.units))
    corpus = rates.corpus.sized(size, None, len(plan.units), 1.0)
    found = estimated(plan.recipe, replace(corpus, partitions=plan.partitions), Cluster(), rates)
    return {"cpu_hours": found.cpu / 3600, "disk_bytes": found.disk}


def show_curve(options: dict[str, Any]) -> None:
    """The S-curve of the near-duplicate bands, with the areas of false positives and negatives."""
    from stackbuild.dedup.bands import error_areas, optimal_bands, s_curve

    if options["mode"] == "exact":
        print("near-duplicates: every pair is found (mode = exact)")
        return
    threshold, permutations = options["threshold"], options["permutations"]
    bands = options["bands"] if isinstance(options["bands"], int) else optimal_bands(threshold, permutations)[0]
    rows = permutations // bands
    above, below = error_areas(threshold, bands, rows)
    checked = "candidates are checked" if options["verify"] else "candidates are not checked"
    print(f"near-duplicates: {bands} bands of {rows}; {checked}")
    print(f"  expected false positives {above:.4f}, false negatives {below:.4f} (areas under the curve)")
    for point in s_curve(threshold, bands, rows, 10):
        print(
            "  "
            + "  ".join(
                f"{name} {value:.4f}" if isinstance(value, float) else name
                for name, value in point.items()
                if value is not False
            )
        )
