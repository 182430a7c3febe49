"""ScanCode in this process: its index, what it matches in a text, and its expressions in SPDX keys.

Of its matchers the exact ones (hash and Aho-Corasick) are linear; the approximate one is for the few texts that nobody
else knows. ScanCode's own reading of SPDX lines is not used: `tags` takes those out, whatever they hold. The index takes
1.4 GB and seconds to load: `detect.warm` loads it once in the task server, whose children share it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from stackbuild.licenses import wording
from stackbuild.licenses.decide import UNKNOWN, UNKNOWN_REFERENCE
from stackbuild.licenses.expression import keys_of
from stackbuild.licenses.lists import ENGINES_NEUTRAL, SEVERITY, load_list, scancode_licenses
from stackbuild.licenses.tags import UNKNOWN_SPDX, joined, read_tag
from stackbuild.licenses.text import holder_lines

# ScanCode's work grows faster than a text that matches everywhere, so long ones are matched in windows. The overlap
# holds the longest common licence (GPL-3.0, 35 KB) whole.
WINDOW_CHARS = 64 << 10
OVERLAP_CHARS = 36 << 10

MAX_MATCHES = 4_000  # takes some 3 CPU-seconds; the list of all that is in a browser has 1,800
MAX_PROSE = 200  # characters of a tag that is not in SPDX's grammar

NOT_READ = "LicenseRef-stackbuild-not-read"  # in no list, so unknown


@dataclass(frozen=True)
class Match:
    """One match in a text: SPDX expression, score (0 to 1), first and last line (from 0), ScanCode's rule, how many words
    matched, whether they are all of the text, and whether they state a licence (its text, a notice, a tag) and do not only
    name one.
    """

    expression: str
    score: float
    first: int
    last: int
    rule: str
    words: int
    verbatim: bool = False
    states: bool = False


def matches(text: str, approximate: bool = False) -> list[Match]:
    """What ScanCode matches, in the order of the text, window by window; without mere clues. A text in which it finds more
    than `MAX_MATCHES` is read no further, and holds NOT_READ beside them.
    """
    found: list[Match] = []
    for start, window in windows(text):
        line = text.count("\n", 0, start) - 1  # ScanCode counts lines from 1
        if len(found) > MAX_MATCHES:
            found.append(Match(NOT_READ, 1.0, line + 1, text.count("\n"), "", 0))
            break
        raw = _match(window, approximate)
        whole = len(raw) == 1 and len(window) == len(text) and len(raw[0].qspan) == len(raw[0].query.tokens)
        lines = window.split("\n") if raw else []
        for one in raw:
            if not one.rule.is_license_clue and not _is_both(one, lines):
                found.append(
                    Match(
                        spdx_expression(one.rule.license_expression),
                        min(one.score() / 100, 1.0),
                        line + one.start_line,
                        line + one.end_line,
                        one.rule.identifier,
                        one.len(),
                        whole,
                        one.rule.is_license_text or one.rule.is_license_notice or one.rule.is_license_tag,
                    )
                )
    return found


@dataclass(frozen=True)
class Aligned:
    """An approximate match: its first and last line (from 0), how many words are the rule's, and which words between the first
    and the last of them the text has and the rule does not (`added`), or the other way round (`dropped`).
    """

    expression: str
    first: int
    last: int
    rule: str
    words: int
    added: tuple[str, ...]
    dropped: tuple[str, ...]


def aligned(text: str, least: int) -> list[Aligned]:
    """ScanCode's matches of a text, approximate ones among them; from `least` words on word by word."""
    names = index_().tokens_by_tid
    found = []
    for one in _match(text, True):
        added: list[str] = []
        dropped: list[str] = []
        if one.len() >= least and one.rule.rid is not None:  # an SPDX id's rule is made as it is met
            tokens, of_rule = one.query.tokens, rule_tokens(index_(), one.rule.rid)
            of_text, whole = range(one.qspan.start, one.qspan.end), range(one.ispan.start, one.ispan.end)
            added = [names[tokens[at]] for at in of_text if at not in one.qspan]
            dropped = [names[of_rule[at]] for at in whole if at not in one.ispan]
        found.append(
            Aligned(
                spdx_expression(one.rule.license_expression),
                one.start_line - 1,
                one.end_line - 1,
                one.rule.identifier,
                one.len(),
                tuple(added),
                tuple(dropped),
            )
        )
    return found


# ScanCode takes the bare word "non-commercial" for a proprietary licence, also where commercial use is allowed.
_BOTH = re.compile(
    r"commercial[a-z ]{0,20}(?:,|and|or|/)[a-z ,/]{0,20}non-? ?commercial"
    r"|non-? ?commercial[a-z ]{0,20}(?:and|or|/) ?commercial"
)
_BARE_WORDS = 3


def _is_both(match: Any, lines: list[str]) -> bool:
    if match.len() > _BARE_WORDS or match.rule.license_expression != "proprietary-license":
        return False
    return _BOTH.search(" ".join(lines[max(match.start_line - 2, 0) : match.end_line + 1])) is not None


def windows(text: str) -> Iterator[tuple[int, str]]:
    """The text, or overlapping windows of it if it is long, each with where it begins."""
    start = 0
    while True:
        yield start, text[start : start + WINDOW_CHARS]
        if start + WINDOW_CHARS >= len(text):
            return
        start += WINDOW_CHARS - OVERLAP_CHARS


def _match(text: str, approximate: bool) -> list[Any]:
    """ScanCode's matches. Its parser of SPDX lines may raise anything: then they are read as prose."""
    index = near_index() if approximate else index_()
    for attempt in (text, text.replace("spdx", " ")):
        try:
            return list(index.match(query_string=attempt, approximate=approximate)) if attempt.strip() else []
        except MemoryError:
            raise
        except Exception:
            continue
    return []


@cache
def index_() -> Any:
    """ScanCode's index of rules."""
    from licensedcode.cache import get_index

    return get_index()


@cache
def near_index() -> Any:
    """The same for approximate matches."""
    from stackbuild.licenses.near_index import NearIndex

    return NearIndex(index_())


def rule_tokens(index: Any, rule: int) -> npt.NDArray[Any]:
    """The words of a rule in their order, by number; -1 for none."""
    tokens = index.tids_by_rid[rule]
    return np.frombuffer(tokens, f"i{tokens.itemsize}")


@cache
def own_lines() -> frozenset[str]:
    """Lines of ScanCode's licence texts that name a holder."""
    from licensedcode.cache import get_licenses_db

    return frozenset(line for one in get_licenses_db().values() for line in holder_lines(one.text or ""))


@lru_cache(maxsize=65_536)
def spdx_expression(expression: str) -> str:
    """A ScanCode expression in SPDX keys; what cannot be parsed is an unknown licence (license-expression may raise
    anything).
    """
    from licensedcode.cache import build_spdx_license_expression, get_licensing

    try:
        return str(build_spdx_license_expression(expression, licensing=get_licensing()))
    except MemoryError:
        raise
    except Exception:
        return UNKNOWN


@lru_cache(maxsize=65_536)
def stands_for_a_license(expression: str) -> bool:
    """False if all its keys are unknown licences, addenda that never change a licence, or exceptions without one.

    The reference to a licence that is not named stays: The Stack v2's rule weighs it.
    """
    licenses, neutral = scancode_licenses(), load_list(ENGINES_NEUTRAL)
    empty = licenses.unknown | licenses.exceptions
    return expression == UNKNOWN_REFERENCE or any(
        key not in empty and key not in neutral for key in keys_of(expression)
    )


_FILLER = re.compile(
    r"\b(?:see|the|a|in|for|and|or|of|file|details|licen[cs]es?|version|v|copying|md|txt|readme|more|information)\b"
)
_OPERATOR = re.compile(r"\b(?:AND|OR|WITH)\b")  # in capitals no word of prose


@lru_cache(maxsize=4096)
def tag_expression(value: str) -> str | None:
    """What the value of an SPDX tag states: by SPDX's grammar, else as prose ("Apache License 2.0"); what is not wholly
    understood is an unknown licence beside what is. None if it says nothing.
    """
    if not value or value.upper() == "NOASSERTION":
        return None
    expression = read_tag(value)
    if expression is not None and (expression != UNKNOWN_SPDX or len(value) > MAX_PROSE):
        return expression
    prose = value[:MAX_PROSE].lower()
    found = [one for one in matches("license: " + prose) if stands_for_a_license(one.expression)]
    expressions = {one.expression for one in found} - {UNKNOWN_REFERENCE}
    if wording.without_compatible(prose)[1] or any(wording.is_only_like(one, prose) for one in expressions):
        expressions.add(UNKNOWN_SPDX)
    words = re.findall(r"[a-z0-9]+", _FILLER.sub(" ", value.lower()))
    broken = _OPERATOR.search(value) is not None or not re.match(r"[\w(]", value)
    if broken or sum(one.words for one in found) < len(words) or not expressions:
        expressions.add(UNKNOWN_SPDX)
    return joined(frozenset(expressions))


@lru_cache(maxsize=8192)
def severity_of(key: str) -> int:
    """How bad a licence is by ScanCode's class alone, whatever a list calls permissive: 0 permissive to 4 non-permissive."""
    return SEVERITY[scancode_licenses().class_of(key)]


@cache
def engine_name(engine: str, how: str = "") -> str:
    """Name and version of an engine, as evidence carries it."""
    version = metadata.version("scancode-toolkit-mini" if engine == "scancode" else engine)
    return f"{engine} {version} {how}".rstrip()
