"""The generated export is what the others' tests stand on: git itself has to agree with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pyarrow import orc

from stackbuild.swhid import blob_id, directory_id, object_id, snapshot_id
from tests.sources.swh.mini_export import make_export
from tests.sources.swh.mini_world import FAULTS, World, mini_world


def test_git_lists_the_files_that_are_expected(tmp_path: Path) -> None:
    """Oracle: `git ls-tree -r` of every chosen revision, gitlinks and symlinks included."""
    world = mini_world()
    repository = world.write_git(tmp_path / "all.git")
    export = make_export(tmp_path, "orc", world, objects=False)
    compared = 0
    for root in export.roots:
        if root.revision not in world.commits or root.url.endswith(("/gone", "/lost-folder")):
            continue
        listed = subprocess.run(
            ["git", "-C", str(repository), "ls-tree", "-r", "-z", root.revision.hex()], check=True, capture_output=True
        ).stdout
        entries = []
        for line in listed.split(b"\0")[:-1]:
            words, _, path = line.partition(b"\t")
            mode, _, identity = words.split(b" ")
            entries.append((path, int(mode, 8), bytes.fromhex(identity.decode())))
        expected = [
            (path, 0o100644 if mode == 0o100664 else mode, i) for path, mode, i in export.expected_tree(root.url)
        ]
        assert sorted(entries) == expected, root.url  # git prints an old mode as it is meant
        compared += len(entries)
    assert compared > 60


def test_ids_of_the_export_are_those_of_its_rows(tmp_path: Path) -> None:
    """Directories hash to their ids from `directory_entry`, or from `raw_manifest`; snapshots that do not dangle too."""
    export = make_export(tmp_path, "orc", objects=False)
    entries: dict[str, list[tuple[bytes, int, bytes]]] = {}
    for path in export.table_files("directory_entry"):
        for row in orc.read_table(str(path)).to_pylist():
            entries.setdefault(row["directory_id"], []).append(
                (row["name"], row["perms"], bytes.fromhex(row["target"]))
            )
    raw = {
        row["id"]: row["raw_manifest"] for p in export.table_files("directory") for row in orc.read_table(p).to_pylist()
    }
    assert sum(manifest is not None for manifest in raw.values()) == 1
    for identity, manifest in raw.items():
        if manifest is None:
            assert directory_id(entries.get(identity, [])).hex() == identity
        else:
            assert object_id("tree", manifest.partition(b"\0")[2]).hex() == identity
            assert directory_id(entries[identity]).hex() != identity
    branches: dict[str, dict[bytes, tuple[str, bytes]]] = {}
    for path in export.table_files("snapshot_branch"):
        for row in orc.read_table(str(path)).to_pylist():
            branches.setdefault(row["snapshot_id"], {})[row["name"]] = (
                row["target_type"],
                bytes.fromhex(row["target"]),
            )
    dangling = {i.hex() for i, names in export.world.snapshots.items() if None in names.values()}
    assert len(branches) > 15
    for identity, names in branches.items():
        assert (snapshot_id(names).hex() == identity) == (identity not in dangling)


def test_the_object_folder_has_every_fault(tmp_path: Path) -> None:
    export = make_export(tmp_path, "parquet")
    assert sorted(export.states.values()) == sorted(FAULTS)
    for identity, data in export.world.contents.items():
        name = blob_id(data).hex()
        listed = identity not in export.world.absent and identity not in export.world.skipped
        there = listed and export.states.get(blob_id(data)) != "missing"
        assert (export.objects / name).exists() == there
        assert (export.sliced / name[:2] / name[2:4] / name[4:6] / name).exists() == there


def test_an_export_is_small(tmp_path: Path) -> None:
    export = make_export(tmp_path, "orc")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 200_000
    assert export.expected_files("https://github.com/dave/texts")


def test_a_real_repository_is_added_whole(tmp_path: Path) -> None:
    """`add_git` through libgit2: trees, contents, and a root that git lists alike."""
    world = mini_world()
    repository = world.write_git(tmp_path / "all.git")
    tip = next(root.revision for root in world.roots if root.url.endswith("/dave/names"))
    assert tip is not None
    (repository / "refs" / "heads" / "main").write_text(tip.hex() + "\n")
    (repository / "HEAD").write_text("ref: refs/heads/main\n")
    copy = World()
    root = copy.add_git(repository, "https://github.com/dave/names")
    assert (root.branch, root.revision, root.directory) == (b"refs/heads/main", tip, world.commits[tip].tree)
    assert list(copy.walk(world.commits[tip].tree)) == list(world.walk(world.commits[tip].tree))
    assert all(
        copy.contents[i] == world.contents[i] for _, mode, i in copy.walk(copy.commits[tip].tree) if mode != 0o160000
    )
    export = make_export(tmp_path, "parquet", copy)
    assert len(export.expected_files(root.url)) == 12
