"""Options of the layout, and how languages are cut into files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from stackbuild.hashing import uniform
from stackbuild.stage import Options


class LayoutOptions(Options):
    """How the release is cut into files."""

    file_bytes: int = Field(
        256 << 20, ge=1 << 10, description="text that a dataset file aims at, in bytes; it ends at an owner's end"
    )
    row_group_bytes: int = Field(
        64 << 20, ge=1 << 10, le=128 << 20, description="text of a row group at most, in bytes"
    )
    content: Literal["text", "none"] = Field(
        "text",
        description="`none`: the dataset has every column but the text, which `stackbuild manifest regenerate` fetches",
    )


def cut_by_owner(owners: Sequence[tuple[str, int]], target: int, seed: int, language: str) -> Iterator[tuple[str, str]]:
    """Cut a language's owners (sorted, with bytes) into files: yield (first owner, last owner), both inclusive.

    A file ends behind an owner chosen by a hash of its name with a chance of its bytes over half the target, once half the
    target is full; twice the target ends it in any case. So a boundary depends on what is near it, and new input moves
    only the files that it falls into.
    """
    first, filled = "", 0
    for position, (owner, size) in enumerate(owners):
        if not filled:
            first = owner
        filled += max(size, 1)
        last = position == len(owners) - 1
        chosen = filled >= target // 2 and uniform(seed, "layout", language, owner) < 2 * size / target
        if last or chosen or filled >= 2 * target:
            yield first, owner
            filled = 0
