"""One task after another, in this process or in several that share the compiled kernels."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild.counts import Ledger
from stackbuild.errors import PartialFailure, UsageError
from stackbuild.shards import Attempt, Output, ShardManifest, find_manifest, read_batches
from stackbuild.standalone.earlier import link_or_copy
from stackbuild.standalone.inputs import InputUnit
from stackbuild.standalone.lean import give_back_memory
from stackbuild.task import Task

NAMES = ("repo_name", "path")
WORKER_BYTES = 256 << 20  # of text that another worker is worth starting for
Talk = Callable[[str, int, int], None]  # what is done, tasks done, tasks in all


@dataclass(frozen=True)
class Step:
    """One job: `function` of `module`, run once for each unit, for each partition, once, or for each group."""

    name: str
    module: str
    function: str
    per: str  # unit, partition, one, group
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskOf:
    """All that a worker needs to run one task."""

    out: str
    step: Step
    rank: int
    params: dict[str, Any]
    options: Any
    seed: int
    partitions: int
    tables: Path  # a file: what the step reads is the same for all its tasks, and may be long
    key: str


@lru_cache(1)
def tables_in(path: Path) -> dict[str, list[Output]]:
    """The committed files that a step reads, by table."""
    body = json.loads(path.read_bytes())
    return {name: [Output(**output) for output in outputs] for name, outputs in body.items()}


def run_one(task_of: TaskOf) -> ShardManifest:
    """Run a task in this process and commit it; what is committed under its key is left as it is."""
    out, job = Path(task_of.out), task_of.step.name
    found = find_manifest(out, job, task_of.rank, task_of.key)
    if found is not None:
        return found
    attempt, tables = Attempt(out, job, task_of.rank), tables_in(task_of.tables)
    try:
        task = Task(
            out=out,
            job=job,
            rank=task_of.rank,
            params=task_of.params,
            options=task_of.options,
            seed=task_of.seed,
            partitions=task_of.partitions,
            tables=tables,
            attempt=attempt,
            rows=lambda columns: _files(task_of, columns),
        )
        getattr(import_module(f"stackbuild.{task_of.step.module}"), task_of.step.function)(task)
        return attempt.commit(task_of.key, Ledger(), task.stats)
    except BaseException:
        attempt.discard()
        raise
    finally:
        give_back_memory()


def _files(task_of: TaskOf, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a partition that stand for their contents, as the stage's tasks expect rows. They have no names: who is
    named in whose place is decided among rows (`deciding.decide`), and what is known of contents does not depend on it.
    """
    wanted = [column for column in columns if column not in NAMES]
    for batch in read_batches(Path(task_of.out), tables_in(task_of.tables)["files"], wanted, task_of.rank, "partition"):
        nameless = pa.nulls(batch.num_rows, pa.string())
        arrays = [nameless if column in NAMES else batch.column(column) for column in columns]
        yield pa.RecordBatch.from_arrays(arrays, list(columns))


# ---------------------------------------------------------------- workers


class Workers:
    """Runs tasks in this process, or in several that share the compiled kernels, which the module `preload` loads."""

    def __init__(self, workers: int, preload: str = "stackbuild.standalone.warm"):
        self._workers, self._preload = workers, preload
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self._workers > 1:
            context = get_context("forkserver")
            context.set_forkserver_preload([self._preload])
            self._pool = ProcessPoolExecutor(self._workers, mp_context=context)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, step: Step, tasks: Sequence[TaskOf], talk: Talk) -> list[ShardManifest]:
        """What the tasks committed, in their order."""
        made: list[ShardManifest] = []
        talk(step.name, 0, len(tasks))
        try:
            many = self._pool is not None and len(tasks) > 1
            for shard in self._pool.map(run_one, tasks) if many and self._pool else map(run_one, tasks):
                made.append(shard)
                talk(step.name, len(made), len(tasks))
        except BrokenProcessPool as error:
            raise PartialFailure(
                f"A worker was killed during {step.name} (out of memory?); run the same command again to go on, "
                "with fewer --workers or a smaller --memory."
            ) from error
        return made


def workers_for(units: Sequence[InputUnit]) -> int:
    """All cores, but not more than there is work for: a second process costs a second of CPU before it does any."""
    return min(os.cpu_count() or 1, 1 + sum(unit.bytes for unit in units) // WORKER_BYTES)


# ---------------------------------------------------------------- the output folder


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold the output folder. UsageError if another run does."""
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"Another run writes to {out}; wait for it, or write to another folder.") from error
        yield


def replace_folder(out: Path, folder: str, files: Mapping[str, Output]) -> None:
    """Make OUT/folder hold these committed files, by their names in it: as a whole or not at all."""
    temporary, target, old = out / f".{folder}.new", out / folder, out / f".{folder}.old"
    for left in (temporary, old):
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir()
    for name, output in files.items():
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(out / output.file, temporary / name)
    if target.exists():
        os.rename(target, old)
    os.rename(temporary, target)
    shutil.rmtree(old, ignore_errors=True)
