"""A graph of jobs runs on an executor.

Jobs run in the plan's order. Of each, only the tasks whose shards are not complete run; a task that fails is tried once
more in a new process, in which a row that raises again is quarantined. When all shards are there, the stage manifest is
written and the ledger is checked against the stage before. The executor is a datatrove executor whose `run()` is ours: its
own process pool hangs when a worker is killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Protocol

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from stackbuild.errors import InputError, PartialFailure, StackbuildError, UsageError
from stackbuild.graph import INGEST, OCCURRENCES, Job, is_transition, judges_rows
from stackbuild.plan import Build
from stackbuild.shards import Ledger, ShardManifest

TRIES = 2


@dataclass(frozen=True)
class TaskSpec:
    rank: int
    params: dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A task that did not end well: its error in words, and the code that the command should end with."""

    rank: int
    reason: str
    exit_code: int
    log: str


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


class JobStep(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """A job as a datatrove step: rank r of w runs the tasks r, r + w, r + 2w, …; what Slurm and Ray launch."""

    name = "stackbuild job"
    type = "stackbuild"

    def __init__(self, out: str, plan: str, job: str):
        super().__init__()
        self.out, self.plan, self.job = out, plan, job

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        from stackbuild.execute import run_task
        from stackbuild.plan import Plan

        build = Build(Path(self.out), Plan.load(Path(self.plan)))
        job = next(job for job in build.jobs if job.name == self.job)
        for task, params in enumerate(build.task_params(job)):
            if task % world_size == rank and build.found(job, task, params) is None:
                run_task(build, job, task, params)
        yield from data or ()


class LocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor with a run() that forks one child per shard from a warm task server."""

    def __init__(self, server: TaskServer, step: JobStep, tasks: list[TaskSpec], workers: int, logs: Path):
        super().__init__([step], tasks=max(len(tasks), 1), workers=workers, logging_dir=str(logs))
        self.server, self.specs, self.logs, self.job = server, tasks, logs, step.job
        self.on_end: Callable[[dict[str, Any]], None] = lambda answer: None

    def run(self) -> list[Failure]:
        """Run the tasks, at most `workers` at a time; return those that failed in every try."""
        self.server.job(self.job)
        waiting = [(spec, 1) for spec in reversed(self.specs)]
        running: dict[int, tuple[TaskSpec, int, Path]] = {}
        failures: list[Failure] = []
        while waiting or running:
            while waiting and len(running) < self.workers:
                spec, attempt = waiting.pop()
                log = self.logs / f"{spec.rank:05d}.{attempt}.log"
                running[spec.rank] = (spec, attempt, log)
                self.server.start(spec, attempt > 1, log)
            answer = self.server.wait()
            spec, attempt, log = running.pop(answer["ended"])
            self.on_end(answer)
            if answer["status"] == 0:
                continue
            failure = explain(spec.rank, answer["status"], log)
            if attempt < TRIES and failure.exit_code not in (3, 4):
                waiting.append((spec, attempt + 1))
            else:
                failures.append(failure)
        return failures


def explain(rank: int, status: int, log: Path) -> Failure:
    """Say why a task ended as it did."""
    error = Path(f"{log}.error")
    if status < 0:
        return Failure(rank, f"killed by signal {-status}" + (" (out of memory?)" if status == -9 else ""), 5, str(log))
    try:
        body = json.loads(error.read_text())
        words, code = f"{body['type']}: {body['message']}", body["exit_code"]
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or the child died while it wrote
        return Failure(rank, f"ended with status {status}", 5, str(log))
    return Failure(rank, words, code if code in (3, 4, 6, 7, 75) else 5, str(log))


class TaskServer:
    """The driver's end of a task server process."""

    def __init__(self, out: Path, plan: Path, log: Path):
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = open(log, "ab")  # noqa: SIM115  closed in close()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stackbuild.server", str(out), str(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,
        )
        self.log = log

    def job(self, name: str) -> None:
        self._send({"job": name})

    def start(self, spec: TaskSpec, isolate: bool, log: Path) -> None:
        self._send({"run": spec.rank, "params": spec.params, "isolate": isolate, "log": str(log)})

    def _send(self, message: dict[str, Any]) -> None:
        stdin: IO[bytes] | None = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise self._gone() from error

    def wait(self) -> dict[str, Any]:
        """The next task that ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._gone()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _gone(self) -> StackbuildError:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
        return PartialFailure(
            f"The task server ended with status {self._process.wait()}; its log {self.log} ends:\n{tail}"
        )

    def close(self) -> None:
        """End the server and its children."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@dataclass
class Launch:
    """One run of the driver over an output folder."""

    build: Build
    plan_path: Path
    workers: int
    progress: Progress = field(default_factory=Silent)
    reports: list[JobReport] = field(default_factory=list)
    _server: TaskServer | None = None

    def run(self) -> list[JobReport]:
        """Run every job of the graph; PartialFailure names what failed and where its log is."""
        journal = Journal(self.build.out)
        journal.write(event="start", plan=self.build.plan.digest, workers=self.workers, pid=os.getpid())
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
            self._close()
        return self.reports

    def run_job(self, job: Job, journal: Journal) -> JobReport:
        build, started = self.build, time.monotonic()
        specs = [TaskSpec(rank, params) for rank, params in enumerate(build.task_params(job))]
        complete: dict[int, list[ShardManifest]] = {}
        for spec in specs:
            found = build.found(job, spec.rank, spec.params)
            if found and not found[0].stats.get("provisional"):  # else: what it could not read may be there now
                complete[spec.rank] = found
        pending = [spec for spec in specs if spec.rank not in complete]
        report = JobReport(job.name, len(specs))
        self.progress.job(job.name, len(specs), len(complete))
        journal.write(event="job", job=job.name, shard_jobs=job.shard_jobs, tasks=len(specs), cached=len(complete))
        if pending:
            failures = self._execute(job, pending, report, journal)
            if failures:
                raise partial_failure(job, failures, len(specs), [self._name(job, f.rank) for f in failures])
            for spec in pending:
                found = build.found(job, spec.rank, spec.params)
                if found is None:
                    raise PartialFailure(
                        f"Task {spec.rank} of {job.name} ended well and left no manifest of the expected key: "
                        "stackbuild's own code or a data file of a stage changed while it ran. Run the same build again."
                    )
                complete[spec.rank] = found
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
        if self._server is None:
            self._server = TaskServer(self.build.out, self.plan_path, self.build.out / "launches" / "server.log")
        logs = self.build.out / "launches" / "logs" / job.name
        logs.mkdir(parents=True, exist_ok=True)
        for spec in pending:
            for old in logs.glob(f"{spec.rank:05d}.*"):
                old.unlink()
        step = JobStep(str(self.build.out), str(self.plan_path), job.name)
        executor = LocalExecutor(self._server, step, pending, self.workers, logs)

        def ended(answer: dict[str, Any]) -> None:
            report.cpu += answer["cpu"]
            report.memory = max(report.memory, answer["memory"])
            report.private = max(report.private, answer["private"])
            if answer["status"] == 0:
                report.ran += 1
                self.progress.task(job.name)
            journal.write(
                event="task",
                job=job.name,
                rank=answer["ended"],
                status=answer["status"],
                cpu=round(answer["cpu"], 3),
                memory=answer["memory"],
                private=answer["private"],
            )

        executor.on_end = ended
        failures = executor.run()
        if job.phase is not None and job.phase.preload:
            self._close()  # a large index was for this job only; a fresh server forks faster and holds less
        return failures

    def _name(self, job: Job, rank: int) -> str:
        """A task for people: what an ingest task was reading stands behind its number."""
        unit = self.build.plan.units[rank] if job.kind == "ingest" else None
        return f"task {rank} ({unit.repo_name or unit.where.get('path', unit.kind)})" if unit else f"task {rank}"

    def _close(self) -> None:
        if self._server:
            self._server.close()
            self._server = None


def partial_failure(job: Job, failures: list[Failure], tasks: int, names: list[str]) -> StackbuildError:
    """The error that ends a build some of whose tasks failed."""
    first = failures[0]
    shown = list(zip(names, failures, strict=True))[:5]
    lines = [f"  {name}: {(f.reason.splitlines() or [''])[0]}  (log: {f.log})" for name, f in shown]
    more = f"\n  and {len(failures) - 5} more" if len(failures) > 5 else ""
    text = f"{len(failures)} of {tasks} tasks of {job.name} failed:\n" + "\n".join(lines) + more
    if first.exit_code == 4:
        return InputError(text)
    error = PartialFailure(text + "\nWhat is complete is kept; run the same command again to go on.")
    error.exit_code = first.exit_code
    return error


def check_ledger(build: Build) -> list[tuple[str, Ledger]]:
    """Each stage's sums, after checking that every file which one passes on is given to the next; InputError if not."""
    chain: list[tuple[str, Ledger]] = [
        ("ingest", build.ledger(INGEST.name)),
        ("occurrences", build.ledger(OCCURRENCES.name)),
    ]
    for node in build.nodes:
        if is_transition(node.stage):
            chain.append((node.instance, build.ledger(node.phase_job(node.stage.phases()[-1]))))
        elif judges_rows(node.stage):
            chain.append((node.instance, build.ledger(node.slug)))
        else:
            for phase in node.stage.phases():
                if phase.removes:
                    chain.append((node.instance, build.ledger(node.phase_job(phase))))
    for (before, left), (after, entered) in pairwise(chain):
        if (left.rows_out, left.bytes_out) != (entered.rows_in, entered.bytes_in):
            raise InputError(
                f"The ledger does not add up: {before} passes on {left.rows_out} files of {left.bytes_out} bytes, "
                f"{after} was given {entered.rows_in} of {entered.bytes_in}."
            )
    check_release(build, chain)
    return chain


def check_release(build: Build, chain: list[tuple[str, Ledger]]) -> None:
    """Every file that was kept is in each table of the release, every file that left is a decision; InputError if not."""
    layout = next(node for node in build.nodes if node.instance == "layout")

    def rows(phase: str, *tables: str) -> int:
        return sum(output.rows for table in tables for output in build.outputs(layout.phase_job(phase), table))

    kept = chain[-1][1]
    for what, count in (
        ("runs", rows("runs", "runs")),
        ("look-ups by content", rows("runs", "contents")),
        ("rows of repositories", rows("runs", "pointers")),
        ("the dataset", rows("files", "dataset")),
        ("the manifest", rows("files", "manifest")),
    ):
        if count != kept.rows_out:
            raise InputError(f"The ledger does not add up: {kept.rows_out} files were kept, {count} are in {what}.")
    size = sum(shard.stats["bytes"] for shard in build.shards(layout.phase_job("files")))
    if size != kept.bytes_out:
        raise InputError(f"The ledger does not add up: {kept.bytes_out} bytes were kept, {size} are in the dataset.")
    left = sum(ledger.merged + ledger.dropped + ledger.quarantined for _, ledger in chain)
    if (told := rows("decisions", "decisions", "private_decisions")) != left:
        raise InputError(f"The ledger does not add up: {left} files left, {told} decisions tell of it.")


class Journal:
    """OUT/launches/journal.jsonl: what was started and how it ended, one JSON object a line."""

    def __init__(self, out: Path):
        self.path = out / "launches" / "journal.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **event: Any) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold the output folder: two drivers at once would do the same work twice."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} is not a folder and cannot be made one: {error.strerror}.") from error
    with open(out / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StackbuildError(
                f"Another stackbuild is building {out}; wait for it, or see `stackbuild status {out}`."
            ) from error
        yield
