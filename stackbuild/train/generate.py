"""Greedy continuation of many prompts at once, with the keys and values of what was read kept.

Prompts of different lengths are padded on the left, as documents of their own, so that all of them end in the same column and each new
token is one column more. Prompts are taken in order of length, so that little is padded; rows that have stopped leave the batch
when they are half of it. The tokens are those of computing the whole row again for each new one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch

from stackbuild.errors import UsageError
from stackbuild.train.model import Decoder


class Generated(NamedTuple):
    """What follows a prompt: tokens without the one that stopped it, and whether one did (if not, the limit)."""

    ids: list[int]
    stopped: bool


class Cache:
    """Keys and values of the tokens read so far, (B, Hkv, columns, D) for each layer; `room` columns are set aside at first use."""

    def __init__(self, room: int):
        self.room, self.length = room, 0
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values (B, Hkv, T, D) behind the others of a layer; all of them. `length` grows by `advance` alone."""
        if layer not in self._kept:
            room = (*k.shape[:2], self.room, k.shape[3])
            self._kept[layer] = k.new_empty(room), v.new_empty(room)
        end = self.length + k.shape[2]
        keys, values = self._kept[layer]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, columns: int) -> None:
        """Say that all layers have read so many more."""
        self.length += columns

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all rows but these, int64 (n,)."""
        self._kept = {layer: (k[rows], v[rows]) for layer, (k, v) in self._kept.items()}


@torch.no_grad()
def greedy(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    limit: int | Sequence[int],
    stop: Collection[int] = (),
    batch: int = 16,
) -> list[Generated]:
    """The likeliest token after each prompt again and again, until one of `stop` or `limit` tokens, which may be told for
    each; in the order of the prompts.

    UsageError for a prompt that is empty, holds a token that the model does not have, or would grow longer than learned positions.
    """
    limits = [limit] * len(prompts) if isinstance(limit, int) else list(limit)
    for number, prompt in enumerate(prompts):
        _check(model, number, prompt, limits[number])
    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    told: dict[int, Generated] = {}
    for low in range(0, len(by_length), batch):
        numbers = by_length[low : low + batch]
        found = _batch(
            model, [list(prompts[number]) for number in numbers], [limits[n] for n in numbers], frozenset(stop)
        )
        told |= dict(zip(numbers, found, strict=True))
    return [told[number] for number in range(len(prompts))]


def _check(model: Decoder, number: int, prompt: Sequence[int], limit: int) -> None:
    config = model.config
    if not prompt:
        raise UsageError(f"prompt {number} is empty: give it at least one token, for example the end of a document")
    if min(prompt) < 0 or max(prompt) >= config.vocab_size:
        raise UsageError(f"prompt {number} holds a token that is not one of the model's {config.vocab_size}")
    if config.learned and len(prompt) + limit - 1 > config.max_positions:
        raise UsageError(
            f"prompt {number} has {len(prompt)} tokens and may get {limit} more: the model has {config.max_positions} learned positions"
        )


def _batch(model: Decoder, prompts: list[list[int]], limits: list[int], stop: frozenset[int]) -> list[Generated]:
    device = model.embed.weight.device
    longest, limit = max(map(len, prompts)), max(limits)
    pads = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    columns = torch.arange(longest + limit, device=device)
    # Nobody sees padding but padding; where there is none, no mask is needed.
    documents = -(columns < pads[:, None]).to(torch.int32) if bool(pads.any()) else None
    cache = Cache(longest + limit)
    most = model.config.max_positions - 1 if model.config.learned else longest + limit
    rows = list(range(len(prompts)))  # whose row of the batch is whose prompt
    ids: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    for made in range(limit):
        end = cache.length + tokens.shape[1]
        positions = (columns[cache.length : end] - pads[:, None]).clamp(0, most)  # at most: of rows that have ended
        mask = model.mask(None if documents is None else documents[:, :end], offset=cache.length)
        last = model(tokens, positions, mask, cache=cache)[:, -1]
        cache.advance(tokens.shape[1])
        found = model.logits(last).argmax(-1)
        for row, token in zip(rows, found.tolist(), strict=True):
            stopped[row] = stopped[row] or (token in stop and made < limits[row])
            if not stopped[row] and made < limits[row]:
                ids[row].append(token)
        going = [place for place, row in enumerate(rows) if not stopped[row] and made + 1 < limits[row]]
        if not going:
            break
        tokens = found[:, None]
        if 2 * len(going) <= len(rows):
            kept = torch.tensor(going, device=device)
            cache.keep(kept)
            tokens, pads = tokens[kept], pads[kept]
            documents = None if documents is None else documents[kept]
            rows = [rows[place] for place in going]
    return [Generated(found, end) for found, end in zip(ids, stopped, strict=True)]
