"""Tasks on one machine: the driver's end of the task server, and the loop that feeds it and tries again what failed.

A local run and an element of a Slurm array are the same loop; they differ in which tasks they are given and in who listens.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stackbuild.errors import PartialFailure, StackbuildError
from stackbuild.retries import Failure, How, Retries, explain


@dataclass(frozen=True)
class TaskSpec:
    rank: int
    params: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a try of a task ended: status 0 if well (`more`: it committed a part and left others), and what it took."""

    rank: int
    attempt: int
    status: int
    more: bool = False
    cpu: float = 0.0  # seconds
    wall: float = 0.0  # seconds
    memory: int = 0  # bytes, largest resident set
    private: int = 0  # bytes of it that were not shared with the task server
    rows: int = 0  # read
    bytes: int = 0  # read
    failure: Failure | None = None

    def event(self, job: str) -> dict[str, Any]:
        """As a journal holds it."""
        body: dict[str, Any] = {
            "event": "task",
            "job": job,
            "rank": self.rank,
            "attempt": self.attempt,
            "status": self.status,
            "more": self.more,
            "cpu": round(self.cpu, 3),
            "wall": round(self.wall, 3),
            "memory": self.memory,
            "private": self.private,
            "rows": self.rows,
            "bytes": self.bytes,
        }
        if self.failure:
            body |= {"cause": str(self.failure.cause), "message": self.failure.reason[:2_000], "log": self.failure.log}
        return body


@dataclass
class Running:
    """A try that is under way, and where its task says that it is."""

    spec: TaskSpec
    attempt: int
    log: Path
    beat: dict[str, Any] = field(default_factory=dict)


class Server(Protocol):
    """What a pool gives tasks to, and what tells it of them: a task server, or slots of a Ray cluster that hold one each."""

    def job(self, name: str) -> None: ...
    def start(self, spec: TaskSpec, how: How, log: Path) -> None: ...
    def wait(self, seconds: float | None = None) -> list[dict[str, Any]]: ...


class TaskServer:
    """The driver's end of a task server process.

    `limit`: bytes of memory for the server and its children together; None: what the machine has.
    """

    def __init__(self, out: Path, plan: Path, log: Path, limit: int | None = None):
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = open(log, "ab")  # noqa: SIM115  closed in close()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stackbuild.server", str(out), str(plan), *([str(limit)] if limit else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._buffer = b""
        self.log = log

    def job(self, name: str) -> None:
        self._send({"job": name})

    def start(self, spec: TaskSpec, how: How, log: Path) -> None:
        self._send({"run": spec.rank, "params": spec.params, "how": how.to_json(), "log": str(log)})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._gone() from error

    def wait(self, seconds: float | None = None) -> list[dict[str, Any]]:
        """What the server says next; nothing if it says nothing for so long."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            if not self._selector.select(seconds):
                return []
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise self._gone()
            self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines]

    def _gone(self) -> StackbuildError:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
        return PartialFailure(
            f"The task server ended with status {self._process.wait()}; its log {self.log} ends:\n{tail}"
        )

    def close(self) -> None:
        """End the server and its children."""
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Pool:
    """Runs tasks of one job at most `workers` at a time, each failed one again as its cause asks for.

    `logs`: folder of a log for each try, `<rank>.<tag><attempt>.log`. `ended` is told of each try. `idle` is called at least
    every `LOOK_SECONDS`; True from it ends the run, and what is at work is for the server's end. `closed`: nothing begins any
    more. `left`: how many tasks a run did not end. `one_part`: see `execute.Try`.
    """

    LOOK_SECONDS = 1.0

    def __init__(self, server: Server, workers: int, logs: Path, tag: str = ""):
        self.server, self.workers, self.logs, self.tag = server, workers, logs, tag
        self.one_part = self.closed = False
        self.left = 0
        self.running: dict[int, Running] = {}
        self.ended: Callable[[Ended], None] = lambda one: None
        self.idle: Callable[[], bool] = lambda: False

    def run(self, job: str, specs: Sequence[TaskSpec]) -> list[Failure]:
        """Run the tasks of a job; return the last failure of each that failed in all its tries."""
        self.server.job(job)
        waiting: list[tuple[float, TaskSpec]] = [(0.0, spec) for spec in reversed(specs)]
        retries = {spec.rank: Retries(How(one_part=self.one_part)) for spec in specs}
        attempts = dict.fromkeys(retries, 0)
        failures: list[Failure] = []
        while waiting or self.running:
            if self.idle() or (self.closed and not self.running):
                break
            self._start(waiting, retries, attempts)
            for answer in self.server.wait(self.LOOK_SECONDS):
                if "beat" in answer:
                    for beat in answer["beat"]:
                        if beat["rank"] in self.running:
                            self.running[beat["rank"]].beat = beat
                    continue
                one = self._ended(answer)
                self.ended(one)
                spec = next(s for s in specs if s.rank == one.rank) if one.failure or one.more else None
                if spec and one.more:
                    retries[one.rank].go_on()
                    waiting.append((0.0, spec))
                elif spec and one.failure:
                    again = retries[one.rank].again(one.failure)
                    if again is None:
                        failures.append(one.failure)
                    else:
                        waiting.insert(0 if again.alone else len(waiting), (time.monotonic() + again.wait, spec))
        self.left = len(waiting) + len(self.running)
        return failures

    def _start(
        self, waiting: list[tuple[float, TaskSpec]], retries: dict[int, Retries], attempts: dict[int, int]
    ) -> None:
        """Start what may start: the last of the list first; one that wants to be alone only when nothing else runs."""
        for index in range(len(waiting) - 1, -1, -1):
            if (
                self.closed
                or len(self.running) >= self.workers
                or any(retries[rank].how.alone for rank in self.running)
            ):
                return
            due, spec = waiting[index]
            how = retries[spec.rank].how
            if due > time.monotonic() or (how.alone and self.running):
                continue
            del waiting[index]
            attempts[spec.rank] += 1
            log = self.logs / f"{spec.rank:05d}.{self.tag}{attempts[spec.rank]}.log"
            self.running[spec.rank] = Running(spec, attempts[spec.rank], log)
            self.server.start(spec, how, log)

    def _ended(self, answer: dict[str, Any]) -> Ended:
        one = self.running.pop(answer["ended"])
        status = answer["status"]
        where = answer.get("where", "")
        failure = explain(one.spec.rank, status, one.log, answer["out_of_memory"], where) if status else None
        names = ("more", "cpu", "wall", "memory", "private", "rows", "bytes")
        return Ended(one.spec.rank, one.attempt, status, failure=failure, **{name: answer[name] for name in names})
