"""Converted tables: right against the objects themselves, the same bytes for any batch, memory and format."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import orc

from stackbuild.schema import ID
from stackbuild.sources.swh import row_order
from stackbuild.sources.swh.convert import Counts, convert, convert_batch, convert_file, times
from stackbuild.sources.swh.export import Export, open_export, opened
from stackbuild.sources.swh.row_order import key_of, merge, order, write_run
from stackbuild.sources.swh.tables import (
    ALIAS,
    BRANCHES,
    CONTENTS,
    DIR,
    ENTRIES,
    FILE,
    ORIGINS,
    RAW_DIRECTORIES,
    RELEASES,
    REV,
    REVISIONS,
    SKIPPED,
    TABLES,
    TARGET_TYPES,
    VISIT_STATUSES,
    VISITS,
    TableSpec,
)
from stackbuild.swhid import blob_id, parse_tree
from tests.sources.swh.mini_export import Format, MiniExport, make_export, schema_of

SPECS = pytest.mark.parametrize("spec", TABLES.values(), ids=TABLES)
A, B = "aa" * 20, "bb" * 20


@pytest.fixture(scope="module")
def minis(tmp_path_factory: pytest.TempPathFactory) -> dict[Format, MiniExport]:
    return {f: make_export(tmp_path_factory.mktemp(f), f, objects=False) for f in ("orc", "parquet")}


def read(export: Export, spec: TableSpec, scratch: Path, **options: Any) -> tuple[list[pa.Table], Counts]:
    """The converted files of a table, and what was counted of the last."""
    tables, counts = [], Counts()
    for file in export.table(spec.source):
        counts = Counts()
        with opened(file) as table:
            pieces = list(convert(table, spec, scratch, counts, **options))
        tables.append(pa.Table.from_batches(pieces, spec.schema))
        assert counts.rows_in == counts.rows_out + counts.unwanted + counts.left_out.total()
        assert counts.rows_out == tables[-1].num_rows
    return tables, counts


def all_rows(mini: MiniExport, spec: TableSpec, scratch: Path) -> Counter[tuple[Any, ...]]:
    tables, _ = read(open_export(str(mini.root)), spec, scratch)
    return Counter(tuple(row.values()) for table in tables for row in table.to_pylist())


# ---------------------------------------------------------------- against the objects


def test_entries_are_those_of_the_trees(minis: dict[Format, MiniExport], tmp_path: Path) -> None:
    world = minis["orc"].world
    kinds = {0o040000: DIR, 0o160000: REV}
    expected = Counter(
        (tree, name, kinds.get(mode & 0o170000, FILE), target, mode)
        for tree, raw in world.trees.items()
        if tree not in world.absent
        for name, mode, target in parse_tree(raw)
    )
    assert all_rows(minis["orc"], ENTRIES, tmp_path) == expected
    assert {row[2] for row in expected} == {FILE, DIR, REV}


def test_contents_and_skipped_ones_have_both_hashes_under_their_right_names(
    minis: dict[Format, MiniExport], tmp_path: Path
) -> None:
    world = minis["orc"].world
    there = {i: data for i, data in world.contents.items() if i not in world.absent}
    assert all_rows(minis["orc"], CONTENTS, tmp_path) == Counter(
        (i, blob_id(data), len(data), int(i in world.hidden)) for i, data in there.items() if i not in world.skipped
    )
    assert all_rows(minis["orc"], SKIPPED, tmp_path) == Counter(
        [(i, blob_id(there[i]), len(there[i]), 2, reason) for i, reason in world.skipped.items()]
        + [(None, None, 200 << 20, 2, "Content too large")]
    )


def test_revisions_keep_dates_that_no_timestamp_holds(minis: dict[Format, MiniExport], tmp_path: Path) -> None:
    world = minis["orc"].world
    expected = Counter(
        (i, commit.tree, commit.date, commit.committer_date)
        for i, commit in world.commits.items()
        if i not in world.absent
    )
    assert any(date > 2**63 // 10**9 for _, _, date, _ in expected)
    assert all_rows(minis["orc"], REVISIONS, tmp_path) == expected
    assert all_rows(minis["parquet"], REVISIONS, tmp_path) == expected


def test_an_alias_names_a_branch_and_all_other_targets_are_ids(minis: dict[Format, MiniExport], tmp_path: Path) -> None:
    world = minis["orc"].world
    expected = Counter(
        (i, name, target[1], TARGET_TYPES.index(target[0]))
        for i, branches in world.snapshots.items()
        for name, target in branches.items()
        if target is not None
    )
    assert all_rows(minis["orc"], BRANCHES, tmp_path) == expected
    aliases = {row[2] for row in expected if row[3] == ALIAS}
    assert {b"refs/heads/caf\xe9", b"releases/1.0"} <= aliases


def test_visits_origins_releases_and_raw_directories_are_those_of_the_world(
    minis: dict[Format, MiniExport], tmp_path: Path
) -> None:
    world = minis["orc"].world
    tables, _ = read(open_export(str(minis["orc"].root)), VISITS, tmp_path)
    rows = [
        row for table in tables for row in table.cast(VISITS.schema.set(2, pa.field("date", pa.int64()))).to_pylist()
    ]
    assert Counter(tuple(row.values()) for row in rows) == Counter(
        (v.url, v.visit, v.date * 1000, v.date // 10**6, VISIT_STATUSES.index(v.status), v.snapshot, v.type)
        for v in world.visits
    )
    assert all_rows(minis["orc"], ORIGINS, tmp_path) == Counter(
        (url, hashlib.sha1(url.encode()).digest()) for url in minis["orc"].origins
    )
    assert all_rows(minis["orc"], RELEASES, tmp_path) == Counter(
        (i, tag.target, TARGET_TYPES.index(tag.target_type)) for i, tag in world.tags.items()
    )
    assert all_rows(minis["orc"], RAW_DIRECTORIES, tmp_path) == Counter(world.raw_manifests.items())


# ---------------------------------------------------------------- same rows, same bytes


@SPECS
def test_orc_and_parquet_give_the_same_bytes(minis: dict[Format, MiniExport], tmp_path: Path, spec: TableSpec) -> None:
    digests: list[list[str]] = []
    for mini in minis.values():
        digests.append([])
        for file in open_export(str(mini.root)).table(spec.source):
            with opened(file) as table:
                convert_file(table, spec, tmp_path / "out.parquet", tmp_path)
            digests[-1].append(hashlib.sha256((tmp_path / "out.parquet").read_bytes()).hexdigest())
    assert digests[0] == digests[1]


@SPECS
@pytest.mark.parametrize(("batch_rows", "memory"), [(1, 1), (3, 2000), (7, 1 << 30)])
def test_neither_batches_nor_memory_change_what_comes_out(
    minis: dict[Format, MiniExport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: TableSpec,
    batch_rows: int, memory: int,
) -> None:  # fmt: skip
    """Runs are spilled and merged in levels; nothing of them is left."""
    monkeypatch.setattr(row_order, "BLOCK_ROWS", 2)
    monkeypatch.setattr(row_order, "FAN_IN", 3)
    export = open_export(str(minis["orc"].root))
    expected, _ = read(export, spec, tmp_path)
    found, counts = read(export, spec, tmp_path, batch_rows=batch_rows, memory_bytes=memory)
    assert found == expected
    assert not list(tmp_path.iterdir())
    if memory == 1 and counts.rows_out > 1:
        assert counts.runs == counts.rows_out


@SPECS
def test_rows_are_sorted_by_the_key_as_bytes(minis: dict[Format, MiniExport], tmp_path: Path, spec: TableSpec) -> None:
    for table in read(open_export(str(minis["orc"].root)), spec, tmp_path)[0]:
        keys = [tuple(_comparable(row[name]) for name in spec.key) for row in table.to_pylist()]
        assert keys == sorted(keys)


def _comparable(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else bytes(20) if value is None else value


def test_a_file_of_row_groups_has_a_filter_and_ranges(tmp_path: Path) -> None:
    rows = 250_000
    folder = tmp_path / "orc" / "content"
    folder.mkdir(parents=True)
    ids = [hashlib.sha1(b"%d" % i).hexdigest() for i in range(rows)]
    table = pa.table({"sha1": ids, "sha1_git": ids[::-1], "length": range(rows), "status": ["visible"] * rows})
    orc.write_table(table, str(folder / "c.orc"))
    with opened(open_export(str(tmp_path)).table("content")[0]) as file:
        counts = convert_file(file, CONTENTS, tmp_path / "out.parquet", tmp_path, 8 << 20)
    assert counts.runs > 3
    written = pq.ParquetFile(tmp_path / "out.parquet")
    groups = [written.metadata.row_group(group) for group in range(written.num_row_groups)]
    assert [group.num_rows for group in groups] == [100_000, 100_000, 50_000]
    ranges = [(group.column(0).statistics.min, group.column(0).statistics.max) for group in groups]
    assert all(one[1] < two[0] for one, two in pairwise(ranges))
    assert (tmp_path / "out.parquet").stat().st_size > _without_filter(written, tmp_path)
    assert all("DICTIONARY" not in e for g in groups for c in range(3) for e in g.column(c).encodings)  # ids, lengths
    assert any("DICTIONARY" in e for e in groups[0].column(3).encodings)  # a status
    found = written.read()
    assert found["content_id"].to_pylist() == sorted(bytes.fromhex(i) for i in ids)
    assert Counter(found["blob_id"].to_pylist()) == Counter(bytes.fromhex(i) for i in ids)


def _without_filter(written: pq.ParquetFile, folder: Path) -> int:
    """Bytes of the columns alone and 64 KB for the footer: the filters come on top."""
    groups = [written.metadata.row_group(group) for group in range(written.num_row_groups)]
    return sum(group.column(c).total_compressed_size for group in groups for c in range(group.num_columns)) + (64 << 10)


# ---------------------------------------------------------------- order

IDS = st.sampled_from([bytes(20), bytes(19) + b"\1", bytes(8) + b"\xff" * 12, b"\xff" * 20, b"\x80" + bytes(19)])
NAMES = st.one_of(st.sampled_from([b"", b"a", b"a.b", b"a0", b"ab", b"\xff", b"https://x/a"]), st.binary(max_size=12))


@given(st.lists(st.tuples(IDS, NAMES), max_size=120), st.integers(1, 40))
def test_rows_come_out_as_a_stable_sort_by_bytes_has_them(rows: list[tuple[bytes, bytes]], cut: int) -> None:
    batch = pa.record_batch(
        {"id": pa.array([r[0] for r in rows], ID), "name": pa.array([r[1] for r in rows], pa.binary())}
    )
    expected = sorted(range(len(rows)), key=lambda place: rows[place])
    assert order(key_of(batch, ("id", "name"))).tolist() == expected
    cut = min(cut, len(rows))  # also of a slice, whose buffers begin elsewhere
    tail = sorted(range(len(rows) - cut), key=lambda place: rows[cut + place])
    assert order(key_of(batch.slice(cut), ("id", "name"))).tolist() == tail


@given(st.lists(st.tuples(NAMES, st.integers(-3, 3)), max_size=120))
def test_a_text_and_a_number_sort_as_they_should(rows: list[tuple[bytes, int]]) -> None:
    batch = pa.record_batch(
        {"t": pa.array([r[0] for r in rows], pa.binary()), "n": pa.array([r[1] for r in rows], pa.int64())}
    )
    assert order(key_of(batch, ("t", "n"))).tolist() == sorted(range(len(rows)), key=lambda place: rows[place])


@given(
    st.lists(st.lists(st.tuples(IDS, NAMES), min_size=1, max_size=30), min_size=1, max_size=9),
    st.integers(1, 5), st.integers(2, 4),
)  # fmt: skip
def test_merged_runs_are_a_stable_sort_of_all(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[bytes, bytes]]], block: int, fan_in: int
) -> None:
    """Also where all keys are equal: the number of the row shows that none overtook another."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [(*row, number) for run in runs for number, row in enumerate(run)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_order, "BLOCK_ROWS", block)
        patch.setattr(row_order, "FAN_IN", fan_in)
        paths, at = [], 0
        for number, run in enumerate(runs):
            batch = pa.record_batch(
                {
                    "id": pa.array([r[0] for r in run], ID),
                    "name": pa.array([r[1] for r in run], pa.binary()),
                    "place": pa.array(range(at, at + len(run)), pa.int64()),
                }
            )
            at += len(run)
            paths.append(folder / f"{number}.arrow")
            write_run(paths[-1], row_order.sorted_pieces(batch, ("id", "name")))
        merged = [row["place"] for batch in merge(paths, ("id", "name"), folder) for row in batch.to_pylist()]
    assert merged == sorted(range(len(rows)), key=lambda place: rows[place][:2])
    assert not list(folder.iterdir())


def test_null_ids_come_first_whatever_bytes_lie_under_them() -> None:
    ids = pa.array([b"\x01" * 20, b"\xff" * 20, bytes(20)], ID)
    bitmap = pa.py_buffer(bytes([0b101]))
    nulled = pa.Array.from_buffers(ID, 3, [bitmap, ids.buffers()[1]])
    assert nulled.to_pylist() == [b"\x01" * 20, None, bytes(20)]
    assert order(key_of(pa.record_batch({"id": nulled}), ("id",))).tolist() == [1, 2, 0]


# ---------------------------------------------------------------- rows that are none


def converted(spec: TableSpec, **columns: list[Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    counts = Counts()
    schema = schema_of(spec.source, "parquet")
    batch = pa.record_batch({name: pa.array(values, schema.field(name).type) for name, values in columns.items()})
    rows = convert_batch(batch, spec, counts)
    rows.validate(full=True)
    assert counts.rows_in == len(batch) == counts.rows_out + counts.unwanted + counts.left_out.total()
    return rows.to_pylist(), dict(counts.left_out)


def entries(**columns: list[Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    rows = max(len(values) for values in columns.values())
    default = {"directory_id": A, "name": b"n", "type": "file", "target": B, "perms": 33188}
    return converted(ENTRIES, **{name: columns.get(name, [value] * rows) for name, value in default.items()})


def test_ids_that_are_not_40_hexadecimal_digits_are_left_out() -> None:
    bad = ["", "a" * 39, "a" * 41, "g" * 40, "é" * 20, " " * 40, "a" * 39 + "/", "a" * 39 + ":", "`" * 40, None]
    rows, left = entries(directory_id=[A, *bad, B])
    assert [row["directory_id"] for row in rows] == [b"\xaa" * 20, b"\xbb" * 20]
    assert left == {"directory_id: not 40 hexadecimal digits": 9, "directory_id: null": 1}


@given(st.binary(min_size=20, max_size=20), st.booleans())
def test_digits_of_either_case_are_an_id(identity: bytes, upper: bool) -> None:
    text = identity.hex().upper() if upper else identity.hex()
    assert entries(target=[text])[0][0]["target"] == identity


@given(st.lists(st.none() | st.text("0123456789abcdefABCDEFgG-\0é", max_size=42) | st.just(A), max_size=30))
def test_an_id_is_what_python_reads_as_one(texts: list[str | None]) -> None:
    def valid(text: str | None) -> bool:
        return text is not None and len(text) == 40 and all(char in "0123456789abcdefABCDEF" for char in text)

    rows, _ = entries(target=texts) if texts else ([], {})
    assert [row["target"] for row in rows] == [bytes.fromhex(text or "") for text in texts if valid(text)]


def test_a_name_that_no_folder_can_hold_is_left_out() -> None:
    rows, left = entries(name=[b"ok", b"", b"a/b", b"a\0b", b"..", b"\xff", None])
    assert [row["name"] for row in rows] == [
        b"ok",
        b"..",
        b"\xff",
    ]  # ".." is for the traversal to refuse, with its origin
    assert left == {"name: no name that a folder can hold": 3, "name: null": 1}


@pytest.mark.parametrize("name", [b"", b"/", b"a/b", b"\0", b"a\0"])
def test_each_of_them_is_seen_alone(name: bytes) -> None:
    assert entries(name=[b"ok", name])[1] == {"name: no name that a folder can hold": 1}


def test_an_unknown_kind_is_left_out_and_each_row_is_counted_once() -> None:
    rows, left = entries(type=["file", "dir", "rev", "symlink", "", None], target=[B, B, B, "x", B, "y"])
    assert [row["kind"] for row in rows] == [FILE, DIR, REV]
    assert left == {"type: none of file, dir, rev": 2, "type: null": 1}


def test_targets_of_branches_that_are_neither_ids_nor_names_are_left_out() -> None:
    rows, left = converted(
        BRANCHES,
        snapshot_id=[A] * 7,
        name=[b"HEAD", b"b", b"c", b"d", b"e", b"f", b"g"],
        target=[b"main".hex(), A, "abc", "zz", A[:-2], "", None],
        target_type=["alias", "revision", "alias", "alias", "revision", "alias", "revision"],
    )
    assert [row["target"] for row in rows] == [b"main", b"\xaa" * 20, b""]
    assert left == {"target: neither 40 hexadecimal digits nor those of a name": 3, "target: null": 1}


def test_nulls_stay_where_the_export_has_them() -> None:
    rows, left = converted(SKIPPED, sha1=[None, A], sha1_git=[B, None], length=[None, -1], status=["absent"] * 2,
                           reason=[None, "x"])  # fmt: skip
    assert not left
    assert rows[0] == {"content_id": b"\xbb" * 20, "blob_id": None, "length": None, "status": 2, "reason": None}
    rows, left = converted(RELEASES, id=[A], target=[None], target_type=[None])
    assert rows == [{"id": b"\xaa" * 20, "target": None, "target_type": None}]


@pytest.mark.parametrize("kind", [pa.null(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_types_that_writers_choose_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    """Old rows have no visit type, so a whole column may be of Arrow's null type."""
    folder = tmp_path / "parquet" / "origin_visit_status"
    folder.mkdir(parents=True)
    visit_type = None if kind == pa.null() else "git"
    columns = {
        "origin": pa.array(["https://x/y"]), "visit": pa.array([1], pa.int32()),
        "date": pa.array([1], pa.timestamp("us", "UTC")), "status": pa.array(["full"]),
        "snapshot": pa.array([None], kind), "type": pa.array([visit_type]).cast(kind),
    }  # fmt: skip
    pq.write_table(pa.table(columns), folder / "v.parquet")
    (table,), _ = read(open_export(str(tmp_path)), VISITS, tmp_path / "none")
    assert table["type"].to_pylist() == [visit_type]
    assert table["date_seconds"].to_pylist() == [0]


# ---------------------------------------------------------------- dates


def visits_file(folder: Path, format: Format, dates: pa.Array) -> Export:
    table = pa.table(
        {"origin": ["https://x/y"] * len(dates), "visit": range(len(dates)), "date": dates,
         "status": ["full"] * len(dates), "snapshot": [A] * len(dates), "type": ["git"] * len(dates)}
    )  # fmt: skip
    path = folder / format / "origin_visit_status"
    path.mkdir(parents=True)
    orc.write_table(table, str(path / "v.orc")) if format == "orc" else pq.write_table(table, path / "v.parquet")
    return open_export(str(folder))


def test_a_wild_date_costs_the_fractions_of_its_file_and_nothing_else(tmp_path: Path) -> None:
    dates = pa.array([1_600_000_000_250_000, None, 100_000_000_000 * 10**6, -(10**17)], pa.timestamp("us"))
    seconds = [1_600_000_000, None, 100_000_000_000, -(10**11)]
    (parquet,), counts = read(visits_file(tmp_path / "p", "parquet", dates), VISITS, tmp_path)
    assert not counts.whole_seconds
    assert parquet["date"].cast(pa.int64()).to_pylist() == [1_600_000_000_250_000_000, None, None, None]
    (orcs,), counts = read(visits_file(tmp_path / "o", "orc", dates), VISITS, tmp_path)
    assert counts.whole_seconds
    assert orcs["date"].cast(pa.int64()).to_pylist() == [1_600_000_000 * 10**9, None, None, None]
    assert orcs["date_seconds"].to_pylist() == parquet["date_seconds"].to_pylist() == seconds
    tame = visits_file(tmp_path / "t", "orc", dates.slice(0, 2))
    (table,), counts = read(tame, VISITS, tmp_path)
    assert not counts.whole_seconds
    assert table["date"].cast(pa.int64()).to_pylist() == [1_600_000_000_250_000_000, None]


@given(st.lists(st.none() | st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 999_999)), max_size=20))
def test_times_of_structs_are_exact_or_null(values: list[tuple[int, int] | None]) -> None:
    kind = pa.struct([("seconds", pa.int64()), ("microseconds", pa.uint32())])
    array = pa.array([None if v is None else {"seconds": v[0], "microseconds": v[1]} for v in values], kind)
    stamps, seconds = times(array)
    exact = [None if v is None else v[0] * 10**9 + v[1] * 1000 for v in values]
    for found, wanted in zip(stamps.cast(pa.int64()).to_pylist(), exact, strict=True):
        assert found == wanted or (found is None and (wanted is None or abs(wanted) > 2**63 - 2 * 10**9))
    assert seconds.to_pylist() == [None if v is None else v[0] for v in values]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@given(st.lists(st.none() | st.integers(-(2**62), 2**62), max_size=20))
def test_times_of_timestamps_are_rounded_down_to_seconds(unit: str, values: list[int | None]) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    _, seconds = times(pa.array(values, pa.timestamp(unit)))
    assert seconds.to_pylist() == [None if value is None else value // per_second for value in values]


def test_text_that_is_not_utf_8_is_left_out() -> None:
    raw = pa.array([b"https://x/y", b"h\xff\xfe", None, b"", "é".encode()], pa.binary())
    batch = pa.record_batch({"id": [A] * 5, "url": raw.view(pa.string())})
    counts = Counts()
    rows = convert_batch(batch, ORIGINS, counts)
    rows.validate(full=True)
    assert rows["url"].to_pylist() == ["https://x/y", "", "é"]
    assert counts.left_out == {"url: not UTF-8": 1, "url: null": 1}
