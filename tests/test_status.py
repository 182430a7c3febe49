"""What an output folder says of itself: whatever a crash or a stranger left in it ends in an answer or an input error."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackbuild.cli import main
from stackbuild.errors import InputError
from stackbuild.status import described, opened, plan_of, status_of
from tests.test_build import run
from tests.worlds import light, world

DEEP = b"[" * 200_000
COMMANDS = ("status", "logs", "check", "report", "verify", "gc", "diff")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = world(tmp_path_factory.mktemp("world"), repos=2, files=2)
    out = tmp_path_factory.mktemp("built") / "out"
    run(light(root, stages=["exact_dedup", "decode", "languages", "signals"], partitions=2), out)
    return out


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def exit_of(*arguments: str | Path) -> tuple[int, str]:
    """The exit code of the command line, and what it says on stderr."""
    said, before = io.StringIO(), sys.argv
    sys.argv = ["stackbuild", *map(str, arguments)]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            main()
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    finally:
        sys.argv = before
    return 0, said.getvalue()


def command(name: str, out: Path) -> tuple[int, str]:
    """The exit code of a command on a folder."""
    more: dict[str, list[str | Path]] = {
        "check": ["local/repo0"],
        "diff": [out],
        "gc": ["--dry-run"],
        "logs": ["--failed"],
    }
    return exit_of(name, out, *more.get(name, ()))


def plan_file(out: Path) -> Path:
    return out / "plans" / f"{described(out)['plan'][:24]}.json"


# ---------------------------------------------------------------- build.json


def without(key: str) -> Callable[[dict[str, Any]], bytes]:
    return lambda body: json.dumps({name: value for name, value in body.items() if name != key}).encode()


def with_(**values: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda body: json.dumps({**body, **values}).encode()


DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda body: b"",
    "torn": lambda body: json.dumps(body).encode()[:100],
    "zeros": lambda body: b"\0" * 512,
    "latin": lambda body: b"\xff\xfe{}",
    "list": lambda body: b"[]",
    "deep": lambda body: DEEP,
    "no plan": without("plan"),
    "no complete": without("complete"),
    "plan is null": with_(plan=None),
    "complete is text": with_(complete="no"),
    "files is a list": with_(files=[1]),
    "a file without a hash": with_(files={"dataset/README.md": 3}),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_build_json_that_is_not_whole_is_an_input_error_that_names_it(out: Path, name: str) -> None:
    path = out / "build.json"
    path.write_bytes(DESCRIPTIONS[name](json.loads(path.read_bytes())))
    for command_ in COMMANDS:
        code, said = command(command_, out)
        assert code == 4 and str(path) in said, (command_, code, said)


def test_a_folder_in_place_of_build_json_is_an_input_error(out: Path) -> None:
    (out / "build.json").unlink()
    (out / "build.json").mkdir()
    with pytest.raises(InputError, match=r"build\.json"):
        described(out)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_in_place_of_the_folder_or_no_folder_is_the_callers_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "nothing"):
        code, said = command(name, place)
        assert code in (2, 4) and str(place) in said, (code, said)


# ---------------------------------------------------------------- the plan


PLANS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda body: b"",
    "torn": lambda body: json.dumps(body).encode()[:-10],
    "list": lambda body: b"[]",
    "no keys": lambda body: b"{}",
    "deep": lambda body: DEEP,
    "recipe is empty": with_(recipe={}),
    "recipe is a list": with_(recipe=[1]),
    "units are of another kind": with_(units=[[]]),
    "no units": with_(units=None),
    "skipped is a number": with_(skipped=3),
    "other version": with_(version=99),
    "other recipe": lambda body: json.dumps({**body, "recipe": {**body["recipe"], "seed": 8}}).encode(),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_is_not_whole_is_an_input_error_that_names_it(out: Path, name: str) -> None:
    path = plan_file(out)
    path.write_bytes(PLANS[name](json.loads(path.read_bytes())))
    with pytest.raises(InputError, match=path.name):
        opened(out)
    for command_ in ("report", "verify", "gc"):
        assert command(command_, out)[0] == 4, command_
    for command_ in ("status", "logs", "check", "diff"):  # these do not need it
        assert command(command_, out)[0] == 0, command_


def test_a_plan_that_is_gone_says_how_to_get_it_back(out: Path) -> None:
    plan_file(out).unlink()
    with pytest.raises(InputError, match="again"):
        plan_of(out)


# ---------------------------------------------------------------- the journal


def journal(out: Path) -> Path:
    return out / "launches" / "journal.jsonl"


BROKEN = {
    "cut": b'{"event": "task", "job": "00-in\n',
    "other bytes": b"\xff\xfe\0\n",
    "other JSON": b'3\n[]\nnull\n{}\n{"event": [1]}\n',
    "keys missing": b'{"event": "job"}\n{"event": "task", "job": "x", "rank": "0"}\n{"event": "job-end", "job": []}\n',
    "deep": DEEP + b"\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_of_the_journal_is_passed_over(out: Path, name: str) -> None:
    whole = status_of(out)
    first, rest = journal(out).read_bytes().split(b"\n", 1)
    journal(out).write_bytes(first + b"\n" + BROKEN[name] + rest + BROKEN[name])
    assert status_of(out) == whole and whole.state == "done"
    assert command("status", out)[0] == command("logs", out)[0] == 0


def test_tasks_of_a_job_whose_line_was_lost_are_told_all_the_same(out: Path) -> None:
    lines = journal(out).read_bytes().splitlines(keepends=True)
    lost = next(number for number, line in enumerate(lines) if json.loads(line)["event"] == "job")
    name = json.loads(lines[lost])["job"]
    journal(out).write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
    assert next(job for job in status_of(out).jobs if job.job == name).ran


def test_a_journal_that_cannot_be_read_is_an_input_error(out: Path) -> None:
    journal(out).unlink()
    assert status_of(out).jobs == []
    journal(out).mkdir()
    with pytest.raises(InputError, match="journal"):
        status_of(out)


@pytest.mark.parametrize("error", [None, b"", b"{", b"[]", b"{}", b'{"message": "no room"}'])
def test_a_failure_is_told_whatever_the_task_could_still_write(out: Path, error: bytes | None) -> None:
    task = {"event": "task", "job": "00-ingest", "rank": 0, "status": -9, "cpu": 0.1, "memory": 1, "time": 1.0}
    start = {"event": "start", "time": 0.0}
    journal(out).write_text(json.dumps(start) + "\n" + json.dumps(task) + "\n")
    log = out / "launches" / "logs" / "00-ingest" / "00000.2.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"caf\xe9 \x1b[2J\n")
    if error is not None:
        Path(f"{log}.error").write_bytes(error)
    status = status_of(out)
    assert status.state == "failed" and status.failures[0]["log"] == str(log)
    assert status.failures[0]["message"] == ("no room" if error and b"room" in error else "")
    assert (command("status", out)[0], command("logs", out)[0]) == (5, 0)


def test_who_may_only_read_the_folder_may_look(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_for: list[str] = []
    real = open

    def watching(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        opened_for.append(mode)
        return real(path, mode, *more, **named)

    monkeypatch.setattr("builtins.open", watching)
    status_of(out)
    assert opened_for and not any(set(mode) & set("wa+x") for mode in opened_for)
