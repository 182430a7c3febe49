"""A run: its folder, and everything that a step needs, put together from a recipe and its corpora.

    RUN/config.json       what it is: recipe, model, corpora by their digests, stages, parent; what was changed since, and at which step
        tokenizer.json    of its corpora
        checkpoints/  averages/  branches/  metrics.jsonl  rows/ (numbers of rows, which can be counted again)

Where a run is, is in its checkpoints alone. Opened again with the same recipe it goes on; what may differ then is what decides
nothing about the steps that were taken (`FREE`), and stages that have not begun.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from stackbuild.errors import InputError, UsageError
from stackbuild.shards import canonical_json, write_atomically
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.stages import Stage, StagedBatches
from stackbuild.train import flops
from stackbuild.train.averaging import Averages
from stackbuild.train.checkpoint import Checkpoints
from stackbuild.train.config import ModelConfig
from stackbuild.train.device import enough_memory
from stackbuild.train.guard import Guard
from stackbuild.train.model import Decoder, initialise
from stackbuild.train.optim import adamw, optimizer_state
from stackbuild.train.recipe import TrainData, TrainRecipe, of_stage, shape
from stackbuild.train.run_checks import CONFIG, TOKENIZER, check_begun, check_stages, differences, refuse_stranger
from stackbuild.train.validation import Validation

VERSION = 1


@dataclass
class Progress:
    """Where a run is. `step`: steps that went by; `sample`: the next of the data; `tokens`: labels that were trained on."""

    step: int = 0
    sample: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Span:
    """A stage of a run: its first step, data, model, and corpus."""

    first_step: int
    first_sample: int
    data: TrainData
    model: ModelConfig
    corpus: Path


@dataclass
class Run:
    """A run that is open for training. Closed by `close`."""

    folder: Path
    recipe: TrainRecipe
    device: torch.device
    spans: list[Span]
    batches: StagedBatches
    model: Decoder
    optimizer: torch.optim.AdamW
    averages: Averages
    guard: Guard
    checkpoints: Checkpoints
    say: Callable[[str], None]
    progress: Progress = field(default_factory=Progress)
    validation: tuple[Span, Validation] | None = None  # of the stage that it was made for

    def span(self, sample: int | None = None) -> Span:
        """The stage of a sample; none: of the last that was read."""
        return self.spans[self.batches.stage(max(self.progress.sample - 1, 0) if sample is None else sample)]

    def next_batch(self, sample: int) -> tuple[int, int]:
        """The first sample at or behind `sample` that is not passed over, and how many make a step there."""
        while True:
            rows = self.spans[self.batches.stage(sample)].data.batch
            first = self.guard.next_sample(sample, rows)
            if first == sample:
                return first, rows
            sample = first

    def tensors(self) -> dict[str, torch.Tensor]:
        """All state by name: what a checkpoint holds, and is loaded into."""
        named = {f"model.{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        named |= {f"optimizer.{name}": one for name, one in optimizer_state(self.model, self.optimizer).items()}
        return named | {f"averages.{name}": one for name, one in self.averages.state().items()}

    def save(self, prune: bool = True) -> Path:
        """Write the checkpoint of this step, and remove those that need not stay."""
        told = {
            "sample": self.progress.sample,
            "tokens": self.progress.tokens,
            "guard": self.guard.state(),
            "stages": [stage.model_dump(exclude={"tokens"}, mode="json") for stage in self.batches.table],
        }
        path = self.checkpoints.save(
            self.progress.step,
            self.tensors(),
            told,
            model=self.span().model.model_dump(),
            layout=self.recipe.parallel.layout,
        )
        if prune:
            self.checkpoints.prune()
        return path

    def restore(self, below: int | None = None) -> bool:
        """Go to the newest checkpoint that is whole (`below`: of fewer steps); False if there is none."""
        found = self.checkpoints.load_newest(self.tensors(), below=below)
        if found is None:
            return False
        step, told = found
        self.take_up(step, told)
        return True

    def take_up(self, step: int, told: Mapping[str, Any]) -> None:
        """Stand where a checkpoint that was loaded stood. InputError: its data was other data."""
        try:
            rows, sample, tokens = told["stages"], int(told["sample"]), int(told["tokens"])
            told_stages = [Stage.model_validate({"tokens": "", **row}) for row in rows]
            guard = told["guard"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.checkpoints.folder(step)}: what it tells of the run cannot be read: {error!r}"
            ) from error
        check_stages(told_stages, self.batches.table, sample)
        self.guard.load(guard)
        self.progress = Progress(step, sample, tokens)
        self.enter()

    def enter(self) -> None:
        """Give the model what the stage of the next sample has of its own: positions and window."""
        self.model.config = self.span(self.progress.sample).model

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of matrix products."""
        if self.recipe.precision == "fp32":
            return nullcontext()
        context: AbstractContextManager[None] = torch.autocast(self.device.type, torch.bfloat16)
        return context

    def close(self) -> None:
        """Let another process train here."""
        self.checkpoints.release()


# ---------------------------------------------------------------- stages


def spans_of(recipe: TrainRecipe, corpora: Mapping[str, Path]) -> list[Span]:
    """The stages of a recipe on its corpora. `corpora`: by name, "" the first stage's.

    UsageError: a corpus that no `--data` names. InputError: corpora of two tokenizers; a model that is too small for them.
    """
    tokens, found, corpus = 0, [], ""
    model: ModelConfig | None = None
    tokenizer = ""
    at = 0
    before: tuple[int, int] = (0, 1)  # first step and rows of the stage before
    for first, table, data in recipe.stages():
        corpus = table.corpus if table is not None and table.corpus is not None else corpus
        if corpus not in corpora:
            raise UsageError(
                f"The recipe's stage at step {first:,} reads the corpus {corpus!r}: give it with --data {corpus}=OUT"
            )
        manifest = TokensDataset(corpora[corpus]).manifest
        if tokenizer and manifest.tokenizer_sha256 != tokenizer:
            raise InputError(f"{corpora[corpus]}: its tokenizer is not that of the corpus of the stage before")
        tokenizer = manifest.tokenizer_sha256
        tokens = max(tokens, manifest.vocab_size)
        model = shape(recipe.model, tokens) if model is None else model
        model = of_stage(model, table)
        at += (first - before[0]) * before[1]
        before = first, data.batch
        found.append(Span(first, at, data, model, corpora[corpus]))
    return found


def staged(spans: Sequence[Span], seed: int, cache: Path, anew: Sequence[bool]) -> StagedBatches:
    """The loader of these stages."""
    stages = [
        Stage(
            tokens=str(span.corpus),
            batch=span.data.batch,
            data=span.data.config(),
            first_sample=span.first_sample,
            anew=fresh,
        )
        for span, fresh in zip(spans, anew, strict=True)
    ]
    return StagedBatches(stages, seed, cache)


# ---------------------------------------------------------------- opening


def open_run(
    folder: Path,
    recipe: TrainRecipe,
    corpora: Mapping[str, Path],
    device: torch.device,
    say: Callable[[str], None],
    begin: Callable[[Run], None] | None = None,
    parent: Mapping[str, Any] | None = None,
) -> Run:
    """Open a run for training: a new one, or one that goes on from its newest checkpoint.

    `begin`: fills the state of a new run; else weights are drawn. `parent`: what parent.json says. UsageError: a recipe that the
    folder's run was not begun with; another process that trains there. InputError: the corpora, or checkpoints, none of which is whole.
    """
    recipe.parallel.layout.check()
    refuse_stranger(folder)
    spans = spans_of(recipe, corpora)
    checkpoints = Checkpoints(folder, recipe.checkpoint, say)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.claim()
    try:
        batches = staged(spans, recipe.seed, folder / "rows", [False, *(table.anew for table in recipe.stage)])
        what = f"The state of {flops.parameters(spans[0].model):,} parameters, {flops.STATE_BYTES} bytes each,"
        with enough_memory(device, what, "Take a smaller model, or a device with more."):
            model = Decoder(
                spans[0].model,
                recipe.parallel.layout,
                device,
                checkpoint_layers=recipe.checkpoint_layers,
                kernel=recipe.kernel,
            )
            if recipe.compile:
                model.compile_parts()
            optimizer = adamw(model, recipe.optimizer)
            averages = Averages(recipe.averaging, dict(model.named_parameters()))
        run = Run(
            folder, recipe, device, spans, batches, model, optimizer, averages, Guard(recipe.guard), checkpoints, say
        )
        known = read_config(folder) if (folder / CONFIG).exists() else None
        if known is not None:
            changed = differences(TrainRecipe.model_validate(known["recipe"]), recipe, folder)
            if not run.restore():
                if begin is None and (folder / "parent.json").exists():
                    raise UsageError(
                        f"{folder}: was begun from weights of another run, and none were kept yet. Give --from again"
                    )
                _fill(run, begin)
                _keep(run, begin)
            check_begun(TrainRecipe.model_validate(known["recipe"]), recipe, run.progress.step)
            for key, (old, new) in changed.items():
                say(f"{key} is {new} from step {run.progress.step:,} on; it was {old}")
            if changed:
                known["changes"].append(
                    {"step": run.progress.step, "values": {key: list(pair) for key, pair in changed.items()}}
                )
                known["recipe"] = recipe.model_dump(mode="json")
                write_atomically(folder / CONFIG, canonical_json(known))
        else:
            if checkpoints.steps():
                raise UsageError(
                    f"{folder} has weights and no {CONFIG}, as `import` writes them. Begin a run elsewhere: --output RUN --from {folder}"
                )
            _fill(run, begin)  # first: what does not fit leaves no run
            _begin(run, parent)
            _keep(run, begin)
    except BaseException:
        checkpoints.release()
        raise
    return run


def _keep(run: Run, begin: Callable[[Run], None] | None) -> None:
    """What was taken from elsewhere is kept at once: whoever goes on need not find it there again."""
    if begin is not None:
        run.save()


def _fill(run: Run, begin: Callable[[Run], None] | None) -> None:
    if begin is None:
        initialise(run.model, run.recipe.seed)
    else:
        begin(run)
    run.enter()


def _begin(run: Run, parent: Mapping[str, Any] | None) -> None:
    """Write what the run is; config.json last, so that where it is the rest is."""
    shutil.copyfile(TokensDataset(run.spans[0].corpus).tokenizer, run.folder / TOKENIZER)
    if parent is not None:
        write_atomically(run.folder / "parent.json", canonical_json(dict(parent)))
    write_config(run.folder, run.recipe, run.spans, run.batches.table)


def write_config(folder: Path, recipe: TrainRecipe, spans: Sequence[Span], table: Sequence[Stage]) -> None:
    """Write config.json. It holds no path: a corpus is known by its digest."""
    told = {
        "version": VERSION,
        "recipe": recipe.model_dump(mode="json"),
        "model": spans[0].model.model_dump(),
        "corpora": [stage.manifest for stage in table],
        "changes": [],
    }
    write_atomically(folder / CONFIG, canonical_json(told))


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a run. InputError: it is none, or of a later version."""
    path = folder / CONFIG
    try:
        told = json.loads(path.read_bytes())
        if told["version"] != VERSION:
            raise InputError(f"{path}: is of version {told['version']}; this stackbuild reads {VERSION}")
        TrainRecipe.model_validate(told["recipe"])
        ModelConfig.model_validate(told["model"])
    except OSError as error:
        raise InputError(f"{folder}: is not a run, there is no {CONFIG} to read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else error
        raise InputError(f"{path}: is no configuration of a run: {first}") from error
    known: dict[str, Any] = told
    return known
