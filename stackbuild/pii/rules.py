"""The rules as data: `rules.toml` read, checked and compiled for RE2.

RE2 matches in time linear in its input whatever the pattern, so no text can make a rule slow. Patterns see bytes
(Latin-1): positions are bytes of the UTF-8 text, `\\b` and `\\w` are ASCII. `lint` refuses what would be quietly wrong.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import re2

from stackbuild.errors import InputError
from stackbuild.pii.gate import Anchor
from stackbuild.pii.shapes import DOTTED, USERINFO

RULES_FILE: Final = Path(__file__).with_name("rules.toml")
FORMAT: Final = 1
SHAPES: Final = {"dotted": DOTTED, "userinfo": USERINFO}
CHECKS: Final = frozenset(
    {
        "crc32-base62",
        "has-digit",
        "not-hex",
        "discord-id",
        "not-weak-password",
        "random",
        "name",
        "not-uuid",
        "not-digest",
    }
)
WORD: Final = "A-Za-z0-9_"

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Rule:
    """A rule for secrets.

    `pattern`: RE2 over bytes; the group `secret` (secret1, secret2) is the value, `name` what it is assigned to. A
    match lies within `before` bytes before and `reach` bytes after the place that the gate gives. `edge`: bytes that
    may not stand beside the value. `shape`: "pem" for private keys, which are no regular language worth having.
    """

    id: str
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
    shape: str | None


@dataclass(frozen=True)
class Secrets:
    """What is no secret; all in lower case."""

    placeholders: Any
    repeat: int
    weak_parts: Any
    weak_passwords: frozenset[bytes]
    digest_words: Any
    digest_lengths: frozenset[int]
    public_names: Any
    word_pairs: frozenset[bytes]


@dataclass(frozen=True)
class Email:
    pattern: Any
    local_bytes: int
    domain_bytes: int
    reserved_domains: tuple[str, ...]
    local_parts: frozenset[str]
    protocol_domains: frozenset[str]
    code_suffixes: frozenset[str]
    top_level_domains: frozenset[str]


@dataclass(frozen=True)
class Ip:
    resolvers: frozenset[str]
    special: tuple[Network, ...]
    global_v6: tuple[Network, ...]
    embedding_v6: tuple[Network, ...]
    version_words: frozenset[bytes]
    host_words: frozenset[bytes]
    server_words: frozenset[bytes]
    context_bytes: int
    synthetic_v4: tuple[str, ...]
    synthetic_v6: tuple[str, ...]


@dataclass(frozen=True)
class Names:
    """Words about names of people and of users; those of sets are in lower case."""

    words: tuple[str, ...]
    no_names: frozenset[bytes]
    homes: tuple[str, ...]
    notes: tuple[str, ...]
    no_users: frozenset[bytes]


@dataclass(frozen=True)
class RuleBook:
    """All of a rules file. `rules[k]` is the rule k of the gate's hits; `digest` is the SHA-256 of the file."""

    version: str
    digest: str
    rules: tuple[Rule, ...]
    anchors: tuple[Anchor, ...]
    shapes: dict[int, int]  # of the gate -> number of the rule
    secrets: Secrets
    email: Email
    ip: Ip
    names: Names


@cache
def load(path: Path = RULES_FILE) -> RuleBook:
    """Read a rules file; InputError names what is wrong in it."""
    raw = path.read_bytes()
    try:
        data = tomllib.loads(raw.decode())
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}; this version reads format {FORMAT}")
        rules, anchors, shapes = _rules(data)
        return RuleBook(
            data["version"],
            hashlib.sha256(raw).hexdigest(),
            tuple(rules),
            tuple(anchors),
            shapes,
            _secrets(data["secrets"]),
            _email(data["email"]),
            _ip(data["ip"]),
            _names(data["names"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The rules file {path.name} cannot be used: {error}. Mend that entry, or take the file as installed."
        ) from error


def compiled(pattern: str) -> Any:
    """A pattern for bytes, after `lint`."""
    lint(pattern)
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    try:
        return re2.compile(pattern.encode("latin-1"), options)
    except re2.error as error:
        raise ValueError(f"RE2 cannot compile {pattern!r}: {error}") from error


def lint(pattern: str) -> None:
    """ValueError for what RE2 would take and mean otherwise (starcoder1 D8: `\\b` in brackets is a backspace)."""
    if not pattern.isascii():
        raise ValueError(f"{pattern!r} is not ASCII: write bytes as \\x escapes")
    for bracket in re.findall(r"(?<!\\)\[\^?\]?(?:\\.|[^\]\\])*\]", pattern):
        if "\\b" in bracket or "\\B" in bracket:
            raise ValueError(f"{pattern!r} has a word boundary inside brackets, which means a backspace")
    if re.search(r"[*+}]\)[*+]|\.\*|\.\+", pattern):
        raise ValueError(f"{pattern!r} repeats a repetition, or any byte without end")


def _rules(data: dict[str, Any]) -> tuple[list[Rule], list[Anchor], dict[int, int]]:
    rules: list[Rule] = []
    anchors: list[Anchor] = []
    shapes: dict[int, int] = {}
    for entry in [*data["token"], *data["pattern"]]:
        number = len(rules)
        rule = _token(entry, data["alphabets"]) if "prefixes" in entry else _pattern(entry)
        if rule.id in {other.id for other in rules}:
            raise ValueError(f"two rules are called {rule.id}")
        if rule.checks - CHECKS:
            raise ValueError(f"{rule.id} asks for the unknown check {min(rule.checks - CHECKS)}")
        rules.append(rule)
        if entry.get("shape") in SHAPES:
            shapes[SHAPES[entry["shape"]]] = number
        token = "prefixes" in entry
        alphabet = members(data["alphabets"][entry["alphabet"]]) if "alphabet" in entry else None
        for literal in entry["prefixes"] if token else entry["anchors"]:
            anchors.append(
                Anchor(
                    literal.encode("ascii"),
                    number,
                    entry.get("ignore_case", False),
                    token or entry.get("bounded", False),
                    alphabet,
                    entry["length"][0] if token else entry.get("run", 0),
                    entry.get("within", 0),
                )
            )
    return rules, anchors, shapes


def _token(entry: dict[str, Any], alphabets: dict[str, str]) -> Rule:
    low, high = entry["length"]
    if not 0 < low <= high <= 1000:
        raise ValueError(f"{entry['id']}: length is two numbers from 1 to 1000, the smaller first")
    prefixes = "|".join(re.escape(prefix) for prefix in entry["prefixes"])
    alphabet = alphabets[entry["alphabet"]]
    pattern = compiled(f"(?:{prefixes})[{alphabet}]{{{low},{high}}}")
    edge = members(WORD) | members(alphabet)
    longest = max(len(prefix) for prefix in entry["prefixes"])
    return _rule(
        entry, pattern, (0,), 0, longest + high + 2, (edge, edge), tuple(p.encode() for p in entry["prefixes"])
    )


def _pattern(entry: dict[str, Any]) -> Rule:
    if entry.get("shape") == "pem":
        return _rule(entry, None, (), 0, 0, (members(""), members("")), ())
    pattern = compiled(entry["pattern"])
    index = {name.decode(): number for name, number in pattern.groupindex.items()}
    groups = tuple(index[name] for name in sorted(index) if name.startswith("secret"))
    if not groups:
        raise ValueError(f"{entry['id']}: the pattern has no group `secret`")
    own_edges = entry.get("shape") == "userinfo" or len(groups) > 1  # a colon and an "@", or quotes
    edges = tuple(members("" if own_edges else entry.get(side, WORD)) for side in ("edge_before", "edge_after"))
    return _rule(entry, pattern, groups, index.get("name", 0), entry["reach"], edges, ())


def _rule(
    entry: dict[str, Any],
    pattern: Any,
    groups: tuple[int, ...],
    name_group: int,
    reach: int,
    edges: tuple[npt.NDArray[np.bool_], ...],
    prefixes: tuple[bytes, ...],
) -> Rule:
    if not entry["source"]:
        raise ValueError(f"{entry['id']} has no source")
    return Rule(
        id=entry["id"],
        pattern=pattern,
        groups=groups,
        name_group=name_group,
        before=entry.get("before", 2 if prefixes else reach),
        reach=reach,
        edge_before=frozenset(np.flatnonzero(edges[0]).tolist()),
        edge_after=frozenset(np.flatnonzero(edges[1]).tolist()),
        prefixes=prefixes,
        entropy=float(entry.get("entropy", 0)),
        repeats=entry.get("repeats", False),
        checks=frozenset(entry.get("checks", ())),
        shape=entry.get("shape"),
    )


def members(alphabet: str) -> npt.NDArray[np.bool_]:
    """Which bytes an alphabet holds, written as between brackets (bool, 256)."""
    if not alphabet:
        return np.zeros(256, np.bool_)
    wanted = re.compile(f"[{alphabet}]")
    return np.array([wanted.fullmatch(chr(byte)) is not None for byte in range(256)])


def any_of(words: list[str], around: str = "{}") -> Any:
    """One expression for any of these literals."""
    return compiled(around.format("|".join(re.escape(word) for word in words)))


def _secrets(data: dict[str, Any]) -> Secrets:
    return Secrets(
        any_of(data["placeholders"]),
        data["repeat"],
        any_of(data["weak_parts"]),
        frozenset(word.encode() for word in data["weak_passwords"]),
        any_of(data["digest_words"]),
        frozenset(data["digest_lengths"]),
        any_of(data["public_names"]),
        frozenset(pair.encode() for pair in data["word_pairs"].split()),
    )


def _email(data: dict[str, Any]) -> Email:
    return Email(
        compiled(data["pattern"]),
        data["local_bytes"],
        data["domain_bytes"],
        tuple(data["reserved_domains"]),
        frozenset(data["local_parts"]),
        frozenset(data["protocol_domains"]),
        frozenset(data["code_suffixes"]),
        frozenset(data["top_level_domains"].split()),
    )


def _ip(data: dict[str, Any]) -> Ip:
    def networks(key: str) -> tuple[Network, ...]:
        return tuple(ip_network(text) for text in data[key])

    return Ip(
        frozenset(data["resolvers"]),
        networks("special_v4") + networks("special_v6"),
        networks("global_v6"),
        networks("embedding_v6"),
        frozenset(word.encode() for word in data["version_words"]),
        frozenset(word.encode() for word in data["host_words"]),
        frozenset(word.encode() for word in data["server_words"]),
        data["context_bytes"],
        tuple(data["synthetic_v4"]),
        tuple(data["synthetic_v6"]),
    )


def _names(data: dict[str, Any]) -> Names:
    return Names(
        tuple(data["words"]),
        frozenset(word.encode() for word in data["no_names"]),
        tuple(data["homes"]),
        tuple(data["notes"]),
        frozenset(word.encode() for word in data["no_users"]),
    )
