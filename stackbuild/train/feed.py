"""Batches made ahead of the loop, in a thread: what a step reads is there when the step before it ends.

A batch is a function of its sample numbers, so what is made ahead and not taken (after a rewind) is thrown away and changes nothing.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from stackbuild.tokens.batches import Rows


class Source(Protocol):
    """What makes batches, as `tokens.stages.StagedBatches`."""

    def batch(self, first_sample: int, n: int) -> Rows:
        """Samples `first_sample` to `first_sample` + n - 1."""
        ...


class Feed:
    """Batches of `source`, at most `ahead` of them made before they are asked for. A context: its thread ends with it.

    One thread alone calls `source`, which need not be safe for more.
    """

    def __init__(self, source: Source, ahead: int = 2):
        self._source, self._ahead = source, ahead
        self._made: dict[tuple[int, int], Future[Rows]] = {}

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def take(self, first: int, n: int, then: list[tuple[int, int]]) -> Rows:
        """Samples `first` to `first` + n - 1. `then`: the batches that will be asked for next, in order, (first, n) each."""
        wanted = [(first, n), *then[: self._ahead]]
        for key in [key for key in self._made if key not in wanted]:
            self._made.pop(key).cancel()
        for key in wanted:
            if key not in self._made:
                self._made[key] = self._thread.submit(self._source.batch, *key)
        return self._made.pop((first, n)).result()
