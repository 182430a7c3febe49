"""Secrets that no format gives away: values that are given to a name like `db_password` or `client_secret` (`assignments`)
and that the scorer takes for secrets (`scorer`). What is no secret by the rules' own facts is none here either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.pii.assignments import BARE, Candidates, candidates, word_hits
from stackbuild.pii.rules import RuleBook
from stackbuild.pii.scorer import Scorer, called_by
from stackbuild.pii.secrets import KEY, PASSWORD, has_run
from stackbuild.pii.spans import I64, Span, Texts

RULE: Final = "scored-value"
ENTITIES: Final = frozenset({KEY, PASSWORD})
NO_SECRETS: Final = frozenset({"public", "salt"})  # what a name may call its value, and no one would hide
CODE: Final = (b",", b";")  # behind a bare word: it is a variable
LINKS: Final = (b"&", b";", b"?")  # before a name: it is in a query or a connection string
RUN: Final = 5  # one byte so often in a row, and nobody chose it

# No secrets, whatever names say: numbers of C, addresses on chains, what was shortened, bytes in escapes, expressions, names of algorithms.
_OTHER = re.compile(
    rb"0[xX](?:[0-9a-fA-F]{1,16}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64})|.*(?:\.\.\.|\xe2\x80\xa6|\\[xu]|\(\?|\[\^).*"
    rb"|(?i:(?:oauth|utf-?|sha|md|aes|des|rsa|rc|ed|x|p|hs|rs|es|ps|prime|secp)[0-9]{1,4}(?:v1|k1|r1|a)?)",
    re.DOTALL,
)
# Names of what is no secret: interface texts, places in lists, addresses on chains, digests.
_NO_NAME = re.compile(
    rb"(?i)author(?!i[sz])|credit|hint|label|title|placeholder|page_?token|continuation_?token|address|fingerprint|thumbprint"
    rb"|digest|checksum|gpg|apt_?key|keyid|key_id$"
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
        found = likely(texts, candidates(texts, words))
        for number, called, score in self.scorer.scores(texts, found):
            entity = PASSWORD if called == "password" else KEY
            if score < self.threshold or entity not in self.entities or called in NO_SECRETS:
                continue
            start, end = int(found.value_start[number]), int(found.value_end[number])
            value = texts.read(start, end)
            name_start, name_end = int(found.name_start[number]), int(found.name_end[number])
            file = texts.file_of(start)
            low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
            linked = texts.read(max(low, name_start - 1), name_start) in LINKS
            code = found.kind[number] == BARE and not linked and texts.read(end, min(high, end + 1)) in CODE
            if (code and _IDENTIFIER.fullmatch(value)) or _NO_NAME.search(texts.read(name_start, name_end)):
                continue
            if self.is_secret(value) and not (entity == PASSWORD and not value.isascii()):
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


def likely(texts: Texts, found: Candidates) -> Candidates:
    """The candidates without those that are of small letters only, as words and names are, and that nothing calls a password:
    the scorer takes none of them for a secret, and they are most of all.
    """
    small = small_letters(texts.data, found.value_start, found.value_end)
    rows = [
        row
        for row, (plain, start, end) in enumerate(
            zip(small, found.name_start.tolist(), found.name_end.tolist(), strict=True)
        )
        if not plain or called_by(texts.read(start, end)) == "password"
    ]
    return Candidates(*(column[rows] for column in found))


@kernel
def small_letters(data: Any, starts: Any, ends: Any) -> Any:
    """Which of n values (bool, n) have but small letters, "_", "-" and "." in them, with at most a capital at the beginning."""
    plain = np.ones(len(starts), np.bool_)
    for row in range(len(starts)):
        for at in range(starts[row], ends[row]):
            byte = data[at]
            if not (97 <= byte <= 122 or byte in (45, 46, 95) or (at == starts[row] and 65 <= byte <= 90)):
                plain[row] = False
                break
    return plain
