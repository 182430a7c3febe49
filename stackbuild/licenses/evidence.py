"""Columns of lists of evidence, without a Python object for each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.schema import EVIDENCE

Rows = npt.NDArray[np.int64]


def lists(column: pa.Array) -> tuple[Rows, pa.Array]:
    """(offsets from 0, int64 (n + 1,); the values) of a column of lists without nulls."""
    offsets = np.asarray(column.offsets).astype(np.int64)
    return offsets - offsets[0], column.flatten()


def distinct(column: pa.Array, fields: Sequence[str]) -> tuple[Rows, Rows]:
    """(the first row of each kind, the kind of each row): int64 (k,), (n,). `column`: lists of structs, length n, without
    nulls; rows are of one kind if they agree in `fields`. Thousands of files share what is said of them.
    """
    offsets, values = lists(column)
    texts = [pc.fill_null(values.field(name).cast(pa.string()), "") for name in fields]
    of_value = pc.binary_join_element_wise(*texts, "\0") if len(values) else pa.array([], pa.string())
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), of_value), "\1")
    of_row = np.asarray(joined.dictionary_encode().indices).astype(np.int64)
    return np.unique(of_row, return_index=True)[1].astype(np.int64), of_row


def with_field(values: pa.Array, name: str, column: pa.Array) -> pa.Array:
    """Evidence with one field replaced."""
    fields = [column if field.name == name else values.field(field.name) for field in EVIDENCE]
    return pa.StructArray.from_arrays(fields, fields=list(EVIDENCE))


def within(sizes: Rows) -> Rows:
    """0, 1 ... of each of some runs, one behind the other."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
