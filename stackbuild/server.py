"""The task server: one process that has imported what is heavy and forks a child for every task.

A killed child is seen, a task costs milliseconds to start, and a large index (ScanCode's) is shared by all children. The
server has one thread and never imports enry, whose Go runtime does not survive a fork. It speaks JSON lines: on its standard
input `{"job": NAME}` and `{"run": RANK, "params": {}, "isolate": false, "log": PATH}`, on its standard output
`{"ended": RANK, "status": 0, "cpu": SECONDS, "memory": BYTES, "private": BYTES}` (the
largest resident set of the child, and what of it is not shared with the server). It ends, with its children, when its input closes.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import json
import os
import selectors
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from stackbuild import registry
from stackbuild.errors import StackbuildError

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """`python -m stackbuild.server OUT PLAN`: serve until the input closes."""
    out, plan_path = Path(arguments[0]), Path(arguments[1])
    die_with_parent()
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    from stackbuild.plan import Build, Plan

    if importlib.util.find_spec("pandas"):
        import pandas  # noqa: F401  pyarrow imports it at the first conversion, which would be in every child

    Server(Build(out, Plan.load(plan_path))).serve()
    return 0


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that a killed driver leaves nobody behind."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """Forks children and reports how each ended."""

    def __init__(self, build: Any):
        self.build = build
        self.job: Any = None
        self.children: dict[
            int, tuple[int, int]
        ] = {}  # by process: the task, and the server's resident bytes at its fork
        self._preloaded: set[str] = set()
        self._answers = os.dup(1)  # children and libraries may print; answers have a descriptor of their own
        os.dup2(2, 1)

    def serve(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides
        os.set_blocking(0, False)
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
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

        gc.collect()
        gc.freeze()

    def fork(self, message: dict[str, Any]) -> None:
        shared = resident()
        pid = os.fork()
        if pid:
            self.children[pid] = (message["run"], shared)
            return
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            die_with_parent()
            os.close(self._answers)
            log = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
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
            rank, shared = self.children.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            answer = {
                "ended": rank,
                "status": code,
                "cpu": usage.ru_utime + usage.ru_stime,
                "memory": usage.ru_maxrss * 1024,
                "private": max(0, usage.ru_maxrss * 1024 - shared),
            }
            os.write(self._answers, json.dumps(answer).encode() + b"\n")

    def stop(self) -> None:
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)


def resident() -> int:
    """Bytes of this process's resident set; a child begins with these pages, and shares those that neither writes to."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_child(build: Any, job: Any, message: dict[str, Any]) -> int:
    """Run the task; an error goes to the log whole and to LOG.error as one JSON object."""
    from stackbuild.execute import run_task

    try:
        run_task(build, job, message["run"], message["params"], message["isolate"])
        return 0
    except BaseException as error:
        traceback.print_exc()
        code = error.exit_code if isinstance(error, StackbuildError) else 1
        body = {
            "type": type(error).__name__,
            "message": str(error),
            "exit_code": code,
            "errno": getattr(error, "errno", None),
        }
        try:
            Path(message["log"] + ".error").write_text(json.dumps(body))
        except OSError:
            traceback.print_exc()
        return code if code else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
