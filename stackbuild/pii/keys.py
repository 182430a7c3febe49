"""Rules for keys, made from the entries of a rules file.

[[key]] is a format (see formats.py) that is known by its own literals, or, with `keywords`, by the name beside it: a name
that holds a keyword and a word for secrets, an assignment, the value. [[pattern]] is an expression.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stackbuild.pii.entries import Entry, KeyEntry, PatternEntry, checked, name_of
from stackbuild.pii.formats import Format, parse
from stackbuild.pii.gate import Anchor
from stackbuild.pii.patterns import WORD, any_of, compiled, members, nowhere_empty
from stackbuild.pii.shapes import DOTTED, USERINFO

SHAPES: Final = {"dotted": DOTTED, "userinfo": USERINFO}
NAMED_CHECKS: Final = frozenset({"name", "not-digest"})  # of every key that is known by its name
SECRET_WORDS: Final = ("key", "token", "secret", "passw", "pwd", "auth", "cred", "bearer", "api", "access", "license")
NAME: Final = 40  # bytes of a name on either side of its keyword
JOINT: Final = r"[\"\x27\])]{0,3}[ \t]{0,8}(?::?=>?|[:,>])[ \t]{0,8}[\"\x27`]?"
JOINT_BYTES: Final = 3 + 8 + 3 + 8 + 1
EDGE_BYTES: Final = 4  # before a key: its neighbour, which may end an escape such as "\\n" or "%3D"
NOTHING: Final = members("")

Edges = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Rule:
    """A rule for secrets.

    `pattern`: RE2 over bytes; the groups `groups` hold the value, `name_group` what it is assigned to. A match lies
    within `before` bytes before and `reach` bytes after the place that the gate gives. `edge_before`, `edge_after`:
    bytes that may not stand beside the value. `prefixes` are no part of what was drawn. `keywords`, `words`: what
    the name must hold; `stop`: what no secret holds. `entity`: KEY or PASSWORD.
    `shape`: "pem" for private keys, which are no regular language worth having.
    """

    id: str
    provider: str
    entity: str
    pattern: Any
    groups: tuple[int, ...]
    name_group: int
    before: int
    reach: int
    edge_before: frozenset[int]
    edge_after: frozenset[int]
    prefixes: tuple[bytes, ...]
    entropy: float
    repeats: bool
    checks: frozenset[str]
    words: Any
    keywords: Any
    stop: Any
    shape: str | None
    formats: tuple[Format, ...] = ()


def rules_of(data: Mapping[str, Any], alphabets: Mapping[str, str]) -> tuple[list[Rule], list[Anchor], dict[int, int]]:
    """The rules of a file, their anchors, and which of them owns a shape of the gate; ValueError names a bad entry."""
    rules: list[Rule] = []
    anchors: list[Anchor] = []
    shapes: dict[int, int] = {}
    for kind, read in (("key", _key), ("pattern", _pattern)):
        for place, table in enumerate(data.get(kind, ())):
            number = len(rules)
            try:
                rule, places = read(table, alphabets, number)
            except (ValueError, KeyError, OverflowError, re.error, RecursionError) as error:
                raise ValueError(f"{name_of(table, place)}: {_told(error)}") from error
            rules.append(rule)
            anchors += places
            if rule.shape in SHAPES:
                shapes[SHAPES[rule.shape]] = number
    return rules, anchors, shapes


def _told(error: Exception) -> str:
    return f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)


def _key(table: Mapping[str, Any], alphabets: Mapping[str, str], number: int) -> tuple[Rule, list[Anchor]]:
    """The rule of a [[key]]."""
    entry = checked(KeyEntry, table)
    formats = tuple(sorted((parse(text, alphabets) for text in entry.formats), key=lambda f: -f.most))
    return _named(entry, formats, number) if entry.keywords else _literal(entry, formats, number)


def _literal(entry: KeyEntry, formats: tuple[Format, ...], number: int) -> tuple[Rule, list[Anchor]]:
    """A format with literals of its own."""
    pattern, groups = _any(formats, "{}")
    places = [f.place() for f in formats] if entry.shape not in SHAPES else []
    longest = max(f.most for f in formats)
    before = longest if not places else max((place.before for place in places), default=0)
    rule = _rule(
        entry,
        pattern,
        groups=groups,
        before=before + EDGE_BYTES,
        reach=longest + 2,
        edges=_edges(entry, formats),
        formats=formats,
    )
    return rule, [f.anchor(number) for f in formats] if places else []


def _named(entry: KeyEntry, formats: tuple[Format, ...], number: int) -> tuple[Rule, list[Anchor]]:
    """A format that says little, behind a name that says whose key it is."""
    known = entry.keywords or []
    words = "|".join(re.escape(word) for word in known)
    keywords = compiled(f"(?:^|[^A-Za-z])(?i:{words})(?:[^a-z]|$)" if entry.whole else f"(?i:{words})")
    name = f"(?P<name>[A-Za-z0-9_.-]{{0,{NAME}}}(?i:{words})[A-Za-z0-9_. -]{{0,{NAME}}})"
    pattern, groups = _any(formats, f"{name}{JOINT}{{}}")
    longest = max(len(word) for word in known)
    rule = _rule(
        entry,
        pattern,
        groups=groups,
        name_group=pattern.groupindex[b"name"],
        before=NAME + 1,
        reach=longest + NAME + JOINT_BYTES + max(f.most for f in formats) + 2,
        edges=_edges(entry, formats),
        checks=NAMED_CHECKS,
        words=any_of(_lower(entry.words or SECRET_WORDS)),
        keywords=keywords,
        formats=formats,
    )
    return rule, [_name_anchor(word, f, number) for word in known for f in formats]


def _name_anchor(word: str, known: Format, number: int) -> Anchor:
    """A keyword, and the longest field of the format behind it on its line."""
    field = max(known.parts, key=lambda part: part.low)
    ahead = sum(part.most for part in known.parts[: known.parts.index(field)])
    within = NAME + JOINT_BYTES + ahead
    return Anchor(word.encode("ascii"), number, True, False, members(field.alphabet), field.low, within)


def _any(formats: tuple[Format, ...], around: str) -> tuple[Any, tuple[int, ...]]:
    """One expression for some formats, and its groups."""
    names = [f"secret{number}" for number in range(len(formats))]
    choice = "|".join(f.pattern(name) for f, name in zip(formats, names, strict=True))
    pattern = compiled(around.replace("{}", f"(?:{choice})"))
    return pattern, tuple(pattern.groupindex[name.encode()] for name in names)


def _edges(entry: Entry, formats: tuple[Format, ...]) -> Edges:
    """What may not stand beside a key: what could be more of it."""
    first, last = (members(WORD), members(WORD))
    for before, after in (f.edges() for f in formats):
        first, last = first | members(before), last | members(after)
    return (
        first if entry.edge_before is None else members(entry.edge_before),
        last if entry.edge_after is None else members(entry.edge_after),
    )


def _pattern(table: Mapping[str, Any], alphabets: Mapping[str, str], number: int) -> tuple[Rule, list[Anchor]]:
    """The rule of a [[pattern]]."""
    entry = checked(PatternEntry, table)
    alphabet = members(alphabets[entry.alphabet]) if entry.alphabet else None
    anchors = [
        Anchor(text.encode("ascii"), number, entry.ignore_case, entry.bounded, alphabet, entry.run, entry.within)
        for text in entry.anchors
    ]
    if entry.shape == "pem":
        return _rule(entry, None, groups=(), before=0, reach=0, edges=(NOTHING, NOTHING)), anchors
    pattern = nowhere_empty(compiled(entry.pattern or ""))
    index = {name.decode(): place for name, place in pattern.groupindex.items()}
    groups = tuple(index[name] for name in sorted(index) if name.startswith("secret"))
    if not groups:
        raise ValueError("the pattern has no group `secret`")
    own_edges = entry.shape == "userinfo" or len(groups) > 1  # a colon and an "@", or quotes
    reach = entry.reach or 0
    rule = _rule(
        entry,
        pattern,
        groups=groups,
        name_group=index.get("name", 0),
        before=reach if entry.before is None else entry.before,
        reach=reach,
        edges=(NOTHING, NOTHING) if own_edges else _edges(entry, ()),
    )
    return rule, anchors


def _rule(
    entry: Entry,
    pattern: Any,
    *,
    groups: tuple[int, ...],
    before: int,
    reach: int,
    edges: Edges,
    name_group: int = 0,
    checks: frozenset[str] = frozenset(),
    words: Any = None,
    keywords: Any = None,
    formats: tuple[Format, ...] = (),
) -> Rule:
    sides = [frozenset(np.flatnonzero(side).tolist()) for side in edges]
    prefixes = sorted({f.prefix for f in formats if f.prefix}, key=len, reverse=True)
    floor = min((f.floor() for f in formats), default=0.0)
    return Rule(
        id=entry.id,
        provider=entry.provider,
        entity=entry.entity,
        pattern=pattern,
        groups=groups,
        name_group=name_group,
        before=before,
        reach=reach,
        edge_before=sides[0],
        edge_after=sides[1],
        prefixes=tuple(prefix.encode() for prefix in prefixes),
        entropy=floor if entry.entropy is None else entry.entropy,
        repeats=entry.repeats,
        checks=checks | frozenset(entry.checks),
        words=words,
        keywords=keywords,
        stop=any_of(_lower(entry.stop)) if entry.stop else None,
        shape=entry.shape,
        formats=formats,
    )


def _lower(words: Iterable[str]) -> list[str]:
    return [word.lower() for word in words]
