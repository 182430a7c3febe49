"""Reading a git repository, every file hashed twice, against `git cat-file --batch` that only reads.

Ours walks the trees, checks sizes, reads every blob of HEAD, verifies its git SHA-1 and takes the plain SHA-1; git is
handed the list of all blob ids and writes the bytes to nowhere. Each run is a process of its own; the two take turns.
The figure is CPU-seconds (user + system, children included) without the start of the interpreter, which is shown apart.

    python benchmarks/git_ingest.py [--repo PATH] [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GOAL = 2.0
FILES, RELEASES, BYTES = 4_000, 4, 120 * 1024 * 1024
SUFFIXES = (".py", ".pyi", ".h", ".hpp", ".c", ".pyx", ".js", ".css", ".html", ".json", ".txt", ".md", ".rst", ".toml")

OURS = """
import hashlib, json, os, resource, sys
from stackbuild.sources.git import SOURCE, GitOptions
from stackbuild.sources.unit import File, Limits, ResolveContext
import pygit2
def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
options = GitOptions(kind="git", paths=(sys.argv[1],))
started = cpu()
(unit,), _ = SOURCE.units(options, ResolveContext(cache=""))
planned = cpu()
files = size = 0
for entry in SOURCE.read(unit, options, Limits(file_bytes=1 << 30)):
    if isinstance(entry, File):
        files, size = files + 1, size + len(entry.data)
        hashlib.sha1(entry.data).digest()
done = cpu()
print(json.dumps({"start": started, "plan": planned - started, "cpu": done - planned, "files": files, "bytes": size}))
"""


def environment() -> dict[str, str]:
    """A process environment with no git configuration but the repository's own."""
    quiet = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "OMP_NUM_THREADS": "1",
    }
    person = {f"GIT_{who}_{what}": "bench@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = {f"GIT_{who}_DATE": "1700000000 +0000" for who in ("AUTHOR", "COMMITTER")}
    return os.environ | quiet | person | dates


def git(folder: Path, *command: str) -> bytes:
    """The output of one git command in a folder."""
    return subprocess.run(["git", *command], cwd=folder, env=environment(), check=True, capture_output=True).stdout


def sources() -> list[tuple[Path, str]]:
    """Text files of the installed distributions, by name: (file, name inside its distribution)."""
    found: dict[str, Path] = {}
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or ():
            name = str(file)
            if name.endswith(SUFFIXES) and ".." not in name and not name.startswith("/"):
                path = Path(str(distribution.locate_file(file)))
                if path.is_file() and path.stat().st_size < 2_000_000:
                    found[name] = path
    return [(found[name], name) for name in sorted(found)]


def build(folder: Path) -> None:
    """Commit releases to a generated repository: each adds files and changes lines of a third of the older ones."""
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "gc.auto", "0")  # it would pack in the background
    chosen, total = [], 0
    for path, name in sources():
        if len(chosen) == FILES or total > BYTES:
            break
        chosen.append((path, name))
        total += path.stat().st_size
    for release in range(1, RELEASES + 1):
        for number, (path, name) in enumerate(chosen[: len(chosen) * release // RELEASES]):
            target = folder / name
            if target.exists() and number % 3 != release % 3:
                continue
            lines = path.read_bytes().splitlines(keepends=True)
            lines.insert(len(lines) * release // (RELEASES + 1), b"release %d\n" % release)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"".join(lines))
        git(folder, "add", "-A", "-f")
        git(folder, "commit", "-q", "-m", f"release {release}")
    git(folder, "gc", "-q")  # packed with deltas, as a clone is


def measured(command: list[str], feed: Path | None = None) -> tuple[float, int, bytes]:
    """CPU-seconds and peak bytes of one process with its children, and what it said on stderr or, for ours, stdout."""
    with tempfile.TemporaryFile() as said, open(feed or os.devnull, "rb") as stdin:
        out: Any = subprocess.DEVNULL if feed else said
        process = subprocess.Popen(command, stdin=stdin, stdout=out, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[0]} ended with {process.returncode}")
        said.seek(0)
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, said.read()


def compare(repository: Path, rounds: int) -> dict[str, Any]:
    """Medians of alternating runs over one repository."""
    listing = git(repository, "ls-tree", "-rz", "HEAD").split(b"\0")[:-1]
    blobs = [entry.split(b"\t")[0].split()[2] for entry in listing if entry.startswith(b"100")]
    inner = Path(git(repository, "rev-parse", "--absolute-git-dir").decode().strip())
    with tempfile.NamedTemporaryFile() as ids:
        ids.write(b"\n".join(blobs) + b"\n")
        ids.flush()
        peers = {
            "git cat-file --batch": ["git", f"--git-dir={inner}", "cat-file", "--batch"],
            "git cat-file --batch --buffer": ["git", f"--git-dir={inner}", "cat-file", "--batch", "--buffer"],
        }
        runs: dict[str, list[tuple[float, int]]] = {name: [] for name in ("ours", *peers)}
        inside: list[dict[str, float]] = []
        for turn in range(rounds + 1):  # the first warms the page cache
            _, peak, said = measured([sys.executable, "-c", OURS, str(repository)])
            report = json.loads(said)
            theirs = {name: measured(command, Path(ids.name))[:2] for name, command in peers.items()}
            if turn:
                inside.append(report)
                runs["ours"].append((report["cpu"], peak))
                for name, run in theirs.items():
                    runs[name].append(run)
    if inside[0]["files"] != len(blobs):
        raise SystemExit(f"ours read {inside[0]['files']} files, git lists {len(blobs)}")
    cpu = {name: statistics.median(run[0] for run in of) for name, of in runs.items()}
    megabytes = inside[0]["bytes"] / 1e6
    return {
        "cpu": cpu,
        "rate": {name: megabytes / seconds for name, seconds in cpu.items()},
        "peak": {name: max(run[1] for run in of) / 1e6 for name, of in runs.items()},
        "start": statistics.median(report["start"] for report in inside),
        "plan": statistics.median(report["plan"] for report in inside),
        "files": len(blobs),
        "megabytes": megabytes,
    }


def main() -> None:
    """Build or take the repository, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, help="a repository to read instead of a generated one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    chosen = parser.parse_args()
    made = None if chosen.repo else Path(tempfile.mkdtemp(prefix="stackbuild-bench-"))
    try:
        if made:
            build(made)
        found = compare(chosen.repo or made or Path(), chosen.rounds)
    finally:
        if made:
            shutil.rmtree(made)
    ours, *peers = found["cpu"]
    ratio = found["cpu"][ours] / found["cpu"][peers[0]]
    versions = {name: importlib.metadata.version(name) for name in ("stackbuild", "pygit2")}
    versions |= {"git": git(Path(), "--version").decode().split()[2], "python": platform.python_version()}
    what = "a generated repository" if made else "--repo"
    shape = f"{found['files']} files, {found['megabytes']:.1f} MB at HEAD of {what}"
    if chosen.json:
        result = {
            "name": "git_ingest", "unit": "CPU-s", "ours": found["cpu"][ours],
            "peers": {name: found["cpu"][name] for name in peers}, "ratio": ratio, "goal": f"<= {GOAL}",
            "meets": ratio <= GOAL, "versions": versions, "input": shape,
        }  # fmt: skip
        print(json.dumps(result))
        return
    print(f"{shape}; median of {chosen.rounds}; {versions}")
    print(f"{'':32}{'CPU-s':>9}{'MB/CPU-s':>10}{'peak MB':>9}{'ratio':>7}")
    for name in (ours, *peers):
        row = found["cpu"][name], found["rate"][name], found["peak"][name], found["cpu"][name] / found["cpu"][peers[0]]
        print(f"{name:32}{row[0]:9.3f}{row[1]:10.1f}{row[2]:9.1f}{row[3]:7.2f}")
    print(f"apart: start of the interpreter {found['start']:.3f} CPU-s, resolving and sizing {found['plan']:.3f} CPU-s")
    print(f"goal: at most {GOAL} times git: {'met' if ratio <= GOAL else 'missed'} ({ratio:.2f})")


if __name__ == "__main__":
    main()
