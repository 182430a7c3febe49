"""Recipes: what extends what, what `--set` changes, every error at once with its place, digests that travel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from stackbuild import registry
from stackbuild.cli.recipes_page import recipes_page
from stackbuild.errors import RecipeError
from stackbuild.graph import check, nodes_of
from stackbuild.recipe import Recipe, init_text, json_schema, load, located, resolved_lines
from stackbuild.recipe_check import Envelope, LimitOptions, Problems, as_json, inner_model, numbered_instances, validate
from stackbuild.recipe_merge import Layer, bundled_names, joined, line_numbers, split
from stackbuild.sources.unit import Limits

SMALL = """
name = "small"
stages = ["exact_dedup", "decode"]

[[source]]
kind = "directory"
paths = ["src"]
"""


def written(folder: Path, text: str = SMALL, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loaded(folder: Path, text: str = SMALL, *overrides: str) -> Recipe:
    return load(written(folder, text), overrides)


def refused(folder: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the one error, without its headline."""
    with pytest.raises(RecipeError) as raised:
        loaded(folder, text, *overrides)
    return [line.strip() for line in str(raised.value).splitlines()[1:]]


# ---------------------------------------------------------------- every error at once


def test_everything_that_is_wrong_is_told_at_once_with_its_path_its_place_and_a_hint(tmp_path: Path) -> None:
    text = """\
name = "two words"
seed = "42"
partitons = 8
stages = ["exact_dedup", "near_dudup", "near_dedup"]
outputs = ["datset"]

[limits]
file_byte = 3
depth = true

[near_dedup]
treshold = 0.8
scope = "langage"
ngram = 99

[[source]]
kind = "gti"

[[source]]
kind = "git"
pths = ["x"]
"""
    lines = refused(tmp_path, text, "near_dedup.bands=many", "nonsense")
    expected = {
        "--set nonsense": "key=value",
        "name": "(recipe.toml:1)",
        "seed": "valid integer (it is '42') (recipe.toml:2)",
        "partitons": "unknown key, did you mean 'partitions'? (recipe.toml:3)",
        "stages[1]": "there is no stage 'near_dudup', did you mean 'near_dedup'? (recipe.toml:4)",
        "outputs": "did you mean 'dataset'?",
        "limits.file_byte": "unknown key, did you mean 'file_bytes'? (recipe.toml:8)",
        "limits.depth": "valid integer (it is True) (recipe.toml:9)",
        "near_dedup.treshold": "unknown key, did you mean 'threshold'? (recipe.toml:12)",
        "near_dedup.scope": "did you mean 'language'? (recipe.toml:13)",
        "near_dedup.ngram": "(recipe.toml:14)",
        "source[0].kind": "'gti' is no source, did you mean 'git'? (recipe.toml:17)",
        "source[1].pths": "unknown key, did you mean 'paths'? (recipe.toml:21)",
    }
    for path, part in expected.items():
        assert any(line.startswith(f"{path}:") and part in line for line in lines), (path, lines)
    assert any(line.startswith("near_dedup.bands") and line.endswith("(--set)") for line in lines)
    assert not any("pydantic" in line or "http" in line for line in lines)
    assert {line.split(":")[0].split(".int")[0] for line in lines} >= set(expected) - {"--set nonsense"}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path, "seed = 1") == ["name: is missing", "stages: is missing", "source: is missing"]
    assert any(
        line.startswith("source[0].kind: is missing") for line in refused(tmp_path, SMALL.replace("kind", "knd"))
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name = 1\nseed = = 2", "line 2, column 8"),
        ("a = 1\na = 2\n", "line 2"),
        ("x = [1", "end of document"),
        ("x = " + "[" * 100_000, "nested"),
        (".".join(["a"] * 500) + " = 1", "nested"),
        ("x = " + "9" * 5_000, "not TOML"),
        ("# " + "x" * (1 << 20), "too large"),
        (f'"{"." * 900_000}" = 1', "key is over"),
    ],
)
def test_what_is_not_toml_says_where(tmp_path: Path, text: str, place: str) -> None:
    (line,) = refused(tmp_path, text)
    assert line.startswith("recipe.toml") and place in line


def test_bytes_that_are_not_utf8_say_the_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b'name = "x"\n# caf\xe9\n')
    with pytest.raises(RecipeError, match=r"recipe\.toml is not UTF-8 \(at line 2\)"):
        load(path)


@pytest.mark.parametrize("word", ['"7"', "true", "7.0", "7.5", "[7]"])
def test_toml_types_are_not_converted(tmp_path: Path, word: str) -> None:
    assert any(line.startswith("seed:") for line in refused(tmp_path, f"seed = {word}\n{SMALL}"))


def test_numbers_are_finite(tmp_path: Path) -> None:
    assert any("finite" in line for line in refused(tmp_path, SMALL + "[slurm]\ncpus = nan\n"))
    assert any("finite" in line for line in refused(tmp_path, SMALL + "[slurm]\nsbatch = [[1.0, inf]]\n"))


def test_partitions_are_a_power_of_two(tmp_path: Path) -> None:
    for good in (1, 2, 65_536):
        assert loaded(tmp_path, SMALL, f"partitions={good}").values["partitions"] == good
    for bad in (0, 3, 100, 131_072):
        assert any(line.startswith("partitions:") for line in refused(tmp_path, SMALL, f"partitions={bad}"))


def test_a_hostile_recipe_gets_a_short_answer(tmp_path: Path) -> None:
    text = SMALL + "".join(f'"key{n}\\u001b[31m\\u202e" = 1\n' for n in range(3_000)) + f'"{"k" * 100}" = 1\n'
    lines = refused(tmp_path, text)
    assert len(lines) == 51 and lines[-1].startswith("and ")
    assert all(line.isascii() and line.isprintable() for line in lines)
    (line,) = refused(tmp_path, SMALL.replace('"small"', f'"{"x" * 9_000}\\u001b"'))
    assert len(line) < 250 and line.isprintable()


@pytest.mark.parametrize(
    "stage", ["exact_dedup:../../x", "exact_dedup:", "decode:a b", "decode:a/b", "decode:a:b", "../decode"]
)
def test_a_label_cannot_lead_out_of_the_output_folder(tmp_path: Path, stage: str) -> None:
    (line,) = refused(tmp_path, SMALL.replace('"decode"', f'"decode", "{stage}"'))
    assert line.startswith("stages[2]:")


@pytest.mark.parametrize(
    "stage", ["os.path:join", "stackbuild.dedup.exact:ExactDedup", "datatrove:LambdaFilter", "datatrove"]
)
def test_no_recipe_names_an_import_path(tmp_path: Path, stage: str) -> None:
    (line,) = refused(tmp_path, SMALL.replace('"decode"', f'"{stage}"'))
    assert line.startswith("stages[1]:")


def test_nothing_is_expanded_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "leaked")
    recipe = loaded(tmp_path, 'description = "$WORD ${WORD} %(WORD)s {WORD}"\n' + SMALL)
    assert recipe.values["description"] == "$WORD ${WORD} %(WORD)s {WORD}"


WRONG = [5, -1, 2.5, True, None, "x", "\0", "\ud800", 10**400, [], [5], [None], [["x"]], [{}], [{"name": 5}], ["x", "x"],
         [{"name": "x", "versions": [5]}], {}, {"x": 5}, {"x": None}, {"x": [1]}, {"x": {"y": [{}]}}]  # fmt: skip


NEEDS = {"pypi": {"packages": ["x"]}, "swh": {"export": "x", "objects": "x"}}


def fields(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every field of a model, and of the models within it."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        if (within := inner_model(field.annotation)) is not None:
            yield from fields(within, (*above, name))


def nested(path: tuple[str, ...], value: Any) -> Iterator[dict[str, Any]]:
    """Tables with a value at a path: in a table, in a list of tables, in a table of tables."""
    first, *rest = path
    for within in nested(tuple(rest), value) if rest else [value]:
        yield from ({first: found} for found in ([within, [within], {"x": within}] if rest else [within]))


def misshapen() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(what, dotted path of the value, recipe) with a value of every wrong type for every option there is."""
    whole = tomllib.loads(SMALL)
    for kind in registry.source_kinds():
        needs = NEEDS.get(kind, {"paths": ["x"]})
        for path in fields(model_of(registry.source_options(kind))):
            for value in WRONG:
                for table in nested(path, value):
                    if path != ("kind",):
                        yield kind, f"source[0].{path[0]}", whole | {"source": [{"kind": kind, **needs, **table}]}
    for name in [*registry.stage_names(), "datatrove:GopherQualityFilter", "layout", "tokens", ""]:
        at = joined("stage", name) if ":" in name else name
        for path in fields(model_of(registry.stage_options(name)) if name else Envelope):
            for value in WRONG:
                for table in nested(path, value):
                    stages = list(
                        dict.fromkeys([*whole["stages"], *([name] if name in registry.stage_names() else [])])
                    )
                    if not name:
                        yield "recipe", path[0], whole | table
                    elif ":" in name:
                        yield name, f"{at}.{path[0]}", whole | {"stages": [*stages, name], "stage": {name: table}}
                    else:
                        needed = {"tokenizer": "tokenizer.json"} if name == "fertility" else {}
                        yield name, f"{at}.{path[0]}", whole | {"stages": stages, name: {**needed, **table}}


def model_of(found: type[BaseModel] | None) -> type[BaseModel]:
    assert found is not None
    return found


def test_a_value_of_a_wrong_type_is_a_recipe_error_at_its_path_whatever_option_it_is_of() -> None:
    """A validator that trusts the type of what it gets would end in a traceback, or take the letters of a word for names."""
    tried = 0
    for what, dotted, values in misshapen():
        problems, layer = Problems(), Layer(values)
        resolved = validate(layer, registry, problems)
        tried += 1
        assert problems.told(layer) or not problems.found
        for path, text, *_ in problems.found:
            assert "of the wrong type" not in text, (what, values, text)
            assert path.startswith(dotted) or dotted.startswith(path) or what == "recipe", (what, values, path)
        if not problems.found:
            try:
                nodes_of(located(resolved, layer, Path("/")))
            except RecipeError:
                continue  # a name of a list or a table of rules that there is not
    assert tried > 1_000


@pytest.mark.parametrize("packages", ["5", "true", '"requests"', "{requests = 1}", "[5]", "[[]]"])
def test_packages_are_a_list_of_names_or_tables(tmp_path: Path, packages: str) -> None:
    text = SMALL.replace("directory", "pypi").replace('paths = ["src"]', f"packages = {packages}")
    lines = refused(tmp_path, text)
    assert lines and all(line.startswith("source[0].packages") for line in lines)


@pytest.mark.parametrize("drop", ['{measure = "nope", comparison = "?", threshold = 1}', "5", '["num_lines > 1"]'])
def test_a_condition_of_a_table_of_rules_is_text(tmp_path: Path, drop: str) -> None:
    """Given as a table, its measure and comparison would be looked up as they stand."""
    rule = f'name = "x"\nsource = "x"\n[[rule]]\nid = "a"\nsource = "x"\ndrop = {drop}\n'
    written(tmp_path, rule, "rules.toml")
    text = (
        SMALL.replace('"decode"]', '"decode", "languages", "signals", "filters"]') + '[filters]\nrules = "rules.toml"\n'
    )
    with pytest.raises(RecipeError, match=r"rules\.toml"):
        check(nodes_of(loaded(tmp_path, text).values))


# ---------------------------------------------------------------- stages and their tables


def test_a_stage_named_twice_shares_its_table(tmp_path: Path) -> None:
    text = SMALL.replace('["exact_dedup", "decode"]', '["opt_out", "exact_dedup", "decode", "opt_out"]')
    recipe = loaded(tmp_path, text + '[opt_out]\npolicy = "contents"\n')
    assert recipe.values["stages"] == ["opt_out", "exact_dedup", "decode", "opt_out:2"]
    assert [n.stage.options.policy for n in nodes_of(recipe.values) if n.stage.name == "opt_out"] == ["contents"] * 2


def test_the_table_of_an_instance_is_laid_over_that_of_its_stage(tmp_path: Path) -> None:
    """As every table is laid over another: what the instance does not say is as its stage's table has it."""
    text = SMALL.replace('"decode"]', '"decode", "languages", "near_dedup:a", "near_dedup:b"]')
    text += '[near_dedup]\nthreshold = 0.6\nsurvivor = []\n[stage."near_dedup:a"]\nthreshold = 0.9\n[stage."near_dedup:b"]\n'
    recipe = loaded(tmp_path, text)
    found = {node.instance: node.stage.options for node in nodes_of(recipe.values) if node.stage.name == "near_dedup"}
    assert {name: (options.threshold, options.survivor) for name, options in found.items()} == {
        "near_dedup:a": (0.9, ()),
        "near_dedup:b": (0.6, ()),
    }
    told = {path: (value, origin) for path, value, origin in resolved_lines(recipe) if "near_dedup" in path}
    assert told['stage."near_dedup:a".threshold'] == (0.9, "recipe.toml:12")
    assert told['stage."near_dedup:b".threshold'] == (0.6, "recipe.toml:9")
    assert told['stage."near_dedup:a".survivor'] == ([], "recipe.toml:10")
    assert told['stage."near_dedup:a".ngram'] == (5, "default")
    shared = loaded(tmp_path, text.replace('"near_dedup:b"', '"near_dedup"', 1).replace('[stage."near_dedup:b"]\n', ""))
    assert shared.values["near_dedup"]["threshold"] == 0.6
    assert loaded(tmp_path, text, "near_dedup.ngram=7").values["stage"]["near_dedup:a"]["ngram"] == 7


def test_what_is_wrong_in_a_table_that_instances_share_is_told_once_at_its_place(tmp_path: Path) -> None:
    text = SMALL.replace('"decode"]', '"decode", "languages", "near_dedup:a", "near_dedup:b"]')
    text += '[near_dedup]\nsurvivor = []\nngrm = 4\n[stage."near_dedup:a"]\nthreshold = 9\n[stage."near_dedup:b"]\nbands = 5\n'
    first, second = sorted(refused(tmp_path, text))
    assert first.startswith("near_dedup.ngrm: unknown key, did you mean 'ngram'?") and first.endswith(
        "(recipe.toml:10)"
    )
    assert second.startswith('stage."near_dedup:a".threshold: ') and second.endswith("(recipe.toml:12)")
    (line,) = refused(tmp_path, text.replace("ngrm", "ngram").replace("= 9", "= 0.9"))
    assert line.startswith('stage."near_dedup:b": 252 permutations do not divide into 5 bands')


def test_a_file_that_an_instance_takes_over_starts_where_it_was_set(tmp_path: Path) -> None:
    text = SMALL.replace('["exact_dedup",', '["opt_out:first", "exact_dedup",')
    written(tmp_path, text + '[opt_out]\nlist = "out.txt"\n', "base/base.toml")
    recipe = loaded(tmp_path / "base", 'extends = "base.toml"\n[stage."opt_out:first"]\npolicy = "contents"\n')
    moved = written(tmp_path / "base", (tmp_path / "base" / "recipe.toml").read_text(), "recipe.toml")
    assert recipe.values["stage"]["opt_out:first"] == load(moved).values["stage"]["opt_out:first"]
    assert recipe.values["stage"]["opt_out:first"]["list"] == str(tmp_path / "base" / "out.txt")
    assert recipe.values["stage"]["opt_out:first"]["policy"] == "contents"


def test_a_labelled_instance_has_a_table_of_its_own(tmp_path: Path) -> None:
    text = SMALL.replace('"decode"]', '"decode", "languages", "near_dedup", "near_dedup:strict", "near_dedup:third"]')
    text += (
        '[near_dedup]\nthreshold = 0.6\nsurvivor = []\n[stage."near_dedup:strict"]\nthreshold = 0.9\nsurvivor = []\n'
    )
    nodes = nodes_of(loaded(tmp_path, text).values)
    found = {node.instance: node.stage.options.threshold for node in nodes if node.stage.name == "near_dedup"}
    assert found == {"near_dedup": 0.6, "near_dedup:strict": 0.9, "near_dedup:third": 0.6}
    assert any('stage."near_dedup:strct"' in line and "did you mean 'near_dedup:strict'" in line
               for line in refused(tmp_path, text.replace('."near_dedup:strict"', '."near_dedup:strct"')))  # fmt: skip


def test_a_datatrove_block_has_its_table_under_stage(tmp_path: Path) -> None:
    text = SMALL.replace('"decode"]', '"decode", "datatrove:GopherQualityFilter"]')
    text += '[stage."datatrove:GopherQualityFilter".arguments]\nmin_doc_words = 3\n'
    recipe = loaded(tmp_path, text)
    assert recipe.values["stage"]["datatrove:GopherQualityFilter"] == {"arguments": {"min_doc_words": 3}}
    assert recipe.origin('stage."datatrove:GopherQualityFilter".arguments.min_doc_words') == "recipe.toml:9"


def test_two_instances_of_one_label_are_refused(tmp_path: Path) -> None:
    for stages in ('"decode:a", "decode:a"', '"decode", "decode", "decode:2"'):
        assert any("twice" in line for line in refused(tmp_path, SMALL.replace('"decode"', stages)))


def test_options_for_a_stage_that_is_not_listed_are_an_error_unless_taken_over(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, SMALL + '[pii]\nmode = "placeholder"\n')
    assert line.startswith("pii: no stage of the recipe takes these options")
    written(tmp_path, SMALL.replace('"decode"]', '"decode", "pii"]') + '[pii]\nmode = "placeholder"\n', "base.toml")
    recipe = loaded(tmp_path, 'extends = "base.toml"\nstages = ["exact_dedup", "decode"]\n')
    assert "pii" not in recipe.values


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=8))
def test_numbering_gives_names_of_their_own_and_is_stable(stages: list[str]) -> None:
    named = numbered_instances(stages)
    assert len(set(named)) == len(named)
    assert [name.split(":")[0] for name in named] == stages
    assert numbered_instances(named) == named


def test_every_field_is_resolved_also_one_that_a_stage_keeps_out_of_its_identity(tmp_path: Path) -> None:
    """A list of those who opted out that got lost on the way would leave their files in."""
    text = SMALL.replace('"exact_dedup",', '"opt_out", "exact_dedup",') + '[opt_out]\nlist = "out.txt"\n'
    recipe = loaded(tmp_path, text)
    assert recipe.values["opt_out"]["list"] == str(tmp_path / "out.txt")
    for node in nodes_of(recipe.values):
        table = recipe.values.get(registry.base_name(node.instance), {})
        assert set(table) in (set(), set(type(node.stage.options).model_fields))


def test_sets_are_resolved_in_one_order_whatever_the_hash_seed() -> None:
    program = (
        "from tests.test_recipe import Words; from stackbuild.recipe_check import as_json; print(as_json(Words()))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {"{'words': ['alpha', 'beta', 'delta', 'gamma'], 'pairs': {'x': [1, 2]}}\n"}


class Words(BaseModel):
    words: frozenset[str] = frozenset({"gamma", "alpha", "delta", "beta"})
    pairs: dict[str, tuple[int, int]] = Field({"x": (1, 2)}, exclude=True)


# ---------------------------------------------------------------- extends


def test_tables_are_merged_and_lists_replaced(tmp_path: Path) -> None:
    written(tmp_path, SMALL + '[limits]\ndepth = 5\nratio = 7\n[deviations]\na = "from base"\n', "base/base.toml")
    text = 'extends = "base/base.toml"\nname = "mine"\n[limits]\nratio = 9\n[deviations]\nb = "mine"\n'
    recipe = loaded(tmp_path, text + '[[source]]\nkind = "directory"\npaths = ["other"]\n')
    assert (recipe.values["name"], recipe.values["limits"]["depth"], recipe.values["limits"]["ratio"]) == ("mine", 5, 9)
    assert recipe.values["deviations"] == {"a": "from base", "b": "mine"}
    assert [source["paths"] for source in recipe.values["source"]] == [[str(tmp_path / "other")]]
    origins = {path: origin for path, _, origin in resolved_lines(recipe)}
    assert origins["name"] == "recipe.toml:2" and origins["stages"] == "base.toml:3"
    assert origins["limits.depth"] == "base.toml:9" and origins["limits.ratio"] == "recipe.toml:4"
    assert origins["limits.path_bytes"] == "default" and origins["deviations.b"] == "recipe.toml:6"
    assert origins["source[0].paths"] == "recipe.toml:9"


def test_a_relative_path_starts_from_the_file_that_sets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = SMALL.replace('"exact_dedup",', '"opt_out", "exact_dedup",') + '[opt_out]\nlist = "out.txt"\n'
    written(tmp_path, base, "base/base.toml")
    path = written(tmp_path, 'extends = "../base/base.toml"\n', "mine/recipe.toml")
    monkeypatch.chdir(tmp_path)
    recipe = load(path)
    assert recipe.values["source"][0]["paths"] == [str(tmp_path / "base" / "src")]
    assert recipe.values["opt_out"]["list"] == str(tmp_path / "base" / "out.txt")
    typed = load(path, ['source.0.paths=["here", "~/there", "/abs"]'])
    assert typed.values["source"][0]["paths"] == [str(tmp_path / "here"), str(Path.home() / "there"), "/abs"]


def test_a_name_stays_a_name_whatever_lies_beside_the_recipe(tmp_path: Path) -> None:
    for name in ("train", "the-stack-v2", "stackbuild"):
        (tmp_path / name).write_text("not me")
    recipe = load(written(tmp_path, 'extends = "default.toml"\n'))
    assert recipe.values["tokens"]["tokenizer"] == "train"
    assert recipe.values["filters"]["rules"] == "the-stack-v2"
    assert recipe.values["licenses"]["policy"] == "stackbuild"


def test_a_loop_and_a_missing_file_are_told(tmp_path: Path) -> None:
    written(tmp_path, 'extends = "recipe.toml"\n', "other.toml")
    (line,) = refused(tmp_path, 'extends = "other.toml"\n')
    assert "recipe.toml -> other.toml -> recipe.toml" in line
    (line,) = refused(tmp_path, '# base\nextends = "nowhere.toml"\n')
    assert line.startswith("recipe.toml:2: extends: there is no 'nowhere.toml'") and "default" in line
    (line,) = refused(tmp_path, 'extends = ["a.toml"]\n')
    assert "extends: give the name of one" in line
    (line,) = refused(tmp_path, 'extends = "recipe.toml"\n')
    assert "leads back" in line


def test_a_chain_has_an_end(tmp_path: Path) -> None:
    for number in range(40):
        written(tmp_path, f'extends = "r{number + 1}.toml"\n', f"r{number}.toml")
    with pytest.raises(RecipeError, match="16 deep"):
        load(tmp_path / "r0.toml")


def test_extends_does_not_depend_on_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, SMALL, "elsewhere/stray.toml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    (line,) = refused(tmp_path / "mine", 'extends = "stray.toml"\n')
    assert "there is no 'stray.toml'" in line


def test_an_error_in_what_is_extended_names_that_file(tmp_path: Path) -> None:
    written(tmp_path, SMALL + "[limits]\ndpth = 1\n", "base.toml")
    (line,) = refused(tmp_path, 'extends = "base.toml"\n')
    assert line == "limits.dpth: unknown key, did you mean 'depth'? (base.toml:9)"


def test_a_recipe_may_have_the_name_of_the_one_it_extends(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, 'extends = "default.toml"\nname = "mine"\n', "default.toml"))
    assert recipe.values["name"] == "mine" and "near_dedup" in recipe.values["stages"]


# ---------------------------------------------------------------- --set


def test_set_takes_toml_values_and_strings(tmp_path: Path) -> None:
    def value(*overrides: str) -> dict[str, Any]:
        return loaded(tmp_path, SMALL, *overrides).values

    assert value("seed=1_000")["seed"] == 1_000
    assert value("name=plain-word")["name"] == "plain-word"
    assert value('name="quoted"')["name"] == "quoted"
    assert value("description=a = b")["description"] == "a = b"
    assert value("description=1\nseed = 9")["description"] == "1\nseed = 9"
    assert value('stages=["exact_dedup"]')["stages"] == ["exact_dedup"]
    assert value("stages.1=languages", "stages[0]=exact_dedup")["stages"] == ["exact_dedup", "languages"]
    assert (
        value("limits={depth = 3}", "limits.ratio = 4")["limits"] | {"depth": 3, "ratio": 4}
        == value("limits.depth=3", "limits.ratio=4")["limits"]
    )
    assert value("seed=1", "seed=2")["seed"] == 2
    assert value("slurm.time=01:30:00")["slurm"]["time"] == "01:30:00"


def test_set_reaches_an_item_of_a_list_and_nothing_else(tmp_path: Path) -> None:
    text = SMALL + '[[source]]\nkind = "directory"\npaths = ["second"]\n'
    recipe = loaded(tmp_path, text, 'source.1.paths=["/other"]')
    assert [table["paths"] for table in recipe.values["source"]] == [[str(tmp_path / "src")], ["/other"]]
    assert recipe.origin("source[1].paths") == "--set"
    assert recipe.origin("source[0].paths") == "recipe.toml:7" and recipe.origin("source[1].kind") == "recipe.toml:9"


def test_set_reaches_the_table_of_an_instance(tmp_path: Path) -> None:
    text = SMALL.replace('"decode"', '"decode:big"')
    for path in ("stage.decode:big.max_bytes", 'stage."decode:big".max_bytes', "stage.'decode:big'.max_bytes"):
        recipe = loaded(tmp_path, text, f"{path}=5")
        assert recipe.values["stage"] == {"decode:big": {"max_bytes": 5}}
        assert recipe.origin('stage."decode:big".max_bytes') == "--set"


@pytest.mark.parametrize(
    "override",
    [
        "x",
        "=1",
        ".=1",
        "a..b=1",
        "a b=1",
        "source.9.kind=git",
        "source.x=1",
        "extends=x.toml",
        ".".join("a" * 99) + "=1",
        "[0]=1",
    ],
)
def test_a_bad_override_is_told(tmp_path: Path, override: str) -> None:
    assert any(line.startswith("--set ") for line in refused(tmp_path, SMALL, override))


KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(st.lists(KEYS, min_size=1, max_size=4))
def test_a_dotted_path_is_read_back_as_it_was_written(keys: list[str]) -> None:
    dotted = ""
    for key in keys:
        dotted = joined(dotted, key)
    assert split(dotted) == keys
    assert dotted.isprintable()


# ---------------------------------------------------------------- places


def test_lines_are_those_of_the_keys_whatever_strings_and_lists_hold() -> None:
    text = '''\
a = """
b = 1
[c]
""\\"""" # "
d = [
  "e = 1",
  ["f"],
  [
    ["g"]
  ]
]   # [h]
i . "j.k" = 2
[l]
m = '[n]'   # x = 1
[[o]]
p = 1
[o.q]
r = {s = 1}
[[o]]
p = \'\'\'
t = 1\'\'\'
'''
    tomllib.loads(text)
    assert line_numbers(text) == {
        "a": 1, "d": 5, 'i."j.k"': 12, "l": 13, "l.m": 14, "o[0]": 15, "o[0].p": 16, "o[0].q": 17, "o[0].q.r": 18,
        "o[1]": 19, "o[1].p": 20,
    }  # fmt: skip


# ---------------------------------------------------------------- digests


def test_the_digest_is_of_the_values_not_of_where_they_lie(tmp_path: Path) -> None:
    text = SMALL.replace('"exact_dedup",', '"opt_out", "exact_dedup",') + '[opt_out]\nlist = "out.txt"\n'
    one, other = loaded(tmp_path / "a", text), loaded(tmp_path / "b" / "c", "# a comment\n" + text)
    assert one.values != other.values and one.digest() == other.digest()
    assert loaded(tmp_path / "a", text, "seed=42").digest() == one.digest()
    assert loaded(tmp_path / "a", text, "seed=43").digest() != one.digest()
    assert json.loads(json.dumps(one.resolved())) == one.resolved()


# ---------------------------------------------------------------- what stackbuild brings


@pytest.mark.parametrize("name", bundled_names())
def test_recipes_that_stackbuild_brings_are_valid_and_can_run(name: str) -> None:
    for spelled in (name, f"{name}.toml", f"pipelines/{name}.toml"):
        recipe = load(spelled)
    check(nodes_of(recipe.values))


def test_a_recipe_that_stackbuild_brings_starts_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("default").values["source"][0]["paths"] == [str(tmp_path)]
    (tmp_path / "mine").mkdir()
    taken = load(written(tmp_path / "mine", 'extends = "default"\n'))
    assert taken.values["source"][0]["paths"] == [str(tmp_path / "mine")]


def test_an_unknown_recipe_names_those_there_are() -> None:
    for name in ("nothing", "../pipelines/default", "/etc"):
        with pytest.raises(RecipeError, match=r"default.*quickstart"):
            load(name)


def test_the_first_recipe_that_a_user_gets_is_valid(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, init_text()))
    assert recipe.values["tokens"]["vocab_size"] == 8_192
    check(nodes_of(recipe.values))


def test_the_caps_of_recipes_are_the_caps_of_sources() -> None:
    assert Limits(**LimitOptions().model_dump()) == Limits()


# ---------------------------------------------------------------- schema and page


def test_the_schema_knows_every_key_that_a_recipe_may_have() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert set(schema["properties"]) >= {
        "name",
        "extends",
        "stage",
        "source",
        *registry.stage_names(),
        "tokens",
        "layout",
    }
    references = [word for word in json.dumps(schema).split('"') if word.startswith("#/$defs/")]
    assert references and all(reference.removeprefix("#/$defs/") in schema["$defs"] for reference in references)
    near = schema["$defs"][schema["properties"]["near_dedup"]["$ref"].rsplit("/", 1)[1]]
    assert near["additionalProperties"] is False and "threshold" in near["properties"]
    kinds = [item["properties"]["kind"]["const"] for item in schema["properties"]["source"]["items"]["anyOf"]]
    assert kinds == registry.source_kinds()


def test_the_page_describes_every_option() -> None:
    page = recipes_page()
    for name in (*registry.stage_names(), "layout", "tokens"):
        model = registry.stage_options(name)
        assert model is not None and f"`[{name}]`" in page
        for key in model.model_fields:
            assert f"| `{key}` |" in page, (name, key)
    for kind in registry.source_kinds():
        model = registry.source_options(kind)
        assert model is not None and f'`kind = "{kind}"`' in page
        assert all(f"| `{key}` |" in page for key in model.model_fields if key != "kind")
    for line in page.splitlines():
        assert not line.startswith("|") or line.replace("\\|", "").count("|") == 5, line
    assert str(Path.home()) not in page and recipes_page() == page


def test_as_json_is_json_and_keeps_every_field() -> None:
    value = as_json(Words())
    assert value == json.loads(json.dumps(value)) and set(value) == {"words", "pairs"}
