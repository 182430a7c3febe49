"""Which names declare licences, and that no content of such a file raises."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.licenses.declared import Declaration, declarations, declaring_kind, spoken_for
from stackbuild.licenses.declared.declaration import MAX_DECLARATIONS, RAW_CHARS
from stackbuild.licenses.declared.formats import FORMATS
from stackbuild.licenses.spdx import parse
from stackbuild.licenses.text import MAX_BYTES

NAMED = {
    "package.json": ["package.json", "/a/package.json", "a/b/bower.json"],
    "composer.json": ["composer.json"],
    "plain.json": ["elm.json", "vcpkg.json", "deno.jsonc", "codemeta.json", "x/A.podspec.json"],
    "META.json": ["META.json"],
    "pyproject.toml": ["pyproject.toml"],
    "Cargo.toml": ["crates/x/Cargo.toml"],
    "pom.xml": ["pom.xml", "a/x-1.0.pom"],
    "nuspec": ["X.nuspec", "x.NuSpec"],
    "msbuild": ["a/X.csproj", "x.fsproj", "Directory.Build.props"],
    "package.xml": ["package.xml"],
    "appstream": ["data/org.x.metainfo.xml", "x.appdata.xml"],
    "PKG-INFO": ["PKG-INFO", "x.egg-info/PKG-INFO", "lib/x-1.0.dist-info/METADATA"],
    "setup.cfg": ["setup.cfg"],
    "setup.py": ["setup.py"],
    "DESCRIPTION": ["DESCRIPTION"],
    "cabal": ["x.cabal"],
    "dist.ini": ["dist.ini"],
    "opam": ["x.opam", "opam"],
    "CITATION.cff": ["CITATION.cff"],
    "META.yml": ["META.yml"],
    "plain.yml": ["package.yaml", "shard.yml"],
    "gemspec": ["x.gemspec", ".gemspec"],
    "podspec": ["X.podspec"],
    "Makefile.PL": ["Makefile.PL", "Build.PL"],
    "mix.exs": ["mix.exs"],
    "app.src": ["src/x.app.src", "apps/x/src/x.app.src"],
    "build.sbt": ["build.sbt"],
    "rockspec": ["x-1.0-1.rockspec"],
    "nimble": ["x.nimble"],
    "project.clj": ["project.clj"],
    "REUSE.toml": ["a/REUSE.toml"],
    "reuse/dep5": [".reuse/dep5", "/a/.reuse/dep5"],
    "LICENSES": ["LICENSES/MIT.txt", "/a/LICENSES/MIT.license"],
    "sidecar": ["a/x.png.license", "x.license"],
    "debian/copyright": ["debian/copyright", "/x/debian/copyright"],
    "readme": ["README", "readme.md", "a/ReadMe.TXT", "README.zh-CN.md", "README_de.rst", "README.org"],
}


def test_every_format_is_told_by_its_names() -> None:
    assert list(NAMED) == [each.name for each in FORMATS]
    rows = [(path, name) for name, paths in NAMED.items() for path in paths]
    assert declaring_kind(pa.array([path for path, _ in rows])).to_pylist() == [name for _, name in rows]


@pytest.mark.parametrize(
    "path",
    [
        "Package.json",
        "package.json.bak",
        "package.json/x",
        "xpackage.json",
        "composer.lock",
        "cargo.toml",
        "METADATA",
        "x/METADATA",
        "debian/copyrights",
        "xdebian/copyright",
        "copyright",
        "LICENSES",
        "licenses/MIT.txt",
        "LICENSES/a/MIT.txt",
        "reuse/dep5",
        ".license",
        "a/.license",
        "LICENSE",
        "readme.py",
        "README.c",
        "README-long-name.md",
        "lib/x.app.src",
        ".cabal",
        "description",
        "",
        "/",
        "README\n",
    ],
)
def test_other_names_declare_nothing(path: str) -> None:
    assert declaring_kind(pa.array([path])).to_pylist() == [None]


segments = st.sampled_from(
    [
        "package.json",
        "LICENSES",
        "MIT.txt",
        "x.license",
        "debian",
        "copyright",
        ".reuse",
        "dep5",
        "src",
        "x.app.src",
        "README",
        "a",
        "PKG-INFO",
        "x.dist-info",
        "METADATA",
        "",
        "\n",
        "é",
    ]
)


def ends(pattern: str, path: str) -> bool:
    plain = pattern.removeprefix("(?i)")
    return re.search(rf"(?:^|/)(?:{plain})\Z", path, re.IGNORECASE if plain != pattern else 0) is not None


@settings(deadline=None)
@given(st.lists(st.none() | st.lists(segments, max_size=4).map("/".join), max_size=8))
def test_a_batch_is_answered_as_each_path_alone(paths: list[str | None]) -> None:
    """By the first format whose pattern another engine finds at the end of the path."""
    expected = [next((each.name for each in FORMATS if path and ends(each.pattern, path)), None) for path in paths]
    found = declaring_kind(pa.array(paths, pa.string()))
    assert found.to_pylist() == expected and found.type == pa.dictionary(pa.int8(), pa.string())


@pytest.mark.parametrize(
    ("name", "path", "folder"),
    [
        ("package.json", "package.json", ""),
        ("package.json", "/package.json", "/"),
        ("package.json", "/a/b/package.json", "/a/b/"),
        ("debian/copyright", "debian/copyright", ""),
        ("debian/copyright", "/a/debian/copyright", "/a/"),
        ("reuse/dep5", "/.reuse/dep5", "/"),
        ("LICENSES", "a/LICENSES/MIT.txt", "a/LICENSES/"),
        ("app.src", "src/x.app.src", ""),
        ("PKG-INFO", "x.dist-info/METADATA", "x.dist-info/"),
    ],
)
def test_folders_that_are_spoken_for(name: str, path: str, folder: str) -> None:
    assert spoken_for(name, path) == folder == declarations(name, path, b"")[0]


# ---------------------------------------------------------------- hostile input

WORDS = [
    b"license",
    b"License: ",
    b"licenses",
    b'"license": ',
    b"MIT",
    b"GPL-2+",
    b" or ",
    b"[project]\n",
    b"[metadata]\n",
    b"Format: x\n\n",
    b"Files: *\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"'",
    b":",
    b"=",
    b"\n",
    b"\r\n",
    b" ",
    b"<project>",
    b"<licenses><license><name>",
    b"</",
    b"setup(",
    b")",
    b"\\",
    b"*",
    b"/",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"## License\n",
    b"[[annotations]]\n",
    b"SPDX-License-Identifier: ",
    b"Package: x\nVersion: 1\n",
    b"%",
    b"&x;",
    b"<!DOCTYPE a [",
    b"license = ",
    b"s.license = ",
    b",",
]
contents = st.binary(max_size=200) | st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join)


@settings(deadline=None, max_examples=60)
@given(contents)
def test_no_content_raises_and_every_declaration_is_sound(content: bytes) -> None:
    for each in FORMATS:
        path = f"a/{NAMED[each.name][0]}"
        folder, found = declarations(each.name, path, content)
        assert (folder, found) == declarations(each.name, path, content) and path.startswith(folder)
        assert len(found) <= MAX_DECLARATIONS
        for one in found:
            assert one.expression is None or parse(one.expression) == one.expression
            assert len(one.raw) <= RAW_CHARS and 0 <= one.line <= content.count(b"\n") + content.count(b"\r") + 64


def test_a_file_that_is_cut_declares_only_what_lines_say() -> None:
    padding = b" " * MAX_BYTES
    assert declarations("package.json", "package.json", b'{"license": "MIT", "x": "' + padding + b'"}')[1] == []
    assert (
        declarations("pyproject.toml", "pyproject.toml", b'[project]\nlicense = "MIT"\nx = "' + padding + b'"')[1] == []
    )
    assert (
        declarations(
            "pom.xml",
            "pom.xml",
            b"<project><licenses><license><name>MIT</name></license></licenses>" + padding + b"</project>",
        )[1]
        == []
    )
    for name, head in (
        ("PKG-INFO", b"License: MIT\n"),
        ("gemspec", b"s.license = 'MIT'\n"),
        ("debian/copyright", b"Format: x\n\nFiles: *\nLicense: MIT\n\n"),
    ):
        assert [one.expression for one in declarations(name, NAMED[name][0], head + padding * 20)[1]] == ["MIT"]


def test_binary_files_declare_nothing() -> None:
    for each in FORMATS:
        assert declarations(each.name, NAMED[each.name][0], b"License: MIT\n\x00\x01\x02license = 'MIT'")[1] == []


def test_words_are_cut() -> None:
    assert len(Declaration("manifest", None, "x" * 100_000).raw) == RAW_CHARS
