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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import re2

from stackbuild.pii.gate import Anchor
from stackbuild.pii.spans import I64, Span, Texts

ENTITY: Final = "KEY"
PREFIX: Final = "gitleaks:"  # before the names of these rules in spans and counts
RULE_FIELDS: Final = frozenset(
    {"id", "description", "regex", "secretgroup", "entropy", "keywords", "path", "tags", "allowlist", "allowlists"}
    | {"skipreport", "required"}
)
ALLOW_FIELDS: Final = frozenset(
    {"id", "description", "condition", "commits", "paths", "regexes", "regextarget", "stopwords", "targetrules"}
)
FILE_FIELDS: Final = frozenset({"title", "description", "minversion", "extend", "rules", "allowlist", "allowlists"})
CONDITIONS: Final = {"": False, "or": False, "||": False, "and": True, "&&": True}
TARGETS: Final = ("secret", "match", "line")


@dataclass(frozen=True)
class Allowlist:
    """What is no secret. `every`: all that it names must hold; it never does if it names paths or commits too."""

    every: bool
    regexes: tuple[Any, ...]
    target: str
    stopwords: tuple[str, ...]
    elsewhere: bool  # it names paths or commits
    rules: frozenset[str]  # that it is for; all if empty

    def allows(self, secret: bytes, targets: Mapping[str, bytes]) -> bool:
        """Whether a finding is none; `targets`: the secret, the match and its line."""
        folded = secret.decode("utf-8", "replace").lower()
        regex = any(found.group() for r in self.regexes if (found := r.search(targets[self.target])))
        word = any(stop in folded for stop in self.stopwords)
        if not self.every:
            return regex or word
        return not self.elsewhere and (regex or not self.regexes) and (word or not self.stopwords)


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
    file = _lowered(data, FILE_FIELDS, "the file")
    if file.get("extend"):
        raise ValueError("it extends another file, which is not done here: write all rules into one file")
    if not isinstance(file.get("rules"), list):
        raise ValueError("it has no [[rules]] of gitleaks, and no `format` of stackbuild's own")
    common = _allowlists(file, "the file")
    rules: list[GitleaksRule] = []
    anchors: list[Anchor] = []
    asleep: list[str] = []
    seen: set[str] = set()
    for number, table in enumerate(file["rules"]):
        name = str(table.get("id") or table.get("ID") or "")
        if not name or name in seen:
            raise ValueError(f"rule {number + 1} has no id" if not name else f"two rules are called {name}")
        seen.add(name)
        try:
            entry = _lowered(table, RULE_FIELDS, name)
            rule, words = _rule(name, entry, common)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ValueError(f"rule {name}: {error}") from error
        if rule is None or entry.get("path") or entry.get("skipreport"):
            asleep.append(name)
            continue
        if rule.gated:
            anchors += [Anchor(w, first + len(rules), ignore_case=True, once=True) for w in words]
        rules.append(rule)
    return Rules(first, tuple(rules), tuple(anchors), tuple(asleep))


def _lowered(table: Mapping[str, Any], known: frozenset[str], of: str) -> dict[str, Any]:
    """A table with its names in lower case, as gitleaks reads them."""
    lowered = {name.lower(): value for name, value in table.items()}
    if unknown := sorted(set(lowered) - known):
        raise ValueError(f"{of} has the unknown field {unknown[0]}")
    return lowered


def _rule(name: str, entry: Mapping[str, Any], common: Iterable[Allowlist]) -> tuple[GitleaksRule | None, list[bytes]]:
    """A rule and its keywords; none if it looks at paths alone."""
    if entry.get("required"):
        raise ValueError("it requires other rules near its match, which is not done here: remove it")
    if entry.get("path"):
        compiled(entry["path"])
    if not entry.get("regex"):
        if not entry.get("path"):
            raise ValueError("neither regex nor path")
        return None, []
    regex = compiled(entry["regex"])
    group, floor = entry.get("secretgroup", 0), entry.get("entropy", 0.0)
    if isinstance(group, bool) or not isinstance(group, int) or not 0 <= group <= regex.groups:
        raise ValueError(f"secretGroup {group}: the regex has {regex.groups} groups")
    if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not 0 <= floor <= 8:
        raise ValueError(f"entropy {floor} is not from 0 to 8")
    words = [word.lower().encode() for word in _strings(entry, "keywords") if word]
    gated = bool(words) and all(word.isascii() for word in words)
    own = (*common, *_allowlists(entry, name))
    lists = tuple(a for a in own if not a.rules or name in a.rules)
    return GitleaksRule(name, regex, group, float(floor), gated, lists), words


def _allowlists(table: Mapping[str, Any], of: str) -> list[Allowlist]:
    """Those of a rule or a file, written in either of gitleaks' two ways."""
    tables = [*([table["allowlist"]] if table.get("allowlist") else []), *table.get("allowlists", ())]
    lists = []
    for one in tables:
        entry = _lowered(one, ALLOW_FIELDS, f"an allowlist of {of}")
        condition, target = str(entry.get("condition", "")).lower(), entry.get("regextarget") or "secret"
        if condition not in CONDITIONS or target not in TARGETS:
            raise ValueError(f"an allowlist's condition is AND or OR, its regexTarget one of {', '.join(TARGETS)}")
        for path in _strings(entry, "paths"):
            compiled(path)
        regexes = tuple(compiled(regex) for regex in _strings(entry, "regexes"))
        stopwords = tuple(word.lower() for word in _strings(entry, "stopwords") if word)
        elsewhere = bool(entry.get("paths") or entry.get("commits"))
        rules = frozenset(_strings(entry, "targetrules"))
        if not (regexes or stopwords or elsewhere):
            raise ValueError("an allowlist that allows nothing")
        lists.append(Allowlist(CONDITIONS[condition], regexes, target, stopwords, elsewhere, rules))
    return lists


def _strings(entry: Mapping[str, Any], name: str) -> list[str]:
    value = entry.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is a list of strings")
    return value


def compiled(regex: str) -> Any:
    """Go's syntax for RE2, over UTF-8; ValueError says what RE2 does not take."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(str(regex).encode(), options)
    except re2.error as error:
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
            for number in sorted({*gated.get(file, ()), *self.ungated}):
                for start, end in self._matches(self.rules.rules[number], whole):
                    yield Span(low + start, low + end, ENTITY, PREFIX + self.rules.rules[number].id)

    def _matches(self, rule: GitleaksRule, text: bytes) -> Iterator[tuple[int, int]]:
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
            targets = {"secret": secret, "match": match, "line": b""}
            if any(a.target == "line" for a in rule.allowlists):
                targets["line"] = _line(text, at, at + len(match))
            if not any(a.allows(secret, targets) for a in rule.allowlists):
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


def _line(text: bytes, start: int, end: int) -> bytes:
    """The lines that a match stands on, with the newline before them, as gitleaks gives them to allowlists."""
    stop = text.find(b"\n", end)
    return text[max(0, text.rfind(b"\n", 0, start)) : stop if stop >= 0 else len(text)]
