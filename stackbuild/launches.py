"""The folder of a launch on a cluster, OUT/launches/<id>: what was frozen at submission, and what happened.

    launch.json            the plan, the settings, the jobs in order, the digest of the code        written once
    waves/NN.W.json        what one array is to do: job NN, wave W (1 as submitted, more for retries)  written once each
    scripts/               the batch scripts, as they were given to sbatch
    jobs*.jsonl            every job id, on disk before the next job is submitted (a file for each writer)
    events/                what array elements and gates tell, a file for each attempt of each
    beats/                 what is at work right now, a file for each element
    logs/                  a log for each attempt of an element (NN.W-E.R.log), Slurm's own beside it (.out), and logs/JOB/
                           for each try of a task

Nothing here is written over: a relaunch has a folder of its own, so that an element of an old launch that comes back reads
what it was submitted with.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stackbuild import scheduler
from stackbuild.beats import STALE_SECONDS, beats
from stackbuild.errors import InputError, UsageError, command
from stackbuild.journal import Journal
from stackbuild.shards import canonical_json, write_atomically

PREFIX = "stackbuild"
ATTEMPT = "stackbuild: attempt "  # each attempt of a job begins so in Slurm's own log, which is one for all of them
T = TypeVar("T")


@dataclass(frozen=True)
class Wave:
    """One array. It is for job `number`, or, with a single element, for that and the jobs behind it up to `last`, which are so
    small that starting each by itself would take longer than they do. `ranks`: the tasks of the first job that it is for,
    None for all that are not complete when it starts. `memory`: bytes of a task; `shared`: bytes of an element beside.
    `one_part`: each part of a task in a process of its own."""

    number: int
    last: int
    wave: int
    job: str
    elements: int
    cpus: int
    memory: int
    shared: int
    time: str
    ranks: list[int] | None = None
    one_part: bool = False

    @property
    def name(self) -> str:
        return f"{self.number:02d}.{self.wave}"


@dataclass(frozen=True)
class Submitted:
    """A job of Slurm's. `kind`: array, gate or publish. An array holds the elements from `first` on."""

    slurm: str
    kind: str
    number: int
    wave: int
    first: int = 0
    elements: int = 1


@dataclass(frozen=True)
class Frozen:
    """launch.json."""

    id: str
    plan: str  # digest
    plan_path: str  # relative to OUT
    code: str  # digest of the engine's and the stages' code: what runs must be what was submitted
    settings: dict[str, Any]
    jobs: list[str]
    cached: dict[str, int] = field(default_factory=dict)  # tasks of the jobs that were complete at submission
    tasks: dict[str, int] = field(default_factory=dict)  # of the others, as far as it was known
    uid: int | None = None  # of who submitted it


class LaunchFolder:
    """A launch by its id."""

    def __init__(self, out: Path, name: str):
        self.out, self.id = out, name
        self._read: dict[Path, tuple[int, list[dict[str, Any]]]] = {}  # of each event file: how far, and what was in it
        self.path = out / "launches" / name

    @property
    def prefix(self) -> str:
        """What the names of its jobs begin with."""
        return f"{PREFIX}-{self.id}-"

    @property
    def owner(self) -> int:
        """The number of the user whose jobs these are. A network file system may call the owner of root's files `nobody`."""
        with suppress(InputError, TypeError):
            if (uid := self.frozen().uid) is not None:
                return uid
        return self.path.stat().st_uid

    @property
    def mine(self) -> bool:
        return self.owner == os.getuid()

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def beats(self) -> Path:
        return self.path / "beats"

    # ---- frozen

    def freeze(self, frozen: Frozen) -> None:
        for name in ("waves", "scripts", "events", "beats", "logs"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "launch.json", canonical_json(asdict(frozen)))

    def frozen(self) -> Frozen:
        return self._as(Frozen, self.path / "launch.json")

    def wave_path(self, number: int, wave: int) -> Path:
        return self.path / "waves" / f"{number:02d}.{wave}.json"

    def add_wave(self, wave: Wave) -> Path:
        path = self.wave_path(wave.number, wave.wave)
        write_atomically(path, canonical_json(asdict(wave)))
        return path

    def wave(self, path: Path) -> Wave:
        return self._as(Wave, path)

    def waves(self, number: int) -> list[Wave]:
        """The waves of a job, first to last."""
        paths = (self.path / "waves").glob(f"{number:02d}.*.json")
        return sorted((self.wave(path) for path in paths), key=lambda wave: wave.wave)

    def script(self, name: str, text: str) -> Path:
        """Keep a batch script beside what it did."""
        path = self.path / "scripts" / f"{name}.sh"
        write_atomically(path, text.encode())
        path.chmod(0o600)  # an address of a proxy may have a password in it
        return path

    def _as(self, kind: type[T], path: Path) -> T:
        """What a file holds; InputError if it is torn, or another version of stackbuild wrote it."""
        try:
            return kind(**self._json(path))
        except TypeError as error:
            raise InputError(
                f"{path} is of another version of stackbuild ({error}); end that launch with the one that began it, or wait for "
                "its end."
            ) from error

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            body = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); submit the build again.") from error
        return dict(body)

    # ---- job ids

    def submitted(self) -> list[Submitted]:
        """Every job that is known to have been submitted, by number and wave."""
        found = [
            Submitted(**event["submitted"]) for event in self._lines("jobs*.jsonl") if event.get("event") == "submitted"
        ]
        return sorted(found, key=lambda one: (one.number, one.wave, one.kind, one.first))

    def note(self, one: Submitted, writer: str = "") -> None:
        """Write down a job's id, on disk when this returns."""
        name = f"jobs.{writer}.jsonl" if writer else "jobs.jsonl"
        Journal(self.path / name).write(flush=True, event="submitted", submitted=asdict(one))

    def mark(self, event: str, **more: Any) -> None:
        """Write down that all was released, or refused, or cancelled."""
        Journal(self.path / "jobs.jsonl").write(flush=True, event=event, **more)

    def marked(self, event: str) -> bool:
        return any(one.get("event") == event for one in self._lines("jobs.jsonl"))

    def why_not_submitted(self) -> str:
        """Why its submission was given up, "" if it was not, or could not say."""
        return next(
            (str(one.get("message", "")) for one in self._lines("jobs.jsonl") if one.get("event") == "refused"), ""
        )

    # ---- events

    def events_of(self, writer: str) -> Journal:
        """The file in which one attempt of an element, or a gate, tells what happened."""
        return Journal(self.path / "events" / f"{writer}.jsonl")

    def events(self, pattern: str = "*") -> list[dict[str, Any]]:
        """What all writers of such names have told, oldest first; what was read before is not read again."""
        found: list[dict[str, Any]] = []
        for path in (self.path / "events").glob(f"{pattern}.jsonl"):
            found += self._events_in(path)
        return sorted(found, key=lambda event: float(event["time"]))

    def _events_in(self, path: Path) -> list[dict[str, Any]]:
        done, events = self._read.get(path, (0, []))
        try:
            with open(path, "rb") as file:
                file.seek(done)
                data = file.read()
        except OSError:
            return events
        whole = data[: data.rfind(b"\n") + 1]  # the last line may be on its way
        if whole:
            events = [*events, *events_of_lines(whole.splitlines())]
            self._read[path] = (done + len(whole), events)
        return events

    def last_word(self) -> dict[str, Any] | None:
        """The event that ended the launch (`end` of the publishing job, `failed` of a gate or of that), or None: none did, or
        something began after it, as when Slurm requeued the gate."""
        for event in self.events()[::-1]:
            if event.get("event") in ("end", "failed"):
                return event
            if event.get("event") == "element":
                return None
        return None

    def _lines(self, pattern: str) -> Iterator[dict[str, Any]]:
        for path in sorted(self.path.glob(pattern)):
            yield from read_events(path)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of one file, in order; nothing if it is not there."""
    try:
        yield from events_of_lines(path.read_bytes().splitlines())
    except OSError:
        return


def events_of_lines(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The events of a file's lines, without those that a crash cut short."""
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("time"), (int, float)):
            yield event


def last_launch(out: Path) -> LaunchFolder | None:
    """The launch of a folder's last run, if that went to a cluster and was frozen before anything was submitted."""
    last = last_start(out)
    found = LaunchFolder(out, last["launch"]) if isinstance(last.get("launch"), str) else None
    return found if found is not None and (found.path / "launch.json").exists() else None


def last_start(out: Path) -> dict[str, Any]:
    """The event with which a folder's last run began, on a cluster or not; empty if there was none."""
    starts = [event for event in read_events(out / "launches" / "journal.jsonl") if event.get("event") == "start"]
    return starts[-1] if starts else {}


def refuse_if_superseded(folder: LaunchFolder) -> None:
    """InputError if another build was begun in the output folder since this launch. What of it still runs, on a node that
    Slurm does not see or while it is cancelled, must write nothing that the other reads: its code may be another."""
    last = last_start(folder.out)
    if last and last.get("launch") != folder.id:
        other = f"launch {last['launch']}" if last.get("launch") else f"a build ({last.get('executor', 'local')})"
        raise InputError(
            f"Launch {folder.id} is over: {other} was begun in {folder.out} since. What still runs of it closes and publishes "
            "nothing any more; there is nothing to mend."
        )


def live_jobs(folder: LaunchFolder) -> list[scheduler.Element]:
    """Jobs of a launch that are queued or run, as Slurm says."""
    return [job for job in scheduler.queue(folder.prefix, user=folder.owner) if job.live]


def under_way(folder: LaunchFolder) -> int:
    """How many jobs of a launch are queued or run: 0 if it has said its last word; where Slurm does not answer, how many
    elements have told of themselves within a minute. That it was to be cancelled does not mean that it was: scancel may have
    failed. Of one that was, those that are about to end count no more. Where another user's jobs cannot be seen, a launch of theirs
    that was let go is under way, as far as anybody can know, until it says its last word."""
    if folder.last_word() is not None:
        return 0
    cancelled = folder.marked("cancelled")
    ending = {"COMPLETING"} if cancelled else set()
    signs = sum(time.time() - beat.time < STALE_SECONDS for beat in beats(folder.beats))
    try:
        live = sum(job.state not in ending for job in live_jobs(folder))
        if live or folder.mine or not scheduler.private_jobs():
            return live
    except scheduler.SchedulerError:
        if folder.mine:
            return signs
    return signs or int(folder.marked("released") and not cancelled)


def of_another(folder: LaunchFolder) -> UsageError:
    """What is said of another user's launch that is under way: its jobs are theirs to end."""
    try:
        user = pwd.getpwuid(folder.owner).pw_name
    except KeyError:
        user = str(folder.owner)
    status, cancel = (
        command("stackbuild", *words) for words in (("status", folder.out, "--watch"), ("cancel", folder.out))
    )
    return UsageError(
        f"Launch {folder.id} of user {user} builds {folder.out}, and has said no last word. Follow it with `{status}`, or have {user} "
        f"end it with `{cancel}`. Should it be over, and its jobs be gone, move {folder.path} away."
    )


def refuse_while_on_cluster(out: Path) -> None:
    """UsageError if this folder's last launch is under way: two that build one folder do the work twice."""
    folder = last_launch(out)
    if folder is not None and (live := under_way(folder)):
        if not folder.mine:
            raise of_another(folder)
        raise UsageError(
            f"{live} job(s) of launch {folder.id} build {out} on Slurm. Follow them with "
            f"`{command('stackbuild', 'status', out, '--watch')}`, or end them with `{command('stackbuild', 'cancel', out)}`."
        )


def last_attempt(text: str) -> str:
    """What a job's own log of Slurm's says of its last attempt, given the end of that log."""
    return text[max(0, text.rfind(ATTEMPT)) :]


def new_id() -> str:
    """A name for a launch: when, and a few letters against two in one second."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def restart_count() -> int:
    """How often Slurm has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0)
