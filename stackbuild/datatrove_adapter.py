"""A stock datatrove filter as a stage: `stages = [..., "datatrove:C4ParagraphFilter"]`.

Rows become datatrove `Document`s and the filter's answer a verdict, its reason the rule; what it drops is in `decisions` as
with any stage. Only blocks of the list below may be named, and only with plain values as arguments: a recipe is data from
a stranger. A filter looks at one document after the other, so this is slow; it is for trying a rule, not for 10 TB.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, JsonValue

from stackbuild.errors import MissingDependency, RecipeError
from stackbuild.schema import IDENTITY
from stackbuild.stage import Options, Stage, Verdict

# Pure functions of the document's text: no file, no model, no random draw, no caller's code.
ALLOWED = {
    "C4ParagraphFilter": "datatrove.pipeline.filters",
    "C4QualityFilter": "datatrove.pipeline.filters",
    "FineWebQualityFilter": "datatrove.pipeline.filters",
    "GopherQualityFilter": "datatrove.pipeline.filters",
    "GopherRepetitionFilter": "datatrove.pipeline.filters",
}
FORBIDDEN_ARGUMENTS = {"exclusion_writer"}


class DatatroveOptions(Options):
    """Arguments of a stock datatrove filter."""

    arguments: dict[str, JsonValue] = Field(
        default_factory=dict, description="keyword arguments of the block, plain values"
    )


class DatatroveFilter(Stage[DatatroveOptions]):
    """The adapter; `block` is set by `adapted`."""

    name = "datatrove"
    reads = ("text",)
    engines = ("datatrove",)
    options_model = DatatroveOptions
    block: ClassVar[str] = ""

    def __init__(self, options: DatatroveOptions | None = None):
        super().__init__(options)
        self._filter: Any = None

    def key(self) -> Mapping[str, Any]:
        return {"block": self.block}

    def verdicts(self, files: pa.RecordBatch) -> Iterable[Verdict]:
        """One verdict for each reason that the filter gave for this batch, sorted by name."""
        from datatrove.data import Document

        if self._filter is None:
            self._filter = opened(self.block, dict(self.options.arguments))
        columns = [name for name in ("language", *IDENTITY) if name in files.schema.names]
        metadata = files.select(columns).to_pylist()
        reasons: list[str | None] = []
        for text, row in zip(files["text"].to_pylist(), metadata, strict=True):
            answer = ask(self._filter, Document(text=text, id=str(row["path"]), metadata=row), self.block)
            kept, reason = answer if isinstance(answer, tuple) else (answer, None)
            reasons.append(None if kept else f"{self.block}:{reason or 'dropped'}")
        for rule in sorted({reason for reason in reasons if reason}):
            yield Verdict(rule, pa.array([reason != rule for reason in reasons], pa.bool_()))


def ask(block: Any, document: Any, name: str) -> Any:
    """The filter's answer; a tokenizer that datatrove does not bring is a missing dependency, not a bad row."""
    try:
        return block.filter(document)
    except ImportError as error:
        raise MissingDependency(f"datatrove's {name} needs a package that is not installed: {error}") from error


def opened(block: str, arguments: dict[str, Any]) -> Any:
    """The block with its arguments; RecipeError if it does not take them."""
    if refused := FORBIDDEN_ARGUMENTS & set(arguments):
        raise RecipeError(f"datatrove:{block}: the argument {sorted(refused)[0]!r} cannot be given in a recipe.")
    try:
        return getattr(importlib.import_module(ALLOWED[block]), block)(**arguments)
    except TypeError as error:
        raise RecipeError(f"datatrove:{block} does not take these arguments: {error}") from error
    except ImportError as error:
        raise MissingDependency(f"datatrove's {block} needs a package that is not installed: {error}") from error


@cache
def adapted(block: str) -> type[DatatroveFilter]:
    """The stage class around a block; RecipeError if the block is not on the list."""
    if block not in ALLOWED:
        raise RecipeError(
            f"datatrove:{block} is not among the datatrove blocks that a recipe may name: {', '.join(sorted(ALLOWED))}."
        )
    return type(
        f"Datatrove{block}", (DatatroveFilter,), {"block": block, "name": f"datatrove:{block}", "__module__": __name__}
    )
