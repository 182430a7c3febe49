"""The folder of a launch and the journal: what is read after a crash, of several writers, and as it grows."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.beats import Beat
from stackbuild.errors import InputError, StackbuildError, UsageError
from stackbuild.journal import Journal, began, driver_journal, holder, log_folder, only_one
from stackbuild.launches import (
    Frozen,
    LaunchFolder,
    Submitted,
    Wave,
    last_launch,
    new_id,
    read_events,
    refuse_if_superseded,
)
from stackbuild.shards import canonical_json
from stackbuild.status import running


@pytest.fixture
def folder(out: Path) -> LaunchFolder:
    made = LaunchFolder(out, "20260101-000000-abcd")
    made.freeze(Frozen(made.id, "p", "plans/p.json", "c", {}, ["00-ingest"]))
    return made


# ---------------------------------------------------------------- the journal


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 200), more=st.integers(1, 3))
def test_an_event_that_a_crash_cut_short_takes_no_other_with_it(
    tmp_path_factory: pytest.TempPathFactory, cut: int, more: int
) -> None:
    path = tmp_path_factory.mktemp("j") / "journal.jsonl"
    journal = Journal(path)
    journal.write(event="start", launch="first")
    journal.write(event="job", job="\u00e9" * 20)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(1, len(whole) - cut)])  # what a full disk or a power cut leaves
    left = len(list(read_events(path)))
    for number in range(more):
        Journal(path).write(event="start", launch=f"after {number}")
    events = list(read_events(path))
    assert [event.get("launch") for event in events[-more:]] == [f"after {number}" for number in range(more)]
    assert len(events) in (left + more, left + more + 1)  # one that lacked nothing but its line's end is whole again


def test_lines_that_are_no_events_are_passed_over(out: Path) -> None:
    path = out / "journal.jsonl"
    path.write_bytes(
        b'\xff\xfe\n{"time": 1, "event": "a"}\n[1]\n{"event": "no time"}\n{"time": "1"}\nnull\n\n'
        + b"[" * 100_000 + b'\n{"time": 2.5, "event": "b"}\n{"time": 3, "ev'
    )  # fmt: skip
    assert [event["event"] for event in read_events(path)] == ["a", "b"]
    assert list(read_events(out / "nowhere.jsonl")) == []


def test_an_event_is_on_disk_when_it_is_written_with_flush(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd))
    folder = LaunchFolder(out, "x")
    folder.note(Submitted("17", "array", 0, 1))
    assert synced == [str(out / "launches" / "x" / "jobs.jsonl")]
    assert [one.slurm for one in LaunchFolder(out, "x").submitted()] == ["17"]


def test_a_folder_has_one_driver(out: Path) -> None:
    with only_one(out), pytest.raises(StackbuildError, match="Another"), only_one(out):
        raise AssertionError
    with only_one(out):
        pass


def test_a_look_at_the_folder_keeps_no_build_from_beginning(out: Path) -> None:
    """`status` asks by a lock of its own whether anybody has one."""
    with only_one(out):
        pass
    with open(out / ".lock", "rb") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        timer = threading.Timer(0.1, fcntl.flock, (look, fcntl.LOCK_UN))
        timer.start()
        with only_one(out):
            pass
        timer.join()


@pytest.mark.parametrize("kind", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_told_as_such_and_at_once(
    out: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    """Lustre without -o flock, NFS without its lock service: nobody else is building there, and none will end."""

    def flock(file: int, how: int) -> None:
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UsageError, match="has no locks"), only_one(out, wait=5):
        raise AssertionError
    assert not running(out)
    beat = Beat("driver", "decode", 3, time=time.time())
    (out / "launches" / "beats").mkdir(parents=True)
    (out / "launches" / "beats" / "driver.json").write_text(json.dumps(asdict(beat)))
    assert running(out)  # another machine's mount may have locks


@pytest.mark.parametrize("kind", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_another_has_is_told_as_such_whatever_the_file_system_calls_it(
    out: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StackbuildError, match="Another"), only_one(out):
        raise AssertionError
    assert running(out)


def test_a_held_folder_says_who_holds_it(out: Path) -> None:
    assert holder(out) is None
    with only_one(out, builds=True):
        who = holder(out)
        assert who is not None and who.builds and (who.host, who.pid) == (socket.gethostname(), os.getpid())
        assert who.began == began(os.getpid()) > 0
    with only_one(out):
        who = holder(out)
        assert who is not None and not who.builds
    (out / ".lock").write_text('{"host": "h", "pi')
    assert holder(out) is None


def test_a_process_is_known_by_its_beginning_whatever_its_name_is(tmp_path: Path) -> None:
    """proc(5): the name stands before all numbers, in brackets, and may hold brackets and blanks itself."""
    odd = shutil.copy(shutil.which("sleep") or "", tmp_path / "a) R 1 (b")
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen([odd, "60"]) as other:
        assert 0 < began(os.getpid()) <= began(one.pid) <= began(other.pid)
        one.kill()
        other.kill()
    assert began(one.pid) == 0


def test_a_full_disk_keeps_nobody_from_holding_a_folder(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gc` makes room there."""

    def write(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with only_one(out):
        assert holder(out) is None


@settings(deadline=None)
@given(st.text(st.sampled_from("ab+-.:_\u00e9"), min_size=1, max_size=600))
def test_a_folder_of_logs_has_a_name_that_a_file_system_takes(names: str) -> None:
    job = f"00-{names}"
    name = log_folder(Path("/o"), job).name
    assert len(name.encode()) <= 255 and (name == job or len(job.encode()) > 255)
    assert log_folder(Path("/o"), job + "x").name != name


# ---------------------------------------------------------------- the folder


def test_events_are_read_as_they_come_once_each_and_none_by_half(folder: LaunchFolder) -> None:
    first, second = folder.events_of("00.1-0.0.1"), folder.events_of("00.1-1.0.2")
    first.write(event="element", n=1)
    assert [event["n"] for event in folder.events()] == [1]
    with open(second.path, "a") as file:
        file.write('{"time": 1, "event": "task", "n": 0}\n{"time": 9e9, "event": "task"')
    assert [event["n"] for event in folder.events()] == [0, 1]  # by time, of several files
    with open(second.path, "a") as file:
        file.write(', "n": 7}\n')
    first.write(event="element-end", n=2)
    assert [event["n"] for event in folder.events()] == [0, 1, 2, 7]
    assert [event["n"] for event in folder.events("00.1-0*")] == [1, 2]
    held = folder.events()
    assert [id(event) for event in folder.events()] == [id(event) for event in held]


def test_ids_of_all_writers_are_known_in_order(folder: LaunchFolder) -> None:
    folder.note(Submitted("12", "gate", 0, 2), "00.1-gate.0.7")
    folder.note(Submitted("9", "gate", 0, 1))
    folder.note(Submitted("8", "array", 0, 1, 3, 2))
    folder.note(Submitted("7", "array", 0, 1, 0, 3))
    (folder.path / "jobs.torn.jsonl").write_text('{"time": 1, "event": "submitted", "submi')
    assert [one.slurm for one in folder.submitted()] == ["7", "8", "9", "12"]
    assert not folder.marked("released")
    folder.mark("released")
    assert folder.marked("released") and not folder.marked("cancelled")


def test_a_wave_comes_back_as_it_was_written(folder: LaunchFolder) -> None:
    for wave in (Wave(3, 3, 10, "x", 1, 1, 2, 3, "60", [4]), Wave(3, 5, 2, "x", 1, 1, 2, 3, "60", None, True)):
        assert folder.wave(folder.add_wave(wave)) == wave
    assert [wave.wave for wave in folder.waves(3)] == [2, 10] and folder.waves(0) == []


def test_what_was_frozen_and_is_torn_is_an_error_in_words(folder: LaunchFolder) -> None:
    (folder.path / "launch.json").write_text("{")
    with pytest.raises(InputError, match="submit the build again"):
        folder.frozen()
    with pytest.raises(InputError):
        folder.wave(folder.path / "waves" / "00.1.json")


def test_the_last_word_is_the_end_or_failure_after_which_nothing_began(folder: LaunchFolder) -> None:
    def told(name: str, time: float, **event: Any) -> dict[str, Any] | None:
        (folder.path / "events" / f"{name}.jsonl").write_text(json.dumps({"time": time, **event}) + "\n")
        return folder.last_word()

    assert folder.last_word() is None
    assert told("00.1-0.0.1", 1.0, event="element") is None
    failed = told("00.1-gate.0.2", 2.0, event="failed", message="no", exit_code=5)
    assert failed is not None and failed["message"] == "no"
    assert told("00.2-0.0.3", 3.0, event="element") is None  # the gate was requeued, and submitted a wave
    end = told("publish.0.4", 4.0, event="end")
    assert end is not None and end["event"] == "end"


def test_the_last_launch_is_the_one_that_was_started_last_and_frozen(folder: LaunchFolder) -> None:
    out = folder.out
    assert last_launch(out) is None
    driver_journal(out).write(event="start", launch=folder.id)
    found = last_launch(out)
    assert found is not None and found.id == folder.id
    driver_journal(out).write(event="end")
    assert last_launch(out) is not None
    driver_journal(out).write(event="start", launch="20260102-000000-ffff")  # died before it had frozen anything
    assert last_launch(out) is None
    driver_journal(out).write(event="start", executor="local")
    assert last_launch(out) is None


def test_a_launch_is_superseded_by_any_build_that_began_after_it_and_by_nothing_else(folder: LaunchFolder) -> None:
    refuse_if_superseded(folder)  # a journal that somebody has removed says nothing
    journal = driver_journal(folder.out)
    journal.write(event="start", launch="20251231-000000-ffff")
    journal.write(event="start", launch=folder.id)
    journal.write(event="end")
    journal.write(event="cancelled", launch=folder.id)
    refuse_if_superseded(folder)
    for event in ({"executor": "local"}, {"executor": "slurm", "launch": "20260102-000000-ffff"}):
        journal.write(event="start", **event)
        with pytest.raises(InputError, match=f"{folder.id} is over: .*({event['executor']}|{event.get('launch')})"):
            refuse_if_superseded(folder)


def test_launches_of_one_second_have_names_of_their_own() -> None:
    assert len({new_id() for _ in range(20)}) > 15


def test_a_beginning_of_a_launchs_name_is_no_other_launchs_job(out: Path) -> None:
    one, other = LaunchFolder(out, "20260101-000000-abcd"), LaunchFolder(out, "20260101-000000-abcde")
    assert not f"{other.prefix}00.1".startswith(one.prefix)


def test_frozen_files_are_the_same_bytes_whoever_writes_them(folder: LaunchFolder) -> None:
    body = json.loads((folder.path / "launch.json").read_bytes())
    assert (folder.path / "launch.json").read_bytes() == canonical_json(body)


def test_a_launch_of_another_version_is_named_and_no_error_of_stackbuild(tmp_path: Path) -> None:
    folder = LaunchFolder(tmp_path, "20260101-000000-abcd")
    folder.freeze(Frozen(folder.id, "p", "plan", "c", {}, ["00-ingest"], {}, {}))
    path = folder.path / "launch.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "of_tomorrow": 1}))
    with pytest.raises(InputError, match=r"launch\.json is of another version of stackbuild"):
        folder.frozen()


def test_nobody_else_reads_a_script_in_which_a_proxys_password_may_stand(tmp_path: Path) -> None:
    path = LaunchFolder(tmp_path, "20260101-000000-abcd").script("00.1-0", "export http_proxy=http://me:secret@proxy\n")
    assert path.stat().st_mode & 0o077 == 0


def test_a_folder_that_may_not_be_written_to_is_named_and_no_error_of_stackbuild(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()  # as good as forbidden, also for root
    with pytest.raises(UsageError, match="cannot be written to"), only_one(tmp_path):
        pass
