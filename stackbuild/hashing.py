"""Draws and partitions: every random choice is a hash of (seed, key), so that no order or worker can change it."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def draw(seed: int, *key: bytes | str) -> int:
    """A uniform uint64 that depends on nothing but the seed and the key's parts."""
    digest = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "little", signed=True))
    for part in key:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little")


def uniform(seed: int, *key: bytes | str) -> float:
    """A float in [0, 1) from `draw`."""
    return (draw(seed, *key) >> 11) * 2.0**-53


def owner_of(repo_name: str) -> str:
    """The folded owner (forges compare owners without case): what stands before the first "/", or host/owner if that is a host.

    Owners of github.com stand alone and cannot hold a dot; those of other forges follow their host.
    """
    parts = repo_name.casefold().split("/", 2)
    return "/".join(parts[:2]) if len(parts) == 3 and "." in parts[0] else parts[0]


def owner_bucket(repo_name: str, partitions: int) -> int:
    """The partition of an owner's repositories."""
    return int.from_bytes(hashlib.sha1(owner_of(repo_name).encode()).digest()[:8], "big") % partitions


def id_bytes(ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """binary(20) ids as uint8 of shape (n, 20), whatever slice or chunks they come in; none may be null."""
    if isinstance(ids, pa.ChunkedArray):
        ids = pa.concat_arrays(ids.chunks) if ids.num_chunks else pa.array([], pa.binary(20))
    if not len(ids):
        return np.empty((0, 20), np.uint8)
    return np.frombuffer(ids.buffers()[1], np.uint8, 20 * len(ids), 20 * ids.offset).reshape(-1, 20)


def hex_ids(ids: pa.Array) -> pa.Array:
    """binary(20) to 40 lower-case hex digits; null stays null."""
    rows = len(ids)
    if not rows:
        return pa.array([], pa.string())
    if isinstance(ids, pa.ChunkedArray):
        ids = pa.concat_arrays(ids.chunks)
    raw = ids.buffers()[1].to_pybytes()[20 * ids.offset : 20 * (ids.offset + rows)]
    offsets = pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * 40)
    text = pa.StringArray.from_buffers(rows, offsets, pa.py_buffer(raw.hex().encode()))
    return pc.if_else(pc.is_valid(ids), text, pa.scalar(None, pa.string())) if ids.null_count else text


def content_buckets(content_ids: npt.NDArray[np.uint8], partitions: int) -> npt.NDArray[np.int64]:
    """The partition of each content: the leading bits of its id, so that partitions are ranges of ids.

    `content_ids`: uint8 of shape (n, 20). `partitions`: a power of two up to 65,536. Returns int64 of shape (n,).
    """
    head = content_ids[:, 0].astype(np.int64) << 8 | content_ids[:, 1]
    return head >> (16 - partitions.bit_length() + 1)


def scope_hashes(names: pa.Array | pa.ChunkedArray | None, rows: int) -> npt.NDArray[np.uint64]:
    """What rows are compared within, as uint64 (rows,): a hash of the row's name (none is a name too), or 0 for all."""
    if names is None or not rows:
        return np.zeros(rows, np.uint64)
    if isinstance(names, pa.ChunkedArray):
        names = names.combine_chunks()
    encoded = names.cast(pa.string()).dictionary_encode(null_encoding="encode")
    hashes = [draw(0, name) if name is not None else draw(0) for name in encoded.dictionary.to_pylist()]
    scopes: npt.NDArray[np.uint64] = np.array(hashes, np.uint64)[np.asarray(encoded.indices)]
    return scopes
