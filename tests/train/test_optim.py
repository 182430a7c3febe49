"""The optimizer: the published rule of AdamW, decay of matrices alone, clipping by the global norm, state by canonical names."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from stackbuild.errors import InputError
from stackbuild.train.optim import (
    OptimizerOptions,
    adamw,
    clip,
    decayed,
    optimizer_state,
    set_rate,
    squared_norm,
)


class Tiny(nn.Module):
    """An embedding, a layer with a bias, a norm."""

    def __init__(self, seed: int = 0, width: int = 8):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(16, width)
        self.up = nn.Linear(width, 12)
        self.norm = nn.LayerNorm(12)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.up(self.embed(tokens)))


def train(model: Tiny, optimizer: torch.optim.AdamW, steps: Sequence[int]) -> None:
    """A step on tokens that are drawn by its number, at a rate and a beta2 that are functions of it."""
    for step in steps:
        tokens = torch.randint(16, (4, 5), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(tokens).pow(2).mul(torch.arange(12)).mean().backward()
        clip(model.parameters(), 1.0)
        set_rate(optimizer, 1e-2 / (step + 1), 0.95 if step < 5 else 0.99)
        optimizer.step()


def test_matrices_decay_and_nothing_else_does() -> None:
    assert decayed(Tiny()) == (["embed.weight", "up.weight"], ["up.bias", "norm.weight", "norm.bias"])
    model = Tiny()
    optimizer = adamw(model, OptimizerOptions(weight_decay=0.5))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    set_rate(optimizer, 0.1, 0.95)
    optimizer.step()  # without a gradient, decay is all that happens
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (0.95 if parameter.ndim >= 2 else 1))


def test_a_frozen_parameter_has_no_state() -> None:
    model = Tiny()
    model.embed.weight.requires_grad_(False)
    assert decayed(model)[0] == ["up.weight"]
    assert not any(name.startswith("embed") for name in optimizer_state(model, adamw(model, OptimizerOptions())))


@pytest.mark.parametrize("fused", [True, False])
def test_steps_are_those_of_the_paper_in_double_precision(fused: bool) -> None:
    """Loshchilov and Hutter 2019, algorithm 2, written out."""
    model, options = Tiny(), OptimizerOptions(fused=fused)
    optimizer = adamw(model, options)
    weight = model.up.weight.detach().double()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 6):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
        gradient = model.up.weight.grad
        assert gradient is not None
        gradient = gradient.double()
        beta2 = 0.95 if step < 4 else 0.99  # of a cooldown
        mean, square = 0.9 * mean + 0.1 * gradient, beta2 * square + (1 - beta2) * gradient**2
        weight = weight * (1 - 1e-2 * 0.1)
        weight = weight - 1e-2 * (mean / (1 - 0.9**step)) / ((square / (1 - beta2**step)).sqrt() + 1e-8)
        set_rate(optimizer, 1e-2, beta2)
        optimizer.step()
    torch.testing.assert_close(model.up.weight.double(), weight, rtol=1e-5, atol=1e-6)


def test_the_rate_is_0_until_it_is_set() -> None:
    model = Tiny()
    optimizer = adamw(model, OptimizerOptions())
    before = model.up.weight.detach().clone()
    model(torch.arange(4)).pow(2).mul(torch.arange(12)).mean().backward()
    optimizer.step()
    assert torch.equal(model.up.weight, before)


def test_state_goes_by_name_and_a_run_goes_on_from_it_bit_for_bit() -> None:
    straight, stopped, resumed = Tiny(), Tiny(), Tiny(seed=1)
    one, two, three = (adamw(model, OptimizerOptions()) for model in (straight, stopped, resumed))
    train(straight, one, range(8))
    train(stopped, two, range(4))
    for name, tensor in optimizer_state(resumed, three).items():
        tensor.copy_(optimizer_state(stopped, two)[name])
    resumed.load_state_dict(stopped.state_dict())
    train(resumed, three, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    ours, theirs = optimizer_state(straight, one), optimizer_state(resumed, three)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) and ours["up.weight.step"] == 8
    assert set(ours) == {
        f"{name}.{kind}" for name, _ in straight.named_parameters() for kind in ("exp_avg", "exp_avg_sq", "step")
    }


def test_the_state_is_there_before_the_first_step_and_is_that_of_torch() -> None:
    model, plain = Tiny(), Tiny()
    optimizer = adamw(model, OptimizerOptions(weight_decay=0))
    assert all(not tensor.any() for tensor in optimizer_state(model, optimizer).values())
    lazy = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0, fused=True)
    train(model, optimizer, range(3))
    train(plain, lazy, range(3))
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
        assert {k: (v.dtype, v.shape, v.device) for k, v in optimizer.state[a].items()} == {
            k: (v.dtype, v.shape, v.device) for k, v in lazy.state[b].items()
        }


def test_parameters_are_float32() -> None:
    with pytest.raises(InputError, match=r"embed\.weight is torch.bfloat16"):
        adamw(Tiny().to(torch.bfloat16), OptimizerOptions())


def gradients(*values: Tensor) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros_like(value)) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = value.clone()
    return [*parameters, nn.Parameter(torch.zeros(3))]  # the last has none


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_norm_is_the_global_one_and_the_factor_is_that_of_torch(scale: float) -> None:
    torch.manual_seed(0)
    values = [scale * torch.randn(7, 5), scale * torch.randn(11)]
    ours, theirs = gradients(*values), gradients(*values)
    norm = clip(ours, 1.0)
    assert norm == pytest.approx(torch.cat([value.flatten() for value in values]).double().norm().item(), rel=1e-6)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0)
    if norm < 1:  # not touched at all
        assert all(torch.equal(a.grad, value) for a, value in zip(ours, values, strict=False) if a.grad is not None)


def test_no_largest_norm_is_no_clipping() -> None:
    parameters = gradients(torch.full((4,), 100.0))
    assert clip(parameters, 0) == 200 and torch.equal(parameters[0].grad, torch.full((4,), 100.0))
    assert clip([nn.Parameter(torch.zeros(2))], 1.0) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_is_told_and_no_gradient_is_touched(bad: float) -> None:
    parameters = gradients(torch.tensor([3.0, bad]), torch.tensor([100.0]))
    assert not math.isfinite(clip(parameters, 1.0))
    assert torch.equal(parameters[1].grad, torch.tensor([100.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_is_right_for_millions_of_elements(dtype: torch.dtype) -> None:
    """Squares that are added up one after the other in float32, let alone in bf16, are off by 0.2 % here."""
    value = torch.full((3_000_001,), 0.001, dtype=dtype)
    square = squared_norm([value, torch.ones(2, 3).t()])
    assert square.item() == pytest.approx(value.double().square().sum().item() + 6, rel=1e-6)
    assert square.dtype == torch.float32


def test_squares_of_other_processes_are_summed_before_the_root() -> None:
    whole = gradients(torch.tensor([3.0]), torch.tensor([4.0]))
    half = gradients(torch.tensor([3.0]))
    assert clip(whole, 1.0) == 5.0 == clip(half, 1.0, lambda square: square + 16)
    assert torch.equal(whole[0].grad, half[0].grad)
