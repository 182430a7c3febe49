"""The bounds of a fetch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Bounds. None of them changes a result but `max_bytes`, and those that say how long to be patient.

    max_bytes: of a content; a longer one is "too_large" and not asked for (the archive holds none above 100 MB).
    concurrency: requests at a time, at most. tries: of one object while the store is busy or fails. back_off: seconds before
    the second try, doubled each time, jittered; longest_wait: the longest pause, also if a server asks for more. timeout: seconds
    without a byte; deadline: seconds of one request. patience: seconds without any answer from the store, refusals: objects
    refused one after the other, before the store is said not to answer. window: objects that may wait for one before them.
    memory_bytes: of bodies and contents at a time, the consumer's apart; one object may always be had.
    """

    max_bytes: int = 100 * 1024 * 1024
    concurrency: int = 128
    tries: int = 8
    back_off: float = 0.25
    longest_wait: float = 30.0
    timeout: float = 30.0
    deadline: float = 600.0
    patience: float = 60.0
    refusals: int = 64
    window: int = 4_096
    memory_bytes: int = 256 * 1024 * 1024
