"""Trackers are the real packages, offline, where they are installed (`pip install tensorboard wandb trackio`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stackbuild.train.metrics import open_sinks


def twice(name: str, folder: Path) -> None:
    """Steps 1 to 3, then again from step 2 on, as after a kill."""
    for step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        (sink,) = open_sinks((name,), folder, "project", "tiny", step)
        for at in steps:
            sink.add(at, {"train/loss": 10.0 * (step > 0) + at})
        sink.close()


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    twice("tensorboard", tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 13), (4, 14)]


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_trackers_go_on_with_the_same_run(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    given = []
    first = module.init
    monkeypatch.setattr(module, "init", lambda **words: given.append(words) or first(**words))
    twice(package, tmp_path)
    assert given[0] == given[1]
    assert given[0]["name"] == f"tiny-{(tmp_path / 'tracker-id').read_text().strip()}"
