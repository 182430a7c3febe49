"""The stage `natural_language`: in which language the prose of a file is written, by a fastText model such as lid.176.ftz.

Only files of languages that are prose are asked about. What is no prose in them is taken out before: code between fences or
backquotes, tags, addresses, and everything but letters, marks and apostrophes. What has too few letters left has no language.

The model is not part of stackbuild: lid.176.ftz is under CC-BY-SA 3.0 (docs/classifier.md says where it is published).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.errors import RecipeError
from stackbuild.quality.classifier import ModelOptions
from stackbuild.quality.fasttext_file import ENGINE, ModelFile, joined
from stackbuild.quality.tokens import VERSION, lines
from stackbuild.schema import NATURAL_LANGUAGE_FIELDS
from stackbuild.stage import Stage, Verdict

# Linguist's languages of the type prose.
PROSE = (
    "AsciiDoc",
    "Creole",
    "Gemini",
    "Markdown",
    "Muse",
    "Org",
    "Pod",
    "Pod 6",
    "RDoc",
    "RMarkdown",
    "reStructuredText",
    "Sweave",
    "Texinfo",
    "Text",
    "Textile",
    "Vim Help File",
    "Wikitext",
)

# What is no prose, in this order; Arrow runs them with RE2, in linear time.
NO_PROSE = (
    r"(?ms)^[ \t]*(?:```|~~~).*?(?:^[ \t]*(?:```|~~~)[^\n]*$|\z)",  # between fences, or to the end
    r"`[^`\n]*`",
    r"(?s)<!--.*?(?:-->|\z)",
    r"<[^<>]*>",
    r"\b[a-z][a-z0-9+.-]*://[^\s)>\]]*",
    r"\]\([^()\s]*\)",  # where a link of Markdown leads
    r"[^\p{L}\p{M}'’]+",
)

PROSE_BYTES = 4_096  # of what is left that are shown to the model: of half as much it is right (docs/classifier.md)


class NaturalLanguageOptions(ModelOptions):
    """The recipe's table [natural_language]."""

    languages: tuple[str, ...] = Field(PROSE, min_length=1, description="files of these are asked about")
    keep: tuple[str, ...] | None = Field(
        None, min_length=1, description="natural languages that stay, as the model names them; without it, all"
    )
    unknown: Literal["keep", "drop"] = Field("keep", description="with `keep`: prose whose language is not clear")
    min_score: float = Field(0.5, ge=0, le=1, description="below it a language is not clear")
    min_letters: int = Field(40, ge=1, description="of the prose; with fewer its language is not clear")
    head_chars: int = Field(16_384, gt=0, le=1 << 24, description="characters of the file that are looked at")


def prose(text: pa.LargeStringArray, head_chars: int) -> pa.LargeStringArray:
    """What of n texts is prose: words apart by one blank; null for a null."""
    found = pc.utf8_slice_codeunits(text, 0, head_chars)
    for pattern in NO_PROSE:
        found = pc.replace_substring_regex(found, pattern, " ")
    return pc.utf8_trim(found, " ")


class NaturalLanguage(Stage[NaturalLanguageOptions]):
    """Adds the natural language of prose and its score; drops, if asked to, what is of no language that stays.

    Both are null for what is not prose, and for prose whose language is not clear.
    """

    name = "natural_language"
    reads = ("text", "language")
    engines = (ENGINE,)
    options_model = NaturalLanguageOptions
    adds = tuple(NATURAL_LANGUAGE_FIELDS)

    @cached_property
    def file(self) -> ModelFile:
        """The model's file, checked once; RecipeError if it cannot be used with these options."""
        found = self.options.read(self.name)
        strange = [one for one in self.options.keep or () if one not in found.labels]
        if strange:
            raise RecipeError(
                f"{self.name}.keep: {found.path} knows no {joined(strange)}; it knows {joined(found.labels)}."
            )
        return found

    def needs(self) -> tuple[str, ...]:
        """Its columns. A model that cannot be used is refused here, before the run."""
        _ = self.file
        return self.reads

    def key(self) -> Mapping[str, Any]:
        """The model's bytes, and the rules by which text is cut."""
        return {"model": self.file.digest, "tokens": VERSION["plain"]}

    def warm(self) -> None:
        """Load the model once for all tasks of a server, and the compiled pass."""
        _ = self.file.model
        list(lines(pa.array(["x"], pa.large_string()), "plain"))

    def about(self, files: pa.RecordBatch) -> pa.Array:
        """Which files are prose."""
        return pc.is_in(files["language"], pa.array(self.options.languages, pa.string()))

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """The two columns. The library is called once for each file of prose: it has no call over a buffer."""
        options, best = self.options, self.file.model.best
        rows = pc.indices_nonzero(self.about(files))
        found = prose(files["text"].cast(pa.large_string()).take(rows), options.head_chars)
        enough = np.asarray(pc.fill_null(pc.utf8_length(found), 0)) >= options.min_letters
        names: list[str | None] = [None] * files.num_rows
        scores = np.full(files.num_rows, np.nan, np.float32)
        for row, long, line in zip(rows.to_pylist(), enough, lines(found, "plain", PROSE_BYTES), strict=True):
            said = best(line) if long else None
            if said is not None and said[1] >= options.min_score:
                names[row], scores[row] = said
        values = (pa.array(names, pa.string()), pa.array(scores, mask=np.isnan(scores)))
        return {field.name: value for field, value in zip(self.adds, values, strict=True)}

    def verdicts(self, files: pa.RecordBatch) -> Iterator[Verdict]:
        """One rule, if there is a list of what stays: the language, with its score as the value."""
        if self.options.keep is None:
            return
        language = files["natural_language"]
        stays = pc.is_in(language, pa.array(self.options.keep, pa.string()))
        if self.options.unknown == "keep":
            stays = pc.or_(stays, pc.is_null(language))
        keep = pc.or_(stays, pc.invert(self.about(files)))
        yield Verdict(
            "natural-language", keep, files["natural_language_score"], detail=pc.fill_null(language, "not clear")
        )
