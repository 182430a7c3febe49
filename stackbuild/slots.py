"""Slots of a Ray cluster: where a task may run, one at a time, and the driver's end of them.

A slot is an actor that holds a task server (`server.py`). So a child that is killed, grows or hangs is seen as it is locally, an
index is loaded once for a slot, and what Ray itself ends (an actor, a node) comes back as an error of the one task that was
there. Ray retries nothing: which tasks run again, and how, is the pool's to say.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackbuild.errors import PartialFailure, StackbuildError, UsageError
from stackbuild.identity import engine_identity
from stackbuild.pool import TaskServer, TaskSpec
from stackbuild.retries import Cause, How

LOOK_SECONDS = 5.0  # between two looks at the cluster's nodes
IDLE_SECONDS = 30.0  # a slot that nobody wants for so long is given back
PATIENCE_SECONDS = (
    120.0  # in which an autoscaler may bring a node that is large enough, or others give back what they hold
)
MORE_MEMORY = 4  # times what a task had, for one that ran out of it on a cluster that others use
PASSED_ON = re.compile(r"STACKBUILD_\w+|PYTHONPATH")  # of the driver's environment
SAME = (
    "Every node of the cluster needs the same environment with the same stackbuild, and the output folder and the inputs at the "
    "same paths (docs/ray.md)."
)


class Slot:
    """A place for one task at a time, as an actor: `memory` bytes for its task server and the task together."""

    def __init__(self, out: str, plan: str, log: str, memory: int, environment: Mapping[str, str]):
        os.environ.update(environment)
        self.out, self.plan, self.log, self.memory = Path(out), Path(plan), Path(log), memory
        self.server: TaskServer | None = None
        self.job, self.heavy = "", False

    def ready(self) -> dict[str, Any]:
        """What has to be as it is where the driver runs."""
        return {"node": os.uname().nodename, "plan": self.plan.exists(), "engine": engine_identity()}

    def run(self, job: str, heavy: bool, spec: TaskSpec, how: How, log: str) -> Iterator[dict[str, Any]]:
        """Run a task; yields what the task server says of it, last how it ended, or `{"lost": why}` if the server ended.

        `heavy`: the job loads what no other needs, so the server is used for no other.
        """
        try:
            if job != self.job and self.heavy:
                self._close()
            if self.server is None:
                self.server, self.job = TaskServer(self.out, self.plan, self.log, self.memory), ""
            if job != self.job:
                self.server.job(job)
                self.job, self.heavy = job, heavy
            self.server.start(spec, how, Path(log))
            while True:
                for answer in self.server.wait():
                    yield answer
                    if "ended" in answer:
                        return
        except StackbuildError as error:
            self._close()
            yield {"lost": str(error)}

    def _close(self) -> None:
        if self.server:
            self.server.close()
        self.server, self.job, self.heavy = None, "", False


@dataclass(eq=False)
class Place:
    """The driver's end of a slot: waited for until it is ready, then free or at a task. One that is `alone` is given its task at
    once, which begins when it is ready."""

    actor: Any
    ready: Any  # what it will answer when it is, or None: it has
    memory: int  # bytes that it asks for
    begun: bool = False  # it has been ready once
    alone: bool = False  # made for one task that wants all the memory there is
    stream: Any = None  # of what the task at work yields
    spec: TaskSpec | None = None
    how: How = field(default_factory=How)
    log: Path = Path()
    since: float = field(default_factory=time.monotonic)  # when it was made, or its last task began or ended

    @property
    def free(self) -> bool:
        return self.ready is None and self.spec is None


class Slots:
    """What a pool takes for its task server: slots on all nodes, as many as are wanted and there is room for.

    `most`: slots at most; None: as the cluster's nodes can hold. `memory`: bytes that each slot asks for.
    """

    def __init__(self, ray: Any, out: Path, plan: Path, memory: int, most: int | None):
        self.ray, self.out, self.plan, self.memory, self.most = ray, out, plan, memory, most
        self.places: list[Place] = []
        self.name, self.heavy = "", False
        self.number = self.most_places = self.losses = 0
        self._nodes: list[tuple[float, float]] = []  # CPUs and bytes of memory of each
        self._looked, self._told = -LOOK_SECONDS, time.monotonic()

    def job(self, name: str) -> None:
        self.name, self._told = name, time.monotonic()

    def start(self, spec: TaskSpec, how: How, log: Path) -> None:
        """Start a task in a free slot; one that is to run alone in a slot with as much memory as a node can give."""
        if how.alone:
            for place in list(self.places):
                self._drop(place)
            self._alone(spec, how, log, self._most_memory())
            return
        place = next(place for place in self.places if place.free)
        place.spec, place.how, place.log = spec, how, log
        self._run(place)

    def _run(self, place: Place) -> None:
        """Give a slot that is ready its task."""
        place.since = time.monotonic()
        place.stream = place.actor.run.remote(self.name, self.heavy, place.spec, place.how, str(place.log))

    def wait(self, seconds: float | None = None) -> list[dict[str, Any]]:
        """What slots say next, as a task server would; nothing if they say nothing for so long."""
        waiting = {p.ready if p.stream is None else p.stream: p for p in self.places if not p.free}
        if not waiting:
            time.sleep(min(seconds or LOOK_SECONDS, 0.1))
            return []
        first, _ = self.ray.wait(list(waiting), num_returns=1, timeout=seconds)
        if not first:
            return []
        heard, _ = self.ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        return [answer for reference in heard or first for answer in self._heard(waiting[reference])]

    def _heard(self, place: Place) -> list[dict[str, Any]]:
        if place.stream is None:
            self._begun(place)
            return []
        try:
            answer: dict[str, Any] = self.ray.get(next(place.stream))
        except StopIteration:
            return [self._lost(place, Cause.KILLED, "its slot ended without a word of it")]
        except self.ray.exceptions.RayError as error:
            self._drop(place)
            return [self._lost(place, cause_of(error, self.ray.exceptions), words_of(error))]
        if "lost" in answer:
            return [self._lost(place, Cause.KILLED, answer["lost"])]
        if "ended" in answer:
            self.losses = 0
            self._end(place)
        return [answer]

    def _begun(self, place: Place) -> None:
        """A slot is ready, or could not be made."""
        try:
            facts = self.ray.get(place.ready)
        except self.ray.exceptions.RayError as error:
            self._drop(place)
            if place.begun:
                return
            if getattr(error, "actor_init_failed", False):
                raise PartialFailure(f"Ray cannot start a slot: {words_of(error)}\n{SAME}") from error
            self._count(words_of(error))
            if place.spec is not None:
                self._alone(place.spec, place.how, place.log, place.memory)
            return
        if not facts["plan"]:
            raise PartialFailure(f"{facts['node']} does not see {self.plan}. {SAME}")
        if facts["engine"] != engine_identity():
            raise PartialFailure(f"{facts['node']} has another stackbuild, Python or library than this machine. {SAME}")
        place.ready, place.begun, place.since = None, True, time.monotonic()
        if place.spec is not None:
            self._run(place)

    def _lost(self, place: Place, cause: Cause, words: str) -> dict[str, Any]:
        """The answer for a task whose slot or task server ended under it; why goes to LOG.error, as a child's own error does."""
        assert place.spec is not None
        self._count(words)
        for other in self.places:
            if other.free:  # what took this one may have taken those, and a task would find out
                other.ready = other.actor.ready.remote()
        body = {"type": "Lost", "message": words, "exit_code": 5, "cause": cause}
        error = Path(f"{place.log}.error")
        if not error.exists():
            error.write_text(json.dumps(body))
        nothing = dict.fromkeys(("cpu", "memory", "private", "rows", "bytes"), 0)
        wall = time.monotonic() - place.since
        rank = place.spec.rank
        self._end(place)
        return {
            "ended": rank,
            "status": -signal.SIGKILL,
            "more": False,
            "wall": wall,
            "out_of_memory": False,
            **nothing,
        }

    def _end(self, place: Place) -> None:
        place.spec, place.stream, place.since = None, None, time.monotonic()
        if place.alone:
            self._drop(place)

    def _count(self, words: str) -> None:
        """Give up when slots end one after the other and no task ever does."""
        self.losses += 1
        if self.losses > max(4, 3 * self.most_places):
            raise PartialFailure(
                f"{self.losses} slots of Ray ended one after the other, and no task. The last: {words}"
            )

    # ------------------------------------------------------------ room

    def room(self, tasks: int) -> int:
        """How many tasks can be at work now; slots are made and given back so that it becomes as many as `tasks`."""
        now = time.monotonic()
        self._look(now)
        for place in self.places:
            if place.alone:
                if place.ready is not None and now - place.since > PATIENCE_SECONDS:
                    self._less(place)
                return 1
        fit = sum(self._fit(cpus, memory) for cpus, memory in self._nodes)
        wanted = min(tasks, max(fit, 1) if self.most is None else self.most)
        for _ in range(wanted - len(self.places)):
            self.places.append(self._make(self.memory))
        self.most_places = max(self.most_places, len(self.places))
        for place in [p for p in self.places if p.spec is None and now - p.since > IDLE_SECONDS]:
            if len(self.places) > wanted:
                self._drop(place)
        able = sum(place.ready is None for place in self.places)
        if able:
            self._told = now
        elif now - self._told > PATIENCE_SECONDS:
            self._wait_on(fit)
            self._told = now
        return able

    def _look(self, now: float) -> None:
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self._nodes = [(node.get("CPU", 0.0), node.get("memory", 0.0)) for node in nodes]

    def _fit(self, cpus: float, memory: float) -> int:
        return int(min(cpus, memory // self.memory))

    def _wait_on(self, fit: int) -> None:
        """There has been no slot for long."""
        asked = f"1 CPU and {self.memory / 1e9:.1f} GB of memory"
        if not fit:
            raise UsageError(f"No node of the Ray cluster has {asked} for a task; see [ray] memory.")
        print(f"waiting for {asked} on the Ray cluster, which others use", file=sys.stderr)

    def _most_memory(self) -> int:
        """Bytes for a task that is alone: as much as a node has; on a cluster that others use, no more than they may spare."""
        largest = max((memory for cpus, memory in self._nodes if cpus >= 1), default=self.memory)
        return max(int(largest if self.most is not None else min(largest, MORE_MEMORY * self.memory)), self.memory)

    def _alone(self, spec: TaskSpec, how: How, log: Path, memory: int) -> None:
        """Ask for a slot for this one task."""
        place = self._make(memory)
        place.alone, place.spec, place.how, place.log = True, spec, how, log
        self.places.append(place)

    def _less(self, place: Place) -> None:
        """No node has had room for a slot that is alone for long: half of it may be free, or what any task has."""
        assert place.spec is not None
        if place.memory > self.memory:
            less = max(place.memory // 2, self.memory)
            print(
                f"no node of the Ray cluster has {place.memory / 1e9:.1f} GB of memory free for task {place.spec.rank} of {self.name}, "
                f"which ran out of it; it gets {less / 1e9:.1f} GB",
                file=sys.stderr,
            )
            self._drop(place)
            self._alone(place.spec, place.how, place.log, less)
            return
        self._wait_on(sum(self._fit(cpus, memory) for cpus, memory in self._nodes))
        place.since = time.monotonic()

    def _make(self, memory: int) -> Place:
        self.number += 1
        log = self.out / "launches" / "ray" / f"{self.number}.log"
        environment = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        actor = (
            self.ray.remote(Slot)
            .options(num_cpus=1, memory=memory, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")
            .remote(str(self.out), str(self.plan), str(log), memory, environment)
        )
        return Place(actor, actor.ready.remote(), memory)

    def _drop(self, place: Place) -> None:
        if place in self.places:
            self.places.remove(place)
            self.ray.kill(place.actor)

    def close(self) -> None:
        """End all slots, and with them their task servers and tasks."""
        for place in list(self.places):
            self._drop(place)


def cause_of(error: Exception, exceptions: Any) -> Cause:
    """Why Ray says that a task's slot is gone. It may be any of a list where the actor's process ended and no more is known:
    its words then name the kernel's memory killer too, so the kind of the error alone counts."""
    if isinstance(error, exceptions.OutOfMemoryError):
        return Cause.MEMORY
    lost = (exceptions.NodeDiedError, exceptions.LocalRayletDiedError, exceptions.ActorUnavailableError)
    if isinstance(error, lost) or getattr(error, "preempted", False) or NODE.search(str(error)):
        return Cause.NODE
    return Cause.KILLED


NODE = re.compile(r"because its node|node (has |was |is )?(died|dead|terminated|preempted)", re.I)
BOOKKEEPING = re.compile(r"(class_name|actor_id|name|namespace|pid|ip):|\^+$")


def words_of(error: Exception) -> str:
    """What Ray says, in one line; of an error raised in a slot, its last line, which names it."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).split("Some common causes")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not BOOKKEEPING.match(line.strip())]
    raised = getattr(error, "actor_init_failed", False) or getattr(error, "cause", None) is not None
    return (lines[-1] if raised and lines else " ".join(lines))[:600]
