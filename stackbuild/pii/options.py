"""What the recipe's table [pii] may say."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from stackbuild.pii.profile_options import ProfileOptions
from stackbuild.pii.replacements import Mode

Entity = Literal["EMAIL", "IP_ADDRESS", "KEY"]
Profile = Literal["rules", "compat", "ner", "presidio"]
ENTITIES: tuple[Entity, ...] = get_args(Entity)


class PiiOptions(ProfileOptions):
    """The recipe's table [pii]."""

    mode: Mode = Field(
        "placeholder",
        description="<EMAIL> and <KEY>, or made-up values in their places; IP addresses always get private ones",
    )
    profiles: tuple[Profile, ...] = Field(("rules",), min_length=1, description="what looks for it, together")
    entities: tuple[Entity, ...] = Field(ENTITIES, min_length=1, description="what is looked for")
