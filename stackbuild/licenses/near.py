"""Which of ScanCode's rules a text comes near to, ranked in arrays.

ScanCode ranks the rules that a text may come near to by the words that they share, first as sets, then as multisets, and
aligns the best with it. It does so with every paragraph of a text and all of its 30,000 rules, one Python set after the
other: nearly all of its time; and as counting references writes to every set, a forked process comes to own a copy of the
index. Here both rankings run over arrays that all processes share. The outcome is the same, match for match: thresholds and
order are those of `licensedcode.match_set.compute_candidates` and `licensedcode.index` (ScanCode 32).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.licenses.scancode import rule_tokens

RESEMBLANCE = 0.8  # from which on a text as a whole is near to a rule
PRESELECTED = 10  # times as many pass from the ranking by sets to that by multisets

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Scores = tuple[tuple[bool, float, float, float], tuple[bool, float, float, int]]  # rounded, and in full


class Rules:
    """The words of the rules that a text may come near to, and from how many shared ones on each of them is a candidate.

    `bounds`, `rules`: the rules that hold each word, int64 (words + 1,), int32 (n,). `places`, `words`, `counts`: the distinct
    words of each rule and how often it has them, int64 (rules + 1,), int32 (n,), int32 (n,). The rest have one entry for each
    rule; the two of a pair are of sets and of multisets.
    """

    def __init__(self, index: Any):
        count = len(index.rules_by_rid)
        near = sorted(index.approx_matchable_rids)
        sizes = np.zeros(count, np.int64)
        words, counts = [], []
        for rule in near:
            found, often = np.unique(rule_tokens(index, rule), return_counts=True)
            sizes[rule] = len(found)
            words.append(found.astype(np.int32))
            counts.append(often.astype(np.int32))
        self.places: Longs = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
        self.words: Ints = np.concatenate(words)
        self.counts: Ints = np.concatenate(counts)
        order = np.argsort(self.words, kind="stable")
        self.rules: Ints = np.repeat(np.arange(count, dtype=np.int32), sizes)[order]
        self.size = int(self.words.max(initial=-1)) + 1
        self.bounds: Longs = np.searchsorted(self.words[order], np.arange(self.size + 1)).astype(np.int64)
        self.length, self.least, self.least_legalese = (np.ones((2, count), np.int64) for _ in range(3))
        self.containment = np.zeros(count)
        self.expression, self.name = (np.zeros(count, np.int64) for _ in range(2))
        expressions: dict[str, int] = {}
        for row, rule in enumerate(index.rules_by_rid):
            self.expression[row] = expressions.setdefault(rule.license_expression, len(expressions))
            for kind, unique in enumerate((True, False)):
                self.length[kind, row] = rule.get_length(unique)
                self.least[kind, row] = rule.get_min_matched_length(unique)
                self.least_legalese[kind, row] = max(rule.get_min_high_matched_length(unique), 1)
            self.containment[row] = rule._minimum_containment or 0
        names = [rule.identifier for rule in index.rules_by_rid]
        self.name[sorted(range(count), key=names.__getitem__)] = np.arange(count)
        self.legalese: int = index.len_legalese
        for array in vars(self).values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

    def candidates(self, tokens: Iterable[int], top: int, near: bool) -> list[int]:
        """The best rules for the tokens of a text (those below 0 are none), the best first, at most `top`. `near`: only
        rules that the text as a whole resembles.
        """
        known = np.array(list(tokens), np.int64)
        words, counts = np.unique(known[known >= 0], return_counts=True)
        held = words < self.size
        shared, legalese = shared_words(words[held], self.rules, self.bounds, self.legalese, len(self.expression))
        ranked = self._ranked(np.flatnonzero(legalese), shared, legalese, len(words), 0, near)
        rows = np.array([rule for _, rule in ranked[: top * PRESELECTED]], np.int64)
        often = np.zeros(self.size, np.int64)
        often[words[held]] = counts[held]
        shared, legalese = shared_counts(
            rows, often, self.places, self.words, self.counts, self.legalese, len(self.expression)
        )
        ranked = self._ranked(rows, shared, legalese, int(counts.sum()), 1, near)
        return [rule for _, rule in sorted(self._different(ranked), reverse=True)[:top]]

    def _ranked(
        self, rows: Longs, shared: Longs, legalese: Longs, size: int, kind: int, near: bool
    ) -> list[tuple[Scores, int]]:
        """Of some rules those that share enough with a text of `size` words, with their scores, the best first."""
        shared, legalese, length = shared[rows], legalese[rows], self.length[kind, rows]
        enough = (legalese >= self.least_legalese[kind, rows]) & (shared >= self.least[kind, rows]) & (shared > 0)
        enough &= (self.containment[rows] == 0) | (shared / length >= self.containment[rows])
        if near:
            enough &= shared / (size + length - shared) >= RESEMBLANCE
        found = zip(rows[enough].tolist(), shared[enough].tolist(), length[enough].tolist(), strict=True)
        return sorted(((_scores(common, rule_size, size), rule) for rule, common, rule_size in found), reverse=True)

    def _different(self, ranked: list[tuple[Scores, int]]) -> list[tuple[Scores, int]]:
        """Of rules for one expression, with the same rounded scores and length, the best, by name if they are equal."""

        def alike(one: tuple[Scores, int]) -> tuple[int, tuple[bool, float, float, float], int]:
            return int(self.expression[one[1]]), one[0][0], int(self.length[1, one[1]])

        groups = groupby(sorted(ranked, key=alike), key=alike)
        return [max(group, key=lambda one: (one[0][1], self.name[one[1]])) for _, group in groups]


def _scores(shared: int, length: int, size: int) -> Scores:
    """What ScanCode ranks rules by: resemblance, containment, resemblance squared, and words shared."""
    resemblance, containment = shared / (size + length - shared), shared / length
    squared = resemblance**2
    return (
        (round(resemblance, 1) >= RESEMBLANCE, round(containment, 1), round(squared, 1), round(shared / 20, 1)),
        (resemblance >= RESEMBLANCE, containment, squared, shared),
    )


@kernel
def shared_words(words: Longs, rules: Ints, bounds: Longs, legalese: int, count: int) -> tuple[Longs, Longs]:
    """How many of distinct words each of `count` rules holds, and how many of those that are legalese."""
    shared = np.zeros(count, np.int64)
    high = np.zeros(count, np.int64)
    for word in words:
        for at in range(bounds[word], bounds[word + 1]):
            shared[rules[at]] += 1
            if word < legalese:
                high[rules[at]] += 1
    return shared, high


@kernel
def shared_counts(
    rows: Longs, often: Longs, places: Longs, words: Ints, counts: Ints, legalese: int, count: int
) -> tuple[Longs, Longs]:
    """Of some rules, how many words they share with a text that has each word so often, and how many of them are legalese."""
    shared = np.zeros(count, np.int64)
    high = np.zeros(count, np.int64)
    for row in rows:
        for at in range(places[row], places[row + 1]):
            common = min(often[words[at]], counts[at])
            shared[row] += common
            if words[at] < legalese:
                high[row] += common
    return shared, high
