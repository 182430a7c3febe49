"""Which files are read for what they say of licences, as what, and what kind of evidence that makes.

A text that is named as a licence ("license") or as what may speak of one ("notice") is read by the engines (`detect`); the
rest are formats that declare a licence (`declared`). What any of them says is a row of SAID.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.licenses.decide import UNKNOWN_REFERENCE
from stackbuild.licenses.declared import declarations, declaring_kind, scancode_engine
from stackbuild.licenses.declared.claims import is_pointer
from stackbuild.licenses.declared.declaration import Declaration
from stackbuild.licenses.declared.formats import FORMATS
from stackbuild.licenses.declared.reuse import sidecar_globs
from stackbuild.licenses.names import is_license_file, is_license_proper
from stackbuild.licenses.policy import Policy
from stackbuild.licenses.tags import joined
from stackbuild.licenses.text import SAYS_MORE, decode

if TYPE_CHECKING:
    from stackbuild.licenses.detect import Found

SAID = pa.struct(
    [
        pa.field("expression", pa.string()),  # SPDX; null: something that nobody can tell
        pa.field("engine", pa.string()),  # name and version
        pa.field("score", pa.float32()),  # 0 to 1
        pa.field("first_line", pa.int32()),  # from 1; null where the whole file says it
        pa.field("last_line", pa.int32()),
        pa.field("said", pa.string()),  # the words of a declaration
        pa.field("globs", pa.list_(pa.string())),  # of the paths that it is about; none: all of its folder
        pa.field("precedence", pa.string()),  # of a path rule: closest, aggregate or override
        pa.field("aside", pa.bool_()),  # found beside licences, and names none
    ]
)

KINDS = {"license": "license_file", "notice": "notice"}  # of evidence, by format
KINDS |= {each.name: "manifest" for each in FORMATS}
KINDS |= dict.fromkeys(("REUSE.toml", "reuse/dep5", "LICENSES", "sidecar", "debian/copyright"), "path_rule")
KINDS["readme"] = "notice"
BY_BASE_NAME = frozenset(("LICENSES", "sidecar", "readme"))  # what they say depends on it: "readme:README.md"
WITHOUT_COMMENTS = ("PKG-INFO", "DESCRIPTION", "META.yml", "META.json", "cabal", "CITATION.cff")
ABOVE = tuple(each.name for each in FORMATS if each.above)


def kind_of(format_: str) -> str:
    """The kind of evidence that a format makes."""
    return KINDS[format_.partition(":")[0]]


def formats_of(paths: pa.Array, policy: Policy) -> pa.Array:
    """As what each path (string, length n) is read: string of length n, null for a file that is not.

    Policies that rank evidence read what declares a licence as that, and the rest as texts; the published ones know texts.
    """
    named = is_license_file(paths, policy.data.names)
    proper = is_license_proper(paths, policy.data.names)
    license_text = pc.and_(named, proper) if policy.data.group_of("license_file") is not None else _none(paths)
    notice = pc.and_(named, pc.invert(proper)) if policy.data.group_of("notice") is not None else _none(paths)
    texts = pc.case_when(pc.make_struct(license_text, notice), pa.scalar("license"), pa.scalar("notice"))
    if policy.data.rule != "ranked":
        return texts
    names = declaring_kind(paths).dictionary_decode()
    read = pa.array([name for name, kind in KINDS.items() if policy.data.group_of(kind) is not None], pa.string())
    names = pc.if_else(pc.is_in(names, value_set=read), names, None)
    exact = pc.is_in(names, value_set=pa.array(sorted(BY_BASE_NAME), pa.string()))
    base = pc.replace_substring_regex(paths, r"^.*/", "")
    names = pc.if_else(exact, pc.binary_join_element_wise(names, base, ":"), names)
    return pc.coalesce(names, texts)


def is_statement(formats: pa.Array) -> pa.Array:
    """Which files (formats of `formats_of`, length n) are statements about licences from their first line to the last, so that
    what stands at their head is no header of their own: bool (n,). A manifest that knows comments may have one.
    """
    known = [name for name, kind in KINDS.items() if kind == "manifest" and name not in WITHOUT_COMMENTS]
    manifests = pa.array(known, pa.string())
    return pc.and_(pc.is_valid(formats), pc.invert(pc.is_in(formats, value_set=manifests)))


def _none(paths: pa.Array) -> pa.Array:
    return pa.array(np.zeros(len(paths), bool))


def folders(path_bytes: pa.Array) -> pa.Array:
    """The folder of each path (binary, length n), with its "/"; empty for the root."""
    return pc.replace_substring_regex(path_bytes, r"[^/]*\z", "")


def spoken_folders(path_bytes: pa.Array, formats: pa.Array) -> pa.Array:
    """The folder that each of n files (binary paths without a leading "/", formats of `formats_of`) speaks for, with its "/";
    empty for the root.
    """
    own = folders(path_bytes)
    above = pc.is_in(formats, value_set=pa.array(ABOVE, pa.string()))
    return pc.if_else(above, pc.replace_substring_regex(own, r"[^/]*/\z", ""), own)


# A licence-named file that only says where the licence is: `.. include:: ../LICENSE`, "See COPYING", or a path alone. What
# has a scheme lies elsewhere, and so is a licence that nobody read.
POINTER_CHARS = 400
SAID_CHARS = 500  # of a declaration, that evidence shows
TEXT_CHARS = 200  # a field of a manifest with more, or of several lines, may hold the text of a licence
_POINTER = re.compile(
    r"include::|\b(?:see|refer|read|in|at|to|under)\b.{0,120}\b(?:li[cs]en[cs]e|copying|copyright|unlicense|notice|readme)\b"
    r"|^[\w./ -]*(?:li[cs]en[cs]e|copying)[\w.-]*$",
    re.IGNORECASE | re.DOTALL,
)
_ELSEWHERE = re.compile(
    r"[a-z]://|\bwww\.|subscri|purchas|\bbuy\b|\bfees?\b|commercial|enterprise|proprietary|agree", re.IGNORECASE
)
KEPT = "all rights reserved"  # all that a file says which is named as a licence
NAMES = "a name or a few words"  # the same of one that names a holder, or says what nobody understands
_KEPT = re.compile(r"\ball rights (?:are )?reserved\b", re.IGNORECASE)
_HOLDERS = re.compile(r"copyright|copr\.|©|\(c\)|\b(?:19|20)[0-9]{2}\b", re.IGNORECASE)
_FILE_NAMES = re.compile(r"[\w.-]*[\w-]")

_SENTENCE = re.compile(r"\b(?:you|your|we|i|it|may|can|do|does|this|is|are|be|not|no|any)\b", re.IGNORECASE)


def points_elsewhere(text: str) -> bool:
    """Whether a text that nobody recognises, of a file that is named as a licence, only refers to another. It is not followed:
    what it means may lie outside of the repository.
    """
    return len(text) <= POINTER_CHARS and _POINTER.search(text.strip()) is not None and _ELSEWHERE.search(text) is None


def names_a_license_file(raw: str) -> bool:
    """Whether the value of a licence field, which only points to a file, names one that is read as a licence itself; or the
    field is computed by the program that it is in, so that the licence file speaks.
    """
    if _ELSEWHERE.search(raw):
        return False
    names = pa.array(
        ["/" + name for name in _FILE_NAMES.findall(raw.replace("SEE LICENSE IN", " ").replace("\\", "/"))]
    )
    return raw.endswith(" setup.py") or (len(names) > 0 and bool(pc.any(is_license_file(names)).as_py()))


def says_more(text: str) -> bool:
    """Whether a text says anything but who holds the copyright; an empty one does not."""
    return len(text) > POINTER_CHARS or SAYS_MORE.search(text.lower()) is not None or _SENTENCE.search(text) is not None


def names_only_holders(text: str) -> bool:
    """Whether each line of a text that says no more is of a copyright: a file that holds "Commercial" names nobody."""
    return all(_HOLDERS.search(line) for line in text.splitlines() if any(c.isalpha() for c in line))


class Reader:
    """Reads contents in one of the formats, and keeps what it found for each text."""

    def __init__(self) -> None:
        from stackbuild.licenses.detect import Detector

        self._detector = Detector()
        self._engine = scancode_engine()

    def read(self, content: bytes, format_: str) -> list[dict[str, Any]]:
        """Rows of SAID."""
        if format_ in ("license", "notice"):
            return self._text(content, format_ == "license")
        name, _, base = format_.partition(":")
        _, found = declarations(name, base or name, content, self._engine)
        if not found and name == "debian/copyright":
            return self._text(content, True)  # of the old form, prose
        if not found and name == "sidecar":
            return self._sidecar(content, base)
        return _without_pointers(
            {
                "expression": one.expression or self._understood(one),
                "engine": f"stackbuild {name}",
                "score": 1.0,
                "first_line": one.line or None,
                "last_line": one.line or None,
                "said": one.raw[:SAID_CHARS],
                "globs": one.globs,
                "precedence": one.precedence if one.globs else None,
            }
            for one in found
        )

    def _understood(self, one: Declaration) -> str | None:
        """What a field says in words that are no name: it only points to a licence file, or holds the text of a licence."""
        if is_pointer(one.raw) and names_a_license_file(one.raw):
            return UNKNOWN_REFERENCE
        if len(one.raw) < TEXT_CHARS and "\n" not in one.raw:
            return None
        found = self._detector.detect(one.raw.encode("utf-8", "replace"), license_named=True).expressions
        return joined(frozenset(found)) if found and UNKNOWN_REFERENCE not in found else None

    def _sidecar(self, content: bytes, base: str) -> list[dict[str, Any]]:
        """A FILE.license without tags of licences is a text of one, if it does not only name holders."""
        globs = sidecar_globs(base)
        said = self._text(content, True)
        if b"SPDX-FileCopyrightText" in content:
            said = [one for one in said if one["expression"] is not None]
        return [{**one, "globs": globs, "precedence": "closest" if globs else None} for one in said]

    def _text(self, content: bytes, named: bool) -> list[dict[str, Any]]:
        found = self._detector.detect(content, license_named=named)
        asides = [{**_row(one), "aside": True} for one in found.asides]
        own: list[dict[str, Any]] = []
        if named and all(one.expression == UNKNOWN_REFERENCE for one in found.found):
            text = decode(content)
            if text is not None and not found.found and not says_more(text):
                said = KEPT if _KEPT.search(text) else "" if names_only_holders(text) else NAMES
                kept = [{"expression": None, "engine": found.engine, "score": 0.0, "said": said}]
                return [*(kept if said else []), *asides]
            if text is None or not points_elsewhere(text):
                own = [{"expression": None, "engine": found.engine, "score": 0.0}]  # terms that nobody recognises
            elif not found.found:
                own = [{"expression": UNKNOWN_REFERENCE, "engine": found.engine, "score": 0.0}]
        return [*own, *map(_row, found.found), *asides]


def _without_pointers(said: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a declaring file says; beside a licence that it names, a pointer to a licence file says nothing."""
    rows = list(said)
    named = any(one["expression"] not in (None, UNKNOWN_REFERENCE) and not one["globs"] for one in rows)
    return [one for one in rows if not (named and one["expression"] == UNKNOWN_REFERENCE and not one["globs"])]


def _row(one: Found) -> dict[str, Any]:
    return {
        "expression": one.expression,
        "engine": one.engine,
        "score": one.score,
        "first_line": one.lines[0],
        "last_line": one.lines[1],
    }
