"""User names, where source code gives them away: home folders (`/home/jdoe/`) and to whom a note is (`TODO(jdoe)`).

A word between quotes that something calls a user is mostly a test's; StarCoder's model found user names with a precision
of one half, and its redaction left them alone. So they are looked for only if a recipe asks, and only in these shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from stackbuild.pii.gate import Anchor
from stackbuild.pii.patterns import compiled
from stackbuild.pii.rules import Names
from stackbuild.pii.spans import I64, Span, Texts

ENTITY: Final = "USERNAME"
HOME, NOTE = -17, -18  # of the gate's hits
LEAST, MOST = 2, 32  # bytes of a user name

_HOME = compiled(r"^([A-Za-z][A-Za-z0-9._-]{1,31})(?:[/\\]|$|[^A-Za-z0-9._\x80-\xff-])")
_NOTE = compiled(r"^([A-Za-z][A-Za-z0-9._-]{1,31})(?:@[A-Za-z0-9.-]{1,64})?[),:;]")


def anchors(names: Names) -> list[Anchor]:
    """Of the gate: what stands before a user name."""
    homes = [Anchor(word.encode(), HOME, bounded=word[0] == "/") for word in names.homes]
    return homes + [Anchor(word.encode(), NOTE, ignore_case=True, bounded=True) for word in names.notes]


class UserFinder:
    """Finds user names; also those that redaction puts in, which `Detection` leaves."""

    def __init__(self, facts: Names):
        self.facts = facts

    def find(self, texts: Texts, hits: I64) -> Iterator[Span]:
        """Spans of user names; `hits` as `gate.hits` gives them."""
        for code, _, end in hits[(hits[:, 0] == HOME) | (hits[:, 0] == NOTE)].tolist():
            high = int(texts.offsets[texts.file_of(end - 1) + 1])
            found = (_HOME if code == HOME else _NOTE).match(texts.read(end, min(high, end + 2 * MOST + 40)))
            if found is None:
                continue
            value = found.group(1).rstrip(b"._-")
            if len(value) < LEAST or value.lower() in self.facts.no_users:
                continue
            yield Span(end, end + len(value), ENTITY, "home-folder" if code == HOME else "note-to")
