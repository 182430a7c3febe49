"""Planned parts: the cut, their manifests, and that nothing released depends on them."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.counts import Ledger
from stackbuild.errors import InputError
from stackbuild.execute import contents_of
from stackbuild.housekeeping import orphans, remove
from stackbuild.parts import commit_part, commit_shard, cut, find_part, part_key, part_path
from stackbuild.plan import Build
from stackbuild.shards import Attempt, find_manifest
from stackbuild.tables import ROW_GROUP_BYTES, TableWriter
from tests.test_build import released, run
from tests.test_reuse import in_process
from tests.worlds import light, recipe, world

SMALL = 6_000  # bytes of a part: some ten parts in a partition of the world
MEGABYTE = 1 << 20


# ---------------------------------------------------------------- the cut


@given(st.lists(st.integers(0, 400), max_size=200), st.integers(1, 1_000))
def test_parts_are_runs_of_rows_that_hold_no_more_than_they_may(sizes: list[int], part_bytes: int) -> None:
    parts = cut(np.array(sizes, np.int64), part_bytes)
    assert [part.number for part in parts] == list(range(len(parts))) and {part.of for part in parts} == {len(parts)}
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])] and parts[-1].stop == len(sizes)
    for part in parts:
        assert sum(sizes[part.start : part.stop]) <= part_bytes or part.stop == part.start + 1
    if sum(sizes) <= part_bytes:
        assert len(parts) == 1


def test_no_row_group_of_contents_is_in_two_parts(tmp_path: Path) -> None:
    sizes = np.random.default_rng(1).integers(0, 3 * MEGABYTE, 60)
    with TableWriter(tmp_path / "t.parquet", pa.schema([pa.field("content", pa.large_binary())])) as writer:
        for size in sizes.tolist():
            writer.write(pa.table({"content": pa.array([bytes(size)], pa.large_binary())}))
    file = pq.ParquetFile(tmp_path / "t.parquet").metadata
    ends = set(np.cumsum([file.row_group(group).num_rows for group in range(file.num_row_groups)]).tolist())
    parts = cut(sizes, 2 * ROW_GROUP_BYTES)
    assert len(parts) > 2 and {part.stop for part in parts} <= ends


# ---------------------------------------------------------------- manifests


def committed(out: Path, number: int, key: str, rows: int = 1) -> Any:
    attempt = Attempt(out, "job", 0)
    with attempt.writer("t", pa.schema([pa.field("x", pa.int64())])) as writer:
        writer.write(pa.table({"x": list(range(rows))}))
    part = cut(np.ones(3, np.int64), 1)[number]
    return commit_part(attempt, part_key(key, part), part, Ledger(rows_in=rows, rows_out=rows), {"n": {"x": rows}})


def test_a_shard_is_there_when_all_its_parts_are_and_sums_them(tmp_path: Path) -> None:
    key = "k" * 64
    parts = [committed(tmp_path, number, key, number + 1) for number in range(3)]
    assert find_manifest(tmp_path, "job", 0, key) is None
    commit_shard(tmp_path, "job", 0, key, parts)
    shard = find_manifest(tmp_path, "job", 0, key)
    assert shard is not None and [output.rows for output in shard.table("t")] == [1, 2, 3]
    assert (shard.ledger.rows_in, shard.ledger.rows_out, shard.stats) == (6, 6, {"n": {"x": 6}})


def test_two_that_put_a_shard_together_at_once_do_not_write_into_each_others_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has linked its manifest and not yet taken its temporary name away when the other's disk is full."""
    key = "k" * 64
    parts = [committed(tmp_path, number, key) for number in range(3)]
    link = os.link

    def linked_and_interrupted(temporary: Path, target: Path) -> None:
        link(temporary, target)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                commit_shard(tmp_path, "job", 0, key, parts)

    def full(descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", linked_and_interrupted)
    commit_shard(tmp_path, "job", 0, key, parts)
    shard = find_manifest(tmp_path, "job", 0, key)
    assert shard is not None and len(shard.table("t")) == 3


def test_the_first_to_commit_a_part_wins_and_the_other_leaves_nothing(tmp_path: Path) -> None:
    won = committed(tmp_path, 1, "k" * 64)
    assert committed(tmp_path, 1, "k" * 64).attempt == won.attempt
    assert len(list((tmp_path / "stages" / "job" / "data").iterdir())) == 1


def test_a_part_of_another_key_or_of_other_rows_is_not_taken(tmp_path: Path) -> None:
    committed(tmp_path, 1, "k" * 64)
    parts = cut(np.ones(3, np.int64), 1)
    assert find_part(tmp_path, "job", 0, part_key("k" * 64, parts[1]), parts[1]) is not None
    assert find_part(tmp_path, "job", 0, part_key("l" * 64, parts[1]), parts[1]) is None
    assert find_part(tmp_path, "job", 0, part_key("k" * 64, parts[2]), parts[2]) is None
    of_another_cut = cut(np.ones(4, np.int64), 2)[1]
    assert find_part(tmp_path, "job", 0, part_key("k" * 64, of_another_cut), of_another_cut) is None


def test_a_torn_manifest_of_a_part_is_named(tmp_path: Path) -> None:
    committed(tmp_path, 1, "k" * 64)
    part = cut(np.ones(3, np.int64), 1)[1]
    key = part_key("k" * 64, part)
    path = part_path(tmp_path, "job", 0, key, part)
    assert path is not None
    os.truncate(path, 100)
    with pytest.raises(InputError, match=path.name):
        find_part(tmp_path, "job", 0, key, part)


# ---------------------------------------------------------------- the release


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), repos=4, files=12)


@pytest.fixture(scope="module")
def in_parts(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A build with tasks of several parts."""
    body = light(root, outputs=["dataset", "index"], partitions=1, part_bytes=3 * SMALL)
    return in_process(body, tmp_path_factory.mktemp("in_parts"))


def test_contents_are_read_part_by_part_as_they_are_read_whole(in_parts: Build) -> None:
    parts = in_parts.contents_parts(0)
    whole = pa.Table.from_batches(contents_of(in_parts, 0, None))
    assert len(parts) > 4 and [part.stop for part in parts][-1] == whole.num_rows
    some = whole["content_id"].combine_chunks().take(pa.array(range(0, whole.num_rows, 3)))
    for ids, expected in ((None, whole), (some, whole.take(pa.array(range(0, whole.num_rows, 3))))):
        found = [list(contents_of(in_parts, 0, ids, part)) for part in parts]
        assert pa.Table.from_batches([batch for one in found for batch in one]).equals(expected)
        if ids is None:
            assert [sum(batch.num_rows for batch in one) for one in found] == [p.stop - p.start for p in parts]


def test_a_part_knows_how_many_rows_are_still_in_before_it(in_parts: Build) -> None:
    layout = next(node for node in in_parts.nodes if node.instance == "layout")
    parts, counted = in_parts.parts(layout, 0), 0
    for part in parts:
        rows = in_parts.rows(layout, 0, part=part)
        assert rows.before() == counted
        counted += sum(batch.num_rows for batch in rows.batches(["path"]))
    assert 0 < counted < parts[-1].stop and counted == in_parts.ledger(in_parts.before(layout)[-1].slug).rows_out


@pytest.mark.long
@pytest.mark.slow
def test_part_sizes_do_not_change_a_released_byte(root: Path, tmp_path: Path) -> None:
    names = ("dataset/data/", "repos/", "decisions/", "private/", "clusters/", "manifest/data/", "index/", "tokens/")
    files = []
    for name, part_bytes in (("small", 4 * SMALL), ("large", 100 * MEGABYTE)):
        out = tmp_path / name
        run(recipe(root, partitions=2, part_bytes=part_bytes), out)
        files.append({path: sha256 for path, sha256 in released(out).items() if path.startswith(names)})
        in_parts = {path.parent.parent.name for path in (out / "stages").glob("*/parts/*")}
        assert bool(in_parts) is (name == "small")
        if in_parts:
            assert {name.partition("-")[2] for name in in_parts} >= {
                "opt_out",
                "licenses.detect",
                "exact_dedup.runs",
                "decode",
                "near_dedup.signatures",
                "pii",
                "layout.runs",
            }
    assert files[0] == files[1] and len(files[0]) > 10


def test_gc_removes_the_manifests_of_parts_and_nothing_that_a_shard_lists(in_parts: Build, tmp_path: Path) -> None:
    build = Build(Path(shutil.copytree(in_parts.out, tmp_path / "copy")), in_parts.plan)
    found = orphans(build)
    assert found and all(path.parent.name == "parts" for path in found)
    remove(found)
    assert orphans(build) == []
    for job in build.jobs:
        for rank, params in enumerate(build.task_params(job)):
            assert build.found(job, rank, params) is not None
