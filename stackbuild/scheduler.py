"""Slurm's commands: run with a clean environment, their answers parsed, their errors told in words.

One call answers for all jobs of a launch, whose names begin alike; accounting (sacct) is asked only for what the controller
has forgotten, and a site without it is no error.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stackbuild.cluster import minutes
from stackbuild.errors import StackbuildError, UsageError

WAIT_SECONDS = 60.0
PENDING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
RUNNING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
FIELDS = ("%i", "%F", "%K", "%j", "%T", "%r", "%N", "%M")


class SchedulerError(StackbuildError):
    """Slurm refused, or did not answer."""


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


def _run(command: Sequence[str], text: str | None = None) -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", timeout=WAIT_SECONDS,
            env=clean_environment(), check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise SchedulerError(f"{command[0]} is not on the PATH of this machine.") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]} did not answer within {WAIT_SECONDS:.0f} s.") from error
    if done.returncode:
        raise SchedulerError(f"{' '.join(command[:6])} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def sbatch(script: str, options: Sequence[str] = ()) -> str:
    """Submit a script; returns the job's id."""
    answer = _run(["sbatch", "--parsable", *options], script).strip().splitlines()
    found = re.match(r"(\d+)(;|$)", answer[-1].strip()) if answer else None
    if not found:
        raise SchedulerError(f"sbatch answered {answer!r}, in which there is no job id.")
    return found[1]


def check(script: str) -> None:
    """SchedulerError if Slurm would refuse this script. It takes one that is submitted held whatever that asks for, and lets it
    wait for ever if no node has so much."""
    _run(["sbatch", "--test-only"], script)


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


def queue(prefix: str, ended: bool = False) -> list[Element]:
    """All jobs of this user whose name begins so, an element of an array each; `ended`: those too that the controller still
    remembers."""
    lines = _run(["squeue", "--noheader", "--me", "--array", *(["-t", "all"] if ended else []), "-o", "|".join(FIELDS)])
    found = []
    for line in lines.splitlines():
        parts = line.split("|")
        if len(parts) < len(FIELDS) or not parts[3].startswith(prefix):
            continue
        index = int(parts[2]) if parts[2].isdigit() else None
        state = parts[4].split(" ")[0]
        found.append(Element(parts[0], parts[1], index, parts[3], state, parts[5], parts[6], parts[7]))
    return found


def accounted(ids: Iterable[str]) -> dict[str, str]:
    """State by job id from accounting, also of steps that say more than their job; nothing where there is none."""
    wanted = set(ids)
    if not wanted or not shutil.which("sacct"):
        return {}
    arrays = ",".join(sorted({job.split("_")[0] for job in wanted}))  # all elements would be too long a command
    try:
        lines = _run(["sacct", "--noheader", "--parsable2", "--array", "--jobs", arrays, "--format", "JobID,State"])
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
        _run(["scontrol", "release", job])


def depend(job: str, dependency: str) -> None:
    """Make a pending job wait for something else than what it was submitted with."""
    _run(["scontrol", "update", f"JobId={job}", f"Dependency={dependency}"])


def cancel(ids: Iterable[str]) -> None:
    """Cancel jobs; those that have ended are no error."""
    wanted = list(ids)
    for start in range(0, len(wanted), 200):
        _run(["scancel", "--quiet", *wanted[start : start + 200]])
