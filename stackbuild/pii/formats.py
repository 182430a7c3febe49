"""Formats of keys in a notation of our own: literal text, and fields between angle brackets.

    ghp_<alnum 36>                    a prefix and 36 bytes of the alphabet `alnum`
    <alnum 14>.atlasv1.<url 60-70>    60 to 70 bytes; a format may begin with a field
    AccountKey=(<base64 86>==)        what is secret, if it is not all of it
    waka_<uuid>                       eight, four, four, four and twelve hexadecimal digits

A format says what a key looks like; from it come the expression that finds it, the literal that the gate looks for, the
floor of its entropy, and the keys that tests make up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from stackbuild.pii.gate import Anchor
from stackbuild.pii.patterns import members

FIELD_MOST: Final = 1_000  # bytes; RE2 counts no further
ENTROPY_SHARE: Final = 0.75  # of what a random draw of that length may have: five standard deviations below its mean
ENTROPY_FIELD: Final = 8  # a shorter field is a mark, not a draw
UUID: Final = (8, 4, 4, 4, 12)
_PART = re.compile(r"<(?P<name>[a-z0-9]+)(?: (?P<low>[0-9]+)(?:-(?P<high>[0-9]+))?)?>|(?P<bracket>[()])|[^<>()]+")


class Part(NamedTuple):
    """A literal, or `low` to `high` bytes of an alphabet, written as between brackets."""

    literal: str = ""
    alphabet: str = ""
    low: int = 0
    high: int = 0

    @property
    def least(self) -> int:
        return len(self.literal) or self.low

    @property
    def most(self) -> int:
        return len(self.literal) or self.high

    @property
    def pattern(self) -> str:
        if self.literal:
            return re.escape(self.literal)
        return f"[{self.alphabet}]" + (f"{{{self.low},{self.high}}}" if (self.low, self.high) != (1, 1) else "")


class Place(NamedTuple):
    """What of a format the gate looks for: a literal, the most bytes before it, and the field behind it."""

    literal: str
    before: int
    field: Part


@dataclass(frozen=True)
class Format:
    """`parts[secret[0]:secret[1]]` is what is redacted."""

    parts: tuple[Part, ...]
    secret: tuple[int, int]

    @property
    def prefix(self) -> str:
        """The literal that it begins with, or none."""
        return self.parts[0].literal

    @property
    def most(self) -> int:
        """Bytes of the longest key."""
        return sum(part.most for part in self.parts)

    def pattern(self, group: str) -> str:
        """Its expression; the group `group` is what is secret."""
        first, last = self.secret
        pieces = [part.pattern for part in self.parts]
        pieces.insert(first, f"(?P<{group}>")
        pieces.insert(last + 1, ")")
        return "".join(pieces)

    def place(self) -> Place:
        """The longest literal in it, the first of those; one byte repeated, which blobs are full of, counts for one."""
        literals = [number for number, part in enumerate(self.parts) if part.literal]
        if not literals:
            raise ValueError("a format without a literal needs keywords")
        at = max(literals, key=lambda number: len(self.parts[number].literal.lstrip(self.parts[number].literal[0])))
        field = self.parts[at + 1] if at + 1 < len(self.parts) else Part()
        return Place(self.parts[at].literal, sum(part.most for part in self.parts[:at]), field)

    def anchor(self, rule: int) -> Anchor:
        """For the gate."""
        literal, before, field = self.place()
        begins = not before and not self.secret[0] and (literal[0].isalnum() or literal[0] == "_")
        return Anchor(
            literal.encode("ascii"),
            rule,
            bounded=begins,
            alphabet=members(field.alphabet) if field.low else None,
            run=field.low,
        )

    def floor(self) -> float:
        """The least Shannon entropy of what was drawn, in bits per byte."""
        fields = [p for p in self.parts[slice(*self.secret)] if not p.literal and p.low >= ENTROPY_FIELD]
        if not fields:
            return 0.0
        symbols = max(len({chr(byte).lower() for byte in np.flatnonzero(members(part.alphabet))}) for part in fields)
        return ENTROPY_SHARE * math.log2(max(2, min(symbols, sum(part.low for part in fields))))

    def edges(self) -> tuple[str, str]:
        """Alphabets of its ends: what may not stand beside it. An "=" before it is an assignment."""
        first, last = self.parts[0], self.parts[-1]
        return first.alphabet.replace("=", ""), last.alphabet


def parse(text: str, alphabets: Mapping[str, str]) -> Format:
    """Read a format; ValueError says what is wrong in it."""
    parts: list[Part] = []
    marks: list[int] = []
    at = 0
    for match in _PART.finditer(text):
        if match.start() != at:
            break
        at = match.end()
        if match["bracket"]:
            marks.append(len(parts))
        elif match["name"]:
            parts += _fields(match["name"], match["low"], match["high"], alphabets)
        else:
            parts.append(Part(match.group()))
    if at != len(text) or not parts or len(marks) not in (0, 2) or not text.isascii():
        raise ValueError(f"{text!r} is no format: literal text, fields like <hex 32>, one pair of parentheses")
    low, high = marks or (0, len(parts))
    if not any(part.alphabet for part in parts[low:high]):
        raise ValueError(f"{text!r} has no field in what is secret")
    return Format(tuple(parts), (low, high))


def _fields(name: str, low: str | None, high: str | None, alphabets: Mapping[str, str]) -> Iterator[Part]:
    if name == "uuid" and low is None:
        for number, size in enumerate(UUID):
            if number:
                yield Part("-")
            yield Part("", alphabets["hexany"], size, size)
        return
    if name not in alphabets:
        raise ValueError(f"unknown alphabet {name}")
    least, most = int(low or 0), int(high or low or 0)
    if not 0 <= least <= most <= FIELD_MOST or not most:
        raise ValueError(f"<{name} {low}-{high}>: lengths are from 0 to {FIELD_MOST}, the smaller first")
    yield Part("", alphabets[name], least, most)
