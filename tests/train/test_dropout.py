"""What is dropped depends on seed, step, layer, site, sample and place, and on nothing else."""

from __future__ import annotations

import pytest
import torch

from stackbuild.errors import UsageError
from stackbuild.train.dropout import (
    EMBEDDING,
    RESIDUAL_ATTENTION,
    RESIDUAL_FFN,
    WEIGHTS,
    Site,
    draws,
    drop,
    dropped,
    site,
)
from tests.train.worlds import new, row_of_tokens, tiny, tiny_bigcode

RATES = {"residual_dropout": 0.1, "embedding_dropout": 0.2, "attention_dropout": 0.1}
SHAPE = torch.Size((4, 64, 128))
WEIGHT_SHAPE = torch.Size((4, 4, 32, 32))


def mask(seed=0, step=0, layer=0, where=RESIDUAL_FFN, samples=range(4), shape=SHAPE, rate=0.1, first=0):
    return dropped(Site(draws(seed, step, torch.tensor(list(samples))), layer, where, rate), shape, first)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [SHAPE, WEIGHT_SHAPE])
def test_as_many_are_dropped_as_the_rate_says(shape, rate):
    for step in range(8):
        found = mask(step=step, shape=shape, rate=rate).double()
        sigma = (rate * (1 - rate) / found.numel()) ** 0.5
        assert abs(found.mean() - rate) < 4 * sigma, step
    everything = torch.stack([mask(step=step, shape=shape, rate=rate) for step in range(16)]).double()
    assert abs(everything.mean() - rate) < 3 * (rate * (1 - rate) / everything.numel()) ** 0.5


@pytest.mark.parametrize("shape", [SHAPE, WEIGHT_SHAPE])
def test_neighbours_of_every_kind_are_independent(shape):
    """Of any two that differ in one thing, as many are dropped in both as chance says; of an axis, too."""
    half = mask(rate=0.5, shape=shape)
    others = {
        "seed": mask(seed=1, rate=0.5, shape=shape),
        "step": mask(step=1, rate=0.5, shape=shape),
        "layer": mask(layer=1, rate=0.5, shape=shape),
        "site": mask(where=RESIDUAL_ATTENTION, rate=0.5, shape=shape),
        "sample": mask(samples=range(4, 8), rate=0.5, shape=shape),
        "place": mask(first=shape[-2], rate=0.5, shape=shape),
    } | {f"axis {axis}": half.roll(1, axis) for axis in range(len(shape))}
    sigma = 0.5 / half.numel() ** 0.5
    for name, other in others.items():
        assert abs((half ^ other).double().mean() - 0.5) < 4 * sigma, name
    for axis in range(len(shape)):  # nothing hangs on a row or a column alone
        means = half.double().mean([other for other in range(len(shape)) if other != axis])
        assert means.std() < 2 * 0.5 / (half.numel() / shape[axis]) ** 0.5, axis


@pytest.mark.parametrize("shape", [SHAPE, WEIGHT_SHAPE])
def test_the_same_are_dropped_however_a_batch_is_cut(shape):
    whole = mask(shape=shape, samples=[7, 2**40, 9, 11])
    for cut in ([0, 1], [1, 2, 3], [3]):
        part = mask(shape=torch.Size((len(cut), *shape[1:])), samples=[[7, 2**40, 9, 11][row] for row in cut])
        assert torch.equal(part, whole[cut])
    if len(shape) == 3:
        rest = mask(shape=torch.Size((4, 40, 128)), samples=[7, 2**40, 9, 11], first=24)
        assert torch.equal(rest, whole[:, 24:])
    assert torch.equal(mask(shape=shape), mask(shape=shape))


def test_what_stays_is_scaled_and_carries_the_gradient():
    x = torch.ones(SHAPE, requires_grad=True)
    at = Site(draws(0, 0, torch.arange(4)), 0, EMBEDDING, 0.25)
    out = drop(x, at)
    (grad,) = torch.autograd.grad(out.sum(), x)
    gone = dropped(at, SHAPE)
    assert torch.equal(out == 0, gone) and torch.equal(grad, out.detach())
    assert torch.allclose(out[~gone], torch.tensor(4 / 3))
    assert drop(x, None) is x and site(None, 0, WEIGHTS, 0.5) is None and site(at.draws, 0, WEIGHTS, 0.0) is None


def loss_and_gradients(model, tokens, samples, step=3, documents=None):
    model.zero_grad()
    sum_, _ = model.loss(tokens[:, :-1], tokens[:, 1:], documents=documents, dropout=draws(0, step, samples))
    sum_.backward()
    return sum_.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("config", [tiny(**RATES), tiny_bigcode(**RATES)], ids=["starcoder2", "bigcode"])
def test_a_step_drops_the_same_in_any_micro_batches(config):
    model, tokens = new(config), row_of_tokens(4, 33, 97)
    samples = torch.tensor([40, 41, 42, 43])
    whole, whole_grads = loss_and_gradients(model, tokens, samples)
    parts = [loss_and_gradients(model, tokens[low : low + 2], samples[low : low + 2]) for low in (0, 2)]
    assert torch.allclose(whole, parts[0][0] + parts[1][0], rtol=1e-6)
    noise = 1e-6 * max(float(grad.abs().max()) for grad in whole_grads.values())  # a key's bias has a gradient of zero
    for name, grad in whole_grads.items():
        assert torch.allclose(grad, parts[0][1][name] + parts[1][1][name], rtol=1e-4, atol=noise), name
    assert not torch.isclose(whole, loss_and_gradients(model, tokens, samples, step=4)[0], rtol=1e-5)
    assert not torch.isclose(whole, loss_and_gradients(model, tokens, samples + 1)[0], rtol=1e-5)
    assert not torch.isclose(whole, model.loss(tokens[:, :-1], tokens[:, 1:]).sum.detach(), rtol=1e-5)


@pytest.mark.parametrize("rates", [{}, RATES], ids=["", "dropout"])
@pytest.mark.parametrize("config", [tiny(window=8), tiny_bigcode()], ids=["starcoder2", "bigcode"])
def test_checkpointing_activations_changes_no_bit(config, rates):
    config = config.model_copy(update=rates)
    tokens, samples = row_of_tokens(2, 33, 97), torch.arange(2)
    documents = (torch.arange(32) // 12).expand(2, 32)
    plain = loss_and_gradients(new(config), tokens, samples, documents=documents)
    model = new(config, checkpoint_layers=True)
    calls = []
    model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    again = loss_and_gradients(model, tokens, samples, documents=documents)
    assert len(calls) == 2  # it was computed a second time
    assert torch.equal(plain[0], again[0])
    for name, grad in plain[1].items():
        assert torch.equal(grad, again[1][name]), name


@pytest.mark.parametrize("kernel", ["sdpa", "flex"])
def test_a_kernel_that_cannot_drop_weights_refuses_in_training_and_not_in_evaluation(kernel):
    model, tokens = new(tiny(attention_dropout=0.1), kernel=kernel), row_of_tokens(1, 17, 97)
    with pytest.raises(UsageError, match=r"attention_dropout.*eager"):
        model.loss(tokens[:, :-1], tokens[:, 1:], dropout=draws(0, 0, torch.arange(1)))
    assert model.token_losses(tokens[:, :-1], tokens[:, 1:]).isfinite().all()
