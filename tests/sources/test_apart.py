"""Footers are read in a process apart: what crashes or eats the reader is left out, and all else is read."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError
from stackbuild.sources.apart import FooterReader
from stackbuild.sources.parquet import SOURCE, ParquetOptions
from stackbuild.sources.unit import ResolveContext, Skipped, Unit

# What the interpreter of the child runs before anything else: Arrow as it behaves on a file that is damaged its own way.
BREAK_ARROW = """
    import os, signal, sys
    import pyarrow.parquet as pq
    import pyarrow as pa
    whole, schemas = pq.read_metadata, pa.memory_map

    def read(path, of):
        name = os.path.basename(str(path))
        with open(os.environ["ASKED"], "a") as asked:
            asked.write(f"{os.getpid()} {name}\\n")
        if name.startswith("segfault"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if name.startswith("flaky") and not os.path.exists(os.environ["ASKED"] + ".once"):
            open(os.environ["ASKED"] + ".once", "w").close()
            os.kill(os.getpid(), signal.SIGABRT)
        if name.startswith("eater"):
            bytearray(5 << 30)  # no page of it is touched
        if name.startswith("exit"):
            print("out of luck", file=sys.stderr)
            os._exit(3)
        print("a library that prints")
        return of(path)

    pq.read_metadata = lambda path: read(path, whole)
    pa.memory_map = lambda path: read(path, schemas)
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where children note (process, file) of each question; children meet a broken Arrow."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(textwrap.dedent(BREAK_ARROW))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    return tmp_path / "asked"


def written(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        table = pa.table({"content": [f"{number}\n"], "path": ["a"], "repo_name": ["o/r"]})
        if name.endswith(".parquet"):
            pq.write_table(table, folder / name)
        else:
            with pa.ipc.new_stream(str(folder / name), table.schema) as out:
                out.write_table(table)
    return folder


def units(folder: Path) -> tuple[list[Unit], list[Skipped]]:
    options = ParquetOptions.model_validate({"kind": "parquet", "paths": [str(folder)]})
    return SOURCE.units(options, ResolveContext(""))


@pytest.mark.parametrize("bomb", ["segfault.parquet", "segfault.arrow"])
def test_a_file_that_kills_its_reader_twice_is_skipped_and_what_is_behind_it_is_read(
    tmp_path: Path, asked: Path, bomb: str
) -> None:
    found, skipped = units(written(tmp_path / "in", "a.parquet", bomb, "t.arrow", "z.parquet"))
    assert [unit.key["name"] for unit in found] == ["a", "t", "z"]
    assert skipped == [Skipped(str(tmp_path / "in" / bomb), "killed by signal 11 while its footer was read")]
    processes = [line.split()[0] for line in asked.read_text().splitlines() if bomb in line]
    assert len(set(processes)) == 2, "only what a second process reproduces counts"


def test_what_a_second_process_can_read_is_read(tmp_path: Path, asked: Path) -> None:
    found, skipped = units(written(tmp_path / "in", "flaky.parquet"))
    assert [unit.key["name"] for unit in found] == ["flaky"] and not skipped


def test_a_footer_that_takes_gigabytes_is_skipped(tmp_path: Path, asked: Path) -> None:
    found, skipped = units(written(tmp_path / "in", "eater.arrow", "eater.parquet", "z.parquet"))
    assert [unit.key["name"] for unit in found] == ["z"]
    assert [skip.reason for skip in skipped] == ["its footer takes over 4 GiB of memory"] * 2


def test_a_reader_that_ends_by_itself_is_an_error_with_its_last_words(tmp_path: Path, asked: Path) -> None:
    with pytest.raises(InputError, match=r"exit\.parquet.* ended with 3: out of luck"):
        units(written(tmp_path / "in", "exit.parquet"))


def test_one_process_serves_a_source_and_ends_with_it(tmp_path: Path, asked: Path) -> None:
    units(written(tmp_path / "in", "a.parquet", "b.parquet", "c.arrow"))
    (process,) = {line.split()[0] for line in asked.read_text().splitlines()}
    assert int(process) != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(int(process), 0)


def test_no_process_is_started_for_lines_and_none_stays_after_an_error(tmp_path: Path, asked: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"content": "a", "repo_name": "o/r"}\n')
    assert len(units(tmp_path / "x.jsonl")[0]) == 1 and not asked.exists()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"torn\.parquet.*not a whole Parquet file"):
        units(tmp_path / "in")
    process = int(asked.read_text().split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_names_of_any_letters_reach_the_reader(tmp_path: Path) -> None:
    written(tmp_path / "in", 'caf\u00e9 \n\\".parquet')
    assert len(units(tmp_path / "in")[0]) == 1


def test_no_module_of_the_current_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe may lie beside files of strangers."""
    for name in ("json.py", "pyarrow.py", "stackbuild.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in", "a.parquet")
    assert len(units(tmp_path / "in")[0]) == 1 and not (tmp_path / "ran").exists()


def test_the_reader_is_asked_for_what_it_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "in", "a.parquet") / "a.parquet"
    columns = {"content": "content", "repo_name": "nope"}
    with FooterReader() as reader:
        with pytest.raises(InputError, match="no column 'nope'"):
            reader.parts(path, columns, frozenset(), 1)
        found = reader.parts(path, columns, frozenset({"repo_name"}), 1)
    assert not isinstance(found, Skipped)
    assert [part.key for part in found] == [{"first": 0, "row_groups": [0, 1]}]


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl"])
def test_a_named_pipe_is_skipped_and_never_waited_for(tmp_path: Path, name: str) -> None:
    subprocess.run(["mkfifo", str(written(tmp_path / "in", "a.parquet") / name)], check=True)
    found, skipped = units(tmp_path / "in")
    assert len(found) == 1 and [skip.reason for skip in skipped] == ["is no regular file"]
