"""Tables of quality rules: read from TOML, checked, and given names that a decision can carry.

A rule names a measure (`measures.MEASURES`), a comparison and a threshold, or states a longer condition
(`expressions.py`), and drops a file for which that holds; or it keeps only files of certain names; or it drops or keeps
languages or extensions; or it keeps a share of the files, or so many bytes of them (`caps.py`), drawn by a hash. It may
be limited to some languages or extensions, or except some; a file whose language is unknown counts as of none.

    [[rule]]
    id = "Q2-mean-line"
    drop = "mean_line_length > 100"
    except_languages = ["HTML", "TeX"]        # or the name of a list in [groups]
    source = "section 2.1"

A measure that cannot be taken (a share of nothing, visible text of what is not HTML) drops nothing.

An extension is what follows the last dot of the file's name, a leading dot included (".gitignore" has "gitignore", as in
the lists of The Stack); "" is to have none. "sublime-*" stands for all that begin so.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import stackbuild
from stackbuild.errors import RecipeError
from stackbuild.quality.caps import overlapping, size_of
from stackbuild.quality.expressions import Expression, parse
from stackbuild.quality.measures import MEASURES


class RuleError(RecipeError):
    """A table of rules cannot be read: which one, where in it, and what would do."""


_CONDITION = re.compile(r"\s*([a-z_0-9]+)\s*(>=|<=|==|!=|>|<)\s*(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*", re.ASCII)


# ---------------------------------------------------------------- the table


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Condition:
    """What drops a file, where that is one comparison with a number: a decision then has the value and the threshold."""

    measure: str
    comparison: str
    threshold: float


class KeepNames(_Strict):
    """File names (the last part of the path, lower-cased) that stay: one of these, or with one of these within, or with one
    of these stems.

    A stem is the name up to its last dot; a name that begins with its only dot is all stem.
    """

    names: tuple[str, ...] = ()
    containing: tuple[str, ...] = ()
    stems: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _usable(self) -> KeepNames:
        words = (*self.names, *self.containing, *self.stems)
        if not words:
            raise ValueError("give `names`, `containing` or `stems`, else no file would stay")
        for word in words:
            if not word or word != word.lower():
                raise ValueError(
                    f"{word!r} can match no name: names are compared in lower case and a word is not empty"
                )
        return self


# What decides, of which a rule has one; what limits it, by pairs that exclude one another; what may name a group.
KINDS = (
    "drop",
    "keep_names",
    "drop_languages",
    "keep_languages",
    "drop_extensions",
    "keep_extensions",
    "keep_fraction",
    "keep_bytes",
)
LIMITS = (("languages", "except_languages"), ("extensions", "except_extensions"))
LISTS = (*LIMITS[0], *LIMITS[1], "drop_languages", "keep_languages", "drop_extensions", "keep_extensions")
_EXTENSION = re.compile(r"[^./*]*\*?")


class Rule(_Strict):
    """One rule of a table. `drop_extensions` may be a list, or lists by language: then it is about these pairs. `keep_bytes`
    holds for all its files together, or with `each` for those of each language or extension.
    """

    id: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    drop: Condition | Expression | None = None
    keep_names: KeepNames | None = None
    drop_languages: tuple[str, ...] | None = None
    keep_languages: tuple[str, ...] | None = None
    drop_extensions: tuple[str, ...] | dict[str, tuple[str, ...]] | None = None
    keep_extensions: tuple[str, ...] | None = None
    keep_fraction: float | None = Field(None, gt=0, lt=1)
    keep_bytes: int | None = None
    each: Literal["language", "extension"] | None = None
    languages: tuple[str, ...] | None = None
    except_languages: tuple[str, ...] | None = None
    extensions: tuple[str, ...] | None = None
    except_extensions: tuple[str, ...] | None = None
    source: str = Field(min_length=1, description="where the rule comes from")

    @field_validator("drop", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if value is None or isinstance(value, Condition | Expression):
            return value
        if not isinstance(value, str):
            raise ValueError("write the condition as text, as in 'num_lines > 100000'")
        match = _CONDITION.fullmatch(value)
        if match is None or match[1] not in MEASURES:
            return parse(value)
        measure, comparison, threshold = match.groups()
        return Condition(measure, comparison, float(threshold))

    @field_validator("keep_bytes", mode="before")
    @classmethod
    def _size(cls, value: object) -> int | None:
        return None if value is None else size_of(value)

    @model_validator(mode="after")
    def _one_kind(self) -> Rule:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            has = f"this has {' and '.join(f'`{kind}`' for kind in kinds)}" if kinds else "this has none"
            raise ValueError(f"a rule has one of {', '.join(f'`{kind}`' for kind in KINDS)}; {has}")
        for only, but in LIMITS:
            if getattr(self, only) is not None and getattr(self, but):
                raise ValueError(f"a rule has `{only}` or `{but}`, not both")
        for key in LISTS:
            value = getattr(self, key)
            if (value in ((), {}) or (isinstance(value, dict) and () in value.values())) and "except" not in key:
                raise ValueError(f"`{key}` is empty, so that the rule would never apply; leave it out to mean all")
        if self.each and self.keep_bytes is None:
            raise ValueError("`each` is for `keep_bytes`, which it makes hold for each language or extension by itself")
        for extension in self.own_extensions():
            if not _EXTENSION.fullmatch(extension):
                raise ValueError(f"{extension!r} is no extension: write what follows the last dot, as in 'py'")
        return self

    def own_extensions(self) -> Iterator[str]:
        """All extensions that it names."""
        for names in (self.keep_extensions, self.extensions, self.except_extensions):
            yield from names or ()
        if isinstance(self.drop_extensions, dict):
            for names in self.drop_extensions.values():
                yield from names
        else:
            yield from self.drop_extensions or ()

    @property
    def on_extension(self) -> bool:
        """Whether it asks for the extension of a file."""
        asks = isinstance(self.drop, Expression) and self.drop.on_extension
        return asks or self.each == "extension" or any(True for _ in self.own_extensions())

    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        read: tuple[str, ...] = ()
        if isinstance(self.drop, Condition):
            read = MEASURES[self.drop.measure].columns
        elif self.drop is not None:
            read = self.drop.columns
        if self.keep_fraction is not None:
            read = (*read, "content_id")
        if self.keep_bytes is not None:
            read = (*read, "content_id", "length_bytes")
        if self.keep_names is not None or self.on_extension:
            read = (*read, "path")
        on_language = (self.languages, self.except_languages, self.drop_languages, self.keep_languages)
        if any(on_language) or isinstance(self.drop_extensions, dict) or self.each == "language":
            read = (*read, "language")
        return read


class RuleTable(_Strict):
    """A file of rules, in their order.

    `extension_case`: whether "R" is another extension than "r". `digest`: sha256 of the table's bytes, hex.
    """

    name: str = Field(min_length=1)
    source: str = Field(min_length=1)
    extension_case: Literal["ignore", "exact"] = "ignore"
    groups: dict[str, tuple[str, ...]] = {}
    rule: tuple[Rule, ...] = Field(min_length=1)
    digest: str = ""

    @model_validator(mode="before")
    @classmethod
    def _open_groups(cls, table: Any) -> Any:
        """Put the list of a group where a rule names it."""
        groups = table.get("groups", {})
        if not isinstance(groups, dict) or not isinstance(table.get("rule"), list):
            return table
        rules: list[Any] = []
        for rule in table["rule"]:
            named = {key: rule[key] for key in LISTS if isinstance(rule, dict) and isinstance(rule.get(key), str)}
            for key, group in named.items():
                if group not in groups:
                    raise ValueError(
                        f"rule {rule.get('id')}: {key} = {group!r} is no list of [groups]; write [{group!r}]?"
                    )
                named[key] = groups[group]
            rules.append({**rule, **named} if named else rule)
        return {**table, "rule": rules}

    @model_validator(mode="after")
    def _distinct(self) -> RuleTable:
        ids = [rule.id for rule in self.rule]
        twice = sorted({id_ for id_ in ids if ids.count(id_) > 1})
        if twice:
            raise ValueError(f"two rules have the id {twice[0]!r}; a decision could not tell them apart")
        if two := overlapping(self.rule):
            raise ValueError(
                f"rules {two[0].id} and {two[1].id} cap bytes, and one file might fall under both; give them `languages` (or "
                "`extensions`) of which none is the same, or put one into the table of a second stage of filters"
            )
        if self.extension_case == "ignore":
            for rule in self.rule:
                for extension in rule.own_extensions():
                    if extension != extension.lower():
                        raise ValueError(
                            f"rule {rule.id}: {extension!r} can match no extension: they are compared in lower case; "
                            'write it so, or set extension_case = "exact"'
                        )
        return self

    def columns(self) -> tuple[str, ...]:
        """The columns that the rules read, sorted."""
        return tuple(sorted({column for rule in self.rule for column in rule.columns()}))


# ---------------------------------------------------------------- reading it


def folders() -> tuple[Path, ...]:
    """Where tables with a name are: beside the package in a checkout, inside it when installed."""
    package = Path(stackbuild.__file__).parent
    return package.parent / "pipelines" / "rules", package / "data" / "pipelines" / "rules"


def find(rules: str) -> Path:
    """The file of a table: of that name among those that come with stackbuild, or at a path (with "/" or ".toml")."""
    if "/" in rules or rules.endswith(".toml"):
        path = Path(rules).expanduser()
        if not path.is_file():
            raise RuleError(
                f"there is no file of rules {rules!r}; give its path, or the name of one that comes with stackbuild"
            )
        return path
    for folder in folders():
        if (folder / f"{rules}.toml").is_file():
            return folder / f"{rules}.toml"
    known = sorted({path.stem for folder in folders() for path in folder.glob("*.toml")})
    raise RuleError(
        f"there is no table of rules {rules!r}; there are {', '.join(known) or 'none'}, or give a .toml file's path"
    )


def read(rules: str) -> RuleTable:
    """Read a table; RuleError says the line of what is not TOML, else the rule and the key."""
    path = find(rules)
    data = path.read_bytes()
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RuleError(f"the rules {path} are not TOML in UTF-8: {error}") from error
    if "digest" in table:
        raise RuleError(f"the rules {path}: digest: is computed, not given; remove it")
    try:
        return RuleTable.model_validate({**table, "digest": sha256(data).hexdigest()})
    except ValidationError as error:
        problems = "; ".join(
            f"{_where(problem['loc'], table)}{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()[:5]
        )
        raise RuleError(f"the rules {path}: {problems}") from error


def _where(location: tuple[int | str, ...], table: Mapping[str, Any]) -> str:
    """A place in the table in words: rule Q2-mean-line, key drop."""
    words = [str(part) for part in location]
    if len(location) > 1 and location[0] == "rule" and isinstance(location[1], int):
        rule = table["rule"][location[1]]
        name = rule.get("id") if isinstance(rule, dict) else None
        words = [f"rule {name or f'number {location[1] + 1}'}", *words[2:]]
    return ", ".join(words) + ": " if words else ""
