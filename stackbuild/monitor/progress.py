"""How far a job is and how fast it goes: the numbers of `stackbuild status`, from tries that ended and from beats.

Rates are of the last minute: a try counts with the share of its time that lies in it, so that long tasks show while they run
and not only when they end. What is left of a job is told from its own tasks that ended; of later jobs nothing is known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stackbuild.beats import STALE_SECONDS, Beat
from stackbuild.retries import WITHIN, Cause

WINDOW_SECONDS = 60.0
STRAGGLER = 3.0  # times as long as 95 of 100 tasks took
STRAGGLER_TASKS, STRAGGLER_SECONDS = (
    5,
    10.0,
)  # ended before it is known what is usual; what is short is nobody's trouble
SHOWN = 5  # tasks at work that are told of, the longest first
UNDER_WAY = ("waiting", "running")


@dataclass
class AtWork:
    """A task at work, as a beat told it last: rows and bytes read, where it is, memory (bytes), wall (seconds). `limit`:
    bytes that its element or driver may take with all its tasks. `straggler`: it takes several times what is usual."""

    rank: int
    attempt: int = 0
    rows: int = 0
    bytes: int = 0
    where: str = ""
    memory: int = 0
    wall: float = 0.0
    who: str = ""
    node: str = ""
    limit: int = 0
    straggler: bool = False


@dataclass
class JobStatus:
    """One job in the last run.

    tasks = done + running + pending + failed; done = cached (complete before) + ran. `rows` and `bytes` were read by tries
    that ended well and those at work; `p50`, `p95`, `longest` are seconds that a task took; `eta`: seconds until this job
    ends at the present pace, None where nothing tells; `retries`: tries that failed and were or will be made again;
    `requeues`: elements that Slurm began again; `elements`: of its arrays, by state; `limit`: see `AtWork`.
    """

    job: str
    tasks: int
    cached: int = 0
    ran: int = 0
    failed: int = 0
    state: str = "waiting"  # waiting, pending, running, done, failed, stopped, blocked
    cpu: float = 0.0
    memory: int = 0
    private: int = 0
    wall: float = 0.0
    started: float = 0.0
    done: int = 0
    running: int = 0
    pending: int = 0
    reason: str = ""
    rows: int = 0
    bytes: int = 0
    rows_per_s: float = 0.0
    bytes_per_s: float = 0.0
    eta: float | None = None
    p50: float | None = None
    p95: float | None = None
    longest: float | None = None
    retries: int = 0
    requeues: int = 0
    waves: int = 0
    limit: int = 0
    elements: dict[str, int] = field(default_factory=dict)
    at_work: list[AtWork] = field(default_factory=list)
    stalled: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class BuildStatus:
    """A build as its last run left it, or as it stands.

    `executor`: local, ray, slurm; `launch`: its id on Slurm; `message`: what ended it; `notes`: what the reader must know of
    this status itself; `publish`: how the job that publishes is; `next`: what to type or do.
    """

    state: str  # waiting, running, done, failed, cancelled, stopped
    jobs: list[JobStatus] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    executor: str = ""
    launch: str = ""
    message: str = ""
    notes: list[str] = field(default_factory=list)
    publish: str = ""
    next: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.state not in UNDER_WAY

    @property
    def exit_code(self) -> int:
        """5 if the build has failed, or ended too soon with failures; 0 if it runs, waits, or is done."""
        return 5 if self.state == "failed" or (self.ended and self.state != "done" and self.failures) else 0


class Tally:
    """What the tries of one job come to."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.memory = self.private = self.rows = self.bytes = self.retries = 0
        self.walls: list[float] = []  # of tasks that ended well, all their parts together
        self.done: set[int] = set()
        self.failing: dict[int, dict[str, Any]] = {}  # by task: the last try, if that failed
        self._parts: dict[int, float] = {}
        self._failed: dict[int, Counter[str]] = {}
        self._at: dict[tuple[Any, Any], set[int]] = {}  # tasks that have ever failed, by element
        self._tries: list[tuple[float, float, int, int]] = []  # end, wall, rows, bytes

    def add(self, event: Mapping[str, Any]) -> None:
        """Count a try that ended."""
        rank, wall = event["rank"], _number(event, "wall")
        self.cpu += event["cpu"]
        self.memory = max(self.memory, event["memory"])
        self.private = max(self.private, int(_number(event, "private")))
        if event["status"]:
            self.retries += 1
            self.failing[rank] = dict(event)
            self._at.setdefault((event.get("wave"), event.get("element")), set()).add(rank)
            self._failed.setdefault(rank, Counter())[str(event.get("cause", Cause.EXCEPTION))] += 1
            return
        rows, size = int(_number(event, "rows")), int(_number(event, "bytes"))
        self.rows, self.bytes = self.rows + rows, self.bytes + size
        self._tries.append((_number(event, "time"), wall, rows, size))
        self.failing.pop(rank, None)
        self._parts[rank] = self._parts.get(rank, 0.0) + wall
        if not event.get("more"):
            self.walls.append(self._parts.pop(rank))
            self.done.add(rank)

    def again(self, ranks: Iterable[int]) -> None:
        """Tasks are begun anew, in a further attempt or wave: what their earlier tries used up is theirs again."""
        for rank in ranks:
            self.failing.pop(rank, None)
            self._failed.pop(rank, None)

    def final(self, rank: int) -> bool:
        """Whether a task whose last try failed is not tried again by whoever ran it."""
        event = self.failing.get(rank)
        if event is None:
            return False
        cause = str(event.get("cause", Cause.EXCEPTION))
        known = Cause(cause) if cause in set(Cause) else Cause.EXCEPTION
        return self._failed[rank][cause] > WITHIN.get(known, 0)

    def failing_at(self, place: tuple[Any, Any]) -> list[dict[str, Any]]:
        """The last tries, which failed, of tasks of an element of a wave."""
        last = [self.failing[rank] for rank in sorted(self._at.get(place, ())) if rank in self.failing]
        return [event for event in last if (event.get("wave"), event.get("element")) == place]

    def still(self, tasks: Iterable[AtWork], since: float) -> list[AtWork]:
        """Those of a beat's tasks that have not ended since it was written."""

        def ended(one: AtWork) -> bool:
            last = self.failing.get(one.rank)
            return one.rank in self.done or (
                last is not None and _number(last, "time") > since and _number(last, "attempt") >= one.attempt
            )

        return [one for one in tasks if not ended(one)]

    def fill(self, job: JobStatus, at_work: Sequence[AtWork], now: float) -> None:
        """Set a job's numbers. `at_work`: its tasks at work; its counts of tasks, `started` and `state` are set before."""
        job.cpu, job.private = self.cpu, self.private
        job.memory = max([self.memory, *(one.memory for one in at_work)])
        job.rows = self.rows + sum(one.rows for one in at_work)
        job.bytes = self.bytes + sum(one.bytes for one in at_work)
        job.limit = max((one.limit for one in at_work), default=0)
        job.retries = self.retries - sum(self.final(rank) for rank in self.failing)
        if self.walls:
            walls = sorted(self.walls)
            job.p50, job.p95, job.longest = quantile(walls, 0.5), quantile(walls, 0.95), walls[-1]
        if job.state == "running":
            self._rates(job, at_work, now)
            job.eta = self.eta(job, at_work)
        elif job.wall > 0:
            job.rows_per_s, job.bytes_per_s = round(job.rows / job.wall, 1), round(job.bytes / job.wall, 1)
        usual = STRAGGLER * job.p95 if job.p95 is not None and len(self.walls) >= STRAGGLER_TASKS else math.inf
        for one in at_work:
            one.straggler = one.wall > max(usual, STRAGGLER_SECONDS)
        job.at_work = sorted(at_work, key=lambda one: (-one.wall, one.rank))[:SHOWN]

    def _rates(self, job: JobStatus, at_work: Sequence[AtWork], now: float) -> None:
        began = max(now - WINDOW_SECONDS, job.started)
        rows = size = 0.0
        for end, wall, count, length in [*self._tries, *((now, one.wall, one.rows, one.bytes) for one in at_work)]:
            if end <= began:
                continue
            share = min(1.0, (end - began) / wall) if wall > 0 else 1.0
            rows, size = rows + share * count, size + share * length
        seconds = max(now - began, 1.0)
        job.rows_per_s, job.bytes_per_s = round(rows / seconds, 1), round(size / seconds, 1)

    def eta(self, job: JobStatus, at_work: Sequence[AtWork]) -> float | None:
        """Seconds until the job ends: what its tasks took on average, for each that is left, over as many as are at work. One that
        takes longer than any before counts for the average, and is taken to be half-way. None where nothing is known, or all that
        is left takes longer than any task did."""
        if not self.walls or not at_work:
            return None
        longest = max(self.walls)
        longer = [one.wall for one in at_work if one.wall > longest]
        if not job.pending and len(longer) == len(at_work):
            return None
        mean = (sum(self.walls) + sum(longer)) / (len(self.walls) + len(longer))
        left = [one.wall if one.wall > longest else max(mean - one.wall, mean / 10) for one in at_work]
        return round(max((sum(left) + job.pending * mean) / len(left), *left), 1)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of ascending numbers that so large a share of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def working(beat: Beat, now: float) -> list[AtWork]:
    """The tasks of a beat; entries that are not whole are passed over."""
    found = []
    for entry in beat.running:
        if not isinstance(entry, dict) or not isinstance(entry.get("rank"), int):
            continue
        attempt, rows, size, memory, wall = (
            _number(entry, name) for name in ("attempt", "rows", "bytes", "memory", "wall")
        )
        wall += min(max(now - beat.time, 0.0), STALE_SECONDS)
        where = str(entry.get("where", ""))
        found.append(
            AtWork(entry["rank"], int(attempt), int(rows), int(size), where, int(memory), round(wall, 1), beat.who, beat.node,
                   beat.limit)
        )  # fmt: skip
    return found


def _number(event: Mapping[str, Any], name: str) -> float:
    """A number of an event, 0 where an older stackbuild or a stranger wrote none."""
    value = event.get(name, 0)
    return float(value) if isinstance(value, (int, float)) else 0.0
