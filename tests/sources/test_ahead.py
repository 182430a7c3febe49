"""Looking ahead changes neither the order nor what is raised, and is bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackbuild.sources.ahead import AHEAD, THREADS, looked_at

PATHS = [Path(f"{number:03d}") for number in range(200)]


def test_results_come_in_order_whatever_takes_longest() -> None:
    def look(path: Path) -> str:
        time.sleep(0.02 if path.name == "000" else 0)
        return path.name

    assert [(path, result()) for path, result in looked_at(PATHS, look)] == [(path, path.name) for path in PATHS]


def test_an_error_is_raised_for_its_file_alone() -> None:
    def look(path: Path) -> str:
        if path.name == "007":
            raise OSError("torn")
        return path.name

    found = list(looked_at(PATHS, look))
    with pytest.raises(OSError, match="torn"):
        found[7][1]()
    assert [result() for path, result in found if path.name != "007"] == [p.name for p in PATHS if p.name != "007"]


def test_no_more_is_looked_at_ahead_than_threads_can_soon_do_and_none_after_the_asker_left() -> None:
    given: list[Path] = []

    def paths() -> Iterator[Path]:
        for path in PATHS:
            given.append(path)
            yield path

    before = set(threading.enumerate())
    results = looked_at(paths(), lambda path: path.name)
    next(results)
    assert len(given) <= THREADS * AHEAD
    results.close()  # type: ignore[attr-defined]
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()
