"""Rules for keys, made from the entries of a rules file.

[[key]] is a format (see formats.py) that is known by its own literals, or, with `keywords`, by the name beside it: a name
that holds a keyword and a word for secrets, an assignment, the value. [[pattern]] is an expression.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stackbuild.pii.formats import Format, parse
from stackbuild.pii.gate import Anchor
from stackbuild.pii.patterns import WORD, any_of, compiled, members
from stackbuild.pii.shapes import DOTTED, USERINFO

SHAPES: Final = {"dotted": DOTTED, "userinfo": USERINFO}
CHECKS: Final = frozenset(
    {
        "aws-account",
        "basic-pair",
        "crc32-base62",
        "discord-id",
        "has-digit",
        "name",
        "not-digest",
        "not-hex",
        "not-uuid",
        "not-weak-password",
        "not-words",
        "random",
    }
)
NAMED_CHECKS: Final = ("name", "not-digest")  # of every key that is known by its name
SECRET_WORDS: Final = ("key", "token", "secret", "passw", "pwd", "auth", "cred", "bearer", "api", "access", "license")
NAME: Final = 40  # bytes of a name on either side of its keyword
JOINT: Final = r"[\"\x27\])]{0,3}[ \t]{0,8}(?::?=>?|[:,>])[ \t]{0,8}[\"\x27`]?"
JOINT_BYTES: Final = 3 + 8 + 3 + 8 + 1
EDGE_BYTES: Final = 4  # before a key: its neighbour, which may end an escape such as "\\n" or "%3D"
KNOWN: Final = {
    "key": frozenset(
        [
            "id",
            "provider",
            "formats",
            "keywords",
            "whole",
            "words",
            "entropy",
            "checks",
            "repeats",
            "stop",
            "shape",
            "edge_before",
            "edge_after",
            "source",
        ]
    ),
    "pattern": frozenset(
        [
            "id",
            "provider",
            "anchors",
            "ignore_case",
            "bounded",
            "pattern",
            "alphabet",
            "run",
            "within",
            "before",
            "reach",
            "entropy",
            "checks",
            "repeats",
            "stop",
            "shape",
            "edge_before",
            "edge_after",
            "source",
        ]
    ),
}
NOTHING: Final = members("")

Edges = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Rule:
    """A rule for secrets.

    `pattern`: RE2 over bytes; the groups `groups` hold the value, `name_group` what it is assigned to. A match lies
    within `before` bytes before and `reach` bytes after the place that the gate gives. `edge_before`, `edge_after`:
    bytes that may not stand beside the value. `prefixes` are no part of what was drawn. `keywords`, `words`: what
    the name must hold; `stop`: what no secret holds. `shape`: "pem" for private keys, which are no regular language worth having.
    """

    id: str
    provider: str
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
    """The rules of a file, their anchors, and which of them owns a shape of the gate; ValueError, KeyError for a bad entry."""
    rules: list[Rule] = []
    anchors: list[Anchor] = []
    shapes: dict[int, int] = {}
    for kind in ("key", "pattern"):
        for entry in data.get(kind, ()):
            number = len(rules)
            try:
                rule, places = _entry(kind, entry, alphabets, number)
            except (KeyError, TypeError, ValueError, OverflowError, re.error, RecursionError) as error:
                raise ValueError(f"{entry.get('id', 'a rule without an id')}: {_told(error)}") from error
            rules.append(rule)
            anchors += places
            if entry.get("shape") in SHAPES:
                shapes[SHAPES[entry["shape"]]] = number
    return rules, anchors, shapes


def _told(error: Exception) -> str:
    return f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)


def _entry(kind: str, entry: Mapping[str, Any], alphabets: Mapping[str, str], number: int) -> tuple[Rule, list[Anchor]]:
    if unknown := sorted(set(entry) - KNOWN[kind]):
        raise ValueError(f"unknown field {unknown[0]}")
    if not entry["source"]:
        raise ValueError("no source")
    if unknown := sorted(set(entry.get("checks", ())) - CHECKS):
        raise ValueError(f"unknown check {unknown[0]}")
    if kind == "pattern":
        return _pattern(entry, number), _anchors(entry, alphabets, number)
    formats = tuple(sorted((parse(text, alphabets) for text in entry["formats"]), key=lambda f: -f.most))
    if not formats:
        raise ValueError("no formats")
    return _named(entry, formats, number) if "keywords" in entry else _key(entry, formats, number)


def _key(entry: Mapping[str, Any], formats: tuple[Format, ...], number: int) -> tuple[Rule, list[Anchor]]:
    """A format with literals of its own."""
    pattern, groups = _any(formats, "{}")
    places = [f.place() for f in formats] if entry.get("shape") not in SHAPES else []
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


def _named(entry: Mapping[str, Any], formats: tuple[Format, ...], number: int) -> tuple[Rule, list[Anchor]]:
    """A format that says little, behind a name that says whose key it is."""
    words = "|".join(re.escape(word) for word in entry["keywords"])
    keywords = compiled(f"(?:^|[^A-Za-z])(?i:{words})(?:[^a-z]|$)" if entry.get("whole") else f"(?i:{words})")
    name = f"(?P<name>[A-Za-z0-9_.-]{{0,{NAME}}}(?i:{words})[A-Za-z0-9_. -]{{0,{NAME}}})"
    pattern, groups = _any(formats, f"{name}{JOINT}{{}}")
    longest = max(len(word) for word in entry["keywords"])
    rule = _rule(
        dict(entry) | {"checks": [*entry.get("checks", ()), *NAMED_CHECKS]},
        pattern,
        groups=groups,
        name_group=pattern.groupindex[b"name"],
        before=NAME + 1,
        reach=longest + NAME + JOINT_BYTES + max(f.most for f in formats) + 2,
        edges=_edges(entry, formats),
        words=any_of(list(entry.get("words", SECRET_WORDS))),
        keywords=keywords,
        formats=formats,
    )
    return rule, [_name_anchor(word, f, number) for word in entry["keywords"] for f in formats]


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


def _edges(entry: Mapping[str, Any], formats: tuple[Format, ...]) -> Edges:
    """What may not stand beside a key: what could be more of it."""
    first, last = (members(WORD), members(WORD))
    for before, after in (f.edges() for f in formats):
        first, last = first | members(before), last | members(after)
    return _own_edge(entry, "edge_before", first), _own_edge(entry, "edge_after", last)


def _own_edge(entry: Mapping[str, Any], side: str, default: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return members(entry[side]) if side in entry else default


def _pattern(entry: Mapping[str, Any], number: int) -> Rule:
    if entry.get("shape") == "pem":
        return _rule(entry, None, groups=(), before=0, reach=0, edges=(NOTHING, NOTHING))
    pattern = compiled(entry["pattern"])
    index = {name.decode(): place for name, place in pattern.groupindex.items()}
    groups = tuple(index[name] for name in sorted(index) if name.startswith("secret"))
    if not groups:
        raise ValueError("the pattern has no group `secret`")
    own_edges = entry.get("shape") == "userinfo" or len(groups) > 1  # a colon and an "@", or quotes
    edges = (NOTHING, NOTHING) if own_edges else _edges(entry, ())
    reach = entry["reach"]
    return _rule(
        entry, pattern, groups=groups, name_group=index.get("name", 0), before=entry.get("before", reach), reach=reach,
        edges=edges,
    )  # fmt: skip


def _anchors(entry: Mapping[str, Any], alphabets: Mapping[str, str], number: int) -> list[Anchor]:
    """Those that an entry with an expression names."""
    alphabet = members(alphabets[entry["alphabet"]]) if "alphabet" in entry else None
    flags = entry.get("ignore_case", False), entry.get("bounded", False)
    run, within = entry.get("run", 0), entry.get("within", 0)
    if not entry["anchors"] and "shape" not in entry:
        raise ValueError("no anchors: name literals, one of which is in every match")
    return [Anchor(text.encode("ascii"), number, *flags, alphabet, run, within) for text in entry["anchors"]]


def _rule(
    entry: Mapping[str, Any],
    pattern: Any,
    *,
    groups: tuple[int, ...],
    before: int,
    reach: int,
    edges: Edges,
    name_group: int = 0,
    words: Any = None,
    keywords: Any = None,
    formats: tuple[Format, ...] = (),
) -> Rule:
    sides = [frozenset(np.flatnonzero(side).tolist()) for side in edges]
    prefixes = sorted({f.prefix for f in formats if f.prefix}, key=len, reverse=True)
    return Rule(
        id=entry["id"],
        provider=entry.get("provider", ""),
        pattern=pattern,
        groups=groups,
        name_group=name_group,
        before=before,
        reach=reach,
        edge_before=sides[0],
        edge_after=sides[1],
        prefixes=tuple(prefix.encode() for prefix in prefixes),
        entropy=float(entry["entropy"]) if "entropy" in entry else min((f.floor() for f in formats), default=0.0),
        repeats=entry.get("repeats", False),
        checks=frozenset(entry.get("checks", ())),
        words=words,
        keywords=keywords,
        stop=any_of(list(entry["stop"])) if entry.get("stop") else None,
        shape=entry.get("shape"),
        formats=formats,
    )
