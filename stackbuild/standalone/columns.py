"""Which columns the files have, and as what they are read: decided over all files before a row is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from stackbuild.errors import UsageError
from stackbuild.standalone.inputs import InputUnit, read_lines, schema_of
from stackbuild.standalone.options import DedupOptions
from stackbuild.standalone.schemas import rank_kind

TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_null,
)


@dataclass(frozen=True)
class Kinds:
    """What all files' columns are read as: ids (int64 or string) and survivor columns (`schemas.RANK_TYPES`)."""

    id_type: str
    ranks: tuple[str, ...]


def check_columns(units: Sequence[InputUnit], options: DedupOptions) -> Kinds:
    """The kinds of the columns that are used. UsageError names one that a file lacks, has twice, or that is of no use."""
    words = [name for name in (options.scope_column, options.source_column) if name]
    needed = [
        options.text_column,
        *([options.id_column] if options.id_column else []),
        *words,
        *options.preferred_columns,
    ]
    ids, ranks = list[str](), [list[pa.DataType | None]() for _ in options.preferred_columns]
    for unit in units:
        schema = schema_of(unit)
        if schema is None:
            found = _id_of_lines(unit, options)
            ids += [found] if found else []
            for types in ranks:
                types.append(None)
            continue
        _refuse(unit, schema, needed)
        for name in (options.text_column, *words):
            kind = _value_type(schema.field(name).type)
            plain = name in words and (pa.types.is_integer(kind) or pa.types.is_boolean(kind))
            if not plain and not any(is_text(kind) for is_text in TEXTS):
                raise UsageError(f"{unit.path}: the column {name!r} is {kind}, not text.")
        if options.id_column:
            ids.append(_id_kind(unit, schema.field(options.id_column)))
        for types, name in zip(ranks, options.preferred_columns, strict=True):
            types.append(_value_type(schema.field(name).type))
    kinds = []
    for types, name in zip(ranks, options.preferred_columns, strict=True):
        kind_of_all = rank_kind(types)
        if kind_of_all is None:
            told = ", ".join(sorted({str(kind) for kind in types if kind is not None}))
            raise UsageError(f"Survivors are chosen by numbers or dates, of one kind in all files; {name!r} is {told}.")
        kinds.append(kind_of_all)
    return Kinds("int64" if ids and set(ids) == {"int64"} else "string", tuple(kinds))


def _refuse(unit: InputUnit, schema: pa.Schema, needed: Sequence[str]) -> None:
    for column in needed:
        if column not in schema.names:
            raise UsageError(
                f"{unit.path} has no column {column!r}; it has {', '.join(schema.names[:30])}. "
                "Name it: --text-column, --id-column (or --no-id-column), --scope-column, --survivor."
            )
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{unit.path} has two columns of the name {twice!r}; rename one of them.")


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _id_kind(unit: InputUnit, field: pa.Field) -> str:
    kind = _value_type(field.type)
    if pa.types.is_nested(kind) or pa.types.is_floating(kind):
        raise UsageError(f"{unit.path}: the column {field.name!r} is {kind}, by which rows cannot be named.")
    return "int64" if pa.types.is_integer(kind) and kind != pa.uint64() else "string"


def _id_of_lines(unit: InputUnit, options: DedupOptions) -> str | None:
    """By the first line; None if there is none."""
    for _, line in read_lines(unit):
        try:
            value = json.loads(line).get(options.id_column)
        except (ValueError, AttributeError, RecursionError):
            return None  # told with its line when the unit is read
        return "int64" if isinstance(value, int) and not isinstance(value, bool) else "string"
    return None
