"""Measure comments, docstrings and what does not parse, of the languages in which a rule reads them.

SantaCoder kept files whose share of comments is above 0.01 and below 0.8 (Ben Allal et al. 2023, arXiv:2301.03988). Its
code took Python's comments by `tokenize` and docstrings by `ast`, without their marks and indentation; those of Java and
JavaScript by Pygments, with them. Here all come from one parser and count with their marks. What is under ERROR nodes is
counted, never whether there is one: of C and C++ headers most have one, since macros are no grammar's.

Parsing is some forty times as dear as the other signals, so this stage stands behind the cheap filters and asks the
rules behind it which languages they are about. A file that was not measured is null: no grammar, no rule, too large, or
beyond the bounds of `stackbuild.syntax_trees`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, field_validator

from stackbuild.kernels import kernel
from stackbuild.quality import kernels
from stackbuild.quality.filters import Filters
from stackbuild.quality.grammars import grammar
from stackbuild.quality.parsing import parsed
from stackbuild.schema import SYNTAX_FIELDS
from stackbuild.stage import Options, Stage
from stackbuild.syntax_trees import GRAMMARS

COLUMNS = tuple(field.name for field in SYNTAX_FIELDS)
Ints = npt.NDArray[np.int64]


class SyntaxOptions(Options):
    """The recipe's table [syntax]."""

    languages: tuple[str, ...] | None = Field(
        None, description="languages to parse; not given: those of the rules behind it that read its columns"
    )
    max_bytes: int = Field(
        524_288, ge=0, le=16 << 20, description="larger files are not parsed; a hostile one takes 1 KB of memory a byte"
    )

    @field_validator("languages")
    @classmethod
    def _known(cls, languages: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for language in languages or ():
            if language not in GRAMMARS:
                raise ValueError(f"there is no grammar for {language!r}; there are {', '.join(sorted(GRAMMARS))}")
        return languages


def languages_read(stages: Iterable[Stage[Any]]) -> frozenset[str]:
    """The languages with a grammar of which these stages read a column of this one: filters say so by rule."""
    read: set[str] = set()
    for stage in stages:
        if set(COLUMNS).isdisjoint(stage.needs()):
            continue
        if not isinstance(stage, Filters):
            return frozenset(GRAMMARS)
        for rule in stage.table.rule:
            if not set(COLUMNS).isdisjoint(rule.columns()):
                about = GRAMMARS if rule.languages is None else rule.languages
                read.update(set(about).difference(rule.except_languages or ()))
    return frozenset(read & GRAMMARS.keys())


@kernel
def _characters(data: Any, starts: Any, ends: Any, rows: Any, count: Any) -> None:
    """Add to `count` of each row the characters of the union of its spans, which stand in the order of rows and starts."""
    row, reach = -1, 0
    for k in range(len(starts)):
        if rows[k] != row:
            row, reach = rows[k], 0
        for at in range(max(starts[k], reach), ends[k]):
            count[row] += (data[at] & 0xC0) != 0x80
        reach = max(reach, ends[k])


def characters(data: npt.NDArray[np.uint8], spans: Ints, rows: int) -> Ints:
    """Characters in the union of each row's spans: `spans` int64 (n, 3) of row, start, end in bytes; returns (rows,)."""
    count = np.zeros(rows, np.int64)
    _characters(data, spans[:, 1].copy(), spans[:, 2].copy(), spans[:, 0].copy(), count)
    return count


def measure(
    text: pa.LargeStringArray, languages: Iterable[str | None], wanted: frozenset[str], max_bytes: int
) -> dict[str, pa.Array]:
    """The columns of SYNTAX_FIELDS for n texts, int64: null for a text that is null, of another language than those
    `wanted`, larger than `max_bytes`, or not parsed.

    A loop over the rows, as the parser takes one text at a time.
    """
    data, offsets = kernels.buffers_of(text)
    valid = text.is_valid().to_numpy(zero_copy_only=False)
    view, rows = memoryview(data.data), len(text)
    measured = np.zeros(rows, np.bool_)
    asked = [
        (row, language)
        for row, language in enumerate(languages)
        if language is not None and language in wanted and valid[row] and offsets[row + 1] - offsets[row] <= max_bytes
    ]
    spans: tuple[list[Ints], ...] = ([], [], [])
    answers = parsed([(language, view[offsets[row] : offsets[row + 1]]) for row, language in asked])
    for (row, _), found in zip(asked, answers, strict=True):
        if found is None:
            continue
        measured[row] = True
        for held, told in zip(spans, (found.comments, found.docstrings, found.errors), strict=True):
            if told:
                here = np.array(told, np.int64) + offsets[row]
                held.append(np.column_stack([np.full(len(here), row, np.int64), here]))
    columns = {}
    for name, held in zip(COLUMNS, spans, strict=True):
        together = np.concatenate(held) if held else np.zeros((0, 3), np.int64)
        columns[name] = pa.array(characters(data, together, rows), mask=~measured)
    return columns


class Syntax(Stage[SyntaxOptions]):
    """Adds characters of comments, docstrings and errors; drops nothing."""

    name = "syntax"
    reads = ("text", "language")
    adds = tuple(SYNTAX_FIELDS)
    engines = ("google-re2", "tree-sitter", "tree-sitter-c-sharp", "tree-sitter-language-pack")
    options_model = SyntaxOptions

    def __init__(self, options: SyntaxOptions | None = None):
        super().__init__(options)
        self.behind: tuple[Stage[Any], ...] = ()

    def placed(self, instance: str, before: Sequence[Stage[Any]], behind: Sequence[Stage[Any]]) -> None:
        """Those behind it say which languages they ask about."""
        self.behind = tuple(behind)

    @cached_property
    def languages(self) -> frozenset[str]:
        """Those that are parsed: of the options, else what the stages behind it read."""
        if self.options.languages is not None:
            return frozenset(self.options.languages)
        return languages_read(self.behind)

    def key(self) -> Mapping[str, Any]:
        """The languages, however they are told; a threshold that changes does not measure again."""
        return {"languages": sorted(self.languages)}

    def warm(self) -> None:
        """Load grammars and kernel in the task server: they have no thread, so that its children and their forks share them."""
        for language in sorted(self.languages):
            grammar(language)
        data, _ = kernels.buffers_of(pa.array(["#"], pa.large_string()))
        characters(data, np.zeros((0, 3), np.int64), 1)

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Measure a batch."""
        text = files["text"].cast(pa.large_string())
        return measure(text, files["language"].to_pylist(), self.languages, self.options.max_bytes)
