"""Dropout whose draws are functions of what they are for: no generator, no state.

An element is dropped by a hash of

    seed, step | layer, site | sample number, place in the row (and head) | channel (or key)

so that the same step drops the same elements however its samples are cut into micro-batches, on whatever device and process, when it is
run again after a stop, and when activations are computed a second time. The hash is 32 bits of two rounds of the "lowbias32" mixer
(Wellons 2018, whose bias is below that of MurmurHash3's), with one half of a 64-bit key of the row in each round.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from stackbuild import hashing

EMBEDDING: Final = 0
RESIDUAL_ATTENTION: Final = 1
RESIDUAL_FFN: Final = 2
WEIGHTS: Final = 3

_SIGN: Final = 1 << 63
_GOLDEN: Final = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1: Final = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2: Final = 0x94D049BB133111EB - (1 << 64)
_STRIDE: Final = 0x9E3779B1 - (1 << 32)  # odd: channels stay apart
_LOW_1: Final = 0x7FEB352D
_LOW_2: Final = 0x846CA68B - (1 << 32)


class Draws(NamedTuple):
    """What the draws of a batch depend on. `key`: int64 of no axis, of (seed, step); `samples`: int64 (B,), numbers within the run."""

    key: torch.Tensor
    samples: torch.Tensor


class Site(NamedTuple):
    """One place in the model where elements are dropped: the batch's draws, the layer, what is dropped there, and at which rate."""

    draws: Draws
    layer: int
    site: int
    rate: float


def draws(seed: int, step: int, samples: torch.Tensor) -> Draws:
    """The draws of a step for some of its samples, `samples` int64 (B,); on their device."""
    key = (hashing.draw(seed, "dropout", str(step)) ^ _SIGN) - _SIGN  # as a signed number
    return Draws(torch.tensor(key, dtype=torch.int64, device=samples.device), samples.to(torch.int64))


def site(given: Draws | None, layer: int, where: int, rate: float) -> Site | None:
    """A site, or None where nothing is dropped: no draws, or a rate of 0. `layer` is -1 outside the layers."""
    return None if given is None or rate == 0 else Site(given, layer, where, rate)


def dropped(at: Site, shape: torch.Size, first: int = 0) -> torch.Tensor:
    """Which elements are dropped: bool of `shape`, (B, T, C) or (B, heads, T, S). `first`: the place of the first row in its sample."""
    rows = _rows(at, shape, first)
    low, high = rows.to(torch.int32), (rows >> 32).to(torch.int32)
    x = torch.arange(shape[-1], dtype=torch.int32, device=rows.device) * _STRIDE + low[..., None]
    x = _lowbias(x).bitwise_xor_(high[..., None])
    return _lowbias(x) < int(at.rate * 2**32) - 2**31  # uniform over int32


def drop(x: torch.Tensor, at: Site | None, first: int = 0) -> torch.Tensor:
    """Zero what is dropped and scale the rest by 1 / (1 - rate); without a site, `x` itself."""
    if at is None:
        return x
    return x.masked_fill(dropped(at, x.shape, first), 0.0) * (1 / (1 - at.rate))


def _rows(at: Site, shape: torch.Size, first: int) -> torch.Tensor:
    """The key of each row of elements: int64 of `shape` without its last axis."""
    where = _splitmix(at.draws.key + (at.layer + 1) * 16 + at.site)
    keys = _splitmix(where ^ at.draws.samples)[:, None]
    if len(shape) == 4:
        keys = _splitmix(keys + torch.arange(1, shape[1] + 1, device=keys.device))[..., None]
    return _splitmix(keys ^ torch.arange(first, first + shape[-2], device=keys.device))


def _splitmix(x: torch.Tensor) -> torch.Tensor:
    """A mix of 64 bits (Steele, Lea, Flood 2014); int64 wraps as uint64 does."""
    x = x + _GOLDEN
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _MIX_1
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _MIX_2
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def _lowbias(x: torch.Tensor) -> torch.Tensor:
    """A mix of 32 bits, in place."""
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(_LOW_1)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(_LOW_2)
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))
