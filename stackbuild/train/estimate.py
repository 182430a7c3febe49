"""What a run will take, before it is begun: memory, disk, operations, time. `stackbuild train --plan`.

Memory and operations are those of `flops`; disk is 16 bytes a parameter for each checkpoint that is kept. Time is operations over what a
device does: its peak in bf16 times the share that StarCoder2-3B's trainer reached (0.45 is the goal here), or a rate that is given.
"""

from __future__ import annotations

from typing import Any

from stackbuild.train import flops
from stackbuild.train.config import ModelConfig
from stackbuild.train.loss import chunk_rows
from stackbuild.train.recipe import TrainRecipe, shape

SHARE = 0.45  # of a device's peak
DEVICES = ("A100", "H100")


def estimate(recipe: TrainRecipe, tokens: int | None, steps: int | None = None) -> dict[str, Any]:
    """Figures by name. `tokens`: of the tokenizer, where a corpus is given; `steps`: where it is to stop, if not with its schedule.

    Bytes, FLOPs, device-hours.
    """
    model = shape(recipe.model, tokens)
    stages = recipe.stages()
    steps = recipe.schedule.steps if steps is None else steps
    size = flops.parameters(model)
    told: dict[str, Any] = {
        "parameters": size,
        "vocab_size": model.vocab_size,
        "steps": steps,
        "stages": [_stage(recipe, model, number, steps) for number in range(len(stages))],
        "checkpoint_bytes": flops.STATE_BYTES * size // 4 * 3 + _averages(recipe, size),
        "unverified": list(recipe.told()),
        "deviations": dict(recipe.deviations),
    }
    kept = recipe.checkpoint.keep_last
    if recipe.checkpoint.keep_every and steps:
        kept += steps // recipe.checkpoint.keep_every
    windows = 0 if recipe.averaging.window is None or steps is None else steps // recipe.averaging.window
    windows = min(windows, recipe.averaging.keep)
    told["kept_checkpoints"], told["windows"] = kept, windows
    told["disk_bytes"] = (kept + 1) * told["checkpoint_bytes"] + windows * 4 * size  # one more while it is written
    if steps is not None:
        told["tokens"] = sum(stage["tokens"] for stage in told["stages"])
        told["flops"] = sum(stage["flops"] for stage in told["stages"])
        told["device_hours"] = {name: told["flops"] / (flops.PEAKS[name] * SHARE) / 3600 for name in DEVICES}
    return told


def _averages(recipe: TrainRecipe, size: int) -> int:
    return 4 * size * ((recipe.averaging.window is not None) + (recipe.averaging.ema is not None))


def _stage(recipe: TrainRecipe, model: ModelConfig, number: int, steps: int | None) -> dict[str, Any]:
    stages = recipe.stages()
    first, table, data = stages[number]
    if table is not None and table.window is not None:
        model = model.model_copy(update={"window": table.window})
    last = stages[number + 1][0] if number + 1 < len(stages) else steps
    if steps is not None:
        first, last = min(first, steps), min(last or steps, steps)  # a stage may begin behind the end
    cost = flops.flops(model, data.sequence_length)
    need = flops.memory(
        model,
        data.rows_at_once,
        data.sequence_length,
        checkpoint_layers=recipe.checkpoint_layers,
        low=recipe.precision == "bf16",
        logits=min(chunk_rows(model.vocab_size, "cuda"), data.rows_at_once * data.sequence_length) * model.vocab_size,
    )
    averages = _averages(recipe, flops.parameters(model))
    found: dict[str, Any] = {
        "first_step": first,
        "sequence_length": data.sequence_length,
        "batch_tokens": data.batch * data.sequence_length,
        "flops_per_token_6n": cost.matrices,
        "flops_per_token": cost.total,
        "state_bytes": need.state,
        "activation_bytes": need.activations + need.logits,
        "averages_bytes": averages,
        "memory_bytes": need.total + averages,
    }
    if last is not None:
        found["tokens"] = (last - first) * found["batch_tokens"]
        found["flops"] = found["tokens"] * cost.total
    return found
