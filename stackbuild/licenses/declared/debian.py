"""debian/copyright in the machine-readable form (Debian copyright-format 1.0, "DEP-5"), and .reuse/dep5.

Each Files stanza rules the paths of its patterns, the last one that matches (section 4.2); its License field gives an
expression of short names in the first line (section 7.2: "and" binds tighter than "or", and a comma before either makes
it bind looser), and the text below it or in a License stanza of its own. A short name is the key of a text in the same
file: one that the tables do not know is read from its text, if the caller gives an engine. Where the engine reads a less
permissive licence in the text than the name says (GPL below "Expat"), the text counts.

A file that does not begin with a Format field has another form and declares nothing; the engines read its text. The
stanza parser is ours (`claims.stanzas`), because declarations carry line numbers and files may be hostile.
debian-inspector 31.1 keeps no line of a field, and guesses at what is not well formed.
"""

from __future__ import annotations

import re

from stackbuild.licenses.declared.claims import Field, first_of, stanzas
from stackbuild.licenses.declared.declaration import MAX_DECLARATIONS, Declaration, Kind
from stackbuild.licenses.declared.globs import MAX_GLOB_CHARS, from_dep5
from stackbuild.licenses.declared.names import tables
from stackbuild.licenses.declared.resolve import Engine, Operator, checked, resolve
from stackbuild.licenses.spdx import join, parse

MAX_GLOBS = 4_096  # of one stanza; more are left to the stanzas above
MAX_NAMES = 32  # in one License field

# Of a line with single spaces.
_COMMA = re.compile(r" ?, ?(?:(and|or) )?", re.IGNORECASE)
_JOINER = re.compile(r" (and|or|and/or) | ?[|] ?", re.IGNORECASE)


def dep5(text: str, engine: Engine | None = None, kind: Kind = "debian") -> list[Declaration]:
    """The rules of a file in DEP-5 form, in its order, for paths relative to the root of the source."""
    parts = [part for stanza in stanzas(text) for part in _apart(stanza)]
    if not parts or not first_of(parts[0], "format", "format-specification"):
        return []
    texts = _texts(parts)
    found: list[Declaration] = []
    for number, stanza in enumerate(parts):
        files, written = first_of(stanza, "files"), first_of(stanza, "license")
        if files is None and (written is None or not written.value):
            continue
        if files is not None:
            patterns = files.value.replace(",\n", "\n").rstrip(",").split()[-MAX_GLOBS:]
            globs = tuple(from_dep5(one) for one in patterns if len(one) <= MAX_GLOB_CHARS)
        elif number == 0:
            globs = ("**",)  # the header speaks for the package as a whole
        else:
            continue
        if globs:
            rule = written or Field("license", "", 0)  # it takes its paths from the stanzas above all the same
            expression = _expression(rule, texts, engine)
            found.append(Declaration(kind, expression, rule.value.split("\n")[0], rule.line, globs))
    return found[-MAX_DECLARATIONS:]


def _apart(stanza: list[Field]) -> list[list[Field]]:
    """A stanza as several where the blank line between two is missing: a field of its own (Files, License) comes again."""
    parts: list[list[Field]] = [[]]
    met: set[str] = set()
    for field in stanza:
        if field.name in ("files", "license") and (field.name in met or (field.name == "files" and "license" in met)):
            parts.append([])
            met = set()
        met.add(field.name)
        parts[-1].append(field)
    return parts


def _texts(parts: list[list[Field]]) -> dict[str, str]:
    """The texts of the short names, in lower case: of License stanzas first, else of the stanza that has one."""
    found: dict[str, str] = {}
    for alone in (True, False):
        for stanza in parts:
            field = first_of(stanza, "license")
            if field is not None and (first_of(stanza, "files") is None) == alone and "\n" in field.value:
                name, _, text = field.value.partition("\n")
                found.setdefault(" ".join(name.lower().split()), text)
    return found


def _expression(written: Field, texts: dict[str, str], engine: Engine | None) -> str | None:
    line, _, text = written.value.partition("\n")
    line = " ".join(line.split()).strip(" .;")
    if not line:
        return engine(text) if engine and text.strip() else None
    expression = _read(line, texts, engine)
    several = _COMMA.search(line) or _JOINER.search(line)
    return expression if expression is None or several else checked(expression, text, engine)


def _read(line: str, texts: dict[str, str], engine: Engine | None) -> str | None:
    """The expression of a line of short names; None if one of them is not known."""
    pieces = _COMMA.split(line)
    segments, signs = pieces[::2], [sign and sign.upper() for sign in pieces[1::2]]
    if len(_JOINER.findall(line)) + len(segments) > MAX_NAMES:
        return None
    found: list[str] = []
    for segment in segments:
        if not segment:
            continue
        one = _segment(segment, texts, engine)
        if one is None:
            return None
        found.append(one)
    if not found:
        return None
    # "A, B or C": the comma stands for the word that follows; where none does, both hold.
    words = {sign for sign in signs if sign} or {found_sign.upper() for (found_sign,) in _words(segments[-1])}
    if None in signs and len(words) != 1:
        return join(found, "AND")
    operators: list[Operator] = ["OR" if (sign or next(iter(words), "AND")) == "OR" else "AND" for sign in signs]
    whole = found[0]
    for one, operator in zip(found[1:], operators, strict=False):
        whole = join([whole, one], operator)
    return parse(whole) or whole


def _words(segment: str) -> list[tuple[str]]:
    return [(word,) for word in _JOINER.findall(segment) if word]


def _segment(segment: str, texts: dict[str, str], engine: Engine | None) -> str | None:
    """Names joined by "and" and "or" without commas: "and" binds tighter."""
    pieces = _JOINER.split(segment)
    alternatives: list[list[str]] = [[]]
    for number, name in enumerate(pieces[::2]):
        if number and (pieces[2 * number - 1] or "or").lower() == "or":
            alternatives.append([])
        one = short_name(name, texts, engine)
        if one is None:
            # A name that has "or later" or "and" in it is no joint.
            return short_name(segment, texts, engine) if len(pieces) > 1 else None
        alternatives[-1].append(one)
    return join([join(each, "AND") for each in alternatives], "OR")


def short_name(name: str, texts: dict[str, str], engine: Engine | None) -> str | None:
    """The expression of one short name: by DEP-5's own meaning, the tables, or its text in the file."""
    plain = name.strip().strip("()")
    found = tables().debian.get(plain.lower()) or resolve(plain)
    if found is None and plain.lower().startswith("gfdl-niv"):
        found = resolve(f"GFDL-{plain[9:].rstrip('+')}-no-invariants-{'or-later' if plain.endswith('+') else 'only'}")
    if found is None and engine is not None and (text := texts.get(plain.lower())):
        return engine(text)
    return None if found is None else checked(found, texts.get(plain.lower(), ""), engine)
