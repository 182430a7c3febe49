"""Each level of `manifest verify` finds its own lie, and names the file and the row."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError
from stackbuild.release import passes as passes_module
from stackbuild.release.manifest import placed, read_manifest
from stackbuild.release.supply import STATES
from stackbuild.release.verify import (
    Level,
    verify_bytes,
    verify_paths,
    verify_roots,
    verify_syntax,
)
from stackbuild.replay import TextReplay
from stackbuild.wanted import STATES as FETCHED_STATES
from stackbuild.wanted import Fetched, Wanted
from tests.release.releases import MADE, File, FolderSupply, objects, release, rewrite

NAME = "data/Python/train-00000-of-00001.parquet"
FILES = [
    File("x/one", b"a.py", b"print(1)\n"),
    File("x/one", b"src/b.py", b"print(2)\n", mode=0o100755),
    File("x/one", b"src/c.py", "# caf\u00e9\n".encode("latin-1"), encoding="WINDOWS-1252"),
    File("x/one", b"vendor/d.py", b"left", released=False),
    File("x/one", b"LICENSE", b"left too", released=False),
    File("y/two", b"\xff.py", b"import os\n"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    release(tmp_path / "r", FILES)
    return tmp_path / "r"


def store(tmp_path: Path) -> FolderSupply:
    return FolderSupply(objects(tmp_path / "objects", (file.data for file in FILES)))


def changed(folder: Path, number: int, **values: Any) -> None:
    """A forger changes a row and all that tells of it."""

    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[number] = {**rows[number], **values}
        return rows

    rewrite(folder, NAME, change)


def syntax(folder: Path) -> Level:
    return verify_syntax(read_manifest(folder / "manifest"), folder / "dataset")


def bytes_and_texts(folder: Path, supply: Any) -> list[Level]:
    manifest = read_manifest(folder / "manifest")
    return verify_bytes(manifest, supply, TextReplay(manifest.header))


def test_a_manifest_that_holds_holds_on_every_level(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder / "manifest")
    results = [syntax(folder), *bytes_and_texts(folder, store(tmp_path)), verify_paths(manifest)]
    assert [(result.level, result.ok, result.problems) for result in results] == [
        (0, 4, []),
        (1, 4, []),
        (4, 4, []),
        (2, 4, []),
    ]


# ---------------------------------------------------------------- 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"swhid": "swh:1:cnt:" + "A" * 40}, "is not a SWHID"),
        ({"swhid": "swh:1:dir:" + "a" * 40}, "is not a SWHID"),
        ({"swhid": "swh:1:cnt:" + "a" * 40 + "\n"}, "is not a SWHID"),
        ({"swhid": ""}, "is not a SWHID"),
        ({"path_bytes": b"../etc/passwd"}, "is not a path"),
        ({"path_bytes": b"a/../b"}, "is not a path"),
        ({"path_bytes": b"/a"}, "is not a path"),
        ({"path_bytes": b""}, "is not a path"),
        ({"path_bytes": b"a//b"}, "is not a path"),
        ({"path_bytes": b"a\0b"}, "is not a path"),
        ({"path_bytes": None}, "is not a path"),
        ({"sha1": "z" * 40}, "has no SHA-1"),
        ({"text_sha256": "0" * 63}, "has no SHA-256"),
        ({"length": -1}, "has no length"),
        ({"length": None}, "has no length"),
        ({"revision_id": None}, "names no repository or revision"),
    ],
)
def test_a_malformed_row_is_named_with_file_and_row(folder: Path, values: dict[str, Any], message: str) -> None:
    changed(folder, 2, **values)
    result = syntax(folder)
    assert (result.ok, result.malformed) == (3, 1)
    assert f"{NAME}, row 2" in result.problems[0] and message in result.problems[0]


def test_qualifiers_of_a_swhid_are_accepted(folder: Path) -> None:
    manifest = read_manifest(folder / "manifest")
    row = next(manifest.rows(pa.schema([("swhid", pa.string())]))).column(0)[0].as_py()
    changed(folder, 0, swhid=f"{row};origin=https://example.com;lines=9-1")
    assert syntax(folder).problems == []


def test_names_such_as_two_dots_within_a_name_are_paths(folder: Path) -> None:
    changed(folder, 0, path_bytes=b"..a/b../...")
    assert syntax(folder).problems == []


def test_a_path_that_stands_twice_is_named_with_both_rows(folder: Path) -> None:
    rewrite(folder, NAME, lambda rows: [*rows, rows[0]])
    result = syntax(folder)
    assert result.malformed == 1
    assert "row 4:" in result.problems[0] and "is there twice, first in" in result.problems[0]
    assert result.problems[0].endswith("row 0")


def test_files_that_do_not_hash_or_do_not_belong_are_named(folder: Path) -> None:
    (folder / "dataset" / "extra.parquet").write_bytes(b"")
    tree = folder / "manifest" / "tree" / "part-00000-of-00001.parquet"
    tree.write_bytes(tree.read_bytes() + b"x")
    problems = syntax(folder).problems
    assert any("extra.parquet is not in the header" in problem for problem in problems)
    assert any("tree" in problem and "does not hash" in problem for problem in problems)


def test_a_header_that_states_other_rows_is_named(folder: Path) -> None:
    path = folder / "manifest" / "header.json"
    body = json.loads(path.read_bytes())
    for key, value in (("rows_sha256", "0" * 64), ("rows", 99)):
        path.write_text(json.dumps({**body, key: value}))
        assert "header.json states rows" in syntax(folder).problems[0]
    body["files"][0]["rows"] = 99
    path.write_text(json.dumps(body))
    assert "the header says 99" in syntax(folder).problems[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format 1; this stackbuild reads 2"),
        ({"files": None}, "no list of files"),
        ({"files": [1]}, "entry 0 of files"),
        ({"trees": [{"file": "/etc/passwd", "sha256": "", "rows": 1}]}, "not below its folder"),
        ({"trees": [{"file": "../x", "sha256": "", "rows": 1}]}, "not below its folder"),
        ({"trees": [{"file": "x", "sha256": "", "rows": "1"}]}, "how many rows"),
    ],
)
def test_a_header_of_another_kind_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    path = folder / "manifest" / "header.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(InputError, match=message):
        read_manifest(folder / "manifest")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\udcff"])
def test_a_torn_header_is_named(folder: Path, text: str) -> None:
    (folder / "manifest" / "header.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"header\.json"):
        read_manifest(folder / "manifest")


def test_a_torn_table_is_named(folder: Path) -> None:
    path = folder / "manifest" / NAME
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read"):
        verify_paths(read_manifest(folder / "manifest"))


def test_a_table_without_a_column_is_named(folder: Path) -> None:
    import pyarrow.parquet as pq

    path = folder / "manifest" / NAME
    pq.write_table(pq.read_table(path).drop_columns(["path_bytes"]), path)
    with pytest.raises(InputError, match="no column path_bytes"):
        verify_paths(read_manifest(folder / "manifest"))


# ---------------------------------------------------------------- 1


@pytest.mark.parametrize("values", [{"length": 1}, {"sha1": "1" * 40}])
def test_bytes_of_another_length_or_hash_are_changed(folder: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    changed(folder, 0, **values)
    supply = store(tmp_path)
    if "sha1" in values:  # a store that has these very bytes under the wrong name
        [found] = [file.data for file in FILES[:1]]
        objects(tmp_path / "objects", [found])
        (tmp_path / "objects" / ("1" * 40)).write_bytes(
            (tmp_path / "objects" / __import__("hashlib").sha1(found).hexdigest()).read_bytes()
        )
    first, fourth = bytes_and_texts(folder, supply)
    assert (first.ok, first.changed) == (3, 1) and f"{NAME}, row 0" in first.problems[0]
    assert (fourth.ok, fourth.unchecked) == (3, 1)


def test_two_files_of_one_sha1_are_told_apart_by_the_git_hash(folder: Path, tmp_path: Path) -> None:
    """As the SHAttered files are, which share the key of the store, and their length."""
    changed(folder, 0, swhid="swh:1:cnt:" + "0" * 40)
    first, _ = bytes_and_texts(folder, store(tmp_path))
    assert (first.ok, first.changed) == (3, 1)


def test_every_state_that_a_fetch_may_end_in_says_something_of_the_row() -> None:
    assert set(STATES) == set(FETCHED_STATES)


@pytest.mark.parametrize("state", [state for state in STATES if state != "ok"])
def test_states_of_a_store_are_told_apart(folder: Path, state: str) -> None:
    first, fourth = bytes_and_texts(folder, lambda wanted: (Fetched(one, state) for one in wanted))
    counts = {name: getattr(first, name) for name in ("missing", "taken_down", "changed", "unchecked")}
    assert {name: count for name, count in counts.items() if count} == {STATES[state]: 4}
    assert fourth.ok == 0 and fourth.unchecked == 4


def test_a_content_of_several_rows_is_fetched_once(tmp_path: Path) -> None:
    release(tmp_path / "r", [File(f"x/{n}", b"same.py", b"same\n") for n in range(5)])
    asked: list[Wanted] = []

    def supply(wanted: Any) -> Any:
        for one in wanted:
            asked.append(one)
            yield Fetched(one, "ok", b"same\n")

    first, fourth = bytes_and_texts(tmp_path / "r", supply)
    assert len(asked) == 1 and first.ok == fourth.ok == 5


# ---------------------------------------------------------------- 2


def test_a_path_that_is_not_in_the_tree_is_found(folder: Path) -> None:
    changed(folder, 0, path_bytes=b"other.py")
    result = verify_paths(read_manifest(folder / "manifest"))
    assert (result.ok, result.changed) == (1, 3) and "the root directory is" in result.problems[0]


@pytest.mark.parametrize("values", [{"swhid": "swh:1:cnt:" + "0" * 40}, {"mode": 0o100755}])
def test_another_content_or_mode_in_the_tree_is_found(folder: Path, values: dict[str, Any]) -> None:
    changed(folder, 0, **values)
    assert verify_paths(read_manifest(folder / "manifest")).changed == 3


def test_a_row_that_was_taken_out_is_found(folder: Path) -> None:
    rewrite(folder, NAME, lambda rows: rows[1:])
    assert syntax(folder).problems == []
    assert verify_paths(read_manifest(folder / "manifest")).changed == 2


def test_a_row_that_contradicts_another_is_no_error_of_ours(folder: Path) -> None:
    changed(folder, 0, path_bytes=b"src")
    assert verify_paths(read_manifest(folder / "manifest")).changed == 3


def test_what_cannot_be_proven_is_unchecked_with_the_reason(folder: Path) -> None:
    changed(folder, 3, directory_id=None)
    tree = "tree/part-00000-of-00001.parquet"
    rewrite(folder, tree, lambda rows: [{**row, "target": None} for row in rows])
    result = verify_paths(read_manifest(folder / "manifest"))
    assert dict(result.reasons) == {
        "its tree was not read whole, or may not be shown": 3,
        "its revision names no root directory": 1,
    }


# ---------------------------------------------------------------- 3


def test_the_root_of_a_revision_is_asked_of_its_source(folder: Path) -> None:
    manifest = read_manifest(folder / "manifest")
    roots = {
        row["repo_name"]: row["directory_id"]
        for batch in manifest.rows(pa.schema([("repo_name", pa.string()), ("directory_id", pa.string())]))
        for row in batch.to_pylist()
    }
    right = verify_roots(manifest, lambda repo, revision: (bytes.fromhex(roots[repo]), ""))
    assert (right.ok, right.problems) == (4, [])
    wrong = verify_roots(manifest, lambda repo, revision: (b"\1" * 20, ""))
    assert wrong.changed == 4 and "has the root directory 0101" in wrong.problems[0]
    unknown = verify_roots(manifest, lambda repo, revision: (None, "nobody knows"))
    assert dict(unknown.reasons) == {"nobody knows": 4}


def test_a_git_repository_tells_the_root_of_its_commit(tmp_path: Path) -> None:
    from stackbuild.proof import root_of
    from stackbuild.sources.unit import Unit

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "a").write_text("a")
    git("add", ".")
    git("commit", "-qm", "one")
    commit, tree = git("rev-parse", "HEAD"), git("rev-parse", "HEAD^{tree}")
    key = {"repo_name": "x", "commit": commit, "object_format": "sha1"}
    unit = Unit("git", key, {"path": str(tmp_path / ".git")}, 1, "x")
    assert root_of(unit) == (bytes.fromhex(tree), "")
    gone = Unit("git", {**key, "commit": "1" * 40}, {"path": str(tmp_path / ".git")}, 1, "x")
    assert root_of(gone) == (None, "its git repository can no longer be read")


# ---------------------------------------------------------------- 4


def test_a_text_of_another_hash_is_changed(folder: Path, tmp_path: Path) -> None:
    changed(folder, 1, text_sha256="0" * 64)
    first, fourth = bytes_and_texts(folder, store(tmp_path))
    assert first.ok == 4 and (fourth.ok, fourth.changed) == (3, 1) and f"{NAME}, row 1" in fourth.problems[0]


@pytest.mark.parametrize("name", ["UTF-16", "rot13", "zlib", "no such", "a\0b", "x" * 9_999, None, "../os", "idna"])
def test_an_encoding_that_is_none_is_changed_and_no_error_of_ours(
    folder: Path, tmp_path: Path, name: str | None
) -> None:
    changed(folder, 2, src_encoding=name)
    _, fourth = bytes_and_texts(folder, store(tmp_path))
    assert (fourth.ok, fourth.changed) == (3, 1)


def test_a_redacted_text_is_redacted_again_by_the_version_that_is_named(tmp_path: Path) -> None:
    from stackbuild.identity import text_version
    from stackbuild.pii.stage import Pii

    version = text_version(Pii())
    before, after = b"mail jo@company.io\n", b"mail <EMAIL>\n"
    import hashlib

    def told(row: dict[str, Any]) -> dict[str, Any]:
        transforms = [{"name": "pii", "version": version, "count": 1}]
        return {**row, "transforms": transforms, "text_sha256": hashlib.sha256(after).hexdigest()}

    made = {**MADE, "transforms": [{"name": "pii", "version": version, "options": {}}]}
    release(tmp_path / "r", [File("x/y", b"a.py", before)], told, made)
    supply = FolderSupply(objects(tmp_path / "o", [before]))
    assert bytes_and_texts(tmp_path / "r", supply)[1].ok == 1
    changed(tmp_path / "r", 0, transforms=[{"name": "pii", "version": "1-0", "count": 1}])
    fourth = bytes_and_texts(tmp_path / "r", supply)[1]
    assert fourth.unchecked == 1 and "changed by version 1-0 of pii" in next(iter(fourth.reasons))
    changed(tmp_path / "r", 0, transforms=[{"name": "nobody", "version": None, "count": None}])
    fourth = bytes_and_texts(tmp_path / "r", supply)[1]
    assert "can do 'nobody' again" in next(iter(fourth.reasons))
    changed(tmp_path / "r", 0, transforms=[])
    assert bytes_and_texts(tmp_path / "r", supply)[1].changed == 1  # the text as it was is another


# ---------------------------------------------------------------- any size


def test_a_manifest_is_read_without_being_held(tmp_path: Path) -> None:
    """Arrow would fetch all of a file ahead and keep it until the last row."""
    rows, random_ = 100_000, random.Random(3)
    schema = pa.schema([pa.field("sha1", pa.string())])
    table = pa.table({"sha1": [random_.randbytes(20).hex() for _ in range(rows)]}, schema=schema)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2_000, use_dictionary=False)
    del table
    size = (tmp_path / "rows.parquet").stat().st_size
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in placed(tmp_path / "rows.parquet", schema, 0)]
    assert max(held[1:]) < size / 2 < 4_000_000, (held, size)


def test_what_does_not_fit_in_memory_is_spilled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes are given less than the rows take."""
    monkeypatch.setattr(passes_module, "allowance", lambda: 64 << 20)
    rows = 400_000
    numbers = pa.array(range(rows))
    batch = pa.RecordBatch.from_pydict({"n": numbers, "text": pa.array([f"{n % 9_973:08d}" * 30 for n in range(rows)])})
    with passes_module.passes() as connection:
        stream = {"rows": (batch.schema, lambda: iter([batch]))}
        found = [
            b.column("n") for b in passes_module.ordered(connection, stream, "SELECT * FROM rows ORDER BY text, n")
        ]
    assert sum(len(one) for one in found) == rows
