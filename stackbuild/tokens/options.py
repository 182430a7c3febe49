"""Options of the tokens output: the recipe's table `[tokens]`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from stackbuild.stage import Options
from stackbuild.tokens.indexed import token_dtype

# A shard's task reads the footer of every sorted run, which lists the row groups of all shards, and a reader maps two files of
# each shard, of which Linux allows 65,530 by default.
MOST_SHARDS = 16_384


class TokensOptions(Options):
    """How text becomes tokens."""

    files: ClassVar[tuple[str, ...]] = ("tokenizer",)
    layout: Literal["starcoder2", "starcoder", "santacoder"] = Field(
        "starcoder2",
        description="what a document is: a repository at one revision (starcoder2), a file with its names and stars in front by "
        "chance (starcoder), or a file alone (santacoder)",
    )
    tokenizer: str = Field("train", description='path of a tokenizer.json, or "train" to train one on the dataset')
    vocab_size: int = Field(49_152, ge=512, le=2**31 - 1, description="entries to train, sentinels included")
    sample_bytes: int = Field(64_000_000, gt=0, description="text to train on, shared out between languages")
    backend: Literal["auto", "fast", "tokenizers"] = Field(
        "auto", description="what encodes; auto: the fast one if it gives the library's ids, which is checked first"
    )
    dtype: Literal["auto", "uint16", "int32"] = Field(
        "auto", description="type of a token on disk; auto: uint16 for fewer than 65,500 entries, else int32"
    )
    shards: int = Field(16, ge=1, le=MOST_SHARDS, description="shards by hash of the repository; a power of two")
    valid_share: float = Field(
        0.005,
        ge=0,
        lt=1,
        description="part of the repositories that is held out for validation, with all that resemble them; 0: none",
    )
    strip_sentinels: bool = Field(
        False,
        description="take the letters of sentinels out of texts, as StarCoder did; else they are encoded as letters",
    )

    @property
    def valid_shards(self) -> int:
        """Shards of what is held out, a power of two: one for each 64, as its share is small."""
        return max(1, self.shards // 64) if self.valid_share else 0

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
