"""What must not differ where a run goes on: its folder, its recipe, the stages that began, and the corpora of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stackbuild.errors import InputError, UsageError
from stackbuild.tokens.stages import Stage
from stackbuild.train import schedule
from stackbuild.train.recipe import TrainRecipe

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
BEGUN = {TOKENIZER, "parent.json", "rows", "checkpoints"}  # of a run that was killed before it had its CONFIG
# Tables of a recipe that decide nothing about what came before.
FREE = (
    "schedule", "checkpoint", "validation", "log", "guard", "compile", "unverified", "deviations", "parallel", "checkpoint_layers", "name",
)  # fmt: skip
FREE_INSIDE = ("data.micro_batch", "averaging.keep")


def check_stages(old: Sequence[Stage], new: Sequence[Stage], sample: int) -> None:
    """InputError if a stage that had begun before `sample` is another one now, or stands elsewhere in its sources."""
    begun = [stage for stage in old if stage.first_sample < sample or not stage.first_sample]
    for number, stage in enumerate(begun):
        if number >= len(new):
            raise InputError(f"The recipe has {len(new)} stages, and the run is in its stage {len(begun)} already")
        now = new[number]
        same = stage.first_sample == now.first_sample and stage.batch == now.batch and stage.data == now.data
        if not same:
            raise InputError(
                f"Stage {number} of the data is not what the run was begun with, and samples of it were read. Put it back, or add a "
                "[[stage]] that begins at a step to come."
            )
        if stage.starts != now.starts:
            wrong = sorted(
                name
                for name in {*(stage.starts or {}), *(now.starts or {})}
                if (stage.starts or {}).get(name) != (now.starts or {}).get(name)
            )
            raise InputError(
                f"The corpus is not the one that stage {number} was begun with: {', '.join(wrong)} has other documents. Give the "
                "one it was (a removal does not matter), or add a [[stage]] with the new one at a step to come."
            )


def check_begun(old: TrainRecipe, new: TrainRecipe, step: int) -> None:
    """UsageError if what the data do not tell of a stage that began before `step` is another: its positions, window, masks.

    And if steps that cooled down are to be followed by a higher rate: nothing is warmed up again unasked.
    """
    for number, (was, now) in enumerate(zip(old.stages(), new.stages(), strict=False)):
        values = [
            {
                "document_mask": data.document_mask,
                "rope_theta": table and table.rope_theta,
                "window": table and table.window,
            }
            for _, table, data in (was, now)
        ]
        for name in values[0]:
            if was[0] < step and values[0][name] != values[1][name]:
                raise UsageError(
                    f"{name} of stage {number} was {values[0][name]}, is {values[1][name]}, and steps of it went by. Put it back"
                )
    if step and schedule.cools(old.schedule, step - 1):
        before, after = (schedule.learning_rate(one.schedule, at) for one, at in ((old, step - 1), (new, step)))
        if after > before:
            raise UsageError(
                f"Step {step:,} is in a cooldown, at a rate of {before:g}, and schedule would raise it to {after:g}. Go on from a "
                "checkpoint of before the cooldown: `cooldown --from RUN@STEP`, or `train --from RUN@STEP` with a schedule of its own"
            )


def differences(old: TrainRecipe, new: TrainRecipe, folder: Path) -> dict[str, tuple[Any, Any]]:
    """What of a recipe changed, by dotted key; UsageError for what must not."""
    found: dict[str, tuple[Any, Any]] = {}
    was, now = old.model_dump(mode="json"), new.model_dump(mode="json")
    for key in sorted({*was, *now}):
        inside = isinstance(was[key], dict) and isinstance(now[key], dict)
        pairs = (
            {f"{key}.{name}": (was[key].get(name), now[key].get(name)) for name in {*was[key], *now[key]}}
            if inside
            else {key: (was[key], now[key])}
        )
        found |= {name: pair for name, pair in sorted(pairs.items()) if pair[0] != pair[1]}
    free = (*FREE, "stage", *FREE_INSIDE)
    fixed = [name for name in found if name.split(".")[0] not in free and name not in free]
    if fixed:
        told = "; ".join(f"{name} was {found[name][0]}, is {found[name][1]}" for name in fixed[:5])
        raise UsageError(
            f"{folder}: its run was begun with another recipe: {told}. Name another output folder, or put it back; what may change "
            f"while a run goes on is {', '.join((*FREE, *FREE_INSIDE))}, and stages to come."
        )
    return found


def refuse_stranger(folder: Path) -> None:
    """UsageError if a folder holds what no run wrote: nothing is written into somebody's corpus or home."""
    if (folder / CONFIG).exists() or not folder.exists():
        return
    try:
        there = {path.name for path in folder.iterdir()}
        other = sorted(
            name for name in there - BEGUN if not name.startswith(".")
        )  # those: what a kill left half-written
    except OSError as error:
        raise UsageError(f"{folder}: is no folder that a run can be kept in: {error.strerror}") from error
    if other:
        raise UsageError(
            f"{folder} is not a run and not empty: it holds {', '.join(other[:3])}{' ...' if other[3:] else ''}. Name another folder"
        )
