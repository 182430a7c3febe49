"""What takes the place of what was found.

`placeholder`: the entity's name in angle brackets, `<EMAIL>` and `<KEY>`, and for an IP address one of five private
addresses of its family (StarCoder2, Lozhkov et al. 2024, section 3.2, whose redaction has no token for IPs).
`pseudonym`: one of ten made-up values, as SantaCoder did: addresses at a reserved domain, keys of 32 bytes. The choice is
a hash of the seed, the file's text and the value, where the originals drew it anew (starcoder1 D6): a value has one
replacement in a file, and the same in every run, but not in every file, so that nothing tells which files share a
secret. The pools are small, so that the seed may be public: ten values tell of none. No rule finds a replacement again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np

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
PSEUDONYM_PASSWORDS: Final = tuple(
    _letters("password", k, "abcdefghijklmnopqrstuvwxyz0123456789", 12) for k in range(POOL)
)
PSEUDONYM_USERS: Final = tuple("user_" + _letters("user", k, "abcdefghijklmnopqrstuvwxyz", 5) for k in range(POOL))
PSEUDONYM_NAMES: Final = (
    "Alex Sample", "Billie Sample", "Chris Sample", "Dana Sample", "Eli Sample",
    "Alex Placeholder", "Billie Placeholder", "Chris Placeholder", "Dana Placeholder", "Eli Placeholder",
)  # fmt: skip
PSEUDONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "EMAIL": PSEUDONYM_EMAILS,
    "KEY": PSEUDONYM_KEYS,
    "NAME": PSEUDONYM_NAMES,
    "PASSWORD": PSEUDONYM_PASSWORDS,
    "USERNAME": PSEUDONYM_USERS,
}


def known_values(ip: Ip) -> tuple[bytes, ...]:
    """Everything that redaction puts in, which no rule may take for a secret."""
    pools = [value for pool in PSEUDONYMS.values() for value in pool]
    values = (*(f"<{entity}>" for entity in PSEUDONYMS), *pools, *ip.synthetic_v4, *ip.synthetic_v6)
    return tuple(value.encode() for value in values)


class Replacer:
    """Chooses replacements. `seed`: of the build."""

    def __init__(self, ip: Ip, mode: Mode, seed: int):
        self.ip, self.mode, self.seed = ip, mode, seed

    def of(self, spans: Sequence[Span], texts: Texts) -> list[str]:
        """The replacement of each span of a batch; `texts` are those of the files before anything was replaced."""
        files = np.searchsorted(texts.offsets, np.array([span.start for span in spans], np.int64), side="right") - 1
        keys = {file: self.file_key(texts, file) for file in sorted(set(files.tolist()))}
        return [
            self.one(span.entity, texts.read(span.start, span.end).decode(), keys[file])
            for span, file in zip(spans, files.tolist(), strict=True)
        ]

    def file_key(self, texts: Texts, file: int) -> str:
        """What tells a file from others: a digest of its text."""
        low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
        return hashlib.blake2b(texts.view[low:high], digest_size=16).hexdigest()

    def one(self, entity: str, value: str, file_key: str) -> str:
        """What stands in the place of a value in a file; for an entity without a pool, its name in angle brackets."""
        if entity == addresses.ENTITY:
            return self._address(value, file_key)
        pool = PSEUDONYMS.get(entity) if self.mode == "pseudonym" else None
        return pool[draw(self.seed, "pii", file_key, entity, value) % len(pool)] if pool else f"<{entity}>"

    def _address(self, value: str, file_key: str) -> str:
        try:
            key = addresses.canonical(value)
        except ValueError:  # an address that was merged with its neighbour
            key = value
        pool = self.ip.synthetic_v6 if ":" in key else self.ip.synthetic_v4
        return pool[draw(self.seed, "pii", file_key, addresses.ENTITY, key) % len(pool)]
