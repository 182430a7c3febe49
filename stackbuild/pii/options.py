"""What the recipe's table [pii] may say."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from pydantic import Field

from stackbuild.pii.replacements import Mode
from stackbuild.stage import Options

Entity = Literal["EMAIL", "IP_ADDRESS", "KEY"]
Profile = Literal["rules"]
ENTITIES: tuple[Entity, ...] = get_args(Entity)


class PiiOptions(Options):
    """The recipe's table [pii]."""

    files: ClassVar[tuple[str, ...]] = ("rules",)

    mode: Mode = Field(
        "placeholder",
        description="<EMAIL> and <KEY>, or made-up values in their places; IP addresses always get private ones",
    )
    profiles: tuple[Profile, ...] = Field(("rules",), min_length=1, description="what looks for it, together")
    entities: tuple[Entity, ...] = Field(ENTITIES, min_length=1, description="what is looked for")
    rules: str | None = Field(
        None,
        min_length=1,
        description="a .toml file of rules for keys, in stackbuild's format or in gitleaks', beside those of the profile rules",
    )
