"""The walk from roots to files equals a plain recursion over the same trees, and what it leaves says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.sources.swh import walk
from stackbuild.sources.swh.session import MEMORY_OF_ID, session
from stackbuild.sources.swh.tables import DIR, ENTRIES, FILE, REV
from stackbuild.sources.unit import Limits
from stackbuild.swhid import content_id, object_id, serialize_tree

Node = dict[bytes, Any]  # name -> bytes of a file, or a folder
Rows = list[tuple[bytes, bytes, int, bytes, int]]

NAMES = st.sampled_from([b"a", b"a.b", b"a-b", b"a0", b"\xff", b"new\nline", b"x y", b"\xc3\xa9"])
FILES = st.sampled_from([b"", b"one", b"two", b"three"])
TREES = st.recursive(
    st.dictionaries(NAMES, FILES, max_size=4),
    lambda below: st.dictionaries(NAMES, st.one_of(FILES, below), max_size=4),
    max_leaves=25,
)


def store(tree: Node, entries: dict[bytes, Rows]) -> bytes:
    """Put a tree's directories into a table by id; its id."""
    listed: Rows = []
    for name, value in tree.items():
        if isinstance(value, dict):
            listed.append((b"", name, DIR, store(value, entries), walk.DIRECTORY_MODE))
        else:
            listed.append((b"", name, FILE, content_id(value), 0o100644))
    identifier = object_id("tree", serialize_tree([(name, mode, target) for _, name, _, target, mode in listed]))
    entries[identifier] = [(identifier, *row[1:]) for row in listed]
    return identifier


def files_of(tree: Node, below: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """The oracle: (path, content id) of every file."""
    for name, value in tree.items():
        path = below + b"/" + name if below else name
        if isinstance(value, dict):
            yield from files_of(value, path)
        else:
            yield path, content_id(value)


def walked(
    roots: list[bytes],
    rows: Rows,
    scratch: Path,
    limits: Limits | None = None,
    copies: int = walk.COPIES,
    parts: int = 1,
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """All files and all that was left, of walks that are cut into `parts` ranges of ids."""
    limits = limits or Limits()
    names = ENTRIES.schema.names
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], ENTRIES.schema)
    standing = [(root, root, b"") for root in sorted(roots)]
    found: list[tuple[Any, ...]] = []
    left: list[tuple[Any, ...]] = []
    depth = 0
    while standing:
        further = []
        for part in range(parts):
            mine = [row for row in standing if row[0][0] * parts >> 8 == part]
            frontier = pa.Table.from_pylist(
                [dict(zip(walk.FRONTIER.names, r, strict=True)) for r in mine], walk.FRONTIER
            )
            with session(scratch) as connection:
                one = walk.level(
                    connection,
                    iter(frontier.to_batches()),
                    lambda nodes: iter(table.to_batches(3)),
                    depth,
                    limits,
                    copies,
                )
                found += [tuple(row.values()) for batch in one.files for row in batch.to_pylist()]
                further += [tuple(row.values()) for batch in one.frontier for row in batch.to_pylist()]
                found += [tuple(row.values()) for batch in one.links for row in batch.to_pylist()]
                left += [tuple(row.values()) for batch in one.left for row in batch.to_pylist()]
        standing = sorted(further)
        depth += 1
    return sorted(found), sorted(left, key=str)


@settings(deadline=None, max_examples=25)
@given(st.lists(TREES, min_size=1, max_size=3), st.sampled_from([1, 2, 16]))
def test_a_walk_finds_what_a_recursion_finds(tmp_path_factory: Any, trees: list[Node], parts: int) -> None:
    entries: dict[bytes, Rows] = {}
    roots = {store(tree, entries): tree for tree in trees}
    rows = [row for listed in entries.values() for row in listed]
    found, left = walked(list(roots), rows, tmp_path_factory.mktemp("walk"), parts=parts)
    expected = [(target, root, path, 0o100644) for root, tree in roots.items() for path, target in files_of(tree)]
    assert found == sorted(expected) and left == []


def test_a_level_asks_for_the_directories_in_which_it_stands(tmp_path: Path) -> None:
    """Sorted, each once; for all where they are more than go with its memory. Directories that it did not ask for do not count."""
    roots = [b"b" * 20, b"a" * 20]
    rows = [(root, b"file", FILE, b"t" * 20, 0o100644) for root in (*roots, b"z" * 20)]
    table = pa.Table.from_pylist([dict(zip(ENTRIES.schema.names, row, strict=True)) for row in rows], ENTRIES.schema)
    places = [(root, b"r" * 20, path) for root in roots for path in (b"one", b"two")]
    standing = pa.Table.from_pylist(
        [dict(zip(walk.FRONTIER.names, place, strict=True)) for place in places], walk.FRONTIER
    )
    for memory, expected in ((MEMORY_OF_ID * 2, b"a" * 20 + b"b" * 20), (MEMORY_OF_ID, None)):
        asked: list[bytes | None] = []

        def entries(nodes: Any, asked: list[bytes | None] = asked) -> Iterator[pa.RecordBatch]:
            asked.append(None if nodes is None else nodes.tobytes())
            return iter(table.to_batches())

        with session(tmp_path) as connection:
            one = walk.level(connection, iter(standing.to_batches()), entries, 0, Limits(), memory=memory)
            assert sum(batch.num_rows for batch in one.files) == 4
        assert asked == [expected]


def test_submodules_and_symlinks_are_kept(tmp_path: Path) -> None:
    root, commit = b"r" * 20, b"c" * 20
    rows = [
        (root, b"link", FILE, b"l" * 20, walk.LINK_MODE),
        (root, b"module", REV, commit, walk.COMMIT_MODE),
    ]
    found, left = walked([root], rows, tmp_path)
    assert found == [(commit, root, b"module", walk.COMMIT_MODE), (b"l" * 20, root, b"link", walk.LINK_MODE)]
    assert left == []


def test_names_that_no_tree_may_have_are_left(tmp_path: Path) -> None:
    root = b"r" * 20
    bad = [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"\0"]
    good = [b"...", b".a", b"\x20\xf2", b"\xf0\x0f", b"b\x02\xfa"]  # the last: 2F and 00 across two bytes
    rows = [(root, name, FILE, b"t" * 20, 0o100644) for name in bad + good]
    found, left = walked([root], rows, tmp_path)
    assert {row[2] for row in found} == set(good)
    assert Counter((row[2], row[4]) for row in left) == Counter((name, "unsafe_path") for name in bad)


def test_depth_and_length_are_capped(tmp_path: Path) -> None:
    tree: Node = {b"file": b"deep"}
    for name in (b"d", b"c", b"b" * 20, b"a"):
        tree = {name: tree, b"here": b"x"}
    entries: dict[bytes, Rows] = {}
    root = store(tree, entries)
    rows = [row for listed in entries.values() for row in listed]
    found, left = walked([root], rows, tmp_path, Limits(depth=3))
    assert {row[2] for row in found} == {b"here", b"a/here", b"a/" + b"b" * 20 + b"/here"}
    assert [(row[2], *row[4:]) for row in left] == [(b"a/" + b"b" * 20 + b"/c", "too_deep", 3.0, 3.0)]
    found, left = walked([root], rows, tmp_path, Limits(path_bytes=10))
    assert {row[2] for row in found} == {b"here", b"a/here"}
    assert [(row[2], *row[4:]) for row in left] == [(b"a/" + b"b" * 20, "long_path", 22.0, 10.0)]


def test_a_tree_that_names_itself_over_and_over_is_cut(tmp_path: Path) -> None:
    """Ten names for one tree on each of nine levels would be a billion files."""
    entries: dict[bytes, Rows] = {}
    tree: Node = {b"file": b"x"}
    target = store(tree, entries)
    for _ in range(9):
        listed = [(b"", b"%d" % number, DIR, target, walk.DIRECTORY_MODE) for number in range(10)]
        target = object_id("tree", serialize_tree([(name, mode, id_) for _, name, _, id_, mode in listed]))
        entries[target] = [(target, *row[1:]) for row in listed]
    rows = [row for listed in entries.values() for row in listed]
    found, left = walked([target], rows, tmp_path, copies=20)
    assert len(found) == 20 and found[0][2] == b"0/" * 9 + b"file"
    assert {row[4] for row in left} == {"too_many_copies"}
    assert len(left) == 80 + 7 * 180


def test_a_directory_that_is_not_there_is_told_and_the_empty_one_is_not_missed(tmp_path: Path) -> None:
    root = b"r" * 20
    rows = [
        (root, b"gone", DIR, b"g" * 20, walk.DIRECTORY_MODE),
        (root, b"empty", DIR, walk.EMPTY_TREE, walk.DIRECTORY_MODE),
    ]
    found, left = walked([root, b"s" * 20], rows, tmp_path)
    assert found == []
    assert [(row[1], row[2], row[4]) for row in left] == [
        (root, b"gone", "missing_object"),
        (b"s" * 20, b"", "missing_object"),
    ]


def test_a_directory_that_an_export_holds_twice_is_walked_once(tmp_path: Path) -> None:
    """Exports are written at least once: twice on each of many levels would be a file 2 ** depth times."""
    tree: Node = {b"file": b"x"}
    for _ in range(12):
        tree = {b"d": tree, b"here": b"y"}
    entries: dict[bytes, Rows] = {}
    root = store(tree, entries)
    rows = [row for listed in entries.values() for row in listed]
    assert walked([root], rows * 2, tmp_path) == walked([root], rows, tmp_path)
