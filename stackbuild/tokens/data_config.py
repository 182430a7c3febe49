"""What a loader is asked for: window, mixture, packing and fill-in-the-middle."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from stackbuild.errors import InputError
from stackbuild.shards import canonical_json
from stackbuild.stage import Options
from stackbuild.tokens.fim_options import FimOptions

WINDOW = 1 << 20  # documents that are packed together
EPOCHS = 10_000  # as often a source may be gone through: to find a row, the rows of every epoch before it are counted
RULES = 1  # changes when the order, the cuts, the draws or the packing would give other batches


class SourceConfig(Options):
    """One source of the mixture."""

    name: str = Field(description="as in the tokens manifest")
    weight: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="share of the samples, of any sum; none: by its tokens",
    )
    epochs: float | None = Field(
        None,
        gt=0,
        le=EPOCHS,
        description="how often it may be gone through in the whole run; none: without end",
    )
    fim: bool | None = Field(None, description="whether its files are treated; none: as the tokens manifest says")


class DataConfig(Options):
    """The batches of one stage of a training run."""

    sequence_length: int = Field(4096, ge=16, le=2**24, description="tokens of a row")
    split: Literal["train", "valid"] = "train"
    source: tuple[SourceConfig, ...] = Field((), description="the mixture; none: all sources, by their samples")
    packing: Literal["best-fit", "concatenation"] = Field(
        "best-fit", description="documents side by side, the long ones alone cut; or end to end, cut where a row ends"
    )
    order: Literal["shuffled", "megatron"] = Field(
        "shuffled",
        description="of the documents; megatron: rows, mixture and treatment of its programs, to repeat a run of theirs",
    )
    samples: int | None = Field(
        None, ge=1, description='rows of the whole run, for which order = "megatron" makes its indices'
    )
    window: int = Field(WINDOW, ge=1, le=2**24, description="documents that are packed together")
    fim: FimOptions = FimOptions()

    @model_validator(mode="after")
    def _sources_differ(self) -> Self:
        names = [source.name for source in self.source]
        if len(set(names)) != len(names):
            raise ValueError(f"a source is named twice: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _megatron_has_it(self) -> Self:
        if self.order != "megatron":
            if self.samples is not None:
                raise ValueError('samples: only order = "megatron" has to know them beforehand')
            return self
        if self.samples is None:
            raise ValueError(
                'order = "megatron" makes its indices for the rows of the whole run: give their number, samples'
            )
        if self.packing != "concatenation":
            raise ValueError('order = "megatron" runs documents together: say packing = "concatenation"')
        if self.fim.mode != "characters":
            raise ValueError('order = "megatron" cuts between characters; fim.mode = "ast" is of the other order')
        for source in self.source:
            if source.epochs is not None or source.fim is not None:
                raise ValueError(
                    f'{source.name}: order = "megatron" has neither `epochs` nor `fim` of a source of its own'
                )
        return self

    def packed(self, treated: bool) -> str:
        """A digest of what decides how a source's documents become rows; `treated`: whether its files may be."""
        told = {
            "rules": RULES,
            "sequence_length": self.sequence_length,
            "packing": self.packing,
            "window": self.window,
            "fim": self.fim.model_dump(include={"rate", "fragment_rate", "min_characters", "slack"})
            if treated
            else None,
        }
        return hashlib.sha256(canonical_json(told)).hexdigest()[:16]


def load_data_config(path: Path | None, given: Mapping[str, Any] | None = None) -> DataConfig:
    """Options from a TOML file, if there is one; what is `given` goes before it. InputError names what does not fit."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:  # tomllib's own, of bytes that are no UTF-8, of a number with thousands of digits
            raise InputError(f"{path}: is not TOML: {error}") from error
    try:
        return DataConfig.model_validate(values | dict(given or {}))
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'options'}: {one['msg']}" for one in error.errors())
        raise InputError(f"{path or 'options of the data'}: {told}") from error
