"""What the evidence makes of a file: its licence type (The Stack v2's three values) and its class (five).

The five-step rule of The Stack v2 (Lozhkov et al. 2024, figure 1 and get_license_types.py), from the id that GitHub
gives the repository and the keys found in licence files:

1. GitHub's id is on the permissive list: permissive, whatever the files say.
2. GitHub gives another id that is not NOASSERTION: non-permissive.
3. No keys: no licence, but non-permissive where GitHub says NOASSERTION.
4. Keys are permissive, neutral (addenda that never change a licence) or the rest; beside a permissive key, a reference
   to a licence that is not named does not count.
5. Permissive if there are permissive keys and no rest; no licence if there is neither; else non-permissive.

The rule of The Stack v1 (Kocetkov et al. 2022): the id of the event archive decides if there is one, else the
repository is permissive if every licence in its root is.

A policy is data (`licenses/policies/`, or a file of one's own): which rule, lists and reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from stackbuild.licenses.expression import Keys, Reading, read_expression
from stackbuild.licenses.lists import (
    SEVERITY,
    LicenseClass,
    LicenseDataError,
    LicenseList,
    data_names,
    data_path,
    load_list,
    read_toml,
    scancode_licenses,
)
from stackbuild.licenses.names import Names

LicenseType = Literal["permissive", "no_license", "non_permissive"]
Rule = Literal["github_then_files", "every_file"]

NOASSERTION = "NOASSERTION"
UNKNOWN_REFERENCE = "LicenseRef-scancode-unknown-license-reference"


class PolicyData(BaseModel):
    """A policy as it stands in its TOML file.

    `names`: which names are of licence files. `reach`: how far down a licence file speaks, for all folders below its
    own ("folders") or, from the root alone, for the repository ("root"). `or_reading`: see `expression`.
    `unrecognised`: the class of a file for which there is a licence that no engine recognises, and nothing else.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    origin: str
    rule: Rule
    permissive: str
    neutral: str = "neutral"
    names: Names = "stackbuild"
    reach: Literal["folders", "root"] = "folders"
    or_reading: Reading = "choice"
    unrecognised: Literal["unknown", "no_license"] = "unknown"


@dataclass(frozen=True)
class Decision:
    """What a file is: `type` as The Stack v2 publishes it, `license_class` as ours."""

    type: LicenseType
    license_class: LicenseClass


@dataclass(frozen=True)
class Policy:
    """A policy with its lists loaded."""

    data: PolicyData

    @cached_property
    def permissive(self) -> LicenseList:
        return load_list(self.data.permissive)

    @cached_property
    def neutral(self) -> LicenseList:
        return load_list(self.data.neutral)

    def class_of(self, key: str) -> LicenseClass:
        """The class of one key: permissive by the policy's list, the rest by ScanCode's category."""
        if key in self.permissive:
            return "permissive"
        found = scancode_licenses().class_of(key)
        return "non_permissive" if found == "permissive" else found

    @cached_property
    def severity(self) -> Callable[[str], int]:
        """How bad a key is; neutral ones are not."""
        return lru_cache(maxsize=8192)(lambda key: -1 if key in self.neutral else SEVERITY[self.class_of(key)])

    def keys(self, expressions: Iterable[str]) -> Keys:
        """The keys that count, of expressions that all hold."""
        return frozenset().union(*(read_expression(one, self.data.or_reading, self.severity) for one in expressions))

    def identity(self) -> dict[str, Any]:
        """What a decision depends on, for the key of a stage's output."""
        lists = {each.name: sorted(each.accepted) for each in (self.permissive, self.neutral)}
        return {"policy": self.data.model_dump(), "lists": lists, "scancode": scancode_licenses().version}


def load_policy(name: str, **changes: Any) -> Policy:
    """A policy of the licence data by its name, or of a TOML file by its path; `changes` that are not None replace its
    values.
    """
    if name.endswith(".toml"):
        path = Path(name)
    elif name in data_names("policies"):
        path = data_path(f"policies/{name}.toml")
    else:
        raise LicenseDataError(
            f"There is no licence policy {name!r}; there are {', '.join(data_names('policies'))}, or a path.toml."
        )
    body = {**read_toml(path), **{key: value for key, value in changes.items() if value is not None}}
    try:
        policy = Policy(PolicyData.model_validate(body))
    except ValidationError as error:
        first = error.errors()[0]
        raise LicenseDataError(
            f"The licence policy {path}, {'.'.join(map(str, first['loc']))}: {first['msg']}."
        ) from error
    _ = policy.permissive, policy.neutral
    return policy


# ---------------------------------------------------------------- the rules


def five_steps(github: str | None, keys: Keys, policy: Policy) -> LicenseType:
    """The Stack v2's type of a file; see the module."""
    if github is not None and github in policy.permissive:
        return "permissive"
    if github is not None and github != NOASSERTION:
        return "non_permissive"
    if not keys:
        return "no_license" if github is None else "non_permissive"
    permissive, rest = split(keys, policy)
    if permissive and not rest:
        return "permissive"
    return "non_permissive" if rest else "no_license"


def every_file(github: str | None, keys: Keys, policy: Policy) -> LicenseType:
    """The Stack v1's type of a repository; what it could not find a licence for was left out."""
    if github is not None and github != NOASSERTION:
        return "permissive" if github in policy.permissive else "non_permissive"
    if not keys:
        return "no_license" if github is None else "non_permissive"
    return "permissive" if all(key in policy.permissive for key in keys) else "non_permissive"


RULES: dict[Rule, Callable[[str | None, Keys, Policy], LicenseType]] = {
    "github_then_files": five_steps,
    "every_file": every_file,
}


def split(keys: Keys, policy: Policy) -> tuple[Keys, Keys]:
    """The permissive keys and those that stand against them."""
    permissive = frozenset(key for key in keys if key in policy.permissive)
    rest = frozenset(key for key in keys - permissive if key not in policy.neutral)
    return permissive, rest - {UNKNOWN_REFERENCE} if permissive else rest


def decide(github: str | None, keys: Keys, policy: Policy, unrecognised: bool = False) -> Decision:
    """Type and class of a file. `unrecognised`: a file named as a licence speaks for it that no engine recognises.

    The class is that of the worst key that stands against permissive ones, of GitHub's id if that decided.
    """
    license_type = RULES[policy.data.rule](github or None, keys, policy)
    if license_type == "permissive":
        return Decision("permissive", "permissive")
    if license_type == "no_license":
        if unrecognised and policy.data.unrecognised == "unknown":
            return Decision("non_permissive", "unknown")
        return Decision("no_license", "no_license")
    if github and github != NOASSERTION:
        against: Iterable[str] = (github,)
    else:
        against = split(keys, policy)[1]
    found: LicenseClass = max((policy.class_of(key) for key in against), key=SEVERITY.__getitem__, default="unknown")
    return Decision("non_permissive", "non_permissive" if found == "permissive" else found)


def representatives(keys: Keys, policy: Policy) -> Keys:
    """One key of each kind that the rules tell apart, the first by name: it decides as all do, and stays small."""
    kinds: dict[tuple[bool, int], str] = {}
    for key in sorted(keys, reverse=True):
        kinds[key == UNKNOWN_REFERENCE, policy.severity(key)] = key
    return frozenset(kinds.values())


@dataclass(frozen=True)
class Pairs:
    """The distinct pairs of GitHub's id and set of keys among n files; `of_file`: which pair each has (length n)."""

    github: list[str | None]
    sets: npt.NDArray[np.int64]
    of_file: npt.NDArray[np.int64]


def distinct_pairs(github: pa.Array, sets: npt.NDArray[np.int64]) -> Pairs:
    """Fold n files, of which there may be millions, to what a decision can depend on. `github`: string, `sets`: int64,
    both of length n.
    """
    ids = github.cast(pa.string()).dictionary_encode()
    names: list[str | None] = [*ids.dictionary.to_pylist(), None]
    codes = np.asarray(pc.fill_null(ids.indices.cast(pa.int64()), len(names) - 1))
    found, of_file = np.unique(sets * len(names) + codes, return_inverse=True)
    return Pairs(
        [names[int(code)] for code in found % len(names)], found // len(names), of_file.reshape(-1).astype(np.int64)
    )
