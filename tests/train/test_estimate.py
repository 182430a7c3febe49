"""What a run will take follows from its recipe."""

from __future__ import annotations

import pytest

from stackbuild.train import flops
from stackbuild.train.estimate import SHARE, estimate
from stackbuild.train.recipe import shape
from tests.train.conftest import recipe


def test_figures_are_those_of_the_model() -> None:
    wanted = recipe(model={"vocab_size": 640})
    model, told = shape(wanted.model, None), estimate(wanted, 600)
    size = flops.parameters(model)
    assert told["parameters"] == size and told["vocab_size"] == 640
    (stage,) = told["stages"]
    assert stage["state_bytes"] == 16 * size and stage["batch_tokens"] == 4 * 64
    assert told["tokens"] == 12 * 256 and told["flops"] == 12 * 256 * flops.flops(model, 64).total
    assert told["device_hours"]["A100"] == pytest.approx(told["flops"] / (312e12 * SHARE) / 3600)


def test_disk_is_every_checkpoint_and_window_that_stays() -> None:
    """Weights, two moments, the window's mean and the exponential one, 4 bytes each; one checkpoint more while it is written."""
    wanted = recipe(checkpoint={"every": 2, "keep_last": 3, "keep_every": 4})
    told = estimate(wanted, 600)
    size = told["parameters"]
    assert told["checkpoint_bytes"] == (3 + 2) * 4 * size
    assert (told["kept_checkpoints"], told["windows"]) == (3 + 3, 2)
    assert told["disk_bytes"] == 7 * told["checkpoint_bytes"] + 2 * 4 * size
    one = estimate(wanted.model_copy(update={"averaging": wanted.averaging.model_copy(update={"keep": 1})}), 600)
    (stage,) = told["stages"]
    assert stage["memory_bytes"] == stage["state_bytes"] + stage["activation_bytes"] + 2 * 4 * size
    assert one["windows"] == 1 and told["disk_bytes"] - one["disk_bytes"] == 4 * size


def test_stages_count_their_own_steps() -> None:
    wanted = recipe(stage=[{"first_step": 8, "window": 16, "data": {"sequence_length": 128, "batch": 2}}])
    first, second = estimate(wanted, 600)["stages"]
    assert first["tokens"] == 8 * 256 and second["tokens"] == 4 * 256
    model = shape(wanted.model, 600).model_copy(update={"window": 16})
    assert second["flops_per_token"] == flops.flops(model, 128).total


def test_a_run_without_end_has_no_sums() -> None:
    values = recipe().model_dump() | {"schedule": {"kind": "constant", "peak": 1e-3}}
    told = estimate(type(recipe()).model_validate(values), 600)
    assert told["steps"] is None and "flops" not in told and "tokens" not in told["stages"][0]


def test_a_plan_counts_the_steps_that_are_asked_for() -> None:
    values = recipe().model_dump() | {"schedule": {"kind": "constant", "peak": 1e-3}}
    told = estimate(type(recipe()).model_validate(values), 600, steps=3)
    assert told["steps"] == 3 and told["tokens"] == 3 * 256
    assert estimate(recipe(), 600, steps=3)["tokens"] == 3 * 256
