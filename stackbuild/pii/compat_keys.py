"""Keys by detect-secrets as SantaCoder used it: 18 plug-ins, four filters, the test for gibberish and two rules on hashes.

The rules are starcoder1 2.2. The expressions, entropies and filters are those of the installed package, which is pinned;
its plug-ins run line by line in Python's `re`, in cubic time on some lines, so that here RE2 runs the same expressions
over the whole text. The positions are those of the matches. Different from the published pipeline:
- no temporary file, no global settings, and the model of gibberish is read once (D3);
- a hash's words are looked for before each place where a value was found, not before the first one in the file, and
  at its first byte too (D2); before a value on its line the last LINE_BYTES count, for the filter of ids also;
- of GitHub's tokens the expression's only group is the prefix: here the token goes, and the prefix alone never;
- the blanks and quotes that Artifactory's expressions take along stay;
- a file without a finding is not read once more as an INI file;
- white space at the end of a line belongs to no value, as there, and "\\r" ends a line, as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import ahocorasick
import re2

from stackbuild.errors import MissingDependency
from stackbuild.pii.extras import EXTRA
from stackbuild.pii.gibberish import Gibberish

VERSION: Final = "1.5.0"  # of detect-secrets, whose expressions are read
PLUGINS: Final = {
    "artifactory": "ArtifactoryDetector",
    "aws": "AWSKeyDetector",
    "high_entropy_strings": "Base64HighEntropyString HexHighEntropyString",
    "azure_storage_key": "AzureStorageKeyDetector",
    "cloudant": "CloudantDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "ibm_cloud_iam": "IbmCloudIamDetector",
    "ibm_cos_hmac": "IbmCosHmacDetector",
    "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "softlayer": "SoftlayerDetector",
    "stripe": "StripeDetector",
    "twilio": "TwilioKeyDetector",
}
LINE_BYTES: Final = 1024
VALUE_BYTES: Final = 1 << 20  # a longer value is a file in a literal
HASH_LENGTHS: Final = (32, 40, 64)
HASH_WORDS: Final = (b"sha", b"md5", b"hash", b"byte")
HASHES_OF_LINES: Final = 0.02

# What Python writes and RE2 does not, or means otherwise: Unicode's classes, and conditions on neighbours.
_BEGIN: Final = r"(?:(?<=\W)|(?<=^))"
_CLASSES: Final = {
    r"\s": r"[\t\n\x0b\x0c\r\x1c-\x1f\x{85}\p{Z}]",
    r"\d": r"\p{Nd}",
    r"[\w\-]": r"[\p{L}\p{N}_\-]",
}
_AHEAD: Final = {r"(?![a-zA-Z0-9_\-])": r"[a-zA-Z0-9_\-]", r"(?![a-f0-9])": r"[a-f0-9]"}


@dataclass(frozen=True)
class Expression:
    """One expression of a plug-in, for RE2. `groups`: which of them are values, 0 the whole. `bounded`: no word character
    stands before a match. `not_after`: what may not follow the value, or None."""

    plugin: Any
    pattern: Any
    groups: tuple[int, ...]
    bounded: bool
    not_after: Any


class KeyFinder:
    """Finds keys. MissingDependency without detect-secrets; `gibberish`: which values look drawn at random."""

    def __init__(self, gibberish: Gibberish):
        self.gibberish = gibberish
        self.expressions = expressions()
        self.filters = _filters()

    def find(self, raw: bytes) -> list[tuple[int, int, str]]:
        """(start, end, plug-in) in bytes of a UTF-8 text: each place where a key was found, and where else it stands."""
        kept: dict[bytes, str] = {}
        places: list[tuple[int, int, str]] = []
        lines = raw.replace(b"\r", b"\n")
        dropped: set[bytes] = set()
        for start, end, plugin in self.candidates(lines):
            value = raw[start:end]
            if value in dropped or end - start > VALUE_BYTES or self.is_hash(lines, start, end):
                continue
            if value not in kept:
                if not self.gibberish.is_gibberish(value.decode()):
                    dropped.add(value)
                    continue
                kept[value] = type(plugin).__name__
            places.append((start, end, kept[value]))
        if not kept or has_hashes(raw):
            return []
        return [*places, *everywhere(raw, kept)]

    def candidates(self, lines: bytes) -> Iterator[tuple[int, int, Any]]:
        """What the plug-ins find and their filters leave, in a text whose lines all end with "\\n"."""
        for expression in self.expressions:
            for start, end in matches(expression, lines):
                if self.is_value(expression.plugin, lines, start, end):
                    yield start, end, expression.plugin

    def is_value(self, plugin: Any, lines: bytes, start: int, end: int) -> bool:
        """The plug-in's own condition (an entropy, a token that can be read), and the four filters."""
        by_entropy = hasattr(plugin, "entropy_limit")
        if by_entropy and end - start <= 2**plugin.entropy_limit:  # no more bits than its length has
            return False
        value = lines[start:end].decode()
        if by_entropy:
            if plugin.calculate_shannon_entropy(value) <= plugin.entropy_limit:
                return False
        elif hasattr(plugin, "is_formally_valid") and not plugin.is_formally_valid(value):
            return False
        if self.filters.is_sequential_string(value) or self.filters.is_potential_uuid(value):
            return False
        if self.filters.is_templated_secret(value):
            return False
        before, whole = line_before(lines, start)
        # The filter reads the line up to the value. Where the line is cut, something that is no beginning stands.
        line = ("" if whole else "\0") + before.decode(errors="ignore")
        return not self.filters.is_likely_id_string(value, line + value, plugin)

    @staticmethod
    def is_hash(lines: bytes, start: int, end: int) -> bool:
        """A value as long as a digest, and a word for digests before it on its line."""
        if len(lines[start:end].decode()) not in HASH_LENGTHS:
            return False
        before = line_before(lines, start)[0].lower()
        return any(word in before for word in HASH_WORDS)


def has_hashes(raw: bytes) -> bool:
    """ "sha" or "hash" stand in a file more often than in 2 % of its lines."""
    most = int(HASHES_OF_LINES * raw.count(b"\n"))
    lower = raw.lower()
    return lower.count(b"sha") > most or lower.count(b"hash") > most


def line_before(lines: bytes, start: int) -> tuple[bytes, bool]:
    """What stands before a place on its line, at most LINE_BYTES, and whether that is all."""
    low = max(0, start - LINE_BYTES)
    at = lines.rfind(b"\n", low, start) + 1
    return (lines[at:start], True) if at or not low else (lines[low:start], False)


def everywhere(raw: bytes, values: dict[bytes, str]) -> Iterator[tuple[int, int, str]]:
    """Where the values stand in a text, the longest from the left."""
    search = ahocorasick.Automaton()
    for value, plugin in values.items():
        word = value.decode("latin-1")  # one character for each byte
        search.add_word(word, (len(word), plugin))
    search.make_automaton()
    for last, (size, plugin) in search.iter_long(raw.decode("latin-1")):
        yield last + 1 - size, last + 1, plugin


# ---------------------------------------------------------------- the expressions


def matches(expression: Expression, lines: bytes) -> Iterator[tuple[int, int]]:
    """The values that an expression finds, as Python's `findall` on each line, without white space at a line's end."""
    pattern, at = expression.pattern, 0
    while found := pattern.search(lines, at):
        first, last = found.span()
        if expression.bounded and first and _is_word(lines[max(0, first - 4) : first].decode(errors="ignore")[-1:]):
            at = first + 1
            continue
        spans = [found.span(group) for group in expression.groups if found.start(group) >= 0]
        if expression.not_after and any(expression.not_after.match(lines, end) for _, end in spans):
            at = first + 1
            continue
        ends_line = last == len(lines) or lines[last : last + 1] == b"\n"
        for span in spans:
            start, end = _trimmed(expression.plugin, lines, *span, ends_line=ends_line)
            if end > start:
                yield start, end
        at = max(last, first + 1)


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _trimmed(plugin: Any, lines: bytes, start: int, end: int, *, ends_line: bool) -> tuple[int, int]:
    """Without white space at the end of a line; of Artifactory's, without what is no part of the token."""
    if ends_line:
        end = start + len(lines[start:end].decode().rstrip().encode())
    if type(plugin).__name__ == "ArtifactoryDetector":
        while start < end and not lines[start : start + 1].isalnum():
            start += 1
        while start < end and not lines[end - 1 : end].isalnum():
            end -= 1
    return start, end


@cache
def expressions() -> Sequence[Expression]:
    """All expressions of the 18 plug-ins. MissingDependency without the version of detect-secrets whose they are."""
    import importlib

    found: list[Expression] = []
    try:
        if (found_version := version("detect-secrets")) != VERSION:
            raise ImportError(f"{found_version} is installed, {VERSION} is needed")
        for module, names in PLUGINS.items():
            loaded = importlib.import_module(f"detect_secrets.plugins.{module}")
            for name in names.split():
                plugin = getattr(loaded, name)()
                found += [expression(plugin, one) for one in getattr(plugin, "denylist", ())]
                if hasattr(plugin, "entropy_limit"):
                    characters = plugin.regex.pattern.split(")([")[1].split("]+)(")[0]
                    quoted = f"\"([{characters}]+)\"|'([{characters}]+)'"  # RE2 has no references to groups
                    found.append(Expression(plugin, compiled(quoted), (1, 2), False, None))
    except ImportError as error:
        raise MissingDependency(f"The profile compat finds keys by detect-secrets ({error}): {EXTRA}") from error
    return found


def expression(plugin: Any, pattern: Any) -> Expression:
    """A plug-in's expression for RE2, which means the same."""
    import re

    text = pattern.pattern
    bounded = text.startswith(_BEGIN)
    text = text.removeprefix(_BEGIN)
    not_after = None
    for ahead, characters in _AHEAD.items():
        if ahead in text:
            text, not_after = text.replace(ahead, ""), characters
    for theirs, ours in _CLASSES.items():
        text = text.replace(theirs, ours)
    flags = "(?i)" if pattern.flags & re.IGNORECASE else ""
    after = compiled(flags + not_after) if not_after else None
    groups = (0,) if pattern.groups == 0 or plugin.__class__.__name__ == "GitHubTokenDetector" else None
    return Expression(
        plugin, compiled(f"(?m){flags}{text}"), groups or tuple(range(1, pattern.groups + 1)), bounded, after
    )


def compiled(pattern: str) -> Any:
    """For a text of UTF-8; no match goes beyond its line."""
    options = re2.Options()
    options.log_errors = False
    options.never_nl = True
    return re2.compile(pattern, options)


def _filters() -> Any:
    from detect_secrets.filters import heuristic

    return heuristic
