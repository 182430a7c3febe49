r"""What a file is made of, as a set: the 64-bit hashes of its n-grams of tokens, by one of four rules (`KINDS` in
`options`).

`words`, the default, is the clean form of the rule of The Stack v2 (Lozhkov et al. 2024, section 3.1): 5-grams of words
in lower case. The other three follow the code that was published, with what it does to empty tokens:

  the-stack-v1  bigcode-analysis, near-deduplication/minhash_deduplication.py: the set of tokens; under ten tokens,
                repeats counted, a file is passed over.
  santacoder    bigcode-dataset, near_deduplication/minhash_deduplication.py: 5-grams, under five tokens none. Prose says
                5-grams of words; the code splits at each single character that is none of A-Z a-z 0-9 _ and keeps the
                empty strings, so a run of spaces is tokens and counts towards the five. Case stays.
  the-stack-v2  bigcode-dataset, near_deduplication/bigcode-v2: as santacoder, in lower case and by Python's `\W`.

A file of fewer tokens than the rule asks for has no shingles: only an exact copy of it is a copy (the published scripts
give all such files one signature, so that all but one of them leave). Licence headers are left out (`headers`) where
asked for: what stands in a header's place is one separator.

The hash of an n-gram is the polynomial of its tokens' hashes (`tokenizing`) modulo 2^64, through the finalizer of
MurmurHash3; two unlike n-grams share one about once in 2^64. Measured on one core of an EPYC (Zen 5): see
docs/near-dedup.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.dedup.headers import HEADERS, kept_spans
from stackbuild.dedup.options import Shingling
from stackbuild.dedup.tokenizing import ROOM, Bytes, Rule, next_tokens, rule, utf8_buffers
from stackbuild.kernels import kernel

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]
Places = npt.NDArray[np.uint32]

BLOCK = 4096  # tokens that are hashed before their n-grams are; source fills some 30 KB of it at a time
RUN = 1 << 17  # n-grams of a text before its repeats are dropped for the first time
BYTES_A_SHINGLE, BYTES_A_SINGLE = (
    10,
    40,
)  # of source, for n-grams and for single tokens: what a result is guessed to need
FINEST = 16  # bits of a hash that choose its place at most
CROWD = 64  # hashes that insertion may have to put in order among each other

_POLYNOMIAL = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_33, _255 = np.uint64(33), np.uint64(255)


@kernel
def hash_ngrams(tokens: Hashes, count: int, ngram: int, out: Hashes) -> int:
    """Hash the n-grams of `tokens[:count]` into `out`; return how many. Pass by pass, so that each is a vector loop."""
    total = max(count - ngram + 1, 0)
    for i in range(total):
        out[i] = tokens[i]
    for j in range(1, ngram):
        for i in range(total):
            out[i] = out[i] * _POLYNOMIAL + tokens[i + j]
    for i in range(total):
        value = out[i]
        value = (value ^ (value >> _33)) * _MIX_1
        value = (value ^ (value >> _33)) * _MIX_2
        out[i] = value ^ (value >> _33)
    return total


@kernel
def _radix_sort(values: Hashes, spare: Hashes) -> None:
    """Sort by bytes, the lowest first, without those that all values share. `spare`: as long at least, overwritten."""
    count = len(values)
    counts = np.zeros((8, 256), np.int64)
    for i in range(count):
        for digit in range(8):
            counts[digit, (values[i] >> np.uint64(8 * digit)) & _255] += 1
    source, target, moved = values, spare, False
    for digit in range(8):
        shift = np.uint64(8 * digit)
        if counts[digit, (values[0] >> shift) & _255] == count:
            continue
        place = 0
        for i in range(256):
            here = counts[digit, i]
            counts[digit, i] = place
            place += here
        for i in range(count):
            bucket = (source[i] >> shift) & _255
            target[counts[digit, bucket]] = source[i]
            counts[digit, bucket] += 1
        source, target, moved = target, source, not moved
    if moved:
        for i in range(count):
            values[i] = spare[i]


@kernel
def sort_hashes(values: Hashes, count: int, target: Hashes, places: Places) -> None:
    """Sort `values[:count]` into `target`; `values` is overwritten, `places` is uint32 of 2^FINEST, overwritten.

    Hashes are uniform: their leading bits give each about a place of its own, and insertion does the rest. Where more than
    CROWD share a place (repeats, or hashes made to collide) they are sorted by radix, so that no input takes more than
    linear time.
    """
    bits = 1
    while 1 << bits < count and bits < FINEST:
        bits += 1
    shift = np.uint64(64 - bits)
    for i in range(1 << bits):
        places[i] = 0
    for i in range(count):
        places[values[i] >> shift] += np.uint32(1)
    place = largest = np.uint32(0)
    for i in range(1 << bits):
        here = places[i]
        places[i] = place
        place += here
        largest = max(largest, here)
    for i in range(count):
        bucket = values[i] >> shift
        target[places[bucket]] = values[i]
        places[bucket] += np.uint32(1)
    if largest > CROWD:
        begin = 0
        for i in range(1 << bits):
            end = int(places[i])
            if end - begin > CROWD:
                _radix_sort(target[begin:end], values)
            begin = end
    highest = np.uint64(0)
    for i in range(count):
        value = target[i]
        if value >= highest:
            highest = value
        else:
            j = i - 1
            while j >= 0 and target[j] > value:
                target[j + 1] = target[j]
                j -= 1
            target[j + 1] = value


@kernel
def drop_repeats(values: Hashes, count: int, out: Hashes) -> int:
    """Copy `values[:count]` to `out`, which may be the same, without those that equal the one before; return how many."""
    distinct = 0
    last = ~values[0]
    for i in range(count):
        value = values[i]
        out[distinct] = value  # overwritten by the next value where this is a repeat: cheaper than to foretell it
        distinct += int(value != last)
        last = value
    return distinct


@kernel
def _sets(
    data: Bytes,
    starts: Offsets,
    stops: Offsets,
    rule: Rule,
    ngram: int,
    minimum: int,
    header_blind: bool,
    file: int,
    hashes: Hashes,
    offsets: Offsets,
) -> tuple[int, int]:
    """Append the sets of texts from number `file` on to `hashes[:offsets[file]]` until one may not find room: (its number,
    or that of all texts at the end; the length that `hashes` needs for it).
    """
    spans = np.empty((HEADERS + 1, 2), np.int64)
    tokens = np.empty(BLOCK + ROOM, np.uint64)
    made, sorted_ = np.empty(RUN, np.uint64), np.empty(RUN, np.uint64)
    places = np.empty(1 << FINEST, np.uint32)
    while file < len(starts):
        count = held = total = 0
        parts = kept_spans(data, starts[file], stops[file], header_blind, spans)
        for part in range(parts):
            begin, stop = spans[part, 0], spans[part, 1]
            at, start = begin, begin if rule.empty else -1
            while at < stop or start >= 0:
                total -= held
                at, start, held = next_tokens(data, begin, at, stop, start, rule, tokens, held)
                total += held
                if held < ngram:
                    continue
                if count + held > len(made):
                    sort_hashes(made, count, sorted_, places)
                    count = drop_repeats(sorted_, count, made)
                    if 2 * count > len(made):
                        sorted_ = np.empty(2 * len(made), np.uint64)
                        sorted_[:count] = made[:count]
                        made = sorted_
                        sorted_ = np.empty(len(made), np.uint64)
                fresh = hash_ngrams(tokens, held, ngram, made[count:])
                count += drop_repeats(made[count:], fresh, made[count:]) if rule.empty else fresh  # indentation repeats
                for i in range(ngram - 1):
                    tokens[i] = tokens[held - ngram + 1 + i]
                held = ngram - 1
        filled = offsets[file]
        if count and total >= minimum:
            if filled + count > len(hashes):
                return file, filled + count
            sort_hashes(made, count, sorted_, places)
            filled += drop_repeats(sorted_, count, hashes[filled:])
        offsets[file + 1] = filled
        file += 1
    return file, offsets[file]


def shingle_sets(
    texts: pa.Array | pa.ChunkedArray, shingling: Shingling, rows: Offsets | None = None
) -> tuple[Hashes, Offsets]:
    """The distinct shingles of n texts: (uint64, ascending within a text; int64 offsets of shape (n + 1,)).

    `rows`: int64 (n,), take these texts; they are read where they are.
    Memory: the result, for which half as much again may be set aside while it grows, and some 2.5 MB; for a text of more
    than a hundred thousand distinct shingles up to 64 bytes for each of them.
    """
    data, bounds = utf8_buffers(texts)
    starts, stops = bounds[:-1], bounds[1:]
    if rows is not None:
        starts, stops = starts[rows], stops[rows]
        starts.flags.writeable = stops.flags.writeable = False  # as they are without rows: the kernel is compiled once
    offsets = np.zeros(len(starts) + 1, np.int64)
    guess = int((stops - starts).sum()) // (BYTES_A_SHINGLE if shingling.ngram > 1 else BYTES_A_SINGLE)
    hashes = np.empty(max(guess, BLOCK), np.uint64)
    done = 0
    while True:
        done, needed = _sets(
            data,
            starts,
            stops,
            rule(shingling.kind),
            shingling.ngram,
            shingling.minimum,
            shingling.header_blind,
            done,
            hashes,
            offsets,
        )
        if done == len(starts):
            break
        hashes.resize(max(needed, len(hashes) * 3 // 2), refcheck=False)  # realloc: large arrays are not copied
    hashes.resize(needed, refcheck=False)
    return hashes, offsets
