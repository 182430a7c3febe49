"""How the elements of a wave ended: from Slurm's state of each, the logs of its last attempt, and its own last word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbuild import scheduler
from stackbuild.launches import LaunchFolder, Wave, last_attempt
from stackbuild.monitor.failures import tail
from stackbuild.retries import Cause, element_cause, refusal
from stackbuild.slurm.script import NO_PROGRESS, REQUEUE_ME


@dataclass(frozen=True)
class ElementEnd:
    """How an element ended: the cause, the exit status that it said last (None: it did not say one), why in words, and the log
    that tells more."""

    cause: Cause
    status: int | None
    reason: str
    log: str


def ends_of(folder: LaunchFolder, wave: Wave) -> dict[int, ElementEnd]:
    """How each element of a wave ended, from its last attempt."""
    words: dict[int, dict[int, Mapping[str, Any]]] = {}  # by element and attempt: what it told last
    for event in folder.events(f"{wave.name}-[0-9]*"):
        if event["event"] in ("element", "element-end"):
            words.setdefault(event["element"], {})[event["restart"]] = event
    arrays = [s for s in folder.submitted() if (s.kind, s.number, s.wave) == ("array", wave.number, wave.wave)]
    states = {(job.array, job.index): job.state for job in scheduler.queue(folder.prefix, ended=True)}
    aged = [f"{a.slurm}_{i}" for a in arrays for i in range(a.elements) if (a.slurm, i) not in states]
    accounted = scheduler.accounted(aged) if aged else {}
    found: dict[int, ElementEnd] = {}
    for array in arrays:
        for index in range(array.elements):
            element = array.first + index
            state = states.get((array.slurm, index)) or accounted.get(f"{array.slurm}_{index}", "")
            attempts = words.get(element, {})
            said = attempts[max(attempts)] if attempts else None
            if said is not None and not is_last(said, wave):
                said = None
            found[element] = _end(folder, wave, element, f"{array.slurm}_{index}", state, said)
    return found


def is_last(event: Mapping[str, Any], wave: Wave) -> bool:
    """Whether an element says nothing after this event. That of a chain goes on when a job of it has ended well."""
    return bool(event["event"] == "element-end" and (event["status"] or event["number"] == wave.last))


def _end(
    folder: LaunchFolder, wave: Wave, element: int, slurm: str, state: str, said: Mapping[str, Any] | None
) -> ElementEnd:
    out = folder.logs / f"{slurm}.out"
    logs = sorted(folder.logs.glob(f"{wave.name}-{element}.[0-9]*.log"), key=restart_of)
    logs = [path for path in logs if restart_of(path) >= 0]
    log = str(logs[-1] if logs else out)
    status = int(said["status"]) if said else None
    text = last_attempt(tail(str(out))) + (tail(log) if logs else "")
    cause = element_cause(state, text, status)
    reason = f"element {element} (job {slurm}) ended as {state or 'nobody knows'}"
    if said:
        reason = str(said["reason"])
    elif cause is Cause.REFUSED:
        reason = refusal(text)
    if status is not None and cause is Cause.KILLED:
        cause = {5: cause, REQUEUE_ME: Cause.TIME, NO_PROGRESS: Cause.TIME}.get(status, Cause.EXCEPTION)
    return ElementEnd(cause, status, reason, log)


def restart_of(log: Path) -> int:
    """The attempt that an element's log NN.W-E.R.log is of; -1 for its task server's, which tells of no end."""
    word = log.name.split(".")[-2]
    return int(word) if word.isdigit() else -1
