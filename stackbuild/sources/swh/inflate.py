"""An object's bytes become a content, or the name of what is wrong with them: bounded inflate, length, both SHA-1.

Every damage has a state of its own (reference: Software Heritage's own readers treat zeroed objects as missing). Two files
may share their plain SHA-1, the key, but not also git's: where git's is known it is compared too.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final

from stackbuild.swhid import content_id
from stackbuild.wanted import OK, Wanted

GZIP: Final = b"\x1f\x8b"
WBITS: Final = 31  # a gzip frame, nothing else
PIECE: Final = 256 * 1024


def stored_limit(limit: int) -> int:
    """Bytes that the gzip of `limit` bytes may have: random bytes grow by a little, and headers may hold a name."""
    return limit + limit // 64 + 64 * 1024


def judge(body: bytes, wanted: Wanted, limit: int) -> tuple[str, bytes | None]:
    """(state, content) of an object that came whole; content is None unless the state is "ok".

    `limit`: bytes that the content may have, its length where that is known. Never more than that is inflated.
    """
    if body[:2] != GZIP:
        if not body or body == GZIP[:1]:
            return "truncated", None
        return ("not_gzip" if any(body[:64]) or body.count(0) != len(body) else "zeroed"), None
    decoder = zlib.decompressobj(WBITS)
    try:
        data = decoder.decompress(body, limit + 1)
    except zlib.error:
        return "not_gzip", None
    if len(data) > limit:
        return "too_large", None
    if not decoder.eof:
        return "truncated", None
    if decoder.unused_data:
        return "trailing_data", None
    if wanted.length is not None and len(data) != wanted.length:
        return "hash_mismatch", None
    return (OK, data) if is_it(data, wanted) else ("hash_mismatch", None)


def is_it(data: bytes, wanted: Wanted) -> bool:
    """Whether these bytes hash to what is wanted, by both hashes if both are known."""
    if hashlib.sha1(data, usedforsecurity=False).digest() != wanted.blob_id:
        return False
    return wanted.content_id is None or content_id(data) == wanted.content_id


def inflated_length(body: bytes, limit: int) -> int:
    """How many bytes it would become, limit + 1 if more, counted piece by piece; -1 for a damaged stream."""
    decoder = zlib.decompressobj(WBITS)
    total = 0
    rest = body
    try:
        while not decoder.eof and total <= limit:
            piece = decoder.decompress(rest, PIECE)
            rest = decoder.unconsumed_tail
            if not piece and not rest:
                break
            total += len(piece)
    except zlib.error:
        return -1
    return min(total, limit + 1)
