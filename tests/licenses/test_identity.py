"""A policy's identity is part of the key of what the stage writes: it holds all that a decision depends on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stackbuild.licenses import lists, policy
from stackbuild.licenses.lists import SEVERITY, data_path, load_list
from stackbuild.licenses.policy import load_policy
from stackbuild.licenses.scancode import severity_of
from stackbuild.licenses.stage import Licenses, LicensesOptions

POLICIES = ("stackbuild", "the-stack-v1", "the-stack-v2")


def _forget() -> None:
    lists._named.cache_clear()
    lists.scancode_licenses.cache_clear()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the licence data, which is read in place of it."""
    folder = tmp_path / "licenses"
    shutil.copytree(data_path("names.toml").parent, folder)
    for module in (lists, policy):
        monkeypatch.setattr(module, "data_path", folder.joinpath)
    _forget()
    yield folder
    monkeypatch.undo()
    _forget()


def identities() -> list[dict[str, Any]]:
    _forget()
    return [load_policy(name).identity() for name in POLICIES]


def changed(file: Path, old: str, new: str) -> list[bool]:
    """Whose identity changes when words of a file do."""
    before = identities()
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return [one != other for one, other in zip(before, identities(), strict=True)]


def test_it_changes_with_every_option() -> None:
    plain = load_policy("stackbuild").identity()
    assert plain != load_policy("the-stack-v2").identity() != load_policy("the-stack-v1").identity()
    changes: list[dict[str, Any]] = [
        {"permissive": "strict"},
        {"or_reading": "all"},
        {"names": "the-stack-v2"},
        {"copies": "best"},
        {"counts": "all"},
        {"per_file": "top"},
    ]
    assert all(load_policy("stackbuild", **change).identity() != plain for change in changes)
    assert Licenses().key() == plain != Licenses(LicensesOptions(policy="the-stack-v1")).key()


@pytest.mark.parametrize("name", ["names.toml", "riders.toml", "scancode.json", "scancode-names.json", "vendored.toml"])
def test_it_changes_with_the_data_that_is_read_at_run_time(data: Path, name: str) -> None:
    assert changed(data / name, "\n", "\n\n") == [True, True, True]


def test_lists_count_by_what_they_hold(data: Path) -> None:
    assert changed(data / "lists" / "the-stack-v1.1.toml", "\n", "\n\n") == [False, False, False]
    assert changed(data / "lists" / "the-stack-v1.1.toml", '"MIT", ', "") == [False, True, False]
    assert changed(data / "lists" / "neutral.toml", '"LicenseRef-scancode-dco-1.1", ', "") == [True, True, True]


def test_engines_tell_addenda_by_one_list_whatever_the_policy_calls_neutral(data: Path) -> None:
    before = load_policy("stackbuild", neutral="strict").identity()
    neutral = data / "lists" / "neutral.toml"
    neutral.write_text(neutral.read_text().replace('"LicenseRef-scancode-google-cla",', ""))
    _forget()
    assert load_policy("stackbuild", neutral="strict").identity() != before


def test_a_list_counts_for_the_policies_that_build_on_it(data: Path) -> None:
    """Engines are compared by ScanCode's classes, of `scancode.json`, whatever list a policy has."""
    assert changed(data / "lists" / "blue-oak.toml", '"BlueOak-1.0.0"', '"Blue-Oak-9.9"') == [True, False, True]
    assert "BlueOak-1.0.0" in load_list("the-stack-v1.1") and severity_of("Ruby") == SEVERITY["weak_copyleft"]
