"""RUN[@STEP|@average|@ema]: weights of a run, as they are named on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from stackbuild.errors import InputError, UsageError
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.train.averaging import means, stored_windows
from stackbuild.train.checkpoint import Checkpoints
from stackbuild.train.config import ModelConfig
from stackbuild.train.model import Decoder

FREE = ("residual_dropout", "embedding_dropout", "attention_dropout", "init_std", "scaled_init", "rope_theta", "window")
SHAPES = ("hidden", "ffn", "vocab_size", "kv_heads")  # which a tensor's shape tells, and so `fill`
WINDOWS = 5  # whose mean "average" is: of 500 steps each, they are the best of Hägele et al. 2024


@dataclass(frozen=True)
class Weights:
    """Weights of a run. `fetch`: a parameter by its canonical name, fp32 on the CPU; `step`: steps that went by when they were these."""

    run: Path
    step: int
    kind: Literal["checkpoint", "average", "ema"]
    model: ModelConfig
    fetch: Callable[[str], torch.Tensor]


def split_name(named: str) -> tuple[Path, str]:
    """The run's folder, and what stands behind the last @ ("" if nothing does). A folder whose name has an @ is taken as it is."""
    if "@" not in named or Path(named).is_dir():
        return Path(named), ""
    folder, _, which = named.rpartition("@")
    return Path(folder), which


def step_of(checkpoints: Checkpoints, which: str) -> int:
    """The step of "" (the newest that is whole) or of digits. UsageError for other words, InputError if there is none."""
    if which.isascii() and which.isdigit():
        return int(which)
    if which:
        raise UsageError(f"@{which}: name a step, as RUN@1000; for an export also @average or @ema")
    newest = checkpoints.newest()
    if newest is None:
        raise InputError(f"{checkpoints.run}: has no checkpoint")
    return newest


def weights(named: str, say: Callable[[str], None], windows: int = WINDOWS) -> Weights:
    """What `named` names. InputError: no such run, step or average; a checkpoint that is not whole."""
    folder, which = split_name(named)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such run")
    checkpoints = Checkpoints(folder, say=say)
    step = step_of(checkpoints, "" if which in ("average", "ema") else which)
    model = ModelConfig.model_validate(checkpoints.manifest(step).model)
    if which == "average":
        chosen = stored_windows(folder)[-windows:]
        fetch = means(chosen)
        return Weights(folder, chosen[-1].last, "average", model, fetch)
    prefix = "averages.ema." if which == "ema" else "model."
    there = checkpoints.contents(step)
    if which == "ema" and not any(name.startswith(prefix) and name != "averages.ema.updates" for name in there):
        raise InputError(f"{folder}: keeps no exponential average: it was begun without averaging.ema, as 0.999")
    if which == "ema" and not int(next(iter(checkpoints.tensors(step, ["averages.ema.updates"])))[1]):
        raise InputError(f"{folder}: its exponential average was not begun at step {step:,}; train on")
    return Weights(
        folder,
        step,
        "ema" if which == "ema" else "checkpoint",
        model,
        lambda name: next(iter(checkpoints.tensors(step, [f"{prefix}{name}"])))[1],
    )


def fill(model: Decoder, found: Weights) -> None:
    """Copy weights into a model that computes what theirs did. InputError names what is another.

    What may differ: dropout, how new weights are drawn, window and base of positions (a stage changes them too), positions that are
    not learned.
    """
    ours, theirs = model.config.model_dump(), found.model.model_dump()
    free = (*FREE, *(() if model.config.learned else ("max_positions",)), *SHAPES)
    for name in sorted(ours):
        if name not in free and ours[name] != theirs[name]:
            raise InputError(f"{found.run}: model.{name} is {theirs[name]} there, and {ours[name]} in the recipe")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            given = found.fetch(name)
            if given.shape != parameter.shape:
                raise InputError(
                    f"{found.run}: {name} has the shape {tuple(given.shape)}, and that of the recipe's model is "
                    f"{tuple(parameter.shape)}; give [model] the shape of the run that it begins with"
                )
            parameter.copy_(given)


def same_tokens(run: Path, tokenizer: Path) -> None:
    """InputError if ids of a corpus, told by its `tokenizer`, stand for other text than those that a run learned.

    Sentinels may differ, and ids that one of them lacks: names are given to reserved places, and vocabularies grow.
    """
    theirs = run / "tokenizer.json"
    if not theirs.is_file() or theirs.read_bytes() == tokenizer.read_bytes():
        return
    learned, given = (Vocabulary(path, checked=True) for path in (theirs, tokenizer))
    named = learned.sentinels.keys() | given.sentinels.keys()
    was, now = (
        {number: text for text, number in one.tokenizer.get_vocab().items() if text not in named}
        for one in (learned, given)
    )
    other = sorted(number for number in was.keys() & now.keys() if was[number] != now[number])
    if other:
        first = other[0]
        raise InputError(
            f"{run}: its tokenizer is not the corpus's: {len(other):,} ids stand for other text, {first} for {was[first]!r} and "
            f"{now[first]!r}. Tokenize the corpus with {theirs}"
        )
