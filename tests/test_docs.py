"""What the documentation says is so: commands parse, links lead somewhere, pages that are written from code are up to date."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

from stackbuild import schema
from stackbuild.cli.app import app
from stackbuild.recipe import find, load
from stackbuild.registry import STAGES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) for every line of a code block, and every inline code, that begins with stackbuild."""
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if match := re.match(r"(?:\$ )?(?:\.venv/bin/)?stackbuild( .*)", line):
                    yield page.name, match[1]
        for code in re.findall(r"`(?:\.venv/bin/)?stackbuild ([^`]+)`", text):
            yield page.name, code


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_a_documented_command_parses(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(re.sub(r"\s[<>|].*$", "", command), comments=True)
    group = typer.main.get_command(app)
    context = group.make_context("stackbuild", list(arguments), resilient_parsing=True)
    while isinstance(group, click.Group):
        name, group, arguments = group.resolve_command(context, list(arguments))
        assert group is not None, command
        if "…" in " ".join(arguments) or not arguments:
            return  # a command's name alone, or with a gap for the reader to fill
        context = click.Context(group, parent=context, info_name=name)
    parser = group.make_parser(context)
    parser.parse_args(args=list(arguments))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), target


def test_the_page_of_recipes_is_what_the_models_say() -> None:
    from stackbuild.cli.recipes_page import recipes_page

    assert (ROOT / "docs" / "recipes.md").read_text() == recipes_page(), (
        "run python -m stackbuild.cli.recipes_page > docs/recipes.md"
    )


@pytest.mark.parametrize("name", ["default.toml", "quickstart.toml"])
def test_a_recipe_that_is_shipped_is_valid_and_names_stages_that_there_are(name: str) -> None:
    recipe = load(name)
    assert find(name).exists() and tomllib.loads(find(name).read_text())
    assert {stage.split(":")[0] for stage in recipe.values["stages"]} <= set(STAGES)


def test_formats_names_every_released_column() -> None:
    text = (ROOT / "docs" / "formats.md").read_text()
    own = [field.name for field in schema.DATASET_FIELDS if field not in schema.V2_FIELDS]
    for name in (*own, *schema.DECISIONS.names, *schema.CLUSTERS.names):
        assert f"`{name}`" in text, name
