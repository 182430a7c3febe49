"""What the stage looks for, as data: `rules.toml` and `providers.toml` read, checked and compiled for RE2.

A user's own file, in this format or in gitleaks', is read in addition to them.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final

import re2

from stackbuild.errors import InputError
from stackbuild.pii import gitleaks, keys
from stackbuild.pii.entries import OwnFile, checked
from stackbuild.pii.gate import Anchor
from stackbuild.pii.keys import Rule
from stackbuild.pii.patterns import any_of, compiled

RULES_FILE: Final = Path(__file__).with_name("rules.toml")
PROVIDERS_FILE: Final = Path(__file__).with_name("providers.toml")
FORMAT: Final = 1

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Secrets:
    """What is no secret; all in lower case."""

    placeholders: Any
    public_values: tuple[bytes, ...]
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
    """All rules. Rule k of the gate's hits is `rules[k]`, and behind those `gitleaks.rules`; `digest` is of the files."""

    version: str
    digest: str
    rules: tuple[Rule, ...]
    anchors: tuple[Anchor, ...]
    shapes: dict[int, int]  # of the gate -> number of the rule
    alphabets: Mapping[str, str]
    secrets: Secrets
    email: Email
    ip: Ip
    names: Names
    gitleaks: gitleaks.Rules = gitleaks.NONE


@cache
def load(path: Path = RULES_FILE, providers: Path = PROVIDERS_FILE) -> RuleBook:
    """The rules that come with stackbuild; InputError names what is wrong in a file."""
    with _Told(path):
        raw, data = _read(path)
        rules, anchors, shapes = keys.rules_of(data, data["alphabets"])
        book = RuleBook(
            data["version"],
            hashlib.sha256(raw).hexdigest(),
            tuple(rules),
            tuple(anchors),
            shapes,
            data["alphabets"],
            _secrets(data["secrets"]),
            _email(data["email"]),
            _ip(data["ip"]),
            _names(data["names"]),
        )
    return _with_own(book, providers)


def with_file(path: Path) -> RuleBook:
    """The rules that come with stackbuild and those of a user's file: in this format, or gitleaks' (it has `rules`).

    InputError if the file cannot be read or used; it names the file and the rule.
    """
    book = load()
    with _Told(path):
        data = _toml(path)[1]
        if "format" in data:
            return _with_own(book, path)
        known = gitleaks.load(data, first=len(book.rules))
        return replace(
            book,
            digest=_digest(book.digest, path.read_bytes()),
            anchors=book.anchors + known.anchors,
            gitleaks=known,
        )


class _Told:
    """Makes an InputError that names the file out of what a bad file raises."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise InputError(f"The rules file {self.path} cannot be read: {error.strerror}.") from error
        if isinstance(error, KeyError):
            error = ValueError(f"{error} is missing or unknown")
        if isinstance(
            error, (ValueError, TypeError, AttributeError, OverflowError, RecursionError, re.error, re2.error)
        ):
            raise InputError(
                f"The rules file {self.path.name} cannot be used: {error}. Mend that entry, or take the file as it came."
            ) from error


def _toml(path: Path) -> tuple[bytes, dict[str, Any]]:
    raw = path.read_bytes()
    return raw, tomllib.loads(raw.decode())


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    raw, data = _toml(path)
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']}; this version reads format {FORMAT}")
    return raw, data


def _with_own(book: RuleBook, path: Path) -> RuleBook:
    """A book and the keys and patterns of a file in this format; a name may be used once."""
    with _Told(path):
        raw, data = _read(path)
        own = checked(OwnFile, data)
        rules, anchors, shapes = keys.rules_of(data, {**book.alphabets, **own.alphabets})
        names = Counter(rule.id for rule in (*book.rules, *rules))
        if twice := sorted(name for name, times in names.items() if times > 1):
            raise ValueError(f"two rules are called {twice[0]}")
        if taken := set(shapes) & set(book.shapes):
            raise ValueError(f"{rules[shapes[min(taken)]].id}: its shape belongs to another rule")
        first = len(book.rules)
        return replace(
            book,
            version=own.version,
            digest=_digest(book.digest, raw),
            rules=book.rules + tuple(rules),
            anchors=book.anchors + tuple(replace(anchor, rule=anchor.rule + first) for anchor in anchors),
            shapes=book.shapes | {shape: number + first for shape, number in shapes.items()},
        )


def _digest(before: str, raw: bytes) -> str:
    return hashlib.sha256(before.encode() + raw).hexdigest()


def _secrets(data: dict[str, Any]) -> Secrets:
    return Secrets(
        any_of(data["placeholders"]),
        tuple(value.encode() for value in data["public_values"]),
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
