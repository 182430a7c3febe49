"""Who may not be named: a repository that asked to be left out leaves no trace in what is released.

A stage with `private_decisions` removes rows that reached it. A file of the same repository may have left before, at ingest
because it was too large, say; its decision would tell the name all the same. So the list is held against all decisions and
against every repository that was read, whoever removed its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.schema import ID, ORIGIN_FIELDS
from stackbuild.stage import Stage

ASKED = pa.schema([*(pa.field(f.name, f.type) for f in ORIGIN_FIELDS), pa.field("content_id", ID)])


def pairs(table: pa.Table) -> pa.ChunkedArray:
    """repo_name and revision_id of each row as one string, from which both can be told."""
    length = pc.utf8_length(table["repo_name"]).cast(pa.string())
    return pc.binary_join_element_wise(length, table["repo_name"], table["revision_id"], ":")


def concealed_origins(origins: pa.Table, hidden: pa.Table, stages: Sequence[Stage[Any]]) -> pa.Array:
    """`pairs` of the repositories that may not be named: those that a stage names, and those that one took by name.

    `origins`: rows of schema.ORIGINS. `hidden`: the private decisions. A rule that ends in `:content` took a file for its
    bytes, wherever it lay, and says nothing of the repository.
    """
    by_name = pc.unique(hidden.filter(pc.invert(pc.ends_with(hidden["rule"], ":content")))["repo_name"])
    named = pa.array(concealed_rows(origins, stages) | np.asarray(pc.is_in(origins["repo_name"], value_set=by_name)))
    taken = hidden.filter(pc.is_in(hidden["repo_name"], value_set=by_name))
    return pa.concat_arrays(
        [
            array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
            for array in (pc.unique(pairs(origins.filter(named))), pc.unique(pairs(taken)))
        ]
    )


def without_concealed_twins(decisions: pa.Table, stages: Sequence[Stage[Any]]) -> pa.Table:
    """Decisions that name nobody's concealed content as the one that stayed."""
    kept = pa.table({"content_id": decisions["kept_content_id"]})
    keep = pa.array(~concealed_rows(kept, stages))
    for name in ("kept_content_id", "detail"):
        place, column = decisions.schema.get_field_index(name), decisions[name]
        blank = pc.if_else(pc.or_(keep, pc.is_null(decisions["kept_content_id"])), column, pa.scalar(None, column.type))
        decisions = decisions.set_column(place, decisions.schema.field(place), blank)
    return decisions


def concealed_rows(table: pa.Table, stages: Sequence[Stage[Any]]) -> npt.NDArray[np.bool_]:
    """bool (rows,): what any of the stages names; columns of ASKED that the table lacks are unknown."""
    named = np.zeros(table.num_rows, bool)
    if not table.num_rows:
        return named
    columns = {
        field.name: table[field.name].combine_chunks().cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, field.type)
        for field in ASKED
    }
    batch = pa.Table.from_pydict(columns, schema=ASKED).combine_chunks().to_batches()[0]
    for stage in stages:
        answer = stage.conceals(batch)
        if answer is not None:
            named |= np.asarray(pc.fill_null(answer, False))
    return named
