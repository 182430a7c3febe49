"""Manifests of lines: fields, sections and simple YAML.

| file | field | source |
|---|---|---|
| PKG-INFO, *.dist-info/METADATA | License-Expression, License, Classifier | PyPA core metadata 2.4 |
| setup.cfg | [metadata] license_expression, license, classifiers | setuptools, declarative config |
| DESCRIPTION of R | License: "|" is OR; "GPL (>= 2)"; "+ file LICENSE" | Writing R Extensions 1.1.2 |
| *.cabal | license: SPDX (Cabal 2.2), before that own names | Cabal user guide |
| dist.ini | license: class of Software::License | Dist::Zilla |
| *.opam, opam | license: string or list, AND | opam manual 2.2 |
| CITATION.cff | license: id, or list, OR | Citation File Format 1.2, schema guide |
| META.yml of Perl | license | CPAN::Meta::Spec 1.4 |
| package.yaml (hpack), shard.yml | license | hpack, Crystal shards |

YAML is read only so far: a key without indentation, with a plain or quoted scalar in one line, or a list of such. What
else YAML can do (anchors, tags, maps, text of several lines) is a licence that nobody can tell. All are linear in the text.
"""

from __future__ import annotations

import re

import re2

from stackbuild.licenses.declared.claims import Field, beside, claim, claims, distinct, first_of, line_of, stanzas
from stackbuild.licenses.declared.declaration import Declaration
from stackbuild.licenses.declared.resolve import Engine, resolve, severity
from stackbuild.licenses.declared.structured import classifiers, cpan_name
from stackbuild.licenses.lists import SEVERITY
from stackbuild.licenses.spdx import join

# ---------------------------------------------------------------- Python's metadata


def python_metadata(text: str, engine: Engine | None) -> list[Declaration]:
    """PKG-INFO and METADATA. License-Expression takes the place of License, not that of a stricter classifier."""
    fields = next(stanzas(text, folded=True), [])
    listed = [one for one in fields if one.name == "classifier"]
    said = classifiers([one.value for one in listed], engine, listed[0].line if listed else 0)
    written = [one for one in fields if one.name == "license-expression" and one.value]
    written = written or [one for one in fields if one.name == "license"]
    own = [one for field in written for one in claim(field.value.replace("\n|", "\n"), engine, field.line)]
    return beside(distinct(own), said)


def sections(text: str) -> dict[str, list[Field]]:
    """The sections of an INI file in lower case, each with its keys; continuation lines are indented. What stands before
    the first section is in "".
    """
    found: dict[str, list[Field]] = {"": []}
    current, name, value, start = found[""], "", [""], 0
    for number, line in enumerate([*text.splitlines(), "[end]"], 1):
        head = line[:1]
        if head in ("#", ";"):
            continue
        if head in (" ", "\t") and name:
            value.append(line.strip())
            continue
        if name:
            current.append(Field(name, "\n".join(value).strip(), start))
            name = ""
        bare = line.strip()
        if bare.startswith("[") and "]" in bare:
            current = found.setdefault(bare[1 : bare.index("]")].strip().lower(), [])
            continue
        match = re.match(r"[ \t]*([A-Za-z0-9_.-]+)[ \t]*[=:](.*)", line)
        if match:
            name, value, start = match[1].lower().replace("-", "_"), [match[2].strip()], number
    return found


def setup_cfg(text: str, engine: Engine | None) -> list[Declaration]:
    """setup.cfg; "file:" and "attr:" point elsewhere."""
    fields = sections(text).get("metadata", [])
    listed = first_of(fields, "classifiers", "classifier")
    said = classifiers(listed.value.split("\n"), engine, listed.line) if listed else []
    written = first_of(fields, "license_expression", "license")
    if written is None or not written.value or written.value.lower().startswith("attr:"):
        return said
    return beside(claim(written.value, engine, written.line), said)


def dist_ini(text: str, engine: Engine | None) -> list[Declaration]:
    """dist.ini of Dist::Zilla; None stands for all rights reserved."""
    fields = sections(text)[""]
    written = first_of(fields, "license")
    if written is None or not first_of(fields, "name", "author", "copyright_holder"):
        return []
    value = written.value.split(";")[0].strip()
    return claim("proprietary" if value == "None" else cpan_name(value), engine, written.line)


# ---------------------------------------------------------------- R

_FILE = re.compile(r"file\s+[\w./-]*licen[cs]e[\w.-]*\Z", re.IGNORECASE)
_R_EXACTLY = re2.compile(r"\( ?(?:== ?)?([0-9.]+) ?\)")
_R_AT_LEAST = re2.compile(r"\( ?(?:>= ?([0-9.]+) ?(?:,[^()]*)?|> ?([0-9.]+)[^()]*)\)")
_R_TEMPLATES = {
    "mit": "MIT",
    "bsd_2_clause": "BSD-2-Clause",
    "bsd_3_clause": "BSD-3-Clause",
    "bsd 2 clause": "BSD-2-Clause",
    "bsd 3 clause": "BSD-3-Clause",
}


def r_description(text: str, engine: Engine | None) -> list[Declaration]:
    """DESCRIPTION of R. A file that is added to a licence may restrict it, but for the two templates (MIT, BSD) that
    need one.
    """
    fields = [field for stanza in stanzas(text) for field in stanza]
    written = first_of(fields, "license")
    if written is None or not (first_of(fields, "package") and first_of(fields, "version", "title")):
        return []
    found = [_r_alternative(part, engine) for part in " ".join(written.value.split()).split("|")[:64]]
    known = [one for one in found if one is not None]  # who has the choice need not know the other
    expression = join(known, "OR") if known else None
    return [Declaration("manifest", expression, written.value, written.line)] if written.value else []


def _r_alternative(part: str, engine: Engine | None) -> str | None:
    name, plus, added = part.strip().partition("+")
    name = name.strip()
    template = _R_TEMPLATES.get(name.lower())
    if template and (not plus or _FILE.match(added.strip())):
        return template
    if _FILE.match(name):
        return None
    if name.lower() == "unlimited":
        return None
    expression = resolve(_R_AT_LEAST.sub(r" >= \1\2", _R_EXACTLY.sub(r" \1", name)), engine)
    if plus and (expression is None or severity(expression) == SEVERITY["permissive"]):
        return None
    return expression


# ---------------------------------------------------------------- Cabal, opam

_CABAL = {
    "BSD2": "BSD-2-Clause", "BSD3": "BSD-3-Clause", "BSD4": "BSD-4-Clause", "PublicDomain": "LicenseRef-scancode-public-domain",
    "AllRightsReserved": "LicenseRef-scancode-proprietary-license", "NONE": "LicenseRef-scancode-proprietary-license",
}  # fmt: skip


def cabal(text: str, engine: Engine | None) -> list[Declaration]:
    """*.cabal; OtherLicense and UnspecifiedLicense are licences that nobody can tell."""
    written = first_of([field for stanza in stanzas(text, "--") for field in stanza], "license")
    if written is None or not written.value:
        return []
    value = " ".join(written.value.split())
    if value in _CABAL:
        return [Declaration("manifest", _CABAL[value], value, written.line)]
    return claim(value, engine, written.line)


_OPAM = re.compile(r"^license:\s*(?=[\"\[])", re.MULTILINE)


def opam(text: str, engine: Engine | None) -> list[Declaration]:
    """An opam package; a bare `opam` file needs an `opam-version`."""
    match = _OPAM.search(text)
    if match is None or "opam-version" not in text:
        return []
    rest = text[match.end() : match.end() + 4_000]
    said = rest.partition("]")[0] if rest.startswith("[") else rest.partition("\n")[0]
    values = [
        value for value in re.findall(r'"([^"\n]*)"', said) if value
    ]  # three quotes are two empty ones and one more
    return claims(values if rest.startswith("[") else values[:1], "AND", engine, line_of(text, match.start()))


# ---------------------------------------------------------------- YAML

_SCALAR = re.compile(r"(?:\"([^\"\\]*)\"|'([^']*)'|([^\s\"'&*!|>{\[%@`#][^#]*))\s*(?:#.*)?\Z")
_UNREAD = "?unread"
_YAML_LINES = 64  # of a list


def yaml_field(text: str, key: str) -> tuple[list[str], int] | None:
    """The scalars of one key without indentation and its line, a scalar that nobody understands for what else the value is;
    None if there is no such key.
    """
    lines = text.splitlines()
    for number, line in enumerate(lines):
        name, colon, value = line.partition(":")
        if not colon or name.rstrip(" ") not in (key, f'"{key}"', f"'{key}'"):
            continue
        value = value.strip()
        below = _said_below(lines, number + 1)
        if value.startswith("["):
            flow = " ".join([value, *below])
            inside, closed, rest = flow[1:].partition("]")
            whole = closed and not rest.strip() and "#" not in flow
            return [_scalar(part) for part in inside.split(",") if part.strip()] if whole else [_UNREAD], number + 1
        if value and not value.startswith("#"):
            return [_UNREAD if below and not below[0].startswith("#") else _scalar(value)], number + 1
        if any(one != "-" and not one.startswith(("- ", "#")) for one in below) or len(below) == _YAML_LINES:
            return [_UNREAD], number + 1
        return [_scalar(one[2:]) for one in below if one.startswith("-")], number + 1
    return None


def _said_below(lines: list[str], start: int) -> list[str]:
    """What of the lines from `start` on belongs to the key above: indented, or an item of a list."""
    found: list[str] = []
    for line in lines[start:]:
        if line[:1] not in (" ", "\t", "-", "#", "") or line.startswith("---") or len(found) == _YAML_LINES:
            break
        if line.strip():
            found.append(line.strip())
    return found


def _scalar(text: str) -> str:
    match = _SCALAR.match(text.strip())
    return next((group for group in match.groups() if group is not None), "").strip() if match else _UNREAD


def _yaml(text: str, operator: str, engine: Engine | None) -> list[Declaration]:
    found = yaml_field(text, "license")
    if found is None:
        return []
    values, line = found
    return claims(values, "OR" if operator == "OR" else "AND", engine, line)


def citation(text: str, engine: Engine | None) -> list[Declaration]:
    """CITATION.cff."""
    return _yaml(text, "OR", engine) if "cff-version" in text else []


def plain_yaml(text: str, engine: Engine | None) -> list[Declaration]:
    """A manifest with one `license` and a `name`."""
    return _yaml(text, "AND", engine) if re.search(r"^name *:", text, re.MULTILINE) else []


def cpan_yaml(text: str, engine: Engine | None) -> list[Declaration]:
    """META.yml of Perl; other files of that name have no `meta-spec` or `generated_by`."""
    found = yaml_field(text, "license")
    if found is None or not re.search(r"^(?:meta-spec|generated_by) *:", text, re.MULTILINE):
        return []
    return claims([cpan_name(value) for value in found[0]], "AND", engine, found[1])
