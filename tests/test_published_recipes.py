"""The recipes of published datasets: each key tells its source, page and recipes agree, and a build drops by the published rules."""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stackbuild import build as building
from stackbuild.errors import RecipeError
from stackbuild.quality import rules
from stackbuild.recipe import find, load
from tests.worlds import GPL, MIT, light, world

ROOT = Path(__file__).parent.parent
NAMES = ("the-stack-v1", "santacoder", "starcoder", "the-stack-v2", "starcoder2-full", "starcoder2-smol")
PAGE = (ROOT / "docs" / "published-rules.md").read_text()
STATUS = {"exact", "decision", "approximation", "not built", "different"}
DEVIATES = {"not built yet": "not built", "approximation": "approximation", "different": "different"}


@cache
def values(name: str) -> dict[str, Any]:
    return load(name).values


def own(name: str) -> dict[str, Any]:
    """What the recipe's own file sets."""
    return tomllib.loads(find(name).read_text())


def tables_of(name: str) -> set[str]:
    """The tables of rules that a recipe uses."""
    found = set()
    for stage in values(name)["stages"]:
        if stage.split(":")[0] == "filters":
            options = {**values(name)["filters"], **values(name)["stage"].get(stage, {})}
            found.add(options["rules"])
    return found


# ---------------------------------------------------------------- comments


@pytest.mark.parametrize("name", NAMES)
def test_each_key_of_a_published_recipe_tells_its_source(name: str) -> None:
    """In a comment behind the key, or in the comment lines right above it; [deviations] has one for all."""
    table, above = "", ""
    for line in find(name).read_text().splitlines():
        if line.startswith("#"):
            above += line
            continue
        if line.startswith("["):
            table = line.split("#")[0].strip()
        comment = above + (line.rsplit("  #", 1)[1] if "  #" in line else "")
        if re.match(r"[a-z_]+ *=", line) and table != "[deviations]":
            assert re.search(r"\b(paper|code|card|sheet|ours)\b", comment), line
        if line.startswith("[deviations]"):
            assert "ours" in comment
        above = ""


@pytest.mark.parametrize("name", NAMES)
def test_a_deviation_says_what_it_is(name: str) -> None:
    for key, text in values(name)["deviations"].items():
        assert text.split(":")[0] in DEVIATES and text[-1] != ".", key


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ('"two words" = "a"', "deviations"),
        ('malware = " "', "malware: say"),
        ('malware = "one\\ntwo"', "malware: say"),
        ('malware = "\\u001b[2J"', "malware: say"),
        (f'malware = "{"x" * 1_001}"', "malware: say"),
        ("malware = 1", "deviations.malware"),
    ],
)
def test_a_deviation_is_one_line_of_words_under_a_name(entry: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'extends = "default"\n[deviations]\n{entry}\n')
    with pytest.raises(RecipeError, match=re.escape(wrong)) as caught:
        load(tmp_path / "mine.toml")
    assert "mine.toml:" in str(caught.value) and "\x1b" not in str(caught.value)


# ---------------------------------------------------------------- the page


def section(name: str, level: str = "##") -> str:
    found = re.search(rf"^{level} `{re.escape(name)}`$(.*?)(?=^#{{2,{len(level)}}} |\Z)", PAGE, re.S | re.M)
    assert found, f"the page has no section {level} `{name}`"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a section's table."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    found = [cells for cells in lines if cells[0] not in ("published", "rule")]
    assert found
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_the_recipe_sets(name: str) -> None:
    """Each `key = value` is the recipe's, and each option that its file sets is told."""
    told: set[str] = set()
    for _, here, status in rows(section(name)):
        assert status in STATUS
        for dotted, value in re.findall(r"`([a-z_]+\.[a-z_.0-9]*(?:\"[^\"]+\"\.[a-z_]+)?) = ([^`]+)`", here):
            setting: Any = values(name)
            for key in re.findall(r'"[^"]+"|[^."]+', dotted):
                setting = setting[int(key)] if key.isdigit() else setting[key.strip('"')]
            assert json.loads(json.dumps(setting)) == tomllib.loads(f"value = {value}")["value"], dotted
            told.add(dotted)
    for table, options in own(name).items():
        if not isinstance(options, dict) or table == "deviations":
            continue
        for key, inner in options.items():
            keys = [f'stage."{key}".{option}' for option in inner] if table == "stage" else [f"{table}.{key}"]
            assert {*keys} <= told | {"tokens.shards"}, f"{keys} is not on the page"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_and_the_deviations_agree(name: str) -> None:
    told: set[tuple[str, str]] = set()
    known = {key: DEVIATES[text.split(":")[0]] for key, text in values(name)["deviations"].items()}
    for _, here, status in rows(section(name)):
        keys = re.findall(r"`deviations\.([a-z_]+)`", here)
        assert bool(keys) == (status in DEVIATES.values()), here
        assert set(keys) <= set(known), here
        told |= {(key, status) for key in keys}
    for key in own(name)["deviations"]:
        assert (key, known[key]) in told, f"{key} is {known[key]} in the recipe and not on the page"


# Of experiments: no published data was filtered by them, so that no recipe is.
VARIANTS = ("the-stack-v1-python", "santacoder-fertility", "santacoder-stars")
RULES = sorted(path.stem for path in (ROOT / "pipelines" / "rules").glob("*.toml"))


def test_the_page_has_every_rule_of_every_table_with_its_condition() -> None:
    used = set().union(*map(tables_of, NAMES))
    assert used == set(RULES) - set(VARIANTS)
    for name in RULES:
        table = rules.read(name)
        told = rows(section(name, "###"))
        assert [cells[0] for cells in told] == [f"`{rule.id}`" for rule in table.rule], name
        for cells, rule in zip(told, table.rule, strict=True):
            assert cells[3] in STATUS, cells
            if rule.drop:
                condition = f"{rule.drop.measure} {rule.drop.comparison} {rule.drop.threshold:g}"
                shown = re.match(r"`([^`]+)`", cells[2])
                assert shown and [*rule_parts(shown[1])] == [*rule_parts(condition)], rule.id


def rule_parts(condition: str) -> tuple[str, str, float]:
    measure, comparison, threshold = condition.split()
    return measure, comparison, float(threshold)


def test_the_recipe_on_the_page_has_three_lines_and_is_valid(tmp_path: Path) -> None:
    text = re.search(r"```toml\n(.*?)```", PAGE, re.S)
    assert text and len(text[1].splitlines()) == 3
    (tmp_path / "my-code.toml").write_text(text[1])
    found = load(tmp_path / "my-code.toml").values
    assert found["name"] == "my-code" and found["stages"] == values("starcoder2-smol")["stages"]


# ---------------------------------------------------------------- near-duplicates, as published


@pytest.mark.parametrize(
    ("name", "shingling", "layout", "verify"),
    [
        ("the-stack-v1", ("the-stack-v1", 1, 10), (13, 19, 0.85), True),
        ("santacoder", ("santacoder", 5, 5), (25, 10, 0.7), False),
        ("starcoder", ("santacoder", 5, 5), (25, 10, 0.7), False),
        ("the-stack-v2", ("the-stack-v2", 5, 5), (25, 10, 0.7), False),
        ("starcoder2-smol", ("the-stack-v2", 5, 5), (25, 10, 0.7), False),
    ],
)
def test_near_duplicates_are_sought_as_published(
    name: str, shingling: tuple[str, int, int], layout: tuple[int, int, float], verify: bool
) -> None:
    from stackbuild.dedup.options import NearDedupOptions

    options = NearDedupOptions.model_validate(values(name)["near_dedup"])
    one = options.shingling
    assert (one.kind, one.ngram, one.minimum) == shingling and not one.header_blind
    assert (*options.layout, options.threshold) == layout and options.verify is verify


# ---------------------------------------------------------------- builds


def python(name: str, lines: int = 40) -> str:
    """Lines of code that resemble no other file's, under a comment, which SantaCoder asks for."""
    return f"# What {name} does, told in some words of its own, is a comment.\nimport {name}\n\n" + "".join(
        f"def {name}_{n}(first, second):\n    return {name}_{n * 7 % 11}(first, {name}, second)\n" for n in range(lines)
    )


def files() -> dict[str, str]:
    """Path -> text: in `one`, under the MIT license, each file is about one rule."""
    wide = python("wide") + "# " + "word " * 300 + "\n"
    letters = "QWxhZGRpbjpvcGVuIHNlc2FtZVRoaXNJc0Jhc2U2NEVuY29kZWREYXRhVGhhdElzTG9uZ0Vub3VnaA"
    data = "{\n" + "".join(f'  "key{n}": "some words of value",\n' for n in range(600)) + '  "last": "one"\n}\n'
    package = '{\n  "name": "example",\n  "description": "a package for the tests of recipes",\n  "main": "index"\n}\n'
    return {
        "one/LICENSE": MIT,
        "one/keep.py": python("keep"),
        "one/keep.rb": "".join(f"def keep{n}(first)\n  first.call(:keep, {n})\nend\n" for n in range(30)),
        "one/bare.py": python("bare").split("\n", 1)[1],
        "one/mostly.py": "# words about something\n" * 30 + "value = other\n",
        "one/Keep.java": "/* What it is for. */\nclass Keep {\n"
        + "".join(f"  int of{n}(int x) {{ return x + n; }}\n" for n in range(30)) + "}\n",
        "one/keep.js": "// What it is for, in words.\n"
        + "".join(f"export const keep{n} = (value) => value.keep({n});\n" for n in range(30)),
        "one/keep.pl": "use strict;\n" + "".join(f"sub keep{n} {{ my $x = shift; return $x; }}\n" for n in range(30)),
        "one/keep.swift": "".join(f"func keep{n}(x: Int) -> Int {{ return x + n }}\n" for n in range(30)),
        "one/wide.py": wide,
        "one/table.csv": "".join(f"row{n},value{n},other\n" for n in range(30)),
        "one/prog.m": "#import <Foundation/Foundation.h>\n@implementation Thing\n- (void)run { [self stop]; }\n@end\n",
        "one/big.py": python("big", 18_000),
        "one/package.json": package,
        "one/other.json": package.replace("example", "other").replace("main", "mainly"),
        "one/data.json": data,
        "one/generated.py": "# This file is generated by a tool.\n" + python("generated"),
        "one/encoded.py": python("encoded") + "data = '''\n" + (letters + "\n") * 30 + "'''\n",
        "one/story.txt": "Once upon a time there was a file.\n" * 5,
        "one/README.md": "# Title\n\nSome words on what this is for, and how it is used.\n",
        "one/twin_a.py": python("twin", 60),
        "one/twin_b.py": python("twin", 60) + "# the other\n",
        "one/short_a.py": "value = other\n",
        "one/short_b.py": "thing = other\n",
        "one/contact.py": "# write to jo.smith@acmecorp.org\n" + python("contact"),
        "one/shared.py": python("shared"),
        "two/plain.py": python("plain"),
        "three/COPYING": GPL * 3,
        "three/shared.py": python("shared"),
        "three/bound.py": python("bound"),
    }  # fmt: skip


Fates = dict[str, str | None]
V1: Fates = {
    "keep.py": None,
    "keep.pl": None,
    "keep.swift": None,
    "wide.py": None,
    "generated.py": None,
    "encoded.py": None,
    "story.txt": None,
    "data.json": None,
    "table.csv": "V1-never-downloaded",
    "prog.m": "no_language",
    "big.py": "V2-size",
    "short_a.py": None,
    "short_b.py": None,
    "shared.py": None,
    "plain.py": "license_class",
    "bound.py": "license_class",
}
SANTACODER: Fates = {
    **V1,
    "Keep.java": None,
    "keep.js": None,
    "wide.py": "S1-longest-line",
    "mostly.py": "S3-mostly-comments",
    **dict.fromkeys(("bare.py", "short_a.py", "short_b.py"), "S3-few-comments"),
    **dict.fromkeys(("keep.pl", "keep.swift", "story.txt", "data.json", "README.md"), "S0-languages"),
}
STARCODER: Fates = {
    **V1,
    "keep.swift": "F0-sheet",
    "story.txt": "F0-sheet",
    "wide.py": "F1-longest-line",
    "data.json": "F6-json-long",
    "package.json": None,
    "README.md": None,
}
V2: Fates = {
    **dict.fromkeys(["prog.m", *(name for name, rule in V1.items() if rule and rule[0] == "V")]),
    **dict.fromkeys(("keep.py", "wide.py", "generated.py", "encoded.py", "story.txt", "data.json", "shared.py")),
    **dict.fromkeys(("short_a.py", "short_b.py", "plain.py")),
    "bound.py": "license_class",
}
FULL: Fates = {
    **V2,
    "keep.rb": None,
    "keep.pl": None,
    "wide.py": "Q2-longest-line",
    "generated.py": "Q5-autogenerated-phrase",
    "encoded.py": "Q7-longest-encoded",
    "story.txt": "Q10-text-name",
    "data.json": "Q8-data-lines",
    "table.csv": "X1-languages",
    "other.json": None,
    "package.json": None,
    "README.md": None,
}
SMOL: Fates = {
    **FULL,
    "keep.swift": None,
    **dict.fromkeys(("keep.pl", "prog.m", "other.json", "table.csv"), "M1-languages"),
}
EXPECTED = dict(zip(NAMES, (V1, SANTACODER, STARCODER, V2, FULL, SMOL), strict=True))


QUICK = ("starcoder2-smol",)  # what the others do, it does too
OLDER, LONG = ("the-stack-v1", "santacoder", "starcoder", "the-stack-v2"), [pytest.mark.long]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name in QUICK else [pytest.mark.slow, *LONG] if name in OLDER else pytest.mark.slow
        )
        for name in NAMES
    ],
)
def test_a_published_recipe_builds_and_drops_by_the_published_rules(name: str, tmp_path: Path) -> None:
    """From a user's three lines to a dataset: who stays, who leaves by which rule, what is redacted."""
    for path, text in files().items():
        (tmp_path / "src" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / path).write_text(text)
    folders = json.dumps([f"src/{folder}" for folder in ("one", "two", "three")])
    text = f'name = "mine"\nextends = "{name}"\nsource = [{{ kind = "directory", paths = {folders} }}]\n'
    (tmp_path / "mine.toml").write_text(text)
    sets = ["partitions=2"]
    if "tokens" in values(name)["outputs"]:
        sets += ["tokens.vocab_size=600", "tokens.sample_bytes=100000", "tokens.shards=1"]
    recipe = load(tmp_path / "mine.toml", sets)
    out = building.run(building.Request(recipe.resolved(), recipe.folder, tmp_path / "out", 2)).build.out

    kept = {row["path"].rsplit("/", 1)[1]: row["content"] for row in released(out)}
    left = dict.fromkeys(kept)
    for path in (out / "decisions").glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            file = row["path_bytes"].decode().rsplit("/", 1)[-1]
            if row["rule"] != "exact_copy":
                left[file] = row["rule"]
    expected = EXPECTED[name]
    assert {file: left.get(file, "nowhere") for file in expected} == expected
    assert sum(left[f"twin_{one}.py"] == "near_duplicate" for one in "ab") == 1
    assert ("jo.smith@acmecorp.org" in kept["contact.py"]) == name.startswith("the-stack")
    if name != "santacoder":
        assert ("<EMAIL>" in kept["contact.py"]) == (name.startswith("starcoder"))
    else:
        assert re.search(r"write to [a-z]{5}@example\.com\n", kept["contact.py"])
    card = (out / "dataset" / "README.md").read_text()
    told = json.loads((out / "report" / "report.json").read_text())["deviations"]
    assert told == values(name)["deviations"] and "licenses" in card
    assert (out / "tokens" / "manifest.json").exists() == ("tokens" in values(name)["outputs"])


def released(out: Path) -> list[dict[str, Any]]:
    return [row for path in (out / "dataset").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]


def test_a_deviation_changes_no_file_of_the_dataset(tmp_path: Path) -> None:
    """Another word in [deviations] runs no job again; card, report and the recipe's digest tell it."""
    root = world(tmp_path / "src", repos=2, files=2)
    before = building.run(building.Request(light(root), Path("/"), tmp_path / "out", 1))
    data = {path: path.read_bytes() for path in (before.build.out / "dataset").rglob("*.parquet")}
    again = building.run(
        building.Request(light(root, deviations={"malware": "not built yet"}), Path("/"), tmp_path / "out", 1)
    )
    assert [report.job for report in again.reports if report.ran] == []
    assert {path: path.read_bytes() for path in data} == data
    assert "malware" in (tmp_path / "out" / "dataset" / "README.md").read_text()
