"""Which licences the text of a licence file states.

On the normal form of a text, each form once:

1. SPDX tags, by SPDX's own grammar (`tags`).
2. ScanCode's exact matches (hash, Aho-Corasick). If one rule matches every word of the text, that is all.
3. For a file named as a licence: licenseclassifier, which answers for a whole file when licence texts cover 75 % of it.
   Where the two differ on how permissive the file is, the less permissive answer stands, else that for the whole file.
4. If neither has an answer: a text of at most 40 words is read as the value of "license:" and for a dedication to the
   public domain; then ScanCode's approximate matches, of the first 64 KB.
5. For a file named as a licence: riders, which take back a part of a licence (`riders`), and words that put the whole of
   one in doubt (`takes_back`); where no engine knows the whole of a permissive text, what in it is nobody's licence
   (`altered`).

Everything is bounded by size, never by the clock: a time limit would make the answer depend on who else uses the
machine. `warm` loads ScanCode's index and licenseclassifier's automaton once in the task server, whose children share
them.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b
from typing import Any

from stackbuild.apart import apart, share_pages
from stackbuild.licenses import altered, riders, tags
from stackbuild.licenses.decide import UNKNOWN_REFERENCE
from stackbuild.licenses.expression import keys_of, plain_key
from stackbuild.licenses.lists import SEVERITY, scancode_licenses
from stackbuild.licenses.scancode import (
    Match,
    engine_name,
    matches,
    near_index,
    own_lines,
    severity_of,
    spdx_expression,
    stands_for_a_license,
    tag_expression,
)
from stackbuild.licenses.text import decode, normal_form, numbered_form

COVER_PERCENT = 75.0
APPROXIMATE_CHARS = 64 << 10  # 5 CPU-seconds at worst: one phrase of legalese again and again
CACHED_FORMS = 1 << 15  # some 20 MB of answers

BRIEF_WORDS = 40  # a file that only names its licence

COMMON_KEYS = (
    "mit apache-2.0 bsd-new bsd-simplified isc gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 agpl-3.0 mpl-2.0 epl-2.0 unlicense "
    "cc0-1.0 bsl-1.0 zlib wtfpl-2.0 artistic-2.0"
)

UNLIKE_ANY = "permission to license nothing whatever is granted to nobody at all by this licence of ours"

PUBLIC_DOMAIN = "LicenseRef-scancode-public-domain"
_PUBLIC_DOMAIN = re.compile(
    r"\b(?:is|are|been|being|put|placed|releas(?:e|ed|ing)|dedicat(?:e|ed)|donated|stated)\b[^.]{0,60}\bpublic[- ]domain\b"
)
_DENIED = re.compile(
    r"\b(?:not|never|no longer|neither|nor|cannot|can't|isn't|aren't|unless|until|except)\b|licen[cs]e fee"
)

DOUBTFUL = "LicenseRef-stackbuild-doubtful"  # in no list, so unknown
_TAKES_BACK = re.compile(
    r"\b(?:is|are|was|were) (?:not|no longer)\b|\bno longer\b|\bdoes not apply\b|\buntil\b|\btodo\b|\btbd\b|\bchoose a\b|\?"
    r"|\bdo not\b|\bask\b|\bexpired\b|\bor pay\b|[ -](?:like|style|ish)\b|\bmaybe\b|\bcontact\b|\bcompanies\b"
    r"|\bstudents\b|\bincludes\b|\bthird[- ]party\b|\bno reuse\b"
    r"|\b(?:but|other|some) (?:files|parts|users)\b|\bart(?:work)?: |\bassets: "
)

ENGINES = ("licenseclassifier", "scancode-toolkit-mini")


@dataclass(frozen=True)
class Found:
    """One expression that a text states.

    `lines`: the first and last line of the file, from 1, where it does so most strongly. `engine`: name, version and how
    it matched. `rule`: the rule that matched, if it has a name. `score`: 0 to 1.
    """

    expression: str
    engine: str
    score: float
    lines: tuple[int, int]
    rule: str | None = None


@dataclass(frozen=True)
class Detection:
    """What one text states. `keys`: SPDX keys of all licences in `expressions`, sorted. No expressions: nothing
    recognised. `found`: the evidence of each expression, in their order. `asides`: what was found that names no licence
    (addenda, exceptions alone, unknown licences); whether that counts, a policy decides.

    `engine`: that of the first. `score`: 0 to 1, of the weakest that counts.
    """

    keys: tuple[str, ...]
    expressions: tuple[str, ...]
    engine: str
    score: float
    found: tuple[Found, ...] = ()
    asides: tuple[Found, ...] = ()


class Detector:
    """Detects, and keeps the answer for each normal form that it has met."""

    def __init__(self) -> None:
        self._answers: dict[bytes, Detection] = {}

    def detect(self, content: bytes, license_named: bool) -> Detection:
        """What a file's bytes state. `license_named`: its name is of a licence proper, so that approximate matches are
        worth it.
        """
        text = decode(content)
        form = numbered_form(text if text is not None else "", own_lines())
        key = blake2b(
            form.text.encode("utf-8", "surrogatepass"), digest_size=16, person=b"license" if license_named else b"other"
        ).digest()
        answer = self._answers.get(key)
        if answer is None:
            answer = detect_form(form.text, license_named)
            if len(self._answers) >= CACHED_FORMS:
                self._answers.clear()
            self._answers[key] = answer
        at = form.numbers
        found, asides = (
            tuple(replace(one, lines=(at[one.lines[0]], at[one.lines[1]])) for one in each)
            for each in (answer.found, answer.asides)
        )
        return replace(answer, found=found, asides=asides)


def detect_form(form: str, license_named: bool) -> Detection:
    """What a normal form states, with the lines of the form, from 0: a function of the form alone."""
    if not form:
        return Detection((), (), engine_name("scancode", "exact"), 0.0)
    lines = form.split("\n")
    stated, lines = without_tags(lines)
    form = "\n".join(lines)
    raw = matches(form)
    exact = answer_of(raw, "exact")
    answer, whole = exact, False
    if license_named and not (exact.verbatim and exact.real):
        all_of_it = classify(form)
        whole = bool(all_of_it.found)
        if whole:
            answer = combined(all_of_it, exact)
        elif not exact.real and not stated:
            answer = guessed(form) or exact
    said = max((severity_of(key) for one in stated for key in keys_of(one)), default=-1)
    worst = max(answer.severity(), said)
    if license_named and worst < SEVERITY["non_permissive"]:
        stated |= ridden(lines, raw)
    if license_named and answer.real and not exact.verbatim and takes_back(form):
        stated[DOUBTFUL] = Found(DOUBTFUL, "stackbuild doubts 1", 1.0, (0, len(lines) - 1))
    if license_named and worst == SEVERITY["permissive"] and not exact.verbatim and not whole:
        stated |= {key: Found(key, altered.ENGINE, 1.0, span) for key, span in altered.altered(form, raw).items()}
    return replace(answer.detection(stated), asides=asides_of(raw))


def takes_back(form: str) -> bool:
    """Whether a text that is too short to hold a licence says that one does not hold, or not for all, or is of other people's
    code: nobody can tell what it means, and beside the licence that it names stands `DOUBTFUL`.
    """
    return len(form.split()) <= BRIEF_WORDS and _TAKES_BACK.search(form) is not None


def guessed(form: str) -> Answer | None:
    """What a file named as a licence states that no exact match knows; None if nothing."""
    if len(form.split()) <= BRIEF_WORDS:
        brief = answer_of(matches(f"license: {form}"), "exact")
        if brief.real:
            return brief
        if _PUBLIC_DOMAIN.search(form) and not _DENIED.search(form):
            return Answer(
                "stackbuild public-domain 1", {PUBLIC_DOMAIN: 1.0}, False, {PUBLIC_DOMAIN: (0, form.count("\n"), None)}
            )
    near = answer_of(apart(matches, form[:APPROXIMATE_CHARS], True), "approximate")
    return near if near.real else None


def ridden(lines: list[str], found: list[Match]) -> dict[str, Found]:
    """What riders say in a form, outside of ScanCode's exact matches; whose first and last line may hold more, if the match is
    not of every word.
    """
    known = riders.known_lines(found)
    if any(one.verbatim for one in found):
        known = set(range(len(lines)))
    return {key: Found(key, riders.engine(), 1.0, span) for key, span in riders.riding(lines, known).items()}


def without_tags(lines: list[str]) -> tuple[dict[str, Found], list[str]]:
    """What the SPDX tags of a text state, and its lines without them."""
    stated: dict[str, Found] = {}
    speaks = tags.outside_snippets(lines)
    rest = list(lines)
    for number, line in enumerate(lines):
        value = tags.tag_of(line)
        if value is None:
            continue
        expression = tag_expression(value) if speaks[number] else None
        rest[number] = tags.TAG.split(line, maxsplit=1)[0]
        if expression is not None:
            stated.setdefault(expression, Found(expression, tags.ENGINE, 1.0, (number, number)))
    return stated, rest


@dataclass(frozen=True)
class Answer:
    """One engine's answer: SPDX expressions with their scores, in the order of the text."""

    engine: str
    found: Mapping[str, float]
    verbatim: bool = False  # one rule matched every word of the text
    places: Mapping[str, tuple[int, int, str | None]] = field(default_factory=dict)  # lines of the form and the rule

    @property
    def real(self) -> dict[str, float]:
        """Without mere references to a licence that is not named."""
        return {expression: score for expression, score in self.found.items() if expression != UNKNOWN_REFERENCE}

    def severity(self) -> int:
        """How bad the worst licence is, by ScanCode's categories and Blue Oak's list."""
        return max((severity_of(key) for expression in self.real for key in keys_of(expression)), default=-1)

    def detection(self, extra: Mapping[str, Found] | None = None) -> Detection:
        """The answer with what else was found."""
        found = self.real or self.found  # beside a licence that is named, a reference to it says nothing
        if extra and not self.real:
            found = {}
        evidence = dict(extra or {})
        for expression, score in found.items():
            first, last, rule = self.places.get(expression, (0, 0, None))
            evidence.setdefault(expression, Found(expression, self.engine, round(score, 4), (first, last), rule))
        ordered = tuple(evidence[expression] for expression in sorted(evidence))
        expressions = tuple(one.expression for one in ordered)
        keys = tuple(sorted({key for expression in expressions for key in keys_of(expression)}))
        engine = next(
            (one.engine for one in ordered if one.engine == self.engine), ordered[0].engine if ordered else self.engine
        )
        return Detection(keys, expressions, engine, min((one.score for one in ordered), default=0.0), ordered)


def combined(whole: Answer, exact: Answer) -> Answer:
    """Of two answers the less permissive; of two alike ScanCode's if it is verbatim or says the same, which it does in
    full.
    """
    if exact.severity() != whole.severity():
        return max(whole, exact, key=Answer.severity)
    if exact.verbatim or {plain_key(key) for found in exact.real for key in keys_of(found)} == {
        plain_key(key) for found in whole.found for key in keys_of(found)
    }:
        return exact
    return whole


def answer_of(found: list[Match], how: str) -> Answer:
    """ScanCode's matches as an answer: each expression with its best score and its longest match; without those that
    name no licence at all.
    """
    scores: dict[str, float] = {}
    longest: dict[str, Match] = {}
    for one in found:
        if stands_for_a_license(one.expression):
            scores[one.expression] = max(scores.get(one.expression, 0.0), one.score)
            if one.expression not in longest or one.words > longest[one.expression].words:
                longest[one.expression] = one
    places = {expression: (one.first, one.last, one.rule) for expression, one in longest.items()}
    return Answer(engine_name("scancode", how), scores, bool(scores) and found[0].verbatim, places)


def asides_of(found: list[Match]) -> tuple[Found, ...]:
    """What ScanCode's exact matches hold beside licences: each expression with its longest match."""
    longest: dict[str, Match] = {}
    for one in sorted(found, key=lambda one: one.words):
        if not stands_for_a_license(one.expression):
            longest[one.expression] = one
    engine = engine_name("scancode", "exact")
    return tuple(
        Found(expression, engine, round(one.score, 4), (one.first, one.last), one.rule)
        for expression, one in sorted(longest.items())
    )


# ---------------------------------------------------------------- licenseclassifier


@cache
def scanner() -> Any:
    """licenseclassifier's scanner, with an automaton of ours that holds little."""
    from licenseclassifier._engine import builtin_scanner

    from stackbuild.licenses.automaton import Automaton

    found: Any = builtin_scanner()
    found.re = Automaton(found.re)
    return found


def classify(form: str) -> Answer:
    """SPDX ids of the licence texts that together cover the file, each with the share covered; none below 75 %."""
    coverage = scanner().scan(form)
    engine = engine_name("licenseclassifier")
    if coverage.percent < COVER_PERCENT:
        return Answer(engine, {})
    canonical = scancode_licenses().canonical
    places: dict[str, tuple[int, int, str | None]] = {}
    sizes: dict[str, int] = {}
    for match in coverage.match:
        key = canonical(match.id)
        if match.end - match.start > sizes.get(key, -1):
            sizes[key] = match.end - match.start
            first = form.count("\n", 0, match.start)
            places[key] = first, first + form[match.start : match.end].rstrip("\n").count("\n"), None
    return Answer(engine, {key: min(coverage.percent / 100, 1.0) for key in places}, False, places)


# ---------------------------------------------------------------- the task server


@cache
def warm() -> None:
    """Load what the children of the task server share: ScanCode's index, and licenseclassifier's automaton as it is after
    the texts that are met most.
    """
    from licensedcode.cache import get_licenses_db

    near_index()
    own_lines()
    _gather_words()
    riders.riders()
    for text in ("MIT", "Apache-2.0", "BSD-3-Clause"):
        spdx_expression(text.lower())
    database = get_licenses_db()
    for key in COMMON_KEYS.split():
        if key in database:
            form = normal_form(database[key].text or "", own_lines())
            classify(form)
            riders.riding(form.split("\n"), set())
            detect_form(form, True)
    matches(UNLIKE_ANY, approximate=True)
    scanner().re.freeze()
    share_pages()
    gc.collect()
    gc.freeze()


def _gather_words() -> None:
    """Put licenseclassifier's words side by side: whoever reads one writes to its count of references, and so comes to own
    the page it is on.
    """
    known = scanner().re.dict
    known.list = [word.encode().decode() for word in known.list]
    known._map = {word: number for number, word in enumerate(known.list)}
