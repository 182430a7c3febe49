"""`check`: every way to ask for a repository or a file finds the same thing, and no query crashes it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.errors import InputError
from stackbuild.index.lookup import Answer, Lookup, canonical_name
from stackbuild.swhid import content_id
from tests.test_build import run
from tests.worlds import light

NAMES = ["Jo/Tool", "gitlab.com/group/sub/tool", "local/here", "a.b/c", "odd/tool.git", "gone/stayed"]
URLS = ["https://github.com/Jo/Tool", "https://gitlab.com/group/sub/tool", None, None, None, None]
LEFT = ["Gone/Away", "gitlab.com/lost/tool"]  # whole, by the opt-out list
REVISION = "a" * 40


def text(number: int) -> str:
    return f"def function{number}(value):\n    return value + {number}\n" * 9


@pytest.fixture(scope="module")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Lookup:
    folder = tmp_path_factory.mktemp("rows")
    files = [
        (name, url, f"f{number}.py", text(number)) for number, (name, url) in enumerate(zip(NAMES, URLS, strict=True))
    ]
    files += [(NAMES[0], URLS[0], "nul.py", "\0"), (NAMES[0], URLS[0], "secret.py", "x" * 20)]
    files += [(name, None, "gone.py", text(100 + number)) for number, name in enumerate(LEFT)]
    names, urls, paths, texts = zip(*files, strict=True)
    rows = {"text": texts, "path": paths, "repo": names, "url": urls, "revision": [REVISION] * len(files)}
    pq.write_table(
        pa.table({name: pa.array(values, pa.string()) for name, values in rows.items()}), folder / "rows.parquet"
    )
    entries = [f"swh:1:cnt:{content_id(b'x' * 20).hex()}", "github.com/Gone/Away", "gitlab.com/lost"]
    (folder / "opt-out.txt").write_text("\n".join(entries) + "\n")
    columns = {"content": "text", "path": "path", "repo_name": "repo", "repo_url": "url", "revision_id": "revision"}
    source = {"kind": "parquet", "paths": [str(folder / "rows.parquet")], "columns": columns}
    stages = ["opt_out", "exact_dedup", "decode", "languages", "signals"]
    body = light(folder, source=[source], stages=stages, opt_out={"list": str(folder / "opt-out.txt")}, partitions=8)
    run(body, folder / "out")
    return Lookup(folder / "out")


@pytest.mark.parametrize(
    ("query", "kind", "name"),
    [
        ("jo/tool", "repository", "Jo/Tool"),
        ("JO", "owner", "Jo/Tool"),
        ("https://github.com/Jo/Tool.git", "repository", "Jo/Tool"),
        ("https://user:secret@github.com:443/Jo/Tool/", "repository", "Jo/Tool"),
        ("git@github.com:Jo/Tool.git", "repository", "Jo/Tool"),
        ("github.com/jo", "owner", "Jo/Tool"),
        ("https://www.github.com/jo", "owner", "Jo/Tool"),
        ("gitlab.com/group", "owner", "gitlab.com/group/sub/tool"),
        ("https://gitlab.com/group/", "owner", "gitlab.com/group/sub/tool"),
        ("GitLab.com/Group/Sub/Tool", "repository", "gitlab.com/group/sub/tool"),
        ("git@gitlab.com:group/sub/tool.git", "repository", "gitlab.com/group/sub/tool"),
        ("ssh://git@gitlab.com:22/group/sub/tool", "repository", "gitlab.com/group/sub/tool"),
        ("a.b/c", "repository", "a.b/c"),
        ("a.b", "owner", "a.b/c"),
        ("odd/tool.git", "repository", "odd/tool.git"),
        ("github.com:jo/tool", "repository", "Jo/Tool"),
        ("ssh://git@ssh.github.com:443/Jo/Tool.git", "repository", "Jo/Tool"),
        ("git+ssh://git@gitlab.com/group/sub/tool.git/", "repository", "gitlab.com/group/sub/tool"),
        ("https://github.com/jo/tool/blob/main/a.py?raw=1#L3", "repository", "Jo/Tool"),
        ("https://gitlab.com/group/sub/tool/-/tree/main", "repository", "gitlab.com/group/sub/tool"),
    ],
)
def test_a_repository_is_found_by_each_of_its_names(lookup: Lookup, query: str, kind: str, name: str) -> None:
    (answer,) = lookup.ask(query)
    assert answer.found and answer.kind == kind
    assert {row["repo_name"] for row in answer.repositories} == {name}


def told(answer: Answer) -> set[tuple[str, str, bool]]:
    """Name, rule and whether it is private, of each decision."""
    return {(row["repo_name"], row["rule"], row.get("private", False)) for row in answer.decisions}


def test_what_the_list_took_of_a_kept_repository_is_told_to_the_keeper_who_asks_why(lookup: Lookup) -> None:
    for query in ("jo/tool", f"swh:1:ori:{hashlib.sha1(b'https://github.com/Jo/Tool').hexdigest()}"):
        (answer,) = lookup.ask(query, why=True)
        assert {(name, private) for name, _, private in told(answer)} == {("Jo/Tool", False), ("Jo/Tool", True)}
        assert [row["path"] for row in answer.decisions if row.get("private")] == ["/secret.py"]
        assert "private" in answer.note
    (answer,) = lookup.ask("jo/tool")
    assert answer.found and not answer.decisions and not answer.note


def test_an_owner_is_answered_with_what_the_list_took_whole(lookup: Lookup) -> None:
    (answer,) = lookup.ask("gone", why=True)
    assert answer.found and {row["repo_name"] for row in answer.repositories} == {"gone/stayed"}
    assert {(name, private) for name, _, private in told(answer)} == {("Gone/Away", True)}
    for query in ("gone/away", "https://github.com/Gone/Away"):
        (answer,) = lookup.ask(query)
        assert answer.seen and not answer.found and "private" in answer.note
    (answer,) = lookup.ask("gitlab.com/lost")
    assert answer.kind == "owner" and {name for name, _, _ in told(answer)} == {"gitlab.com/lost/tool"}


def test_ids_are_found_in_either_case_and_with_qualifiers(lookup: Lookup) -> None:
    digits = content_id(text(0).encode()).hex()
    for query in (
        digits,
        digits.upper(),
        f"swh:1:cnt:{digits.upper()}",
        f"swh:1:cnt:{digits};origin=https://x.org/y",
        f"SWH:1:CNT:{digits.upper()};lines=1-2\n",
    ):
        (answer,) = lookup.ask(query)
        assert answer.found and answer.files[0]["repo_name"] == "Jo/Tool", query
    assert {row["repo_name"] for row in lookup.ask(f"swh:1:rev:{REVISION}")[0].repositories} == set(NAMES)
    url = hashlib.sha1(f"{URLS[1]}.git".encode()).hexdigest()
    assert lookup.ask(f"swh:1:ori:{url}")[0].repositories[0]["repo_name"] == NAMES[1]
    assert "no SWHID" in lookup.ask("swh:1:xyz:12")[0].note


def test_a_local_folder_does_not_stand_before_a_repository(
    lookup: Lookup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "local" / "here").mkdir(parents=True)
    (tmp_path / "local" / "here" / "any.py").write_text(text(0))
    monkeypatch.chdir(tmp_path)
    (answer,) = lookup.ask("local/here")
    assert answer.kind == "repository" and "./local/here" in answer.note
    (answer,) = lookup.ask("./local/here")
    assert answer.kind == "file" and answer.found
    (answer,) = lookup.ask("local/here/any.py")
    assert answer.kind == "file" and answer.found


def test_a_folder_is_answered_file_by_file_and_what_cannot_be_read_is_said(lookup: Lookup, tmp_path: Path) -> None:
    (tmp_path / "kept.py").write_text(text(1))
    (tmp_path / "left.py").write_bytes(b"\0")
    (tmp_path / "new.py").write_text("never seen")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    answers = {os.path.basename(answer.query): answer for answer in lookup.ask(str(tmp_path))}
    assert answers["kept.py"].found and answers["left.py"].seen and not answers["new.py"].seen
    assert set(answers) == {"kept.py", "left.py", "new.py"}
    assert "no such file" in lookup.ask(str(tmp_path / "nothing"))[0].note


HOSTILE = [
    "~\0",
    "~\udc80",
    "./\0",
    "/" + "x" * 9_999,
    "swh:1:ori:",
    "swh:1:cnt:" + "0" * 41,
    "\x1b[2J",
    "\udc80",
    "a/\udc80",
    "\0",
    "swh:1:cnt:" + "g" * 40,
    "https://[",
    "x" * 9_999,
    "a:b",
    "@:",
    "a//",
    "-",
]


@pytest.mark.parametrize("query", HOSTILE)
def test_a_hostile_query_gets_an_answer(lookup: Lookup, query: str) -> None:
    (answer,) = lookup.ask(query, why=True)
    assert not answer.found and not answer.seen
    assert "no SWHID" in answer.note or not query.startswith("swh:")


@given(st.text(max_size=30).filter(lambda query: not query.startswith((".", "/", "~"))))
@settings(max_examples=60, deadline=None)
def test_no_query_crashes(lookup: Lookup, query: str) -> None:
    for answer in lookup.ask(query, why=True):
        json.dumps(vars(answer), default=str)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("git@host.org:a/b.git", "host.org/a/b"),
        ("host.org:a/b", "host.org/a/b"),
        ("a:b", "a:b"),
        ("A/B/", "a/b"),
        ("x/y.git", "x/y"),
    ],
)
def test_a_url_becomes_the_name_that_sources_give(query: str, name: str) -> None:
    assert canonical_name(query) == name


# ---------------------------------------------------------------- damaged tables


@pytest.mark.parametrize("stem", ["index/names", "index/contents", "decisions/part", "private/decisions"])
def test_a_table_with_a_part_missing_is_refused_and_not_searched(lookup: Lookup, tmp_path: Path, stem: str) -> None:
    out = Path(shutil.copytree(lookup.out, tmp_path / "copy"))
    next(out.glob(f"{stem}-00003-of-*.parquet")).unlink()
    with pytest.raises(InputError, match="missing"):
        Lookup(out)


@pytest.mark.parametrize("folder", ["index", "decisions", "private"])
@pytest.mark.parametrize("data", [b"", b"PAR1xx"])
def test_a_torn_table_is_an_input_error_that_names_it(lookup: Lookup, tmp_path: Path, folder: str, data: bytes) -> None:
    out = Path(shutil.copytree(lookup.out, tmp_path / "copy"))
    for path in (out / folder).glob("*.parquet"):
        path.unlink()  # a link: its other name must not change
        path.write_bytes(data)
    for query in ("jo/tool", "ff" * 20):
        if query == "jo/tool" or folder != "private":
            with pytest.raises(InputError, match=rf"{folder}.*\.parquet"):
                Lookup(out).ask(query, why=True)


def test_a_table_with_other_columns_is_an_input_error(lookup: Lookup, tmp_path: Path) -> None:
    out = Path(shutil.copytree(lookup.out, tmp_path / "copy"))
    for path in (out / "index").glob("*.parquet"):
        path.unlink()
        pq.write_table(pa.table({"x": [1]}), path)
    for query in ("jo/tool", "jo", "ff" * 20, f"swh:1:rev:{REVISION}", f"swh:1:ori:{REVISION}"):
        with pytest.raises(InputError, match="index"):
            Lookup(out).ask(query)


def test_without_decisions_the_answer_stands_and_says_that_they_are_not_there(lookup: Lookup, tmp_path: Path) -> None:
    out = Path(shutil.copytree(lookup.out, tmp_path / "copy", ignore=shutil.ignore_patterns("decisions", "private")))
    (answer,) = Lookup(out).ask("jo/tool", why=True)
    assert answer.found and not answer.decisions and "no decisions" in answer.note
    assert not Lookup(out).ask("ff" * 20, why=True)[0].seen


def test_who_is_not_the_keeper_is_answered_without_what_is_private(lookup: Lookup, tmp_path: Path) -> None:
    out = Path(shutil.copytree(lookup.out, tmp_path / "copy", ignore=shutil.ignore_patterns("private")))
    (answer,) = Lookup(out).ask("jo/tool", why=True)
    assert answer.found and answer.decisions and not any("private" in row for row in answer.decisions)
    assert not answer.note
    (gone,) = Lookup(out).ask("gone/away", why=True)
    assert not gone.seen and not gone.decisions and not gone.note


def test_a_folder_without_an_index_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no index"):
        Lookup(tmp_path)
