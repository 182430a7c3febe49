"""Rotary positions (Su et al. 2021) in the layout of StarCoder2: channel c of a head turns with channel c + head_dim / 2.

Angles are position * theta^(-2 c / head_dim) in fp32; their cosines and sines are cast to the dtype of the residual stream, as
transformers does, so that a model computed in bf16 gives the same logits here as there.
"""

from __future__ import annotations

from typing import Any

import torch


def angles(
    positions: torch.Tensor, theta: float, head_dim: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines (B, T, 1, head_dim), twice the same half, and sines (B, T, 1, head_dim / 2) of `dtype`, for positions (B, T).

    The axis of 1 is for the heads.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angle = positions[..., None, None].to(torch.float32) * (1.0 / theta**exponents)
    cos = angle.cos().to(dtype)
    return torch.cat((cos, cos), -1), angle.sin().to(dtype)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn x (B, T, heads, head_dim) by angles of `angles`; in their dtype, and then of x's."""
    if torch.compiler.is_compiling():
        left, right = x.chunk(2, -1)
        sines = torch.cat((-sin, sin), -1)
        return (x * cos + torch.cat((right, left), -1) * sines).to(x.dtype)
    turned: torch.Tensor = _Turn.apply(x, cos, sin)
    return turned


class _Turn(torch.autograd.Function):
    """Two passes over x, and nothing kept for backward but the angles; the written formula takes five and keeps more."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, sin, -1), None, None  # the transpose of a rotation turns back


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    wide = x.to(cos.dtype)  # under autocast heads are in bf16, and angles not
    out = wide * cos
    left, right = wide.chunk(2, -1)
    to_left, to_right = out.chunk(2, -1)
    to_left.addcmul_(right, sin, value=-sign)
    to_right.addcmul_(left, sin, value=sign)
    return out.to(x.dtype)
