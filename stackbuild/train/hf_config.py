"""A model's shape as Hugging Face's config.json, and back.

Written is what transformers' own classes write, so that they find no field that they do not know; the base of rotary positions both
where version 5 reads it (`rope_parameters`) and where version 4 does (`rope_theta`), which else would take 10,000 without a word. Read
are files of both versions; a field that is missing has the default of transformers. What this decoder does not compute is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from stackbuild.errors import InputError
from stackbuild.train.config import ModelConfig

ARCHITECTURES: Final = {"starcoder2": "Starcoder2ForCausalLM", "gpt_bigcode": "GPTBigCodeForCausalLM"}
_ACTIVATIONS: Final = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",  # the same formula in other words
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
}
_WRITTEN: Final = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu"}
# Our field: theirs, and its default, where they have one.
_STARCODER2: Final[Mapping[str, tuple[str, Any]]] = {
    "layers": ("num_hidden_layers", ...),
    "hidden": ("hidden_size", ...),
    "heads": ("num_attention_heads", ...),
    "kv_heads": ("num_key_value_heads", ...),
    "ffn": ("intermediate_size", ...),
    "vocab_size": ("vocab_size", ...),
    "max_positions": ("max_position_embeddings", 4096),
    "window": ("sliding_window", None),
    "bias": ("use_bias", True),
    "tied": ("tie_word_embeddings", True),
    "activation": ("hidden_act", "gelu_pytorch_tanh"),
    "norm_eps": ("norm_epsilon", 1e-5),
    "init_std": ("initializer_range", 0.018042),
    "residual_dropout": ("residual_dropout", 0.0),
    "embedding_dropout": ("embedding_dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
}
_BIGCODE: Final[Mapping[str, tuple[str, Any]]] = {
    "layers": ("n_layer", ...),
    "hidden": ("n_embd", ...),
    "heads": ("n_head", ...),
    "ffn": ("n_inner", None),
    "vocab_size": ("vocab_size", ...),
    "max_positions": ("n_positions", ...),
    "tied": ("tie_word_embeddings", True),
    "activation": ("activation_function", "gelu_pytorch_tanh"),
    "norm_eps": ("layer_norm_epsilon", 1e-5),
    "init_std": ("initializer_range", 0.02),
    "residual_dropout": ("resid_pdrop", 0.1),
    "embedding_dropout": ("embd_pdrop", 0.1),
    "attention_dropout": ("attn_pdrop", 0.1),
}
# Fields that would change what is computed, and the values under which they do not.
_MUST_BE: Final[Mapping[str, tuple[Any, ...]]] = {
    "quantization_config": (None,),
    "add_cross_attention": (None, False),
    "scale_attn_weights": (None, True),
    "layer_types": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
}


def to_hf(config: ModelConfig, dtype: str, bos: int | None, eos: int | None) -> dict[str, Any]:
    """What config.json says of a model. `dtype`: of its weights, as torch names it. `bos`, `eos`: tokens at the ends of a document."""
    bigcode = config.family == "gpt_bigcode"
    told: dict[str, Any] = {"architectures": [ARCHITECTURES[config.family]], "model_type": config.family}
    told |= {theirs: getattr(config, ours) for ours, (theirs, _) in (_BIGCODE if bigcode else _STARCODER2).items()}
    told["activation_function" if bigcode else "hidden_act"] = _WRITTEN[config.activation]
    if bigcode:
        told |= {"multi_query": config.kv_heads == 1, "scale_attn_weights": True}
        told |= {"attention_softmax_in_fp32": True, "scale_attention_softmax_in_fp32": True}
    else:
        told |= {
            "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
            "rope_theta": config.rope_theta,
        }
    return told | {"bos_token_id": bos, "eos_token_id": eos, "dtype": dtype, "torch_dtype": dtype, "use_cache": True}


def from_hf(told: Mapping[str, Any], where: str) -> ModelConfig:
    """The shape that a config.json tells. `where`: the file, for messages.

    InputError names a field that is missing, wrong, or asks for what is not computed here.
    """
    family = told.get("model_type")
    if not isinstance(family, str) or family not in ARCHITECTURES:
        raise InputError(f"{where}: model_type = {family!r:.80}: only {' and '.join(ARCHITECTURES)} can be imported")
    for field, allowed in _MUST_BE.items():
        if told.get(field) not in allowed:
            raise InputError(f"{where}: {field} = {told[field]!r:.80} is not something this trainer computes")
    given: dict[str, Any] = {"family": family}
    for ours, (theirs, default) in (_BIGCODE if family == "gpt_bigcode" else _STARCODER2).items():
        value = told.get(theirs, default)
        if value is ...:
            raise InputError(f"{where}: lacks {theirs}")
        given[ours] = value
    activation = given["activation"]
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise InputError(f"{where}: activation {activation!r:.80} is not one of {', '.join(_ACTIVATIONS)}")
    given["activation"] = _ACTIVATIONS[activation]
    if family == "gpt_bigcode":
        given |= {"scaled_init": True, "kv_heads": 1 if told.get("multi_query", True) else given["heads"]}
        if given["ffn"] is None and isinstance(given["hidden"], int):
            given["ffn"] = 4 * given["hidden"]
    else:
        given["rope_theta"] = _theta(told, where)
    try:
        config = ModelConfig.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'shape'}: {one['msg']}" for one in error.errors())
        raise InputError(f"{where}: {wrong}") from error
    if told.get("head_dim") not in (None, config.head_dim):
        raise InputError(
            f"{where}: head_dim = {told['head_dim']!r:.80}, not hidden_size / num_attention_heads = {config.head_dim}"
        )
    return config


def _theta(told: Mapping[str, Any], where: str) -> Any:
    """The base: version 5's `rope_parameters` before version 4's `rope_theta`; any scaling of angles is refused."""
    tables = [told.get(name) or {} for name in ("rope_parameters", "rope_scaling")]
    for table in tables:
        if not isinstance(table, Mapping):
            raise InputError(f"{where}: rope_parameters is no table")
        kind = table.get("rope_type", table.get("type", "default"))
        if kind != "default" or table.get("type", kind) != kind or table.get("partial_rotary_factor") not in (None, 1):
            raise InputError(
                f"{where}: rotary positions of type {kind!r:.80}, or of a part of the channels, are not computed here"
            )
    new = tables[0] or tables[1]
    return new.get("rope_theta", told.get("rope_theta", 10_000.0))
