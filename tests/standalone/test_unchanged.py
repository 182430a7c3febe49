"""On top of an earlier run only components that changed are solved, and all tables are those of a run over all files.

What is unchanged is told by a plain oracle: the files, survivor columns and edges of each component in the tables of both
runs, compared by Python's sets.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.dedup import limits, pairs
from stackbuild.dedup.candidates import candidate_pairs
from stackbuild.dedup.clusters import Group
from stackbuild.dedup.members import GROUP_EDGES, members_schema
from stackbuild.dedup.unchanged import Components
from stackbuild.shards import Attempt
from stackbuild.standalone.dedup import deduplicate
from stackbuild.standalone.options import DedupOptions
from stackbuild.task import Task

VOCABULARY = np.array([f"name{i}" for i in range(4000)])
ONLY_EARLIER = {"earlier_rows", "changes", "unchanged_components"}


def edited(rng: np.random.Generator, words: np.ndarray, edits: int) -> str:
    copy = words.copy()
    copy[rng.integers(0, len(words), edits)] = rng.choice(VOCABULARY, edits)
    return " ".join(copy)


def corpus(seed: int, families: int = 60) -> pa.Table:
    """Families of edited copies and exact copies, some with a licence header, in two languages, shuffled."""
    rng = np.random.default_rng(seed)
    licences = ["// License " + " ".join(rng.choice(VOCABULARY, 200)) + "\n" for _ in range(3)]
    texts: list[str] = []
    for family in range(families):
        words = rng.choice(VOCABULARY, 120)
        for edits in range(family % 4 + 1):
            header = licences[family % 3] if rng.random() < 0.3 else ""
            texts += [header + edited(rng, words, edits)] * int(rng.integers(1, 3))
    order = rng.permutation(len(texts))
    stars = [None if rng.random() < 0.3 else int(rng.integers(0, 4)) for _ in order]
    return pa.table(
        {
            "id": rng.permutation(len(texts)),
            "text": [texts[i] for i in order],
            "stars": pa.array(stars, pa.int64()),
            "language": [str(rng.choice(["C", "Go"])) for _ in order],
        }
    )


def rows(**columns: Any) -> pa.Table:
    n = len(columns["text"])
    return pa.table({"id": columns.pop("id", list(range(n))), "stars": pa.array([1] * n, pa.int64())} | columns)


def run(table: pa.Table | list[pa.Table], out: Path, earlier: Path | None = None, **given: Any) -> dict[str, Any]:
    """A run over tables that are in files of their own."""
    tables = table if isinstance(table, list) else [table]
    paths = [out.with_name(f"{out.name}-in") / f"{out.name}-{i}.parquet" for i in range(len(tables))]
    paths[0].parent.mkdir(exist_ok=True)
    for path, one in zip(paths, tables, strict=True):
        pq.write_table(one, path)
    keywords = {name: given.pop(name) for name in ("workers", "partitions") if name in given}
    return deduplicate([str(path) for path in paths], out, DedupOptions(**given), earlier=earlier, **keywords)


def table_of(out: Path, *names: str) -> list[dict[str, Any]]:
    """The rows of a table that steps of a run committed, each step's name before its own: sets/members."""
    files = [path for name in names for path in out.glob(f"stages/{name.replace('/', '/data/*/')}-*.parquet")]
    return [row for path in sorted(files) for row in pq.read_table(path).to_pylist()]


def without(found: list[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    """Rows in an order of their own, without some columns."""
    return sorted((tuple((k, v) for k, v in sorted(row.items()) if k not in columns) for row in found), key=repr)


def components(out: Path) -> dict[int, tuple[frozenset[Any], frozenset[Any]]]:
    """Of each component: its files with all that is known of them, its edges."""
    files: dict[int, set[Any]] = {}
    edges: dict[int, set[Any]] = {}
    of = {}
    for row in table_of(out, "sets/members", "members/members"):
        label = row.pop("component")
        row.pop("group")
        files.setdefault(label, set()).add(tuple(sorted(row.items())))
        of[row["file"]] = label
    for row in table_of(out, "sets/group_edges", "members/group_edges"):
        edges.setdefault(of[row["left"]], set()).add((row["left"], row["right"]))
    return {label: (frozenset(files[label]), frozenset(edges[label])) for label in files}


def taken(out: Path) -> set[int]:
    """The components that were taken over."""
    return {row["component"] for row in table_of(out, "unchanged/solved")}


def clusters(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "clusters").iterdir()) for row in pq.read_table(path).to_pylist()]


def check(
    grown: Path, report: dict[str, Any], old: Path, tables: list[pa.Table], whole: Path, expected: dict[str, Any]
) -> set[int]:
    """`grown`, on top of `old`, a run over `tables`, has all that `whole` has, and solved what changed alone.

    Returns what was taken over.
    """
    assert clusters(grown) == clusters(whole)
    assert {k: v for k, v in report.items() if k not in ONLY_EARLIER} == expected
    gone = {out: {row["id"] for row in clusters(out) if not row["kept"]} for out in (old, whole)}
    first = {id_ for table in tables for id_ in table["id"].to_pylist()}
    told = {row["id"]: row["kept"] for row in pq.read_table(grown / "changes.parquet").to_pylist()}
    assert told == {name: name in gone[old] for name in (gone[old] ^ gone[whole]) & first}
    for name in ("clusters", "verified", "solved"):
        made = table_of(grown, f"solve/{name}", f"unchanged/{name}")
        assert without(made, "group") == without(table_of(whole, f"solve/{name}"), "group"), name
    before, now = components(old), components(grown)
    same = {label for label in now if before.get(label) == now[label]}
    assert now == components(whole)
    assert taken(grown) == same and report["unchanged_components"] == len(same)
    solved = {row["component"] for row in table_of(grown, "solve/solved")}
    assert solved == set(now) - same
    gathered = {row["component"] for row in table_of(grown, "sets/sets")}
    assert gathered == (solved if report["options"]["verify"] else set())
    return same


OPTIONS: list[dict[str, Any]] = [
    {"survivor": ("-stars",)},
    {"survivor": ("-stars",), "mode": "exact"},
    {"survivor": ("-stars",), "compare_headers": True, "scope_column": "language"},
    {"compare_headers": True, "mode": "exact", "threshold": 0.6},
    {"survivor": ("stars",), "verify": False},
]


@pytest.mark.parametrize(("seed", "options"), enumerate(OPTIONS))
def test_a_chain_of_runs_gives_what_a_run_over_all_gives(tmp_path, monkeypatch, seed, options):
    """The number of groups grows and falls on the way; what a run was built on is removed behind it."""
    table = corpus(seed)
    cuts = [0, len(table) // 2, len(table) * 4 // 5, len(table)]
    parts = [table.slice(a, b - a) for a, b in itertools.pairwise(cuts)]
    old, groups = tmp_path / "0", []
    for number in range(3):
        monkeypatch.setattr(limits, "GROUP_FILES", (32, 8, 64)[number])
        out = tmp_path / str(number)
        report = run(parts[number], out, old if number else None, partitions=4, **options)
        groups.append(len(table_of(out, "components/groups")))
        if number:
            whole = tmp_path / f"all-{number}"
            expected = run(parts[: number + 1], whole, partitions=4, **options)
            same = check(out, report, old, parts[:number], whole, expected)
            assert 5 < len(same) < len(components(out)) - 5
            shutil.rmtree(old)
        old = out
    assert groups[0] < groups[1] > groups[2] > 1


FAMILY = VOCABULARY[:120]
OTHER = VOCABULARY[200:320]


def two_families() -> pa.Table:
    """Ids 0 and 1 resemble each other, and so do 2 and 3."""
    texts = [" ".join(FAMILY), " ".join([*FAMILY[:-1], "x"]), " ".join(OTHER), " ".join([*OTHER[:-1], "x"])]
    return rows(text=texts)


def grow(old: list[dict[str, Any]] | pa.Table, new: pa.Table, tmp_path: Path, **options: Any) -> tuple[Path, set[int]]:
    """Run `new` on top of `old`: (OUT, what was taken over), compared with a run over both."""
    expected = run([old, new], tmp_path / "all", **options)
    run(old, tmp_path / "old", **options)
    report = run(new, tmp_path / "new", tmp_path / "old", **options)
    return tmp_path / "new", check(tmp_path / "new", report, tmp_path / "old", [old], tmp_path / "all", expected)


def fate(out: Path) -> dict[int, Any]:
    """The row that stays in each row's place, None for those that stay."""
    return {row["id"]: row["kept_id"] for row in clusters(out)}


def test_a_new_file_changes_its_own_component_alone(tmp_path):
    new = rows(id=[9], text=[" ".join([*FAMILY[:-2], "y", "y"])])
    out, same = grow(two_families(), new, tmp_path)
    members = components(out)
    assert len(members) == 2 and [len(members[label][0]) for label in same] == [2]
    assert {row["component"] for row in table_of(out, "sets/sets")} == set(members) - same


def test_without_new_files_of_a_family_nothing_is_solved(tmp_path):
    out, same = grow(two_families(), rows(id=[9], text=["a text of its own"]), tmp_path)
    assert len(same) == 2 and not table_of(out, "sets/sets")


def test_the_largest_cluster_may_be_part_of_a_component_that_was_taken_over(tmp_path):
    """The third text is likely to be one of the second's, and is not when they are compared."""
    words = VOCABULARY[:200]
    texts = [[*VOCABULARY[300:310], *words[10:]], words, [*words[:-42], *VOCABULARY[400:442]]]
    old = rows(text=[" ".join(text) for text in texts])
    out, same = grow(old, rows(id=[9], text=["a text of its own"]), tmp_path)
    assert [len(components(out)[label][0]) for label in same] == [3]
    assert fate(out).keys() == {0, 1}


@pytest.mark.parametrize(("before", "after"), [(1, 9), (None, 0)])
def test_a_better_copy_of_an_old_text_changes_its_component(tmp_path, before, after):
    """Row 9 has the text of 1, and is better than 0, to which 1 lost. A star less than none is a star."""
    old = two_families()
    old = old.set_column(1, "stars", pa.array([3 if before else None, before, before, before], pa.int64()))
    new = rows(id=[9], text=[old["text"][1].as_py()], stars=pa.array([after], pa.int64()))
    out, same = grow(old, new, tmp_path, survivor=("-stars",))
    assert len(same) == 1 and (fate(out)[0], fate(out)[1], fate(out)[9]) == (9, 9, None)


def test_a_copy_that_is_no_better_changes_no_component_but_may_stand_for_its_text(tmp_path):
    old = two_families().set_column(0, "id", pa.array([10, 11, 12, 13]))
    out, same = grow(old, rows(id=[1], text=[old["text"][0].as_py()]), tmp_path)
    assert len(same) == 2 and {fate(out)[10], fate(out)[11]} <= {1, 11, None}


def test_components_that_a_new_file_joins_are_solved_again(tmp_path):
    """The new text is one of either family, one behind the other."""
    new = rows(id=[9], text=[" ".join([*FAMILY, *OTHER])])
    out, same = grow(two_families(), new, tmp_path, mode="exact", threshold=0.4)
    assert not same and len(components(tmp_path / "old")) == 2 and len(components(out)) == 1


def test_a_component_whose_edges_changed_is_solved_again_without_a_new_file(tmp_path, monkeypatch):
    """New files fill the buckets of old ones, which then give a star and a chain, but resemble none of them."""
    monkeypatch.setattr(pairs, "candidate_pairs", functools.partial(candidate_pairs, limit=3))
    rng, old, new = np.random.default_rng(5), [], []
    for _ in range(12):
        words = rng.choice(VOCABULARY, 60)
        old += [edited(rng, words, 1) for _ in range(6)]
        for _ in range(12):
            new.append(" ".join([*words[:25], *rng.choice(VOCABULARY, 35)]))
    fresh = rows(id=np.arange(1000, 1000 + len(new)), text=new)
    out, same = grow(rows(text=old), fresh, tmp_path, bands=252)
    before, now = components(tmp_path / "old"), components(out)
    other_edges = [label for label in now if label in before and before[label][0] == now[label][0]]
    assert set(other_edges) - same and all(before[label][1] != now[label][1] for label in set(other_edges) - same)


@pytest.mark.parametrize("other", [{"threshold": 0.9}, {"verify": False}])
def test_with_another_threshold_or_check_all_is_solved(tmp_path, other):
    table = corpus(3, 30)
    run(table.slice(0, 50), tmp_path / "old")
    report = run(table.slice(50), tmp_path / "new", tmp_path / "old", **other)
    run([table.slice(0, 50), table.slice(50)], tmp_path / "all", **other)
    assert clusters(tmp_path / "new") == clusters(tmp_path / "all")
    assert report["unchanged_components"] == 0 and not (tmp_path / "new" / "stages" / "unchanged").exists()
    last = run(rows(id=[-1], text=["b"], language=["C"]), tmp_path / "last", tmp_path / "new", **other)
    assert last["unchanged_components"] == len(components(tmp_path / "last")) > 0


def test_a_run_on_top_of_another_that_was_killed_goes_on(tmp_path):
    table = corpus(4, 200)
    old, new = table.slice(0, len(table) // 2), table.slice(len(table) // 2)
    run(old, tmp_path / "old", partitions=4)
    expected = run(new, tmp_path / "whole", tmp_path / "old", partitions=4)
    command = [sys.executable, "-m", "stackbuild", "dedup", str(tmp_path / "whole-in"), "--output", str(tmp_path / "new"), "--earlier",
               str(tmp_path / "old")]  # fmt: skip
    stages = tmp_path / "new" / "stages"
    for wanted in ("members", "unchanged", "sets"):
        running = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while running.poll() is None and not any(stages.glob(f"{wanted}/manifests/*.json")):
            time.sleep(0.01)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert clusters(tmp_path / "new") == clusters(tmp_path / "whole")
    assert taken(tmp_path / "new") == taken(tmp_path / "whole") and expected["unchanged_components"] > 20
    assert (tmp_path / "new" / "report.json").read_bytes() == (tmp_path / "whole" / "report.json").read_bytes()


# ---------------------------------------------------------------- digests


def test_digests_depend_on_no_group_partition_or_order(tmp_path, monkeypatch):
    table = corpus(5)
    options = {"compare_headers": True, "survivor": ("-stars",)}
    run(table, tmp_path / "1", partitions=1, **options)
    monkeypatch.setattr(limits, "GROUP_FILES", 8)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(len(table))))
    run([shuffled.slice(0, 40), shuffled.slice(40)], tmp_path / "8", partitions=8, memory=1 << 14, **options)
    found = [without(table_of(tmp_path / name, "solve/solved"), "group") for name in "18"]
    assert found[0] == found[1] and len(found[0]) > 30
    assert len(table_of(tmp_path / "8", "components/groups")) > len(table_of(tmp_path / "1", "components/groups"))


FILES: list[dict[str, Any]] = [
    {"component": 8, "file": 8, "content_id": b"\0" * 7 + b"\x09" + b"a" * 12, "scope": "C", "rank_0": 1, "shingles": 5},
    {"component": 8, "file": 16, "content_id": b"\0" * 7 + b"\x11" + b"b" * 12, "scope": "C", "rank_0": 0, "shingles": 6},
    {"component": 8, "file": 24, "content_id": b"\0" * 7 + b"\x19" + b"c" * 12, "scope": "C", "rank_0": None, "shingles": 7},
    {"component": 80, "file": 80, "content_id": b"d" * 20, "scope": None, "rank_0": 1, "shingles": 5},
    {"component": 80, "file": 88, "content_id": b"e" * 20, "scope": None, "rank_0": 1, "shingles": 5},
]  # fmt: skip
PAIRS = [(8, 16), (16, 24), (80, 88)]


def digests(out: Path, files: list[dict[str, Any]], edges: list[tuple[int, int]]) -> dict[int, bytes]:
    """Of a group of these files and edges, by component."""
    options = DedupOptions(survivor=("-stars",))
    attempt = Attempt(out, "members", 0)
    task = Task(out=out, job="members", rank=0, params={}, options=options, seed=1, partitions=1, tables={}, attempt=attempt)  # fmt: skip
    for name, schema, given in (
        ("members", members_schema(options), files),
        ("group_edges", GROUP_EDGES, [{"left": left, "right": right} for left, right in edges]),
    ):
        with task.writer(name, schema, group_by="group") as writer:
            writer.write(pa.Table.from_pylist([{"group": 0} | row for row in given], schema))
    written = {output.table: [output] for output in attempt_outputs(attempt)}
    group = Group(
        Task(out=out, job="solve", rank=0, params={}, options=options, seed=1, partitions=1, tables=written), 0
    )
    found = Components(group)
    return dict(zip(found.labels.tolist(), found.digests().tolist(), strict=True))


def attempt_outputs(attempt: Attempt) -> Any:
    from stackbuild.counts import Ledger

    return attempt.commit("key", Ledger(), {}).outputs


CHANGES: dict[str, Any] = {
    "another content of the same number": ({"content_id": b"\0" * 7 + b"\x11" + b"b" * 11 + b"c"}, PAIRS),
    "another scope": ({"scope": "Go"}, PAIRS),
    "no scope": ({"scope": None}, PAIRS),
    "another rank": ({"rank_0": -1}, PAIRS),
    "no rank": ({"rank_0": None}, PAIRS),
    "another variant": ({"file": 18}, [(8, 18), (18, 24), (80, 88)]),
    "other shingles": ({"shingles": 60}, PAIRS),
    "another edge": ({}, [(8, 16), (8, 24), (80, 88)]),
    "one more edge": ({}, [*PAIRS, (8, 24)]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_digest_has_all_that_a_solution_follows_from(tmp_path, what):
    change, edges = CHANGES[what]
    before = digests(tmp_path / "1", FILES, PAIRS)
    again = digests(tmp_path / "2", FILES[::-1] + FILES[:2], [*PAIRS[::-1], PAIRS[0]])  # any order, and repeats
    after = digests(tmp_path / "3", [FILES[0], FILES[1] | change, *FILES[2:]], edges)
    assert before == again and before.keys() == after.keys() == {8, 80}
    assert before[8] != after[8] and before[80] == after[80]
    assert before[8] != digests(tmp_path / "4", [*FILES[:2], *FILES[3:]], [PAIRS[0], PAIRS[2]])[8]
