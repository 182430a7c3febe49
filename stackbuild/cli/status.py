"""`stackbuild status`: the jobs of a build as they stand."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stackbuild.cli.build import short
from stackbuild.cli.show import escaped
from stackbuild.status import BuildStatus, status_of

LOOK_SECONDS = 2.0


def run(out: Path, watch: bool, as_json: bool) -> None:
    """Show it once, or until the build ends."""
    status = status_of(out)
    if as_json:
        print(json.dumps(asdict(status)))
        return
    if not watch:
        Console().print(view(out, status))
        return
    with Live(view(out, status), console=Console(), auto_refresh=False) as live:
        while status.state == "running":
            time.sleep(LOOK_SECONDS)
            status = status_of(out)
            live.update(view(out, status), refresh=True)


def view(out: Path, status: BuildStatus) -> Group:
    """A table of jobs, the failures, and what to do next."""
    table = Table(title=f"{out}: {status.state}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("job", no_wrap=True)
    for name in ("tasks", "cached", "ran", "failed", "CPU s", "own MB", "wall s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state")
    for job in status.jobs:
        wall = job.wall or (time.time() - job.started if job.state == "running" else 0.0)
        cells = (
            job.tasks,
            job.cached,
            job.ran,
            job.failed or "",
            f"{job.cpu:.1f}",
            f"{job.private / 1e6:.0f}",
            f"{wall:.1f}",
            job.state,
        )
        table.add_row(short(job.job), *map(str, cells))
    ran, tasks = sum(j.ran for j in status.jobs), sum(j.tasks for j in status.jobs)
    lines = [Text(f"{ran} of {tasks} tasks ran in the last run; the rest was complete before it.")]
    for failure in status.failures[:5]:
        reason = failure["message"].splitlines()[0] if failure["message"] else f"status {failure['status']}"
        lines.append(
            Text(
                f"failed: {short(failure['job'])} task {failure['rank']}: {escaped(reason)}  (log: {failure['log']})",
                style="red",
            )
        )
    return Group(table, *lines, Text(f"next: {status.next_step(out)}"))
