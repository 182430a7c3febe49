"""A release without texts becomes, by its manifest and an object store, the release with them: byte for byte."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import RecipeError
from stackbuild.graph import check, nodes_of
from stackbuild.layout.columns import REPOS
from stackbuild.release.card import WITHOUT_TEXTS
from stackbuild.release.train_ids import published_schema
from stackbuild.schema import DATASET
from stackbuild.shards import file_sha256
from tests.release.releases import File, objects, release, rewrite, use_stand_in
from tests.test_build import run
from tests.test_publish import main
from tests.worlds import light, source_text, world

SMALL = {"file_bytes": 4_096, "row_group_bytes": 2_048}


@pytest.fixture(autouse=True)
def _fetcher(monkeypatch: pytest.MonkeyPatch) -> None:
    use_stand_in(monkeypatch)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with files of several languages, so that the release has several files; a link; a program."""
    folder = world(tmp_path_factory.mktemp("world"), repos=4, files=3)
    random_ = random.Random(5)
    for repo in sorted(folder.iterdir()):
        for suffix in ("js", "rb", "go", "lua"):
            (repo / f"main.{suffix}").write_text(source_text(random_))
        (repo / "main.lua").chmod(0o755)
        (repo / "link.py").symlink_to("contact.py")
    return folder


@pytest.fixture(scope="module")
def full(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("full")
    run(light(root, layout=SMALL), out)
    return out


@pytest.fixture(scope="module")
def ids(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is released of a build without texts: dataset and manifest, nothing else."""
    out = tmp_path_factory.mktemp("none")
    run(light(root, layout={**SMALL, "content": "none"}), out)
    released = tmp_path_factory.mktemp("ids")
    for name in ("dataset", "manifest"):
        shutil.copytree(out / name, released / name)
    return released


@pytest.fixture(scope="module")
def store(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = (path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())
    return objects(tmp_path_factory.mktemp("objects"), files)


@pytest.fixture
def own_store(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "store"))


def regenerate(source: Path, store: Path, out: Path, *more: str) -> int:
    return main(["manifest", "regenerate", "--from", str(source), "--objects", str(store), "--output", str(out), *more])


def tables(folder: Path) -> dict[str, str]:
    dataset = folder / "dataset"
    return {str(path.relative_to(dataset)): file_sha256(path) for path in sorted(dataset.rglob("*.parquet"))}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "dataset").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def edited(folder: Path, copy: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a release whose header was changed."""
    shutil.copytree(folder, copy)
    path = copy / "manifest" / "header.json"
    body = json.loads(path.read_bytes())
    change(body)
    path.write_text(json.dumps(body))
    return copy


# ---------------------------------------------------------------- without texts


def test_a_dataset_without_texts_has_every_other_column_of_every_row(full: Path, ids: Path) -> None:
    assert len(tables(full)) > 2
    for name in tables(full):
        with_text, without = (pq.read_table(folder / "dataset" / name) for folder in (full, ids))
        assert without.schema.names == [name for name in DATASET.names if name != "content"]
        assert without.equals(with_text.drop_columns(["content"]))


def test_the_manifest_of_a_dataset_without_texts_says_what_its_files_would_be_with_them(full: Path, ids: Path) -> None:
    header = json.loads((ids / "manifest" / "header.json").read_bytes())
    assert header["content"] == "none"
    assert WITHOUT_TEXTS in (ids / "dataset" / "README.md").read_text()
    assert WITHOUT_TEXTS not in (full / "dataset" / "README.md").read_text()
    assert {entry["dataset"]: entry["filled_sha256"] for entry in header["files"]} == tables(full)
    assert main(["manifest", "verify", str(ids)]) == 0


def test_tokens_are_texts_too(root: Path) -> None:
    body = light(root, layout={"content": "none"}, outputs=["dataset", "tokens"], tokens={"vocab_size": 600})
    with pytest.raises(RecipeError, match="they are the text"):
        check(nodes_of(body))


def test_the_option_content_none_makes_no_tokens(tmp_path: Path) -> None:
    world(tmp_path / "world", repos=1, files=2)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "x"\npartitions = 1\nstages = ["exact_dedup", "decode", "languages"]\n'
        f'[exact_dedup]\nwinner = ["-revision_date"]\n[[source]]\nkind = "directory"\npaths = ["{tmp_path}/world/repo0"]\n'
    )
    out = tmp_path / "out"
    assert main(["build", str(recipe), "--output", str(out), "--workers", "1", "--content", "some"]) == 2
    assert main(["build", str(recipe), "--output", str(out), "--workers", "1", "--content", "none"]) == 0
    assert not (out / "tokens").exists() and "content" not in rows(out)[0]
    assert main(["manifest", "verify", str(out)]) == 0


# ---------------------------------------------------------------- with texts again


def test_what_is_regenerated_is_the_full_dataset_byte_for_byte(
    full: Path, ids: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert regenerate(ids, store, tmp_path / "out") == 0
    assert tables(tmp_path / "out") == tables(full)
    assert "bytes differ" not in capsys.readouterr().out
    assert not (tmp_path / "out" / "missing.parquet").exists()
    assert WITHOUT_TEXTS not in (tmp_path / "out" / "dataset" / "README.md").read_text()
    texts = [row for row in rows(tmp_path / "out") if row["redactions"]]
    assert texts and all("<EMAIL>" in row["content"] for row in texts)  # PII was replaced again
    assert main(["manifest", "verify", str(tmp_path / "out"), "--objects", str(store)]) == 0


def test_a_full_dataset_is_regenerated_too(full: Path, store: Path, tmp_path: Path) -> None:
    assert regenerate(full, store, tmp_path / "out") == 0
    assert tables(tmp_path / "out") == tables(full)


def test_contents_that_came_once_are_not_asked_for_again_with_a_cache(
    full: Path, ids: Path, store: Path, own_store: Path, tmp_path: Path
) -> None:
    """Neither by another output, nor of another store; what is missing is asked for each time."""
    cache = ["--cache", str(tmp_path / "cache")]
    lost = own_store / one_of(ids)["blob_id"]
    kept = lost.read_bytes()
    lost.unlink()
    assert regenerate(ids, own_store, tmp_path / "first", *cache) == 5
    for path in own_store.iterdir():
        path.write_bytes(b"nothing that anybody could use")
    lost.write_bytes(kept)
    assert regenerate(ids, own_store, tmp_path / "second", *cache) == 0
    assert tables(tmp_path / "second") == tables(full)


def test_a_second_run_has_nothing_to_do(
    ids: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert regenerate(ids, store, tmp_path / "out") == 0
    before = {name: (tmp_path / "out" / "dataset" / name).stat().st_ino for name in tables(ids)}
    assert regenerate(ids, store, tmp_path / "out") == 0
    assert f"{len(before)} files were complete before" in capsys.readouterr().out
    assert before == {name: (tmp_path / "out" / "dataset" / name).stat().st_ino for name in tables(ids)}


def one_of(ids: Path) -> dict[str, Any]:
    return next(row for row in rows(ids) if row["language"] == "Python")


@pytest.mark.parametrize(("damage", "state"), [("gone", "missing"), ("zeroed", "missing"), ("other", "changed")])
def test_a_content_that_cannot_be_had_is_left_out_and_told(
    full: Path, ids: Path, own_store: Path, tmp_path: Path, damage: str, state: str
) -> None:
    row = one_of(ids)
    path = own_store / row["blob_id"]
    kept = path.read_bytes()
    other = next(p for p in own_store.iterdir() if p != path)
    path.unlink() if damage == "gone" else path.write_bytes(bytes(40) if damage == "zeroed" else other.read_bytes())
    out = tmp_path / "out"
    assert regenerate(ids, own_store, out) == 5
    lost = pq.read_table(out / "missing.parquet").to_pylist()
    assert [(one["sha1"], one["state"]) for one in lost] == [(row["blob_id"], state)]
    assert lost[0]["path"] == row["path"] and (out / "dataset" / lost[0]["file"]).exists()
    assert len(rows(out)) == len(rows(full)) - 1
    assert all(one["content"] for one in rows(out)) and row["content_id"] not in {
        one["content_id"] for one in rows(out)
    }
    path.write_bytes(kept)  # it is there again
    assert regenerate(ids, own_store, out) == 0
    assert tables(out) == tables(full) and not (out / "missing.parquet").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import stackbuild.cli.regenerate as command
from tests.release.releases import FolderSupply
class Killed(FolderSupply):
    def __call__(self, needs):
        for answer in super().__call__(needs):
            Killed.left -= 1
            if not Killed.left:
                os.kill(os.getpid(), signal.SIGKILL)
            yield answer
Killed.left = int(sys.argv[4])
command.Upstream = Killed
command.run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), False, False)
"""


def test_a_killed_run_goes_on_where_it_was(full: Path, ids: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = len(rows(ids))
    for answers in (whole // 3, whole // 3):
        words = [sys.executable, "-c", KILLED, str(ids), str(store), str(out), str(answers)]
        assert subprocess.run(words, check=False, cwd=Path(__file__).parents[2]).returncode == -9
    before = tables(out)
    assert before and set(before.items()) < set(tables(full).items())  # nobody sees half a file
    assert regenerate(ids, store, out) == 0
    assert tables(out) == tables(full)


def test_the_manifest_of_a_regenerated_dataset_names_its_files(ids: Path, store: Path, tmp_path: Path) -> None:
    assert regenerate(ids, store, tmp_path / "out") == 0
    header = json.loads((tmp_path / "out" / "manifest" / "header.json").read_bytes())
    assert header["content"] == "text"
    assert {entry["dataset"]: entry["dataset_sha256"] for entry in header["files"]} == tables(tmp_path / "out")
    assert regenerate(tmp_path / "out", store, tmp_path / "again") == 0


# ---------------------------------------------------------------- what is refused


def test_another_version_of_the_redactor_is_refused(
    ids: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def older(body: dict[str, Any]) -> None:
        body["transforms"][0]["version"] = "1-older"

    assert regenerate(edited(ids, tmp_path / "r", older), store, tmp_path / "out") == 4
    message = capsys.readouterr().err
    assert "version 1-older of pii" in message and "stackbuild 0.1.0" in message
    assert not (tmp_path / "out").exists()


def test_another_writer_gives_the_same_rows_and_says_that_bytes_differ(
    full: Path, ids: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(body: dict[str, Any]) -> None:
        body["writer"]["pyarrow"] = "1.0"
        for entry in body["files"]:
            entry["filled_sha256"] = "0" * 64

    assert regenerate(edited(ids, tmp_path / "r", other), store, tmp_path / "out") == 0
    assert "their bytes differ" in capsys.readouterr().out
    assert rows(tmp_path / "out") == rows(full)


def test_the_same_writer_with_other_bytes_is_an_error(
    ids: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lie(body: dict[str, Any]) -> None:
        body["files"][0]["filled_sha256"] = "0" * 64

    assert regenerate(edited(ids, tmp_path / "r", lie), store, tmp_path / "out") == 4
    assert "the manifest says 000" in capsys.readouterr().err


def test_a_text_that_was_another_is_told_and_not_written(tmp_path: Path) -> None:
    files = [File("x/y", b"a.py", b"1\n"), File("x/y", b"b.py", b"2\n")]
    release(tmp_path / "r", files)
    rewrite(
        tmp_path / "r",
        "data/Python/train-00000-of-00001.parquet",
        lambda told: [{**told[0], "text_sha256": "0" * 64}, told[1]],
    )
    assert regenerate(tmp_path / "r", objects(tmp_path / "o", (f.data for f in files)), tmp_path / "out") == 5
    [lost] = pq.read_table(tmp_path / "out" / "missing.parquet").to_pylist()
    assert lost["state"] == "changed" and "its text has SHA-256" in lost["detail"]
    assert [row["content"] for row in rows(tmp_path / "out")] == ["2\n"]


def test_rows_that_are_not_of_each_other_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [File("x/y", b"a.py", b"1\n"), File("x/y", b"b.py", b"2\n")]
    release(tmp_path / "r", files)
    name = "data/Python/train-00000-of-00001.parquet"
    rewrite(tmp_path / "r", name, lambda told: [{**told[1], "row": 0}, {**told[0], "row": 1}])
    assert regenerate(tmp_path / "r", objects(tmp_path / "o", (f.data for f in files)), tmp_path / "out") == 4
    assert "does not tell of the rows" in capsys.readouterr().err


def test_a_malformed_row_is_named_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(tmp_path / "r", [File("x/y", b"a.py", b"1\n")])
    rewrite(tmp_path / "r", "data/Python/train-00000-of-00001.parquet", lambda told: [{**told[0], "sha1": "../x"}])
    assert regenerate(tmp_path / "r", objects(tmp_path / "o", [b"1\n"]), tmp_path / "out") == 4
    assert "row 0" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_full_disk_is_an_error_of_one_paragraph(
    ids: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("stackbuild.tables.HashingFile.write", full_disk)
        assert regenerate(ids, store, tmp_path / "out") == 5
    assert "No space left on device" in capsys.readouterr().err
    assert regenerate(ids, store, tmp_path / "out") == 0


def test_a_dataset_is_not_filled_into_itself(ids: Path, store: Path, tmp_path: Path) -> None:
    shutil.copytree(ids, tmp_path / "r")
    assert regenerate(tmp_path / "r", store, tmp_path / "r") == 4
    assert regenerate(tmp_path / "r", store, tmp_path / "r" / "below") == 4
    shutil.rmtree(tmp_path / "r" / "dataset")
    assert regenerate(tmp_path / "r", store, tmp_path / "out") == 4


# ---------------------------------------------------------------- the published layout


def test_repositories_in_the_published_layout_are_filled_as_the_published_are(
    full: Path, store: Path, tmp_path: Path
) -> None:
    shutil.copytree(full, tmp_path / "built")
    for _ in range(2):  # it may be written again
        assert main(["manifest", "write", str(tmp_path / "built"), "--layout", "train-ids"]) == 0
    files = sorted((tmp_path / "built" / "train-ids").rglob("*.parquet"))
    assert all(pq.read_schema(path).equals(published_schema(REPOS)) for path in files)
    listed = [file for path in files for row in pq.read_table(path).to_pylist() for file in row["files"]]
    assert {file["content_id"] for file in listed} == {row["content_id"] for row in rows(full)}
    assert regenerate(tmp_path / "built" / "train-ids", store, tmp_path / "out") == 0
    before = {row["content_id"]: row["content"] for row in rows(full) if not row["redactions"]}
    after = {row["content_id"]: row["content"] for row in rows(tmp_path / "out")}
    assert len(after) == len(listed) and {name: after[name] for name in before} == before
    assert main(["manifest", "write", str(tmp_path / "built"), "--layout", "mine"]) == 2
    assert pa.types.is_large_string(pq.read_schema(next((tmp_path / "out").rglob("*.parquet"))).field("content").type)
