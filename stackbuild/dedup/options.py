"""Options of near-duplicate removal, checked before a row is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

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

# The versions of the rules that make shingles, part of the stage's key: a change of what a rule makes of any text is a
# new version.
SHINGLE_VERSIONS = {"words": 1, "the-stack-v1": 1, "santacoder": 1, "the-stack-v2": 1}

Shingles = Literal["words", "the-stack-v1", "santacoder", "the-stack-v2"]
Bands = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Shingling:
    """How a text becomes a set: by a kind of SHINGLE_VERSIONS, in n-grams, without its licence headers or with them. A text
    of fewer than `minimum` tokens, repeats counted, or of fewer than n has no shingles.
    """

    ngram: int = 5
    header_blind: bool = True
    kind: Shingles = "words"
    minimum: int = 1


# Each kind as it was published; n, and whether headers count, are a recipe's to change.
KINDS: dict[str, Shingling] = {
    "words": Shingling(),
    "the-stack-v1": Shingling(1, False, "the-stack-v1", 10),
    "santacoder": Shingling(5, False, "santacoder", 5),
    "the-stack-v2": Shingling(5, False, "the-stack-v2", 5),
}


class NearDedupOptions(Options):
    """The recipe's [near_dedup]."""

    shingles: Shingles = Field(
        "words", description="clean word n-grams in lower case, or the rule of a published dataset (docs/near-dedup.md)"
    )
    ngram: int | None = Field(
        None,
        ge=1,
        le=64,
        description="tokens in a shingle; a file of fewer is left alone; null: 5, or 1 for the-stack-v1",
    )
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
    header_blind: bool | None = Field(
        None,
        description="leave leading licence comments out of the shingles (never of the text); "
        "null: true for words, false for the published rules",
    )
    compare_headers: bool = Field(
        True, description="also count who would leave if licence headers counted, for the report"
    )
    mode: Literal["minhash", "exact"] = Field(
        "minhash",
        description="how candidates are found: MinHash bands, or a join that finds every pair, for some tens of GB",
    )
    alarm_share: float = Field(
        0.9, gt=0, le=1, description="the report names a repository or language that loses this share of its files here"
    )
    alarm_files: int = Field(50, ge=1, description="if it has so many")
    memory: int = Field(
        24 << 20, ge=1 << 12, description="bytes of the largest table that a task holds; changes no result"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_its_kind(cls, given: Any) -> Any:
        """What is left out becomes the kind's own, so that two recipes that say the same are the same."""
        kind = given.get("shingles", "words") if isinstance(given, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            return given
        defaults = {"ngram": KINDS[kind].ngram, "header_blind": KINDS[kind].header_blind}
        return given | {name: value for name, value in defaults.items() if given.get(name) is None}

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

    @model_validator(mode="after")
    def _single_tokens(self) -> Self:
        if self.shingles == "the-stack-v1" and self.ngram not in (None, 1):
            raise RecipeError(
                f"near_dedup: the shingles of the-stack-v1 are single tokens, ngram = {self.ngram} is not. Leave ngram out, "
                'or choose shingles = "words" or "santacoder".'
            )
        return self

    @property
    def shingling(self) -> Shingling:
        own = KINDS[self.shingles]
        return replace(own, ngram=self.ngram or own.ngram, header_blind=bool(self.header_blind))

    @property
    def exact(self) -> bool:
        """Whether candidates are found by the join that misses none."""
        return self.mode == "exact"

    @property
    def compares_headers(self) -> bool:
        """Whether files are also compared with their licence headers, for the report."""
        return bool(self.header_blind) and self.compare_headers

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
