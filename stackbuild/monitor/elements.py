"""The elements of a launch's arrays as they stand: Slurm's queue says what waits and runs, their last words how they ended.

The queue is the truth while it answers. Accounting is asked only for what the queue has forgotten and what said no last word.
Where neither can be asked, beats tell what is alive by their age, and the status says so.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stackbuild import scheduler
from stackbuild.beats import STALE_SECONDS, Beat
from stackbuild.errors import InputError
from stackbuild.launches import LaunchFolder, Submitted, Wave
from stackbuild.monitor.told import Share, Told

ASK_SECONDS = 10.0  # between two questions to Slurm, which others ask too
ACCOUNTED = 500  # jobs that accounting is asked for at once
NEVER = "DependencyNeverSatisfied"
REQUEUED = 85  # last word of an element that stopped cleanly and is begun again, see slurm/script.py
ALONE = "this is told from files alone."
REASONS = {  # Slurm's words for what keeps a job waiting, for people
    "Resources": "the cluster is full",
    "Priority": "others come first",
    "BeginTime": "it is begun again soon",
    "JobArrayTaskLimit": "no more may run at once: [slurm] max_running",
    "JobHeldUser": "scontrol release lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "PartitionTimeLimit": "[slurm] time is more than the partition allows, so it never starts",
    "PartitionNodeLimit": "[slurm] asks for more than the partition has, so it never starts",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is not active",
    "launch failed requeued held": "a node could not start it; scontrol release lets it go",
}


@dataclass
class Queue:
    """What Slurm says of a launch's jobs, by array and index (None: no array). `seen`: what it does not name is not there.
    `time`: when it was asked."""

    found: dict[tuple[str, int | None], scheduler.Element] = field(default_factory=dict)
    seen: bool = False
    note: str = ""
    time: float = 0.0

    @property
    def live(self) -> list[scheduler.Element]:
        return [one for one in self.found.values() if one.live and one.reason != NEVER]


class Asking:
    """Asks Slurm of one launch, again and again, and not too often."""

    def __init__(self, folder: LaunchFolder):
        self.folder = folder
        self._queue = Queue(time=-math.inf)
        self._ended: dict[str, str] = {}  # what accounting said: it does not change any more

    def queue(self) -> Queue:
        """Slurm's queue, as it was some seconds ago at most."""
        now = time.time()
        if not 0 <= now - self._queue.time < ASK_SECONDS:
            self._queue = self._ask(now)
        return self._queue

    def _ask(self, now: float) -> Queue:
        if not scheduler.available():
            return Queue(note=f"There is no Slurm on this machine: {ALONE}", time=now)
        try:
            found = scheduler.queue(self.folder.prefix, ended=True, patient=False, user=self.folder.owner)
            own = bool(found) or self.folder.mine or not scheduler.private_jobs()
        except scheduler.SchedulerError as error:
            return Queue(note=f"Slurm does not answer ({error}): {ALONE}", time=now)
        note = "" if own else f"Another user submitted this, whose jobs you cannot see: {ALONE}"
        return Queue({(one.array, one.index): one for one in found}, own, note, now)

    def accounted(self, submitted: Sequence[Submitted], queue: Queue) -> Mapping[str, str]:
        """States by job id of jobs that the queue has forgotten, where there is accounting."""
        names = [
            f"{one.slurm}_{index}" if one.kind == "array" else one.slurm
            for one in submitted
            for index in range(one.elements)
            if (one.slurm, index if one.kind == "array" else None) not in queue.found
        ]
        unknown = [name for name in names if name not in self._ended][:ACCOUNTED]
        if unknown and scheduler.available():
            told = scheduler.accounted(unknown, patient=False)
            live = scheduler.PENDING | scheduler.RUNNING
            self._ended |= {name: told.get(name, "") for name in unknown if told.get(name) not in live}
        return self._ended


@dataclass
class ElementNow:
    """An element as it stands.

    `state`: waiting (for other jobs), pending, running, done, failed, cancelled, or silent (it has begun, and nobody knows);
    `reason`: why it is pending; `host`: the wave that it was submitted for; `at`: the job of its chain that it is at;
    `share`: what it said of that; `said`: Slurm's word for how it ended.
    """

    array: Submitted
    element: int
    host: Wave
    state: str
    reason: str
    at: int
    share: Share | None
    slurm: scheduler.Element | None
    said: str = ""

    @property
    def identity(self) -> str:
        return f"{self.array.slurm}_{self.element - self.array.first}"

    @property
    def who(self) -> str:
        """The name of its beat."""
        return f"{self.host.name}-{self.element}"

    def as_seen_by(self, number: int) -> str:
        """Its state for one job of its chain."""
        if self.at > number or (self.at == number < self.host.last and self.share and self.share.ended_well):
            return "done"
        return self.state if self.at == number or self.state == "done" else "waiting"


class Elements:
    """All elements of a launch."""

    def __init__(self, folder: LaunchFolder, submitted: Sequence[Submitted], told: Told, queue: Queue, beats: Iterable[Beat],
                 accounted: Mapping[str, str], now: float):  # fmt: skip
        self.folder, self.told, self.queue, self.accounted, self.now = folder, told, queue, accounted, now
        self.beats = {beat.who: beat for beat in beats}
        self.hosts: list[Wave] = []
        self.all: list[ElementNow] = []
        for array in submitted:
            host = host_of(folder, array)
            if host is None:
                continue
            if host not in self.hosts:
                self.hosts.append(host)
            self.all += [self._element(array, host, array.first + index) for index in range(array.elements)]
        self.by_name = {one.who: one for one in self.all}

    def covering(self, number: int) -> list[Wave]:
        """The waves that have to do with a job."""
        return [host for host in self.hosts if host.number <= number <= host.last]

    def of_job(self, number: int, looked: int) -> list[ElementNow]:
        """The elements of a job's last wave after `looked`, the last that a gate has looked at."""
        latest = max((host.wave for host in self.covering(number)), default=0)
        return [e for e in self.all if e.host.number <= number <= e.host.last and e.host.wave == latest > looked]

    def beat_of(self, one: ElementNow) -> Beat | None:
        """The beat of an element's present attempt at its present job."""
        beat = self.beats.get(one.who)
        if beat is None or (one.share is not None and beat.started < one.share.began - 1):
            return None
        if one.slurm is not None and one.slurm.live:
            begun = self.queue.time - seconds(one.slurm.elapsed)
            if beat.time < begun - 1:  # of an attempt before this
                return None
        return beat

    def _element(self, array: Submitted, host: Wave, element: int) -> ElementNow:
        index = element - array.first
        slurm = self.queue.found.get((array.slurm, index))
        said = slurm.state if slurm else self.accounted.get(f"{array.slurm}_{index}", "")
        keys = [(number, host.wave, element) for number in range(host.number, host.last + 1)]
        shares = [self.told.shares[key] for key in keys if key in self.told.shares]
        share = max(shares, key=lambda one: (one.began, one.number), default=None)
        at = share.number if share else host.number
        last = share.ended if share else None
        if last is not None and last["status"] == 0 and at < host.last:
            last = None  # of one job of its chain: it goes on to the next
        one = ElementNow(array, element, host, "", "", at, share, slurm, said)
        one.state, one.reason = self._state(one, last)
        return one

    @cached_property
    def logs(self) -> frozenset[str]:
        """Names of logs; Slurm opens its own for whatever begins."""
        try:
            return frozenset(os.listdir(self.folder.logs))
        except OSError:
            return frozenset()

    def _state(self, one: ElementNow, last: Mapping[str, Any] | None) -> tuple[str, str]:
        """(state, why it is pending). `last`: its last word."""
        slurm, share = one.slurm, one.share
        if slurm is not None and slurm.state in scheduler.PENDING and not (share and share.began > self.queue.time):
            if slurm.reason == NEVER:
                return "cancelled", ""
            return ("waiting" if slurm.reason == "Dependency" and share is None else "pending"), slurm.reason
        if last is not None and (slurm is None or slurm.live or last["status"] == 0):
            if last["status"] == REQUEUED and (slurm is not None or not self.queue.seen):
                return "pending", "BeginTime"
            return ("done" if last["status"] == 0 else "failed"), ""
        if slurm is not None and slurm.live:
            return "running", ""
        if one.said:
            return ("done" if one.said == "COMPLETED" else "cancelled" if one.said == "CANCELLED" else "failed"), ""
        if self.queue.seen:  # it is gone and left no word
            return ("failed" if share or f"{one.identity}.out" in self.logs else "cancelled"), ""
        if one.who in self.beats and self.now - self.beats[one.who].time < STALE_SECONDS:
            return "running", ""
        return ("silent" if share else "waiting"), ""


def host_of(folder: LaunchFolder, array: Submitted) -> Wave | None:
    """The wave that an array was submitted for; None if it is no array, or the file is not there or torn."""
    if array.kind != "array":
        return None
    try:
        return folder.wave(folder.wave_path(array.number, array.wave))
    except (InputError, TypeError):
        return None


def waiting_for(elements: Iterable[ElementNow]) -> str:
    """Why elements are pending, in Slurm's words and for people."""
    told = []
    for reason, count in Counter(one.reason for one in elements if one.state == "pending").most_common():
        words = REASONS.get(reason.split(",")[0])
        told.append(f"{count} pending: {reason}" + (f" ({words})" if words else ""))
    return "; ".join(told)


def seconds(elapsed: str) -> float:
    """Slurm's notation of a duration, [D-][H:]M:S; infinite if it is none."""
    days, _, rest = elapsed.rpartition("-")
    try:
        total = 0
        for part in rest.split(":"):
            total = total * 60 + int(part)
        return float(total + int(days or 0) * 86_400)
    except ValueError:
        return math.inf
