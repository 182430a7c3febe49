"""From free text to an expression: what is said, and never more than that."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.licenses import detect
from stackbuild.licenses.declared import resolve
from stackbuild.licenses.declared.names import by_classifier, by_url, is_expression, reduce_name, tables
from stackbuild.licenses.declared.resolve import MAX_CHARS, scancode_engine, severity
from stackbuild.licenses.expression import keys_of
from stackbuild.licenses.lists import SEVERITY, scancode_licenses
from stackbuild.licenses.spdx import parse

PROPRIETARY = "LicenseRef-scancode-proprietary-license"


@pytest.mark.parametrize(
    ("raw", "expression"),
    [
        ("Apache 2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("The Apache Software License, Version 2.0", "Apache-2.0"),
        ("GPLv2+", "GPL-2.0-or-later"),
        ("GPL (>= 2)", "GPL-2.0-or-later"),
        ("GPL v2", "GPL-2.0-only"),
        ("GNU GPL v3 or any later version", "GPL-3.0-or-later"),
        ("GNU LGPL 2.1 or (at your option) any later version", "LGPL-2.1-or-later"),
        ("LGPLv3", "LGPL-3.0-only"),
        ("New BSD License", "BSD-3-Clause"),
        ("BSD 2-Clause “Simplified” License", "BSD-2-Clause"),
        ("MIT/X11", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("Common Development and Distribution License (CDDL) v1.0", "CDDL-1.0"),
        ("CC BY-NC 3.0 (http://creativecommons.org/licenses/by-nc/3.0/)", "CC-BY-NC-3.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International", "CC-BY-SA-4.0"),
        ("GPL-2+ with OpenSSL exception", "GPL-2.0-or-later WITH LicenseRef-scancode-openssl-exception-gpl-2.0-plus"),
        ("GPLv2 with classpath exception", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("[MIT](LICENSE)", "MIT"),
        ("MIT, see LICENSE", "MIT"),
        ("Licensed under the MIT License - see the LICENSE file for details.", "MIT"),
        ("License: MIT", "MIT"),
        ("MIT <https://example.org/x>", "MIT"),
        ("same terms as Perl itself", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
        ("UNLICENSED", PROPRIETARY),
        ("All Rights Reserved", PROPRIETARY),
        ("public domain", "LicenseRef-scancode-public-domain"),
        ("  mit\n", "MIT"),
    ],
)
def test_names(raw: str, expression: str) -> None:
    assert resolve(raw) == expression


@pytest.mark.parametrize(
    ("raw", "expression"),
    [
        ("https://opensource.org/licenses/MIT", "MIT"),
        ("http://www.opensource.org/licenses/mit-license.php", "MIT"),
        ("https://opensource.org/license/apache-2-0", "Apache-2.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
        ("http://www.apache.org/licenses/LICENSE-2.0.txt", "Apache-2.0"),
        ("http://www.gnu.org/licenses/gpl-3.0.en.html", "GPL-3.0-only"),
        ("http://www.gnu.org/copyleft/gpl.html", "GPL-1.0-or-later"),
        ("https://creativecommons.org/licenses/by-sa/4.0/legalcode", "CC-BY-SA-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://spdx.org/licenses/BSD-3-Clause.html", "BSD-3-Clause"),
        ("https://choosealicense.com/licenses/mpl-2.0/#", "MPL-2.0"),
        ("https://example.org/LICENSE", None),
    ],
)
def test_urls(raw: str, expression: str | None) -> None:
    assert resolve(raw) == expression == by_url(raw)


@pytest.mark.parametrize(
    ("raw", "expression"),
    [
        ("License :: OSI Approved :: MIT License", "MIT"),
        ("License :: OSI Approved :: GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
        ("License :: OSI Approved :: GNU Library or Lesser General Public License (LGPL)", "LGPL-2.0-or-later"),
        ("License :: OSI Approved :: BSD License", "BSD-3-Clause"),
        ("License :: Other/Proprietary License", PROPRIETARY),
        ("License :: Free for non-commercial use", PROPRIETARY),
        ("License :: OSI Approved", None),
        ("License :: DFSG approved", None),
        ("License :: Freely Distributable", None),
    ],
)
def test_trove_classifiers(raw: str, expression: str | None) -> None:
    assert resolve(raw) == expression == by_classifier(raw)


@pytest.mark.parametrize(
    ("raw", "expression"),
    [
        ("MIT or Apache-2.0", "MIT OR Apache-2.0"),
        ("MIT | GPLv2", "MIT OR GPL-2.0-only"),
        ("MPL 2.0, GPL 2 or LGPL 2.1", "MPL-2.0 OR GPL-2.0-only OR LGPL-2.1-only"),
        ("MIT and BSD", "MIT AND BSD-3-Clause"),
        ("MIT, BSD", "MIT AND BSD-3-Clause"),
        ("MIT & GPL", "MIT AND GPL-1.0-or-later"),
        ("Dual licensed under the MIT and GPL licenses", "MIT OR GPL-1.0-or-later"),
        ("MIT or Apache 2.0, and BSD", "(MIT OR Apache-2.0) AND BSD-3-Clause"),
        ("GPL v2 or later or MIT", "GPL-2.0-or-later OR MIT"),
        ("GPLv2 and/or MIT", "GPL-2.0-only AND MIT"),
        ("MIT + proprietary", f"MIT AND {PROPRIETARY}"),
        ("GPL-2.0 or later and BSD", "GPL-2.0-or-later AND BSD-3-Clause"),
    ],
)
def test_several_names_hold_together_unless_there_is_a_choice(raw: str, expression: str) -> None:
    assert resolve(raw) == expression


@pytest.mark.parametrize(
    ("raw", "expression"),
    [
        ("3-clause BSD <https://opensource.org/licenses/bsd-license.php>", "BSD-3-Clause"),
        ("BSD <https://opensource.org/licenses/BSD-2-Clause>", "BSD-2-Clause"),
        ("GPL (https://www.gnu.org/licenses/gpl-3.0.html)", "GPL-3.0-only"),
        ("GPL-2.0 (https://www.gnu.org/licenses/gpl-3.0.html)", None),
        ("GPL (LGPL-2.1)", None),
        ("CC BY-NC (CC-BY-4.0)", None),
        ("MIT (https://www.gnu.org/licenses/gpl-3.0.html)", None),
        ("GNU General Public License (GPL)", "GPL-1.0-or-later"),
    ],
)
def test_of_two_words_for_one_licence_the_clearer_counts_if_they_agree(raw: str, expression: str | None) -> None:
    assert resolve(raw) == expression


def test_a_slash_is_a_choice_only_where_the_format_says_so() -> None:
    assert resolve("MIT/GPL-2.0") == "MIT AND GPL-2.0-only"
    assert resolve("MIT/GPL-2.0", slash="OR") == "MIT OR GPL-2.0-only"


@pytest.mark.parametrize(
    "raw",
    ["", " ", "foo", "open source", "Apache-2.0 with Commons Clause", "MIT with extra conditions", "LGPL 2.1/3.0", "MIT or foo",
     "Creative Commons", "not MIT", "MIT (no GPL)", "see LICENSE", "NONE", "BSD-3-Clause OR", "free", "other",
     "MIT with foo exception", "MIT (https://opensource.org/licenses/GPL-3.0)"],
)  # fmt: skip
def test_what_is_not_sure_is_none(raw: str) -> None:
    assert resolve(raw) is None


def test_an_unknown_exception_permits_no_more_than_the_licence() -> None:
    assert resolve("GPL-2 with foo exception") == "GPL-2.0-only"
    assert resolve("GPL-3+-foo-exception") == "GPL-3.0-or-later"
    assert resolve("GPL-2 with foo") is None


def test_the_engine_is_asked_last_and_only_where_the_tables_have_no_answer() -> None:
    asked: list[str] = []

    def engine(text: str) -> str | None:
        asked.append(text)
        return "ISC"

    assert resolve("MIT", engine) == "MIT" and asked == []
    assert resolve("my own words", engine) == "ISC" and asked == ["my own words"]
    assert resolve("  ", engine) is None and len(asked) == 1
    assert resolve("x" * 10 * MAX_CHARS, engine) == "ISC"


def test_bare_families_are_never_freer_than_any_of_their_licences() -> None:
    classes = scancode_licenses().classes
    for name, prefix in [("GPL", "GPL-"), ("LGPL", "LGPL-"), ("AGPL", "AGPL-"), ("MPL", "MPL-"), ("EPL", "EPL-"),
                         ("BSD", "BSD-"), ("EUPL", "EUPL-"), ("CDDL", "CDDL-"), ("OSL", "OSL-")]:  # fmt: skip
        bare = severity(resolve(name))
        usual = [
            key
            for key in classes
            if key.startswith(prefix) and re.fullmatch(r"[0-9.]+(-only|-or-later|-Clause)?", key[len(prefix) :])
        ]
        assert usual and bare >= max(severity(key) for key in usual), name


def test_severity_of_a_choice_is_that_of_the_better() -> None:
    assert severity("MIT OR GPL-2.0-only") == SEVERITY["permissive"]
    assert severity("MIT AND GPL-2.0-only") == severity("GPL-2.0-only") == SEVERITY["non_permissive"]
    assert severity("GPL-2.0-only WITH Classpath-exception-2.0") == SEVERITY["non_permissive"]
    assert severity("LicenseRef-Foo") == severity(None) == SEVERITY["unknown"]


# ---------------------------------------------------------------- the tables


def test_the_tables_hold_canonical_expressions_under_reduced_names() -> None:
    found = tables()
    for table in (found.names, found.urls, found.classifiers, found.debian):
        for name, expression in table.items():
            assert is_expression(expression) or (expression == "" and table is not found.names), (name, expression)
    for name in found.names:
        assert reduce_name(name) == name, name
    for name, expression in found.exceptions.items():
        assert expression in scancode_licenses().exceptions, name


def test_identifiers_are_names_of_themselves() -> None:
    known = scancode_licenses()
    for key in known.classes:
        if key.startswith("LicenseRef-") or key in known.exceptions:
            continue
        found = tables().names.get(reduce_name(key))
        assert found is None or severity(found) >= severity(key), (key, found)


fragments = st.lists(
    st.sampled_from(["MIT", "GPL", "BSD", "v2", "2.0", "+", "or", "and", "/", ",", "(", ")", "license", "with", "exception",
                     "later", "dual", "https://opensource.org/licenses/MIT", "[", "]", "](x)", "see", "LICENSE", "\n", "ﬀ", "*"])
    | st.text(max_size=6),
    max_size=14,
)  # fmt: skip


@given(fragments, st.sampled_from(["", " "]), st.sampled_from(["AND", "OR"]))
def test_whatever_is_written_the_answer_is_canonical_with_known_keys(parts: list[str], glue: str, slash: str) -> None:
    found = resolve(glue.join(parts), slash=slash)  # type: ignore[arg-type]
    if found is not None:
        assert parse(found) == found
        known = scancode_licenses()
        assert all(key in known.classes or "Ref-" in key for key in keys_of(found))


@given(fragments)
def test_a_copyleft_name_is_never_lost(parts: list[str]) -> None:
    """Whatever stands around it: the answer is none, or holds it or leaves the choice."""
    found = resolve(" ".join([*parts, "GPL-3.0"]))
    assert found is None or "GPL" in found


def test_names_without_end_are_not_read() -> None:
    assert resolve(" or ".join(["Apache 2", "BSD"] * 5)) == "Apache-2.0 OR BSD-3-Clause"
    assert resolve(" or ".join(["Apache 2", "BSD"] * 10)) is None


def test_the_time_does_not_grow_faster_than_the_text() -> None:
    for unit in ("MIT or ", "MIT/", "(", "GPL with ", "[MIT](", "see ", "or later ", "dual ", "https://a ", "' "):
        assert resolve(unit * 20_000) is None
        resolve((unit * MAX_CHARS)[:MAX_CHARS])


@pytest.mark.parametrize("text", ["MIT-ish", "mit-ish license", "Apache-2.0ish", "BSD-ish"])
def test_an_engine_that_passes_over_a_word_does_not_make_it_permissive(text: str) -> None:
    detect.warm()
    assert resolve(text, scancode_engine()) is None
