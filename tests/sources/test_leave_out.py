"""The folder that is built into may lie in a source: no walk enters it, and what a build writes changes no plan."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stackbuild import registry
from stackbuild.errors import InputError
from stackbuild.sources.unit import File, Limits, ResolveContext, Unit, left_out

JSON_LINE = '{"content": "a", "repo_name": "o/r"}\n'


def put(folder: Path, name: str, text: str = "1\n") -> None:
    """A text file, an archive, a file of rows and a repository below a folder; no two of one content."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    (folder / f"{name}.jsonl").write_text(JSON_LINE.replace('"a"', f'"{name}"'))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as out:
        out.addfile(tarfile.TarInfo(f"{name}/a.py"))
    (folder / f"{name}.tar.gz").write_bytes(gzip.compress(packed.getvalue(), mtime=0))
    env = {"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    for command in (["init", "-q", "-b", "main"], ["commit", "-q", "--allow-empty", "-m", "m"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        repository = folder / f"{name}-repo"
        repository.mkdir(exist_ok=True)
        subprocess.run(["git", *who, *command], cwd=repository, env=env, check=True)


def planned(kind: str, *paths: Path | str, leave_out: tuple[Path, ...] = ()) -> list[Unit]:
    source = registry.source(kind)
    options = source.options_model.model_validate({"kind": kind, "paths": list(map(str, paths))})
    return source.units(options, ResolveContext("", leave_out=tuple(map(str, leave_out))))[0]


def names(units: list[Unit]) -> list[str]:
    return sorted(str(unit.key.get("name") or unit.repo_name) for unit in units)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    put(tmp_path / "in", "a")
    put(tmp_path / "in" / "sub", "b")
    put(tmp_path / "in" / "sub" / "out", "made")
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("git", ["local/a-repo", "local/b-repo"]), ("archives", ["a", "b"]), ("parquet", ["a", "b"])],
)
def test_no_walk_enters_the_folder(inputs: Path, kind: str, expected: list[str]) -> None:
    out = inputs / "sub" / "out"
    assert names(planned(kind, inputs, leave_out=(out,))) == expected
    assert len(planned(kind, inputs)) == 3, "it is the folder to leave out that decides"
    if kind != "git":
        suffix = {"archives": "*.tar.gz", "parquet": "*.jsonl"}[kind]
        assert names(planned(kind, inputs / "**" / suffix, leave_out=(out,))) == expected, "nor does a glob"


def test_a_directory_is_the_same_whatever_is_built_into_it(inputs: Path) -> None:
    out = inputs / "sub" / "out"
    (unit,) = planned("directory", inputs, leave_out=(out,))
    put(out, "later")
    (again,) = planned("directory", inputs, leave_out=(out,))
    assert unit == again and unit.where["leave_out"] == [str(out)]
    paths = read(unit)
    assert b"sub/b.py" in paths and not any(path.startswith(b"sub/out") for path in paths)
    (plain,) = planned("directory", inputs)
    assert plain.key != unit.key and "leave_out" not in plain.where
    assert b"sub/out/later.py" in read(plain)


def read(unit: Unit) -> set[bytes]:
    source: Any = registry.source(unit.kind)
    options = source.options_model.model_validate({"kind": unit.kind, "paths": ["x"]})
    return {entry.path for entry in source.read(unit, options, Limits()) if isinstance(entry, File)}


def test_the_folder_is_found_through_a_symlinked_root(inputs: Path, tmp_path: Path) -> None:
    os.symlink(inputs, tmp_path / "link")
    out = inputs / "sub" / "out"
    (unit,) = planned("directory", tmp_path / "link", leave_out=(out,))
    assert not any(b"made" in path for path in read(unit))
    assert names(planned("git", tmp_path / "link", leave_out=(out,))) == ["local/a-repo", "local/b-repo"]


@pytest.mark.parametrize("kind", ["git", "directory", "archives", "parquet"])
@pytest.mark.parametrize("within", ["", "sub"])
def test_a_source_within_the_folder_is_refused_and_told(inputs: Path, kind: str, within: str) -> None:
    out = inputs / "sub" / "out"
    put(out / within, "c")
    with pytest.raises(InputError, match=r"lies in .*left out of every source"):
        planned(kind, inputs, out / within, leave_out=(out,))


def test_a_listed_repository_within_the_folder_is_refused(inputs: Path, tmp_path: Path) -> None:
    out = inputs / "sub" / "out"
    (tmp_path / "list.txt").write_text(f"{out / 'made-repo'}\n")
    source = registry.source("git")
    options = source.options_model.model_validate({"kind": "git", "list": str(tmp_path / "list.txt")})
    with pytest.raises(InputError, match="lies in"):
        source.units(options, ResolveContext("", leave_out=(str(out),)))


def test_a_name_that_begins_alike_is_another_folder() -> None:
    assert left_out("/a/in", ["/a/in-out", "/a/b", "/z"]) == frozenset()
    assert left_out("/a/in", ["/a/in/out", "/a/in/x/y"]) == {"/a/in/out", "/a/in/x/y"}
    with pytest.raises(InputError):
        left_out("/a/in", ["/a"])
