"""Names of people, on the lines where source code has them: author, sign-off and copyright lines, and beside an e-mail address.

Nothing else is taken for a name: a model on prose finds 60 % of names there, and identifiers in code. A name is of two
words at least (StarCoder's rule, Li et al. 2023) that are written as names are, of which none says that this is a firm or a
project. What of a header stays is `headers`' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from stackbuild.pii.gate import Anchor
from stackbuild.pii.patterns import compiled
from stackbuild.pii.rules import Names
from stackbuild.pii.spans import I64, Span, Texts

ENTITY: Final = "NAME"
LINE: Final = -16  # of the gate's hits: a word that names follow
LINE_BYTES: Final = 400  # of a line are looked at behind such a word
BESIDE: Final = 96  # bytes on either side of an e-mail address

_UPPER = r"(?:[A-Z]|\xe1[\xb8-\xbb][\x80-\xbf]|\xc3[\x80-\x96\x98-\x9e]|[\xc4\xc5][\x80-\xbf]|\xce[\x91-\xa9]|\xd0[\x80-\xaf])"
_LOWER = r"(?:[a-z]|[\xc3-\xd4][\x80-\xbf]|\xe1[\xb8-\xbb][\x80-\xbf])"
_WORD = rf"{_UPPER}(?:(?:\x27|-)?{_UPPER})?{_LOWER}+(?:(?:\x27|-)?{_UPPER}{_LOWER}+){{0,2}}"
_PARTICLE = "(?:van|von|der|den|de|da|di|del|della|dos|du|la|le|bin|ibn|al|el|ter|ten|zu|af|av)"
_IDEOGRAPHS = r"(?:[\xe4-\xe9][\x80-\xbf][\x80-\xbf]){2,4}"
NAME: Final = rf"(?:{_WORD}|{_UPPER}\.)(?:[ ]{{1,2}}(?:{_UPPER}\.|{_PARTICLE}|{_WORD})){{0,3}}[ ]{{1,2}}{_WORD}"

_WITHIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_.")  # behind a word that is only part of one
_FIRST = compiled(rf"^({NAME})")
_SEPARATOR = compiled(
    r"^(?:[ \t\"\x27\[\](){}:=,;&*<>|/\\-]|(?:and|by|with|und|et)[ \t]|(?:Dr|Prof)\.|name[\"\x27]?[ \t]{0,4}[:=]"
    r"|\([cC]\)|\xc2\xa9|[0-9]{4}){0,40}"
)
_SKIPPED = compiled(r"^(?:[^\s\"\x27<>,;@]{1,64}@[^\s\"\x27<>,;]{1,255}|\([^()\n]{0,80}\)|<[^<>\n]{0,120}>)")
_BEFORE = compiled(rf"(?:^|[^A-Za-z0-9_.\x80-\xff])({NAME}|{_IDEOGRAPHS})[\"\x27]?[ \t]{{0,4}}[<(\[]?(?i:mailto:)?$")
_AFTER = compiled(rf"^[>)]?[ \t]{{0,4}}\(({NAME}|{_IDEOGRAPHS})\)")


def anchors(names: Names, notices: bool = True) -> list[Anchor]:
    """Of the gate: the words that names follow; `notices`: also those of copyright notices, where names may have to stay."""
    words = [word for word in names.words if notices or word != "copyright"]
    return [Anchor(word.encode(), LINE, ignore_case=True, bounded=True) for word in words]


class NameFinder:
    """Finds names. The made-up ones hold a word that no name has."""

    def __init__(self, facts: Names):
        self.facts = facts

    def find(self, texts: Texts, hits: I64, addresses: Sequence[Span]) -> Iterator[Span]:
        """Spans of names; `hits` as `gate.hits` gives them, `addresses`: the e-mail addresses of the batch."""
        for _, _, end in hits[hits[:, 0] == LINE].tolist():
            high = int(texts.offsets[texts.file_of(end - 1) + 1])
            line = texts.read(end, min(high, end + LINE_BYTES))
            stop = line.find(b"\n")
            cut = stop < 0 and end + LINE_BYTES < high
            yield from self._listed(line if stop < 0 else line[:stop], end, cut)
        for span in addresses:
            yield from self._beside(texts, span)

    def _listed(self, line: bytes, base: int, cut: bool) -> Iterator[Span]:
        """The names of a list that begins the rest of a line; it ends at what is neither name, address nor separator. `cut`: the
        line goes on, so that what touches its end may be half a name."""
        at = 0
        while at < len(line) and (at or line[0] not in _WITHIN):
            at += _SEPARATOR.match(line[at:]).end()
            rest = line[at:]
            if found := _FIRST.match(rest):
                behind = rest[found.end(1) : found.end(1) + 1]
                half = behind.isalnum() or behind > b"\x7f" or (cut and not behind)
                if half or not self.is_name(found.group(1)):
                    return
                yield Span(base + at, base + at + found.end(1), ENTITY, "named-line")
                at += found.end(1)
            elif found := _SKIPPED.match(rest):
                at += found.end()
            else:
                return

    def _beside(self, texts: Texts, span: Span) -> Iterator[Span]:
        """A name directly before an address, or in parentheses behind it, on its line."""
        file = texts.file_of(span.start)
        low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
        before = texts.read(max(low, span.start - BESIDE), span.start)
        cut = before.rfind(b"\n") + 1
        found = _BEFORE.search(before[cut:])
        start = span.start - len(before) + cut
        if found is not None and not found.start(1) and start > low and texts.read(start - 1, start) != b"\n":
            found = None  # the window may have cut it
        if found is None:
            after = texts.read(span.end, min(high, span.end + BESIDE))
            found, start = _AFTER.match(after), span.end
        if found is not None and self.is_name(found.group(1)):
            yield Span(start + found.start(1), start + found.end(1), ENTITY, "beside-email")

    def is_name(self, value: bytes) -> bool:
        """Whether what is written like a name may be a person's: no word of it is a firm's, a project's or a placeholder's."""
        words = value.lower().replace(b"-", b" ").split()
        return not any(word.strip(b".") in self.facts.no_names for word in words)
