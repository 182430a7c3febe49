"""The release's layout: languages that nobody told, groups that must be whole, cuts between owners, one row a repository."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild import registry
from stackbuild.build import finish
from stackbuild.counts import Ledger
from stackbuild.errors import InputError
from stackbuild.footers import leaf_of, may_hold
from stackbuild.layout.columns import REPOS, repositories
from stackbuild.layout.options import cut_by_owner
from stackbuild.layout.stage import Layout
from stackbuild.ledger import check_ledger
from stackbuild.shards import Attempt, file_sha256, open_parquet, read_batches
from stackbuild.stage import Options, Stage
from stackbuild.tables import TableWriter
from stackbuild.task import Task
from tests.test_build import run
from tests.test_reuse import in_process
from tests.worlds import light, world

OWNERS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 500), min_size=1, max_size=60)
GROUPED = pa.schema([pa.field("group", pa.uint16()), pa.field("owner", pa.string())])


# ---------------------------------------------------------------- tables in groups


def test_a_group_that_comes_again_is_refused_when_it_is_written(out: Path) -> None:
    writer = TableWriter(out / "t.parquet", GROUPED, group_by="group")
    with pytest.raises(ValueError, match="group 1 comes again behind 2"):
        writer.write(pa.table({"group": [1, 2, 1], "owner": ["a", "b", "c"]}, schema=GROUPED))


def test_a_table_that_was_not_written_in_groups_is_refused_when_one_is_read(out: Path) -> None:
    attempt = Attempt(out, "j", 0)
    writer = attempt.writer("t", GROUPED)
    writer.write(pa.table({"group": [1, 2], "owner": ["a", "b"]}, schema=GROUPED))
    writer.groups = {1: 1, 2: 1}
    shard = attempt.commit("0" * 64, Ledger(), {})
    with pytest.raises(InputError, match="several values of group"):
        list(read_batches(out, shard.table("t"), None, 1, "group"))


@given(
    owners=st.lists(st.text("abcé\U0001f600", max_size=3), min_size=1, max_size=40),
    first=st.text("abcé"),
    last=st.text("abcé"),
)
@settings(max_examples=50, deadline=None)
def test_row_groups_are_passed_over_only_if_they_hold_nothing_of_a_range(
    tmp_path_factory: pytest.TempPathFactory, owners: list[str], first: str, last: str
) -> None:
    out = tmp_path_factory.mktemp("t")
    attempt = Attempt(out, "j", 0)
    writer = attempt.writer("t", GROUPED, row_group_rows=5)
    rows = sorted(owners, key=str.encode)
    writer.write(pa.table({"group": [0] * len(rows), "owner": rows}, schema=GROUPED))
    shard = attempt.commit("0" * 64, Ledger(), {})
    read = [
        owner
        for batch in read_batches(out, shard.table("t"), ["owner"], between=("owner", first, last))
        for owner in batch.column(0).to_pylist()
        if first <= owner <= last
    ]
    assert read == [owner for owner in rows if first <= owner <= last]
    with open_parquet(out, shard.table("t")[0]) as file:
        assert not may_hold(file, 0, leaf_of(file, "owner"), rows[min(4, len(rows) - 1)] + "z\U0001f601", "\U0001f602")


# ---------------------------------------------------------------- cuts


@given(owners=OWNERS, target=st.integers(1, 1_000), seed=st.integers(0, 9))
def test_cuts_cover_every_owner_once_in_order(owners: dict[str, int], target: int, seed: int) -> None:
    table = sorted(owners.items())
    cuts = list(cut_by_owner(table, target, seed, "Python"))
    names = [name for name, _ in table]
    covered = [name for first, last in cuts for name in names if first <= name <= last]
    assert covered == names
    assert all(a[1] < b[0] for a, b in itertools.pairwise(cuts))


@given(owners=OWNERS, target=st.integers(50, 1_000))
def test_a_file_holds_at_most_twice_the_target_and_its_last_owner(owners: dict[str, int], target: int) -> None:
    table = sorted(owners.items())
    for first, last in cut_by_owner(table, target, 0, "C"):
        inside = [max(size, 1) for name, size in table if first <= name < last]
        assert sum(inside) < 2 * target


def test_a_new_owner_moves_only_the_files_around_it() -> None:
    table = [(f"owner{number:05d}", 10) for number in range(5_000)]
    before = set(cut_by_owner(table, 500, 0, "C"))
    after = set(cut_by_owner(sorted([*table, ("owner02500a", 10)]), 500, 0, "C"))
    assert len(before) > 50
    assert len(before - after) <= 3


# ---------------------------------------------------------------- repositories


@given(
    st.lists(
        st.tuples(st.sampled_from(["a/x", "a/y", "b/x"]), st.sampled_from(["1", "2"]), st.integers(0, 99)), max_size=30
    )
)
def test_repositories_hold_each_file_of_theirs_once(rows: list[tuple[str, str, int]]) -> None:
    rows = sorted(rows)
    plain: dict[str, list[Any]] = {
        field.name: [None] * len(rows) for field in REPOS if field.name not in ("files", "num_files")
    }
    plain["repo_name"] = [row[0] for row in rows]
    plain["revision_id"] = [row[1] for row in rows]
    types = {field.name: field.type for field in REPOS}
    table = pa.table({name: pa.array(values, types[name]) for name, values in plain.items()})
    files = pa.array([{"path": f"/{row[2]}"} for row in rows], REPOS.field("files").type.value_type)
    found = repositories(table.append_column("file", files)).to_pylist()
    expected = {key: [f"/{row[2]}" for row in group] for key, group in itertools.groupby(rows, key=lambda row: row[:2])}
    assert {(r["repo_name"], r["revision_id"]): [f["path"] for f in r["files"]] for r in found} == expected
    assert all(row["num_files"] == len(row["files"]) for row in found)


# ---------------------------------------------------------------- a build


class Tongue(Stage[Options]):
    """Says nothing of every other file's language."""

    name = "tongue"
    reads = ("path",)
    adds = (pa.field("language", pa.string()),)

    def tags(self, files: pa.RecordBatch) -> dict[str, pa.Array]:
        names = {"0": "Python", "1": None, "2": "Aldor", "3": None, "4": "Zig"}
        return {"language": pa.array([names.get(path[1], "Python") for path in files["path"].to_pylist()], pa.string())}


def body_of(tmp_path: Path, rows: int, stages: list[str]) -> dict[str, Any]:
    texts = [f"def f{number}(x):\n    return x + {number}\n" * 9 for number in range(rows)]
    paths = [f"{number % 10}{number}.py" for number in range(rows)]
    table = pa.table({"text": texts, "path": paths, "repo": [f"o{n % 5}/r" for n in range(rows)]})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = {
        "kind": "parquet",
        "paths": [str(tmp_path / "rows.parquet")],
        "columns": {"content": "text", "path": "path", "repo_name": "repo"},
    }
    sizes = {"file_bytes": 1024, "row_group_bytes": 1024}
    return light(tmp_path, source=[source], stages=stages, layout=sizes, outputs=["dataset", "repos", "index"])


def test_files_whose_language_nobody_knows_are_in_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.STAGES, "tongue", f"{__name__}:Tongue")
    out = tmp_path / "out"
    build = in_process(body_of(tmp_path, 100, ["opt_out", "exact_dedup", "decode", "tongue"]), out)
    assert check_ledger(build)[-1][1].rows_out == 100
    finish(build)
    tables = [pq.read_table(path) for path in (out / "dataset" / "data" / "Unknown").glob("*.parquet")]
    assert sum(table.num_rows for table in tables) == 20
    assert {name for table in tables for name in table["language"].to_pylist()} == {"Unknown"}
    assert sorted(path.name for path in (out / "dataset" / "data").iterdir()) == ["Aldor", "Python", "Unknown", "Zig"]


def test_each_owner_is_in_one_file_of_a_language(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(body_of(tmp_path, 40, ["opt_out", "exact_dedup", "decode", "languages", "signals"]), out)
    places: dict[str, set[str]] = {}
    for path in (out / "dataset").rglob("*.parquet"):
        for name in pq.read_table(path)["repo_name"].to_pylist():
            places.setdefault(name, set()).add(path.name)
    assert len(places) == 5 and all(len(files) == 1 for files in places.values())
    assert len({name for files in places.values() for name in files}) > 1


def test_the_dataset_does_not_depend_on_the_number_of_partitions(tmp_path: Path) -> None:
    body = body_of(tmp_path, 60, ["opt_out", "exact_dedup", "decode", "languages", "signals"])
    found = []
    for partitions in (1, 8):
        out = tmp_path / f"out{partitions}"
        run({**body, "partitions": partitions}, out)
        found.append({path.name: file_sha256(path) for path in (out / "dataset" / "data").rglob("*.parquet")})
    assert found[0] == found[1] and found[0]


def test_a_file_that_the_layout_loses_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Layout.files

    def losing(self: Layout, task: Task) -> None:
        read = task.read
        monkeypatch.setattr(task, "read", lambda *a, **k: (batch.slice(1) for batch in read(*a, **k)))
        whole(self, task)

    monkeypatch.setattr(Layout, "files", losing)
    build = in_process(
        body_of(tmp_path, 20, ["opt_out", "exact_dedup", "decode", "languages", "signals"]), tmp_path / "out"
    )
    with pytest.raises(InputError, match="20 files were kept"):
        check_ledger(build)


def test_the_clusters_of_two_passes_over_near_duplicates_are_both_released(tmp_path: Path) -> None:
    root = world(tmp_path / "world", repos=3, files=3)
    functions = [f"def first{n}(a, b):\n    total = a * {n} + b\n    return total - {n}\n" for n in range(40)]
    for repo, changed in (("repo0", 0), ("repo1", 5)):  # of forty functions five differ: about 0.75 alike
        (root / repo / "alike.py").write_text("\n".join(functions[changed:] + [f[::-1] for f in functions[:changed]]))
    stages = ["opt_out", "exact_dedup", "decode", "languages", "signals", "near_dedup:strict", "near_dedup"]
    survivor = ["-revision_date"]
    options = {"near_dedup:strict": {"threshold": 0.95, "survivor": survivor}}
    out = tmp_path / "out"
    result = run(light(root, stages=stages, stage=options, near_dedup={"threshold": 0.5, "survivor": survivor}), out)
    ledgers = dict(check_ledger(result.build))
    dropped = [ledgers[name].dropped for name in ("near_dedup:strict", "near_dedup")]
    rows = [row for path in (out / "clusters").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert sum(not row["kept"] for row in rows) == sum(dropped)
    assert all(dropped), dropped
