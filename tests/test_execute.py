"""Running tasks: rows that raise are quarantined, defects and kills fail, and what is complete stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.worlds import install_stage, light, world

STAGE = """
import os, signal
import pyarrow as pa
from pydantic import Field
from stackbuild.stage import Options, Stage, Verdict

class Moody(Options):
    mood: str = Field("raise_on_one", description="what it does")

class Touchy(Stage[Moody]):
    name = "touchy"
    reads = ("path", "text")
    options_model = Moody

    def verdicts(self, files):
        mood = self.options.mood
        if mood == "raise_on_one" and "/contact.py" in files["path"].to_pylist():
            raise RuntimeError("I do not like contact.py")
        if mood == "raise_once":
            try:
                os.close(os.open(os.environ["FLAG"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                raise RuntimeError("not today")
        if mood == "raise_on_all":
            raise RuntimeError("I like nothing")
        if mood == "no_memory":
            raise MemoryError("too much")
        if mood == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        yield Verdict("mood", pa.array([True] * files.num_rows))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    package = install_stage(tmp_path_factory.mktemp("package"), "touchy", "Touchy", STAGE)
    return {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{Path(__file__).parent.parent}"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), repos=2, files=15)


def build(root: Path, out: Path, mood: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    stages = ["exact_dedup", "decode", "languages", "signals", "touchy"]
    body: dict[str, Any] = light(root, stages=stages, partitions=1, touchy={"mood": mood})
    script = (
        "import json, sys; from pathlib import Path; from stackbuild import build as b; from stackbuild.errors import StackbuildError\n"
        "try: b.run(b.Request(json.loads(sys.argv[1]), Path('/'), Path(sys.argv[2]), 1))\n"
        "except StackbuildError as error: print(error); sys.exit(error.exit_code)"
    )
    command = [sys.executable, "-c", script, json.dumps(body), str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def decisions(out: Path, stage: str) -> list[dict[str, Any]]:
    return [
        r
        for path in sorted((out / "decisions").glob("*.parquet"))
        for r in pq.read_table(path).to_pylist()
        if r["stage"] == stage
    ]


def test_a_row_that_raises_twice_is_quarantined_with_its_error(
    root: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = build(root, tmp_path / "out", "raise_on_one", environment)
    assert done.returncode == 0, done.stdout + done.stderr
    left = decisions(tmp_path / "out", "touchy")
    assert {row["path"] for row in left} == {"/contact.py"} and len(left) == 2
    assert all(row["outcome"] == "quarantined" and "I do not like contact.py" in row["detail"] for row in left)


def test_a_stage_that_raises_in_the_first_process_only_quarantines_nothing(
    root: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = build(root, tmp_path / "out", "raise_once", {**environment, "FLAG": str(tmp_path / "flag")})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "flag").exists() and decisions(tmp_path / "out", "touchy") == []
    tries = [
        (event["attempt"], event["status"])
        for line in (tmp_path / "out" / "launches" / "journal.jsonl").read_text().splitlines()
        if (event := json.loads(line))["event"] == "task" and event["job"].endswith("touchy")
    ]
    assert tries == [(1, 1), (2, 0)]


@pytest.mark.parametrize("mood", ["raise_on_all", "no_memory"])
def test_a_stage_that_raises_on_everything_is_a_defect_and_quarantines_nothing(
    root: Path, tmp_path: Path, environment: dict[str, str], mood: str
) -> None:
    done = build(root, tmp_path / "out", mood, environment)
    assert done.returncode == 5
    assert "touchy" in done.stdout and "log:" in done.stdout and "go on" in done.stdout
    assert not (tmp_path / "out" / "dataset").exists()


def test_a_task_that_is_killed_every_time_fails_by_name_and_the_build_resumes(
    root: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "out"
    done = build(root, out, "die", environment)
    assert done.returncode == 5 and "killed by signal 9" in done.stdout
    done = build(root, out, "content", environment)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in (out / "launches" / "journal.jsonl").read_text().splitlines()]
    last = events[max(i for i, e in enumerate(events) if e["event"] == "start") :]
    assert next(e for e in last if e["event"] == "job" and e["job"] == "00-ingest")["cached"] == 2


def test_no_space_left_ends_with_5_and_resumes_to_the_same_files(
    root: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        done = build(root, small / "out", "content", environment)
        assert done.returncode == 5, done.stdout + done.stderr
        assert "No space left" in done.stdout
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        done = build(root, small / "out", "content", environment)
        assert done.returncode == 0, done.stdout + done.stderr
        build(root, tmp_path / "other", "content", environment)
        ours = sorted((p.name, p.read_bytes()) for p in (small / "out" / "dataset").rglob("*.parquet"))
        assert ours == sorted((p.name, p.read_bytes()) for p in (tmp_path / "other" / "dataset").rglob("*.parquet"))
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
