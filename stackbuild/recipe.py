"""What to build: a recipe read from TOML, extended, overridden and validated before anything runs.

A recipe is data from a stranger: it names stages of the registry and sets their options; it imports nothing and expands
no variable. How files extend each other is in `recipe_merge`, what they may say in `recipe_check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from stackbuild.errors import RecipeError
from stackbuild.identity import without_places
from stackbuild.recipe_check import FINISHERS, Envelope, Lookup, Problems, validate
from stackbuild.recipe_merge import Layer, LayerError, find, is_bundled, joined, leaves, overridden, read
from stackbuild.shards import digest

SOURCE_PATHS = ("paths", "list")  # options of sources that say where to read
SOURCE_ADDRESSES = ("export", "objects", "gharchive")  # paths too, unless they are URLs
# Options of stages that may name a file.
STAGE_FILES = (
    "list", "tokenizer", "rules", "policy", "permissive", "model", "gibberish_model", "ner_model", "spacy_model",
)  # fmt: skip
ALWAYS_FILES = ("list", "model", "gibberish_model", "ner_model")
FILE_SUFFIXES = (".toml", ".json", ".jsonl", ".txt")


@dataclass(frozen=True)
class Recipe:
    """A validated recipe. `values`: every value, defaults too. `layer`: what was set, and where."""

    values: dict[str, Any]
    layer: Layer
    folder: Path  # that relative paths start from

    def resolved(self) -> dict[str, Any]:
        """All values as JSON; paths are absolute."""
        return self.values

    def origin(self, dotted: str) -> str:
        """The file and line, `--set` or `default` that a value came from."""
        return str(self.layer.origin(dotted) or "default")

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the resolved values; folders of this machine do not count."""
        return digest(without_places(self.values))


# ---------------------------------------------------------------- reading


def load(path: str | Path, overrides: Iterable[str] = (), lookup: Lookup | None = None) -> Recipe:
    """Read, extend, override and validate; one RecipeError tells everything that is wrong.

    A relative path starts from the folder of the file that sets it, in `--set` and for a recipe that stackbuild brings
    from the current folder; what a recipe takes over from one that stackbuild brings starts from its own folder.
    """
    lookup = lookup or _registry()
    found = find(path)
    folder = Path.cwd() if is_bundled(found) else found.resolve().parent
    problems = Problems()
    layer, readable = Layer(), True
    try:
        layer = read(found, folder)
    except LayerError as error:
        problems.add("", str(error))
        readable = False
    for override in overrides if readable else ():
        try:
            layer = overridden(layer, override)
        except LayerError as error:
            problems.add("", str(error))
    values = validate(layer, lookup, problems) if readable else {}
    if problems.found:
        raise RecipeError(f"{path} is not a valid recipe:\n{problems.told(layer)}")
    return Recipe(located(values, layer, folder), layer, folder)


def located(values: dict[str, Any], layer: Layer, folder: Path) -> dict[str, Any]:
    """The values with paths of sources and of stages' files absolute, each from the folder of the file that set it."""

    def absolute(value: str, dotted: str) -> str:
        origin = layer.origin(dotted)
        return str((origin.folder if origin else folder) / Path(value).expanduser())

    def source(table: dict[str, Any], dotted: str) -> dict[str, Any]:
        changed = dict(table)
        for key in (*SOURCE_PATHS, *SOURCE_ADDRESSES):
            value, path = table.get(key), joined(dotted, key)
            if key in SOURCE_ADDRESSES and isinstance(value, str) and "://" in value:
                continue
            if isinstance(value, str):
                changed[key] = absolute(value, path)
            elif isinstance(value, list):
                changed[key] = [absolute(item, path) for item in value]
        return changed

    def stage(table: Any, dotted: str) -> Any:
        changed = dict(table)
        for key in files_of(table):
            changed[key] = absolute(table[key], joined(dotted, key))
        return changed

    result = {
        key: value if key in Envelope.model_fields else stage(value, joined("", key)) for key, value in values.items()
    }
    result["source"] = [source(table, joined("source", number)) for number, table in enumerate(values["source"])]
    result["stage"] = {name: stage(table, joined("stage", name)) for name, table in values["stage"].items()}
    return result


def files_of(table: Mapping[str, Any]) -> list[str]:
    """The options in a stage's table that are given a file's path."""
    return [
        key
        for key in STAGE_FILES
        if isinstance(value := table.get(key), str) and (key in ALWAYS_FILES or names_a_file(value))
    ]


def names_a_file(value: str) -> bool:
    """Whether an option that takes a name or a file is given a file: by its look, whatever lies around."""
    return "/" in value or value.startswith("~") or value.endswith(FILE_SUFFIXES)


def _registry() -> Lookup:
    from stackbuild import registry

    return registry


# ---------------------------------------------------------------- for people and editors


def resolved_lines(recipe: Recipe) -> list[tuple[str, Any, str]]:
    """(dotted path, value, origin) of every leaf, in order."""
    return [
        (path, value, recipe.origin(path))
        for key, inner in recipe.values.items()
        for path, value in leaves(inner, joined("", key))
    ]


def json_schema(lookup: Lookup | None = None) -> dict[str, Any]:
    """A JSON Schema of recipe files with the stages and sources that are installed, for editors."""
    lookup = lookup or _registry()
    stages = {name: lookup.stage_options(name) for name in (*lookup.stage_names(), *FINISHERS)}
    sources = {kind: lookup.source_options(kind) for kind in lookup.source_kinds()}
    models: list[type[BaseModel]] = [Envelope]
    models += [model for model in (*stages.values(), *sources.values()) if model is not None]
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in dict.fromkeys(models)]
    references, definitions = models_json_schema(wanted, ref_template="#/$defs/{model}")

    def reference(model: type[BaseModel]) -> dict[str, Any]:
        return {"$ref": references[model, "validation"]["$ref"]}

    schema: dict[str, Any] = definitions["$defs"].pop(references[Envelope, "validation"]["$ref"].rsplit("/", 1)[1])
    tables = {name: reference(model) for name, model in stages.items() if model is not None}
    kinds = [
        {"allOf": [reference(model)], "properties": {"kind": {"const": kind}}}
        for kind, model in sources.items()
        if model is not None
    ]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"] = definitions["$defs"]
    schema["properties"].update(tables)
    schema["properties"]["extends"] = {"type": "string", "description": "a recipe that this one is laid over"}
    schema["properties"]["stage"] = {
        "type": "object",
        "description": "options of one stage instance, by its name",
        "additionalProperties": {"anyOf": [*tables.values(), {"type": "object"}]},
    }
    schema["properties"]["source"]["items"] = {"anyOf": kinds}
    # What a recipe extends may have the rest.
    schema["anyOf"] = [{"required": ["extends"]}, {"required": schema.pop("required")}]
    return schema


INIT = """# A recipe for stackbuild: what to read, which stages to run, what to make.
# `stackbuild plan recipe.toml` shows the jobs; `stackbuild build recipe.toml --output OUT` runs them.
# `stackbuild plan recipe.toml --resolved` shows every value and where it came from; docs/recipes.md describes each.

name = "my-dataset"
seed = 42                     # every random draw is a hash of it and a key
extends = "default.toml"      # stages and options that stackbuild brings; what stands here is laid over them
partitions = 16               # a power of two; about one for each 100 to 250 MB of text

[[source]]
kind = "git"                  # git, archives, directory, pypi, parquet
paths = ["~/src"]             # folders that are searched for repositories; relative ones start beside this file

# [opt_out]
# list = "opt-out.txt"        # owners, owner/repo, URLs or SWHIDs, one a line

[license_filter]
keep = ["permissive"]         # permissive, no_license, unknown, weak_copyleft, non_permissive

[near_dedup]
threshold = 0.7               # files at least this similar (Jaccard of word 5-grams) to a kept file leave

[tokens]
vocab_size = 8192             # or: tokenizer = "path/to/tokenizer.json"
"""


def init_text() -> str:
    """A commented recipe to begin with."""
    return INIT
