"""What a benchmark measures: CPU-seconds and peak memory of a process tree, runs in turn, a table and one JSON object.

Every run is a process tree of its own. CPU is user + system time of the tree; peak memory is that of its largest
process. A way is told as "module:function": the function prepares (imports, opening, compilation: start-up, shown
apart) and returns the work, whose CPU counts; the work returns what it found, by which one sees that all did the same.

    python -m benchmarks.measure COMMAND [ARGUMENT ...]     CPU, peak memory and wall time of one command
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.tree_memory import TreeMemory

ROOT = Path(__file__).resolve().parent.parent
NOT_INSTALLED = 7  # exit code of a way whose package is not there

# On Linux a child's peak memory begins with that of the process it was forked from. So a small process stands between. Orphans
# come to it, and it waits for them too: a pool's workers may outlive who started them.
BETWEEN = """
import ctypes, json, os, resource, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
started = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status = os.waitpid(pid, 0)
wall = time.monotonic() - started
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    try:
        if os.waitpid(-1, os.WNOHANG) == (0, 0):
            time.sleep(0.05)
    except ChildProcessError:
        break
all_ = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), all_.ru_utime + all_.ru_stime, all_.ru_maxrss, wall], file)
"""


@dataclass(frozen=True)
class Run:
    """One process tree: CPU-seconds of the work and of start-up, peak memory in MB, wall seconds, what it told.

    `peak_mb`: of the largest process (RSS). `tree_mb`: of all of them at one time (PSS); 0 if it was not looked at.
    """

    cpu: float
    startup: float
    peak_mb: float
    wall: float
    told: dict[str, Any] = field(default_factory=dict)
    tree_mb: float = 0.0


class NotMeasured(Exception):
    """A way that cannot run here, and why."""


def command(words: Sequence[str], env: Mapping[str, str] | None = None, tree: bool = False) -> tuple[Run, str]:
    """Run a command in a process tree of its own: (its figures, its stdout). SystemExit with its stderr if it fails.

    With `tree` the memory of the whole tree is looked at while it runs.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | dict(env or {})
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder, "figures")
        process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", BETWEEN, str(figures), *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        memory = TreeMemory(process.pid)
        if tree:
            memory.start()
        try:
            output, errors = process.communicate()
        finally:
            process.kill()
            if tree:
                memory.stop()
        if process.returncode:
            raise SystemExit(f"{words[0]} cannot be run: {errors}")
        code, cpu, peak, wall = json.loads(figures.read_text())
    if code == NOT_INSTALLED:
        raise NotMeasured(errors.strip().rsplit("\n", 1)[-1])
    if code:
        raise SystemExit(f"{' '.join(words)} ended with {code}:\n{errors}")
    return Run(cpu, 0.0, peak / 1024, wall, tree_mb=memory.tree_mb), output


def way(target: str, arguments: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Run:
    """Run "module:function" with keyword arguments (JSON) in a process tree of its own.

    NotMeasured if a package that it imports is not there.
    """
    words = [sys.executable, "-m", "benchmarks.measure", "--way", target, json.dumps(dict(arguments))]
    run, output = command(words, env)
    told = json.loads(output.rsplit("\n", 2)[-2])
    return Run(told["cpu"], told["startup"], run.peak_mb, run.wall, told["told"])


def run_way(target: str, arguments: Mapping[str, Any]) -> None:
    """In the child: prepare, work, and print the figures as the last line."""
    module, _, name = target.partition(":")
    try:
        work = getattr(importlib.import_module(module), name)(**arguments)
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NOT_INSTALLED)
    startup = cpu_seconds()
    told = work()
    print(f"\n{json.dumps({'cpu': cpu_seconds() - startup, 'startup': startup, 'told': told})}")


def cpu_seconds() -> float:
    """User + system time of this process and of the children that it waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


@dataclass
class Comparison:
    """Ours and peers on one input. The figure is `size` per CPU-second; if None, CPU-seconds: less is better.

    A way that worked on less of the input than all tells its own `size`, in the same unit. `shown`: keys of what the ways tell
    that stand in the table. `parts`: ways that are no peers of ours.
    """

    name: str
    unit: str
    goal: float  # the ratio to the best peer; with `absolute`, the figure itself
    size: float | None
    input: dict[str, Any]
    distributions: Sequence[str]
    absolute: bool = False
    shown: Sequence[str] = ()
    parts: Sequence[str] = ()
    runs: dict[str, list[Run]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def take_turns(self, ways: Mapping[str, tuple[str, Mapping[str, Any]]], rounds: int) -> None:
        """Run every way `rounds` times, one after the other in each round, so that a busy hour slows all of them."""
        for _ in range(rounds):
            for name, (target, arguments) in ways.items():
                if name in self.missing:
                    continue
                try:
                    self.runs.setdefault(name, []).append(way(target, arguments))
                except NotMeasured as reason:
                    self.missing[name] = str(reason)
                    self.runs.pop(name, None)

    def figure(self, name: str) -> float:
        """The median of a way's runs."""
        runs = self.runs[name]
        cpu = statistics.median(run.cpu for run in runs)
        return cpu if self.size is None else runs[0].told.get("size", self.size) / cpu

    def result(self) -> dict[str, Any]:
        """The one object of `--json`."""
        peers = {name: self.figure(name) for name in self.runs if name != "ours"} | dict.fromkeys(self.missing)
        ours = self.figure("ours")
        best = [figure for name, figure in peers.items() if figure is not None and name not in self.parts]
        ratio = None
        if best:
            ratio = min(best) / ours if self.size is None else ours / max(best)
        if self.absolute:
            meets: bool | None = ours <= self.goal if self.size is None else ours >= self.goal
        else:
            meets = ratio >= self.goal if ratio is not None else None
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": ours,
            "peers": peers,
            "ratio": ratio,
            "goal": self.goal,
            "meets": meets,
            "versions": versions(*self.distributions),
            "input": self.input,
        }

    def show(self, as_json: bool) -> None:
        """Print the object, or the table."""
        result = self.result()
        if as_json:
            told = {name: [asdict(run) for run in runs] for name, runs in self.runs.items()}
            print(json.dumps(result | {"runs": told}))
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{self.name}: {self.input}", title_justify="left")
        table.add_column("")
        for column in (self.unit, "CPU-s, least", "most", "start-up", "peak MB", "ours is × as good", *self.shown):
            table.add_column(column, justify="right")
        for name, runs in self.runs.items():
            cpus = [run.cpu for run in runs]
            figure, ours = self.figure(name), result["ours"]
            table.add_row(
                name,
                f"{figure:,.2f}",
                f"{min(cpus):.2f}",
                f"{max(cpus):.2f}",
                f"{statistics.median(run.startup for run in runs):.2f}",
                f"{statistics.median(run.peak_mb for run in runs):,.0f}",
                f"{figure / ours if self.size is None else ours / figure:.2f}",
                *(_plain(runs[-1].told.get(key, "")) for key in self.shown),
            )
        for name, reason in self.missing.items():
            table.add_row(name, "not measured", "", "", "", "", reason)
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(table)
        verdict = {True: "met", False: "not met", None: "not measured"}[result["meets"]]
        console.print(f"goal {self.goal:g}: {verdict}; {result['versions']}", highlight=False)


def _plain(value: Any) -> str:
    """A cell of the table."""
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def versions(*distributions: str) -> dict[str, str | None]:
    """Of the interpreter, the machine's kind and installed distributions; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "machine": platform.machine()}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def options(description: str, rounds: int = 3) -> argparse.ArgumentParser:
    """The arguments that every benchmark has."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="runs of each; the median counts")
    parser.add_argument("--json", action="store_true", help="print one object")
    return parser


def main() -> None:
    """Run a way (as a child), or measure a command."""
    if sys.argv[1:2] == ["--way"]:
        run_way(sys.argv[2], json.loads(sys.argv[3]))
        return
    if not sys.argv[1:]:
        raise SystemExit("usage: python -m benchmarks.measure COMMAND [ARGUMENT ...]")
    started = time.monotonic()
    run, output = command(sys.argv[1:])
    sys.stdout.write(output)
    sys.stderr.write(f"{run.cpu:.2f} CPU-s, {run.peak_mb:,.0f} MB at most, {time.monotonic() - started:.2f} s\n")


if __name__ == "__main__":
    main()
