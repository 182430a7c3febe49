"""IP addresses: what the gate found is parsed, and goes only if it is global, no resolver, and no version.

From SantaCoder's rule (Ben Allal et al. 2023; starcoder1 2.2) and its defect D1: "dns" or "server" is looked for in
`context_bytes` before and after an address, cut at the file's ends; other words close before it on its line. Four
numbers below 64, or three below 20 and one more, need such a word or a "://" or "@" before them: one address in 250
is so, and nearly every version and section number; quotes tell nothing in a list of versions. Among plain decimals it
is path data of a drawing. And a word for versions that stands nearer before it than one for hosts keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from stackbuild.pii.rules import Ip
from stackbuild.pii.shapes import IPV4, IPV6
from stackbuild.pii.spans import I64, Span, Texts

ENTITY: Final = "IP_ADDRESS"
SMALL: Final = 64
SECTION: Final = 20
CLOSE: Final = 40  # bytes before an address in which a word speaks of it
_WORDS = re.compile(rb"[A-Z]?[a-z]+[46]?|[A-Z]+[46]?(?![a-z])")
_DECIMAL_BEFORE = re.compile(rb"(?:^|[^0-9.])([0-9.]*[0-9])[ ,]{1,2}-?$")
_DECIMAL_AFTER = re.compile(rb"(?:[ ,]{1,2}-?|-)([0-9.]*[0-9])")


class AddressFinder:
    """Finds IPv4 and IPv6 addresses."""

    def __init__(self, facts: Ip):
        self.facts = facts

    def find(self, texts: Texts, hits: I64) -> Iterator[Span]:
        """Spans of addresses; `hits` as `gate.hits` gives them."""
        for code, start, end in hits[(hits[:, 0] == IPV4) | (hits[:, 0] == IPV6)].tolist():
            file = texts.file_of(start)
            low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
            reach = self.facts.context_bytes
            before, after = texts.read(max(low, start - reach), start), texts.read(end, min(high, end + reach))
            value = texts.read(start, end)
            if code == IPV4:
                if self.is_ipv4(value, before, after):
                    yield Span(start, end, ENTITY, "ipv4")
            else:
                trimmed = value.rstrip(b".")
                if trimmed.endswith(b":") and not trimmed.endswith(b"::"):
                    trimmed = trimmed[:-1]
                if self.is_ipv6(trimmed):
                    yield Span(start, start + len(trimmed), ENTITY, "ipv6")

    def is_ipv4(self, value: bytes, before: bytes, after: bytes) -> bool:
        """Whether four numbers are a host that may be somebody's; `before`, `after`: the bytes about them."""
        try:
            address = IPv4Address(value.decode())
        except ValueError:
            return False
        octets = address.packed
        if not self.is_global(address) or octets[2:] == b"\0\0" or beside_version(before, after):
            return False
        host, version = self.words_before(before)
        path = before[-1:] == b"/" and before[-2:-1] not in (b"/", b'"', b"'", b" ", b"")
        if version > host or (path and host < 0):
            return False
        near = host >= 0 or before.endswith((b"://", b"@")) or self.has_server_word(after)
        large = max(octets) >= SMALL and max(octets[:3]) >= SECTION
        return near or (large and not among_decimals(before, after))

    def is_ipv6(self, value: bytes) -> bool:
        """Whether a run is an IPv6 address that may be somebody's."""
        try:
            address = IPv6Address(value.decode())
        except ValueError:
            return False
        if any(address in network for network in self.facts.embedding_v6):
            inner = IPv4Address(address.packed[12:])
            return self.is_global(inner) and str(inner) not in self.facts.resolvers
        return self.is_global(address)

    def is_global(self, address: IPv4Address | IPv6Address) -> bool:
        """Global by IANA's registries (as data: every version of Python answers alike), and no public resolver."""
        if address.version == 6 and not any(address in network for network in self.facts.global_v6):
            return False
        return str(address) not in self.facts.resolvers and not any(
            address in network for network in self.facts.special
        )

    def words_before(self, before: bytes) -> tuple[int, int]:
        """Where the last word for hosts and the last for versions begin before an address, -1 if there is none.

        Words are parts of names too (serverAddress, ASSEMBLY_VERSION). A server is sought in all of `before`, the
        others close by on the same line.
        """
        line = max(before.rfind(b"\n") + 1, len(before) - CLOSE)
        host = version = -1
        for match in _WORDS.finditer(before):
            word = match.group().lower()
            close = match.start() >= line and before[match.end() : match.end() + 1] != b"-"
            if word in self.facts.server_words or (close and word in self.facts.host_words):
                host = match.start()
            elif word in self.facts.version_words and match.start() >= line:
                version = match.start()
        return host, version

    def has_server_word(self, after: bytes) -> bool:
        return any(match.group().lower() in self.facts.server_words for match in _WORDS.finditer(after))


def beside_version(before: bytes, after: bytes) -> bool:
    """A name or number is tied to it: lib-1.2.3.4, 1.2.3.4-beta, 1.2.3.4+build, >=1.2.3.4, ^1.2.3.4, ~1.2.3.4."""
    if before[-1:] in (b"^", b"~") or before[-2:] in (b">=", b"<=", b"==", b"~=", b"!="):
        return True
    if before[-1:] == b"-" and before[-2:-1].isalpha():
        return True
    return after[:1] in (b"-", b"+") and after[1:2].isalpha()


def among_decimals(before: bytes, after: bytes) -> bool:
    """A decimal number stands directly before or after it, as in the path of an SVG (".58 1.23.82.72 1.21.87")."""
    neighbours = (_DECIMAL_BEFORE.search(before[-24:]), _DECIMAL_AFTER.match(after))
    return any(match is not None and match[1].count(b".") in (1, 2) for match in neighbours)


def canonical(value: str) -> str:
    """The one way to write an address, so that all of its spellings get one replacement."""
    return str(IPv6Address(value)) if ":" in value else str(IPv4Address(value))
