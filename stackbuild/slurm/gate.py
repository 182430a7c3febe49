"""What runs when all elements of a wave have ended: looks at what they left, and opens the way or tries again.

    python -m stackbuild.slurm.gate OUT WAVE

Everything there: the stage manifest is written, and what depends on this job begins. Something missing: why is told from the
tasks' own events, Slurm's state of the element, and its log; what may go better next time is submitted as a further wave, with
more memory or time where that was the cause, and the next job is made to wait for that wave's gate. What cannot go better ends
the launch: this job fails, and Slurm cancels what depends on it.
"""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from stackbuild import scheduler
from stackbuild.cluster import SlurmOptions
from stackbuild.errors import StackbuildError
from stackbuild.graph import Job
from stackbuild.journal import Journal
from stackbuild.launch import complete_tasks, partial_failure
from stackbuild.launches import LaunchFolder, Wave, refuse_if_superseded, restart_count
from stackbuild.plan import Build
from stackbuild.pool import TaskSpec
from stackbuild.retries import Cause, Failure
from stackbuild.shards import ShardManifest
from stackbuild.slurm.balance import assign, costs_of
from stackbuild.slurm.code import open_launched
from stackbuild.slurm.ends import ElementEnd, ends_of
from stackbuild.slurm.executor import SlurmExecutor, gate_dependency
from stackbuild.slurm.script import NO_PROGRESS, REQUEUE_ME
from stackbuild.slurm.submit import array_limit
from stackbuild.slurm.waves import FINAL, in_time, next_wave

FILE_SYSTEM_LOOKS, FILE_SYSTEM_SECONDS = 5, 15.0


def main(arguments: list[str]) -> int:
    out, wave_path = Path(arguments[0]), Path(arguments[1])
    folder = LaunchFolder(out, wave_path.parent.parent.name)
    wave = folder.wave(wave_path)
    writer = f"{wave.name}-gate.{restart_count()}.{os.environ.get('SLURM_JOB_ID', os.getpid())}"
    journal = folder.events_of(writer)
    try:
        Gate(folder, wave, writer, journal).run()
    except Exception as error:
        return failed(journal, error, job=wave.job, number=wave.number)
    return 0


def failed(journal: Journal, error: Exception, **told: Any) -> int:
    """Say what ended the launch; returns the exit status. Without this last word a follower would wait for one."""
    known = isinstance(error, StackbuildError)
    if not known:
        traceback.print_exc()
    message = str(error) if known else f"{type(error).__name__}: {error}"
    code = (error.exit_code or 5) if isinstance(error, StackbuildError) else 70
    print(f"stackbuild: {message}", file=sys.stderr)
    journal.write(event="failed", **told, message=message, exit_code=code)
    return code


class Gate:
    """One look at one wave."""

    def __init__(self, folder: LaunchFolder, wave: Wave, writer: str, journal: Any):
        self.folder, self.wave, self.writer, self.journal = folder, wave, writer, journal
        self.options = SlurmOptions.model_validate(folder.frozen().settings)

    def run(self) -> None:
        """Complete the jobs of the wave, or submit a further one, or raise what ends the launch."""
        refuse_if_superseded(self.folder)
        build = open_launched(self.folder)
        for number in range(self.wave.number, self.wave.last + 1):
            job = build.jobs[number]
            specs = [TaskSpec(rank, params) for rank, params in enumerate(build.task_params(job))]
            complete = self.complete(build, number, specs)
            pending = [spec for spec in specs if spec.rank not in complete]
            if pending:
                self.incomplete(build, number, specs, pending)
                return
            shards = {name: [complete[s.rank][i] for s in specs] for i, name in enumerate(job.shard_jobs)}
            refuse_if_superseded(self.folder)
            build.complete(job, shards)
            self._told(job, number, len(specs), len(specs), [], None)
            self.journal.write(event="job-end", job=job.name, **self._sums(number))

    def complete(self, build: Build, number: int, specs: Sequence[TaskSpec]) -> dict[int, list[ShardManifest]]:
        """The shards of the tasks that are complete. On a network file system this node may not see yet what another has
        committed: where every element said that all is well, it is worth a minute."""
        job = build.jobs[number]
        for attempt in range(FILE_SYSTEM_LOOKS):
            for name in job.shard_jobs:
                with suppress(OSError):
                    os.listdir(build.out / "stages" / name / "manifests")  # makes NFS ask the server
            found = complete_tasks(build, job, specs, again=False)
            if len(found) == len(specs) or not self.all_well(number) or attempt == FILE_SYSTEM_LOOKS - 1:
                break
            time.sleep(FILE_SYSTEM_SECONDS)
        return found

    def all_well(self, number: int) -> bool:
        """Whether the last word of every element of this wave was that its tasks are complete."""
        ends = {e["element"]: e["status"] for e in self._events(number) if e["event"] == "element-end"}
        return len(ends) == self.wave.elements and not any(ends.values())

    def _events(self, number: int) -> list[dict[str, Any]]:
        """What the elements of this wave told of a job."""
        return [e for e in self.folder.events(f"{self.wave.name}-[0-9]*") if e.get("number") == number]

    def incomplete(self, build: Build, number: int, specs: Sequence[TaskSpec], pending: Sequence[TaskSpec]) -> None:
        """Submit a further wave for what is missing, if that may go better; raise what ends the launch if not."""
        job = build.jobs[number]
        failures, got_on = self.failures(build, number, specs, pending)
        used = [
            self.wave.wave,
            *(wave.wave for wave in self.folder.waves(number)),
        ]  # by this gate's last attempt, perhaps
        again = next_wave(
            replace(self.wave, number=number, job=job.name),
            failures,
            self._earlier(number),
            self.options,
            max(used) + 1,
            self._stuck(number, failures),
            got_on,
        )
        if again is not None:
            again = in_time(again, self.wave, scheduler.time_limit(self.options.partition))
        self._told(job, number, len(specs) - len(pending), len(specs), failures, again, got_on)
        if again is None:
            raise partial_failure(build, job, failures, len(specs))
        self.submit(build, again)

    # ---- why

    def failures(
        self, build: Build, number: int, specs: Sequence[TaskSpec], pending: Sequence[TaskSpec]
    ) -> tuple[list[Failure], set[int]]:
        """For each task of a job that is not complete, why; and which of them were in an element that had no more time, and
        had got on in what it had."""
        job = build.jobs[number]
        frozen = number == self.wave.number and self.wave.ranks is not None
        wanted = [specs[rank] for rank in self.wave.ranks or ()] if frozen else specs
        shares = assign(costs_of(build, job, wanted), self.wave.elements)
        element_of = {wanted[i].rank: element for element, share in enumerate(shares) for i in share}
        last = {e["rank"]: e for e in self._events(number) if e["event"] == "task" and e["status"]}
        ends = ends_of(self.folder, self.wave)
        found, got_on = [], set()
        for spec in pending:
            element = element_of.get(spec.rank, -1)
            end = ends.get(element) or ElementEnd(Cause.KILLED, None, "its element left no word", "")
            event = last.get(spec.rank)
            if event is not None and (end.status == 5 or event.get("cause") == Cause.MEMORY):
                found.append(Failure(spec.rank, event["message"], 5, event["log"], Cause(event["cause"])))
            else:
                reason = end.reason or f"element {element} ended: {end.cause}"
                found.append(Failure(spec.rank, reason, 5, end.log, end.cause))
                if end.cause is Cause.TIME and end.status == REQUEUE_ME:
                    got_on.add(spec.rank)
        return found, got_on

    def _stuck(self, number: int, failures: Sequence[Failure]) -> bool:
        """Whether an element ran into its time limit and had nothing to show for it."""
        ended = [e for e in self._events(number) if e["event"] == "element-end"]
        return any(f.cause is Cause.TIME for f in failures) and any(e["status"] == NO_PROGRESS for e in ended)

    # ---- again

    def _earlier(self, number: int) -> Mapping[int, Counter[str]]:
        """By task of a job: how often it has failed by each cause in earlier waves of this launch, those not counted whose
        element got on. A gate that was requeued has told of its wave more than once."""
        told = {
            event["wave"]: event["failures"]
            for event in self.folder.events("*-gate.*")
            if event["event"] == "gate" and event["number"] == number and event["wave"] < self.wave.wave
        }
        counts: dict[int, Counter[str]] = {}
        for failures in told.values():
            for failure in failures:
                counts.setdefault(failure["rank"], Counter())[failure["cause"]] += not failure.get("got_on")
        return counts

    def submit(self, build: Build, again: Wave) -> None:
        """Submit a further wave held, make what waits for this gate wait for that one's, and let it begin. If any of this
        fails, none of the wave is left in the queue."""
        folder = self.folder
        refuse_if_superseded(folder)
        before = self.further(again.number)
        folder.add_wave(again)
        try:
            plan = folder.out / folder.frozen().plan_path
            executor = SlurmExecutor(folder, plan, again, self.options, array_limit(self.options), self.writer)
            arrays, gate = executor.run(hold=True)
            for job, dependency in self.dependents(gate):
                scheduler.depend(job, dependency)
            scheduler.cancel(before)
            if folder.marked("cancelled"):  # whoever did that asked what is live before this was
                raise StackbuildError("the launch was cancelled.")
            scheduler.release(arrays)
        except (StackbuildError, OSError) as error:
            with suppress(scheduler.SchedulerError):
                scheduler.cancel(self.further(again.number))
            raise StackbuildError(
                f"{len(again.ranks or [])} tasks of {again.job} could be tried again, but not be submitted from here: {error}\n"
                "Run the same build again on a login node."
            ) from error

    def further(self, number: int) -> list[str]:
        """The ids of waves of a job after this gate's: of an earlier attempt of this gate, which may have died before it
        wrote them down."""
        noted = {s.slurm for s in self.folder.submitted() if s.number == number and s.wave > self.wave.wave}
        name = re.compile(rf"{re.escape(self.folder.prefix)}{number:02d}\.(\d+)(-gate)?")
        with suppress(scheduler.SchedulerError):
            for job in scheduler.queue(self.folder.prefix):
                found = name.fullmatch(job.name)
                if found and int(found[1]) > self.wave.wave:
                    noted.add(job.array)
        return sorted(noted)

    def dependents(self, gate: str) -> list[tuple[str, str]]:
        """The arrays of the next job and their gate, or the publishing job, each with what it must wait for: this gate."""
        later = [s for s in self.folder.submitted() if s.number > self.wave.last and s.wave == 1]
        first = min((s.number for s in later), default=0)
        arrays = [s.slurm for s in later if s.number == first and s.kind == "array"]
        found = [(s.slurm, f"afterok:{gate}") for s in later if s.number == first and s.kind != "gate"]
        gates = [s.slurm for s in later if s.number == first and s.kind == "gate"]
        return [*found, *((job, gate_dependency(arrays, [gate])) for job in gates)]

    # ---- telling

    def _told(
        self, job: Job, number: int, complete: int, of: int, failures: Sequence[Failure], again: Wave | None,
        got_on: Collection[int] = (),
    ) -> None:  # fmt: skip
        self.journal.write(
            event="gate",
            job=job.name,
            number=number,
            wave=self.wave.wave,
            complete=complete,
            of=of,
            again=again.wave if again else None,
            failures=[
                {
                    "rank": f.rank,
                    "cause": str(f.cause),
                    "message": f.reason[:2_000],
                    "log": f.log,
                    "final": f.cause in FINAL,
                    "got_on": f.rank in got_on,
                }
                for f in failures
            ],
        )

    def _sums(self, number: int) -> dict[str, Any]:
        """What all tries of a job took."""
        waves = [
            wave
            for first in range(number + 1)
            for wave in self.folder.waves(first)
            if wave.number <= number <= wave.last
        ]
        told = [event for wave in waves for event in self.folder.events(f"{wave.name}-[0-9]*")]
        events = [event for event in told if event.get("number") == number]
        tasks = [event for event in events if event["event"] == "task"]
        begun = [
            e for e in events if e["event"] == "element" and e.get("cached", 0) < e.get("tasks", 1)
        ]  # another finds its share complete
        times = [event["time"] for event in [*begun, *tasks]]
        return {
            "number": number,
            "ran": sum(e["status"] == 0 and not e["more"] for e in tasks),
            "cpu": round(sum(e["cpu"] for e in tasks), 3),
            "memory": max((e["memory"] for e in tasks), default=0),
            "private": max((e["private"] for e in tasks), default=0),
            "wall": round(max(times) - min(times), 3) if times else 0.0,
        }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
