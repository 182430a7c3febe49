"""What a stage's output depends on beside its input: its code, its version, its options and the engines it calls."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from stackbuild.errors import MissingDependency
from stackbuild.stage import Stage

PACKAGE = "stackbuild"
# What every shard passes through on its way from input to file, whatever its stage: a change in any may change its bytes.
ENGINE_MODULES = (
    "counts",
    "decisions",
    "execute",
    "footers",
    "gather",
    "hashing",
    "ingest",
    "judging",
    "parts",
    "rows",
    "schema",
    "shards",
    "stage",
    "tables",
    "task",
    "walks",
)
ENGINES = ("pyarrow", "numpy", "numba")
# Options that say where something lies on this machine. What lies there counts through `Stage.key` and a source's units.
PLACES = ("paths", "urls", "endpoint_url")  # of sources
FILES = (
    "export",
    "objects",
    "gharchive",
    "list",
    "tokenizer",
    "rules",
    "policy",
    "permissive",
    "model",
    "gibberish_model",
    "ner_model",
    "spacy_model",
)  # of sources and stages: a name, or the path of a file


def stage_identity(stage: Stage) -> dict[str, Any]:  # type: ignore[type-arg]
    """A JSON value that changes when the same input may give other output."""
    options = stage.options.model_dump(mode="json")
    return {
        "name": stage.name,
        "version": stage.version,
        "code": module_digest(type(stage).__module__),
        "engine": engine_identity(),
        "engines": {name: engine_version(name) for name in stage.engines},
        "options": {k: file_name(v) if k in stage.options.files else v for k, v in options.items()},
        "data": dict(stage.key()),
    }


def text_version(stage: Stage) -> str:  # type: ignore[type-arg]
    """The version under which a stage's rewriting of text is recorded, and asked for when it is done again: its own, and a
    digest of its rules and of the modules of its own package. What it is built on may change: the text's hash tells."""
    module = type(stage).__module__
    own = module.rpartition(".")[0] or module
    digest = hashlib.sha256(json.dumps(dict(stage.key()), sort_keys=True, default=str).encode())
    for name in sorted(name for name in reachable(module) if name == own or name.startswith(f"{own}.")):
        path = source_of(name)
        if path is not None:
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{stage.version}-{digest.hexdigest()[:16]}"


def writer_version() -> dict[str, str]:
    """What the bytes of a released table depend on beside its rows: the library and our own code that calls it."""
    path = source_of(f"{PACKAGE}.tables")
    assert path is not None
    return {"pyarrow": engine_version("pyarrow"), "tables": hashlib.sha256(path.read_bytes()).hexdigest()[:16]}


@cache
def engine_identity() -> dict[str, Any]:
    """The same of what every shard passes through: our own modules, Python (its Unicode tables, its sort) and the libraries."""
    digest = hashlib.sha256()
    for name in ENGINE_MODULES:
        path = source_of(f"{PACKAGE}.{name}")
        assert path is not None
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    python = ".".join(str(part) for part in sys.version_info[:2])
    return {"code": digest.hexdigest(), "python": python, **{name: engine_version(name) for name in ENGINES}}


def without_places(value: Any) -> Any:
    """A recipe's value without what is true of one machine only: of a path, the name of the file stays."""
    if isinstance(value, dict):
        named = {k: file_name(v) if k in FILES else v for k, v in value.items() if k not in PLACES}
        return {k: without_places(v) for k, v in named.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    return value


def file_name(value: Any) -> Any:
    """The last part of what is a path (recipes hold absolute ones when they are resolved); anything else as it is."""
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
    """SHA-256 over the sources of a module and of the modules of stackbuild and of its own package that it imports,
    directly or not."""
    digest = hashlib.sha256()
    for name in sorted(reachable(module)):
        path = source_of(name)
        if path is not None:
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def reachable(module: str) -> set[str]:
    """The module and every module of stackbuild and of its own top-level package that its import statements lead to
    (imports inside functions count too)."""
    packages = {PACKAGE, module.split(".", maxsplit=1)[0]}
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = source_of(name)
        if path is not None:
            waiting.extend(found for found in imports_of(path, name) if found.split(".")[0] in packages)
    return seen


@cache
def imports_of(path: Path, module: str) -> frozenset[str]:
    """Names of the modules that a source file imports, as far as they have a source; `module` is its own name."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    top = module.split(".", maxsplit=1)[0]
    found: set[str] = set()
    for node in statements(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            found.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return frozenset(n for n in found if n.split(".")[0] in (PACKAGE, top) and source_of(n) is not None)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements of a module, nested ones too. Expressions, nine in ten of its nodes, hold none and are passed over."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting.extend(getattr(node, name, ()))


@cache
def source_of(module: str) -> Path | None:
    """The source file of a module, None if there is no such module. No module is imported for it: `find_spec` of a dotted
    name would import all that stands before the last dot, with whatever that imports."""
    top, *names = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, AttributeError, ValueError):
        return None
    if spec is None:
        return None
    if not names:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for location in spec.submodule_search_locations or ():
        base = Path(location, *names)
        for path in (base / "__init__.py", base.with_name(base.name + ".py")):
            if path.is_file():
                return path
    return None
