"""Caps of bytes: what stays is all that draws less than a share, the largest that the cap allows, in any order and split."""

from __future__ import annotations

import json
import random
from hashlib import sha1
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.errors import UsageError
from stackbuild.quality.caps import STEPS, VOLUMES, Volumes, size_of
from stackbuild.quality.filters import FilterOptions, Filters, count, drawn
from stackbuild.stage import judge
from tests.test_build import released, run
from tests.worlds import light

TABLE = """
name = "mine"
source = "us"

[[rule]]
id = "short"
drop = "num_lines < 2"
source = "us"

[[rule]]
id = "a"
keep_bytes = 5000
languages = ["A"]
source = "us"

[[rule]]
id = "others"
keep_bytes = "3 kB"
each = "language"
languages = ["B", "C"]
source = "us"

[[rule]]
id = "last"
drop = "num_lines > 8"
source = "us"
"""


@pytest.fixture
def filters(tmp_path: Path) -> Filters:
    (tmp_path / "mine.toml").write_text(TABLE)
    return Filters(FilterOptions(rules=str(tmp_path / "mine.toml")))


def files(rows: int, seed: int = 0) -> pa.RecordBatch:
    random_ = random.Random(seed)
    return pa.record_batch(
        {
            "content_id": pa.array([sha1(f"{seed} {n}".encode()).digest() for n in range(rows)], pa.binary(20)),
            "language": pa.array([random_.choice(["A", "B", "C", "D", None]) for _ in range(rows)], pa.string()),
            "num_lines": pa.array([random_.randrange(10) for _ in range(rows)], pa.int64()),
            "length_bytes": pa.array([random_.randrange(1, 300) for _ in range(rows)], pa.int64()),
        }
    )


def capped(stage: Filters, batches: list[pa.RecordBatch]) -> dict[bytes, str | None]:
    """The rule by which each file leaves, None if it stays, after both phases."""
    parts = []
    for batch in batches:  # as one partition each
        volumes = Volumes()
        count(stage.table, batch, volumes)
        parts += list(volumes.batches())
    whole = Volumes()
    whole.take(parts)
    stage.use(whole.shares(stage.table.rule))
    found: dict[bytes, str | None] = {}
    for batch in batches:
        ids = batch["content_id"].to_pylist()
        found |= dict.fromkeys(ids)
        for left in judge(stage.verdicts(batch), batch.num_rows)[1]:
            found |= {ids[row]: left.verdict.rule for row in left.rows.to_pylist()}
    return found


def test_what_stays_is_the_longest_run_of_draws_under_the_cap(filters: Filters) -> None:
    batch = files(500)
    found = capped(filters, [batch])
    for language, rule, cap in (("A", "a", 5_000), ("B", "others", 3_000), ("C", "others", 3_000)):
        rows = [
            (draw, row["length_bytes"], found[row["content_id"]])
            for row, draw in zip(batch.to_pylist(), drawn(rule, batch["content_id"]).to_pylist(), strict=True)
            if row["language"] == language and row["num_lines"] >= 2
        ]
        kept = [(draw, size) for draw, size, left in rows if left != rule]
        gone = [(draw, size) for draw, size, left in rows if left == rule]
        assert sum(size for _, size in kept) <= cap and kept and gone
        assert max(kept)[0] < min(gone)[0]
        first = {size for draw, size in gone if int(draw * STEPS) == int(min(gone)[0] * STEPS)}
        assert sum(size for _, size in kept) + sum(first) > cap  # no further step has room
    assert {found[row["content_id"]] for row in batch.to_pylist() if row["language"] in ("D", None)} == {
        None,
        "short",
        "last",
    }


def test_a_cap_counts_what_the_rules_before_it_keep_and_not_those_after(filters: Filters) -> None:
    batch = files(500)
    volumes = Volumes()
    count(filters.table, batch, volumes)
    shares = {row["group"]: row["bytes"] for row in volumes.shares(filters.table.rule).to_pylist()}
    rows = [row for row in batch.to_pylist() if row["num_lines"] >= 2]
    assert shares == {
        group: sum(row["length_bytes"] for row in rows if row["language"] == language)
        for group, language in (("", "A"), ("B", "B"), ("C", "C"))
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.randoms(use_true_random=False), st.integers(1, 7))
def test_no_order_and_no_split_changes_who_stays(
    tmp_path_factory: pytest.TempPathFactory, seed: int, random_: random.Random, parts: int
) -> None:
    table = tmp_path_factory.mktemp("caps") / "mine.toml"
    table.write_text(TABLE)
    stage = Filters(FilterOptions(rules=str(table)))
    batch = files(300, seed)
    order = list(range(300))
    random_.shuffle(order)
    mixed = batch.take(pa.array(order))
    cuts = [0, *sorted(random_.sample(range(300), parts)), 300]
    split = [mixed.slice(a, b - a) for a, b in pairwise(cuts)]
    assert capped(stage, split) == capped(stage, [batch])


def test_a_larger_cap_keeps_all_that_a_smaller_one_does(tmp_path: Path, filters: Filters) -> None:
    batch = files(500)
    small = capped(filters, [batch])
    (tmp_path / "more.toml").write_text(TABLE.replace("5000", "9000").replace('"3 kB"', '"4.5 kB"'))
    large = capped(Filters(FilterOptions(rules=str(tmp_path / "more.toml"))), [batch])
    assert {one for one in small if small[one] is None} < {one for one in large if large[one] is None}


def test_a_corpus_below_the_cap_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "all.toml").write_text(TABLE.replace("5000", '"1 GB"').replace('"3 kB"', '"1 GiB"'))
    stage = Filters(FilterOptions(rules=str(tmp_path / "all.toml")))
    assert set(capped(stage, [files(300)]).values()) == {None, "short", "last"}
    assert set(capped(stage, [files(0)]).values()) == set()


def test_a_file_larger_than_the_cap_leaves_alone(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TABLE.replace("5000", "1"))
    found = capped(Filters(FilterOptions(rules=str(tmp_path / "tiny.toml"))), [files(50)])
    assert "a" in found.values()


def test_the_decision_says_how_much_of_how_much_stays(filters: Filters) -> None:
    batch = files(500)
    capped(filters, [batch])
    verdicts = {verdict.rule: verdict for verdict in filters.verdicts(batch)}
    assert verdicts["a"].threshold is not None and verdicts["others"].threshold is None
    for verdict in (verdicts["a"], verdicts["others"]):
        gone = np.flatnonzero(~np.asarray(verdict.keep))
        assert verdict.value is not None and verdict.detail is not None
        assert all(0 < verdict.value[row].as_py() < 1 for row in gone)
        words = verdict.detail[int(gone[0])].as_py()
        kept, total = (int(word) for word in words.split() if word.isdecimal())
        assert 0 < kept <= 5_000 < total


def test_a_table_with_a_cap_needs_its_phases(filters: Filters) -> None:
    with pytest.raises(UsageError, match="mine cap bytes, which needs all files"):
        list(filters.verdicts(files(3)))
    assert [phase.name for phase in filters.phases()] == ["volumes", "shares"]
    assert Filters().phases() == ()


@pytest.mark.parametrize(
    ("size", "expected"),
    [(7, 7), ("7", 7), ("8 GB", 8 * 10**9), ("0.5 kB", 500), ("1KiB", 1024), (" 2 TiB ", 2 * 2**40), ("3 b", 3)],
)
def test_sizes_are_decimal_unless_they_have_an_i(size: object, expected: int) -> None:
    assert size_of(size) == expected


@pytest.mark.parametrize("size", ["", "GB", "-1", "1 G", "1e9", "٣", 1.5, True, None, 0, "0 GB", "9" * 30])
def test_what_is_no_size_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"is no size|is no byte"):
        size_of(size)


def test_volumes_hold_a_row_for_each_step_that_is_met(filters: Filters) -> None:
    volumes = Volumes()
    count(filters.table, files(100), volumes)
    table = pa.Table.from_batches(volumes.batches(), VOLUMES)
    assert 0 < table.num_rows <= 100 and not table["step"].null_count


# ---------------------------------------------------------------- in a build


def test_a_build_with_a_cap_has_the_same_bytes_with_one_worker_and_two(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    root.mkdir()
    random_ = random.Random(1)
    for number in range(120):
        text = "".join(f"value_{random_.randrange(10**9)} = {random_.randrange(10**9)}\n" for _ in range(20))
        (root / f"f{number}.py").write_text(text)
        (root / f"f{number}.rb").write_text(text.replace("value", "worth"))
    rules = TABLE.replace('["A"]', '["Python"]').replace('"B", "C"', '"Ruby"').replace("5000", "20000")
    (tmp_path / "mine.toml").write_text(rules.replace("num_lines > 8", "num_lines > 80"))
    body: dict[str, Any] = light(root.parent, stages=["exact_dedup", "decode", "languages", "signals", "filters"])
    body["source"] = [{"kind": "directory", "paths": [str(root)]}]
    body["filters"] = {"rules": str(tmp_path / "mine.toml")}
    for workers in (1, 2):
        run(body, tmp_path / f"out{workers}", workers)
    assert released(tmp_path / "out1") == released(tmp_path / "out2")
    kept = pa.concat_tables(
        pq.read_table(path, columns=["language", "length_bytes"])
        for path in (tmp_path / "out1" / "dataset").rglob("*.parquet")
    ).to_pylist()
    sizes = {
        language: sum(row["length_bytes"] for row in kept if row["language"] == language)
        for language in ("Python", "Ruby")
    }
    assert 18_000 < sizes["Python"] <= 20_000 and 2_000 < sizes["Ruby"] <= 3_000
    decisions = pa.concat_tables(pq.read_table(path) for path in (tmp_path / "out1" / "decisions").rglob("*.parquet"))
    left = [row for row in decisions.to_pylist() if row["rule"] in ("a", "others")]
    assert len(left) == 240 - len(kept), json.dumps(left[:2], default=str)
    assert all("bytes" in row["detail"] for row in left)
