"""Commands of Slurm's names that write down what they are told and remember jobs, for what is asked of Slurm; and a build that
is complete, from which a test takes away what a wave is to have missed. What Slurm does with it is tested in tests/slurm.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stackbuild import build as building
from stackbuild import scheduler
from stackbuild.cluster import SlurmOptions
from stackbuild.journal import driver_journal
from stackbuild.launches import Frozen, LaunchFolder, Submitted, Wave
from stackbuild.plan import Build
from stackbuild.slurm.code import code_digest
from tests.worlds import recipe, world

COMMAND = """#!{python} -SE
import json, os, re, signal, sys
state, name, arguments = {state!r}, os.path.basename(sys.argv[0]), sys.argv[1:]
text = sys.stdin.read() if name == "sbatch" else ""
if "--test-only" in arguments:  # changes nothing, and is not counted
    sys.exit(0)
if "--oneliner" in arguments:  # nor is what is only asked
    print(json.load(open(state + "/orders.json")).get("partitions", ""))
    sys.exit(0)
with open(state + "/calls.jsonl", "a") as file:
    file.write(json.dumps(dict(command=name, arguments=arguments, environment=sorted(os.environ), script=text)) + "\\n")
calls = [json.loads(line)["command"] for line in open(state + "/calls.jsonl")]
orders = json.load(open(state + "/orders.json"))
order = orders.get(name + " " + str(calls.count(name))) or orders.get(name + " always", "")
if order == "kill":
    os.kill(os.getppid(), signal.SIGKILL)
if order == "fail" or order == "kill":
    sys.exit(name + ": error: told to fail")
if order == "busy":
    sys.exit(name + ": error: Batch job submission failed: Unable to contact slurm controller (connect failure)")
with open(state + "/jobs.json") as file:
    jobs = json.load(file)
if name == "sbatch":
    options = [word for line in text.splitlines() if line.startswith("#SBATCH ") for word in line.split()[1:]] + arguments
    said = dict(word[2:].partition("=")[::2] for word in options if word.startswith("--"))
    array = re.match(r"0-(\\d+)", said.get("array", ""))
    number = str(100 + len(jobs))
    jobs[number] = dict(name=said["job-name"], elements=int(array[1]) + 1 if array else 0, held="hold" in said,
                        dependency=said.get("dependency", ""), states={{}}, script=text)
    print(number)
elif name == "squeue":
    stranger = orders.get("stranger")  # whoever asks is another user, who sees the jobs of the first or is blind to them
    hidden = stranger and ("--me" in arguments or stranger == "blind")
    for number, job in (() if hidden else jobs.items()):
        for index in range(max(1, job["elements"])):
            shown = job["states"].get(str(index), "PENDING")
            if shown in ("PENDING", "RUNNING") or "all" in arguments:
                one, place = (number + "_" + str(index), str(index)) if job["elements"] else (number, "N/A")
                print("|".join([one, number, place, job["name"], shown, "JobHeldUser" if job["held"] else "None", "", "0:00"]))
elif name == "scancel":
    for number in arguments:
        if number in jobs:
            for index in range(max(1, jobs[number]["elements"])):
                if jobs[number]["states"].get(str(index), "PENDING") in ("PENDING", "RUNNING"):
                    jobs[number]["states"][str(index)] = "CANCELLED"
elif arguments[0] == "show":
    print("MaxArraySize            = " + str(orders.get("max_array", 1001)))
    print("PrivateData             = " + ("jobs,usage" if orders.get("stranger") == "blind" else "none"))
elif arguments[0] == "release":
    jobs[arguments[1]]["held"] = False
elif arguments[0] == "update":
    jobs[arguments[1].partition("=")[2]]["dependency"] = arguments[2].partition("=")[2]
with open(state + "/jobs.json", "w") as file:
    json.dump(jobs, file)
if order == "kill after":
    os.kill(os.getppid(), signal.SIGKILL)
if order == "fail after":
    sys.exit(name + ": error: told to fail when all was done")
if order == "busy after":
    sys.exit(name + ": error: Batch job submission failed: Socket timed out on send/recv operation")
"""


@dataclass
class Slurm:
    """What was asked of Slurm, and what it holds. `folder` has the commands in `bin`."""

    folder: Path

    def order(self, **orders: Any) -> None:
        """What a call does besides: "fail", "fail after", "kill" (its caller), "kill after", "busy" (its controller does not
        answer), "busy after" (it does so too late); by `sbatch_3` (the third call of sbatch, counted from the first of the
        test) or `sbatch_always`. `max_array`: the site's MaxArraySize; `partitions`: what it says of them."""
        plain = ("max_array", "partitions")
        body = {name if name in plain else name.replace("_", " "): value for name, value in orders.items()}
        (self.folder / "orders.json").write_text(json.dumps(body))

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def said(self, command: str) -> list[list[str]]:
        """The arguments of each call of a command."""
        return [call["arguments"] for call in self.calls if call["command"] == command]

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        return json.loads((self.folder / "jobs.json").read_text())  # type: ignore[no-any-return]

    def end(self, job: str, state: str = "COMPLETED", indices: Iterable[int] = (0,)) -> None:
        """Let elements of a job end so."""
        jobs = self.jobs
        jobs[job]["states"] |= {str(index): state for index in indices}
        (self.folder / "jobs.json").write_text(json.dumps(jobs))

    @property
    def live(self) -> dict[str, dict[str, Any]]:
        """The jobs that are not cancelled and have not ended."""
        return {
            number: job
            for number, job in self.jobs.items()
            if any(job["states"].get(str(i), "PENDING") == "PENDING" for i in range(max(1, job["elements"])))
        }

    def may_begin(self) -> list[str]:
        """The live jobs that nothing holds back."""
        return [number for number, job in self.live.items() if not job["held"] and not job["dependency"]]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    folder = tmp_path / "slurm"
    (folder / "bin").mkdir(parents=True)
    (folder / "orders.json").write_text("{}")
    (folder / "jobs.json").write_text("{}")
    for name in ("sbatch", "squeue", "scontrol", "scancel"):
        path = folder / "bin" / name
        path.write_text(COMMAND.format(python=sys.executable, state=str(folder)))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(scheduler, "PAUSES", (0.0, 0.0))
    return Slurm(folder)


# ---------------------------------------------------------------- a build


def small(root: Path, **changes: Any) -> dict[str, Any]:
    """A recipe with little to do."""
    body = recipe(root, stages=["exact_dedup", "decode", "languages", "signals"], outputs=["dataset"],
                  exact_dedup={"winner": ["-revision_date"]})  # fmt: skip
    del body["license_filter"], body["tokens"]
    return {**body, **changes}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), repos=3, files=3)


@pytest.fixture(scope="session")
def _complete(root: Path, tmp_path_factory: pytest.TempPathFactory) -> building.Result:
    out = tmp_path_factory.mktemp("complete")
    return building.run(building.Request(small(root), Path("/"), out, 1))


@pytest.fixture
def complete(_complete: building.Result, tmp_path: Path) -> Build:
    """A copy of a build all of whose jobs are complete, as no launch has made it."""
    out = tmp_path / "out"
    shutil.copytree(_complete.build.out, out, ignore=shutil.ignore_patterns("launches"))
    return Build(out, _complete.build.plan)


OPTIONS = SlurmOptions(memory=2 * 10**9, shared_memory=10**9, max_memory=16 * 10**9, cpus=2)


class Launched:
    """A launch of a build of which one job is at work: its wave 1 was submitted, and the job after it."""

    def __init__(
        self, slurm: Slurm, build: Build, number: int, last: int | None = None, elements: int = 2,
        name: str = "20260101-000000-abcd", **options: Any
    ):  # fmt: skip
        self.slurm, self.build, self.number = slurm, build, number
        self.options = OPTIONS.model_copy(update=options)
        self.folder = LaunchFolder(build.out, name)
        driver_journal(build.out).write(event="start", plan=build.plan.digest, executor="slurm", launch=name, pid=1)
        plan = f"plans/{build.plan.digest[:24]}.json"
        names = [job.name for job in build.jobs]
        settings = self.options.model_dump(mode="json")
        self.folder.freeze(Frozen(self.folder.id, build.plan.digest, plan, code_digest(build), settings, names))
        self.wave = Wave(number, number if last is None else last, 1, names[number], elements, 2, self.options.memory,
                         self.options.shared_memory, "01:00:00", None)  # fmt: skip
        self.arrays, self.gate = self._submit(self.wave)
        after = self.wave.last + 1
        self.next = self._submit(replace(self.wave, number=after, last=after, job=names[after], elements=1))

    def _submit(self, wave: Wave) -> tuple[list[str], str]:
        from stackbuild.slurm.executor import SlurmExecutor

        self.folder.add_wave(wave)
        after = [self.gate] if wave.number != self.number else []
        return SlurmExecutor(self.folder, self.build.out, wave, self.options, 1_001).run(after)

    def lose(self, number: int, *ranks: int) -> None:
        """Take away what tasks of a job have committed, and the job's stage manifests with those of all that follow."""
        job = self.build.jobs[number]
        for name in job.shard_jobs:
            for rank in ranks:
                for path in (self.build.out / "stages" / name / "manifests").glob(
                    f"{self.build.shard_number(job, rank):05d}-*"
                ):
                    path.unlink()
        for later in self.build.jobs[number:]:
            for name in later.shard_jobs:
                (self.build.out / "stages" / name / "manifest.json").unlink(missing_ok=True)

    def tell(self, wave: Wave, element: int, event: str, restart: int = 0, **more: Any) -> None:
        """An event of an element's attempt."""
        number = more.pop("number", wave.number)
        told = {"job": self.build.jobs[number].name, "number": number, "wave": wave.wave, "element": element}
        if event == "task":
            told |= {
                "attempt": 1,
                "more": False,
                "cpu": 1.0,
                "wall": 1.0,
                "memory": 1,
                "private": 1,
                "rows": 1,
                "bytes": 1,
            }
        self.folder.events_of(f"{wave.name}-{element}.{restart}.1").write(
            event=event, **{**told, **({} if event == "task" else {"restart": restart}), **more}
        )

    def jobs_of(self, wave: int) -> list[Submitted]:
        return [one for one in self.folder.submitted() if (one.number, one.wave) == (self.number, wave)]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.folder.events() if event["event"] == kind]
