"""A build is put before Slurm as a whole: an array and a gate for each job of the graph, and a last job that publishes.

    array NN.1  --afterany-->  gate NN  --afterok-->  array NN+1.1  ...  --afterok-->  publish

The first arrays are submitted held and released when all is submitted and every id is on disk: a driver that dies in between
leaves nothing that runs. A gate waits for all arrays of its job, writes the stage manifest, or submits a further wave of what
failed and makes the next job wait for that one's gate (`gate.py`). An invalid dependency cancels what waits for it; a gate waits
for the gate before it too, or it would begin when its arrays are cancelled.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stackbuild import scheduler
from stackbuild.build import Request, describe, disk_error, published, refuse_a_folder_in_use, resolve
from stackbuild.cluster import SlurmOptions, minutes
from stackbuild.errors import InputError, UsageError, command
from stackbuild.estimate.steps import job_key
from stackbuild.frozen_plan import Plan
from stackbuild.graph import Job
from stackbuild.journal import driver_journal, only_one
from stackbuild.launch import complete_tasks
from stackbuild.launches import (
    Frozen,
    LaunchFolder,
    Submitted,
    Wave,
    last_launch,
    live_jobs,
    new_id,
    of_another,
    under_way,
)
from stackbuild.plan import Build
from stackbuild.pool import TaskSpec
from stackbuild.slurm.balance import Expected, chained, elements_for, expected
from stackbuild.slurm.code import code_digest
from stackbuild.slurm.executor import SlurmExecutor, gate_dependency
from stackbuild.slurm.script import check_path, gate_script, memory_of, publish_script

CANCEL_LOOKS = 5  # at what is left in the queue, each with a scancel


@dataclass
class Submission:
    """What came of submitting. `joined`: the same build was under way already; `ignored`: keys of `[slurm]` that it was submitted
    with other values of. `waves`: of the jobs that are to run."""

    folder: LaunchFolder
    joined: bool = False
    waves: list[Wave] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)  # ids
    ignored: list[str] = field(default_factory=list)


def submit(request: Request, options: SlurmOptions) -> Submission:
    """Resolve, plan, submit all, and return; UsageError if another build of this folder is under way."""
    scheduler.require()
    out = request.out
    check_path(out)
    check_memory(options)
    with only_one(out):
        refuse_a_folder_in_use(out)
        before = live(out)
        try:
            plan = resolve(request, keep=before is None)  # a launch under way goes by what it wrote down itself
            if before is not None:
                return join(before, plan, options)
            path = plan.save(out)
            build = Build(out, plan)
            describe(build, complete=False, files=published(out))
            return launch(build, str(path.relative_to(out)), options)
        except OSError as error:
            raise disk_error(error, out) from error


def live(out: Path) -> LaunchFolder | None:
    """The folder's last launch if it is under way. One that was not submitted whole is cancelled, as none of it runs, and one
    that was to be cancelled and is still there. UsageError if it is another user's, who alone can end its jobs."""
    folder = last_launch(out)
    if folder is None or not under_way(folder):
        return None
    if not folder.mine:
        raise of_another(folder)
    if folder.marked("cancelled") or not folder.marked("released"):
        cancel_jobs(folder)
        return None
    return folder


def cancel_jobs(folder: LaunchFolder) -> int:
    """Cancel all of a launch's jobs; how many there were. A gate may be submitting: it is looked again until nothing is left."""
    first = jobs = live_jobs(folder)
    for _ in range(CANCEL_LOOKS):
        if not jobs:
            break
        scheduler.cancel({job.array for job in jobs})
        jobs = [job for job in live_jobs(folder) if job.state != "COMPLETING"]
    return len(first)


def join(folder: LaunchFolder, plan: Plan, options: SlurmOptions) -> Submission:
    """The same build is under way: nothing is submitted. Another one is refused."""
    frozen = folder.frozen()
    if frozen.plan != plan.digest:
        raise UsageError(
            f"Launch {folder.id} builds another recipe, or other inputs, in {folder.out}. Wait for it, or end it with "
            f"`{command('stackbuild', 'cancel', folder.out)}`."
        )
    then = {**SlurmOptions().model_dump(mode="json"), **frozen.settings}
    ignored = [key for key, value in options.model_dump(mode="json").items() if then[key] != value]
    return Submission(folder, joined=True, jobs=[one.slurm for one in folder.submitted()], ignored=ignored)


def launch(build: Build, plan_path: str, options: SlurmOptions) -> Submission:
    """Submit the jobs of a build that are not complete."""
    out = build.out
    allowed = scheduler.time_limit(options.partition)
    if minutes(options.time) > allowed:
        raise UsageError(
            f"[slurm] time = {options.time!r} is more than {allowed:g} minutes, which is all that partition "
            f"{options.partition or '(the default)'} allows: such jobs would wait for ever. Ask for less: an element that reaches "
            "its limit goes on in a new attempt."
        )
    folder = LaunchFolder(out, new_id())
    waves, cached, tasks = waves_of(build, options, keep=True)
    journal = driver_journal(out)
    journal.write(
        flush=True, event="start", plan=build.plan.digest, executor="slurm", launch=folder.id, pid=os.getpid(),
        host=socket.gethostname(),
    )  # fmt: skip
    names = [job.name for job in build.jobs]
    folder.freeze(
        Frozen(
            folder.id,
            build.plan.digest,
            plan_path,
            code_digest(build),
            options.model_dump(mode="json"),
            names,
            cached,
            tasks,
            os.getuid(),
        )
    )
    max_array = array_limit(options)
    submitted: list[str] = []
    held: list[str] = []
    try:
        after: list[str] = []
        for wave in waves:
            folder.add_wave(wave)
            executor = SlurmExecutor(folder, out / plan_path, wave, options, max_array)
            try:
                arrays, gate = executor.run(after, hold=not after)
            except scheduler.SchedulerError as error:
                raise scheduler.SchedulerError(f"{asked(wave)}: {error}", error.passing) from error
            held += arrays if not after else []
            submitted += [*arrays, gate]
            after = [gate]
        submitted.append(submit_publish(folder, options, after))
        held += [] if after else submitted[-1:]
        scheduler.release(held)
    except BaseException as error:
        with suppress(OSError):  # a full disk may be what it is about
            folder.mark("refused", message=str(error) or type(error).__name__)
        noted = {one.slurm for one in folder.submitted()}
        with suppress(
            scheduler.SchedulerError
        ):  # the first error is what is told; the next submission cancels the rest
            scheduler.cancel(noted)
            scheduler.cancel({job.array for job in live_jobs(folder)} - noted)  # one whose id Slurm did not get to say
        raise
    folder.mark("released")
    return Submission(folder, waves=waves, jobs=submitted)


def asked(wave: Wave) -> str:
    """What the elements of a job ask of Slurm, in the words of `[slurm]`."""
    gigabytes = [f"{number / 10**9:g}" for number in (memory_of(wave), wave.memory, wave.shared)]
    return (
        f"Slurm does not take {wave.job}, an element of which asks for {gigabytes[0]} GB ([slurm] cpus = {wave.cpus} times memory "
        f"= {gigabytes[1]} GB, and shared_memory = {gigabytes[2]} GB) and for time = {wave.time}"
    )


def submit_publish(folder: LaunchFolder, options: SlurmOptions, after: Sequence[str]) -> str:
    """Submit the job that checks the ledger and publishes."""
    script = publish_script(folder, options)
    folder.script("publish", script)
    job = scheduler.sbatch(script, [f"--dependency=afterok:{':'.join(after)}"] if after else ["--hold"], known=())
    folder.note(Submitted(job, "publish", len(folder.frozen().jobs), 1))
    return job


def check_memory(options: SlurmOptions) -> None:
    """UsageError if an element would ask for more than the recipe allows: none could be tried again with more."""
    if options.element_memory > options.max_memory:
        raise UsageError(
            f"[slurm] An element would ask for {options.element_memory / 1e9:.1f} GB (cpus x memory, or the largest of job_memory, and "
            f"shared_memory), which is more than max_memory, {options.max_memory / 1e9:.1f} GB. Give max_memory what a node has, or "
            "an element fewer cpus."
        )


def array_limit(options: SlurmOptions) -> int:
    """Elements of one array: what the site allows, or less if the recipe says so."""
    site = scheduler.max_array_size() if scheduler.available() else 1_001
    return max(1, min(site, options.max_array or site))


# ---------------------------------------------------------------- what is to run


def waves_of(build: Build, options: SlurmOptions, keep: bool) -> tuple[list[Wave], dict[str, int], dict[str, int]]:
    """(first waves of the jobs that are not complete, tasks of those that are, tasks of the others as far as known).

    `keep`: write the stage manifests of what is complete.
    """
    waves: list[Wave] = []
    cached: dict[str, int] = {}
    tasks: dict[str, int] = {}
    known = True  # what the job at hand has to do can be told: all before it is complete
    foreseen, memory = expected(build), memory_of_jobs(build, options)
    seconds: list[float] = []
    for number, job in enumerate(build.jobs):
        ranks: list[int] | None = None
        if known:
            specs = [TaskSpec(rank, params) for rank, params in enumerate(build.task_params(job))]
            complete = complete_tasks(build, job, specs)
            if len(complete) == len(specs):
                known = keep_manifest(build, job, specs, complete, keep)
                cached[job.name] = len(specs)
                continue
            known = False
            ranks = [spec.rank for spec in specs if spec.rank not in complete]
            count, of = len(ranks), len(specs)
        else:
            count = of = planned_tasks(build, job, foreseen[job.name])
        tasks[job.name] = of
        left = foreseen[job.name].seconds * count / max(1, of)
        size = memory[job.name]
        cpus = max(1, min(options.cpus, count, options.cpus * options.memory // size))
        elements = elements_for(count, left, options, cpus)
        seconds.append(left / elements / cpus)
        waves.append(
            Wave(number, number, 1, job.name, min(elements, count), cpus, size, options.shared_memory,
                 options.time, ranks)
        )  # fmt: skip
    return chained(waves, seconds), cached, tasks


def memory_of_jobs(build: Build, options: SlurmOptions) -> dict[str, int]:
    """Bytes of one task, by job. UsageError if the recipe names a job that there is not."""
    known = {
        job.name: {job_key(job), *(node.instance for node in job.nodes if job.kind == "rows")} for job in build.jobs
    }
    if unknown := sorted(set(options.job_memory) - set().union(*known.values())):
        raise UsageError(
            f"[slurm] job_memory names {', '.join(unknown)}, which is no job of this recipe; there are "
            f"{', '.join(job_key(job) for job in build.jobs)}."
        )
    return {
        name: max((size for job, size in options.job_memory.items() if job in names), default=options.memory)
        for name, names in known.items()
    }


def keep_manifest(build: Build, job: Job, specs: Sequence[TaskSpec], complete: dict[int, list], keep: bool) -> bool:  # type: ignore[type-arg]
    """Write the stage manifests of a complete job, or say whether they are there."""
    if keep:
        build.complete(job, {name: [complete[s.rank][i] for s in specs] for i, name in enumerate(job.shard_jobs)})
        return True
    try:
        return all(build.shards(name) is not None for name in job.shard_jobs)
    except InputError:
        return False


def planned_tasks(build: Build, job: Job, foreseen: Expected) -> int:
    """How many tasks a job will have, as far as it can be told before what it reads is there."""
    if job.kind == "ingest":
        return len(build.plan.units)
    if job.phase is not None and callable(job.phase.tasks):
        return foreseen.tasks
    return 1 if job.phase is not None and job.phase.tasks == "one" else build.plan.partitions


def dry_run(request: Request, options: SlurmOptions) -> list[tuple[str, str]]:
    """(how it would be submitted, script) of every job that would be, without writing or submitting anything."""
    check_path(request.out)
    check_memory(options)
    plan = resolve(request, keep=False)
    build = Build(request.out, plan)
    folder = LaunchFolder(request.out, "LAUNCH")
    waves, _, _ = waves_of(build, options, keep=False)
    found: list[tuple[str, str]] = []
    after, gates = "--hold", list[str]()
    for wave in waves:
        executor = SlurmExecutor(folder, request.out, wave, options, array_limit(options))
        found += [(f"sbatch --parsable {after}", script) for _, _, script in executor.scripts()]
        waits = gate_dependency([f"ARRAYS_{wave.name}"], gates)
        found.append((f"sbatch --parsable --dependency={waits}", gate_script(folder, wave, options)))
        gates = [f"GATE_{wave.name}"]
        after = f"--dependency=afterok:{gates[0]}"
    return [*found, (f"sbatch --parsable {after}", publish_script(folder, options))]
