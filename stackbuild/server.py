"""The task server: one process that has imported what is heavy and forks a child for every task.

A killed child is seen, a task costs milliseconds to start, and a large index (ScanCode's) is shared by all children. The
server has one thread and never imports enry, whose Go runtime does not survive a fork. It speaks JSON lines. On its standard
input: `{"job": NAME}`, `{"run": RANK, "params": {}, "how": {}, "log": PATH}`. On its standard output, when a child ended:
`{"ended": RANK, "status": 0, "more": false, "cpu": SECONDS, "wall": SECONDS, "memory": BYTES, "private": BYTES, "rows": ROWS,
"bytes": BYTES, "out_of_memory": false, "where": WORDS}` (the largest resident set of the child, and what of it is not shared with
the server; what it read; whether the kernel killed it for memory; where it was); and every other second while children run:
`{"beat": [{"rank", "rows", "bytes", "where", "memory"}]}`. It ends, with its children, when its input closes.

When the server and its children together come near the memory that they may take, it ends the largest child and writes down
which task that was and where it stood: the kernel would take any of them, and say nothing.
"""

from __future__ import annotations

import errno
import gc
import importlib
import importlib.util
import json
import os
import selectors
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

from stackbuild import beacon, memory, registry
from stackbuild.apart import die_with_parent
from stackbuild.errors import StackbuildError
from stackbuild.retries import DISK_FULL, no_room

LOOK_SECONDS = 0.25  # between two looks at the children's memory
BEAT_SECONDS = 2.0
MEMORY_SHARE = 0.95  # of what may be taken; above it the largest child ends
MORE_PARTS = 96  # exit status of a child that committed a part of its task and left others


def main(arguments: list[str]) -> int:
    """`python -m stackbuild.server OUT PLAN [BYTES]`: serve until the input closes; BYTES: of memory, for all together."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Slurm sends them to every process of a job: the driver decides
        signal.signal(number, signal.SIG_IGN)
    out, plan_path = Path(arguments[0]), Path(arguments[1])
    die_with_parent()
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    from stackbuild.frozen_plan import Plan
    from stackbuild.plan import Build

    if importlib.util.find_spec("pandas"):
        import pandas  # noqa: F401  pyarrow imports it at the first conversion, which would be in every child

    Server(Build(out, Plan.load(plan_path)), int(arguments[2]) if len(arguments) > 2 else memory.limit()).serve()
    return 0


@dataclass
class Child:
    """A task at work: its number, its log, the page that it writes to, and the server's resident bytes at its fork."""

    rank: int
    log: str
    page: mmap
    shared: int
    started: float


class Server:
    """Forks children and reports how each ended."""

    def __init__(self, build: Any, limit: int):
        self.build, self.limit = build, limit
        self.job: Any = None
        self.children: dict[int, Child] = {}  # by process
        self._beat = 0.0
        self._kills = memory.kernel_kills()
        self._preloaded: set[str] = set()
        self._answers = os.dup(1)  # children and libraries may print; answers have a descriptor of their own
        os.dup2(2, 1)

    def serve(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.set_blocking(0, False)
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(LOOK_SECONDS if self.children else None):
                    if key.fd == wake_read:
                        os.read(wake_read, 4096)
                        self.reap()
                        continue
                    data = os.read(0, 1 << 16)
                    if not data:
                        self.stop()
                        return
                    *lines, buffer = (buffer + data).split(b"\n")
                    for line in lines:
                        self.obey(json.loads(line))
                if self.children:
                    self.watch_memory()
                    self.beat()

    def obey(self, message: dict[str, Any]) -> None:
        if "job" in message:
            self.prepare(message["job"])
        else:
            self.fork(message)

    def prepare(self, name: str) -> None:
        """Make ready for a job: what its phase preloads is loaded here, once."""
        self.job = next(job for job in self.build.jobs if job.name == name)
        hooks = self.job.phase.preload if self.job.phase else ()
        for hook in hooks:
            if hook not in self._preloaded:
                module, _, function = hook.partition(":")
                getattr(importlib.import_module(module), function)()
                self._preloaded.add(hook)
        if self.job.kind == "ingest":
            for kind in sorted({unit.kind for unit in self.build.plan.units}):
                registry.source(kind)
        for node in self.job.nodes:
            if node.instance not in self._preloaded:
                node.stage.warm()
                self._preloaded.add(node.instance)
        self.build.prepare(self.job)
        if "enry" in sys.modules:
            raise StackbuildError("enry was imported in the task server; it must be imported in the children only.")
        import stackbuild.execute  # noqa: F401  so that children share it

        warm_arrow()
        gc.collect()
        gc.freeze()

    def fork(self, message: dict[str, Any]) -> None:
        child = Child(message["run"], message["log"], beacon.page(), memory.resident(), time.monotonic())
        pid = os.fork()
        if pid:
            self.children[pid] = child
            return
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            die_with_parent()
            os.close(self._answers)
            try:
                log = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                status = DISK_FULL if no_room(error) else status
                raise
            os.dup2(log, 1)
            os.dup2(log, 2)
            beacon.attach(child.page)
            status = run_child(self.build, self.job, message)
        finally:
            os._exit(status)

    def reap(self) -> None:
        while self.children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self.children.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            peak, read = usage.ru_maxrss * 1024, beacon.read(child.page)
            # Each of the kernel's kills is of one child: one that ended otherwise meanwhile must not use it up.
            out_of_memory = code == -signal.SIGKILL and memory.kernel_kills() > self._kills
            self._kills += out_of_memory
            child.page.close()
            self.answer(
                ended=child.rank,
                status=0 if code == MORE_PARTS else code,
                more=code == MORE_PARTS,
                cpu=usage.ru_utime + usage.ru_stime,
                wall=time.monotonic() - child.started,
                memory=peak,
                private=max(0, peak - child.shared),
                rows=read.rows,
                bytes=read.bytes,
                out_of_memory=out_of_memory,
                where=read.where,
            )

    def watch_memory(self) -> None:
        """End the largest child if all together come near the limit."""
        own, room = memory.resident() + memory.resident(os.getppid()), int(self.limit * MEMORY_SHARE)
        if own + sum(memory.resident(pid) for pid in self.children) <= room:
            return  # shared pages are counted many times here: the true sum is smaller still
        sizes = {pid: memory.private(pid) for pid in self.children}
        if own + sum(sizes.values()) <= room:
            return
        pid = max(sizes, key=lambda one: sizes[one])
        child = self.children[pid]
        where = beacon.read(child.page).where or "its start"
        message = (
            f"task {child.rank} of {self.job.name} outgrew its memory: it held {sizes[pid] / 1e6:,.0f} MB of its own when "
            f"{len(sizes)} task(s), the task server and its driver ({own / 1e6:,.0f} MB) came near the "
            f"{self.limit / 1e6:,.0f} MB that they may take together. It was at: {where}"
        )
        body = {"type": "OutOfMemory", "message": message, "exit_code": 5, "cause": "out_of_memory"}
        try:
            Path(child.log + ".error").write_text(json.dumps(body))
        except OSError as error:
            print(message, error, sep="\n", file=sys.stderr)
        os.kill(pid, signal.SIGKILL)
        self._beat = 0.0  # what is told next shows it

    def beat(self) -> None:
        """Tell where the children are, every other second."""
        now = time.monotonic()
        if now - self._beat < BEAT_SECONDS:
            return
        self._beat = now
        readings = [(child, beacon.read(child.page), memory.resident(pid)) for pid, child in self.children.items()]
        self.answer(
            beat=[
                {
                    "rank": c.rank,
                    "rows": r.rows,
                    "bytes": r.bytes,
                    "where": r.where,
                    "memory": size,
                    "wall": now - c.started,
                }
                for c, r, size in readings
            ]
        )

    def answer(self, **message: Any) -> None:
        os.write(self._answers, json.dumps(message).encode() + b"\n")

    def stop(self) -> None:
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)


def warm_arrow() -> None:
    """Do once what Arrow does late: it makes its table of functions at the first call of any (170 ms of CPU), and imports what
    filters and groups tables when one is (30 ms). Each child would."""
    import pyarrow as pa
    import pyarrow.acero
    import pyarrow.compute as pc
    import pyarrow.dataset

    pc.sort_indices(pa.array([1, 0]))


def run_child(build: Any, job: Any, message: dict[str, Any]) -> int:
    """Run the task; an error goes to the log whole and to LOG.error as one JSON object."""
    from stackbuild.execute import run_task
    from stackbuild.judging import Try

    try:
        complete = run_task(build, job, message["run"], message["params"], Try(**message["how"]))
        return 0 if complete else MORE_PARTS
    except BaseException as error:
        with suppress(OSError):
            traceback.print_exc()
        code = error.exit_code if isinstance(error, StackbuildError) else 1
        full = no_room(error)
        body = {
            "type": type(error).__name__,
            "message": str(error),
            "exit_code": code,
            "errno": errno.ENOSPC if full else getattr(error, "errno", None),
            "rows": getattr(error, "rows", None),
        }
        try:
            Path(message["log"] + ".error").write_text(json.dumps(body))
        except OSError as unwritten:
            full = full or no_room(unwritten)
            with suppress(OSError):
                traceback.print_exc()
        return DISK_FULL if full else code or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
