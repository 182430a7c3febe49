"""Runs near_dedup over a table in memory through the real tasks, attempts and shards, in one process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from stackbuild.counts import Ledger
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.stage import NearDedup
from stackbuild.hashing import content_buckets
from stackbuild.shards import Attempt, Output
from stackbuild.stage import PhaseOutputs, judge
from stackbuild.task import Task

WORDS = np.array([f"name{i}" for i in range(3000)])


def _files(texts: Sequence[str | None], **columns: Sequence[Any]) -> pa.Table:
    """A table of files: content_id is the SHA-1 of the row's number and text, so that equal texts are different
    files.
    """
    ids = [hashlib.sha1(f"{i}:{text}".encode("utf-8", "surrogatepass")).digest() for i, text in enumerate(texts)]
    n = len(texts)
    given = {
        "content_id": pa.array(columns.pop("content_id", ids), pa.binary(20)),
        "text": pa.array(texts, pa.large_string()),
        "language": pa.array(columns.pop("language", ["Python"] * n), pa.string()),
        "license_class": pa.array(columns.pop("license_class", ["permissive"] * n), pa.string()),
        "star_events_count": pa.array(columns.pop("stars", [0] * n), pa.int64()),
        "fork_events_count": pa.array(columns.pop("forks", [0] * n), pa.int64()),
        "revision_date": pa.array(columns.pop("dates", [None] * n), pa.timestamp("ns")),
        "repo_name": pa.array([f"owner/repo{i}" for i in range(n)]),
        "path": pa.array([f"/file{i}" for i in range(n)]),
    }
    assert not columns
    return pa.table(given)


def _family(rng: np.random.Generator, words: int, copies: int, edits: int) -> list[str]:
    """A text and copies of it in which some words are replaced."""
    base = WORDS[rng.integers(0, len(WORDS), words)]
    texts = [" ".join(base)]
    for _ in range(copies):
        copy = base.copy()
        copy[rng.integers(0, words, edits)] = WORDS[rng.integers(0, len(WORDS), edits)]
        texts.append("(".join(copy))
    return texts


def _run(files: pa.Table, options: NearDedupOptions, partitions: int, out: Path, batch_rows: int = 97) -> pa.Table:
    """All phases and the row part: (content_id, cluster_id, cluster_size, kept, value, kept_content_id, detail), by
    content_id.
    """
    files = files.take(pc.sort_indices(files["content_id"])).combine_chunks()
    ids = np.frombuffer(b"".join(files["content_id"].to_pylist()), np.uint8).reshape(-1, 20)
    where = content_buckets(ids, partitions)
    parts = [files.filter(pa.array(where == k)) for k in range(partitions)]
    tables: dict[str, list[Output]] = {}

    def task(job: str, rank: int, params: dict[str, Any], attempt: Attempt | None) -> Task:
        def rows(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
            yield from parts[rank].select(list(columns)).combine_chunks().to_batches(max_chunksize=batch_rows)

        return Task(out=out, job=job, rank=rank, params=params, options=options, seed=42, partitions=partitions,
                    tables=tables, attempt=attempt, rows=rows)  # fmt: skip

    for phase in NearDedup(options).phases():
        if callable(phase.tasks):
            named = {name: [str(out / o.file) for o in tables.get(name, [])] for name in phase.reads}
            params = list(phase.tasks(PhaseOutputs(named, partitions, 42)))
        else:
            params = [{} for _ in range(1 if phase.tasks == "one" else partitions)]
        for name in phase.reads:
            tables.setdefault(name, [])
        made: dict[str, list[Output]] = {}
        for rank, given in enumerate(params):
            attempt = Attempt(out, phase.name, rank)
            running = task(phase.name, rank, given, attempt)
            phase.run(running)
            for output in attempt.commit(f"{phase.name}-{rank:024d}", Ledger(), running.stats).outputs:
                made.setdefault(output.table, []).append(output)
        tables.update(made)
    results = []
    for rank, part in enumerate(parts):
        stage = NearDedup(options)
        stage.load(task("rows", rank, {}, None))
        for batch in part.combine_chunks().to_batches(max_chunksize=batch_rows):
            tags = stage.tags(batch)
            (verdict,) = stage.verdicts(batch)
            keep, _ = judge([verdict], batch.num_rows)
            results.append(
                pa.table(
                    {
                        "content_id": batch.column("content_id"),
                        **tags,
                        "kept": keep,
                        "value": verdict.value,
                        "kept_content_id": verdict.kept_content_id,
                        "detail": verdict.detail,
                    }
                )
            )
    return pa.concat_tables(results).combine_chunks()


@pytest.fixture(scope="session")
def files() -> Callable[..., pa.Table]:
    return _files


@pytest.fixture(scope="session")
def family() -> Callable[..., list[str]]:
    return _family


@pytest.fixture(scope="session")
def near_dedup() -> Callable[..., pa.Table]:
    return _run
