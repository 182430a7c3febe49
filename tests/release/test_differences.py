"""What `manifest diff` tells: gained, lost, changed, rewritten, moved; each row once, in counts and in rows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.release import differences as module
from stackbuild.release.differences import STATES, differences
from tests.release.releases import File, release
from tests.test_publish import main

BOTH = [File("x/one", b"same.py", b"same\n"), File("x/one", b"again.py", b"same\n")]
FIRST = [
    *BOTH,
    File("x/one", b"a.py", b"1\n"),
    File("x/one", b"old.py", b"moves\n"),
    File("y/two", b"gone.c", b"gone\n", language="C"),
]
SECOND = [
    *BOTH,
    File("x/one", b"a.py", b"2\n"),
    File("z/new", b"new.py", b"moves\n"),
    File("z/new", b"more.py", b"more\n"),
]


def compared(tmp_path: Path, first: list[File], second: list[File], **options: Any) -> module.Differences:
    release(tmp_path / "a", first)
    release(tmp_path / "b", second)
    return differences(tmp_path / "a" / "manifest", tmp_path / "b" / "manifest", **options)


def test_each_row_is_told_once(tmp_path: Path) -> None:
    found = compared(tmp_path, FIRST, SECOND, rows=tmp_path / "rows.parquet")
    assert found.counts == {"gained": 1, "lost": 1, "changed": 1, "rewritten": 0, "moved": 1, "same": 2}
    rows = {row["state"]: row for row in pq.read_table(tmp_path / "rows.parquet").to_pylist()}
    assert set(rows) == {"gained", "lost", "changed", "moved"}
    assert rows["gained"]["path_bytes_b"] == b"more.py" and rows["gained"]["path_bytes_a"] is None
    assert rows["lost"]["path_bytes_a"] == b"gone.c" and rows["lost"]["repo_name_b"] is None
    assert (rows["moved"]["path_bytes_a"], rows["moved"]["path_bytes_b"]) == (b"old.py", b"new.py")
    assert rows["changed"]["swhid_a"] != rows["changed"]["swhid_b"]
    assert found.languages == {"Python": {"changed": 1, "gained": 1, "moved": 1}, "C": {"lost": 1}}
    assert found.most == {"z/new": {"gained": 1, "moved": 1}, "x/one": {"changed": 1}, "y/two": {"lost": 1}}
    assert found.repositories == 3


def test_another_revision_of_the_same_files_is_the_same(tmp_path: Path) -> None:
    found = compared(tmp_path, FIRST, [replace(file, revision="2" * 40) for file in FIRST])
    assert found.counts["same"] == len(FIRST) and sum(found.counts.values()) == len(FIRST)


def test_the_same_bytes_with_another_text_are_rewritten(tmp_path: Path) -> None:
    release(tmp_path / "a", BOTH)
    release(tmp_path / "b", BOTH, lambda row: {**row, "text_sha256": "0" * 64})
    found = differences(tmp_path / "a" / "manifest", tmp_path / "b" / "manifest")
    assert found.counts["rewritten"] == 2 and found.counts["same"] == 0


def test_what_stands_twice_counts_twice(tmp_path: Path) -> None:
    once = [File("x/one", b"a.py", b"same\n", revision="1" * 40)]
    twice = [*once, File("x/one", b"a.py", b"same\n", revision="2" * 40)]
    found = compared(tmp_path, once, twice)
    assert (found.counts["same"], found.counts["gained"]) == (1, 1)


def test_an_empty_manifest_is_compared(tmp_path: Path) -> None:
    found = compared(tmp_path, BOTH, [replace(file, released=False) for file in BOTH])
    assert found.counts["lost"] == 2


FILES = st.builds(
    File,
    repo=st.sampled_from(["a/x", "b/y"]),
    path=st.sampled_from([b"1", b"2", b"3"]),
    data=st.sampled_from([b"x", b"y", b"z"]),
    revision=st.sampled_from(["1" * 40, "2" * 40]),
)


@given(
    first=st.lists(FILES, min_size=1, max_size=8, unique_by=lambda f: (f.repo, f.revision, f.path)),
    second=st.lists(FILES, min_size=1, max_size=8, unique_by=lambda f: (f.repo, f.revision, f.path)),
)
@settings(max_examples=10)
def test_states_are_those_of_a_slow_count(
    tmp_path_factory: pytest.TempPathFactory, first: list[File], second: list[File]
) -> None:
    found = compared(tmp_path_factory.mktemp("d"), first, second)
    sides = [Counter((f.repo, f.path, f.data) for f in files) for files in (first, second)]
    expected = dict.fromkeys(STATES, 0)
    for state, keys in (("same", (0, 1, 2)), ("changed", (0, 1))):
        there = [Counter[Any]() for _ in sides]
        for counter, side in zip(there, sides, strict=True):
            for place, count in side.items():
                counter[tuple(place[key] for key in keys)] += count
        common = there[0] & there[1]
        expected[state] = common.total()
        for side in sides:  # which of several rows of a key are taken does not matter to the sums that are left
            left = Counter(common)
            for place in sorted(side):
                key = tuple(place[k] for k in keys)
                taken = min(side[place], left[key])
                side[place] -= taken
                left[key] -= taken
    assert {k: found.counts[k] for k in ("same", "changed")} == {k: expected[k] for k in ("same", "changed")}
    assert len(first) == found.counts["lost"] + sum(found.counts[s] for s in ("same", "changed", "moved", "rewritten"))
    assert len(second) == found.counts["gained"] + sum(
        found.counts[s] for s in ("same", "changed", "moved", "rewritten")
    )


def test_the_command_tells_and_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release(tmp_path / "a", FIRST)
    release(tmp_path / "b", SECOND)
    assert main(["manifest", "diff", str(tmp_path / "a"), str(tmp_path / "b" / "manifest"), "--repositories", "1"]) == 0
    told = capsys.readouterr().out
    assert "1 rows gained" in told and "  z/new: 1 gained, 1 moved" in told and "and 2 more" in told
    assert main(["manifest", "diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["moved"] == 1


def test_a_folder_without_a_manifest_and_a_place_that_is_none_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(tmp_path / "a", BOTH)
    assert main(["manifest", "diff", str(tmp_path / "a"), str(tmp_path)]) == 4
    assert "header.json" in capsys.readouterr().err
    assert (
        main(["manifest", "diff", str(tmp_path / "a"), str(tmp_path / "a"), "--rows", str(tmp_path / "no" / "x")]) == 4
    )
    assert "its folder is not there" in capsys.readouterr().err
