"""One element of an array: takes its share of a job's tasks and runs them as a local build would, in a task server's children.
The single element of a chain of small jobs takes one after the other.

    python -m stackbuild.slurm.element OUT WAVE ELEMENT

Its first act is to be ready for signals; its second to check the gate: the stages before this job must be complete for this
very plan, the code must be what was submitted, and no other build may have begun since. It ends with 0 if all its tasks are
complete, 5 if some failed, 85 if it stopped before its time limit and got on (the script requeues it), 86 if it stopped and
did not.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackbuild.graph import Job
    from stackbuild.launches import LaunchFolder, Wave
    from stackbuild.plan import Build
    from stackbuild.pool import Ended, TaskServer, TaskSpec

GRACE_SECONDS = 30.0  # before the limit, what still runs is ended
LOOKS = 3  # at a stage manifest that a gate has just written on another node, a second apart


class Stop:
    """Whether a signal has asked for an end: TERM at once, USR1 when what runs has ended or the time limit is near."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.reason = ""
        signal.signal(signal.SIGTERM, self._now)
        signal.signal(signal.SIGUSR1, self._soon)

    def _now(self, number: int, frame: FrameType | None) -> None:
        self.deadline, self.reason = time.monotonic(), self.reason or "SIGTERM"

    def _soon(self, number: int, frame: FrameType | None) -> None:
        if self.deadline is None:
            self.deadline, self.reason = float("inf"), "the time limit is near"

    def by(self, seconds: float) -> None:
        """Once warned, allow so much more time."""
        if self.deadline == float("inf"):
            self.deadline = time.monotonic() + seconds

    @property
    def asked(self) -> bool:
        return self.deadline is not None

    @property
    def due(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


def main(arguments: list[str]) -> int:
    stop = Stop()
    out, wave_path, element = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    from stackbuild.errors import StackbuildError
    from stackbuild.launches import LaunchFolder, restart_count
    from stackbuild.retries import DISK_FULL, no_room

    folder = LaunchFolder(out, wave_path.parent.parent.name)
    wave = folder.wave(wave_path)
    writer = f"{wave.name}-{element}.{restart_count()}"
    journal = folder.events_of(f"{writer}.{os.environ.get('SLURM_JOB_ID', os.getpid())}")
    told: dict[str, Any] = {"job": wave.job, "number": wave.number, "wave": wave.wave, "element": element}
    try:
        status, reason = Element(folder, wave, element, stop, journal, told).run()
    except StackbuildError as error:
        status, reason = error.exit_code, str(error)
    except OSError as error:
        status, reason = DISK_FULL if no_room(error) else 5, f"{error.filename or out}: {error.strerror or error}"
    except Exception as error:
        traceback.print_exc()
        status, reason = 70, f"{type(error).__name__}: {error}"
    if reason:
        print(f"stackbuild: {reason}", file=sys.stderr)
    try:
        cpu = round(sum(os.times()[:4]), 2)  # with the task server's and its children's, which have all been waited for
        journal.write(event="element-end", **told, restart=restart_count(), status=status, reason=reason, cpu=cpu)
    except OSError as error:  # a full disk: the exit status still says it
        print(f"stackbuild: {error}", file=sys.stderr)
    return status


class Element:
    """The work of one attempt. `told`: what is said with every event; it names the job at hand."""

    def __init__(self, folder: LaunchFolder, wave: Wave, element: int, stop: Stop, journal: Any, told: dict[str, Any]):
        self.folder, self.wave, self.element, self.stop, self.journal, self.told = (
            folder,
            wave,
            element,
            stop,
            journal,
            told,
        )
        self.committed = 0
        self._server: TaskServer | None = None

    def run(self) -> tuple[int, str]:
        """(exit status, reason in words if it is not 0)."""
        from stackbuild.launches import refuse_if_superseded, restart_count
        from stackbuild.slurm.code import open_launched

        refuse_if_superseded(self.folder)
        build = open_launched(self.folder)
        gate(build, self.wave.number)
        try:
            for number in range(self.wave.number, self.wave.last + 1):
                self.told |= {"job": build.jobs[number].name, "number": number}
                status, reason = self.job(build, number)
                if status or number == self.wave.last:
                    break
                close(self.folder, build, number)
                self.journal.write(event="element-end", **self.told, restart=restart_count(), status=0, reason="")
        finally:
            if self._server is not None:
                self._server.close()
        return status, reason

    def job(self, build: Build, number: int) -> tuple[int, str]:
        """Take this element's share of one job."""
        from stackbuild.launch import complete_tasks
        from stackbuild.launches import restart_count
        from stackbuild.pool import TaskSpec
        from stackbuild.slurm.balance import assign, costs_of

        job = build.jobs[number]
        specs = [TaskSpec(rank, params) for rank, params in enumerate(build.task_params(job))]
        if self.wave.ranks is not None and number == self.wave.number:
            specs = [specs[rank] for rank in self.wave.ranks]
        mine = [specs[i] for i in assign(costs_of(build, job, specs), self.wave.elements)[self.element]]
        complete = complete_tasks(build, job, mine)
        if restart_count():  # what could not read everything is done once more in a launch, and not in each attempt
            complete |= complete_tasks(
                build, job, [spec for spec in mine if spec.rank in self.done(number)], again=False
            )
        self.journal.write(
            event="element",
            **self.told,
            of=self.wave.elements,
            tasks=len(mine),
            cached=len(complete),
            node=os.environ.get("SLURMD_NODENAME", ""),
            slurm=os.environ.get("SLURM_JOB_ID", ""),
            restart=restart_count(),
            pid=os.getpid(),
        )
        pending = [spec for spec in mine if spec.rank not in complete]
        if job.kind == "ingest":
            see_inputs(build, pending)
        return self.work(build, job, pending) if pending else (0, "")

    def done(self, number: int) -> set[int]:
        """The tasks of a job that this element has completed in earlier attempts."""
        told = self.folder.events(f"{self.wave.name}-{self.element}.[0-9]*")
        mine = [event for event in told if event["event"] == "task" and event["number"] == number]
        return {event["rank"] for event in mine if event["status"] == 0 and not event["more"]}

    def work(self, build: Build, job: Job, pending: list[TaskSpec]) -> tuple[int, str]:
        """Run tasks of a job until they have ended, or a signal asks for an end."""
        from stackbuild.beats import Beat, Heart
        from stackbuild.cluster import warning
        from stackbuild.journal import log_folder
        from stackbuild.launches import restart_count
        from stackbuild.pool import Pool
        from stackbuild.slurm.script import NO_PROGRESS, REQUEUE_ME, memory_of

        logs = log_folder(self.folder.logs, job.name)
        logs.mkdir(parents=True, exist_ok=True)
        tag = f"{self.wave.wave}.{os.environ.get('SLURM_JOB_ID', os.getpid())}.{restart_count()}."
        name = f"{self.wave.name}-{self.element}"
        pool = Pool(self.server(build), self.wave.cpus, logs, tag)
        pool.one_part = self.wave.one_part
        beat = Beat(name, job.name, len(pending), limit=memory_of(self.wave))
        beat.node = os.environ.get("SLURMD_NODENAME", beat.node)
        heart = Heart(self.folder.beats / f"{name}.json", beat)
        warned = warning(self.wave.time, int(self.folder.frozen().settings["warn_seconds"]))
        grace = max(warned - GRACE_SECONDS, warned / 2)

        def ended(one: Ended) -> None:
            beat.count(one)
            self.committed += one.status == 0
            self.journal.write(**{**one.event(job.name), **self.told})

        def idle() -> bool:
            heart.tick(pool)
            self.stop.by(grace)
            pool.closed = self.stop.asked
            return self.stop.due

        pool.ended, pool.idle = ended, idle
        before = parts_of(build, job, pending)
        try:
            failures = pool.run(job.name, pending)
        finally:
            heart.stop()
            if pool.left or (job.phase is not None and job.phase.preload):  # its index was for this job only
                self.close_server()
        if pool.left:
            got_on = self.committed or parts_of(build, job, pending) > before
            return (REQUEUE_ME if got_on else NO_PROGRESS), self.stop.reason
        if failures:
            return 5, f"{len(failures)} of {len(pending)} tasks failed; the first: {failures[0].reason}"
        return 0, ""

    def server(self, build: Build) -> TaskServer:
        """The task server, which all jobs of this element share."""
        from stackbuild.launches import restart_count
        from stackbuild.pool import TaskServer
        from stackbuild.slurm.script import memory_of

        if self._server is None:
            log = self.folder.logs / f"{self.wave.name}-{self.element}.{restart_count()}.server.log"
            plan = build.out / self.folder.frozen().plan_path
            self._server = TaskServer(build.out, plan, log, memory_of(self.wave))
        return self._server

    def close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def close(folder: LaunchFolder, build: Build, number: int) -> None:
    """Write the stage manifests of a job whose tasks this element has all run; InputError if one of them is not there, or
    another build was begun meanwhile."""
    from stackbuild.launch import left_by
    from stackbuild.launches import refuse_if_superseded
    from stackbuild.pool import TaskSpec

    job = build.jobs[number]
    found = [left_by(build, job, TaskSpec(rank, params)) for rank, params in enumerate(build.task_params(job))]
    refuse_if_superseded(folder)
    build.complete(job, {name: [shards[i] for shards in found] for i, name in enumerate(job.shard_jobs)})


def see_inputs(build: Build, pending: Sequence[TaskSpec]) -> None:
    """TemporaryError if this node sees none of its inputs. One that is missing is told as not read, and the build goes on without
    it; a node without the folder would empty its whole share so, and be quicker than all others to take more."""
    from stackbuild.errors import TemporaryError

    paths = [path for spec in pending if (path := build.plan.units[spec.rank].where.get("path"))]
    if paths and not any(os.path.lexists(path) for path in paths):
        node = os.environ.get("SLURMD_NODENAME", "this machine")
        raise TemporaryError(
            f"{node} sees none of the {len(paths)} inputs that it was to read, such as {paths[0]!r}: inputs must lie under the same "
            "path on every node."
        )


def gate(build: Build, number: int) -> None:
    """InputError unless every job before this one is complete for this plan: a dependency that Slurm let through too early
    (an array that was not waited for, one that somebody requeued) ends here and not in a short output."""
    for name in (name for job in build.jobs[:number] for name in job.shard_jobs):
        path = build.out / "stages" / name / "manifest.json"
        for _ in range(LOOKS):
            if path.exists():
                break
            with suppress(OSError):
                os.listdir(path.parent)  # so a client of a network file system asks its server what is there
            time.sleep(1)
        build.shards(name)


def parts_of(build: Build, job: Job, specs: Sequence[TaskSpec]) -> int:
    """How many parts of these tasks of a job are committed; what other elements get done says nothing of this one."""
    numbers = {f"{build.shard_number(job, spec.rank):05d}" for spec in specs}
    return sum(
        path.name.split("-")[0] in numbers
        for name in job.shard_jobs
        for path in (build.out / "stages" / name / "parts").glob("*.json")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
