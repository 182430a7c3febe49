"""Which runs branched off a run, so that nobody removes the checkpoint that they came from.

A branch is a small file RUN/branches/CHILD.json of {"version", "step", "child"}; `child` is a name of the branch, never its path.
Removing the file by hand gives the checkpoint free.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator
from pathlib import Path

from stackbuild.errors import InputError, UsageError
from stackbuild.shards import canonical_json, write_atomically
from stackbuild.train.checkpoint_manifest import read_small

VERSION = 1
MOST_MARKER = 1 << 16  # bytes
_CHILD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """While this lasts, nobody else removes checkpoints of a run, or marks one as a parent: else a parent could go between two looks."""
    run.mkdir(parents=True, exist_ok=True)
    with open(run / ".branches.lock", "ab") as lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def mark_branch(run: Path, step: int, child: str) -> None:
    """Write down that `child` branched off at `step`. UsageError: its name is none, or branched off elsewhere."""
    if not _CHILD.fullmatch(child):
        raise UsageError(f"{child!r} is no name of a branch: letters, digits, and _ . - behind the first")
    there = branches(run).get(child)
    if there is not None and there != step:
        raise UsageError(f"{run}: {child} branched off at step {there:,} already; name the branch otherwise")
    write_atomically(_marker(run, child), canonical_json({"version": VERSION, "step": step, "child": child}))


def unmark_branch(run: Path, child: str) -> None:
    """Forget a branch."""
    _marker(run, child).unlink(missing_ok=True)


def branches(run: Path) -> dict[str, int]:
    """The step at which each branch left. InputError: a marker cannot be read, so that nobody knows what may be removed."""
    found = {}
    for path in sorted((run / "branches").glob("[!.]*.json")):
        try:
            told = json.loads(read_small(path, MOST_MARKER))
            step = told["step"]
            if not isinstance(step, int) or step < 0:
                raise ValueError(f"step is {step!r}")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path}: cannot be read as the marker of a branch: {error}. Remove it if there is none"
            ) from error
        found[path.stem] = step
    return found


def _marker(run: Path, child: str) -> Path:
    return run / "branches" / f"{child}.json"
