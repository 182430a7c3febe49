"""What to build: the recipe's envelope, read from TOML and validated before anything runs.

A recipe is data from a stranger: it names stages of the registry and sets their options; it imports nothing and expands no
variable. `extends` takes another recipe and lays this one over it: tables are merged, lists replaced. Each stage's table is
checked by that stage's own options model, each `[[source]]` by its source's. All errors are told at once, each with its
dotted path.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from stackbuild.errors import RecipeError
from stackbuild.shards import digest

OUTPUTS = ("dataset", "repos", "tokens", "index")
FINISHERS = ("layout", "tokens")
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FILES = ("list", "tokenizer", "rules", "policy", "permissive")  # options of stages that may name a file
DEPTH = 16  # of `extends`


class Lookup(Protocol):
    """What the recipe needs to know of the registry."""

    def stage_names(self) -> list[str]: ...
    def source_kinds(self) -> list[str]: ...
    def stage_options(self, instance: str) -> type[BaseModel] | None: ...
    def source_options(self, kind: str) -> type[BaseModel] | None: ...


class LimitOptions(BaseModel):
    """Caps on what strangers send; each has a counter, and what it stops is in the decisions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_bytes: int = Field(10 << 20, gt=0, description="a file above this is not read")
    unit_bytes: int = Field(16 << 30, gt=0, description="all files of one repository or archive together")
    unit_files: int = Field(1_000_000, gt=0, description="files of one repository or archive")
    depth: int = Field(64, gt=0, description="folders within folders")
    path_bytes: int = Field(4_096, gt=0, description="length of a path")
    ratio: int = Field(200, gt=1, description="decompressed to compressed bytes of an archive, beyond the first 64 MiB")


class Envelope(BaseModel):
    """The keys of a recipe beside the tables of its stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="of the dataset; letters, digits, dot, dash and underscore")
    seed: int = Field(42, ge=0, lt=2**63, description="every random draw is a hash of it and a key")
    stages: list[str] = Field(min_length=1, description="stages in order; a second one of a kind is named `name:label`")
    outputs: list[str] = Field(default=list(OUTPUTS), description=f"what to make: {', '.join(OUTPUTS)}")
    partitions: int = Field(16, ge=1, le=65_536, description="a power of two; a partition's text should stay below some 256 MB")
    source: list[dict[str, Any]] = Field(min_length=1, description="where files come from")
    limits: LimitOptions = Field(default_factory=LimitOptions, description="caps on what strangers send")
    contact: str = Field("ask the maintainer of this dataset", description="where people ask for the removal of their code, for the card")
    description: str = Field("", description="a paragraph of Markdown for the card")
    deviations: dict[str, str] = Field(default_factory=dict, description="where this differs from a published recipe, in words")
    slurm: dict[str, Any] = Field(default_factory=dict, description="for a cluster")

    @field_validator("name")
    @classmethod
    def _slug(cls, value: str) -> str:
        if not SLUG.fullmatch(value):
            raise ValueError("use letters, digits, dot, dash and underscore, a letter or digit first")
        return value

    @field_validator("partitions")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"must be a power of two, such as {1 << value.bit_length()}")
        return value

    @field_validator("outputs")
    @classmethod
    def _known_outputs(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in OUTPUTS:
                raise ValueError(f"{name!r} is no output{did_you_mean(name, OUTPUTS)}; there are {', '.join(OUTPUTS)}")
        return value


@dataclass(frozen=True)
class Recipe:
    """A validated recipe. `values`: every value, defaults too. `origins`: dotted path of each leaf to where it was set."""

    values: dict[str, Any]
    origins: dict[str, str]
    folder: Path  # that relative paths start from

    def resolved(self) -> dict[str, Any]:
        """All values as JSON."""
        return self.values

    def origin(self, dotted: str) -> str:
        """The file, `--set` or `default` that a value came from."""
        return self.origins.get(dotted, "default")

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the resolved values."""
        return digest(self.values)


# ---------------------------------------------------------------- reading


def load(path: str | Path, overrides: Iterable[str] = (), lookup: Lookup | None = None) -> Recipe:
    """Read, extend, override and validate; one RecipeError tells everything that is wrong."""
    lookup = lookup or _registry()
    found = find(path)
    layer = read(found, ())
    for override in overrides:
        layer = apply_override(layer, override)
    values = located(validate(layer.values, lookup, str(path)), found.parent.resolve())
    return Recipe(values, layer.origins, found.parent.resolve())


def located(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Stage options that name a file beside the recipe, as absolute paths; sources locate their own."""

    def locate(table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        return {
            key: str(folder / Path(value).expanduser()) if isinstance(value, str) and key in FILES and is_file(folder, value) else locate(value)
            for key, value in table.items()
        }

    return {key: value if key == "source" else locate(value) for key, value in values.items()}


def is_file(folder: Path, name: str) -> bool:
    """Whether a value is the name of a file that is there, seen from the recipe's folder."""
    try:
        return (folder / Path(name).expanduser()).is_file()
    except (OSError, ValueError):
        return False


def _registry() -> Lookup:
    from stackbuild import registry

    return registry  # type: ignore[return-value]


def find(path: str | Path) -> Path:
    """A recipe file, or a recipe that stackbuild brings, by its name."""
    candidate = Path(path).expanduser()
    if candidate.is_file():
        return candidate
    for folder in bundled_folders():
        for name in (candidate.name, f"{candidate.name}.toml"):
            if (folder / name).is_file() and str(candidate.parent) in (".", "pipelines"):
                return folder / name
    names = sorted(p.stem for folder in bundled_folders() for p in folder.glob("*.toml"))
    raise RecipeError(f"There is no recipe {path}; give a file, or one of those that stackbuild brings: {', '.join(names)}.")


def bundled_folders() -> list[Path]:
    """Where recipes lie: beside the package in a checkout, inside it in an installation."""
    package = Path(str(resources.files("stackbuild")))
    return [folder for folder in (package / "data" / "pipelines", package.parent / "pipelines") if folder.is_dir()]


@dataclass
class Layer:
    """Merged TOML tables, and where each leaf was set."""

    values: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)


def read(path: Path, above: tuple[Path, ...]) -> Layer:
    """A recipe file laid over what it extends."""
    resolved = path.resolve()
    if resolved in above or len(above) >= DEPTH:
        raise RecipeError(f"{path}: `extends` leads back to itself or is over {DEPTH} deep: {' -> '.join(p.name for p in (*above, resolved))}.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}.") from error
    parent = values.pop("extends", None)
    layer = Layer({})
    if parent is not None:
        if not isinstance(parent, str):
            raise RecipeError(f"{path}: extends: give the name of one recipe file.")
        beside = path.parent / parent
        layer = read(beside if beside.is_file() else find(parent), (*above, resolved))
    return merged(layer, values, path.name)


def merged(below: Layer, above: Mapping[str, Any], origin: str, prefix: str = "") -> Layer:
    """Tables are merged, everything else is replaced."""
    values, origins = dict(below.values), dict(below.origins)
    for key, value in above.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            inner = merged(Layer(values[key], origins), value, origin, f"{dotted}.")
            values[key], origins = inner.values, inner.origins
        else:
            origins = {k: v for k, v in origins.items() if k != dotted and not k.startswith((f"{dotted}.", f"{dotted}["))}
            values[key] = value
            origins.update({leaf: origin for leaf, _ in leaves(value, dotted)})
    return Layer(values, origins)


def leaves(value: Any, dotted: str) -> Iterable[tuple[str, Any]]:
    """Dotted paths of a value's leaves; the items of a list of tables are numbered."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{dotted}.{key}")
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from leaves(item, f"{dotted}[{number}]")
    else:
        yield dotted, value


def apply_override(layer: Layer, text: str) -> Layer:
    """`a.b=c`: c is a TOML value, or a string if it is none; a number in the path picks an item of a list."""
    dotted, equals, raw = text.partition("=")
    keys = split_dotted(dotted.strip())
    if not equals or not keys:
        raise RecipeError(f"--set {text}: write it as key=value, such as near_dedup.threshold=0.8.")
    try:
        value = tomllib.loads(f"value = {raw.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    at = next((position for position, key in enumerate(keys) if key.isdigit()), None)
    if at is None:
        table: Any = value
        for key in reversed(keys):
            table = {key: table}
        return merged(layer, table, "--set")
    try:
        listed = [dict(item) for item in layer.values[keys[at - 1]]]
        target: Any = listed[int(keys[at])]
        for key in keys[at + 1 : -1]:
            target = target.setdefault(key, {})
        target[keys[-1]] = value
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RecipeError(f"--set {text}: the recipe has no such list item.") from error
    changed = merged(layer, {keys[at - 1]: listed}, "--set")
    origins = {k: layer.origins.get(k, "--set") for k in changed.origins}
    origins[f"{keys[0]}[{keys[at]}].{'.'.join(keys[at + 1 :])}"] = "--set"
    return Layer(changed.values, origins)


def split_dotted(text: str) -> list[str]:
    """The keys of a dotted path; a part in double quotes may hold dots."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]+)"|([^."\s]+)', text)]


# ---------------------------------------------------------------- validating


def validate(values: Mapping[str, Any], lookup: Lookup, where: str) -> dict[str, Any]:
    """Every value with its default; RecipeError with all that is wrong."""
    problems: list[str] = []
    stage_names = lookup.stage_names()
    envelope_keys = list(Envelope.model_fields)
    tables = {key: value for key, value in values.items() if key not in envelope_keys and key != "stage"}
    own = values.get("stage", {})
    resolved: dict[str, Any] = {}
    try:
        envelope = Envelope.model_validate({key: values[key] for key in envelope_keys if key in values})
        resolved = envelope.model_dump(mode="json")
    except ValidationError as error:
        problems += told(error, "", Envelope)
    stages = [name for name in values.get("stages", ()) if isinstance(name, str)] if isinstance(values.get("stages"), list) else []
    instances = numbered_instances(stages)
    known = []
    for number, instance in enumerate(instances):
        base = instance.split(":", 1)[0]
        if base in stage_names or base == "datatrove":
            known.append(instance)
            if base == "datatrove" and lookup.stage_options(instance) is None:
                problems.append(f"stages[{number}]: {instance!r} is not among the datatrove blocks that a recipe may name")
                known.pop()
        elif base in FINISHERS:
            problems.append(f"stages[{number}]: {base!r} is made after the stages; name it under outputs")
        else:
            problems.append(f"stages[{number}]: there is no stage {instance!r}{did_you_mean(base, stage_names)}; there are {', '.join(stage_names)}")
    bases = {*(instance.split(":", 1)[0] for instance in known), *FINISHERS}
    for name, table in tables.items():
        if name in bases:
            resolved[name] = checked(lookup.stage_options(name), table, name, problems)
        elif name in stage_names:
            problems.append(f"{name}: the recipe has options for {name!r}, but it is not among its stages")
        else:
            problems.append(f"{name}: unknown key{did_you_mean(name, [*envelope_keys, *stage_names, *FINISHERS, 'stage', 'extends'])}")
    resolved_own: dict[str, Any] = {}
    if isinstance(own, dict):
        for instance, table in own.items():
            if instance in known:
                resolved_own[instance] = checked(lookup.stage_options(instance), table, f'stage."{instance}"', problems)
            else:
                problems.append(f'stage."{instance}": no such stage in `stages`{did_you_mean(instance, instances)}')
    for name in sorted(bases - set(resolved) - {"datatrove"}):
        resolved[name] = checked(lookup.stage_options(name), {}, name, problems)
    if isinstance(values.get("source"), list):
        resolved["source"] = [checked_source(lookup, table, f"source[{n}]", problems) for n, table in enumerate(values["source"])]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise RecipeError(f"{where} is not a valid recipe:\n{lines}")
    resolved["stages"] = instances
    resolved["stage"] = resolved_own
    return resolved


def numbered_instances(stages: list[str]) -> list[str]:
    """Stage instances with names of their own: a bare name that comes again gets `:2`, `:3`."""
    seen: dict[str, int] = {}
    named = []
    for name in stages:
        seen[name] = seen.get(name, 0) + 1
        named.append(name if seen[name] == 1 else f"{name}:{seen[name]}")
    return named


def checked(model: type[BaseModel] | None, table: Any, dotted: str, problems: list[str]) -> Any:
    """A table validated by a model, as JSON with defaults."""
    if model is None:
        problems.append(f"{dotted}: there is nothing that takes options of this name")
        return {}
    if not isinstance(table, dict):
        problems.append(f"{dotted}: must be a table")
        return {}
    try:
        return model.model_validate(table).model_dump(mode="json")
    except ValidationError as error:
        problems += told(error, f"{dotted}.", model)
        return {}


def checked_source(lookup: Lookup, table: Any, dotted: str, problems: list[str]) -> Any:
    """A `[[source]]` table, by its kind."""
    kind = table.get("kind") if isinstance(table, dict) else None
    kinds = lookup.source_kinds()
    if kind not in kinds:
        problems.append(f"{dotted}.kind: {kind!r} is no source{did_you_mean(str(kind), kinds)}; there are {', '.join(kinds)}")
        return {}
    return checked(lookup.source_options(kind), table, dotted, problems)


def told(error: ValidationError, prefix: str, model: type[BaseModel]) -> list[str]:
    """Each of pydantic's errors in a line of ours."""
    lines = []
    for item in error.errors(include_url=False, include_context=True):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).removeprefix(".")
        if item["type"] == "extra_forbidden":
            text = f"unknown key{did_you_mean(str(item['loc'][-1]), list(model.model_fields))}"
        elif item["type"] == "missing":
            text = "is missing"
        else:
            text = item["msg"].removeprefix("Value error, ")
            if not isinstance(item["input"], (dict, list)):
                text += f" (it is {item['input']!r})"
        lines.append(f"{prefix}{path}: {text}")
    return lines


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A hint at the nearest name, or nothing."""
    close = difflib.get_close_matches(name, list(names), 1, 0.6)
    return f", did you mean {close[0]!r}?" if close else ""


# ---------------------------------------------------------------- for people and editors


def resolved_lines(recipe: Recipe) -> list[tuple[str, Any, str]]:
    """(dotted path, value, origin) of every leaf, in order."""
    return [(dotted, value, recipe.origin(dotted)) for key in recipe.values for dotted, value in leaves(recipe.values[key], key)]


def json_schema(lookup: Lookup | None = None) -> dict[str, Any]:
    """A JSON Schema of recipes with the stages and sources that are installed."""
    lookup = lookup or _registry()
    schema = Envelope.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    definitions = schema.setdefault("$defs", {})

    def add(name: str, model: type[BaseModel]) -> dict[str, str]:
        inner = TypeAdapter(model).json_schema(ref_template="#/$defs/{model}")
        definitions.update(inner.pop("$defs", {}))
        definitions[name] = inner
        return {"$ref": f"#/$defs/{name}"}

    names = [*lookup.stage_names(), *FINISHERS]
    stages = {name: add(f"stage_{name}", model) for name in names if (model := lookup.stage_options(name)) is not None}
    sources = [add(f"source_{kind}", model) for kind in lookup.source_kinds() if (model := lookup.source_options(kind)) is not None]
    schema["properties"].update(stages)
    schema["properties"]["extends"] = {"type": "string", "description": "a recipe that this one is laid over"}
    schema["properties"]["stage"] = {"type": "object", "description": "options of one stage instance, by its name"}
    schema["properties"]["source"]["items"] = {"anyOf": sources}
    return schema


INIT = """# A recipe for stackbuild: what to read, which stages to run, what to make.
# `stackbuild plan recipe.toml` shows the jobs; `stackbuild build recipe.toml --output OUT` runs them.
# `stackbuild plan recipe.toml --resolved` shows every value; docs/recipes.md describes each.

name = "my-dataset"
seed = 42                     # every random draw is a hash of it and a key
extends = "default.toml"      # stages and options that stackbuild brings; what stands here is laid over them
partitions = 16               # a power of two; about one for each 100 to 250 MB of text

[[source]]
kind = "git"                  # git, archives, directory, pypi, parquet
paths = ["~/src"]             # folders that are searched for repositories

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
