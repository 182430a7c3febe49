"""How a model is spread over processes. One process is a layout like any other, and the only one that runs yet.

Nothing that a user writes or keeps depends on it: names of parameters, padding of the vocabulary, the order of the data and the
draws of dropout are the same in every layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Final, Self

from stackbuild.errors import UsageError


@dataclass(frozen=True)
class Layout:
    """Processes along each axis: `data` (replicas or shards of the state), `tensor`, `pipeline`, `context`.

    `sequence`: between the layers, tensor-parallel processes hold a part of each row instead of a copy.
    """

    data: int = 1
    tensor: int = 1
    sequence: bool = False
    pipeline: int = 1
    context: int = 1

    @classmethod
    def single(cls) -> Self:
        """One process."""
        return cls()

    @property
    def world(self) -> int:
        """All processes."""
        return prod((self.data, self.tensor, self.pipeline, self.context))

    def check(self) -> None:
        """UsageError if this layout cannot be run."""
        axes = {"data": self.data, "tensor": self.tensor, "pipeline": self.pipeline, "context": self.context}
        for axis, processes in axes.items():
            if processes < 1:
                raise UsageError(f"parallel.{axis} = {processes}: at least one process is needed")
        if self.sequence and self.tensor == 1:
            raise UsageError("parallel.sequence = true needs parallel.tensor > 1: it shares rows among those processes")
        if self.world > 1:
            told = ", ".join(f"{axis} = {processes}" for axis, processes in axes.items() if processes > 1)
            raise UsageError(
                f"parallel: {told} asks for {self.world} processes, and this version trains in one. Training in many comes with "
                "the parallel layouts; a run that is begun now can be resumed in them. Leave [parallel] out."
            )


SINGLE: Final = Layout()
