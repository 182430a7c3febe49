"""The licence lists as they are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackbuild.licenses.generate import blue_oak_toml, scancode_json
from stackbuild.licenses.lists import LicenseDataError, data_names, data_path, difference, load_list, scancode_licenses


def test_the_lists_have_the_sizes_of_their_sources() -> None:
    sizes = {name: len(load_list(name).ids) for name in ("the-stack-v1.0", "the-stack-v1.1", "blue-oak", "neutral")}
    assert sizes == {"the-stack-v1.0": 19, "the-stack-v1.1": 193, "blue-oak": 224, "neutral": 10}


def test_every_list_says_where_it_is_from() -> None:
    for name in data_names("lists"):
        found = load_list(name)
        assert found.name == name and found.version and len(found.origin) > 20


def test_weak_copyleft_left_the_permissive_list_with_version_1_1() -> None:
    change = difference(load_list("the-stack-v1.0"), load_list("the-stack-v1.1"))
    assert {"EPL-1.0", "MPL-2.0", "deprecated_LGPL-3.0+", "deprecated_LGPL-2.1+", "SHL-0.51"} <= set(change.removed)
    assert "BSD-1-Clause" in change.added


@pytest.mark.parametrize(
    "key",
    [
        "MPL-2.0",
        "EPL-1.0",
        "EPL-2.0",
        "LGPL-2.1-only",
        "LGPL-3.0-or-later",
        "CDDL-1.0",
        "GPL-3.0-only",
        "CC-BY-SA-4.0",
        "MS-RL",
    ],
)
def test_no_copyleft_is_permissive_from_1_1_on(key: str) -> None:
    assert not any(key in load_list(name) for name in ("the-stack-v1.1", "the-stack-v2", "stackbuild", "strict"))


def test_the_list_of_the_second_release_says_that_it_is_an_approximation() -> None:
    found = load_list("the-stack-v2")
    assert found.approximation and "approximation" in found.origin.lower()
    assert found.ids == load_list("blue-oak").ids | load_list("scancode-permissive").ids


def test_the_default_list_holds_nothing_that_scancode_calls_copyleft() -> None:
    classes = {scancode_licenses().class_of(key) for key in load_list("stackbuild").ids}
    copyleft = scancode_licenses().categories["Copyleft"] | scancode_licenses().categories["Copyleft Limited"]
    assert "weak_copyleft" not in classes and not load_list("stackbuild").ids & copyleft
    assert "Artistic-2.0" not in load_list("stackbuild") and "Artistic-2.0" in load_list("the-stack-v2")


def test_deprecated_names_mean_the_same_licence() -> None:
    assert scancode_licenses().canonical("GPL-3.0") == "GPL-3.0-only"
    assert scancode_licenses().class_of("LGPL-2.1") == "weak_copyleft"
    assert "LGPL-3.0-or-later" in load_list("the-stack-v1.0")  # printed there as deprecated_LGPL-3.0+


def test_a_list_of_ones_own_is_checked(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'name = "mine"\nversion = "1"\norigin = "us"\nids = ["MIT"]\nunion = ["neutral"]\nwithout = ["neutral"]\n'
    )
    assert load_list(str(mine)).ids == {"MIT"}
    for text, words in [
        ('name = "mine"\nversion = "1"\nids = []', "origin"),
        ('name = "mine"\nversion = "1"\norigin = "us"\nidz = []', "idz"),
        ('name = "mine"\nversion = "1"\norigin = "us"\nids = ["MIT", "MIT"]', "twice"),
        ('name = "mine"\nversion = "1"\norigin = "us"\nids = "MIT"', "list of strings"),
        ('name = "mine"\nversion = "1"\norigin = "us"\ncategories = ["Nice"]', "Nice"),
        ("name = ", "not TOML"),
    ]:
        mine.write_text(text)
        with pytest.raises(LicenseDataError, match=words):
            load_list(str(mine))
    with pytest.raises(LicenseDataError, match="cannot be read"):
        load_list(str(tmp_path / "none.toml"))
    with pytest.raises(LicenseDataError, match=r"no licence list.*the-stack-v2"):
        load_list("nice")


def test_the_frozen_data_are_what_the_installed_scancode_gives() -> None:
    """Only where the version is the frozen one: another one's data is for `generate` to freeze."""
    from importlib import metadata

    if metadata.version("scancode-toolkit-mini") != scancode_licenses().version:
        pytest.skip("another ScanCode is installed than the lists are from")
    assert scancode_json() == data_path("scancode.json").read_text(encoding="utf-8")


def test_blue_oak_is_written_by_rating() -> None:
    index = '[{"name": "Gold", "licenses": [{"id": "B"}, {"id": "A"}]}, {"name": "Lead", "licenses": [{"id": "C"}]}]'
    assert blue_oak_toml(index, "1").split("ids = ")[1] == '[\n  # Gold\n  "A",\n  "B",\n  # Lead\n  "C",\n]\n'
