"""Riders: sentences beside a permissive text that take a part of it back ("MIT, but not for training").

An engine that knows the text answers MIT, and the file is not. What riders say is data (`licenses/riders.toml`); each
has a key of its own, which is non-permissive. They are sought in the lines that are not word for word a known licence,
of files named as licences and of headers, one sentence at a time, by RE2: time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import re2

from stackbuild.licenses.lists import LicenseDataError, data_path, read_toml
from stackbuild.licenses.scancode import Match

PATTERN_BYTES = 128 << 10  # a pattern's program and automaton: what every child may come to hold for itself
SENTENCE_CHARS = 1_000
KNOWN_WORDS = 30  # a match of fewer is of a notice, not of a licence's text, which may say more
_ANCHOR = re.compile(r"(?<![\[\\])[\^$]")
_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\binc)(?<!\bcorp)(?<!\bltd)(?<!\bno)[.!?]['\")]{0,2}(?:[ \n]+|$)")


@dataclass(frozen=True)
class Rider:
    """One rider of the data: its key, compiled patterns, and where it is sought. `gates`: the patterns that a text holds if
    one of its sentences does; others ask for where a sentence begins or ends.
    """

    key: str
    patterns: tuple[Any, ...]
    ignore: tuple[Any, ...]
    anywhere: bool
    files_only: bool
    gates: tuple[Any, ...]

    def may_speak_in(self, text: str) -> bool:
        """Whether a sentence of the text can be what it says: few texts hold all that it asks for."""
        return all(pattern.search(text) for pattern in self.gates)

    def speaks_in(self, sentence: str) -> bool:
        """Whether a sentence says it, as it stands and without what is ignored."""
        if not self._is_in(sentence):
            return False
        plain = sentence
        for pattern in self.ignore:
            plain = pattern.sub(" ", plain)
        return plain == sentence or self._is_in(plain)

    def _is_in(self, sentence: str) -> bool:
        return all(pattern.search(sentence) for pattern in self.patterns)


@cache
def riders() -> tuple[str, tuple[Rider, ...]]:
    """The version of the data, and its riders."""
    path = data_path("riders.toml")
    body = read_toml(path)
    options = re2.Options()
    options.max_mem = PATTERN_BYTES
    options.log_errors = False
    found = []
    for one in body.get("rider", ()):
        try:
            compiled = [
                tuple(re2.compile(_joined(pattern), options) for pattern in one.get(name, ()))
                for name in ("patterns", "ignore")
            ]
        except re2.error as error:
            raise LicenseDataError(f"{path}: {one.get('key')} has a pattern that is not RE2: {error}.") from error
        if not compiled[0]:
            raise LicenseDataError(f"{path}: {one.get('key')} has no patterns.")
        found.append(
            Rider(
                one["key"],
                compiled[0],
                compiled[1],
                bool(one.get("anywhere", False)),
                bool(one.get("files_only", False)),
                tuple(pattern for pattern in compiled[0] if not _ANCHOR.search(pattern.pattern)),
            )
        )
    return body["version"], tuple(found)


def _joined(pattern: str | list[str]) -> str:
    """A pattern of the data in one line: its alternatives joined, without the line feeds in it and the blanks behind them."""
    if isinstance(pattern, list):
        return "|".join(map(_joined, pattern))
    return "".join(line.lstrip() for line in pattern.split("\n")) if "\n" in pattern else pattern


def engine() -> str:
    """Name and version, as evidence carries them."""
    return f"stackbuild riders {riders()[0]}"


def known_lines(found: Iterable[Match]) -> set[int]:
    """The lines inside ScanCode's exact matches of whole texts; the first and the last of one may hold more."""
    return {line for one in found if one.words >= KNOWN_WORDS for line in range(one.first + 1, one.last)}


def riding(lines: list[str], known: set[int], header: bool = False) -> dict[str, tuple[int, int]]:
    """The keys of the riders in a form, each with the first and last line (from 0) of its first sentence.

    `known`: the lines that a licence known word for word holds. `header`: the form is of a source file's head.
    """
    found: dict[str, tuple[int, int]] = {}
    text = " ".join(line for line in map(str.strip, lines) if line)  # as sentences join them
    sought = [one for one in riders()[1] if not (header and one.files_only) and one.may_speak_in(text)]
    for within, rules in (
        (set(range(len(lines))) - known, [one for one in sought if not one.anywhere]),
        (set(range(len(lines))), [one for one in sought if one.anywhere]),
    ):
        for sentence, first, last in sentences(lines, within) if rules else ():
            for rule in rules:
                if rule.key not in found and rule.speaks_in(sentence):
                    found[rule.key] = first, last
    return found


def sentences(lines: list[str], within: set[int]) -> Iterator[tuple[str, int, int]]:
    """The sentences of consecutive lines, of at most `SENTENCE_CHARS`, each with its first and last line."""
    words: list[str] = []
    first = length = 0
    for number in range(len(lines) + 1):
        inside = number < len(lines) and number in within
        if words and (not inside or length > SENTENCE_CHARS):
            yield " ".join(words), first, number - 1
            words, length = [], 0
        if not inside:
            continue
        at = 0
        for end in _END.finditer(lines[number]):
            if not words:
                first = number
            yield " ".join([*words, lines[number][at : end.end()].strip()]), first, number
            words, length, at = [], 0, end.end()
        rest = lines[number][at:].strip()
        if rest:
            if not words:
                first = number
            words.append(rest)
            length += len(rest)
