"""What takes the place of what was found.

`placeholder`: `<EMAIL>`, `<KEY>`, and for an IP address one of five private addresses of its family (StarCoder2,
Lozhkov et al. 2024, section 3.2, whose redaction has no token for IPs). `pseudonym`: one of ten addresses at a
reserved domain, one of ten keys of 32 bytes, as SantaCoder did. The choice is a hash of the seed and the value, where
the originals drew it anew (starcoder1 D6): a value has one replacement, in a file and in every run. No rule finds a
replacement again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Literal

from stackbuild.hashing import draw
from stackbuild.pii import addresses
from stackbuild.pii.rules import Ip
from stackbuild.pii.spans import Span, Texts

Mode = Literal["placeholder", "pseudonym"]
POOL: Final = 10


def _letters(kind: str, number: int, alphabet: str, length: int) -> str:
    digest = hashlib.blake2b(f"{kind} {number}".encode(), digest_size=length).digest()
    return "".join(alphabet[byte % len(alphabet)] for byte in digest)


PSEUDONYM_EMAILS: Final = tuple(
    _letters("email", k, "abcdefghijklmnopqrstuvwxyz", 5) + "@example.com" for k in range(POOL)
)
PSEUDONYM_KEYS: Final = tuple(_letters("key", k, "abcdefghijklmnopqrstuvwxyz0123456789", 32) for k in range(POOL))


def known_values(ip: Ip) -> tuple[bytes, ...]:
    """Everything that redaction puts in, which no rule may take for a secret."""
    values = ("<EMAIL>", "<KEY>", *PSEUDONYM_EMAILS, *PSEUDONYM_KEYS, *ip.synthetic_v4, *ip.synthetic_v6)
    return tuple(value.encode() for value in values)


class Replacer:
    """Chooses replacements. `seed`: of the build."""

    def __init__(self, ip: Ip, mode: Mode, seed: int):
        self.ip, self.mode, self.seed = ip, mode, seed

    def of(self, spans: Iterable[Span], texts: Texts) -> list[str]:
        """The replacement of each span of a batch."""
        return [self.one(span.entity, texts.read(span.start, span.end).decode()) for span in spans]

    def one(self, entity: str, value: str) -> str:
        """What stands in the place of a value; for an entity without a pool, its name in angle brackets."""
        if entity == addresses.ENTITY:
            return self._address(value)
        if self.mode == "pseudonym" and entity in ("EMAIL", "KEY"):
            pool = PSEUDONYM_EMAILS if entity == "EMAIL" else PSEUDONYM_KEYS
            return pool[draw(self.seed, "pii", entity, value) % POOL]
        return f"<{entity}>"

    def _address(self, value: str) -> str:
        try:
            key = addresses.canonical(value)
        except ValueError:  # an address that was merged with its neighbour
            key = value
        pool = self.ip.synthetic_v6 if ":" in key else self.ip.synthetic_v4
        return pool[draw(self.seed, "pii", addresses.ENTITY, key) % len(pool)]
