"""A training recipe: which model is trained on what, how fast, how long, and what is kept of it.

    name = "tiny"
    [model]       its shape, or `size = "starcoder2-3b"` with what differs
    [data]        row, batch, mixture, fill-in-the-middle; [[data.source]], [data.fim]
    [optimizer]   [schedule]   [[stage]]   [parallel]   [checkpoint]   [averaging]   [validation]   [guard]   [log]

A recipe is data from a stranger and names no path: the tokens are given on the command line. What a published recipe leaves
unsaid is in its `unverified` list, which is printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stackbuild.errors import RecipeError
from stackbuild.stage import Options
from stackbuild.tokens.data_config import DataConfig
from stackbuild.train.attention import Choice
from stackbuild.train.averaging import AveragingOptions
from stackbuild.train.checkpoint import CheckpointOptions
from stackbuild.train.config import SIZES, UNVERIFIED, ModelConfig
from stackbuild.train.guard import GuardOptions
from stackbuild.train.layout import Layout
from stackbuild.train.optim import OptimizerOptions
from stackbuild.train.schedule import ScheduleOptions
from stackbuild.train.validation import ValidationOptions

MULTIPLE = 128  # of the vocabulary: whole tiles of a matrix product in every layout


class TrainData(DataConfig):
    """Table [data]: the batches of the first stage, and of the others where they say nothing else."""

    split: Literal["train"] = "train"
    batch: int = Field(ge=1, le=2**20, description="rows of a step, of all processes together")
    micro_batch: int | None = Field(None, ge=1, description="rows that are computed together; none: all of a step's")
    document_mask: bool = Field(
        True,
        description="documents of a row do not see each other, and each begins at position 0; false as both StarCoders were trained",
    )

    def config(self) -> DataConfig:
        """What the loader is told."""
        return DataConfig.model_validate(self.model_dump(include=set(DataConfig.model_fields)))

    @property
    def rows_at_once(self) -> int:
        """Rows of a micro-batch."""
        return min(self.micro_batch or self.batch, self.batch)


class StageTable(Options):
    """Table [[stage]]: from a step on, other data; a context that is longer, a cooldown on the best of it."""

    first_step: int = Field(ge=1, description="the first step that is of this stage")
    corpus: str | None = Field(
        None, description="`--data NAME=FOLDER` on the command line; none: the corpus of the stage before"
    )
    anew: bool = Field(False, description="sources begin with their first document, whatever was read before")
    rope_theta: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="base of the rotary positions from here on"
    )
    window: int | None = Field(None, gt=0, description="of attention from here on")
    data: dict[str, Any] = Field(default_factory=dict, description="what differs from [data]")


class ParallelOptions(Options):
    """Table [parallel]: how many processes share what (`layout.Layout`)."""

    data: int = Field(1, ge=1, description="replicas, or shards of the state")
    tensor: int = Field(1, ge=1, description="processes that share each matrix")
    sequence: bool = Field(False, description="share rows between the layers too")
    pipeline: int = Field(1, ge=1, description="processes that share the layers")
    context: int = Field(1, ge=1, description="processes that share each row")

    @property
    def layout(self) -> Layout:
        return Layout(self.data, self.tensor, self.sequence, self.pipeline, self.context)


class LogOptions(Options):
    """Table [log]. metrics.jsonl is always written."""

    every: int = Field(10, ge=1, description="steps between two lines")
    to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field((), description="where metrics go besides")
    project: str = Field("stackbuild", description="of wandb and trackio")


class TrainRecipe(Options):
    """A training recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="of the run")
    seed: int = Field(0, ge=0, lt=2**63, description="of the weights, of dropout and of the order of the data")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of matrix products; parameters, sums and gradients stay fp32"
    )
    deterministic: bool = Field(True, description="only operations that give the same bits again")
    compile: bool = Field(False, description="compile the model (torch.compile); needs a C++ compiler on CPU")
    kernel: Choice = Field("auto", description="of attention")
    checkpoint_layers: bool = Field(False, description="keep each layer's input alone and compute the rest again")
    unverified: tuple[str, ...] = Field((), description="values that no published source tells; printed before the run")
    deviations: dict[str, str] = Field(
        default_factory=dict, description="where this differs from what was published, and why; printed before the run"
    )
    model: dict[str, Any] = Field(
        description="shape of the model, or `size` and what differs; vocab_size: the tokenizer's if left out"
    )
    data: TrainData
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions
    stage: tuple[StageTable, ...] = ()
    parallel: ParallelOptions = ParallelOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    averaging: AveragingOptions = AveragingOptions()
    validation: ValidationOptions = ValidationOptions()
    guard: GuardOptions = GuardOptions()
    log: LogOptions = LogOptions()

    @field_validator("model")
    @classmethod
    def _model_is_one(cls, table: dict[str, Any]) -> dict[str, Any]:
        shape(table, None)
        return table

    @model_validator(mode="after")
    def _printable(self) -> Self:
        for text in (*self.unverified, *self.deviations, *self.deviations.values()):
            if not text.isprintable():
                raise ValueError(f"{text[:40]!r}: a text that is printed holds control characters")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        model, longest = shape(self.model, None), 0
        at = 0
        for number, (first, _, data) in enumerate(self.stages()):
            if number and first <= at:
                raise ValueError(f"stage[{number - 1}].first_step = {first} is not behind that of the stage before")
            at, longest = first, max(longest, data.sequence_length)
        for table in self.stage:
            of_stage(model, table)
        if longest > model.max_positions:
            raise ValueError(f"rows of {longest} tokens are longer than model.max_positions = {model.max_positions}")
        masked = any(data.document_mask for _, _, data in self.stages())
        if model.attention_dropout and masked and self.kernel not in ("auto", "eager"):
            raise ValueError(
                f"model.attention_dropout with data.document_mask needs the eager kernel, not {self.kernel}"
            )
        return self

    def stages(self) -> list[tuple[int, StageTable | None, TrainData]]:
        """First step, table and data of each stage; the first has no table."""
        found: list[tuple[int, StageTable | None, TrainData]] = [(0, None, self.data)]
        values = self.data.model_dump()
        for table in self.stage:
            values = over(values, table.data)
            found.append((table.first_step, table, TrainData.model_validate(values)))
        return found

    def told(self) -> tuple[str, ...]:
        """What of this recipe is unverified: its own list and that of the published size."""
        return (*UNVERIFIED.get(str(self.model.get("size")), ()), *self.unverified)


def shape(table: Mapping[str, Any], tokens: int | None) -> ModelConfig:
    """The model that table [model] tells of. `tokens`: of the tokenizer; None where it is not known yet.

    Without vocab_size it is the tokenizer's size, rounded up to a multiple of 128 whatever the layout. RecipeError for one that is smaller.
    """
    values = dict(table)
    size = values.pop("size", None)
    if size is not None:
        if size not in SIZES:
            raise ValueError(f"there is no size {size!r}; there are {', '.join(SIZES)}")
        values = SIZES[size].model_dump() | values
    if values.get("vocab_size") is None:
        values["vocab_size"] = -(-(tokens or MULTIPLE) // MULTIPLE) * MULTIPLE
    config = ModelConfig.model_validate(values)
    if tokens is not None and config.vocab_size < tokens:
        raise RecipeError(
            f"model.vocab_size = {config.vocab_size:,} is smaller than the tokenizer of the corpus, which has {tokens:,} tokens. Leave it "
            "out, or tokenize the corpus with the model's tokenizer."
        )
    return config


def of_stage(model: ModelConfig, table: StageTable | None) -> ModelConfig:
    """The model of a stage: of the stage before, but for what its table says. ValueError: the family has no such thing."""
    changed = {} if table is None else {key: getattr(table, key) for key in ("rope_theta", "window")}
    given = {key: value for key, value in changed.items() if value is not None}
    return ModelConfig.model_validate(model.model_dump() | given) if given else model


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
