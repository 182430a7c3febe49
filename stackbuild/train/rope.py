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
    """Cosines and sines for `turn`: (B, T, 1, head_dim / 2) of `dtype`, for positions (B, T); the axis of 1 is for the heads."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angle = positions[..., None, None].to(torch.float32) * (1.0 / theta**exponents)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn x (B, T, heads, head_dim) by angles of `angles`; of x's dtype."""
    if torch.compiler.is_compiling() or x.device.type == "meta":
        return _plain(x, cos, sin)
    turned: torch.Tensor = _Turn.apply(x, cos, sin)
    return turned


class _Turn(torch.autograd.Function):
    """Four passes over half of x and nothing kept for backward but the angles; the written formula takes seven and keeps more."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _into(x, cos, sin, -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _into(grads[0], cos, sin, 1), None, None  # the transpose of a rotation turns back


def _plain(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1).to(x.dtype)


def _into(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    if cos.dtype != x.dtype:  # autocast: angles in fp32, heads in bf16
        return _plain(x, cos, sin if sign < 0 else -sin)
    out = torch.empty_like(x)
    left, right = x.chunk(2, -1)
    to_left, to_right = out.chunk(2, -1)
    torch.mul(left, cos, out=to_left)
    torch.mul(right, cos, out=to_right)
    to_left.addcmul_(right, sin, value=sign)
    to_right.addcmul_(left, sin, value=-sign)
    return out
