"""What becomes of the findings of a model: the published rules after StarPII (starcoder2 6; Lozhkov et al. 2024, section 3.2).

Edges lose punctuation (the end of a key does not, as it may belong to it); then values of up to three characters stay, IP addresses
that do not parse, are private or of a public resolver, keys of up to eight characters or that read like words, and names
of one word. Of what overlaps the longest goes, the first of two alike: the original doubled text there. `AMBIGUOUS` is no
entity, and `USERNAME` goes only if a recipe asks for it. What redaction puts in is never found again.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from stackbuild.pii.gibberish import Gibberish
from stackbuild.pii.replacements import known_values
from stackbuild.pii.rules import Ip

ENTITIES: Final = ("NAME", "EMAIL", "KEY", "PASSWORD", "IP_ADDRESS", "USERNAME")
SHORT: Final = 3
SHORT_KEY: Final = 8
AROUND: Final = 64  # bytes on either side in which a known value may lie: none is longer
_NAMES_TAG = tuple(f"<{entity}>".encode() for entity in ENTITIES)
_ADDRESS_EDGE: Final = frozenset("0123456789abcdefABCDEF:")


class Candidate(NamedTuple):
    """Bytes `start` to `end` of a UTF-8 text, between characters, and what a model takes them for."""

    start: int
    end: int
    entity: str


class Decider:
    """The rules. `entities`: what goes; `gibberish`: the test of keys, None if no key is looked for."""

    def __init__(self, ip: Ip, entities: Iterable[str], gibberish: Gibberish | None):
        self.ip, self.entities, self.gibberish = ip, frozenset(entities), gibberish
        self.known = re.compile(b"|".join(map(re.escape, {*known_values(ip), *_NAMES_TAG})))

    def decided(self, raw: bytes, found: Iterable[Candidate]) -> list[Candidate]:
        """Those that go, trimmed, in order; no two overlap."""
        kept = [
            trimmed
            for one in found
            if one.entity in self.entities and (trimmed := self.trimmed(raw, one)) and self.goes(raw, trimmed)
        ]
        return longest(kept)

    @staticmethod
    def trimmed(raw: bytes, found: Candidate) -> Candidate | None:
        """Without punctuation and white space at its edges; None if nothing is left."""
        value = raw[found.start : found.end].decode()
        first, last = 0, len(value)
        keeps = _is_of_address if found.entity == "IP_ADDRESS" else _is_word
        while first < last and not keeps(value[first]):
            first += 1
        keeps = _is_seen if found.entity == "KEY" else keeps
        while last > first and not keeps(value[last - 1]):
            last -= 1
        if first == last:
            return None
        start = found.start + len(value[:first].encode())
        return Candidate(start, start + len(value[first:last].encode()), found.entity)

    def goes(self, raw: bytes, found: Candidate) -> bool:
        """Whether a trimmed finding is redacted."""
        value = raw[found.start : found.end].decode()
        if len(value) <= SHORT or self.is_known(raw, found):
            return False
        if found.entity == "IP_ADDRESS":
            return self.is_public(value)
        if found.entity == "KEY":
            return len(value) > SHORT_KEY and (self.gibberish is None or self.gibberish.is_gibberish(value))
        return found.entity != "NAME" or len(value.split()) > 1

    def is_public(self, value: str) -> bool:
        """An address that parses, is not private, and is of none of the public resolvers."""
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        return not address.is_private and str(address) not in self.ip.resolvers

    def is_known(self, raw: bytes, found: Candidate) -> bool:
        """It touches something that redaction put in."""
        low = max(0, found.start - AROUND)
        window = raw[low : found.end + AROUND]
        return any(
            low + match.start() < found.end and low + match.end() > found.start for match in self.known.finditer(window)
        )


def longest(found: Iterable[Candidate]) -> list[Candidate]:
    """Of candidates that overlap the longest, then the first; in order."""
    kept: list[Candidate] = []
    for group in _groups(sorted(set(found))):
        taken: list[Candidate] = []
        for one in sorted(group, key=lambda one: (one.start - one.end, one)):
            if all(one.end <= other.start or one.start >= other.end for other in taken):
                taken.append(one)
        kept += sorted(taken)
    return kept


def _groups(found: Sequence[Candidate]) -> Iterable[list[Candidate]]:
    """Runs of candidates, in order, that overlap each other in a chain."""
    group: list[Candidate] = []
    end = -1
    for one in found:
        if group and one.start >= end:
            yield group
            group = []
        end = max(end, one.end) if group else one.end
        group.append(one)
    if group:
        yield group


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _is_of_address(char: str) -> bool:
    return char in _ADDRESS_EDGE


def _is_seen(char: str) -> bool:
    return not char.isspace()
