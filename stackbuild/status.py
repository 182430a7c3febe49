"""What an output folder says of itself: read from its manifests and its journal, with or without a running build."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stackbuild.beats import STALE_SECONDS, Beat, beats
from stackbuild.errors import InputError, UsageError, command
from stackbuild.frozen_plan import Plan
from stackbuild.journal import log_folder, took
from stackbuild.launches import last_launch
from stackbuild.monitor.failures import after_failures, failure, read_ends
from stackbuild.monitor.launch import LaunchView
from stackbuild.monitor.progress import AtWork, BuildStatus, JobStatus, Tally, working
from stackbuild.plan import Build

TORN = (OSError, ValueError, RecursionError)  # what reading JSON that a crash or a stranger left can raise
NUMBER = (int, float)
DESCRIPTION = {"complete": bool, "plan": str, "files": dict}
EVENTS: dict[str, dict[str, Any]] = {  # what the journal's events hold, of that which is read here
    "start": {},
    "job": {"job": str, "tasks": int, "cached": int, "time": NUMBER},
    "task": {"job": str, "rank": int, "status": int, "cpu": NUMBER, "memory": int},
    "job-end": {"job": str, "wall": NUMBER},
    "end": {},
}


def plan_of(out: Path) -> Plan:
    """The plan of an output folder's last build; InputError if there is none, or it is torn."""
    digest = described(out)["plan"]
    path = out / "plans" / f"{digest[:24]}.json"
    try:
        plan = Plan.load(path)
        whole = plan.digest == digest and isinstance(plan.skipped, list)
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there; run `stackbuild build` with the recipe of {out} again.") from error
    except (*TORN, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a whole plan ({problem(error)}); run the same build again.") from error
    if not whole:
        raise InputError(f"{path} is not the plan that build.json names, {digest[:12]}; run the same build again.")
    return plan


def described(out: Path) -> dict[str, Any]:
    """build.json of an output folder; InputError if there is none, or it is torn."""
    path = out / "build.json"
    try:
        body = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{out} is not the output folder of a build: it has no build.json.") from error
    except TORN as error:
        raise InputError(
            f"{path} is not the description of a build ({problem(error)}); run the same build again."
        ) from error
    body = {"files": {}, **body} if isinstance(body, dict) else {}
    for key, kind in DESCRIPTION.items():
        if not isinstance(body.get(key), kind):
            raise InputError(f"{path} is not the description of a build (no {key!r} in it); run the same build again.")
    if not all(isinstance(digest, str) for digest in body["files"].values()):
        raise InputError(f"{path} names files without their SHA-256; run the same build again.")
    return body


def problem(error: Exception) -> str:
    """What was wrong with a file, in words."""
    return str(getattr(error, "strerror", None) or f"{type(error).__name__}: {error}")


def opened(out: Path) -> Build:
    """The last build of an output folder."""
    return Build(out, plan_of(out), to_run=False)


def running(out: Path) -> bool:
    """Whether a driver holds the folder. Where its file system has no locks, seen from here, a fresh beat says so."""
    path = out / ".lock"
    if not path.exists():
        return False
    with open(path, "rb") as file:  # others may look who cannot write here
        try:
            return not took(file, fcntl.LOCK_SH)
        except UsageError:
            return any(time.time() - beat.time < STALE_SECONDS for beat in beats(out / "launches" / "beats"))


def events(out: Path) -> Iterator[dict[str, Any]]:
    """The journal's events, oldest first; a line that a crash cut short is passed over."""
    path = out / "launches" / "journal.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read ({problem(error)}).") from error
    for line in lines:
        try:
            event = json.loads(line)
        except TORN:
            continue
        if isinstance(event, dict):
            needs = EVENTS.get(str(event.get("event")), {})
            if all(isinstance(event.get(key), kind) for key, kind in needs.items()):
                yield event


class Look:
    """Looks at an output folder, again and again: what was read of a launch's files is not read again."""

    def __init__(self, out: Path):
        self.out = out
        self._view: LaunchView | None = None

    def status(self) -> BuildStatus:
        """The last run's status; InputError if the folder is no build's, or its description is torn."""
        complete = bool(described(self.out)["complete"])
        folder = last_launch(self.out)
        if folder is None:
            return driven(self.out, complete)
        if self._view is None or self._view.folder.id != folder.id:
            self._view = LaunchView(folder)
        return self._view.status(complete, running(self.out))


def status_of(out: Path) -> BuildStatus:
    """The status of the last run."""
    return Look(out).status()


def driven(out: Path, complete: bool) -> BuildStatus:
    """The status of a run that a driver looks after, from its journal and its beat."""
    now, alive = time.time(), running(out)
    jobs: dict[str, JobStatus] = {}
    tallies: dict[str, Tally] = {}
    start: dict[str, Any] = {}
    ended = False
    for event in events(out):
        kind = event.get("event")
        if kind == "start":
            start, ended = event, False
            jobs.clear()
            tallies.clear()
        elif kind == "job":
            jobs[event["job"]] = JobStatus(
                event["job"], event["tasks"], event["cached"], state="running", started=event["time"]
            )
        elif kind == "task":
            name = event["job"]
            jobs.setdefault(name, JobStatus(name, 0, state="running"))  # if its line was torn
            tallies.setdefault(name, Tally()).add(event)
        elif kind == "job-end":
            job = jobs.setdefault(event["job"], JobStatus(event["job"], 0))
            job.state, job.wall = "done", event["wall"]
        elif kind == "end":
            ended = True
    signs = beats(out / "launches" / "beats") if alive else []
    failing = []
    for job in jobs.values():
        tally = tallies.setdefault(job.job, Tally())
        failed = [rank for rank in tally.failing if not alive or tally.final(rank)]
        failing += [tally.failing[rank] for rank in failed]
        job.ran, job.failed = len(tally.done), len(failed)
        job.done = job.cached + job.ran
        if job.state == "running" and not alive:
            job.state = "failed" if failed else "stopped"
        at_work = at_work_on(job, tally, signs, now)
        job.tasks = max(job.tasks, job.done + len(at_work) + job.failed)
        job.running = len(at_work)
        job.pending = job.tasks - job.done - job.running - job.failed
        tally.fill(job, at_work, now)
    state = "running" if alive else "done" if ended and complete else "failed" if failing else "stopped"
    status = BuildStatus(state, list(jobs.values()), [failure_of(out, event) for event in failing])
    read_ends(status.failures)
    status.executor = str(start.get("executor", ""))
    status.next = next_steps(status, out)
    return status


def at_work_on(job: JobStatus, tally: Tally, signs: list[Beat], now: float) -> list[AtWork]:
    """The tasks of a job that a driver has at work; a driver that has long given no sign is written down as stalled."""
    found: list[AtWork] = []
    for beat in signs:
        if beat.job != job.job or job.state != "running":
            continue
        found += tally.still(working(beat, now), beat.time)
        if (silent := now - beat.time) > STALE_SECONDS:
            job.stalled.append({"who": beat.who, "node": beat.node, "seconds": round(silent)})
    return found


def next_steps(status: BuildStatus, out: Path) -> list[str]:
    """What to type or do after a look at a run that a driver looks after."""
    if status.state == "done":
        return [command("stackbuild", "report", out)]
    if status.state == "running":
        return [command("stackbuild", "status", out, "--watch")]
    return after_failures(status.failures, out)


def failure_of(out: Path, event: dict[str, Any]) -> dict[str, Any]:
    """A task's last try, which failed."""
    told = {name: event.get(name) for name in ("message", "log")}
    if not all(isinstance(value, str) for value in told.values()):
        told = failure_text(out, event["job"], event["rank"])
    return failure(
        event["job"],
        event["rank"],
        str(event.get("cause", "")),
        str(told["message"]),
        [str(told["log"])],
        status=event["status"],
        attempt=event.get("attempt"),
    )


def failure_text(out: Path, job: str, rank: int) -> dict[str, Any]:
    """The error and the log of a task's last try, where the journal does not say."""
    tries = sorted(log_folder(out / "launches" / "logs", job).glob(f"{rank:05d}.*.log"))
    if not tries:
        return {"message": "", "log": ""}
    try:
        message = str(json.loads(Path(f"{tries[-1]}.error").read_bytes())["message"])
    except (*TORN, KeyError, TypeError):  # killed before it could say why, or while it did
        message = ""
    return {"message": message, "log": str(tries[-1])}
