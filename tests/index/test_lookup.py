"""`check`: every way to ask for a repository or a file finds the same thing, and no query crashes it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.difference import difference
from stackbuild.errors import InputError
from stackbuild.index.lookup import Lookup, canonical_name
from stackbuild.status import opened, status_of
from stackbuild.swhid import content_id
from tests.test_build import run
from tests.worlds import light

NAMES = ["Jo/Tool", "gitlab.com/group/sub/tool", "local/here", "a.b/c"]
URLS = ["https://github.com/Jo/Tool", "https://gitlab.com/group/sub/tool", None, None]
REVISION = "a" * 40


def text(number: int) -> str:
    return f"def function{number}(value):\n    return value + {number}\n" * 9


@pytest.fixture(scope="module")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Lookup:
    folder = tmp_path_factory.mktemp("rows")
    rows = pa.table(
        {
            "text": [text(number) for number in range(len(NAMES))] + ["\0", "x" * 20],
            "path": [f"f{number}.py" for number in range(len(NAMES))] + ["nul.py", "secret.py"],
            "repo": [*NAMES, "Jo/Tool", "Jo/Tool"],
            "url": [*URLS, URLS[0], URLS[0]],
            "revision": [REVISION] * (len(NAMES) + 2),
        }
    )
    pq.write_table(rows, folder / "rows.parquet")
    (folder / "opt-out.txt").write_text(f"swh:1:cnt:{content_id(b'x' * 20).hex()}\n")
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
    ],
)
def test_a_repository_is_found_by_each_of_its_names(lookup: Lookup, query: str, kind: str, name: str) -> None:
    (answer,) = lookup.ask(query)
    assert answer.found and answer.kind == kind
    assert {row["repo_name"] for row in answer.repositories} == {name}


def test_what_the_list_took_of_a_kept_repository_is_told_to_the_keeper_only(lookup: Lookup) -> None:
    (answer,) = lookup.ask("jo/tool", why=True)
    assert {(row["rule"], row.get("private", False)) for row in answer.decisions} == {
        ("binary", False),
        ("opt_out:content", True),
    } or {row.get("private", False) for row in answer.decisions} == {True, False}
    assert "private" in answer.note
    assert not any(row.get("private") for row in lookup.ask("jo/tool")[0].decisions)


def test_ids_are_found_in_either_case_and_with_qualifiers(lookup: Lookup) -> None:
    digits = content_id(text(0).encode()).hex()
    for query in (digits, digits.upper(), f"swh:1:cnt:{digits.upper()}", f"swh:1:cnt:{digits};origin=https://x.org/y"):
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


HOSTILE = ["\udc80", "a/\udc80", "\0", "swh:1:cnt:" + "g" * 40, "https://[", "x" * 9_999, "a:b", "@:", "a//", "-"]


@given(st.text(max_size=30).filter(lambda query: not query.startswith((".", "/", "~"))) | st.sampled_from(HOSTILE))
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


# ---------------------------------------------------------------- other folders


def test_two_builds_of_which_one_is_empty_are_compared(lookup: Lookup, tmp_path: Path) -> None:
    recipe = {**opened(lookup.out).plan.recipe, "decode": {"max_bytes": 1}}
    run(recipe, tmp_path / "empty")
    found = difference(lookup.out, tmp_path / "empty")
    assert (found["both"], len(found["lost"]), len(found["gained"])) == (0, len(NAMES), 0)
    assert {row["stage"] for row in found["lost"]} == {"decode"}
    assert len(difference(tmp_path / "empty", lookup.out)["gained"]) == len(NAMES)
    assert difference(tmp_path / "empty", tmp_path / "empty") == {"lost": [], "gained": [], "both": 0}


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"complete": tr'])
def test_a_folder_that_is_no_build_is_an_input_error(lookup: Lookup, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "build.json").write_text(text)
    for ask in (opened, status_of, lambda out: difference(out, lookup.out), Lookup):
        with pytest.raises(InputError):
            ask(tmp_path)


def test_a_torn_plan_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "build.json").write_text(json.dumps({"complete": True, "plan": "a" * 64}))
    (tmp_path / "plans").mkdir()
    for body in ("", "{}", "[]", '{"version": 1, "recipe": {}, "units": [{}], "skipped": []}'):
        (tmp_path / "plans" / f"{'a' * 24}.json").write_text(body)
        with pytest.raises(InputError, match="plan"):
            opened(tmp_path)


def test_a_file_in_place_of_the_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="not the output folder"):
        opened(tmp_path / "out")
