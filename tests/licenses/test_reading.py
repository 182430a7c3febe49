"""Which files are read for a licence and as what, by policy; and texts that say nothing of their own."""

from __future__ import annotations

import pyarrow as pa
import pytest

from stackbuild.licenses.decide import UNKNOWN_REFERENCE
from stackbuild.licenses.policy import load_policy
from stackbuild.licenses.reading import (
    NAMES,
    POINTER_CHARS,
    Reader,
    formats_of,
    kind_of,
    points_elsewhere,
    says_more,
    spoken_folders,
)
from tests.worlds import MIT

OURS, V2 = load_policy("stackbuild"), load_policy("the-stack-v2")
FILES = {
    "/LICENSE": ("license", "license"),
    "/src/COPYING.LESSER": ("license", "license"),
    "/NOTICE": ("notice", "notice"),
    "/README.md": ("readme:README.md", "notice"),
    "/package.json": ("package.json", None),
    "/sub/debian/copyright": ("debian/copyright", "license"),
    "/.reuse/dep5": ("reuse/dep5", None),
    "/REUSE.toml": ("REUSE.toml", None),
    "/LICENSES/MIT.txt": ("LICENSES:MIT.txt", "license"),
    "/logo.png.license": ("sidecar:logo.png.license", "license"),
    "/about.js": (None, "notice"),
    "/main.c": (None, None),
}


def test_a_published_policy_reads_texts_and_ours_what_declares_a_licence_as_well() -> None:
    paths = pa.array(list(FILES), pa.string())
    assert formats_of(paths, OURS).to_pylist() == [ours for ours, _ in FILES.values()]
    assert formats_of(paths, V2).to_pylist() == [theirs for _, theirs in FILES.values()]
    assert formats_of(paths.slice(0, 0), OURS).to_pylist() == []


def test_a_policy_reads_no_kind_that_its_order_does_not_name() -> None:
    policy = load_policy("stackbuild", order=[["license_file"], ["host"]])
    found = dict(zip(FILES, formats_of(pa.array(list(FILES), pa.string()), policy).to_pylist(), strict=True))
    assert found["/LICENSE"] == "license" and found["/package.json"] is None and found["/REUSE.toml"] is None
    assert found["/NOTICE"] is None and found["/sub/debian/copyright"] == "license"


def test_kinds_of_formats() -> None:
    assert [kind_of(one) for one in ("license", "notice", "readme:README.md", "package.json", "sidecar:x.license")] == [
        "license_file", "notice", "notice", "manifest", "path_rule"
    ]  # fmt: skip


def test_rules_of_a_folder_of_their_own_speak_for_the_one_above() -> None:
    paths = pa.array([b"LICENSE", b"a/LICENSE", b"a/debian/copyright", b".reuse/dep5", b"a\n/\xff/x"], pa.binary())
    formats = pa.array(["license", "license", "debian/copyright", "reuse/dep5", "license"])
    assert spoken_folders(paths, formats).to_pylist() == [b"", b"a/", b"a/", b"", b"a\n/\xff/"]


@pytest.mark.parametrize(
    "text",
    ["../LICENSE", "See COPYING", "License\n=====\n\n.. include:: ../LICENSE\n", "Please refer to the file LICENSE.txt above.", "LICENSE"],
)  # fmt: skip
def test_a_pointer_is_known(text: str) -> None:
    assert points_elsewhere(text)


@pytest.mark.parametrize("text", ["You may dance to it.", "Do what you like.", "Free for all but Mondays", "x" * 300])
def test_terms_of_ones_own_are_no_pointer(text: str) -> None:
    assert not points_elsewhere(text) and (says_more(text) or text.startswith("x"))


@pytest.mark.parametrize(
    "text",
    ["See https://acme.example/enterprise-license for the license; you need a subscription.",
     "By use you agree to the license agreement in LICENSE.",
     "Subject to the Acme Enterprise license; see LICENSE."],
)  # fmt: skip
def test_what_leads_out_or_asks_for_consent_is_no_pointer(text: str) -> None:
    assert not points_elsewhere(text)


def test_a_pointer_to_a_licence_file_says_nothing_beside_a_licence_of_the_same_manifest() -> None:
    pointer = 'license = {file = "LICENSE"}'
    for body, told in (
        (pointer, [UNKNOWN_REFERENCE]),
        (f"{pointer}\nclassifiers = ['License :: OSI Approved :: MIT License']", ["MIT"]),
        ("license = {file = 'TERMS.docx'}\nclassifiers = ['License :: OSI Approved :: MIT License']", [None, "MIT"]),
    ):
        found = Reader().read(f'[project]\nname = "x"\n{body}\n'.encode(), "pyproject.toml")
        assert [one["expression"] for one in found] == told


def test_a_field_refers_where_it_names_a_licence_file_and_is_read_where_it_holds_a_text() -> None:
    def told(field: str) -> list[str | None]:
        return [
            one["expression"]
            for one in Reader().read(f"Metadata-Version: 2.1\nName: x\nLicense: {field}\n".encode(), "PKG-INFO")
        ]

    assert told("SEE LICENSE IN LICENSE.txt") == told("file LICENSE") == [UNKNOWN_REFERENCE]
    assert told("SEE LICENSE IN https://acme.example/LICENSE") == told("see TERMS-OF-ACME.docx") == [None]
    assert told("The Kiwi licensing terms\n        Kiwi is licensed under the terms of the Modified BSD License.") == [
        "BSD-3-Clause"
    ]
    assert told("The Kiwi licensing terms\n        Do what Kiwi says.") == [None]
    text = MIT.replace("\n\n", "\n \n").replace("\n", "\n        ")
    assert told(f"Copyright 2015 Kiwi\n        All rights reserved.\n        \n        {text}") == ["MIT"]


def test_a_licence_file_without_a_known_licence_is_unrecognised_and_a_pointer_is_not() -> None:
    def told(text: str) -> list[str | None]:
        return [one["expression"] for one in Reader().read(text.encode(), "license")]

    eula = "By use of the product you accept this license agreement. A seat ends when the subscription ends. " * 5
    assert None in told(eula) and None in told("Copyright 2024 Acme Inc. All Rights Reserved.")
    assert (
        told("See the file COPYING for the license.") == [UNKNOWN_REFERENCE] and told("Copyright 2024 Acme Inc.") == []
    )


def test_a_long_text_is_never_a_pointer_and_always_says_something() -> None:
    text = "see LICENSE " * POINTER_CHARS
    assert not points_elsewhere(text) and says_more("word " * POINTER_CHARS)


def test_who_only_names_a_holder_says_nothing() -> None:
    assert (
        not says_more("Zope Foundation and Contributors\n")
        and not says_more("")
        and not says_more("Copyright 2020 Ada")
    )
    assert says_more("Copyright 2020 Ada. You may not copy it.") and says_more("All use is forbidden.")


@pytest.mark.parametrize(
    "text", ["Commercial", "Restricted\n", "Foo EULA", "Ask Bob", "NDA", "商业软件", "Tous droits réservés, Foo SA"]
)
def test_a_few_words_that_nobody_understands_are_terms_and_no_holder(text: str) -> None:
    assert [one["expression"] for one in Reader().read(text.encode(), "license")] == [None]


def test_a_file_named_as_a_copyright_may_hold_a_name() -> None:
    reader = Reader()
    assert [one["said"] for one in reader.read(b"Zope Foundation and Contributors\n", "license")] == [NAMES]
    assert reader.read("Copyright 2020 Ada\n© Bob 2021\n".encode(), "license") == []
    assert reader.read(b"", "license") == reader.read(b"----\n", "license") == []


def test_a_sidecar_without_tags_is_a_licence_text() -> None:
    """`project.license` is that of the project; `logo.png.license` is about one file."""
    text = ("\n".join(["GNU GENERAL PUBLIC LICENSE", "Version 3, 29 June 2007"]) + "\n").encode()
    reader = Reader()
    folder = reader.read(text, "sidecar:project.license")
    assert folder and all(not one.get("globs") for one in folder)
    assert {one["expression"] for one in folder} <= {"GPL-3.0-only", "GPL-3.0-or-later"}
    assert not reader.read(text, "sidecar:project-1.0.license")[0].get("globs")
    file = reader.read(text, "sidecar:logo.png.license")
    assert [one["expression"] for one in file] == [one["expression"] for one in folder]
    assert all(one["globs"] == ("logo.png", "logo.png.license") for one in file)
    own = reader.read(b"You may dance to it on the days that we say, and on no others.", "sidecar:x.license")
    assert [one["expression"] for one in own] == [None]
    tagged = reader.read(b"SPDX-License-Identifier: MIT\n", "sidecar:project.license")
    assert [(one["expression"], len(one["globs"])) for one in tagged] == [("MIT", 2)]
    assert reader.read(b"SPDX-FileCopyrightText: 2020 Ada\n", "sidecar:x.png.license") == []


def test_a_licence_that_is_no_text_is_one_that_nobody_recognises() -> None:
    assert [one["expression"] for one in Reader().read(b"%PDF-1.4\n\0\1\2" * 90, "license")] == [None]
    assert [one["expression"] for one in Reader().read(b"PK\3\4\0\0\0", "license")] == [None]
