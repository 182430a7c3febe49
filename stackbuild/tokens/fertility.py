"""Measure how many tokens a tokenizer makes of each file, for rules on its characters per token.

SantaCoder left out files with few characters per token (Ben Allal et al. 2023, arXiv:2301.03988): what a tokenizer for
code cuts small is data or another language. It took the tokenizer of its model; any lossless one is taken here, and the
numbers mean something with that one only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.schema import FERTILITY_FIELDS
from stackbuild.stage import Options, Stage
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.encode import Encoder
from stackbuild.tokens.fast_check import choose


class FertilityOptions(Options):
    """The recipe's table [fertility]."""

    files: ClassVar[tuple[str, ...]] = ("tokenizer",)
    tokenizer: str = Field(min_length=1, description="path of a tokenizer.json that is byte-level and lossless")
    languages: tuple[str, ...] | None = Field(None, min_length=1, description="files of others are not encoded")


class Fertility(Stage[FertilityOptions]):
    """Adds the number of tokens; drops nothing."""

    name = "fertility"
    reads = ("text", "language")
    adds = tuple(FERTILITY_FIELDS)
    engines = ("tokenizers",)
    options_model = FertilityOptions

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer; InputError if it is none or would edit text."""
        return Vocabulary(self.options.tokenizer)

    @cached_property
    def encoder(self) -> Encoder:
        """What encodes, loaded once for a process and its children: the fast backend where it gives the library's ids."""
        return Encoder(self.vocabulary, choose(self.vocabulary, "auto")["backend"])

    def key(self) -> Mapping[str, Any]:
        """The tokenizer's digest, wherever it lies. Not the backend: they give the same ids."""
        return {"tokenizer": self.vocabulary.sha256}

    def warm(self) -> None:
        """Load the tokenizer in the task server; it encodes in the calling thread, so that a fork does it no harm."""
        _ = self.encoder

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Encode a batch as nothing but text; a text that is null, or of another language than asked for, has null."""
        wanted = self.options.languages
        asked = files["text"].is_valid()
        if wanted is not None:
            known = files["language"].cast(pa.string())
            asked = pc.and_(asked, pc.is_in(known, value_set=pa.array(wanted, pa.string())))
        lengths = self.encoder.encode_array(files["text"].filter(asked)).lengths
        return {"token_count": pc.replace_with_mask(pa.nulls(len(asked), pa.int64()), asked, pa.array(lengths))}
