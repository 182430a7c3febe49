"""Names and shapes of the tensors in a Hugging Face checkpoint of each family, and which of ours each holds.

starcoder2 has a tensor for each of ours. gpt_bigcode fuses queries, keys and values into `attn.c_attn`: with one key and value head it is
[q | k | v] along the output axis, with one for each query head [q_h | k_h | v_h] for head h after head.
Its matrices are (out, in), as ours; GPT-2's, of which it was made, are (in, out).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import torch

from stackbuild.train.config import ModelConfig

_STARCODER2: Final = {
    "attention_norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_BIGCODE: Final = {
    "attention_norm": "ln_1",
    "attention.q attention.k attention.v": "attn.c_attn",
    "attention.o": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
# Masks that old versions of transformers kept among the weights.
_OLD_BUFFER: Final = re.compile(r"(transformer\.)?(h\.\d+\.attn\.(bias|masked_bias)|bias)", re.ASCII)


class Theirs(NamedTuple):
    """A tensor of a Hugging Face checkpoint: its name, its shape, and the names of ours that it holds, in order."""

    name: str
    shape: tuple[int, ...]
    ours: tuple[str, ...]


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Our parameters and their shapes, in the order of the model."""
    width, inner = config.hidden, config.kv_heads * config.head_dim
    told: dict[str, tuple[int, ...]] = {"embed.weight": (config.vocab_size, width)}
    if config.learned:
        told["position.weight"] = (config.max_positions, width)
    matrices = {"q": (width, width), "k": (inner, width), "v": (inner, width), "o": (width, width)}
    of_layer = {f"attention.{name}": shape for name, shape in matrices.items()}
    of_layer |= {"mlp.up": (config.ffn, width), "mlp.down": (width, config.ffn)}
    for layer in range(config.layers):
        for name in ("attention_norm", *list(of_layer)[:4], "mlp_norm", *list(of_layer)[4:]):
            shape = of_layer.get(name, (width,))
            told[f"layers.{layer}.{name}.weight"] = shape
            if config.bias or len(shape) == 1:
                told[f"layers.{layer}.{name}.bias"] = shape[:1]
    told |= {"norm.weight": (width,), "norm.bias": (width,)}
    return told if config.tied else told | {"head.weight": (config.vocab_size, width)}


def tensors(config: ModelConfig) -> Iterator[Theirs]:
    """The tensors of a checkpoint of this model, in the order of ours."""
    ours = shapes(config)
    bigcode = config.family == "gpt_bigcode"
    stem, inside = ("transformer", "h") if bigcode else ("model", "layers")
    embed, norm = ("wte", "ln_f") if bigcode else ("embed_tokens", "norm")
    yield Theirs(f"{stem}.{embed}.weight", ours["embed.weight"], ("embed.weight",))
    if bigcode:
        yield Theirs(f"{stem}.wpe.weight", ours["position.weight"], ("position.weight",))
    for layer in range(config.layers):
        for names, theirs in (_BIGCODE if bigcode else _STARCODER2).items():
            for kind in ("weight", "bias"):
                held = tuple(f"layers.{layer}.{name}.{kind}" for name in names.split())
                if held[0] in ours:
                    first, *rest = (ours[name] for name in held)
                    shape = (first[0] + sum(other[0] for other in rest), *first[1:])
                    yield Theirs(f"{stem}.{inside}.{layer}.{theirs}.{kind}", shape, held)
    for kind in ("weight", "bias"):
        yield Theirs(f"{stem}.{norm}.{kind}", ours[f"norm.{kind}"], (f"norm.{kind}",))
    if not config.tied:
        yield Theirs("lm_head.weight", ours["head.weight"], ("head.weight",))


def is_old_buffer(name: str) -> bool:
    """Whether it is a mask that a gpt_bigcode checkpoint of an old version holds, and nobody reads."""
    return _OLD_BUFFER.fullmatch(name) is not None


def fuse(parts: Sequence[torch.Tensor], config: ModelConfig) -> torch.Tensor:
    """q, k, v as one tensor of `attn.c_attn`; a single part as it is."""
    if len(parts) == 1:
        return parts[0]
    if config.kv_heads == 1:
        return torch.cat(tuple(parts))
    by_head = [part.unflatten(0, (config.heads, 1, config.head_dim)) for part in parts]
    return torch.cat(by_head, 1).flatten(0, 2)


def split(fused: torch.Tensor, count: int, config: ModelConfig) -> tuple[torch.Tensor, ...]:
    """The inverse of `fuse` into `count` parts, 1 or 3; each a view or a copy in one piece."""
    if count == 1:
        return (fused,)
    if config.kv_heads == 1:
        return tuple(fused.split((config.hidden, config.head_dim, config.head_dim)))
    by_head = fused.unflatten(0, (config.heads, 3, config.head_dim))
    return tuple(by_head[:, part].flatten(0, 1) for part in range(3))
