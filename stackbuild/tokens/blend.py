"""A mixture of sources by weights: which source, and which of its samples, is sample number t of all.

    mixture = Mixture([0.5, 0.3, 0.2])
    source, index = mixture.sources(first=10**9, n=4096)
    mixture.counts(t)                        how many of the first t samples are of each source

After every number of samples each source has given less than one sample more or less than its weight says. The order is a
function of the weights and caps (and of the length of a block) alone: any range is found without the samples before it.
Only what stands before every 2^20th sample is computed from the first one on, and kept: a byte for each source
(`schedule` says how, and why this is always possible). A mixture is not for several threads at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.tokens.schedule import fill, round_up, shares

Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]

BLOCK = 2**20  # samples that are ordered at once
KEPT_BLOCKS = 4  # of 8 MB each
MOST_SAMPLES = 2**48  # of a mixture or a source


class Mixture:
    """Samples of several sources in proportion to weights.

    `weights`: positive numbers of any sum; a float counts as the decimal number that it prints as, so that 0.1 is a tenth.
    `caps`: of each source how many samples it has at most, or None; a source that has given them leaves, and the others go
    on in proportion from the next sample on. `names`: of the sources, for messages. ValueError for a weight that is
    not above 0, for a cap below 0.
    """

    def __init__(
        self,
        weights: Sequence[float | Fraction],
        caps: Sequence[int | None] | None = None,
        block: int = BLOCK,
        names: Sequence[str] | None = None,
    ):
        if not len(weights):
            raise ValueError("a mixture has at least one source")
        if block < 1:
            raise ValueError(f"a block has at least one sample, not {block:,}")
        for what, given in (("caps", caps), ("names", names)):
            if given is not None and len(given) != len(weights):
                raise ValueError(f"there are {len(weights):,} weights and {len(given):,} {what}")
        named = [f"source {number}" if names is None else names[number] for number in range(len(weights))]
        self._weights = [_weight(weight, name) for weight, name in zip(weights, named, strict=True)]
        self._caps = np.full(len(weights), -1, np.int64)
        for number, cap in enumerate(caps or ()):
            if cap is not None:
                if not 0 <= cap <= MOST_SAMPLES:
                    raise ValueError(f"the cap of {named[number]} is {cap:,}; it is 0 to 2^48 samples")
                self._caps[number] = cap
        self._block = block
        self._blocks: OrderedDict[tuple[int, int], _Block] = OrderedDict()
        self._segments: list[_Segment] = []
        self._append(0, np.zeros(len(weights), np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        caps = [None if cap < 0 else cap for cap in self._caps.tolist()]
        return Mixture, (self._weights, caps, self._block)  # a worker finds the blocks itself

    @property
    def total(self) -> int | None:
        """How many samples there are; None if there is no end, as a source has no cap."""
        return None if (self._caps < 0).any() else int(self._caps.sum())

    def counts(self, t: int) -> Ints:
        """How many of the first t samples are of each source: int64 of shape (sources,). IndexError above `total`."""
        self._check(0, t)
        if not t:
            return np.zeros(len(self._weights), np.int64)
        number, block, at = self._locate(t - 1)
        ordered = self._ordered(number, block)
        return ordered.counts + np.bincount(ordered.source[: at + 1], minlength=len(self._weights))

    def sources(self, first: int, n: int) -> tuple[Ints32, Ints]:
        """Samples first .. first + n - 1: (source: int32 of shape (n,), index of the sample in its source: int64 (n,)).

        IndexError above `total`.
        """
        self._check(first, n)
        sources, indices = np.empty(n, np.int32), np.empty(n, np.int64)
        done = 0
        while done < n:
            number, block, at = self._locate(first + done)
            ordered = self._ordered(number, block)
            taken = min(n - done, len(ordered.source) - at)
            source = ordered.source[at : at + taken]
            sources[done : done + taken] = source
            indices[done : done + taken] = ordered.counts[source] + ordered.rank[at : at + taken]
            done += taken
        return sources, indices

    def _check(self, first: int, n: int) -> None:
        end = MOST_SAMPLES if self.total is None else self.total
        if first < 0 or n < 0:
            raise IndexError(f"a mixture has no samples {first:,} to {first + n:,}")
        if first + n > end:
            raise IndexError(
                f"a mixture of {end:,} samples has no sample {first + n - 1:,}, counted from 0: its sources are exhausted"
                if self.total is not None
                else f"a mixture has at most 2^48 samples, not {first + n:,}"
            )

    def _locate(self, sample: int) -> tuple[int, int, int]:
        """The number of a sample's segment, of the block in it, and of the sample in the block."""
        while True:
            number = bisect_right(self._segments, sample, key=lambda segment: segment.start) - 1
            segment = self._segments[number]
            block, at = divmod(sample - segment.start, segment.block)
            while segment.end is None and len(segment.given) < block + 2:
                self._advance(number)
            if segment.end is None or sample < segment.end:
                return number, block, at
            self._append(segment.end, self._counts_at_end(number))

    def _append(self, start: int, base: Ints) -> None:
        members = np.flatnonzero((self._caps < 0) | (base < self._caps))
        if len(members):
            left = np.where(self._caps < 0, -1, self._caps - base)
            weights = [self._weights[member] for member in members]
            self._segments.append(_Segment(start, base, members, weights, left[members], self._block))

    def _advance(self, number: int) -> None:
        """Find the counts at the next border; if a source has given all by then, where the segment ends."""
        segment = self._segments[number]
        if segment.advance():
            block = len(segment.given) - 2
            segment.end = segment.start + block * segment.block + len(self._ordered(number, block).source)

    def _counts_at_end(self, number: int) -> Ints:
        last = self._ordered(number, len(self._segments[number].given) - 2)
        return last.counts + np.bincount(last.source, minlength=len(last.counts))

    def _ordered(self, number: int, block: int) -> _Block:
        key = number, block
        if key in self._blocks:
            self._blocks.move_to_end(key)
        else:
            self._blocks[key] = self._segments[number].order(block)
            if len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        return self._blocks[key]


class _Block(NamedTuple):
    """Samples of a block: `source`, `rank` (which within the block it is of its source), `counts` before the block."""

    source: Ints32
    rank: Ints32
    counts: Ints


class _Segment:
    """The mixture of some sources from a sample on, until one of them has given all. `base`: all counts at its start.

    Of the sources `members` (int64 of shape (k,)) there are `left` samples, or any number (-1).
    """

    def __init__(self, start: int, base: Ints, members: Ints, weights: Sequence[Fraction], left: Ints, block: int):
        self.start, self.base, self.members, self.left = start, base, members, left
        self.end: int | None = None
        self.share, self.sum = shares(weights)
        self._exact = self.share.astype(object)  # Python's integers
        ends = [-(-int(cap) * self.sum // int(share)) for cap, share in zip(left, self.share, strict=True) if cap > 0]
        self.block = min([block, *ends])  # by the least of these one source has given all: one block, not a whole one
        self._whole, self._rest = self._whole_and_rest(self.block)
        self._floors, self._remainders = np.zeros((2, len(members)), np.int64)  # what is due at the last border so far
        self.given = [np.zeros(len(members), np.bool_)]  # at each border, of each source: is the open sample given?

    def _whole_and_rest(self, samples: int) -> tuple[Ints, Ints]:
        """What is due of each source after some samples: whole ones, and `sum` times the rest."""
        due = self._exact * samples
        return (due // self.sum).astype(np.int64), (due % self.sum).astype(np.int64)

    def counts(self, border: int) -> Ints:
        """How many samples each member has given at a border since the segment's start: int64 of shape (k,)."""
        return self._whole_and_rest(border * self.block)[0] + self.given[border]

    def advance(self) -> bool:
        """Choose the counts at the next border: has a source given all by then?"""
        after = self._remainders + self._rest
        carry = after >= self.sum
        after[carry] -= self.sum
        given = self.given[-1] & (self._whole == 0) & ~carry  # of windows that are open still
        round_up(self.share, self.sum, after, given)
        self._floors += self._whole + carry
        self._remainders = after
        self.given.append(given)
        return bool(((self.left >= 0) & (self._floors + given >= self.left)).any())

    def order(self, block: int) -> _Block:
        """A block, up to the sample by which a source has given all."""
        counts = self.counts(block)
        _, remainders = self._whole_and_rest(block * self.block)
        source, rank = np.empty(self.block, np.int32), np.empty(self.block, np.int32)
        limits = np.where(self.left < 0, -1, self.left - counts)
        left = self.counts(block + 1) - counts
        filled = fill(self.share, self.sum, remainders, self.given[block], left, limits, source, rank)
        if filled < 0:
            raise AssertionError(f"no sample for slot {-1 - filled:,} of block {block:,} of a mixture")
        before = self.base.copy()
        before[self.members] += counts
        return _Block(self.members[source[:filled]].astype(np.int32), rank[:filled], before)


def _weight(weight: float | Fraction, name: str) -> Fraction:
    if isinstance(weight, float | np.floating) and not isfinite(weight):
        raise ValueError(f"the weight of {name} is {weight}")
    exact = Fraction(repr(float(weight))) if isinstance(weight, float | np.floating) else Fraction(weight)
    if exact <= 0:
        raise ValueError(f"the weight of {name} is {weight}; it must be above 0, or the source left out")
    return exact


def greedy(weights: Sequence[float], n: int) -> tuple[Ints32, Ints]:
    """Megatron's order of a mixture, for comparison with its runs: (source: int32 of shape (n,), index: int64 (n,)).

    Sample i is of the source d with the largest w_d max(i, 1) - count_d, the first of equal ones; weights are divided by
    their sum, in float64 (starcoder1 6.3). Megatron's own index is uint8 or int16: 256 sources or more overflowed it (D20).
    """
    given = np.array(weights, np.float64)
    if given.ndim != 1 or not given.size:
        raise ValueError("a mixture has at least one source")
    if not (given > 0).all() or not np.isfinite(given).all():
        wrong = int(np.argmin((given > 0) & np.isfinite(given)))
        raise ValueError(f"the weight of source {wrong} is {given[wrong]}; it must be above 0, or the source left out")
    source, index = np.empty(n, np.int32), np.empty(n, np.int64)
    _greedy(given / given.sum(), source, index)
    return source, index


@kernel
def _greedy(weights: npt.NDArray[np.float64], source: Ints32, index: Ints) -> None:
    counts = np.zeros(len(weights), np.int64)
    for sample in range(len(source)):
        samples = np.float64(max(sample, 1))
        best, most = 0, weights[0] * samples - np.float64(counts[0])
        for number in range(1, len(weights)):
            error = weights[number] * samples - np.float64(counts[number])
            if error > most:
                best, most = number, error
        source[sample], index[sample] = best, counts[best]
        counts[best] += 1
