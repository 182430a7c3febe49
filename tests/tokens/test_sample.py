"""The sample: every language its fair share, drawn by hash, and the same for any order of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.sample import fair_share, sample


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 1000)), st.integers(0, 3000))
def test_the_share_is_the_largest_that_fits(totals: dict[str, int], budget: int) -> None:
    share = fair_share(totals, budget)

    def used(share: int) -> int:
        return sum(min(total, share) for total in totals.values())

    assert used(share) <= budget
    assert used(share + 1) > budget or share >= max(totals.values(), default=0)


def drawn(path: Path) -> dict[str, list[tuple[str, int]]]:
    table = pq.read_table(path).to_pylist()
    found: dict[str, list[tuple[str, int]]] = {}
    for one in table:
        found.setdefault(one["language"], []).append((one["content_id"], len(one["content"].encode())))
    return found


def test_each_language_gives_its_files_of_smallest_draw(tmp_path: Path, rows: Any, write_dataset: Any) -> None:
    paths = write_dataset(tmp_path, rows, 3)
    options = TokensOptions(sample_bytes=9000)
    facts = sample(paths, options, 7, tmp_path / "s")
    found = drawn(tmp_path / "s")
    totals: dict[str, int] = {}
    for one in rows:
        totals[one["language"]] = totals.get(one["language"], 0) + one["length_bytes"]
    share = fair_share(totals, 9000)
    for language in totals:
        expected, used = [], 0
        mine = [one for one in rows if one["language"] == language and one["length_bytes"]]
        for one in sorted(mine, key=lambda one: draw(7, "sample", one["content_id"])):
            if used >= share:
                break
            used += one["length_bytes"]
            expected.append((one["content_id"], one["length_bytes"]))
        assert found[language] == expected
    assert facts["bytes"] == sum(size for files in found.values() for _, size in files)
    assert facts["files"] == sum(map(len, found.values())) and facts["languages"] == 3


def test_the_sample_does_not_depend_on_files_or_their_order(tmp_path: Path, rows: Any, write_dataset: Any) -> None:
    options = TokensOptions(sample_bytes=20_000)
    sample(write_dataset(tmp_path / "1", rows, 1), options, 3, tmp_path / "a")
    sample(write_dataset(tmp_path / "4", rows[::-1], 4)[::-1], options, 3, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    sample(write_dataset(tmp_path / "1", rows, 1), options, 4, tmp_path / "c")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_a_large_sample_takes_everything(tmp_path: Path, rows: Any, write_dataset: Any) -> None:
    facts = sample(write_dataset(tmp_path, rows, 2), TokensOptions(), 0, tmp_path / "s")
    assert facts["files"] == sum(one["length_bytes"] > 0 for one in rows)


def test_candidates_are_bounded_by_the_budget(tmp_path: Path, row: Any, write_dataset: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("stackbuild.tokens.sample.ROWS", 8)
    many = [row("o/n", f"/{k}", "x" * 10) for k in range(3000)]
    held = []
    original = __import__("stackbuild.tokens.sample", fromlist=["Candidates"]).Candidates.add

    def add(self: Any, *arrays: Any) -> None:
        original(self, *arrays)
        held.append(len(self.draws))

    monkeypatch.setattr("stackbuild.tokens.sample.Candidates.add", add)
    sample(write_dataset(tmp_path, many, 20), TokensOptions(sample_bytes=100), 0, tmp_path / "s")
    assert max(held) < 200


def test_files_with_giant_words_are_left_out_and_counted(tmp_path: Path, row: Any, write_dataset: Any) -> None:
    rows = [row("o/n", "/a", "a" * 4096), row("o/n", "/b", "b" * 4097), row("o/n", "/c", "1" * 9000)]
    facts = sample(write_dataset(tmp_path, rows, 1), TokensOptions(), 0, tmp_path / "s")
    assert (facts["files"], facts["left_out"]) == (2, 1)


def test_no_files_give_an_empty_sample(tmp_path: Path, write_dataset: Any) -> None:
    assert sample(write_dataset(tmp_path, [], 1), TokensOptions(), 0, tmp_path / "s")["files"] == 0
    assert sample([], TokensOptions(), 0, tmp_path / "t")["files"] == 0


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x")
    with pytest.raises(InputError, match="no column content, content_id, language"):
        sample([tmp_path / "x"], TokensOptions(), 0, tmp_path / "s")
    (tmp_path / "y").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        sample([tmp_path / "y"], TokensOptions(), 0, tmp_path / "s")
