"""The stage `opt_out`: which rows an entry takes away, and which it must not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stackbuild.errors import InputError
from stackbuild.opt_out.stage import OptOut, OptOutOptions
from stackbuild.schema import OCCURRENCES
from stackbuild.stage import judge

H = {name: hashlib.sha1(name.encode()).hexdigest() for name in "abcdefghij"}


def rows(*given: dict[str, Any]) -> pa.RecordBatch:
    base = {
        "repo_name": "jo/repo",
        "repo_url": None,
        "snapshot_id": None,
        "revision_id": H["a"],
        "directory_id": None,
        "content_id": bytes.fromhex(H["b"]),
    }
    schema = pa.schema([OCCURRENCES.field(name) for name in OptOut.reads])
    return pa.RecordBatch.from_pylist([{**base, **row} for row in given], schema=schema)


def stage(tmp_path: Path, text: str, **options: Any) -> OptOut:
    path = tmp_path / "list.txt"
    path.write_text(text)
    return OptOut(OptOutOptions(list=str(path), **options))


def leaving(tmp_path: Path, text: str, batch: pa.RecordBatch) -> dict[int, str]:
    _, left = judge(stage(tmp_path, text).verdicts(batch), batch.num_rows)
    return {row: gone.verdict.rule for gone in left for row in gone.rows.to_pylist()}


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("jo", "opt_out:owner"),
        ("jo/former", "opt_out:repo"),
        ("https://github.com/Jo/Former.git", "opt_out:origin"),
        ("swh:1:ori:" + hashlib.sha1(b"https://github.com/Jo/Former").hexdigest(), "opt_out:origin"),
    ],
)
def test_a_repository_leaves_by_each_name_that_it_ever_bore(tmp_path: Path, entry: str, rule: str) -> None:
    moved = {"repo_name": "bo/now", "repo_url": "https://github.com/bo/now"}
    batch = rows(
        {**moved, "other_names": "Jo/Former bo/between"},
        {**moved, "other_names": "jon/former bo/jo"},
        {**moved, "other_names": None},
    )
    assert leaving(tmp_path, entry, batch) == {0: rule}


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("JO", "opt_out:owner"),
        ("https://github.com/jo", "opt_out:owner"),
        ("Jo/Repo", "opt_out:repo"),
        ("git@github.com:jo/repo.git", "opt_out:origin"),
        (f"swh:1:snp:{H['c']}", "opt_out:snapshot"),
        (f"swh:1:rev:{H['a']}", "opt_out:revision"),
        (f"swh:1:dir:{H['d']}", "opt_out:directory"),
        (f"swh:1:cnt:{H['b']}", "opt_out:content"),
    ],
)
def test_each_kind_of_entry_has_its_rule(tmp_path: Path, entry: str, rule: str) -> None:
    batch = rows(
        {"snapshot_id": H["c"], "directory_id": H["d"]},
        {"repo_name": "bo/other", "revision_id": H["e"], "content_id": bytes.fromhex(H["f"])},
    )
    assert leaving(tmp_path, entry, batch) == {0: rule}


@pytest.mark.parametrize(
    "row",
    [
        {"repo_name": "Jo/Repo"},
        {"repo_name": "jo/repo.git"},
        {"repo_name": "x/y", "repo_url": "https://github.com/jo/repo"},
        {"repo_name": "x/y", "repo_url": "HTTP://u:p@GitHub.com:80/JO/Repo.git/"},
        {"repo_name": "x/y", "repo_url": "git://github.com/jo/%72epo"},
    ],
)
@pytest.mark.parametrize("entry", ["jo", "jo/repo", "https://github.com/jo/repo"])
def test_the_same_repository_under_any_spelling(tmp_path: Path, entry: str, row: dict[str, Any]) -> None:
    assert set(leaving(tmp_path, entry, rows(row))) == {0}


@pytest.mark.parametrize(
    "name", ["jo2/repo", "xjo/repo", "jo-/repo", "bo/jo", "local/jo", "gitlab.com/jo/repo", "archive/jo"]
)
def test_others_stay(tmp_path: Path, name: str) -> None:
    assert leaving(tmp_path, "jo", rows({"repo_name": name})) == {}
    assert leaving(tmp_path, "jo/repo", rows({"repo_name": name})) == {}


def test_groups_on_other_hosts(tmp_path: Path) -> None:
    batch = rows(
        {"repo_name": "gitlab.com/group/sub/r", "repo_url": "https://gitlab.com/group/sub/r"},
        {"repo_name": "gitlab.com/group/subway/r"},
        {"repo_name": "group/sub"},
    )
    assert leaving(tmp_path, "https://gitlab.com/group", batch) == {0: "opt_out:owner", 1: "opt_out:owner"}
    assert leaving(tmp_path, "https://gitlab.com/group/sub", batch) == {0: "opt_out:origin"}


@pytest.mark.parametrize(
    "url", ["https://github.com/Jo/Repo", "https://github.com/Jo/Repo.git", "http://github.com/Jo/Repo"]
)
def test_an_origin_by_its_swhid(tmp_path: Path, url: str) -> None:
    entry = "swh:1:ori:" + hashlib.sha1(url.encode()).hexdigest()
    batch = rows(
        {"repo_url": "https://github.com/Jo/Repo"}, {"repo_url": "https://github.com/Jo/Other"}, {"repo_url": None}
    )
    assert leaving(tmp_path, entry, batch) == {0: "opt_out:origin"}


def test_ids_as_swhids_and_source_directories(tmp_path: Path) -> None:
    batch = rows(
        {"revision_id": f"swh:1:dir:{H['d']}"}, {"directory_id": f"swh:1:dir:{H['d'].upper()}"}, {"revision_id": H["d"]}
    )
    assert set(leaving(tmp_path, f"swh:1:dir:{H['d']}", batch)) >= {0, 1}
    assert leaving(tmp_path, f"swh:1:rev:{H['d']}", batch) == {2: "opt_out:revision"}


def test_a_content_leaves_everywhere_and_an_owner_only_his_occurrence(tmp_path: Path) -> None:
    batch = rows(
        {"repo_name": "jo/a"}, {"repo_name": "bo/b"}, {"repo_name": "zo/c", "content_id": bytes.fromhex(H["g"])}
    )
    assert set(leaving(tmp_path, f"swh:1:cnt:{H['b']}", batch)) == {0, 1}
    assert set(leaving(tmp_path, "jo", batch)) == {0}


def test_a_file_leaves_by_the_widest_rule_once(tmp_path: Path) -> None:
    assert leaving(tmp_path, f"jo/repo\njo\nswh:1:cnt:{H['b']}", rows({})) == {0: "opt_out:owner"}


def test_without_a_list_nothing_leaves() -> None:
    assert list(OptOut().verdicts(rows({}))) == [] and OptOut().phases() == ()


def test_hostile_urls_in_rows_are_no_error(tmp_path: Path) -> None:
    urls = [
        "https://[::1",
        "\x00",
        "",
        "://",
        "https://" + "a" * 5000,
        "http://jo\u202e.com/x",
        "https://x.y/%zz",
        "https://\u0130.com/a/b",
    ]
    assert leaving(tmp_path, "jo", rows(*({"repo_name": "bo/x", "repo_url": url} for url in urls))) == {}


def test_no_rows(tmp_path: Path) -> None:
    assert leaving(tmp_path, f"jo\nswh:1:cnt:{H['b']}", rows()) == {}


def test_the_key_is_what_the_list_says_not_where_it_lies(tmp_path: Path) -> None:
    one = stage(tmp_path, "jo\nbo/r")
    (tmp_path / "x").mkdir()
    other = stage(tmp_path / "x", "# again\nBo/R\nJo")
    assert one.key() == other.key() and one.options.model_dump(mode="json") == other.options.model_dump(mode="json")
    assert stage(tmp_path, "zo").key() != one.key() and OptOut.private_decisions


def test_a_bad_list_stops_the_plan(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1"):
        stage(tmp_path, "*").key()


class Recorded:
    """What a phase's task gives: batches, and a writer that remembers."""

    def __init__(self, options: OptOutOptions, batch: pa.RecordBatch):
        self.options, self.batch, self.written = options, batch, []

    def batches(self, columns: Any) -> list[pa.RecordBatch]:
        return [self.batch.select(list(columns))]

    def writer(self, name: str, schema: pa.Schema) -> Any:
        task = self

        class Writer:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: object) -> None: ...

            def write(self, batch: pa.RecordBatch) -> None:
                task.written.append(batch)

        return Writer()

    def read(self, name: str) -> list[pa.RecordBatch]:
        return self.written


def test_policy_contents_takes_the_copies_too(tmp_path: Path) -> None:
    """What an opted-out owner holds leaves in other owners' repositories as well."""
    one = stage(tmp_path, "jo", policy="contents")
    batch = rows(
        {"repo_name": "jo/a"}, {"repo_name": "bo/b"}, {"repo_name": "zo/c", "content_id": bytes.fromhex(H["g"])}
    )
    (phase,) = one.phases()
    task: Any = Recorded(one.options, batch)
    phase.run(task)
    one.load(task)
    _, left = judge(one.verdicts(batch), 3)
    assert {row: gone.verdict.rule for gone in left for row in gone.rows.to_pylist()} == {
        0: "opt_out:owner",
        1: "opt_out:content",
    }
