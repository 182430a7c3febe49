"""Gathering a partition in passes writes the very bytes that gathering it at once does."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild import build as building
from stackbuild import execute, gather
from stackbuild.gather import _cuts
from stackbuild.judging import Try
from stackbuild.plan import Build
from stackbuild.status import opened
from tests.worlds import light


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A build of two sources that share contents, and of which the second names some paths of the first once more."""
    folder = tmp_path_factory.mktemp("gather")
    for name, files in (("a", range(120)), ("b", range(80, 160))):
        rows = [
            {
                "text": f"x = {number % 70}\n" * (1 + number % 5) + ("# b\n" if name == "b" and number % 3 else ""),
                "path": f"src/{number}.py",
                "repo": f"owner{number % 7}/repo{number % 3}",
            }
            for number in files
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    source: dict[str, Any] = {"kind": "parquet", "paths": [str(folder)], "revision_id_default": "r1"}
    source["columns"] = {"content": "text", "path": "path", "repo_name": "repo"}
    building.run(building.Request(light(folder, partitions=2, source=[source]), folder, folder / "out", 1))
    return opened(folder / "out")


@pytest.mark.parametrize("job", ["contents", "occurrences"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_task_in_passes_writes_what_it_writes_at_once(
    built: Build, monkeypatch: pytest.MonkeyPatch, job: str, rank: int
) -> None:
    number = ["contents", "occurrences"].index(job) + 1
    before = built.shards(built.jobs[number].name)[rank]
    passes = 0
    read = gather.read_batches

    def counted(*arguments: Any) -> Any:
        nonlocal passes
        passes += 1
        return read(*arguments)

    monkeypatch.setattr(gather, "read_batches", counted)
    monkeypatch.setattr(gather, "PASS_BYTES", 200)
    monkeypatch.setattr(gather, "PASS_ROWS", 5)
    path = next((built.out / "stages" / f"00-{job}" / "manifests").glob(f"{rank:05d}-*.json"))
    kept = path.read_bytes()
    path.unlink()
    try:
        assert execute.run_task(built, built.jobs[number], rank, {}, Try(one_part=True))
        [after] = built.found(built.jobs[number], rank, {}) or []
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(kept)
    assert passes > 4  # the one that measures, and many that read
    assert sorted(output.identity() for output in after.outputs) == sorted(
        output.identity() for output in before.outputs
    )
    assert after.ledger == before.ledger
    assert after.attempt != before.attempt


def test_some_paths_were_there_twice_and_contents_were_shared(built: Build) -> None:
    """The fixture shows what the test above is about."""
    gone = sum(o.rows for shard in built.shards("00-occurrences") for o in shard.table("decisions"))
    kept = sum(o.rows for shard in built.shards("00-contents") for o in shard.table("contents"))
    assert gone > 20 and kept < 160


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 40))
def test_cuts_leave_no_range_empty_and_none_much_too_large(sizes: list[int], most: int) -> None:
    cuts = _cuts(np.cumsum(np.array(sizes, np.int64)), most)
    bounds = [0, *cuts, len(sizes)]
    assert bounds == sorted(set(bounds)) or not sizes
    for start, stop in pairwise(bounds):
        assert sum(sizes[start:stop]) < most + max(sizes, default=0) + 1 or stop - start == 1
