"""Which files declare licences, told from their names, and what each declares.

The formats and the fields that are read are listed in `structured`, `fields`, `scripts`, `reuse`, `debian`, `readme`.
Names are matched as the tools of each format look them up: exactly, but for read-mes and for the project files of
Windows. Of a file at most `text.MAX_BYTES` are read; JSON, TOML and XML that are longer are cut, so not well formed, and
declare nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.licenses.declared import debian, fields, readme, reuse, scripts, structured
from stackbuild.licenses.declared.declaration import Declaration
from stackbuild.licenses.declared.resolve import Engine
from stackbuild.licenses.text import decode

Read = Callable[[str, str, Engine | None], list[Declaration]]  # text, base name, engine


@dataclass(frozen=True)
class Format:
    """One declaring format. `pattern`: RE2, matched in full against what follows the last "/" of a path, or the last two
    for one that has a "/". `above`: how many folders above its own it speaks for.
    """

    name: str
    pattern: str
    read: Read
    above: int = 0


def _text(read: Callable[[str, Engine | None], list[Declaration]]) -> Read:
    return lambda text, _, engine: read(text, engine)


_TONGUE = "[a-z]{2}(?:[-_][a-z]{2,4})?"
_README_EXTENSIONS = "txt|text|md|markdown|mdown|mkd|mkdn|rst|rest|adoc|asciidoc|asc|org|textile|rdoc|html?|pod"

FORMATS: tuple[Format, ...] = (
    Format("package.json", r"package\.json|bower\.json", _text(structured.npm)),
    Format("composer.json", r"composer\.json", _text(structured.composer)),
    Format(
        "plain.json",
        r"elm\.json|elm-package\.json|haxelib\.json|vcpkg\.json|deno\.jsonc?|jsr\.jsonc?|dub\.json|codemeta\.json|[^/]+\.podspec\.json",
        _text(structured.plain_json),
    ),
    Format("META.json", r"META\.json", _text(structured.cpan_json)),
    Format("pyproject.toml", r"pyproject\.toml", _text(structured.pyproject)),
    Format("Cargo.toml", r"Cargo\.toml", _text(structured.cargo)),
    Format("pom.xml", r"pom\.xml|[^/]+\.pom", _text(structured.pom)),
    Format("nuspec", r"(?i)[^/]+\.nuspec", _text(structured.nuspec)),
    Format("msbuild", r"(?i)[^/]+\.(?:cs|fs|vb)proj|directory\.build\.props", _text(structured.msbuild)),
    Format("package.xml", r"package\.xml", _text(structured.package_xml)),
    Format("appstream", r"[^/]+\.(?:metainfo|appdata)\.xml", _text(structured.appstream)),
    Format("PKG-INFO", r"(?:[^/]*/)?PKG-INFO|[^/]*\.dist-info/METADATA", _text(fields.python_metadata)),
    Format("setup.cfg", r"setup\.cfg", _text(fields.setup_cfg)),
    Format("setup.py", r"setup\.py", _text(scripts.setup_py)),
    Format("DESCRIPTION", r"DESCRIPTION", _text(fields.r_description)),
    Format("cabal", r"[^/]+\.cabal", _text(fields.cabal)),
    Format("dist.ini", r"dist\.ini", _text(fields.dist_ini)),
    Format("opam", r"[^/]+\.opam|opam", _text(fields.opam)),
    Format("CITATION.cff", r"CITATION\.cff", _text(fields.citation)),
    Format("META.yml", r"META\.yml", _text(fields.cpan_yaml)),
    Format("plain.yml", r"package\.yaml|shard\.yml", _text(fields.plain_yaml)),
    Format("gemspec", r"[^/]*\.gemspec", _text(scripts.gemspec)),
    Format("podspec", r"[^/]+\.podspec", _text(scripts.podspec)),
    Format("Makefile.PL", r"Makefile\.PL|Build\.PL", _text(scripts.makefile_pl)),
    Format("mix.exs", r"mix\.exs", _text(scripts.mix)),
    Format("app.src", r"src/[^/]+\.app\.src", _text(scripts.app_src), above=1),
    Format("build.sbt", r"build\.sbt", _text(scripts.sbt)),
    Format("rockspec", r"[^/]+\.rockspec", _text(scripts.rockspec)),
    Format("nimble", r"[^/]+\.nimble", _text(scripts.nimble)),
    Format("project.clj", r"project\.clj", _text(scripts.clojure)),
    Format("REUSE.toml", r"REUSE\.toml", lambda text, _, __: reuse.reuse_toml(text)),
    Format("reuse/dep5", r"\.reuse/dep5", lambda text, _, engine: debian.dep5(text, engine, "reuse"), above=1),
    Format("LICENSES", r"LICENSES/[^/]+", lambda text, name, engine: reuse.license_text(name, text, engine)),
    Format("sidecar", r"[^/]+\.license", lambda text, name, _: reuse.sidecar(text, name)),
    Format("debian/copyright", r"debian/copyright", lambda text, _, engine: debian.dep5(text, engine), above=1),
    Format(
        "readme", rf"(?i)readme(?:[-_.]{_TONGUE})?\.(?:{_README_EXTENSIONS})|readme(?:[-_]{_TONGUE})?", readme.readme
    ),
)
BY_NAME: dict[str, Format] = {each.name: each for each in FORMATS}


def _flat(pattern: str) -> str:
    """A pattern with its flag made local, to be one of many."""
    return f"(?i:{pattern[4:]})" if pattern.startswith("(?i)") else f"(?:{pattern})"


ANY = rf"(?:^|/)(?:{'|'.join(_flat(each.pattern) for each in FORMATS)})\z"


def declaring_kind(paths: pa.Array) -> pa.Array:
    """Which declaring format each of n paths (string, "/" between folders) is of: dictionary<int8, string> of length n
    over the names of `FORMATS`, null for none. Linear in the paths, in RE2.
    """
    codes = np.full(len(paths), -1, np.int8)
    rows = np.flatnonzero(pc.fill_null(pc.match_substring_regex(paths, ANY), False).to_numpy(zero_copy_only=False))
    left = paths.take(pa.array(rows))
    for code, each in enumerate(FORMATS):
        if not len(rows):
            break
        here = pc.match_substring_regex(left, rf"(?:^|/){_flat(each.pattern)}\z").to_numpy(zero_copy_only=False)
        codes[rows[here]] = code
        rows, left = rows[~here], left.filter(pa.array(~here))
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8(), mask=codes < 0), pa.array([*BY_NAME], pa.string()))


def spoken_for(name: str, path: str) -> str:
    """The folder that a file of a format speaks for, with its "/"; empty for the root."""
    folder = path
    for _ in range(BY_NAME[name].above + 1):
        folder = folder[: folder.rstrip("/").rfind("/") + 1]
    return folder


def declarations(name: str, path: str, content: bytes, engine: Engine | None = None) -> tuple[str, list[Declaration]]:
    """What a file of a format (as `declaring_kind` names it) declares, and the folder that it speaks for (with its "/",
    empty for the root). A function of the arguments alone; never raises for what the file holds.

    `engine`: see `resolve`; with None the tables decide alone.
    """
    text = decode(content)
    if text is None:
        return spoken_for(name, path), []
    return spoken_for(name, path), BY_NAME[name].read(text, path[path.rfind("/") + 1 :], engine)
