"""Every pair of files of at least a given Jaccard similarity: a prefix-filtered join over sets of shingles.

All-Pairs and PPJoin (Bayardo et al. 2007, "Scaling up all pairs similarity search"; Xiao et al. 2011, "Efficient
similarity joins for near-duplicate detection"). Shingles are put into one order for all files, rare ones first. Two
sets of n shingles and more with J >= t have ceil(t n) of them in common at least, so the first of what they have in
common stands among the first n - ceil(t n) + 1 of each: its prefix. Files whose prefixes share nothing are never
compared, and files that share a rare shingle are few. No estimate is part of it, so it is the truth that MinHash is
tested against.

  count_shingles     a batch of sets     ->  a table of how many files hold a shingle; tables add up (merge_counts)
  prefix_rows        a batch of sets     ->  a row for each shingle of a prefix that another file may have as well
  exact_candidates   a bucket of keys    ->  pairs that share one and may reach the threshold
  exact_pairs        sets in memory      ->  all this and the check

Tables, rows and buckets may be made by any number of tasks: the pairs are the same. Whether a number of common
shingles is enough is told by the division of the check itself (`verify.jaccard`), never by a rounded product, so a
pair at the very threshold is neither lost nor invented.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.dedup.candidates import PAIRS_AT_ONCE, Keys
from stackbuild.dedup.equal_sets import of_one_set, stars
from stackbuild.dedup.numbers import Numbers
from stackbuild.dedup.postings import Ints, postings
from stackbuild.dedup.shingles import Hashes, Offsets
from stackbuild.dedup.verify import Floats, jaccard_pairs
from stackbuild.kernels import kernel

MOST_BITS = 28  # 2^28 counts are 512 MB; with fewer slots than shingles the rows become more, the pairs stay the same
MOST = 65535  # a count that says "so many or more"
HOT = 32  # files from which a row names the key before it: fewer make so few pairs that repeats cost less than bytes
_RARE = 256  # counts below it are sorted by counting

Counts = npt.NDArray[np.uint16]

_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_33 = np.uint64(33)


class PrefixRows(NamedTuple):
    """Rows of prefixes, one for each shingle. `keys`: uint64, the shingle in its scope. `files`: int64, the file's
    number. `sizes`: int32, shingles of the file. `positions`: int32, the shingle's place in the file's order, 0 the
    first. `previous`: uint64, the key of the row before it in the same file; 0 where there is none, or where fewer
    than HOT files hold the shingle. `sets`: uint64, a digest of the file's whole set in its scope."""

    keys: Keys
    files: Numbers
    sizes: Ints
    positions: Ints
    previous: Keys
    sets: Keys


# ---------------------------------------------------------------- how many files hold a shingle


def table_bits(shingles: int) -> int:
    """The binary logarithm of the slots of a table for so many shingles, files' sets counted one by one: a slot or two
    for each, at most 2^28.
    """
    return min(max(shingles - 1, 1).bit_length(), MOST_BITS)


@kernel
def _scope_key(scope: np.uint64) -> np.uint64:
    value = (scope ^ (scope >> _33)) * _MIX_1
    value = (value ^ (value >> _33)) * _MIX_2
    return value ^ (value >> _33)


@kernel
def _key(shingle: np.uint64, scope_key: np.uint64) -> np.uint64:
    """A bijection of the shingles of a scope. Unlike shingles of two scopes share a key once in 2^64."""
    value = (shingle ^ scope_key) * _MIX_1
    return value ^ (value >> _33)


@kernel
def _count(hashes: Hashes, offsets: Offsets, scopes: Hashes, table: Counts) -> None:
    mask = np.uint64(len(table) - 1)
    for file in range(len(offsets) - 1):
        scope_key = _scope_key(scopes[file])
        for i in range(offsets[file], offsets[file + 1]):
            slot = _key(hashes[i], scope_key) & mask
            if table[slot] < MOST:
                table[slot] += 1


def count_shingles(hashes: Hashes, offsets: Offsets, scopes: Hashes, table: Counts) -> None:
    """Add to each slot of `table` how many shingles of the sets fall into it; a count stays at 65,535.

    Set i is `hashes[offsets[i]:offsets[i + 1]]` (uint64, ascending, distinct), of the scope `scopes[i]` (uint64).
    `table`: uint16 (2^bits,), changed in place. ValueError if its length is not a power of two.
    """
    _refuse_table(table)
    _count(_read_only(hashes), _read_only(offsets), _read_only(scopes), table)


@kernel
def merge_counts(table: Counts, other: Counts) -> None:
    """Add the counts of `other` to `table`, in place; both uint16 of one length, or the same slice of two tables.

    As sums that stop at 65,535 do not depend on the order of adding, neither the order of merging nor how files were
    spread over tables shows.
    """
    for slot in range(len(table)):
        table[slot] = min(int(table[slot]) + int(other[slot]), MOST)


# ---------------------------------------------------------------- prefixes


@kernel
def _least_common(size: int, threshold: float) -> int:
    """How many shingles a set of `size` must have in common with another: the least c with c / size >= threshold, as
    the union has `size` shingles at least. c / size is rounded as the check rounds it.
    """
    least = int(np.ceil(threshold * size))
    while least > 1 and (least - 1) / size >= threshold:
        least -= 1
    while least / size < threshold:
        least += 1
    return least


@kernel
def _select(counts: Counts, size: int, wanted: int, starts: Numbers, chosen: Numbers) -> None:
    """Write to `chosen[:wanted]` the places of the least counts other than 1, by (count, place).

    `starts`: int64 (257,), overwritten. `chosen`: int64 (size,), overwritten. Counts below 256 are sorted by counting,
    up to the last that is wanted; higher ones, which are rarely reached, by comparing.
    """
    starts[:] = 0
    for i in range(size):
        starts[min(counts[i], _RARE)] += 1
    starts[1] = 0
    last, place = 0, 0
    for count in range(_RARE + 1):
        here = starts[count]
        starts[count] = place
        if place < wanted:
            last = count
        place += here
    begin = starts[_RARE]
    for i in range(size):
        count = min(counts[i], _RARE)
        if count <= last and count != 1:
            chosen[starts[count]] = i
            starts[count] += 1
    if last == _RARE:
        frequent = chosen[begin : starts[_RARE]].copy()
        by_count = np.argsort(counts[frequent], kind="mergesort")
        chosen[begin : starts[_RARE]] = frequent[by_count]


@kernel
def _prefixes(
    hashes: Hashes, offsets: Offsets, scopes: Hashes, files: Numbers, table: Counts, threshold: float
) -> tuple[Keys, Numbers, Ints, Ints, Keys, Keys]:
    mask = np.uint64(len(table) - 1)
    most, longest = 0, 0
    for file in range(len(files)):
        size = offsets[file + 1] - offsets[file]
        most += size - _least_common(size, threshold) + 1 if size else 0
        longest = max(longest, size)
    keys, numbers = np.empty(most, np.uint64), np.empty(most, np.int64)
    sizes, positions, previous = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.uint64)
    sets = np.empty(most, np.uint64)
    counts, chosen = np.empty(longest, np.uint16), np.empty(longest, np.int64)
    starts = np.empty(_RARE + 1, np.int64)
    made = 0
    for file in range(len(files)):
        begin = offsets[file]
        size = offsets[file + 1] - begin
        if size == 0:
            continue
        scope_key = _scope_key(scopes[file])
        alone = 0  # shingles that no other file has: they come first and are never in common
        whole = np.uint64(size)
        for i in range(size):
            key = _key(hashes[begin + i], scope_key)
            whole = (whole ^ key) * _MIX_2
            whole ^= whole >> _33
            counts[i] = table[key & mask]
            alone += counts[i] == 1
        wanted = size - _least_common(size, threshold) + 1 - alone
        if wanted <= 0:
            continue
        _select(counts, size, wanted, starts, chosen)
        before = np.uint64(0)
        for i in range(wanted):
            key = _key(hashes[begin + chosen[i]], scope_key)
            keys[made], numbers[made], sizes[made], positions[made] = key, files[file], size, alone + i
            previous[made] = before if counts[chosen[i]] >= HOT else np.uint64(0)
            sets[made] = whole
            before = key
            made += 1
    return (
        keys[:made].copy(), numbers[:made].copy(), sizes[:made].copy(), positions[:made].copy(), previous[:made].copy(),
        sets[:made].copy(),
    )  # fmt: skip


def prefix_rows(
    hashes: Hashes, offsets: Offsets, scopes: Hashes, files: Numbers, table: Counts, threshold: float
) -> PrefixRows:
    """The prefixes of a batch of sets, without shingles that no other file has.

    Sets and scopes as in `count_shingles`; `files`: int64, the number of each set's file. `table`: the counts of all
    files of the corpus, this batch's among them, and the same for all batches. Shingles are ordered by (count of their
    slot, hash). Of a set of n the first n - c + 1 are its prefix, c being the least number with c / n >= threshold.
    Rows come file by file, by position. ValueError if the threshold is not above 0 and at most 1, or as in
    `count_shingles`. Memory: 40 bytes a row, twice at the end, and 10 bytes for each shingle of the largest set.
    """
    _refuse_threshold(threshold)
    _refuse_table(table)
    sets = _read_only(hashes), _read_only(offsets), _read_only(scopes)
    return PrefixRows(*_prefixes(*sets, _read_only(files), _read_only(table), float(threshold)))


# ---------------------------------------------------------------- candidates


@kernel
def _list_pairs(
    file: Ints, position: Ints, previous: Keys, stop: Ints, order: Ints, sizes: Ints, places: Numbers,
    threshold: float, seen: Ints, at: Numbers, pairs: Numbers,
) -> int:  # fmt: skip
    """Fill `pairs` (lesser place << 32 | greater), going on at `at` = (place in `order`, row to compare it with, 0 for
    the next); return how many. All pairs of a file with larger ones are made together: `seen[b] == a` if (a, b) is
    made, and `seen[a] == a`, as nobody is a pair with himself where shortened keys meet.
    """
    made = 0
    for x in range(at[0], len(order)):
        row = order[x]
        a = file[row]
        size = sizes[a]
        remaining = size - position[row]  # this shingle and those after it
        seen[a] = a
        for y in range(max(row + 1, at[1]), stop[row]):
            b = file[y]
            if seen[b] == a or (previous[row] != 0 and previous[row] == previous[y]):
                continue
            if remaining / (size + sizes[b] - remaining) < threshold:
                break  # too large, and so are the rest
            common = min(remaining, sizes[b] - position[y])
            if common / (size + sizes[b] - common) < threshold:
                continue
            if made == len(pairs):
                at[0], at[1] = x, y
                return made
            seen[b] = a
            pairs[made] = min(places[a], places[b]) << 32 | max(places[a], places[b])
            made += 1
        at[1] = 0
    at[0] = len(order)
    return made


def exact_candidates(
    keys: npt.NDArray[np.unsignedinteger],
    files: Numbers,
    sizes: Ints,
    positions: Ints,
    threshold: float,
    at_once: int = PAIRS_AT_ONCE,
    previous: Keys | None = None,
    sets: Keys | None = None,
) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield (left, right), int64, left < right: pairs of files that share a key and may reach the threshold.

    The arguments are columns of `prefix_rows`, in any order, fewer than 2^31, with all rows of the corpus that have
    one of the keys. A pair comes once at most; a chunk ascends and has up to `at_once` pairs, whatever the number of
    files of a key.

    A pair comes if, by the places of a shingle that both have, this one and what follows it in the shorter rest could
    reach the threshold together (positional filter; the length filter follows from it). That holds for the first
    shingle that a pair above the threshold has in common, so no such pair is lost, whatever rows are in other buckets.
    `previous` may be left out: where it is the same in two rows, these are not about the first common shingle, so that
    with it the pairs of a large family come from few buckets and not from each. Keys may be shortened to uint32, which
    only adds candidates; `previous` and `sets` may not.

    With `sets`, of files of one and the same set only the one with the smallest number is paired with files of other
    sets, and with each of the others once: m copies make m - 1 pairs and not m (m - 1) / 2. `survivors.solve` takes
    the other pairs from these, as files of one set have the same similarity with every file.

    ValueError if the threshold is not above 0 and at most 1. Memory: 40 bytes a row beside the arguments, 50 bytes for
    each pair of a chunk.
    """
    _refuse_threshold(threshold)
    if not len(keys):
        return
    if sets is not None:
        first, again = of_one_set(files, sets)
        if again.any():
            yield from stars(first, files, again & (positions == 0), at_once)
            keys, files, sizes, positions = keys[~again], files[~again], sizes[~again], positions[~again]
            previous = None if previous is None else previous[~again]
    rows = postings(keys, files, sizes, positions, previous)
    seen, at = np.full(len(rows.numbers), -1, np.int32), np.zeros(2, np.int64)
    while at[0] < len(rows.order):
        pairs = np.empty(max(at_once, 1), np.int64)
        pairs = pairs[: _list_pairs(*rows[:-1], float(threshold), seen, at, pairs)]
        if len(pairs):
            pairs.sort()
            yield rows.numbers[pairs >> 32], rows.numbers[pairs & 0xFFFFFFFF]


# ---------------------------------------------------------------- all in memory


def exact_pairs(
    hashes: Hashes, offsets: Offsets, threshold: float, scopes: Hashes | None = None, *, once: bool = False
) -> tuple[Numbers, Numbers, Floats]:
    """All pairs of sets with a Jaccard similarity of at least `threshold`: (left, right, similarity), int64, int64 and
    float64, left < right, ascending.

    Sets and `scopes` as in `count_shingles`, only sets of one scope being compared; without scopes all are. An empty
    set is like no other. `once`: of equal sets only the first is paired with others (`exact_candidates`). ValueError if
    the threshold is not above 0 and at most 1. Memory: 2 to 4 bytes a shingle for the table, 90 bytes for each row of a
    prefix, 24 bytes for each pair.
    """
    _refuse_threshold(threshold)
    files = np.arange(len(offsets) - 1)
    scopes = np.zeros(len(files), np.uint64) if scopes is None else scopes
    table = np.zeros(1 << table_bits(len(hashes)), np.uint16)
    count_shingles(hashes, offsets, scopes, table)
    rows = prefix_rows(hashes, offsets, scopes, files, table, threshold)
    del table
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    sets = rows.sets if once else None
    for left, right in exact_candidates(*rows[:4], threshold, previous=rows.previous, sets=sets):
        similarity = jaccard_pairs(hashes, offsets, hashes, offsets, left, right, float(threshold))
        good = (similarity >= threshold) & (scopes[left] == scopes[right])  # two scopes share a key once in 2^64
        found.append((left[good], right[good], similarity[good]))
    left, right, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((right, left))
    return left[order], right[order], similarity[order]


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view that cannot be written: arrays over Arrow's buffers cannot, and kernels are compiled for one kind."""
    view = array.view()
    view.flags.writeable = False
    return view


def _refuse_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(f"The threshold is {threshold}; give a similarity above 0 and at most 1.")


def _refuse_table(table: Counts) -> None:
    if len(table) & (len(table) - 1) or not len(table):
        raise ValueError(f"The table has {len(table)} slots; give a power of two.")
