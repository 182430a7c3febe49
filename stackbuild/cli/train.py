"""`stackbuild train`, `cooldown`, `export`, `import`: from tokens to a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from stackbuild.cli.train_need import need_torch
from stackbuild.errors import InputError, PartialFailure, UsageError


def train(
    recipe: str,
    data: Sequence[str],
    output: Path | None,
    sets: Sequence[str],
    steps: int | None,
    weights: str | None,
    device: str,
    plan: bool,
    as_json: bool,
) -> None:
    """Train, or go on; with `plan` tell what it would take."""
    need_torch()
    from stackbuild.cli.train_recipe import load
    from stackbuild.train.device import device_of
    from stackbuild.train.run import Run, open_run

    wanted, corpora = load(recipe, sets), named(data)
    if plan:
        _plan(wanted, corpora, steps, as_json)
        return
    if output is None:
        raise UsageError("Say where the run is kept: --output RUN")
    if "" not in corpora:
        raise UsageError("Say what to train on: --data OUT, the output folder of a build")
    for text in wanted.told():
        _say(f"[unverified] {text}")
    for name, text in wanted.deviations.items():
        _say(f"[deviation] {name}: {text}")
    begin: Callable[[Run], None] | None = None
    parent: dict[str, Any] | None = None
    if weights is not None:
        begin, parent = _from(weights, corpora[""], output)
    run = open_run(output, wanted, corpora, device_of(device), _say, begin, parent)
    _go(run, steps, as_json)


def cooldown(
    trunk: str,
    length: str,
    shape: str,
    final: float,
    output: Path,
    data: Sequence[str],
    options: Path | None,
    beta2: float | None,
    device: str,
    as_json: bool,
) -> None:
    """Branch a cooldown off a run, and train it to its end; again: go on."""
    need_torch()
    from stackbuild.train.branch import open_branch
    from stackbuild.train.device import device_of
    from stackbuild.train.schedule import Shape

    if shape not in get_args(Shape):
        raise UsageError(f"--shape {shape}: there are {', '.join(get_args(Shape))}")
    corpora = named(data)
    if "" not in corpora:
        raise UsageError("Say what the run was trained on: --data OUT, as it was begun with")
    other = _toml(options) if options is not None else None
    run = open_branch(trunk, _length(length), shape, final, output, corpora, device_of(device), _say, other, beta2)  # type: ignore[arg-type]
    _go(run, None, as_json)


def export(named_run: str, out: Path, dtype: str, windows: int, shard: str) -> None:
    """Write a model that transformers loads."""
    need_torch()
    from stackbuild.cluster import size_in_bytes
    from stackbuild.train.hf import export_model
    from stackbuild.train.where import weights

    known = {"bf16": "bfloat16", "bfloat16": "bfloat16", "fp32": "float32", "float32": "float32"}
    if dtype not in known:
        raise UsageError(f"--dtype {dtype}: there are bf16 and fp32")
    try:
        shard_bytes = int(size_in_bytes(shard))
    except ValueError:
        raise UsageError(f"--shard {shard}: give bytes, or a size as 5GB") from None
    found = weights(named_run, _say, windows)
    tokenizer = found.run / "tokenizer.json"
    export_model(
        found.fetch,
        found.model,
        tokenizer if tokenizer.exists() else None,
        out,
        dtype=known[dtype],  # type: ignore[arg-type]
        shard_bytes=shard_bytes,
    )
    _say(f"{out}: the {found.kind} of step {found.step:,}, {known[dtype]}")


def import_(folder: Path, run: Path) -> None:
    """Write a folder in the Hugging Face layout as a run of no steps, to train on from or to export."""
    need_torch()
    import shutil

    from stackbuild.train.checkpoint import Checkpoints
    from stackbuild.train.hf import import_model

    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UsageError(f"{run}: is there already; name a new folder")
    model, tensors = import_model(folder)
    tokenizer = folder / "tokenizer.json"
    if tokenizer.is_file():
        from stackbuild.tokens.bpe import Vocabulary

        size = Vocabulary(tokenizer, checked=True).size
        if size > model.vocab_size:
            raise InputError(f"{tokenizer}: has {size:,} tokens, and the model {model.vocab_size:,}")
    checkpoints = Checkpoints(run, say=_say)
    try:
        named_tensors = {f"model.{name}": tensor.float() for name, tensor in tensors}
        wrong = [name for name, tensor in named_tensors.items() if not tensor.isfinite().all()]
        if wrong:
            raise InputError(f"{folder}: {', '.join(wrong[:3])} holds numbers that are not finite")
        checkpoints.save(0, named_tensors, {"imported": True}, model=model.model_dump())
        if tokenizer.is_file():
            shutil.copyfile(tokenizer, run / "tokenizer.json")
    finally:
        checkpoints.release()
    _say(f"{run}: {model.family}, {sum(tensor.numel() for tensor in named_tensors.values()):,} parameters")


def named(data: Sequence[str]) -> dict[str, Path]:
    """`--data OUT` and `--data NAME=OUT` as folders by name; the first is named "". UsageError for a name that is given twice."""
    found: dict[str, Path] = {}
    for one in data:
        name, equals, folder = one.partition("=")
        key, path = (name, folder) if equals and name.isidentifier() else ("", one)
        if key in found:
            raise UsageError(
                f"--data {one}: {'the corpus ' + key if key else 'a corpus without a name'} is given twice"
            )
        found[key] = Path(path)
    return found


def _go(run: Any, steps: int | None, as_json: bool) -> None:
    from stackbuild.cli.train_progress import reporting
    from stackbuild.train.loop import train

    last = run.recipe.schedule.steps if steps is None else steps
    _say(
        f"{run.folder}: {sum(p.numel() for p in run.model.parameters()):,} parameters, step {run.progress.step:,}, on {run.device}"
    )
    if last is not None and run.progress.step >= last:
        more = "schedule.steps" if steps is None else "--steps"
        _say(
            f"{run.folder}: has its {last:,} steps{'' if run.recipe.schedule.kind == 'cooldown' else f'; give more with {more}'}"
        )
    try:
        with reporting(run, last) as report:
            finished = train(run, steps, report)
    finally:
        run.close()
    if as_json:
        print(
            json.dumps(
                {"run": str(run.folder), "step": run.progress.step, "tokens": run.progress.tokens, "finished": finished}
            )
        )
    if not finished and last is not None:
        end = run.batches.end(run.progress.sample)
        if end is not None and run.progress.sample + run.span().data.batch > end:
            raise PartialFailure(
                f"{run.folder}: its data ends with step {run.progress.step:,} of {last:,}. Allow the sources more `epochs` in a "
                "[[stage]] to come, or set schedule.steps"
            )
        raise PartialFailure(
            f"{run.folder}: stopped at step {run.progress.step:,} of {last:,}; the same command goes on from there."
        )


def _from(named_run: str, corpus: Path, output: Path) -> tuple[Callable[[Any], None] | None, dict[str, Any] | None]:
    """What fills a new run with the weights of another, and what its parent.json says."""
    from stackbuild.tokens.dataset import TokensDataset
    from stackbuild.train.branch import parent_of
    from stackbuild.train.checkpoint import Checkpoints
    from stackbuild.train.where import fill, same_tokens, split_name, weights

    folder, which = split_name(named_run)
    known = parent_of(output)
    if known is not None:  # it goes on: from where it began, though the other run may have gone on since
        began = str(known["step"]) if known.get("weights", "checkpoint") == "checkpoint" else known["weights"]
        if known["run"] != folder.name or which not in ("", began):
            raise UsageError(
                f"{output}: was begun from {known['run']}@{began}, not from {named_run}. Name another folder"
            )
        named_run = f"{folder}@{began}"
        if Checkpoints(output).steps():  # its weights are its own
            return None, None
    found = weights(named_run, _say)
    same_tokens(found.run, TokensDataset(corpus).tokenizer)

    def begin(run: Any) -> None:
        fill(run.model, found)

    return begin, {
        "version": 1,
        "run": found.run.name,
        "step": found.step,
        "weights": found.kind,
    }


def _plan(recipe: Any, corpora: dict[str, Path], steps: int | None, as_json: bool) -> None:
    from stackbuild.cli.train_plan import show
    from stackbuild.tokens.dataset import TokensDataset
    from stackbuild.train.estimate import estimate

    tokens = TokensDataset(corpora[""]).manifest.vocab_size if "" in corpora else None
    told = estimate(recipe, tokens, steps)
    if as_json:
        print(json.dumps(told))
    else:
        show(recipe.name, told)


def _length(text: str) -> float:
    """Steps, or a fraction."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e12 or (value >= 1 and value != int(value)):
        raise UsageError(f"--length {text}: give a number of steps, or a fraction of the whole run, as 0.2")
    return value


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: is not TOML: {error}") from error


def _say(text: str) -> None:
    print(text, file=sys.stderr)
