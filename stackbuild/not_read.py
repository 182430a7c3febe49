"""Inputs that were asked for: what was not read is told in full to whoever builds; in what is released, places of this machine
and names of those who asked to be left out are missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild.graph import INGEST
from stackbuild.identity import without_places
from stackbuild.layout.conceal import concealed_rows
from stackbuild.plan import Build
from stackbuild.sources.unit import Unit

# An absolute path in a sentence; what follows a letter, a digit, a colon or a slash is part of a URL or a relative path.
PATH = re.compile(r"(?<![\w:/.~-])~?(?:/[^/\s'\",;:()<>]+)+/?")
CONCEALED = {"what": "an input whose owner asked to be left out", "reason": ""}


@dataclass(frozen=True)
class NotRead:
    """One input. `passing`: it was planned and nothing of it could be read; the next run tries again."""

    what: str
    reason: str
    passing: bool
    repo_name: str | None = None


def not_read(build: Build) -> list[NotRead]:
    """What was skipped when sources were resolved, then the units of which all or some files could not be read."""
    found = [NotRead(skip["what"], skip["reason"], False) for skip in build.plan.skipped]
    for shard, unit in zip(build.shards(INGEST.name), build.plan.units, strict=True):
        if reason := shard.stats.get("refused"):
            found.append(NotRead(unit_name(unit), reason, True, unit.repo_name))
        elif files := shard.stats.get("passing"):
            reason = f"{files} of its files could not be read, as decisions tell; the next run tries them again"
            found.append(NotRead(unit_name(unit), reason, False, unit.repo_name))
    return found


def unit_name(unit: Unit) -> str:
    return str(unit.repo_name or unit.key.get("name") or unit.kind)


def told(build: Build, missed: list[NotRead]) -> list[dict[str, str]]:
    """The same for a report that others read."""
    places = places_of(build, missed)
    shown = []
    for one in missed:
        others = [place for place in places if place in one.reason]
        if any(concealed(build, name, one.repo_name) for name in (one.what, *others, *PATH.findall(one.reason))):
            shown.append(CONCEALED)
        else:
            what, reason = (without_folders(text, places) for text in (one.what, one.reason))
            shown.append({"what": what, "reason": reason})
    return shown


def places_of(build: Build, missed: list[NotRead]) -> list[str]:
    """Every place of this machine that a reason may name, the longest first."""
    named = [value for unit in build.plan.units for value in unit.where.values()]
    found = {
        place for place in (*named, *(one.what for one in missed)) if isinstance(place, str) and os.path.isabs(place)
    }
    return sorted(found, key=lambda place: (-len(place), place))


def told_recipe(build: Build) -> dict[str, Any]:
    """The resolved recipe without places of this machine, and in its sources without names that are concealed."""

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: inner if name == "kind" else shown(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [shown(inner) for inner in value]
        hidden = isinstance(value, str) and concealed(build, value)
        return "(concealed)" if hidden else value

    recipe: dict[str, Any] = without_places(build.plan.recipe)
    return {**recipe, "source": shown(recipe["source"])}


def concealed(build: Build, what: str, repo_name: str | None = None) -> bool:
    """Whether a stage of the build names this input, by any name that a source would give it."""
    stages = [node.stage for node in build.nodes if node.stage.private_decisions]
    parts = os.path.basename(what.rstrip("/")).split(".")
    stems = [".".join(parts[: stop + 1]) for stop in range(len(parts))]  # of x.tar.gz also x.tar and x
    package = re.split(r"[=<>!~ ]", what)[0]
    names = {what, f"pypi/{package}", *(f"{kind}/{stem}" for kind in ("local", "archive") for stem in stems)}
    names |= {repo_name} if repo_name else set()
    table = pa.table(
        {
            "repo_name": pa.array([utf8(name) for name in sorted(names)]),
            "repo_url": pa.array([utf8(what)] * len(names)),
        }
    )
    return bool(concealed_rows(table, stages).any())


def utf8(text: str) -> str:
    """Text that Arrow takes: names of files may hold lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def without_folders(text: str, places: Sequence[str] = ()) -> str:
    """A sentence in which every absolute path is its last part; `places`: paths that may have blanks in them."""
    for place in places:
        text = text.replace(place, Path(place).name)
    return PATH.sub(lambda match: match[0].rstrip("/").rsplit("/", 1)[-1], text)
