"""Slurm's commands: run with a clean environment, their answers parsed, their errors told in words.

One call answers for all jobs of a launch, whose names begin alike; accounting (sacct) is asked only for what the controller
has forgotten, and a site without it is no error. A controller that begins anew, or is busy, is asked again after some seconds:
for want of an answer a gate would end a whole launch.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from stackbuild.cluster import minutes
from stackbuild.errors import StackbuildError, UsageError

WAIT_SECONDS = 60.0  # for one answer, and after which nothing is asked again
PAUSES = (3.0, 9.0)  # seconds before a second and a third try
# What Slurm 22.05 says while its controller is not there, or does not answer within MessageTimeout; `scontrol release` says only
# that the message was unexpected.
PASSING = re.compile(
    "socket timed out|unable to contact slurm controller|unexpected message received|connection (refused|reset|timed out)|"
    "zero bytes were transmitted|message (receive|send) failure|temporarily un(able|available)|in standby mode",
    re.I,
)
PENDING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
RUNNING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
# What commands need to find Slurm and to be let in, and a login shell to know who it is for.
BARE = frozenset(
    ["PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "KRB5CCNAME", "SLURM_CONF"]
)
FIELDS = ("%i", "%F", "%K", "%j", "%T", "%r", "%N", "%M")


class SchedulerError(StackbuildError):
    """Slurm refused, or did not answer. `passing`: it may a little later."""

    def __init__(self, message: str, passing: bool = False):
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True)
class Element:
    """A job, or one element of an array, as Slurm shows it. `index` is None where it is not of an array."""

    id: str  # 123 or 123_4
    array: str  # 123
    index: int | None
    name: str
    state: str  # PENDING, RUNNING, …, long form
    reason: str
    nodes: str
    elapsed: str

    @property
    def live(self) -> bool:
        return self.state in PENDING or self.state in RUNNING


def available() -> bool:
    """Whether this machine has Slurm's commands."""
    return all(shutil.which(name) for name in ("sbatch", "squeue", "scontrol", "scancel"))


def require() -> None:
    """UsageError unless this machine has Slurm's commands."""
    if not available():
        raise UsageError(
            "There is no Slurm on this machine (sbatch, squeue, scontrol, scancel); run this on a login node."
        )


def clean_environment() -> dict[str, str]:
    """The environment without what Slurm gave a job that this may run in: inside one, sbatch and srun take it for theirs."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SLURMD_", "SQUEUE_", "SCANCEL_"))
    }


def bare_environment() -> dict[str, str]:
    """What sbatch is run with, as `--export=ALL` hands it on to the job. Any other value makes slurmd run the user's login shell
    for each job first (up to Slurm 22.05 `NIL` too): its variables come along, a slow profile holds every job up, and where it takes
    too long the job is held for ever."""
    return {name: value for name, value in clean_environment().items() if name in BARE}


def _run(
    command: Sequence[str], text: str | None = None, patient: bool = True, over: str = "", unsure: str = ""
) -> str:
    """The answer of a command that does no harm if it is run twice. `over`: what it says if an earlier try was heard after all;
    `unsure`: what it may say otherwise a little later."""
    end = time.monotonic() + WAIT_SECONDS
    for attempt in itertools.count():
        try:
            return _ask(command, text)
        except SchedulerError as error:
            if attempt and over and over in str(error):
                return ""
            passing = error.passing or (unsure and unsure in str(error))
            last = attempt == len(PAUSES) or not patient or not passing
            if last or time.monotonic() + PAUSES[attempt] > end:
                raise
        time.sleep(PAUSES[attempt])
    raise AssertionError


def _ask(command: Sequence[str], text: str | None = None) -> str:
    environment = bare_environment() if command[0] == "sbatch" else clean_environment()
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", timeout=WAIT_SECONDS,
            env=environment, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise SchedulerError(f"{command[0]} is not on the PATH of this machine.") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]} did not answer within {WAIT_SECONDS:.0f} s.", passing=True) from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise SchedulerError(f"{' '.join(command[:6])} failed: {said}", bool(PASSING.search(said)))
    return done.stdout


def sbatch(script: str, options: Sequence[str] = (), known: Collection[str] | None = None) -> str:
    """Submit a script; returns the job's id.

    `known`: jobs that share its name; None: others may. Where the name tells it apart, what Slurm has not answered is tried
    again, and never blindly: it may have taken the job and not got to say so. So it is looked for by its name before each
    further try, and one that turns up after it is cancelled. The job must not be able to begin before this returns.
    """
    named = re.search(r"^#SBATCH --job-name=(\S+)$", script, re.M)
    for attempt in itertools.count():
        try:
            job = _submit(script, options)
            break
        except SchedulerError as error:
            if known is None or named is None or attempt == len(PAUSES) or not error.passing:
                raise
            time.sleep(PAUSES[attempt])
            if found := _live(named[1]) - set(known):
                return min(found, key=int)
    if attempt and named:
        cancel(_live(named[1]) - {job, *(known or ())})
    return job


def _live(name: str) -> set[str]:
    """The jobs of exactly this name that are queued or run."""
    return {one.array for one in queue(name) if one.name == name and one.live}


def _submit(script: str, options: Sequence[str]) -> str:
    answer = _ask(["sbatch", "--parsable", *options], script).strip().splitlines()
    found = re.match(r"(\d+)(;|$)", answer[-1].strip()) if answer else None
    if not found:
        raise SchedulerError(f"sbatch answered {answer!r}, in which there is no job id.")
    return found[1]


def check(script: str) -> None:
    """SchedulerError if Slurm would refuse this script. It takes one that is submitted held whatever that asks for, and lets it
    wait for ever if no node has so much. A controller that has begun anew has no nodes for some seconds, and says the same."""
    _run(["sbatch", "--test-only"], script, unsure="node configuration is not available")


def max_array_size() -> int:
    """Elements that one array may have: MaxArraySize, one more than the highest index."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run(["scontrol", "show", "config"]), re.M)
    return int(found[1]) if found else 1_001


def time_limit(partition: str) -> float:
    """Minutes that a job of a partition may take, "" being the default one, and of several the longest; infinity where Slurm does
    not say. sbatch takes longer ones unless the site forbids it (EnforcePartLimits), and lets them wait for ever."""
    told = {}
    try:
        lines = _run(["scontrol", "--oneliner", "show", "partition"]).splitlines()
    except SchedulerError:
        return math.inf
    for line in lines:
        words = dict(word.partition("=")[::2] for word in line.split())
        if words.get("MaxTime"):
            told[words.get("PartitionName", "")] = words
    names = (
        partition.split(",") if partition else [name for name, words in told.items() if words.get("Default") == "YES"]
    )
    if not names or not set(names) <= set(told):
        return math.inf
    limits = [told[name]["MaxTime"] for name in names]
    return max(minutes(limit) if limit[:1].isdigit() else math.inf for limit in limits)


def private_jobs() -> bool:
    """Whether users may not see each other's jobs (slurm.conf(5), PrivateData); so too where Slurm does not say."""
    found = re.search(r"^PrivateData\s*=\s*(\S+)", _run(["scontrol", "show", "config"], patient=False), re.M)
    return os.getuid() != 0 and (found is None or bool({"jobs", "all"} & set(found[1].lower().split(","))))


def queue(prefix: str, ended: bool = False, patient: bool = True, user: int | None = None) -> list[Element]:
    """All jobs of this user, or of one by number, whose name begins so, an element of an array each; `ended`: those too that the
    controller still remembers; `patient`: ask again if it does not answer."""
    whose = "--me" if user in (None, os.getuid()) else f"--user={user}"
    states = ["-t", "all"] if ended else []
    lines = _run(["squeue", "--noheader", whose, "--array", *states, "-o", "|".join(FIELDS)], patient=patient)
    found = []
    for line in lines.splitlines():
        parts = line.split("|")
        if len(parts) < len(FIELDS) or not parts[3].startswith(prefix):
            continue
        index = int(parts[2]) if parts[2].isdigit() else None
        state = parts[4].split(" ")[0]
        found.append(Element(parts[0], parts[1], index, parts[3], state, parts[5], parts[6], parts[7]))
    return found


def accounted(ids: Iterable[str], patient: bool = True) -> dict[str, str]:
    """State by job id from accounting, also of steps that say more than their job; nothing where there is none."""
    wanted = set(ids)
    if not wanted or not shutil.which("sacct"):
        return {}
    arrays = ",".join(sorted({job.split("_")[0] for job in wanted}))  # all elements would be too long a command
    try:
        command = ["sacct", "--noheader", "--parsable2", "--array", "--jobs", arrays, "--format", "JobID,State"]
        lines = _run(command, patient=patient)
    except SchedulerError:
        return {}
    states: dict[str, str] = {}
    for line in lines.splitlines():
        name, _, state = line.partition("|")
        job = name.split(".")[0]
        if job in wanted and (job not in states or state.startswith("OUT_OF_MEMORY")):
            states[job] = state.split(" ")[0]
    return states


def release(ids: Iterable[str]) -> None:
    """Let jobs that were submitted held begin."""
    for job in ids:
        _run(["scontrol", "release", job], over="Job has already finished")


def depend(job: str, dependency: str) -> None:
    """Make a pending job wait for something else than what it was submitted with."""
    _run(["scontrol", "update", f"JobId={job}", f"Dependency={dependency}"])


def cancel(ids: Iterable[str]) -> None:
    """Cancel jobs; those that have ended are no error."""
    wanted = list(ids)
    for start in range(0, len(wanted), 200):
        _run(["scancel", "--quiet", *wanted[start : start + 200]])
