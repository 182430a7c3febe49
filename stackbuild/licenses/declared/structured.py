"""Manifests in JSON, TOML and XML.

| file | field | source |
|---|---|---|
| package.json, bower.json | `license`: expression, {type, url}; `licenses`: list, OR; of both fields both hold | npm docs, package.json |
| composer.json | `license`: string or array, OR; "proprietary" | Composer docs, schema |
| META.json of Perl | `license`: list; which applies is not said, so AND | CPAN::Meta::Spec 2 |
| elm.json, haxelib.json, vcpkg.json, deno.json, jsr.json, dub.json | `license` | each one's manifest reference |
| codemeta.json | `license`: URL, or a list, AND | CodeMeta 3 |
| *.podspec.json | `license`: string or {type} | CocoaPods podspec reference |
| pyproject.toml | `project.license` (PEP 639 string; PEP 621 table), `tool.poetry.license`, classifiers | PyPA specifications |
| Cargo.toml | `license` ("/" is OR) and `license-file` of `package` and `workspace.package`, AND | Cargo book, manifest |
| pom.xml | `licenses/license` (name, url), OR | Maven POM reference |
| *.nuspec | `license` by type; `licenseUrl` | NuGet nuspec reference |
| *.csproj, *.fsproj, *.vbproj, Directory.Build.props | `PackageLicenseExpression`, -File, -Url | MSBuild pack target |
| package.xml | `license` of ROS (REP 149, several: AND) and PEAR | REP 149; PEAR manual |
| *.metainfo.xml, *.appdata.xml | `project_license` | AppStream 1.0 |

A file that is cut by the bound on its size or is not well formed declares nothing; a licence field of a wrong type or
with words that nobody understands is a licence that nobody can tell. XML with a document type that declares anything of
its own is not read, so no entity is ever expanded.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any
from xml.parsers import expat

import re2

from stackbuild.licenses.declared.claims import beside, claim, claims, distinct, is_silent, line_of, worse
from stackbuild.licenses.declared.declaration import Declaration
from stackbuild.licenses.declared.names import by_url, tables
from stackbuild.licenses.declared.resolve import Engine, Operator, resolve

_JSON_LINE = re.compile(r'"licen[cs]es?"\s*:')
_TOML_LINE = re.compile(r"^[ \t]*licen[cs]e", re.MULTILINE)
# tomllib takes time quadratic in the number of parts of a key.
_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_TOML_KEY = re2.compile(rf"(?m)(?:^|[{{,])[ \t\[]*{_KEY}(?:[ \t]*\.[ \t]*{_KEY}){{32}}")


# ---------------------------------------------------------------- JSON

# What Deno takes in JSON: comments, and a comma behind the last value. What has no end ends with its line or the text, so
# that nothing is looked for twice.
_COMMENT = re2.compile(r"""(?s)("(?:[^"\\\n]|\\.)*"?)|//[^\n]*|/\*(?:[^*]|\*+[^*/])*(?:\*+/|\**\z)""")
_TRAILING = re2.compile(r"""(?s)("(?:[^"\\\n]|\\.)*"?)|,(?:\s*[}\]])""")


def _plain_json(match: Any) -> str:
    return match[1] or match[0].lstrip(",") if match[0][:1] in ('"', ",") else " "


def read_json(text: str) -> dict[str, Any] | None:
    """An object of JSON; None if it is none, or too deep."""
    try:
        body = json.loads(text, parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _number(digits: str) -> str:
    return digits[:40]  # no number counts here, and those of a million digits cost


def _value(value: Any) -> str | None:
    """One entry of a licence field: a string, or an object with type, name or URL; None if it is neither."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        said = {key: value[key] for key in ("type", "name", "@id", "license", "url") if isinstance(value.get(key), str)}
        url = said.pop("url", "")
        name = next((word for word in said.values() if not is_silent(word)), "")
        return worse(name, url, None) or None
    return None


def _unknown(value: Any, line: int) -> list[Declaration]:
    return [Declaration("manifest", None, json.dumps(value)[:500] if _shallow(value) else "", line)]


def _shallow(value: Any) -> bool:
    return not isinstance(value, dict | list) or all(not isinstance(one, dict | list) for one in value)


def _field(value: Any, operator: Operator, engine: Engine | None, line: int) -> list[Declaration]:
    """A licence field: one entry, or a list of them that `operator` joins."""
    if value is None or value is False or value in ("", [], {}):
        return []
    values = [_value(one) for one in value] if isinstance(value, list) else [_value(value)]
    said = [one for one in values if one is not None]
    return claims(said, operator, engine, line) if len(said) == len(values) else _unknown(value, line)


def _json(text: str, keys: tuple[str, ...], operator: Operator, engine: Engine | None) -> list[Declaration]:
    body = read_json(text)
    if body is None:
        return []
    match = _JSON_LINE.search(text)
    line = line_of(text, match.start()) if match else 0
    return distinct(one for key in keys for one in _field(body.get(key), operator, engine, line))


def npm(text: str, engine: Engine | None) -> list[Declaration]:
    """package.json, bower.json, and what took over their field."""
    return _json(text, ("license", "licence", "licenses"), "OR", engine)


def composer(text: str, engine: Engine | None) -> list[Declaration]:
    """composer.json."""
    return _json(text, ("license",), "OR", engine)


def plain_json(text: str, engine: Engine | None) -> list[Declaration]:
    """A manifest with one `license`; if it is a list, all hold. Deno's may have comments."""
    if read_json(text) is None:
        text = _TRAILING.sub(_plain_json, _COMMENT.sub(_plain_json, text))
    return _json(text, ("license",), "AND", engine)


def cpan_json(text: str, engine: Engine | None) -> list[Declaration]:
    """META.json of Perl; other files of that name have no `meta-spec`."""
    body = read_json(text)
    if body is None or "meta-spec" not in body:
        return []
    values = body.get("license")
    said = values if isinstance(values, list) else [values]
    match = _JSON_LINE.search(text)
    words = [cpan_name(one) for one in said if isinstance(one, str)]
    return claims(words, "AND", engine, line_of(text, match.start()) if match else 0)


def cpan_name(word: str) -> str:
    """A licence of CPAN::Meta::Spec or Software::License as a name: "lgpl_2_1" is "lgpl 2.1"."""
    return re.sub(r"(?<=[0-9])_(?=[0-9])", ".", word).replace("_", " ")


# ---------------------------------------------------------------- TOML


def read_toml(text: str) -> dict[str, Any] | None:
    """A TOML document; None if it is none, too deep, or has keys that nobody writes."""
    if _LONG_TOML_KEY.search(text):
        return None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError, OverflowError, TypeError, KeyError, AttributeError, IndexError):
        return None


def table(body: Any, *keys: str) -> dict[str, Any]:
    """The table below `keys`; an empty one if there is none."""
    for key in keys:
        body = body.get(key) if isinstance(body, dict) else None
    return body if isinstance(body, dict) else {}


def classifiers(values: Any, engine: Engine | None, line: int = 0) -> list[Declaration]:
    """The licences of trove classifiers: all hold, as nobody says which. Those that are of several licences ("DFSG
    approved") say nothing beside one that names its own.
    """
    said = [" ".join(one.split()) for one in values if isinstance(one, str)] if isinstance(values, list) else []
    said = [one for one in said if one.startswith("License ::") and one != "License :: OSI Approved"]
    several = [one for one in said if tables().classifiers.get(one) == ""]
    return claims([one for one in said if one not in several] or several, "AND", None, line)


def pyproject(text: str, engine: Engine | None) -> list[Declaration]:
    """pyproject.toml."""
    body = read_toml(text)
    if body is None:
        return []
    match = _TOML_LINE.search(text)
    line = line_of(text, match.start()) if match else 0
    said: list[Declaration] = []
    for place in (("project",), ("tool", "poetry"), ("tool", "flit", "metadata")):
        found = table(body, *place)
        field = _project_license(found.get("license"), engine, line)
        said += beside(field, classifiers(found.get("classifiers"), engine))
    return distinct(said)


def _project_license(value: Any, engine: Engine | None, line: int) -> list[Declaration]:
    """A string (PEP 639), or a table with a text or a file (PEP 621)."""
    if value is None or isinstance(value, str):
        return claim(value or "", engine, line)
    parts = value if isinstance(value, dict) else {}
    said = claim(parts["text"], engine, line) if isinstance(parts.get("text"), str) else []
    if isinstance(parts.get("file"), str):
        said.append(Declaration("manifest", None, f"SEE LICENSE IN {parts['file']}", line))
    return said or [Declaration("manifest", None, "", line)]


def cargo(text: str, engine: Engine | None) -> list[Declaration]:
    """Cargo.toml. `license.workspace = true` says nothing here: the manifest of the workspace speaks. One that is both
    manifests speaks for its own package and for the members below, which are not told apart here.
    """
    body = read_toml(text)
    if body is None:
        return []
    match = _TOML_LINE.search(text)
    line = line_of(text, match.start()) if match else 0
    found: list[Declaration] = []
    for package in (table(body, "package") or table(body, "project"), table(body, "workspace", "package")):
        value = package.get("license")
        said: list[Declaration] = []
        if isinstance(value, str):
            said = claim(value, engine, line, slash="OR")
        elif value is not None and not isinstance(value, dict):
            said = [Declaration("manifest", None, "", line)]
        if isinstance(package.get("license-file"), str):
            said.append(Declaration("manifest", None, f"SEE LICENSE IN {package['license-file']}", line))
        found += said
    return distinct(found)


# ---------------------------------------------------------------- XML


class _Refused(Exception):
    """A document type that declares something of its own."""


MAX_XML_DEPTH = 256
MAX_XML_FOUND = 256


def read_xml(text: str, wanted: frozenset[str]) -> list[tuple[str, dict[str, str], str, int]] | None:
    """The elements of an XML document whose path of local names ("project/licenses/license/name") is wanted, as (path,
    attributes, text, line); None if it is not well formed or declares entities.
    """
    found: list[tuple[str, dict[str, str], str, int]] = []
    names: list[str] = []
    opened: list[tuple[int, dict[str, str], list[str], int]] = []
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True

    def start(name: str, attributes: dict[str, str]) -> None:
        names.append(name.rsplit(":", 1)[-1])
        if len(names) > MAX_XML_DEPTH:
            raise _Refused
        if len(names) <= 5 and "/".join(names) in wanted:
            opened.append((len(names), attributes, [], parser.CurrentLineNumber))

    def end(name: str) -> None:
        if opened and opened[-1][0] == len(names):
            _, attributes, pieces, line = opened.pop()
            if len(found) < MAX_XML_FOUND:
                found.append(("/".join(names), attributes, " ".join("".join(pieces).split())[:4_000], line))
        names.pop()

    def characters(data: str) -> None:
        if opened and opened[-1][0] == len(names):
            opened[-1][2].append(data)

    def refuse(*_: Any) -> None:
        raise _Refused

    def doctype(_: str, __: str | None, ___: str | None, internal: bool) -> None:
        if internal:
            raise _Refused

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, characters
    parser.StartDoctypeDeclHandler, parser.EntityDeclHandler = doctype, refuse
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except (expat.ExpatError, _Refused, ValueError):
        return None
    return found


def pom(text: str, engine: Engine | None) -> list[Declaration]:
    """pom.xml: of several licences the user may choose."""
    place = "project/licenses/license"
    found = read_xml(text, frozenset((place, f"{place}/name", f"{place}/url"))) or []
    licenses: list[tuple[str, int]] = []
    part: dict[str, str] = {}
    for path, _, value, line in found:
        if path == place:  # closes after its parts
            name, url = part.get("name", ""), part.get("url", "")
            chosen = worse(name, url, engine) if resolve(name, engine) or by_url(url) is None else url
            if chosen:
                licenses.append((chosen, line))
            part = {}
        else:
            part[path.rsplit("/", 1)[-1]] = value
    return claims([value for value, _ in licenses], "OR", engine, licenses[0][1] if licenses else 0)


def nuspec(text: str, engine: Engine | None) -> list[Declaration]:
    """*.nuspec: the licence by its type, else by URL. aka.ms/deprecateLicenseUrl stands in for the former."""
    place = "package/metadata/"
    found = read_xml(text, frozenset((f"{place}license", f"{place}licenseUrl"))) or []
    said: list[Declaration] = []
    for path, attributes, value, line in found:
        if path.endswith("/license"):
            if attributes.get("type") == "file":
                said.append(Declaration("manifest", None, f"SEE LICENSE IN {value}", line))
            else:
                said += claim(value, engine, line)
    if said:
        return distinct(said)
    urls = [(value, line) for _, _, value, line in found if "deprecatelicenseurl" not in value.lower()]
    return claim(urls[0][0], engine, urls[0][1]) if urls else []


def msbuild(text: str, engine: Engine | None) -> list[Declaration]:
    """A project of MSBuild: all that it sets, as conditions are not evaluated; the URL, which is the old way, if there is
    nothing else. A property that is computed is a licence that nobody can tell.
    """
    place = "Project/PropertyGroup/PackageLicense"
    found = read_xml(text, frozenset(f"{place}{end}" for end in ("Expression", "File", "Url"))) or []
    set_ = [(path.removeprefix(place), value, line) for path, _, value, line in found if value]
    said: list[Declaration] = []
    for end, value, line in [one for one in set_ if one[0] != "Url"] or set_:
        if end == "File" or "$(" in value:
            said.append(Declaration("manifest", None, f"SEE LICENSE IN {value}", line))
        else:
            said += claim(value, engine, line)
    return distinct(said)


def package_xml(text: str, engine: Engine | None) -> list[Declaration]:
    """package.xml of ROS or PEAR."""
    found = read_xml(text, frozenset(("package/license",))) or []
    return claims([value for _, _, value, _ in found], "AND", engine, found[0][3] if found else 0)


def appstream(text: str, engine: Engine | None) -> list[Declaration]:
    """Metainfo of AppStream: `project_license`, not that of the metadata."""
    found = read_xml(text, frozenset(("component/project_license", "application/project_license"))) or []
    return claims([value for _, _, value, _ in found], "AND", engine, found[0][3] if found else 0)
