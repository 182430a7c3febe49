"""Path rules: REUSE.toml's and DEP-5's, against a matcher that tries everything."""

from __future__ import annotations

from functools import cache

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.licenses.declared import Declaration, governing, matching
from stackbuild.licenses.declared.globs import from_dep5, from_reuse, literal

# A pattern as a list of units: a character, or what a wildcard stands for.
Unit = tuple[str, str]


def reuse_units(pattern: str) -> list[Unit]:
    """REUSE 3.3: "*" is all but "/", "**" is all, "\\" makes "*" and "\\" plain."""
    units: list[Unit] = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "\\" and at + 1 < len(pattern) and pattern[at + 1] in "*\\":
            units.append(("char", pattern[at + 1]))
            at += 2
        elif pattern.startswith("**", at):
            units.append(("any", ""))
            at += 2
            while pattern.startswith("*", at):
                at += 1
        elif pattern[at] == "*":
            units.append(("segment", ""))
            at += 1
        else:
            units.append(("char", pattern[at]))
            at += 1
    return units


def dep5_units(pattern: str) -> list[Unit]:
    """DEP-5: "*" and "?" match "/" too; "\\" makes "*", "?" and "\\" plain."""
    units: list[Unit] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern) and pattern[at + 1] in "*?\\":
            units.append(("char", pattern[at + 1]))
            at += 1
        else:
            units.append(("any", "") if char == "*" else ("one", "") if char == "?" else ("char", char))
        at += 1
    return units


def oracle(units: list[Unit], path: str) -> bool:
    @cache
    def rest(unit: int, at: int) -> bool:
        if unit == len(units):
            return at == len(path)
        kind, char = units[unit]
        if kind == "char":
            return at < len(path) and path[at] == char and rest(unit + 1, at + 1)
        if kind == "one":
            return at < len(path) and rest(unit + 1, at + 1)
        return rest(unit + 1, at) or (at < len(path) and (kind == "any" or path[at] != "/") and rest(unit, at + 1))

    return rest(0, 0)


def one(glob: str, path: str) -> bool:
    return bool(matching([glob], pa.array([path]))[0].as_py())


patterns = st.text(alphabet="ab/*?\\.é[", max_size=8)
paths = st.text(alphabet="ab/*?\\.é[\n", max_size=8)


@settings(deadline=None)
@given(patterns, st.lists(paths, max_size=6))
def test_patterns_of_reuse_toml(pattern: str, candidates: list[str]) -> None:
    found = matching([from_reuse(pattern)], pa.array(candidates, pa.string())).to_pylist()
    assert found == [oracle(reuse_units(pattern), path) for path in candidates]


@settings(deadline=None)
@given(patterns.filter(lambda text: not text.startswith("./")), st.lists(paths, max_size=6))
def test_patterns_of_dep5(pattern: str, candidates: list[str]) -> None:
    found = matching([from_dep5(pattern)], pa.array(candidates, pa.string())).to_pylist()
    assert found == [oracle(dep5_units(pattern), path) for path in candidates]


@settings(deadline=None)
@given(paths, paths)
def test_a_literal_matches_itself_alone(path: str, other: str) -> None:
    assert one(literal(path), path) and one(literal(path), other) == (path == other)


@pytest.mark.parametrize(
    ("pattern", "path", "reuse", "dep5"),
    [
        ("*", "a/b.c", False, True),
        ("**", "a/b.c", True, True),
        ("src/*.c", "src/x/y.c", False, True),
        ("src/*.c", "src/x.c", True, True),
        ("src/**/x", "src/a/b/x", True, True),
        ("src/**/x", "src/x", False, False),
        ("a?c", "a?c", True, True),
        ("a?c", "abc", False, True),
        ("a?c", "a/c", False, True),
        (r"a\*c", "a*c", True, True),
        (r"a\*c", "abc", False, False),
        (r"a\?c", "a?c", False, True),
        ("Makefile.in", "x/Makefile.in", False, False),
        ("[ab]", "a", False, False),
        ("A", "a", False, False),
    ],
)
def test_the_two_syntaxes_differ(pattern: str, path: str, reuse: bool, dep5: bool) -> None:
    assert one(from_reuse(pattern), path) is reuse and one(from_dep5(pattern), path) is dep5


def test_dep5_drops_the_dot_of_the_root() -> None:
    assert one(from_dep5("./src/*"), "src/x")


def test_no_globs_match_all_and_null_stays_null() -> None:
    array = pa.array(["a", None, "b/c"])
    assert matching([], array).to_pylist() == [True, None, True]
    assert matching(["*", "x"], array).to_pylist() == [True, None, False]
    assert matching(["a"], array).to_pylist() == [True, None, False]


def test_binary_paths_are_matched_byte_by_byte() -> None:
    array = pa.array([b"\xff/x", "é".encode(), b"a"], pa.binary())
    assert matching(["**/x", "é"], array).to_pylist() == [True, True, False]


def test_many_and_long_globs() -> None:
    globs = [f"d{number}/**/x*" for number in range(4_000)] + [f"e{number}" for number in range(4_000)] + ["z" * 5_000]
    array = pa.array(["d3999/a/xy", "e3999", "d3999/a/y", "z" * 5_000])
    assert matching(globs, array).to_pylist() == [True, True, False, False]
    assert one("*a" * 2_000, "a" * 4_000) and not one("**a" * 1_300, "b" * 4_000)


@settings(deadline=None)
@given(st.lists(st.lists(patterns, min_size=1, max_size=2), max_size=4), st.lists(paths, max_size=5))
def test_the_last_rule_that_matches_governs(rules: list[list[str]], candidates: list[str]) -> None:
    declared = [Declaration("debian", "MIT", "MIT", 1, tuple(map(from_dep5, rule))) for rule in rules]
    found = governing(declared, pa.array(candidates, pa.string())).tolist()
    for path, number in zip(candidates, found, strict=True):
        hits = [
            at for at, rule in enumerate(rules) if any(oracle(dep5_units(p.removeprefix("./")), path) for p in rule)
        ]
        assert number == max(hits, default=-1)
