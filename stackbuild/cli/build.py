"""`stackbuild build`: the main job, with progress on a terminal and one line every few seconds elsewhere."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from stackbuild.errors import PartialFailure, UsageError, command

LINE_SECONDS = 5.0
EXECUTORS = ("local", "slurm", "ray")
CONTENTS = ("text", "none")


def run(
    recipe: str,
    output: Path,
    workers: int,
    executor: str,
    sample: str | None,
    tokenizer: Path | None,
    sets: list[str],
    offline: bool,
    update: bool,
    as_json: bool,
    wait: bool = False,
    dry_run: bool = False,
    content: str = "text",
) -> None:
    """Build, then show the funnel, the report's path and what to try next."""
    if executor not in EXECUTORS:
        raise UsageError(f"There is no executor {executor!r}; there are {', '.join(EXECUTORS)}.")
    if (wait or dry_run) and executor != "slurm":
        raise UsageError(
            "--wait and --dry-run are for --executor slurm; `stackbuild plan` shows what a build would do."
        )
    if tokenizer is not None:
        sets = [*sets, f"tokens.tokenizer={json.dumps(str(tokenizer.resolve()))}"]
    from stackbuild import build as building
    from stackbuild.not_read import not_read
    from stackbuild.recipe import load

    if content not in CONTENTS:
        raise UsageError(f"There is no content {content!r}; there are {', '.join(CONTENTS)}.")
    if content != "text":
        sets = [*sets, f'layout.content="{content}"']
    loaded = load(recipe, sets)
    if content == "none" and "tokens" in loaded.values["outputs"] and tokenizer is None:
        left = [name for name in loaded.values["outputs"] if name != "tokens"]
        loaded = load(recipe, [*sets, f"outputs={json.dumps(left)}"])
    if tokenizer is not None and "tokens" not in loaded.values["outputs"]:
        raise UsageError(f'--tokenizer {tokenizer}: {recipe} makes no tokens; add "tokens" to its outputs.')
    console = Console(stderr=True)
    request = building.Request(
        recipe=loaded.resolved(),
        folder=loaded.folder,
        out=output.resolve(),
        workers=workers or min(os.cpu_count() or 1, 16),
        executor=executor,
        offline=offline,
        update=update,
        sample=share(sample),
    )
    if executor == "slurm":
        from stackbuild.cli.slurm import submit
        from stackbuild.status import opened

        if workers:
            console.print(
                "note: --workers counts for nothing on Slurm; \\[slurm] cpus is the tasks at once in an element."
            )
        if submit(request, wait, dry_run, as_json):
            built = opened(request.out)
            show(output, building.Result(built, [], not_read(built)), as_json)
        return
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        with shown(console) as progress:
            request.progress, request.resolving = progress, progress.resolving
            result = building.run(request)
    except KeyboardInterrupt as error:
        console.print("interrupted; run the same command again to go on", highlight=False)
        raise typer.Exit(130) from error
    if not as_json:
        ran, tasks = sum(r.ran for r in result.reports), sum(r.tasks for r in result.reports)
        cpu = sum(r.cpu for r in result.reports)
        console.print(
            f"{ran} of {tasks} tasks ran, {cpu:.1f} CPU-seconds, {time.monotonic() - started:.1f} s; the rest was complete."
        )
    show(output, result, as_json)
    raise_for_passing(result.not_read)


def show(output: Path, result: Any, as_json: bool) -> None:
    """The funnel, what could not be read, and what to try next."""
    from stackbuild.report.funnel import funnel_of, funnel_table

    console = Console(stderr=True)
    funnel = funnel_of(result.build)
    if as_json:
        print(
            json.dumps(
                {
                    "out": str(output),
                    "funnel": funnel,
                    "not_read": [asdict(one) for one in result.not_read],
                    "ran": {r.job: r.ran for r in result.reports},
                }
            )
        )
        return
    Console().print(funnel_table(funnel))
    for one in result.not_read[:20]:
        console.print(
            f"not read: {shown_line(one.what)}: {shown_line(one.reason)}", style="yellow", markup=False, highlight=False
        )
    if len(result.not_read) > 20:
        console.print(f"not read: {len(result.not_read) - 20} more; see {output}/report/index.html", style="yellow")
    for line in next_steps(output, result):
        print(line)


def raise_for_passing(missed: list[Any]) -> None:
    """Exit 5 if something that was planned could not be read: the same command tries it again."""
    if passing := [one for one in missed if one.passing]:
        raise PartialFailure(
            f"{len(passing)} of the inputs could not be read; the rest is built and published. Run the same command again to "
            "try them once more, or take them out of the recipe."
        )


def shown_line(text: str) -> str:
    """Words of a stranger on one line of a terminal."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def next_steps(output: Path, result: Any) -> list[str]:
    """What a user may want to type now."""
    example = next((u.repo_name for u in result.build.plan.units if u.repo_name), "owner/repo")
    lines = [f"report:  {output}/report/index.html", f"dataset: {output}/dataset"]
    if (output / "tokens").exists():
        lines.append(f"tokens:  {output}/tokens")
    folder = json.dumps(f"{output}/dataset", ensure_ascii=False)
    load = f'import datasets; print(datasets.load_dataset({folder}, "Python")["train"][0]["path"])'
    return [
        *lines,
        "",
        "next:",
        f"  {command('stackbuild', 'check', output, example, '--why')}",
        f"  {command('stackbuild', 'status', output)}",
        f"  {command('stackbuild', 'verify', output)}",
        f"  {command('stackbuild', 'manifest', 'verify', output)}",
        f"  {command('python', '-c', load)}",
    ]


def share(text: str | None) -> float | None:
    """1/1000 or 0.001 as a number in (0, 1]."""
    if text is None:
        return None
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"--sample {text}: give a share such as 1/1000 or 0.001.") from error
    if not 0 < value <= 1:
        raise UsageError(f"--sample {text}: the share must be above 0 and at most 1.")
    return value


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Bars:
    """A bar for the job at work and one for all jobs."""

    def __init__(self, bars: Progress):
        self.bars = bars
        self.current: TaskID | None = None

    def job(self, name: str, tasks: int, cached: int) -> None:
        if self.current is not None:
            self.bars.update(self.current, visible=False)
        self.current = self.bars.add_task(short(name), total=tasks, completed=cached)

    def task(self, name: str) -> None:
        if self.current is not None:
            self.bars.advance(self.current)

    def resolving(self, what: str, done: int, of: int) -> None:
        if self.current is None:
            self.current = self.bars.add_task("sources", total=of)
        self.bars.update(self.current, completed=done, total=of, description=f"sources: {what}"[:48])


class Lines:
    """One line every few seconds, for logs."""

    def __init__(self, console: Console):
        self.console, self.last, self.done, self.tasks = console, 0.0, 0, 0

    def job(self, name: str, tasks: int, cached: int) -> None:
        self.done, self.tasks = cached, tasks
        if cached < tasks:
            self._say(f"{short(name)}: {cached} of {tasks} tasks complete", force=True)

    def task(self, name: str) -> None:
        self.done += 1
        self._say(f"{short(name)}: {self.done} of {self.tasks}")

    def resolving(self, what: str, done: int, of: int) -> None:
        self._say(f"sources: {what} ({done} of {of})")

    def _say(self, line: str, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self.last >= LINE_SECONDS:
            self.last = now
            self.console.print(line, highlight=False, markup=False)


def short(job: str) -> str:
    """A job's name without stage numbers; a chain of row stages by its first and last."""
    parts = [part.split("-", 1)[-1] for part in job.split("+")]
    return parts[0] if len(parts) == 1 else f"{parts[0]}…{parts[-1]}"


@contextmanager
def shown(console: Console) -> Iterator[Any]:
    """Bars on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (TextColumn("{task.description:<48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        yield Bars(bars)
