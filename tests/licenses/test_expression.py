"""Which keys of an expression count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.licenses.expression import keys_of, read_expression

BAD = {"MIT": 0, "Apache-2.0": 0, "LLVM-exception": 0, "LGPL-2.1-only": 2, "GPL-2.0-only": 4, "AGPL-3.0-only": 4}


def choice(expression: str) -> set[str]:
    return set(read_expression(expression, "choice", lambda key: BAD.get(key, 3)))


@pytest.mark.parametrize(
    ("expression", "counting"),
    [
        ("MIT", {"MIT"}),
        ("MIT OR GPL-2.0-only", {"MIT"}),
        ("GPL-2.0-only OR MIT", {"MIT"}),
        ("GPL-2.0-only or MIT", {"MIT"}),
        ("MIT AND GPL-2.0-only", {"MIT", "GPL-2.0-only"}),
        ("MIT OR Apache-2.0", {"MIT"}),
        ("MIT AND (GPL-2.0-only OR Apache-2.0)", {"MIT", "Apache-2.0"}),
        ("MIT AND GPL-2.0-only OR Apache-2.0", {"Apache-2.0"}),
        ("LGPL-2.1-only OR GPL-2.0-only", {"LGPL-2.1-only"}),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", {"Apache-2.0", "LLVM-exception"}),
        ("(MIT)", {"MIT"}),
    ],
)
def test_of_a_choice_the_better_alternative_counts(expression: str, counting: set[str]) -> None:
    assert choice(expression) == counting


def test_the_published_reading_takes_every_licence() -> None:
    assert read_expression("MIT OR GPL-2.0-only", "all", lambda key: BAD[key]) == {"MIT", "GPL-2.0-only"}
    assert keys_of("(MIT OR GPL-2.0-only) AND Apache-2.0 WITH LLVM-exception") == {
        "MIT",
        "GPL-2.0-only",
        "Apache-2.0",
        "LLVM-exception",
    }


@pytest.mark.parametrize(
    "expression",
    ["MIT OR", "OR MIT GPL-2.0-only", "(MIT", "MIT)", "MIT GPL-2.0-only", "", "()", "MIT OR OR GPL-2.0-only"],
)
def test_of_what_is_not_well_formed_every_key_counts(expression: str) -> None:
    assert choice(expression) == set(keys_of(expression))


def test_depth_and_length_do_not_matter() -> None:
    deep = "(" * 50_000 + "MIT" + ")" * 50_000
    assert choice(deep) == {"MIT"}
    assert choice(" AND ".join(["(MIT OR GPL-2.0-only)"] * 20_000)) == {"MIT"}


trees = st.recursive(
    st.sampled_from(sorted(BAD)), lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner), max_leaves=12
)


def written(tree: object) -> str:
    return tree if isinstance(tree, str) else f"({written(tree[1])} {tree[0]} {written(tree[2])})"  # type: ignore[index]


def chosen(tree: object) -> set[str]:
    """The rule, written as a recursion."""
    if isinstance(tree, str):
        return {tree}
    operator, left, right = tree  # type: ignore[misc]
    one, other = chosen(left), chosen(right)
    if operator == "AND":
        return one | other
    return other if max(BAD[k] for k in other) < max(BAD[k] for k in one) else one


@given(trees)
def test_it_is_the_recursion_that_one_would_write(tree: object) -> None:
    assert choice(written(tree)) == chosen(tree)
