"""Tensors by name: how two sets of them differ, told in few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

TOLD = 5  # differences that a message names


class Kind(NamedTuple):
    """What must be equal for a tensor to go into another's place. `dtype`: torch's name of it, such as "float32"."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape}"


def kind_of(tensor: Tensor) -> Kind:
    """Shape and type of a tensor, of the whole one if it is sharded."""
    return Kind(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def kinds_of(tensors: Mapping[str, Tensor]) -> dict[str, Kind]:
    """Shape and type of each."""
    return {name: kind_of(tensor) for name, tensor in tensors.items()}


def differences(given: Mapping[str, Kind], wanted: Mapping[str, Kind]) -> list[str]:
    """What differs, in the order of names: a missing tensor, one too many, another shape or type. Empty: nothing."""
    told = []
    for name in sorted({*given, *wanted}):
        if name not in given:
            told.append(f"{name} is missing")
        elif name not in wanted:
            told.append(f"{name} is not of it")
        elif given[name] != wanted[name]:
            told.append(f"{name} is {given[name]}, not {wanted[name]}")
    return told


def few(told: list[str]) -> str:
    """The first few of some differences, and how many more there are."""
    rest = len(told) - TOLD
    return "; ".join(told[:TOLD]) + (f"; and {rest:,} more" if rest > 0 else "")
