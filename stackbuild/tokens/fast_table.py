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
_16, _32, _56 = np.uint64(16), np.uint64(32), np.uint64(56)
_K1, _K2 = np.uint64(0xA0761D6478BD642F), np.uint64(0xE7037ED1A0B428DB)


class Model(NamedTuple):
    """What does not change. `whole` lists the vocabulary for `ignore_merges`, and is empty without it."""

    byte_ids: Any  # int32 (256,)
    token_bytes: Any  # int32 (largest id + 1,)
    pairs: Any  # fast_merges.fill_pairs
    low_masks: Any  # uint64 (16,): of the first eight bytes of a word of k bytes
    high_masks: Any  # of the following ones
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
def fill_whole(data: Any, offsets: Any, table: Any) -> None:
    """Write the entries of a vocabulary into an empty table of at least twice as many slots."""
    mask = np.uint64(len(table) - 1)
    for entry in range(len(offsets) - 1):
        slot = hash_bytes(data, offsets[entry], offsets[entry + 1] - offsets[entry]) & mask
        while table[slot]:
            slot = (slot + _ONE) & mask
        table[slot] = entry + 1


@kernel
def _whole_id(data: Any, at: Any, size: Any, model: Any) -> Any:
    """The id of a word that the vocabulary has as it is, or -1."""
    mask = np.uint64(len(model.whole) - 1)
    slot = hash_bytes(data, at, size) & mask
    while model.whole[slot]:
        entry = model.whole[slot] - 1
        place = model.whole_offsets[entry]
        if model.whole_offsets[entry + 1] - place == size and same_bytes(data, at, model.whole_bytes, place, size):
            return np.int64(model.whole_ids[entry])
        slot = (slot + _ONE) & mask
    return np.int64(-1)


@kernel
def _make(data: Any, at: Any, size: Any, model: Any, words: Any, out: Any, n: Any) -> Any:
    """Write the ids of a word to `out[n:]` and return their number."""
    if len(model.whole) > 1:
        found = _whole_id(data, at, size, model)
        if found >= 0:
            out[n] = found
            return 1
    if size <= SHORT:
        count = merge_short(data, at, size, model.byte_ids, model.pairs, words.ids, words.ranks)
        for k in range(count):
            out[n + k] = words.ids[k]
        return count
    ids = merge_long(data, at, size, model.byte_ids, model.token_bytes, model.pairs)
    for k in range(len(ids)):
        out[n + k] = ids[k]
    return len(ids)


@kernel
def _room(words: Any, size: Any, count: Any) -> None:
    """Make room for a word in the stores."""
    if words.used[0] + size + 8 > len(words.kept_bytes) or words.used[1] + count > len(words.kept_ids):
        words.short[:] = np.uint64(0)
        words.long[:] = np.uint64(0)
        words.used[0] = words.used[1] = 0
        words.used[2] += 1


@kernel
def _keep_ids(words: Any, out: Any, n: Any, count: Any) -> Any:
    place = words.used[1]
    for k in range(count):
        words.kept_ids[place + k] = out[n + k]
    words.used[1] += count
    return np.uint64(place)


@kernel
def _new_short(data: Any, at: Any, size: Any, low: Any, high: Any, entry: Any, model: Any, words: Any, out: Any, n: Any) -> Any:
    count = _make(data, at, size, model, words, out, n)
    third, fourth = np.uint64(0), np.uint64(count) << _32
    if count <= 3:
        third = np.uint64(out[n])
        if count > 1:
            third |= np.uint64(out[n + 1]) << _32
        if count > 2:
            fourth |= np.uint64(out[n + 2])
    else:
        _room(words, 0, count)
        third = _keep_ids(words, out, n, count)
    short = words.short
    for k in range(4):
        short[entry + 4 + k] = short[entry + k]
    short[entry], short[entry + 1], short[entry + 2], short[entry + 3] = low, high, third, fourth
    return count


@kernel
def _long_word(data: Any, at: Any, size: Any, model: Any, words: Any, out: Any, n: Any) -> Any:
    if size > LONGEST:
        return _make(data, at, size, model, words, out, n)
    value = hash_bytes(data, at, size)
    long = words.long
    entry = np.int64(value & np.uint64(len(long) // 8 - 1)) * 8
    for _ in range(2):
        if (
            long[entry] == value
            and long[entry + 3]
            and np.int64(long[entry + 1] & np.uint64(0xFFFF)) == size
            and same_bytes(data, at, words.kept_bytes, np.int64(long[entry + 1] >> _16), size)
        ):
            place, count = np.int64(long[entry + 2]), np.int64(long[entry + 3])
            for k in range(count):
                out[n + k] = words.kept_ids[place + k]
            return count
        entry += 4
    entry -= 8
    count = _make(data, at, size, model, words, out, n)
    _room(words, size, count)
    start = words.used[0]
    for k in range(size):
        words.kept_bytes[start + k] = data[at + k]
    words.used[0] += size
    for k in range(4):
        long[entry + 4 + k] = long[entry + k]
    long[entry] = value
    long[entry + 1] = (np.uint64(start) << _16) | np.uint64(size)
    long[entry + 2] = _keep_ids(words, out, n, count)
    long[entry + 3] = np.uint64(count)
    return count


@kernel
def encode_words(
    data: Any, offsets: Any, starts: Any, model: Any, words: Any, out: Any, out_offsets: Any, state: Any
) -> None:
    """Write the ids of texts to `out` until all is done, or `out` is full.

    `data`, `offsets`, `starts`: as `fast_words.word_starts` has them; `out_offsets`: int64 of shape (texts + 1,), where
    the ids of each text begin, counted from the first text's; `state`: int64 [byte, text, ids in all, ids in `out`],
    at first [offsets[0], 0, 0, 0]. All is done when `state[1]` is the number of texts + 1.
    """
    first = offsets[0]
    at, text, before = state[0], state[1], state[2]
    n = np.int64(0)
    short = words.short
    sets = np.uint64(len(short) // 8 - 1)
    border = offsets[text] if text < len(offsets) else np.int64(-1)
    block = (at - first) >> 6
    bits = starts[block] & (np.uint64(0xFFFFFFFFFFFFFFFF) << np.uint64((at - first) & 63))
    if at > first:
        bits &= ~(_ONE << np.uint64((at - first) & 63))  # that word's own beginning
    while True:
        while bits:
            end = first + block * 64 + lowest_bit(bits)
            size = end - at
            if n + size + ROOM > len(out):
                state[0], state[1], state[2], state[3] = at, text, before + n, n
                return
            bits &= bits - _ONE
            if size > INLINE:
                n += _long_word(data, at, size, model, words, out, n)
            elif size > 0:
                low = eight_bytes(data, at) & model.low_masks[size]
                high = (eight_bytes(data, at + 8) & model.high_masks[size]) | (np.uint64(size) << _56)
                entry = np.int64(fold_product(low ^ _K1, high ^ _K2) & sets) * 8
                if short[entry] == low and short[entry + 1] == high:
                    third, fourth = short[entry + 2], short[entry + 3]
                elif short[entry + 4] == low and short[entry + 5] == high:
                    third, fourth = short[entry + 6], short[entry + 7]
                else:
                    _new_short(data, at, size, low, high, entry, model, words, out, n)
                    third, fourth = short[entry + 2], short[entry + 3]
                count = np.int64(fourth >> _32)
                if count <= 3:
                    out[n] = third & _LOW
                    out[n + 1] = third >> _32
                    out[n + 2] = fourth & _LOW
                else:
                    place = np.int64(third)
                    for k in range(count):
                        out[n + k] = words.kept_ids[place + k]
                n += count
            at = end
            while end == border:
                out_offsets[text] = before + n
                text += 1
                border = offsets[text] if text < len(offsets) else np.int64(-1)
        block += 1
        if block == len(starts):
            break
        bits = starts[block]
    state[0], state[1], state[2], state[3] = at, text, before + n, n
