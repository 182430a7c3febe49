"""Approximate matches are ScanCode's own, match for match, though candidates are ranked in arrays."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from licensedcode import match_set
from licensedcode.cache import get_licenses_db

from stackbuild.licenses.near import shared_counts, shared_words
from stackbuild.licenses.near_index import PART_RULES, WHOLE_RULES
from stackbuild.licenses.scancode import index_, near_index, own_lines
from stackbuild.licenses.text import normal_form

KEYS = ["mit", "bsd-new", "isc", "zlib", "x11", "boost-1.0", "artistic-2.0", "unlicense", "wtfpl-2.0", "gpl-2.0-plus"]


def changed(key: str) -> str:
    """A licence's text with some words put in, left out or exchanged, by a seed of its own."""
    draw = random.Random(key)
    words = normal_form(get_licenses_db()[key].text, own_lines())[:6_000].split(" ")
    for _ in range(draw.randrange(3, 12)):
        at = draw.randrange(len(words))
        words[at : at + draw.randrange(3)] = [draw.choice(["zork", "license", "the", "not\n" * 20, "mit", "shall not"])]
    return " ".join(words)


def told(matches: list[Any]) -> list[tuple[Any, ...]]:
    return [(one.rule.identifier, one.qspan, one.ispan, one.hispan, one.score(), one.matcher) for one in matches]


@pytest.mark.parametrize("key", KEYS)
def test_matches_are_those_of_scancode(key: str) -> None:
    text = changed(key)
    found = told(near_index().match(query_string=text))
    assert found == told(index_().match(query_string=text)) and found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zork",
        "license",
        "license " * 400,
        "the of and to " * 50,
        "permission is granted to copy\n" * 40,
        "\0\n\x0c",
    ],
)
def test_texts_without_words_or_with_one_alone(text: str) -> None:
    assert told(near_index().match(query_string=text)) == told(index_().match(query_string=text))


@pytest.mark.parametrize(("top", "near"), [(WHOLE_RULES, True), (PART_RULES, False), (3, False)])
def test_candidates_are_those_of_scancode_in_its_order(top: int, near: bool) -> None:
    class Run:
        def __init__(self, tokens: list[int]):
            self.tokens = tokens

        def matchable_tokens(self) -> list[int]:
            return self.tokens

    index = index_()
    draw = random.Random(top)
    for rule in draw.sample(sorted(index.approx_matchable_rids), 4):
        own = list(index.tids_by_rid[rule])
        tokens = [*own, -1, draw.randrange(len(index.dictionary)), *own[: draw.randrange(len(own))]]
        expected = match_set.compute_candidates(
            Run(tokens), index, index.approx_matchable_rids, top=top, high_resemblance=near
        )
        assert near_index().near.candidates(tokens, top, near) == [number for _, number, _, _ in expected]


def test_counts_of_shared_words_are_those_of_sets_and_multisets() -> None:
    draw = np.random.default_rng(1)
    held = [np.sort(draw.integers(0, 30, draw.integers(0, 12))) for _ in range(20)]
    text = draw.integers(0, 30, 15)
    sets = [np.unique(one, return_counts=True) for one in held]
    words = np.concatenate([one for one, _ in sets]).astype(np.int32)
    counts = np.concatenate([often for _, often in sets]).astype(np.int32)
    sizes = np.array([len(one) for one, _ in sets])
    order = np.argsort(words, kind="stable")
    rules = np.repeat(np.arange(20, dtype=np.int32), sizes)[order]
    bounds = np.searchsorted(words[order], np.arange(31)).astype(np.int64)
    shared, high = shared_words(np.unique(text), rules, bounds, 10, 20)
    both = [set(one.tolist()) & set(text.tolist()) for one in held]
    assert shared.tolist() == [len(one) for one in both] and high.tolist() == [sum(w < 10 for w in one) for one in both]
    often = np.bincount(text, minlength=30).astype(np.int64)
    places = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    shared, high = shared_counts(np.arange(20), often, places, words, counts, 10, 20)
    least = [{w: min(one.tolist().count(w), int(often[w])) for w in set(one.tolist())} for one in held]
    assert shared.tolist() == [sum(one.values()) for one in least]
    assert high.tolist() == [sum(count for w, count in one.items() if w < 10) for one in least]
