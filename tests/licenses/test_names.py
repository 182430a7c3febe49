"""Which names are of licence files."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.licenses.names import is_license_file, is_license_proper

# The published rule, read by another engine: the oracle of ours.
STEMS = [
    "li[cs]en[cs]e(s?)",
    "legal",
    "copy(left|right|ing)",
    "unlicense",
    r"[al]?gpl([-_ v]?)(\d\.?\d?)?",
    "bsd(l?)",
    "mit(x?)",
    "apache",
    "artistic",
    r"copying(v?)(\d?)",
    "disclaimer",
    "eupl",
    "gfdl",
    "[cm]pl",
    "cc0",
    r"al([-_ v]?)(\d\.?\d)?",
    "about",
    "notice",
    "readme",
    "guidelines",
]
ORACLE = re.compile(rf"^(|.*[-_. ])({'|'.join(STEMS)})(|[-_. ].*)$", re.IGNORECASE | re.ASCII | re.DOTALL)


def named(path: str, names: str = "stackbuild") -> bool:
    return is_license_file(pa.array([path]), names)[0].as_py()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        "/LICENSE",
        "/licence.txt",
        "/a/LISENSES.md",
        "/COPYING.LESSER",
        "/COPYINGv3",
        "/COPYING 3",
        "/UNLICENSE",
        "/LICENSE-MIT",
        "/our_LICENSE",
        "/MIT-LICENSE.txt",
        "/gpl-3.0",
        "/AGPLv3.txt",
        "/lgpl2.1.txt",
        "/LICENSE.MIT",
        "/Apache-2.0.txt",
        "/BSDL",
        "/mitx",
        "/CC0.txt",
        "/al2.0",
        "/README.md",
        "/readme",
        "/NOTICE",
        "/about.txt",
        "/.license",
        "/GPL-3.0-only.txt",
        "/a b/my license.html",
        "/COPYRIGHT",
        "/LICENSE.GPL2",
        "/copying.v3.txt",
    ],
)
def test_texts_of_licences_are_read_under_both_rules(path: str) -> None:
    assert named(path) and named(path, "the-stack-v2")


@pytest.mark.parametrize(
    "path",
    [
        "/about.js",
        "/al.py",
        "/mit.c",
        "/src/License.java",
        "/license.go",
        "/copying.rs",
        "/js/about.vue",
        "/notice.tsx",
        "/licenses.json",
        "/legal.css",
        "/readme.php",
        "/src/cpl.cpp",
        "/about.unheard",
        "/about.png",
        "/mpl-toolkit.py",
    ],
)
def test_source_counts_only_under_the_published_rule(path: str) -> None:
    assert not named(path) and named(path, "the-stack-v2")


@pytest.mark.parametrize(
    "path",
    ["/sublicense", "/licensed", "/permit", "/LICENSE/x.c", "/license/", "/gpla", "/emit.txt", "/a/balance.txt", ""],
)
def test_other_names_never_count(path: str) -> None:
    assert not named(path) and not named(path, "the-stack-v2")


def test_read_mes_and_notices_are_not_licences_proper() -> None:
    paths = pa.array(
        ["/LICENSE", "/COPYING.LIB", "/README.md", "/NOTICE", "/about", "/License.java", "/LICENSES.chromium.html"]
    )
    assert is_license_proper(paths).to_pylist() == [True, True, False, False, False, False, True]


@given(
    st.lists(
        st.sampled_from(
            [*"-_. /v21cs", "license", "licen", "copying", "gpl", "al", "mit", "x", "README", "bsd", "\n", "é"]
        ),
        max_size=8,
    )
)
def test_the_published_rule_is_kept_to_the_letter(parts: list[str]) -> None:
    path = "".join(parts)
    base = path.rsplit("/", 1)[-1]
    assert named(path, "the-stack-v2") == bool(ORACLE.fullmatch(base))


def test_what_the_default_reads_the_published_rule_reads_too() -> None:
    paths = pa.array(
        [
            f"/{stem}{ending}"
            for stem in ("about", "LICENSE", "gpl", "readme", "x")
            for ending in ("", ".md", ".c", ".weird", "-2.0")
        ]
    )
    ours, theirs = is_license_file(paths).to_pylist(), is_license_file(paths, "the-stack-v2").to_pylist()
    assert all(b for a, b in zip(ours, theirs, strict=True) if a)


@pytest.mark.parametrize(
    "path",
    [
        "/LICENSING", "/a/Licensing.md", "/LICENSE2", "/LICENSE2.txt", "/LicenseGPL.txt", "/GPLLICENSE", "/COPYRIGHTS", "/EULA",
        "/EULA.txt", "/eula-en.rtf", "/My_EULA.md", "/TERMS", "/TERMS.md", "/TERMS_OF_USE.txt", "/LIZENZ.txt", "/LICENCIA",
        "/LICENSE.pdf", "/LICENSE.docx", "/COPYING.doc", "/License Agreement.odt",
    ],
)  # fmt: skip
def test_names_that_only_the_default_takes_as_those_of_licences(path: str) -> None:
    paths = pa.array([path])
    assert named(path) and is_license_proper(paths)[0].as_py()
    published = named(path, "the-stack-v2")
    assert published == bool(ORACLE.fullmatch(path.rsplit("/", 1)[-1]))
    assert not is_license_proper(paths, "the-stack-v2")[0].as_py() or published


@pytest.mark.parametrize(
    "path",
    ["/terms.txt", "/TERMS.json", "/SEARCH_TERMS.md", "/apache.pdf", "/LICENSE.png", "/eula.js", "/licensing.py"],
)
def test_names_that_the_default_does_not_take(path: str) -> None:
    assert not named(path)


@pytest.mark.parametrize(
    "path",
    ["/LICENSE.3rdparty", "/ThirdPartyNotices-LICENSE.txt", "/LICENSE-THIRD-PARTY", "/a/3rdpartylicenses.txt",
     "/third-party_licenses.md", "/LICENSES_bundled.txt", "/dependencies-LICENSE"],
)  # fmt: skip
def test_licences_of_other_peoples_code_do_not_speak_for_the_folder(path: str) -> None:
    assert not named(path) and named("/third_party/LICENSE")
    assert named("/third_party_LICENSE", "the-stack-v2") and not named("/third_party_LICENSE")


def test_long_names_take_no_longer_than_their_length() -> None:
    assert not named("/" + "a-" * 50_000 + "x") and named("/" + "license-" * 50_000)


def test_a_batch_is_answered_row_by_row_and_null_stays_null() -> None:
    assert is_license_file(pa.array(["/LICENSE", None, "/x"])).to_pylist() == [True, None, False]
