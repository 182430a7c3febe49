"""What GH Archive's hourly files tell of repositories, in all the shapes that they have had, and which of it a visit is given."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from collections import Counter
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from stackbuild.errors import InputError
from stackbuild.sources.gharchive import hours as hourly
from stackbuild.sources.gharchive.events import GATHERED, gather
from stackbuild.sources.gharchive.facts import BUCKETED, facts, told_of_visits
from stackbuild.sources.gharchive.hours import HourFile, by_day, lines, list_hours
from stackbuild.sources.swh.session import rows_of, session
from stackbuild.sources.swh.visits import buckets
from tests.sources.gharchive.mini_hours import Hours, whole

DAY = "2016-05-01T10:00:00Z"


def told(hours: Hours, folder: Path, compat: bool = False) -> tuple[dict[str, dict[str, Any]], Counter[str]]:
    """FACTS by name, each day gathered by itself, and what was left out."""
    hours.write(folder / "hours")
    left_out: Counter[str] = Counter()
    days: dict[str, list[pa.RecordBatch]] = {name: [] for name in GATHERED}
    for day in by_day(list_hours(str(folder / "hours"))):
        with session(folder / "scratch") as connection:
            gather(connection, chain.from_iterable(lines(hour, left_out) for hour in day), left_out, compat)
            for name, (query, schema) in GATHERED.items():
                days[name] += rows_of(connection, f"SELECT * FROM ({query}) ORDER BY ALL", schema)
    with session(folder / "scratch") as connection:
        batches = facts(connection, {name: iter(batches) for name, batches in days.items()}, 4, compat)
        found = pa.Table.from_batches(batches, BUCKETED)
    assert found["bucket"].to_pylist() == sorted(buckets(found["repository"].combine_chunks(), 4).tolist())
    return {f"{row['repository'].removeprefix('github.com/')}": row for row in found.to_pylist()}, +left_out


def test_stars_and_forks_are_counted_over_all_names_and_each_event_once(tmp_path: Path) -> None:
    hours = Hours()
    for at in (DAY, DAY, "2016-05-02T10:00:00Z"):
        hours.event("WatchEvent", 7, "alice/old", at)
    hours.event("WatchEvent", 7, "alice/new", "2017-01-01T00:00:00Z", event="9")
    hours.event("WatchEvent", 7, "alice/new", "2017-01-01T00:30:00Z", event="9")  # the same, which a file holds twice
    hours.event("WatchEvent", 7, "alice/new", "2017-01-01T01:00:00Z", event="9")  # or that of the next hour
    hours.fork(7, "alice/new", "2017-01-02T00:00:00Z", whole(8, "bob/new"))
    hours.event("PushEvent", 7, "alice/new", "2017-01-02T00:00:00Z")
    found, left_out = told(hours, tmp_path)
    counts = {
        name: (row["github_id"], row["star_events_count"], row["fork_events_count"]) for name, row in found.items()
    }
    assert counts == {"alice/old": (7, 4, 1), "alice/new": (7, 4, 1), "bob/new": (8, 0, 0)}
    assert left_out == {}


def test_names_over_time_are_known_with_the_present_one_last(tmp_path: Path) -> None:
    hours = Hours()
    hours.timeline("PushEvent", 7, "Alice/first", "2012-03-10T22:55:05-08:00")
    hours.event("PushEvent", 7, "alice/third", "2018-01-01T00:00:00Z")
    hours.event("PushEvent", 7, "alice/second", "2016-01-01T00:00:00Z")
    hours.event("PushEvent", 7, "Alice/Third", "2019-01-01T00:00:00Z")  # the same name, written otherwise
    found, _ = told(hours, tmp_path)
    assert {row["names"] for row in found.values()} == {"Alice/first alice/second Alice/Third"}
    assert set(found) == {"alice/first", "alice/second", "alice/third"}


def test_what_a_repository_is_like_is_said_by_the_newest_whole_object(tmp_path: Path) -> None:
    """Pull requests hold nothing since 2025-10; that is no news."""
    hours = Hours()
    hours.pull_request(7, "alice/tool", "2016-05-02T10:00:00Z", default_branch="old", license="GPL-3.0")
    hours.pull_request(
        7, "alice/tool", "2020-05-02T10:00:00Z", default_branch="develop", license="MIT", language="Rust"
    )
    hours.pull_request(7, "alice/tool", "2018-05-02T10:00:00Z", default_branch="older")
    hours.trimmed_pull_request(7, "alice/tool", "2025-11-02T10:00:00Z")
    hours.trimmed_pull_request(9, "alice/other", "2025-11-02T10:00:00Z")
    found, _ = told(hours, tmp_path)
    row = found["alice/tool"]
    assert (row["default_branch"], row["gha_license_id"], row["gha_language"]) == ("develop", "MIT", "Rust")
    assert row["gha_event_created_at"] == datetime(2020, 5, 2, 10) and row["gha_created_at"] == datetime(
        2012, 3, 4, 5, 6, 7
    )
    assert found["alice/other"]["default_branch"] is None and found["alice/other"]["gha_event_created_at"] is None


def test_a_default_branch_is_also_told_when_a_branch_is_made(tmp_path: Path) -> None:
    hours = Hours()
    hours.pull_request(7, "alice/tool", "2020-05-02T10:00:00Z", default_branch="master", license="MIT")
    hours.event(
        "CreateEvent", 7, "alice/tool", "2021-01-01T00:00:00Z", ref="x", ref_type="branch", master_branch="main"
    )
    hours.event(
        "CreateEvent", 9, "alice/other", "2021-01-01T00:00:00Z", ref=None, ref_type="repository", master_branch="dev"
    )
    found, _ = told(hours, tmp_path)
    assert (found["alice/tool"]["default_branch"], found["alice/tool"]["gha_license_id"]) == ("main", "MIT")
    assert found["alice/other"]["default_branch"] == "dev"


@pytest.mark.parametrize("at", ["2013-09-20T09:03:41-07:00", "2013/09/20 09:03:41 -0700"])
def test_events_of_before_2015_tell_their_repository(tmp_path: Path, at: str) -> None:
    hours = Hours()
    hours.timeline("WatchEvent", 7, "alice/tool", at)
    hours.timeline("WatchEvent", 7, "alice/tool", at)  # they have no number: each counts
    hours.timeline("ForkEvent", 7, "alice/tool", at, payload={"forkee": 8})
    hours.timeline("PushEvent", 8, "bob/tool", at, url="https://github.com/acme/tool", master_branch=None)
    found, left_out = told(hours, tmp_path)
    row = found["alice/tool"]
    assert (row["star_events_count"], row["fork_events_count"], row["default_branch"]) == (2, 1, "trunk")
    assert (row["gha_language"], row["gha_created_at"]) == ("C", datetime(2010, 6, 30, 19, 38, 8))
    assert row["since"] == datetime(2010, 6, 30, 19, 38, 8) and row["until"] == datetime(2013, 9, 20, 16, 3, 41)
    assert (
        found["acme/tool"]["forked_from"] == "alice/tool"
    )  # by the address, as the owner of an organisation's is a person
    assert left_out == {}


def test_who_was_forked_from_whom_is_known_by_number(tmp_path: Path) -> None:
    hours = Hours()
    hours.fork(7, "alice/tool", DAY, whole(8, "bob/tool", default_branch="dev", fork=True))
    hours.event("PushEvent", 8, "bob/renamed", "2018-01-01T00:00:00Z")
    hours.fork(9, "eve/tool", "2020-01-01T00:00:00Z", whole(8, "bob/tool"))  # later: not how it came to be
    hours.fork(8, "bob/tool", DAY, {"id": 8})  # of itself
    found, _ = told(hours, tmp_path)
    assert found["bob/renamed"]["forked_from"] == found["bob/tool"]["forked_from"] == "alice/tool"
    assert found["alice/tool"]["forked_from"] is None


def test_lines_that_are_no_events_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    hours = Hours()
    hours.event("WatchEvent", 7, "alice/tool", DAY)
    for line in (b'{"a":', b"\0", b'{"type": "\xff', b"[" * 100_000, b'{"type": "x", "created_at": "\\ud800"}'):
        hours.line(DAY, line)
    for line in (
        b"[1]",
        b"null",
        b'"text"',
        b"{}",
        b'{"type":"WatchEvent","created_at":"tomorrow"}',
        b'{"type":3,"repo":[]}',
    ):
        hours.line(DAY, line)
    hours.line(DAY, b"")
    hours.event("WatchEvent", 7, "../tool", DAY)
    hours.event("WatchEvent", -1, "alice/tool", DAY)
    hours.event("WatchEvent", 2**70, "alice/tool", DAY)
    hours.line(
        DAY, b'{"type":"PullRequestEvent","created_at":"%s","repo":"x","payload":{"pull_request":[]}}' % DAY.encode()
    )
    hours.line(
        DAY,
        b'{"type":"ForkEvent","created_at":"%s","repo":{"id":7,"name":"a/b"},"payload":{"forkee":"x"}}' % DAY.encode(),
    )
    hours.event("WatchEvent", 7, "alice/tool", DAY)
    found, left_out = told(hours, tmp_path)
    assert found["alice/tool"]["star_events_count"] == 2 and set(found) == {"alice/tool", "a/b"}
    assert left_out == {"not_json": 5, "not_an_event": 6, "no_repository": 4, "not_utf8": 1}


@pytest.mark.parametrize(
    "at",
    ["99999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0044-03-15 (BC) 00:00:00Z", "2262-05-01T00:00:00Z", "infinity"],
)
def test_a_time_that_no_table_has_is_none(tmp_path: Path, at: str) -> None:
    hours = Hours()
    hours.pull_request(7, "alice/tool", DAY, created_at=at)
    hours.line(DAY, json.dumps({"type": "WatchEvent", "repo": {"id": 8, "name": "a/b"}, "created_at": at}).encode())
    ((row,),) = visited(hours, tmp_path, {"alice/tool": "2017-01-01"}).values()
    assert (row["github_id"], row["gha_created_at"], row["default_branch"]) == (7, None, "main")
    found, left_out = told(hours, tmp_path / "again")
    assert set(found) == {"alice/tool"} and left_out == {"not_an_event": 1}


def test_a_time_without_a_zone_is_the_same_on_each_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = Hours()
    hours.event("WatchEvent", 7, "alice/tool", "2016-05-01T10:00:00")
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        found, _ = told(hours, tmp_path)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found["alice/tool"]["since"] == datetime(2016, 5, 1, 10)


@pytest.mark.parametrize("number", ["7.6", 7.6, "0x7", "7_0", " 7", 0, True, {"id": 7}])
def test_a_number_that_is_none_is_no_repository(tmp_path: Path, number: Any) -> None:
    hours = Hours()
    hours.event("WatchEvent", number, "alice/tool", DAY)
    assert told(hours, tmp_path) == ({}, {"no_repository": 1})


@pytest.mark.parametrize("cut", [0, 1, 400, -1])
def test_what_can_be_read_of_a_damaged_file_counts(tmp_path: Path, cut: int) -> None:
    """A few of the published files are cut short. An empty one is that of an hour without events."""
    texts = [b'{"n":%d,"x":"%s"}\n' % (n, b"abcdefgh"[n % 8 :]) for n in range(5_000)]
    data = gzip.compress(b"".join(texts[:3_000]), mtime=0) + gzip.compress(
        b"".join(texts[3_000:]), mtime=0
    )  # two members
    (tmp_path / "2016-05-01-1.json.gz").write_bytes(data[:cut])
    left_out: Counter[str] = Counter()
    read = [line for hour in list_hours(str(tmp_path)) for found in lines(hour, left_out) for line in found.to_pylist()]
    assert left_out == ({"damaged_files": 1} if cut else {})
    assert "".join(read).encode() == b"".join(texts)[: len("".join(read))]
    assert len(read) == 5_000 if cut == -1 else len(read) < 3_000
    (tmp_path / "2016-05-01-1.json.gz").write_bytes(data + b"\0" * 100)
    (hour,) = list_hours(str(tmp_path))
    assert sum(map(len, lines(hour, Counter()))) == 5_000


def test_a_line_without_end_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "BATCH", 1 << 20)
    monkeypatch.setattr(hourly, "LONGEST", 2 << 20)
    data = b'{"n":1}\n' + b"[" * (64 << 20) + b'\n{"n":2}\n'
    path = tmp_path / "2016-05-01-1.json.gz"
    path.write_bytes(gzip.compress(data, 1))
    left_out: Counter[str] = Counter()
    tracemalloc.start()
    read = [
        line for found in lines(HourFile("x", str(path), path.stat().st_size), left_out) for line in found.to_pylist()
    ]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == ['{"n":1}\n', '{"n":2}\n'] and left_out == {"long_lines": 1}
    assert peak < 24 << 20


def test_hours_are_found_wherever_they_lie_and_told_apart_by_name(tmp_path: Path) -> None:
    for name in ("a/2016-05-01-10.json.gz", "a/2016-05-01-9.json.gz", "b/c/2015-12-31-23.json", "2016-05-02-0.json.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name in (
        "2016-05-01-24.json.gz",
        "2016-13-01-1.json.gz",
        "2016-02-30-1.json.gz",
        "other.json.gz",
        "2016-05-01-1.json.zst",
    ):
        (tmp_path / name).write_bytes(b"")
    found = list_hours(str(tmp_path))
    assert [hour.name for hour in found] == ["2015-12-31-23", "2016-05-01-9", "2016-05-01-10", "2016-05-02-0"]
    assert [[hour.name for hour in day] for day in by_day(found)] == [
        ["2015-12-31-23"], ["2016-05-01-9", "2016-05-01-10"], ["2016-05-02-0"],
    ]  # fmt: skip
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "2016-05-01-09.json.gz").write_bytes(b"")
    with pytest.raises(InputError, match="has the hour 2016-05-01-9 twice"):
        list_hours(str(tmp_path))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no file of GH Archive"):
        list_hours(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="is not there"):
        list_hours(str(tmp_path / "gone"))


def test_hours_are_read_from_any_place_that_fsspec_knows() -> None:
    system = fsspec.filesystem("memory")
    hours = Hours()
    for _ in range(3):
        hours.event("WatchEvent", 7, "alice/tool", DAY)
    system.pipe("/gharchive/2016-05-01-10.json.gz", gzip.compress(b"\n".join(hours.lines["2016-05-01-10"])))
    (hour,) = list_hours("memory://gharchive")
    assert sum(map(len, lines(hour, Counter()))) == 3
    system.rm("/gharchive", recursive=True)
    with pytest.raises(InputError, match="is not there"):
        list(lines(hour, Counter()))


def test_a_file_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "2016-05-01-1.json"
    path.write_bytes(b"{}\n")
    (hour,) = list_hours(str(tmp_path))
    path.write_bytes(b"{}\n{}\n")
    with pytest.raises(InputError, match="it had 3 when it was listed"):
        list(lines(hour, Counter()))


# ---- what a visit is given

VISITS = pa.schema([("repository", pa.string()), ("origin", pa.string()), ("date", pa.timestamp("ns"))])


def visited(
    hours: Hours, folder: Path, visits: dict[str, str], compat: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """What is told of visits of repositories (by name, at a date), by name."""
    hours.write(folder / "hours")
    left_out: Counter[str] = Counter()
    with session(folder / "scratch") as connection:
        files = list_hours(str(folder / "hours"))
        gather(connection, chain.from_iterable(lines(hour, left_out) for hour in files), left_out, compat)
        tables = {name: rows_of(connection, query, schema) for name, (query, schema) in GATHERED.items()}
        known = list(facts(connection, {name: iter(list(batches)) for name, batches in tables.items()}, 1, compat))
    rows = [
        {
            "repository": f"https://github.com/{name}" if compat else f"github.com/{name.lower()}",
            "origin": f"https://github.com/{name}",
            "date": datetime.fromisoformat(date),
        }
        for name, date in visits.items()
    ]
    with session(folder / "scratch") as connection:
        found = told_of_visits(connection, pa.Table.from_pylist(rows, VISITS), iter(known), compat)
    by_name: dict[str, list[dict[str, Any]]] = {name: [] for name in visits}
    for row in found.to_pylist():
        by_name[row["origin"].removeprefix("https://github.com/")].append(row)
    return by_name


def test_names_of_one_repository_are_one_and_a_name_is_whose_it_was(tmp_path: Path) -> None:
    hours = Hours()
    hours.event("WatchEvent", 7, "alice/tool", "2015-02-01T00:00:00Z")
    hours.event("WatchEvent", 7, "alice/renamed", "2017-01-01T00:00:00Z")
    hours.event("WatchEvent", 8, "alice/tool", "2019-01-01T00:00:00Z")  # the name came to another
    hours.event("WatchEvent", 8, "alice/tool", "2019-01-02T00:00:00Z")
    early = visited(
        hours, tmp_path / "early", {"alice/Tool": "2018-01-01", "alice/renamed": "2020-01-01", "eve/x": "2020-01-01"}
    )
    assert {name: row["repository"] for name, (row,) in early.items()} == {
        "alice/Tool": "github.com#7", "alice/renamed": "github.com#7", "eve/x": "github.com/eve/x",
    }  # fmt: skip
    assert early["eve/x"][0]["star_events_count"] == 0 and early["eve/x"][0]["github_id"] is None
    late = visited(hours, tmp_path / "late", {"alice/tool": "2020-01-01"})
    assert late["alice/tool"][0]["github_id"] == 8 and late["alice/tool"][0]["star_events_count"] == 2
    first = visited(hours, tmp_path / "first", {"alice/tool": "2014-01-01"})  # before anything was told of it
    assert first["alice/tool"][0]["github_id"] == 7


def test_compat_knows_a_name_as_it_is_written_and_all_who_bore_it(tmp_path: Path) -> None:
    """Stars by name, what the newest event says under that name only, no event of before 2015, every line."""
    hours = Hours()
    hours.timeline("WatchEvent", 7, "alice/tool", "2014-02-01T00:00:00-08:00")
    hours.event("WatchEvent", 7, "alice/tool", "2015-02-01T00:00:00Z", event="5")
    hours.event("WatchEvent", 7, "alice/tool", "2015-02-01T00:00:00Z", event="5")
    hours.pull_request(7, "alice/tool", "2015-03-01T00:00:00Z", default_branch="old", license="MIT")
    hours.event("WatchEvent", 8, "alice/tool", "2019-01-01T00:00:00Z")
    hours.pull_request(8, "alice/tool", "2019-03-01T00:00:00Z", default_branch="new")
    hours.pull_request(9, "bob/a", "2019-03-01T00:00:00Z", default_branch="dev")
    hours.pull_request(9, "bob/b", "2020-03-01T00:00:00Z", default_branch="main")
    found = visited(
        hours, tmp_path, {"alice/tool": "2016-01-01", "Alice/tool": "2016-01-01", "bob/a": "2021-01-01"}, compat=True
    )
    told_of = {
        name: sorted(
            (row["github_id"], row["star_events_count"], row["default_branch"], row["gha_license_id"]) for row in rows
        )
        for name, rows in found.items()
    }
    assert told_of == {
        "alice/tool": [(7, 2, "old", "MIT"), (8, 1, "new", None)],
        "Alice/tool": [(None, 0, None, None)],
        "bob/a": [(9, 0, None, None)],
    }


def test_compat_knows_no_default_branch_by_its_old_word(tmp_path: Path) -> None:
    """Objects of before 2013 call it `master_branch`, which The Stack v2 did not read."""
    for compat, branch in ((True, None), (False, "trunk")):
        hours = Hours()
        hours.pull_request(7, "alice/tool", "2015-05-02T10:00:00Z", default_branch=None, master_branch="trunk")
        ((row,),) = visited(hours, tmp_path / str(compat), {"alice/tool": "2017-01-01"}, compat=compat).values()
        assert (row["github_id"], row["default_branch"]) == (7, branch)


def test_compat_tells_all_names_so_that_who_asked_is_heard(tmp_path: Path) -> None:
    """The Stack v2 did not know them; nothing is chosen by them."""
    hours = Hours()
    hours.event("WatchEvent", 7, "alice/tool", "2015-02-01T00:00:00Z")
    hours.fork(6, "eve/tool", "2015-03-01T00:00:00Z", {"id": 7})
    hours.event("WatchEvent", 7, "bob/tool", "2016-02-01T00:00:00Z")
    ((row,),) = visited(hours, tmp_path, {"bob/tool": "2017-01-01"}, compat=True).values()
    assert (row["names"], row["forked_from"], row["star_events_count"]) == ("alice/tool bob/tool", "eve/tool", 1)


def test_a_renamed_repository_bore_its_new_name_only_since_it_was_seen_under_it(tmp_path: Path) -> None:
    """Its creation, which is earlier, says nothing of that name."""
    hours = Hours()
    hours.event("WatchEvent", 8, "bob/x", "2015-02-01T00:00:00Z")
    hours.event("WatchEvent", 7, "alice/x", "2015-02-01T00:00:00Z")
    hours.pull_request(7, "bob/x", "2018-02-01T00:00:00Z", created_at="2012-01-01T00:00:00Z")
    ((row,),) = visited(hours, tmp_path, {"bob/x": "2016-01-01"}).values()
    assert row["github_id"] == 8


def test_compat_joins_no_name_that_was_only_told_in_passing(tmp_path: Path) -> None:
    hours = Hours()
    hours.event("PullRequestEvent", 7, "alice/tool", DAY, pull_request={"base": {"repo": whole(7, "alice/passing")}})
    ((row,),) = visited(hours, tmp_path, {"alice/passing": "2017-01-01"}, compat=True).values()
    assert row["github_id"] is None


def test_only_a_repository_of_github_has_no_stars_where_nothing_is_told(tmp_path: Path) -> None:
    visit = {"repository": "gitlab.com/a/b", "origin": "https://gitlab.com/a/b", "date": datetime(2017, 1, 1)}
    with session(tmp_path) as connection:
        (row,) = told_of_visits(connection, pa.Table.from_pylist([visit], VISITS), iter(())).to_pylist()
    assert (row["repository"], row["star_events_count"]) == ("gitlab.com/a/b", None)


def test_a_repository_of_before_2015_is_whole_without_a_default_branch(tmp_path: Path) -> None:
    hours = Hours()
    hours.timeline("PushEvent", 7, "alice/tool", "2013-09-20T09:03:41-07:00", master_branch=None)
    found, _ = told(hours, tmp_path)
    assert (found["alice/tool"]["gha_language"], found["alice/tool"]["default_branch"]) == ("C", None)
