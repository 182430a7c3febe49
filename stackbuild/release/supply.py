"""Where the bytes of contents come from: a build that holds them, or an object store, behind one function."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

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


@dataclass(frozen=True)
class Need:
    """A content that is wanted. `blob_id`: its SHA-1, the object's key. `content_id`: git's, where known."""

    blob_id: bytes
    content_id: bytes | None
    length: int | None


@dataclass(frozen=True)
class Answer:
    """What came of it: a state of STATES, and the bytes if it is "ok"."""

    state: str
    data: bytes | None = None


Supply = Callable[[Iterator[Need]], Iterator[Answer]]  # answers in the order of the needs
ItemT = TypeVar("ItemT")


def answered(items: Iterable[ItemT], need: Callable[[ItemT], Need], supply: Supply) -> Iterator[tuple[ItemT, Answer]]:
    """Each item with the answer to its need. As many items are held as the supply asks for ahead of its answers."""
    waiting: deque[ItemT] = deque()

    def needs() -> Iterator[Need]:
        for item in items:
            waiting.append(item)
            yield need(item)

    for answer in supply(needs()):
        yield waiting.popleft(), answer
