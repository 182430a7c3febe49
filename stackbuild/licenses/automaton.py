"""licenseclassifier's automaton of words, in little memory: the same matches as its own.

Its texts are one program of instructions on words (google/licensecheck, `match`): a word, any word, two ways on, a match, and
a cut, which ends the wildcard that it names. A state is the set of instructions that may come next. licenseclassifier keeps
each state with those that any of its words would lead to, as tuples of numbers: of a forked child some 25 MB after three
hundred texts. Here a state is a string of bytes, and what follows it is found when a text asks. What the task server has met
(`freeze`) its children share; what one of them adds is bounded and let go as a whole.
"""

from __future__ import annotations

import re
from array import array
from typing import Any

import numpy as np
from licenseclassifier._engine.dictionary import _CANON, to_fold
from licenseclassifier._engine.matcher import (
    INST_ALT,
    INST_ANY,
    INST_CUT,
    INST_JUMP,
    INST_MATCH,
    INST_WORD,
    _can_misspell,
    _can_misspell_join,
)

# Its number in the dictionary, negative if it is not there, and where it stands in the text
Word = tuple[int, int, int]

MOST_STATES = 100_000  # of a process that no task server warmed: some 30 MB
OWN_STATES = 10_000  # of a child, beside those that it shares, before it lets them go: some 3 MB
NOWHERE = -1
_MARKUP = re.compile(r"<[/A-Za-z]|\{#|&[#A-Za-z]|\]\(")
_TOKEN = re.compile(r"[A-Za-z0-9]+(?:\(s\))?")
_AS_ONE = {**_CANON, "https": "http"}
WAITING = (INST_WORD, INST_ANY, INST_MATCH)
ANY = -2  # the word that stands for all


class Automaton:
    """Takes the place of a `MultiRE`: `match` gives what that gives."""

    def __init__(self, compiled: Any) -> None:
        """`compiled`: a `MultiRE`, whose program, dictionary and first phrases are used."""
        self.dict = compiled.dict
        self._operations: array[int] = compiled.ops
        self._arguments: array[int] = compiled.args
        self._begins = compiled.start
        self._span = len(self.dict.list) + 3
        self._states: list[bytes] = []
        self._matches: list[int] = []
        self._shared_ids: dict[bytes, int] = {}
        self._shared_next: dict[int, int] = {}
        self._frozen, self._most = 0, MOST_STATES
        self._ids: dict[bytes, int] = {}
        self._next: dict[int, int] = {}
        self._start = self._number(array("i", compiled._start_state))
        self._keep()

    def freeze(self) -> None:
        """Keep all states met so far for good, and of others that come `OWN_STATES`."""
        self._keep()
        self._most = OWN_STATES

    def _keep(self) -> None:
        self._shared_ids |= self._ids
        self._shared_next |= self._next
        self._frozen = len(self._states)
        self._ids, self._next = {}, {}

    def match(self, text: str) -> tuple[list[Word], list[tuple[int, int, int]]]:
        """The words of a text, and its matches: (number of the licence, first word, the word behind the last)."""
        words = self._split(text)
        found: list[tuple[int, int, int]] = []
        before, at = NOWHERE, 0
        while at < len(words):
            word = words[at][0]
            following = at + 1
            if (before, word) in self._begins:
                license_, length = self._longest(text, words, at - 1)
                if license_ >= 0 and length > 0:
                    found.append((license_, at - 1, at - 1 + length))
                    following = at - 1 + length
            before, at = word, following
        return words, found

    def _split(self, text: str) -> list[Word]:
        """What `Dict.split` gives, at a quarter of its cost where a text is ASCII without markup."""
        if not text.isascii() or _MARKUP.search(text):
            found: list[Word] = self.dict.split(text)
            return found
        words: list[Word] = []
        numbers, copyright_ = self.dict._map, self.dict.lookup("copyright")
        for one in _TOKEN.finditer(text):
            first, last = one.span()
            word = one[0].lower().replace("(", "").replace(")", "")
            if word == "c" and text[first - 1 : first] == "(" and text[last : last + 1] == ")":
                word, first, last = "copyright", first - 1, last + 1
            number = numbers.get(_AS_ONE.get(word, word), NOWHERE)
            if number != copyright_ or not words or words[-1][0] != number:
                words.append((number, first, last))
        return words

    def _longest(self, text: str, words: list[Word], start: int) -> tuple[int, int]:
        """The licence of the longest match that begins at a word, and its length in words; (NOWHERE, 0) if there is none."""
        found, length = NOWHERE, 0
        state, at = self._start, start
        while at < len(words):
            if len(self._states) - self._frozen > self._most:
                state = self._forget(state)
            if self._matches[state] >= 0:
                found, length = self._matches[state], at - start
            word = words[at][0]
            step = self._step(state, word) if word >= 0 else NOWHERE
            if step >= 0:
                state, at = step, at + 1
                continue
            step, taken, passed = self._misspelt(state, text, words, at)
            if passed >= 0:
                found, length = passed, at - start
            if step < 0:
                step, taken = self._step(state, ANY), 1
            if step < 0:
                return found, length
            state, at = step, at + taken
        if self._matches[state] >= 0:
            found, length = self._matches[state], len(words) - start
        return found, length

    def _misspelt(self, state: int, text: str, words: list[Word], at: int) -> tuple[int, int, int]:
        """The state behind a word that is spelt otherwise than one of the state's (NOWHERE if it is none), how many words of
        the text that takes, and the licence whose match ends inside of the word (NOWHERE for none).

        Of the words of the state the first counts that the text has in two pieces, or together with the one that follows, or
        with one letter more, less or changed.
        """
        have = to_fold(text[words[at][1] : words[at][2]])
        have_next = to_fold(text[words[at + 1][1] : words[at + 1][2]]) if at + 1 < len(words) else ""
        spelling = self.dict.list
        for word in self._words(state):
            want = spelling[word]
            if _can_misspell_join(want, have, have_next):
                return self._step(state, word), 2, NOWHERE
            if len(have) > len(want) and have.startswith(want):
                behind = self._step(state, word)
                second = self.dict.lookup(have[len(want) :])
                step = self._step(behind, second) if second >= 0 else NOWHERE
                if step < 0:
                    step = self._step(behind, ANY)
                if step >= 0:
                    return step, 1, self._matches[behind]
            if _can_misspell(want, have):
                return self._step(state, word), 1, NOWHERE
        return NOWHERE, 0, NOWHERE

    # ---- states

    def _words(self, state: int) -> list[int]:
        """The words that lead on from a state, by number."""
        operations, arguments = self._operations, self._arguments
        return sorted({arguments[at] for at in array("i", self._states[state]) if operations[at] == INST_WORD})

    def _step(self, state: int, word: int) -> int:
        """The state behind a word, or behind any (`ANY`); NOWHERE if the state has no such."""
        key = state * self._span + word + 2
        found = self._shared_next.get(key)
        if found is None:
            found = self._next.get(key)
        if found is None:
            found = self._next[key] = self._behind(state, word)
        return found

    def _behind(self, state: int, word: int) -> int:
        counters = np.frombuffer(self._states[state], np.int32)
        operations, arguments = (
            np.frombuffer(all_, np.int32)[counters] for all_ in (self._operations, self._arguments)
        )
        own = (operations == INST_WORD) & (arguments == word)
        if word != ANY and not own.any():
            return NOWHERE
        taken = counters[own | (operations == INST_ANY)]
        return self._number(self._live(self._closure((taken + 1).tolist()))) if len(taken) else NOWHERE

    def _closure(self, pending: list[int]) -> list[int]:
        """The instructions that are reached without a word, in their order."""
        operations, arguments = self._operations, self._arguments
        seen: set[int] = set()
        while pending:
            at = pending.pop()
            if at in seen:
                continue
            seen.add(at)
            operation = operations[at]
            if operation == INST_ALT:
                pending += (at + 1 + arguments[at], at + 1)
            elif operation == INST_JUMP:
                pending.append(at + 1 + arguments[at])
            elif operation == INST_CUT:
                pending.append(at + 1)
        return sorted(seen)

    def _live(self, counters: list[int]) -> array[int]:
        """Those that wait for a word or match, without what a cut among them ends: a wildcard, from its first instruction to
        the one it leads to.
        """
        operations, arguments = self._operations, self._arguments
        cuts = sorted(at + 1 + arguments[at] for at in counters if operations[at] == INST_CUT)
        kept = array("i")
        for at in counters:
            if operations[at] not in WAITING:
                continue
            while cuts and at > cuts[0] + 1 + arguments[cuts[0]]:
                cuts.pop(0)
            if not (cuts and at >= cuts[0]):
                kept.append(at)
        return kept

    def _number(self, counters: array[int]) -> int:
        """The number of a state, new or known."""
        key = counters.tobytes()
        found = self._shared_ids.get(key)
        if found is None:
            found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = len(self._states)
            self._states.append(key)
            matching = (self._arguments[at] for at in counters if self._operations[at] == INST_MATCH)
            self._matches.append(min(matching, default=NOWHERE))
        return found

    def _forget(self, state: int) -> int:
        """Let all states go that are not kept for good; the number that this one has then."""
        counters = array("i", self._states[state])
        del self._states[self._frozen :], self._matches[self._frozen :]
        self._ids, self._next = {}, {}
        return self._number(counters)
