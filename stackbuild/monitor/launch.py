"""The status of a launch on a cluster, put together from its folder and from Slurm's queue."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stackbuild import scheduler
from stackbuild.beats import STALE_SECONDS, beats
from stackbuild.errors import InputError, command
from stackbuild.launches import LaunchFolder, Submitted, last_attempt
from stackbuild.monitor.elements import Asking, ElementNow, Elements, Queue, waiting_for
from stackbuild.monitor.failures import READ, after_failures, failure, read_ends, tail
from stackbuild.monitor.progress import UNDER_WAY, AtWork, BuildStatus, JobStatus, working
from stackbuild.monitor.told import Told
from stackbuild.retries import Cause, element_cause, refusal


class LaunchView:
    """Looks at one launch, again and again."""

    def __init__(self, folder: LaunchFolder):
        try:
            self.folder, self.frozen = folder, folder.frozen()
        except TypeError as error:
            raise InputError(f"{folder.path}/launch.json is not whole ({error}); submit the build again.") from error
        self.asking = Asking(folder)

    def status(self, complete: bool, held: bool) -> BuildStatus:
        """`complete`: build.json says so; `held`: a process holds the output folder's lock."""
        queue = self.asking.queue()  # before the events: what ends in between has then said so
        return Now(self, queue, Told(self.folder.events()), held).status(complete)


class Now:
    """One look."""

    def __init__(self, view: LaunchView, queue: Queue, told: Told, held: bool):
        self.folder, self.frozen, self.queue, self.told, self.held = view.folder, view.frozen, queue, told, held
        self.now = time.time()
        self.submitted = self.folder.submitted()
        self.word = self.folder.last_word() or {}
        lost = not self.word and not queue.live
        accounted = view.asking.accounted(self.submitted, queue) if lost else {}
        signs = beats(self.folder.beats)
        self.elements = Elements(self.folder, self.submitted, told, queue, signs, accounted, self.now)
        self.launched = ""  # how the launch is, as far as Slurm's queue and the last word tell
        self._looks_left = READ  # into logs of elements, for what they died of

    def status(self, complete: bool) -> BuildStatus:
        """The whole launch."""
        state, notes = self.state(complete)
        self.launched = state
        jobs = [self.job(number, name) for number, name in enumerate(self.frozen.jobs)]
        failures = list(self.failures(jobs, state))
        read_ends(failures)
        if state == "stopped" and (causes := {one["cause"] for one in failures} - {""}):
            state = "cancelled" if causes == {Cause.CANCELLED} else "failed"
        self.settle(jobs, state)
        message = str(self.word.get("message", "")) if state == "failed" else ""
        status = BuildStatus(state, jobs, failures, "slurm", self.folder.id, message, notes, self.publish())
        status.next = self.next_steps(status)
        return status

    def state(self, complete: bool) -> tuple[str, list[str]]:
        """(how the launch is, what must be known of this)."""
        notes = [self.queue.note] if self.queue.note else []
        if self.word.get("event") == "end" and complete:
            return "done", []
        if self.folder.marked("cancelled"):
            if left := sum(one.state != "COMPLETING" for one in self.queue.live):
                notes = [*notes, f"{left} of its jobs are still in the queue; cancel it again."]
            return "cancelled", notes
        if self.word.get("event") == "failed":
            return "failed", notes
        begun = bool(self.told.shares)
        if self.queue.live:
            return "running" if begun or any(one.state == "RUNNING" for one in self.queue.live) else "waiting", notes
        if not self.folder.marked("released"):
            if self.held:
                return "waiting", [*notes, "It is being submitted."]
            why = self.folder.why_not_submitted()
            because = f": {why}" if why else "."
            return "stopped", [*notes, f"It was not submitted whole, so nothing of it runs{because}"]
        if self.held:
            return "running", [*notes, "A process holds the folder: it submits, or it publishes."]
        if not self.queue.seen:
            last = max([self.told.last, *(beat.time for beat in self.elements.beats.values())])
            if not begun or self.now - last < STALE_SECONDS:
                return ("running" if begun else "waiting"), notes
            minutes = (self.now - last) / 60
            return "stopped", [
                *notes,
                f"Nothing has given a sign for {minutes:.0f} min; jobs may still be in the queue.",
            ]
        dead = self.dead()
        if any(how for _, how in dead):
            return "failed", notes
        said = {one.state for one in self.queue.found.values()} | set(self.elements.accounted.values())
        if "CANCELLED" not in said and not begun and not self.elements.logs:
            notes.append(
                "Nothing of it is in Slurm's queue any more, and nothing left a log: it was cancelled before it began, or "
                f"{self.folder.out} is no folder that the nodes see under this path."
            )
        return ("cancelled" if "CANCELLED" in said and not dead else "stopped"), notes

    def dead(self) -> list[tuple[Submitted, str]]:
        """Gates and publishing jobs that ended before they could say why, and how Slurm calls it; "" if it has forgotten."""
        found = []
        for one in self.submitted if not self.word else ():
            slurm = self.queue.found.get((one.slurm, None))
            state = slurm.state if slurm else self.elements.accounted.get(one.slurm, "")
            well = state in ("COMPLETED", "CANCELLED") or (slurm is not None and slurm.live)
            if not state:  # what has begun and told nothing was ended
                told = one.kind == "gate" and self.looked(one.number) >= one.wave
                well = told or not self.queue.seen or not self._has_begun(one)
            if one.kind != "array" and not well:
                found.append((one, state))
        return found

    # ---- jobs

    def looked(self, number: int) -> int:
        """The last wave of a job that a gate has looked at."""
        return int(self.told.gates[number]["wave"]) if number in self.told.gates else 0

    def given_up(self, number: int) -> bool:
        gate = self.told.gates.get(number)
        return gate is not None and gate.get("again") is None and gate["complete"] < gate["of"]

    def job(self, number: int, name: str) -> JobStatus:
        """One job, but for what follows from how the launch is."""
        if name in self.frozen.cached:
            tasks = self.frozen.cached[name]
            return JobStatus(name, tasks, tasks, state="done", done=tasks)
        told, gate, elements = self.told, self.told.gates.get(number), self.elements.of_job(number, self.looked(number))
        began, last = told.times.get(name, (0.0, 0.0))
        job = JobStatus(name, self.frozen.tasks.get(name, 0), started=began)
        mine = [share for share in told.shares.values() if share.number == number]
        firsts = [share for share in mine if share.wave == 1]
        before = 0  # complete at submission
        first = next((host for host in self.elements.covering(number) if host.wave == 1), None)
        if first and first.number == number and first.ranks is not None:
            before = max(0, job.tasks - len(first.ranks))
        elif first and len(firsts) == first.elements and all(share.tasks is not None for share in firsts):
            job.tasks = sum(share.tasks or 0 for share in firsts)  # all have begun: now it is known
        base = int(gate["complete"]) if gate else before
        job.done = base + sum(share.done for share in mine if share.wave > self.looked(number))
        job.tasks = max(int(gate["of"]) if gate else job.tasks, job.done)
        job.cached = min(before + sum(share.before for share in firsts), job.done)
        job.ran = job.done - job.cached
        job.waves = max((host.wave for host in self.elements.covering(number)), default=0)
        here = [one for one in elements if one.at == number]
        job.requeues = sum(max(share.restart, 0) for share in mine)
        job.requeues += sum(one.state == "pending" and one.share is not None for one in here)
        job.elements = dict(sorted(Counter(one.as_seen_by(number) for one in elements).items()))
        self._job_state(job, number, elements)
        job.failed = min(self.failed(number, job, here), job.tasks - job.done)
        at_work = self.at_work(job, here)[: job.tasks - job.done - job.failed]
        job.running, job.pending = len(at_work), job.tasks - job.done - job.failed - len(at_work)
        job.wall = told.ends.get(name, round(last - began, 3)) if job.state != "running" else 0.0
        told.tally(name).fill(job, at_work, self.now)
        job.retries -= sum(
            not told.tally(name).final(e["rank"]) for one in here if self.over(one) for e in self.tries(one)
        )
        return job

    def _job_state(self, job: JobStatus, number: int, elements: Sequence[ElementNow]) -> None:
        """How a job is, and why it is not at work."""
        gate = self.told.gates.get(number)
        if gate and gate["complete"] == gate["of"]:
            job.state = "done"
        elif self.given_up(number):
            job.state = "failed"
        elif gate and not elements:
            job.state, job.reason = "pending", f"{len(gate['failures'])} tasks are submitted again"
        elif job.elements.get("running") or job.elements.get("pending"):
            job.state = "running" if job.elements.get("running") else "pending"
            job.reason = waiting_for(one for one in elements if one.at == number)
        elif elements and set(job.elements) == {"done"}:
            chained = number < elements[0].host.last
            job.state, job.reason = ("done", "") if chained else ("running", "its gate looks at what is there")
        elif job.elements.get("waiting") or not elements:
            job.state = "waiting"
        else:
            job.state, job.reason = "running", "its gate looks at what is missing"

    def at_work(self, job: JobStatus, elements: Sequence[ElementNow]) -> list[AtWork]:
        """The tasks at work in elements; one that runs and gave no sign for long is written down as stalled."""
        found: list[AtWork] = []
        for one in elements:
            beat = self.elements.beat_of(one) if one.state == "running" else None
            if beat is None or beat.job != job.job:
                continue
            found += self.told.tally(job.job).still(working(beat, self.now), beat.time)
            if (silent := self.now - beat.time) > STALE_SECONDS:
                stalled = {"who": beat.who, "node": beat.node, "slurm": one.identity, "seconds": round(silent)}
                job.stalled.append(stalled)
        return found

    def over(self, one: ElementNow) -> bool:
        """Whether an element ended badly, and not because the whole launch was cancelled."""
        return one.state == "failed" or (
            one.state == "cancelled" and one.share is not None and self.launched != "cancelled"
        )

    def tries(self, one: ElementNow) -> list[dict[str, Any]]:
        """The last tries, which failed, of an element's tasks of the job that it is at."""
        return self.told.tally(self.frozen.jobs[one.at]).failing_at((one.host.wave, one.element))

    def failed(self, number: int, job: JobStatus, here: Sequence[ElementNow]) -> int:
        """How many tasks of a job have failed and are not, as far as is known, tried again. `here`: elements that are at it."""
        if self.given_up(number):
            return len(self.told.gates[number]["failures"])
        tally, failed = self.told.tally(job.job), 0
        for one in here:
            if self.over(one):
                failed += one.share.left if one.share else 0
            elif one.state == "running":  # one that is begun again tries all of its tasks again
                failed += sum(tally.final(e["rank"]) for e in self.tries(one))
        return failed

    def settle(self, jobs: Sequence[JobStatus], state: str) -> None:
        """Say of jobs that are not done what follows from how the launch is and how the jobs before them are."""
        left = [job for job in jobs if job.state != "done"]
        gates = [self.frozen.jobs[one.number] for one, _ in self.dead() if one.kind == "gate"]
        for name in [str(self.word.get("job")), *gates]:  # a gate that could not even count
            for job in left:
                if job.job == name and state == "failed":
                    job.state = "failed"
        broken: JobStatus | None = None
        for index, job in enumerate(left):
            if state not in UNDER_WAY:
                job.pending, job.running = job.pending + job.running, 0
                job.at_work, job.stalled, job.eta, job.reason = [], [], None, ""
                if job.state != "failed":
                    job.state = "failed" if job.failed and state == "failed" else "stopped"
            if broken is not None and job.state != "failed":
                why = f"{broken.failed} failed" if broken.failed else "its gate failed"
                job.state, job.reason = "blocked", f"by {broken.job} ({why})"
            elif job.state == "waiting" and index:
                job.reason = f"for {left[index - 1].job}"
            broken = broken or (job if job.state == "failed" else None)

    # ---- failures

    def failures(self, jobs: Sequence[JobStatus], state: str) -> Iterator[dict[str, Any]]:
        """What failed and is not tried again: tasks, elements that ended under theirs, gates."""
        for number, job in enumerate(jobs):
            if self.given_up(number):
                tally = self.told.tally(job.job)
                for one in self.told.gates[number]["failures"]:
                    yield self._task({**tally.failing.get(one["rank"], {}), **one, "job": job.job, "number": number})
            elif job.state != "done":
                elements = self.elements.of_job(number, self.looked(number))
                for element in elements:
                    if element.at == number:
                        yield from self._of_element(job.job, element, state)
        for dead, said in self.dead():
            publishing = dead.kind == "publish"
            logs = self._logs(f"{self._script(dead)}.*.log")[-1:] + self._logs(f"{dead.slurm}.out")
            text = words_of(logs)
            cause, unseen = element_cause(said, text), self.seen(logs)
            name = f"its {dead.kind} job {dead.slurm}{self.chain(dead)}"
            ended = f"{name} ended {f'as {said}' if said else 'and left no word'}{unseen}"
            reason = refusal(text) if cause is Cause.REFUSED else ended
            cause = Cause.REFUSED if unseen and cause is Cause.KILLED else cause
            yield failure(
                "publish" if publishing else self.frozen.jobs[dead.number], None,
                str(cause), reason, logs, slurm=dead.slurm,
            )  # fmt: skip
        if self.word.get("event") == "failed" and not any(self.given_up(number) for number in self.told.gates):
            job_name = str(self.word.get("job", ""))
            kind = "publish" if job_name == "publish" else "gate"
            last = [one for one in self.submitted if one.kind == kind and self._has_begun(one)][-1:]
            logs = [log for one in last for log in self._logs(f"{self._script(one)}.*.log")[-1:]]
            yield failure(
                job_name, None, "", str(self.word.get("message", "")), logs, slurm=last[0].slurm if last else ""
            )

    def _of_element(self, job: str, one: ElementNow, state: str) -> Iterator[dict[str, Any]]:
        """The failures of an element: of its tasks, and its own if it ended under some that had not."""
        tally = self.told.tally(job)
        over = self.over(one) or (one.state == "silent" and state not in UNDER_WAY)
        told = over or one.state == "running"  # one that is begun again tries all of its tasks again
        tasks = [e for e in self.tries(one) if told and (over or tally.final(e["rank"]))]
        yield from map(self._task, tasks)
        if over and (not tasks or (one.share and one.share.left > len(tasks))):
            yield self._ended(job, one)

    def _task(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """A failure of a task, with the logs of the element that it ran in."""
        number, wave, element = event.get("number", 0), event.get("wave"), event.get("element")
        wave_of = {host.wave: host for host in self.elements.covering(number)}
        one = self.elements.by_name.get(f"{wave_of[wave].name}-{element}") if wave in wave_of else None
        return failure(
            event["job"], event["rank"], str(event.get("cause", "")), str(event.get("message", "")),
            [str(event.get("log") or ""), *(self._element_logs(one) if one else [])], status=event.get("status"),
            attempt=event.get("attempt"), wave=wave, element=element, node=one.share.node if one and one.share else "",
            slurm=one.identity if one else "",
        )  # fmt: skip

    def _ended(self, job: str, one: ElementNow) -> dict[str, Any]:
        """A failure of an element as a whole."""
        logs = self._element_logs(one)
        last = one.share.ended if one.share else None
        words = one.said or ("nobody knows what: it gives no sign" if one.state == "silent" else one.state)
        self._looks_left -= 1
        text = words_of(logs) if self._looks_left >= 0 else ""
        status = last["status"] if last else None
        cause = "" if one.state == "silent" else str(element_cause(one.said, text, status))
        reason = (last and last.get("reason")) or (status is None and cause == Cause.REFUSED and refusal(text))
        unseen = self.seen(logs) if cause == Cause.KILLED else ""
        return failure(
            job, None, str(Cause.REFUSED) if unseen else cause,
            str(reason or f"element {one.element} ended as {words}{unseen}"), logs, status=status,
            wave=one.host.wave, element=one.element, node=one.share.node if one.share else "", slurm=one.identity,
        )  # fmt: skip

    def _element_logs(self, one: ElementNow) -> list[str]:
        """The log of an element's last attempt, and Slurm's own."""
        return [*self._logs(f"{one.who}.[0-9]*.log")[-1:], *self._logs(f"{one.identity}.out")]

    def chain(self, gate: Submitted) -> str:
        """Which jobs a gate is for, if these are several."""
        last = max(
            (w.last for w in self.elements.covering(gate.number) if w.number == gate.number), default=gate.number
        )
        several = gate.kind == "gate" and last > gate.number
        return f", for {self.frozen.jobs[gate.number]} to {self.frozen.jobs[last]}," if several else ""

    def seen(self, logs: Sequence[str]) -> str:
        """What to ask where a job ended and not even Slurm could open a log for it."""
        asked = f" and left no log at all: is {self.folder.out} a folder that the nodes see under this path?"
        return "" if logs else asked

    def _logs(self, pattern: str) -> list[str]:
        paths = sorted(self.folder.logs.glob(pattern), key=lambda path: (len(path.name), path.name))
        return [str(path) for path in paths if not path.name.endswith(".server.log")]

    def _script(self, one: Submitted) -> str:
        return "publish" if one.kind == "publish" else f"{one.number:02d}.{one.wave}-gate"

    def _has_begun(self, one: Submitted) -> bool:
        return bool(self._logs(f"{self._script(one)}.*.log"))

    # ---- the rest

    def publish(self) -> str:
        """How the publishing job is: waiting, running, done, failed, "" if it is not there."""
        if self.word.get("event") == "end":
            return "done"
        if self.word.get("job") == "publish":
            return "failed"
        ids = {one.slurm for one in self.submitted if one.kind == "publish"}
        live = [one for one in self.queue.live if one.array in ids]
        return "" if not live else "waiting" if live[0].state in scheduler.PENDING else "running"

    def next_steps(self, status: BuildStatus) -> list[str]:
        """What to type or do."""
        out = self.folder.out
        if status.state == "done":
            return [command("stackbuild", "report", out)]
        if status.ended:
            return after_failures(status.failures, out)
        stalled = [one["slurm"] for job in status.jobs for one in job.stalled]
        return [
            *([command("stackbuild", "logs", out, "--failed")] if status.failures else []),
            *(f"scontrol requeue {one} begins it again, if its node does not come back" for one in stalled[:3]),
            command("stackbuild", "status", out, "--watch"),
        ]


def words_of(logs: Sequence[str]) -> str:
    """What the ends of logs say of the last attempt, a job's own last; Slurm's holds all attempts."""
    own = [tail(log) for log in logs if not log.endswith(".out")]
    return "".join([*(last_attempt(tail(log)) for log in logs if log.endswith(".out")), *own])
