"""What failed, for people: why, in which log, its last lines, and what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stackbuild.errors import command
from stackbuild.retries import REMEDY, Cause

TAIL_BYTES = 16_384
LINES = 6  # last lines of a log that a failure shows
READ = 20  # failures whose logs are read: a thousand have few reasons, and a shared disk has much to do
LEAST_ROOM = 10**6  # bytes; a folder that has less is full
AGAIN = "run the same build again: it goes on where it stopped"


def failure(
    job: str,
    rank: int | None,
    cause: str,
    message: str,
    logs: Sequence[str],
    *,
    status: int | None = None,
    attempt: int | None = None,
    wave: int | None = None,
    element: int | None = None,
    node: str = "",
    slurm: str = "",
) -> dict[str, Any]:
    """A failure as a status holds it. `rank`: the task, None if it is of an element, a gate or the publishing job. `logs`:
    what may tell more, the most telling first. `lines`: see `read_ends`."""
    named = list(dict.fromkeys(log for log in logs if log))
    return {
        "job": job,
        "rank": rank,
        "status": status,
        "attempt": attempt,
        "cause": cause,
        "message": message,
        "log": named[0] if named else "",
        "logs": named,
        "lines": [],
        "wave": wave,
        "element": element,
        "node": node,
        "slurm": slurm,
    }


def read_ends(failures: Sequence[dict[str, Any]]) -> None:
    """Give the first failures the last lines of the first of their logs that says anything, which is then their `log`."""
    for one in failures[:READ]:
        one["log"], one["lines"] = next(
            ((log, ends) for log in one["logs"] if (ends := last_lines(log))), (one["log"], [])
        )


def what(one: Mapping[str, Any]) -> str:
    """What failed, in a few words."""
    if one["rank"] is not None:
        return f"task {one['rank']}"
    return f"element {one['element']}" if one["element"] is not None else "the job itself"


def after_failures(failures: Sequence[Mapping[str, Any]], out: Path) -> list[str]:
    """What to type or do after a run that ended too soon: for each cause its remedy, then the same build again."""
    if not failures:
        return [AGAIN]
    known = [one["cause"] for one in failures if one["cause"] in set(Cause)]
    if Cause.DISK not in known and full(out):  # where nothing can be written, nobody can write down why
        known.insert(0, str(Cause.DISK))
    logs = command("stackbuild", "logs", out, "--failed")
    return [logs, *(REMEDY[Cause(cause)] for cause in dict.fromkeys(known)), AGAIN]


def full(out: Path) -> bool:
    """Whether a folder has no room left."""
    try:
        return shutil.disk_usage(out).free < LEAST_ROOM
    except OSError:
        return False


def last_lines(log: str) -> list[str]:
    """The last lines of a log that say anything; the marks below a traceback's lines do not."""
    return [line.rstrip() for line in tail(log).splitlines() if line.strip(" ^~")][-LINES:]


def tail(log: str) -> str:
    """The last bytes of a log, "" if there is none."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""
