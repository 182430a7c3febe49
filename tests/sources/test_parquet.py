"""Rows of Parquet, JSON lines and Arrow files: which file of which repository each is, and what hostile ones cost."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stackbuild.errors import InputError
from stackbuild.sources import json_lines, parquet, row_files
from stackbuild.sources.json_lines import lines
from stackbuild.sources.origin_columns import BATCH
from stackbuild.sources.parquet import SOURCE, ParquetOptions
from stackbuild.sources.parquet_pages import measure, read_struct
from stackbuild.sources.timestamps import as_timestamps, nanoseconds
from stackbuild.sources.unit import Entry, File, Limits, Origin, ResolveContext, Unit, Unread
from tests.test_build import released, run
from tests.worlds import light

COLUMNS = {"content": "text", "path": "path", "repo_name": "repo"}
ROWS = [
    {"text": "a = 1\n", "path": "src/a.py", "repo": "o/one"},
    {"text": "b\n", "path": "/b.py", "repo": "o/one"},
    {"text": "", "path": None, "repo": "o/two"},
    {"text": None, "path": "null", "repo": "o/two"},
    {"text": "é", "path": "é.py", "repo": "o/two"},
]


def options(*paths: Path, **more: Any) -> ParquetOptions:
    return ParquetOptions.model_validate(
        {"kind": "parquet", "paths": [str(p) for p in paths], "columns": COLUMNS, **more}
    )


def units(*paths: Path, **more: Any) -> list[Unit]:
    return SOURCE.units(options(*paths, **more), ResolveContext(""))[0]


def units_here(path: Path) -> list[Unit]:
    """The units of one file, its footer read in this process: a process for each example of a property takes too long."""
    sha256, size, cuts = row_files.examine(path)
    where = {"path": str(path), "size": size, "mtime_ns": path.stat().st_mtime_ns}
    found = row_files.parts(path, COLUMNS, options(path).optional(), size, cuts, row_files.UNIT_BYTES)
    return [Unit("parquet", {"name": "x", "sha256": sha256, **part.key}, where, part.bytes, None) for part in found]


def rows(
    *paths: Path, limits: Limits | None = None, planned: list[Unit] | None = None, **more: Any
) -> list[tuple[Origin, Entry]]:
    found, origin = [], None
    for unit in units(*paths, **more) if planned is None else planned:
        for item in SOURCE.read(unit, options(*paths, **more), limits or Limits()):
            if isinstance(item, Origin):
                origin = item
            else:
                assert origin is not None
                found.append((origin, item))
    return found


def files(found: list[tuple[Origin, Entry]]) -> dict[tuple[str, bytes], bytes]:
    return {(origin.repo_name, entry.path): entry.data for origin, entry in found if isinstance(entry, File)}


def rules(found: list[tuple[Origin, Entry]]) -> dict[bytes, str]:
    return {entry.path: entry.rule for _, entry in found if isinstance(entry, Unread)}


def write(path: Path, data: list[dict[str, Any]]) -> Path:
    """The rows in the format that the suffix names."""
    text = "".join(json.dumps(row) + "\n" for row in data).encode()
    table = pa.Table.from_pylist(data)
    if path.name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=2)
    elif path.name.endswith(".arrow"):
        with pa.ipc.new_stream(str(path), table.schema) as out:
            out.write_table(table, max_chunksize=2)
    else:
        packed = {".gz": gzip.compress(text), ".zst": pa.compress(text, codec="zstd", asbytes=True)}
        path.write_bytes(packed.get(path.suffix, text))
    return path


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.jsonl", "x.jsonl.gz", "x.jsonl.zst", "x.ndjson"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    found = rows(path)
    assert files(found) == {
        ("o/one", b"src/a.py"): b"a = 1\n",
        ("o/one", b"b.py"): b"b\n",
        ("o/two", b"row-x-2"): b"",
        ("o/two", "é.py".encode()): "é".encode(),
    }
    assert rules(found) == {b"null": "null_content"}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert {origin.revision_id for origin, _ in found} == {sha256}


def test_batches_are_columns_of_one_schema(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", ROWS)
    (unit,) = units(path)
    batch = pa.Table.from_batches(list(SOURCE.read_batches(unit, options(path), Limits())), BATCH)
    batch.validate(full=True)
    assert batch.column("length").to_pylist() == [6, 2, 0, None, 2]
    assert batch.column("rule").to_pylist() == [None, None, None, "null_content", None]
    assert SOURCE.columnar


def test_every_origin_column_can_be_mapped_and_has_its_type(tmp_path: Path) -> None:
    moment = datetime(2023, 5, 22, 15, 12, 42, 313790, UTC)
    table = pa.table(
        {
            "text": pa.array(["x", "y", "z"]),
            "meta": pa.array([{"repo": "a/b", "p": "p1"}, {"repo": "a/b", "p": "p2"}, {"repo": None, "p": "p3"}]),
            "when": pa.array([moment, None, moment], pa.timestamp("us", "UTC")),
            "far": pa.array([10**12, 0, -(10**12)], pa.timestamp("s")),
            "text_time": ["2023-05-22T15:12:42.31379Z", "soon", None],
            "stars": pa.array([3.0, float("nan"), 2.5]),
            "github": pa.array([1, None, 3], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    columns = {
        "content": "text",
        "path": "meta.p",
        "repo_name": "meta.repo",
        "visit_date": "when",
        "revision_date": "far",
        "committer_date": "text_time",
        "star_events_count": "stars",
        "github_id": "github",
    }
    found = rows(tmp_path / "x.parquet", columns=columns, repo_name_default="local/corpus", branch_name_default="main")
    origins = [origin for origin, _ in found]
    assert [o.repo_name for o in origins] == ["a/b", "a/b", "local/corpus"]
    assert [entry.path for _, entry in found] == [b"p1", b"p2", b"p3"]
    nanos = 1_684_768_362_313_790_000
    assert [o.visit_date for o in origins] == [nanos, None, nanos]
    assert [o.revision_date for o in origins] == [None, 0, None], "out of range is null"
    assert [o.committer_date for o in origins] == [nanos, None, None]
    assert [o.star_events_count for o in origins] == [3, None, None]
    assert [o.github_id for o in origins] == [1, None, 3]
    assert {o.branch_name for o in origins} == {"main"}


def test_paths_are_safe_or_have_a_rule(tmp_path: Path) -> None:
    paths = ["a/../../x", "//abs", "a//b", "./c", "n\0ul", "d/" * 64 + "e", "l" * 5000, "", "/ok", "..", ".hidden/x..y"]
    for name, write_options in (("x.parquet", {}), ("y.parquet", {"use_dictionary": False})):
        table = pa.table({"text": [str(n) for n in range(len(paths))], "path": paths, "repo": ["r/r"] * len(paths)})
        pq.write_table(table, tmp_path / name, **write_options)
        found = rows(tmp_path / name)
        expected = {b"a/b": b"2", b"c": b"3", f"row-{name[0]}-7".encode(): b"7", b"ok": b"8", b".hidden/x..y": b"10"}
        assert {path: data for (_, path), data in files(found).items()} == expected
        assert sorted(rules(found).values()) == ["long_path", "too_deep", *["unsafe_path"] * 4]
        assert max(len(entry.path) for _, entry in found) <= 4096


def test_bytes_that_are_not_text_stay_bytes(tmp_path: Path) -> None:
    table = pa.table({"text": [b"\xff\0\xfe"], "path": [b"caf\xe9"], "repo": [b"o/\xe9"]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert files(rows(tmp_path / "x.parquet")) == {("o/�", b"caf\xe9"): b"\xff\0\xfe"}


def test_a_row_without_a_repository_has_a_rule_or_the_default(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.parquet", [{"text": "a", "path": "a", "repo": None}, {"text": "b", "path": "b", "repo": ""}]
    )
    assert rules(rows(path)) == {b"a": "no_repo_name", b"b": "no_repo_name"}
    assert set(files(rows(path, repo_name_default="d/e"))) == {("d/e", b"a"), ("d/e", b"b")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.binary(max_size=40)), st.text(max_size=8), st.sampled_from(["a/b", "c/d"]))
    ),
    st.integers(1, 7),
    st.booleans(),
    st.integers(1, 60),
)
def test_the_rows_that_are_read_are_the_rows_that_were_written(
    tmp_path: Path, data: list[tuple[bytes | None, str, str]], group: int, dictionary: bool, cut: int
) -> None:
    table = pa.table(
        {
            "text": pa.array([d[0] for d in data], pa.large_binary()),
            "path": pa.array(
                [f"f{n}-{d[1]}".replace("/", "").replace("\0", "") for n, d in enumerate(data)], pa.string()
            ),
            "repo": pa.array([d[2] for d in data], pa.string()),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=group, use_dictionary=dictionary, data_page_size=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_files, "UNIT_BYTES", 4 * cut)
        patch.setattr(parquet, "BATCH_BYTES", cut)
        patch.setattr(parquet, "JOINED_BYTES", cut)
        patch.setattr(parquet, "SLICE_BYTES", cut)
        if not len(data):
            return
        path = tmp_path / "x.parquet"
        found = rows(path, limits=Limits(file_bytes=30), planned=units_here(path))
    assert [(o.repo_name, e.path.decode(), getattr(e, "data", None)) for o, e in found] == [
        (repo, path, None if text is None or len(text) > 30 else text)
        for text, path, repo in zip(*(table[name].to_pylist() for name in ("text", "path", "repo")), strict=True)
    ]
    assert {e.rule for _, e in found if isinstance(e, Unread)} <= {"null_content", "too_large"}


# ---------------------------------------------------------------- units


def test_units_are_runs_of_whole_row_groups_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [{"text": f"{n}:" + "x" * 500, "path": f"p{n}", "repo": "o/r"} for n in range(40)]
    expected = {("o/r", f"p{n}".encode()): row["text"].encode() for n, row in enumerate(data)}
    monkeypatch.setattr(row_files, "UNIT_BYTES", 3000)
    for name in ("x.parquet", "x.jsonl"):
        path = write(tmp_path / name, data)
        found = units(path)
        assert len(found) > 1
        assert files(rows(path)) == expected, "nothing twice, nothing lost"
    groups = [unit.key["row_groups"] for unit in units(tmp_path / "x.parquet")]
    assert [start for start, _ in groups] == [0, *(stop for _, stop in groups[:-1])] and groups[-1][1] == 20
    anonymous = [{"text": "x" * 500, "repo": "o/r"} for _ in range(40)]
    columns = {"content": "text", "repo_name": "repo"}
    for name in ("y.parquet", "y.jsonl"):
        found = rows(write(tmp_path / name, anonymous), columns=columns)
        assert [entry.path for _, entry in found] == [f"row-y-{n}".encode() for n in range(40)], "numbers run through"


@pytest.mark.slow
def test_the_release_does_not_depend_on_how_files_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    texts = [f"def f{n}():\n" + f"    total += {n}\n" * draw.randrange(5, 60) for n in range(60)]
    table = pa.table(
        {
            "text": [draw.choice(texts) for _ in range(300)],  # copies within and across the units
            "path": [f"src/{n % 290}.py" for n in range(300)],  # and paths that come twice
            "repo": [f"o{n % 7}/r" for n in range(300)],
        }
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table.slice(0, 200), tmp_path / "in" / "a.parquet", row_group_size=20)
    (tmp_path / "in" / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.slice(200).to_pylist()))
    source = {"kind": "parquet", "paths": [str(tmp_path / "in")], "columns": COLUMNS}
    made = []
    for unit_bytes in (8_000, row_files.UNIT_BYTES):
        monkeypatch.setattr(row_files, "UNIT_BYTES", unit_bytes)
        result = run(
            light(tmp_path / "in", source=[source], outputs=["dataset", "index"]), tmp_path / str(unit_bytes), 1
        )
        kept = {path: sha256 for path, sha256 in released(result.build.out).items() if not path.startswith("report/")}
        made.append((len(result.build.plan.units), kept))
    assert made[0][0] > 8 and made[1][0] == 2
    differ = {path for path in made[0][1].keys() | made[1][1].keys() if made[0][1].get(path) != made[1][1].get(path)}
    assert differ <= {"dataset/README.md"}  # which tells how many units were read


def test_keys_hold_the_hash_and_no_place(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "a" / "x.parquet", ROWS)
    write(tmp_path / "b" / "x.parquet", ROWS[:2])
    write(tmp_path / "b" / "copy.parquet", ROWS)
    (tmp_path / "b" / "readme.txt").write_text("")
    found, skipped = SOURCE.units(
        options(tmp_path, tmp_path / "none", tmp_path / "b" / "readme.txt"), ResolveContext("")
    )
    assert len({unit.key["name"] for unit in found}) == 2 and all(str(tmp_path) not in str(unit.key) for unit in found)
    assert sorted(skip.reason.split()[0] for skip in skipped) == ["has", "is", "there"]


def test_a_file_whose_path_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    """Arrow opens no such path, and a row without a path is named by its file."""
    for name in ("x.parquet", "x.jsonl", "x.arrow"):
        write(tmp_path / name, ROWS).rename(tmp_path / f"caf\udce9{name}")
    write(tmp_path / "plain.jsonl", ROWS[:2])
    found, skipped = SOURCE.units(options(tmp_path), ResolveContext(""))
    assert [unit.key["name"] for unit in found] == ["plain"]
    assert [skip.reason for skip in skipped] == ["its path is not UTF-8: rename it"] * 3


def test_a_changed_file_is_not_the_planned_one(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", ROWS)
    (unit,) = units(path)
    os.utime(path, (1, 1))
    assert list(SOURCE.read(unit, options(path), Limits())), "only its time changed"
    write(path, ROWS[:3])
    with pytest.raises(InputError, match="plan again"):
        list(SOURCE.read(unit, options(path), Limits()))


def test_options_name_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", ROWS)
    for columns in ({"content": "text", "colour": "c"}, {"path": "path"}, {"content": "text"}):
        with pytest.raises(ValidationError):
            options(path, columns=columns)
    with pytest.raises(InputError, match=r"no column 'nope'.*text, path, repo"):
        units(path, columns={"content": "nope", "repo_name": "repo"})
    with pytest.raises(InputError, match="int64"):
        pq.write_table(pa.table({"text": [1], "path": ["a"], "repo": ["b"]}), tmp_path / "n.parquet")
        rows(tmp_path / "n.parquet")
    with pytest.raises(InputError, match="no such file"):
        units(tmp_path / "empty-*")


# ---------------------------------------------------------------- hostile files


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.jsonl.gz", "x.jsonl.zst"])
def test_a_cut_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    rng = random.Random(3)
    data = [{"text": rng.randbytes(300).hex(), "path": f"p{n}", "repo": "o/r"} for n in range(9)]
    whole = write(tmp_path / name, data).read_bytes()
    for cut in (0, 3, len(whole) // 3, len(whole) - 9):
        (tmp_path / name).write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"x\."):
            assert not rows(tmp_path / name)


@pytest.mark.parametrize("name", ["bad.parquet", "bad.arrow"])
def test_a_damaged_file_is_told_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    write(tmp_path / "good.parquet", ROWS)
    (tmp_path / name).write_bytes(b"PAR1 nothing PAR1")
    found, skipped = SOURCE.units(options(tmp_path), ResolveContext(str(tmp_path)))
    assert [unit.key["name"] for unit in found] == ["good"]
    assert [Path(skip.what).name for skip in skipped] == [name]
    assert str(tmp_path) not in skipped[0].reason and "not a" in skipped[0].reason


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([".parquet", ".arrow"]), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4)
)
def test_whatever_the_bytes_the_answer_is_rows_or_an_input_error(
    tmp_path: Path, suffix: str, changes: list[tuple[int, int]]
) -> None:
    """In a process of its own, as in a build: some damage makes Arrow itself crash, which ends that task and no other."""
    path = write(tmp_path / f"x{suffix}", [row for row in ROWS if row["path"]])
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    path.write_bytes(data)
    child = os.fork()
    if not child:
        try:
            rows(path, planned=units_here(path))
        except InputError:
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status <= 0, "another error than an InputError"


BOMB = """
import resource, sys
from stackbuild.sources.parquet import SOURCE, ParquetOptions
from stackbuild.sources.unit import Limits, ResolveContext
options = ParquetOptions(kind="parquet", paths=(sys.argv[1],), columns={"content": "text"}, repo_name_default="a/b")
(unit, *_), _ = SOURCE.units(options, ResolveContext(""))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rules = set()
for batch in SOURCE.read_batches(unit, options, Limits()):
    rules |= set(batch.column("rule").to_pylist())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, *sorted(map(str, rules)))
"""


def repeated(size: int, times: int) -> pa.Table:
    return pa.table({"text": pa.chunked_array([pa.array([b"x" * size], pa.large_binary())] * times)})


@pytest.mark.parametrize(
    ("table", "dictionary", "rule", "megabytes"),
    [
        ((50_000_000, 40), True, "too_large", 400),  # 2 kB that mean 2 GB
        ((9_000_000, 200), True, "None archive_bomb", 300),  # 1 kB, 2 GB, each row within the cap
        ((280_000_000, 1), False, "too_large", 100),  # a page that inflates from 9 kB
    ],
)
def test_a_parquet_bomb_takes_no_memory(
    tmp_path: Path, table: tuple[int, int], dictionary: bool, rule: str, megabytes: int
) -> None:
    path = tmp_path / "bomb.parquet"
    make = f"""
    import pyarrow as pa, pyarrow.parquet as pq
    data = pa.array([b"x" * {table[0]}], pa.large_binary())
    pq.write_table(pa.table({{"text": pa.chunked_array([data] * {table[1]})}}), {str(path)!r}, compression="zstd",
                   use_dictionary={dictionary}, dictionary_pagesize_limit=1 << 30, write_statistics=False)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(make)], check=True)
    assert path.stat().st_size < 100_000
    run = [sys.executable, "-c", textwrap.dedent(BOMB), str(path)]
    grown, *found = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert " ".join(found) == rule
    assert int(grown) < megabytes


def test_what_is_beyond_a_cap_of_the_unit_is_one_row_that_says_from_where(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [{"text": "x" * 10, "path": f"p{n}", "repo": "o/r"} for n in range(9)])
    for limits, rule in ((Limits(unit_files=5), "too_many_files"), (Limits(unit_bytes=55), "unit_too_large")):
        found = rows(path, limits=limits)
        assert [entry.path for _, entry in found] == [b"p0", b"p1", b"p2", b"p3", b"p4", b"row-x-5-on"]
        assert rules(found) == {b"row-x-5-on": rule}


def test_page_headers_are_walked_to_the_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = pa.table({"text": [rng.bytes(int(n)) for n in rng.integers(0, 3000, 500)]})
    for version in ("1.0", "2.0"):
        pq.write_table(
            table, tmp_path / "x.parquet", use_dictionary=False, data_page_size=8192, data_page_version=version,
            write_batch_size=1, compression="none",
        )  # fmt: skip
        column = pq.read_metadata(tmp_path / "x.parquet").row_group(0).column(0)
        with (tmp_path / "x.parquet").open("rb") as file:
            pages = measure(file, column)
        assert 8192 <= pages.largest <= 8192 + 3004 + 16
        assert 1500 * 0.7 < pages.densest < 3004
    with pytest.raises(InputError):
        read_struct(b"\x15\xff" * 40)
    with pytest.raises(InputError):
        read_struct(b"\x1c" * 100_000)


def test_compressed_arrow_batches_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    ipc = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(str(tmp_path / "x.arrow"), table.schema, options=ipc) as out:
        out.write_table(table)
    with pytest.raises(InputError, match="compressed"):
        rows(tmp_path / "x.arrow")


# ---------------------------------------------------------------- JSON lines


def test_bad_lines_are_counted_with_their_number(tmp_path: Path) -> None:
    bad = [
        b"null",
        b"{",
        b"[1]",
        b'{"text": 5}',
        b'{"text": "\\ud800"}',
        b'"text"',
        b"\xff",
        b"[" * 100_000,
        b'{"text":1e999}',
    ]
    good = b'{"text": "ok", "repo": "o/r"}'
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([good, b"", *bad, good]))
    found = rows(tmp_path / "x.jsonl")
    assert set(files(found)) == {("o/r", b"row-x-0"), ("o/r", b"row-x-11")}
    assert rules(found) == {f"row-x-{n}".encode(): "bad_json" for n in range(2, 11)}
    details = [entry.detail for _, entry in found if isinstance(entry, Unread)]
    assert [detail.split(":")[0] for detail in details if detail] == [f"line {n}" for n in range(3, 12)]


def test_a_line_beyond_the_cap_is_passed_over(tmp_path: Path) -> None:
    long = json.dumps({"text": "x" * 2_000_000, "repo": "o/r", "path": "long"}).encode()
    medium = json.dumps({"text": "x" * 2_000, "repo": "o/r", "path": "medium"}).encode()
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([long, medium, b'{"text": "", "repo": "o/r", "path": "p"}', long]))
    found = rows(tmp_path / "x.jsonl", limits=Limits(file_bytes=1_000))
    assert rules(found) == {b"row-x-0": "too_large", b"medium": "too_large", b"row-x-3": "too_large"}
    assert set(files(found)) == {("o/r", b"p")}


def test_a_bomb_of_lines_ends_at_the_ratio(tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 1_000_000, "repo": "o/r", "path": "p"}).encode() + b"\n"
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(line * 150))
    found = rows(tmp_path / "x.jsonl.gz")
    assert set(rules(found).values()) == {"archive_bomb"}
    assert len(found) < 70


@given(
    st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=12),
    st.integers(1, 9),
    st.integers(3, 9),
)
def test_lines_are_those_of_split_whatever_the_chunks(wanted: list[bytes], size: int, longest: int) -> None:
    text = b"\n".join(wanted)
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    expected = [(line if len(line) <= longest else None, len(line)) for line in text.split(b"\n")]
    if not text or text.endswith(b"\n"):
        expected.pop()
    assert list(lines(chunks, longest)) == expected


def test_a_run_of_lines_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "RUN_BYTES", 100)
    found = list(json_lines.runs([(b'{"t": "x"}', 10)] * 50, 0, {"content": "t"}, frozenset()))
    assert [len(run.numbers) for run in found] == [10] * 5 + [0]


def test_times_are_exact_or_null() -> None:
    assert nanoseconds("2262-04-12T00:00:00Z") is None
    assert nanoseconds("1900-01-01") == -2_208_988_800 * 10**9
    days = pa.array([-719162, 0, None, 106_751], pa.date32())
    found = as_timestamps(days)
    assert found is not None and found.cast(pa.int64()).to_pylist() == [None, 0, None, 106_751 * 86_400 * 10**9]
    assert as_timestamps(pa.array([-(2**63), 5], pa.timestamp("ns"))).cast(pa.int64()).to_pylist()[1] == 5  # type: ignore[union-attr]
    assert as_timestamps(pa.array([1])) is None
