"""Path rules as REUSE and Debian write them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from stackbuild.licenses.declared import Declaration, declarations, governing, matching, scancode_engine
from stackbuild.licenses.declared.resolve import severity
from tests.worlds import MIT


def rules(name: str, path: str, text: str) -> list[tuple[str | None, tuple[str, ...]]]:
    return [(one.expression, one.globs) for one in declarations(name, path, text.encode())[1]]


# ---------------------------------------------------------------- REUSE


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("MIT.txt", "MIT"),
        ("GPL-3.0-or-later.txt", "GPL-3.0-or-later"),
        ("GPL-2.0.txt", "GPL-2.0-only"),
        ("LicenseRef-Ours.md", "LicenseRef-Ours"),
        ("MIT", "MIT"),
        ("GPL-3.0", "GPL-3.0-only"),
        ("MIT.license", "MIT"),
    ],
)
def test_a_text_in_licenses_speaks_for_itself_alone(name: str, expression: str) -> None:
    folder, found = declarations("LICENSES", f"a/LICENSES/{name}", b"text")
    assert folder == "a/LICENSES/" and [one.expression for one in found] == [expression]
    paths = pa.array([name, f"x{name}", "x.c", f"b/{name}"])
    assert matching(found[0].globs, paths).to_pylist() == [True, False, False, False]


@pytest.mark.parametrize(
    "name", ["README.md", "LLVM-exception.txt", "mine.txt", "COPYING", "GPL-3", ".txt", "LicenseRef-.txt"]
)
def test_other_names_in_licenses_declare_nothing(name: str) -> None:
    assert declarations("LICENSES", f"LICENSES/{name}", b"text") == ("LICENSES/", [])


REUSE_TOML = """version = 1

[[annotations]]
path = "src/**"
precedence = "aggregate"
SPDX-FileCopyrightText = "2024 X"
SPDX-License-Identifier = "MIT"

[[annotations]]
path = ["img/*.png", 'a\\*b']
precedence = "override"
SPDX-License-Identifier = ["CC0-1.0", "MIT OR ISC"]

[[annotations]]
path = "x"
SPDX-FileCopyrightText = "2024 X"

[[annotations]]
path = "y"
SPDX-License-Identifier = "nobody knows"
"""


def test_reuse_toml() -> None:
    folder, found = declarations("REUSE.toml", "a/REUSE.toml", REUSE_TOML.encode())
    assert folder == "a/"
    assert found == [
        Declaration("reuse", "MIT", "MIT", 3, ("src/**",), "aggregate"),
        Declaration(
            "reuse", "CC0-1.0 AND (MIT OR ISC)", "CC0-1.0 AND MIT OR ISC", 9, ("img/*.png", "a\\*b"), "override"
        ),
        Declaration("reuse", None, "", 14, ("x",)),
        Declaration("reuse", None, "nobody knows", 18, ("y",)),
    ]


def test_an_annotation_without_a_licence_takes_its_paths_from_those_above() -> None:
    text = "[[annotations]]\npath='**'\nSPDX-License-Identifier='MIT'\n[[annotations]]\npath='a'\nSPDX-FileCopyrightText='X'"
    found = declarations("REUSE.toml", "REUSE.toml", text.encode())[1]
    assert [one.expression for one in found] == ["MIT", None]
    assert governing(found, pa.array(["a", "b"])).tolist() == [1, 0]


@pytest.mark.parametrize(
    "text",
    [
        "annotations = 5",
        "[annotations]\npath='a'",
        "[[annotations]]\npath=5\nSPDX-License-Identifier='MIT'",
        "annotations = [1, 'a', []]",
    ],
)
def test_annotations_of_wrong_types_say_nothing(text: str) -> None:
    assert rules("REUSE.toml", "REUSE.toml", text) == []


def test_an_unknown_precedence_is_closest() -> None:
    for value in ('"none"', "[]", "5", "{}"):
        text = f"[[annotations]]\npath='a'\nprecedence={value}\nSPDX-License-Identifier='MIT'"
        assert [one.precedence for one in declarations("REUSE.toml", "REUSE.toml", text.encode())[1]] == ["closest"]


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("SPDX-FileCopyrightText: x\n\nSPDX-License-Identifier: CC-BY-4.0\n", "CC-BY-4.0"),
        ("SPDX-License-Identifier: MIT\nSPDX-License-Identifier: ISC\n", "MIT AND ISC"),
        ("/* SPDX-License-Identifier: MIT */", "MIT"),
        ("<!-- SPDX-License-Identifier: MIT OR ISC -->\r\n", "MIT OR ISC"),
        ("SPDX-License-Identifier: mine\n", None),
        ("SPDX-License-Identifier: MIT\nSPDX-License-Identifier: mine\n", None),
    ],
)
def test_a_sidecar_speaks_for_its_file_alone(text: str, expression: str | None) -> None:
    folder, found = declarations("sidecar", "a/b*.png.license", text.encode())
    assert folder == "a/" and [one.expression for one in found] == [expression]
    paths = pa.array(["b*.png", "b*.png.license", "bc.png", "c"])
    assert matching(found[0].globs, paths).to_pylist() == [True, True, False, False]


def test_a_sidecar_without_a_tag_declares_nothing() -> None:
    assert declarations("sidecar", "x.license", b"MIT License\nSPDX-License-Identifier: \n") == ("", [])


# ---------------------------------------------------------------- DEP-5

DEP5 = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: x

Files: *
Copyright: 2020 X
License: GPL-2+ or MIT

Files: src/*.c
       doc/?.txt
# a comment
Copyright: 2020 Y
License: BSD-3-clause
 Redistribution and use
 .
 in source

Files: debian/*
License: our-own

License: our-own
 The text of our own licence,
 word for word.
"""


def test_dep5() -> None:
    folder, found = declarations("debian/copyright", "a/debian/copyright", DEP5.encode())
    assert folder == "a/"
    assert found == [
        Declaration("debian", "GPL-2.0-or-later OR MIT", "GPL-2+ or MIT", 6, ("**",)),
        Declaration("debian", "BSD-3-Clause", "BSD-3-clause", 12, ("src/**.c", "doc/?.txt")),
        Declaration("debian", None, "our-own", 18, ("debian/**",)),
    ]
    paths = pa.array(["x", "src/a/b.c", "debian/rules", "doc/ab.txt", "doc/a.txt"])
    assert governing(found, paths).tolist() == [0, 1, 2, 0, 1]


def test_a_short_name_that_nobody_knows_is_read_from_its_text_by_the_engine() -> None:
    asked: list[str] = []

    def engine(text: str) -> str | None:
        asked.append(text)
        return "ISC"

    found = declarations("debian/copyright", "debian/copyright", DEP5.encode(), engine)[1]
    assert [one.expression for one in found] == ["GPL-2.0-or-later OR MIT", "BSD-3-Clause", "ISC"]
    assert asked == ["The text of our own licence,\nword for word."]


def test_a_stanza_without_a_licence_takes_its_paths_from_those_above() -> None:
    text = "Format: x\n\nFiles: *\nLicense: MIT\n\nFiles: a\nCopyright: X\n\nFiles: b\nLicense:\n"
    assert rules("debian/copyright", "debian/copyright", text) == [("MIT", ("**",)), (None, ("a",)), (None, ("b",))]


def test_reuse_dep5_speaks_for_the_folder_above() -> None:
    folder, found = declarations("reuse/dep5", "/a/.reuse/dep5", DEP5.encode())
    assert folder == "/a/" and {one.kind for one in found} == {"reuse"} and len(found) == 3


def test_the_header_speaks_where_no_stanza_does() -> None:
    text = "Format: x\nLicense: MIT\n\nFiles: a/*\nLicense: GPL-3\n"
    found = declarations("debian/copyright", "debian/copyright", text.encode())[1]
    assert [one.expression for one in found] == ["MIT", "GPL-3.0-only"]
    assert governing(found, pa.array(["a/x", "b"])).tolist() == [1, 0]


@pytest.mark.parametrize(
    "text", ["", "This package was debianized by X.\n\nLicense: GPL\n", "Files: *\nLicense: MIT\n", "\n\n", "x: y"]
)
def test_other_forms_declare_nothing(text: str) -> None:
    assert rules("debian/copyright", "debian/copyright", text) == []


@pytest.mark.parametrize(
    ("written", "expression"),
    [
        ("Expat", "MIT"),
        ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0"),
        ("Perl", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
        ("Artistic-2.0", "Artistic-2.0"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("Apache-2", "Apache-2.0"),
        ("BSD-2-Clause", "BSD-2-Clause"),
        ("public-domain", "LicenseRef-scancode-public-domain"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("GPL-2+ with OpenSSL exception", "GPL-2.0-or-later WITH LicenseRef-scancode-openssl-exception-gpl-2.0-plus"),
        ("GPL-2 with foo exception", "GPL-2.0-only"),
        ("GPL-2+ or Artistic-2.0, and BSD-3-clause", "(GPL-2.0-or-later OR Artistic-2.0) AND BSD-3-Clause"),
        ("GPL-2+ or Artistic-2.0 and BSD-3-clause", "GPL-2.0-or-later OR Artistic-2.0 AND BSD-3-Clause"),
        ("MPL-1.1 or GPL-2+ or LGPL-2.1+", "MPL-1.1 OR GPL-2.0-or-later OR LGPL-2.1-or-later"),
        ("Expat, ISC", "MIT AND ISC"),
        ("Expat, ISC or Zlib", "MIT OR ISC OR Zlib"),
        ("Expat and/or GPL-2", "MIT AND GPL-2.0-only"),
        ("Expat and our-own", None),
        ("Expat or our-own", None),
        ("our-own", None),
        (", or", None),
        ("GPL-2 or", None),
    ],
)
def test_short_names(written: str, expression: str | None) -> None:
    assert rules("debian/copyright", "debian/copyright", f"Format: x\n\nFiles: *\nLicense: {written}\n") == [
        (expression, ("**",))
    ]


def test_many_stanzas_and_names_are_bounded() -> None:
    many = "Format: x\n\n" + "".join(f"Files: f{n}\nLicense: MIT\n\n" for n in range(20_000))
    found = declarations("debian/copyright", "debian/copyright", many.encode())[1]
    assert 0 < len(found) <= 4_096
    assert rules(
        "debian/copyright", "debian/copyright", "Format: x\n\nFiles: *\nLicense: " + "MIT or " * 30_000 + "MIT"
    ) == [(None, ("**",))]


# ---------------------------------------------------------------- a name and its text


GPL_TEXT = "This program is free software under the GNU General Public License. " * 6


def gpl(text: str) -> str | None:
    """An engine that knows one text."""
    return "GPL-3.0-or-later" if "GNU General Public License" in text else None


def test_a_text_that_is_less_permissive_than_its_name_counts() -> None:
    dep5 = "Format: x\n\nFiles: *\nLicense: {}\n {}\n"

    def said(name: str, text: str) -> list[str | None]:
        found = declarations("debian/copyright", "debian/copyright", dep5.format(name, text).encode(), gpl)[1]
        return [one.expression for one in found]

    assert said("Expat", GPL_TEXT) == ["GPL-3.0-or-later"]
    assert said("Expat", "Permission is hereby granted to all. " * 10) == ["MIT"]
    assert said("Expat or GPL-2", GPL_TEXT) == ["MIT OR GPL-2.0-only"]
    assert said("GPL-2", GPL_TEXT) == ["GPL-2.0-only"]
    apart = f"Format: x\n\nFiles: *\nLicense: Expat\n\nLicense: Expat\n {GPL_TEXT}\n"
    found = declarations("debian/copyright", "debian/copyright", apart.encode(), gpl)[1]
    assert [one.expression for one in found] == ["GPL-3.0-or-later"]
    for name, expression in (("MIT.txt", "GPL-3.0-or-later"), ("GPL-2.0-only.txt", "GPL-2.0-only")):
        found = declarations("LICENSES", f"LICENSES/{name}", GPL_TEXT.encode(), gpl)[1]
        assert [(one.expression, one.globs) for one in found] == [(expression, (name,))]


def test_stanzas_without_a_blank_line_between_them_are_apart() -> None:
    text = "Format: x\n\nFiles: *\nLicense: MIT\nFiles: debian/*\nCopyright: y\nLicense: GPL-2+\nLicense: ISC\n text\n"
    assert rules("debian/copyright", "debian/copyright", text) == [
        ("MIT", ("**",)),
        ("GPL-2.0-or-later", ("debian/**",)),
    ]


def test_identifiers_beyond_the_bound_or_of_another_type_make_a_licence_that_nobody_can_tell() -> None:
    for said in (["MIT", 5], ["MIT"] * 256 + ["GPL-3.0-only"]):
        text = f"[[annotations]]\npath = 'x'\nSPDX-License-Identifier = {said}\n"
        assert rules("REUSE.toml", "REUSE.toml", text) == [(None, ("x",))]
    tags = "SPDX-License-Identifier: MIT\n" * 256 + "SPDX-License-Identifier: GPL-3.0-only\n"
    assert rules("sidecar", "x.c.license", tags) == [(None, ("x.c", "x.c.license"))]


def test_a_text_below_a_name_that_takes_the_licence_back_counts() -> None:
    """With the real engine: riders, a changed grant, terms of somebody's own that mention a licence."""
    engine = scancode_engine()
    body = "\n".join(f" {line}" if line else " ." for line in MIT.split("\n"))
    own = (
        " The program is the property of Acme and its use is at your own peril.\n" * 8
        + " Parts of libfoo are MIT licensed.\n"
    )

    def told(name: str, text: str) -> str | None:
        head = f"Format: x\n\nFiles: *\nCopyright: x\nLicense: {name}\n"
        return declarations("debian/copyright", "debian/copyright", (head + text).encode(), engine)[1][0].expression

    assert told("Expat", body) == "MIT"
    assert severity(told("Expat", body + "\n The Software shall not be used for commercial purposes.\n")) == 4
    assert severity(told("Expat", body.replace("any person", "any student"))) == 4
    assert severity(told("acme", own)) > 0
