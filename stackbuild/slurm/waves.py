"""What is asked for when tasks that failed are submitted again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
) -> Wave | None:
    """The wave that tries these tasks again; None if one of them cannot go better, whatever is tried.

    Where a task ran out of memory, each of the wave runs in an element of its own, part by part, and has twice what all tasks
    of an element had together (one that ran out was tried alone in that), or as much as the recipe's `max_memory` allows. Time
    doubles if an element got nowhere in what it had.
    """
    for failure in failures:
        if failure.cause in FINAL or earlier.get(failure.rank, Counter())[failure.cause] >= WAVES.get(failure.cause, 0):
            return None
    memory = any(failure.cause is Cause.MEMORY for failure in failures)
    ranks = sorted(failure.rank for failure in failures)
    cpus = 1 if memory else min(wave.cpus, len(ranks))
    had = wave.cpus * wave.memory
    more = min(2 * had, options.max_memory - wave.shared)
    if memory and more <= had:
        return None
    return Wave(
        wave.number,
        wave.last,
        number,
        wave.job,
        len(ranks) if memory and wave.last == wave.number else min(len(ranks), wave.elements),
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
