"""docs/add-a-filter.md, done as it says: its stage is installed, its test passes, and a build with its recipe drops by it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

PAGE = Path(__file__).parent.parent / "docs" / "add-a-filter.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_walk_through_works_as_it_is_written(tmp_path: Path) -> None:
    stage, test = blocks("python")
    project, recipe = blocks("toml")
    assert len(stage.splitlines()) + len(project.splitlines()) < 60
    package = tmp_path / "package"
    package.mkdir()
    (package / "ascii_share.py").write_text(stage)
    (package / "test_ascii_share.py").write_text(test)
    # What `pip install .` would leave: the module and the entry points of its pyproject.
    installed = package / "ascii_share-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: ascii-share\nVersion: 1\n")
    point = re.search(r'^ascii_share = "(.*)"$', project, re.MULTILINE)
    assert point
    (installed / "entry_points.txt").write_text(f"[stackbuild.stages]\nascii_share = {point[1]}\n")
    environment = {**os.environ, "PYTHONPATH": str(package)}
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_ascii_share.py"]
    subprocess.run(run, cwd=package, env=environment, check=True)

    source = tmp_path / "src"
    source.mkdir()
    (source / "plain.py").write_text("def plain(value):\n    return value + 1\n" * 4)
    (source / "other.py").write_text("# " + "\u00e9\u00e8\u00ea" * 40 + "\n" + "def other(x):\n    return x\n")
    (tmp_path / "recipe.toml").write_text(recipe)
    build = [
        sys.executable,
        "-m",
        "stackbuild",
        "build",
        str(tmp_path / "recipe.toml"),
        "--output",
        str(tmp_path / "out"),
    ]
    subprocess.run([*build, "--set", 'outputs=["dataset", "index"]'], env=environment, check=True)
    rows = [
        row for path in (tmp_path / "out" / "decisions").glob("*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    assert [(row["path"], row["stage"], row["rule"], row["threshold"]) for row in rows] == [
        ("/other.py", "ascii_share", "ascii_share", 0.9)
    ]
    assert 0 < rows[0]["value"] < 0.9
