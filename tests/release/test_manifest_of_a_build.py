"""The manifest of a real build: git repositories with links, and nothing of what was asked to be left out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stackbuild.swhid import content_id
from tests.release.releases import objects, use_stand_in
from tests.test_build import run
from tests.test_publish import main
from tests.worlds import light, world


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three git repositories with a link, a submodule, a program and a folder of which nothing is kept."""
    folder = world(tmp_path_factory.mktemp("world"), repos=3, files=2)
    for repo in folder.iterdir():
        (repo / "link").symlink_to("src")
        (repo / "assets").mkdir()
        (repo / "assets" / "a.bin").write_bytes(b"\0" * 9)
        (repo / "contact.py").chmod(0o755)
        git(repo, "init", "-q")
        git(repo, "add", ".")
        git(repo, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
        git(repo, "commit", "-qm", "one")
    return folder


def body(root: Path, **changes: Any) -> dict[str, Any]:
    source = [{"kind": "git", "paths": [str(path) for path in sorted(root.iterdir())]}]
    return light(root, source=source, **changes)


def levels(out: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["manifest", "verify", str(out), "--json", *words]) == 0
    return list(json.loads(capsys.readouterr().out))


@pytest.fixture(scope="module")
def out(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    run(body(root), folder)
    return folder


def test_every_level_holds_for_git_repositories_and_without_them_what_can(
    root: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = levels(out, capsys)
    files = found[0]["ok"]
    assert [(one["ok"], one["unchecked"]) for one in found] == [(files, 0)] * 5
    released = tmp_path / "released"
    released.mkdir()
    for name in ("dataset", "manifest"):
        (released / name).symlink_to(out / name)
    with pytest.MonkeyPatch.context() as patch:
        use_stand_in(patch)
        store = objects(
            tmp_path / "o", (p.read_bytes() for p in root.rglob("*") if p.is_file() and ".git" not in p.parts)
        )
        alone = levels(released, capsys, "--objects", str(store))
    assert [one["ok"] for one in alone] == [files, files, files, 0, files]
    assert alone[3]["reasons"] == {"no git repository of it is at hand": files}


def test_the_tree_keeps_links_submodules_and_folders_of_which_nothing_was_released(out: Path) -> None:
    tree = [row for path in sorted((out / "manifest" / "tree").iterdir()) for row in pq.read_table(path).to_pylist()]
    modes = {(row["path_bytes"], row["mode"]) for row in tree}
    assert {(b"link", 0o120000), (b"module", 0o160000), (b"assets", 0o040000)} <= modes
    rows = [row for path in (out / "manifest" / "data").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    kept = {(row["repo_name"], row["path_bytes"]) for row in rows}
    assert kept.isdisjoint({(row["repo_name"], row["path_bytes"]) for row in tree})


def test_a_content_that_was_asked_to_be_left_out_is_not_in_the_tree(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file beside released ones: the tree that would prove these is not shown."""
    secret = root / "repo0" / "src" / "module0.py"
    identifier = content_id(secret.read_bytes())
    entry = tmp_path / "opt-out.txt"
    entry.write_text(f"swh:1:cnt:{identifier.hex()}\n")
    run(body(root, opt_out={"list": str(entry)}), tmp_path / "out")
    tree = [r for p in (tmp_path / "out" / "manifest" / "tree").iterdir() for r in pq.read_table(p).to_pylist()]
    assert identifier not in {row["target"] for row in tree}
    assert [row for row in tree if row["repo_name"].endswith("repo0")] == [
        {"repo_name": tree_name(tree), "revision_id": git(root / "repo0", "rev-parse", "HEAD"),
         "path_bytes": b"", "mode": 0o040000, "target": None}
    ]  # fmt: skip
    second = levels(tmp_path / "out", capsys)[2]
    assert second["ok"] and list(second["reasons"]) == ["its tree was not read whole, or may not be shown"]


def tree_name(tree: list[dict[str, Any]]) -> str:
    return next(str(row["repo_name"]) for row in tree if row["repo_name"].endswith("repo0"))


def test_a_text_says_what_changed_it(out: Path) -> None:
    rows = [row for path in (out / "manifest" / "data").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    header = json.loads((out / "manifest" / "header.json").read_bytes())
    [transform] = header["transforms"]
    assert transform["name"] == "pii" and transform["options"]["mode"] == "placeholder"
    for row in rows:
        expected = [{"name": "pii", "version": transform["version"], "count": row["redactions"]}]
        assert row["transforms"] == (expected if row["redactions"] else [])
    assert any(row["transforms"] for row in rows) and not all(row["transforms"] for row in rows)
    assert set(header["writer"]) == {"pyarrow", "tables", "row_group_bytes"}
