"""REUSE 3.3: LICENSES/, REUSE.toml, and FILE.license beside a file. (.reuse/dep5 is in `debian`.)

- `LICENSES/<id>.txt` holds the text of a licence that is used somewhere. It does not speak for the folder above: its
  declaration has itself as its one path. Where the text is of a less permissive licence than the name, the text counts.
- `REUSE.toml`: of the [[annotations]] of one file the last that matches a path rules it, also one that names no licence
  (only a holder): it takes the path from the rules above, and nobody can tell its licence here. `precedence` says when
  the rule counts: where the file itself says nothing ("closest"), beside what it says ("aggregate"), or in its place
  ("override").
- `FILE.license` speaks for FILE alone (and itself), by its SPDX-License-Identifier lines, which all hold. One without such
  lines is a text for the engines: about FILE where that has an extension (`logo.png.license`), else of the folder, as
  `project.license` is no file beside `project` but the licence of the project.

Identifiers must be SPDX or LicenseRef-*; others are licences that nobody can tell.
"""

from __future__ import annotations

import re
from typing import Any

import re2

from stackbuild.licenses.declared.claims import line_of
from stackbuild.licenses.declared.declaration import MAX_DECLARATIONS, Declaration, Precedence
from stackbuild.licenses.declared.globs import MAX_GLOB_CHARS, from_reuse, literal
from stackbuild.licenses.declared.resolve import Engine, checked
from stackbuild.licenses.declared.structured import read_toml
from stackbuild.licenses.spdx import MAX_CHARS, join, license_key, parse

MAX_GLOBS = 4_096
MAX_TAGS = 256
_PRECEDENCES: dict[str, Precedence] = {"closest": "closest", "aggregate": "aggregate", "override": "override"}
_ANNOTATION = re.compile(r"^[ \t]*\[\[[ \t]*annotations[ \t]*\]\]", re.MULTILINE)
_TAG = re2.compile(r"SPDX-License-Identifier:[ \t]*([^\r\n]*)")
_CLOSERS = ("-->", "--}}", "#}", "*)", "%>")


def license_text(name: str, text: str = "", engine: Engine | None = None) -> list[Declaration]:
    """A file of LICENSES/ by its base name and its text; none if the name is no identifier with an extension."""
    stem, _, extension = name.rpartition(".")
    identifier = stem if stem and not extension[:1].isdigit() else name  # "GPL-3.0" has no extension
    expression = license_key(identifier)
    if expression is None:
        return []
    return [Declaration("reuse", checked(expression, text, engine), identifier, 0, (literal(name),))]


def reuse_toml(text: str) -> list[Declaration]:
    """The annotations of a REUSE.toml, in its order."""
    body = read_toml(text)
    annotations = body.get("annotations") if body else None
    if not isinstance(annotations, list):
        return []
    lines = [line_of(text, 0)] if len(annotations) > MAX_DECLARATIONS else _lines(text)
    found = []
    for number, one in enumerate(annotations):
        if not isinstance(one, dict):
            continue
        paths = _strings(one.get("path"))
        said = one.get("SPDX-License-Identifier")
        written = _strings(said)
        all_read = not isinstance(said, list) or len(said) == len(written) <= MAX_TAGS
        globs = tuple(from_reuse(path.removeprefix("./")) for path in paths[-MAX_GLOBS:] if len(path) <= MAX_GLOB_CHARS)
        if not globs:
            continue
        expressions = [parse(value) for value in written[:MAX_TAGS]]
        known = [value for value in expressions if value]
        expression = join(known, "AND") if known and len(known) == len(expressions) and all_read else None
        said = one.get("precedence")
        precedence: Precedence = _PRECEDENCES.get(said, "closest") if isinstance(said, str) else "closest"
        line = lines[number] if number < len(lines) else 0
        found.append(Declaration("reuse", expression, " AND ".join(written), line, globs, precedence))
    return found[-MAX_DECLARATIONS:]


def _lines(text: str) -> list[int]:
    """The line of each [[annotations]], in one pass."""
    found, at, line = [], 0, 1
    for match in _ANNOTATION.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        found.append(line)
    return found


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _of_file(name: str) -> tuple[str, ...]:
    return literal(name.removesuffix(".license")), literal(name)


def sidecar_globs(name: str) -> tuple[str, ...]:
    """What FILE.license is about, by its base name, if it has no tags: FILE; none, so its folder, if FILE has no extension."""
    _, dot, extension = name.removesuffix(".license").lstrip(".").rpartition(".")
    return _of_file(name) if dot and not extension[:1].isdigit() else ()  # x-1.0.license is of x


def _unclosed(value: str) -> str:
    """A value without the sign at its end that closes a comment or a string."""
    value = value.strip()
    if value.endswith("*/"):
        return value[:-1].rstrip("*").rstrip()
    closer = next((sign for sign in _CLOSERS if value.endswith(sign)), "")
    return (value.removesuffix(closer) if closer else value.rstrip("\"'>")).rstrip()


def sidecar(text: str, name: str) -> list[Declaration]:
    """FILE.license, by its base name: what its tags say of FILE."""
    globs = _of_file(name)
    tags = []
    for match in _TAG.finditer(text):
        tags.append((_unclosed(match[1][:MAX_CHARS]), match.start()))
        if len(tags) > MAX_TAGS:
            break
    tags = [(value, start) for value, start in tags if value]
    if not tags:
        return []
    expressions = [parse(value) for value, _ in tags[:MAX_TAGS]]
    expression = (
        None if None in expressions or len(tags) > MAX_TAGS else join([value for value in expressions if value], "AND")
    )
    raw = " AND ".join(value for value, _ in tags)
    return [Declaration("reuse", expression, raw, line_of(text, tags[0][1]), globs)]
