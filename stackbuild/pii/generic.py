"""Secrets that no format gives away: values that are given to a name like `db_password` or `client_secret` (`assignments`)
and that the scorer takes for secrets (`scorer`). What is no secret by the rules' own facts is none here either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from stackbuild.pii.assignments import BARE, candidates, word_hits
from stackbuild.pii.rules import RuleBook
from stackbuild.pii.scorer import Scorer
from stackbuild.pii.secrets import KEY, has_run
from stackbuild.pii.spans import I64, Span, Texts

PASSWORD: Final = "PASSWORD"
RULE: Final = "scored-value"
ENTITIES: Final = frozenset({KEY, PASSWORD})
NO_SECRETS: Final = frozenset({"public", "salt"})  # what a name may call its value, and no one would hide
CODE: Final = (b",", b";")  # behind a bare word: it is a variable
RUN: Final = 5  # one byte so often in a row, and nobody chose it

# No secrets, whatever names say: numbers of C, what was shortened, bytes in escapes, expressions, names of algorithms.
_OTHER = re.compile(
    rb"0[xX][0-9a-fA-F]{1,16}|.*(?:\.\.\.|\xe2\x80\xa6|\\[xu]|\(\?|\[\^).*"
    rb"|(?i:(?:oauth|utf-?|sha|md|aes|des|rsa|rc|ed|x|p|hs|rs|es|ps|prime|secp)[0-9]{1,4}(?:v1|k1|r1|a)?)",
    re.DOTALL,
)
_IDENTIFIER = re.compile(rb"[A-Za-z_$][A-Za-z0-9_$]*")
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class GenericFinder:
    """Finds values that the scorer gives at least `threshold`. `known`: what redaction puts in."""

    def __init__(
        self, book: RuleBook, scorer: Scorer, threshold: float, entities: frozenset[str], known: Sequence[bytes] = ()
    ):
        self.facts, self.scorer, self.threshold, self.entities = book.secrets, scorer, threshold, entities
        self.known = re.compile(b"|".join(map(re.escape, known))) if known else None

    def find(self, texts: Texts, hits: I64) -> Iterator[Span]:
        """Spans of such values; `hits` as `gate.hits` gives them. A value is a PASSWORD if its name calls it one, else a KEY."""
        words = word_hits(hits)
        if not len(words):
            return
        found = candidates(texts, words)
        for number, called, score in self.scorer.scores(texts, found):
            entity = PASSWORD if called == "password" else KEY
            if score < self.threshold or entity not in self.entities or called in NO_SECRETS:
                continue
            start, end = int(found.value_start[number]), int(found.value_end[number])
            value = texts.read(start, end)
            if found.kind[number] == BARE and texts.read(end, end + 1) in CODE and _IDENTIFIER.fullmatch(value):
                continue
            if self.is_secret(value):
                yield Span(start, end, entity, RULE)

    def is_secret(self, value: bytes) -> bool:
        """Whether the rules' facts leave a value that the scorer takes for a secret: no placeholder, identifier or replacement."""
        lower = value.lower()
        return not (
            self.facts.placeholders.search(lower)
            or lower in self.facts.weak_passwords
            or _UUID.fullmatch(value)
            or _OTHER.fullmatch(value)
            or has_run(lower, RUN)
            or (self.known and self.known.search(value))
        )
