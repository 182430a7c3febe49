"""Comments, docstrings, errors and tokens of a file: golden values counted by hand, bounds, and SantaCoder's rules on them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stackbuild import graph
from stackbuild.errors import InputError, RecipeError
from stackbuild.filter_preview import preview
from stackbuild.quality import grammars, parsing
from stackbuild.quality.filters import FilterOptions, Filters
from stackbuild.quality.grammars import Grammar, grammar, marks, parse, walk
from stackbuild.quality.measures import MEASURES
from stackbuild.quality.syntax import Syntax, SyntaxOptions, measure
from stackbuild.stage import judge, with_columns
from stackbuild.syntax_trees import GRAMMARS
from stackbuild.tokens.bpe import train_bpe
from stackbuild.tokens.fertility import Fertility, FertilityOptions
from tests.worlds import light, world

ALL = frozenset(GRAMMARS)
LARGE = 1 << 20


def texts(*values: str | None) -> pa.LargeStringArray:
    return pa.array(values, pa.large_string())


def counts(language: str | None, text: str | None, wanted: frozenset[str] = ALL) -> tuple[int | None, ...]:
    """Characters of comments, of docstrings and under errors."""
    columns = measure(texts(text), [language], wanted, LARGE)
    return tuple(columns[name][0].as_py() for name in ("comment_chars", "docstring_chars", "error_chars"))


def pieces(language: str, text: str) -> tuple[list[str], list[str], list[str]]:
    """What was found to be a comment, a docstring, an error."""
    data = text.encode()
    found = parse(language, memoryview(data))
    assert found is not None
    comments, docs, errors = (
        [data[start:end].decode() for start, end in spans] for spans in (found.comments, found.docstrings, found.errors)
    )
    return comments, docs, errors


# ---------------------------------------------------------------- what counts


PYTHON = '''#!/usr/bin/env python
# é
"""Module."""
X = """no docstring"""
"nor this"


class A:  # why
    "Class."

    def f(self): 'One line.'

    async def g(
        self,
    ) -> str:
        # before
        r"""Raw,""" "and more."
        """no longer the first"""
        return {"a": "# no comment"}["a"]


if X:
    "plain"
'''


def test_comments_and_docstrings_of_python() -> None:
    comments, docs, errors = pieces("Python", PYTHON)
    assert comments == ["#!/usr/bin/env python", "# é", "# why", "# before"]
    assert docs == ['"""Module."""', '"Class."', "'One line.'", 'r"""Raw,""" "and more."']
    assert errors == []
    assert counts("Python", PYTHON) == (21 + 3 + 5 + 8, 13 + 8 + 11 + 23, 0)


@pytest.mark.parametrize(
    "string",
    ["b'bytes'", "f'formatted'", "rb'raw'", "F'x'", "'a' f'b'", "'a' b'b'", "x = 'assigned'", "('in brackets',)"],
)
def test_what_is_no_docstring(string: str) -> None:
    for head in ("", "def f():\n    ", "class A:\n    "):
        assert pieces("Python", f"{head}{string}\n")[1] == []


@pytest.mark.parametrize("string", ["'a'", '"a"', "u'a'", "R'a'", "'''a\nb'''", "'a' 'b'"])
def test_what_is_a_docstring(string: str) -> None:
    for head in (
        "",
        "# first\n\n",
        "def f():\n    ",
        "def f(): ",
        "class A(B): ",
        "class A: ",
        "def f(a='x') -> 'T': ",
    ):
        assert pieces("Python", f"{head}{string}\n")[1] == [string]


JAVA = """/** Block. */
class A { // é is one character
    String s = "/* a string */ // too";
    /* one * line */ int i = 1 / 2;
    char c = '"'; /*
 two */
}
"""


def test_comments_of_java() -> None:
    found = ["/** Block. */", "// é is one character", "/* one * line */", "/*\n two */"]
    assert pieces("Java", JAVA) == (found, [], [])
    assert counts("Java", JAVA) == (13 + 21 + 16 + 10, 0, 0)


JAVASCRIPT = """#!/usr/bin/env node
/* a /* b */
const page = <p title="// no">{/* in JSX */}{x // end
}</p>;
const re = /[/]\\/\\/ no/g, t = `// no ${ 1 /* yes */ }`;
"""


def test_comments_of_javascript_in_jsx_and_templates_but_no_shebang() -> None:
    assert pieces("JavaScript", JAVASCRIPT) == (["/* a /* b */", "/* in JSX */", "// end", "/* yes */"], [], [])
    assert counts("JavaScript", JAVASCRIPT) == (12 + 12 + 6 + 9, 0, 0)


def test_nested_comments_count_once() -> None:
    text = "fn f() {} /* a /* b */ c */\n/// doc\n"
    assert counts("Rust", text) == (17 + 8, 0, 0)  # the line end is part of Rust's documentation comment
    assert counts("Haskell", "x = 1 {- a {- b -} c -}\n") == (17, 0, 0)


@pytest.mark.parametrize(
    ("language", "text", "comments"),
    [
        ("C", "int a; // x\n/* y */\n#define A 1 /* z */\n", ["// x", "/* y */", "/* z */"]),
        ("C++", 'auto s = R"(/* no */)"; // x\n', ["// x"]),
        ("C#", "/// <a/>\nclass A {} // x\n", ["/// <a/>", "// x"]),
        ("Go", "package a // x\nvar s = `/* no */`\n", ["// x"]),
        ("TypeScript", "let a: string; // x\n", ["// x"]),
        ("TSX", "let a = <b>{/* x */}</b>;\n", ["/* x */"]),
        ("Ruby", "=begin\nx\n=end\na = 1 # y\n", ["=begin\nx\n=end", "# y"]),
        ("PHP", "<p>// no</p><?php # x\n// y\n/* z */\n", ["# x", "// y", "/* z */"]),
        ("Shell", "#!/bin/sh\necho '#no' # x\n", ["#!/bin/sh", "# x"]),
        ("Kotlin", "val a = 1 // x\n/* y */\n", ["// x", "/* y */"]),
        ("Swift", "let a = 1 // x\n/* y */\n", ["// x", "/* y */"]),
        ("Lua", "a = 1 -- x\n--[[ y\n]]\n", ["-- x", "--[[ y\n]]"]),
        ("Haskell", "-- | y\na = 1 -- x\n", ["-- | y", "-- x"]),
        ("Julia", "a = 1 # x\n#= y =#\n", ["# x", "#= y =#"]),
        ("CSS", "a { /* x */ }\n", ["/* x */"]),
        ("Elixir", "a = 1 # x\n", ["# x"]),
        ("Erlang", "-module(a). % x\n", ["% x"]),
        ("Clojure", "(a) ; x\n", ["; x"]),
    ],
)
def test_every_language_finds_its_comments(language: str, text: str, comments: list[str]) -> None:
    assert [comment.removesuffix("\n") for comment in pieces(language, text)[0]] == comments


def test_the_walk_leaves_no_comment_out() -> None:
    """The walk goes only where a mark is: against one that goes everywhere, over this Python's own library."""
    for path in sorted(Path(json.__file__).parent.parent.glob("[a-d]*.py")):
        data = memoryview(path.read_bytes())
        known = grammar("Python")
        tree = known.parser.parse(bytes(data))
        everywhere = Grammar(**{**vars(known), "marks": tuple(bytes([byte]) for byte in set(bytes(data)))})
        assert walk(tree, data, known) == walk(tree, data, everywhere), path.name


def test_marks_are_found_where_they_overlap() -> None:
    assert marks(memoryview(b"*//*"), grammar("Java")) == [1, 2]
    assert marks(memoryview(b"/"), grammar("Java")) == []


# ---------------------------------------------------------------- errors, and what has no measure


def test_errors_are_the_text_under_error_nodes() -> None:
    text = "x = 1\n)))\ny = 2\n"
    assert pieces("Python", text)[2] == [")))"]
    assert counts("Python", text) == (0, 0, 3)


def test_a_comment_within_an_error_is_a_comment_too() -> None:
    comment, _, error = counts("Python", "class ! (\n# é\n")
    assert comment == 3
    assert error is not None
    assert error >= 8


def test_what_is_missing_has_no_length() -> None:
    data = b"int f() { return 1 }\n"
    assert grammar("C").parser.parse(data).root_node.has_error
    assert counts("C", data.decode()) == (0, 0, 0)


def test_a_file_that_is_half_binary_is_measured() -> None:
    binary = "".join(map(chr, [*range(1, 32), *range(127, 256)])) * 4 + "\0" * 50
    comments, docs, errors = counts("Python", '"""Doc."""\n# é\nx = 1\n' + binary)
    assert (comments, docs) >= (3, 10)
    assert errors is not None
    assert errors > len(binary) / 2


@pytest.mark.parametrize("language", sorted(GRAMMARS))
def test_an_empty_file_and_white_space_have_nothing(language: str) -> None:
    assert counts(language, "") == counts(language, "\n \t\n") == (0, 0, 0)


def test_no_grammar_no_language_no_text_and_no_rule_are_null() -> None:
    none = (None, None, None)
    assert counts("Brainfuck", "# x") == counts(None, "# x") == counts("Python", None) == none
    assert counts("Python", "# x", frozenset({"Java"})) == none
    assert counts("Python", "# x", frozenset({"Python"})) == (3, 0, 0)


def test_rows_of_a_slice_are_its_own() -> None:
    column = texts("# away\n", "# éé\n", "x\n", None, "#\n").slice(1)
    told = measure(column, ["Python"] * 4, ALL, LARGE)
    assert told["comment_chars"].to_pylist() == [4, 0, None, 1]


# ---------------------------------------------------------------- bounds


def test_a_file_above_max_bytes_is_not_parsed() -> None:
    told = measure(texts("#23456", "#2345"), ["Python"] * 2, ALL, 5)
    assert told["comment_chars"].to_pylist() == [None, 5]


@pytest.mark.parametrize(
    "unit", ["x=>", "{-", "%w(", "q{", "a<b(", "<<A\n", "(", "'", '"', "/*", "if x:\n ", "\0", "&&a", "<a>"]
)
@pytest.mark.parametrize("language", ["Python", "Java", "JavaScript"])
def test_hostile_text_ends(monkeypatch: pytest.MonkeyPatch, language: str, unit: str) -> None:
    """Quadratic for tree-sitter left alone: 64 KB of `x=>` as Java take minutes."""
    monkeypatch.setattr(parsing, "SECONDS", 0.2)
    begun = os.times().children_user
    counts(language, unit * (65_536 // len(unit)))
    assert os.times().children_user - begun < 1


def test_reading_again_from_the_end_too_often_leaves_a_file_unmeasured() -> None:
    assert counts("Shell", "a<b(" * 5_000) == (None, None, None)
    assert counts("Shell", "a # x\n") == (3, 0, 0)


def test_a_text_that_takes_too_long_or_crashes_the_parser_is_alone_in_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(language: str, text: memoryview) -> grammars.Found | None:
        if bytes(text) == b"forever":
            while True:
                pass
        if bytes(text) == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        return parse(language, text)

    monkeypatch.setattr(parsing, "parse", hostile)
    monkeypatch.setattr(parsing, "SECONDS", 0.1)
    files = texts("forever", "# a", "crash", "crash", "# b", "forever")
    assert measure(files, ["Python"] * 6, ALL, LARGE)["comment_chars"].to_pylist() == [None, 3, None, None, 3, None]


def test_what_is_not_the_text_s_fault_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(language: str, text: memoryview) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def wrong(language: str, text: memoryview) -> None:
        raise KeyError(bytes(text))

    monkeypatch.setattr(parsing, "parse", killed)
    with pytest.raises(MemoryError, match="killed by signal 9"):
        counts("Python", "# x")
    monkeypatch.setattr(parsing, "parse", wrong)
    with pytest.raises(KeyError, match="# x"):
        counts("Python", "# x")


def test_more_answers_than_a_pipe_holds_come_back() -> None:
    files = texts(*["#\n" * 5_000] * 20)
    assert measure(files, ["Python"] * 20, ALL, LARGE)["comment_chars"].to_pylist() == [5_000] * 20


def test_large_real_shapes_end() -> None:
    wide, deep = "x = [" + "1, " * 100_000 + "]\n", "[" * 5_000 + "]" * 5_000 + "\n"
    assert counts("Python", wide) == counts("Python", deep) == (0, 0, 0)
    assert counts("JavaScript", "var a='" + "x" * 500_000 + "'; // end")[0] == 6


def test_a_forked_child_parses_what_its_parent_loaded() -> None:
    assert counts("Python", "# x\n") == (3, 0, 0)
    child = os.fork()
    if not child:
        os._exit(counts("Python", "# x\n") != (3, 0, 0) or counts("Go", "package a // x\n") != (4, 0, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---------------------------------------------------------------- which languages


def table(path: Path, *rules: str) -> str:
    body = "".join(f'[[rule]]\nid = "r{n}"\nsource = "us"\n{rule}\n' for n, rule in enumerate(rules))
    path.write_text(f'name = "mine"\nsource = "us"\n{body}')
    return str(path)


def of_recipe(tmp_path: Path, rules: str, **changes: Any) -> Syntax:
    stages = ["exact_dedup", "decode", "languages", "signals", "syntax", "filters"]
    recipe = light(world(tmp_path / "in", repos=1), stages=stages, filters={"rules": rules}, **changes)
    nodes = graph.nodes_of(recipe)
    graph.check(nodes)
    return next(node.stage for node in nodes if isinstance(node.stage, Syntax))


def test_only_the_languages_that_a_rule_reads_are_parsed(tmp_path: Path) -> None:
    some = table(
        tmp_path / "some.toml",
        'drop = "comment_fraction > 0.9"\nlanguages = ["Java", "Brainfuck"]',
        'drop = "parse_error_fraction > 0.5"\nlanguages = ["Go"]',
        'drop = "num_lines > 9"\nlanguages = ["Perl"]',
    )
    assert of_recipe(tmp_path / "1", some).languages == {"Java", "Go"}
    most = table(tmp_path / "most.toml", 'drop = "comment_fraction > 0.9"\nexcept_languages = ["Java"]')
    assert of_recipe(tmp_path / "2", most).languages == ALL - {"Java"}
    all_ = table(tmp_path / "all.toml", 'drop = "comment_fraction > 0.9"')
    assert of_recipe(tmp_path / "3", all_).languages == ALL
    none = of_recipe(tmp_path / "4", "the-stack-v2")
    assert none.languages == frozenset()
    assert none.tags(pa.record_batch({"text": texts("# x"), "language": ["Python"]}))["comment_chars"].null_count == 1
    own = of_recipe(tmp_path / "5", "the-stack-v2", syntax={"languages": ["Ruby"]})
    assert own.languages == {"Ruby"}


def test_a_changed_threshold_keeps_what_was_measured(tmp_path: Path) -> None:
    first = of_recipe(tmp_path / "1", table(tmp_path / "a.toml", 'drop = "comment_fraction > 0.9"\nlanguages = ["Go"]'))
    other = of_recipe(tmp_path / "2", table(tmp_path / "b.toml", 'drop = "comment_fraction > 0.8"\nlanguages = ["Go"]'))
    third = of_recipe(tmp_path / "3", table(tmp_path / "c.toml", 'drop = "comment_fraction > 0.8"\nlanguages = ["C"]'))
    assert first.key() == other.key() != third.key()


def test_a_rule_on_what_no_stage_measures_is_refused(tmp_path: Path) -> None:
    rules = table(tmp_path / "mine.toml", 'drop = "comment_docstring_fraction > 0.9"')
    for stages in (["exact_dedup", "decode", "languages", "signals", "filters"],
                   ["exact_dedup", "decode", "languages", "signals", "filters", "syntax"]):  # fmt: skip
        recipe = light(world(tmp_path / str(len(stages)), repos=1), stages=stages, filters={"rules": rules})
        with pytest.raises(RecipeError, match="comment_chars"):
            graph.check(graph.nodes_of(recipe))


def test_a_language_without_a_grammar_is_refused_in_options() -> None:
    with pytest.raises(ValidationError, match="no grammar for 'Brainfuck'"):
        SyntaxOptions(languages=("Brainfuck",))


# ---------------------------------------------------------------- tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Bytes and the merges of "aa" and "aaaa"."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(train_bpe([["aaaa"] * 10], 258, []))
    return str(path)


def token_counts(tokenizer: str, *files: tuple[str | None, str | None], **options: Any) -> list[int | None]:
    stage = Fertility(FertilityOptions(tokenizer=tokenizer, **options))
    batch = pa.record_batch(
        {"text": texts(*(t for t, _ in files)), "language": pa.array([x for _, x in files], pa.string())}
    )
    tokens: list[int | None] = stage.tags(batch)["token_count"].to_pylist()
    return tokens


def test_tokens_are_those_of_the_whole_text(tokenizer: str) -> None:
    files = [("aaaa", "C"), ("aaaaaa", "C"), ("", "C"), ("é", None), (None, "C"), ("aaaa\n" * 300_000, "C")]
    assert token_counts(tokenizer, *files) == [1, 2, 0, 2, None, 600_000]
    assert token_counts(tokenizer, *reversed(files)) == [600_000, None, 2, 0, 2, 1]
    assert token_counts(tokenizer, *files[:4], languages=("C",)) == [1, 2, 0, None]


def test_characters_per_token(tokenizer: str) -> None:
    files = pa.record_batch({"num_chars": pa.array([4, 0, 3]), "token_count": pa.array([2, 0, None], pa.int64())})
    assert MEASURES["chars_per_token"].of(files).to_pylist() == [2.0, None, None]


def test_a_tokenizer_that_is_none_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    for name in ("bad.json", "missing.json"):
        with pytest.raises(InputError, match=name):
            Fertility(FertilityOptions(tokenizer=str(tmp_path / name))).key()
    with pytest.raises(ValidationError):
        FertilityOptions()  # type: ignore[call-arg]


def test_the_tokenizer_counts_by_what_it_says_not_where_it_lies(tokenizer: str, tmp_path: Path) -> None:
    (tmp_path / "copy.json").write_bytes(Path(tokenizer).read_bytes())
    keys = [Fertility(FertilityOptions(tokenizer=path)).key() for path in (tokenizer, str(tmp_path / "copy.json"))]
    assert keys[0] == keys[1]


# ---------------------------------------------------------------- SantaCoder's variants


def reasons(rules: str, language: str, **columns: list[int | None]) -> list[str | None]:
    """The rule by which each file leaves."""
    rows = len(next(iter(columns.values())))
    batch = pa.record_batch({name: pa.array(values, pa.int64()) for name, values in columns.items()})
    batch = with_columns(batch, {"language": pa.array([language] * rows)})
    found: list[str | None] = [None] * rows
    for gone in judge(Filters(FilterOptions(rules=rules)).verdicts(batch), rows)[1]:
        for row in gone.rows.to_pylist():
            found[row] = gone.verdict.rule
    return found


@pytest.mark.parametrize("language", ["Python", "Java", "JavaScript"])
def test_santacoder_comments_keeps_what_is_strictly_between(language: str) -> None:
    few, most = "S3-few-comments", "S3-mostly-comments"
    comments, docs = [0, 10, 11, 6, 799, 800, 500, None], [0, 0, 0, 5, 0, 0, 300, 0]
    left = reasons("santacoder-comments", language, comment_chars=comments, docstring_chars=docs, num_chars=[1000] * 8)
    assert left == [few, few, None, None, None, most, most, None]


def test_santacoder_comments_is_about_three_languages() -> None:
    assert reasons("santacoder-comments", "TypeScript", comment_chars=[0], docstring_chars=[0], num_chars=[9]) == [None]


@pytest.mark.parametrize(("language", "limit"), [("Python", 25), ("Java", 29), ("JavaScript", 26)])
def test_santacoder_fertility(language: str, limit: int) -> None:
    chars = [limit - 1, limit, limit + 1]
    left = reasons("santacoder-fertility", language, num_chars=chars, token_count=[10] * 3)
    assert left == [f"S4-fertility-{language.lower()}", None, None]
    assert reasons("santacoder-fertility", "C", num_chars=[1], token_count=[10]) == [None]


def test_santacoder_stars_keeps_five() -> None:
    """Defect D9: the paper says at least five, the code kept more than five."""
    assert reasons("santacoder-stars", "Python", star_events_count=[4, 5, 6, None]) == ["S5-stars", None, None, None]


# ---------------------------------------------------------------- before a build


def test_inspect_filters_measures_what_the_rules_read(tmp_path: Path, tokenizer: str) -> None:
    rows = {"a.py": "# x\n" * 9, "b.py": "x = 1 # why\n", "c.py": "x = 1\n", "d.c": "int a;\n"}
    pq.write_table(pa.table({"path": list(rows), "text": list(rows.values())}), tmp_path / "in.parquet")
    recipe = {
        "stages": ["languages", "signals", "syntax", "fertility", "filters", "filters:2"],
        "filters": {"rules": "santacoder-comments"},
        "fertility": {"tokenizer": tokenizer},
        "stage": {"filters:2": {"rules": "santacoder-fertility"}},
    }
    told = preview(recipe, [str(tmp_path / "in.parquet")])
    assert [(rule.rule, [path for path, _ in rule.examples]) for rule in told.rules] == [
        ("S3-few-comments", ["/c.py"]),
        ("S3-mostly-comments", []),
        ("S4-fertility-python", ["/a.py", "/b.py", "/c.py"]),
        ("S4-fertility-java", []),
        ("S4-fertility-javascript", []),
    ]
    with pytest.raises(RecipeError, match="no stage syntax"):
        preview({**recipe, "stages": ["filters"]}, [str(tmp_path / "in.parquet")])
