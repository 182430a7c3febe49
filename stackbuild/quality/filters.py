"""Leave out what the quality rules drop: rules are data (`stackbuild.quality.rules`), this applies them.

The default table is The Stack v2's (Lozhkov et al. 2024, section 2.1; pipelines/rules/the-stack-v2.toml). Each rule is
one verdict, in the table's order, with the measured value and the threshold; a file leaves by the first that drops it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.quality.rules import COMPARISONS, MEASURES, KeepNames, Rule, RuleTable, read
from stackbuild.stage import Options, Stage, Verdict


class FilterOptions(Options):
    """The recipe's table [filters]."""

    files: ClassVar[tuple[str, ...]] = ("rules",)
    rules: str = Field(
        "the-stack-v2", min_length=1, description="a table that comes with stackbuild, or the path of a .toml file"
    )


def applies(rule: Rule, files: pa.RecordBatch) -> pa.Array | None:
    """Which files the rule is about: boolean of length n, None for all."""
    if rule.languages is not None:
        return pc.is_in(files["language"], pa.array(rule.languages, pa.string()))
    if rule.except_languages:
        return pc.invert(pc.is_in(files["language"], pa.array(rule.except_languages, pa.string())))
    return None


def name_stays(path: pa.Array, names: KeepNames) -> pa.Array:
    """Whether the last part of each path is one of the names: boolean of length n."""
    name = pc.utf8_lower(pc.replace_substring_regex(path, r"(?s)^.*/", ""))
    stays = pc.is_in(pc.replace_substring_regex(name, r"(?s)^(.+)\.[^.]*$", r"\1"), pa.array(names.stems, pa.string()))
    for word in names.containing:
        stays = pc.or_(stays, pc.match_substring(name, word))
    return stays


def verdict(rule: Rule, files: pa.RecordBatch) -> Verdict:
    """One rule's answer for a batch."""
    about = applies(rule, files)
    value = detail = None
    threshold = None
    if rule.drop is not None:
        measure = MEASURES[rule.drop.measure]
        value, threshold = measure.of(files), rule.drop.threshold
        drops = pc.fill_null(COMPARISONS[rule.drop.comparison](value, threshold), False)
        detail = files[measure.words] if measure.words else None
    else:
        assert rule.keep_names is not None  # a rule has one of the two, checked when it was read
        drops = pc.invert(name_stays(files["path"], rule.keep_names))
    return Verdict(rule.id, pc.invert(drops if about is None else pc.and_(about, drops)), value, threshold, detail)


class Filters(Stage[FilterOptions]):
    """Drops files by a table of rules."""

    name = "filters"
    options_model = FilterOptions

    @cached_property
    def table(self) -> RuleTable:
        """The rules, read once; RuleError if they cannot be."""
        return read(self.options.rules)

    def needs(self) -> tuple[str, ...]:
        """What the rules measure, so that one on a column that nobody makes is refused before the run."""
        return self.table.columns()

    def key(self) -> Mapping[str, Any]:
        """The rules' digest: they decide, not where they lie."""
        return {"rules": self.table.digest}

    def verdicts(self, files: pa.RecordBatch) -> Iterator[Verdict]:
        """One for each rule, in the table's order."""
        for rule in self.table.rule:
            yield verdict(rule, files)
