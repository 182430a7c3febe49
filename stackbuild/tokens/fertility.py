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
from pydantic import Field

from stackbuild.schema import FERTILITY_FIELDS
from stackbuild.stage import Options, Stage
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.encode import Encoder


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
    def encoder(self) -> Encoder:
        """The tokenizer, loaded once for a process and its children; InputError if it is none or would edit text."""
        return Encoder(Vocabulary(self.options.tokenizer))

    def key(self) -> Mapping[str, Any]:
        """The tokenizer's digest, wherever it lies."""
        return {"tokenizer": self.encoder.vocabulary.sha256}

    def warm(self) -> None:
        """Load the tokenizer in the task server; it encodes in the calling thread, so that a fork does it no harm."""
        _ = self.encoder

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Encode a batch as nothing but text; a text that is null, or of another language than asked for, has null."""
        wanted = self.options.languages
        texts, languages = files["text"].to_pylist(), files["language"].to_pylist()
        rows = [
            row
            for row, (text, language) in enumerate(zip(texts, languages, strict=True))
            if text is not None and (wanted is None or language in wanted)
        ]
        counts: list[int | None] = [None] * len(texts)
        for row, ids in zip(rows, self.encoder.encode([texts[row] for row in rows]), strict=True):
            counts[row] = len(ids)
        return {"token_count": pa.array(counts, pa.int64())}
