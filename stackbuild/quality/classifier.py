"""The stage `classifier`: score each file with a fastText model, and leave out what is below a threshold.

DeepSeek-Coder-V2 and OpenCoder choose text so; the model is the user's, trained with `stackbuild classifier train` or
elsewhere. The library is called once for each file, as it has no call over a buffer; what costs, cutting text into words,
is one compiled pass over a batch (`tokens`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from stackbuild.errors import InputError, RecipeError
from stackbuild.quality.cards import read_card
from stackbuild.quality.fasttext_file import ENGINE, ModelFile, joined, read_model
from stackbuild.quality.tokens import HEAD_BYTES, VERSION, Tokens, lines
from stackbuild.schema import CLASSIFIER_SCORE
from stackbuild.stage import Options, Stage, Verdict


class ModelOptions(Options):
    """A model, by the path of its file."""

    files: ClassVar[tuple[str, ...]] = ("model",)
    model: str | None = Field(None, min_length=1, description="path of a fastText classifier; must be given")
    sha256: str | None = Field(None, description="SHA-256 that the model's file must have")

    @field_validator("sha256")
    @classmethod
    def _digest(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 64 or set(value.lower()) - set("0123456789abcdef")):
            raise ValueError("write 64 hexadecimal digits")
        return value.lower() if value is not None else None

    def read(self, stage: str) -> ModelFile:
        """The model, checked; RecipeError if it cannot be used."""
        if self.model is None:
            raise RecipeError(f"{stage}.model: name the file of a fastText classifier; none comes with stackbuild.")
        try:
            found = read_model(self.model)
        except InputError as error:
            raise RecipeError(f"{stage}.model: {error}") from error
        if self.sha256 not in (None, found.digest):
            raise RecipeError(f"{stage}.sha256: {self.model} has {found.digest}, not {self.sha256}.")
        return found


class ClassifierOptions(ModelOptions):
    """The recipe's table [classifier]."""

    label: str = Field("positive", min_length=1, description="the label whose score is taken, without __label__")
    threshold: float | None = Field(
        None, gt=0, le=1, description="a file whose score is below it leaves; without one, files are only tagged"
    )
    languages: tuple[str, ...] | None = Field(None, min_length=1, description="only files of these are scored")
    head_bytes: int = Field(HEAD_BYTES, gt=0, le=1 << 30, description="bytes of the text that are looked at")
    tokens: Tokens = Field(
        "code", description="how text is cut into words: as `classifier train` does, or plain, at white space"
    )


class Classifier(Stage[ClassifierOptions]):
    """Adds the score of one label; drops files below the threshold.

    The column is `classifier_score` for the instance `classifier`, `classifier_score_edu` for `classifier:edu` (float32;
    null for a file of another language and for one without a word, which stays).
    """

    name = "classifier"
    reads = ("text",)
    engines = (ENGINE,)
    options_model = ClassifierOptions
    adds = (pa.field(CLASSIFIER_SCORE, pa.float32()),)

    def __init__(self, options: ClassifierOptions | None = None):
        super().__init__(options)
        self.instance = self.name

    def placed(self, instance: str, before: Sequence[Stage[Any]], behind: Sequence[Stage[Any]]) -> None:
        """The name of its column is made of its own."""
        self.instance = instance
        _, _, label = instance.partition(":")
        self.adds = (pa.field(f"{CLASSIFIER_SCORE}_{label}" if label else CLASSIFIER_SCORE, pa.float32()),)  # type: ignore[misc]

    @cached_property
    def file(self) -> ModelFile:
        """The model's file, checked once; RecipeError if it cannot be used with these options."""
        options = self.options
        found = options.read(self.instance)
        if options.label not in found.labels:
            raise RecipeError(
                f"{self.instance}.label: {found.path} has no label {options.label!r}; it has {joined(found.labels)}."
            )
        card = read_card(found.path)
        if card is not None and card.model_sha256 == found.digest and card.tokens != options.tokens:
            raise RecipeError(
                f"{self.instance}.tokens: {found.path} was trained with {card.tokens!r}, not {options.tokens!r}."
            )
        return found

    def needs(self) -> tuple[str, ...]:
        """The language only if it counts. A model that cannot be used is refused here, before the run."""
        _ = self.file
        return ("text",) if self.options.languages is None else ("text", "language")

    def key(self) -> Mapping[str, Any]:
        """The model's bytes, the rules by which text is cut, and the column's name."""
        version = VERSION[self.options.tokens]
        return {"model": self.file.digest, "tokens": version, "column": self.adds[0].name}

    def warm(self) -> None:
        """Load the model once for all tasks of a server, and the compiled pass."""
        _ = self.file.model
        list(lines(pa.array(["x"], pa.large_string()), self.options.tokens))

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """The column of scores."""
        options, model = self.options, self.file.model
        rows = np.arange(files.num_rows)
        text = files["text"].cast(pa.large_string())
        if options.languages is not None:
            rows = np.flatnonzero(np.asarray(pc.is_in(files["language"], pa.array(options.languages, pa.string()))))
            text = text.take(pa.array(rows))
        scores = np.full(files.num_rows, np.nan, np.float32)
        for row, line in zip(rows.tolist(), lines(text, options.tokens, options.head_bytes), strict=True):
            if line:
                scores[row] = model.scores(line).get(options.label, 0.0)
        return {self.adds[0].name: pa.array(scores, mask=np.isnan(scores))}

    def verdicts(self, files: pa.RecordBatch) -> Iterator[Verdict]:
        """One rule, if there is a threshold: the score against it."""
        threshold = self.options.threshold
        if threshold is not None:
            score = files[self.adds[0].name]
            # Both as float32, or 0.9 would be below 0.9.
            keep = pc.greater_equal(score, pa.scalar(threshold, pa.float32()))
            yield Verdict(f"{self.options.label}-score", keep, score, threshold)
