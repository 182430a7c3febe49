"""What is spilled comes back sorted and whole, whatever fits into memory."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.counts import Ledger
from stackbuild.dedup import spill
from stackbuild.dedup.spill import Spill
from stackbuild.shards import Attempt, read_batches
from stackbuild.task import Task

SCHEMA = pa.schema(
    [("group", pa.int32()), ("component", pa.int64()), ("row", pa.int64()), ("hashes", pa.large_binary())]
)


def spilled(out, batches, *, groups, expected, at_once, by=("group", "component"), row_group=(4, 1 << 20)):
    """What a task commits that writes these batches; nothing of its scratch is left."""
    attempt = Attempt(out, "sets", 0)
    task = Task(out=out, job="sets", rank=0, params={}, options=None, seed=42, partitions=1, tables={}, attempt=attempt)
    table = Spill(task, "sets", SCHEMA, by, groups=groups, expected=expected, at_once=at_once, row_group=row_group)
    for batch in batches:
        table.add(batch)
    table.close()
    made = attempt.commit("0" * 64, Ledger(), {}).outputs
    (folder,) = {(out / output.file).parent for output in made}
    assert {path.name for path in folder.iterdir()} == {Path(output.file).name for output in made}
    return made


def batches_of(rows, size):
    """Rows of (group, component), numbered as they arrive."""
    columns = zip(*((g, c, i, b"%d" % i * 3) for i, (g, c) in enumerate(rows)), strict=True)
    table = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
    return table.to_batches(max_chunksize=size)


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from([1, 2, 8, 32]).flatmap(
        lambda groups: st.tuples(
            st.just(groups),
            st.lists(st.tuples(st.integers(0, groups - 1), st.integers(0, 3)), min_size=1, max_size=60),
        )
    ),
    st.integers(1, 7),
    st.sampled_from([1, 200, 10_000]),
    st.sampled_from([0, 500, 20_000]),
    st.sampled_from([2, 256]),
)
def test_files_in_their_order_are_a_plain_sort(drawn, size, at_once, expected, most_ranges):
    groups, rows = drawn
    with pytest.MonkeyPatch.context() as patched, TemporaryDirectory() as folder:
        patched.setattr(spill, "MOST_RANGES", most_ranges)
        out = Path(folder)
        made = spilled(out, batches_of(rows, size), groups=groups, expected=expected, at_once=at_once)
        found = [row for batch in read_batches(out, made) for row in batch.to_pylist()]
        by_group = {
            g: [r for b in read_batches(out, made, None, g, "group") for r in b.to_pylist()] for g in range(groups)
        }
    plain = [row for batch in batches_of(rows, 99) for row in batch.to_pylist()]
    assert found == sorted(plain, key=lambda row: (row["group"], row["component"], row["row"]))
    assert by_group == {g: [row for row in found if row["group"] == g] for g in range(groups)}
    held = [{int(group) for group in output.groups} for output in made]
    assert sum(map(len, held)) == len(set().union(*held))  # a reader of a group opens one file
    assert len(made) <= most_ranges


def test_no_more_waits_in_memory_than_was_asked_for(tmp_path, monkeypatch):
    """And what is written at a time is a range, not the table."""
    together = []
    whole = Spill._together

    def watched(self):
        together.append(self._held or sum(batch.nbytes for batch in self._waiting))
        return whole(self)

    monkeypatch.setattr(Spill, "_together", watched)
    batches = batches_of([(i % 64, 0) for i in np.random.default_rng(0).permutation(6_400)], 50)
    size = sum(batch.nbytes for batch in batches)
    made = spilled(tmp_path, batches, groups=64, expected=size, at_once=size // 16 + 1)
    assert sum(output.rows for output in made) == 6_400 and len(made) == 16
    assert max(together) < size // 16 + 2 * batches[0].nbytes


def test_row_groups_are_as_small_as_asked_for(tmp_path):
    made = spilled(tmp_path, batches_of([(0, 0)] * 50 + [(1, 0)] * 3, 9), groups=2, expected=0, at_once=1 << 20)
    file = pq.ParquetFile(tmp_path / made[0].file)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4] * 12 + [2, 3]
