"""The shape of a model, and the eight published shapes as data.

Two families share one decoder (`model.py`):

    starcoder2     rotary positions, grouped key and value heads, optional sliding window     (Lozhkov et al. 2024, table 6)
    gpt_bigcode    learned positions, one key and value head for all query heads, or one for each
                   (SantaCoder: Ben Allal et al. 2023; StarCoder: Li et al. 2023, table 7)

The values are those of the configurations that were released with the weights. What no released file or paper says is named in
`UNVERIFIED`, for a recipe to print.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from stackbuild.stage import Options

Family = Literal["starcoder2", "gpt_bigcode"]
Activation = Literal["gelu_tanh", "gelu"]


def _by_width(values: dict[str, Any]) -> float:
    """1 / sqrt(hidden): the rule behind all published deviations but SantaCoder's and StarCoder2-7B's."""
    hidden: int = values.get("hidden", 1)
    return 1 / math.sqrt(hidden)


class ModelConfig(Options):
    """The shape of a decoder: table [model] of a training recipe."""

    family: Family = Field("starcoder2", description="starcoder2, or gpt_bigcode (StarCoder, SantaCoder)")
    layers: int = Field(gt=0, le=1024, description="blocks of attention and feed-forward")
    hidden: int = Field(gt=0, le=2**17, description="width of the residual stream; a multiple of `heads`")
    heads: int = Field(gt=0, le=1024, description="query heads")
    kv_heads: int = Field(gt=0, le=1024, description="key and value heads; a divisor of `heads`")
    ffn: int = Field(gt=0, le=2**20, description="width of the feed-forward layer")
    vocab_size: int = Field(
        gt=0, le=2**24, description="rows of the embedding; not fewer than the tokenizer has tokens"
    )
    max_positions: int = Field(
        gt=0, le=2**24, description="longest row; with learned positions, the rows of their table"
    )
    rope_theta: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="base of the rotary positions; none: learned positions"
    )
    window: int | None = Field(
        None, gt=0, description="tokens that a token may look at, itself counted; none: all before it"
    )
    bias: bool = Field(True, description="whether linear layers have a bias (the head has none)")
    tied: bool = Field(True, description="whether the head is the embedding")
    activation: Activation = Field("gelu_tanh", description="gelu_tanh: the approximation; gelu: exact")
    norm_eps: float = Field(1e-5, gt=0, lt=1, description="epsilon of the layer norms")
    init_std: float = Field(
        default_factory=_by_width, gt=0, lt=10, description="standard deviation of new weights; none: 1 / sqrt(hidden)"
    )
    scaled_init: bool = Field(
        False,
        description="whether matrices that write into the residual stream are drawn with init_std / sqrt(2 layers)",
    )
    residual_dropout: float = Field(0.0, ge=0, lt=1, description="rate, on what attention and feed-forward add")
    embedding_dropout: float = Field(0.0, ge=0, lt=1, description="rate, on the embedding")
    attention_dropout: float = Field(
        0.0, ge=0, lt=1, description="rate, on the weights of attention; needs the eager kernel"
    )

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.hidden // self.heads

    @property
    def learned(self) -> bool:
        """Whether positions are a table that is added to the embedding."""
        return self.family == "gpt_bigcode"

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} is not a multiple of heads = {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}")
        return self

    @model_validator(mode="after")
    def _family_has_it(self) -> Self:
        if self.family == "starcoder2":
            if self.rope_theta is None:
                raise ValueError("rope_theta is missing: positions of starcoder2 are rotary")
            if self.head_dim % 2:
                raise ValueError(f"hidden / heads = {self.head_dim} is odd: rotary positions turn channels in pairs")
            return self
        if self.rope_theta is not None:
            raise ValueError("rope_theta is given: positions of gpt_bigcode are learned")
        if self.window is not None:
            raise ValueError("window is given: gpt_bigcode has no sliding window")
        if not self.bias:
            raise ValueError("bias = false: linear layers of gpt_bigcode always have one")
        if self.kv_heads not in {1, self.heads}:
            raise ValueError(f"kv_heads = {self.kv_heads}: gpt_bigcode has 1, or as many as heads = {self.heads}")
        return self


def _starcoder2(layers: int, hidden: int, kv_heads: int, theta: float, std: float, tied: bool = True) -> ModelConfig:
    return ModelConfig(
        family="starcoder2",
        layers=layers,
        hidden=hidden,
        heads=hidden // 128,
        kv_heads=kv_heads,
        ffn=4 * hidden,
        vocab_size=49_152,
        max_positions=16_384,
        rope_theta=theta,
        window=4_096,
        tied=tied,
        init_std=std,
    )


def _bigcode(
    layers: int, hidden: int, std: float, activation: Activation, vocab_size: int = 49_152, positions: int = 8_192
) -> ModelConfig:
    return ModelConfig(
        family="gpt_bigcode",
        layers=layers,
        hidden=hidden,
        heads=hidden // 128,
        kv_heads=1,
        ffn=4 * hidden,
        vocab_size=vocab_size,
        max_positions=positions,
        activation=activation,
        init_std=std,
        scaled_init=True,
        residual_dropout=0.1,
        embedding_dropout=0.1,
        attention_dropout=0.1,
    )


SIZES: Final[Mapping[str, ModelConfig]] = MappingProxyType(
    {
        "starcoder2-3b": _starcoder2(30, 3072, 2, 999_999.4420358813, 0.018042),
        "starcoder2-7b": _starcoder2(32, 4608, 4, 1_000_000.0, 0.018042),
        "starcoder2-15b": _starcoder2(40, 6144, 4, 100_000.0, 0.01275, tied=False),
        "starcoderbase-1b": _bigcode(24, 2048, 0.02209, "gelu_tanh"),
        "starcoderbase-3b": _bigcode(36, 2816, 0.01884, "gelu_tanh"),
        "starcoderbase-7b": _bigcode(42, 4096, 0.015625, "gelu_tanh"),
        "starcoderbase-15b": _bigcode(40, 6144, 0.01275, "gelu"),
        "santacoder-1b": _bigcode(24, 2048, 0.022, "gelu_tanh", vocab_size=49_280, positions=2_048),
    }
)

_SCALED = "scaled_init = false: whether output projections were drawn with std / sqrt(2 layers), as Megatron does, is not published"
_BASE = "rope_theta of the 4,096-token stage: 1e5 is told of the 3B and 7B by people, not by a file; the value here is the released one"
_ACTIVATION = "activation = gelu_tanh: read from configurations of models derived from it; no other source"

UNVERIFIED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "starcoder2-3b": (_SCALED, _BASE),
        "starcoder2-7b": (
            _SCALED,
            _BASE,
            "init_std = 0.018042: the released file repeats the 3B's; 1 / sqrt(hidden) and NVIDIA's recipe say 0.0147",
        ),
        "starcoder2-15b": (_SCALED,),
        "starcoderbase-1b": (_ACTIVATION,),
        "starcoderbase-3b": (_ACTIVATION,),
        "starcoderbase-7b": (_ACTIVATION,),
        "starcoderbase-15b": (),
        "santacoder-1b": (_ACTIVATION,),
    }
)
