"""What the licence section of a read-me declares.

A section begins with a heading of words for licence ("License", "Licensing", "Copyright and License", "Lizenz", "许可证"),
in Markdown, reStructuredText, AsciiDoc, Org, HTML or as a line of its own, and ends with the next heading or after 4 KB
(`sections`). A heading about somebody else's licence ("Third-party licenses", "License server") begins none. A read-me
without such a section declares nothing; neither does a mention elsewhere.

In the section, names of licences count that are unmistakable (GPL, BSD, MIT in capitals), stand beside a word for
licence or after "under", or alone; and known URLs, and badges ("license-MIT-blue"). Several names all hold, unless the
section says that there is a choice. Where the section speaks of exceptions, other parts or commercial terms, a
permissive answer is not given. A section without a name is a licence that nobody can tell, if the caller's engine does
not find one.
"""

from __future__ import annotations

import html
import re

from stackbuild.licenses.declared.claims import is_pointer
from stackbuild.licenses.declared.declaration import Declaration
from stackbuild.licenses.declared.names import by_url, reduce_name, tables
from stackbuild.licenses.declared.resolve import Engine, resolve, severity
from stackbuild.licenses.declared.sections import MARKUP, after_word, plain, sections
from stackbuild.licenses.declared.spdx import join, license_key, parse
from stackbuild.licenses.lists import SEVERITY

NAME_WORDS = 12

_URL = re.compile(r"https?://[^\s<>()\"'\]`]+")
_BADGE = re.compile(r"/badge/li[cs]en[cs]e-((?:[^-\s/?#.]|--|\.(?!svg\b|png\b))+)-", re.IGNORECASE)
_TOKEN = re.compile(r"[^\W_]+(?:[.+'-]+[^\W_]+)*\+?|[^\w\s]|\n")
_BREAK = frozenset('\n.;:!?()[]<>|,"“”')
_STOP = frozenset(".;:!?[]|")  # no name goes on after these
_OF_LICENSE = frozenset(
    ("license", "licence", "licenses", "licences", "licensed", "licenced", "licensing", "lizenz", "licencia", "licença")
    + ("лицензия", "许可证", "协议", "ライセンス")
)
_AFTER = frozenset(("under", "by", "is", "license", "licence", "licensed", "licencia", "unter", "sous", "bajo"))
_SURE = re.compile(
    r"same terms as|[AL]?GPL|BSD|Apache|Mozilla|MPL|Unlicense|CC0|CC BY|Creative Commons|WTFPL|Eclipse Public|public domain"
    r"|Artistic|MIT\b|ISC\b|General Public|EUPL|zlib",
    re.IGNORECASE,
)
_CHOICE = re.compile(
    r"\b(?:dual|either|at your option|your choice|choose|tri)[ -]?(?:licen[cs]\w*)?\b"
    r"|\bor\b(?! (?:\W?at your option\W? )?(?:any )?(?:later|newer|greater|above|higher))",
    re.IGNORECASE,
)
# What may take back what a section says of a permissive licence.
_DOUBT = re.compile(
    r"\b(?:except|exceptions?|commercial|non-?commercial|proprietary|third[- ]party|3rd[- ]party|bundled|portions"
    r"|some (?:files|parts|code)|other (?:files|parts)|not (?:licensed|covered|included)|individual files|respective"
    r"|additional terms|restrictions?|prohibited|may not|excluding|unless|until|trademarks?|assets|paid|purchase|enterprise"
    r"|evaluation|trial|subscription|profit)\b",
    re.IGNORECASE,
)
_TEXT_BEGINS = re.compile(
    r"you may not use this|permission is hereby granted|permission to use, copy|redistribution and use in source"
    r"|unless required by applicable|this is free and unencumbered",
    re.IGNORECASE,
)
# A family named beside one of its versions is that version: "the GPL ... version 3".
_FAMILIES = {
    "GPL-1.0-or-later": "GPL-", "LGPL-2.0-or-later": "LGPL-", "AGPL-3.0-or-later": "AGPL-", "MPL-1.0": "MPL-",
    "EPL-1.0": "EPL-", "BSD-3-Clause": "BSD-", "CC-BY-4.0": "CC-BY-",
}  # fmt: skip


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
    found = [one for one in (resolve(heading), after_word(heading)) if one][:1] + named(body)
    if not found:
        said = plain(body)
        whole = resolve(said) if len(said) <= 300 and not is_pointer(said) else None
        return engine(body) if whole is None and engine is not None and said else whole
    distinct = list(dict.fromkeys(found))
    distinct = [one for one in distinct if not _names_better(one, distinct)]
    choice = len(distinct) > 1 and _CHOICE.search(_head(body)) is not None
    expression = join(distinct, "OR" if choice else "AND")
    if severity(expression) == SEVERITY["permissive"] and _DOUBT.search(_head(body)):
        return None
    return parse(expression) or expression


def _head(body: str) -> str:
    """What a section says before the text of the licence itself, which is full of conditions."""
    start = _TEXT_BEGINS.search(body)
    return body[: start.start()] if start else body


def _names_better(family: str, found: list[str]) -> bool:
    """Whether a version of a bare family is among what was found."""
    prefix = _FAMILIES.get(family)
    return prefix is not None and any(other != family and other.startswith(prefix) for other in found)


# ---------------------------------------------------------------- names in running text


def named(body: str) -> list[str]:
    """The expressions of the badges, URLs and names of a text."""
    found: list[str] = []
    for match in _BADGE.finditer(body):
        value = match[1].replace("--", "-").replace("%20", " ").replace("_", " ").replace("%2B", "+")
        found.append(resolve(value) or "")
    found += [by_url(match[0].rstrip(".,;")) or "" for match in _URL.finditer(body)]
    found += _names(html.unescape(MARKUP.sub(" ", _URL.sub(" ", body))))
    return [expression for expression in found if expression]


def _names(text: str) -> list[str]:
    """Names of the tables among the words of a text, the longest first, each word once."""
    words = _TOKEN.findall(text)
    known = tables().names
    found: list[str] = []
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
                found.append(expression)
                at = end
                break
        else:
            at += 1
    return found


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
