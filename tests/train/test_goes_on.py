"""Where a run goes on, branches off, or went back: what is kept is what was trained, and what differs is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stackbuild.errors import InputError, UsageError
from stackbuild.train import loop
from stackbuild.train.averaging import mean_of_windows, stored_windows
from stackbuild.train.branch import open_branch
from stackbuild.train.branches import branches
from stackbuild.train.checkpoint import Checkpoints
from stackbuild.train.estimate import estimate
from stackbuild.train.hf_config import from_hf, to_hf
from stackbuild.train.metrics import Metrics, read_metrics
from stackbuild.train.recipe import shape
from stackbuild.train.run import Run
from stackbuild.train.where import weights
from tests.train.conftest import recipe
from tests.train.test_run import trained

Opened = Callable[..., Run]
STAGES = [{"first_step": 4, "rope_theta": 1e6, "window": 8}]


def test_a_checkpoint_at_the_border_of_stages_is_of_the_stage_that_was_trained(opened: Opened) -> None:
    run = opened(recipe(stage=STAGES, checkpoint={"every": 4, "keep_last": 10}))
    trained(run)
    told = {step: Checkpoints(run.folder).manifest(step).model for step in (4, 8)}
    assert (told[4]["rope_theta"], told[4]["window"]) == (1e4, None)
    assert (told[8]["rope_theta"], told[8]["window"]) == (1e6, 8)


@pytest.mark.parametrize("change", [{"rope_theta": 1e5}, {"window": 9}, {"data": {"document_mask": False}}])
def test_what_a_stage_that_began_computes_must_stay(opened: Opened, change: dict[str, Any]) -> None:
    trained(opened(recipe(stage=STAGES)), 6)
    with pytest.raises(UsageError, match=f"{next(iter(change.get('data', change)))} of stage 1 was .* Put it back"):
        opened(recipe(stage=[STAGES[0] | change]))
    trained(opened(recipe(stage=STAGES)), 7)


def test_a_stage_that_the_family_cannot_have_is_refused_with_the_recipe() -> None:
    with pytest.raises(ValueError, match="gpt_bigcode has no sliding window"):
        recipe(
            model={"family": "gpt_bigcode", "kv_heads": 1, "rope_theta": None}, stage=[{"first_step": 4, "window": 8}]
        )


def test_nothing_is_warmed_up_again_behind_a_cooldown(opened: Opened) -> None:
    trained(opened(recipe()))
    with pytest.raises(
        UsageError, match=r"Step 12 is in a cooldown, at a rate of 0, and schedule would raise it to 0\.003"
    ):
        opened(recipe(schedule={"steps": 40}))


def test_a_run_that_ends_amid_bad_steps_is_kept_and_goes_on(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop._step

    def wrong(run: Run, batch: Any, first: int) -> Any:
        step = real(run, batch, first)
        return step._replace(loss=float("nan")) if first >= 40 else step

    monkeypatch.setattr(loop, "_step", wrong)
    run = opened(recipe(checkpoint={"every": 4, "keep_last": 1}))
    trained(run)
    assert Checkpoints(run.folder).steps() == [8, 12]  # 8: where it would go back to
    again = opened(recipe(checkpoint={"every": 4, "keep_last": 1}))
    assert again.progress.step == 12 and again.guard.first_bad == 10
    again.close()


def test_each_step_is_once_in_the_metrics_after_a_rewind_and_a_second_end(tmp_path: Path) -> None:
    for _ in range(2):
        metrics = Metrics(tmp_path, 12, [])
        for step in (2, 4, 6):
            metrics.add("train", step, {"loss": step})
        metrics.add("note", 6, {"text": "Step 6 is not taken"})
        metrics.add("note", 4, {"text": "Back to 4"})
        for step in (6, 8):
            metrics.add("train", step, {"loss": step + 0.5})
        metrics.add("validation", 8, {"loss": 1})
        metrics.add("validation", 8, {"loss": 1})
        metrics.close()
        found = [(line["kind"], line["step"], line.get("loss")) for line in read_metrics(tmp_path)]
        if not _:
            first = found
    assert [one for one in first if one[0] != "note"] == [
        ("train", 2, 2), ("train", 4, 4), ("train", 6, 6.5), ("train", 8, 8.5), ("validation", 8, 1)
    ]  # fmt: skip
    assert sum(kind == "note" for kind, *_ in first) == 2


def branch(trunk: str, folder: Path, corpus: Path, length: float = 2) -> Run:
    return open_branch(trunk, length, "linear", 0.0, folder, {"": corpus}, torch.device("cpu"), lambda text: None)


def test_a_cooldown_goes_on_when_its_trunk_has_gone_on(opened: Opened, corpus: Path, tmp_path: Path) -> None:
    constant = {"kind": "constant", "cooldown": None, "steps": None}
    trunk = opened(recipe(schedule=constant))
    trained(trunk, 4)
    trained(branch(str(trunk.folder), tmp_path / "cold", corpus), 5)
    trained(opened(recipe(schedule=constant)), 8)
    again = branch(str(trunk.folder), tmp_path / "cold", corpus)
    assert again.progress.step == 5
    again.close()


def test_a_branch_that_came_to_nothing_holds_nothing(
    opened: Opened, corpus: Path, another: Path, tmp_path: Path
) -> None:
    trunk = opened(recipe(schedule={"kind": "constant", "cooldown": None, "steps": None}))
    trained(trunk, 8)
    with pytest.raises(InputError, match="The corpus is not the one"):
        branch(f"{trunk.folder}@4", tmp_path / "cold", another)
    assert branches(trunk.folder) == {}
    branch(f"{trunk.folder}@8", tmp_path / "cold", corpus).close()
    assert branches(trunk.folder) == {"cold": 8}


def test_a_window_that_was_changed_is_not_averaged(opened: Opened) -> None:
    run = opened(recipe())
    trained(run)
    (path, *_) = sorted((run.folder / "averages").glob("window-*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{path.name}: .* is not what was written"):
        list(mean_of_windows(stored_windows(run.folder)))


def test_an_average_that_was_not_begun_is_no_model(opened: Opened) -> None:
    run = opened(recipe(averaging={"every": 50, "window": None, "ema": 0.9}))
    trained(run)
    with pytest.raises(InputError, match="was not begun at step 12"):
        weights(f"{run.folder}@ema", lambda text: None)


def test_scaled_positions_are_refused_by_either_name() -> None:
    config = shape(recipe().model, 512)
    told = to_hf(config, "float32", None, None)
    assert from_hf(told, "x").rope_theta == config.rope_theta
    with pytest.raises(InputError, match="of type 'linear'"):
        from_hf(told | {"rope_scaling": {"type": "linear", "factor": 4.0}}, "x")


def test_a_plan_of_a_stage_behind_the_end_counts_nothing_below_zero() -> None:
    told = estimate(recipe(stage=[{"first_step": 500, "window": 8}]), 512)
    assert [stage["tokens"] for stage in told["stages"]] == [12 * 4 * 64, 0]


def test_a_recipe_tells_no_escapes_to_a_terminal() -> None:
    with pytest.raises(ValueError, match="control characters"):
        recipe(unverified=["\x1b[2Jgone"])


def test_from_is_of_the_run_that_it_was(opened: Opened, tmp_path: Path) -> None:
    """A run that was begun from weights keeps them, so that it goes on without; and never takes others instead."""
    first = opened(recipe(), "first")
    trained(first, 4)

    def begin(run: Run) -> None:
        with torch.no_grad():
            for parameter in run.model.parameters():
                parameter.fill_(0.5)

    parent = {"version": 1, "run": "first", "step": 4, "weights": "checkpoint"}
    run = opened(recipe(), "second", begin=begin, parent=parent)
    run.close()
    again = opened(recipe(), "second")
    assert float(again.model.embed.weight[0, 0].detach()) == 0.5
    again.close()
    for path in (run.folder / "checkpoints").glob("step-*"):
        path.rename(tmp_path / path.name)
    with pytest.raises(UsageError, match="Give --from again"):
        opened(recipe(), "second")
    assert json.loads((run.folder / "parent.json").read_text()) == parent
