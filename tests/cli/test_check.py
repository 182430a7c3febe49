"""`stackbuild check` as it is typed: any bytes may be asked for, and exit codes say what a script must know."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_build import run
from tests.worlds import light, world


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = world(tmp_path_factory.mktemp("world"), repos=2, files=2)
    listed = tmp_path_factory.mktemp("list") / "opt-out.txt"
    listed.write_text("local/repo1\n")
    folder = tmp_path_factory.mktemp("built") / "out"
    stages = ["opt_out", "exact_dedup", "decode", "languages", "signals"]
    run(light(root, stages=stages, opt_out={"list": str(listed)}, partitions=2), folder)
    return folder


def check(
    out: Path, *queries: str | bytes | Path, stdin: bytes = b"", at: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "stackbuild", "check", out, *queries]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, cwd=at)


def test_a_list_may_hold_any_bytes(out: Path) -> None:
    lines = [
        b"caf\xe9/x",
        b"~\0",
        b"./\0",
        b"\x1b[2J",
        b"swh:1:ori:",
        b"SWH:1:CNT:" + b"A" * 40,
        b"x" * 100_000,
        "\u2028".encode(),
    ]
    done = check(out, "-", "--json", "--why", stdin=b"\n".join(lines) + b"\r\n\nlocal/repo0\n")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["found"] for answer in answers] == [False] * (len(answers) - 1) + [True]
    assert done.stdout.isascii() and "no SWHID" in answers[4]["note"]
    for line in (lines[0], lines[3]):
        done = check(out, line, "--why")
        assert done.returncode == 1 and b"\x1b" not in done.stdout and b"not found" in done.stdout


def test_a_repository_stands_before_a_folder_of_its_name_and_says_so(out: Path, tmp_path: Path) -> None:
    (tmp_path / "local" / "repo0").mkdir(parents=True)
    (tmp_path / "local" / "repo0" / "new.py").write_text("never read\n")
    (tmp_path / "requests").mkdir()
    done = check(out, "local/repo0", at=tmp_path)
    assert done.returncode == 0 and b"ask for ./local/repo0" in done.stdout
    done = check(out, "./local/repo0", at=tmp_path)
    assert done.returncode == 1 and b"new.py: not found" in done.stdout
    done = check(out, "requests/none", at=tmp_path)
    assert done.returncode == 1 and b"requests/none: not found" in done.stdout


def test_private_decisions_are_marked_and_shown_to_the_keeper_only(out: Path, tmp_path: Path) -> None:
    done = check(out, "local/repo1", "--why")
    assert done.returncode == 1 and b"(private) local/repo1" in done.stdout and b"was read" in done.stdout
    released = Path(shutil.copytree(out, tmp_path / "copy", ignore=shutil.ignore_patterns("private", "stages")))
    for queries in (("local/repo1",), ("local", "--why")):
        done = check(released, *queries)
        assert b"private" not in done.stdout and b"opt_out" not in done.stdout
    os.unlink(released / "build.json")  # what was published, and no more
    assert check(released, "local/repo0").returncode == 0


def test_a_folder_that_cannot_be_asked_is_exit_4_not_1(out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    (copy / "build.json").write_text("{")
    for place in (copy, tmp_path, tmp_path / "nothing"):
        done = check(place, "local/repo0")
        assert done.returncode == 4 and str(place).encode() in done.stderr
