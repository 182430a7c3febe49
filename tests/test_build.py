"""The main job from end to end: the ledger, the same bytes, resuming, re-use, and what goes wrong."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild import build as building
from stackbuild.errors import InputError, RecipeError
from stackbuild.ledger import check_ledger
from tests.worlds import LIGHT, light, recipe, world

PUBLISHED = ("dataset", "repos", "decisions", "private", "clusters", "manifest", "index", "tokens", "report")


def run(body: dict[str, Any], out: Path, workers: int = 2) -> building.Result:
    return building.run(building.Request(body, Path("/"), out, workers))


def released(out: Path) -> dict[str, str]:
    """SHA-256 of every published file."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in PUBLISHED
        for path in sorted((out / name).rglob("*"))
        if path.is_file()
    }


def ran(result: building.Result) -> dict[str, int]:
    return {report.job: report.ran for report in result.reports if report.ran}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> building.Result:
    return run(recipe(root), tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def lightly(root: Path, tmp_path_factory: pytest.TempPathFactory) -> building.Result:
    return run(light(root), tmp_path_factory.mktemp("lightly"))


def test_the_ledger_adds_up_and_each_file_that_left_is_a_decision(built: building.Result) -> None:
    out = built.build.out
    ledgers = dict(check_ledger(built.build))
    left = sum(ledger.merged + ledger.dropped + ledger.quarantined for ledger in ledgers.values())
    decisions = [
        row
        for name in ("decisions", "private")
        for path in (out / name).glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    ]
    assert len(decisions) == left > 0
    files = sum(pq.read_metadata(path).num_rows for path in (out / "dataset").rglob("*.parquet"))
    assert ledgers["ingest"].rows_in == files + left
    assert {row["stage"] for row in decisions} >= {"exact_dedup", "license_filter", "decode", "filters", "near_dedup"}
    for row in decisions:
        assert row["repo_name"] and row["rule"] and row["path_bytes"]


def test_a_second_run_does_no_stage_work(built: building.Result, root: Path) -> None:
    before = released(built.build.out)
    assert ran(run(recipe(root), built.build.out)) == {}
    assert released(built.build.out) == before


def test_the_same_bytes_with_one_worker_and_in_another_folder(
    built: building.Result, root: Path, tmp_path: Path
) -> None:
    run(recipe(root), tmp_path / "deeper" / "out", workers=1)
    assert released(tmp_path / "deeper" / "out") == released(built.build.out)


def test_nothing_released_knows_this_machine(built: building.Result, root: Path) -> None:
    out = built.build.out
    for name in PUBLISHED:
        for path in (out / name).rglob("*"):
            if path.is_file():
                data = path.read_bytes() if path.suffix != ".parquet" else str(pq.read_table(path).to_pydict()).encode()
                assert str(root).encode() not in data, path
                assert str(out).encode() not in data, path


@pytest.mark.long
@pytest.mark.slow
def test_after_kill_minus_nine_at_random_moments_the_bytes_are_the_same(
    built: building.Result, root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script = (
        "import json, sys; from pathlib import Path; from stackbuild import build as b\n"
        "if __name__ == '__main__': b.run(b.Request(json.loads(sys.argv[1]), Path('/'), Path(sys.argv[2]), 2))"
    )
    draw = random.Random(3)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(recipe(root)), str(out)], start_new_session=True
        )
        time.sleep(draw.uniform(0.8, 4.0))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    result = run(recipe(root), out)
    check_ledger(result.build)
    assert released(out) == released(built.build.out)


def test_a_killed_task_is_seen_and_tried_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stackbuild import pool

    killed: list[int] = []
    wait = pool.TaskServer.wait

    def wait_and_kill(self: pool.TaskServer, seconds: float | None) -> list[dict[str, Any]]:
        if not killed:
            deadline = time.monotonic() + 20
            while not killed and time.monotonic() < deadline:
                children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
                if children:
                    killed.append(int(children[0]))
                    os.kill(killed[0], signal.SIGKILL)
        return wait(self, seconds)

    monkeypatch.setattr(pool.TaskServer, "wait", wait_and_kill)
    result = run(light(root), tmp_path / "out")
    assert killed
    assert result.reports[0].ran == result.reports[0].tasks


def test_a_changed_threshold_runs_again_only_from_there(lightly: building.Result, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(lightly.build.out, out)
    changed = ran(run(light(root, near_dedup={"threshold": 0.9}), out))
    assert changed
    assert min(name for name in changed).startswith(f"{LIGHT.index('near_dedup') + 1:02d}-near_dedup"), changed


def test_one_new_repository_does_not_read_the_others_again(
    lightly: building.Result, root: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    shutil.copytree(root, more)
    out = tmp_path / "out"
    run(light(more), out)
    new = more / "aa_new"  # before the others: their numbers change, they do not
    new.mkdir()
    (new / "a.py").write_text("def fresh(x):\n    return x + 41\n" * 3)
    changed = ran(run(light(more), out))
    assert changed["00-ingest"] == 1


def test_leftovers_of_another_recipe_are_never_read(lightly: building.Result, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(light(root, decode={"max_bytes": 500}), out)
    run(light(root), out)
    assert released(out) == released(lightly.build.out)


def test_a_stage_that_reads_what_nobody_adds_is_refused_before_the_first_row(root: Path, tmp_path: Path) -> None:
    stages = [name for name in LIGHT if name != "languages"]
    with pytest.raises(RecipeError, match="reads the column 'language'") as caught:
        run(light(root, stages=stages), tmp_path / "out")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out" / "stages").exists()


def test_two_origins_of_one_name_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "b" / "repo0").mkdir(parents=True)
    (tmp_path / "b" / "repo0" / "x.py").write_text("x = 1\n")
    body = light(root)
    body["source"][0]["paths"].append(str(tmp_path / "b" / "repo0"))
    with pytest.raises(RecipeError, match="Two origins have the name local/repo0"):
        run(body, tmp_path / "out")


def test_a_corrupt_shard_is_named_with_its_hash(lightly: building.Result, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(lightly.build.out, out)
    [victim, *_] = sorted(
        (out / "stages" / "00-contents" / "data").rglob("contents-*.parquet"), key=lambda p: -p.stat().st_size
    )
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.write_bytes(data)
    with pytest.raises(InputError, match="hash to SHA-256") as caught:
        run(light(root, near_dedup={"threshold": 0.8}), out)
    assert caught.value.exit_code == 4
    assert victim.name in str(caught.value)


def test_a_missing_folder_is_skipped_by_name_and_the_run_goes_on(root: Path, tmp_path: Path) -> None:
    body = light(root)
    body["source"][0]["paths"] = [body["source"][0]["paths"][0], str(tmp_path / "not-there")]
    result = run(body, tmp_path / "out")
    assert any("not-there" in one.what for one in result.not_read)


def test_nothing_to_read_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    with pytest.raises(InputError):
        run(
            light(tmp_path / "w", source=[{"kind": "directory", "paths": [str(tmp_path / "nowhere")]}]),
            tmp_path / "out",
        )


def test_opt_out_removes_a_repository_and_its_decisions_stay_private(root: Path, tmp_path: Path) -> None:
    listed = tmp_path / "opt-out.txt"
    listed.write_text("local/repo1\n")
    out = tmp_path / "out"
    run(light(root, opt_out={"list": str(listed)}), out)
    names = {
        name
        for path in (out / "dataset").rglob("*.parquet")
        for name in pq.read_table(path, columns=["repo_name"])["repo_name"].to_pylist()
    }
    assert "local/repo1" not in names
    shown = {
        row for path in (out / "decisions").glob("*.parquet") for row in pq.read_table(path)["repo_name"].to_pylist()
    }
    assert "local/repo1" not in shown
    private = [row for path in (out / "private").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["repo_name"] for row in private} == {"local/repo1"}


def test_a_datatrove_block_stands_in_a_recipe(root: Path, tmp_path: Path) -> None:
    stages = [*LIGHT[:-1], "datatrove:C4ParagraphFilter"]
    out = tmp_path / "out"
    result = run(light(root, stages=stages), out)
    ledger = dict(check_ledger(result.build))["datatrove:C4ParagraphFilter"]
    assert ledger.dropped == ledger.rows_in > 0
    rules = {
        row["rule"]
        for path in (out / "decisions").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
        if row["stage"].startswith("datatrove")
    }
    assert rules == {"C4ParagraphFilter:< 3 paragraphs"}


def test_an_opted_out_repository_is_not_named_by_any_stage(tmp_path: Path) -> None:
    big = tmp_path / "w" / "big"
    big.mkdir(parents=True)
    (big / "large.py").write_text("x = 1\n" * 2_000)
    (big / "small.py").write_text("def f(x):\n    return x\n" * 3)
    listed = tmp_path / "opt-out.txt"
    listed.write_text("local/big\n")
    world(tmp_path / "w", repos=1, files=2)
    out = tmp_path / "out"
    run(light(tmp_path / "w", opt_out={"list": str(listed)}, limits={"file_bytes": 9_000}), out)
    for name in ("dataset", "decisions", "index", "clusters", "manifest"):
        for path in (out / name).rglob("*.parquet"):
            assert b"local/big" not in str(pq.read_table(path).to_pydict()).encode(), path
    private = [row for path in (out / "private").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {(row["stage"], row["rule"]) for row in private} == {("ingest", "too_large"), ("opt_out", "opt_out:repo")}


def test_a_path_that_comes_twice_is_one_file(tmp_path: Path) -> None:
    rows = {
        "text": ["def a():\n    return 1\n" * 3, "def b():\n    return 2\n" * 3],
        "path": ["x.py", "x.py"],
        "repo": ["o/r", "o/r"],
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    source = {"kind": "parquet", "paths": [str(tmp_path / "rows.parquet")]}
    source["columns"] = {"content": "text", "path": "path", "repo_name": "repo"}
    out = tmp_path / "out"
    result = run(light(tmp_path, source=[source]), out)
    assert dict(check_ledger(result.build))["occurrences"].rules == {
        "duplicate_path": {"rows": 1, "bytes": len(rows["text"][0])}
    }
    assert sum(pq.read_metadata(path).num_rows for path in (out / "dataset").rglob("*.parquet")) == 1


def test_a_build_from_which_everything_leaves_ends_well(tmp_path: Path) -> None:
    world(tmp_path / "w", repos=1, files=2)
    out = tmp_path / "out"
    body = light(tmp_path / "w", decode={"max_bytes": 1}, outputs=["dataset", "repos", "index", "tokens"])
    result = run(body, out)
    assert check_ledger(result.build)[-1][1].rows_out == 0
    assert (out / "dataset" / "README.md").exists() and (out / "report" / "index.html").exists()
