"""What the recipe's table [pii] may say."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from pydantic import Field, model_validator

from stackbuild.pii.headers import Headers
from stackbuild.pii.profile_options import ProfileOptions
from stackbuild.pii.replacements import Mode
from stackbuild.stage import Options

Entity = Literal["EMAIL", "IP_ADDRESS", "KEY", "NAME", "PASSWORD", "USERNAME"]
Profile = Literal["rules", "compat", "ner", "presidio"]
ENTITIES: tuple[Entity, ...] = get_args(Entity)
DEFAULT: tuple[Entity, ...] = ("EMAIL", "IP_ADDRESS", "KEY", "NAME", "PASSWORD")  # of user names half would be none


class Where(Options):
    """Files of which something else is asked: those that fit all of `languages` and `repos` that it names."""

    languages: tuple[str, ...] | None = Field(None, min_length=1, description="as the stage `languages` names them")
    repos: tuple[str, ...] | None = Field(
        None, min_length=1, description="patterns of repositories' names, `*` for any part of one: `archive/*`"
    )
    profiles: tuple[Profile, ...] | None = Field(
        None, description="instead of those above; with an empty list nothing is redacted"
    )
    entities: tuple[Entity, ...] | None = Field(None, min_length=1, description="instead of those above")

    @model_validator(mode="after")
    def _says_which(self) -> Where:
        if self.languages is None and self.repos is None:
            raise ValueError("say which files by languages, repos or both")
        return self


class PiiOptions(ProfileOptions):
    """The recipe's table [pii]."""

    files: ClassVar[tuple[str, ...]] = (*ProfileOptions.files, "rules")

    mode: Mode = Field(
        "placeholder",
        description="<EMAIL> and <KEY>, or made-up values in their places; IP addresses always get private ones",
    )
    profiles: tuple[Profile, ...] = Field(("rules",), min_length=1, description="what looks for it, together")
    entities: tuple[Entity, ...] = Field(DEFAULT, min_length=1, description="what is looked for")
    rules: str | None = Field(
        None,
        min_length=1,
        description="a .toml file of rules for keys, in stackbuild's format or in gitleaks', beside those of the profile rules",
    )
    scorer: float = Field(
        0.7,
        gt=0,
        le=1,
        description="score from which a value that is given to a name like `db_password` is a secret; with 1 only formats count",
    )
    headers: Headers = Field(
        "keep_names",
        description="what stays of licence headers and copyright notices: names, e-mail addresses too, or nothing that is found",
    )
    where: tuple[Where, ...] = Field((), description="for some files something else; the first that fits a file counts")

    def columns(self) -> tuple[str, ...]:
        """The columns of files by which `where` tells them apart."""
        languages = any(one.languages is not None for one in self.where)
        return (
            *(("language",) if languages else ()),
            *(("repo_name",) if any(one.repos for one in self.where) else ()),
        )
