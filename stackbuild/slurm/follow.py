"""Looking after a launch from where it was submitted: waiting for its end, and ending it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbuild import scheduler
from stackbuild.errors import PartialFailure, StackbuildError, UsageError
from stackbuild.journal import began, driver_journal, holder
from stackbuild.launches import LaunchFolder, last_launch, live_jobs, of_another, under_way
from stackbuild.slurm.submit import cancel_jobs
from stackbuild.status import running

LOOK_SECONDS, ASK_SECONDS = 2.0, 15.0  # between two looks at the files, and at the queue
FORGOTTEN_LOOKS = 3  # without a live job and without a last word, before a launch is given up


@dataclass(frozen=True)
class Outcome:
    """How a launch ended: done, failed, cancelled or lost; what it said last, and the code to end with."""

    state: str
    message: str = ""
    exit_code: int = 0
    end: dict[str, Any] | None = None


def outcome(folder: LaunchFolder) -> Outcome | None:
    """How a launch ended, None if it has not said so."""
    word = folder.last_word()
    if word is not None and word["event"] == "end":
        return Outcome("done", end=word)
    if folder.marked("cancelled"):
        return Outcome("cancelled", "It was cancelled; what is complete is kept.", 130)
    return Outcome("failed", word["message"], int(word["exit_code"]) or 5) if word is not None else None


def wait(folder: LaunchFolder, tell: Callable[[str], None]) -> Outcome:
    """Wait for a launch's end, telling each job that ends and each try that fails."""
    told: set[int] = set()  # of whose lines: several files grow at once, and the folder keeps what it has read
    missing, asked = 0, 0.0
    while True:
        for event in folder.events():
            if id(event) not in told:
                told.add(id(event))
                if line := line_of(event):
                    tell(line)
        found = outcome(folder)
        if found is not None and found.state == "done":
            return found
        if found is not None or time.monotonic() - asked >= ASK_SECONDS:  # Slurm is asked seldom: others ask it too
            asked = time.monotonic()
            try:
                live = len(live_jobs(folder))
            except scheduler.SchedulerError as error:  # its controller may begin anew; the jobs go on meanwhile
                tell(str(error))
                live = 0 if found is not None else 1
            if found is not None and not live:
                return found
            missing = 0 if live else missing + 1
            if missing >= FORGOTTEN_LOOKS:
                return Outcome(
                    "lost", f"No job of launch {folder.id} is in Slurm's queue and none said a last word.", 5
                )
        time.sleep(LOOK_SECONDS)


def line_of(event: dict[str, Any]) -> str:
    """An event for people, "" if it is not worth a line."""
    kind = event["event"]
    if kind == "gate" and event["complete"] == event["of"]:
        return f"{event['job']}: {event['of']} tasks complete"
    if kind == "gate":
        causes = ", ".join(sorted({f["cause"] for f in event["failures"]}))
        next_ = f"tried again as wave {event['again']}" if event["again"] else "given up"
        return f"{event['job']}: {event['of'] - event['complete']} of {event['of']} tasks failed ({causes}); {next_}"
    if kind == "task" and event["status"]:
        return f"{event['job']}: task {event['rank']}, attempt {event['attempt']}: {event['cause']}: {first_line(event['message'])}"
    if kind == "element-end" and event["status"] == 85:
        return f"{event['job']}: element {event['element']} stopped ({event['reason']}) and goes on in a new attempt"
    return ""


def first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:300]


def raise_for(found: Outcome) -> None:
    """What the command ends with, if a launch did not end well."""
    if found.state == "done":
        if found.end and found.end.get("passing"):
            raise PartialFailure(
                f"{found.end['passing']} of the inputs could not be read; the rest is built and published. Run the same command "
                "again to try them once more, or take them out of the recipe."
            )
        return
    error = StackbuildError(found.message)
    error.exit_code = found.exit_code
    raise error


def cancel(out: Path) -> str:
    """End what builds a folder, on Slurm or by a driver on this machine; says what was done. UsageError if nothing does."""
    folder = last_launch(out)
    if folder is not None:
        scheduler.require()
        ours = folder.mine or os.getuid() == 0
        if not ours and under_way(folder):
            raise of_another(folder)
        if ours and live_jobs(folder):
            folder.mark("cancelled")  # first: a gate that sees it submits nothing
            count = cancel_jobs(folder)
            driver_journal(out).write(event="cancelled", launch=folder.id)
            return f"{count} job(s) of launch {folder.id} cancelled; what is complete is kept."
    if not running(out):
        raise UsageError(f"Nothing builds {out}.")
    who = holder(out)
    if who is not None and who.host != socket.gethostname():
        raise UsageError(f"Process {who.pid} of {who.host} builds {out}; end it there.")
    if who is None or began(who.pid) != who.began:  # not written yet; the number may be of any process by now
        raise UsageError(f"{out} is held, and not known by whom; try again, or end it where it was started.")
    if not who.builds:
        raise UsageError(f"Process {who.pid} holds {out} and runs no build in it; wait for its end.")
    try:
        os.kill(who.pid, signal.SIGTERM)
    except PermissionError as error:
        raise UsageError(f"Process {who.pid} builds {out} and is another user's.") from error
    return f"The build of process {who.pid} was asked to end; what is complete is kept."
