"""One visit of each repository is walked: the last full one, under whichever of its URLs."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.origins import Unreadable, origin_of_url
from stackbuild.sources.swh.tables import VISIT_STATUSES, VISITS
from stackbuild.sources.swh.visits import GITHUB_URL, Selection, buckets, last_of, last_visits, repositories

ANY = Selection()
Row = tuple[str, int, int | None, str, bytes | None, str | None]


def table(rows: list[Row]) -> pa.Table:
    """Rows of VISITS; a date is in nanoseconds."""
    names = ("origin", "visit", "date", "status", "snapshot_id", "type")
    told = [dict(zip(names, row, strict=True)) for row in rows]
    for row in told:
        row["status"] = VISIT_STATUSES.index(row["status"])
        row["date_seconds"] = row["date"] and row["date"] // 10**9
    return pa.Table.from_pylist(told, VISITS.schema)


def last(rows: list[Row], selection: Selection = ANY, partitions: int = 4) -> list[dict[str, Any]]:
    found, _ = last_visits(table(rows).to_batches(2), selection, partitions)
    return found.drop_columns(["bucket"]).to_pylist()


def snapshot(number: int) -> bytes:
    return bytes([number]) * 20


def test_the_last_full_visit_by_date_and_then_by_number_under_all_names() -> None:
    rows: list[Row] = [
        ("https://github.com/Ada/Prog", 7, 100, "full", snapshot(1), "git"),
        ("https://github.com/ada/prog.git", 1, 300, "full", snapshot(2), "git"),
        ("http://github.com/ada/prog/", 9, 300, "full", snapshot(3), "git"),
        ("https://github.com/ada/prog", 11, 900, "partial", snapshot(4), "git"),
        ("https://github.com/ada/prog", 12, 901, "full", None, "git"),
        ("https://github.com/ada/prog", 13, None, "full", snapshot(5), "git"),
    ]
    for turn in range(5):
        random.Random(turn).shuffle(rows)
        (one,) = last(rows)
        assert (one["repository"], one["visit"], one["snapshot_id"]) == ("github.com/ada/prog", 9, snapshot(3))
        assert one["usable"] and one["origin"] == "http://github.com/ada/prog/"
        (partial,) = last(rows, Selection(partial=True))
        assert partial["snapshot_id"] == snapshot(4)


def test_a_repository_without_a_usable_visit_is_kept_and_says_so() -> None:
    (one,) = last(
        [
            ("https://example.org/a/b", 1, 5, "failed", None, "git"),
            ("https://example.org/a/b", 2, 6, "created", None, None),
        ]
    )
    assert not one["usable"] and one["visit"] == 2


def test_compat_takes_the_highest_number_of_each_url() -> None:
    rows: list[Row] = [
        ("https://github.com/ada/prog", 7, 900, "full", snapshot(1), "git"),
        ("https://github.com/ada/prog", 8, 100, "full", snapshot(2), "git"),
        ("https://github.com/ada/prog.git", 1, 300, "full", snapshot(3), "git"),
        ("http://github.com/ada/prog", 9, 300, "full", snapshot(4), "git"),
    ]
    found = {row["origin"]: row["snapshot_id"] for row in last(rows, Selection(compat=True))}
    assert found == {"https://github.com/ada/prog": snapshot(2), "https://github.com/ada/prog.git": snapshot(3)}


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection(forges=("gitlab.com",)), {"gitlab.com/a/b"}),
        (Selection(names=frozenset({"github.com/a/b"})), {"github.com/a/b"}),
        (Selection(pattern="/a/b$", forges=("github.com", "gitlab.com")), {"github.com/a/b", "gitlab.com/a/b"}),
        (Selection(after=200), {"gitlab.com/a/b"}),
        (Selection(before=200), {"github.com/a/b"}),
        (Selection(types=("pypi",)), {"pypi.org/project/p"}),
    ],
)
def test_what_is_not_selected_is_counted(selection: Selection, kept: set[str]) -> None:
    rows: list[Row] = [
        ("https://github.com/a/b", 1, 100, "full", snapshot(1), "git"),
        ("https://gitlab.com/a/b", 1, 300, "full", snapshot(2), None if selection.types == ("git",) else "git"),
        ("https://pypi.org/project/p", 1, None, "full", snapshot(3), "pypi"),
        ("no url", 1, 1, "full", snapshot(4), "git"),
    ]
    found, counts = last_visits(table(rows).to_batches(), selection, 4)
    assert set(found["repository"].to_pylist()) == kept
    assert counts == {"rows": 4, "no_repository": 1, "not_selected": 3 - len(kept)}


def test_a_visit_of_an_old_export_has_no_type_and_counts() -> None:
    assert len(last([("https://github.com/a/b", 1, 100, "full", snapshot(1), None)])) == 1


@given(st.from_regex(GITHUB_URL, fullmatch=True).filter(lambda url: url.isascii() and len(url) < 200))
def test_the_short_way_names_a_repository_as_the_long_one(url: str) -> None:
    host, parts = origin_of_url(url.strip("\n"))
    assert repositories(pa.array([url.strip("\n")]))[0].as_py() == "/".join([host, *parts])


@given(st.text(max_size=40))
def test_whatever_is_no_url_has_no_repository(text: str) -> None:
    try:
        host, parts = origin_of_url(text)
        expected = "/".join([host, *parts]) if parts else None
    except Unreadable:
        expected = None
    assert repositories(pa.array([text]))[0].as_py() == expected


ROWS = st.tuples(
    st.sampled_from([f"https://github.com/o/r{number}{end}" for number in range(4) for end in ("", ".git", "/")]),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(0, 4)),
    st.sampled_from(["full", "partial", "failed"]),
    st.one_of(st.none(), st.sampled_from([snapshot(1), snapshot(2)])),
    st.sampled_from(["git", None]),
)


@given(st.lists(ROWS, max_size=30), st.integers(0, 30), st.randoms())
def test_the_same_comes_out_in_parts_and_in_any_order(rows: list[Row], cut: int, draw: random.Random) -> None:
    selection = Selection()
    whole, _ = last_visits(table(rows).to_batches(), selection, 4)
    draw.shuffle(rows)
    parts = [last_visits(table(part).to_batches(3), selection, 4)[0] for part in (rows[:cut], rows[cut:])]
    assert last_of(parts, selection).equals(whole)
    assert whole["bucket"].to_pylist() == sorted(buckets(whole["repository"].combine_chunks(), 4).tolist())
