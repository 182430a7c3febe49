"""What the licence section of a read-me declares.

A section begins with a heading of words for licence ("License", "Licensing", "Copyright and License", "Lizenz", "许可证"),
in Markdown, reStructuredText, AsciiDoc, Org, HTML or as a line of its own, and ends with the next heading or after 4 KB
(`sections`). A heading about somebody else's licence ("Third-party licenses", "License server") begins none. A read-me
without such a section declares nothing; neither does a mention elsewhere.

In the section, names of licences count that are unmistakable (GPL, BSD, MIT in capitals), stand beside a word for
licence or after "under", or alone; and known URLs, and badges ("license-MIT-blue"). Several names all hold, unless the
section says that there is a choice. Where the section speaks of exceptions, other parts or commercial terms, or limits
who may do what ("Students: MIT. Others: contact us.", riders), a permissive answer is not given. A section without a name is a
licence that nobody can tell, if the caller's engine does not find one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from stackbuild.licenses.declared.claims import is_pointer
from stackbuild.licenses.declared.declaration import Declaration
from stackbuild.licenses.declared.names import by_url, reduce_name, tables
from stackbuild.licenses.declared.resolve import Engine, resolve, severity
from stackbuild.licenses.declared.sections import MARKUP, after_word, plain, sections
from stackbuild.licenses.lists import SEVERITY
from stackbuild.licenses.riders import riding
from stackbuild.licenses.spdx import join, license_key, parse
from stackbuild.licenses.text import normal_form

NAME_WORDS = 12

_URL = re.compile(r"https?://[^\s<>()\"'\]`]+")
_BADGE = re.compile(r"/badge/li[cs]en[cs]e-((?:[^-\s/?#.]|--|\.(?!svg\b|png\b))+)-", re.IGNORECASE)
_TOKEN = re.compile(r"[^\W_]+(?:[.+'-]+[^\W_]+)*\+?|[^\w\s]|\n")
_WRAPPED = re.compile(r"(?<=[^\n]{40})[ \t]{0,8}\n[ \t]{0,80}(?=[^\W_])")  # a name may run on in the next line
_BREAK = frozenset('\n.;:!?()[]<>|,"“”')
_STOP = frozenset(".;:!?[]|")  # no name goes on after these
_STOP_GAP = frozenset(".;:!?")
_WORDS_OF_LICENSE = (
    "license licence licenses licences licensed licenced licensing lizenz licencia licença лицензия 许可证 协议"
)
_OF_LICENSE = frozenset(_WORDS_OF_LICENSE.split())
_AFTER = frozenset(("under", "by", "is", "license", "licence", "licensed", "licencia", "unter", "sous", "bajo"))
_SURE = re.compile(
    r"same terms as|[AL]?GPL|BSD|Apache|Mozilla|MPL|Unlicense|CC0|CC BY|Creative Commons|WTFPL|Eclipse Public|public domain"
    r"|Artistic|MIT\b|ISC\b|General Public|EUPL|zlib",
    re.IGNORECASE,
)
_DUAL = re.compile(r"\b(?:dual|double|tri)[ -]?licen[cs]\w*", re.IGNORECASE)
# Words between two names that leave the choice.
_OR = frozenset(("or", "/", "|"))
_GAP_WORDS = 8
# What may take back what a section says of a permissive licence.
_DOUBT = re.compile(
    r"\b(?:except|exceptions?|commercial(?! support)|non-?commercial|proprietary|third[- ]party|3rd[- ]party|bundled|portions"
    r"|some (?:files|parts|code)|other (?:files|parts)|not (?:licensed|covered|included)|individual files|respective"
    r"|additional terms|restrictions?|prohibited|may not|excluding|unless|until|assets|paid|purchase|enterprise"
    r"|evaluation|trial|subscription|profit|maybe|undecided|haven't|not yet|all rights reserved)\b",
    re.IGNORECASE,
)
# What limits whom or what a licence is for, whoever states it.
_LIMITS = re.compile(
    r"\b(?:(?:for|by) (?:hobbyists|students|individuals|humans|open[- ]source projects)"
    r"|contact (?:us|me|sales|the (?:authors?|owners?|maintainers?))|(?:every(?:one|body) else|others?)\s*[:：]"
    r"|(?:others|every(?:one|body) else) (?:must|need|should|have to|are|please)|source[- ]available|only|solely|exclusively"
    r"|(?:personal|private|educational|academic|research|non-?profit|internal|learning|study) (?:use|purposes?)"
    r"|nur|ausschließlich|uniquement|seulement|exclusivement|solamente|únicamente|prohibid[oa]|interdite?|verboten)\b"
    r"|(?<!不)[仅僅]|只能|只允许|只可|禁止|不得|不可|不允许|请勿|請勿|非商|のみ|только|запрещ",
    re.IGNORECASE,
)
_TEXT_BEGINS = re.compile(
    r"unless you explicitly state otherwise|you may not use this|permission is hereby granted|permission to use, copy"
    r"|redistribution and use in source"
    r"|unless required by applicable|this is free and unencumbered",
    re.IGNORECASE,
)
# A family named beside one of its versions is that version: "the GPL ... version 3".
_FAMILIES = {
    "GPL-1.0-or-later": ("GPL-",),
    "LGPL-2.0-or-later": ("LGPL-",),
    "AGPL-3.0-or-later": ("AGPL-",),
    "MPL-1.0": ("MPL-",),
    "EPL-1.0": ("EPL-",),
    "EUPL-1.0": ("EUPL-",),
    "BSD-3-Clause": ("BSD-",),
    "CC-BY-4.0": ("CC-BY-",),
    "LicenseRef-scancode-public-domain": ("Unlicense", "CC0-"),
}


def readme(text: str, name: str = "", engine: Engine | None = None) -> list[Declaration]:
    """What the first section that tells a licence declares; else the first one, with None. `name`: the base name."""
    found = None
    for heading, body, line in sections(text, name.lower().endswith(".org")):
        expression = tell(heading, body, engine)
        declaration = Declaration("readme", expression, " ".join(f"{heading}: {body}".split()), line)
        if expression is not None:
            return [declaration]
        found = found or declaration
    return [found] if found else []


def tell(heading: str, body: str, engine: Engine | None = None) -> str | None:
    """The expression of a section; None if it names none, or may mean less than it names."""
    linked, names = named(body)
    if title := resolve(heading) or after_word(heading):
        linked.append(title)
    if not linked and not names:
        said = plain(body)
        whole = resolve(said) if len(said) <= 300 and not is_pointer(said) else None
        found = engine(body) if whole is None and engine is not None and said else whole
        return None if _permissive(found) and _limited(_head(body)) else found
    distinct = {one for group in names for one in group} | set(linked)
    groups = [[one for one in group if not _names_better(one, distinct)] for group in names]
    if _DUAL.search(_head(body)) and len(groups) == 2:
        groups = [groups[0] + groups[1]]
    told = {one for group in groups for one in group}
    groups += [[one] for one in linked if one not in told and not _names_better(one, distinct)]
    expression = join([join(group, "OR") for group in groups if group], "AND")
    if _permissive(expression) and (_DOUBT.search(_head(body)) or _limited(_head(body))):
        return None
    return parse(expression) or expression


def _permissive(expression: str | None) -> bool:
    return severity(expression) == SEVERITY["permissive"]


def _limited(text: str) -> bool:
    """Whether a text limits whom or what a licence is for, or has a rider as licence files have."""
    return _LIMITS.search(text) is not None or bool(riding(normal_form(text).split("\n"), set()))


def _head(body: str) -> str:
    """What a section says before the text of the licence itself, or the terms of contributions: both are full of
    conditions.
    """
    start = _TEXT_BEGINS.search(body)
    return body[: start.start()] if start else body


def _names_better(family: str, found: set[str]) -> bool:
    """Whether a version of a bare family is among what was found, or the licence that puts into the public domain."""
    prefixes = _FAMILIES.get(family, ())
    return any(other != family and other.startswith(prefixes) for other in found) if prefixes else False


# ---------------------------------------------------------------- names in running text


def named(body: str) -> tuple[list[str], list[list[str]]]:
    """The expressions of the badges and URLs of a text, and of its names: groups that leave the choice."""
    linked: list[str] = []
    for match in _BADGE.finditer(body):
        value = match[1].replace("--", "-").replace("%20", " ").replace("_", " ").replace("%2B", "+")
        linked.append(resolve(value) or "")
    linked += [by_url(match[0].rstrip(".,;")) or "" for match in _URL.finditer(body)]
    groups: list[list[str]] = []
    last = 0
    text = html.unescape(MARKUP.sub(" ", _URL.sub(" ", body)))
    words = _TOKEN.findall(_WRAPPED.sub(" ", text))
    for expression, at, end in _names(words):
        gap = [word.lower() for word in words[last:at]]
        if groups and len(gap) <= _GAP_WORDS and not _OR.isdisjoint(gap) and _STOP_GAP.isdisjoint(gap):
            groups[-1].append(expression)
        else:
            groups.append([expression])
        last = end
    return [expression for expression in linked if expression], groups


def _names(words: list[str]) -> Iterator[tuple[str, int, int]]:
    """Names of the tables among the words of a text, the longest first, each word once: expression, first word, end."""
    known = tables().names
    at = 0
    while at < len(words):
        stop = at
        while stop < min(at + NAME_WORDS, len(words)) and words[stop] not in _STOP:
            stop += 1
        if words[at] in _BREAK or not words[at][0].isalnum():
            stop = at
        for end in range(stop, at, -1):
            if words[end - 1] in _BREAK and words[end - 1] != ")":
                continue
            phrase = " ".join(words[at:end])
            expression = known.get(reduce_name(phrase)) or (license_key(phrase) if end == at + 1 else None)
            if expression and _counts(words, at, end, phrase):
                yield expression, at, end
                at = end
                break
        else:
            at += 1


def _counts(words: list[str], at: int, end: int, phrase: str) -> bool:
    """Whether a name in running text is meant as a licence."""
    before = words[at - 1].lower() if at else "\n"
    after = words[end].lower() if end < len(words) else "\n"
    certain = any(char.isupper() for char in phrase) or " " in phrase
    if before in ("no", "not") or not certain or phrase.lower() in _OF_LICENSE:
        return False
    if _SURE.search(phrase):
        return True
    if after in _OF_LICENSE or not _OF_LICENSE.isdisjoint(word.lower() for word in words[at:end]):
        return len(reduce_name(phrase)) > 1
    leads = words[at - 2].lower() if at > 1 and before in ("the", "a") else before
    return license_key(phrase) is not None and (leads in _AFTER or (before in _BREAK and after in _BREAK))
