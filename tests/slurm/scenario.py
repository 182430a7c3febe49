"""What a test on the cluster is made of: an input, a recipe with a misbehaving stage, a local build to compare with, and a
watcher that asks `stackbuild status` all the while."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.slurm.cluster import PATH, PATIENCE, Cluster, SlurmJob
from tests.worlds import install_stage, world

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
name = "scenario"
seed = 7
partitions = 8
stages = ["exact_dedup", "decode", "languages", "signals", "moody"]
outputs = ["dataset"]

[[source]]
kind = "directory"
paths = [{folders}]

[[source]]
kind = "git"
paths = ["{input}/git"]

[exact_dedup]
winner = ["-revision_date"]
"""
# One element takes all that is left of the build, so that a scenario is quick; those about arrays ask for more elements.
SLURM = {
    "time": "00:30:00",
    "memory": "400MB",
    "shared_memory": "400MB",
    "cpus": 2,
    "tasks_per_job": 8,
    "warn_seconds": 10,
}


def make_input(root: Path) -> Path:
    """Folders and git repositories with some three hundred files, copies and near-copies among them."""
    world(root / "folders", repos=8, files=10)
    for number, repo in enumerate(sorted(world(root / "git", repos=4, files=12, seed=1).iterdir())):
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        for who in ("AUTHOR", "COMMITTER"):
            environment |= {
                f"GIT_{who}_NAME": "Ada",
                f"GIT_{who}_EMAIL": "ada@example.org",
                f"GIT_{who}_DATE": "2024-05-01T00:00:00Z",
            }
        for command in (
            ["init", "-q", "-b", "main"],
            ["add", "."],
            ["commit", "-q", "-m", "all"],
            ["remote", "add", "origin", f"https://github.com/ada/tool{number}"],
        ):
            subprocess.run(["git", *command], cwd=repo, env=environment, check=True)
    return root


def install_moody(package: Path) -> None:
    """The stage of these tests."""
    install_stage(package, "moody", "Moody", Path(__file__).with_name("moody.py").read_text())


class Scenario:
    """One build that a test drives as a user would, from a login node.

    `package`: folder of the stage; `orders`: what the stage is told, see `moody.py`; `slurm`: the recipe's table.
    """

    def __init__(self, cluster: Cluster | None, recipe: str, folder: Path, package: Path, **slurm: Any):
        self._cluster, self.folder, self.package = cluster, folder, package
        self.out, self.orders, self.recipe = folder / "out", folder / "orders", folder / "recipe.toml"
        self.watch: Watch | None = None
        self.orders.mkdir(parents=True)
        lines = [f"{name} = {json.dumps(value)}" for name, value in {**SLURM, **slurm}.items()]
        self.recipe.write_text(recipe + "\n[slurm]\n" + "\n".join(lines) + "\n")

    @property
    def cluster(self) -> Cluster:
        """Where it is built, if not on this machine."""
        assert self._cluster
        return self._cluster

    # ------------------------------------------------------------ the stage

    def order(self, rank: int, *actions: str) -> None:
        """What the first, second … process that works on a partition does."""
        (self.orders / f"{rank}.json").write_text(json.dumps(actions))

    def go(self, rank: int | None = None, number: int = 1) -> None:
        """Let all go on that wait, or one process."""
        (self.orders / ("go" if rank is None else f"{rank}.{number}.go")).touch()

    def began(self, rank: int) -> list[dict[str, Any]]:
        """The processes that began to work on a partition."""
        found: list[dict[str, Any]] = []
        while (path := self.orders / f"{rank}.{len(found) + 1}.began").exists():
            text = path.read_text()
            found.append(json.loads(text) if text else {})
        return found

    # ------------------------------------------------------------ the command line

    @property
    def environment(self) -> dict[str, str]:
        base = self.cluster.environment() if self._cluster else {**os.environ, "PATH": PATH}
        return {
            **base,
            "PYTHONPATH": f"{self.package}:{ROOT}",
            "STACKBUILD_ORDERS": str(self.orders),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "stackbuild", *map(str, arguments)]

    def stackbuild(self, *arguments: str | Path, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """A stackbuild command; `expect`: the exit code that it must end with."""
        done = subprocess.run(
            self.command(*arguments), env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False,
            timeout=6 * PATIENCE,  # a whole build may be waited for
        )  # fmt: skip
        if expect is not None and done.returncode != expect:
            story = self.cluster.story() if self._cluster else ""
            raise AssertionError(
                f"{' '.join(done.args[2:])} ended with {done.returncode}\n{done.stdout}\n{done.stderr}\n{story}\n{self.logs()}"
            )
        return done

    def build(
        self, *arguments: str, executor: str = "slurm", expect: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        return self.stackbuild(
            "build", self.recipe, "--output", self.out, "--executor", executor, *arguments, expect=expect
        )

    # ------------------------------------------------------------ on the cluster

    @property
    def launch(self) -> Path:
        """The folder of the last launch."""
        return sorted((self.out / "launches").glob("2*"))[-1]

    def jobs(self) -> list[SlurmJob]:
        """Slurm's jobs of the last launch."""
        return self.cluster.jobs(f"stackbuild-{self.launch.name}-")

    def submitted(self, kind: str, number: int, wave: int = 1) -> list[dict[str, Any]]:
        """What the launch wrote down of its arrays or gates."""
        found = [event["submitted"] for event in told(self.launch.glob("jobs*.jsonl"), "submitted")]
        return [one for one in found if (one["kind"], one["number"], one["wave"]) == (kind, number, wave)]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What elements and gates of the last launch told, oldest first."""
        return sorted(told(self.launch.glob("events/*.jsonl"), kind), key=lambda event: event["time"])

    def wait_began(self, rank: int, number: int = 1) -> dict[str, Any]:
        """Wait until so many processes have begun to work on a partition; returns the last."""
        self.cluster.wait_for(
            lambda: len(self.began(rank)) >= number and bool(self.began(rank)[number - 1]), f"try {number} of task {rank} began"
        )  # fmt: skip
        return self.began(rank)[number - 1]

    def wait_at_work(self, number: int) -> list[int]:
        """Wait until so many tasks have begun; returns them."""
        self.cluster.wait_for(
            lambda: sum(any(self.began(rank)) for rank in range(8)) >= number, f"{number} tasks are at work"
        )
        return [rank for rank in range(8) if self.began(rank)]

    def finish(self) -> list[SlurmJob]:
        """Wait for the end of the last launch, which must be a good one; returns its jobs."""
        jobs = self.end()
        if not self.events("end"):
            raise AssertionError(f"the launch did not end well\n{self.cluster.story()}\n{self.logs()}")
        return jobs

    def end(self) -> list[SlurmJob]:
        """Wait until no job of the last launch is left in the queue, however they ended."""
        return self.cluster.wait_until_quiet(f"stackbuild-{self.launch.name}-")

    def status(self) -> dict[str, Any]:
        return json.loads(self.stackbuild("status", self.out, "--json", expect=None).stdout)  # type: ignore[no-any-return]

    def logs(self) -> str:
        """The ends of all logs of the launches, for a test's message."""
        paths = sorted((self.out / "launches").rglob("*.log"), key=lambda path: path.stat().st_mtime)[-12:]
        return "\n".join(f"--- {path}\n" + path.read_text(errors="replace")[-1500:] for path in paths)

    # ------------------------------------------------------------ what must hold afterwards

    def same_as(self, reference: Path) -> None:
        """The release has the same bytes as another, everything in it is whole and adds up, and the status knows it."""
        assert release(self.out) == release(reference)
        self.stackbuild("verify", self.out)
        if self.watch:
            self.saw(lambda status: status["state"] == "done", "done")
            self.watch.check()

    def saw(self, true: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until `stackbuild status --json` says so of the last launch; returns what it said."""
        assert self.watch
        name = self.launch.name
        return self.watch.wait_for(lambda status: status["launch"] == name and true(status), what)


def told(paths: Iterable[Path], kind: str) -> list[dict[str, Any]]:
    """The events of a kind in these files, without lines that are not whole, or not yet."""
    found = []
    for line in (line for path in paths for line in path.read_text().splitlines()):
        with suppress(ValueError):
            found.append(json.loads(line))
    return [event for event in found if event["event"] == kind]


def release(out: Path) -> dict[str, str]:
    """SHA-256 of every published file, which build.json must list."""
    body = json.loads((out / "build.json").read_bytes())
    assert body["complete"], body
    found = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("dataset", "repos", "decisions", "clusters", "manifest", "index", "tokens", "report", "private")
        for path in sorted((out / name).rglob("*"))
        if path.is_file()
    }
    assert found == body["files"]
    return found


WATCHER = """
import contextlib, io, json, sys, time
from stackbuild.cli import main
sys.argv = ["stackbuild", "status", sys.argv[1], "--json"]
while True:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            main()
    except SystemExit as end:
        code = end.code or 0
    else:
        code = 0
    print(json.dumps([code, said.getvalue()]), flush=True)
    time.sleep(1)
"""


class Watch:
    """The answers of `stackbuild status --json` while something happens."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def check(self) -> None:
        """Whatever happened, no answer contradicted itself, and none said that the build was done before it was."""
        for status in self.seen:
            for job in status["jobs"]:
                assert job["tasks"] == job["done"] + job["running"] + job["pending"] + job["failed"], job
                assert job["done"] == job["cached"] + job["ran"], job
                assert job["running"] >= len(job["at_work"]), job
            if status["state"] == "done":
                assert {job["state"] for job in status["jobs"]} == {"done"}, status
                assert not status["failures"] and status["publish"] in ("done", ""), status

    def wait_for(self, true: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until an answer is so, the last one or one to come; returns it."""
        end, index = time.monotonic() + PATIENCE, max(0, len(self.seen) - 1)
        while True:
            while index < len(self.seen):
                if true(self.seen[index]):
                    return self.seen[index]
                index += 1
            if time.monotonic() > end:
                raise AssertionError(
                    f"status did not say so in {PATIENCE:.0f} s: {what}\n{json.dumps(self.seen[-1:], indent=1)}"
                )
            time.sleep(0.1)


@contextmanager
def watching(scenario: Scenario) -> Iterator[Watch]:
    """Ask for the status every second, in one process, which says nothing before there is a build."""
    watch = Watch()
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(scenario.out)], env=scenario.environment, cwd=scenario.folder,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            code, said = json.loads(line)
            if said:
                watch.seen.append(json.loads(said))
            else:
                assert code == 4, code  # there is no build yet

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    scenario.watch = watch
    try:
        yield watch
    finally:
        process.kill()
        process.wait()
        thread.join()
