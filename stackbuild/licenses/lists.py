"""Licence lists as versioned data: which identifiers a list holds, where it is from, and what two lists differ in.

The files stand in the top-level folder `licenses/` (in a wheel: `stackbuild/data/licenses/`): `lists/NAME.toml`,
`scancode.json`, which `stackbuild.licenses.generate` writes from the installed ScanCode, and `riders.toml`, whose keys
are ours and non-permissive.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import stackbuild
from stackbuild.errors import RecipeError

# What engines tell addenda from licences by, whatever the policy; better from worse they tell by ScanCode's classes.
ENGINES_NEUTRAL = "neutral"

LicenseClass = Literal["permissive", "no_license", "unknown", "weak_copyleft", "non_permissive"]

# ScanCode's categories, as classes; the rest (Copyleft, Proprietary Free, Commercial, Free Restricted ...) is
# non-permissive.
CATEGORY_CLASS: dict[str, LicenseClass] = {
    "Permissive": "permissive",
    "Public Domain": "permissive",
    "Copyleft Limited": "weak_copyleft",
    "Unstated License": "unknown",
}
# From what may be used most freely to what may be used least: of the classes of a set of keys the last one rules.
SEVERITY: dict[LicenseClass, int] = {
    "permissive": 0,
    "no_license": 1,
    "weak_copyleft": 2,
    "unknown": 3,
    "non_permissive": 4,
}


class LicenseDataError(RecipeError):
    """A licence list or policy cannot be read: which one, and what would do."""


def data_path(name: str) -> Path:
    """Where a file of the licence data is: in a wheel below the package, in a source checkout beside it."""
    package = Path(stackbuild.__file__).parent
    for folder in (package / "data" / "licenses", package.parent / "licenses"):
        if (folder / name).exists():
            return folder / name
    raise LicenseDataError(f"There is no licence data {name!r} in this installation; reinstall stackbuild.")


def data_names(folder: str) -> list[str]:
    """Names of the files of a folder of the licence data, without ".toml"."""
    return sorted(path.stem for path in data_path(folder).glob("*.toml"))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file; LicenseDataError if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LicenseDataError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LicenseDataError(f"{path} is not TOML: {error}.") from error


# ---------------------------------------------------------------- ScanCode's classes of licences


@dataclass(frozen=True)
class ScanCodeLicenses:
    """What ScanCode says of licences, by SPDX key.

    `aliases`: other keys of a licence (deprecated SPDX ids among them) to its present one. `generic`: keys that stand
    for no licence in particular; `exceptions`: those that mean nothing without a licence.
    """

    version: str
    categories: dict[str, frozenset[str]]
    aliases: dict[str, str]
    exceptions: frozenset[str]
    unknown: frozenset[str]
    classes: dict[str, LicenseClass]

    def canonical(self, key: str) -> str:
        """The present SPDX key of a licence that is called otherwise."""
        return key if key in self.classes else self.aliases.get(key, key)

    def class_of(self, key: str) -> LicenseClass:
        """The class that ScanCode's category gives; a licence that it does not know is unknown."""
        return self.classes.get(self.canonical(key), "unknown")


@cache
def scancode_licenses() -> ScanCodeLicenses:
    """The frozen data of ScanCode."""
    body = json.loads(data_path("scancode.json").read_bytes())
    categories = {name: frozenset(keys) for name, keys in body["categories"].items()}
    classes = {key: CATEGORY_CLASS.get(name, "non_permissive") for name, keys in categories.items() for key in keys}
    classes |= {one["key"]: "non_permissive" for one in read_toml(data_path("riders.toml"))["rider"]}
    return ScanCodeLicenses(
        body["version"], categories, body["aliases"], frozenset(body["exceptions"]), frozenset(body["unknown"]), classes
    )


# ---------------------------------------------------------------- lists


@dataclass(frozen=True)
class LicenseList:
    """A named set of SPDX ids. `ids` is the list to the letter; `accepted` holds their other names as well."""

    name: str
    version: str
    origin: str
    approximation: bool
    ids: frozenset[str]
    accepted: frozenset[str]

    def __contains__(self, key: str) -> bool:
        return key in self.accepted


def load_list(name: str) -> LicenseList:
    """A list of the licence data by its name, or of a TOML file by its path; LicenseDataError if there is none."""
    if name.endswith(".toml"):
        return _load(Path(name), ())
    return _named(name)


@cache
def _named(name: str) -> LicenseList:
    return _load(_list_path(name), ())


def _list_path(name: str) -> Path:
    if name not in data_names("lists"):
        raise LicenseDataError(
            f"There is no licence list {name!r}; there are {', '.join(data_names('lists'))}, or a path.toml."
        )
    return data_path(f"lists/{name}.toml")


def _load(path: Path, parents: tuple[Path, ...]) -> LicenseList:
    """Read a list: `ids`, and those of the lists in `union`, and of ScanCode's `categories`; only what is in all of
    `also_in`, and nothing that is in `without`."""
    if path in parents:
        raise LicenseDataError(f"The licence list {path} includes itself.")
    body = read_toml(path)
    known = {"name", "version", "origin", "approximation", "ids", "union", "categories", "also_in", "without"}
    if unknown := sorted(set(body) - known):
        raise LicenseDataError(f"{path} has the unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}.")
    for key in ("name", "version", "origin"):
        if not isinstance(body.get(key), str):
            raise LicenseDataError(f"{path} must state its {key} in words.")
    ids = set(_strings(path, body, "ids"))
    for other in _strings(path, body, "union"):
        ids |= _load(_list_path(other), (*parents, path)).ids
    scancode = scancode_licenses()
    for category in _strings(path, body, "categories"):
        if category not in scancode.categories:
            raise LicenseDataError(
                f"{path}: ScanCode has no category {category!r}; it has {', '.join(sorted(scancode.categories))}."
            )
        ids |= scancode.categories[category]
    for other in _strings(path, body, "also_in"):
        ids &= _load(_list_path(other), (*parents, path)).accepted
    for other in _strings(path, body, "without"):
        ids -= _load(_list_path(other), (*parents, path)).accepted
    accepted = frozenset(
        ids | {scancode.canonical(plain) for plain in (key.removeprefix("deprecated_") for key in ids)}
    )
    accepted |= {old for old, present in scancode.aliases.items() if present in accepted}
    return LicenseList(
        body["name"], body["version"], body["origin"], bool(body.get("approximation", False)), frozenset(ids), accepted
    )


def _strings(path: Path, body: dict[str, Any], key: str) -> list[str]:
    value = body.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise LicenseDataError(f"{path}: {key} must be a list of strings.")
    if len(set(value)) != len(value):
        raise LicenseDataError(f"{path}: {key} names {next(v for v in value if value.count(v) > 1)!r} twice.")
    return value


@dataclass(frozen=True)
class ListDifference:
    """What a newer list took in and let go, sorted."""

    added: list[str]
    removed: list[str]


def difference(older: LicenseList, newer: LicenseList) -> ListDifference:
    """How one list became another."""
    return ListDifference(sorted(newer.ids - older.ids), sorted(older.ids - newer.ids))
