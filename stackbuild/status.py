"""What an output folder says of itself: read from its manifests and its journal, with or without a running build."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackbuild.errors import InputError
from stackbuild.plan import Build, Plan

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
    """Whether a driver holds the folder."""
    path = out / ".lock"
    if not path.exists():
        return False
    with open(path, "rb") as file:  # others may look who cannot write here
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


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


@dataclass
class JobStatus:
    """One job in the last run: how many of its tasks were complete before, ran, failed."""

    job: str
    tasks: int
    cached: int = 0
    ran: int = 0
    failed: int = 0
    state: str = "waiting"  # waiting, running, done, failed, stopped
    cpu: float = 0.0
    memory: int = 0
    private: int = 0
    wall: float = 0.0
    started: float = 0.0


@dataclass
class BuildStatus:
    """A build as its last run left it, or as it stands."""

    state: str  # running, done, failed, stopped
    jobs: list[JobStatus] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def next_step(self, out: Path) -> str:
        if self.state == "done":
            return f"stackbuild report {out}"
        if self.state == "running":
            return f"stackbuild status {out} --watch"
        return (
            f"stackbuild logs {out} --failed"
            if self.failures
            else "run the same build again: it goes on where it stopped"
        )


def status_of(out: Path) -> BuildStatus:
    """Read the last run's events."""
    description = described(out)
    last: list[dict[str, Any]] = []
    for event in events(out):
        if event.get("event") == "start":
            last = []
        last.append(event)
    jobs: dict[str, JobStatus] = {}
    ended = False
    failing: dict[tuple[str, int], dict[str, Any]] = {}
    for event in last:
        kind = event.get("event")
        if kind == "job":
            jobs[event["job"]] = JobStatus(
                event["job"], event["tasks"], event["cached"], state="running", started=event["time"]
            )
        elif kind == "task":
            job = jobs.setdefault(event["job"], JobStatus(event["job"], 0, state="running"))  # if its line was torn
            job.cpu += event["cpu"]
            job.memory = max(job.memory, event["memory"])
            job.private = max(job.private, event.get("private", 0))
            key = (event["job"], event["rank"])
            if event["status"] == 0:
                job.ran += 1
                failing.pop(key, None)
            else:
                failing[key] = event
        elif kind == "job-end":
            job = jobs.setdefault(event["job"], JobStatus(event["job"], 0))
            job.state, job.wall = "done", event["wall"]
        elif kind == "end":
            ended = True
    alive = running(out)
    for name, _ in failing:
        jobs[name].failed += 1
    for job in jobs.values():
        if job.state == "running" and not alive:
            job.state = "failed" if job.failed else "stopped"
    state = "running" if alive else "done" if ended and description["complete"] else "failed" if failing else "stopped"
    failures = [
        {"job": name, "rank": rank, "status": e["status"], **failure_text(out, name, rank)}
        for (name, rank), e in failing.items()
    ]
    return BuildStatus(state, list(jobs.values()), failures)


def failure_text(out: Path, job: str, rank: int) -> dict[str, Any]:
    """The error and the log of a task's last try."""
    tries = sorted((out / "launches" / "logs" / job).glob(f"{rank:05d}.*.log"))
    if not tries:
        return {"message": "", "log": ""}
    try:
        message = str(json.loads(Path(f"{tries[-1]}.error").read_bytes())["message"])
    except (*TORN, KeyError, TypeError):  # killed before it could say why, or while it did
        message = ""
    return {"message": message, "log": str(tries[-1])}
