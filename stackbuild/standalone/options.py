"""Options of near-duplicate removal on a table of one's own."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from stackbuild.dedup.options import SURVIVOR_COLUMNS, NearDedupOptions
from stackbuild.errors import UsageError


class DedupOptions(NearDedupOptions):
    """NearDedupOptions with columns of any name. `survivor`: columns of the table, numbers or dates, best first."""

    survivor: tuple[str, ...] = ()
    text_column: str = "text"
    id_column: str | None = "id"
    scope_column: str | None = None
    source_column: str | None = Field(None, description="what a share of losses is told of: a repository, a site")
    compare_headers: bool = False

    @field_validator("survivor")
    @classmethod
    def _known_columns(cls, survivor: tuple[str, ...]) -> tuple[str, ...]:
        names = [name.removeprefix("-") for name in survivor]
        if len(set(names)) < len(names) or not all(names):
            raise UsageError(f"--survivor names a column twice, or none: {', '.join(survivor)}.")
        return survivor

    def model_post_init(self, context: Any, /) -> None:
        if self.scope_column is None and self.scope != "global":
            object.__setattr__(self, "scope", "global")

    @property
    def survivor_columns(self) -> tuple[str, ...]:
        """The columns that `survivor` is read from."""
        return tuple(SURVIVOR_COLUMNS.get(name.removeprefix("-"), name.removeprefix("-")) for name in self.survivor)

    @property
    def rank_names(self) -> tuple[str, ...]:
        """`survivor` without its directions."""
        return tuple(name.removeprefix("-") for name in self.survivor)
