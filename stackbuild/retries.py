"""Why a task failed, and whether and how it is tried again.

Causes are told apart because each has a remedy of its own: an exception is looked for row by row in a second process and
confirmed by a third, a task that ran out of memory gets all of it and runs part by part, a killed one runs again as it was,
and what a second try cannot mend (a damaged input, a full disk, a policy) is not tried again. Slurm 22.05 calls several of
these by one name (`FAILED 1:0`), so the words of the log count as much as the state.
"""

from __future__ import annotations

import errno
import json
import re
import signal
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any


class Cause(StrEnum):
    """Why a task, or the array element that held it, did not end well."""

    EXCEPTION = "exception"
    MEMORY = "out_of_memory"
    TIME = "time_limit"
    NODE = "node_lost"
    CANCELLED = "cancelled"
    KILLED = "killed"  # by a signal that nobody explained
    TEMPORARY = "temporary"  # a server that did not answer
    REFUSED = "refused"  # an invalid input, a policy, a missing dependency: the same next time
    DISK = "disk_full"


WITHIN = {  # further tries of a task within one run of a pool
    Cause.EXCEPTION: 2,  # a survey of all rows, then the confirmation
    Cause.MEMORY: 1,
    Cause.KILLED: 1,
    Cause.NODE: 3,
    Cause.TEMPORARY: 2,
}
WAVES = {  # further waves of a job on a cluster, for tasks that failed by a cause
    Cause.MEMORY: 2,  # each with twice the memory
    Cause.TIME: 3,
    Cause.NODE: 5,
    Cause.KILLED: 2,
    Cause.TEMPORARY: 2,
}
REMEDY = {  # before the same command is typed again, which goes on with what is complete
    Cause.EXCEPTION: "read its log; mend the stage or leave the input out",
    Cause.MEMORY: "give a task more memory ([slurm] memory and max_memory, [ray] memory, or fewer --workers of a local build), or take "
    "more partitions or a smaller part_bytes",
    Cause.TIME: "raise [slurm] time, unless it went on from part to part: the next run begins at the last committed part",
    Cause.NODE: "nothing to mend here: a node was lost",
    Cause.CANCELLED: "nothing to mend here: somebody cancelled it",
    Cause.KILLED: "see its log and the node's for who ended it",
    Cause.TEMPORARY: "wait until the server answers again",
    Cause.REFUSED: "mend what the message names",
    Cause.DISK: "make room in the output folder, or where the message says",
}


def going_on(causes: Iterable[Cause]) -> str:
    """What to do after failures of these causes, in a sentence or two."""
    remedies = "; ".join(REMEDY[cause] for cause in causes)
    return f"What is complete is kept; run the same command again to go on. Before that: {remedies}."


@dataclass(frozen=True)
class Failure:
    """A try that did not end well: why, in words, the code that the command should end with, and its log.

    `rows`: row numbers by stage instance that raised, if it was a survey.
    """

    rank: int
    reason: str
    exit_code: int
    log: str
    cause: Cause = Cause.EXCEPTION
    rows: Mapping[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class How:
    """How the next try of a task is made; the first three fields are `execute.Try`'s.

    `alone`: while no other task runs, so that it has all the memory there is.
    """

    mode: str = "plain"
    suspects: Mapping[str, list[int]] = field(default_factory=dict)
    one_part: bool = False
    alone: bool = False
    wait: float = 0.0  # seconds before it

    def to_json(self) -> dict[str, Any]:
        return {"mode": self.mode, "suspects": dict(self.suspects), "one_part": self.one_part}


class Retries:
    """The tries of one task so far; says how the next one is made."""

    def __init__(self, how: How | None = None) -> None:
        self.failed: Counter[Cause] = Counter()
        self.how = how or How()

    def go_on(self) -> None:
        """A part was committed: the next one has all tries that a task has, and nothing of what it holds is suspected yet.
        So it makes no difference to what is kept whether a task ran whole or part by part; parts are finite, and so are tries."""
        self.failed.clear()
        self.how = How(one_part=self.how.one_part, alone=self.how.alone)

    def again(self, failure: Failure) -> How | None:
        """How to try again after this failure; None: not at all."""
        cause = failure.cause
        self.failed[cause] += 1
        if self.failed[cause] > WITHIN.get(cause, 0):
            return None
        if cause is Cause.EXCEPTION:
            mode = "confirm" if failure.rows else "survey"
            self.how = How(mode, failure.rows, self.how.one_part, self.how.alone)
        elif cause is Cause.MEMORY:
            self.how = How(self.how.mode, self.how.suspects, one_part=True, alone=True)
        elif cause is Cause.TEMPORARY:
            self.how = How(
                self.how.mode, self.how.suspects, self.how.one_part, self.how.alone, 5.0 * self.failed[cause]
            )
        else:
            self.how = replace(self.how, wait=0.0)
        return self.how


# What an exit code of ours says (`errors.py`); any other is an exception.
CODES = {3: Cause.REFUSED, 4: Cause.REFUSED, 6: Cause.REFUSED, 7: Cause.REFUSED, 75: Cause.TEMPORARY}


DISK_FULL = 74  # what a child ends with (sysexits.h EX_IOERR) that found no room, whatever it could still write down


NO_ROOM = "no space left on device|disk quota exceeded"


CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})


def no_room(error: BaseException | None) -> bool:
    """Whether a full disk or a quota is why this was raised, or that from which it was; Arrow puts it into words only."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, OSError) and re.search(NO_ROOM, str(error), re.I):
            return True
        error = error.__cause__ or error.__context__
    return False


def explain(rank: int, status: int, log: Path, out_of_memory: bool = False, where: str = "") -> Failure:
    """Say why a child ended as it did: from its status, the error that it or the task server wrote, and the kernel; and where it
    was, where it could not say so itself."""
    try:
        body = json.loads(Path(f"{log}.error").read_text())
        words, code = f"{body['type']}: {body['message']}", int(body["exit_code"])
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or the child died while it wrote
        body, words, code = {}, "", 5
    if body.get("cause"):  # whoever ended it, or saw it end, says why: the task server before the kernel has to, Ray
        return Failure(rank, str(body["message"]), 5, str(log), Cause(body["cause"]))
    at = f". It was at: {where}" if where else ""
    if status < 0:
        if out_of_memory:
            return Failure(
                rank, f"killed by the kernel (signal {-status}): out of memory{at}", 5, str(log), Cause.MEMORY
            )
        own = ", a crash of the code that it ran" if -status in CRASHES else ""
        return Failure(rank, f"killed by signal {-status}{own}{at}", 5, str(log), Cause.KILLED)
    if status == DISK_FULL and not words:
        return Failure(rank, "no room was left, not even to say where", 5, str(log), Cause.DISK)
    if not words:
        return Failure(rank, f"ended with status {status}{at}", 5, str(log), Cause.KILLED)
    if body.get("errno") in (errno.ENOSPC, errno.EDQUOT):
        return Failure(rank, words, 5, str(log), Cause.DISK)
    if body["type"] == "MemoryError":
        return Failure(rank, words, 5, str(log), Cause.MEMORY)
    rows = body.get("rows") or {}
    return Failure(rank, words, code if code in CODES else 5, str(log), CODES.get(code, Cause.EXCEPTION), rows)


# ---------------------------------------------------------------- an element of a Slurm array

OWN = {**CODES, 70: Cause.EXCEPTION, DISK_FULL: Cause.DISK}  # what its last exit status says, if it says why
STATES = {
    "TIMEOUT": Cause.TIME,
    "DEADLINE": Cause.TIME,
    "OUT_OF_MEMORY": Cause.MEMORY,
    "NODE_FAIL": Cause.NODE,
    "BOOT_FAIL": Cause.NODE,
    "PREEMPTED": Cause.NODE,
    "CANCELLED": Cause.CANCELLED,
}
WORDS = (  # what slurmstepd and the kernel write to a job's log; Slurm's states alone do not tell memory from a crash
    (
        re.compile(r"oom[-_ ]kill|out of memory|exceeded (job |step )?memory limit|memory cgroup out of memory", re.I),
        Cause.MEMORY,
    ),
    (re.compile(r"due to time limit", re.I), Cause.TIME),
    (re.compile(r"due to node failure|node fail", re.I), Cause.NODE),
    (re.compile(r"due to preemption", re.I), Cause.NODE),
    (re.compile(r"\*\*\* (job|step) \S+ .*cancelled(?!.* due to job requeue)", re.I), Cause.CANCELLED),
    (re.compile(NO_ROOM, re.I), Cause.DISK),
)

CANNOT_BEGIN = "stackbuild: cannot begin: "  # how a batch script says that its node lacks what it needs
NOT_BEGUN = (  # the last line of a log where python did not come so far as to say anything of its own
    re.compile(rf"{CANNOT_BEGIN}(.+)"),
    re.compile(
        r".*: line \d+: (.*python[\d.]*: (?:No such file or directory|Permission denied|cannot execute.*|.*bad interpreter: .*))"
    ),
    re.compile(r"((?:ModuleNotFoundError|ImportError): .+)"),
    re.compile(r"(.*python[\d.]*: (?:No module named|Error while finding module specification for) .+)"),
)


def refusal(log: str) -> str:
    """Why a job could not begin where it was put, in words; "" if the end of its log says nothing of that."""
    last = log.rstrip().rpartition("\n")[2]
    for pattern in NOT_BEGUN:
        if found := pattern.fullmatch(last):
            words = str(found[1])
            return words if pattern is NOT_BEGUN[0] else f"{words} (see [slurm] venv and env_command)"
    return ""


def element_cause(state: str, log: str, said: int | None = None) -> Cause:
    """Why the last attempt of an array element ended: `state` as squeue or sacct give it ("" if unknown), `log` the ends of its
    logs, `said` the exit status that it told itself last (None: it told none).

    Its own word comes before the words of a log, which may be of something that it survived."""
    known = STATES.get(state.split(" ", maxsplit=1)[0].rstrip("+"))
    if known is not None and known is not Cause.CANCELLED:
        return known
    if said is not None and said in OWN:
        return OWN[said]
    for pattern, cause in WORDS:
        if pattern.search(log):
            return cause
    if said is None and refusal(log):
        return Cause.REFUSED
    return known or Cause.KILLED
