"""The batch scripts: run for real by bash, with a `python`, `scontrol` and `sleep` that do as they are told; and what they ask
of Slurm, whatever stands in a recipe, in the environment, or in the name of a folder."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stackbuild.cluster import OURS, SlurmOptions
from stackbuild.errors import UsageError
from stackbuild.launches import ATTEMPT, LaunchFolder, Wave, last_attempt
from stackbuild.retries import Cause, element_cause, refusal
from stackbuild.slurm.script import (
    CANNOT,
    MAX_RESTARTS,
    array_script,
    check_environment,
    check_path,
    environment,
    gate_script,
    publish_script,
)

WAVE = Wave(5, 5, 1, "05-job", 10, 2, 2 * 10**9, 10**9, "01:00:00")
WAITS = "touch {0}/ready; while :; do /bin/sleep 0.02; done"
STOPS = "trap 'exit 85' USR1 TERM; " + WAITS
FIELD = "a b 'c' \"d\" 100%j $HOME `x` #e"  # a folder that somebody has


class Element:
    """An element of an array, whose script bash runs in an empty environment."""

    def __init__(self, folder: Path, python: str, first: int = 0, **options: Any):
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        self.bin.mkdir(parents=True)
        self._command("python", f'printf "%s\\n" "$@" >{folder}/arguments; env >{folder}/environment\n' + python)
        self._command("scontrol", f'echo "$@" >>{folder}/scontrol')
        self._command("sleep", f'[ "$1" = 60 ] && echo "$1" >>{folder}/slept || /bin/sleep 0.1')
        self.launch = LaunchFolder(folder / FIELD, "20260101-000000-abcd")
        self.launch.logs.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
            chosen = SlurmOptions(venv=str(folder / "venv"), **options)
            self.script = folder / "script"
            self.script.write_text(array_script(self.launch, WAVE, chosen, first, 4))

    def _command(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{body}\n".replace("{0}", str(self.folder)))
        (self.bin / name).chmod(0o755)

    def start(self, restarts: int = 0) -> subprocess.Popen[bytes]:
        environment = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "77", "SLURM_JOB_ID": "80", "SECRET": "s3cret"}
        environment |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        return subprocess.Popen(["bash", str(self.script)], env=environment, start_new_session=True)

    def wait_for(self, name: str) -> None:
        end = time.monotonic() + 30
        while not (self.folder / name).exists():
            assert time.monotonic() < end, name
            time.sleep(0.01)

    def said(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def requeued(self) -> list[str]:
        return self.said("scontrol")


@pytest.fixture
def element(tmp_path: Path) -> Callable[..., Element]:
    return lambda python, **more: Element(tmp_path, python, **more)


# ---------------------------------------------------------------- what it ends with


@pytest.mark.parametrize("status", [0, 1, 5, 70, 85, 86])
def test_it_ends_as_python_did_and_requeues_nothing_unless_it_was_warned(
    element: Callable[..., Element], status: int
) -> None:
    one = element(f"exit {status}")
    assert one.start().wait(30) == status
    assert one.requeued == []


def test_one_that_was_killed_is_not_requeued_by_the_script(element: Callable[..., Element]) -> None:
    one = element("kill -9 $$")
    assert one.start().wait(30) == 128 + 9
    assert one.requeued == []


def test_a_warned_element_that_got_on_requeues_itself_and_not_the_whole_array(element: Callable[..., Element]) -> None:
    """The job id of an array's last element is that of the whole array."""
    one = element(STOPS)
    run = one.start()
    one.wait_for("ready")
    run.send_signal(signal.SIGUSR1)
    assert run.wait(30) == 85
    assert one.requeued == ["requeue 77_3"]
    assert one.said("slept") == ["60"]  # Slurm ends it meanwhile: it must not be seen to end by itself


@pytest.mark.parametrize(
    ("python", "status"),
    [
        ("trap 'exit 86' USR1; " + WAITS, 86),  # nothing to show for it: the gate decides
        ("trap 'exit 5' USR1; " + WAITS, 5),
        ("trap 'exit 0' USR1; " + WAITS, 0),
    ],
)
def test_a_warned_element_that_ended_otherwise_is_left_to_the_gate(
    element: Callable[..., Element], python: str, status: int
) -> None:
    one = element(python)
    run = one.start()
    one.wait_for("ready")
    run.send_signal(signal.SIGUSR1)
    assert run.wait(30) == status
    assert one.requeued == []


def test_a_warning_before_python_is_ready_requeues_too(element: Callable[..., Element]) -> None:
    one = element(f"touch {{0}}/ready; exec /bin/sleep {30}")  # heeds nothing yet, and dies of the signal
    run = one.start()
    one.wait_for("ready")
    run.send_signal(signal.SIGUSR1)
    assert run.wait(30) == 128 + signal.SIGUSR1
    assert one.requeued == ["requeue 77_3"]


@pytest.mark.parametrize("attempt", range(12))
def test_a_warning_before_python_is_started_is_not_lost(element: Callable[..., Element], attempt: int) -> None:
    """While a site's own command runs, and in the moment between the fork of the child and its start, in which bash drops it."""
    one = element(f"exec /bin/sleep {30}", env_command="kill -s USR1 $$")
    assert one.start().wait(30) == 128 + signal.SIGUSR1
    assert one.requeued == ["requeue 77_3"]


def test_two_warnings_are_as_one(element: Callable[..., Element]) -> None:
    one = element("trap 'sleep 1; exit 85' USR1; " + WAITS)
    run = one.start()
    one.wait_for("ready")
    for _ in range(5):
        run.send_signal(signal.SIGUSR1)
        time.sleep(0.01)
    assert run.wait(30) == 85
    assert one.requeued == ["requeue 77_3"]


def test_an_end_that_was_asked_for_is_passed_on_and_not_requeued(element: Callable[..., Element]) -> None:
    one = element(STOPS)
    run = one.start()
    one.wait_for("ready")
    run.terminate()
    assert run.wait(30) == 85
    assert one.requeued == []


def test_an_end_that_was_asked_for_after_a_warning_is_an_end(element: Callable[..., Element]) -> None:
    one = element("trap 'touch {0}/warned' USR1; trap 'exit 85' TERM; " + WAITS)
    run = one.start()
    one.wait_for("ready")
    run.send_signal(signal.SIGUSR1)
    one.wait_for("warned")
    run.terminate()
    assert run.wait(30) == 85
    assert one.requeued == []


def test_an_element_is_not_requeued_for_ever(element: Callable[..., Element]) -> None:
    one = element(STOPS)
    run = one.start(restarts=MAX_RESTARTS)
    one.wait_for("ready")
    run.send_signal(signal.SIGUSR1)
    assert run.wait(30) == 85
    assert one.requeued == []


def test_where_requeue_is_off_nothing_is_requeued(element: Callable[..., Element]) -> None:
    one = element(STOPS, requeue=False)
    run = one.start()
    one.wait_for("ready")
    run.send_signal(signal.SIGUSR1)
    assert run.wait(30) == 85
    assert one.requeued == []
    assert "#SBATCH --no-requeue" in one.script.read_text()


def test_the_traps_stand_before_anything_that_takes_time(element: Callable[..., Element]) -> None:
    lines = element("exit 0", env_command="module load python").script.read_text().splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    last = max(number for number, line in enumerate(code) if line.startswith("trap "))
    assert [re.split(r"[=( ]", line)[0] for line in code[: last + 1]] == ["stopped", "heed", "trap", "trap"]


# ---------------------------------------------------------------- what python is given


def test_python_gets_its_arguments_whole_and_the_elements_own_number(element: Callable[..., Element]) -> None:
    one = element("exit 0", first=8)
    assert one.start().wait(30) == 0
    out = one.folder / FIELD
    assert one.said("arguments") == [
        "-P",  # the folder in which the command was typed may hold anything
        "-m",
        "stackbuild.slurm.element",
        str(out),
        str(out / "launches" / "20260101-000000-abcd" / "waves" / "05.1.json"),
        "11",
    ]


def test_each_attempt_has_a_log_of_its_own(element: Callable[..., Element]) -> None:
    one = element("echo said by $0")
    assert [one.start(restarts=n).wait(30) for n in (0, 1, 2)] == [0, 0, 0]
    logs = sorted(path.name for path in one.launch.logs.iterdir())
    assert logs == ["05.1-3.0.log", "05.1-3.1.log", "05.1-3.2.log"]
    assert all("said by" in path.read_text() for path in one.launch.logs.iterdir())


def test_what_slurm_says_of_an_attempt_is_told_from_what_it_said_of_those_before(
    element: Callable[..., Element],
) -> None:
    """Slurm's own log of a job is one for all its attempts: it is requeued in the same file."""
    one = element("exit 0")
    texts = scripts(one.launch.out, SlurmOptions(venv=str(one.folder / "venv")))
    for number, text in enumerate(texts):
        one.script.write_text(text)
        slurms = one.folder / f"{number}.out"
        for restart in (0, 1):
            with open(slurms, "ab") as out:
                environment = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_RESTART_COUNT": str(restart)}
                subprocess.run(["bash", str(one.script)], env=environment, stdout=out, check=True)
                out.write(b"slurmstepd: words on attempt %d\n" % restart)
        assert last_attempt(slurms.read_text()) == f"{ATTEMPT}1\nslurmstepd: words on attempt 1\n"


def test_python_gets_nothing_of_the_environment_but_what_is_named(
    element: Callable[..., Element], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/it's here\n/second")
    monkeypatch.setenv("STACKBUILD_CACHE", "/cache of $USER")
    one = element("exit 0")
    assert one.start().wait(30) == 0
    text = one.script.read_text()
    assert "s3cret" not in text and "MY_TOKEN" not in text
    environment = (one.folder / "environment").read_text()
    assert "LD_LIBRARY_PATH=/opt/it's here\n/second\n" in environment
    assert "STACKBUILD_CACHE=/cache of $USER\n" in environment


def test_the_running_interpreters_folder_comes_first_on_the_path(element: Callable[..., Element]) -> None:
    one = element("exit 0")
    assert one.start().wait(30) == 0
    [path] = [line for line in one.said("environment") if line.startswith("PATH=")]
    assert path.split(":")[0] == f"PATH={one.bin}" and path.split(":")[-1] == "/bin"


def test_a_sites_own_command_changes_the_path_and_not_the_interpreter(
    element: Callable[..., Element], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that submits has all packages; the first on a node's PATH has none."""
    one = element("exit 0", env_command="export PATH=/site:$PATH")
    assert one.start().wait(30) == 0
    [path] = [line for line in one.said("environment") if line.startswith("PATH=")]
    assert path.split(":")[:2] == ["PATH=/site", str(one.bin)]
    for command in ("", "module load python"):
        lines = environment(SlurmOptions(env_command=command))
        assert f"python={shlex.quote(sys.executable)}" in lines
        assert any(line.startswith(f"export PATH={os.path.dirname(sys.executable)}:") for line in lines)


# ---------------------------------------------------------------- a node that lacks something


def log_of(one: Element) -> str:
    [log] = one.launch.logs.iterdir()
    return log.read_text()


@pytest.mark.parametrize(
    "command",
    ["no_such_module load x", "echo loaded && false # a remark", "(exit 3)", "ls '/no such $HOME \"`folder`'"],
)
def test_where_the_sites_own_command_fails_nothing_begins(element: Callable[..., Element], command: str) -> None:
    one = element("exit 0", env_command=command)
    assert one.start().wait(30) == CANNOT
    assert not one.said("arguments")
    last = log_of(one).splitlines()[-1]
    assert last.startswith("stackbuild: cannot begin: on node ") and last.endswith(command)
    assert element_cause("FAILED", log_of(one)) is Cause.REFUSED and refusal(log_of(one)).endswith(command)


@pytest.mark.parametrize("lack", ["all", "link", "leave"])
def test_a_node_that_lacks_the_interpreter_says_so(element: Callable[..., Element], lack: str) -> None:
    one = element("exit 0")
    python = one.bin / "python"
    if lack == "leave":
        python.chmod(0o644)
    else:
        python.unlink()
    if lack == "link":
        python.symlink_to("/usr/bin/python3.99")
    assert one.start().wait(30) == CANNOT
    assert f"cannot run {python}" in refusal(log_of(one))


def test_bash_says_itself_what_is_no_program(element: Callable[..., Element]) -> None:
    one = element("exit 0")
    (one.bin / "python").write_text("#!/no/such/interpreter\n")
    assert one.start().wait(30) in (126, 127)
    assert element_cause("FAILED", log_of(one)) is Cause.REFUSED and str(one.bin / "python") in refusal(log_of(one))


def test_what_jobs_need_is_looked_for_before_they_are_submitted(tmp_path: Path) -> None:
    assert check_environment(SlurmOptions()) == ""
    assert check_environment(SlurmOptions(venv=sys.prefix, env_command="module load python; export X='a b'")) == ""
    assert "/no/such/venv/bin/python" in check_environment(SlurmOptions(venv="/no/such/venv"))  # nodes may have it
    for options in (
        {"venv": str(tmp_path)},
        {"venv": "env"},
        {"env_command": "echo 'open"},
        {"env_command": "if true"},
    ):
        with pytest.raises(UsageError, match=rf"\[slurm\] {next(iter(options))}"):
            check_environment(SlurmOptions(**options))


def test_a_virtual_environment_at_home_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/me")
    assert "python=/homes/me/env/bin/python" in environment(SlurmOptions(venv="~/env"))


# ---------------------------------------------------------------- what Slurm is asked


def directives(script: str) -> dict[str, str]:
    """The options of a script as sbatch reads them: quotes are taken off, and a word without dashes is refused."""
    found = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            for word in shlex.split(line[8:], comments=True):
                assert word.startswith("--"), word
                name, _, value = word[2:].partition("=")
                assert name not in found, name
                found[name] = value
    return found


def scripts(folder: Path, options: SlurmOptions) -> list[str]:
    launch = LaunchFolder(folder, "20260101-000000-abcd")
    return [
        array_script(launch, WAVE, options, 4, 3),
        gate_script(launch, WAVE, options),
        publish_script(launch, options),
    ]


def test_what_is_asked_by_default() -> None:
    array, gate, last = (directives(script) for script in scripts(Path("/o/u t%/\"x'"), SlurmOptions()))
    common = {"nodes": "1", "ntasks": "1", "open-mode": "append", "export": "ALL", "kill-on-invalid-dep": "yes"}
    common |= {"propagate": "NONE"}  # of a login node's limits
    assert array == {
        **common,
        "job-name": "stackbuild-20260101-000000-abcd-05.1",
        "array": "0-2",
        "output": "/o/u t%%/\"x'/launches/20260101-000000-abcd/logs/%A_%a.out",
        "cpus-per-task": "2",
        "mem": "4769M",  # twice 2 GB and 1 GB, in units of 2^20
        "time": "01:00:00",
        "signal": "B:USR1@120",
        "requeue": "",
    }
    assert gate["output"] == last["output"] == "/o/u t%%/\"x'/launches/20260101-000000-abcd/logs/%j.out"
    assert {"array", "signal", "qos", "partition", "account"}.isdisjoint({**gate, **last})
    assert common.items() <= gate.items() and common.items() <= last.items()


def test_what_the_recipe_names_is_asked_of_every_job() -> None:
    options = SlurmOptions(partition="a,b", account="x", qos="low", sbatch=["--constraint=fast"], max_running=7)
    for number, script in enumerate(scripts(Path("/o"), options)):
        asked = directives(script)
        assert {"partition": "a,b", "account": "x", "qos": "low", "constraint": "fast"}.items() <= asked.items()
        assert asked.get("array") == ("0-2%7" if number == 0 else None)


@pytest.mark.parametrize(
    "line",
    [
        *(f"{name}=x" for name in OURS),
        "--mem 5G",
        "--arr=0-9",  # sbatch completes names
        "--outp=/x",
        "--constraint=fast --export=ALL",  # and takes several to a line
        "--comment=hi -a 0-9",
        "--comment=hi\n#SBATCH --export=ALL",
        "--comment=hi\r--export=ALL",
        "-a0-9",
        "fast",
        "--",
        "--comment='open",
    ],
)
def test_an_option_of_the_recipe_overrides_none_of_the_builds_own(line: str) -> None:
    with pytest.raises(ValidationError):
        SlurmOptions(sbatch=[line])


@pytest.mark.parametrize(
    "line", ["--constraint=fast", "--nice=-5", "--comment='a b'", "--gres gpu:1", "--mail-type=END"]
)
def test_other_options_of_sbatch_may_be_given(line: str) -> None:
    assert SlurmOptions(sbatch=[line]).sbatch == [line]


@settings(max_examples=200, deadline=None)
@given(
    key=st.sampled_from(["partition", "account", "qos", "time", "venv", "env_command", "sbatch"]),
    value=st.text(st.characters(codec="utf-8"), max_size=20) | st.from_regex(r"--[a-z]+=[^=]{0,10}", fullmatch=True),
)
def test_no_value_of_a_recipe_makes_a_line_of_its_own(key: str, value: str) -> None:
    """A value that is let in leaves every script with the lines that it has without it."""
    try:
        options = SlurmOptions(**{key: [value] if key == "sbatch" else value})  # type: ignore[arg-type]
    except ValidationError:
        return
    plain = scripts(Path("/o"), SlurmOptions(**{key: ["--nice=1"] if key == "sbatch" else {"time": "9"}.get(key, "x")}))  # type: ignore[arg-type]
    for script, other in zip(scripts(Path("/o"), options), plain, strict=True):
        optional = ("partition", "account", "qos", "env_command")  # no line of an empty one
        missing = bool(value) - 1 if key in optional else 0
        assert len(script.split("\n")) == len(other.split("\n")) + missing
        assert re.findall(r"^#SBATCH --export.*$", script, re.M) == ["#SBATCH --export=ALL"]


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\rb", "a\tb", os.fsdecode(b"a\xff")])
def test_a_folder_that_slurm_cannot_write_to_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_path(Path("/o") / name)


def test_a_folder_with_spaces_quotes_and_letters_of_all_kinds_is_not() -> None:
    check_path(Path("/o") / FIELD / "Größe")
