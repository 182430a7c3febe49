"""A graph of jobs runs on an executor that this process drives: the task server on this machine (`local.py`), or Ray.

Jobs run in the plan's order. Of each, only the tasks whose shards are not complete run; what fails is tried again as its cause
asks for (`retries.py`). When all shards are there, the stage manifest is written; at the end the ledger is checked. The
executors are datatrove's with a `run()` of ours: its own process pools hang when a worker is killed. On Slurm nobody drives:
see `stackbuild/slurm`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stackbuild.errors import InputError, PartialFailure, StackbuildError
from stackbuild.graph import Job
from stackbuild.journal import Journal, driver_journal, log_folder
from stackbuild.ledger import check_ledger
from stackbuild.plan import Build
from stackbuild.pool import Ended, TaskSpec
from stackbuild.retries import Failure, going_on
from stackbuild.shards import ShardManifest


@dataclass
class JobReport:
    """What a job did in this run."""

    job: str
    tasks: int
    ran: int = 0
    cpu: float = 0.0  # seconds, of all tries
    memory: int = 0  # bytes, largest resident set of a task
    private: int = 0  # bytes of it that were not shared with the task server, largest
    wall: float = 0.0


class Progress(Protocol):
    """What the launcher tells whoever watches."""

    def job(self, name: str, tasks: int, cached: int) -> None: ...
    def task(self, name: str) -> None: ...


@dataclass
class Silent:
    """Nobody watches."""

    def job(self, name: str, tasks: int, cached: int) -> None: ...
    def task(self, name: str) -> None: ...


class Executor(Protocol):
    """What runs tasks for a driver: tells `ended` of each try, and returns the tasks that failed in all of theirs."""

    def run(self, job: Job, specs: Sequence[TaskSpec], logs: Path, ended: Callable[[Ended], None]) -> list[Failure]: ...
    def close(self) -> None: ...


@dataclass
class Launch:
    """One run of the driver over an output folder."""

    build: Build
    executor: Executor
    workers: int
    kind: str = "local"
    progress: Progress = field(default_factory=Silent)
    reports: list[JobReport] = field(default_factory=list)

    def run(self) -> list[JobReport]:
        """Run every job of the graph; PartialFailure names what failed and where its log is."""
        journal = driver_journal(self.build.out)
        journal.write(event="start", plan=self.build.plan.digest, executor=self.kind, workers=self.workers, pid=os.getpid(),
                      host=socket.gethostname())  # fmt: skip
        try:
            for job in self.build.jobs:
                self.reports.append(self.run_job(job, journal))
            check_ledger(self.build)
            journal.write(
                event="end",
                plan=self.build.plan.digest,
                ran=sum(r.ran for r in self.reports),
                tasks=sum(r.tasks for r in self.reports),
            )
        finally:
            self.executor.close()
        return self.reports

    def run_job(self, job: Job, journal: Journal) -> JobReport:
        build, started = self.build, time.monotonic()
        specs = [TaskSpec(rank, params) for rank, params in enumerate(build.task_params(job))]
        complete = complete_tasks(build, job, specs)
        pending = [spec for spec in specs if spec.rank not in complete]
        report = JobReport(job.name, len(specs))
        self.progress.job(job.name, len(specs), len(complete))
        journal.write(event="job", job=job.name, shard_jobs=job.shard_jobs, tasks=len(specs), cached=len(complete))
        if pending:
            failures = self._execute(job, pending, report, journal)
            if failures:
                raise partial_failure(build, job, failures, len(specs))
            for spec in pending:
                complete[spec.rank] = left_by(build, job, spec)
        build.complete(job, {name: [complete[s.rank][i] for s in specs] for i, name in enumerate(job.shard_jobs)})
        report.wall = time.monotonic() - started
        journal.write(
            event="job-end",
            job=job.name,
            ran=report.ran,
            cpu=round(report.cpu, 3),
            memory=report.memory,
            private=report.private,
            wall=round(report.wall, 3),
        )
        return report

    def _execute(self, job: Job, pending: list[TaskSpec], report: JobReport, journal: Journal) -> list[Failure]:
        logs = log_folder(self.build.out / "launches" / "logs", job.name)
        logs.mkdir(parents=True, exist_ok=True)
        for spec in pending:
            for old in logs.glob(f"{spec.rank:05d}.*"):
                old.unlink()

        def ended(one: Ended) -> None:
            report.cpu += one.cpu
            report.memory = max(report.memory, one.memory)
            report.private = max(report.private, one.private)
            if one.status == 0 and not one.more:
                report.ran += 1
                self.progress.task(job.name)
            journal.write(**one.event(job.name))

        return self.executor.run(job, pending, logs, ended)


def complete_tasks(
    build: Build, job: Job, specs: Sequence[TaskSpec], again: bool = True
) -> dict[int, list[ShardManifest]]:
    """The shards of the tasks that need not run, by rank; `again`: what could not read all of its input runs once more."""
    complete = {}
    for spec in specs:
        found = build.found(job, spec.rank, spec.params)
        if found and not (again and found[0].stats.get("provisional")):  # it may be there now
            complete[spec.rank] = found
    return complete


def left_by(build: Build, job: Job, spec: TaskSpec) -> list[ShardManifest]:
    """What a task that ended well has committed."""
    found = build.found(job, spec.rank, spec.params)
    if found is None:
        raise PartialFailure(
            f"Task {spec.rank} of {job.name} ended well and left no manifest of the expected key: "
            "stackbuild's own code or a data file of a stage changed while it ran. Run the same build again."
        )
    return found


def task_name(build: Build, job: Job, rank: int) -> str:
    """A task for people: what an ingest task was reading stands behind its number."""
    unit = build.plan.units[rank] if job.kind == "ingest" else None
    return f"task {rank} ({unit.repo_name or unit.where.get('path', unit.kind)})" if unit else f"task {rank}"


def partial_failure(build: Build, job: Job, failures: Sequence[Failure], tasks: int) -> StackbuildError:
    """The error that ends a build some of whose tasks failed: what, why, and what to do."""
    lines = [
        f"  {task_name(build, job, f.rank)}: {(f.reason.splitlines() or [''])[0]}  (log: {f.log})" for f in failures[:5]
    ]
    more = f"\n  and {len(failures) - 5} more" if len(failures) > 5 else ""
    text = f"{len(failures)} of {tasks} tasks of {job.name} failed:\n" + "\n".join(lines) + more
    if failures[0].exit_code == 4:
        return InputError(text)
    error = PartialFailure(text + "\n" + going_on({failure.cause: None for failure in failures}))
    error.exit_code = failures[0].exit_code
    return error
