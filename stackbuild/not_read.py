"""Inputs that were asked for and not read: told in full to whoever builds, and without places and names of others in what
is released.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from stackbuild.graph import INGEST
from stackbuild.layout.conceal import concealed_rows
from stackbuild.plan import Build
from stackbuild.sources.unit import Unit

# An absolute path in a sentence; what follows a letter, a digit, a colon or a slash is part of a URL or a relative path.
PATH = re.compile(r"(?<![\w:/.~-])~?(?:/[^/\s'\",;:()<>]+)+/?")
CONCEALED = {"what": "an input whose owner asked to be left out", "reason": ""}


@dataclass(frozen=True)
class NotRead:
    """One input. `passing`: it was planned and turned out to be torn or out of reach; the next run tries again."""

    what: str
    reason: str
    passing: bool
    repo_name: str | None = None


def not_read(build: Build) -> list[NotRead]:
    """What was skipped when sources were resolved, then the units that could not be read."""
    found = [NotRead(skip["what"], skip["reason"], False) for skip in build.plan.skipped]
    for shard, unit in zip(build.shards(INGEST.name), build.plan.units, strict=True):
        if reason := shard.stats.get("refused"):
            found.append(NotRead(unit_name(unit), reason, True, unit.repo_name))
    return found


def unit_name(unit: Unit) -> str:
    return str(unit.repo_name or unit.key.get("name") or unit.kind)


def told(build: Build, missed: list[NotRead]) -> list[dict[str, str]]:
    """The same for a report that others read."""
    shown = []
    for one in missed:
        if concealed(build, one):
            shown.append(CONCEALED)
        else:
            shown.append({"what": without_folders(one.what, one.what), "reason": without_folders(one.reason, one.what)})
    return shown


def concealed(build: Build, one: NotRead) -> bool:
    """Whether a stage of the build names this input, by any name that a source would give it."""
    stages = [node.stage for node in build.nodes if node.stage.private_decisions]
    base = os.path.basename(one.what.rstrip("/")).removesuffix(".git")
    package = re.split(r"[=<>!~ ]", one.what)[0]
    names = {one.repo_name or one.what, one.what, f"local/{base}", f"archive/{base}", f"pypi/{package}"}
    table = pa.table(
        {
            "repo_name": pa.array([name.encode("utf-8", "replace").decode() for name in sorted(names)]),
            "repo_url": pa.array([one.what.encode("utf-8", "replace").decode()] * len(names)),
        }
    )
    return bool(concealed_rows(table, stages).any())


def without_folders(text: str, what: str) -> str:
    """A sentence in which every absolute path is its last part."""
    if os.path.isabs(what):
        text = text.replace(what, Path(what).name)
    return PATH.sub(lambda match: match[0].rstrip("/").rsplit("/", 1)[-1], text)
