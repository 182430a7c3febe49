"""Our decoder is transformers' Starcoder2ForCausalLM and GPTBigCodeForCausalLM: hidden states, logits and gradients, all weights random
at 0.2 so that attention is not flat. What must be noticed (a window off by one, swapped matrices, another base) is shown to be."""

from __future__ import annotations

import pytest
import torch

from stackbuild.train.attention import Mask
from stackbuild.train.hf_names import fuse, split, tensors
from stackbuild.train.model import Decoder
from tests.train.worlds import pair, row_of_tokens, tiny, tiny_bigcode

SHAPES = {
    "grouped": tiny(),
    "one-key-head": tiny(kv_heads=1, window=8),
    "a-key-head-each": tiny(kv_heads=4, tied=False, layers=3),
    "window": tiny(window=8, activation="gelu"),
    "no-bias": tiny(bias=False, tied=False, window=8),
    "bigcode": tiny_bigcode(),
    "bigcode-exact-untied": tiny_bigcode(activation="gelu", tied=False),
    "bigcode-many-heads": tiny_bigcode(kv_heads=4, layers=3),
}
NOTICED = 1e-3  # what a wrong model differs by at least, measured in units of the logits
SAME = 2e-6


def logits(model: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(tokens, None, model.mask()))


def apart(ours: torch.Tensor, other: torch.Tensor) -> float:
    return float((ours - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_and_logits_are_those_of_transformers(shape, attention):
    config = SHAPES[shape]
    model, other = pair(config, attention)
    tokens = row_of_tokens(3, 40, config.vocab_size)
    told: list[torch.Tensor] = []
    for block in model.layers:
        block.register_forward_hook(lambda _block, _given, out: told.append(out.clone()))
    with torch.no_grad():
        out = other(tokens, output_hidden_states=True)
    mine = logits(model, tokens)
    for layer, (ours, theirs) in enumerate(zip(told, out.hidden_states[1:], strict=False)):
        if layer < config.layers - 1:  # of the last one they show what is behind the norm
            assert apart(ours, theirs) < SAME, f"layer {layer}"
    assert apart(mine, out.logits) < SAME


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_transformers(shape):
    config = SHAPES[shape]
    model, other = pair(config)
    row = row_of_tokens(2, 41, config.vocab_size)
    tokens, labels = row[:, :-1], row[:, 1:].clone()
    labels[0, 5:9] = -100
    sum_, count = model.loss(tokens, labels)
    (sum_ / count).backward()
    out = other(tokens).logits
    torch.nn.functional.cross_entropy(out.flatten(0, 1), labels.flatten()).backward()
    theirs = dict(other.named_parameters())
    ours = dict(model.named_parameters())
    assert count == 80 - 4
    for tensor in tensors(config):
        for name, part in zip(tensor.ours, split(theirs[tensor.name].grad, len(tensor.ours), config), strict=True):
            scale = theirs[tensor.name].grad.abs().max()  # of a fused tensor: a key's bias alone has a gradient of zero
            assert float((ours[name].grad - part).abs().max() / scale) < 1e-5, name


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ("window", {"window": 7}),
        ("window", {"window": 9}),
        ("window", {"window": None}),
        ("window", {"activation": "gelu_tanh"}),
        ("grouped", {"rope_theta": 1e5}),
        ("grouped", {"norm_eps": 1e-2}),
        ("bigcode", {"norm_eps": 1e-2}),
        ("bigcode", {"activation": "gelu"}),
    ],
)
def test_a_wrong_configuration_is_noticed(shape, changes):
    config = SHAPES[shape]
    model, other = pair(config)
    wrong = Decoder(config.model_copy(update=changes))
    wrong.load_state_dict(model.state_dict())
    tokens = row_of_tokens(3, 40, config.vocab_size)
    with torch.no_grad():
        right = other(tokens).logits
    least = NOTICED if "activation" not in changes else 10 * SAME  # the two GELUs are close
    assert apart(logits(model, tokens), right) < SAME
    assert apart(logits(wrong, tokens), right) > least


def test_an_epsilon_of_1e_6_is_noticed_where_activations_are_small():
    """Norms behind an embedding of 0.2 do not feel it; behind one of 0.002 they do."""
    config = SHAPES["grouped"]
    model, other = pair(config)
    wrong = Decoder(config.model_copy(update={"norm_eps": 1e-6}))
    with torch.no_grad():
        for parameters in (model.embed.weight, other.model.embed_tokens.weight):
            parameters.mul_(0.01)
    wrong.load_state_dict(model.state_dict())
    tokens = row_of_tokens(3, 40, config.vocab_size)
    with torch.no_grad():
        right = other(tokens).logits
    assert apart(logits(model, tokens), right) < SAME
    assert apart(logits(wrong, tokens), right) > NOTICED


@pytest.mark.parametrize("shape", ["a-key-head-each", "bigcode-many-heads"])
def test_queries_in_the_place_of_keys_are_noticed(shape):
    model, other = pair(SHAPES[shape])
    state = model.state_dict()
    for kind in ("weight", "bias"):
        q, k = f"layers.0.attention.q.{kind}", f"layers.0.attention.k.{kind}"
        state[q], state[k] = state[k].clone(), state[q].clone()
    wrong = Decoder(SHAPES[shape])
    wrong.load_state_dict(state)
    tokens = row_of_tokens(3, 40, 97)
    with torch.no_grad():
        right = other(tokens).logits
    assert apart(logits(wrong, tokens), right) > NOTICED


def test_one_after_another_is_not_how_transformers_fuses_many_heads():
    """[Q | K | V] for [q_h | k_h | v_h] x heads is noticed."""
    config = SHAPES["bigcode-many-heads"]
    model, other = pair(config)
    state = model.state_dict()
    for layer in range(config.layers):
        names = [f"layers.{layer}.attention.{name}.weight" for name in "qkv"]
        fused = fuse([state[name] for name in names], config)
        state |= dict(zip(names, fused.split(config.hidden), strict=True))
    wrong = Decoder(config)
    wrong.load_state_dict(state)
    tokens = row_of_tokens(3, 40, 97)
    with torch.no_grad():
        right = other(tokens).logits
    assert apart(logits(wrong, tokens), right) > NOTICED


@pytest.mark.parametrize("shape", ["one-key-head", "bigcode", "bigcode-many-heads"])
def test_splitting_is_the_inverse_of_fusing(shape):
    config = SHAPES[shape]
    for tensor in tensors(config):
        whole = torch.randn(tensor.shape)
        assert torch.equal(fuse(split(whole, len(tensor.ours), config), config), whole)


def test_bf16_weights_give_the_logits_of_transformers_in_bf16():
    """Angles are cast as theirs are: the same rounding, so the same numbers up to the order of sums."""
    model, other = pair(SHAPES["window"])
    model, other = model.to(torch.bfloat16), other.to(torch.bfloat16)
    tokens = row_of_tokens(2, 40, 97)
    with torch.no_grad():
        right = other(tokens).logits
    assert apart(logits(model, tokens), right) < 0.02


def test_positions_that_are_given_are_those_of_the_row():
    """Left out, they count from the mask's offset; rotary ones are relative, so a shift of a whole row changes little."""
    for shape in ("grouped", "bigcode"):
        model, _ = pair(SHAPES[shape])
        tokens = row_of_tokens(2, 20, 97)
        places = torch.arange(20).expand(2, 20)
        with torch.no_grad():
            left_out, given, shifted = (model(tokens, positions, Mask()) for positions in (None, places, places + 7))
        assert torch.equal(left_out, given)
        assert (apart(shifted, given) < 1e-5) == (shape == "grouped")
