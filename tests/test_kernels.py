"""Kernels are kept compiled, never stale, and run where neither the package nor a home can be written to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stackbuild
from stackbuild import kernels
from stackbuild.kernels import kernel_folder

PACKAGE = Path(stackbuild.__file__).parent

USE = """
import importlib, pathlib, re, numpy as np, stackbuild
root = pathlib.Path(stackbuild.__file__).parent
kernels = [path for path in root.rglob("*.py") if re.search("^@kernel$", path.read_text(), re.M)]
for path in kernels:
    importlib.import_module(".".join(("stackbuild", *path.relative_to(root).with_suffix("").parts)))
from stackbuild.dedup.shingles import drop_repeats
values = np.array([3, 3, 5], np.uint64)
assert drop_repeats(values, 3, values) == 2
print(len(kernels), sum(drop_repeats.stats.cache_hits.values()), sum(drop_repeats.stats.cache_misses.values()))
"""


@pytest.fixture
def read_only(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose home cannot be made and whose package cannot be written to, by root neither: what
    stands where a cache would be made is a file.
    """
    package = tmp_path / "site" / "stackbuild"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    for folder in (package, *package.rglob("*")):
        if folder.is_dir():
            (folder / "__pycache__").write_text("")
            folder.chmod(0o555)
    (tmp_path / "tmp").mkdir()
    own = {"PYTHONPATH": str(package.parent), "HOME": "/proc/nowhere", "TMPDIR": str(tmp_path / "tmp")}
    return {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")} | own


def test_kernels_run_where_nothing_can_be_written_to(read_only: dict[str, str]) -> None:
    found = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", USE], env=read_only, cwd="/", capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        found.append([int(word) for word in run.stdout.split()])
    assert found[0][0] > 10  # modules with kernels, all imported
    assert [counts[1:] for counts in found] == [[0, 1], [1, 0]]  # compiled once, then found


def test_the_first_place_that_can_be_written_to_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "a.py").write_text("")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def chosen() -> Path:
        kernel_folder.cache_clear()
        return Path(str(kernel_folder(sources))).parent

    assert chosen() == sources / "__pycache__"
    shutil.rmtree(sources / "__pycache__")
    (sources / "__pycache__").write_text("")
    assert chosen() == tmp_path / "cache" / "stackbuild" / "sources"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    assert chosen() == tmp_path / "given" / "sources"


def test_old_sources_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    for number in range(8):
        (tmp_path / "a.py").write_text(str(number))
        kernel_folder.cache_clear()
        newest = kernel_folder(tmp_path)
    left = list((tmp_path / "__pycache__").iterdir())
    assert len(left) == kernels.KEPT + 1 and newest in map(str, left)


def test_folders_of_modules_leave_one_another_what_was_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    chosen = []
    for number in range(2 * kernels.KEPT):
        (tmp_path / f"modules{number}").mkdir()
        (tmp_path / f"modules{number}" / "a.py").write_text(str(number))
        kernel_folder.cache_clear()
        chosen.append(Path(str(kernel_folder(tmp_path / f"modules{number}"))))
    assert all(folder.is_dir() for folder in chosen)


CALLS = """
import numpy as np
from package.outer import outer
print(outer(1), sum(outer.stats.cache_hits.values()))
"""


def test_a_kernel_is_compiled_anew_when_one_that_it_calls_changes(tmp_path: Path) -> None:
    """numba alone looks at the file of the outer one only, and would run what it compiled before."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    head = "from stackbuild.kernels import kernel\n"
    outer = head + "from package.inner import inner\n@kernel\ndef outer(x):\n    return inner(x) + 1\n"
    (package / "outer.py").write_text(outer)
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE.parent}"}

    def told() -> str:
        run = subprocess.run(
            [sys.executable, "-c", CALLS], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    (package / "inner.py").write_text(head + "@kernel\ndef inner(x):\n    return x * 10\n")
    assert [told(), told()] == ["11 0", "11 1"]
    (package / "inner.py").write_text(head + "@kernel\ndef inner(x):\n    return x * 20\n")
    assert [told(), told()] == ["21 0", "21 1"]


@pytest.mark.parametrize("taken", ["by all", "by a link", "by a file", "by nobody", "by its owner"])
def test_what_others_may_have_put_there_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    folder = tmp_path / f"stackbuild-kernels-{os.getuid()}"
    if taken == "by all":
        folder.mkdir()
        folder.chmod(0o777)
    elif taken == "by a link":
        (tmp_path / "other").mkdir(0o700)
        folder.symlink_to(tmp_path / "other")
    elif taken == "by a file":
        folder.write_text("")
    elif taken == "by its owner":
        folder.mkdir(0o700)
    kernel_folder.cache_clear()
    chosen = Path(str(kernel_folder(Path("/proc/nowhere/sources")))).parent
    assert (chosen == folder) == (taken in ("by nobody", "by its owner"))
    assert chosen.parent == tmp_path and chosen.stat().st_mode & 0o777 == 0o700 and not chosen.is_symlink()
