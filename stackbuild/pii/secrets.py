"""Keys and other secrets: the rules of `rules.toml` and `providers.toml`, and the tests that keep what is no secret.

Precision comes before recall: a value falls if it is a placeholder, too regular, a digest behind a digest's name, or,
for the rule that only knows a name, if it reads like words. Each occurrence is judged by the line before it alone, so
that a file full of digests hides no key (starcoder1 D2, D4). A value that is a secret is taken out wherever it stands
in its file.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import ahocorasick
import numpy as np

from stackbuild.pii.gitleaks import GitleaksFinder
from stackbuild.pii.keys import Rule
from stackbuild.pii.rules import RuleBook
from stackbuild.pii.spans import I64, Span, Texts

KEY: Final = "KEY"
PASSWORD: Final = "PASSWORD"
BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LINE_BYTES: Final = 128  # of a line are looked at before a value
REPEATED_BYTES: Final = 16  # values from this length are taken out everywhere in the file
REPEATED_PASSWORD: Final = 8
REPEATED_MOST: Final = 1_024
PEM_BYTES: Final = 64 * 1024
PEM_BODY: Final = 64  # bytes of base64 that make a key of what stands between two PEM lines

_PEM_LABEL = re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BLANK = re.compile(
    rb"\\[nrt]|(?:Proc-Type|DEK-Info|Comment|Version|Charset|Hash): ?[^\r\n\\]*"
)  # escapes, headers
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}|(?<=[\s\"'])[A-Za-z0-9+/=]{2,}")
_HEX = re.compile(rb"[0-9a-f]+|[0-9A-F]+")
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_VARIABLE = re.compile(rb"[A-Z]+(?:_[A-Z]+)+")
_PASSWORD_NAME = re.compile(rb"(?i)pass|pwd|pswd")
_LETTERS = re.compile(rb"[A-Za-z]{2,}")
_ESCAPE = re.compile(rb"(?:\\[nrt]|%[0-9A-Fa-f]{2})$")
_BLOB = re.compile(rb"(?:[A-Za-z0-9+/]{60}|;base64,[A-Za-z0-9+/]*)[+/=]*$")


def entropy(value: bytes) -> float:
    """Shannon entropy of the bytes of a value, in bits per byte."""
    size = len(value)
    return -sum(n / size * math.log2(n / size) for n in Counter(value).values()) if size else 0.0


def crc_is_right(token: bytes) -> bool:
    """The last six of 36 bytes are the CRC-32 of the first 30 in base62 (GitHub's token format of 2021)."""
    crc, digits = zlib.crc32(token[:-6]), ""
    while crc:
        crc, digit = divmod(crc, 62)
        digits = BASE62[digit] + digits
    return token[-6:] == digits.rjust(6, "0").encode()


def wordiness(value: bytes, pairs: frozenset[bytes]) -> tuple[int, float]:
    """Pairs of neighbouring letters in a value, and which part of them is common in words."""
    seen = common = 0
    for run in _LETTERS.findall(value):
        lower = run.lower()
        seen += len(lower) - 1
        common += sum(lower[k : k + 2] in pairs for k in range(len(lower) - 1))
    return seen, common / seen if seen else 0.0


class SecretFinder:
    """Finds keys at the places that the gate gives. `known`: values that redaction puts in, which are no secrets; `passwords`:
    what its name calls a password is a PASSWORD, else all are keys."""

    def __init__(self, book: RuleBook, known: Sequence[bytes] = (), passwords: bool = False):
        self.book, self.facts, self.passwords = book, book.secrets, passwords
        self.known = re.compile(b"|".join(map(re.escape, known))) if known else None
        self.codes = [
            (number, *(s for s, of in book.shapes.items() if of == number)) for number in range(len(book.rules))
        ]
        self.others = GitleaksFinder(book.gitleaks, self.known)
        self._checks: dict[str, Callable[[bytes, bytes, bytes], bool]] = {
            "aws-account": lambda value, name, line: holds_account(value),
            "basic-pair": lambda value, name, line: self.is_pair(value),
            "has-digit": lambda value, name, line: any(48 <= byte < 58 for byte in value),
            "not-hex": lambda value, name, line: not _HEX.fullmatch(value),
            "not-uuid": lambda value, name, line: not _UUID.fullmatch(value),
            "not-digest": lambda value, name, line: not self.is_digest(value, line),
            "discord-id": lambda value, name, line: is_snowflake(value.partition(b".")[0]),
            "not-weak-password": lambda value, name, line: self.is_password(value),
            "not-words": lambda value, name, line: not self.reads(value),
            "random": lambda value, name, line: self.looks_random(value),
            "name": lambda value, name, line: not self.facts.public_names.search(name.lower()),
        }

    def find(self, texts: Texts, hits: I64) -> Iterator[Span]:
        """Spans of secrets; `hits` as `gate.hits` gives them, ascending by rule."""
        present = set(np.unique(hits[:, 0]).tolist())
        for number, rule in enumerate(self.book.rules):
            if not present.isdisjoint(self.codes[number]):
                mine = _of_rule(hits, self.codes[number])
                yield from (
                    self._private_keys(texts, mine, rule) if rule.shape == "pem" else self._matches(texts, mine, rule)
                )
        yield from self.others.find(texts, hits)

    def _matches(self, texts: Texts, hits: I64, rule: Rule) -> Iterator[Span]:
        for low, high, start, end in windows(texts, hits, rule.before, rule.reach):
            window = texts.read(start, end)
            for match in rule.pattern.finditer(window):
                at, to = match.span()
                if (at == 0 and start > low) or (to == len(window) and end < high):
                    continue  # longer than any match of this rule
                group = next((g for g in rule.groups if match.end(g) > match.start(g)), None)
                if group is None:
                    continue
                at, to = match.span(group)
                if at == match.start() and at and window[at - 1] in rule.edge_before and not _escaped(window, at):
                    continue
                if to < len(window) and window[to] in rule.edge_after:
                    continue
                name = (match.group(rule.name_group) or b"") if rule.name_group else b""
                before = texts.read(max(low, start + at - LINE_BYTES), start + at)
                if self.is_secret(rule, window[at:to], name, before[before.rfind(b"\n") + 1 :]):
                    password = rule.entity == PASSWORD or _PASSWORD_NAME.search(name)
                    yield Span(start + at, start + to, PASSWORD if self.passwords and password else KEY, rule.id)

    def is_secret(self, rule: Rule, value: bytes, name: bytes = b"", line: bytes = b"") -> bool:
        """Whether a value that fits a rule is one; `line`: what stands before it on its line, at most LINE_BYTES."""
        own = value.removeprefix(next((prefix for prefix in rule.prefixes if value.startswith(prefix)), b""))
        if "crc32-base62" in rule.checks and crc_is_right(own):
            return True
        lower = own.lower()
        bare = rule.keywords.sub(b" ", name) if rule.keywords else name
        return not (
            entropy(own) < rule.entropy
            or self.facts.placeholders.search(lower)
            or value[:16].lower().startswith(self.facts.public_values)
            or (rule.stop and rule.stop.search(value.lower()))
            or (rule.words and not rule.words.search(name.lower()))
            or (rule.keywords and not rule.keywords.search(name))
            or _BLOB.search(line)
            or (self.known and self.known.search(value))
            or (not rule.repeats and has_run(lower, self.facts.repeat))
            or not all(self._checks[check](own, bare, line) for check in sorted(rule.checks) if check in self._checks)
        )

    def is_digest(self, value: bytes, line: bytes) -> bool:
        """A hexadecimal value of a digest's length behind a word for digests on its line."""
        return (
            len(value) in self.facts.digest_lengths
            and bool(_HEX.fullmatch(value))
            and bool(self.facts.digest_words.search(line.lower()))
        )

    def is_password(self, value: bytes) -> bool:
        """Neither a well-known password, nor a name of one or of a variable."""
        lower = value.lower()
        return (
            lower not in self.facts.weak_passwords
            and not self.facts.weak_parts.search(lower)
            and not _VARIABLE.fullmatch(value)
        )

    def looks_random(self, value: bytes) -> bool:
        """At least two digits and a letter, and not made of words; hexadecimal digits in a length of digests are drawn."""
        digits = sum(48 <= byte < 58 for byte in value)
        if digits < 2 or digits == len(value):
            return False
        return (len(value) in self.facts.digest_lengths and bool(_HEX.fullmatch(value))) or not self.reads(value)

    def reads(self, value: bytes) -> bool:
        """Whether it is made of words.

        Letters drawn at random are in a common pair 3 times in 10, letters of words 9 times.
        """
        seen, common = wordiness(value, self.facts.word_pairs)
        return seen >= 4 and common >= 0.6

    def is_pair(self, value: bytes) -> bool:
        """User, colon and a password in base64, as in HTTP's basic authentication (RFC 7617)."""
        try:
            pair = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        user, colon, password = pair.partition(b":")
        return (
            bool(colon and user and len(password) >= 4 and pair.isascii() and pair.decode().isprintable())
            and not self.facts.placeholders.search(pair.lower())
            and self.is_password(password)
        )

    def _private_keys(self, texts: Texts, hits: I64, rule: Rule) -> Iterator[Span]:
        """The body of each private key in PEM: from its first to its last base64, without lines and headers.

        The search from a BEGIN ends at the next five dashes, so all searches together read a file once.
        """
        file, whole, low = -1, b"", 0
        for _, start, _ in hits.tolist():
            if (holder := texts.file_of(start)) != file:
                file, low = holder, int(texts.offsets[holder])
                whole = texts.read(low, int(texts.offsets[holder + 1]))
            label = _PEM_LABEL.match(whole, start - low, start - low + 80)
            if not label:
                continue
            stop = whole.find(b"-----", label.end(), label.end() + PEM_BYTES)
            body = whole[label.end() : stop if stop >= 0 else label.end() + PEM_BYTES]
            body = _PEM_BLANK.sub(lambda match: b" " * len(match.group()), body)
            runs = [run.span() for run in _BASE64_RUN.finditer(body)]
            long = [run for run in runs if run[1] - run[0] >= 16]
            if sum(to - at for at, to in long) < PEM_BODY:
                continue
            first = long[0][0]
            last = max(to for at, to in runs) if stop >= 0 else long[-1][1]
            value = body[first:last]
            if not self.facts.placeholders.search(value.lower()[:PEM_BODY]) and entropy(value) >= 3.5:
                yield Span(low + label.end() + first, low + label.end() + last, KEY, rule.id)


def _of_rule(hits: I64, codes: Sequence[int]) -> I64:
    """The hits of a rule: rows with one of these codes; rows are ascending by code."""
    ends = [np.searchsorted(hits[:, 0], (code, code + 1)) for code in codes]
    return np.concatenate([hits[low:high] for low, high in ends])


def _escaped(window: bytes, at: int) -> bool:
    """What stands before `at` ends an escape, as in "\\nAKIA" or "%3DAKIA", and is no part of a word."""
    return _ESCAPE.search(window[max(0, at - 3) : at]) is not None


def windows(texts: Texts, hits: I64, before: int, reach: int) -> Iterator[tuple[int, int, int, int]]:
    """The bytes about hits in which a match may lie: (start of the file, its end, start, end of the window).

    What overlaps is one window, so that each byte is read once for a rule however many hits there are.
    """
    order = hits[np.argsort(hits[:, 1], kind="stable")]
    files = np.searchsorted(texts.offsets, order[:, 1], side="right") - 1
    lows, highs = texts.offsets[files], texts.offsets[files + 1]
    starts = np.maximum(lows, order[:, 1] - before)
    ends = np.minimum(highs, order[:, 1] + reach)
    at = 0
    while at < len(order):
        low, high, start, end = int(lows[at]), int(highs[at]), int(starts[at]), int(ends[at])
        at += 1
        while at < len(order) and starts[at] <= end and lows[at] == low:
            end = max(end, int(ends[at]))
            at += 1
        yield low, high, start, end


def has_run(value: bytes, length: int) -> bool:
    """A byte stands `length` times in a row."""
    array = np.frombuffer(value, np.uint8)
    same = np.flatnonzero(np.concatenate([[True], array[1:] != array[:-1], [True]]))
    return bool(len(array)) and int(np.diff(same).max()) >= length


def holds_account(own: bytes) -> bool:
    """A key id of AWS, without its prefix: made since 2019 it is from Q on and holds an account, twelve digits in 40 bits."""
    if own[:1] not in b"QRSTUVWXYZ234567":
        return True
    bits = int.from_bytes(base64.b32decode(own)[:6])
    return (bits & 0x7FFFFFFFFF80) >> 7 < 10**12


def is_snowflake(text: bytes) -> bool:
    """Base64url of a decimal number of 17 to 20 digits, as Discord numbers things."""
    try:
        decoded = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return False
    return decoded.isdigit() and 17 <= len(decoded) <= 20


def repeated(texts: Texts, spans: Sequence[Span]) -> Iterator[Span]:
    """Where else in its file the value of a key or password stands, between bytes that are not letters or digits; of passwords
    those that are more than letters, which may be words."""
    by_file: dict[int, list[Span]] = {}
    for span in spans:
        least = REPEATED_BYTES if span.entity == KEY else REPEATED_PASSWORD
        if span.entity in (KEY, PASSWORD) and least <= span.end - span.start <= REPEATED_MOST:
            by_file.setdefault(texts.file_of(span.start), []).append(span)
    for file, found in by_file.items():
        low, high = int(texts.offsets[file]), int(texts.offsets[file + 1])
        read = {texts.read(span.start, span.end).decode("latin-1"): span for span in found}
        values = {value: span for value, span in read.items() if span.entity == KEY or not value.isalpha()}
        if not values:
            continue
        search = ahocorasick.Automaton()
        for value, span in values.items():
            search.add_word(value, (len(value), span))
        search.make_automaton()
        known = {(span.start, span.end) for span in found}
        whole = texts.read(low, high).decode("latin-1")  # one character for each byte
        for last, (size, span) in search.iter(whole):
            start = last + 1 - size
            if (low + start, low + last + 1) in known:
                continue
            if not (start and _is_alnum(whole[start - 1])) and not (
                last + 1 < len(whole) and _is_alnum(whole[last + 1])
            ):
                yield Span(low + start, low + last + 1, span.entity, span.rule)


def _is_alnum(char: str) -> bool:
    return char.isascii() and char.isalnum()
