"""From an export of Software Heritage to a dataset: what `git ls-tree` would list, by jobs of the plan."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer

from stackbuild import build as building
from stackbuild.cli import check, manifest
from stackbuild.errors import InputError, RecipeError
from stackbuild.index.lookup import Lookup
from stackbuild.ledger import check_ledger
from stackbuild.origins import canonical_url, name_of_url
from stackbuild.publish import PRODUCTS
from stackbuild.recipe import load
from tests.sources.gharchive.mini_hours import Hours, whole
from tests.sources.swh.mini_export import MiniExport, make_export


def recipe(export: MiniExport, **changes: Any) -> dict[str, Any]:
    source = {"kind": "swh", "export": str(export.root), "objects": str(export.objects), "forges": [], "types": []}
    body: dict[str, Any] = {
        "name": "swh",
        "seed": 7,
        "partitions": 2,
        "source": [{**source, **changes.pop("of_source", {})}],
        "stages": ["exact_dedup", "decode", "languages"],
        "exact_dedup": {"winner": ["-revision_date"]},
        "languages": {"unknown": "keep"},
        "outputs": ["dataset", "index"],
        "limits": {"depth": 8},
    }
    return {**body, **changes}


def run(body: dict[str, Any], out: Path, workers: int = 2) -> building.Build:
    return building.run(building.Request(body, Path("/"), out, workers)).build


def table_rows(build: building.Build, job: str, table: str) -> list[dict[str, Any]]:
    return [row for o in build.outputs(job, table) for row in pq.read_table(build.out / o.file).to_pylist()]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> MiniExport:
    return make_export(tmp_path_factory.mktemp("export"), "orc")


@pytest.fixture(scope="module")
def built(export: MiniExport, tmp_path_factory: pytest.TempPathFactory) -> building.Build:
    return run(recipe(export), tmp_path_factory.mktemp("built"))


def name_of(url: str) -> str:
    found = canonical_url(url)
    assert found is not None
    return name_of_url(found)


def test_occurrences_are_what_git_lists(export: MiniExport, built: building.Build) -> None:
    """All files of all chosen roots: taken, or left by a rule that is meant."""
    taken = Counter(
        (row["repo_name"], row["path_bytes"], row["mode"], row["content_id"])
        for row in table_rows(built, "00-occurrences", "occurrences")
    )
    left = {
        (row["repo_name"], row["path_bytes"], row["content_id"]): row["rule"]
        for job in ("00-ingest", "00-occurrences")
        for row in table_rows(built, job, "decisions")
    }
    expected: Counter[Any] = Counter()
    for root in export.roots:
        for path, mode, content_id in export.expected_files(root.url) if root.directory else ():
            if mode & 0o170000 == 0o100000 and (name_of(root.url), path, content_id) not in left:
                expected[name_of(root.url), path, mode, content_id] += 1
    assert taken - expected == Counter() and expected - taken == Counter()
    assert len(taken) > 40
    check_ledger(built)


def test_what_leaves_says_why(export: MiniExport, built: building.Build) -> None:
    """Objects that the store has damaged by their state, what is in no table or hidden, what is too large, a lost folder."""
    rules = {
        (row["repo_name"], row["path_bytes"].split(b"/")[-1]): row["rule"]
        for row in table_rows(built, "00-ingest", "decisions")
        if row["path_bytes"]
    }
    states = {("dave/texts", f"{state}.txt".encode()): state for state in export.states.values()}
    assert len(states) >= 6
    assert rules == {
        **states,
        ("dave/texts", b"large.csv"): "too_large",
        ("dave/skipped", b"b.bin"): "skipped_content",
        ("dave/skipped", b"c.txt"): "unknown_content",
        ("dave/skipped", b"d.txt"): "not_visible",
        ("dave/lost-folder", b"lost"): "missing_object",
    }


REASONS = {
    "no_full_visit": "no full visit",
    "no_branch": "no branch",
    "alias": "no branch",
    "not_a_directory": "target",
    "missing_revision": "missing",
}


def test_a_repository_without_a_root_is_a_decision_with_its_reason(
    export: MiniExport, built: building.Build, capsys: pytest.CaptureFixture[str]
) -> None:
    """One for each, which stands for all of it: in the released decisions, in the report's counts, and for `check`."""
    expected = {name_of(root.url): root.reason for root in export.roots if root.directory is None}
    whole = [
        row
        for path in sorted((built.out / "decisions").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
        if not row["path_bytes"]
    ]
    assert {row["repo_name"]: REASONS[row["rule"]] for row in whole} == expected and len(whole) == len(expected)
    assert {(row["stage"], row["outcome"], row["revision_id"]) for row in whole} == {("ingest", "dropped", "")}
    counted = Counter(row["rule"] for row in whole)
    report = json.loads((built.out / "report" / "report.json").read_text())
    rules = next(stage for stage in report["funnel"] if stage["stage"] == "ingest")["rules"]
    assert {rule: rules[rule]["rows"] for rule in counted} == counted
    for name in sorted(expected):
        with pytest.raises(typer.Exit) as ended:
            check.run(built.out, [f"https://{name if name.count('/') > 1 else f'github.com/{name}'}"], False, False)
        assert ended.value.exit_code == 1
        said = capsys.readouterr().out
        assert ": not in the dataset" in said and f"{name}: nothing of it could be read" in said
        assert REASONS[said.split("left by ingest: ")[1].split()[0]] == expected[name]


def test_a_repository_is_known_by_what_its_branch_leads_to(export: MiniExport, built: building.Build) -> None:
    told = {row["repo_url"]: row for row in table_rows(built, "00-ingest", "origins")}
    for root in export.roots:
        if root.directory is None:
            assert root.url not in told
            continue
        row = told[root.url]
        assert row["directory_id"] == root.directory.hex() and row["snapshot_id"] == root.snapshot.hex()
        assert row["branch_name"] == root.branch.decode("utf-8", "replace")
        assert root.revision is None or row["revision_id"] == root.revision.hex()


def test_links_and_submodules_are_kept_so_that_trees_can_be_proven(
    built: building.Build, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest.write(built.out)
    manifest.verify(built.out, 2, None, False, as_json=True)
    proven = json.loads(capsys.readouterr().out.splitlines()[-1])[2]
    assert proven["ok"] > 20 and proven["changed"] == proven["malformed"] == 0
    assert proven["unchecked"] == 2  # of a tree that is not in git's order: its entries alone do not prove it
    modes = {row["mode"] & 0o170000 for row in table_rows(built, "00-ingest", "tree")}
    assert {0o120000, 0o160000} <= modes


def released(out: Path) -> dict[str, str]:
    """SHA-256 of each table that is released, by its path."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("dataset", "decisions", "manifest")
        for path in sorted((out / name).rglob("*.parquet"))
    }


def test_parquet_and_one_worker_give_the_same_bytes(export: MiniExport, built: building.Build, tmp_path: Path) -> None:
    """ORC with two workers, Parquet with one; a sliced folder of objects, and another depth than the trees have."""
    other = make_export(tmp_path / "export", "parquet")
    place = {"objects": str(other.sliced)}
    again = run(recipe(other, of_source=place), tmp_path / "out", workers=1)
    assert released(again.out) == released(built.out)


def test_a_manifest_says_which_export_it_is_made_from_and_by_which_stages(
    export: MiniExport, built: building.Build
) -> None:
    manifest.write(built.out)
    header = json.loads((built.out / "manifest" / "header.json").read_text())
    (source,) = header["sources"]
    assert source["kind"] == "swh"
    there = {f"{path.parent.name}/{path.name}": path.stat().st_size for path in export.root.rglob("*.orc")}
    assert {name: size for name, size, _ in source["files"]}.items() <= there.items() and len(source["files"]) >= 7
    assert [stage["name"] for stage in header["stages"]] == built.plan.recipe["stages"]
    assert all(len(stage["digest"]) == 64 for stage in header["stages"])


def test_what_is_released_says_nothing_of_where_the_export_lies(export: MiniExport, built: building.Build) -> None:
    manifest.write(built.out)
    for name in ("dataset", "decisions", "manifest", "report"):
        for path in (path for path in (built.out / name).rglob("*") if path.is_file()):
            data = path.read_bytes()
            assert str(export.root.parent).encode() not in data and str(export.objects).encode() not in data, path


def test_places_of_an_export_start_from_the_recipe_and_hold_no_secret(tmp_path: Path) -> None:
    text = """
name = "swh"
partitions = 1
stages = ["exact_dedup", "decode"]
outputs = ["dataset"]
[exact_dedup]
winner = ["-revision_date"]
[[source]]
kind = "swh"
export = "graph"
objects = "OBJECTS"
"""
    (tmp_path / "r.toml").write_text(text.replace("OBJECTS", "s3://softwareheritage/content"))
    (source,) = load(tmp_path / "r.toml").values["source"]
    assert (source["export"], source["objects"]) == (str(tmp_path / "graph"), "s3://softwareheritage/content")
    (tmp_path / "r.toml").write_text(text.replace("OBJECTS", "https://me:secret@host/content"))
    with pytest.raises(RecipeError, match="a recipe is released") as caught:
        load(tmp_path / "r.toml")
    assert "secret" not in str(caught.value)


def test_a_second_run_does_nothing(export: MiniExport, built: building.Build) -> None:
    """What the export lacks and what the store has damaged is final."""
    again = building.run(building.Request(recipe(export), Path("/"), built.out, 2))
    assert {report.job: report.ran for report in again.reports if report.ran} == {}


def test_a_list_and_a_forge_select(export: MiniExport, tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    names.write_text("# those of Dave\nhttps://github.com/Dave/texts.git\ndave/skipped\nalice/empty\n\n")
    left_out = tmp_path / "opt-out.txt"
    left_out.write_text("alice/empty\n")
    source = {"list": str(names), "forges": ["github.com"], "types": ["git"]}
    changes = {"stages": ["opt_out", *recipe(export)["stages"]], "opt_out": {"list": str(left_out)}}
    body = recipe(export, of_source=source, limits={"depth": 4}, partitions=4, **changes)  # most of them without a root
    build = run(body, tmp_path / "out")
    repos = {row["repo_name"] for row in table_rows(build, "00-ingest", "origins")}
    assert repos == {"dave/texts", "dave/skipped"}
    # A repository that was asked to be left out is named nowhere, also if it was never walked.
    assert [row["rule"] for row in table_rows(build, "00-ingest", "decisions") if not row["path_bytes"]] == [
        "no_branch"
    ]
    for folder in ("dataset", "decisions", "index", "report"):
        for path in (build.out / folder).rglob("*"):
            told = (
                str(pq.read_table(path).to_pylist())
                if path.suffix == ".parquet"
                else path.is_file() and path.read_text()
            )
            assert "alice" not in (told or ""), path
    names.write_text("dave/texts\nno repository at all\n")
    with pytest.raises(InputError, match="line 2: 'no repository at all'"):
        run(body, tmp_path / "other")


def test_another_selection_finds_what_was_converted_again(export: MiniExport, tmp_path: Path) -> None:
    """The conversion depends on the export's files alone; every other phase on what is selected, and on the caps."""

    def keys(**changes: Any) -> dict[str, str]:
        plan = building.resolve(building.Request(recipe(export, **changes), Path("/"), tmp_path, 1))
        build = building.Build(tmp_path, plan)
        params = {"table": "entries", "file": 0}
        named = ("00-swh.visits", "00-swh.convert")  # what comes before the others are files of these
        return {job.name: build.key(job, 0, params) for job in build.jobs if job.name in named}

    as_built = keys()
    for changes in ({"of_source": {"pattern": "dave"}}, {"limits": {"depth": 7}}, {"sample": 0.5}):
        other = keys(**changes)
        assert other["00-swh.convert"] == as_built["00-swh.convert"], changes
        assert other["00-swh.visits"] != as_built["00-swh.visits"], changes


def known_world(tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """A selection of the mini export, and what GH Archive tells of it: a repository that was renamed, and its fork."""
    hours = Hours()
    hours.pull_request(
        7, "alice/new-name", "2016-05-02T10:00:00Z", default_branch="main", license="MIT", language="Python"
    )
    hours.event("WatchEvent", 7, "Alice/alias", "2015-05-02T10:00:00Z")
    hours.fork(7, "Alice/alias", "2015-06-02T10:00:00Z", whole(8, "erin/alias", fork=True))
    hours.event("CreateEvent", 9, "bob/no-head", "2015-06-02T10:00:00Z", master_branch="develop")
    hours.event("WatchEvent", 10, "dave/names", "2017-06-02T10:00:00Z")
    names = tmp_path / "list.txt"
    names.write_text("alice/alias\nalice/new-name\nerin/alias\nbob/no-head\nbob/only-head\n")
    folder = hours.write(tmp_path / "hours")
    return {"list": str(names), "gharchive": str(folder), "forges": ["github.com"], "types": ["git"]}, folder


def test_gh_archive_tells_of_renames_forks_and_default_branches(export: MiniExport, tmp_path: Path) -> None:
    source, folder = known_world(tmp_path)
    hours = Hours()
    hours.fork(20, "mallory/tool", "2015-07-02T10:00:00Z", {"id": 9})
    hours.write(folder)
    (tmp_path / "opt-out.txt").write_text("mallory\n")
    body = recipe(
        export,
        of_source=source,
        partitions=2,
        outputs=["dataset", "index"],
        opt_out={"list": str(tmp_path / "opt-out.txt")},
    )
    body["stages"] = ["opt_out", *body["stages"]]
    build = run(body, tmp_path / "out")
    told = {row["repo_name"]: row for row in table_rows(build, "00-ingest", "origins")}
    assert set(told) == {"alice/new-name", "erin/alias", "bob/no-head", "bob/only-head"}, "a renamed repository is one"
    assert told["bob/no-head"]["branch_name"] == "refs/heads/develop"
    row = told["alice/new-name"]
    assert (row["github_id"], row["star_events_count"], row["fork_events_count"]) == (7, 1, 1)
    assert (row["gha_license_id"], row["gha_language"], row["other_names"]) == ("MIT", "Python", "Alice/alias")
    assert (told["erin/alias"]["github_id"], told["erin/alias"]["forked_from"]) == (8, "Alice/alias")
    assert told["bob/only-head"]["github_id"] is None and told["bob/only-head"]["star_events_count"] == 0
    assert told["bob/no-head"]["forked_from"] == "mallory/tool"
    rows = [row for path in (build.out / "dataset").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert any(row["github_id"] for row in rows)
    assert all(row["github_id"] == told[row["repo_name"]]["github_id"] for row in rows)
    (answer,) = Lookup(build.out).ask("alice/alias")
    assert answer.seen and {row["repo_name"] for row in answer.repositories} == {"alice/new-name"}
    again = building.run(building.Request(body, Path("/"), build.out, 2))
    assert {report.job: report.ran for report in again.reports if report.ran} == {}
    for name in ("dataset", "decisions", "index", "report"):
        for path in (path for path in (build.out / name).rglob("*") if path.is_file()):
            assert str(folder).encode() not in path.read_bytes(), path
    for path in (path for name in PRODUCTS for path in (build.out / name).rglob("*.parquet")):
        table = pq.read_table(path)
        assert "mallory" not in str(table.to_pydict()).lower(), (
            f"{path} names a fork's parent, who asked to be left out"
        )


@pytest.mark.slow
def test_compat_walks_one_repository_of_each_root(export: MiniExport, tmp_path: Path) -> None:
    source, _ = known_world(tmp_path)
    build = run(
        recipe(export, of_source={**source, "compat": "the-stack-v2"}, partitions=1), tmp_path / "out", workers=1
    )
    told = table_rows(build, "00-ingest", "origins")
    # HEAD is an alias and does not count; only-head's branch is neither main nor master, and no-head has both. alias, new-name and
    # no-head's master are at one commit: the branch that is last by name goes first.
    assert {(row["repo_url"].removeprefix("https://github.com/"), row["branch_name"]) for row in told} == {
        ("alice/new-name", "refs/heads/main"),
        ("bob/no-head", "refs/heads/main"),
        ("bob/no-head", "refs/heads/master"),
    }
    left = {
        row["repo_name"]: row["rule"] for row in table_rows(build, "00-ingest", "decisions") if not row["revision_id"]
    }
    assert left == {"alice/alias": "same_revision", "erin/alias": "same_revision", "bob/only-head": "no_branch"}
