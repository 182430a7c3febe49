"""`stackbuild dedup`: any table in, the rows that stay out, and for every row that left the one that stays in its place."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stackbuild.dedup.near_duplicates import near_duplicates
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.errors import InputError, RecipeError, UsageError
from stackbuild.standalone import dedup, folding, reading
from stackbuild.standalone.dedup import deduplicate
from stackbuild.standalone.options import DedupOptions
from stackbuild.standalone.reading import content_ids

VOCABULARY = np.array([f"name{i}" for i in range(4000)])


def edited(rng: np.random.Generator, words: np.ndarray, edits: int) -> str:
    copy = words.copy()
    copy[rng.integers(0, len(words), edits)] = rng.choice(VOCABULARY, edits)
    return " ".join(copy)


def table_of(seed: int = 0, families: int = 40) -> pa.Table:
    """Families of edited copies, exact copies, short texts and empty ones, shuffled."""
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    for family in range(families):
        words = rng.choice(VOCABULARY, 160)
        texts += [edited(rng, words, edits) for edits in range(family % 5 + 1)]
        texts += [" ".join(words)] * (family % 3)
    texts += ["", "", "a b", "a b", "a c", "\x00\x00", "é à ü ß ñ ö", "é à ü ß ñ ö"]
    order = rng.permutation(len(texts))
    return pa.table(
        {
            "id": [f"row-{i}" for i in range(len(texts))],
            "text": [texts[i] for i in order],
            "stars": pa.array([None if i % 5 == 0 else int(i) % 4 for i in order], pa.int64()),
            "language": ["Go" if i % 7 == 0 else "C" for i in order],
        }
    )


def saved(table: pa.Table, folder: Path, files: int = 3, rows: int = 20) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.linspace(0, len(table), files + 1).astype(int)
    for i, (start, stop) in enumerate(itertools.pairwise(ends)):
        pq.write_table(table.slice(start, stop - start), folder / f"part-{i}.parquet", row_group_size=rows)
    return folder


def run(paths: Any, out: Path, /, **given: Any) -> dict[str, Any]:
    keywords = {name: given.pop(name) for name in ("workers", "partitions") if name in given}
    paths = paths if isinstance(paths, list) else [str(paths)]
    return deduplicate(paths, out, DedupOptions(**given), **keywords)


def clusters(out: Path) -> list[dict[str, Any]]:
    return pa.concat_tables(pq.read_table(path) for path in sorted((out / "clusters").iterdir())).to_pylist()


def kept(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((out / "data").iterdir()))


def kept_ids(out: Path) -> list[Any]:
    return [
        n for path in sorted((out / "data").iterdir()) for n in pq.read_table(path, columns=["id"])["id"].to_pylist()
    ]


def bytes_of(out: Path) -> dict[str, bytes]:
    found = [path for folder in ("data", "clusters") for path in (out / folder).iterdir()]
    return {str(path.relative_to(out)): path.read_bytes() for path in [*found, out / "report.json"]}


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return table_of()


def check_account(table: pa.Table, out: Path, report: dict[str, Any]) -> None:
    """Every row stays as it came or names a row that stays."""
    rows, stays = {row["id"]: row for row in table.to_pylist()}, kept(out)
    told = {row["id"]: row for row in clusters(out)}
    gone = {name for name, row in told.items() if not row["kept"]}
    assert set(stays["id"].to_pylist()) == set(rows) - gone
    assert {row["id"]: row for row in stays.to_pylist()} == {n: row for n, row in rows.items() if n not in gone}
    assert report["rows"] == len(rows) and report["kept"] == len(stays)
    assert sum(report["removed"].values()) == len(gone)
    sizes: dict[str, int] = {}
    for row in told.values():
        sizes[row["cluster_id"]] = sizes.get(row["cluster_id"], 0) + 1
    for row in told.values():
        assert row["cluster_size"] == sizes[row["cluster_id"]] > 1
        if row["kept"]:
            assert (row["kept_id"], row["similarity"], row["reason"]) == (None, None, None)
        else:
            twin = told[row["kept_id"]]
            assert twin["kept"] and twin["cluster_id"] == row["cluster_id"]
            same = rows[row["id"]]["text"] == rows[row["kept_id"]]["text"]
            assert (row["reason"] == "exact_copy") == same
            assert row["similarity"] == 1.0 if same else 0.7 <= row["similarity"] <= 1


def test_every_row_stays_or_names_a_row_that_stays(table, tmp_path):
    report = run(saved(table, tmp_path / "in"), tmp_path / "out")
    check_account(table, tmp_path / "out", report)
    assert report["removed"]["exact_copy"] > 10 and report["removed"]["near_duplicate"] > 20


def test_it_is_what_the_stage_finds_among_distinct_texts(table, tmp_path):
    """The same removed texts as near_duplicates() on one row for each text."""
    run(saved(table, tmp_path / "in"), tmp_path / "out")
    first = table.take(pa.array(np.unique(table["text"].to_pylist(), return_index=True)[1]))
    by_content = content_ids(first["text"].combine_chunks())
    found = near_duplicates(
        pa.table({"text": first["text"], "content_id": by_content}),
        options=NearDedupOptions(scope="global", survivor=()),
    )
    removed = {t for t, stays in zip(first["text"].to_pylist(), found["kept"].to_pylist(), strict=True) if not stays}
    assert set(table["text"].to_pylist()) - set(kept(tmp_path / "out")["text"].to_pylist()) == removed


@pytest.mark.parametrize("options", [{}, {"mode": "exact"}, {"verify": False}, {"scope_column": "language"}])
def test_bytes_do_not_depend_on_partitions_or_workers(table, tmp_path, options):
    folder = saved(table, tmp_path / "in")
    one = run(folder, tmp_path / "1", partitions=1, **options)
    found = bytes_of(tmp_path / "1")
    assert one["removed"]["near_duplicate"]
    run(folder, tmp_path / "2", partitions=2, **options)
    run(folder, tmp_path / "16", partitions=16, **options)
    assert bytes_of(tmp_path / "2") == bytes_of(tmp_path / "16") == found
    if not options:
        run(folder, tmp_path / "w", partitions=4, workers=2)
        assert bytes_of(tmp_path / "w") == found
        small = run(folder, tmp_path / "m", partitions=2, memory=1 << 14)
        assert small["removed"] == one["removed"]
        assert clusters(tmp_path / "m") == clusters(tmp_path / "1")


def test_clusters_do_not_depend_on_how_rows_are_spread_over_files(table, tmp_path):
    run(saved(table, tmp_path / "a"), tmp_path / "1")
    shuffled = table.take(pa.array(np.random.default_rng(3).permutation(len(table))))
    run(saved(shuffled, tmp_path / "b", files=1), tmp_path / "2")
    assert clusters(tmp_path / "1") == clusters(tmp_path / "2")


def test_lines_and_streams_give_what_parquet_gives(table, tmp_path):
    run(saved(table, tmp_path / "in", files=1), tmp_path / "1")
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(table.to_pylist())]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines[:5], "", *lines[5:]]) + "\n")
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(("\n".join(lines)).encode()))
    with pa.ipc.new_stream(tmp_path / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    expected = clusters(tmp_path / "1")
    stays = set(kept(tmp_path / "1")["id"].to_pylist())
    for number, name in enumerate(("in.jsonl", "in.jsonl.gz", "data-00000-of-00001.arrow")):
        out = tmp_path / f"out{number}"
        run(tmp_path / name, out)
        assert clusters(out) == expected
        (written,) = (out / "data").iterdir()
        if name.endswith(".arrow"):
            assert set(pq.read_table(written)["id"].to_pylist()) == stays
        else:
            assert written.read_text().splitlines() == [line for line in lines if json.loads(line)["id"] in stays]


def test_a_large_file_of_lines_is_read_in_parts(table, tmp_path, monkeypatch):
    lines = [json.dumps(row) for row in table.to_pylist()]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run(tmp_path / "in.jsonl", tmp_path / "1")
    whole = dedup.plan_units
    monkeypatch.setattr(dedup, "plan_units", lambda paths, column, leave_out: whole(paths, column, 10_000, leave_out))
    run(tmp_path / "in.jsonl", tmp_path / "2")
    assert clusters(tmp_path / "1") == clusters(tmp_path / "2")
    parts = sorted((tmp_path / "2" / "data").iterdir())
    assert len(parts) > 3
    assert b"".join(path.read_bytes() for path in parts) == (tmp_path / "1" / "data" / "in.jsonl").read_bytes()


def test_the_best_row_stays(tmp_path):
    words = " ".join(VOCABULARY[:50])
    table = pa.table(
        {
            "id": [3, 1, 2, 10],
            "text": [words, words, words + " more", words],
            "stars": pa.array([5, None, 7, 5], pa.int64()),
            "when": pa.array([1, 9, 1, 2], pa.timestamp("s")),
            "score": [0.5, -1.0, 2.5, 0.1],
        }
    )
    folder = saved(table, tmp_path / "in", files=1)

    def stays(*survivor: str) -> list[int]:
        out = tmp_path / "-".join(survivor)
        run(folder, out, survivor=survivor)
        return kept(out)["id"].to_pylist()

    assert stays("-stars") == [2]
    assert stays("stars", "-when") == [10]
    assert stays("-when") == [1]
    assert stays("score") == [1]
    assert stays("-score") == [2]
    assert stays("-id") == [10]  # a name of our own tables too


def test_survivors_are_compared_as_one_kind_over_all_files(tmp_path):
    words = " ".join(VOCABULARY[:50])
    values = ([100], pa.int64()), ([1.5], pa.float64()), ([-0.0], pa.float32()), ([0], pa.uint64())
    (tmp_path / "in").mkdir()
    for number, (stars, kind) in enumerate(values):
        table = pa.table({"id": [number], "text": [words], "stars": pa.array(stars, kind)})
        pq.write_table(table, tmp_path / "in" / f"{number}.parquet")
    run(tmp_path / "in", tmp_path / "most", survivor=("-stars",))
    assert kept_ids(tmp_path / "most") == [0]
    run(tmp_path / "in", tmp_path / "least", survivor=("stars",))
    assert kept_ids(tmp_path / "least") == [2]  # ties with 3: both are zero


def test_dates_of_any_unit_and_year_are_compared(tmp_path):
    words = " ".join(VOCABULARY[:50])
    (tmp_path / "in").mkdir()
    days = [("2021-01-01", pa.date32()), ("9999-12-31", pa.timestamp("s")), ("2022-01-01", pa.timestamp("ns", "UTC"))]
    for number, (day, kind) in enumerate(days):
        column = pa.array([np.datetime64(day, "s")], pa.timestamp("s")).cast(kind)
        pq.write_table(
            pa.table({"id": [number], "text": [words], "when": column}), tmp_path / "in" / f"{number}.parquet"
        )
    run(tmp_path / "in", tmp_path / "out", survivor=("-when",))
    assert kept_ids(tmp_path / "out") == [1]


def test_ids_of_64_bits_without_a_sign(tmp_path):
    words = " ".join(VOCABULARY[:50])
    table = pa.table({"id": pa.array([2**64 - 1, 5], pa.uint64()), "text": [words, words]})
    run(saved(table, tmp_path / "in", files=1), tmp_path / "out")
    assert {row["id"] for row in clusters(tmp_path / "out")} == {str(2**64 - 1), "5"}


def test_copies_of_a_text_in_two_scopes_both_stay(tmp_path):
    words = " ".join(VOCABULARY[:50])
    table = pa.table({"id": [1, 2, 3, 4], "text": [words] * 4, "language": ["C", "Go", None, "C"]})
    run(saved(table, tmp_path / "in", files=2), tmp_path / "out", scope_column="language")
    assert kept(tmp_path / "out")["id"].to_pylist() == [1, 2, 3]
    (left,) = [row for row in clusters(tmp_path / "out") if not row["kept"]]
    assert (left["id"], left["kept_id"], left["reason"]) == (4, 1, "exact_copy")


def test_rows_without_ids_are_named_by_file_and_number(table, tmp_path):
    folder = saved(table.drop_columns(["id"]), tmp_path / "in", files=1)
    run(folder, tmp_path / "out", id_column=None)
    assert all(row["id"].startswith(f"{folder}/part-0.parquet:") for row in clusters(tmp_path / "out"))


def test_nulls_stay_and_other_types_of_text_are_read(tmp_path):
    words = " ".join(VOCABULARY[:50])
    for number, kind in enumerate((pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())):
        table = pa.table({"id": [1, 2, 3, 4], "text": pa.array([words, None, words, None], pa.string()).cast(kind)})
        run(saved(table, tmp_path / f"in{number}", files=1), tmp_path / f"out{number}")
        assert kept(tmp_path / f"out{number}")["id"].to_pylist() == [1, 2, 4]
    coded = pa.table({"id": [1, 2], "text": pa.array([words, words]).dictionary_encode()})
    run(saved(coded, tmp_path / "in", files=1), tmp_path / "out")
    assert kept(tmp_path / "out")["id"].to_pylist() == [1]


def test_bytes_that_are_not_utf8_are_compared(tmp_path):
    words = " ".join(VOCABULARY[:80]).encode()
    texts = [b"\xff\xfe" + words, words + b"\xc3(", words, b"\xff", b"\xff", b"\xfe"]
    table = pa.table({"id": list(range(6)), "text": pa.array(texts, pa.binary())})
    run(saved(table, tmp_path / "in", files=1), tmp_path / "out")
    assert len(kept(tmp_path / "out")) == 3


def test_the_report_says_how_many_would_leave_if_licence_headers_counted(tmp_path):
    rng = np.random.default_rng(4)
    licences = ["// License " + " ".join(rng.choice(VOCABULARY, 400)) + "\n" for _ in range(4)]
    codes = [" ".join(rng.choice(VOCABULARY, 50)) for _ in range(6)]
    texts = [licences[0] + code for code in codes[:4]]  # alike by their licence alone
    texts += [licences[1] + codes[4], licences[2] + codes[4]]  # alike but for their licence
    texts += [licences[3] + codes[5], licences[3] + codes[5] + " more", codes[5]]  # the first two either way
    folder = saved(pa.table({"id": np.arange(len(texts)), "text": texts}), tmp_path / "in", files=1)
    for mode in ("minhash", "exact"):
        report = run(folder, tmp_path / mode, compare_headers=True, mode=mode)
        assert report["removed"]["near_duplicate"] == 3
        assert report["headers"] == {"removed": 3, "removed_with_headers": 4}
    assert "headers" not in run(folder, tmp_path / "without")


# ---------------------------------------------------------------- what is refused


def test_ids_that_are_not_unique_are_refused_and_the_first_is_named(tmp_path):
    table = pa.table({"id": ["a", "b", "c", "b", "a"], "text": list("vwxyz")})
    with pytest.raises(InputError, match=r"id 'b' of row 1 of .*part-1.parquet stands in an earlier row too"):
        run(saved(table, tmp_path / "in", files=2), tmp_path / "out")
    numbers = pa.table({"id": [7, 8, 7], "text": list("vwx")})
    with pytest.raises(InputError, match="id 7 of row 2"):
        run(saved(numbers, tmp_path / "n", files=1), tmp_path / "out2", partitions=4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text_column": "content"}, "has no column 'content'; it has id, text"),
        ({"id_column": "name"}, "has no column 'name'"),
        ({"survivor": ("-forks",)}, "has no column 'forks'"),
        ({"scope_column": "lang"}, "has no column 'lang'"),
        ({"text_column": "stars"}, "is int64, not text"),
        ({"survivor": ("text",)}, "chosen by numbers or dates, .*; 'text' is string"),
    ],
)
def test_missing_columns_are_named(table, tmp_path, given, message):
    with pytest.raises(UsageError, match=message):
        run(saved(table, tmp_path / "in", files=1), tmp_path / "out", **given)


def test_a_torn_file_is_named(table, tmp_path):
    folder = saved(table, tmp_path / "in", files=2)
    torn = folder / "part-1.parquet"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    with pytest.raises(InputError, match=r"part-1.parquet is not a whole Parquet file"):
        run(folder, tmp_path / "out")


def test_a_bad_line_is_named(tmp_path):
    good = json.dumps({"id": 1, "text": "a"})
    for bad, message in ((b"{", "line 2"), (b"[]", "line 2: it is not an object"), (b'{"id": 2}', "line 2: it has no 'text'"),
                         (b'{"id": 2, "text": 5}', "line 2: 'text' is not text")):  # fmt: skip
        (tmp_path / "in.jsonl").write_bytes(good.encode() + b"\n" + bad + b"\n")
        with pytest.raises(InputError, match=message):
            run(tmp_path / "in.jsonl", tmp_path / "out")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="No rows in"):
        run(tmp_path / "empty", tmp_path / "out")


def test_output_within_the_input_is_not_input(table, tmp_path):
    folder = saved(table, tmp_path / "in")
    first = run(folder, folder / "out")
    assert run(folder, folder / "out") == first


def test_files_of_one_name_keep_their_folders(table, tmp_path):
    folders = [str(saved(table.slice(n, 60), tmp_path / "in" / name, files=1)) for n, name in ((0, "a"), (60, "b"))]
    run(folders, tmp_path / "out")
    assert {str(p.relative_to(tmp_path / "out" / "data")) for p in (tmp_path / "out" / "data").rglob("*.parquet")} == {
        "a/part-0.parquet", "b/part-0.parquet"}  # fmt: skip
    with pa.ipc.new_stream(tmp_path / "in" / "a" / "part-0.arrow", table.schema) as writer:
        writer.write_table(table.slice(120))
    with pytest.raises(UsageError, match=r"would both be written to data/a/part-0.parquet"):
        run(tmp_path / "in", tmp_path / "out")


def test_options_that_do_not_fit_are_refused_with_a_way_out():
    with pytest.raises(RecipeError, match="permutations = 252"):
        DedupOptions(permutations=256, bands=42)
    with pytest.raises((UsageError, ValidationError), match="twice"):
        DedupOptions(survivor=("a", "-a"))


def test_a_table_without_rows(tmp_path):
    table = pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    report = run(saved(table, tmp_path / "in", files=1), tmp_path / "out")
    assert report["rows"] == report["kept"] == 0
    assert kept(tmp_path / "out").schema.names == ["id", "text"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array([1]), pa.array(["a"]), pa.array([2]), pa.array([3])], ["id", "text", "x", "x"]
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    with pytest.raises(UsageError, match="two columns of the name 'x'"):
        run(tmp_path / "in", tmp_path / "out")


def test_a_column_that_no_line_has_is_told(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "a", "lang": "C"}\n')
    for given in ({"scope_column": "language"}, {"survivor": ("-stars",)}, {"source_column": "repo"}):
        with pytest.raises(
            UsageError, match=r"No line of .*in.jsonl has '(language|stars|repo)'; there are id, lang, text"
        ):
            run(tmp_path / "in.jsonl", tmp_path / "out", **given)


def test_columns_of_the_users_keep_their_bytes_whatever_their_names(tmp_path):
    """`hashes` and `key` are names of our own tables too."""
    table = pa.table(
        {"id": [1, 2], "text": ["a", "b"], "hashes": ["x" * 10_000] * 2, "key": [[1, 2], [3]], "file": [{"a": 1}] * 2}
    )
    folder = saved(table, tmp_path / "in", files=1)
    run(folder, tmp_path / "out")
    assert kept(tmp_path / "out").equals(table)
    assert (tmp_path / "out" / "data" / "part-0.parquet").stat().st_size < 8_000


# ---------------------------------------------------------------- size, and being killed


def test_many_copies_of_one_text(tmp_path):
    table = pa.table({"id": np.arange(50_000), "text": pa.array([" ".join(VOCABULARY[:30])] * 50_000)})
    report = run(saved(table, tmp_path / "in", files=2, rows=10_000), tmp_path / "out", partitions=4)
    assert (report["kept"], report["removed"]) == (1, {"exact_copy": 49_999, "near_duplicate": 0})


def test_the_copies_of_a_text_are_never_sorted_together(tmp_path, monkeypatch):
    """Nor are all rows of a partition: neither many rows nor many copies of one may be more than memory holds."""
    sorted_together: list[int] = []
    sort_indices = pc.sort_indices

    def counted(table: Any, *given: Any, **named: Any) -> Any:
        sorted_together.append(len(table))
        return sort_indices(table, *given, **named)

    monkeypatch.setattr(folding, "AT_ONCE", 500)
    monkeypatch.setattr(folding, "PASS_ROWS", 1_000)
    monkeypatch.setattr(reading, "HELD_ROWS", 500)
    monkeypatch.setattr(pc, "sort_indices", counted)
    texts = [" ".join(VOCABULARY[:30])] * 10_000 + [f"a text of its own {i}" for i in range(10_000)]
    table = pa.table({"id": np.arange(20_000)[::-1], "text": texts})
    report = run(saved(table, tmp_path / "in", rows=300), tmp_path / "out", partitions=2)
    assert (report["kept"], report["removed"]["exact_copy"]) == (10_001, 9_999)
    assert {row["kept_id"] for row in clusters(tmp_path / "out") if not row["kept"]} == {10_000}
    assert [row["id"] for row in clusters(tmp_path / "out")] == list(range(10_000, 20_000))
    assert 500 < max(sorted_together) < 5_000


@pytest.mark.parametrize(
    "options", [{}, {"survivor": ("-stars",), "scope_column": "language", "source_column": "language"}]
)
def test_bytes_do_not_depend_on_how_many_rows_are_in_memory(table, tmp_path, options, monkeypatch):
    folder = saved(table, tmp_path / "in")
    run(folder, tmp_path / "1", partitions=2, **options)
    monkeypatch.setattr(folding, "AT_ONCE", 7)
    monkeypatch.setattr(folding, "VALUES_AT_ONCE", 7)
    monkeypatch.setattr(folding, "PASS_ROWS", 10)
    run(folder, tmp_path / "2", partitions=2, **options)  # another folder, so that nothing is taken from the first
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")
    twice = saved(table.slice(7, 1), folder / "more", files=1)
    os.rename(twice / "part-0.parquet", twice / "a.parquet")
    with pytest.raises(InputError, match=r"id 'row-7' of row 7 of .*part-0.parquet stands in an earlier row too"):
        run(folder, tmp_path / "3", partitions=2, **options)


def test_texts_that_differ_in_white_space_alone_make_few_pairs_in_exact_mode(tmp_path):
    """With a licence header and without one, so that both ways of looking at headers are there."""
    words, rows = [str(word) for word in VOCABULARY[:30]], []
    for i in range(3_000):
        place = i % 29 + 1
        text = " ".join(words[:place]) + " " * (i // 29 + 2) + " ".join(words[place:])
        rows.append(("// License\n" if i % 3 == 0 else "") + text)
    table = pa.table({"id": np.arange(3_002), "text": [*rows, " ".join(words[:29]), " ".join(words[1:])]})
    folder, found = saved(table, tmp_path / "in"), []
    for mode in ("exact", "minhash"):
        report = run(folder, tmp_path / mode, partitions=4, mode=mode)
        assert (report["kept"], report["removed"]) == (1, {"exact_copy": 0, "near_duplicate": 3_001})
        assert report["candidate_pairs"] < 20_000
        found.append([{**row, "similarity": None} for row in clusters(tmp_path / mode)])
        told = {row["id"]: row for row in clusters(tmp_path / mode)}
        (stays,) = kept_ids(tmp_path / mode)
        for row in told.values():
            same = (row["id"] < 3_000) == (stays < 3_000) and row["id"] != stays
            assert row["kept"] or (row["kept_id"] == stays and (row["similarity"] == 1.0) == same)
    assert found[0] == found[1]


@pytest.mark.long
@pytest.mark.slow
def test_a_million_copies_and_a_line_of_two_hundred_megabytes(tmp_path):
    words = " ".join(VOCABULARY[:30])
    copies = pa.table({"id": np.arange(1_000_000), "text": pa.array([words] * 1_000_000)})
    line = "".join(f"{word} " for word in np.random.default_rng(0).choice(VOCABULARY, 23_000_000))
    assert len(line) > 200e6
    longest = pa.table({"id": [-1, -2], "text": pa.array([line, line + " twin"], pa.large_string())})
    folder = saved(copies, tmp_path / "in", files=2, rows=50_000)
    pq.write_table(longest, folder / "long.parquet")
    report = run(folder, tmp_path / "out")
    assert (report["kept"], report["removed"]) == (2, {"exact_copy": 999_999, "near_duplicate": 1})


def test_a_run_that_was_killed_goes_on_and_gives_the_same_bytes(tmp_path):
    table = table_of(1, families=300)
    folder = saved(table, tmp_path / "in", files=6, rows=50)
    run(folder, tmp_path / "1", partitions=4)
    command = [sys.executable, "-m", "stackbuild", "dedup", str(folder), "--output", str(tmp_path / "2"), "--partitions", "4",
               "--workers", "2"]  # fmt: skip
    for wanted in ("sketch", "links", "solve"):
        running = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        place = tmp_path / "2" / "stages" / wanted
        while running.poll() is None and not (place.exists() and any(place.rglob("*.json"))):
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "stay" in done.stdout
    assert bytes_of(tmp_path / "2") == bytes_of(tmp_path / "1")


def test_a_second_run_does_nothing_again_and_another_threshold_only_what_follows(table, tmp_path):
    folder = saved(table, tmp_path / "in")
    run(folder, tmp_path / "out")
    found = bytes_of(tmp_path / "out")

    def attempts(step: str = "*") -> set[str]:
        return {path.name for path in (tmp_path / "out" / "stages").glob(f"{step}/data/*")}

    before, sketches = attempts(), attempts("sketch")
    run(folder, tmp_path / "out")
    assert attempts() == before and bytes_of(tmp_path / "out") == found
    run(folder, tmp_path / "out", memory=1 << 20)
    assert attempts() == before
    run(folder, tmp_path / "out", threshold=0.9)
    assert attempts("sketch") == sketches and attempts() != before
    assert bytes_of(tmp_path / "out") != found


def test_what_no_run_needs_is_removed(table, tmp_path):
    folder = saved(table, tmp_path / "in")
    for threshold in (0.5, 0.7):
        run(folder, tmp_path / "out", threshold=threshold)
    steps = [path.parent.parent.name for path in (tmp_path / "out" / "stages").glob("*/data/*")]
    assert steps.count("decide") == 1 and steps.count("sketch") == 3


def test_a_source_that_loses_most_of_its_rows_is_told(tmp_path):
    words = [" ".join(np.random.default_rng(i).choice(VOCABULARY, 40)) for i in range(60)]
    table = pa.table(
        {"id": np.arange(180), "text": words * 3, "repo": ["a"] * 60 + ["b"] * 60 + ["c"] * 30 + ["d"] * 30}
    )
    report = run(saved(table, tmp_path / "in", files=2), tmp_path / "out", source_column="repo", alarm_files=30)
    assert report["alarms"] == [
        {"source": "b", "rows": 60, "removed": 60}, {"source": "c", "rows": 30, "removed": 30}, {"source": "d", "rows": 30, "removed": 30}
    ]  # fmt: skip


def test_a_file_that_was_replaced_is_read_again(table, tmp_path):
    words = " ".join(VOCABULARY[:20])
    folder, path = tmp_path / "in", tmp_path / "in" / "part-0.parquet"
    folder.mkdir()
    pq.write_table(pa.table({"id": [1, 2], "text": [words + " a", words + " b"]}), path, compression="none")
    stat = path.stat()
    assert run(folder, tmp_path / "out")["kept"] == 1
    pq.write_table(pa.table({"id": [1, 2], "text": [words[::-1] + " a", words + " b"]}), path, compression="none")
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(folder, tmp_path / "out")["kept"] == 2


def test_a_second_run_into_one_folder_waits_for_the_first(table, tmp_path):
    (tmp_path / "out").mkdir()
    with dedup.only_one(tmp_path / "out"), pytest.raises(UsageError, match="Another run writes to"):
        run(saved(table, tmp_path / "in"), tmp_path / "out")


def test_removed_texts_resemble_what_stays(tmp_path):
    """Jaccard of word 5-grams, by Python's sets."""
    table = table_of(2)
    run(saved(table, tmp_path / "in"), tmp_path / "out")
    texts = dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = text.lower().split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    checked = 0
    for row in clusters(tmp_path / "out"):
        if row["reason"] == "near_duplicate":
            a, b = shingles(texts[row["id"]]), shingles(texts[row["kept_id"]])
            assert row["similarity"] == len(a & b) / len(a | b)
            checked += 1
    assert checked > 20


# ---------------------------------------------------------------- on top of an earlier run


@pytest.mark.parametrize("options", [{}, {"mode": "exact"}, {"scope_column": "language", "survivor": ("-stars",)}])
def test_new_files_on_an_earlier_run_give_what_one_run_over_all_gives(tmp_path, options):
    table = table_of(4, families=70).slice(0, 270)
    parts = [saved(table.slice(start, 90), tmp_path / f"in{start}", files=1) for start in (0, 90, 180)]
    for number, folder in enumerate(parts):
        os.rename(folder / "part-0.parquet", folder / f"file-{number}.parquet")
    run([str(p) for p in parts], tmp_path / "all", partitions=4, **options)
    expected = clusters(tmp_path / "all")
    before: Path | None = None
    for number, folder in enumerate(parts):
        out = tmp_path / f"step{number}"
        report = deduplicate([str(folder)], out, DedupOptions(**options), partitions=4, earlier=before)
        before = out
        (folder / f"file-{number}.parquet").unlink()  # an earlier file is not read again
    assert clusters(before) == expected
    assert report["rows"] == 270 and report["earlier_rows"] == 180
    stays = {row["id"] for row in expected if not row["kept"]}
    assert set(kept(before)["id"].to_pylist()) == set(table["id"].slice(180, 90).to_pylist()) - stays
    told = {row["id"]: row["kept"] for row in pq.read_table(before / "changes.parquet").to_pylist()}
    gone = {name: {row["id"] for row in clusters(tmp_path / name) if not row["kept"]} for name in ("step1", "step2")}
    earlier = set(table["id"].slice(0, 180).to_pylist())
    assert told == {name: name in gone["step1"] for name in (gone["step1"] ^ gone["step2"]) & earlier}
    assert report["changes"] == len(told) and (options or told)


def test_an_old_survivor_leaves_for_a_better_row(tmp_path):
    words = " ".join(VOCABULARY[:60])
    for name, number, stars in (("old", 1, 3), ("new", 2, 9)):
        text = words + (" more" if number == 2 else "")
        saved(pa.table({"id": [number], "text": [text], "stars": [stars]}), tmp_path / name, files=1)
    run(tmp_path / "old", tmp_path / "1", survivor=("-stars",))
    deduplicate([str(tmp_path / "new")], tmp_path / "2", DedupOptions(survivor=("-stars",)), earlier=tmp_path / "1")
    (change,) = pq.read_table(tmp_path / "2" / "changes.parquet").to_pylist()
    assert (change["id"], change["kept"], change["kept_id"], change["reason"]) == (1, False, 2, "near_duplicate")


def test_a_row_whose_survivor_leaves_comes_back(tmp_path):
    """b left for a; c takes the place of a and does not resemble b."""
    words = [str(word) for word in VOCABULARY[:100]]
    texts = {"a": words, "b": [*words[:88], *VOCABULARY[200:212]], "c": [*VOCABULARY[300:312], *words[12:]]}
    stars = {"a": 5, "b": 1, "c": 9}
    for name, ids in (("old", "ab"), ("new", "c")):
        rows = {"id": list(ids), "text": [" ".join(texts[i]) for i in ids], "stars": [stars[i] for i in ids]}
        saved(pa.table(rows), tmp_path / name, files=1)
    os.rename(tmp_path / "new" / "part-0.parquet", tmp_path / "new" / "part-1.parquet")
    run(tmp_path / "old", tmp_path / "1", survivor=("-stars",))
    assert kept_ids(tmp_path / "1") == ["a"]
    report = deduplicate(
        [str(tmp_path / "new")], tmp_path / "2", DedupOptions(survivor=("-stars",)), earlier=tmp_path / "1"
    )
    left, back = pq.read_table(tmp_path / "2" / "changes.parquet").to_pylist()
    assert (left["id"], left["kept"], left["kept_id"], left["reason"]) == ("a", False, "c", "near_duplicate")
    assert back == {"id": "b", "kept": True, "kept_id": None, "similarity": None, "reason": None}
    assert report["changes"] == 2 and report["kept"] == 2


def test_an_earlier_run_with_other_options_is_refused(table, tmp_path):
    run(saved(table, tmp_path / "in"), tmp_path / "1")
    new = saved(table.slice(0, 0), tmp_path / "new", files=1)
    with pytest.raises(UsageError, match="another options: ngram = 5, now 7"):
        deduplicate([str(new)], tmp_path / "2", DedupOptions(ngram=7), earlier=tmp_path / "1")
    with pytest.raises(InputError, match="holds no finished run"):
        deduplicate([str(new)], tmp_path / "2", DedupOptions(), earlier=tmp_path / "in")
    with pytest.raises(InputError, match="stands in an earlier row too"):
        again = saved(table.slice(5, 3), tmp_path / "again", files=1)
        deduplicate([str(again)], tmp_path / "3", DedupOptions(), earlier=tmp_path / "1")
