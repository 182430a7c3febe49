"""From sources to occurrences: what could not be read is tried again, and the order of sources decides nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError
from tests.test_build import ran, released, run
from tests.worlds import light, world

FUNCTION = "def f{0}(value):\n    total = value + {0}\n    return total\n"


def git(folder: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        for what, value in (("NAME", "a"), ("EMAIL", "a@b.c"), ("DATE", "2020-01-01T00:00:00Z")):
            environment[f"GIT_{who}_{what}"] = value
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for number in range(3):
        (folder / f"f{number}.py").write_text(FUNCTION.format(number) * 3)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def paths_of(out: Path) -> set[str]:
    return {path for file in (out / "dataset").rglob("*.parquet") for path in pq.read_table(file)["path"].to_pylist()}


def decisions_of(out: Path) -> list[dict[str, Any]]:
    return [row for path in (out / "decisions").glob("*.parquet") for row in pq.read_table(path).to_pylist()]


def test_an_object_that_was_missing_is_read_by_the_next_run(tmp_path: Path) -> None:
    repo = repository(tmp_path / "w" / "repo")
    digits = git(repo, "rev-parse", "HEAD:f1.py")
    loose = repo / ".git" / "objects" / digits[:2] / digits[2:]
    shutil.move(loose, tmp_path / "kept")
    body = light(tmp_path, source=[{"kind": "git", "paths": [str(tmp_path / "w")]}])
    out = tmp_path / "out"
    (one,) = run(body, out).not_read
    assert "1 of its files" in one.reason and not one.passing
    assert paths_of(out) == {"/f0.py", "/f2.py"}
    assert [row["rule"] for row in decisions_of(out)] == ["missing_object"]
    first = released(out)
    assert ran(run(body, out)) == {"00-ingest": 1}  # tried again, in vain; what follows is used again
    assert released(out) == first
    shutil.move(tmp_path / "kept", loose)
    run(body, out)
    assert paths_of(out) == {"/f0.py", "/f1.py", "/f2.py"} and decisions_of(out) == []
    assert ran(run(body, out)) == {}


def test_an_archive_that_was_cut_short_is_read_when_it_is_whole(tmp_path: Path) -> None:
    root = world(tmp_path / "w", repos=1, files=2)
    repository(tmp_path / "repo")
    git(tmp_path / "repo", "archive", "-o", str(tmp_path / "whole.tar.gz"), "HEAD")
    data = (tmp_path / "whole.tar.gz").read_bytes()
    torn = tmp_path / "torn.tar.gz"
    torn.write_bytes(data[: len(data) // 2])
    body = light(root)
    body["source"].append({"kind": "archives", "paths": [str(torn)]})
    out = tmp_path / "out"
    result = run(body, out)
    assert [one.passing for one in result.not_read] == [True]
    assert "/f0.py" not in paths_of(out)
    torn.write_bytes(data)
    assert run(body, out).not_read == []


def test_if_nothing_can_be_read_nothing_is_published(tmp_path: Path) -> None:
    torn = tmp_path / "torn.tar.gz"
    torn.write_bytes(b"\x1f\x8b\x08\0nothing")
    body = light(tmp_path, source=[{"kind": "archives", "paths": [str(torn)]}])
    with pytest.raises(InputError, match="Nothing could be read, so nothing was published"):
        run(body, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset").exists()


@pytest.mark.parametrize("torn", [True, False])
def test_a_build_with_a_torn_input_ends_with_5_and_one_without_with_0(tmp_path: Path, torn: bool) -> None:
    root = world(tmp_path / "w", repos=1, files=2)
    lines = ['name = "x"', "partitions = 2", 'stages = ["opt_out", "exact_dedup", "decode", "languages", "signals"]']
    lines += ['outputs = ["dataset"]', '[exact_dedup]\nwinner = ["-revision_date"]']
    lines += [f'[[source]]\nkind = "directory"\npaths = [{json.dumps(str(root / "repo0"))}, "missing"]']
    if torn:
        (tmp_path / "torn.zip").write_bytes(b"PK\3\4nothing")
        lines += ['[[source]]\nkind = "archives"\npaths = ["torn.zip"]']
    (tmp_path / "r.toml").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "stackbuild", "build", str(tmp_path / "r.toml"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (5 if torn else 0), done.stderr
    assert "missing" in done.stderr
    assert (tmp_path / "out" / "dataset" / "README.md").exists()
    if torn:
        assert "could not be read" in done.stderr and "archive/torn" in done.stderr


def test_the_order_of_sources_decides_nothing(tmp_path: Path) -> None:
    """Two tables name one path of a revision, with the same bytes and other facts about it."""
    for number, stars in enumerate((7, 9)):
        rows = {
            "text": [FUNCTION.format(1) * 4, FUNCTION.format(2 + number) * 4],
            "path": ["same.py", f"own{number}.py"],
            "repo": ["o/r", "o/r"],
            "revision": ["1", "1"],
            "stars": pa.array([stars, stars], pa.int64()),
        }
        pq.write_table(pa.table(rows), tmp_path / f"rows{number}.parquet")
    columns = {"content": "text", "path": "path", "repo_name": "repo", "revision_id": "revision", "star_events_count": "stars"}  # fmt: skip
    tables = [
        {"kind": "parquet", "paths": [str(tmp_path / f"rows{number}.parquet")], "columns": columns} for number in (0, 1)
    ]
    found = []
    for name, source in (("a", tables), ("b", tables[::-1])):
        out = tmp_path / name
        run(light(tmp_path, source=source, outputs=["dataset", "repos", "index"]), out)
        found.append({k: v for k, v in released(out).items() if k.endswith(".parquet")})
    assert found[0] == found[1]
    twice = [row for row in decisions_of(tmp_path / "a") if row["rule"] == "duplicate_path"]
    assert len(twice) == 1 and twice[0]["kept_content_id"] == twice[0]["content_id"]


def test_the_output_folder_inside_a_source_is_not_read(tmp_path: Path) -> None:
    root = world(tmp_path / "w", repos=1, files=2)
    out = root / "repo0" / "out"
    body = light(root)
    run(body, out)
    first = released(out)
    assert ran(run(body, out)) == {}
    assert released(out) == first
    assert not any("/out/" in path for path in paths_of(out))
