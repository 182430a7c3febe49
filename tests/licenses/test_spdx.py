"""SPDX expressions: what is one, and its canonical form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from license_expression import get_spdx_licensing

from stackbuild.licenses.expression import keys_of
from stackbuild.licenses.lists import scancode_licenses
from stackbuild.licenses.spdx import MAX_CHARS, join, license_key, parse


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("MIT", "MIT"),
        ("mit", "MIT"),
        ("(MIT)", "MIT"),
        ("((MIT))", "MIT"),
        ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("mit or apache-2.0", "MIT OR Apache-2.0"),
        ("MIT AND (Apache-2.0 OR GPL-2.0)", "MIT AND (Apache-2.0 OR GPL-2.0-only)"),
        ("(MIT AND Apache-2.0) OR GPL-2.0+", "MIT AND Apache-2.0 OR GPL-2.0-or-later"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("GPL-2.0 with classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("GPL-2.0-with-classpath-exception", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("LGPL-3.0+", "LGPL-3.0-or-later"),
        ("Apache-2.0+", "Apache-2.0"),
        ("MIT AND MIT", "MIT"),
        ("LicenseRef-Our-Own", "LicenseRef-Our-Own"),
        ("DocumentRef-x:LicenseRef-y", "DocumentRef-x:LicenseRef-y"),
        ("MIT WITH AdditionRef-x", "MIT WITH AdditionRef-x"),
        ("BSD-2-Clause-FreeBSD", "BSD-2-Clause-Views"),
    ],
)
def test_canonical_forms(written: str, canonical: str) -> None:
    assert parse(written) == canonical


@pytest.mark.parametrize(
    "written",
    ["", "()", "MIT OR", "OR MIT", "MIT GPL-2.0", "(MIT", "MIT)", "MIT OR OR ISC", "Foo-1.0", "MIT WITH Apache-2.0",
     "Classpath-exception-2.0", "MIT WITH (LLVM-exception)", "(MIT OR ISC) WITH LLVM-exception", "MIT/Apache-2.0",
     "LicenseRef-", "MIT OR NONE", "AND", "MIT (ISC)", "GPL-2.0-with-classpath-exception+",
     "MIT WITH LLVM-exception WITH LLVM-exception"],
)  # fmt: skip
def test_what_is_not_well_formed_or_not_known_is_none(written: str) -> None:
    assert parse(written) is None


def test_every_key_of_scancode_is_its_own_canonical_form() -> None:
    known = scancode_licenses()
    for key in known.classes:
        if key not in known.exceptions and " " not in key:
            assert parse(key) == key and parse(key.lower()) == key, key
    assert all(license_key(key) is None for key in known.exceptions)


def test_depth_and_length_are_bounded() -> None:
    assert parse("(" * 2_000 + "MIT" + ")" * 2_000) == "MIT"
    assert parse("(" * 50_000 + "MIT" + ")" * 50_000) is None
    assert parse("MIT OR " * MAX_CHARS + "MIT") is None


LICENSING = get_spdx_licensing()
KEYS = ["MIT", "Apache-2.0", "GPL-2.0-only", "LGPL-2.1-or-later", "ISC"]
trees = st.recursive(
    st.sampled_from([*KEYS, "GPL-2.0-only WITH Classpath-exception-2.0"]),
    lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner),
    max_leaves=8,
)


def written(tree: object) -> str:
    return tree if isinstance(tree, str) else f"({written(tree[1])} {tree[0]} {written(tree[2])})"  # type: ignore[index]


@settings(deadline=None, max_examples=40)
@given(trees)
def test_the_canonical_form_means_the_same_to_another_parser(tree: object) -> None:
    text = written(tree)
    canonical = parse(text)
    assert canonical is not None and parse(canonical) == canonical
    assert LICENSING.parse(text).simplify() == LICENSING.parse(canonical).simplify()


@given(st.text(alphabet="MITAPOR()+- GLwith02.\n", max_size=60) | st.text(max_size=40))
def test_nothing_is_raised_and_what_is_given_has_known_keys(text: str) -> None:
    found = parse(text)
    if found is not None:
        known = scancode_licenses()
        assert parse(found) == found
        assert all(key in known.classes or "Ref-" in key for key in keys_of(found))


def test_joined_alternatives_keep_their_parentheses() -> None:
    assert join(["MIT OR ISC", "GPL-2.0-only"], "AND") == "(MIT OR ISC) AND GPL-2.0-only"
    assert join(["MIT AND ISC", "GPL-2.0-only"], "OR") == "MIT AND ISC OR GPL-2.0-only"
    assert join(["MIT", "MIT"], "AND") == "MIT"
    assert join(["(MIT OR ISC) AND Zlib", "Zlib"], "AND") == "(MIT OR ISC) AND Zlib"
