"""Attention under one mask object, by three kernels that agree.

Query i (key `offset + i`) sees key j if all of these hold:

    causal       j <= offset + i
    window       offset + i - j < window, so that a window counts the query itself
    documents    both are of the same document

Every token sees itself, so that no row of weights is empty: padding (document -1) attends to padding and gives finite numbers that
nobody reads.

    sdpa     torch's scaled_dot_product_attention: everywhere; without a mask tensor where causality is the whole mask
    flex     FlexAttention, which leaves out blocks that nothing sees: CUDA. Experimental: its forward pass is tested on the CPU, its
             backward pass exists on CUDA alone
    eager    matrix products and a softmax in fp32, in a few lines: the reference, and the one kernel with dropout on the weights. Of long
             rows some queries at a time, whose weights are computed again in backward: all of them are nowhere at once

Query heads g * r .. g * r + r - 1 share key and value head g, r = query heads / key and value heads. Scores are scaled by
1 / sqrt(head_dim).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from stackbuild.errors import UsageError
from stackbuild.train.dropout import Site, drop

AT_ONCE: Final = 1 << 26  # weights of the eager kernel at a time: 256 MB in fp32
Kernel = Literal["sdpa", "flex", "eager"]
Choice = Literal["auto", "sdpa", "flex", "eager"]


@dataclass(frozen=True)
class Mask:
    """Which keys a query sees; the rules of the module's head, which all hold together.

    `window`: None for no bound. `documents`: int (B, S), a number for each document of a row and -1 for padding, of all S keys; None: a row
    is one document. `offset`: keys that precede the first query (a cache, an earlier part of the row).
    """

    causal: bool = True
    window: int | None = None
    documents: torch.Tensor | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        if self.window is not None and (self.window < 1 or not self.causal):
            raise ValueError(f"a window is of causal attention and counts the query itself: {self}")

    def plain(self, queries: int, keys: int) -> bool:
        """Whether it says no more than `is_causal` does: of a square, all before the query."""
        return (
            self.causal and self.documents is None and not self._windowed(keys) and not self.offset and queries == keys
        )

    def open(self, queries: int, keys: int) -> bool:
        """Whether every query sees every key: no causality, or one query after all other keys."""
        behind = self.offset + 1 >= keys and queries == 1
        return self.documents is None and (not self.causal or (behind and not self._windowed(keys)))

    def _windowed(self, keys: int) -> bool:
        return self.window is not None and self.window < keys

    def visible(self, queries: int, keys: int, device: torch.device | str | None = None) -> torch.Tensor:
        """What is seen: bool (B or 1, 1, queries, keys), the second axis for the heads."""
        place = torch.arange(self.offset, self.offset + queries, device=device)[:, None]
        key = torch.arange(keys, device=device)
        seen = key <= place if self.causal else torch.ones_like(key <= place)
        if self.window is not None and self._windowed(keys):
            seen &= place - key < self.window
        seen = seen[None, None]
        if self.documents is not None:
            theirs = self.documents[:, None, None, :]
            seen = seen & (theirs[..., self.offset : self.offset + queries].transpose(-1, -2) == theirs)
        return seen


@dataclass(frozen=True)
class Ready:
    """A mask as a kernel takes it, made once for a batch and shared by all layers."""

    kernel: Kernel
    mask: Mask
    is_causal: bool
    given: Any  # sdpa, eager: bool (B or 1, 1, T, S), or None; flex: its BlockMask


def choose(kernel: Choice, mask: Mask, queries: int, keys: int, device: torch.device, dropout: bool) -> Kernel:
    """The kernel that "auto" stands for. `dropout`: whether weights are dropped: UsageError for a kernel that cannot."""
    if dropout and kernel in {"sdpa", "flex"}:
        raise UsageError(
            f"attention_dropout needs the eager kernel; kernel = {kernel} cannot drop weights so that a resumed run draws the "
            "same. Leave the kernel on auto, or set attention_dropout = 0."
        )
    if kernel != "auto":
        return kernel
    if dropout:
        return "eager"
    simple = mask.plain(queries, keys) or mask.open(queries, keys)
    return "flex" if device.type == "cuda" and not simple and queries == keys else "sdpa"


def prepare(mask: Mask, kernel: Kernel, queries: int, keys: int, device: torch.device) -> Ready:
    """Make a mask ready for `attend`. ValueError if its documents are not those of `keys` keys."""
    if keys < mask.offset + queries or (mask.documents is not None and mask.documents.shape[1] != keys):
        raise ValueError(f"{queries} queries after {mask.offset} keys do not fit {keys} keys or their documents")
    if mask.open(queries, keys):
        return Ready(kernel, mask, False, None)
    if kernel == "sdpa" and mask.plain(queries, keys):
        return Ready(kernel, mask, True, None)
    given = _block_mask(mask, queries, keys, device) if kernel == "flex" else mask.visible(queries, keys, device)
    return Ready(kernel, mask, False, given)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Mask | Ready,
    kernel: Kernel = "sdpa",
    dropout: Site | None = None,
) -> torch.Tensor:
    """Attention of q (B, Hq, T, D) to k, v (B, Hkv, S, D): (B, Hq, T, D) of the same dtype.

    `mask`: where it is a `Ready`, its kernel is used. `dropout`: on the weights, of the eager kernel alone; UsageError with another.
    """
    ready = mask if isinstance(mask, Ready) else prepare(mask, kernel, q.shape[2], k.shape[2], q.device)
    if dropout is not None and ready.kernel != "eager":
        choose(ready.kernel, ready.mask, q.shape[2], k.shape[2], q.device, dropout=True)
    grouped = q.shape[1] != k.shape[1]
    if ready.kernel == "flex":
        flexed: torch.Tensor = _flex(q.is_cuda)(q, k, v, block_mask=ready.given, enable_gqa=grouped)
        return flexed
    if ready.kernel == "eager":
        return _eager(q, k, v, ready, dropout)
    if grouped and ready.given is not None and not q.is_cpu:  # of CUDA's kernels that take a mask none knows groups
        k, v, grouped = _repeat(k, q.shape[1]), _repeat(v, q.shape[1]), False
    out: torch.Tensor = F.scaled_dot_product_attention(
        q, k, v, attn_mask=ready.given, is_causal=ready.is_causal, enable_gqa=grouped
    )
    return out


def eager_rows(rows: int, heads: int, queries: int, keys: int) -> int:
    """How many queries of `rows` rows the eager kernel takes at a time: all, or a multiple of 16 for about AT_ONCE weights."""
    fit = AT_ONCE // (rows * heads * keys)
    return queries if queries <= fit else max(16, fit // 16 * 16)


def _eager(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ready: Ready, dropout: Site | None) -> torch.Tensor:
    heads, queries, keys = q.shape[1], q.shape[2], k.shape[2]
    k, v, offset = _repeat(k, heads), _repeat(v, heads), ready.mask.offset
    rows = eager_rows(len(q), heads, queries, keys)
    if rows >= queries:
        return _weighted(q, k, v, ready.given, dropout, offset)
    made = []
    for low in range(0, queries, rows):
        high = min(low + rows, queries)
        end = min(offset + high, keys) if ready.mask.causal else keys  # nobody here sees what lies behind
        seen = None if ready.given is None else ready.given[:, :, low:high, :end]
        of = (q[:, :, low:high], k[:, :, :end], v[:, :, :end], seen, dropout, offset + low)
        again = torch.is_grad_enabled()
        made.append(
            checkpoint(_weighted, *of, use_reentrant=False, preserve_rng_state=False) if again else _weighted(*of)
        )
    return torch.cat(made, 2)


def _weighted(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor | None, dropout: Site | None, first: int
) -> torch.Tensor:
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype)
    if dropout is not None:
        weights = drop(weights, dropout, first=first)
    return weights @ v


def _repeat(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, Hkv, S, D) to (B, heads, S, D), each head as often as it is shared."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _block_mask(mask: Mask, queries: int, keys: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    documents = mask.documents

    def seen(batch: Any, _head: Any, query: Any, key: Any) -> Any:
        place = query + mask.offset
        answer = key <= place if mask.causal else key >= 0
        if mask.window is not None:
            answer = answer & (place - key < mask.window)
        if documents is not None:
            answer = answer & (documents[batch, place] == documents[batch, key])
        return answer

    rows = None if documents is None else documents.shape[0]
    return create_block_mask(seen, rows, None, queries, keys, device=str(device), _compile=device.type == "cuda")


@functools.cache
def _flex(compiled: bool) -> Any:
    """FlexAttention; compiled, which makes the one kernel of it that is fast, on CUDA."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
