"""Components do not depend on how edges arrive, and taking edges in costs no more for arriving in small batches."""

from __future__ import annotations

import numpy as np
import pytest

from stackbuild.dedup import components
from stackbuild.dedup.components import Forest, Numbers


def edges(count: int, files: int) -> tuple[Numbers, Numbers]:
    """Random edges between files whose numbers are far apart."""
    draw = np.random.default_rng(5)
    numbers = np.unique(draw.integers(0, 1 << 62, files))
    return numbers[draw.integers(0, len(numbers), count)], numbers[draw.integers(0, len(numbers), count)]


def smallest_reached(left: Numbers, right: Numbers) -> dict[int, int]:
    """The smallest file that each file reaches, by asking neighbours until nothing changes."""
    found = {int(file): int(file) for file in np.union1d(left, right)}
    changed = True
    while changed:
        changed = False
        for i, j in zip(left.tolist(), right.tolist(), strict=True):
            least = min(found[i], found[j])
            changed = changed or found[i] != least or found[j] != least
            found[i] = found[j] = least
    return found


@pytest.mark.parametrize(("batch", "at_once"), [(1, 1), (1, 16), (7, 64), (300, 1), (300, 1_000)])
def test_labels_are_the_smallest_file_of_the_component_however_edges_arrive(batch: int, at_once: int) -> None:
    left, right = edges(300, 350)
    forest = Forest(at_once)
    for start in range(0, len(left), batch):
        forest.add(left[start : start + batch], right[start : start + batch])
    files, labels = forest.labels()
    assert (np.diff(files) > 0).all()
    assert dict(zip(files.tolist(), labels.tolist(), strict=True)) == smallest_reached(left, right)


def test_files_are_gone_through_as_often_as_they_double_and_not_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one task would take a day for the merges of ten thousand million files."""
    joined: list[int] = []

    def counted(parents: Numbers, left: Numbers, right: Numbers) -> None:
        joined.append(len(parents))
        join(parents, left, right)

    join = components.join
    monkeypatch.setattr(components, "join", counted)
    left, right = edges(4_000, 100_000)
    forest = Forest(at_once=10)
    for start in range(0, len(left), 10):
        forest.add(left[start : start + 10], right[start : start + 10])
    files, _ = forest.labels()
    assert sum(joined) < 4 * len(files)


def test_no_edges_are_no_files() -> None:
    files, labels = Forest().labels()
    assert len(files) == len(labels) == 0
