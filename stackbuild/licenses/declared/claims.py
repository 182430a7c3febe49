"""What the parsers share: a field's value becomes a declaration, and text becomes fields, in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stackbuild.licenses.declared.declaration import Declaration, Kind
from stackbuild.licenses.declared.names import by_url
from stackbuild.licenses.declared.resolve import Engine, Operator, resolve, severity
from stackbuild.licenses.spdx import join

# Values of a licence field that say nothing.
_SILENT_WORDS = "unknown none null noassertion n/a na - ? ~ tbd todo undefined unspecified nil"
SILENT = frozenset(("", *_SILENT_WORDS.split()))
_POINTER = re.compile(
    r"(?:see|file|refer\s+to|in|read|check)\b[\s:]*(?:the\s+|licen[cs]e\s+|in\s+|file\s+)*[\w./\\-]+(?:\s+file)?(?:\s+for\s+[\w\s]+)?\W*\Z"
    r"|[\w./\\-]*(?:licen[cs]e|copying)[\w-]*(?:\.(?:txt|md|rst|html))\Z|licen[cs]e\Z|copying\Z",
    re.IGNORECASE,
)


def is_silent(raw: str) -> bool:
    """Whether a value says nothing at all."""
    return raw.strip().strip("\"'").lower() in SILENT


def is_pointer(raw: str) -> bool:
    """Whether a value only says in which file the licence is: "SEE LICENSE IN x", "LICENSE.txt"."""
    return len(raw) < 200 and _POINTER.match(raw.strip()) is not None


def claim(
    raw: str, engine: Engine | None, line: int = 0, kind: Kind = "manifest", slash: Operator = "AND"
) -> list[Declaration]:
    """The declaration of one value; none if it is silent. A pointer to a file is a licence that nobody can tell."""
    if is_silent(raw):
        return []
    expression = None if is_pointer(raw) else resolve(raw.strip(), engine, slash)
    return [Declaration(kind, expression, raw, line)]


def claims(
    values: Sequence[str], operator: Operator, engine: Engine | None, line: int = 0, slash: Operator = "AND"
) -> list[Declaration]:
    """One declaration of several values that a format joins; one that nobody understands makes the whole unknown."""
    said = [value for value in dict.fromkeys(values) if not is_silent(value)]
    if not said:
        return []
    if len(said) == 1:
        return claim(said[0], engine, line, slash=slash)
    found = [None if is_pointer(value) else resolve(value.strip(), engine, slash) for value in said[:64]]
    expression = None if None in found or len(said) > 64 else join([one for one in found if one], operator)
    return [Declaration("manifest", expression, f" {operator} ".join(said), line)]


def beside(first: list[Declaration], second: list[Declaration]) -> list[Declaration]:
    """Two voices of one file: the second counts if one of the first has no answer, or it is less permissive than all.

    What the first says stays in any case: who reads it tells a pointer to a licence file from terms of its own.
    """
    if not second or not first:
        return first or second
    if any(one.expression is None for one in first):
        return first + second
    worst = max(severity(one.expression) for one in first)
    return first + [one for one in second if one.expression and severity(one.expression) > worst]


def distinct(found: Iterable[Declaration]) -> list[Declaration]:
    """Declarations that all hold, each expression once, and what nobody can tell once for each wording."""
    kept: dict[object, Declaration] = {}
    for one in found:
        kept.setdefault(one.expression or one.raw, one)
    return list(kept.values())


def worse(name: str, url: str, engine: Engine | None) -> str:
    """Of a licence's name and the URL beside it the one that counts: the name, unless the URL is of a less permissive one."""
    linked = by_url(url) if url else None
    if linked is None or is_silent(name):
        return url if is_silent(name) else name
    said = resolve(name, engine)
    return url if said is not None and severity(linked) > severity(said) else name


def line_of(text: str, position: int) -> int:
    """The 1-based line of a position."""
    return text.count("\n", 0, position) + 1


# ---------------------------------------------------------------- "Name: value" with continuation lines


@dataclass(frozen=True)
class Field:
    """One field: its name in lower case, its value with the continuation lines (joined by line feeds), its line."""

    name: str
    value: str
    line: int


_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_/-]*)[ \t]*:(.*)", re.DOTALL)


def stanzas(text: str, comment: str = "#", folded: bool = False) -> Iterator[list[Field]]:
    """The stanzas of a text: fields, with a blank line between stanzas (Debian policy 5.1, RFC 822).

    Lines that begin with a blank continue a field; those that begin with `comment` are left out; what is neither is
    skipped. `folded`: a line of blanks continues a field too (RFC 5322; so does setuptools write a text with paragraphs).
    """
    stanza: list[Field] = []
    name, start = "", 0
    value: list[str] = []

    def close() -> None:
        if name:
            stanza.append(Field(name, "\n".join(value).strip(), start))

    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() and not (folded and line and name):
            close()
            name = ""
            if stanza:
                yield stanza
            stanza = []
        elif line[0] in " \t":
            if name:
                value.append(line.strip())
        elif line.startswith(comment):
            continue
        else:
            close()
            match = _FIELD.match(line)
            name = match[1].lower() if match else ""
            value, start = [match[2].strip()] if match else [], number
    close()
    if stanza:
        yield stanza


def first_of(fields: Sequence[Field], *names: str) -> Field | None:
    """The first field of one of the names, in the order of the names."""
    for name in names:
        for field in fields:
            if field.name == name:
                return field
    return None
