"""Plain folders: the SWHID of what is there, every entry once, and no mixture of two states."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackbuild import swhid
from stackbuild.errors import InputError
from stackbuild.sources.directory import SOURCE, DirectoryOptions
from stackbuild.sources.unit import Entry, File, Limits, Link, Origin, ResolveContext, Skipped, Unit, Unread

CONTEXT = ResolveContext(cache="")


def units(*paths: Path | str) -> tuple[list[Unit], list[Skipped]]:
    return SOURCE.units(DirectoryOptions(kind="directory", paths=tuple(map(str, paths))), CONTEXT)


def read(unit: Unit, limits: Limits | None = None) -> tuple[Origin, list[Entry]]:
    rows: Iterator[Any] = SOURCE.read(unit, DirectoryOptions(kind="directory", paths=("x",)), limits or Limits())
    origin = next(rows)
    assert isinstance(origin, Origin)
    return origin, list(rows)


def rules(entries: list[Entry]) -> dict[bytes, str]:
    return {entry.path: entry.rule for entry in entries if isinstance(entry, Unread)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project" / "sub").mkdir(parents=True)
    (tmp_path / "project" / "a.py").write_bytes(b"1\n")
    (tmp_path / "project" / "sub" / "run").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "project" / "sub" / "run").chmod(0o644)
    return tmp_path / "project"


def gits_tree(folder: Path) -> str:
    """Oracle: the tree that git writes for a folder."""
    env = {"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    store = folder.parent / "oracle.git"

    def git(*command: str) -> str:
        full = ["git", f"--git-dir={store}", f"--work-tree={folder}", *command]
        return subprocess.run(full, env=env, check=True, capture_output=True, cwd=folder).stdout.decode().strip()

    subprocess.run(["git", "init", "-q", "--bare", str(store)], env=env, check=True)
    git("config", "core.bare", "false")
    git("add", "-A")
    return git("write-tree")


def test_the_revision_is_gits_tree_for_names_of_any_bytes(folder: Path) -> None:
    for name in (b"caf\xe9", b"new\nline", b"\xe2\x80\xaebidi", b"a", b"a.b", b"a-b", b"a0"):
        (folder / os.fsdecode(b"d-" + name)).write_bytes(name)
        os.mkdir(folder / os.fsdecode(name))
        (folder / os.fsdecode(name) / "f").write_bytes(name)
    (folder / "sub" / "run").chmod(0o755)
    os.symlink("nowhere\udcff", folder / "link")
    tree = gits_tree(folder)
    ((unit,), skipped) = units(folder)
    origin, entries = read(unit)
    assert skipped == []
    assert origin == Origin("local/project", f"swh:1:dir:{tree}", directory_id=tree)
    assert unit.key == {"repo_name": "local/project", "swhid": f"swh:1:dir:{tree}"} and unit.where == {
        "path": str(folder)
    }
    data = {entry.path: entry.data for entry in entries if isinstance(entry, File)}
    assert data[b"new\nline/f"] == b"new\nline" and data[b"d-caf\xe9"] == b"caf\xe9"
    assert unit.bytes == sum(map(len, data.values()))
    builder = swhid.TreeBuilder()
    for entry in entries:
        target = entry.target if isinstance(entry, Link) else entry.content_id
        assert target is not None
        builder.add(entry.path, entry.mode, target)
    assert builder.root().hex() == tree


PARTS = st.sampled_from([b"a", b"a.b", b"a-b", b"a0", b"\xff", b"z"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.lists(PARTS, min_size=1, max_size=3).map(tuple), st.binary(max_size=9), max_size=8))
def test_the_walk_agrees_with_the_tree_builder(
    content: dict[tuple[bytes, ...], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = os.fsencode(tmp_path_factory.mktemp("walk"))
    builder = swhid.TreeBuilder()
    for parts, data in {(b"always",): b"", **content}.items():
        path = os.path.join(root, *parts)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            for depth in range(1, len(parts)):  # folders that were made on the way count, even if empty
                if os.path.isdir(os.path.join(root, *parts[:depth])):
                    builder.add_folder(b"/".join(parts[:depth]))
            continue
        builder.add(b"/".join(parts), 0o100644, swhid.content_id(data))
    ((unit,), _) = units(os.fsdecode(root))
    assert unit.key["swhid"] == f"swh:1:dir:{builder.root().hex()}"
    read(unit)


def test_any_x_bit_makes_an_executable_and_empty_folders_count(folder: Path) -> None:
    ((before,), _) = units(folder)
    (folder / "sub" / "run").chmod(0o654)
    ((after,), _) = units(folder)
    assert {e.path: e.mode for e in read(after)[1]} == {b"a.py": 0o100644, b"sub/run": 0o100755}
    (folder / "empty").mkdir()
    ((third,), _) = units(folder)
    assert len({unit.key["swhid"] for unit in (before, after, third)}) == 3


def test_git_folders_are_left_out_at_every_level(folder: Path) -> None:
    ((before,), _) = units(folder)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / "sub" / ".git").write_text("gitdir: elsewhere")
    assert units(folder)[0] == [before]


def test_symlinks_are_entries_and_loops_end(folder: Path) -> None:
    os.symlink(".", folder / "loop")
    os.symlink("two", folder / "one")
    os.symlink("one", folder / "two")
    os.symlink("/etc", folder / "outside")
    ((unit,), _) = units(folder)
    _, entries = read(unit)
    links = {entry.path: entry.target for entry in entries if isinstance(entry, Link)}
    assert links == {
        n: swhid.content_id(t) for n, t in ((b"loop", b"."), (b"one", b"two"), (b"two", b"one"), (b"outside", b"/etc"))
    }
    assert len(entries) == 6


def test_special_files_are_told_and_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)
        listener.bind("socket")
        os.chdir(here)
        ((unit,), _) = units(folder)
        assert rules(read(unit)[1]) == {b"fifo": "special_file", b"socket": "special_file"}


@pytest.mark.skipif(os.getuid() != 0, reason="needs to step down from root")
def test_unreadable_files_and_folders_are_told(folder: Path) -> None:
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0)
    (folder / "closed").mkdir(0o700)
    for path in (folder, *(p for p in folder.parents if p.name.startswith(("test_", "popen-", "pytest-")))):
        path.chmod(0o755)
    (folder / "sub").chmod(0o755)
    os.seteuid(65534)
    try:
        ((unit,), _) = units(folder)
        _, entries = read(unit)
    finally:
        os.seteuid(0)
    assert rules(entries) == {b"secret": "unreadable", b"closed": "unreadable"}
    assert {e.path for e in entries if isinstance(e, File)} == {b"a.py", b"sub/run"}


@pytest.mark.parametrize("change", ["bytes", "mode", "new", "gone", "grown", "everything"])
def test_a_folder_that_changed_after_the_plan_is_an_error_that_names_it(folder: Path, change: str) -> None:
    ((unit,), _) = units(folder)
    if change == "bytes":
        (folder / "a.py").write_bytes(b"2\n")
    elif change == "mode":
        (folder / "a.py").chmod(0o755)
    elif change == "new":
        (folder / "sub" / "n").mkdir()
    elif change == "gone":
        (folder / "a.py").unlink()
    elif change == "grown":
        (folder / "a.py").write_bytes(b"1\nmore")
    else:
        folder.rename(folder.parent / "moved")
    with pytest.raises(InputError, match="project"):
        read(unit)


def test_a_file_that_grows_while_it_is_read_is_an_error(folder: Path) -> None:
    ((unit,), _) = units(folder)
    rows = SOURCE.read(unit, DirectoryOptions(kind="directory", paths=("x",)), Limits())
    next(rows)
    real = os.lstat

    def grow(path: Any, **options: Any) -> os.stat_result:
        status = real(path, **options)
        if os.fsencode(path).endswith(b"a.py"):
            (folder / "a.py").write_bytes(b"1\nmore")
        return status

    os.lstat = grow  # type: ignore[assignment]
    try:
        with pytest.raises(InputError, match="changed"):
            list(rows)
    finally:
        os.lstat = real


def test_the_caps_are_told_file_by_file_and_change_no_revision(folder: Path) -> None:
    deep = folder / ("d/" * 66)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"deep")
    (folder / ("n" * 90)).write_bytes(b"long")
    ((unit,), _) = units(folder)
    assert rules(read(unit)[1]) == {b"d/" * 66 + b"f": "too_deep"}
    everything = {b"a.py", b"d/" * 66 + b"f", b"n" * 90, b"sub/run"}
    assert rules(read(unit, Limits(path_bytes=89, depth=99))[1]) == dict.fromkeys(
        [b"d/" * 66 + b"f", b"n" * 90], "long_path"
    )
    assert rules(read(unit, Limits(unit_files=0))[1]) == dict.fromkeys(everything, "too_many_files")
    assert rules(read(unit, Limits(unit_bytes=3, depth=99))[1]) == dict.fromkeys(
        everything - {b"a.py"}, "unit_too_large"
    )
    (large,) = (e for e in read(unit, Limits(file_bytes=9, depth=99))[1] if isinstance(e, Unread))
    assert (large.rule, large.value, large.threshold, large.path) == ("too_large", 10, 9, b"sub/run")
    assert large.content_id == swhid.content_id(b"#!/bin/sh\n")


def test_a_folder_too_deep_for_the_system_is_told(folder: Path) -> None:
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(30):  # a path of 6,000 bytes: longer than the system takes
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        ((unit,), _) = units(folder)
        assert set(rules(read(unit)[1]).values()) == {"unreadable"}
    finally:
        os.chdir(here)


def test_lfs_pointers_are_told(folder: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 1\n"
    (folder / "big.bin").write_bytes(pointer)
    ((unit,), _) = units(folder)
    assert rules(read(unit)[1]) == {b"big.bin": "lfs_pointer"}


def test_missing_and_empty_folders_are_skipped_and_all_of_them_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    asked = (folder, tmp_path / "absent", tmp_path / "empty", folder / "a.py", folder)
    found, skipped = units(*asked)
    assert [unit.repo_name for unit in found] == ["local/project"]
    assert [skip.what for skip in skipped] == [str(path) for path in asked[1:4]]
    with pytest.raises(InputError, match="No such file"):
        units(tmp_path / "absent")


def test_units_come_in_the_order_of_their_keys_with_no_local_path(folder: Path, tmp_path: Path) -> None:
    for name in ("z", "b", "a\nc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    found, _ = units(tmp_path / "z", folder, tmp_path / "b", tmp_path / "a\nc")
    assert [unit.repo_name for unit in found] == ["local/a\ufffdc", "local/b", "local/project", "local/z"]
    assert str(tmp_path) not in repr([(unit.key, read(unit)[0]) for unit in found])
