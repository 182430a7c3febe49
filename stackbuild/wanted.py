"""What is asked of a store of objects, and what may become of it: the words between those who fetch and those who ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OK: Final = "ok"
STATES: Final = (  # what may become of a wanted object; only "ok" has bytes
    OK,
    "missing",  # 404: never there, or taken down; not looked for elsewhere
    "forbidden",  # 403 of this object, by a store that gives others
    "zeroed",  # nothing but NUL bytes, a known damage of the archive
    "not_gzip",  # no gzip stream, or a damaged one
    "truncated",  # the gzip stream has no end
    "trailing_data",  # bytes behind the gzip stream
    "too_large",  # inflates to more than its length, or than the limit
    "hash_mismatch",  # another length, SHA-1 or git SHA-1 than asked for
    "gave_up",  # every try failed: busy, reset, timed out
)
PASSING: Final = frozenset({"gave_up"})  # may be another the next time; the other states are final


@dataclass(frozen=True, slots=True)
class Wanted:
    """A content that is asked for. `blob_id`: plain SHA-1 of the bytes, the key; `content_id`: git's SHA-1; both 20 bytes."""

    blob_id: bytes
    content_id: bytes | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of it: one of STATES, and the bytes if it is "ok", else None."""

    wanted: Wanted
    state: str
    data: bytes | None = None
