"""The profile `compat`: the published regex pipeline of SantaCoder (StarCoder2's without a model), in linear time.

E-mail and IP addresses by `compat_addresses`, keys by `compat_keys`, which say where they differ. It is for rebuilding
what was published, not for finding much: clone strings are e-mail addresses to it, and a file of hashes has no keys.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from stackbuild.pii import compat_addresses, rules
from stackbuild.pii.compat_keys import KeyFinder
from stackbuild.pii.extras import EXTRA, engines
from stackbuild.pii.gibberish import model
from stackbuild.pii.replacements import known_values
from stackbuild.pii.spans import Span, Texts

KEY = "KEY"


class Compat:
    """Detector of the profile. `gibberish`: path of a model of gibberish-detector, None for that of detect-secrets.

    MissingDependency if keys are asked for without detect-secrets, InputError for a model that is none.
    """

    def __init__(self, entities: Iterable[str], gibberish: str | None = None):
        self.entities = frozenset(entities)
        self.facts = rules.load().ip
        self.known = re.compile(b"|".join(map(re.escape, known_values(self.facts))))
        self.model = model(gibberish) if KEY in self.entities else None

    @cached_property
    def keys(self) -> KeyFinder:
        """The plug-ins, loaded at first use."""
        assert self.model is not None
        return KeyFinder(self.model)

    def find(self, texts: Texts) -> Iterator[Span]:
        """Spans of a batch: one text after the other, as the filters of detect-secrets take one value at a time."""
        bounds = texts.offsets.tolist()
        for low, high in itertools.pairwise(bounds):
            if high > low:
                raw = texts.read(low, high)
                for start, end, entity, rule in self.of(raw):
                    if not self.known.search(raw, start, end):
                        yield Span(low + start, low + end, entity, rule)

    def of(self, raw: bytes) -> Iterator[tuple[int, int, str, str]]:
        """(start, end, entity, rule) in a UTF-8 text."""
        if compat_addresses.EMAIL in self.entities:
            for start, end in compat_addresses.emails(raw):
                yield start, end, compat_addresses.EMAIL, "compat-email"
        if compat_addresses.IP in self.entities:
            for start, end in compat_addresses.addresses(raw, self.facts):
                yield start, end, compat_addresses.IP, "compat-ip"
        if KEY in self.entities:
            for start, end, plugin in self.keys.find(raw):
                yield start, end, KEY, f"compat-{plugin}"

    def key(self) -> Mapping[str, Any]:
        """What decides beside options and code: the model of gibberish, detect-secrets, and the resolvers."""
        found: dict[str, Any] = {"rules": rules.load().digest}
        if self.model is not None:
            found |= {"gibberish": [self.model.digest, self.model.limit], **engines("compat", EXTRA, "detect-secrets")}
        return found
