"""What stands beside the released files of a tree makes its root again, names no more than it must, and says when it cannot."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.layout.trees import ENTRIES, UNPROVEN, Entry, proofs, siblings
from stackbuild.swhid import TREE_MODE, TreeBuilder, content_id, tree_ids

NAMES = st.sampled_from([b"a", b"a.b", b"a-b", b"a0", b"b", b"\xff", b"z"])
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=4).map(b"/".join), min_size=1, max_size=20, unique=True)


def tree(paths: list[bytes]) -> list[Entry]:
    """Files at those of the paths that are no folder of another's."""
    folders = {path[:at] for path in paths for at in range(len(path)) if path[at : at + 1] == b"/"}
    return [(path, 0o100644, content_id(path)) for path in paths if path not in folders]


def root_of(entries: list[Entry]) -> str:
    return tree_ids([(path, mode, target or b"") for path, mode, target in entries])[b""].hex()


@given(paths=PATHS, data=st.data())
def test_released_files_and_their_siblings_make_the_root(paths: list[bytes], data: st.DataObject) -> None:
    entries = tree(paths)
    released = set(data.draw(st.lists(st.sampled_from([e[0] for e in entries]), min_size=1, unique=True)))
    beside = siblings(entries, released, root_of(entries))
    builder = TreeBuilder()
    for path, mode, target in [*beside, *(e for e in entries if e[0] in released)]:
        builder.add(path, mode, target or b"")
    assert builder.root().hex() == root_of(entries)
    assert not {path for path, _, _ in beside} & released
    for path, mode, _ in beside:
        if mode == TREE_MODE:  # a folder without a released file is one entry, whose files are not named
            assert not any(one.startswith(path + b"/") for one in released)
            assert not any(other.startswith(path + b"/") for other, _, _ in beside)


def test_a_folder_without_released_files_is_one_entry() -> None:
    entries = tree([b"a/x", b"vendor/1", b"vendor/deep/2", b"vendor/deep/3", b"README"])
    beside = siblings(entries, {b"a/x"}, root_of(entries))
    assert [(path, mode) for path, mode, _ in beside] == [(b"README", 0o100644), (b"vendor", TREE_MODE)]


def test_a_tree_that_was_not_read_whole_is_not_proven() -> None:
    entries = tree([b"a", b"b"])
    assert siblings(entries[:1], {b"a"}, root_of(entries)) == [UNPROVEN]
    assert siblings([*entries, (b"c", 0o160000, None)], {b"a"}, root_of(entries)) == [UNPROVEN]
    assert siblings([*entries, (b"a/b", 0o100644, b"1" * 20)], {b"a"}, root_of(entries)) == [UNPROVEN]


def table(rows: list[tuple[str, bytes, bytes, str | None]]) -> pa.Table:
    listed = [(repo, "r", path, 0o100644, target, root) for repo, path, target, root in rows]
    return pa.Table.from_pylist([dict(zip(ENTRIES.names, row, strict=True)) for row in listed], ENTRIES)


def test_a_revision_with_something_that_may_not_be_named_names_nothing() -> None:
    entries = tree([b"a", b"b"])
    rows = [(repo, path, target or b"", root_of(entries)) for repo in ("x/x", "y/y") for path, _, target in entries]
    released = pa.table({"repo_name": ["x/x", "y/y"], "revision_id": ["r", "r"], "path_bytes": [b"a", b"a"]})
    hidden = pa.array([False, True, False, False])
    found = [row for part in proofs(table(rows), released, hidden) for row in part.to_pylist()]
    assert [(row["repo_name"], row["path_bytes"], row["target"] is None) for row in found] == [
        ("x/x", b"", True),
        ("y/y", b"b", False),
    ]


def test_only_revisions_with_a_released_file_and_a_root_are_told_of() -> None:
    entries = tree([b"a", b"b"])
    root = root_of(entries)
    rows = [("x/x", path, target or b"", root) for path, _, target in entries]
    rows += [("y/y", path, target or b"", None) for path, _, target in entries]
    rows += [("z/z", path, target or b"", root) for path, _, target in entries]
    released = pa.table({"repo_name": ["x/x", "y/y"], "revision_id": ["r", "r"], "path_bytes": [b"a", b"a"]})
    found = [
        row["repo_name"] for part in proofs(table(rows), released, pa.array([False] * 6)) for row in part.to_pylist()
    ]
    assert found == ["x/x"]
