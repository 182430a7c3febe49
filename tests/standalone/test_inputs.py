"""A file that is not the one which was planned is told, whenever it changes."""

from __future__ import annotations

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError
from stackbuild.standalone.inputs import plan_units, read_lines, read_unit

ROWS = [{"id": i, "text": f"text {i}"} for i in range(10)]


@pytest.fixture(params=["parquet", "jsonl", "arrow"])
def planned(request, tmp_path):
    """(the file, its unit, what reads it)."""
    path, table = tmp_path / f"a.{request.param}", pa.Table.from_pylist(ROWS)
    if request.param == "parquet":
        pq.write_table(table, path, row_group_size=5)
    elif request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    (unit,) = plan_units([str(path)], "text")
    return path, unit, read_lines if request.param == "jsonl" else lambda unit: read_unit(unit, ["text"])


def test_a_file_as_it_was_planned_is_read(planned):
    _, unit, read = planned
    rows = [batch.num_rows if isinstance(batch, pa.RecordBatch) else 1 for _, batch in read(unit)]
    assert sum(rows) == 10


def test_a_file_that_changed_before_it_is_read_is_told(planned):
    path, unit, read = planned
    path.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=rf"{path.name} changed while it was read"):
        next(iter(read(unit)))


def test_a_file_that_changes_while_it_is_read_is_told(planned):
    path, unit, read = planned
    rows = iter(read(unit))
    next(rows)
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputError, match=rf"{path.name} changed while it was read"):
        list(rows)


def test_a_file_that_is_gone_is_told(planned):
    path, unit, read = planned
    path.unlink()
    with pytest.raises(InputError, match=rf"{path.name} cannot be read: No such file"):
        next(iter(read(unit)))


def test_what_a_unit_makes_depends_on_where_it_is_and_on_the_file_as_it_is(planned):
    path, unit, _ = planned
    before = unit.identity()
    assert plan_units([str(path)], "text")[0].identity() == before
    os.utime(path, ns=(0, 0))
    assert plan_units([str(path)], "text")[0].identity() != before
