"""What `fim` does to each fragment of a batch, as kernels: decode, cut, find the words that change, put together.

A batch is n fragments behind one another, tokens `offsets[k]` to `offsets[k + 1]` and bytes `bounds[k]` to `bounds[k + 1]`.
A fragment whose code is not 0 stays as it is, and no step looks at it again; that of one without a meaning as text has no
bytes, and any other's are blanks, so that the batch is UTF-8 in any case.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.tokens.counter import below_bits
from stackbuild.tokens.fast_bits import eight_bytes, lowest_bit, put_eight_bytes
from stackbuild.tokens.fast_words import character

# Why a fragment is not treated.
TREATED, OUTGROWN, SHORT, NOT_TEXT, NOT_UTF8, NOT_IDENTITY = range(6)

PARTS = 3  # prefix, middle, suffix, as they stand in the text
_ORDER = (0, 2, 1)  # prefix, suffix, middle: as they are written
_BLANK = 32
_ABOVE_ASCII = np.uint64(0x8080808080808080)
_ONES = np.uint64(0x0101010101010101)
_NONE, _ONE, _6, _7, _56, _63 = (np.uint64(number) for number in (0, 1, 6, 7, 56, 63))
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@kernel
def measure(ids: Any, offsets: Any, lengths: Any, begins: Any, bounds: Any, codes: Any) -> None:
    """Where each token and each fragment begins in bytes: `begins` (tokens + 1,), `bounds` (n + 1,), int64.

    `lengths`: int32, the bytes of each token of the vocabulary; 0 for one that no text becomes. NOT_TEXT where there is one.
    """
    at = np.int64(0)
    for k in range(len(offsets) - 1):
        bounds[k] = at
        for t in range(offsets[k], offsets[k + 1]):
            begins[t] = at
            token = np.int64(ids[t])
            size = np.int64(0)
            if 0 <= token < len(lengths):
                size = np.int64(lengths[token])
            if size == 0:
                codes[k] = NOT_TEXT
            at += size
        if codes[k]:
            at = bounds[k]
            begins[offsets[k]] = at  # read as the end of the fragment before
    begins[offsets[len(offsets) - 1]] = at
    bounds[len(offsets) - 1] = at


@kernel
def decode(
    ids: Any, offsets: Any, codes: Any, begins: Any, lengths: Any, places: Any, token_bytes: Any, data: Any
) -> None:
    """Write the bytes of the tokens to `data`, which has eight more; token i is `token_bytes[places[i]:]`, with eight more."""
    for k in range(len(offsets) - 1):
        if codes[k]:
            continue
        for t in range(offsets[k], offsets[k + 1]):
            token = np.int64(ids[t])
            at, place = begins[t], places[token]
            for done in range(0, lengths[token], 8):
                put_eight_bytes(data, at + done, eight_bytes(token_bytes, place + done))


@kernel
def characters(data: Any, bounds: Any, least: Any, counts: Any, codes: Any) -> None:
    """Characters of each fragment, int64 (n,). NOT_UTF8 where bytes are none; SHORT where there are fewer than `least`."""
    for k in range(len(bounds) - 1):
        counts[k] = 0
        if codes[k]:
            continue
        at, end, count = bounds[k], bounds[k + 1], np.int64(0)
        while at < end:
            if end - at >= 8 and not eight_bytes(data, at) & _ABOVE_ASCII:
                at += 8
                count += 8
            elif data[at] < 128:
                at += 1
                count += 1
            else:
                found = character(data, at, end)
                if found < 0:
                    codes[k] = NOT_UTF8
                    break
                at += found & 7
                count += 1
        counts[k] = count
        if codes[k] == TREATED and count < least:
            codes[k] = SHORT
        if codes[k]:
            data[bounds[k] : end] = _BLANK


@kernel
def _byte_of(data: Any, at: Any, end: Any, number: Any) -> Any:
    """The byte at which character `number` of a text of UTF-8 begins; `end` for the one behind the last."""
    left = number
    while at + 8 < end:  # characters that begin in eight bytes: those that are not 10xxxxxx
        some = eight_bytes(data, at)
        inner = (some >> _7) & ~(some >> _6) & _ONES
        count = np.int64(8) - np.int64((inner * _ONES) >> _56)
        if count > left:
            break
        left -= count
        at += 8
    while at < end:
        if data[at] & 0xC0 != 0x80:
            if left == 0:
                return at
            left -= 1
        at += 1
    return end


@kernel
def character_cuts(data: Any, bounds: Any, counts: Any, codes: Any, first: Any, second: Any, cuts: Any) -> None:
    """Two cuts of each fragment, in bytes, int64 (n, 2): each uniform over 0 to all characters by its draw, then sorted."""
    for k in range(len(bounds) - 1):
        start, end = bounds[k], bounds[k + 1]
        cuts[k, 0] = cuts[k, 1] = start
        if codes[k]:
            continue
        places = np.uint64(counts[k] + 1)
        one, other = np.int64(below_bits(first[k], places)), np.int64(below_bits(second[k], places))
        for place, number in enumerate((min(one, other), max(one, other))):
            if counts[k] == end - start:
                cuts[k, place] = start + number
            else:
                cuts[k, place] = _byte_of(data, start, end, number)


@kernel
def compare(ids: Any, offsets: Any, found: Any, found_offsets: Any, codes: Any) -> None:
    """NOT_IDENTITY where the ids are not those that were found for the text."""
    for k in range(len(offsets) - 1):
        size = offsets[k + 1] - offsets[k]
        if codes[k] == TREATED:
            if found_offsets[k + 1] - found_offsets[k] != size:
                codes[k] = NOT_IDENTITY
                continue
            for t in range(size):
                if ids[offsets[k] + t] != found[found_offsets[k] + t]:
                    codes[k] = NOT_IDENTITY
                    break


@kernel
def _next(starts: Any, at: Any) -> Any:
    """The first beginning at `at` or behind it; there is one."""
    block = at >> 6
    bits = starts[block] & (_ALL << np.uint64(at & 63))
    while not bits:
        block += 1
        bits = starts[block]
    return block * 64 + lowest_bit(bits)


@kernel
def _previous(starts: Any, at: Any) -> Any:
    """The last beginning before `at`; there is one."""
    at -= 1
    while not (starts[at >> 6] >> np.uint64(at & 63)) & _ONE:
        if not starts[at >> 6] << (_63 - np.uint64(at & 63)):
            at = (at >> 6) * 64
        at -= 1
    return at


@kernel
def _token_at(begins: Any, low: Any, high: Any, at: Any) -> Any:
    """The first of the tokens from `low` on that begins at `at` or behind it; `high` if none does."""
    while low < high:
        middle = (low + high) >> 1
        if begins[middle] < at:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def plan(
    whole: Any,
    parts: Any,
    bounds: Any,
    borders: Any,
    offsets: Any,
    begins: Any,
    codes: Any,
    ends: Any,
    pieces: Any,
    words: Any,
    made: Any,
) -> Any:
    """What each part is made of: tokens of the fragment, and words that are encoded anew. False if there is no room for it.

    `whole`, `parts`: beginnings of words (`word_starts`) in the texts and in their parts, of which part p of fragment k is
    bytes `borders[3 * k + p]` to `borders[3 * k + p + 1]`. A word of a part is one of the text if both have its two ends
    and nothing between. Written are `pieces`, int64 (., 2): tokens from and to, or -1 - w and 0 for word w; `words`, int64
    (., 3): bytes from and to, fragment; `ends`, int64 (3 * n,): the number of pieces up to the end of each part; `made`, int64
    (2,): the number of pieces and of words. NOT_IDENTITY where a token crosses a place where something changes.
    """
    made[0] = made[1] = 0
    for k in range(len(codes)):
        for part in range(PARTS):
            ends[3 * k + part] = made[0]
        if codes[k]:
            continue
        done, end, part = bounds[k], bounds[k + 1], 0
        at = done
        while done < end:
            # The next place at which words of the text and of its parts do not begin together, from `at` on.
            block = at >> 6
            differ = (whole[block] ^ parts[block]) & (_ALL << np.uint64(at & 63))
            while not differ and (block + 1) * 64 <= end:
                block += 1
                differ = whole[block] ^ parts[block]
            at = block * 64 + lowest_bit(differ)
            low = high = end
            if differ and at < end:
                low = max(done, _previous(parts, at))
                high = _next(parts, at + 1)
            while done < high:  # first what is kept, up to `low`, then words
                while part < PARTS - 1 and borders[3 * k + part + 1] <= done:
                    ends[3 * k + part] = made[0]
                    part += 1
                if made[0] == len(pieces) or made[1] == len(words):
                    return False
                piece, word = made[0], made[1]
                if done < low:
                    stop = min(low, borders[3 * k + part + 1])
                    first = _token_at(begins, offsets[k], offsets[k + 1], done)
                    last = _token_at(begins, first, offsets[k + 1], stop)
                    if begins[first] != done or begins[last] != stop:
                        codes[k] = NOT_IDENTITY
                    pieces[piece, 0], pieces[piece, 1] = first, last
                else:
                    stop = _next(parts, done + 1)
                    words[word, 0], words[word, 1], words[word, 2] = done, stop, k
                    pieces[piece, 0], pieces[piece, 1] = -1 - word, 0
                    made[1] = word + 1
                made[0] = piece + 1
                done = stop
            at = max(at + 1, done)
        while part < PARTS:
            ends[3 * k + part] = made[0]
            part += 1
    return True


@kernel
def gather(data: Any, words: Any, places: Any, out: Any) -> None:
    """Write the bytes of words behind one another, each at its place."""
    for w in range(len(words)):
        for k in range(words[w, 1] - words[w, 0]):
            out[places[w] + k] = data[words[w, 0] + k]


@kernel
def sizes(pieces: Any, ends: Any, word_ends: Any, offsets: Any, room: Any, codes: Any, out_offsets: Any) -> Any:
    """Where each fragment begins in the result, `out_offsets` (n + 1,); OUTGROWN where it has more than `room` more tokens.

    Returns the tokens of treated fragments, and how many of these were encoded anew.
    """
    at = treated = anew = np.int64(0)
    for k in range(len(codes)):
        out_offsets[k] = at
        size = offsets[k + 1] - offsets[k]
        if codes[k] == TREATED:
            total, new = np.int64(PARTS), np.int64(0)
            for piece in range(ends[3 * k - 1] if k else 0, ends[3 * k + 2]):
                if pieces[piece, 0] < 0:
                    word = -1 - pieces[piece, 0]
                    new += word_ends[word + 1] - word_ends[word]
                else:
                    total += pieces[piece, 1] - pieces[piece, 0]
            total += new
            if total > size + room[k]:
                codes[k] = OUTGROWN
            else:
                size = total
                treated += total - PARTS
                anew += new
        at += size
    out_offsets[len(codes)] = at
    return treated, anew


@kernel
def assemble(
    ids: Any, offsets: Any, pieces: Any, ends: Any, word_ids: Any, word_ends: Any, sentinels: Any, codes: Any, out: Any
) -> None:
    """Write the fragments: the treated ones with a sentinel in front of each part, the others as they are."""
    at = np.int64(0)
    for k in range(len(codes)):
        if codes[k]:
            for t in range(offsets[k], offsets[k + 1]):
                out[at] = ids[t]
                at += 1
            continue
        for place in range(PARTS):
            part = 3 * k + _ORDER[place]
            out[at] = sentinels[place]
            at += 1
            for piece in range(ends[part - 1] if part else 0, ends[part]):
                if pieces[piece, 0] < 0:
                    word = -1 - pieces[piece, 0]
                    for t in range(word_ends[word], word_ends[word + 1]):
                        out[at] = word_ids[t]
                        at += 1
                else:
                    for t in range(pieces[piece, 0], pieces[piece, 1]):
                        out[at] = ids[t]
                        at += 1
