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


def plan_of(out: Path) -> Plan:
    """The plan of an output folder's last build; InputError if there is none."""
    path = out / "plans" / f"{described(out)['plan'][:24]}.json"
    if not path.exists():
        raise InputError(f"{path} is not there; run `stackbuild build` with the recipe of {out} again.")
    try:
        return Plan.load(path)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a whole plan ({error}); run the same build again.") from error


def described(out: Path) -> dict[str, Any]:
    """build.json of an output folder; InputError if there is none, or it is torn."""
    path = out / "build.json"
    try:
        body: dict[str, Any] = json.loads(path.read_bytes())
        return {**body, "complete": bool(body["complete"]), "plan": str(body["plan"])}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{out} is not the output folder of a build: it has no build.json.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not the description of a build ({type(error).__name__}: {error}); run the same build again."
        ) from error


def opened(out: Path) -> Build:
    """The last build of an output folder."""
    return Build(out, plan_of(out))


def running(out: Path) -> bool:
    """Whether a driver holds the folder."""
    path = out / ".lock"
    if not path.exists():
        return False
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def events(out: Path) -> Iterator[dict[str, Any]]:
    """The journal's events, oldest first; a line that a crash cut short is passed over."""
    path = out / "launches" / "journal.jsonl"
    if not path.exists():
        return
    with open(path) as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


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
        if event["event"] == "start":
            last = []
        last.append(event)
    jobs: dict[str, JobStatus] = {}
    ended = False
    failing: dict[tuple[str, int], dict[str, Any]] = {}
    for event in last:
        kind = event["event"]
        if kind == "job":
            jobs[event["job"]] = JobStatus(
                event["job"], event["tasks"], event["cached"], state="running", started=event["time"]
            )
        elif kind == "task":
            job = jobs[event["job"]]
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
            jobs[event["job"]].state = "done"
            jobs[event["job"]].wall = event["wall"]
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
    error = Path(f"{tries[-1]}.error")
    message = json.loads(error.read_text())["message"] if error.exists() else ""
    return {"message": message, "log": str(tries[-1])}
