"""A launch on a cluster as its elements and gates would write it, before a Slurm that is a queue in a file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from stackbuild.beats import Beat, Heart
from stackbuild.cli import main
from stackbuild.cli import status as screen
from stackbuild.cluster import SlurmOptions
from stackbuild.journal import driver_journal
from stackbuild.launches import Frozen, LaunchFolder, Submitted, Wave
from stackbuild.monitor.progress import JobStatus
from stackbuild.pool import Ended, Pool, Running, TaskSpec
from stackbuild.retries import Failure
from stackbuild.slurm.gate import Gate
from stackbuild.status import opened, status_of

TASKS = 4  # of each job


class Nobody:
    """What a pool that runs nothing gives its tasks to."""

    def job(self, name: str) -> None: ...
    def start(self, spec: TaskSpec, how: Any, log: Path) -> None: ...
    def wait(self, seconds: float | None = None) -> list[dict[str, Any]]:
        return []


class Launch:
    """A launch under way: five jobs of four tasks, told by the writers that a real one has."""

    def __init__(self, out: Path, path: Path, last: int = 0):
        self.out, self.bin, self.lines = out, path, path / "squeue.txt"
        self.jobs = opened(out).jobs[:5]
        self.folder = LaunchFolder(out, "20260101-000000-abcd")
        driver_journal(out).write(event="start", plan="p", executor="slurm", launch=self.folder.id, pid=1)
        names = [job.name for job in self.jobs]
        settings = SlurmOptions().model_dump(mode="json")
        tasks = dict.fromkeys(names[1:], TASKS)
        self.folder.freeze(Frozen(self.folder.id, "p", "plans/p.json", "c", settings, names, {names[0]: 3}, tasks))
        body = json.loads((out / "build.json").read_bytes())
        (out / "build.json").write_text(json.dumps({**body, "complete": False}))
        self.queued: dict[tuple[str, int | None], list[str]] = {}
        self.slurm_id = 100
        self.arrays: dict[tuple[int, int], str] = {}
        for number in range(1, 5):
            if number == 1 or number > last:
                chain = max(last, number) if number == 1 else number
                self.submit(number, last=chain, size=1 if chain > number else 2)
        self.note(Submitted("900", "publish", 5, 1), "publish")
        self.folder.mark("released")

    def submit(
        self, number: int, wave: int = 1, last: int | None = None, ranks: list[int] | None = None, size: int = 2
    ) -> Wave:
        """An array of elements, and its gate."""
        name = self.jobs[number].name
        made = Wave(number, last or number, wave, name, size, 2, 10**9, 10**9, "01:00:00", ranks)
        self.folder.add_wave(made)
        self.slurm_id += 2
        self.arrays[number, wave] = str(self.slurm_id)
        self.note(Submitted(str(self.slurm_id), "array", number, wave, 0, size), made.name)
        self.note(Submitted(str(self.slurm_id + 1), "gate", number, wave), f"{made.name}-gate")
        return made

    def note(self, one: Submitted, what: str) -> None:
        self.folder.note(one)
        for index in range(one.elements) if one.kind == "array" else [None]:
            self.slurm_says(one.slurm, index, "PENDING", "Dependency", name=what)

    # ------------------------------------------------------------ Slurm

    def slurm_says(self, array: str, index: int | None, state: str, reason: str = "None", node: str = "", elapsed: str = "1:00",
                   name: str | None = None) -> None:  # fmt: skip
        before = self.queued.get((array, index), [""] * 8)
        full = f"{self.folder.prefix}{name}" if name else before[3]
        identity = array if index is None else f"{array}_{index}"
        self.queued[array, index] = [
            identity,
            array,
            "N/A" if index is None else str(index),
            full,
            state,
            reason,
            node,
            elapsed,
        ]
        self.lines.write_text("".join("|".join(line) + "\n" for line in self.queued.values()))

    def element_is(
        self, number: int, element: int, state: str, reason: str = "None", wave: int = 1, **more: str
    ) -> None:
        self.slurm_says(self.arrays[number, wave], element, state, reason, **more)

    def all_are(self, state: str, reason: str = "None") -> None:
        for array, index in list(self.queued):
            self.slurm_says(array, index, state, reason)

    def forget(self) -> None:
        """The queue knows nothing of the launch any more."""
        self.queued.clear()
        self.lines.write_text("")

    # ------------------------------------------------------------ what elements and gates tell

    def begin(self, number: int, element: int, tasks: int = 2, cached: int = 0, wave: int = 1, restart: int = 0, node: str = "n1",
              host: int | None = None) -> None:  # fmt: skip
        self.element_is(host or number, element, "RUNNING", wave=wave, node=node)
        self.told(number, element, wave, restart, host).write(
            event="element", **self.place(number, element, wave), of=2, tasks=tasks, cached=cached, node=node, slurm="7",
            restart=restart, pid=os.getpid(),
        )  # fmt: skip

    def task(
        self,
        number: int,
        element: int,
        rank: int,
        wave: int = 1,
        restart: int = 0,
        host: int | None = None,
        **more: Any,
    ) -> None:
        """A try that ended; `cause`: it failed of this."""
        cause, status = more.pop("cause", None), 0
        log = self.folder.logs / self.jobs[number].name / f"{rank:05d}.{wave}.7.{restart}.1.log"
        if cause:
            status = 1
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("one line\nlast words\x1b[2J\n")
            more["failure"] = Failure(rank, more.pop("message", "no good"), 5, str(log), cause)
        one = Ended(
            rank, more.pop("attempt", 1), status, **{"cpu": 1.0, "wall": 2.0, "rows": 10, "bytes": 1000, **more}
        )
        event = {**one.event(self.jobs[number].name), **self.place(number, element, wave)}
        self.told(number, element, wave, restart, host).write(**event)

    def end(self, number: int, element: int, status: int = 0, reason: str = "", wave: int = 1, restart: int = 0,
            host: int | None = None) -> None:  # fmt: skip
        place = self.place(number, element, wave)
        journal = self.told(number, element, wave, restart, host)
        journal.write(event="element-end", **place, restart=restart, status=status, reason=reason)

    def place(self, number: int, element: int, wave: int) -> dict[str, Any]:
        return {"job": self.jobs[number].name, "number": number, "wave": wave, "element": element}

    def told(self, number: int, element: int, wave: int, restart: int, host: int | None) -> Any:
        return self.folder.events_of(f"{host or number:02d}.{wave}-{element}.{restart}.7")

    def beat(self, number: int, element: int, ranks: Sequence[int], wave: int = 1, age: float = 0.0, host: int | None = None,
             **said: Any) -> None:  # fmt: skip
        name = f"{host or number:02d}.{wave}-{element}"
        pool = Pool(Nobody(), 2, self.folder.logs)
        for rank in ranks:
            where = {
                "rank": rank,
                "rows": 5,
                "bytes": 500,
                "where": "decode, rows 1 to 2",
                "memory": 10**6,
                "wall": 3.0,
            }
            pool.running[rank] = Running(TaskSpec(rank, {}), 1, Path("log"), {**where, **said})
        heart = Heart(self.folder.beats / f"{name}.json", Beat(name, self.jobs[number].name, 2, node="n1", limit=10**9))
        heart.tick(pool)
        if age:
            body = json.loads(heart.path.read_bytes())
            heart.path.write_text(json.dumps({**body, "time": body["time"] - age}))

    def gate(
        self, number: int, complete: int, failures: Sequence[Failure] = (), again: Wave | None = None, wave: int = 1
    ) -> None:
        """What the gate of a wave says, and what follows from it in the queue."""
        mine = self.folder.wave(self.folder.wave_path(number, wave))
        writer = f"{mine.name}-gate.0.7"
        Gate(self.folder, mine, writer, self.folder.events_of(writer))._told(
            self.jobs[number], number, complete, TASKS, failures, again
        )
        array = self.arrays[number, wave]
        for element in range(2):
            self.slurm_says(array, element, "COMPLETED")
        self.slurm_says(str(int(array) + 1), None, "COMPLETED" if again or not failures else "FAILED")

    def job(self, number: int) -> JobStatus:
        return status_of(self.out).jobs[number]

    def run_whole(self, number: int) -> None:
        """A job from its beginning to its end."""
        for element in range(2):
            self.begin(number, element)
            for rank in (2 * element, 2 * element + 1):
                self.task(number, element, rank)
            self.end(number, element)
        self.gate(number, TASKS)


def text_of(out: Path, width: int = 120, height: int | None = None, terminal: bool = True) -> str:
    """What the screen shows, or a file gets; `height`: while it is watched."""
    console = Console(file=io.StringIO(), width=width, height=height or 100, force_terminal=terminal, color_system=None)
    status = status_of(out)
    if height is None:
        screen.show(console, screen.view(out, status, console).renderables)
    else:
        console.print(screen.view(out, status, console, fit=True))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def counts(job: JobStatus) -> tuple[int, int, int, int, int]:
    assert job.tasks == job.done + job.running + job.pending + job.failed and job.done == job.cached + job.ran
    return job.tasks, job.done, job.running, job.pending, job.failed


def logs(out: Path, *arguments: str) -> str:
    said, before = io.StringIO(), sys.argv
    sys.argv = ["stackbuild", "logs", str(out), *arguments]
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main()
    finally:
        sys.argv = before
    return said.getvalue()
