"""Published ids become contents: every layout that was published, and nothing made up where a content cannot be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError, TemporaryError
from stackbuild.layout.columns import FILE_STRUCT, REPOS
from stackbuild.release import published
from stackbuild.release.train_ids import published_schema
from stackbuild.schema import V2_FIELDS
from stackbuild.swhid import FILE_MODE, blob_id, content_id, directory_id
from stackbuild.upstream import hub_inputs, published_inputs
from tests.release.releases import objects, use_stand_in
from tests.test_publish import main

# A public record of the-stack-v2-train-smol-ids: a README of 18 bytes, the only file of its repository.
KNOWN = b"# aaaaaaaa\n000000\n"
CONTENTS = [KNOWN, "# caf\u00e9\n".encode("latin-1"), b"gone\n", b"withheld\n", b"zeroed\n", b"print(1)\n"]
V2 = pa.schema(V2_FIELDS)
TRAIN = published_schema(REPOS)


@pytest.fixture(autouse=True)
def _fetcher(monkeypatch: pytest.MonkeyPatch) -> None:
    use_stand_in(monkeypatch)


def file_row(number: int, data: bytes) -> dict[str, Any]:
    return {
        "blob_id": blob_id(data).hex(),
        "content_id": content_id(data).hex(),
        "path": f"/{number}.py",
        "src_encoding": "ISO-8859-1" if not data.isascii() else "UTF-8",
        "language": "Python",
        "length_bytes": len(data),
    }


def table(layout: str, contents: list[bytes]) -> pa.Table:
    rows = [file_row(number, data) for number, data in enumerate(contents)]
    if layout == "the-stack-v2":
        return pa.Table.from_pylist([{**dict.fromkeys(V2.names), **row, "repo_name": "a/x"} for row in rows], V2)
    repo = {**dict.fromkeys(TRAIN.names), "repo_name": "a/x"}
    files = [{**dict.fromkeys(field.name for field in FILE_STRUCT), **row} for row in rows]
    split = [{**repo, "files": files[:2], "num_files": 2}, {**repo, "files": [], "num_files": 0}]
    split += [{**repo, "files": None}, {**repo, "repo_name": "b/y", "files": files[2:], "num_files": len(files) - 2}]
    return pa.Table.from_pylist(split, TRAIN)


def store(tmp_path: Path) -> Path:
    folder = objects(tmp_path / "objects", [CONTENTS[0], CONTENTS[1], CONTENTS[5]])
    (folder / blob_id(CONTENTS[4]).hex()).write_bytes(bytes(30))
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def regenerate(source: Path | str, tmp_path: Path, out: str = "out") -> int:
    return main(
        ["manifest", "regenerate", "--from", str(source), "--objects", str(store(tmp_path)), "-o", str(tmp_path / out)]
    )


def test_the_ids_of_a_published_record_are_those_of_its_bytes() -> None:
    """Which of the two is the object's key, and which the SWHID."""
    assert blob_id(KNOWN).hex().startswith("522d5f7839fa")
    assert content_id(KNOWN).hex().startswith("05ee8db65dd1")
    assert directory_id([(b"README.md", FILE_MODE, content_id(KNOWN))]).hex().startswith("3a825c97460f")


@pytest.mark.parametrize("layout", ["the-stack-v2", "train-ids"])
def test_published_ids_are_filled_and_what_is_missing_is_told_apart(tmp_path: Path, layout: str) -> None:
    (tmp_path / "in" / "Python").mkdir(parents=True)
    pq.write_table(table(layout, CONTENTS), tmp_path / "in" / "Python" / "train-0.parquet")
    assert regenerate(tmp_path / "in", tmp_path) == 5
    found = rows(tmp_path / "out" / "dataset")
    assert [row["content"] for row in found] == [KNOWN.decode(), "# caf\u00e9\n", "print(1)\n"]
    assert {row["repo_name"] for row in found[:2]} == {"a/x"}
    assert "files" not in found[0] and all(row["content"] for row in found)
    lost = pq.read_table(tmp_path / "out" / "missing.parquet").to_pylist()
    assert [(row["path"], row["state"]) for row in lost] == [
        ("/2.py", "missing"),
        ("/3.py", "missing"),
        ("/4.py", "missing"),
    ]
    assert [row["row"] for row in lost] == [2, 3, 4]
    assert (
        lost[0]["swhid"] == f"swh:1:cnt:{content_id(CONTENTS[2]).hex()}"
        and lost[0]["sha1"] == blob_id(CONTENTS[2]).hex()
    )


def test_the_columns_of_both_layouts_are_those_of_the_cards() -> None:
    assert V2.names[:4] == ["blob_id", "directory_id", "path", "content_id"] and len(V2) == 26
    assert TRAIN.names == [
        "repo_name", "repo_url", "snapshot_id", "revision_id", "directory_id", "branch_name", "visit_date", "revision_date",
        "committer_date", "github_id", "star_events_count", "fork_events_count", "gha_license_id", "gha_created_at",
        "gha_updated_at", "gha_pushed_at", "gha_language", "files", "num_files",
    ]  # fmt: skip


def test_a_row_whose_ids_are_none_is_told_and_the_others_come(tmp_path: Path) -> None:
    body = table("the-stack-v2", [KNOWN] * 4).to_pylist()
    body[1]["blob_id"], body[2]["content_id"], body[3]["blob_id"] = "../../etc", None, body[3]["blob_id"].upper()
    pq.write_table(pa.Table.from_pylist(body, V2), tmp_path / "in.parquet")
    assert regenerate(tmp_path / "in.parquet", tmp_path) == 5
    assert [row["path"] for row in rows(tmp_path / "out" / "dataset")] == ["/0.py", "/3.py"]
    lost = pq.read_table(tmp_path / "out" / "missing.parquet").to_pylist()
    assert [(row["row"], row["detail"]) for row in lost] == [
        (n, "its blob_id and content_id are not SHA-1s") for n in (1, 2)
    ]


@pytest.mark.parametrize("encoding", ["EUC-TW", "ascii\0", "UTF-16", "no such"])
def test_an_encoding_that_does_not_decode_is_told(tmp_path: Path, encoding: str) -> None:
    body = [{**row, "src_encoding": encoding} for row in table("the-stack-v2", [CONTENTS[1]]).to_pylist()]
    pq.write_table(pa.Table.from_pylist(body, V2), tmp_path / "in.parquet")
    assert regenerate(tmp_path / "in.parquet", tmp_path) == 5
    [lost] = pq.read_table(tmp_path / "out" / "missing.parquet").to_pylist()
    assert lost["state"] == "changed" and "its bytes are not" in lost["detail"]
    assert rows(tmp_path / "out" / "dataset") == []


def test_pieces_that_are_complete_are_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "PIECE_ROWS", 2)
    pq.write_table(table("the-stack-v2", CONTENTS), tmp_path / "in.parquet", row_group_size=2)
    assert regenerate(tmp_path / "in.parquet", tmp_path) == 5
    names = sorted(path.name for path in (tmp_path / "out" / "dataset").iterdir())
    assert names == [f"in-{number:05d}-of-00003.parquet" for number in range(3)]
    before = {path.name: path.stat().st_ino for path in (tmp_path / "out" / "dataset").iterdir()}
    objects(tmp_path / "objects", CONTENTS[2:5])
    done = main(["manifest", "regenerate", "--from", str(tmp_path / "in.parquet"), "--objects", str(tmp_path / "objects"),
                 "-o", str(tmp_path / "out")])  # fmt: skip
    assert done == 0
    after = {path.name: path.stat().st_ino for path in (tmp_path / "out" / "dataset").iterdir()}
    assert before[names[0]] == after[names[0]] and before[names[1]] != after[names[1]]
    assert [row["path"] for row in rows(tmp_path / "out" / "dataset")] == [f"/{n}.py" for n in range(6)]
    assert not (tmp_path / "out" / "missing.parquet").exists()


def test_what_is_no_published_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.parquet"
    for body, message in (
        ({"text": ["x"]}, "not of a layout that was published"),
        ({"files": [[{"path": "a"}]]}, "not of a layout that was published"),
        ({"blob_id": ["1"], "content_id": ["1"], "path": ["1"], "content": ["1"]}, "nothing to fetch"),
    ):
        pq.write_table(pa.table(body), other)
        assert regenerate(other, tmp_path, f"out-{len(message)}-{len(body)}") == 4
        assert message in capsys.readouterr().err
    other.write_bytes(b"PAR1 and no more")
    assert regenerate(other, tmp_path, "torn") == 4
    assert "other.parquet cannot be read" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert regenerate(tmp_path / "empty", tmp_path, "none") == 4
    assert regenerate(tmp_path / "typo", tmp_path, "none") == 4


def test_a_folder_that_holds_something_else_is_not_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(table("the-stack-v2", [KNOWN]), tmp_path / "in.parquet")
    pq.write_table(table("the-stack-v2", [KNOWN]), tmp_path / "two.parquet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert regenerate(tmp_path / "in.parquet", tmp_path) == 2
    assert regenerate(tmp_path / "in.parquet", tmp_path, "fresh") == 0
    assert regenerate(tmp_path / "two.parquet", tmp_path, "fresh") == 2
    assert "from something else" in capsys.readouterr().err


# ---------------------------------------------------------------- the Hub


class Hub:
    """A file system as huggingface_hub's is."""

    def __init__(self, root: Path, error: Exception | None = None):
        self.root, self.error = root, error

    def isdir(self, path: str) -> bool:
        if self.error:
            raise self.error
        return (self.root / path).is_dir()

    def isfile(self, path: str) -> bool:
        return (self.root / path).is_file()

    def find(self, path: str) -> list[str]:
        return [str(found.relative_to(self.root)) for found in (self.root / path).rglob("*") if found.is_file()]

    def open(self, path: str, mode: str) -> Any:
        return open(self.root / path, mode)


def test_tables_of_the_hub_are_read_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "owner" / "name" / "data"
    folder.mkdir(parents=True)
    pq.write_table(table("the-stack-v2", [KNOWN]), folder / "b.parquet")
    pq.write_table(table("the-stack-v2", [KNOWN]), folder / "a.parquet")
    (folder / "README.md").write_text("")
    found = hub_inputs("hf://datasets/owner/name", Hub(tmp_path))
    assert [one.name for one in found] == ["data/a.parquet", "data/b.parquet"]
    assert pq.ParquetFile(found[0].open()).metadata.num_rows == 1
    assert [one.name for one in hub_inputs("hf://datasets/owner/name/data/a.parquet", Hub(tmp_path))] == ["a.parquet"]
    with pytest.raises(InputError, match="holds no Parquet"):
        hub_inputs("hf://datasets/owner/none", Hub(tmp_path))


def test_what_the_hub_refuses_and_what_the_network_does_are_told_apart(tmp_path: Path) -> None:
    class Refused(OSError):
        class response:
            status_code = 401

    with pytest.raises(InputError, match="hf auth login"):
        hub_inputs("hf://datasets/a/b", Hub(tmp_path, Refused("no")))

    class Unreached(Exception):
        pass

    Unreached.__module__ = "httpx._exceptions"  # no OSError, as those of the client's library are none
    for error in (OSError("reset\nby peer"), OSError(), Unreached("no such host")):
        with pytest.raises(TemporaryError, match="cannot be read now"):
            hub_inputs("hf://datasets/a/b", Hub(tmp_path, error))
    with pytest.raises(ZeroDivisionError):  # an error of ours is none of the Hub's
        hub_inputs("hf://datasets/a/b", Hub(tmp_path, ZeroDivisionError()))


def test_an_address_that_is_not_there_is_an_input_error() -> None:
    with pytest.raises(InputError, match="is not there"):
        published_inputs("/no/such/folder")


def test_the_json_tells_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(table("the-stack-v2", CONTENTS), tmp_path / "in.parquet")
    done = main(["manifest", "regenerate", "--from", str(tmp_path / "in.parquet"), "--objects", str(store(tmp_path)),
                 "-o", str(tmp_path / "out"), "--json"])  # fmt: skip
    body = json.loads(capsys.readouterr().out)
    assert done == 5 and (body["rows"], body["missing"], body["lost"]) == (3, 3, {"missing": 3})
