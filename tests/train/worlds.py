"""Tiny models of both families, ours and transformers', with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM, Starcoder2Config, Starcoder2ForCausalLM

from stackbuild.train.config import ModelConfig
from stackbuild.train.hf_names import split, tensors
from stackbuild.train.model import Decoder, initialise


def tiny(**changes: Any) -> ModelConfig:
    """A StarCoder2 of two layers."""
    given: dict[str, Any] = {
        "layers": 2,
        "hidden": 32,
        "heads": 4,
        "kv_heads": 2,
        "ffn": 64,
        "vocab_size": 97,
        "max_positions": 64,
        "rope_theta": 1e4,
    }
    return ModelConfig(**given | changes)


def tiny_bigcode(**changes: Any) -> ModelConfig:
    """A StarCoder of two layers."""
    given: dict[str, Any] = {"family": "gpt_bigcode", "kv_heads": 1, "rope_theta": None, "scaled_init": True}
    return tiny(**given | changes)


def theirs(config: ModelConfig, attention: str = "eager") -> Any:
    """transformers' model of this shape, made by its own configuration class."""
    activation = "gelu_pytorch_tanh" if config.activation == "gelu_tanh" else "gelu"
    common: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    common |= {"initializer_range": config.init_std, "attn_implementation": attention}
    if config.family == "starcoder2":
        return Starcoder2ForCausalLM(
            Starcoder2Config(
                hidden_size=config.hidden,
                intermediate_size=config.ffn,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.kv_heads,
                hidden_act=activation,
                max_position_embeddings=config.max_positions,
                norm_epsilon=config.norm_eps,
                rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
                sliding_window=config.window,
                use_bias=config.bias,
                **common,
            )
        )
    return GPTBigCodeForCausalLM(
        GPTBigCodeConfig(
            n_positions=config.max_positions,
            n_embd=config.hidden,
            n_layer=config.layers,
            n_head=config.heads,
            n_inner=config.ffn,
            activation_function=activation,
            layer_norm_epsilon=config.norm_eps,
            multi_query=config.kv_heads == 1,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
    )


def pair(config: ModelConfig, attention: str = "eager", **options: Any) -> tuple[Decoder, Any]:
    """Our model and theirs, all weights (biases and norms too) drawn anew at 0.2: flat logits would let a wrong mask pass."""
    other = theirs(config, attention).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.copy_(drawn + 1.0 if "ln_" in name and name.endswith("weight") else drawn)
    state = other.state_dict()
    model = Decoder(config, **options)
    model.load_state_dict(
        {
            name: part
            for tensor in tensors(config)
            for name, part in zip(tensor.ours, split(state[tensor.name], len(tensor.ours), config), strict=True)
        }
    )
    return model, other


def new(config: ModelConfig, seed: int = 0, **options: Any) -> Decoder:
    """Our model with new weights, drawn larger than they would be so that attention is not flat."""
    model = Decoder(config, **options)
    initialise(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(0.2 / config.init_std)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    return model


def row_of_tokens(rows: int, length: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    """Random tokens, int64 (rows, length)."""
    return torch.randint(0, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))
