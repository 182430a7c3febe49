"""How many rows each window of a source has: the one index that batches need, counted by several processes.

Each count is a file of its own in the cache, written whole: a run that was killed goes on where it was, on several machines too.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from stackbuild.errors import InputError
from stackbuild.tokens.data_config import DataConfig
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.source_rows import SourceRows, open_sources

WINDOWS = 4  # that a process counts at a time: neighbours are of the same shards


class Counted(NamedTuple):
    """The rows of an epoch of a source."""

    source: str
    epoch: int
    windows: int
    rows: int


def count_rows(
    folder: str | Path,
    config: DataConfig,
    seed: int,
    cache: str | Path,
    epochs: int = 1,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Counted]:
    """Count the rows of the first epochs of all sources. `progress`: is told how many windows are done, and of how many.

    InputError for a corpus that cannot be read, or a source that it lacks.
    """
    if config.order == "megatron":
        raise InputError('order = "megatron" has no windows to count: its rows are `samples`')
    sources = open_sources(TokensDataset(folder), config, seed, Path(cache))
    asked = [
        (place, range(first, min(first + WINDOWS, epochs * source.windows)))
        for place, source in enumerate(sources)
        for first in range(0, epochs * source.windows, WINDOWS)
    ]
    done, total = 0, sum(len(numbers) for _, numbers in asked)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _open, (folder, config, seed, cache)) as pool:
        for counted in pool.map(_count, asked):
            done += counted
            progress(done, total)
    return [
        Counted(source.name, epoch, source.windows, source.rows(epoch)) for source in sources for epoch in range(epochs)
    ]


_SOURCES: list[SourceRows] = []  # of a process of the pool


def _open(folder: str | Path, config: DataConfig, seed: int, cache: str | Path) -> None:
    _SOURCES[:] = open_sources(TokensDataset(folder), config, seed, Path(cache))


def _count(asked: tuple[int, range]) -> int:
    place, numbers = asked
    for number in numbers:
        _SOURCES[place].count(number)
    return len(numbers)
