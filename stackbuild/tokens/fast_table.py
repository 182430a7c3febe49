"""The words that were met, with their ids: bounded tables, by whose content no id ever changes.

A word of up to 15 bytes is its own key. `short`: uint64 of (8 * sets,), two entries of four for each set, a cache line:

    bytes 0-7 | bytes 8-14 and the length in the top byte | first id, second id << 32 | third id, number of ids << 32

With more than three ids the third field is their place in `kept_ids`. Words of up to `LONGEST` bytes are in `long`, of
the same shape: hash | place in `kept_bytes` << 16, length | place in `kept_ids` | number of ids. A new word takes the
first place of its set, the former first one the second place. A full store empties everything.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.tokens.fast_bits import eight_bytes, fold_product, lowest_bit
from stackbuild.tokens.fast_merges import SHORT, hash_bytes, merge_long, merge_short, same_bytes

INLINE = 15  # bytes of a word that is its own key
LONGEST = 256  # bytes of a word that is kept
ROOM = SHORT + 8  # places that ids are written to at a time, beyond those of a long word
_ONE = np.uint64(1)
_LOW = np.uint64(0xFFFFFFFF)
_2, _3, _4, _16, _32, _56 = (np.uint64(number) for number in (2, 3, 4, 16, 32, 56))
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_NOTHING = np.uint64(0)
_INLINE = np.uint64(INLINE)
_FOUR_IDS = np.uint64(4 << 32)
_K1, _K2 = np.uint64(0xA0761D6478BD642F), np.uint64(0xE7037ED1A0B428DB)


class Model(NamedTuple):
    """What does not change. `whole` lists the vocabulary for `ignore_merges`, and is empty without it."""

    byte_ids: Any  # int32 (256,)
    token_bytes: Any  # int32 (largest id + 1,)
    pairs: Any  # fast_merges.fill_pairs
    masks: (
        Any  # uint64 (32,): of the first eight bytes of a word of k bytes, at k, and of the following ones, at 16 + k
    )
    whole: Any  # int64 (slots,): entry + 1, 0 if empty; slots is a power of two, or one empty slot
    whole_offsets: Any  # int64 (entries + 1,)
    whole_bytes: Any  # uint8
    whole_ids: Any  # int32 (entries,)


class Words(NamedTuple):
    """What was met. `used`: int64, bytes and ids that are kept, and how often all was emptied."""

    short: Any
    long: Any
    kept_bytes: Any
    kept_ids: Any
    used: Any
    ids: Any  # scratch of `merge_short`
    ranks: Any


@kernel
def _key(data: Any, at: Any, size: Any, masks: Any) -> Any:
    """A word of up to `INLINE` bytes as two uint64, no two words the same."""
    length = np.uint64(size)
    low = eight_bytes(data, at) & masks[length]
    return low, (eight_bytes(data, at + 8) & masks[length + _16]) | (length << _56)


@kernel
def _hash(data: Any, at: Any, size: Any, masks: Any) -> Any:
    if size > INLINE:
        return hash_bytes(data, at, size)
    low, high = _key(data, at, size, masks)
    return fold_product(low ^ _K1, high ^ _K2)


@kernel
def fill_whole(data: Any, offsets: Any, masks: Any, table: Any) -> None:
    """Write the entries of a vocabulary into an empty table of at least twice as many slots."""
    mask = np.uint64(len(table) - 1)
    for entry in range(len(offsets) - 1):
        slot = _hash(data, offsets[entry], offsets[entry + 1] - offsets[entry], masks) & mask
        while table[slot]:
            slot = (slot + _ONE) & mask
        table[slot] = entry + 1


@kernel
def _whole_id(data: Any, at: Any, size: Any, masks: Any, whole: Any, offsets: Any, entries: Any, ids: Any) -> Any:
    """The id of a word that the vocabulary has as it is, or -1."""
    mask = np.uint64(len(whole) - 1)
    slot = _hash(data, at, size, masks) & mask
    while whole[slot]:
        place = offsets[whole[slot] - 1]
        if offsets[whole[slot]] - place == size:
            if size > INLINE:
                same = same_bytes(data, at, entries, place, size)
            else:
                same = _key(data, at, size, masks) == _key(entries, place, size, masks)
            if same:
                return np.int64(ids[whole[slot] - 1])
        slot = (slot + _ONE) & mask
    return np.int64(-1)


@kernel
def _merged(
    data: Any, at: Any, size: Any, byte_ids: Any, token_bytes: Any, pairs: Any, ids: Any, ranks: Any, out: Any, n: Any
) -> Any:
    """Write the ids of a word to `out[n:]` by merges, and return their number."""
    if size <= SHORT:
        count = merge_short(data, at, size, byte_ids, pairs, ids, ranks)
        for k in range(count):
            out[n + k] = ids[k]
        return count
    made = merge_long(data, at, size, byte_ids, token_bytes, pairs)
    for k in range(len(made)):
        out[n + k] = made[k]
    return len(made)


@kernel
def _keep_ids(kept_ids: Any, used: Any, out: Any, n: Any, count: Any) -> Any:
    """Keep ids behind those that are kept, and return their place."""
    place = used[1]
    for k in range(count):
        kept_ids[place + k] = out[n + k]
    used[1] += count
    return np.uint64(place)


@kernel
def _keep_short(
    data: Any, at: Any, size: Any, masks: Any, short: Any, kept_ids: Any, used: Any, out: Any, n: Any, count: Any
) -> None:
    """Keep a word of up to `INLINE` bytes."""
    low, high = _key(data, at, size, masks)
    third, fourth = np.uint64(0), np.uint64(count) << _32
    if count > 3:
        third = _keep_ids(kept_ids, used, out, n, count)
    else:
        third = np.uint64(out[n])
        if count > 1:
            third |= np.uint64(out[n + 1]) << _32
        if count > 2:
            fourth |= np.uint64(out[n + 2])
    entry = np.int64(fold_product(low ^ _K1, high ^ _K2) & np.uint64(len(short) // 8 - 1)) * 8
    for k in range(4):
        short[entry + 4 + k] = short[entry + k]
    short[entry], short[entry + 1], short[entry + 2], short[entry + 3] = low, high, third, fourth


@kernel
def _keep_long(
    data: Any, at: Any, size: Any, long: Any, kept_bytes: Any, kept_ids: Any, used: Any, out: Any, n: Any, count: Any
) -> None:
    """Keep a word of up to `LONGEST` bytes."""
    start = used[0]
    for k in range(size):
        kept_bytes[start + k] = data[at + k]
    used[0] += size
    value = hash_bytes(data, at, size)
    entry = np.int64(value & np.uint64(len(long) // 8 - 1)) * 8
    for k in range(4):
        long[entry + 4 + k] = long[entry + k]
    long[entry] = value
    long[entry + 1] = (np.uint64(start) << _16) | np.uint64(size)
    long[entry + 2] = _keep_ids(kept_ids, used, out, n, count)
    long[entry + 3] = np.uint64(count)


@kernel
def _find_short(data: Any, at: Any, size: Any, masks: Any, short: Any, kept_ids: Any, out: Any, n: Any) -> Any:
    """Write the ids of a kept word of up to `INLINE` bytes; -1 if it is not kept."""
    low, high = _key(data, at, size, masks)
    entry = np.int64(fold_product(low ^ _K1, high ^ _K2) & np.uint64(len(short) // 8 - 1)) * 8
    if short[entry] != low or short[entry + 1] != high:
        entry += 4
        if short[entry] != low or short[entry + 1] != high:
            return np.int64(-1)
    count = np.int64(short[entry + 3] >> _32)
    if count > 3:
        place = np.int64(short[entry + 2])
        for k in range(count):
            out[n + k] = kept_ids[place + k]
    else:
        out[n] = short[entry + 2] & _LOW
        out[n + 1] = short[entry + 2] >> _32
        out[n + 2] = short[entry + 3] & _LOW
    return count


@kernel
def _find_long(data: Any, at: Any, size: Any, long: Any, kept_bytes: Any, kept_ids: Any, out: Any, n: Any) -> Any:
    """Write the ids of a kept word of up to `LONGEST` bytes; -1 if it is not kept."""
    value = hash_bytes(data, at, size)
    entry = np.int64(value & np.uint64(len(long) // 8 - 1)) * 8
    for _ in range(2):
        if (
            long[entry] == value
            and np.int64(long[entry + 1] & np.uint64(0xFFFF)) == size
            and same_bytes(data, at, kept_bytes, np.int64(long[entry + 1] >> _16), size)
        ):
            place, count = np.int64(long[entry + 2]), np.int64(long[entry + 3])
            for k in range(count):
                out[n + k] = kept_ids[place + k]
            return count
        entry += 4
    return np.int64(-1)


@kernel
def _known(data: Any, first: Any, starts: Any, masks: Any, short: Any, out: Any, border: Any, state: Any) -> None:
    """Take words from `state` on while they are short, known, and of at most three ids, up to `border`, where a text ends.

    Most words are such ones; the loop is kept so small that it needs no memory for what it counts.
    """
    at, n = state[0], np.uint64(state[3])
    sets = np.uint64(len(short) // 8 - 1)
    full = np.uint64(len(out) - ROOM)
    block = (at - first) >> 6
    base = first + block * 64
    bits = starts[block] & ((_ALL << np.uint64(at - base)) << _ONE)
    while n < full and at < border:
        if not bits:
            block += 1
            base += 64
            bits = starts[block]
            continue
        end = base + lowest_bit(bits)
        size = np.uint64(end - at)
        if size > _INLINE:
            break
        low = eight_bytes(data, at) & masks[size]
        high = (eight_bytes(data, at + 8) & masks[size + _16]) | (size << _56)
        entry = (fold_product(low ^ _K1, high ^ _K2) & sets) << _3
        if (short[entry] != low) | (short[entry + _ONE] != high):
            entry += _4
        fourth = short[entry + _3]
        if (short[entry] != low) | (short[entry + _ONE] != high) | (fourth >= _FOUR_IDS):
            break
        third = short[entry + _2]
        out[n] = third & _LOW
        out[n + _ONE] = third >> _32
        out[n + _2] = fourth & _LOW
        n += fourth >> _32
        at = end
        bits &= bits - _ONE
    state[0], state[3] = at, n


@kernel
def encode_words(
    data: Any, offsets: Any, starts: Any, model: Any, words: Any, out: Any, out_offsets: Any, state: Any
) -> None:
    """Write the ids of texts to `out` until all is done, or `out` is full.

    `data`, `offsets`, `starts`: as `fast_words.word_starts` has them; `out_offsets`: int64 of shape (texts + 1,), where
    the ids of each text begin, counted from the first text's; `state`: int64 [byte, text, ids of former calls, ids in
    `out`], at first [offsets[0], 0, 0, 0]. All is done when `state[1]` is the number of texts + 1.
    """
    first = offsets[0]
    # Taken out of their tuples once: each time it costs more than a word does.
    byte_ids, token_bytes, pairs, masks = model.byte_ids, model.token_bytes, model.pairs, model.masks
    whole, whole_offsets, entries, whole_ids = model.whole, model.whole_offsets, model.whole_bytes, model.whole_ids
    short, long, kept_bytes, kept_ids, used = words.short, words.long, words.kept_bytes, words.kept_ids, words.used
    ids, ranks = words.ids, words.ranks
    state[2] += state[3]
    state[3] = 0
    while True:
        while state[1] < len(offsets) and offsets[state[1]] == state[0]:
            out_offsets[state[1]] = state[2] + state[3]
            state[1] += 1
        if state[1] == len(offsets):
            return
        border = offsets[state[1]]
        _known(data, first, starts, masks, short, out, border, state)
        at, n = state[0], state[3]
        if at == border:
            continue
        block = (at - first) >> 6
        bits = starts[block] & ((_ALL << np.uint64((at - first) & 63)) << _ONE)
        while not bits:
            block += 1
            bits = starts[block]
        size = first + block * 64 + lowest_bit(bits) - at
        if n + size + ROOM > len(out):
            return
        if size <= INLINE:
            count = _find_short(data, at, size, masks, short, kept_ids, out, n)
        elif size <= LONGEST:
            count = _find_long(data, at, size, long, kept_bytes, kept_ids, out, n)
        else:
            count = np.int64(-1)
        if count < 0:
            if len(whole) > 1:
                found = _whole_id(data, at, size, masks, whole, whole_offsets, entries, whole_ids)
                if found >= 0:
                    out[n] = found
                    count = np.int64(1)
            if count < 0:
                count = _merged(data, at, size, byte_ids, token_bytes, pairs, ids, ranks, out, n)
            if size <= LONGEST:
                if used[0] + size + 8 > len(kept_bytes) or used[1] + count > len(kept_ids):
                    short[:] = _NOTHING
                    long[:] = _NOTHING
                    used[0] = used[1] = 0
                    used[2] += 1
                if size <= INLINE:
                    _keep_short(data, at, size, masks, short, kept_ids, used, out, n, count)
                else:
                    _keep_long(data, at, size, long, kept_bytes, kept_ids, used, out, n, count)
        state[0] = at + size
        state[3] = n + count
