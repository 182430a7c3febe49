"""Options of near-duplicate removal, checked before a row is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from stackbuild.dedup.bands import nearest_permutations, optimal_bands
from stackbuild.errors import RecipeError
from stackbuild.stage import Options

LICENSE_RANK = ("permissive", "no_license", "unknown", "weak_copyleft", "non_permissive")
SURVIVOR_COLUMNS = {  # what a survivor may be chosen by, and the column that it is read from
    "license_rank": "license_class",
    "star_events_count": "star_events_count",
    "fork_events_count": "fork_events_count",
    "revision_date": "revision_date",
    "visit_date": "visit_date",
}


Bands = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Shingling:
    """How a text becomes a set."""

    ngram: int = 5
    header_blind: bool = True


class NearDedupOptions(Options):
    """The recipe's [near_dedup]."""

    shingles: Literal["words"] = Field("words", description="clean word n-grams in lower case")
    ngram: int = Field(5, ge=1, le=64, description="words in a shingle; a file of fewer words is left alone")
    permutations: int = Field(252, ge=1, le=4096, description="slots of a MinHash signature")
    bands: Bands | Literal["search"] | None = Field(
        42, description="LSH bands of permutations / bands rows each; search (or null): found from the threshold"
    )
    threshold: float = Field(0.7, gt=0, le=1, description="Jaccard similarity from which two files are near-duplicates")
    verify: bool = Field(
        True, description="remove on exact Jaccard alone; false: whole components of the LSH graph collapse"
    )
    scope: Literal["language", "global"] = Field("language", description="files are compared within a language, or all")
    survivor: tuple[str, ...] = Field(
        ("license_rank", "-star_events_count", "-fork_events_count", "-revision_date"),
        description="who stays, best first; '-' for descending; nulls last; then the smaller content_id",
    )
    header_blind: bool = Field(
        True, description="leave leading licence comments out of the shingles (never of the text)"
    )
    compare_headers: bool = Field(
        False, description="also count who would leave if licence headers counted; takes a quarter more time"
    )
    mode: Literal["minhash", "exact"] = Field(
        "minhash", description="how candidates are found: MinHash bands, or a join that finds every pair, for some tens of GB"
    )
    memory: int = Field(
        32 << 20, ge=1 << 12, description="bytes of the largest table that a task holds; changes no result"
    )

    @field_validator("survivor")
    @classmethod
    def _known_columns(cls, survivor: tuple[str, ...]) -> tuple[str, ...]:
        names = [name.removeprefix("-") for name in survivor]
        for name in names:
            if name not in SURVIVOR_COLUMNS:
                raise RecipeError(
                    f"near_dedup.survivor: {name!r} is not one of {', '.join(SURVIVOR_COLUMNS)} (each may take a '-')."
                )
        if len(set(names)) < len(names):
            raise RecipeError(f"near_dedup.survivor names a column twice: {', '.join(survivor)}.")
        return survivor

    @model_validator(mode="after")
    def _whole_bands(self) -> Self:
        if isinstance(self.bands, int) and self.permutations % self.bands:
            near = nearest_permutations(self.permutations, self.bands)
            raise RecipeError(
                f"near_dedup: {self.permutations} permutations do not divide into {self.bands} bands. "
                f"Write permutations = {near} ({self.bands} bands of {near // self.bands} rows), "
                'or bands = "search" to have them found.'
            )
        return self

    @property
    def shingling(self) -> Shingling:
        return Shingling(self.ngram, self.header_blind)

    @property
    def exact(self) -> bool:
        """Whether candidates are found by the join that misses none."""
        return self.mode == "exact"

    @property
    def compares_headers(self) -> bool:
        """Whether files are also compared with their licence headers, for the report."""
        return self.header_blind and self.compare_headers

    @property
    def seeing(self) -> Shingling:
        """The shingling with licence headers in."""
        return replace(self.shingling, header_blind=False)

    @property
    def layout(self) -> tuple[int, int]:
        """(bands, rows per band); with bands = search the published search, which may leave the last permutations
        unused.
        """
        if not isinstance(self.bands, int):
            return optimal_bands(self.threshold, self.permutations)
        return self.bands, self.permutations // self.bands

    @property
    def survivor_columns(self) -> tuple[str, ...]:
        """The columns that `survivor` is read from."""
        return tuple(SURVIVOR_COLUMNS[name.removeprefix("-")] for name in self.survivor)
