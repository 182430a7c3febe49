"""What the events of a launch on a cluster come to: how far each element is with its share of each job.

An element says what it takes on, each try that ends, and how it ended itself; a gate says what a wave left. Nobody counts
while it runs: an attempt counts what is complete when it begins, and what it completes is counted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stackbuild.monitor.progress import Tally

NUMBER = (int, float)
PLACE: dict[str, Any] = {"job": str, "number": int, "wave": int, "element": int}
EVENTS: dict[str, dict[str, Any]] = {  # what they hold, of that which is read here
    "element": {**PLACE, "tasks": int, "cached": int, "of": int, "restart": int},
    "task": {**PLACE, "rank": int, "status": int, "cpu": NUMBER, "memory": int},
    "element-end": {**PLACE, "status": int, "restart": int},
    "gate": {"job": str, "number": int, "wave": int, "complete": int, "of": int, "failures": list},
    "job-end": {"job": str, "wall": NUMBER},
}


@dataclass
class Share:
    """An element's share of one job, as its last attempt has it: `tasks` (None: it has not said), those complete when it began
    (`cached`; `before` when the first attempt did), and those it has completed since. `ended`: its last word of it."""

    number: int
    wave: int
    element: int
    tasks: int | None = None
    cached: int = 0
    before: int = 0
    restart: int = -1
    began: float = 0.0
    node: str = ""
    completed: set[int] = field(default_factory=set)
    ended: Mapping[str, Any] | None = None

    @property
    def done(self) -> int:
        return min(self.cached + len(self.completed), self.tasks or 0)

    @property
    def left(self) -> int:
        return (self.tasks or 0) - self.done

    @property
    def ended_well(self) -> bool:
        return self.ended is not None and self.ended["status"] == 0


class Told:
    """All events of a launch, read in the order in which they happened."""

    def __init__(self, events: Iterable[Mapping[str, Any]]):
        self.shares: dict[tuple[int, int, int], Share] = {}  # by number of the job, wave, element
        self.tallies: dict[str, Tally] = {}
        self.gates: dict[int, Mapping[str, Any]] = {}  # the last word of a gate on each job
        self.ends: dict[str, float] = {}  # seconds that a job took
        self.times: dict[str, tuple[float, float]] = {}  # when a job's first and last event were
        self.last = 0.0
        for event in events:
            self.last = max(self.last, event["time"])
            kind = str(event.get("event"))
            needs = EVENTS.get(kind)
            if needs is None or not all(isinstance(event.get(name), type_) for name, type_ in needs.items()):
                continue
            if kind == "task" or (
                kind == "element" and event["cached"] < event["tasks"]
            ):  # another finds its share complete
                first, _ = self.times.get(event["job"], (event["time"], 0.0))
                self.times[event["job"]] = (first, event["time"])
            self._read[kind](self, event)

    def tally(self, job: str) -> Tally:
        return self.tallies.setdefault(job, Tally())

    def share(self, event: Mapping[str, Any]) -> Share:
        key = (event["number"], event["wave"], event["element"])
        return self.shares.setdefault(key, Share(*key))

    def _element(self, event: Mapping[str, Any]) -> None:
        share = self.share(event)
        if event["restart"] < share.restart:
            return  # of a copy that Slurm has given up
        if share.tasks is None:
            share.before = event["cached"]
        share.tasks, share.cached, share.restart = event["tasks"], event["cached"], event["restart"]
        share.began, share.node = event["time"], str(event.get("node", ""))
        share.completed, share.ended = set(), None
        tally = self.tally(event["job"])
        tally.again([last["rank"] for last in tally.failing_at((event["wave"], event["element"]))])

    def _task(self, event: Mapping[str, Any]) -> None:
        self.tally(event["job"]).add(event)
        if event["status"] == 0 and not event.get("more"):
            self.share(event).completed.add(event["rank"])

    def _element_end(self, event: Mapping[str, Any]) -> None:
        share = self.share(event)
        if event["restart"] >= share.restart:
            share.ended = event

    def _gate(self, event: Mapping[str, Any]) -> None:
        if event["wave"] < self.gates.get(event["number"], event)["wave"]:
            return
        failures = [one for one in event["failures"] if isinstance(one, dict) and isinstance(one.get("rank"), int)]
        self.gates[event["number"]] = {**event, "failures": failures}
        if event.get("again") is not None:
            self.tally(event["job"]).again([one["rank"] for one in failures])

    def _job_end(self, event: Mapping[str, Any]) -> None:
        self.ends[event["job"]] = float(event["wall"])

    _read = {"element": _element, "task": _task, "element-end": _element_end, "gate": _gate, "job-end": _job_end}
