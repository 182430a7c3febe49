"""Builds in a process of their own that are killed, or find no room, where a test says.

A `sitecustomize` on the path of the driver, the task server and the tasks stands between them and the system, so that the build
itself knows of nothing: FAULT is `what words`, and what happens does so when a file whose path holds the words is flushed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CUSTOMIZED = """
import errno, os, signal

what, _, words = os.environ.get("FAULT", "").partition(" ")
flush = os.fsync

def faulty(number):
    number = number if isinstance(number, int) else number.fileno()
    path = os.readlink(f"/proc/self/fd/{number}")
    if words in path and what == "kill":  # the driver, the task server and all tasks
        session = os.getsid(0)
        driver = int(open(f"/proc/{session}/stat").read().rpartition(")")[2].split()[1])
        os.kill(driver, signal.SIGKILL)
        os.killpg(session, signal.SIGKILL)
    if words in path and what == "full":
        os.ftruncate(number, os.fstat(number).st_size // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    flush(number)

if what in ("kill", "full"):
    os.fsync = faulty
if what == "hurry":  # as ever, but waiting less
    from dataclasses import fields
    from stackbuild.retries import WITHIN, Cause
    from stackbuild.sources.swh.options import FetchOptions
    WITHIN[Cause.TEMPORARY] = 0
    less = {"back_off": 0.01, "longest_wait": 0.05, "patience": 0.2}
    FetchOptions.__init__.__defaults__ = tuple(less.get(one.name, one.default) for one in fields(FetchOptions))
"""


def build(
    body: Mapping[str, Any], folder: Path, out: Path, fault: str = "", cache: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`stackbuild build` of a recipe with one worker. `folder`: for what it needs besides."""
    (folder / "python").mkdir(parents=True, exist_ok=True)
    (folder / "python" / "sitecustomize.py").write_text(CUSTOMIZED)
    (folder / "recipe.toml").write_text(toml(body))
    path = os.pathsep.join([str(folder / "python"), str(Path(__file__).parents[3])])
    environment = {**os.environ, "PYTHONPATH": path, "FAULT": fault, "COLUMNS": "10000"}
    environment |= {"STACKBUILD_CACHE": str(cache or folder / "cache")}
    command = [sys.executable, "-m", "stackbuild", "build", str(folder / "recipe.toml"), "--output", str(out)]
    return subprocess.run([*command, "--workers", "1"], env=environment, capture_output=True, text=True, check=False)


def toml(body: Mapping[str, Any]) -> str:
    """A recipe as its file; its values are written alike in JSON and TOML."""
    simple = {name: value for name, value in body.items() if name != "source" and not isinstance(value, dict)}
    tables = [(f"[{name}]", value) for name, value in body.items() if isinstance(value, dict)]
    tables += [("[[source]]", value) for value in body["source"]]
    lines = [f"{name} = {json.dumps(value)}" for name, value in simple.items()]
    for title, table in tables:
        lines += [title, *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    return "\n".join(lines)
