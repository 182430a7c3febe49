"""`diff`: each file is counted once, on the side that it is on, with the rule by which it left the other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild import memory
from stackbuild.difference import KEY, difference
from stackbuild.errors import InputError
from tests.test_build import run
from tests.worlds import light, world

STAGES = ["exact_dedup", "decode", "languages", "signals"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), repos=2, files=2)


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("it's") / "out[1] *"  # a quote and a pattern in its name
    run(light(root, stages=STAGES, partitions=2), out)
    return out


@pytest.fixture(scope="module")
def smaller(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smaller") / "out"
    run(light(root, stages=STAGES, partitions=2, decode={"max_bytes": 900}), out)
    return out


@pytest.fixture(scope="module")
def nothing(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nothing") / "out"
    run(light(root, stages=STAGES, partitions=2, decode={"max_bytes": 1}), out)
    assert not list((out / "dataset").rglob("*.parquet"))
    return out


def identities(out: Path) -> set[tuple[str, ...]]:
    """Oracle: the files of a dataset, read one by one."""
    rows = [row for path in (out / "dataset").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return {tuple(row[name] for name in KEY) for row in rows}


def diff(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stackbuild", "diff", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_counts_are_those_of_the_two_sets(whole: Path, smaller: Path) -> None:
    first, second = identities(whole), identities(smaller)
    found = difference(whole, smaller)
    assert (found["both"], len(found["lost"]), len(found["gained"])) == (
        len(first & second),
        len(first - second),
        len(second - first),
    )
    assert found["lost"] and {(row["stage"], row["rule"]) for row in found["lost"]} == {("decode", "size")}
    back = difference(smaller, whole)
    assert [row["path"] for row in back["gained"]] == [row["path"] for row in found["lost"]]


def test_a_build_from_which_everything_left_is_compared_like_any_other(whole: Path, nothing: Path) -> None:
    count = len(identities(whole))
    found = difference(whole, nothing)
    assert (found["both"], len(found["lost"]), len(found["gained"])) == (0, count, 0)
    assert {row["stage"] for row in found["lost"]} == {"decode"}
    assert len(difference(nothing, whole)["gained"]) == count
    assert difference(nothing, nothing) == {"lost": [], "gained": [], "both": 0}
    done = diff(whole, nothing)
    assert done.returncode == 0 and f"{count:,} files lost" in done.stdout and "0 files are in both" in done.stdout


def test_without_decisions_the_files_are_counted_and_no_rule_is_made_up(
    whole: Path, nothing: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(nothing, tmp_path / "copy"))
    for path in (copy / "decisions").rglob("*.parquet"):
        path.unlink()
    found = difference(whole, copy)
    assert len(found["lost"]) == len(identities(whole)) and {row["stage"] for row in found["lost"]} == {None}
    done = diff(whole, copy)
    assert done.returncode == 0 and "tells no decision" in done.stdout
    shutil.rmtree(copy / "decisions")
    assert difference(whole, copy) == found
    assert json.loads(diff(copy, whole, "--json").stdout)["both"] == 0


@pytest.mark.parametrize("place", ["dataset", "decisions"])
@pytest.mark.parametrize("data", [b"", b"PAR1xx", b"PAR1" + b"\0" * 99 + b"PAR1"])
def test_a_torn_table_is_an_input_error_that_names_it(whole: Path, tmp_path: Path, place: str, data: bytes) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    victim = sorted((copy / place).rglob("*.parquet"))[0]
    victim.unlink()  # the files are links: another name must not change
    victim.write_bytes(data)
    with pytest.raises(InputError) as caught:
        difference(copy, whole)
    assert str(victim) in str(caught.value)


def test_a_table_whose_pages_are_damaged_is_an_input_error(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    victim = max((copy / "dataset").rglob("*.parquet"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little")
    data[4 : len(data) - 8 - footer] = b"\xa5" * (len(data) - 12 - footer)
    victim.unlink()
    victim.write_bytes(data)
    with pytest.raises(InputError, match="cannot be compared"):
        difference(whole, copy)


def test_a_table_of_something_else_is_an_input_error(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    victim = sorted((copy / "dataset").rglob("*.parquet"))[0]
    table = pq.read_table(victim).drop_columns(["repo_name"])
    victim.unlink()
    pq.write_table(table, victim)
    with pytest.raises(InputError, match="repo_name"):
        difference(whole, copy)


def test_a_folder_that_is_no_build_or_has_no_dataset_yet_is_exit_4(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        for pair in ((place, whole), (whole, place)):
            done = diff(*pair)
            assert done.returncode == 4 and "not the output folder" in done.stderr and str(place) in done.stderr
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    shutil.rmtree(copy / "dataset")
    with pytest.raises(InputError, match="no dataset yet"):
        difference(whole, copy)


def test_what_does_not_fit_into_memory_is_spilled_into_a_folder_of_its_own_which_goes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither into the folder where the user stands nor beside the builds, and with the same result."""
    count, half = 300_000, 150_000
    for name, start in (("a", 0), ("b", half)):
        shutil.copytree(whole, tmp_path / name)
        shutil.rmtree(tmp_path / name / "dataset" / "data")
        folder = tmp_path / name / "dataset" / "data" / "Python"
        folder.mkdir(parents=True)
        numbers = [f"{number:040}" for number in range(start, start + count)]
        columns = {"repo_name": numbers, "revision_id": numbers, "path": numbers, "content_id": numbers}
        pq.write_table(pa.table({**columns, "language": ["Python"] * count}), folder / "a.parquet")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(memory, "limit", lambda: 2 * 80 * 2**20)
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            seen.update(path.name for path in (tmp_path / "tmp").glob("stackbuild-diff-*/*"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        found = difference(tmp_path / "a", tmp_path / "b")
    finally:
        done.set()
        thread.join()
    assert (found["both"], len(found["lost"]), len(found["gained"])) == (half, half, half)
    assert seen, "nothing was spilled: the test proves nothing"
    assert not list((tmp_path / "tmp").iterdir()) and not list((tmp_path / "here").iterdir())
