"""Rules in gitleaks' TOML, so that a user can bring that very file (https://github.com/gitleaks/gitleaks, config/).

A match means what it means there, for a text that has no path (`gitleaks stdin`): a rule's expression runs over the whole
of each text that holds one of its keywords, without regard to case, or over every text if it has none; the secret is the
group `secretGroup`, else the first that is not empty, else the match; it falls at or below the rule's entropy, or by an
allowlist of the rule or the file. Rules and allowlists that ask for a path say nothing of a text without one, commits do
not either. What is not done: `extend` and rules that require others (refused), decoding, comments "gitleaks:allow".

Expressions are Go's; RE2 is what Go's engine was made from. It is linear, so no rule can be made slow.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import re2

from stackbuild.pii.entries import LeaksAllowlist, LeaksFile, LeaksLists, LeaksRule, checked, name_of
from stackbuild.pii.gate import Anchor
from stackbuild.pii.patterns import nowhere_empty
from stackbuild.pii.spans import I64, Span, Texts

ENTITY: Final = "KEY"
PREFIX: Final = "gitleaks:"  # before the names of these rules in spans and counts
_PIECES = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.", re.DOTALL)  # of an expression: quoted, or behind a backslash
CONDITIONS: Final = {"": False, "or": False, "||": False, "and": True, "&&": True}


@dataclass(frozen=True)
class Allowlist:
    """What is no secret. `every`: all that it names must hold; it never does if it names paths or commits too."""

    every: bool
    regexes: tuple[Any, ...]
    target: str
    stopwords: tuple[str, ...]
    elsewhere: bool  # it names paths or commits
    rules: frozenset[str]  # that it is for; all if empty

    def fits(self, target: bytes) -> bool:
        """Whether one of the expressions says of the secret, the match or its lines that this is no secret."""
        return any(found.group() for r in self.regexes if (found := r.search(target)))

    def allows(self, secret: bytes, fits: bool) -> bool:
        """Whether a finding is none."""
        folded = secret.decode("utf-8", "replace").lower()
        word = any(stop in folded for stop in self.stopwords)
        if not self.every:
            return fits or word
        return not self.elsewhere and (fits or not self.regexes) and (word or not self.stopwords)


@dataclass(frozen=True)
class GitleaksRule:
    """A rule of the file. `gated`: the gate finds its keywords; else it runs over every text."""

    id: str
    regex: Any
    group: int
    entropy: float
    gated: bool
    allowlists: tuple[Allowlist, ...]


@dataclass(frozen=True)
class Rules:
    """The rules of a file that can find something in a text; rule k of the gate's hits is `rules[k - first]`.

    `asleep`: names of those that need a path, or are there for others: they were read and checked.
    """

    first: int
    rules: tuple[GitleaksRule, ...]
    anchors: tuple[Anchor, ...]
    asleep: tuple[str, ...]


NONE: Final = Rules(0, (), (), ())


def load(data: Mapping[str, Any], first: int) -> Rules:
    """Read a file's tables; ValueError names the rule and what is wrong in it. The gate counts these rules from `first`."""
    if not isinstance(data.get("rules"), list):
        raise ValueError("it has no [[rules]] of gitleaks, and no `format` of stackbuild's own")
    file = checked(LeaksFile, _lowered(data))
    if file.extend:
        raise ValueError("it extends another file, which is not done here: write all rules into one file")
    common = _allowlists(file)
    rules: list[GitleaksRule] = []
    anchors: list[Anchor] = []
    asleep: list[str] = []
    seen: set[str] = set()
    for number, table in enumerate(file.rules):
        name = name_of(table, number)
        try:
            entry = checked(LeaksRule, _lowered(table))
            rule, words = _rule(entry, common)
        except (ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"rule {name}: {error}") from error
        if name in seen:
            raise ValueError(f"two rules are called {name}")
        seen.add(name)
        if rule is None or entry.path or entry.skipreport:
            asleep.append(name)
            continue
        if rule.gated:
            anchors += [Anchor(w, first + len(rules), ignore_case=True, once=True) for w in words]
        rules.append(rule)
    return Rules(first, tuple(rules), tuple(anchors), tuple(asleep))


def _lowered(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table with its names in lower case, as gitleaks reads them."""
    return {name.lower(): value for name, value in table.items()}


def _rule(entry: LeaksRule, common: Iterable[Allowlist]) -> tuple[GitleaksRule | None, list[bytes]]:
    """A rule and its keywords; none if it looks at paths alone."""
    if entry.required:
        raise ValueError("it requires other rules near its match, which is not done here: remove it")
    if entry.path:
        compiled(entry.path)
    if not entry.regex:
        if not entry.path:
            raise ValueError("neither regex nor path")
        return None, []
    regex = nowhere_empty(compiled(entry.regex))
    if entry.secretgroup > regex.groups:
        raise ValueError(f"secretGroup {entry.secretgroup}: the regex has {regex.groups} groups")
    words = [word.lower().encode() for word in entry.keywords if word]
    gated = bool(words) and all(word.isascii() for word in words)
    own = (*common, *_allowlists(entry))
    lists = tuple(a for a in own if not a.rules or entry.id in a.rules)
    return GitleaksRule(entry.id, regex, entry.secretgroup, entry.entropy, gated, lists), words


def _allowlists(of: LeaksLists) -> list[Allowlist]:
    """Those of a rule or a file, written in either of gitleaks' two ways."""
    lists = []
    for table in [*([of.allowlist] if of.allowlist else []), *of.allowlists]:
        entry = checked(LeaksAllowlist, _lowered(table), "allowlist")
        if entry.condition.lower() not in CONDITIONS:
            raise ValueError(f"allowlist.condition: {entry.condition} is neither AND nor OR")
        for path in entry.paths:
            compiled(path)
        regexes = tuple(compiled(regex) for regex in entry.regexes)
        stopwords = tuple(word.lower() for word in entry.stopwords if word)
        elsewhere = bool(entry.paths or entry.commits)
        if not (regexes or stopwords or elsewhere):
            raise ValueError("an allowlist that allows nothing")
        every = CONDITIONS[entry.condition.lower()]
        target = entry.regextarget or "secret"
        lists.append(Allowlist(every, regexes, target, stopwords, elsewhere, frozenset(entry.targetrules)))
    return lists


def compiled(regex: str) -> Any:
    """Go's syntax for RE2, over UTF-8; ValueError says what RE2 does not take, or Go does not: \\C, a byte of a character."""
    if any(piece == r"\C" for piece in _PIECES.findall(regex)):
        raise ValueError(f"{regex!r} has \\C, which may cut a character, and which Go does not take")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(regex.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else error
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        raise ValueError(f"RE2 cannot compile {regex!r}: {reason}") from error


def entropy(secret: bytes) -> float:
    """Shannon's, as gitleaks counts it: of characters, over the length in bytes."""
    size = len(secret)
    counts = Counter(secret.decode("utf-8", "replace")).values()
    return -sum(n / size * math.log2(n / size) for n in counts) if size else 0.0


class GitleaksFinder:
    """Finds what these rules find. `known`: an expression for values that redaction puts in."""

    def __init__(self, rules: Rules, known: Any = None):
        self.rules, self.known = rules, known
        self.ungated = [number for number, rule in enumerate(rules.rules) if not rule.gated]

    def find(self, texts: Texts, hits: I64) -> Iterator[Span]:
        """Spans of secrets; `hits` ascending by rule. A text is read once, whatever number of rules looks at it."""
        if not self.rules.rules:
            return
        mine = hits[np.searchsorted(hits[:, 0], self.rules.first) :]
        files = np.searchsorted(texts.offsets, mine[:, 1], side="right") - 1
        gated: dict[int, set[int]] = {}
        for file, rule in zip(files.tolist(), (mine[:, 0] - self.rules.first).tolist(), strict=True):
            gated.setdefault(file, set()).add(rule)
        for file in range(len(texts.offsets) - 1) if self.ungated else sorted(gated):
            low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
            whole = texts.read(low, high)
            lines = Lines(whole)
            for number in sorted({*gated.get(file, ()), *self.ungated}):
                for start, end in self._matches(self.rules.rules[number], whole, lines):
                    yield Span(low + start, low + end, ENTITY, PREFIX + self.rules.rules[number].id)

    def _matches(self, rule: GitleaksRule, text: bytes, lines: Lines) -> Iterator[tuple[int, int]]:
        of_line = [a for a in rule.allowlists if a.target == "line"]
        others = [a for a in rule.allowlists if a.target != "line"]
        seen: tuple[int, int] | None = None  # lines of the last match, and what the allowlists' expressions say of them
        said: list[bool] = []
        for found in rule.regex.finditer(text):
            match = found.group()
            at = found.start() + len(match) - len(match.lstrip(b"\n"))
            match = match.strip(b"\n")
            start, end = self._secret(rule, match)
            secret = match[start:end]
            if not secret or (rule.entropy and entropy(secret) <= rule.entropy):
                continue
            if self.known and self.known.search(secret):
                continue
            if of_line and (here := lines.about(at, at + len(match))) != seen:
                seen, line = here, lines.read(*here)
                said = [a.fits(line) for a in of_line]
            if any(a.allows(secret, fits) for a, fits in zip(of_line, said, strict=True)):
                continue
            targets = {"secret": secret, "match": match}
            if not any(a.allows(secret, a.fits(targets[a.target])) for a in others):
                yield at + start, at + end

    @staticmethod
    def _secret(rule: GitleaksRule, match: bytes) -> tuple[int, int]:
        """Where the secret is in a match: gitleaks searches the match again, by itself."""
        again = rule.regex.search(match) if rule.regex.groups else None
        if again is None:
            return 0, len(match)
        if rule.group:
            span: tuple[int, int] = again.span(rule.group)
            return span if span[0] >= 0 else (0, 0)
        groups = (again.span(group) for group in range(1, rule.regex.groups + 1))
        return next(((at, to) for at, to in groups if to > at), (0, len(match)))


class Lines:
    """The lines of a text, found once whatever number of matches asks for theirs."""

    def __init__(self, text: bytes):
        self.text = text

    @cached_property
    def _ends(self) -> I64:
        return np.flatnonzero(np.frombuffer(self.text, np.uint8) == ord("\n"))

    def about(self, start: int, end: int) -> tuple[int, int]:
        """Numbers of the first and the last line that a match stands on."""
        return int(np.searchsorted(self._ends, start)), int(np.searchsorted(self._ends, end))

    def read(self, first: int, last: int) -> bytes:
        """These lines with the newline before them, as gitleaks gives them to allowlists."""
        low = int(self._ends[first - 1]) if first else 0
        return self.text[low : int(self._ends[last]) if last < len(self._ends) else len(self.text)]
