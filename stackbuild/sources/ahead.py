"""Files looked at by several threads, and told in order: hashing lets go of the interpreter, and reading waits for a disk."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

THREADS: Final = 8  # at most: a login node is shared
AHEAD: Final = 4  # files for each thread

T = TypeVar("T")


def looked_at(paths: Iterable[Path], look: Callable[[Path], T]) -> Iterator[tuple[Path, Callable[[], T]]]:
    """Each path in order, and what gives the result of `look` or raises what it raised; a bounded number is looked at ahead.

    The threads are daemons: whoever interrupts the program does not wait for the end of a large file.
    """
    threads = min(THREADS, len(os.sched_getaffinity(0)))
    asked: SimpleQueue[tuple[Path, Future[T]] | None] = SimpleQueue()
    pending: deque[tuple[Path, Future[T]]] = deque()

    def work() -> None:
        while (item := asked.get()) is not None:
            path, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(look(path))
            except BaseException as error:  # told where the result is asked for
                future.set_exception(error)

    for number in range(threads):
        threading.Thread(target=work, name=f"look-{number}", daemon=True).start()
    try:
        for path in paths:
            future: Future[T] = Future()
            pending.append((path, future))
            asked.put((path, future))
            if len(pending) >= threads * AHEAD:
                first, done = pending.popleft()
                yield first, done.result
        while pending:
            first, done = pending.popleft()
            yield first, done.result
    finally:
        for _, left in pending:  # whoever asked has gone: what has not begun need not
            left.cancel()
        for _ in range(threads):
            asked.put(None)
