"""Which licences the text of a licence file states.

On the normal form of a text, each form once:

1. ScanCode's exact matches (hash, SPDX lines, Aho-Corasick). If one rule matches every word of the text, that is all.
2. For a file named as a licence: licenseclassifier, which answers for a whole file when licence texts cover 75 % of it.
   Where the two differ on how permissive the file is, the less permissive answer stands, else that for the whole file.
3. If neither has an answer: ScanCode's approximate matches, of the first 64 KB.

Everything is bounded by size, never by the clock: a time limit would make the answer depend on who else uses the
machine. ScanCode's index takes 1.4 GB and seconds to load: `warm` loads it once in the task server, whose children
share it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from importlib import metadata
from typing import Any

from stackbuild.licenses.expression import keys_of
from stackbuild.licenses.lists import SEVERITY, load_list, scancode_licenses
from stackbuild.licenses.text import decode, holder_lines, normal_form

COVER_PERCENT = 75.0
# ScanCode's work grows faster than a text that matches everywhere, so long ones are matched in windows. The overlap
# holds the longest common licence (GPL-3.0, 35 KB) whole.
WINDOW_CHARS = 64 << 10
OVERLAP_CHARS = 36 << 10
APPROXIMATE_CHARS = 64 << 10  # 9 CPU-seconds at worst: words of licences in random order
CACHED_FORMS = 1 << 20
AUTOMATON_STATES = 200_000  # of licenseclassifier's automaton, which grows as it meets texts: about 400 MB

COMMON_KEYS = (
    "mit apache-2.0 bsd-new bsd-simplified isc gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 agpl-3.0 mpl-2.0 epl-2.0 unlicense "
    "cc0-1.0 bsl-1.0 zlib wtfpl-2.0 artistic-2.0"
)

UNKNOWN_REFERENCE = "LicenseRef-scancode-unknown-license-reference"
UNKNOWN = "LicenseRef-scancode-unknown"

ENGINES = ("licenseclassifier", "scancode-toolkit-mini")


@dataclass(frozen=True)
class Detection:
    """What one text states. `keys`: SPDX keys of all licences in `expressions`, sorted. No expressions: nothing
    recognised.

    `engine`: its name, version and, for ScanCode, how it matched. `score`: 0 to 1, of the weakest match that counts.
    """

    keys: tuple[str, ...]
    expressions: tuple[str, ...]
    engine: str
    score: float


class Detector:
    """Detects, and keeps the answer for each normal form that it has met."""

    def __init__(self) -> None:
        self._answers: dict[bytes, Detection] = {}

    def detect(self, content: bytes, license_named: bool) -> Detection:
        """What a file's bytes state. `license_named`: its name is of a licence proper, so that approximate matches are
        worth it.
        """
        text = decode(content)
        form = normal_form(text, own_lines()) if text is not None else ""
        key = blake2b(
            form.encode("utf-8", "surrogatepass"), digest_size=16, person=b"license" if license_named else b"other"
        ).digest()
        answer = self._answers.get(key)
        if answer is None:
            answer = detect_form(form, license_named)
            if len(self._answers) < CACHED_FORMS:
                self._answers[key] = answer
        return answer


def detect_form(form: str, license_named: bool) -> Detection:
    """What a normal form states: a function of the form alone."""
    if not form:
        return Detection((), (), engine_name("scancode", "exact"), 0.0)
    exact = scancode(form, approximate=False)
    if license_named and not (exact.verbatim and exact.real):
        whole = Answer(engine_name("licenseclassifier"), classify(form))
        if whole.found:
            return combined(whole, exact).detection()
        if not exact.real:
            near = scancode(form[:APPROXIMATE_CHARS], approximate=True)
            if near.real:
                return near.detection()
    return exact.detection()


@dataclass(frozen=True)
class Answer:
    """One engine's answer: SPDX expressions with their scores, in the order of the text."""

    engine: str
    found: dict[str, float]
    verbatim: bool = False  # one rule matched every word of the text

    @property
    def real(self) -> dict[str, float]:
        """Without mere references to a licence that is not named."""
        return {expression: score for expression, score in self.found.items() if expression != UNKNOWN_REFERENCE}

    def severity(self) -> int:
        """How bad the worst licence is, by ScanCode's categories and Blue Oak's list."""
        return max((severity_of(key) for expression in self.real for key in keys_of(expression)), default=-1)

    def detection(self) -> Detection:
        found = self.real or self.found  # beside a licence that is named, a reference to it says nothing
        expressions = tuple(sorted(found))
        keys = tuple(sorted({key for expression in expressions for key in keys_of(expression)}))
        return Detection(keys, expressions, self.engine, round(min(found.values(), default=0.0), 4))


def combined(whole: Answer, exact: Answer) -> Answer:
    """Of two answers the less permissive; of two alike ScanCode's if it is verbatim or says the same, which it does in
    full.
    """
    if exact.severity() != whole.severity():
        return max(whole, exact, key=Answer.severity)
    if exact.verbatim or {_plain(key) for found in exact.real for key in keys_of(found)} == {
        _plain(key) for found in whole.found for key in keys_of(found)
    }:
        return exact
    return whole


def _plain(key: str) -> str:
    """The key without -only or -or-later: the texts are the same."""
    return key.removesuffix("-only").removesuffix("-or-later")


@lru_cache(maxsize=8192)
def severity_of(key: str) -> int:
    """How bad a licence is: 0 permissive to 4 non-permissive."""
    return 0 if key in load_list("the-stack-v2") else SEVERITY[scancode_licenses().class_of(key)]


@cache
def engine_name(engine: str, how: str = "") -> str:
    """Name and version of an engine, as evidence carries it."""
    version = metadata.version("scancode-toolkit-mini" if engine == "scancode" else engine)
    return f"{engine} {version} {how}".rstrip()


# ---------------------------------------------------------------- licenseclassifier


def classify(form: str) -> dict[str, float]:
    """SPDX ids of the licence texts that together cover the file, each with the share covered; none below 75 %."""
    from licenseclassifier._engine import builtin_scanner

    scanner = builtin_scanner()
    coverage = scanner.scan(form)
    if len(scanner.re._info) > AUTOMATON_STATES:
        scanner.re._info.clear()  # it is only a cache
    if coverage.percent < COVER_PERCENT:
        return {}
    canonical = scancode_licenses().canonical
    return {canonical(match.id): min(coverage.percent / 100, 1.0) for match in coverage.match}


# ---------------------------------------------------------------- ScanCode


def scancode(form: str, approximate: bool) -> Answer:
    """SPDX expressions that ScanCode matches, each with its best score; without those that name no licence at all."""
    found: dict[str, float] = {}
    verbatim = False
    for window in windows(form):
        matches = _matches(window, approximate)
        verbatim = (
            len(matches) == 1 and len(window) == len(form) and len(matches[0].qspan) == len(matches[0].query.tokens)
        )
        for match in matches:
            rule = match.rule
            if rule.is_license_clue:
                continue
            expression = spdx_expression(rule.license_expression)
            if stands_for_a_license(expression):
                found[expression] = max(found.get(expression, 0.0), min(match.score() / 100, 1.0))
    return Answer(engine_name("scancode", "approximate" if approximate else "exact"), found, verbatim and bool(found))


def windows(form: str) -> Iterator[str]:
    """The form, or overlapping windows of it if it is long."""
    start = 0
    while True:
        yield form[start : start + WINDOW_CHARS]
        if start + WINDOW_CHARS >= len(form):
            return
        start += WINDOW_CHARS - OVERLAP_CHARS


def _matches(text: str, approximate: bool) -> list[Any]:
    """ScanCode's matches. Its parser of SPDX lines may raise anything: then they are read as prose."""
    index = _index()
    for attempt in (text, text.replace("spdx", " ")):
        try:
            return list(index.match(query_string=attempt, approximate=approximate)) if attempt.strip() else []
        except MemoryError:
            raise
        except Exception:
            continue
    return []


@cache
def own_lines() -> frozenset[str]:
    """Lines of ScanCode's licence texts that name a holder."""
    from licensedcode.cache import get_licenses_db

    return frozenset(line for one in get_licenses_db().values() for line in holder_lines(one.text or ""))


@cache
def _index() -> Any:
    from licensedcode.cache import get_index

    return get_index()


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
    licenses, neutral = scancode_licenses(), load_list("neutral")
    empty = licenses.unknown | licenses.exceptions
    return expression == UNKNOWN_REFERENCE or any(
        key not in empty and key not in neutral for key in keys_of(expression)
    )


# ---------------------------------------------------------------- the task server


def warm() -> None:
    """Load what the children of the task server share: ScanCode's index and licenseclassifier's automaton."""
    _index()
    own_lines()
    for text in ("MIT", "Apache-2.0", "BSD-3-Clause"):
        spdx_expression(text.lower())
    for form in _common_forms():
        classify(form)
        scancode(form, approximate=False)
    gc.collect()
    gc.freeze()


def _common_forms() -> Iterator[str]:
    """Normal forms of the texts that are met most."""
    from licensedcode.cache import get_licenses_db

    database = get_licenses_db()
    for key in COMMON_KEYS.split():
        if key in database:
            yield normal_form(database[key].text or "", own_lines())
