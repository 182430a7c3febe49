"""Manifests that are programs: what they say of a licence in plain literals. Nothing is executed.

| file | what is read | source |
|---|---|---|
| setup.py | keywords `license`, `license_expression`, `classifiers` of a call of `setup` | setuptools, keywords |
| *.gemspec | `x.license = "..."`, `x.licenses = [...]`, AND | RubyGems specification reference |
| *.podspec | `s.license = "..."` or `{ :type => "..." }` | CocoaPods podspec reference |
| Makefile.PL, Build.PL | `LICENSE => "..."`, `license => "..."`, `license "..."` | ExtUtils::MakeMaker, Module::Build, Module::Install |
| mix.exs | `licenses: [...]` of the package, AND | Hex, package metadata |
| *.app.src | `{licenses, [...]}`, AND | Hex for rebar3 |
| build.sbt | `licenses := / += / ++=` | sbt reference |
| *.rockspec | `license = "..."` of the description | LuaRocks, rockspec format |
| *.nimble | `license = "..."` | Nimble, package reference |
| project.clj | `:license {:name "..." :url "..."}` | Leiningen, sample project |

Left out, as what they say is of other software than the files beside them: recipes of distributions (RPM *.spec,
PKGBUILD, APKBUILD, ebuild, Nix, conda meta.yaml, Portfile, Homebrew formulas); and pubspec.yaml, go.mod, Package.swift
and Project.toml, which have no such field.

The patterns are matched by RE2, in time linear in the text. A value that is computed is a licence that nobody can tell.
"""

from __future__ import annotations

import ast
import re
import warnings
from itertools import islice
from typing import Any

import re2

from stackbuild.licenses.declared.claims import beside, claim, claims, is_silent, line_of
from stackbuild.licenses.declared.declaration import Declaration
from stackbuild.licenses.declared.names import by_url
from stackbuild.licenses.declared.resolve import Engine, resolve
from stackbuild.licenses.declared.structured import classifiers, cpan_name

VALUE_CHARS = 4_000
MAX_VALUES = 256  # assignments that are looked at until one says something

_STRING = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'")
_WORDS = re.compile(r"%[wWqQ]?[(\[{<|]([^)\]}>|\n]*)[)\]}>|]")


def strings(text: str) -> list[str]:
    """The string literals at the beginning of a text: one, or those of a list in brackets. None if it is neither."""
    text = text.lstrip()
    if words := _WORDS.match(text):
        return words[1].split()
    if text.startswith("["):
        end = text.find("]")
        return [one or other for one, other in _STRING.findall(text[: end if end > 0 else VALUE_CHARS])]
    match = _STRING.match(text)
    return [match[1] if match[1] is not None else match[2]] if match else []


def _assigned(text: str, pattern: Any, engine: Engine | None, first: bool = False) -> list[Declaration]:
    """The declarations of values that follow a pattern; a value without literals is a licence that nobody can tell."""
    for match in islice(pattern.finditer(text), MAX_VALUES):
        rest = text[match.end() : match.end() + VALUE_CHARS]
        if values := strings(rest):
            return claims(values[:1] if first else values, "AND", engine, line_of(text, match.start()))
        if not rest.lstrip().startswith(("[]", "nil", "None", "''", '""')):
            return [Declaration("manifest", None, rest.split("\n")[0], line_of(text, match.start()))]
    return []


_GEMSPEC = re2.compile(r"(?m)^[ \t]*[A-Za-z_][A-Za-z0-9_]*\.licen[cs]es?[ \t]*\+?=[ \t]*")
_POD_TYPE = re.compile(r"\s*\{[^}]*?(?::type\s*=>|type:|['\"]type['\"]\s*=>)\s*(?P<value>['\"][^'\"\n]*['\"])")
_ROCKSPEC = re2.compile(r"(?m)^[ \t]*license[ \t]*=[ \t]*")
_NIMBLE = re2.compile(r"(?m)^license[ \t]*=[ \t]*")
_MIX = re2.compile(r"(?m)^[^#\n]*\blicenses:[ \t]*(?:\n[ \t]*)?")
_APP_SRC = re2.compile(r"(?m)^[^%\n]*\{[ \t]*'?licenses'?[ \t]*,[ \t]*(?:\n[ \t]*)?")
_SBT = re2.compile(r"(?m)^[^/\n]*\blicenses[ \t]*(?:in[ \t]+[A-Za-z]+[ \t]*)?(?::=|\+=|\+\+=)")
_SBT_NAMED = re.compile(r"License\.(\w+)")
_CLOJURE = re2.compile(r"(?m)^[^;\n]*:license[ \t\n]*\{")
_CLOJURE_PART = re.compile(r":(name|url)\s+\"([^\"\n]*)\"")
_PERL = re2.compile(r"""(?m)^[ \t]*(?:['"]?(?:LICENSE|license)['"]?[ \t]*(?:=>|\()|license[ \t]+)[ \t]*""")


def gemspec(text: str, engine: Engine | None) -> list[Declaration]:
    return _assigned(text, _GEMSPEC, engine)


def podspec(text: str, engine: Engine | None) -> list[Declaration]:
    for match in islice(_GEMSPEC.finditer(text), MAX_VALUES):
        typed = _POD_TYPE.match(text[match.end() : match.end() + VALUE_CHARS])
        if typed:
            return claim(typed["value"][1:-1], engine, line_of(text, match.start()))
    return _assigned(text, _GEMSPEC, engine)


def rockspec(text: str, engine: Engine | None) -> list[Declaration]:
    return _assigned(text, _ROCKSPEC, engine)


def nimble(text: str, engine: Engine | None) -> list[Declaration]:
    return _assigned(text, _NIMBLE, engine)


def mix(text: str, engine: Engine | None) -> list[Declaration]:
    return _assigned(text, _MIX, engine)


def app_src(text: str, engine: Engine | None) -> list[Declaration]:
    return _assigned(text, _APP_SRC, engine)


def makefile_pl(text: str, engine: Engine | None) -> list[Declaration]:
    """Makefile.PL and Build.PL: names of CPAN::Meta::Spec."""
    for match in islice(_PERL.finditer(text), MAX_VALUES):
        if values := strings(text[match.end() : match.end() + VALUE_CHARS]):
            return claims([cpan_name(value) for value in values], "AND", engine, line_of(text, match.start()))
    return []


def sbt(text: str, engine: Engine | None) -> list[Declaration]:
    """build.sbt: names, or the URLs beside them where a name says nothing; sbt's own constants."""
    values: list[str] = []
    line = 0
    for match in islice(_SBT.finditer(text), MAX_VALUES):
        rest = text[match.end() : match.end() + VALUE_CHARS].split("\n\n", maxsplit=1)[0].split("\n", 1)
        said = rest[0] if "(" not in rest[0] or ")" in rest[0] else " ".join(rest)
        line = line or line_of(text, match.start())
        names = [one or other for one, other in _STRING.findall(said)] + _SBT_NAMED.findall(said)
        urls = [name for name in names if name.startswith("http")]
        plain = [name for name in names if not name.startswith("http")]
        if plain and all(resolve(name, engine) is None for name in plain) and any(map(by_url, urls)):
            plain = urls
        values += plain or urls
    return claims(values, "AND", engine, line)


def clojure(text: str, engine: Engine | None) -> list[Declaration]:
    """project.clj: the name, else the URL."""
    match = _CLOJURE.search(text)
    if match is None:
        return []
    parts = dict(_CLOJURE_PART.findall(text[match.end() : match.end() + VALUE_CHARS].split("}", maxsplit=1)[0]))
    values = [parts[key] for key in ("name", "url") if not is_silent(parts.get(key, ""))]
    known = [value for value in values if resolve(value, engine)]
    return claim((known or values)[0], engine, line_of(text, match.start())) if values else []


# ---------------------------------------------------------------- setup.py

# ast takes some hundred bytes for each of the source; real ones are smaller.
MAX_SETUP_CHARS = 128 << 10
_SETUP_LICENSE = re2.compile(r"(?m)^[ \t]*(?:license|license_expression)[ \t]*=[ \t]*[uUrR]?")
_SETUP_CLASSIFIER = re2.compile(r"""(?m)^[^#\n'"]*['"](License ::[^'"\n]*)['"]""")
# Python's parser gives up with MemoryError or RecursionError; long runs of one operator are not even given to it.
_RUN = re2.compile(r"(?:[-+~(\[{:]\s*){200}|(?:not\s+|await\s+|lambda\s*:\s*){100}")


def setup_py(text: str, engine: Engine | None) -> list[Declaration]:
    """setup.py, by Python's own parser; one that it cannot read (Python 2) by the form of its lines."""
    tree = _parsed(text)
    if tree is None:
        found = classifiers(_SETUP_CLASSIFIER.findall(text[:MAX_SETUP_CHARS]), engine)
        return beside(_assigned(text, _SETUP_LICENSE, engine, first=True), found)
    constants: dict[str, ast.expr] = {}
    calls: list[ast.Call] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            constants.setdefault(node.targets[0].id, node.value)
        elif isinstance(node, ast.Call) and _called(node.func) in ("setup", "dict", "update"):
            calls.append(node)
    said: list[Declaration] = []
    written: list[Declaration] = []
    for call in calls:
        for keyword in call.keywords:
            value = constants.get(keyword.value.id) if isinstance(keyword.value, ast.Name) else keyword.value
            if keyword.arg in ("license", "license_expression") and not written:
                word = _literal(value)
                if word is not None:
                    written = claim(word, engine, keyword.value.lineno)
                elif not (isinstance(value, ast.Constant) and value.value is None):
                    written = [Declaration("manifest", None, "SEE LICENSE IN setup.py", keyword.value.lineno)]
            elif keyword.arg == "classifiers" and not said and value is not None:
                listed = [word for one in ast.walk(value) if (word := _literal(one)) is not None]
                said = classifiers(
                    [name for word in listed for name in word.splitlines()], engine, keyword.value.lineno
                )
    return beside(written, said)


def _parsed(text: str) -> ast.Module | None:
    if len(text) > MAX_SETUP_CHARS or "\0" in text or _RUN.search(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def _called(function: ast.expr) -> str:
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _literal(value: ast.expr | ast.AST | None) -> str | None:
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
