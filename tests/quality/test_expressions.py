"""Conditions of rules: what they mean is what the same words mean in Python, and what means nothing is refused with its place."""

from __future__ import annotations

import ast
import operator as op
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.errors import RecipeError
from stackbuild.quality.expressions import EXTENSION, MAX_DEPTH, ExpressionError, parse

FILES = {
    "num_lines": [1, 10, 0, 200, None],
    "line_chars": [5, 100, 0, 900, 7],
    "num_chars": [6, 110, 0, 1100, 9],
    "is_vendor": [True, False, None, False, True],
    "language": ["C", "Python", None, "", "C++"],
    "path": ["/a.c", "/src/test_b.py", "/", "/x/é.C", "/x.y/b"],
    "repo_name": ["a/b"] * 5,
    EXTENSION: ["c", "py", "", "c", ""],
    "mine": pa.array([1.5, None, 2, 3, -4]),
}


def holds(condition: str) -> list[bool]:
    return list(parse(condition).holds(pa.record_batch(FILES)).to_pylist())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("num_lines > 1", [0, 1, 0, 1, 0]),
        ("not num_lines > 1", [1, 0, 1, 0, 0]),  # what is not measured drops nothing, negated or not
        ("num_lines > 1 or language == 'C++'", [0, 1, 0, 1, 1]),
        ("num_lines > 1 and language == 'C++'", [0, 0, 0, 0, 0]),
        ("num_lines != 1", [0, 1, 1, 1, 0]),
        ("mean_line_length >= 5", [1, 1, 0, 0, 0]),
        ("line_chars_ > 1", None),
        ("num_chars / num_lines > 5.6", [1, 1, 0, 0, 0]),
        ("num_chars / num_lines > 5.6 or num_lines == 0", [1, 1, 1, 0, 0]),
        ("1 + 2 * 3 - 4 / 2 == 5 and num_lines >= 0", [1, 1, 1, 1, 0]),
        ("(1 + 2) * 3 == 9 and num_lines >= 0", [1, 1, 1, 1, 0]),
        ("-num_lines < - 5", [0, 1, 0, 1, 0]),
        ("num_lines - 1 - 1 == 8", [0, 1, 0, 0, 0]),
        ("100 < num_lines", [0, 0, 0, 1, 0]),
        ("language in ['C', \"C++\"]", [1, 0, 0, 0, 1]),
        ("not language in ['C']", [0, 1, 1, 1, 1]),
        ("language == ''", [0, 0, 1, 1, 0]),
        ("language != 'C'", [0, 1, 1, 1, 1]),
        ("filename matches '^test_'", [0, 1, 0, 0, 0]),
        ("path contains '/x'", [0, 0, 0, 1, 1]),
        ("path matches '(?i)\\.c$'", [1, 0, 0, 1, 0]),
        ("extension == 'c'", [1, 0, 0, 1, 0]),
        ("is_vendor == 1", [1, 0, 0, 0, 1]),
        ("column.mine < 2", [1, 0, 0, 0, 1]),
        ("not (not (num_lines == 10))", [0, 1, 0, 0, 0]),
        ("num_lines == 1 or num_lines == 10 and language == 'C'", [1, 0, 0, 0, 0]),
        ("(num_lines == 1 or num_lines == 10) and language == 'Python'", [0, 1, 0, 0, 0]),
    ],
)
def test_a_condition_holds_where_its_words_say(condition: str, expected: list[int] | None) -> None:
    if expected is None:
        with pytest.raises(ExpressionError):
            parse(condition)
    else:
        assert holds(condition) == [bool(one) for one in expected]


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("", "the end at character 1: a measure, a number or a text is meant"),
        ("num_lines", "what begins at character 1 is a number, where a condition is meant; compare it"),
        ("num_lines >", "the end at character 12: a measure"),
        ("num_lines > 1 and", "the end at character 18: a measure"),
        ("num_lines > 1 language == 'C'", "'language' at character 15: a condition ends before it"),
        ("(num_lines > 1", r"the end at character 15: `\)` is meant"),
        ("num_lines > 1)", r"'\)' at character 14: a condition ends before it"),
        ("1 < num_lines < 3", "'<' at character 15: one comparison follows another; join two with `and`"),
        ("num_lines = 3", "'=' at character 11 means nothing"),
        ("num_lines > 'C'", "'>' compares two numbers or two texts"),
        ("language > 'C'", "texts are compared with == and !=, not with '>'"),
        ("language == 3", "compares two numbers or two texts"),
        ("language in 'C'", "a list is meant"),
        ("language in []", r"'\]' at character 14: a text in quotation marks is meant"),
        ("language in ['C' 'D']", "`,` or `]` is meant"),
        ("num_lines in ['C']", "'in' at character 11: a condition ends before it"),
        ("language matches '('", "the pattern at character 18 is not of RE2"),
        ("language matches '(?<=a)b'", "is not of RE2"),
        ("language == 'C", "means nothing"),
        ("1 > 2", "names nothing of a file"),
        ("language + 1 > 3", r"what begins at character 1 is a text, where a number before `\+` is meant"),
        ("not num_lines", "where a condition after `not` is meant"),
        ("-language == 'C'", "where a number after `-` is meant"),
        ("(num_lines > 1) > 0", "compares two numbers or two texts"),
        ("__import__('os')", "there is no measure '__import__'"),
        ("num_lines.real > 1", "there is no measure 'num_lines.real'"),
        ("num_lines ** 2 > 4", r"'\*' at character 12: a measure"),
        ("and > 1", "'and' at character 1: a measure"),
        ("num_lines > \u0663", "means nothing"),
        ("num_lines > 1" + " or num_lines > 1" * 400, "4,000"),
    ],
)
def test_what_means_nothing_is_refused_with_its_place(condition: str, says: str) -> None:
    with pytest.raises(ExpressionError, match=says):
        parse(condition)


@pytest.mark.parametrize("sign", ["(", "not ", "-", "-(", "not ("])
def test_no_number_of_open_signs_exhausts_the_stack(sign: str) -> None:
    with pytest.raises(ExpressionError, match=f"more than {MAX_DEPTH}"):
        parse(sign * 3_000 if len(sign) == 1 else sign * 600)


def test_a_decision_is_told_the_values_of_what_it_names() -> None:
    condition = parse("num_chars / num_lines > 5.6 and (language in ['C', 'Python'] or is_vendor == 1)")
    files = pa.record_batch(FILES)
    told = condition.told(files, condition.holds(files)).to_pylist()
    assert told == [
        "num_chars = 6, num_lines = 1, language = C, is_vendor = 1",
        "num_chars = 110, num_lines = 10, language = Python, is_vendor = 0",
        None,
        None,
        None,
    ]


def test_a_condition_says_what_it_reads() -> None:
    condition = parse("mean_line_length > 3 and extension == 'c' and column.mine > 0")
    assert condition.columns == ("line_chars", "num_lines", "path", "mine") and condition.on_extension
    assert not parse("path contains 'x'").on_extension


def test_a_column_that_is_no_number_is_told() -> None:
    files = pa.record_batch({"column": [["a"]], "num_lines": [1]})
    with pytest.raises(RecipeError, match=r"column.column in a rule: it is of type list<.*>, no number"):
        parse("column.column > 1").holds(files)


# ---------------------------------------------------------------- against Python

NUMBERS = st.sampled_from(["num_lines", "num_chars", "column.mine", "0", "1", "2.5", "100"])
TEXTS = st.sampled_from(["language == 'C'", "language != 'C'", "language in ['C', '']", "path contains 'x'"])
SIGNS = st.sampled_from([">", ">=", "<", "<=", "==", "!="])
sums = st.recursive(
    NUMBERS, lambda one: st.builds("({} {} {})".format, one, st.sampled_from("+-*/"), one) | st.builds("-{}".format, one), max_leaves=4
)  # fmt: skip
conditions = st.recursive(
    st.builds("{} {} {}".format, sums, SIGNS, sums) | TEXTS,
    lambda one: (
        st.builds("{} {} {}".format, one, st.sampled_from(["and", "or"]), one)
        | st.builds("not {}".format, one)
        | st.builds("({})".format, one)
    ),
    max_leaves=8,
)


SIGN = {ast.Gt: op.gt, ast.GtE: op.ge, ast.Lt: op.lt, ast.LtE: op.le, ast.Eq: op.eq, ast.NotEq: op.ne}
SUM = {ast.Add: op.add, ast.Sub: op.sub, ast.Mult: op.mul, ast.Div: op.truediv}


def number(node: Any, row: dict[str, Any]) -> Any:
    """A value in one file; None where it cannot be measured."""
    if isinstance(node, ast.Constant | ast.Name):
        return row[node.id] if isinstance(node, ast.Name) else node.value
    if isinstance(node, ast.UnaryOp):
        value = number(node.operand, row)
        return None if value is None else -value
    a, b = number(node.left, row), number(node.right, row)
    if a is None or b is None or (isinstance(node.op, ast.Div) and b == 0):
        return None
    return SUM[type(node.op)](a, b)


def truth(node: Any, row: dict[str, Any]) -> bool | None:
    """Kleene's logic: None is what might be either."""
    if isinstance(node, ast.BoolOp):
        found = [truth(one, row) for one in node.values]
        decides = isinstance(node.op, ast.Or)
        return decides if decides in found else None if None in found else not decides
    if isinstance(node, ast.UnaryOp):
        value = truth(node.operand, row)
        return None if value is None else not value
    left, sign, right = node.left, node.ops[0], node.comparators[0]
    if isinstance(right, ast.List):
        return (row[left.id] or "") in [one.value for one in right.elts]
    if isinstance(sign, ast.In):
        return left.value in row["path"]
    if isinstance(left, ast.Name) and left.id == "language":
        return bool(SIGN[type(sign)](row["language"] or "", right.value))
    a, b = number(left, row), number(right, row)
    return None if a is None or b is None else bool(SIGN[type(sign)](a, b))


ROWS = pa.table(FILES).to_pylist()


@settings(max_examples=300, deadline=None)
@given(conditions)
def test_it_means_what_python_would_say(condition: str) -> None:
    try:
        found = holds(condition)
    except ExpressionError as error:
        assert "names nothing" in str(error)
        return
    python = condition.replace("path contains 'x'", "'x' in path").replace("column.mine", "mine")
    tree = ast.parse(python, mode="eval").body
    assert found == [truth(tree, row) is True for row in ROWS]
