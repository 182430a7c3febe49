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

from stackbuild.errors import UsageError
from stackbuild.hashing import draw, id_bytes
from stackbuild.quality.caps import ALL, SHARES, VOLUMES, Share, Volumes, shares_of
from stackbuild.quality.expressions import EXTENSION, Expression
from stackbuild.quality.measures import COMPARISONS, MEASURES
from stackbuild.quality.rules import Condition, KeepNames, Rule, RuleTable, read
from stackbuild.stage import Options, Phase, Stage, Verdict, with_columns
from stackbuild.task import Task


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


def groups_of(rule: Rule, files: pa.RecordBatch) -> pa.Array:
    """What a cap is counted by for each file: its language or extension, ALL if it is for all together."""
    if rule.each is None:
        return pa.repeat(ALL, files.num_rows)
    return pc.fill_null(pc.cast(files["language" if rule.each == "language" else EXTENSION], pa.string()), "")


def beyond(rule: Rule, shares: Mapping[str, Share], files: pa.RecordBatch) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Which files a cap leaves out (boolean), what each drew (float64), and in words how much stays (string)."""
    groups, value = groups_of(rule, files).dictionary_encode(), drawn(rule.id, files["content_id"])
    there = [(name, shares.get(name, Share(1.0, 0, 0))) for name in groups.dictionary.to_pylist()]
    share = pa.array([one.share for _, one in there], pa.float64()).take(groups.indices)
    told = [f"{one.kept_bytes} of {one.bytes} bytes{f' of {name}' if name else ''} stay" for name, one in there]
    return pc.greater_equal(value, share), value, pa.array(told, pa.string()).take(groups.indices)


def verdict(rule: Rule, files: pa.RecordBatch, shares: Mapping[str, Share] | None = None) -> Verdict:
    """One rule's answer for a batch that `with_extensions` prepared; `shares`: what stays by group, of a cap."""
    about = applies(rule, files)
    value = detail = None
    threshold = None
    if isinstance(rule.drop, Condition):
        measure = MEASURES[rule.drop.measure]
        value, threshold = measure.of(files), rule.drop.threshold
        drops = pc.fill_null(COMPARISONS[rule.drop.comparison](value, threshold), False)
        detail = files[measure.words] if measure.words else None
    elif isinstance(rule.drop, Expression):
        drops = rule.drop.holds(files)
        detail = rule.drop.told(files, drops if about is None else pc.and_(about, drops))
    elif rule.keep_fraction is not None:
        value, threshold = drawn(rule.id, files["content_id"]), rule.keep_fraction
        drops = pc.greater_equal(value, threshold)
    elif rule.keep_bytes is not None:
        drops, value, detail = beyond(rule, shares or {}, files)
        threshold = shares[ALL].share if shares and ALL in shares else None
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


def count(table: RuleTable, files: pa.RecordBatch, volumes: Volumes, stays: pa.Array | None = None) -> None:
    """Add what a batch has under each cap of a table: of the files of `stays` (boolean, n; None for all) those that the rules
    before it keep.
    """
    files = with_extensions(table, files)
    here = pa.array(np.ones(files.num_rows, np.bool_)) if stays is None else stays
    for rule in table.rule:
        if rule.keep_bytes is None:
            here = pc.and_(here, pc.fill_null(verdict(rule, files).keep, True))
            continue
        about = applies(rule, files)
        some = here if about is None else pc.and_(here, about)
        length, drew = files["length_bytes"].filter(some), drawn(rule.id, files["content_id"]).filter(some)
        volumes.add(rule.id, groups_of(rule, files).filter(some), drew, length)


class Filters(Stage[FilterOptions]):
    """Drops files by a table of rules. Caps have two phases that see all files first."""

    name = "filters"
    options_model = FilterOptions

    def __init__(self, options: FilterOptions | None = None):
        super().__init__(options)
        self._shares: dict[str, dict[str, Share]] | None = None

    @cached_property
    def table(self) -> RuleTable:
        """The rules, read once; RuleError if they cannot be."""
        return read(self.options.rules)

    @property
    def caps(self) -> bool:
        """Whether a rule is a cap."""
        return any(rule.keep_bytes is not None for rule in self.table.rule)

    def needs(self) -> tuple[str, ...]:
        """What the rules measure, so that one on a column that nobody makes is refused before the run."""
        return self.table.columns()

    def key(self) -> Mapping[str, Any]:
        """The rules' digest: they decide, not where they lie."""
        return {"rules": self.table.digest}

    def phases(self) -> Sequence[Phase]:
        if not self.caps:
            return ()
        return (
            Phase("volumes", self.volumes, columns=self.needs()),
            Phase("shares", self.shares, tasks="one", reads=("volumes",)),
        )

    def volumes(self, task: Task) -> None:
        """Bytes under each cap of one partition."""
        found = Volumes()
        for batch in task.batches(self.needs()):
            count(self.table, batch, found)
        with task.writer("volumes", VOLUMES) as out:
            for batch in found.batches():
                out.write(batch)

    def shares(self, task: Task) -> None:
        """What stays under each cap."""
        found = Volumes()
        found.take(task.read("volumes"))
        with task.writer("shares", SHARES) as out:
            out.write(found.shares(self.table.rule))

    def load(self, task: Task) -> None:
        if self.caps:
            self.use(pa.Table.from_batches(task.read("shares"), SHARES))

    def use(self, shares: pa.Table) -> None:
        """Take what stays under each cap (SHARES)."""
        self._shares = shares_of(shares)

    def verdicts(self, files: pa.RecordBatch) -> Iterator[Verdict]:
        """One for each rule, in the table's order."""
        if self.caps and self._shares is None:
            raise UsageError(
                f"The rules {self.table.name} cap bytes, which needs all files to have been seen; put the stage into a recipe and "
                "build that."
            )
        files = with_extensions(self.table, files)
        for rule in self.table.rule:
            yield verdict(rule, files, (self._shares or {}).get(rule.id))
