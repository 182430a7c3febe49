"""Rows by id are those that a filter of the whole table finds, and row groups that hold none of the ids are not read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.sources.swh import by_id
from stackbuild.sources.swh.bloom import SALTS, any_may_be_in, bits_of
from stackbuild.sources.swh.convert import writer_options
from stackbuild.sources.swh.partitions import BUCKET, BUCKET_FIELD, bucketed
from stackbuild.sources.swh.tables import ENTRIES
from stackbuild.tables import TableWriter

PARTITIONS = 2


def identifier(number: int) -> bytes:
    return hashlib.sha1(b"%d" % number, usedforsecurity=False).digest()


def entries(numbers: range) -> pa.RecordBatch:
    """Three entries of each directory, sorted."""
    rows = [
        {"directory_id": identifier(n), "name": b"%d" % k, "kind": 0, "target": identifier(-n), "perms": n}
        for n in sorted(numbers, key=identifier)
        for k in range(3)
    ]
    return pa.Table.from_pylist(rows, ENTRIES.schema).combine_chunks().to_batches()[0]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two files of converted entries, of 1,000 directories each, in row groups of 150 rows."""
    out, outputs = tmp_path_factory.mktemp("table"), []
    options = writer_options(ENTRIES) | {"row_group_rows": 150}
    for number, numbers in enumerate((range(1_000), range(1_000, 2_000))):
        schema = pa.schema([BUCKET_FIELD, *ENTRIES.schema])
        with TableWriter(out / f"{number}.parquet", schema, group_by=BUCKET, **options) as writer:
            writer.write(bucketed(entries(numbers), "directory_id", PARTITIONS))
        groups = {str(k): v for k, v in writer.groups.items()}
        outputs.append(SimpleNamespace(file=f"{number}.parquet", groups=groups, sha256=writer.sha256))
    names = {"entries": outputs, "nothing": []}
    return SimpleNamespace(out=out, rank=0, partitions=PARTITIONS, outputs=names.__getitem__)


def ids_of(numbers: Any) -> Any:
    ids = sorted(map(identifier, numbers))
    return np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 20)


@pytest.mark.parametrize("numbers", [[], [7], [5_000], range(0, 4_000, 90), range(0, 4_000, 3), range(2_000)])
def test_rows_by_id_are_those_that_a_filter_finds(task: Any, numbers: Any) -> None:
    looked = by_id.Looked()
    found = [row for b in by_id.rows_by_id(task, ENTRIES, ids_of(numbers), looked) for row in b.to_pylist()]
    wanted = set(map(identifier, numbers))
    every = [row for number in (0, 1) for row in pq.read_table(task.out / f"{number}.parquet").to_pylist()]
    mine = [{k: v for k, v in row.items() if k != BUCKET} for row in every if row[BUCKET] == 0]
    assert found == [row for row in mine if row["directory_id"] in wanted]
    assert looked.rows_read + looked.rows_skipped == len(mine)


def test_ids_of_a_column_may_be_null_and_stand_twice(task: Any) -> None:
    one, other = (next(n for n in numbers if identifier(n)[0] < 128) for numbers in (range(1_000), range(1_000, 2_000)))
    ids = [identifier(other), None, identifier(one), identifier(other), identifier(9_999)]
    for column in (pa.chunked_array([ids[:2], ids[2:]], pa.binary(20)), pa.chunked_array([], pa.binary(20))):
        found = [row["perms"] for batch in by_id.rows_in(task, ENTRIES, column) for row in batch.to_pylist()]
        assert found == ([one] * 3 + [other] * 3 if len(column) else [])


def test_row_groups_that_hold_none_of_the_ids_are_not_read(task: Any) -> None:
    """One directory lies in one of twenty row groups; its range is that of a row group in each of the two files."""
    read = 0
    for number in range(40):
        looked = by_id.Looked()
        list(by_id.rows_by_id(task, ENTRIES, ids_of([number]), looked))
        read += looked.rows_read
    mine = sum(identifier(number)[0] < 128 for number in range(40))
    assert 100 * mine < read <= 150 * (mine + 2)  # two: what filters let through by chance
    looked = by_id.Looked()
    list(by_id.rows_by_id(task, ENTRIES, ids_of(range(5_000, 5_010)), looked))
    assert looked.rows_read <= 150


def test_a_filter_has_all_of_its_ids_and_few_others(task: Any) -> None:
    path = task.out / "0.parquet"
    file = pq.ParquetFile(path)
    others = ids_of(range(10_000, 14_000))
    for group in range(file.num_row_groups):
        column = file.metadata.row_group(group).column(1)
        with path.open("rb") as raw:
            bits = bits_of(raw, column.bloom_filter_offset, column.bloom_filter_length)
        assert bits is not None
        held = {row["directory_id"] for row in file.read_row_group(group, columns=["directory_id"]).to_pylist()}
        for one in held:
            assert any_may_be_in(bits, np.frombuffer(one, np.uint8).reshape(1, 20), SALTS)
        assert sum(bool(any_may_be_in(bits, others[at : at + 1], SALTS)) for at in range(len(others))) < 200


def test_what_is_no_filter_is_none(tmp_path: Path) -> None:
    header = bytes.fromhex("15401c1c00001c1c00001c1c000000")
    cases = [b"", b"\x15", b"\x15\xff", b"\x15" + b"\xff" * 12, bytes(64), header + bytes(31),
             bytes.fromhex("1540" + "1c2c" * 6) + bytes(32)]  # fmt: skip
    for data in cases:
        (tmp_path / "f").write_bytes(data)
        with (tmp_path / "f").open("rb") as raw:
            assert bits_of(raw, 0, len(data)) is None
            assert bits_of(raw, None, None) is None
    (tmp_path / "f").write_bytes(header + bytes(32))
    with (tmp_path / "f").open("rb") as raw:
        assert bits_of(raw, 0, len(header) + 32) is not None


def test_more_ids_than_are_held_read_everything(task: Any) -> None:
    looked = by_id.Looked()
    assert sum(1 for _ in _all(task, looked)) and looked.rows_skipped == 0


def _all(task: Any, looked: Any) -> Any:
    task.read = lambda table, columns, group, group_by: (
        batch
        for output in task.outputs(table)
        for batch in pq.read_table(task.out / output.file, filters=[(group_by, "=", group)]).to_batches()
    )
    return by_id.rows_by_id(task, ENTRIES, None, looked)
