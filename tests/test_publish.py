"""Publishing: a folder is the old release or the new one, names do not collide, and what is published is verified."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild import build as building
from stackbuild import cli, publish
from stackbuild.errors import InputError, UsageError
from stackbuild.housekeeping import verify
from stackbuild.shards import Output, file_sha256
from tests.test_build import run
from tests.worlds import light, world


def main(arguments: list[str]) -> int:
    """The exit code of a command, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["stackbuild", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0


def committed(out: Path, name: str, data: bytes) -> Output:
    path = out / "stages" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Output("t", f"stages/{name}", 1, len(data), file_sha256(path))


@given(st.lists(st.text(min_size=0, max_size=8), unique=True, max_size=30))
def test_no_two_languages_share_a_folder(names: list[str]) -> None:
    folders = [publish.folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert folder and "/" not in folder and not folder.startswith(".") and "\0" not in folder


@pytest.mark.parametrize("name", ["C++", "C#", "F#", "Objective-C++", "Cap'n Proto", "Visual Basic .NET", "Mirah"])
def test_a_languages_folder_reads_as_its_name(name: str) -> None:
    assert publish.folder_name(name) == name


@pytest.mark.parametrize("swap", [True, False])
def test_a_folder_is_replaced_as_a_whole(out: Path, monkeypatch: pytest.MonkeyPatch, swap: bool) -> None:
    if not swap:  # a file system that cannot exchange

        class Library:
            pass

        monkeypatch.setattr(publish.ctypes, "CDLL", lambda *a, **k: Library())
    one, two = committed(out, "one", b"1"), committed(out, "two", b"2")
    publish.place(out, "dataset", {"a": one, "README.md": b"first"})
    held = os.open(out / "dataset", os.O_DIRECTORY)
    publish.place(out, "dataset", {"b/c": two, "README.md": b"second"})
    os.close(held)
    assert sorted(str(p.relative_to(out)) for p in (out / "dataset").rglob("*")) == [
        "dataset/README.md",
        "dataset/b",
        "dataset/b/c",
    ]
    assert (out / "dataset" / "README.md").read_bytes() == b"second"
    assert not [path for path in out.iterdir() if path.name.startswith(".dataset")]


def test_the_name_is_never_free_while_a_folder_is_exchanged(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = committed(out, "one", b"1")
    publish.place(out, "dataset", {"a": one})
    renamed = []
    monkeypatch.setattr(publish.os, "rename", lambda *names: renamed.append(names))
    publish.place(out, "dataset", {"b": one})
    assert renamed == [] and (out / "dataset" / "b").exists()


def test_what_is_in_place_is_left_alone(out: Path) -> None:
    one = committed(out, "one", b"1")
    publish.place(out, "dataset", {"a": one, "README.md": b"x"})
    before = (out / "dataset").stat().st_ino
    publish.place(out, "dataset", {"a": one, "README.md": b"x"})
    assert (out / "dataset").stat().st_ino == before
    publish.place(out, "dataset", {"a": one, "README.md": b"y"})
    assert (out / "dataset" / "README.md").read_bytes() == b"y"


def test_a_file_system_without_links_gets_copies(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    one = committed(out, "one", b"1")
    monkeypatch.setattr(publish.os, "link", refuse)
    publish.place(out, "dataset", {"a": one})
    assert (out / "dataset" / "a").read_bytes() == b"1"


# ---------------------------------------------------------------- a built folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), repos=2, files=3)


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    run(light(root), out)
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_published_file_is_listed_with_its_hash(built: Path) -> None:
    listed = json.loads((built / "build.json").read_text())["files"]
    there = {
        str(path.relative_to(built))
        for name in (*publish.PRODUCTS, "report")
        for path in (built / name).rglob("*")
        if path.is_file()
    }
    assert set(listed) == there
    assert all(file_sha256(built / name) == sha256 for name, sha256 in listed.items())
    assert verify(built).problems == []


@pytest.mark.parametrize("name", ["dataset/README.md", "manifest/header.json"])
def test_a_published_file_that_was_changed_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    assert any(name in problem for problem in verify(copy).problems)
    assert main(["verify", str(copy)]) == 4


def test_a_published_table_that_was_changed_apart_from_its_shard_is_named(copy: Path) -> None:
    path = next((copy / "dataset").rglob("*.parquet"))
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert any(path.name in problem and "expected" in problem for problem in verify(copy).problems)
    assert main(["manifest", "verify", str(copy)]) == 4


def test_a_file_that_does_not_belong_to_the_release_is_named(copy: Path) -> None:
    (copy / "dataset" / "data" / "extra.parquet").write_bytes(b"")
    assert any("extra.parquet is not of the build" in problem for problem in verify(copy).problems)
    assert main(["manifest", "verify", "--level", "0", str(copy)]) == 4


def test_after_clean_what_is_published_is_still_verified(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", str(copy)]) == 0
    assert main(["verify", str(copy)]) == 0
    assert "clean" in capsys.readouterr().out
    assert main(["manifest", "verify", str(copy)]) == 0
    told = capsys.readouterr().out  # what is released proves its paths; nobody has the bytes
    assert "level 1 (bytes): 0 ok, 0 wrong" in told and "no bytes are at hand" in told
    assert "level 2 (paths in their trees): 0 ok" not in told
    for command in (["report"], ["gc"], ["manifest", "write"]):
        assert main([*command, str(copy)]) == 4
        assert "removed by `stackbuild clean`" in capsys.readouterr().err
    (copy / "dataset" / "README.md").unlink()
    assert main(["verify", str(copy)]) == 4


@pytest.mark.parametrize("command", [["report"], ["gc"], ["manifest", "write"], ["clean"]])
def test_a_build_that_is_not_complete_is_not_released(
    copy: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.loads((copy / "build.json").read_text())
    (copy / "build.json").write_text(json.dumps({**body, "complete": False}))
    assert main([*command, str(copy)]) == 4
    assert "not complete" in capsys.readouterr().err
    assert main(["verify", str(copy)]) == 0


def test_manifest_write_restores_what_was_lost_and_refuses_rows_that_differ(copy: Path) -> None:
    before = (copy / "manifest" / "header.json").read_bytes()
    shutil.rmtree(copy / "manifest")
    assert main(["manifest", "write", str(copy)]) == 0
    assert (copy / "manifest" / "header.json").read_bytes() == before
    rows = next(copy.glob("stages/*layout.files/data/*/manifest-*.parquet"))
    rows.write_bytes(rows.read_bytes()[:-1] + b"x")
    assert main(["manifest", "write", str(copy)]) == 4


def test_a_folder_of_the_users_own_is_not_replaced(root: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not of a build"):
        run(light(root), tmp_path)
    assert (tmp_path / "dataset" / "thesis.txt").read_text() == "mine"


def test_an_output_folder_that_is_a_file_is_a_usage_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        run(light(root), tmp_path / "out")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"complete": true}'])
def test_a_torn_description_is_named(root: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "build.json").write_text(text)
    with pytest.raises(InputError, match=r"build\.json"):
        run(light(root), tmp_path)


def test_torn_sources_are_resolved_again(root: Path, copy: Path) -> None:
    (copy / "plans" / "sources.json").write_text('{"torn')
    building.run(building.Request(light(root), Path("/"), copy, 1))


def test_a_link_to_a_folder_among_the_published_ones_is_named(copy: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    shutil.copy(next((copy / "dataset").rglob("*.parquet")), tmp_path / "evil" / "train.parquet")
    (copy / "dataset" / "data" / "Evil").symlink_to(tmp_path / "evil")
    assert any("Evil is not of the build" in problem for problem in verify(copy).problems)
    assert main(["manifest", "verify", "--level", "0", str(copy)]) == 4
    run(light(root), copy)
    assert not (copy / "dataset" / "data" / "Evil").exists()


@pytest.mark.parametrize("name", ["report/report.json", "report/extra.parquet"])
def test_the_report_is_verified_too(copy: Path, name: str) -> None:
    (copy / name).write_text("{}")
    assert main(["verify", str(copy)]) == 4
    (copy / "report" / "extra.parquet").unlink(missing_ok=True)
    assert main(["report", str(copy)]) == 0
    assert main(["verify", str(copy)]) == 0


@pytest.mark.parametrize("change", [{"files": None}, {"recipe_digest": "0" * 64}, {"seed": 8}])
def test_a_description_that_was_changed_is_named(copy: Path, change: dict[str, object]) -> None:
    body = json.loads((copy / "build.json").read_text())
    (copy / "build.json").write_text(json.dumps({**body, **change}))
    assert main(["verify", str(copy)]) == 4


@pytest.mark.parametrize(
    ("command", "job"), [(["verify"], "ingest"), (["report"], "ingest"), (["manifest", "verify"], "contents")]
)
@pytest.mark.parametrize("shards", [[], [1]])
def test_a_stage_manifest_that_was_changed_is_named(
    copy: Path, command: list[str], job: str, shards: list[int]
) -> None:
    path = copy / "stages" / f"00-{job}" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shards": shards}))
    assert main([*command, str(copy)]) == 4


def test_an_old_release_that_a_killed_run_left_is_removed(copy: Path, root: Path) -> None:
    (copy / ".dataset.0badcafe" / "data").mkdir(parents=True)
    run(light(root), copy)
    assert not (copy / ".dataset.0badcafe").exists()


def test_a_publishing_that_was_interrupted_is_told_and_not_called_damage(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.loads((copy / "build.json").read_text())
    (copy / "build.json").write_text(json.dumps({**body, "complete": False}))
    shutil.rmtree(copy / "clusters")
    assert main(["verify", str(copy)]) == 0
    assert "publishing was interrupted" in capsys.readouterr().out


def test_a_missing_file_of_a_stage_is_named_and_nothing_is_changed_by_looking(
    copy: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = next(copy.glob("stages/00-contents/data/*/contents-000.parquet"))
    gone.unlink()
    before = sorted(copy.rglob("*"))
    assert verify(copy).problems and str(gone) in verify(copy).problems[0]
    assert main(["gc", "--dry-run", str(copy)]) == 0
    assert sorted(copy.rglob("*")) == before
    for manifest in copy.glob("stages/00-ingest/manifests/*.json"):
        manifest.unlink()
    for command in (["verify"], ["gc"], ["report"]):
        assert main([*command, str(copy)]) == 4
    run(light(root), copy)
    assert main(["verify", str(copy)]) == 0


def test_a_folder_that_is_no_build_is_not_made_by_looking_at_it(tmp_path: Path) -> None:
    for command in (["gc"], ["clean"], ["manifest", "write"], ["verify"], ["report"], ["status"]):
        assert main([*command, str(tmp_path / "typo")]) == 4
    assert not (tmp_path / "typo").exists()
