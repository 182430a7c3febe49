"""A policy: which evidence of a licence counts before which, and what makes a file permissive. Data, in TOML.

Kinds of evidence, from those that speak of one file to those that speak of a repository:

  override      a REUSE.toml annotation that says it overrides what files say themselves
  header        the file's own head: an SPDX line, a notice, a licence text
  aggregate     a REUSE.toml annotation that asks to be added to what files say themselves
  path_rule     a rule that names the path: REUSE.toml, .reuse/dep5, debian/copyright, FILE.license
  license_file  the text of a licence in the folder of the file or above (LICENSE, COPYING ...)
  manifest      what a package's manifest there declares (package.json, pyproject.toml, Cargo.toml ...)
  notice        a read-me's section on licences, NOTICE, LEGAL, ABOUT
  host          the id that the host or its event archive gives the repository

The policies of The Stack v1 and v2 know licence files, notices and the host. Ours, `stackbuild`, ranks all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from stackbuild.licenses.expression import Keys, Reading, read_expression
from stackbuild.licenses.lists import (
    ENGINES_NEUTRAL,
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

Rule = Literal["github_then_files", "every_file", "ranked"]
Kind = Literal["override", "header", "aggregate", "path_rule", "license_file", "manifest", "notice", "host"]
Ranks = Literal["class", "github"]
Copies = Literal["winner", "best", "worst", "origin"]
# What else is read at run time; the lists count by what they hold.
DATA = ("names.toml", "riders.toml", "scancode.json", "scancode-names.json", "vendored.toml")
FOLDER_KINDS = frozenset(("license_file", "manifest", "notice"))
FILE_KINDS = frozenset(("header", "aggregate"))


class PolicyData(BaseModel):
    """A policy as it stands in its TOML file.

    `rule`: "github_then_files" (The Stack v2's five steps), "every_file" (The Stack v1) or "ranked".
    `order`: the kinds of evidence in groups, the strongest group first. The first group that says anything of a file decides,
    and all that it says counts together. Of a folder's kinds in one group (license_file, manifest, notice) those of the
    nearest folder speak. The kind named first hides what all kinds of its group say further up, the others hide their own
    kind alone: a manifest in a folder below adds to what a licence file above says and cannot take its place, for tools
    write manifests by themselves.
    `inheritance`: "nearest" as told, or "union": all folders above speak together.
    `counts`: which of the keys that are found in a text count: "all"; "licenses", without addenda, exceptions alone and
    words that name no licence; or "named", where a reference to a licence that is not named does not count either.
    `per_file`: of several expressions in one file "all", or the one of the highest score ("top"): of equal scores the one that
    most lines say, then the first.
    `names`: which names are of licence files. `reach`: how far down a licence file speaks, for all folders below its
    own ("folders") or, from the root alone, for the repository ("root"). `or_reading`: see `expression`.
    `unrecognised`: what a licence does that no engine recognises. "unknown": a file for which one speaks has that class at
    best; "no_license": it does not count.
    `copies`: whose licence a content has that stands in several places: that of the copy which `exact_dedup` keeps
    ("winner"), the most ("best") or the least permissive one ("worst"), or that of the copy which looks like the origin of
    the others ("origin", see `copies`). `origin_from`: bytes from which on a content has an origin; shorter ones (an empty
    file, a line that calls main) are written anew everywhere, and have the licence of the copy that is kept.
    `ranks`: what `exact_dedup` takes for the rank of a copy's licence: its "class", or, as The Stack v2 did, what "github"
    says: an id on the permissive list first, then another, then none, so that a copy which is permissive by its files loses
    to one that the host calls GPL.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    origin: str
    rule: Rule
    permissive: str
    order: tuple[tuple[Kind, ...], ...] = (("license_file", "notice"),)
    inheritance: Literal["nearest", "union"] = "union"
    neutral: str = "neutral"
    counts: Literal["all", "licenses", "named"] = "licenses"
    per_file: Literal["all", "top"] = "all"
    names: Names = "stackbuild"
    reach: Literal["folders", "root"] = "folders"
    or_reading: Reading = "choice"
    unrecognised: Literal["unknown", "no_license"] = "unknown"
    copies: Copies = "winner"
    ranks: Ranks = "class"
    origin_from: int = 256

    @model_validator(mode="after")
    def _orderly(self) -> Self:
        kinds = [kind for group in self.order for kind in group]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"order names {next(k for k in kinds if kinds.count(k) > 1)} twice")
        for group in self.order:
            if len(group) > 1 and not any(set(group) <= together for together in (FOLDER_KINDS, FILE_KINDS)):
                raise ValueError(
                    "only license_file, manifest and notice, or header and aggregate, may share a group of order, not "
                    + ", ".join(group)
                )
        if self.rule != "ranked" and not set(kinds) <= {"license_file", "notice"}:
            raise ValueError(f'rule = "{self.rule}" reads licence files and notices alone')
        return self

    def group_of(self, kind: str) -> int | None:
        """The place of a kind's group in the order; None if the policy does not read it."""
        return next((place for place, group in enumerate(self.order) if kind in group), None)


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
        data = {name: sha256(data_path(name).read_bytes()).hexdigest() for name in DATA}
        return {
            "policy": self.data.model_dump(),
            "lists": lists,
            "engines": sorted(load_list(ENGINES_NEUTRAL).accepted),
            "scancode": scancode_licenses().version,
            "data": data,
        }


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
