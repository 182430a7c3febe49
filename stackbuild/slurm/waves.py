"""What is asked for when tasks that failed are submitted again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from stackbuild.cluster import SlurmOptions, minutes
from stackbuild.launches import Wave
from stackbuild.retries import WAVES, Cause, Failure

FINAL = (Cause.EXCEPTION, Cause.REFUSED, Cause.DISK, Cause.CANCELLED)


def next_wave(
    wave: Wave,
    failures: Sequence[Failure],
    earlier: Mapping[int, Counter[str]],
    options: SlurmOptions,
    number: int,
    stuck: bool,
    got_on: Collection[int] = (),
) -> Wave | None:
    """The wave that tries these tasks again; None if one of them cannot go better, whatever is tried.

    Where a task ran out of memory, each of the wave runs alone in an element, part by part, and has twice what all tasks of an
    element had together (one that ran out was tried alone in that), or as much as the recipe's `max_memory` allows. A job has
    no more elements for this than the recipe allows it, or than it had; then some tasks run one after the other. Time doubles
    if an element got nowhere in what it had (`stuck`). `got_on`: tasks whose element had no more time and got on in what it
    had. Whether they had begun is not known, and each such wave leaves less to do: it is none of their tries.
    """
    for failure in failures:
        if failure.rank in got_on:
            continue
        if failure.cause in FINAL or earlier.get(failure.rank, Counter())[failure.cause] >= WAVES.get(failure.cause, 0):
            return None
    memory = any(failure.cause is Cause.MEMORY for failure in failures)
    ranks = sorted(failure.rank for failure in failures)
    cpus = 1 if memory else min(wave.cpus, len(ranks))
    had = wave.cpus * wave.memory
    more = min(2 * had, options.max_memory - wave.shared)
    if memory and more <= had:
        return None
    alone = memory and wave.last == wave.number
    most = max(wave.elements, options.max_elements) if alone else wave.elements
    return Wave(
        wave.number,
        wave.last,
        number,
        wave.job,
        min(len(ranks), most),
        cpus,
        more if memory else wave.memory,
        wave.shared,
        str(max(1, round(minutes(wave.time) * 2))) if stuck else wave.time,
        ranks,
        one_part=memory or wave.one_part,
    )


def in_time(again: Wave, before: Wave, most: float) -> Wave | None:
    """The wave with no more time than the partition allows, in minutes; None if it needs more than the last one had and cannot
    get it. What asks for more than is allowed would wait in the queue for ever."""
    if minutes(again.time) <= most:
        return again
    return replace(again, time=str(int(most))) if minutes(before.time) < int(most) else None
