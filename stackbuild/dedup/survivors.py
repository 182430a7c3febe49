"""Who stays of files that are near-duplicates of each other.

Published tools collapse a connected component to one file, so that files leave that resemble nothing which stayed (18
to 31 % of the removed ones, measured on five tools). Here the files of a component are taken in a total order, best
first: a file leaves if and only if it has a verified similarity of at least the threshold to a file that was kept
before it, and it names the most similar of those (ties: the one that comes first). So every removed file has a kept
twin, and no two kept files are a verified pair: it is the "extremes" rule of The Stack v1 (Kocetkov et al. 2022,
section 4.2) with an order of its own.

The order is the recipe's `survivor`, nulls last, then content_id; as a file's content_id is unique among files, the
rest of the project's total order (repo_name, revision_id, path_bytes) cannot be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.dedup.candidates import distinct_pairs
from stackbuild.dedup.numbers import Numbers
from stackbuild.kernels import kernel
from stackbuild.union_find import components

ROUNDS = 16  # of looking for twins over a common neighbour; each is rare and small after the first

Floats = npt.NDArray[np.float64]
Similarity = Callable[[Numbers, Numbers], Floats]


@dataclass(frozen=True)
class RankColumn:
    """One column to choose survivors by: int64 (n,), which of them are not null, and whether more is better."""

    values: Numbers
    valid: npt.NDArray[np.bool_]
    descending: bool


@dataclass(frozen=True)
class Solution:
    """What became of n files. `cluster`: the smallest node of the cluster (int64). `size`: its files. `kept_by`: the
    node that stays in a removed file's place, -1 for those that stay. `similarity`: with it, NaN where nothing was
    measured. `left`, `right`, `edge_similarity`: the pairs at or above the threshold (none without a check)."""

    cluster: Numbers
    size: Numbers
    kept_by: Numbers
    similarity: Floats
    left: Numbers
    right: Numbers
    edge_similarity: Floats


def keep_places(columns: Sequence[RankColumn], ids: Numbers) -> Numbers:
    """The place of each file in the order of keeping, 0 the best; `ids`: numbers that ascend with content_id."""
    keys: list[npt.NDArray[np.generic]] = [ids]
    for column in reversed(columns):
        # ~x turns the order of int64 around without an overflow.
        keys.append(np.where(column.valid, ~column.values if column.descending else column.values, 0))
        keys.append(~column.valid)
    places = np.empty(len(ids), np.int64)
    places[np.lexsort(keys)] = np.arange(len(ids))
    return places


@kernel
def _adjacency(nodes: int, left: Numbers, right: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """(starts (nodes + 1), neighbours (2 pairs), the pair behind each neighbour)."""
    starts = np.zeros(nodes + 1, np.int64)
    for pair in range(len(left)):
        starts[left[pair] + 1] += 1
        starts[right[pair] + 1] += 1
    for node in range(nodes):
        starts[node + 1] += starts[node]
    place = starts[:-1].copy()
    neighbours, pairs = np.empty(2 * len(left), np.int64), np.empty(2 * len(left), np.int64)
    for pair in range(len(left)):
        i, j = left[pair], right[pair]
        neighbours[place[i]], pairs[place[i]] = j, pair
        place[i] += 1
        neighbours[place[j]], pairs[place[j]] = i, pair
        place[j] += 1
    return starts, neighbours, pairs


class Classes(NamedTuple):
    """Verified pairs of files as pairs of classes, a class being the files of one and the same set.

    Files of one set have similarity 1.0 with each other, other files never (a quotient of unlike whole numbers below 2^53
    is not 1.0), and they have the same similarity with any third file. So pairs of 1.0 that join the files of a set,
    and one pair with a file of another set, tell all pairs of both sets' files; they need not all be listed.

    `of`: the class of each node, int64 (n,), the smallest node that pairs of 1.0 reach. `starts`, `neighbours`,
    `similarity`: the classes that a class is paired with, each once, and how similar they are.
    """

    of: Numbers
    starts: Numbers
    neighbours: Numbers
    similarity: Floats


def _classes(nodes: int, left: Numbers, right: Numbers, similarity: Floats) -> Classes:
    same = similarity == 1.0
    of = components(nodes, left[same], right[same])
    if same.any():
        left, right, similarity = of[left[~same]], of[right[~same]], similarity[~same]
        _, once = np.unique(_packed(np.minimum(left, right), np.maximum(left, right)), return_index=True)
        left, right, similarity = left[once], right[once], similarity[once]
    starts, neighbours, pairs = _adjacency(nodes, left, right)
    return Classes(of, starts, neighbours, similarity[pairs])


@kernel
def _keep(
    places: Numbers, of: Numbers, starts: Numbers, neighbours: Numbers, similarity: Floats
) -> tuple[Numbers, Floats]:
    """(kept_by, similarity) of each node. What a class has met so far of kept files, `best`, is all that a file of it has:
    a kept file is told to its class and to those that this is paired with. Of equally similar files the first stays.
    """
    order = np.empty(len(places), np.int64)
    for node in range(len(places)):
        order[places[node]] = node
    best, most = np.full(len(places), -1, np.int64), np.zeros(len(places))
    kept_by, result = np.full(len(places), -1, np.int64), np.full(len(places), np.nan)
    for at_place in range(len(order)):
        node = order[at_place]
        mine = of[node]
        if best[mine] >= 0:
            kept_by[node], result[node] = best[mine], most[mine]
            continue
        best[mine], most[mine] = node, 1.0
        for at in range(starts[mine], starts[mine + 1]):
            other = neighbours[at]
            if similarity[at] > most[other]:
                best[other], most[other] = node, similarity[at]
    return kept_by, result


def survivors(places: Numbers, left: Numbers, right: Numbers, similarity: Floats) -> tuple[Numbers, Floats]:
    """Apply the rule to verified pairs: (kept_by int64 (n,), -1 for kept files; similarity float64 (n,), NaN for kept
    files).

    `places`: the order of keeping (n,), a permutation. `left`, `right`, `similarity`: the pairs, all at or above the
    threshold. What follows from pairs of similarity 1.0 may be left out (`Classes`).
    """
    kept_by, result = _keep(places, *_classes(len(places), left, right, similarity))
    return kept_by, result


@kernel
def _twins_of_neighbours(
    places: Numbers, kept_by: Numbers, of: Numbers, starts: Numbers, neighbours: Numbers
) -> tuple[Numbers, Numbers]:
    """Pairs of kept files that a removed neighbour has in common: for each class that left its first kept file and those
    that its best and its worst file left for.
    """
    holder = np.full(len(places), -1, np.int64)
    leader, last = np.full(len(places), -1, np.int64), np.full(len(places), -1, np.int64)
    for node in range(len(places)):
        mine = of[node]
        if kept_by[node] < 0:
            holder[mine] = node
        if leader[mine] < 0 or places[node] < places[leader[mine]]:
            leader[mine] = node
        if last[mine] < 0 or places[node] > places[last[mine]]:
            last[mine] = node
    first = np.full(len(places), -1, np.int64)
    for between in range(len(places)):
        for at in range(starts[between], starts[between + 1]):
            other = holder[neighbours[at]]
            if other >= 0 and (first[between] < 0 or places[other] < places[first[between]]):
                first[between] = other
    left, right = np.empty(3 * len(neighbours), np.int64), np.empty(3 * len(neighbours), np.int64)
    made = 0
    for mine in range(len(places)):
        if holder[mine] >= 0:
            for at in range(starts[mine], starts[mine + 1]):
                between = neighbours[at]
                left[made], right[made] = holder[mine], first[between]
                left[made + 1], right[made + 1] = holder[mine], kept_by[leader[between]]
                made += 2
                if last[between] != leader[between]:
                    left[made], right[made] = holder[mine], kept_by[last[between]]
                    made += 1
    return left[:made], right[:made]


def solve(places: Numbers, left: Numbers, right: Numbers, similarity_of: Similarity, threshold: float) -> Solution:
    """Verify the candidate pairs of n files, cluster them by verified pairs, and choose the survivors.

    After each choice kept files that share a removed neighbour are compared too: a near-duplicate that no bucket met,
    or that the star and chain of a large bucket passed by, is found by way of the file that resembles both. It ends
    when that finds nothing more, or after ROUNDS. `similarity_of(left, right)`: exact Jaccard of pairs, 0.0 where
    below the threshold. Of files of one set a star is enough, and one file's pairs with other sets (`Classes`).
    """
    left, right = distinct_pairs(left, right)
    similarity = similarity_of(left, right)
    asked = _packed(left, right)
    good = similarity >= threshold
    left, right, similarity = left[good], right[good], similarity[good]
    for _ in range(ROUNDS):
        classes = _classes(len(places), left, right, similarity)
        kept_by, _ = _keep(places, *classes)
        more_left, more_right = distinct_pairs(*_twins_of_neighbours(places, kept_by, *classes[:3]))
        fresh = ~np.isin(_packed(more_left, more_right), asked)
        more_left, more_right = more_left[fresh], more_right[fresh]
        if not len(more_left):
            break
        asked = np.concatenate((asked, _packed(more_left, more_right)))
        more = similarity_of(more_left, more_right)
        good = more >= threshold
        if not good.any():
            break
        left = np.concatenate((left, more_left[good]))
        right = np.concatenate((right, more_right[good]))
        similarity = np.concatenate((similarity, more[good]))
    kept_by, kept_similarity = survivors(places, left, right, similarity)
    return _solution(components(len(places), left, right), kept_by, kept_similarity, (left, right, similarity))


def collapse(places: Numbers, left: Numbers, right: Numbers) -> Solution:
    """The unverified rule of the published tools: of each component of candidate pairs the best file stays, alone."""
    cluster = components(len(places), left, right)
    order = np.lexsort((places, cluster))
    starts = (
        np.flatnonzero(np.concatenate(([True], np.diff(cluster[order]) != 0))) if len(order) else np.zeros(0, np.int64)
    )
    best = np.zeros(len(places), np.int64)
    best[cluster[order[starts]]] = order[starts]
    kept_by = np.where(best[cluster] == np.arange(len(places)), -1, best[cluster])
    none = np.zeros(0, np.int64)
    return _solution(cluster, kept_by, np.full(len(places), np.nan), (none, none, np.zeros(0)))


def _solution(
    cluster: Numbers, kept_by: Numbers, similarity: Floats, edges: tuple[Numbers, Numbers, Floats]
) -> Solution:
    return Solution(cluster, np.bincount(cluster, minlength=len(cluster))[cluster], kept_by, similarity, *edges)


def _packed(left: Numbers, right: Numbers) -> Numbers:
    """Pairs of nodes below 2^31 as one number."""
    return left << 32 | right
