"""Calls in a process of their own, which takes with it all memory that it wrote to.

A child of the task server shares the server's pages until it writes to one, and Python writes to whatever it looks at: it
counts references. A call that looks at much of a large index leaves its caller with tens of megabytes of its own. So a child
may make such a call in a fork of itself: the same answer, some ten milliseconds later.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PR_SET_PDEATHSIG = 1
_server = 0  # the process whose pages its children share


def share_pages() -> None:
    """Say that this process has loaded what its children share."""
    global _server
    _server = os.getpid()


def apart(function: Callable[..., T], *arguments: object) -> T:
    """What `function(*arguments)` gives, which must be picklable. In this process where it is no child of one that shares its
    pages, or where a fork cannot be had or does not end well: then the call tells itself what was wrong.
    """
    if not _server or os.getpid() == _server:
        return function(*arguments)
    answer = _of_a_fork(function, arguments)
    if answer is None:
        return function(*arguments)
    found: T = pickle.loads(answer)
    return found


def _of_a_fork(function: Callable[..., T], arguments: tuple[object, ...]) -> bytes | None:
    """The pickled answer; None if there is none."""
    try:
        reading, writing = os.pipe()
    except OSError:
        return None
    with open(reading, "rb") as answers:
        try:
            process = os.fork()
        except OSError:
            os.close(writing)
            return None
        if not process:
            status = 1
            try:
                die_with_parent()
                with open(writing, "wb") as out:
                    out.write(pickle.dumps(function(*arguments)))
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        status = -1
        try:
            answer = answers.read()
            status = os.waitpid(process, 0)[1]
        finally:
            if status < 0:  # an exception came meanwhile
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
    return answer if status == 0 else None


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that a killed driver leaves nobody behind."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
