"""changes.parquet tells of every earlier row whose fate is another, once, by id, however little of it fits into memory."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.counts import Ledger
from stackbuild.shards import Attempt
from stackbuild.standalone import changes, folding
from stackbuild.standalone.schemas import clusters_schema, ids_schema


def clusters_file(path, rows, id_type):
    """A file of clusters with (id, kept) of some rows; who leaves leaves for row `kept for ID`."""
    schema = clusters_schema(id_type)
    known = [
        {"id": i, "kept": kept, "kept_id": None if kept else i, "similarity": None if kept else 0.75,
         "reason": None if kept else "near_duplicate", "cluster_size": 2}
        for i, kept in rows.items()
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(known, schema=schema), path)
    return path


def ids_of(out, rows, id_type):
    attempt = Attempt(out, "ids", 0)
    with attempt.writer("ids", ids_schema(id_type)) as writer:
        writer.write(pa.table({"id": pa.array(rows, id_type)}).to_batches()[0])
    return attempt.commit("0" * 64, Ledger(), {}).outputs


@pytest.mark.parametrize("pass_rows", [16, 1 << 17])
@pytest.mark.parametrize("id_type", [pa.int64(), pa.string()])
def test_changes_are_those_of_the_sets_of_ids(tmp_path, monkeypatch, id_type, pass_rows):
    monkeypatch.setattr(folding, "PASS_ROWS", pass_rows)
    monkeypatch.setattr(folding, "AT_ONCE", pass_rows * 4)
    drawn = random.Random(7)
    names = [f"row-{i}" if id_type == pa.string() else i * 3 for i in range(900)]
    earlier = names[:600]
    before = {i: drawn.random() < 0.5 for i in drawn.sample(earlier, 300)}
    now = {i: drawn.random() < 0.5 for i in drawn.sample(names, 500)}
    count = changes.write_changes(
        tmp_path,
        [clusters_file(tmp_path / "now.parquet", now, id_type)],
        [clusters_file(tmp_path / "before.parquet", before, id_type)],
        ids_of(tmp_path, earlier, id_type),
    )
    was_out = {i for i, kept in before.items() if not kept}
    is_out = {i for i, kept in now.items() if not kept} & set(earlier)
    expected = [
        {"id": i, "kept": True, "kept_id": None, "similarity": None, "reason": None} if i in was_out
        else {"id": i, "kept": False, "kept_id": i, "similarity": 0.75, "reason": "near_duplicate"}
        for i in sorted(was_out ^ is_out)
    ]  # fmt: skip
    assert pq.read_table(tmp_path / "changes.parquet").to_pylist() == expected
    assert count == len(expected) and not (tmp_path / ".changes").exists()
