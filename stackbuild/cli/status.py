"""`stackbuild status`: the jobs of a build as they stand."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stackbuild.cli.build import short
from stackbuild.cli.show import escaped
from stackbuild.monitor.failures import what
from stackbuild.monitor.progress import AtWork, BuildStatus, JobStatus
from stackbuild.status import Look

LOOK_SECONDS = 2.0
SHOWN = 5  # failures that the screen shows
CANCELLED = 130  # exit code of whoever waited for a build that was cancelled


def run(out: Path, watch: bool, as_json: bool) -> None:
    """Show it once, or until the build ends. Exit code 5 if something failed; after --watch, whatever a build would end with."""
    look = Look(out.resolve())  # logs are named so by those who write them
    status = look.status()
    if watch:
        status = follow(out, look, status, as_json)
        code = {"done": 0, "cancelled": CANCELLED}.get(status.state, 5)
    else:
        tell(out, status, as_json)
        code = status.exit_code
    if code:
        raise typer.Exit(code)


def tell(out: Path, status: BuildStatus, as_json: bool) -> None:
    """The status, whole."""
    if as_json:
        print(json.dumps(asdict(status)), flush=True)
    else:
        console = Console()
        show(console, view(out, status, console).renderables)


def show(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print it: lines that are to be copied whole, and all of them where no terminal is to be filled."""
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text) and (bool(part.no_wrap) or not console.is_terminal))


def follow(out: Path, look: Look, status: BuildStatus, as_json: bool) -> BuildStatus:
    """Look again until the build ends: a screen on a terminal, else a line for each change, or an object for each look."""
    console = Console()
    if as_json or not console.is_terminal:
        return follow_lines(out, look, status, as_json)
    try:
        with Live(view(out, status, console, fit=True), console=console, auto_refresh=False, transient=True) as live:
            while not status.ended:
                status = again(look)
                live.update(view(out, status, console, fit=True), refresh=True)
    finally:
        show(console, view(out, status, console).renderables)  # whole, where it stays
    return status


def follow_lines(out: Path, look: Look, status: BuildStatus, as_json: bool) -> BuildStatus:
    told: set[str] = set()
    while True:
        if as_json:
            tell(out, status, as_json)
        else:
            for key, line in changes(status):
                if key not in told:
                    told.add(key)
                    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
        if status.ended:
            if not as_json:
                print("\n".join(f"next: {step}" for step in status.next), flush=True)
            return status
        status = again(look)


def again(look: Look) -> BuildStatus:
    """The next look; a build whose events take long to read is looked at less often."""
    time.sleep(LOOK_SECONDS)
    began = time.monotonic()
    status = look.status()
    if not status.ended:
        time.sleep(min(60.0, 4 * max(0.0, time.monotonic() - began - 0.1)))
    return status


def changes(status: BuildStatus) -> Iterator[tuple[str, str]]:
    """(what makes it new, line) of all that is worth a line."""
    for job in status.jobs:
        counts = f"{job.done} of {job.tasks} tasks done"
        counts += "".join(
            f", {number} {word}" for word, number in (("at work", job.running), ("failed", job.failed)) if number
        )
        why = f" ({job.reason})" if job.reason else ""
        if job.state not in ("waiting", "blocked") and not (job.state == "done" and not job.ran):
            yield f"{job.job} {job.state} {counts}{why}", f"{short(job.job)}: {job.state}, {counts}{pace(job)}{why}"
    for one in status.failures:
        line = f"failed: {failed(one)}"
        yield line, line + (f"  (log: {escaped(one['log'])})" if one["log"] else "")
    for note in status.notes:
        yield note, escaped(note)
    line = (
        f"{status.state}: {sum(job.done for job in status.jobs)} of {sum(job.tasks for job in status.jobs)} tasks done"
    )
    yield status.state, line


# ---------------------------------------------------------------- the screen


def view(out: Path, status: BuildStatus, console: Console, fit: bool = False) -> Group:
    """A table of jobs, what is at work, the failures, and what to do next. `fit`: no longer than the terminal is high."""
    ran, tasks = sum(j.ran for j in status.jobs), sum(j.tasks for j in status.jobs)
    lines = [
        Text(
            f"{ran} of {tasks} tasks ran in the last run; {sum(j.cached for j in status.jobs)} were complete before it."
        )
    ]
    if status.publish in ("running", "failed"):
        lines.append(Text("publishing: " + ("under way" if status.publish == "running" else "failed")))
    names = {job.job: short(job.job) for job in status.jobs}
    blocked = [job for job in status.jobs if job.state == "blocked"]
    for job in status.jobs:
        lines += [Text(line) for line in of_job(job, names) if job not in blocked[1:]]
    lines += [Text(f"note: {escaped(note)}", style="yellow") for note in status.notes]
    lines += [*failures_of(status, fit), *steps_of(status, fit)]
    taken = sum(1 if line.no_wrap else -(-max(1, line.cell_len) // console.width) for line in lines) + 5
    where = f" on Slurm, launch {status.launch}" if status.launch else " on Ray" if status.executor == "ray" else ""
    title = Text(f"{out}: {status.state}{where}")
    return Group(title, table_of(status.jobs, console.width, max(3, console.height - taken) if fit else None), *lines)


def failures_of(status: BuildStatus, fit: bool = False) -> Iterator[Text]:
    """The failures, those of one reason once, each with its log and the last lines of that; `fit`: a line on one line."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in status.failures:
        alike.setdefault(tuple(str(one[key]) for key in ("job", "cause", "message", "log")), []).append(one)
    for group in list(alike.values())[:SHOWN]:
        one = group[0]
        others = f" (and {len(group) - 1} more, for the same reason)" if len(group) > 1 else ""
        yield Text(f"failed: {failed(one)}{others}", style="red")
        if one["log"]:
            yield Text(f"    {escaped(one['log'])}", no_wrap=not fit, overflow=None if fit else "ignore")
        for line in one["lines"]:
            yield Text(f"    | {escaped(line)}", "dim", no_wrap=True, overflow="ellipsis" if fit else "ignore")
    if hidden := sum(map(len, list(alike.values())[SHOWN:])):
        yield Text(f"failed: {hidden} more", style="red")


def steps_of(status: BuildStatus, fit: bool = False) -> Iterator[Text]:
    """What to type or do next; `fit`: broken where the terminal ends."""
    for number, step in enumerate(status.next):
        yield Text(f"{'      ' if number else 'next: '}{step}", no_wrap=not fit, overflow=None if fit else "ignore")


COLUMNS = ("tasks", "cached", "ran", "at work", "left", "failed", "CPU s", "own MB", "wall s")
ONLY_IF_ANY = ("at work", "left")


def table_of(jobs: Sequence[JobStatus], width: int, most: int | None) -> Table:
    """A row for each job; those that only wait for others, more done ones than there is room for, and those that had nothing to do
    (levels of a walk at which nobody stands) are told together.
    """
    idle = [job for job in jobs if job.state == "done" and not job.tasks]
    jobs = [job for job in jobs if job not in idle] if len(idle) > 1 else jobs
    later = [job for job in jobs if job.state in ("waiting", "blocked") or (job.state == "stopped" and not job.started)]
    begun = [job for job in jobs if job not in later]
    done = [job for job in begun if job.state == "done"]
    folded = done[: max(0, len(begun) + min(2, len(later)) - most + 1)] if most else []
    rows = [(f"{len(folded)} jobs", *cells(folded), "done")] if len(folded) > 1 else []
    rows += [(short(job.job), *cells([job]), job.state) for job in begun if len(folded) < 2 or job not in folded]
    rows += [(short(job.job), *cells([job]), job.state) for job in later[:1]]
    rows += [(f"{len(later) - 1} more", *cells(later[1:]), later[-1].state)] if len(later) > 1 else []
    rows += [(f"{len(idle)} without tasks", *cells(idle), "done")] if len(idle) > 1 else []
    shown = [name not in ONLY_IF_ANY or any(row[1 + i] for row in rows) for i, name in enumerate(COLUMNS)]
    rows = [(row[0], *(cell for cell, keep in zip(row[1:-1], shown, strict=True) if keep), row[-1]) for row in rows]
    names = [name for name, keep in zip(COLUMNS, shown, strict=True) if keep]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, int(width >= 100), 0, 0), show_edge=False)
    wide = [max(len(name), *(len(row[i + 1]) for row in rows)) if rows else len(name) for i, name in enumerate(names)]
    table.add_column("job", no_wrap=True, max_width=max(12, width - sum(wide) - 2 * len(wide) - 12))
    for name, least in zip(names, wide, strict=True):
        table.add_column(name, justify="right", no_wrap=True, min_width=least)
    table.add_column("state", no_wrap=True, min_width=7)
    for *texts, state in rows:
        table.add_row(*texts, Text(state, style=STYLES.get(state, "")))
    return table


def cells(jobs: Sequence[JobStatus]) -> list[str]:
    """The numbers of some jobs, as the columns have them."""
    now = time.time()
    wall = sum(j.wall or (now - j.started if j.state == "running" and j.started else 0.0) for j in jobs)
    counts = [sum(j.tasks for j in jobs), sum(j.cached for j in jobs), sum(j.ran for j in jobs)]
    if_any = [sum(j.running for j in jobs), sum(j.pending for j in jobs), sum(j.failed for j in jobs)]
    return [
        *map(str, counts),
        *(str(count or "") for count in if_any),
        f"{sum(j.cpu for j in jobs):.1f}",
        f"{max((j.private for j in jobs), default=0) / 1e6:.0f}",
        f"{wall:.1f}",
    ]


STYLES = {"done": "green", "failed": "red", "blocked": "red", "running": "cyan", "pending": "yellow"}


def of_job(job: JobStatus, names: Mapping[str, str]) -> Iterator[str]:
    """What can be said of a job that has begun and is not done, or of one that will not begin. `names`: of jobs, for people."""
    reason = job.reason
    for name, people in names.items():
        reason = reason.replace(name, people)
    if job.state in ("running", "pending"):
        parts = [f"{job.running} at work"] if job.running else []
        parts += [reason] if reason else []
        times = [("half of the tasks took at most", job.p50), ("95 of 100", job.p95), ("the longest", job.longest)]
        spent = [f"{words} {duration(value)}" for words, value in times if value is not None]
        parts += [part for part in (pace(job).removeprefix("; "), ", ".join(spent)) if part]
        parts += [f"{times_of(job.retries, 'try', 'tries')} again after a failure"] if job.retries else []
        parts += [f"{times_of(job.requeues, 'element', 'elements')} begun again"] if job.requeues else []
        yield f"{names[job.job]}: {escaped('; '.join(parts)) or 'nothing at work yet'}"
    elif job.state == "blocked":
        yield f"{names[job.job]}: blocked {escaped(reason)}"
    for one in job.at_work:
        if one.straggler or one is job.at_work[0]:
            yield "    " + working(one)
    for silent in job.stalled:
        where = f" on {silent['node']}" if silent["node"] else ""
        who = escaped(f"{silent['who']}{where}")
        yield f"    no sign of {who} for {duration(silent['seconds'])}: it hangs, or its node is gone"


def times_of(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def pace(job: JobStatus) -> str:
    """Rates and what is left."""
    parts = []
    if job.state == "running" and (job.rows_per_s or job.bytes_per_s):
        parts.append(f"{job.rows_per_s:,.0f} rows/s, {size(job.bytes_per_s)}/s")
    if job.eta is not None:
        parts.append(f"about {duration(job.eta)} until this job ends")
    return "".join(f"; {part}" for part in parts)


def working(one: AtWork) -> str:
    """A task at work: for how long, where, with how much memory."""
    memory = size(one.memory) + (f" of its element's {size(one.limit)}" if one.limit else "")
    place = " on ".join(escaped(word) for word in (one.who, one.node) if word and word != "driver")
    slow = "straggler: " if one.straggler else ""
    where = f", at {escaped(one.where)}" if one.where else ""
    return f"{slow}task {one.rank}{f' in {place}' if place else ''}, {duration(one.wall)}, {memory}{where}"


def failed(one: dict[str, object]) -> str:
    """A failure on one line."""
    message = str(one["message"]).splitlines()
    reason = message[0][:400] if message else f"status {one['status']}"
    node = f" on {one['node']}" if one["node"] else ""
    cause = f"{one['cause']}: " if one["cause"] and str(one["cause"]) not in reason else ""
    return escaped(f"{short(str(one['job']))} {what(one)}{node}: {cause}{reason}")


def size(count: float) -> str:
    """Bytes for people."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = min(len(units) - 1, int(math.log10(max(count, 1)) / 3))
    number = count / 1_000**power
    return f"{number:.{0 if number >= 100 or not power else 1}f} {units[power]}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
