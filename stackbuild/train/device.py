"""The device that a run is on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stackbuild.errors import StackbuildError, UsageError
from stackbuild.train import flops


class OutOfMemory(StackbuildError):
    """Something does not fit into a device."""


@contextmanager
def enough_memory(device: torch.device, what: str, advice: str) -> Iterator[None]:
    """OutOfMemory, which names `what` does not fit and gives `advice`, in the place of torch's error."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):  # a CPU's allocator
            raise
        raise OutOfMemory(f"{what} does not fit into the memory of {device}. {advice}") from error


def device_of(name: str) -> torch.device:
    """The device of a name; "auto": CUDA where it is. UsageError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def peak_of(device: torch.device) -> float | None:
    """FLOP/s of a device in bf16 at its best, or None where that is not known: of a CPU."""
    return flops.peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
