"""Rows are folded and sorted in pieces, and the result is that of all rows at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.standalone import folding
from stackbuild.standalone.folding import Fold, Repeated, Tally, among, first_rows, in_key_order, in_ranges

SCHEMA = pa.schema([("group", pa.string()), ("rank", pa.int64()), ("id", pa.int64())])
KEYS = [("group", "ascending"), ("rank", "descending"), ("id", "ascending")]
ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 2))), max_size=60)


def batches_of(rows, size):
    table = pa.Table.from_pylist([{"group": g, "rank": r, "id": i} for i, (g, r) in enumerate(rows)], SCHEMA)
    return table.to_batches(max_chunksize=size)


def place(row):
    """What KEYS sort by, nulls last."""
    return row["group"], row["rank"] is None, -(row["rank"] or 0), row["id"]


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch):
    monkeypatch.setattr(folding, "AT_ONCE", 5)
    monkeypatch.setattr(folding, "VALUES_AT_ONCE", 5)


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(1, 9), st.integers(1, 3))
def test_a_fold_keeps_the_first_rows_of_all(rows, size, wanted):
    fold = Fold(SCHEMA, first_rows(KEYS, "group", wanted))
    for batch in batches_of(rows, size):
        fold.add(batch)
    everything = sorted((row for batch in batches_of(rows, 99) for row in batch.to_pylist()), key=place)
    expected = [row for g in "abc" for row in [r for r in everything if r["group"] == g][:wanted]]
    assert fold.table().to_pylist() == expected


def test_a_fold_sorts_each_row_a_few_times_and_not_once_for_each_batch():
    met = []

    def less(table):
        met.append(len(table))
        return table

    fold = Fold(SCHEMA, less)
    for batch in batches_of([("a", 0)] * 4096, 3):
        fold.add(batch)
    assert len(fold.table()) == 4096 and sum(met) < 5 * 4096


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 9))
def test_repeated_values_are_those_that_come_twice(values, size):
    repeated = Repeated()
    for start in range(0, len(values), size):
        repeated.add(np.array(values[start : start + size], np.uint64))
    expected = sorted(value for value, count in Counter(values).items() if count > 1)
    assert repeated.values().tolist() == expected
    assert among(np.arange(31), repeated.values()).tolist() == [value in expected for value in range(31)]


def test_sources_are_counted_over_batches():
    tally = Tally()
    for part in (["a", "b", None], ["b"], [None, "a", "c", "d", "e"], ["a"] * 20):
        tally.add(pa.array(part, pa.string()))
    counts = {row["source"]: row["rows"] for row in tally.table().to_pylist()}
    assert counts == {"a": 22, "b": 2, None: 2, "c": 1, "d": 1, "e": 1}


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(1, 9))
def test_rows_in_pieces_come_in_the_order_of_all(rows, size):
    batches = batches_of(rows, size)
    with TemporaryDirectory() as scratch:
        found = list(in_key_order(lambda: batches, len(rows), SCHEMA, KEYS, Path(scratch)))
        assert not list(Path(scratch).iterdir())
    everything = [row for batch in batches for row in batch.to_pylist()]
    assert [row for piece in found for row in piece.to_pylist()] == sorted(everything, key=place)


def test_pieces_are_small_though_all_rows_agree_in_all_but_the_last_key(tmp_path, monkeypatch):
    monkeypatch.setattr(folding, "AT_ONCE", 100)
    batches = batches_of([("a", 1)] * 9_000 + [("b", None)] * 1_000, 70)
    found = [len(piece) for piece in in_key_order(lambda: batches, 10_000, SCHEMA, KEYS, tmp_path)]
    assert sum(found) == 10_000 and max(found) < 200
    monkeypatch.setattr(folding, "MOST_PIECES", 4)
    found = [len(piece) for piece in in_key_order(lambda: batches, 10_000, SCHEMA, KEYS, tmp_path)]
    assert len(found) == 4 and sum(found) == 10_000


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(1, 9), st.sampled_from([3, 20, 1_000]))
def test_ranges_hold_each_row_once_and_are_read_twice(rows, size, at_once):
    batches, found = batches_of(rows, size), []
    with pytest.MonkeyPatch.context() as patched, TemporaryDirectory() as scratch:
        patched.setattr(folding, "PASS_ROWS", at_once)
        ranges = in_ranges(
            lambda: batches, len(rows), SCHEMA, lambda batch, ranges: np.asarray(batch["id"]) % ranges, Path(scratch)
        )
        for read in ranges:
            here = [row for batch in read() for row in batch.to_pylist()]
            assert here == [row for batch in read() for row in batch.to_pylist()]
            found.append([row["id"] for row in here])
        assert not list(Path(scratch).iterdir())
    assert sorted(n for here in found for n in here) == list(range(len(rows)))
    assert len(found) >= len(rows) / at_once
    for number, here in enumerate(found):
        assert here == sorted(here) and {n % len(found) for n in here} <= {number}
