"""What looks for personal data: the profiles of a recipe, each a detector of spans, and all of them together.

A detector gives spans of a batch, of the entities that it was asked for, in no order and perhaps overlapping; here they
become one list. It sees the texts alone, so that a text is redacted alike wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from stackbuild.pii import gate, rules, secrets
from stackbuild.pii.addresses import AddressFinder
from stackbuild.pii.emails import EmailFinder
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.replacements import known_values
from stackbuild.pii.secrets import SecretFinder
from stackbuild.pii.spans import I64, Span, Texts, merged


class Detector(Protocol):
    """A profile. `key`: what decides what it finds, beside the options and the code (digests, versions)."""

    def find(self, texts: Texts) -> Iterable[Span]: ...

    def key(self) -> Mapping[str, Any]: ...


class Finder(Protocol):
    """Finds one kind of thing by rules: spans of a batch from the places that the gate gives, or from the texts themselves."""

    def find(self, texts: Texts, hits: I64) -> Iterator[Span]: ...


FINDERS: Mapping[str, Callable[[rules.RuleBook], Finder]] = {
    "EMAIL": lambda book: EmailFinder(book.email),
    "IP_ADDRESS": lambda book: AddressFinder(book.ip),
    "KEY": lambda book: SecretFinder(book, known_values(book.ip)),
}


class Rules:
    """The profile `rules`: all finders behind one gate."""

    def __init__(self, book: rules.RuleBook, entities: Iterable[str]):
        self.book = book
        self.finders = [FINDERS[entity](book) for entity in sorted(set(entities)) if entity in FINDERS]
        self.automaton = gate.automaton(book.anchors)

    def find(self, texts: Texts) -> Iterable[Span]:
        """Spans of a batch of texts."""
        hits = gate.hits(texts, self.automaton)
        return [span for finder in self.finders for span in finder.find(texts, hits)]

    def key(self) -> Mapping[str, Any]:
        """The rules decide what is found."""
        return {"rules": self.book.digest}


def rules_of(options: PiiOptions, entities: Sequence[str]) -> Detector:
    """The profile `rules` of these options."""
    return Rules(rules.with_file(Path(options.rules)) if options.rules else rules.load(), entities)


# What makes the detector of a profile from (options, entities). What it needs is imported there: none loads a model unasked.
PROFILES: Final[Mapping[str, Callable[[PiiOptions, Sequence[str]], Detector]]] = {"rules": rules_of}


class Detection:
    """Some profiles together."""

    def __init__(self, detectors: Mapping[str, Detector]):
        self.detectors = detectors

    @classmethod
    def of(cls, options: PiiOptions, profiles: Sequence[str], entities: Sequence[str]) -> Detection:
        """Those of a recipe; errors.MissingDependency if one needs a package that is not installed."""
        return cls({name: PROFILES[name](options, entities) for name in sorted(set(profiles))})

    def spans(self, texts: Texts) -> list[Span]:
        """What is found in a batch of texts, merged, in order."""
        found = [span for detector in self.detectors.values() for span in detector.find(texts)]
        return merged([*found, *secrets.repeated(texts, found)]) if found else []

    def key(self) -> Mapping[str, Any]:
        """What decides what is found, beside options and code."""
        return {name: detector.key() for name, detector in self.detectors.items()}
