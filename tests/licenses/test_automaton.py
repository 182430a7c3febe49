"""Our automaton of words against licenseclassifier's own, on licence texts and on what is made of them."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.licenses.automaton import Automaton

KEYS = ("mit", "bsd-new", "isc", "zlib", "apache-1.1", "unlicense", "wtfpl-2.0", "bsl-1.0")


@cache
def original() -> Any:
    """licenseclassifier's scanner, as it comes."""
    from licenseclassifier._engine.scan import _load_prebuilt

    return _load_prebuilt()


@cache
def texts() -> list[str]:
    from licensedcode.cache import get_licenses_db

    database = get_licenses_db()
    return [" ".join((database[key].text or "").lower().split()) for key in KEYS]


def changed(text: str, chance: random.Random) -> str:
    """A text with words cut, joined, split, changed, left out and put in: what its rules of spelling are for."""
    words = text.split(" ")
    for _ in range(12):
        at = chance.randrange(len(words) - 1)
        words[at : at + 2] = chance.choice(
            (
                [words[at][:-1], words[at + 1]],
                [words[at] + words[at + 1]],
                [words[at][:2], words[at][2:], words[at + 1]],
                [words[at].replace("e", "x"), words[at + 1]],
                [words[at + 1]],
                [words[at], "indeed", words[at + 1]],
                [words[at + 1], words[at]],
            )
        )
    return " ".join(words)


@pytest.mark.parametrize("seed", range(6))
def test_it_matches_what_licenseclassifier_matches(seed: int) -> None:
    chance, ours = random.Random(seed), Automaton(original().re)
    for text in [changed(text, chance) for text in texts()] + ["", "mit", "\n\n".join(texts()[:3])]:
        assert ours.match(text) == original().re.match(text)


def test_what_it_lets_go_changes_no_match() -> None:
    plain, small = Automaton(original().re), Automaton(original().re)
    plain.match(texts()[0])
    plain.freeze()
    small._most = 25
    for text in texts():
        assert small.match(text) == plain.match(text) != ([], [])
        assert len(small._states) - small._frozen <= 26 + 1


def test_a_child_adds_nothing_to_what_it_shares() -> None:
    ours = Automaton(original().re)
    ours.match(texts()[0])
    ours.freeze()
    kept = len(ours._states), len(ours._shared_ids), len(ours._shared_next)
    assert ours._ids == {} == ours._next
    ours.match(texts()[3])
    assert (ours._frozen, len(ours._shared_ids), len(ours._shared_next)) == kept
    assert ours._ids and ours._next


PIECES = st.sampled_from(
    ["(c)", "(C)", "c", "©", "copyright", "copies", "these", "license(s)", "(s)", "https://", "http", "<year>", "<a href='x'>",
     "&copy;", "&amp;", "[x](http://y.z)", "{#id}", "r&d", "]", "(", ")", "\n", " ", "straße", "½", "1.0", "x_y", "it's", "-"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_it_splits_words_as_licenseclassifier_does(text: str) -> None:
    assert Automaton(original().re)._split(text) == original().dict.split(text)
