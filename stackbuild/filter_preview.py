"""What the quality rules of a recipe would drop of files that lie in tables, before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError, RecipeError, UsageError
from stackbuild.graph import options_of
from stackbuild.languages.languages import LanguageOptions, Languages
from stackbuild.quality.caps import Volumes
from stackbuild.quality.filters import FilterOptions, Filters, count
from stackbuild.quality.signals import Signals
from stackbuild.registry import base_name, stage_class
from stackbuild.schema import FERTILITY_FIELDS, SIGNAL_FIELDS, SYNTAX_FIELDS
from stackbuild.stage import Stage, judge, with_columns
from stackbuild.standalone.inputs import InputUnit, plan_units, read_unit, schema_of
from stackbuild.standalone.reading import content_ids

EXAMPLES = 10  # files of a rule that are named

# What the published tables call them, the first that there is; ours first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "content"),
    "path": ("path", "max_stars_repo_path"),
    "language": ("language", "lang"),
    "is_generated": ("is_generated",),
    "is_vendor": ("is_vendor",),
    "is_documentation": ("is_documentation",),
    "is_test": ("is_test",),
    "star_events_count": ("star_events_count", "max_stars_count"),
}
DETECTED = ("language", "is_generated", "is_vendor", "is_documentation", "is_test")
# What is measured only if a rule asks for it, by the stages that do.
DEAR = {"syntax": SYNTAX_FIELDS, "fertility": FERTILITY_FIELDS}


@dataclass
class Dropped:
    """What one rule drops: by itself, and of what the rules before it left (`first_`). Bytes are of the text in UTF-8."""

    stage: str
    rule: str
    files: int = 0
    bytes: int = 0
    first_files: int = 0
    first_bytes: int = 0
    examples: list[tuple[str, Any]] = field(default_factory=list)  # path; the value, or the words where there is none


@dataclass
class Preview:
    """Of all files and bytes that were looked at, what stays, and what each rule drops, in the recipe's order."""

    files: int = 0
    bytes: int = 0
    kept_files: int = 0
    kept_bytes: int = 0
    rules: list[Dropped] = field(default_factory=list)


def preview(recipe: Mapping[str, Any], inputs: Sequence[str]) -> Preview:
    """Look at every row of Parquet files with the recipe's filters; files without text are not counted.

    All is read once, and once more for each stage that caps bytes, whose caps then hold for these files. Signals are
    measured here. The language and the flags are the table's where it has them, else detected. Other stages of the
    recipe are not considered.
    """
    values = dict(recipe)
    stages = [
        (instance, Filters(FilterOptions.model_validate(options_of(values, instance))))
        for instance in values["stages"]
        if base_name(instance) == "filters"
    ]
    if not stages:
        raise UsageError("The recipe has no stage filters: nothing would be dropped.")
    needs = {column for _, stage in stages for column in stage.needs()}
    languages = Languages(LanguageOptions.model_validate(options_of(values, "languages")))
    dear = _dear(values, [stage for _, stage in stages], needs)
    told = Preview(rules=[Dropped(name, rule.id) for name, stage in stages for rule in stage.table.rule])

    def batches() -> Iterator[pa.RecordBatch]:
        for unit in plan_units(inputs, "text"):
            columns = _columns(unit, needs)
            for _, batch in read_unit(unit, list(columns.values())):
                yield _prepared(batch, columns, needs, languages, dear)

    filters = [stage for _, stage in stages]
    for number, stage in enumerate(filters):
        if stage.caps:
            volumes = Volumes()
            for files in batches():
                before = (verdict for one in filters[:number] for verdict in one.verdicts(files))
                count(stage.table, files, volumes, judge(before, files.num_rows)[0])
            stage.use(volumes.shares(stage.table.rule))
    for files in batches():
        _look(files, filters, told)
    return told


def _dear(values: dict[str, Any], filters: Sequence[Filters], needs: set[str]) -> list[Stage[Any]]:
    """The recipe's stages that measure what its rules read beside the signals; RecipeError if it lacks one."""
    stages: list[Stage[Any]] = []
    for name, fields in DEAR.items():
        columns = sorted(needs & {field.name for field in fields})
        if not columns:
            continue
        instance = next((one for one in values["stages"] if base_name(one) == name), None)
        if instance is None:
            raise RecipeError(f"A rule reads the column {columns[0]!r}, and the recipe has no stage {name} to add it.")
        kind = stage_class(name)
        stage = kind(kind.options_model.model_validate(options_of(values, instance)))
        stage.placed(instance, (), filters)
        stages.append(stage)
    return stages


def _columns(unit: InputUnit, needs: set[str]) -> dict[str, str]:
    """Our name of each column that is read of a file, and the file's."""
    schema = schema_of(unit)
    if unit.kind != "parquet" or schema is None:
        raise InputError(f"{unit.path} is no Parquet file; inspect filters reads no others.")
    there = {
        ours: next(name for name in names if name in schema.names)
        for ours, names in NAMES.items()
        if any(name in schema.names for name in names)
    }
    for ours in ("text", "path", *sorted(needs & {"star_events_count"})):
        if ours not in there:
            raise InputError(
                f"{unit.path} has no column {' or '.join(map(repr, NAMES[ours]))}; it has {', '.join(schema.names)}."
            )
    return there


def _prepared(
    batch: pa.RecordBatch,
    columns: Mapping[str, str],
    needs: set[str],
    languages: Languages,
    dear: Sequence[Stage[Any]],
) -> pa.RecordBatch:
    """The batch with every column that the rules read."""
    files = pa.record_batch({ours: batch[theirs] for ours, theirs in columns.items()})
    files = files.filter(pc.is_valid(files["text"]))
    paths = files["path"].cast(pa.string())
    paths = pc.if_else(pc.starts_with(paths, "/"), paths, pc.binary_join_element_wise("/", paths, ""))
    files = with_columns(files, {"text": files["text"].cast(pa.large_string()), "path": pc.fill_null(paths, "/")})
    missing = [name for name in DETECTED if name not in columns and name in {*needs, "language"}]
    if missing:
        found = languages.tags(with_columns(files, {"path_bytes": files["path"].cast(pa.binary())}))
        files = with_columns(files, {name: found[name] for name in missing})
    files = with_columns(files, {"language": files["language"].cast(pa.string())})
    files = with_columns(files, {"length_bytes": pc.cast(pc.binary_length(files["text"]), pa.int64())})
    if "content_id" in needs:
        files = with_columns(files, {"content_id": content_ids(files["text"])})
    if needs & {field.name for field in SIGNAL_FIELDS}:
        files = with_columns(files, Signals().tags(files))
    for stage in dear:
        files = with_columns(files, stage.tags(files))
    return files


def _look(files: pa.RecordBatch, stages: Sequence[Filters], told: Preview) -> None:
    length = files["length_bytes"]
    stays = pa.array([True] * files.num_rows, pa.bool_())
    verdicts = (verdict for stage in stages for verdict in stage.verdicts(files))
    for rule, verdict in zip(told.rules, verdicts, strict=True):
        drops = pc.invert(pc.fill_null(verdict.keep, True))
        first = pc.and_(stays, drops)
        stays = pc.and_(stays, pc.invert(drops))
        rule.files += _count(drops)
        rule.bytes += _bytes(length, drops)
        rule.first_files += _count(first)
        rule.first_bytes += _bytes(length, first)
        if len(rule.examples) < EXAMPLES:
            some = pc.indices_nonzero(drops)[: EXAMPLES - len(rule.examples)]
            shown = verdict.value if verdict.value is not None else verdict.detail
            values = shown.take(some).to_pylist() if shown is not None else [None] * len(some)
            rule.examples += zip(files["path"].take(some).to_pylist(), values, strict=True)
    told.files += files.num_rows
    told.bytes += int(pc.sum(length).as_py() or 0)
    told.kept_files += _count(stays)
    told.kept_bytes += _bytes(length, stays)


def _count(mask: pa.Array) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _bytes(length: pa.Array, mask: pa.Array) -> int:
    return int(pc.sum(length.filter(mask)).as_py() or 0)
