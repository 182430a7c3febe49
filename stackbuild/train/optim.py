"""AdamW by canonical names, and clipping by the global norm.

Weight decay is for matrices alone: parameters of two or more dimensions, embeddings with them, and never biases or norms, as in
the StarCoder runs (Megatron's rule). The learning rate and beta2 are no state: the schedule's are set before each step, so
that a resumed run and a branched one cannot bring an old rate along.

Parameters, gradients and both moments are float32; bf16 is by autocast of the forward pass alone. So there is no second copy of the
weights, gradients of micro-batches are summed in float32, and a checkpoint has one precision. That is 16 bytes a parameter.

State goes by the parameter's name: NAME.exp_avg, NAME.exp_avg_sq of its shape, and NAME.step, the float32 count of updates that it
had, which falls behind the run's step where steps were skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from stackbuild.errors import InputError
from stackbuild.stage import Options

MOMENTS = ("exp_avg", "exp_avg_sq")
ROW = 4096  # elements whose squares are added up one after the other


class OptimizerOptions(Options):
    """AdamW: the recipe's table `[optimizer]`. The defaults are those of every StarCoder run."""

    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the mean of squared gradients")
    eps: float = Field(1e-8, gt=0, allow_inf_nan=False, description="added to the root of the mean square")
    weight_decay: float = Field(
        0.1, ge=0, allow_inf_nan=False, description="times the learning rate, of matrices alone; the same in all phases"
    )
    clip: float = Field(1.0, ge=0, allow_inf_nan=False, description="largest global norm of the gradient; 0: any")
    fused: bool = Field(True, description="torch's fused kernel, where it has one for the device")


def decayed(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the trained parameters with weight decay, and of those without it, in the model's order."""
    names = [(name, parameter.ndim >= 2) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [name for name, is_matrix in names if is_matrix], [name for name, is_matrix in names if not is_matrix]


def adamw(model: nn.Module, options: OptimizerOptions) -> torch.optim.AdamW:
    """An optimizer of the model's float32 parameters, whose state is there at once (so that memory is known from the start).

    Its learning rate is 0 until `set_rate`. InputError: a parameter of another type.
    """
    named = dict(model.named_parameters())
    for name, parameter in named.items():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise InputError(
                f"{name} is {parameter.dtype}; parameters are trained in float32, and bf16 comes by autocast"
            )
    with_decay, without = decayed(model)
    groups = [
        {"params": [named[name] for name in names], "weight_decay": decay}
        for names, decay in ((with_decay, options.weight_decay), (without, 0.0))
        if names
    ]
    devices = {parameter.device.type for parameter in named.values()}
    fused = options.fused and devices <= {"cpu", "cuda"}
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(options.beta1, options.beta2), eps=options.eps, fused=fused)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # As torch makes it at the first step: the count is beside the kernel that reads it.
            at = parameter.device if fused else "cpu"
            state = {"step": torch.zeros((), dtype=torch.float32, device=at)}
            state |= {moment: torch.zeros_like(parameter, memory_format=torch.preserve_format) for moment in MOMENTS}
            optimizer.state[parameter] = state
    return optimizer


def set_rate(optimizer: torch.optim.AdamW, learning_rate: float, beta2: float) -> None:
    """What the next step is made with."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        group["betas"] = (group["betas"][0], beta2)


def squared_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The sum of all squares, a float32 scalar, whatever the type of the gradients. Of no gradient it is 0.

    Summed in short rows and then pairwise: torch's own norm adds up one float32 after the other on a CPU, which for the 50 million
    elements of an embedding was off by 0.4 % (measured, 2.13).
    """
    norms = []
    for gradient in gradients:
        flat = gradient.reshape(-1)
        whole = flat.numel() - flat.numel() % ROW
        if whole:
            norms.append(torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1, dtype=torch.float32))
        if whole < flat.numel():
            norms.append(torch.linalg.vector_norm(flat[whole:], dtype=torch.float32))
    if not norms:
        return torch.zeros(())
    return torch.stack([norm.square().sum().to(norms[0].device) for norm in norms]).sum()


def clip(
    parameters: Iterable[nn.Parameter], maximum: float, gathered: Callable[[Tensor], Tensor] | None = None
) -> float:
    """Scale all gradients, in place, to a global L2 norm of `maximum` if it is larger (0: never); return the norm before.

    The factor is maximum / (norm + 1e-6), as torch and Megatron have it. A norm that is not finite is returned as it is and leaves
    the gradients alone: whoever calls must ask `math.isfinite` and not step. `gathered` sums the squares of this process with those
    of the others, each parameter counted once.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    square = squared_norm(gradients)
    norm = float((gathered(square) if gathered is not None else square).sqrt())
    if maximum and math.isfinite(norm) and norm + 1e-6 > maximum:
        torch._foreach_mul_(gradients, maximum / (norm + 1e-6))
    return norm


def optimizer_state(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The optimizer's own tensors by canonical name (not copies: what is loaded into them is loaded)."""
    return {
        f"{name}.{kind}": optimizer.state[parameter][kind]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        for kind in (*MOMENTS, "step")
    }
