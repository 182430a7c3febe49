"""What a user types after a build, and what they see: answers first, exit codes that scripts can trust."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild import build as building
from stackbuild.cli.build import next_steps
from stackbuild.errors import StackbuildError
from stackbuild.journal import only_one
from stackbuild.monitor.failures import after_failures
from stackbuild.status import opened, status_of
from tests.worlds import light, world


def stackbuild(*arguments: str | Path, stdin: str = "", code: int = 0) -> str:
    """Run the command; return stdout, or stderr if it is to fail."""
    done = subprocess.run(
        [sys.executable, "-m", "stackbuild", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stderr if code > 1 else done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), repos=3, files=3)


@pytest.fixture(scope="module")
def out(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "out"
    building.run(building.Request(light(root), Path("/"), folder, 2))
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


# ---------------------------------------------------------------- check


@pytest.mark.parametrize("query", ["local/repo0", "LOCAL/Repo0", "local"])
def test_a_repository_is_found_without_regard_to_case(out: Path, query: str) -> None:
    assert "in the dataset" in stackbuild("check", out, query)


def test_nothing_found_is_exit_code_1_and_says_what_that_means(out: Path) -> None:
    text = stackbuild("check", out, "nobody/nothing", code=1)
    assert "not found" in text and "another content id" in text


def test_why_names_stage_rule_value_and_limit_for_files_dropped_at_each_stage(out: Path) -> None:
    answer = json.loads(stackbuild("check", out, "local", "--why", "--json"))
    told = {(d["stage"], d["rule"]) for d in answer["decisions"]}
    assert {stage for stage, _ in told} >= {"exact_dedup", "decode", "filters", "near_dedup"}
    expected = {(row["stage"], row["rule"]) for row in rows(out / "decisions")}
    assert told == expected
    near = next(d for d in answer["decisions"] if d["stage"] == "near_dedup")
    assert near["value"] >= near["threshold"] and near["kept_content_id"]


def test_a_file_and_its_swhid_get_the_same_answer(out: Path, root: Path) -> None:
    path = root / "repo0" / "src" / "module0.py"
    by_file = json.loads(stackbuild("check", out, path, "--json"))
    swhid = f"swh:1:cnt:{by_file['files'][0]['content_id']}"
    by_id = json.loads(stackbuild("check", out, swhid, "--json"))
    assert by_file["found"] and by_id["found"] and by_file["files"] == by_id["files"]
    root_id = rows(out / "dataset")[0]["directory_id"]
    assert "in the dataset" in stackbuild("check", out, f"swh:1:dir:{root_id}")


def test_a_folder_and_a_list_are_answered_one_by_one(out: Path, root: Path) -> None:
    folder = stackbuild("check", out, root / "repo1", "--json").splitlines()
    assert len(folder) == sum(len(names) for _, _, names in os.walk(root / "repo1"))
    listed = stackbuild("check", out, "-", "--json", stdin="local/repo0\n\nnobody/x\n").splitlines()
    assert [json.loads(line)["found"] for line in listed] == [True, False]


def test_names_of_strangers_cannot_draw_on_the_terminal(out: Path) -> None:
    text = stackbuild("check", out, "local/repo0", "--why") + stackbuild("check", out, "local/repo1", "--why")
    assert "\u202e" not in text


def test_another_folder_is_an_input_error(tmp_path: Path) -> None:
    assert "no index" in stackbuild("check", tmp_path, "x/y", code=4)
    for command in ("status", "verify", "gc", "clean", "report", "logs"):
        assert "not the output folder" in stackbuild(command, tmp_path, code=4)


# ---------------------------------------------------------------- looking after a build


def test_status_tells_jobs_and_what_to_do_next(out: Path) -> None:
    text = stackbuild("status", out)
    assert "done" in text and "next: stackbuild report" in text
    status = json.loads(stackbuild("status", out, "--json"))
    assert status["state"] == "done" and not status["failures"]
    assert all(job["ran"] == job["tasks"] for job in status["jobs"])


def test_what_to_type_next_can_be_pasted_into_a_shell_whatever_the_folder_is_called(out: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(out, tmp_path / "it's mine; $HOME `x`")
    result = building.Result(opened(folder), [], [])
    lines = [line.strip() for line in next_steps(folder, result)]
    steps = [shlex.split(line) for line in lines[lines.index("next:") + 1 :]]
    assert [step[0] for step in steps] == ["stackbuild"] * 4 + ["python"]
    assert all(str(folder) in step for step in steps[:4])
    compile(steps[4][2], "line", "exec")
    assert json.dumps(f"{folder}/dataset") in steps[4][2]
    for found in (status_of(folder).next, after_failures([{"cause": "killed"}], folder)):
        assert str(folder) in shlex.split(found[0])
    with only_one(folder), pytest.raises(StackbuildError) as raised, only_one(folder):
        raise AssertionError
    assert f"`{shlex.join(['stackbuild', 'status', str(folder)])}`" in str(raised.value)


def test_verify_names_a_changed_file_with_both_hashes(out: Path, tmp_path: Path) -> None:
    assert "the ledger adds up" in stackbuild("verify", out)
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    victim = max((copy / "stages").rglob("dataset-*.parquet"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    message = stackbuild("verify", copy, code=4)
    assert victim.name in message and "expected" in message


def test_gc_removes_orphans_and_nothing_that_is_needed(out: Path, root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    building.run(building.Request(light(root, near_dedup={"threshold": 0.95}), Path("/"), copy, 2))
    orphan = copy / "stages" / "00-ingest" / "data" / "00000-killed"
    orphan.mkdir()
    (orphan / "half.parquet").write_bytes(b"PAR1")
    listed = stackbuild("gc", copy, "--dry-run")
    assert "00000-killed" in listed and orphan.exists()
    stackbuild("gc", copy)
    assert not orphan.exists()
    assert stackbuild("gc", copy).startswith("0 orphans")
    stackbuild("verify", copy)
    result = building.run(building.Request(light(root, near_dedup={"threshold": 0.95}), Path("/"), copy, 2))
    assert sum(report.ran for report in result.reports) == 0


def test_after_clean_the_products_still_answer(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    stackbuild("clean", copy)
    assert not (copy / "stages").exists()
    assert "in the dataset" in stackbuild("check", copy, "local/repo0")
    assert "0 files lost" in stackbuild("diff", out, copy)


def test_diff_tells_by_which_rule_files_were_lost(out: Path, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    building.run(building.Request(light(root, decode={"max_bytes": 900}), Path("/"), other, 2))
    found = json.loads(stackbuild("diff", out, other, "--json"))
    lost = {(row["stage"], row["rule"]) for row in found["lost"]}
    assert lost == {("decode", "size")}
    before, after = len(rows(out / "dataset")), len(rows(other / "dataset"))
    assert before - len(found["lost"]) + len(found["gained"]) == after
    assert found["both"] == before - len(found["lost"])


def test_the_report_is_written_again_and_reconciles(out: Path) -> None:
    figures = json.loads(stackbuild("report", out, "--json"))
    assert figures["files"] == len(rows(out / "dataset")) == figures["funnel"][-1]["rows_out"]
    page = (out / "report" / "index.html").read_text()
    assert "<script" not in page and "near_dedup" in page


# ---------------------------------------------------------------- manifest


def test_the_manifest_holds_on_all_levels_and_a_lie_is_found_at_its_level(out: Path, tmp_path: Path) -> None:
    text = stackbuild("manifest", "verify", out)
    assert text.count(" 0 wrong") == 5 and " 0 ok" not in text and "unchecked" not in text
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    [path, *_] = sorted((copy / "manifest").rglob("*.parquet"))
    table = pq.read_table(path)
    lengths = table["length"].to_pylist()
    lengths[0] += 1
    changed = table.set_column(table.schema.get_field_index("length"), "length", pa.array(lengths, pa.int64()))
    pq.write_table(changed, path)
    assert "does not hash" in stackbuild("manifest", "verify", copy, code=4)
    header = json.loads((copy / "manifest" / "header.json").read_text())
    import hashlib

    entry = next(e for e in header["files"] if str(path).endswith(e["manifest"]))
    entry["manifest_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (copy / "manifest" / "header.json").write_text(json.dumps(header))
    stackbuild("manifest", "verify", copy, "--level", "0")
    assert "its bytes have SHA-1" in stackbuild("manifest", "verify", copy, "--level", "1", code=4)


# ---------------------------------------------------------------- before a build


def test_init_writes_a_recipe_that_is_valid_and_leaves_one_that_is_there(tmp_path: Path) -> None:
    stackbuild("init", tmp_path / "new")
    stackbuild("plan", tmp_path / "new" / "recipe.toml", "--resolved")
    assert "left alone" in stackbuild("init", tmp_path / "new", code=2)


def test_findings_of_a_build_are_shown_as_the_stage_saw_them(out: Path, tmp_path: Path) -> None:
    page = tmp_path / "review.html"
    told = stackbuild("pii", "review", out, "--output", page)
    text, released = page.read_text(), sum(row["redactions"] for row in rows(out / "dataset"))
    assert f"of {released:,} findings" in told and released > 0
    assert text.count("<article") == released and "@company" in text and "replaced by &lt;EMAIL&gt;" in text
    told = stackbuild("pii", "review", out, "--output", page, "--mode", "pseudonym", code=2)
    assert "by its recipe" in told
    told = stackbuild("pii", "review", out, "--output", out / "dataset/review.html", code=2)
    assert "the page is private" in told and not (out / "dataset/review.html").exists()


def test_a_misspelt_key_is_exit_code_3_and_names_the_nearest(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "x"\nextends = "default.toml"\n[near_dedup]\ntreshold = 0.5\n[licence_filter]\n')
    message = stackbuild("build", recipe, "--output", tmp_path / "o", code=3)
    assert "threshold" in message and "license_filter" in message


def test_workers_are_told_to_count_for_nothing_on_slurm(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm here
    recipe = Path(stackbuild("init", tmp_path / "r").splitlines()[0])
    told = stackbuild("build", recipe, "--output", tmp_path / "o", "--executor", "slurm", "--workers", "3", code=2)
    assert "--workers counts for nothing on Slurm; [slurm] cpus" in told
    told = stackbuild("build", recipe, "--output", tmp_path / "o", "--executor", "slurm", code=2)
    assert "--workers" not in told


def test_plan_shows_jobs_and_where_values_come_from(root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "x"\nextends = "default.toml"\n[[source]]\nkind = "directory"\npaths = ["{root}/repo0"]\n'
    )
    jobs = json.loads(stackbuild("plan", recipe, "--json", "--output", tmp_path / "o"))["jobs"]
    assert jobs[0] == {"job": "00-ingest", "tasks": 1, "complete": 0}
    resolved = stackbuild("plan", recipe, "--resolved", "--set", "near_dedup.threshold=0.8")
    line = next(line for line in resolved.splitlines() if line.startswith("near_dedup.threshold"))
    assert "0.8" in line and "--set" in line
    assert not (tmp_path / "o" / "plans").exists()


def test_interrupting_a_build_is_130_and_the_next_run_goes_on(root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    paths = json.dumps([str(path) for path in sorted(root.iterdir())])
    recipe.write_text(
        f'name = "x"\nextends = "default.toml"\nstages = ["exact_dedup", "decode", "languages", "signals", "filters"]\n'
        f'partitions = 4\noutputs = ["index"]\n[exact_dedup]\nwinner = ["-revision_date"]\n'
        f'[[source]]\nkind = "directory"\npaths = {paths}\n'
    )
    command = [sys.executable, "-m", "stackbuild", "build", str(recipe), "--output", str(tmp_path / "o")]
    # A shell starts what it puts into the background with the signal ignored; so may be who runs the tests.
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "o" / "stages").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on" in message
    stackbuild("build", recipe, "--output", tmp_path / "o")
    assert "in the dataset" in stackbuild("check", tmp_path / "o", "local/repo0")


def test_a_full_disk_is_no_error_of_ours(tmp_path: Path) -> None:
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); from stackbuild.cli import main; main()"
    words = [sys.executable, "-c", program, "init", str(tmp_path / "new")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "File too large. Make room and run the same command again" in done.stderr, done.stderr
    assert "itself" not in done.stderr
