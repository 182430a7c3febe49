"""What the recipe's table [pii] may say of the profiles that need packages of the extra `pii`: compat, ner, presidio."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from stackbuild.stage import Options


class ProfileOptions(Options):
    """Options that begin with a profile's name are of that profile."""

    files: ClassVar[tuple[str, ...]] = ("gibberish_model", "ner_model", "spacy_model")
    gibberish_model: str | None = Field(
        None,
        min_length=1,
        description="compat, ner, presidio: a model of gibberish-detector, taken with the published limit of 4.0; without one "
        "the model and the limit of detect-secrets",
    )
    ner_model: str | None = Field(
        None,
        min_length=1,
        description="ner: folder of a token-classification model: config.json, tokenizer.json, *.safetensors",
    )
    ner_labels: dict[str, str] = Field(
        {}, description='ner: entities of labels whose names are others, as `{ PER = "NAME" }`; "" for none'
    )
    ner_window: int | None = Field(
        None,
        ge=8,
        le=1_000_000,
        description="ner: tokens that the model sees at a time; without it 512, or what it can see if less",
    )
    ner_overlap: int | None = Field(
        None,
        ge=0,
        description="ner: tokens that a window has in common with the next; without it 64, or a quarter of a small window",
    )
    ner_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="ner: tokens of a batch, padding included; without it one window on a CPU, 65536 tokens on a GPU",
    )
    ner_threshold: float = Field(0.0, ge=0, le=1, description="ner: least probability of a token's label")
    ner_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="ner: where the model runs; auto: a GPU if there is one"
    )
    ner_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="ner: bfloat16 is faster on a GPU and may find other things than float32"
    )
    spacy_model: str = Field(
        "en_core_web_sm",
        min_length=1,
        description="presidio: a spaCy pipeline, by the name of its package or its folder",
    )

    @model_validator(mode="after")
    def _windows(self) -> ProfileOptions:
        if self.ner_window is not None and (self.ner_overlap or 0) > self.ner_window // 2:
            raise ValueError("ner_overlap: at most half of ner_window")
        return self
