"""Tables of rules come from strangers: what cannot be meant is refused, and the message says where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackbuild.errors import RecipeError
from stackbuild.quality import measures, rules

HEAD = 'name = "mine"\nsource = "us"\n'
RULE = '[[rule]]\nid = "r"\nsource = "us"\n'


def read(tmp_path: Path, text: str) -> rules.RuleTable:
    file = tmp_path / "mine.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    return rules.read(str(file))


@pytest.mark.parametrize(
    "text, says",
    [
        (HEAD + RULE + "drop = num_lines\n", r"line 6"),
        (HEAD + "\udcff", "not TOML in UTF-8"),
        (HEAD, "rule: Field required"),
        (HEAD + "rule = []\n", "rule: Tuple should have at least 1 item"),
        (HEAD + "rule = 3\n", "rule: Input should be a valid tuple"),
        (HEAD + RULE, "rule r: a rule has one of `drop`, .*`keep_bytes`; this has none"),
        (
            HEAD + RULE + 'drop = "lines > 3"\n',
            r"rule r, drop: there is no measure 'lines' \(character 1\); there are alphabetic",
        ),
        (HEAD + RULE + 'drop = "num_lines > many"\n', "rule r, drop: there is no measure 'many'"),
        (HEAD + RULE + 'drop = "num_lines > 3 or 1"\n', "what begins at character 18 is a number, where a condition"),
        (HEAD + RULE + 'drop = "num_lines => 3"\n', "'=' at character 11 means nothing"),
        (HEAD + RULE + 'drop = "num_lines > nan"\n', "there is no measure 'nan'"),
        (HEAD + RULE + 'keep_bytes = "8 litres"\n', "'8 litres' is no size; write bytes"),
        (HEAD + RULE + "keep_bytes = 0\n", "0 is no byte: no file would stay"),
        (HEAD + RULE + "keep_bytes = true\n", "True is no size"),
        (HEAD + RULE + 'each = "language"\nkeep_fraction = 0.5\n', "`each` is for `keep_bytes`"),
        (HEAD + RULE + "keep_bytes = 9\n" + RULE.replace('"r"', '"s"') + "keep_bytes = 8\n", "r and s cap bytes"),
        (HEAD + RULE + 'drop = "num_lines > 3"\nlanguage = ["C"]\n', "rule r, language: Extra inputs"),
        (HEAD + RULE + 'drop = "num_lines > 3"\nlanguages = []\n', "`languages` is empty"),
        (HEAD + RULE + 'drop = "num_lines > 3"\nlanguages = "C"\n', "is no list of \\[groups\\]"),
        (HEAD + RULE + 'drop = "num_lines > 3"\nlanguages = ["C"]\nexcept_languages = ["D"]\n', "not both"),
        (HEAD + RULE + 'drop = "num_lines > 3"\n' + RULE + 'drop = "num_lines > 4"\n', "two rules have the id 'r'"),
        (HEAD + RULE + 'drop = "num_lines > 3"\ndrop_languages = ["C"]\n', "this has `drop` and `drop_languages`"),
        (HEAD + RULE + "drop_languages = []\n", "`drop_languages` is empty"),
        (HEAD + RULE + "drop_extensions = { C = [] }\n", "`drop_extensions` is empty"),
        (HEAD + RULE + 'drop = "num_lines > 3"\nextensions = ["c"]\nexcept_extensions = ["d"]\n', "not both"),
        (HEAD + RULE + 'drop_extensions = "code"\n', "drop_extensions = 'code' is no list of"),
        (HEAD + RULE + 'keep_extensions = [".py"]\n', "'.py' is no extension: write what follows the last dot"),
        (HEAD + RULE + 'keep_extensions = ["R"]\n', "rule r: 'R' can match no extension: .* extension_case"),
        (HEAD + RULE + "keep_fraction = 1.0\n", "rule r, keep_fraction: Input should be less than 1"),
        (HEAD + 'extension_case = "no"\n' + RULE + 'drop_extensions = ["c"]\n', "extension_case: Input should be"),
        (HEAD + RULE + "keep_names = {}\n", "no file would stay"),
        (HEAD + RULE + 'keep_names = { stems = ["README"] }\n', "'README' can match no name"),
        (HEAD + 'digest = "x"\n' + RULE + 'drop = "num_lines > 3"\n', "digest: is computed"),
        (HEAD + RULE.replace('"r"', '"a b"') + 'drop = "num_lines > 3"\n', "rule a b, id:"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(rules.RuleError, match=says) as caught:
        read(tmp_path, text)
    assert isinstance(caught.value, RecipeError)
    assert "mine.toml" in str(caught.value)


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(rules.RuleError, match="there is no file of rules"):
        rules.read(str(tmp_path / "none.toml"))


def test_a_group_stands_for_its_languages(tmp_path: Path) -> None:
    table = read(
        tmp_path, HEAD + '[groups]\nweb = ["HTML", "CSS"]\n' + RULE + 'drop = "num_lines >= 3"\nlanguages = "web"\n'
    )
    assert table.rule[0].languages == ("HTML", "CSS")
    assert table.rule[0].drop == rules.Condition("num_lines", ">=", 3.0)
    assert table.columns() == ("language", "num_lines")


def test_every_measure_reads_columns_that_some_stage_makes() -> None:
    from stackbuild import schema
    from stackbuild.languages.decode import Decode
    from stackbuild.languages.languages import Languages
    from stackbuild.quality.signals import Signals
    from stackbuild.quality.syntax import Syntax
    from stackbuild.tokens.fertility import Fertility

    made = {field.name for stage in (Signals, Syntax, Fertility, Languages, Decode) for field in stage.adds} | {"text"}
    made |= set(schema.OCCURRENCES.names)
    assert {column for measure in measures.MEASURES.values() for column in measure.columns} <= made


def test_the_tables_of_an_installed_package_are_found_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "site" / "stackbuild" / "data" / "pipelines" / "rules"
    inside.mkdir(parents=True)
    (inside / "the-stack-v2.toml").write_text(HEAD + RULE + 'drop = "num_lines > 3"\n')
    monkeypatch.setattr(rules.stackbuild, "__file__", str(tmp_path / "site" / "stackbuild" / "__init__.py"))
    assert rules.read("the-stack-v2").name == "mine"
