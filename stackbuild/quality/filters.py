"""Leave out what the quality rules drop: rules are data (`stackbuild.quality.rules`), this applies them.

The default table is The Stack v2's (Lozhkov et al. 2024, section 2.1; pipelines/rules/the-stack-v2.toml). Each rule is
one verdict, in the table's order, with the measured value and the threshold; a file leaves by the first that drops it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.hashing import draw, id_bytes
from stackbuild.quality.measures import COMPARISONS, MEASURES
from stackbuild.quality.rules import KeepNames, Rule, RuleTable, read
from stackbuild.stage import Options, Stage, Verdict, with_columns

EXTENSION = "extension of a rule"  # a column that only the rules of one table see


class FilterOptions(Options):
    """The recipe's table [filters]."""

    files: ClassVar[tuple[str, ...]] = ("rules",)
    rules: str = Field(
        "the-stack-v2", min_length=1, description="a table that comes with stackbuild, or the path of a .toml file"
    )


def with_extensions(table: RuleTable, files: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the column that rules on extensions read, if the table has such rules."""
    if not any(rule.on_extension for rule in table.rule):
        return files
    found = pc.struct_field(pc.extract_regex(files["path"], r"(?s)\.(?P<extension>[^./]*)$"), "extension")
    found = pc.fill_null(found, "")
    return with_columns(files, {EXTENSION: pc.utf8_lower(found) if table.extension_case == "ignore" else found})


def one_of(names: Sequence[str], values: pa.Array) -> pa.Array:
    """Whether each value is one of the names, or begins as one with "*" at its end does: boolean; a null is none."""
    found = pc.is_in(values, pa.array([name for name in names if not name.endswith("*")], pa.string()))
    for name in names:
        if name.endswith("*"):
            found = pc.or_(found, pc.fill_null(pc.starts_with(values, name[:-1]), False))
    return found


def applies(rule: Rule, files: pa.RecordBatch) -> pa.Array | None:
    """Which files the rule is about: boolean of length n, None for all."""
    about = None
    for column, only, but in (
        ("language", rule.languages, rule.except_languages),
        (EXTENSION, rule.extensions, rule.except_extensions),
    ):
        if only is None and not but:
            continue
        these = one_of(only, files[column]) if only is not None else pc.invert(one_of(but or (), files[column]))
        about = these if about is None else pc.and_(about, these)
    return about


def drawn(rule: str, content_ids: pa.Array) -> pa.Array:
    """A number in [0, 1) for each content, float64: the same in any order and build, and another for another rule."""
    x = np.ascontiguousarray(id_bytes(content_ids)[:, 8:16]).view(">u8").ravel().astype(np.uint64)
    x ^= np.uint64(draw(0, rule))
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):  # the mixing of MurmurHash3
        x ^= x >> np.uint64(33)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(33)
    return pa.array((x >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def pairs(extensions: Mapping[str, Sequence[str]], files: pa.RecordBatch) -> pa.Array:
    """Whether language and extension of each file are one of these pairs: boolean of length n."""
    found = pa.array(np.zeros(files.num_rows, np.bool_))
    for language, names in extensions.items():
        of_it = pc.fill_null(pc.equal(files["language"], language), False)
        found = pc.or_(found, pc.and_(of_it, one_of(names, files[EXTENSION])))
    return found


def name_stays(path: pa.Array, names: KeepNames) -> pa.Array:
    """Whether the last part of each path is one of the names: boolean of length n."""
    name = pc.utf8_lower(pc.replace_substring_regex(path, r"(?s)^.*/", ""))
    stays = pc.is_in(pc.replace_substring_regex(name, r"(?s)^(.+)\.[^.]*$", r"\1"), pa.array(names.stems, pa.string()))
    stays = pc.or_(stays, pc.is_in(name, pa.array(names.names, pa.string())))
    for word in names.containing:
        stays = pc.or_(stays, pc.match_substring(name, word))
    return stays


def verdict(rule: Rule, files: pa.RecordBatch) -> Verdict:
    """One rule's answer for a batch that `with_extensions` prepared."""
    about = applies(rule, files)
    value = detail = None
    threshold = None
    if rule.drop is not None:
        measure = MEASURES[rule.drop.measure]
        value, threshold = measure.of(files), rule.drop.threshold
        drops = pc.fill_null(COMPARISONS[rule.drop.comparison](value, threshold), False)
        detail = files[measure.words] if measure.words else None
    elif rule.keep_fraction is not None:
        value, threshold = drawn(rule.id, files["content_id"]), rule.keep_fraction
        drops = pc.greater_equal(value, threshold)
    elif rule.keep_names is not None:
        drops = pc.invert(name_stays(files["path"], rule.keep_names))
    elif rule.drop_languages is not None or rule.keep_languages is not None:
        detail = files["language"]
        drops = one_of(rule.drop_languages or rule.keep_languages or (), detail)
    else:
        detail = files[EXTENSION]
        if isinstance(rule.drop_extensions, dict):
            drops = pairs(rule.drop_extensions, files)
        else:
            drops = one_of(rule.drop_extensions or rule.keep_extensions or (), detail)
    if rule.keep_languages is not None or rule.keep_extensions is not None:
        drops = pc.invert(drops)
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
        files = with_extensions(self.table, files)
        for rule in self.table.rule:
            yield verdict(rule, files)
