"""Which of several exact copies stands for a content: by licence, and not by the alphabet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.decisions import Decisions
from stackbuild.dedup.exact import ExactDedup, ExactDedupOptions, license_rank, winners_first
from stackbuild.licenses.stage import Licenses, LicensesOptions
from stackbuild.schema import LICENSE_FIELDS, OCCURRENCES
from stackbuild.shards import Attempt
from stackbuild.task import Task

SCHEMA = pa.schema([*OCCURRENCES, *LICENSE_FIELDS])
CLASSES = ["permissive", "no_license", "unknown", "weak_copyleft", "non_permissive"]


def copy(repo: str, license_class: str | None, **known: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(SCHEMA.names), "owner_bucket": 0, "path_lossy": False, "mode": 0o100644, "extension": "", "length": 9,
        "blob_id": b"\0" * 20, "content_id": b"\1" * 20, "repo_name": repo, "revision_id": "r", "path": "/x",
        "path_bytes": b"x", "license_class": license_class, **known,
    }  # fmt: skip


def order(*rows: dict[str, Any]) -> list[str]:
    """The repositories of copies of one content, the best first."""
    table = pa.Table.from_pylist(list(rows), SCHEMA)
    return table.take(winners_first(table, ExactDedupOptions().winner))["repo_name"].to_pylist()


def test_the_ranks_of_the_classes() -> None:
    assert license_rank(pa.chunked_array([[*CLASSES, "nice", None]])).to_pylist() == [0, 1, 2, 3, 4, None, None]


@pytest.mark.parametrize("place", range(4))
def test_a_better_licence_wins_over_any_number_of_stars(place: int) -> None:
    better, worse = copy("z/z", CLASSES[place]), copy("a/a", CLASSES[place + 1], star_events_count=9_000)
    assert order(worse, better) == order(better, worse) == ["z/z", "a/a"]
    assert order(copy("a/a", None, star_events_count=9_000), copy("z/z", CLASSES[place + 1])) == ["z/z", "a/a"]


def test_licences_rank_by_class_and_not_by_the_alphabet() -> None:
    """The Stack v2 sorted by SPDX id where it chose among repositories, so that AGPL stood before MIT."""
    agpl = copy("a/a", "non_permissive", gha_license_id="AGPL-3.0", detected_licenses=["AGPL-3.0-only"])
    mit = copy("b/b", "permissive", gha_license_id="MIT", detected_licenses=["MIT"])
    assert order(agpl, mit) == ["b/b", "a/a"]


def test_a_copy_that_is_permissive_by_its_licence_file_does_not_lose_to_one_that_the_host_calls_gpl() -> None:
    """The Stack v2 chose before it knew what files say, by GitHub's id: on the list, not on it, none."""
    gpl = copy("a/a", "non_permissive", gha_license_id="GPL-3.0", star_events_count=5)
    by_file = copy("b/b", "permissive", gha_license_id=None)
    assert order(gpl, by_file) == ["b/b", "a/a"]


@pytest.mark.parametrize(("ranks", "best"), [(None, ["d", "a", "c", "b"]), ("github", ["a", "b", "d", "c"])])
def test_the_published_order_can_be_asked_for(ranks: str | None, best: list[str]) -> None:
    """GitHub's id on the list, then another, then none; what files say is not known yet."""
    stage = Licenses(LicensesOptions(policy="the-stack-v2", ranks=ranks))  # type: ignore[arg-type]
    rows = [copy("a", "permissive", gha_license_id="MIT"), copy("b", "non_permissive", gha_license_id="GPL-3.0"),
            copy("c", "no_license"), copy("d", "permissive", star_events_count=1)]  # fmt: skip
    for some in (rows, rows[::-1]):
        table = pa.Table.from_pylist(some, SCHEMA)
        found = table.take(winners_first(table, ExactDedupOptions().winner, stage.license_rank(table)))
        assert found["repo_name"].to_pylist() == best


@pytest.mark.parametrize(("ranks", "kept"), [(None, "b"), ("github", "a")])
def test_the_stage_keeps_the_copy_that_the_policy_ranks_first(tmp_path: Path, ranks: str | None, kept: str) -> None:
    rows = [copy("a", "non_permissive", gha_license_id="GPL-3.0"), copy("b", "permissive")]
    stage = ExactDedup()
    stage.placed("exact_dedup", (Licenses(LicensesOptions(policy="the-stack-v2", ranks=ranks)),), ())  # type: ignore[arg-type]
    tables: dict[str, list[Any]] = {}
    for phase in stage.phases():
        attempt = Attempt(tmp_path, f"00-{phase.name}", 0)
        decisions = Decisions(attempt, "exact_dedup", 1)
        table = pa.Table.from_pylist(rows, SCHEMA)
        phase.run(
            Task(
                out=tmp_path,
                job=f"00-{phase.name}",
                rank=0,
                params={},
                options=stage.options,
                seed=1,
                partitions=1,
                tables=tables,
                attempt=attempt,
                decisions=decisions,
                rows=lambda columns, table=table: iter(table.select(columns).to_batches()),
            )
        )
        decisions.close()
        tables[phase.name] = attempt.commit(f"{phase.name:0<26}", decisions.ledger, {}).outputs
    files = [one for one in tables["files"] if one.table == "files"]
    (winner,) = pa.concat_tables(pq.read_table(tmp_path / one.file) for one in files).to_pylist()
    assert (winner["repo_name"], winner["copies"]) == (kept, 2)


def test_forks_with_one_head_commit_are_ranked_and_not_taken_for_one() -> None:
    """The Stack v2 kept one repository of those that share a head before it knew stars or licence, any one."""
    fork, original = copy("a/fork", "permissive"), copy("z/original", "permissive", star_events_count=5)
    assert fork["revision_id"] == original["revision_id"] and order(fork, original) == ["z/original", "a/fork"]


def test_alike_licences_go_by_stars_then_forks() -> None:
    rows = [copy("a/a", "permissive"), copy("b/b", "permissive", star_events_count=1, fork_events_count=3)]
    assert order(*rows, copy("c/c", "permissive", star_events_count=2)) == ["c/c", "b/b", "a/a"]
