"""E-mail addresses: a loose expression about each "@" that the gate gives, then what an address is not.

From SantaCoder's rule (Ben Allal et al. 2023; starcoder1 2.2), with what its users met put right (starcoder1 D7): clone
strings, package@version, image names with @2x, decorators, templates and matrix products are no addresses. Addresses of
RFC 2606's example domains belong to nobody and stay. Addresses in licence headers go, names stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from stackbuild.pii.rules import Email
from stackbuild.pii.secrets import windows
from stackbuild.pii.shapes import EMAIL
from stackbuild.pii.spans import I64, Span, Texts

ENTITY: Final = "EMAIL"
RULE: Final = "email"
AROUND: Final = 512  # bytes on either side of an "@"
_ESCAPED = re.compile(rb"u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[nrtbfva0]")
_PERCENT = re.compile(rb"[0-9A-Fa-f]{2}")
_EDGE = b"._+-"
_CLONE = re.compile(rb":(?:[0-9]{1,5}/)?[~/]?[A-Za-z0-9_.-]*(?:/|\.git)")
_PACKAGE = re.compile(r"v?[0-9]+\.[0-9]+\.")


class EmailFinder:
    """Finds e-mail addresses."""

    def __init__(self, facts: Email):
        self.facts = facts

    def find(self, texts: Texts, hits: I64) -> Iterator[Span]:
        """Spans of addresses; `hits` as `gate.hits` gives them."""
        mine = hits[hits[:, 0] == EMAIL]
        for low, high, start, end in windows(texts, mine, AROUND, AROUND):
            window = texts.read(start, end)
            for match in self.facts.pattern.finditer(window):
                at, to = match.span()
                if (at == 0 and start > low) or (to == len(window) and end < high):
                    continue  # longer than an address may be
                at = begin(window, at)
                while to > at and window[to - 1] in b"-.":
                    to -= 1
                if window[to - 1 : to + 3] in (b"E<gt", b"E<lt"):  # Perl's documentation: E<lt>joe@here.orgE<gt>
                    to -= 1
                if self.is_address(window, at, to):
                    yield Span(start + at, start + to, ENTITY, RULE)

    def is_address(self, window: bytes, at: int, to: int) -> bool:
        """Whether bytes at to `to` are an address that may be somebody's, by itself and by its neighbours."""
        local_bytes, _, domain_bytes = window[at:to].rpartition(b"@")
        if not 0 < len(local_bytes) <= self.facts.local_bytes or len(domain_bytes) > self.facts.domain_bytes:
            return False
        try:
            local, domain = local_bytes.decode().lower(), domain_bytes.decode().lower()
        except UnicodeDecodeError:
            return False
        if local in self.facts.local_parts or local[-1] == "." or ".." in local:
            return False
        return self.is_domain(domain) and not is_code(window, at, to)

    def is_domain(self, domain: str) -> bool:
        """A name under a top-level domain that exists, which is not reserved and does not begin like a version."""
        labels = domain.split(".")
        if (
            domain in self.facts.protocol_domains
            or ascii_label(labels[-1]) not in self.facts.top_level_domains
            or _PACKAGE.match(domain)
        ):
            return False
        if any(not 0 < len(label) <= 63 or label[0] == "-" or label[-1] == "-" for label in labels):
            return False
        if len(labels) == 2 and labels[-1] in self.facts.code_suffixes:
            return False
        return not any(domain == name or domain.endswith("." + name) for name in self.facts.reserved_domains)


def ascii_label(label: str) -> str:
    """A label of a domain as the root zone has it, xn--...; the label itself if it has no such form."""
    if label.isascii():
        return label
    try:
        return label.encode("idna").decode()
    except UnicodeError:
        return label


def begin(window: bytes, at: int) -> int:
    """Where an address begins that was found at `at`: after an escape (\\n, \\u003c, %3C) and leading punctuation."""
    before = window[at - 1 : at] if at else b""
    if before == b"\\":
        slashes = len(window[max(0, at - 64) : at]) - len(window[max(0, at - 64) : at].rstrip(b"\\"))
        escape = _ESCAPED.match(window, at)
        if slashes % 2 and escape:
            at = escape.end()
    elif before == b"%":
        escape = _PERCENT.match(window, at)
        if escape and window[escape.end() : escape.end() + 1] not in (b"", b"@"):
            at = escape.end()
    while window[at : at + 1] and window[at] in _EDGE:
        at += 1
    return at


def is_code(window: bytes, at: int, to: int) -> bool:
    """The neighbours say that this is no address: a template, a path, the user of a URL, a clone string, a call."""
    before, after = window[max(0, at - 1) : at], window[to : to + 1]
    escaped = before == b"%" or (before == b"/" and window[max(0, at - 2) : at] != b"*/")
    if escaped or before in (b"$", b"}", b"@", b"#", b"&"):
        return True
    if after in (b"(", b"@", b"_", b"%", b"$", b"{", b"[", b"=") and not _query(window, to):
        return True
    if after == b"." and window[to + 1 : to + 2].isalnum():
        return True
    token = window[max(0, at - 256) : at]
    token = token[max(token.rfind(mark) for mark in (b" ", b"\n", b"\t", b'"', b"'", b"<", b">", b"(", b",")) + 1 :]
    scheme = token.rfind(b"//")
    if scheme >= 0 and b"/" not in token[scheme + 2 :] and b"?" not in token[scheme:]:
        return token[scheme - 1 : scheme] == b":" or b":" in token[scheme:]
    return bool(_CLONE.match(window[to : to + 128]))


def _query(window: bytes, to: int) -> bool:
    """A percent escape follows, as in a URL's query; not a template."""
    return window[to : to + 1] == b"%" and bool(_PERCENT.match(window, to + 1))
