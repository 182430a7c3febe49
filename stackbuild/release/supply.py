"""Where the bytes of contents come from: a build that holds them, or an object store, behind one function."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from stackbuild.wanted import Fetched, Wanted

OK, MISSING, TAKEN_DOWN, CHANGED, UNCHECKED = "ok", "missing", "taken_down", "changed", "unchecked"

# What a store's state of an object says of the row that wants it (Software Heritage's own tools take a zeroed object for a
# missing one; a refusal for one object of a store that answers others is a removal).
STATES: Final = {
    "ok": OK,
    "missing": MISSING,
    "zeroed": MISSING,
    "forbidden": TAKEN_DOWN,
    "not_gzip": CHANGED,
    "truncated": CHANGED,
    "trailing_data": CHANGED,
    "too_large": CHANGED,
    "hash_mismatch": CHANGED,
    "gave_up": UNCHECKED,
}


Supply = Callable[[Iterator[Wanted]], Iterator[Fetched]]  # in the order asked
ItemT = TypeVar("ItemT")


def answered(
    items: Iterable[ItemT], wanted_by: Callable[[ItemT], Wanted], supply: Supply
) -> Iterator[tuple[ItemT, Fetched]]:
    """Each item with what became of the content that it wants. As many items are held as the supply asks for ahead."""
    waiting: deque[ItemT] = deque()

    def wanted() -> Iterator[Wanted]:
        for item in items:
            waiting.append(item)
            yield wanted_by(item)

    for fetched in supply(wanted()):
        yield waiting.popleft(), fetched
