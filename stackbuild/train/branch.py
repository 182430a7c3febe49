"""A cooldown that branches off a trunk: a run of its own, which begins with a checkpoint of another.

The trunk goes on undecayed, its checkpoint stays for as long as the branch is marked, and many branches may leave one step. The
branch reads on where the trunk stood in its data, with other data if it is given some.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from stackbuild.errors import InputError, UsageError
from stackbuild.train import schedule
from stackbuild.train.branches import branches, unmark_branch
from stackbuild.train.checkpoint import Checkpoints
from stackbuild.train.recipe import StageTable, TrainRecipe
from stackbuild.train.run import Run, open_run, read_config
from stackbuild.train.run_checks import CONFIG, refuse_stranger
from stackbuild.train.where import split_name, step_of


def open_branch(
    named: str,
    length: float,
    shape: schedule.Shape,
    final: float,
    folder: Path,
    corpora: Mapping[str, Path],
    device: torch.device,
    say: Callable[[str], None],
    data: Mapping[str, Any] | None = None,
    beta2: float | None = None,
) -> Run:
    """Open RUN2 = `folder` as a cooldown of `length` steps, or of that fraction of the whole below 1, from RUN[@STEP].

    `data`: what of [data] is other in the cooldown; `corpora` may have one named "cooldown" for it. Called again it goes on. UsageError: a
    step that is no place to branch at, a folder that holds another run.
    """
    trunk, which = split_name(named)
    checkpoints = Checkpoints(trunk, say=say)
    known = parent_of(folder)
    # Called again, it goes on from where it left the trunk, which may have gone on since.
    step = int(known["step"]) if known is not None and not which else step_of(checkpoints, which)
    recipe = TrainRecipe.model_validate(read_config(trunk)["recipe"])
    cooled = schedule.branch(recipe.schedule, step, int(length) if length >= 1 else length, shape, final, beta2)
    stages = tuple(stage for stage in recipe.stage if stage.first_step < step)
    if data or "cooldown" in corpora:
        stages += (
            StageTable(first_step=step, corpus="cooldown" if "cooldown" in corpora else None, data=dict(data or {})),
        )
    values = recipe.model_dump() | {"schedule": cooled.model_dump(), "stage": [stage.model_dump() for stage in stages]}
    try:
        wanted = TrainRecipe.model_validate(values)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UsageError(f"The cooldown's options do not fit the run: {told}") from error
    files = {name: file.sha256 for name, file in checkpoints.manifest(step).files.items()}
    parent = {"version": 1, "run": recipe.name, "step": step, "files": files}
    if (folder / CONFIG).exists():
        refuse_another(folder, parent)
    refuse_stranger(folder)
    anew = folder.name not in branches(trunk)
    checkpoints.branch(step, folder.name)

    def begin(run: Run) -> None:
        run.take_up(step, checkpoints.load(step, run.tensors()))

    try:
        return open_run(folder, wanted, corpora, device, say, begin, parent)
    except BaseException:
        if anew and not (folder / CONFIG).exists():
            unmark_branch(trunk, folder.name)  # nothing came of it
        raise


def refuse_another(folder: Path, parent: Mapping[str, Any]) -> None:
    """UsageError if the run in a folder does not come from this checkpoint."""
    if parent_of(folder) != dict(parent):
        raise UsageError(f"{folder}: holds another run, or one that branched off elsewhere. Name another folder")


def parent_of(folder: Path) -> dict[str, Any] | None:
    """What the parent.json of a run says, None where it has none. InputError: it cannot be read."""
    path = folder / "parent.json"
    if not path.is_file():
        return None
    try:
        told: dict[str, Any] = json.loads(path.read_bytes())
        str(told["run"]), int(told["step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: does not say where the run comes from: {error!r}") from error
    return told
