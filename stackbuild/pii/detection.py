"""What looks for personal data: the profiles of a recipe, each a detector of spans, and all of them together.

A detector gives spans of a batch, of the entities that it was asked for, in no order and perhaps overlapping; here they
become one list. It sees the texts alone, so that a text is redacted alike wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa

from stackbuild.pii import assignments, gate, generic, names, rules, scorer, secrets, users
from stackbuild.pii.addresses import AddressFinder
from stackbuild.pii.emails import EmailFinder
from stackbuild.pii.headers import Headers, kept
from stackbuild.pii.names import NameFinder
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.replacements import known_values
from stackbuild.pii.secrets import SecretFinder
from stackbuild.pii.spans import I64, Span, Texts, merged
from stackbuild.pii.users import UserFinder


class Detector(Protocol):
    """A profile. `key`: what decides what it finds, beside the options and the code (digests, versions)."""

    def find(self, texts: Texts) -> Iterable[Span]: ...

    def key(self) -> Mapping[str, Any]: ...


class Finder(Protocol):
    """Finds one kind of thing by rules: spans of a batch from the places that the gate gives, or from the texts themselves."""

    def find(self, texts: Texts, hits: I64) -> Iterator[Span]: ...


FINDERS: Mapping[str, Callable[[rules.RuleBook], Finder]] = {
    "IP_ADDRESS": lambda book: AddressFinder(book.ip),
    "USERNAME": lambda book: UserFinder(book.names),
}


class Rules:
    """The profile `rules`: all finders behind one gate. `threshold`: the score from which a value without a format is a
    secret, None if none is; `notices`: whether names in copyright notices are sought."""

    def __init__(
        self, book: rules.RuleBook, entities: Iterable[str], threshold: float | None = None, notices: bool = True
    ):
        self.book = book
        self.entities = frozenset(entities)
        self.finders = [FINDERS[entity](book) for entity in sorted(self.entities) if entity in FINDERS]
        if "KEY" in self.entities:
            passwords = "PASSWORD" in self.entities
            self.finders.append(SecretFinder(book, known_values(book.ip), passwords))
        self.emails = EmailFinder(book.email) if self.entities & {"EMAIL", "NAME"} else None
        self.names = NameFinder(book.names) if "NAME" in self.entities else None
        self.scorer = scorer.load() if threshold is not None and self.entities & generic.ENTITIES else None
        anchors = list(book.anchors)
        if self.scorer is not None and threshold is not None:
            known = known_values(book.ip)
            self.finders.append(generic.GenericFinder(book, self.scorer, threshold, self.entities, known))
            anchors += assignments.anchors()
        anchors += names.anchors(book.names, notices) if self.names else []
        anchors += users.anchors(book.names) if "USERNAME" in self.entities else []
        self.automaton = gate.automaton(anchors)

    def find(self, texts: Texts) -> Iterable[Span]:
        """Spans of a batch of texts."""
        hits = gate.hits(texts, self.automaton)
        found = [span for finder in self.finders for span in finder.find(texts, hits)]
        addresses = list(self.emails.find(texts, hits)) if self.emails else []
        found += addresses if "EMAIL" in self.entities else []
        found += self.names.find(texts, hits, addresses) if self.names else []
        return found

    def key(self) -> Mapping[str, Any]:
        """The rules decide what is found, and the model."""
        return {"rules": self.book.digest, "scorer": self.scorer.digest if self.scorer else None}


def rules_of(options: PiiOptions, entities: Sequence[str]) -> Detector:
    """The profile `rules` of these options."""
    book = rules.with_file(Path(options.rules)) if options.rules else rules.load()
    return Rules(book, entities, options.scorer if options.scorer < 1 else None, notices=options.headers == "redact")


def compat_of(options: PiiOptions, entities: Sequence[str]) -> Detector:
    """The profile `compat`: SantaCoder's expressions and detect-secrets."""
    from stackbuild.pii.compat import Compat

    return Compat(entities, options.gibberish_model)


def ner_of(options: PiiOptions, entities: Sequence[str]) -> Detector:
    """The profile `ner`: a token-classification model."""
    from stackbuild.pii.ner import Ner

    return Ner(options, entities)


def presidio_of(options: PiiOptions, entities: Sequence[str]) -> Detector:
    """The profile `presidio`: names in prose by spaCy, the rest by our rules."""
    from stackbuild.pii.presidio import Presidio

    return Presidio(options, entities)


# What makes the detector of a profile from (options, entities). What it needs is imported there: none loads a model unasked.
PROFILES: Final[Mapping[str, Callable[[PiiOptions, Sequence[str]], Detector]]] = {
    "rules": rules_of,
    "compat": compat_of,
    "ner": ner_of,
    "presidio": presidio_of,
}


LONGEST: Final = 64  # bytes of what redaction puts in, at most


def whole(texts: Texts, span: Span) -> Span:
    """A span from the beginning to the end of characters: an expression over bytes may end within one."""
    start, end = span.start, span.end
    if end > start and texts.data[start] & 0xC0 == 0x80:
        low = int(texts.offsets[texts.file_of(start)])
        while start > low and texts.data[start] & 0xC0 == 0x80:
            start -= 1
    if end > start and end < len(texts.data) and texts.data[end] & 0xC0 == 0x80:
        high = int(texts.offsets[texts.file_of(span.start) + 1])
        while end < high and texts.data[end] & 0xC0 == 0x80:
            end += 1
    return span if (start, end) == (span.start, span.end) else span._replace(start=start, end=end)


class Detection:
    """Some profiles together. `headers`: what stays of licence headers."""

    def __init__(self, detectors: Mapping[str, Detector], headers: Headers = "redact"):
        self.detectors, self.headers = detectors, headers

    @classmethod
    def of(cls, options: PiiOptions, profiles: Sequence[str], entities: Sequence[str]) -> Detection:
        """Those of a recipe; errors.MissingDependency if one needs a package that is not installed."""
        return cls({name: PROFILES[name](options, entities) for name in sorted(set(profiles))}, options.headers)

    def spans(self, texts: Texts) -> list[Span]:
        """What is found in a batch of texts, merged, in order."""
        found = [whole(texts, span) for one in self.detectors.values() for span in one.find(texts)]
        found = list(kept((span for span in found if not self.is_replacement(texts, span)), texts, self.headers))
        return merged([*found, *secrets.repeated(texts, found)]) if found else []

    def is_replacement(self, texts: Texts, span: Span) -> bool:
        """Whether a span lies inside something that redaction put in, which is nobody's, and would never settle."""
        file = texts.file_of(span.start)
        low = max(int(texts.offsets[file]), span.start - LONGEST)
        high = min(int(texts.offsets[file + 1]), span.end + LONGEST)
        if span.end - span.start > LONGEST or not high > low:
            return False
        around = texts.read(low, high)
        return any(
            low + match.start() <= span.start and span.end <= low + match.end() for match in self.known.finditer(around)
        )

    @cached_property
    def known(self) -> re.Pattern[bytes]:
        """All that redaction puts in."""
        return re.compile(b"|".join(map(re.escape, known_values(rules.load().ip))))

    def warm(self) -> None:
        """Load for all children of this process what can be shared with them: a profile may say so itself (`warm`)."""
        texts = Texts.of(pa.array(["jo@example.com"], pa.large_string()))
        for detector in self.detectors.values():
            own = getattr(detector, "warm", None)
            if own is not None:
                own()
            else:
                list(detector.find(texts))

    def key(self) -> Mapping[str, Any]:
        """What decides what is found, beside options and code."""
        return {name: detector.key() for name, detector in self.detectors.items()}
