"""`stackbuild inspect filters`: what each rule would drop of Parquet files, before any build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError, UsageError
from stackbuild.filter_preview import preview
from stackbuild.recipe import load
from tests.cli.test_commands import stackbuild

RULES = """
name = "mine"
source = "us"

[[rule]]
id = "long"
drop = "num_lines > 3"
source = "us"

[[rule]]
id = "wide"
drop = "mean_line_length > 5"
languages = ["Python"]
source = "us"
"""
SECOND = """
name = "second"
source = "us"

[[rule]]
id = "ending"
drop_extensions = ["md"]
source = "us"

[[rule]]
id = "half"
keep_fraction = 0.5
extensions = ["c"]
source = "us"
"""
FILES = {
    "a.py": "x\n" * 4,  # long
    "b.py": "xxxxxx\n" * 4,  # long, and wide too
    "c.py": "xxxxxxx\n" * 3,  # wide
    "d.py": "xé\n",
    "e.md": "xxxxxxx\n" * 4,  # long, not Python, and its ending
    **{f"{n}.c": f"{n};\n" for n in range(40)},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(RULES)
    (tmp_path / "second.toml").write_text(SECOND)
    path = tmp_path / "recipe.toml"
    path.write_text(
        'extends = "default.toml"\nname = "x"\n'
        'stages = ["licenses", "exact_dedup", "decode", "languages", "signals", "filters", "filters:second"]\n'
        '[filters]\nrules = "./mine.toml"\n[stage."filters:second"]\nrules = "./second.toml"\n'
    )
    return path


def table(folder: Path, **columns: Any) -> str:
    path = folder / "files.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=7)
    return str(path)


def told(recipe: Path, path: str) -> dict[str, tuple[int, int, int]]:
    return {
        rule.rule: (rule.files, rule.bytes, rule.first_files) for rule in preview(load(recipe).values, [path]).rules
    }


def test_each_rule_is_told_by_itself_and_in_order(tmp_path: Path, recipe: Path) -> None:
    path = table(tmp_path, content=list(FILES.values()), max_stars_repo_path=list(FILES))
    found = preview(load(recipe).values, [path])
    long, wide, ending, half = found.rules
    assert [(rule.stage, rule.rule) for rule in found.rules] == [
        ("filters", "long"),
        ("filters", "wide"),
        ("filters:second", "ending"),
        ("filters:second", "half"),
    ]
    assert (long.files, long.bytes, long.first_files, long.first_bytes) == (3, 8 + 28 + 32, 3, 68)
    assert (wide.files, wide.bytes, wide.first_files, wide.first_bytes) == (2, 28 + 24, 1, 24)
    assert (ending.files, ending.bytes, ending.first_files, ending.first_bytes) == (1, 32, 0, 0)
    assert long.examples == [("/a.py", 4), ("/b.py", 4), ("/e.md", 4)]
    assert wide.examples == [("/b.py", 6), ("/c.py", 7)]
    assert ending.examples == [("/e.md", "md")]
    assert 10 < half.files == half.first_files < 30
    assert len(half.examples) == 10 and all(value >= 0.5 for _, value in half.examples)
    assert found.files == len(FILES)
    assert found.bytes == sum(len(text.encode()) for text in FILES.values())
    assert found.kept_files == len(FILES) - 4 - half.files
    assert found.kept_bytes == found.bytes - sum(rule.first_bytes for rule in found.rules)


def test_a_cap_is_told_as_that_of_the_files_that_are_there(tmp_path: Path, recipe: Path) -> None:
    path = table(tmp_path, content=list(FILES.values()), max_stars_repo_path=list(FILES))
    (tmp_path / "second.toml").write_text(SECOND.replace("keep_fraction = 0.5", "keep_bytes = 60"))
    found = preview(load(recipe).values, [path])
    cap = found.rules[-1]
    bytes_of_c = sum(len(text) for name, text in FILES.items() if name.endswith(".c"))
    assert 50 < bytes_of_c - cap.bytes <= 60 and cap.files == cap.first_files


def test_a_condition_is_told_with_the_values_that_it_names(tmp_path: Path, recipe: Path) -> None:
    path = table(tmp_path, content=list(FILES.values()), max_stars_repo_path=list(FILES))
    (tmp_path / "mine.toml").write_text(
        RULES.replace('"num_lines > 3"', "\"num_lines > 3 and filename matches '^[ab]'\"")
    )
    found = preview(load(recipe).values, [path])
    assert found.rules[0].examples == [
        ("/a.py", "num_lines = 4, filename = a.py"),
        ("/b.py", "num_lines = 4, filename = b.py"),
    ]


def test_the_language_of_the_table_is_taken_before_one_is_detected(tmp_path: Path, recipe: Path) -> None:
    path = table(
        tmp_path, text=["xxxxxxx\n", "xxxxxxx\n", None], path=["/a.py", "/b.c", "/c.c"], lang=["C", "Python", "C"]
    )
    found = preview(load(recipe).values, [path])
    assert found.rules[1].examples == [("/b.c", 7)]
    assert found.files == 2  # one has no text


def test_a_table_without_languages_is_measured_though_no_rule_asks_for_them(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "mine.toml").write_text(RULES.replace("languages =", "extensions =").replace("Python", "py"))
    assert told(recipe, table(tmp_path, text=["xxxxxxx\n"], path=["/a.py"]))["wide"] == (1, 8, 1)


def test_what_cannot_be_looked_at_is_refused(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(InputError, match="has no column 'path' or 'max_stars_repo_path'; it has text, name"):
        told(recipe, table(tmp_path, text=["x"], name=["a"]))
    (tmp_path / "rows.jsonl").write_text('{"text": "x", "path": "a"}\n')
    with pytest.raises(InputError, match="is no Parquet file"):
        told(recipe, str(tmp_path / "rows.jsonl"))
    (tmp_path / "mine.toml").write_text(RULES.replace("num_lines > 3", "star_events_count < 5"))
    with pytest.raises(InputError, match="has no column 'star_events_count' or 'max_stars_count'"):
        told(recipe, table(tmp_path, text=["x"], path=["a"]))
    assert told(recipe, table(tmp_path, text=["x"] * 3, path=["a"] * 3, max_stars_count=[4, 5, None]))["long"] == (
        1,
        1,
        1,
    )
    values = {**load(recipe).values, "stages": ["decode"]}
    with pytest.raises(UsageError, match="no stage filters"):
        preview(values, [table(tmp_path, text=["x"], path=["a"])])


def test_the_command_prints_rules_and_examples(tmp_path: Path, recipe: Path) -> None:
    path = table(tmp_path, text=["x\n" * 4, "y\n"], path=["/a\u202e.py", "/b.py"])
    shown = stackbuild("inspect", "filters", recipe, path)
    assert shown.splitlines() == [
        "2 files, 10 bytes; 1 stay, 2 bytes",
        "filters",
        "  long  1 file (50.0%), 8 bytes (80.0%); the first to drop 1",
        "    /a\\u202e.py  4",
        "  wide  none",
        "filters:second",
        "  ending  none",
        "  half  none",
    ]
    rule = json.loads(stackbuild("inspect", "filters", recipe, path, "--json"))["rules"][0]
    assert (rule["rule"], rule["files"], rule["examples"]) == ("long", 1, [["/a\u202e.py", 4]])
    assert "name some" in stackbuild("inspect", "filters", recipe, code=2)
    assert "takes no IN" in stackbuild("inspect", "tokens", tmp_path, path, code=2)
