"""From what people write in the place of a licence to an SPDX expression.

In this order: an SPDX expression, read strictly; a name, classifier or URL of the tables; several of them joined by
words or signs; and, where the caller gives one, an engine. What is left is not guessed at. Where several readings are
left, the answer is one that is not more permissive than what is said:

- "and", ",", "&", ";" and "/" mean AND, unless the text says that there is a choice ("or", "|", "either", "dual
  licensed"); a caller whose format gives "/" the meaning OR (Cargo before 2019) says so.
- A bare family name is its oldest licence or any later one (GPL, LGPL), or for families of one class the usual one
  (BSD is BSD-3-Clause, Apache is Apache-2.0). The table is `licenses/names.toml`.
- An exception that is not known is left out beside a copyleft licence (exceptions permit more); beside others the
  whole is unresolved, as it may forbid something.
- What an engine finds in a part of the text counts only if it is not permissive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Literal

from stackbuild.licenses.declared.names import by_classifier, by_exception, by_name, by_url
from stackbuild.licenses.expression import read_expression
from stackbuild.licenses.lists import SEVERITY, scancode_licenses
from stackbuild.licenses.spdx import join, parse

Engine = Callable[[str], str | None]
Operator = Literal["AND", "OR"]

MAX_CHARS = 2_000  # of what is read as names; a longer text is left to the engine
ENGINE_CHARS = 20_000
LICENSE_CHARS = 300  # a longer text is one of a licence, not the name of one
CHECKED_CHARS = 1 << 16  # the GNU GPL has 35,000
MAX_PARTS = 12

_LINK = re.compile(r"\[([^\]\[]*)\]\([^)(\s]*\)")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>()\"',]+")
_LEAD = re.compile(
    r"(?:(?:dist|this|the|software|package|project|code|module|is|source)\s+)*"
    r"(?:(?:li[cs]en[cs]ed?|released|distributed|available|published|provided)\s+)?(?:under|as)\s+(?:the\s+)?"
    r"(?:terms\s+(?:and\s+conditions\s+)?of\s+(?:the\s+)?)?|(?:spdx-)?licen[cs]e(?:-identifier)?\s*[:=]\s*",
    re.IGNORECASE,
)
_SEE = re.compile(
    r"[\s,;.(\[-]{0,8}(?:please\s+)?(?:see|refer\s+to|as\s+(?:found|described|specified)\s+in|details\s+in|in)\s+(?:the\s+)?"
    r"(?:file\s+|accompanying\s+|included\s+|enclosed\s+|top[- ]level\s+){0,4}['\"`<]{0,4}[\w./-]{0,80}"
    r"(?:licen[cs]e|copying)[\w./-]{0,80}['\"`>]{0,4}"
    r"(?:\s+file)?(?:\s+for\s+(?:more\s+|full\s+|the\s+){0,4}(?:licen[cs]e\s+)?(?:details|information|terms|text|info))?[\s.)\]]{0,8}\Z",
    re.IGNORECASE,
)
_OF_TERMS = re.compile(r"commercial|enterprise|proprietary|\bpro\b|business|restrict|terms|additional", re.IGNORECASE)
_DUAL = re.compile(
    r"(?:dual|double|tri|triple|multi)(?:\W{0,2}licen[cs]\w*)?\W+(?:under\s+)?(?:the\s+|either\s+(?:the\s+)?)?(?:both\s+)?|either\s+(?:of\s+)?(?:the\s+)?",
    re.IGNORECASE,
)
_LATER = re.compile(
    r"[\s,]{0,4}(?:\bor\s+\(?(?:at\s+your\s+option\)?\s+)?(?:any\s+)?(?:later|newer|greater|above|higher)"
    r"|\band\s+(?:any\s+)?(?:later|newer|above|higher))(?:\s+versions?)?\b(?:\s+\(at\s+your\s+option\))?",
    re.IGNORECASE,
)
_JOINT = re.compile(
    r" ?(?:, ?(and/or|and|or)\b|(\|\|?|/|,|;|&{1,8}| \+ |\band/or\b|\band\b|\bor\b|\bplus\b)) ?", re.IGNORECASE
)
_WITH = re.compile(r"(.+?)[\s-]+(?:with|w/)[\s-]+(?:the\s+|a\s+)?(.+?)\Z", re.IGNORECASE)
_HYPHENED = re.compile(r"([AL]?GPL-?[0-9.]+\+?)-(.+)-exceptions?\Z", re.IGNORECASE)
_ABBREVIATION = re.compile(r"([^()]+)\(([^()]+)\)([^()]*)\Z")
_WORD = re.compile(r"[^\W_]+")
_DIGIT = re.compile(r"[0-9]")
_OR_SIGNS = frozenset(("or", "|", "||"))
_CLOSED = {"(": ")", "[": "]", '"': '"', "'": "'", "`": "`", "<": ">", "*": "*"}


def resolve(raw: str, engine: Engine | None = None, slash: Operator = "AND") -> str | None:
    """The canonical SPDX expression of free text; None if it names no licence, or more than one way to read it.

    `engine`: gives an expression for a text, or None (`scancode_engine`); asked only if the tables have no answer.
    `slash`: what "/" between licences means. Linear in the text; never raises.
    """
    found = _resolve_text(raw, slash) if len(raw) <= MAX_CHARS else None
    if found is None and engine is not None and raw.strip():
        found = engine(raw[:ENGINE_CHARS])
    return found


@lru_cache(maxsize=1 << 14)
def _resolve_text(raw: str, slash: Operator) -> str | None:
    if raw.lstrip().startswith("License ::"):
        return by_classifier(raw)
    text = _bare(raw)
    if not text:
        return None
    return _known(text) or _joined(text, slash)


def _bare(text: str) -> str:
    """The text without what stands around a name: brackets, quotes, "licensed under", "see LICENSE for details"."""
    text = " ".join(text.split())
    for _ in range(4):
        before = text
        text = text.strip(" .,;:")
        if len(text) > 1 and _CLOSED.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
            text = text[1:-1]
        text = _LINK.sub(r"\1", text) if "](" in text else text
        if lead := _LEAD.match(text):
            text = text[lead.end() :]
        if len(text) < 400:
            seen = _SEE.search(text)
            text = text if seen is None or _OF_TERMS.search(seen[0]) else text[: seen.start()] or text
        if text == before:
            break
    return text


def _known(text: str) -> str | None:
    """What the tables say of a text as one whole."""
    found = parse(text) or by_name(text)
    if found is None and ("/" in text or "." in text):
        found = by_url(text) if " " not in text else _beside_url(text)
    if found is None and "(" in text:
        found = _with_abbreviation(text)
    if found is None:
        found = _with_exception(text)
    return found


def _beside_url(text: str) -> str | None:
    """A name beside a URL: both say the same, or one of them is not known."""
    urls = _URL.findall(text)
    if len(urls) != 1:
        return None
    name = _URL.sub(" ", text).strip(" ()<>[]-,:;.")
    named, linked = parse(name) or by_name(name), by_url(urls[0])
    if named is None:
        return linked if not re.search(r"[^\W\d_]", name) else None
    return _agreed((name, named), (urls[0], linked))


def _with_abbreviation(text: str) -> str | None:
    """ "X (Y)" or "X (Y) 2.0" where both say the same, or where Y only says which X."""
    match = _ABBREVIATION.match(text)
    if match is None:
        return None
    outside, inside = f"{match[1]} {match[3]}", match[2]
    named, meant = (parse(part.strip()) or by_name(part) for part in (outside, inside))
    return _agreed((outside, named), (inside, meant)) if named and meant else by_name(f"{outside} {inside}")


def _agreed(named: tuple[str, str], meant: tuple[str, str | None]) -> str | None:
    """One answer of two words with theirs: the same; or, where one is a bare family, a version of it that is no freer."""
    (name, first), (other, second) = named, meant
    if second is None or second == first:
        return first
    if first.split("-", 1)[0] != second.split("-", 1)[0]:
        return None
    if not _DIGIT.search(name) and severity(second) >= severity(first):
        return second
    clear = _DIGIT.search(name) is not None and not _DIGIT.search(other)
    return first if clear and severity(first) >= severity(second) else None


def _with_exception(text: str) -> str | None:
    """ "GPL-2+ with OpenSSL exception", "GPL-2+-autoconf-exception"."""
    match = _WITH.match(text) or _HYPHENED.match(text)
    if match is None:
        return None
    base = parse(match[1]) or by_name(match[1])
    if base is None or " " in base:
        return None
    exception = by_exception(match[2])
    if exception is not None:
        return parse(f"{base} WITH {exception}")
    copyleft = severity(base) > SEVERITY["permissive"] and "exception" in text.lower()
    return base if copyleft else None


def _joined(text: str, slash: Operator) -> str | None:
    """Names joined by words or signs. Of the ways to cut the text into names, that with the longest ones first."""
    choice = False
    if match := _DUAL.match(text):
        choice, text = True, text[match.end() :]
    text = re.sub(r"\s+licen[cs]es\Z", "", _LATER.sub("+", text))
    parts: list[str] = []
    joints: list[str] = []
    spans: list[tuple[int, int]] = []
    start = 0
    within = [match.span() for match in _URL.finditer(text)]
    for joint in _JOINT.finditer(text):
        if any(begin <= joint.start() < end for begin, end in within):
            continue
        parts.append(text[start : joint.start()])
        spans.append((start, joint.start()))
        joints.append((joint[1] and f", {joint[1]}") or joint[2].strip())
        start = joint.end()
        if len(parts) > MAX_PARTS:
            return None
    spans.append((start, len(text)))
    if not joints:
        return _known(_bare(text)) if choice else None
    found: list[str] = []
    between: list[str] = []
    at = 0
    while at < len(spans):
        for end in range(len(spans) - 1, at - 1, -1):
            if at == 0 and end == len(spans) - 1:
                continue  # the whole has been looked up, or reads "and" where there is a choice
            one = _known(_bare(text[spans[at][0] : spans[end][1]]))
            if one is not None:
                break
        else:
            return None
        found.append(one)
        if end + 1 < len(spans):
            between.append(joints[end].lower())
        at = end + 1
    return _combine(found, between, choice, slash)


def _combine(found: list[str], between: list[str], choice: bool, slash: Operator) -> str:
    """Expressions joined by what stands between them; of two readings the less permissive."""
    signs = {sign.removeprefix(", ") for sign in between}
    if choice or signs <= _OR_SIGNS or (slash == "OR" and signs <= _OR_SIGNS | {"/"}):
        return join(found, "OR")
    if signs == {"or", ","}:  # "A, B or C"
        return join(found, "OR")
    if signs != {"or", "and"}:
        return join(found, "AND")
    for number in range(len(between) - 1, -1, -1):  # "A or B, and C": the comma binds looser
        if between[number].startswith(", "):
            sides = (
                _combine(found[: number + 1], between[:number], False, slash),
                _combine(found[number + 1 :], between[number + 1 :], False, slash),
            )
            return join(list(sides), "AND" if between[number].endswith("and") else "OR")
    alternatives: list[list[str]] = [[found[0]]]
    for one, sign in zip(found[1:], between, strict=True):
        if sign == "or":
            alternatives.append([one])
        else:
            alternatives[-1].append(one)
    return join([join(each, "AND") for each in alternatives], "OR")


# ---------------------------------------------------------------- how bad, and the engine


@lru_cache(maxsize=8_192)
def severity(expression: str | None) -> int:
    """How bad an expression is by ScanCode's categories, of a choice the better: 0 permissive to 4 non-permissive."""
    if expression is None:
        return SEVERITY["unknown"]
    known = scancode_licenses()

    def of_key(key: str) -> int:
        return 0 if key in known.exceptions else SEVERITY[known.class_of(key)]

    return max(map(of_key, read_expression(expression, "choice", of_key)), default=SEVERITY["unknown"])


def checked(expression: str, text: str, engine: Engine | None) -> str:
    """The licence that a name says, unless an engine reads a less permissive one in the text that goes with it."""
    found = engine(text[:CHECKED_CHARS]) if engine is not None and len(text) >= LICENSE_CHARS else None
    return found if found is not None and severity(found) > severity(expression) else expression


@cache
def scancode_engine() -> Engine:
    """ScanCode's exact matches of "license: TEXT", as `resolve` takes it. Loads its index (seconds, 1.4 GB) when it is
    first asked. What is as long as a licence is read as one, as the engines do with a file.
    """

    @lru_cache(maxsize=1 << 12)  # texts of up to 64 KB
    def ask(text: str) -> str | None:
        from stackbuild.licenses.detect import answer_of, detect_form
        from stackbuild.licenses.scancode import matches, own_lines
        from stackbuild.licenses.text import normal_form

        if len(text) >= LICENSE_CHARS:
            form = normal_form(text, own_lines())
            found = _all_of(detect_form(form, False).expressions)
            permissive = severity(found) == SEVERITY["permissive"]
            # A permissive text is read as a licence file is: for riders, changed grants and terms that nobody knows.
            return _all_of(detect_form(form, True).expressions) if permissive else found
        form = normal_form(f"license: {text}", own_lines())
        brief = matches(form)
        answer = answer_of(brief, "exact")
        expression = _all_of(answer.real)
        # ScanCode passes over words that are in no rule: "MIT-ish" is not all of a match.
        whole = answer.verbatim and brief[0].words >= len(_WORD.findall(form))
        return expression if whole or severity(expression) != SEVERITY["permissive"] else None

    return ask


def _all_of(expressions: Iterable[str]) -> str | None:
    """Expressions that all hold; None if there are none, or one is not known or names no licence."""
    found = [parse(one) for one in sorted(expressions)]
    known = [one for one in found if one is not None and one not in scancode_licenses().unknown]
    return join(known, "AND") if found and len(known) == len(found) else None
