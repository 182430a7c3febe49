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

from stackbuild.errors import UsageError
from stackbuild.train import schedule
from stackbuild.train.checkpoint import Checkpoints
from stackbuild.train.recipe import StageTable, TrainRecipe
from stackbuild.train.run import CONFIG, Run, open_run, read_config, refuse_stranger
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
    step = step_of(checkpoints, which)
    recipe = TrainRecipe.model_validate(read_config(trunk)["recipe"])
    cooled = schedule.branch(recipe.schedule, step, int(length) if length >= 1 else length, shape, final, beta2)
    stages = tuple(stage for stage in recipe.stage if stage.first_step < step)
    if data or "cooldown" in corpora:
        stages += (
            StageTable(first_step=step, corpus="cooldown" if "cooldown" in corpora else None, data=dict(data or {})),
        )
    wanted = TrainRecipe.model_validate(
        recipe.model_dump() | {"schedule": cooled.model_dump(), "stage": [stage.model_dump() for stage in stages]}
    )
    files = {name: file.sha256 for name, file in checkpoints.manifest(step).files.items()}
    parent = {"version": 1, "run": recipe.name, "step": step, "files": files}
    if (folder / CONFIG).exists():
        refuse_another(folder, parent)
    refuse_stranger(folder)
    checkpoints.branch(step, folder.name)

    def begin(run: Run) -> None:
        run.take_up(step, checkpoints.load(step, run.tensors()))
        run.save()

    return open_run(folder, wanted, corpora, device, say, begin, parent)


def refuse_another(folder: Path, parent: Mapping[str, Any]) -> None:
    """UsageError if the run in a folder does not come from this checkpoint."""
    path = folder / "parent.json"
    known = json.loads(path.read_bytes()) if path.exists() else None
    if known != dict(parent):
        raise UsageError(f"{folder}: holds another run, or one that branched off elsewhere. Name another folder")
