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
from collections.abc import Iterator
from itertools import islice
from typing import Any

import re2

from stackbuild.licenses.declared.claims import beside, claim, claims, distinct, line_of, worse
from stackbuild.licenses.declared.declaration import Declaration
from stackbuild.licenses.declared.names import by_url
from stackbuild.licenses.declared.resolve import Engine, resolve
from stackbuild.licenses.declared.structured import classifiers, cpan_name

VALUE_CHARS = 4_000
MAX_VALUES = 256  # assignments that are looked at
MAX_SAID = 16  # of them that say something

_STRING = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'")
# An element of a list, or what stands between two; quotes in a comment are none.
_ITEM = re.compile(
    r"(?P<string>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')(?:\.freeze\b)?|[\s,]+|(?:#|--|//|%%?)[^\n]*|(?P<end>\])"
)
_GOES_ON = re.compile(r"[ \t]*(?:\.(?!freeze\b)|[+*%|&?<]|\b(?:if|unless|and|or)\b)")
_NOTHING = ("nil", "None", "''", '""')
_WORDS = re.compile(r"%[wWqQ]?[(\[{<|]([^)\]}>|\n]*)[)\]}>|]")


def strings(text: str) -> list[str] | None:
    """The string literals at the beginning of a text: one, or those of a list in brackets; none of "" and []. None if it is
    anything else, or a program goes on with them ("MIT" + x, "MIT" unless y).
    """
    text = text.lstrip()
    if words := _WORDS.match(text):
        return words[1].split()
    if not text.startswith("["):
        match = _STRING.match(text)
        if match is None or _GOES_ON.match(text, match.end()):
            return [] if text.startswith(_NOTHING) else None
        return [_inside(match)] if _inside(match) else []
    found: list[str] = []
    at = 1
    while match := _ITEM.match(text, at):
        if match["end"]:
            return found
        if match["string"]:
            found.append(match["string"][1:-1])
        at = match.end()
    return None


def _inside(match: re.Match[str]) -> str:
    return match[1] if match[1] is not None else match[2]


def _assigned(text: str, pattern: Any, engine: Engine | None) -> list[Declaration]:
    """The declarations of all values that follow a pattern; one that is computed is a licence that nobody can tell."""
    said: list[Declaration] = []
    for match in islice(pattern.finditer(text), MAX_VALUES):
        rest, line = text[match.end() : match.end() + VALUE_CHARS], line_of(text, match.start())
        values = strings(rest)
        if values is None:
            said.append(Declaration("manifest", None, rest.split("\n")[0], line))
        else:
            said += claims(values, "AND", engine, line)
        if len(said) == MAX_SAID:
            break
    return distinct(said)


_GEMSPEC = re2.compile(r"(?m)^[ \t]*[A-Za-z_][A-Za-z0-9_]*\.licen[cs]es?[ \t]*\+?=[ \t]*")
_POD_TYPE = re.compile(r"\s*\{[^}]*?(?::type\s*=>|type:|['\"]type['\"]\s*=>)\s*(?P<value>['\"][^'\"\n]*['\"])")
_ROCKSPEC = re2.compile(r"(?m)^[ \t]*license[ \t]*=[ \t]*")
_NIMBLE = re2.compile(r"(?m)^license[ \t]*=[ \t]*")
_MIX = re2.compile(r"(?m)^[^#\n]*\blicenses:[ \t]*(?:\n[ \t]*)?")
_APP_SRC = re2.compile(r"(?m)^[^%\n]*\{[ \t]*'?licenses'?[ \t]*,[ \t]*(?:\n[ \t]*)?")
_SBT = re2.compile(r"(?m)^[^/\n]*\blicenses[ \t]*(?:in[ \t]+[A-Za-z]+[ \t]*)?(?::=|\+=|\+\+=)")
_SBT_NAMED = re.compile(r"License\.(\w+)")
_BRACKET = re.compile(r"[()\[\]\n]|\"(?:[^\"\\\n]|\\.)*\"|//[^\n]*")
_CLOJURE = re2.compile(r"(?m)^[^;\n]*:licenses?[ \t\n]*(\[[ \t\n]*)?\{")
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
    """Makefile.PL and Build.PL: names of CPAN::Meta::Spec, and URLs of `resources`. What is no literal may be other code."""
    said: list[Declaration] = []
    for match in islice(_PERL.finditer(text), MAX_VALUES):
        if values := strings(text[match.end() : match.end() + VALUE_CHARS]):
            names = [value if "://" in value else cpan_name(value) for value in values]
            said += claims(names, "AND", engine, line_of(text, match.start()))
        if len(said) >= MAX_SAID:
            break
    return distinct(said)


def sbt(text: str, engine: Engine | None) -> list[Declaration]:
    """build.sbt: names, or the URLs beside them where a name says nothing; sbt's own constants."""
    values: list[str] = []
    line = 0
    for match in islice(_SBT.finditer(text), MAX_VALUES):
        said = _to_bracket(text[match.end() : match.end() + VALUE_CHARS])
        line = line or line_of(text, match.start())
        names = [_inside(one) for one in _STRING.finditer(said)] + _SBT_NAMED.findall(said)
        urls = [name for name in names if name.startswith("http")]
        plain = [name for name in names if not name.startswith("http")]
        if plain and all(resolve(name, engine) is None for name in plain) and any(map(by_url, urls)):
            plain = urls
        values += plain or urls
    return claims(values, "AND", engine, line)


def _to_bracket(text: str) -> str:
    """The text to where its first bracket closes, or to the end of its line if it has none there."""
    depth, at = 0, 0
    for match in _BRACKET.finditer(text):
        at, sign = match.end(), match[0]
        depth += sign in ("(", "[") or -(sign in (")", "]"))
        if depth <= 0 and sign in (")", "]", "\n"):
            break
    else:
        at = len(text)
    return text[:at]


def clojure(text: str, engine: Engine | None) -> list[Declaration]:
    """project.clj: the name, else the URL; of several licences the user may choose."""
    match = _CLOJURE.search(text)
    if match is None:
        return []
    rest = text[match.end() : match.end() + VALUE_CHARS]
    values = []
    for one in rest.partition("]")[0].split("}") if match[1] else [rest.partition("}")[0]]:
        parts = dict(_CLOJURE_PART.findall(one))
        name, url = parts.get("name", ""), parts.get("url", "")
        values.append(url if by_url(url) and not resolve(name, engine) else worse(name, url, engine))
    return claims([one for one in values if one], "OR", engine, line_of(text, match.start()))


# ---------------------------------------------------------------- setup.py

# ast takes some hundred bytes for each of the source; real ones are smaller.
MAX_SETUP_CHARS = 128 << 10
MAX_KEYWORDS = 1_024
_SETUP_LICENSE = re2.compile(r"(?m)^[ \t]*(?:license|license_expression)[ \t]*=[ \t]*[uUrR]?")
_SETUP_CLASSIFIER = re2.compile(r"""(?m)^[^#\n'"]*['"](License ::[^'"\n]*)['"]""")
# Python's parser gives up with MemoryError or RecursionError; long runs of one operator are not even given to it.
_RUN = re2.compile(r"(?:[-+~(\[{:]\s*){200}|(?:not\s+|await\s+|lambda\s*:\s*){100}")


def setup_py(text: str, engine: Engine | None) -> list[Declaration]:
    """setup.py, by Python's own parser; one that it cannot read (Python 2) by the form of its lines."""
    tree = _parsed(text)
    if tree is None:
        found = classifiers(_SETUP_CLASSIFIER.findall(text[:MAX_SETUP_CHARS]), engine)
        return beside(_assigned(text, _SETUP_LICENSE, engine), found)
    constants: dict[str, ast.expr] = {}
    calls: list[ast.Call] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            constants[name] = ast.Tuple([], ast.Load()) if name in constants else node.value  # set twice: nobody knows
        elif isinstance(node, ast.Call) and _called(node.func) in ("setup", "dict", "update"):
            calls.append(node)
    said: list[str] = []
    written: list[Declaration] = []
    for name, node in islice((pair for call in calls for pair in _keywords(call, constants)), MAX_KEYWORDS):
        value = constants.get(node.id) if isinstance(node, ast.Name) else node
        if name in ("license", "license_expression"):
            word = _literal(value)
            if word is not None:
                written += claim(word, engine, node.lineno)
            elif not (isinstance(value, ast.Constant) and value.value is None):
                written.append(Declaration("manifest", None, "SEE LICENSE IN setup.py", node.lineno))
        elif name == "classifiers" and value is not None:
            listed = [word for one in ast.walk(value) if (word := _literal(one)) is not None]
            said += [one for word in listed for one in word.splitlines()]
    return beside(distinct(written), classifiers(said, engine))


def _keywords(call: ast.Call, constants: dict[str, ast.expr]) -> Iterator[tuple[str, ast.expr]]:
    """The keyword arguments of a call, with those of a dictionary in plain words that is unpacked into it."""
    for keyword in call.keywords:
        value = constants.get(keyword.value.id) if isinstance(keyword.value, ast.Name) else keyword.value
        if keyword.arg is not None:
            yield keyword.arg, keyword.value
        elif isinstance(value, ast.Dict):
            for key, one in zip(value.keys, value.values, strict=True):
                if (name := _literal(key)) is not None:
                    yield name, one


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
