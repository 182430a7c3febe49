"""Which branch stands for a repository, and what becomes of one that leads nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stackbuild.sources.swh import heads
from stackbuild.sources.swh.session import session
from stackbuild.sources.swh.tables import BRANCHES, RELEASES, REVISIONS, TARGET_TYPES

Branch = tuple[str, str, str]  # name, target, target type


def identifier(text: str) -> bytes:
    return text.encode().ljust(20, b".")


def chosen(snapshots: list[str], defaults: dict[str, str]) -> pa.Table:
    rows = [
        {"repository": name, "origin": f"https://{name}", "visit": 1, "date": None, "snapshot_id": identifier(name),
         "default_branch": defaults.get(name)}
        for name in snapshots
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, heads.CHOSEN)


def branches(snapshots: dict[str, list[Branch]]) -> pa.Table:
    rows = [
        {"snapshot_id": identifier(name), "name": branch.encode(), "target_type": TARGET_TYPES.index(kind),
         "target": target.encode() if kind == "alias" else identifier(target)}
        for name, listed in snapshots.items()
        for branch, target, kind in listed
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, BRANCHES.schema)


def branch_of(
    tmp_path: Path, listed: list[Branch], default: str | None = None, compat: bool = False
) -> list[tuple[str, str]]:
    """(branch, target) of each candidate of one snapshot, or its reason."""
    others: dict[str, list[Branch]] = {"other": [("HEAD", "theirs", "revision")]}
    table = branches({"mine": listed, **others})
    with session(tmp_path) as connection:
        found, lost = heads.heads(
            connection,
            chosen(["mine"], {"mine": default} if default else {}),
            lambda: iter(table.to_batches(2)),
            compat,
        )
    assert (not found.num_rows) == lost.num_rows
    return [(row["branch"].decode(), row["target"].decode().rstrip(".")) for row in found.to_pylist()] + [
        ("", row["reason"]) for row in lost.to_pylist()
    ]


MAIN, MASTER, OTHER = "refs/heads/main", "refs/heads/master", "refs/heads/other"


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([("HEAD", MASTER, "alias"), (MASTER, "a", "revision"), (MAIN, "b", "revision")], [(MASTER, "a")]),
        ([("HEAD", "one", "alias"), ("one", "two", "alias"), ("two", "a", "release")], [("two", "a")]),
        ([("HEAD", "a", "revision"), (MAIN, "b", "revision")], [("HEAD", "a")]),
        ([("HEAD", "gone", "alias"), (MASTER, "b", "revision")], [(MASTER, "b")]),
        ([("HEAD", "HEAD", "alias"), (OTHER, "b", "revision")], [(OTHER, "b")]),
        ([(MASTER, "a", "revision"), (MAIN, "b", "revision")], [(MAIN, "b")]),
        ([("refs/heads/develop", "a", "revision"), ("refs/heads/trunk", "b", "revision")], [("refs/heads/trunk", "b")]),
        ([(OTHER, "a", "revision"), ("refs/tags/1", "b", "revision")], [(OTHER, "a")]),
        ([(OTHER, "a", "revision"), ("refs/heads/z", "b", "revision")], [(OTHER, "a"), ("refs/heads/z", "b")]),
        ([("refs/tags/1", "b", "revision")], [("", "no_branch")]),
        ([("HEAD", "gone", "alias")], [("", "alias")]),
        ([], [("", "no_branch")]),
        ([("HEAD", "a", "directory")], [("HEAD", "a")]),
    ],
)
def test_the_branch_that_stands_for_a_repository(
    tmp_path: Path, listed: list[Branch], expected: list[tuple[str, str]]
) -> None:
    assert branch_of(tmp_path, listed) == expected


def test_an_alias_is_followed_five_times_and_no_more(tmp_path: Path) -> None:
    for hops, expected in ((heads.HOPS, [("b5", "a")]), (heads.HOPS + 1, [("", "alias")])):
        listed = [("HEAD", "b1", "alias"), *((f"b{k}", f"b{k + 1}", "alias") for k in range(1, hops))]
        assert branch_of(tmp_path, [*listed, (f"b{hops}", "a", "revision")]) == expected


def test_head_goes_before_a_default_branch_and_that_before_all_others(tmp_path: Path) -> None:
    listed = [(MASTER, "a", "revision"), (OTHER, "b", "revision")]
    assert branch_of(tmp_path, listed, "other") == [(OTHER, "b")]
    assert branch_of(tmp_path, [("HEAD", MASTER, "alias"), *listed], "other") == [(MASTER, "a")]
    assert branch_of(tmp_path, [("HEAD", "gone", "alias"), *listed], "other") == [(OTHER, "b")]
    assert branch_of(tmp_path, listed, "removed") == [(MASTER, "a")]


@pytest.mark.parametrize(
    ("listed", "default", "expected"),
    [
        (
            [("HEAD", MASTER, "alias"), (MASTER, "a", "revision"), (MAIN, "b", "revision")],
            None,
            [(MAIN, "b"), (MASTER, "a")],
        ),
        ([("HEAD", "c", "revision"), (OTHER, "b", "revision")], None, [("HEAD", "c")]),
        ([("HEAD", OTHER, "alias"), (OTHER, "b", "revision")], None, [("", "alias")]),
        ([(MASTER, "a", "revision"), (OTHER, "b", "revision")], "other", [(OTHER, "b")]),
        ([(MASTER, "a", "revision"), (OTHER, "b", "release")], "other", [("", "no_branch")]),
    ],
)
def test_compat_chooses_branches_as_the_stack_v2_did(
    tmp_path: Path, listed: list[Branch], default: str | None, expected: list[tuple[str, str]]
) -> None:
    assert branch_of(tmp_path, listed, default, compat=True) == expected


def candidate(name: str, target: str, kind: str, rank: int = 1, branch: str = "HEAD") -> dict[str, Any]:
    visited = chosen([name], {}).drop_columns(["default_branch"]).to_pylist()[0]
    return {
        **visited,
        "branch": branch.encode(),
        "rank": rank,
        "anchor": identifier(target),
        "target": identifier(target),
        "target_type": TARGET_TYPES.index(kind),
    }


def followed(tmp_path: Path, candidates: list[dict[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """(root by repository, reason by repository), all steps of the way."""
    revisions = pa.Table.from_pylist(
        [
            {"id": identifier(f"rev{n}"), "directory_id": identifier(f"dir{n}"), "committer_date_seconds": n}
            for n in range(5)
        ],
        REVISIONS.schema,
    )
    chain = [("rel0", "rev0", "revision"), ("rel1", "rel0", "release"), ("rel2", "rel1", "release"), ("rel3", "rel2", "release"),
             ("rel4", "rel3", "release"), ("todir", "dir9", "directory"), ("tofile", "file", "content"), ("empty", None, None)]  # fmt: skip
    releases = pa.Table.from_pylist(
        [
            {
                "id": identifier(a),
                "target": identifier(b) if b else None,
                "target_type": None if c is None else TARGET_TYPES.index(c),
            }
            for a, b, c in chain
        ],
        RELEASES.schema,
    )
    waiting = pa.Table.from_pylist(candidates, heads.CANDIDATES)
    roots, lost = [], []
    for step in range(heads.CHAIN + 1):
        with session(tmp_path) as connection:
            found, waiting, gone = heads.follow(
                connection, waiting, lambda: iter(revisions.to_batches(2)), lambda: iter(releases.to_batches(2)),
                step == heads.CHAIN,
            )  # fmt: skip
        roots.append(found)
        lost.append(gone)
    assert not waiting.num_rows
    with session(tmp_path) as connection:
        kept, gone = heads.one_each(
            connection, pa.concat_tables(roots), pa.concat_tables(lost), heads.CHOSEN_TOLD.empty_table()
        )
    return (
        {row["repository"]: row["root"].decode().rstrip(".") for row in kept.to_pylist()},
        {row["repository"]: row["reason"] for row in gone.to_pylist()},
    )


def test_what_branches_point_to_is_followed_to_a_directory(tmp_path: Path) -> None:
    roots, lost = followed(
        tmp_path,
        [
            candidate("plain", "rev1", "revision"),
            candidate("tag", "rel0", "release"),
            candidate("tags", "rel2", "release"),
            candidate("chain", "rel3", "release"),
            candidate("package", "todir", "release"),
            candidate("tree", "dir7", "directory"),
            candidate("gone", "rev9", "revision"),
            candidate("norelease", "rel9", "release"),
            candidate("empty", "empty", "release"),
            candidate("blob", "file", "content"),
            candidate("tagged blob", "tofile", "release"),
            candidate("snapshot", "s", "snapshot"),
        ],
    )
    assert roots == {"plain": "dir1", "tag": "dir0", "tags": "dir0", "package": "dir9", "tree": "dir7"}
    assert lost == {
        "chain": "release_chain",
        "gone": "missing_revision",
        "norelease": "missing_release",
        "empty": "empty_release",
        "blob": "not_a_directory",
        "tagged blob": "not_a_directory",
        "snapshot": "not_a_directory",
    }


def test_of_several_branches_the_newest_commit_stands_for_a_repository(tmp_path: Path) -> None:
    roots, lost = followed(
        tmp_path,
        [candidate("several", f"rev{n}", "revision", heads.NEWEST, f"refs/heads/{n}") for n in (1, 3, 2, 9)],
    )
    assert roots == {"several": "dir3"} and lost == {}


@pytest.mark.parametrize("compat", [False, True])
def test_a_snapshot_that_an_export_holds_twice_is_one(tmp_path: Path, compat: bool) -> None:
    for listed in ([(OTHER, "a", "revision")], [("HEAD", MAIN, "alias"), (MAIN, "a", "revision")]):
        assert branch_of(tmp_path, listed * 2, compat=compat) == branch_of(tmp_path, listed, compat=compat)


def test_compat_keeps_one_repository_of_a_commit_by_the_name_of_its_branch(tmp_path: Path) -> None:
    """Before anything is known of them: all have the commit's date, the branch's name decides, and then chance; with us the URL."""
    rows = [
        candidate(name, "rev1", "revision", 2, branch) for name, branch in (("a", MAIN), ("c", MASTER), ("b", MASTER))
    ]
    revision = {"id": identifier("rev1"), "directory_id": identifier("dir1"), "committer_date_seconds": 1}
    with session(tmp_path) as connection:
        found, _, lost = heads.follow(
            connection,
            pa.Table.from_pylist(rows, heads.CANDIDATES),
            lambda: iter(pa.Table.from_pylist([revision], REVISIONS.schema).to_batches()),
            lambda: iter(RELEASES.schema.empty_table().to_batches()),
            last=False,
            compat=True,
        )
    assert found["repository"].to_pylist() == ["b"]
    assert {row["repository"]: row["reason"] for row in lost.to_pylist()} == dict.fromkeys("ac", "same_revision")


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"gha_license_id": "AGPL-3.0", "star_events_count": 0}, {"gha_license_id": "MIT", "star_events_count": 9}),
        ({"gha_license_id": "MIT"}, {"gha_license_id": None, "star_events_count": 9}),
        ({"star_events_count": 2}, {"star_events_count": 1, "fork_events_count": 5}),
        ({"fork_events_count": 2, "date_seconds": 5}, {"fork_events_count": 1, "date_seconds": 1}),
        ({"date_seconds": 1, "github_id": 2}, {"date_seconds": 2, "github_id": 1}),
        ({"github_id": 1, "date": 2}, {"github_id": 2, "date": 1}),
        ({"date": 1}, {"date": 2}),
    ],
)
def test_compat_keeps_the_repository_of_a_root_that_the_stack_v2_kept(
    tmp_path: Path, better: dict[str, Any], worse: dict[str, Any]
) -> None:
    plain = {
        "visit": 1,
        "snapshot_id": identifier("s"),
        "branch": b"HEAD",
        "rank": 1,
        "root": identifier("dir1"),
        "star_events_count": 0,
        "fork_events_count": 0,
        "date_seconds": 0,
    }
    rows = [
        {**plain, "repository": name, "origin": name, **told}
        for name, told in (("a worse one", worse), ("the one", better))
    ]
    with session(tmp_path) as connection:
        kept, lost = heads.one_of_each_root(connection, pa.Table.from_pylist(rows, heads.ROOTS))
    assert kept["origin"].to_pylist() == ["the one"]
    assert [(row["origin"], row["reason"]) for row in lost.to_pylist()] == [("a worse one", "same_directory")]
    there = pa.Table.from_pylist([{"repository": "a worse one", "origin": "a worse one"}], heads.VISIT)
    assert heads.without_any(pa.concat_tables([lost, lost]), there.slice(0, 0)).equals(lost)
    assert not heads.without_any(lost, there).num_rows, "another of its roots stays"
