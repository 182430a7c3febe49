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

Our own, "ranked": the steps on the strongest evidence that there is alone (`policy`), GitHub's id being the weakest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.licenses.expression import Keys
from stackbuild.licenses.lists import SEVERITY, LicenseClass
from stackbuild.licenses.policy import Policy, Rule

LicenseType = Literal["permissive", "no_license", "non_permissive"]

NOASSERTION = "NOASSERTION"
UNKNOWN = "LicenseRef-scancode-unknown"
UNKNOWN_REFERENCE = "LicenseRef-scancode-unknown-license-reference"


@dataclass(frozen=True)
class Decision:
    """What a file is: `type` as The Stack v2 publishes it, `license_class` as ours."""

    type: LicenseType
    license_class: LicenseClass


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
    "ranked": five_steps,  # with `github` only where nothing else speaks
}


def split(keys: Keys, policy: Policy) -> tuple[Keys, Keys]:
    """The permissive keys and those that stand against them."""
    permissive = frozenset(key for key in keys if key in policy.permissive)
    rest = frozenset(key for key in keys - permissive if key not in policy.neutral)
    return permissive, rest - {UNKNOWN_REFERENCE} if permissive else rest


def decide(github: str | None, keys: Keys, policy: Policy, unrecognised: bool = False) -> Decision:
    """Type and class of a file. `unrecognised`: what decides holds a licence that no engine recognises; where the policy
    weighs that, nothing beside it makes the file permissive.

    The class is that of the worst key that stands against permissive ones, of GitHub's id if that decided.
    """
    license_type = RULES[policy.data.rule](github or None, keys, policy)
    if license_type != "non_permissive" and unrecognised and policy.data.unrecognised == "unknown":
        return Decision("non_permissive", "unknown")
    if license_type == "permissive":
        return Decision("permissive", "permissive")
    if license_type == "no_license":
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
