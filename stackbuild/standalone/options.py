"""Options of near-duplicate removal on a table of one's own."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from stackbuild.dedup.options import NearDedupOptions
from stackbuild.errors import UsageError


class DedupOptions(NearDedupOptions):
    """NearDedupOptions with columns of any name.

    `survivor` is given as columns of the table, numbers or dates, best first, '-' for descending. They are kept as
    `prefer`; inside they have names of their own (`rank_0` …), so that they meet no other column's.
    """

    prefer: tuple[str, ...] = ()
    survivor: tuple[str, ...] = ()
    text_column: str = "text"
    id_column: str | None = "id"
    scope_column: str | None = None
    source_column: str | None = Field(None, description="what a share of losses is told of: a repository, a site")
    compare_headers: bool = False

    @model_validator(mode="before")
    @classmethod
    def _own_names(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("prefer"):
            return given
        prefer = tuple(given.get("survivor", ()))
        names = [name.removeprefix("-") for name in prefer]
        if len(set(names)) < len(names) or not all(names):
            raise UsageError(f"--survivor names a column twice, or none: {', '.join(prefer)}.")
        ranks = tuple(f"{'-' if name.startswith('-') else ''}rank_{place}" for place, name in enumerate(prefer))
        scope = "language" if given.get("scope_column") else "global"
        return given | {"prefer": prefer, "survivor": ranks, "scope": scope}

    @classmethod
    def _known_columns(cls, survivor: tuple[str, ...]) -> tuple[str, ...]:
        return survivor

    @property
    def preferred_columns(self) -> tuple[str, ...]:
        """The columns of the table that survivors are chosen by."""
        return tuple(name.removeprefix("-") for name in self.prefer)

    @property
    def survivor_columns(self) -> tuple[str, ...]:
        """Their names inside."""
        return self.rank_names

    @property
    def rank_names(self) -> tuple[str, ...]:
        """`survivor` without its directions."""
        return tuple(name.removeprefix("-") for name in self.survivor)
