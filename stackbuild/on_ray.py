"""A build on Ray: on a cluster of its own on this machine, or on one that is running.

Each slot (`slots.py`) runs one task at a time, so that a Ray task is a shard; tasks that fail are tried again by the pool that
local runs have. datatrove's own loop ends well when a rank raised, and never when one was killed: its ranks run in a process pool
inside an actor.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datatrove.executor.ray import RayPipelineExecutor
from datatrove.io import get_datafolder

from stackbuild.beats import Beat, Heart
from stackbuild.cluster import RayOptions
from stackbuild.errors import MissingDependency, StackbuildError, UsageError
from stackbuild.graph import Job
from stackbuild.local import JobStep
from stackbuild.pool import Ended, Pool, TaskSpec
from stackbuild.retries import Failure
from stackbuild.slots import Slots

OBJECT_STORE = 80 * 10**6  # bytes; shards are files, so next to nothing passes through it


class RayExecutor(RayPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """datatrove's Ray executor with a run() that gives a task at a time to each slot."""

    def __init__(self, pool: Pool, step: JobStep, tasks: Sequence[TaskSpec], memory: int):
        super().__init__([step], tasks=max(len(tasks), 1), workers=max(pool.workers, 1), mem_per_cpu_gb=memory / 2**30)
        self.logging_dir = get_datafolder(str(pool.logs))  # given before, it would warn that this must be shared
        self.pool, self.specs, self.job = pool, tasks, step.job

    def run(self) -> list[Failure]:
        """Run the tasks; return those that failed in every try."""
        return self.pool.run(self.job, self.specs)


class Ray:
    """An executor on a Ray cluster: one on this machine with `workers` slots, or the one at the address that is given."""

    def __init__(self, out: Path, plan: Path, workers: int, options: RayOptions):
        self.out, self.plan, self.workers, self.options = out, plan, workers, options
        try:
            import ray
        except ImportError as error:
            raise MissingDependency("--executor ray needs Ray: pip install 'stackbuild[ray]'") from error
        self.ray: Any = ray
        self._slots: Slots | None = None
        self._words = contextlib.ExitStack()
        self._own = False  # whether the connection is ours to end
        self._folder: str | None = None  # of the cluster on this machine

    def run(self, job: Job, specs: Sequence[TaskSpec], logs: Path, ended: Callable[[Ended], None]) -> list[Failure]:
        slots = self._slots = self._slots or self.open()
        slots.heavy = bool(job.phase is not None and job.phase.preload)
        pool = Pool(slots, 0, logs)
        heart = Heart(self.out / "launches" / "beats" / "driver.json", Beat("driver", job.name, len(specs)))

        def told(one: Ended) -> None:
            heart.beat.count(one)
            ended(one)

        def idle() -> bool:
            pool.workers = slots.room(max(len(specs) - heart.beat.done, 1))
            heart.tick(pool)
            return False

        pool.ended, pool.idle = told, idle
        try:
            return RayExecutor(pool, JobStep(str(self.out), str(self.plan), job.name), specs, slots.memory).run()
        finally:
            heart.stop()

    def open(self) -> Slots:
        """Connect, and say how large a slot is."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change to come
        self._words.enter_context(contextlib.redirect_stdout(sys.stderr))  # where Ray says what it lost
        handler = signal.getsignal(signal.SIGTERM)  # Ray puts its own there
        memory, most = self.options.memory, None
        try:
            if self.options.address:
                self._join(self.options.address)
            elif not self.ray.is_initialized():
                self._start()
                most = self.workers
                memory = min(memory, int(self.ray.cluster_resources().get("memory", memory)))  # one fits at least
        finally:
            if signal.getsignal(signal.SIGTERM) is not handler:
                signal.signal(signal.SIGTERM, handler)
        return Slots(self.ray, self.out, self.plan, memory, most)

    def _join(self, address: str) -> None:
        if address.startswith("ray://"):
            raise UsageError(
                f"{address}: give the address of the head node (such as head:6379) and build on one of the nodes."
            )
        if self.ray.is_initialized():
            return
        host, colon, port = address.rpartition(":")
        try:
            if colon:  # Ray would ask for minutes and then end the process
                socket.create_connection((host, int(port)), timeout=10).close()
            self._own = True
            self.ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"No Ray cluster at {address} that this machine is a node of: {error}") from error

    def _start(self) -> None:
        short = tempfile.gettempdir() if len(tempfile.gettempdir()) < 30 else "/tmp"  # paths of sockets have 107 bytes
        self._folder = tempfile.mkdtemp(prefix="ray-", dir=short)
        self._own = True
        try:
            self.ray.init(
                address="local",
                num_cpus=self.workers,
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=self._folder,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise StackbuildError(f"Ray did not start on this machine: {error}") from error

    def close(self) -> None:
        """End what was started; a cluster that was there stays."""
        if self._slots:
            self._slots.close()
            self._slots = None
        if self._own:
            self.ray.shutdown()
            self._own = False
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._words.close()
