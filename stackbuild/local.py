"""The executor of one machine: datatrove's, which runs the tasks of a job as children of a task server.

Apart from `launch.py`, as datatrove's executors take half a second to import and a job on a cluster needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from stackbuild.beats import Beat, Heart
from stackbuild.frozen_plan import Plan
from stackbuild.graph import Job
from stackbuild.plan import Build
from stackbuild.pool import Ended, Pool, TaskServer, TaskSpec
from stackbuild.retries import Failure


class JobStep(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """A job as a datatrove step: rank r of w runs the tasks r, r + w, r + 2w, …"""

    name = "stackbuild job"
    type = "stackbuild"

    def __init__(self, out: str, plan: str, job: str):
        super().__init__()
        self.out, self.plan, self.job = out, plan, job

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        from stackbuild.execute import run_task

        build = Build(Path(self.out), Plan.load(Path(self.plan)))
        job = next(job for job in build.jobs if job.name == self.job)
        for task, params in enumerate(build.task_params(job)):
            if task % world_size == rank and build.found(job, task, params) is None:
                run_task(build, job, task, params)
        yield from data or ()


class LocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor with a run() that forks one child per shard from a warm task server."""

    def __init__(self, pool: Pool, step: JobStep, tasks: Sequence[TaskSpec]):
        super().__init__([step], tasks=max(len(tasks), 1), workers=pool.workers, logging_dir=str(pool.logs))
        self.pool, self.specs, self.job = pool, tasks, step.job

    def run(self) -> list[Failure]:
        """Run the tasks; return those that failed in every try."""
        return self.pool.run(self.job, self.specs)


class Local:
    """An executor on this machine: one task server for all jobs, `workers` children at a time."""

    def __init__(self, out: Path, plan: Path, workers: int):
        self.out, self.plan, self.workers = out, plan, workers
        self._server: TaskServer | None = None
        self._preloaded: tuple[str, ...] = ()  # what the server holds that not every job wants

    def run(self, job: Job, specs: Sequence[TaskSpec], logs: Path, ended: Callable[[Ended], None]) -> list[Failure]:
        preload = job.phase.preload if job.phase is not None else ()
        if set(self._preloaded) - set(preload):
            self.close()  # a large index was for the jobs before only; a fresh server forks faster and holds less
        self._preloaded = preload
        if self._server is None:
            self._server = TaskServer(self.out, self.plan, self.out / "launches" / "server.log")
        pool = Pool(self._server, self.workers, logs)
        heart = Heart(self.out / "launches" / "beats" / "driver.json", Beat("driver", job.name, len(specs)))

        def told(one: Ended) -> None:
            heart.beat.count(one)
            ended(one)

        def idle() -> bool:
            heart.tick(pool)
            return False

        pool.ended, pool.idle = told, idle
        try:
            return LocalExecutor(pool, JobStep(str(self.out), str(self.plan), job.name), specs).run()
        finally:
            heart.stop()

    def close(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
