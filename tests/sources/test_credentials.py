"""A password or token of an address is in no key, column, reason or message, however the address is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stackbuild.errors import InputError, RecipeError
from stackbuild.origins import canonical_url
from stackbuild.recipe import load
from stackbuild.sources.credentials import hidden, without_credentials
from stackbuild.sources.git import SOURCE, GitOptions
from stackbuild.sources.unit import ResolveContext
from tests.sources.test_git import Repository, units

TOKEN = "ghp_S3cr3t0fMine"
ADDRESSES = [
    f"https://me:{TOKEN}@github.com/o/r.git",
    f"https://{TOKEN}@github.com/o/r",
    f"https://first.last:{TOKEN}@github.com/o/r",
    f"https://me:p@ss{TOKEN}@github.com/o/r",
    f"https://me:12/{TOKEN}@github.com/o/r",
    f"https://a.b:12/{TOKEN}@github.com/o/r",
    f"https://a.b:x/{TOKEN}@github.com/o/r",
    f"https://github.com/o/r?private_token={TOKEN}",
    f"https://github.com/o/r#{TOKEN}",
    f"ssh://{TOKEN}@github.com:22/o/r",
    f"{TOKEN}@github.com:o/r.git",
    f"me:{TOKEN}@github.com:o/r",
    f"first.last:{TOKEN}@github.com:o/r",
    f"first.last:{TOKEN}@github.com/o/r",
    f"first.last:1/{TOKEN}@github.com:o/r",
    f"https://me:{TOKEN}@dotless/o/r",
    f"https://me:{TOKEN}\u2100@github.com/o/r",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_remote_leaves_no_credentials_in_a_unit(tmp_path: Path, address: str) -> None:
    repo = Repository(tmp_path / "project")
    repo.commit({b"a": b"1"})
    repo.git("remote", "add", "origin", address)
    (unit,), skipped = units(tmp_path, paths=(str(repo.folder),))
    assert TOKEN not in json.dumps([unit.key, unit.where, unit.repo_name]) and not skipped
    assert unit.repo_name in ("o/r", "local/project")


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_clone_that_fails_leaves_no_credentials_in_its_reason(tmp_path: Path, address: str) -> None:
    """Refused by the options, not cached when offline, or git says why: `.invalid` is nobody's (RFC 2606)."""
    repo = Repository(tmp_path / "project")
    repo.commit({b"a": b"1"})
    for offline in (True, False):
        here = address if offline else address.replace("github.com", "host.invalid").replace("dotless", "host.invalid")
        try:
            options = GitOptions(kind="git", paths=(str(repo.folder),), urls=(here,), clone_timeout=60)
        except ValidationError as error:
            said = "".join(item["msg"] for item in error.errors())
        else:
            _, skipped = SOURCE.units(options, ResolveContext(cache=str(tmp_path / "cache"), offline=offline))
            said = repr(skipped)
            assert len(skipped) == 1
        assert TOKEN not in said and TOKEN[4:] not in said


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "place", ['urls = ["{}"]', 'urls = "{}"', 'paths = ["{}"]', 'list = ["{}"]', 'ref = ["{}"]', 'kind = "{}"']
)
def test_a_recipe_error_does_not_repeat_credentials(tmp_path: Path, address: str, place: str) -> None:
    source = (
        place.format(address) if place.startswith("kind") else f'kind = "git"\nscan_depth = 99\n{place.format(address)}'
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'name = "x"\nstages = ["exact_dedup"]\n[[source]]\n{source}\n')
    with pytest.raises(RecipeError) as raised:
        load(recipe)
    assert TOKEN not in str(raised.value)
    with pytest.raises(RecipeError) as raised:
        load(recipe, [f'source.7.urls=["{address}"]'])
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_list_of_repositories_does_not_repeat_credentials(tmp_path: Path, address: str) -> None:
    repo = Repository(tmp_path / "project")
    repo.commit({b"a": b"1"})
    for line in (f"project\t{address}\n", f"{address}\n", f"project\t{address}\t\tno date\n"):
        (tmp_path / "list").write_text(line, "utf-8")
        try:
            found, skipped = units(tmp_path, list=str(tmp_path / "list"))
            said = repr(([unit.key for unit in found], skipped))
        except InputError as error:
            said = str(error)
        assert TOKEN not in said


def test_what_git_says_is_told_without_secrets_also_where_they_stand_alone() -> None:
    address = f"https://me:a%20{TOKEN}@host.invalid/x?key=abc"
    words = f"fatal: could not read 'a {TOKEN}' for https://me:a%20{TOKEN}@host.invalid/x, key abc"
    assert hidden(words, address) == "fatal: could not read '***' for https://host.invalid/x, key ***"
    assert (
        hidden(f"{TOKEN}@host.invalid: Permission denied", f"{TOKEN}@host.invalid:o/r")
        == "host.invalid: Permission denied"
    )
    assert hidden("git@host.invalid: denied", "git@host.invalid:o/r") == "host.invalid: denied"


@pytest.mark.parametrize(
    "text",
    ["https://github.com/o/r", "https://host.org/@scope/pkg", "https://host.org/a@b/c",
     "src/@types/x", "a@b", "file:///home/me/src", "C:\\x",
     "16:9", "see https://github.com/o/r, and me@example.org", "a/b:c", ""],
)  # fmt: skip
def test_what_holds_no_credentials_is_shown_as_it_is(text: str) -> None:
    assert without_credentials(text) == text


# With both "/" and "@" in it, unescaped, an address means what every program takes it for: another host and its path.
SECRET = (
    st.text("abcXYZ019-._~%+/:@", min_size=1, max_size=12)
    .filter(lambda text: not {"/", "@"} <= set(text))
    .map(lambda text: f"{text}Z9Z")
)


@given(st.sampled_from(["me", "first.last", ""]), SECRET, st.sampled_from(["github.com/o/r", "h.org:8080/a/b"]))
def test_no_password_survives_in_a_canonical_url_or_in_what_is_shown(user: str, secret: str, place: str) -> None:
    for address in (f"https://{user}:{secret}@{place}", f"{user}:{secret}@{place.replace('/', ':', 1)}"):
        assert "Z9Z" not in (canonical_url(address) or "")
        assert "Z9Z" not in without_credentials(address)


def test_a_folder_with_an_at_and_a_colon_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Repository(tmp_path / "a@b:c").commit({b"a": b"1"})
    assert len(units(tmp_path, paths=("./a@b:c",))[0]) == 1
    with pytest.raises(ValidationError, match="name it under `urls`"):
        GitOptions(kind="git", paths=("a@b:c",))
