"""What a stage's output depends on beside its input: its code, its version, its options and the engines it calls."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from stackbuild.errors import MissingDependency
from stackbuild.stage import Stage

PACKAGE = "stackbuild"
# How tables are laid out in a file is part of every shard's identity.
WRITER_ENGINES = ("pyarrow",)
PLACES = ("paths", "urls")  # options of sources that only say where to look


def stage_identity(stage: Stage) -> dict[str, Any]:  # type: ignore[type-arg]
    """A JSON value that changes when the same input may give other output."""
    return {
        "name": stage.name,
        "version": stage.version,
        "code": module_digest(type(stage).__module__),
        "engines": {name: engine_version(name) for name in (*WRITER_ENGINES, *stage.engines)},
        "options": without_places(stage.options.model_dump(mode="json")),
        "data": dict(stage.key()),
    }


def without_places(value: Any) -> Any:
    """A recipe's value without what is true of one machine only: of a path, the name of the file stays.

    What lies at a path counts through `Stage.key` and through the units of a source.
    """
    if isinstance(value, dict):
        return {k: without_places(v) for k, v in value.items() if k not in PLACES}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    if isinstance(value, str) and value.startswith(("/", "~", "./", "../")):
        return value.rstrip("/").rsplit("/", 1)[-1]
    return value


@cache
def engine_version(distribution: str) -> str:
    """The installed version of a distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError as error:
        raise MissingDependency(
            f"{distribution} is not installed; install stackbuild again, or the extra that brings it."
        ) from error


@cache
def module_digest(module: str) -> str:
    """SHA-256 over the sources of a module and of the stackbuild modules that it imports, directly or not."""
    digest = hashlib.sha256()
    for name in sorted(reachable(module)):
        path = source_of(name)
        if path is not None:
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def reachable(module: str) -> set[str]:
    """The module and every stackbuild module that its import statements lead to (imports inside functions count too)."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = source_of(name)
        if path is not None and name.split(".")[0] == PACKAGE:
            waiting.extend(imports_of(path, name))
    return seen


def imports_of(path: Path, module: str) -> Iterator[str]:
    """Names of stackbuild modules that a source file imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE and source_of(name) is not None)


@cache
def source_of(module: str) -> Path | None:
    """The source file of a module, None if there is no such module."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
