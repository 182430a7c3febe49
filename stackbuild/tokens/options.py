"""Options of the tokens output: the recipe's table `[tokens]`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from stackbuild.stage import Options
from stackbuild.tokens.indexed import token_dtype


class TokensOptions(Options):
    """How text becomes tokens."""

    layout: Literal["starcoder2"] = Field("starcoder2", description="how a repository becomes a document")
    tokenizer: str = Field("train", description='path of a tokenizer.json, or "train" to train one on the dataset')
    vocab_size: int = Field(49_152, ge=512, le=2**31 - 1, description="entries to train, sentinels included")
    sample_bytes: int = Field(64_000_000, gt=0, description="text to train on, shared out between languages")
    dtype: Literal["auto", "uint16", "int32"] = Field(
        "auto", description="type of a token on disk; auto: uint16 for fewer than 65,500 entries, else int32"
    )
    shards: int = Field(16, ge=1, le=65_536, description="shards by hash of the repository; a power of two")

    @field_validator("shards")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("shards must be a power of two")
        return value

    @model_validator(mode="after")
    def _vocabulary_fits(self) -> Self:
        if self.tokenizer == "train":
            token_dtype(self.vocab_size, self.dtype)
        return self
