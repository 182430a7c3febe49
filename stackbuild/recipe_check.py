"""What a recipe may say, and everything that is wrong with one, told at once.

Each stage's table is checked by that stage's own options model, that of one instance laid over the table of its stage's
name, each `[[source]]` by its source's. TOML has types, so "42" is no number. A problem has the dotted path of the
value, what is wrong, a hint at the nearest name, and the place. Names and values come from strangers: they are shown
short and escaped.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import to_jsonable_python

from stackbuild.cluster import RayOptions, Size, SlurmOptions
from stackbuild.errors import RecipeError
from stackbuild.parts import PART_BYTES
from stackbuild.recipe_merge import Layer, all_leaves, is_set, joined, over
from stackbuild.shards import canonical_json
from stackbuild.sources.credentials import without_credentials

OUTPUTS = ("dataset", "repos", "tokens", "index")
FINISHERS = ("layout", "tokens")
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")  # it is part of a folder's name
SHOWN = 50  # problems in one message
DEVIATION = 1_000  # characters that tell of one
LISTED = 24  # names in one problem

OWN_WORDS = re.compile(r"[a-z_]+(?:\.(?P<option>[a-z_]+))?: (?P<text>.+)", re.S)  # "near_dedup.survivor: what is wrong"
UNCONVERTED = ("int_type", "float_type", "bool_type", "string_type")  # a word for a number, a number for yes and no


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
    partitions: int = Field(
        16,
        ge=1,
        le=65_536,
        description="a power of two; up to a terabyte a partition's text should stay below some 256 MB; beyond it "
        "`plan --estimate` proposes fewer and larger ones",
    )
    part_bytes: Size = Field(
        PART_BYTES, ge=1_024, description='of a task that are committed at a time, in bytes or as "128MiB"'
    )
    source: list[dict[str, Any]] = Field(min_length=1, description="where files come from")
    limits: LimitOptions = Field(default_factory=LimitOptions, description="caps on what strangers send")
    contact: str = Field(
        "ask the maintainer of this dataset",
        description="where people ask for the removal of their code, for the card",
    )
    description: str = Field("", description="a paragraph of Markdown for the card")
    deviations: dict[str, str] = Field(
        default_factory=dict,
        description="where this differs from a published recipe: a name and, in one line, what is missing or different and why",
    )
    slurm: SlurmOptions = Field(default_factory=SlurmOptions, description="for `--executor slurm`")
    ray: RayOptions = Field(default_factory=RayOptions, description="for `--executor ray`")

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
                hint = did_you_mean(name, OUTPUTS)
                raise ValueError(f"{shown(name)} is no output{hint}; there are {', '.join(OUTPUTS)}")
        return value

    @field_validator("deviations")
    @classmethod
    def _in_words(cls, value: dict[str, str]) -> dict[str, str]:
        """They are printed and released as they are."""
        for name, text in value.items():
            if not SLUG.fullmatch(name):
                raise ValueError(f"{shown(name)}: name it with letters, digits, dot, dash and underscore")
            if not text.strip() or len(text) > DEVIATION or not text.isprintable():
                raise ValueError(
                    f"{name}: say what is missing or different in one line of at most {DEVIATION:,} characters"
                )
        return value


# ---------------------------------------------------------------- what is wrong


@dataclass
class Problems:
    """Everything that is wrong with a recipe: (dotted path or "", text, a wrong name, names that it may have meant)."""

    found: list[tuple[str, str, str, tuple[str, ...]]] = field(default_factory=list)

    def add(self, path: str, text: str, wrong: str = "", known: Iterable[str] = ()) -> None:
        problem = (path, text, wrong, tuple(known))
        if problem not in self.found:  # a table that two instances share is checked with each
            self.found.append(problem)

    def told(self, layer: Layer) -> str:
        """A line for each, with a hint at the nearest name and the place; only the first ones of very many."""
        lines = []
        for path, text, wrong, known in self.found[:SHOWN]:
            origins = sorted(layer.below(path), key=lambda origin: origin.inherited) if path else []
            origin = layer.origin(path) or (origins[0] if origins else None)
            place = f" ({origin})" if path and origin else ""
            hint = did_you_mean(wrong, known) or (f"; there are {', '.join(known)}" if 0 < len(known) <= LISTED else "")
            lines.append(f"  {path}{': ' if path else ''}{text}{hint}{place}")
        if len(self.found) > SHOWN:
            lines.append(f"  and {len(self.found) - SHOWN} more")
        return "\n".join(lines)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A hint at the nearest name, or nothing."""
    close = difflib.get_close_matches(name, list(names), 1, 0.6) if 0 < len(name) <= 64 else []
    return f", did you mean {close[0]!r}?" if close else ""


def shown(value: Any) -> str:
    """A value for a message: short, with control characters escaped, and no password of an address in it."""
    text = ascii(without_credentials(value) if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# ---------------------------------------------------------------- validating


def validate(layer: Layer, lookup: Lookup, problems: Problems) -> dict[str, Any]:
    """Every value with its default; what is wrong is added to the problems, and then the values are of no use."""
    values = layer.values
    for path, value in all_leaves(values):
        if any(isinstance(number, float) and not math.isfinite(number) for number in atoms(value)):
            problems.add(path, "numbers must be finite")
    envelope = {key: values[key] for key in Envelope.model_fields if key in values}
    resolved = dict(checked(Envelope, envelope, "", problems))
    listed = values.get("stages")
    instances = numbered_instances(
        [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    )
    known = [
        name for number, name in enumerate(instances) if is_stage(name, joined("stages", number), lookup, problems)
    ]
    for number, name in enumerate(instances):
        if name in instances[:number]:
            problems.add(
                joined("stages", number), f"{shown(name)} stands there twice; give each a label of its own, name:label"
            )
    own = values.get("stage", {})
    own = own if isinstance(own, dict) else {}
    used = {base for name in instances if (base := base_of(name)) in lookup.stage_names()}
    sharing = {base_of(name) for name in instances if name not in own} & used
    tables = {key: table for key, table in values.items() if key not in (*Envelope.model_fields, "stage")}
    for name, table in tables.items():
        path = joined("", name)
        if name in sharing or name in FINISHERS:
            resolved[name] = checked(lookup.stage_options(name), table, path, problems)
        elif name in used:
            pass  # every instance lays a table of its own over it, and is checked with it
        elif name in lookup.stage_names():
            # What a recipe takes over may have options for stages that it does without.
            if not all(origin.inherited for origin in layer.below(path)):
                problems.add(path, "no stage of the recipe takes these options")
        else:
            names = [*Envelope.model_fields, *lookup.stage_names(), *FINISHERS, "stage", "extends"]
            problems.add(path, "unknown key", name, names)
    for name in [*sorted(sharing - set(tables)), *(name for name in FINISHERS if name not in tables)]:
        resolved[name] = checked(lookup.stage_options(name), {}, name, problems)
    resolved["source"] = list(checked_sources(lookup, values.get("source"), problems))
    resolved["stages"] = instances
    resolved["stage"] = dict(checked_instances(layer, lookup, instances, known, problems))
    return resolved


def atoms(value: Any) -> Iterator[Any]:
    """What is not a list in a list of lists."""
    if isinstance(value, list):
        for item in value:
            yield from atoms(item)
    else:
        yield value


def numbered_instances(stages: list[str]) -> list[str]:
    """Stage instances with names of their own: a bare name that comes again gets `:2`, `:3`."""
    seen: dict[str, int] = {}
    named = []
    for name in stages:
        seen[name] = seen.get(name, 0) + 1
        named.append(name if seen[name] == 1 or ":" in name else f"{name}:{seen[name]}")
    return named


def is_stage(instance: str, path: str, lookup: Lookup, problems: Problems) -> bool:
    """Whether there is such a stage; if not, why is among the problems."""
    base, colon, label = instance.partition(":")
    names = lookup.stage_names()
    if base == "datatrove":
        if lookup.stage_options(instance) is not None:
            return True
        problems.add(path, f"{shown(instance)} is not among the datatrove blocks that a recipe may name")
    elif base in FINISHERS:
        problems.add(path, f"{base!r} is made after the stages; name it under outputs")
    elif base not in names:
        problems.add(path, f"there is no stage {shown(base)}", base, names)
    elif colon and not LABEL.fullmatch(label):
        problems.add(
            path, f"the label of {shown(instance)} must be letters, digits, dashes and underscores, at most 40"
        )
    else:
        return True
    return False


def base_of(instance: str) -> str:
    """The stage that an instance is of, and the table that its own is laid over."""
    return instance.split(":", 1)[0]


def checked_instances(
    layer: Layer, lookup: Lookup, instances: list[str], known: list[str], problems: Problems
) -> Iterator[tuple[str, Any]]:
    """The tables [stage."name:label"], each for one instance alone and laid over the table of its stage's name."""
    own = layer.values.get("stage", {})
    if not isinstance(own, dict):
        problems.add("stage", 'write a table for each instance, such as [stage."near_dedup:strict"]')
        return
    for name, table in own.items():
        path, base = joined("stage", name), base_of(name)
        if name in known:
            shared = layer.values.get(base) if base in lookup.stage_names() else None
            if isinstance(shared, dict) and isinstance(table, dict):
                yield name, checked(lookup.stage_options(name), over(shared, table), path, problems, table, base)
            else:
                if shared is not None and not isinstance(shared, dict):
                    problems.add(base, f"must be a table, [{base}]")
                yield name, checked(lookup.stage_options(name), table, path, problems)
        elif name not in instances and not all(origin.inherited for origin in layer.below(path)):
            problems.add(path, "there is no such stage in `stages`", name, instances)


def checked_sources(lookup: Lookup, tables: Any, problems: Problems) -> Iterator[Any]:
    """The `[[source]]` tables, each by its kind."""
    kinds = lookup.source_kinds()
    for number, table in enumerate(tables if isinstance(tables, list) else ()):
        path = joined("source", number)
        if not isinstance(table, dict):
            continue  # the envelope has told of it
        kind = table.get("kind")
        if kind is None:
            problems.add(f"{path}.kind", "is missing", known=kinds)
        elif kind not in kinds:
            problems.add(f"{path}.kind", f"{shown(kind)} is no source", str(kind), kinds)
        else:
            yield checked(lookup.source_options(kind), table, path, problems)


def checked(
    model: type[BaseModel] | None,
    table: Any,
    path: str,
    problems: Problems,
    own: dict[str, Any] | None = None,
    base: str = "",
) -> Any:
    """A table validated by a model, as JSON with defaults. `own`: what of it is set at `path`; the rest is at `base`."""
    if model is None:
        problems.add(path, "there is nothing that takes options of this name")
        return {}
    if not isinstance(table, dict):
        problems.add(path, f"must be a table, [{path}]")
        return {}
    data = json.dumps(table, default=str)
    wrong: dict[tuple[str | int, ...], Any] = {}
    value = None
    for strict in (False, True):
        try:
            value = model.model_validate_json(data, strict=strict)
        except ValidationError as error:
            # In strict mode pydantic refuses the lists of a model's own validators too: of that pass only these count.
            for item in error.errors(include_url=False):
                if not strict or item["type"] in UNCONVERTED:
                    wrong.setdefault(item["loc"], item)
        except RecipeError as error:  # of a model's own validator, which names its table as it is without a label
            said = OWN_WORDS.fullmatch(str(error))
            within = (said["option"],) if said and said["option"] in model.model_fields else ()
            message = said["text"] if said else str(error)
            wrong.setdefault(within, {"type": "", "msg": message, "input": {}, "loc": within})
        except (TypeError, AttributeError, KeyError) as error:  # of a model's own validator, on a value of another type
            wrong.setdefault((), {"type": "", "msg": f"a value is of the wrong type: {error}", "input": {}, "loc": ()})
    for location, item in wrong.items():
        at = path if own is None or not location or is_set(own, location) else base
        for part in location:
            at = joined(at, part)
        problems.add(at, *in_words(item, model))
    return {} if wrong else as_json(value)


def in_words(item: Any, model: type[BaseModel]) -> tuple[str, str, Iterable[str]]:
    """One of pydantic's errors: (what is wrong, the wrong name if it is one, the names that there are)."""
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return "unknown key", str(item["loc"][-1]), field_names(model, item["loc"][:-1])
    if kind == "missing":
        return "is missing", "", ()
    if kind == "list_type" and isinstance(value, dict):
        return f"is a list of tables; write [[{item['loc'][-1]}]]", "", ()
    text = item["msg"].removeprefix("Value error, ")
    if not isinstance(value, dict | list):
        text += f" (it is {shown(value)})"
    if kind == "literal_error":
        return text, str(value), re.findall(r"'([^']*)'", item["ctx"]["expected"])
    return text, "", ()


def field_names(model: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    """The keys that a table within a model's table may have."""
    at: Any = model
    for part in location:
        if isinstance(part, str) and isinstance(at, type) and issubclass(at, BaseModel) and part in at.model_fields:
            at = inner_model(at.model_fields[part].annotation)
    return list(at.model_fields) if isinstance(at, type) and issubclass(at, BaseModel) else []


def inner_model(annotation: Any) -> Any:
    """The model that a field's type is, or is a list or an option of; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := inner_model(inner)) is not None), None)


def as_json(value: Any) -> Any:
    """A validated value as JSON: every field, also one that a stage keeps out of its identity; sets in sorted order."""
    if isinstance(value, BaseModel):
        return {name: as_json(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(as_json(key)): as_json(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((as_json(item) for item in value), key=canonical_json)
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return to_jsonable_python(value)
