"""Byte-pair merges of one word, as `tokenizers` does them: the pair of the lowest rank, of equal ones the leftmost.

A pair table is open-addressed: uint64 of (2 * slots,), left id << 32 | right id beside rank << 32 | new id. A key that
is all ones is an empty slot.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.tokens.fast_bits import eight_bytes, fold_product

SHORT = 64  # bytes of a word that is searched as a whole for every merge
FAN = 64  # children of a node in the tree of minima
NEVER = np.uint32(0xFFFFFFFF)  # the rank of a pair that is not merged
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_ONE = np.uint64(1)
_1 = np.uint64(0x9E3779B97F4A7C15)
_2 = np.uint64(0xD6E8FEB86659FD93)


@kernel
def fill_pairs(keys: Any, values: Any, pairs: Any) -> None:
    """Write pairs into an empty table of at least twice as many slots, a power of two; a later value replaces a former."""
    mask = np.uint64(len(pairs) // 2 - 1)
    pairs[:] = _EMPTY
    for k in range(len(keys)):
        slot = fold_product(keys[k] ^ _1, _2) & mask
        while pairs[slot << _ONE] != _EMPTY and pairs[slot << _ONE] != keys[k]:
            slot = (slot + _ONE) & mask
        pairs[slot << _ONE] = keys[k]
        pairs[(slot << _ONE) | _ONE] = values[k]


@kernel
def merge_of(left: Any, right: Any, pairs: Any) -> Any:
    """rank << 32 | new id of a pair of ids, or all ones."""
    mask = np.uint64(len(pairs) // 2 - 1)
    key = (np.uint64(left) << _32) | np.uint64(right)
    slot = fold_product(key ^ _1, _2) & mask
    while True:
        found = pairs[slot << _ONE]
        if found == key:
            return pairs[(slot << _ONE) | _ONE]
        if found == _EMPTY:
            return _EMPTY
        slot = (slot + _ONE) & mask


@kernel
def merge_short(data: Any, at: Any, size: Any, byte_ids: Any, pairs: Any, ids: Any, ranks: Any) -> Any:
    """Merge `data[at:at + size]`, at most `SHORT` bytes, into `ids` (int32) and return their number.

    `ranks`: uint64 scratch. Both have at least `SHORT` + 1 places.
    """
    for k in range(size):
        ids[k] = byte_ids[data[at + k]]
    count = size
    for k in range(count - 1):
        ranks[k] = merge_of(ids[k], ids[k + 1], pairs)
    while count > 1:
        best, where = _EMPTY, 0
        for k in range(count - 1):
            if ranks[k] < best:
                best = ranks[k]
                where = k
        if best == _EMPTY:
            break
        ids[where] = np.int32(best & _LOW)
        count -= 1
        for k in range(where + 1, count):
            ids[k] = ids[k + 1]
        for k in range(where + 1, count - 1):
            ranks[k] = ranks[k + 1]
        if where + 1 < count:
            ranks[where] = merge_of(ids[where], ids[where + 1], pairs)
        if where > 0:
            ranks[where - 1] = merge_of(ids[where - 1], ids[where], pairs)
    return count


@kernel
def _set_rank(tree: Any, levels: Any, place: Any, rank: Any) -> None:
    """Give a place a rank, and every node above it its minimum."""
    tree[place] = rank
    for level in range(len(levels) - 2):
        node = place // FAN
        start = levels[level] + node * FAN
        end = min(start + FAN, levels[level + 1])
        lowest = NEVER
        for k in range(start, end):
            lowest = min(lowest, tree[k])
        if tree[levels[level + 1] + node] == lowest:
            return
        tree[levels[level + 1] + node] = lowest
        place = node


@kernel
def merge_long(data: Any, at: Any, size: Any, byte_ids: Any, token_bytes: Any, pairs: Any) -> Any:
    """Merge a word of any length and return its ids, int32, in O(size log size) time and some 8 bytes of memory per byte.

    Places are those of the word's bytes; a token is at its first. The lowest rank is found by a tree of minima over the
    pairs' ranks; the last byte of a token of several holds minus its length, by which one steps to the left.
    """
    ids = np.empty(size, np.int32)
    for k in range(size):
        ids[k] = byte_ids[data[at + k]]
    depth, width, total = 1, size, size
    while width > 1:
        width = (width + FAN - 1) // FAN
        total += width
        depth += 1
    levels = np.zeros(depth + 1, np.int64)
    width = size
    for level in range(depth):
        levels[level + 1] = levels[level] + width
        width = (width + FAN - 1) // FAN
    tree = np.full(total, NEVER, np.uint32)
    for k in range(size - 1):
        tree[k] = np.uint32(merge_of(ids[k], ids[k + 1], pairs) >> _32)
    for level in range(depth - 1):
        for k in range(levels[level + 1] - levels[level]):
            node = levels[level + 1] + k // FAN
            tree[node] = min(tree[node], tree[levels[level] + k])

    top = levels[depth - 1]
    while tree[top] != NEVER:
        lowest, place = tree[top], np.int64(0)
        for above in range(depth - 1):
            level = depth - 2 - above
            place *= FAN
            while tree[levels[level] + place] != lowest:
                place += 1
        right = place + token_bytes[ids[place]]
        new = np.int32(merge_of(ids[place], ids[right], pairs) & _LOW)
        length = token_bytes[new]
        end = place + length
        _set_rank(tree, levels, right, NEVER)
        ids[place] = new
        ids[end - 1] = -length
        following = NEVER
        if end < size:
            following = np.uint32(merge_of(new, ids[end], pairs) >> _32)
        _set_rank(tree, levels, place, following)
        if place > 0:
            left = place - 1
            if ids[left] < 0:
                left = place + ids[left]
            _set_rank(tree, levels, left, np.uint32(merge_of(ids[left], new, pairs) >> _32))

    count, place = 0, np.int64(0)
    while place < size:
        token = ids[place]
        place += token_bytes[token]
        ids[count] = token
        count += 1
    return ids[:count]


@kernel
def hash_bytes(data: Any, at: Any, size: Any) -> Any:
    """A hash of the first and last 16 of at least 16 bytes, and of their number: uint64."""
    first = fold_product(eight_bytes(data, at) ^ _1, eight_bytes(data, at + 8) ^ _2)
    last = fold_product(eight_bytes(data, at + size - 16) ^ _2, eight_bytes(data, at + size - 8) ^ np.uint64(size))
    return fold_product(first ^ _1, last ^ _2)


@kernel
def same_bytes(data: Any, at: Any, other: Any, place: Any, size: Any) -> Any:
    """Whether `data[at:at + size]` is `other[place:place + size]`, of at least 16 bytes."""
    different = (eight_bytes(data, at) ^ eight_bytes(other, place)) | (
        eight_bytes(data, at + 8) ^ eight_bytes(other, place + 8)
    )
    for k in range(16, size - 16, 8):
        different |= eight_bytes(data, at + k) ^ eight_bytes(other, place + k)
    for k in (size - 16, size - 8):
        different |= eight_bytes(data, at + k) ^ eight_bytes(other, place + k)
    return different == np.uint64(0)
