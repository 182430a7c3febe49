"""docs/recipes.md, written from the models that check a recipe, so that page and program cannot disagree.

python -m stackbuild.cli.recipes_page > docs/recipes.md
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stackbuild.cluster import RayOptions, SlurmOptions
from stackbuild.recipe_check import FINISHERS, Envelope, LimitOptions, Lookup, as_json

INTRODUCTION = """# Recipes

<!-- Written by `python -m stackbuild.cli.recipes_page > docs/recipes.md`; change the models, not this page. -->

A recipe is a TOML file that says what to build: sources, stages in order, outputs, and options. It is data: it names
stages that are installed, never a program, and expands no variable. A key that nobody knows is an error with a hint at
the nearest one; all errors are told at once, each with its dotted path, file and line.

- `stackbuild init` writes a commented recipe. `stackbuild plan RECIPE` shows the jobs, `stackbuild plan RECIPE
  --resolved` every value and where it came from, `stackbuild plan RECIPE --schema` a JSON Schema for editors.
- `extends = "other.toml"` lays the recipe over another: tables are merged, everything else is replaced. The other lies
  beside the recipe, or is one that stackbuild brings:
  {recipes}.
  `plan` and `build` take these names too: `stackbuild plan the-stack-v2`. What of The Stack, SantaCoder,
  StarCoder and StarCoder2 was published, and what their recipes make of it, is in [published-rules.md](published-rules.md).
- Three lines run a recipe that stackbuild brings on files of your own: `name = "mine"`, `extends = "starcoder2-smol"` and
  `source = [{{ kind = "directory", paths = ["~/src/mine"] }}]`.
- `[deviations]` tells in words where a recipe differs from what was published: a name and what is missing or different, and
  why. `plan`, the dataset's card and the report show it; it changes no file of the dataset.
- `--set a.b=c` lays one value over all files. c is a TOML value, or a string if it is none; a number in the path picks
  an item of a list: `--set source.0.paths='["src"]'`.
- A relative path starts from the folder of the file that sets it; from the current folder in `--set` and in a recipe
  that stackbuild brings; in what a recipe takes over from such a one, from its own folder.
- A stage's options are in the table of its name. A stage may be listed twice, and both share the table; one with a
  label, `"near_dedup:strict"`, may have a table of its own, `[stage."near_dedup:strict"]`, which is laid over
  `[near_dedup]`: what it leaves out is as there.
  `"datatrove:GopherQualityFilter"` is a filter of datatrove, its arguments in
  `[stage."datatrove:GopherQualityFilter".arguments]`.
"""


def recipes_page(lookup: Lookup | None = None) -> str:
    """The page, in Markdown: the envelope, every source, every stage, with types, defaults and limits."""
    if lookup is None:
        from stackbuild import registry

        lookup = registry
    from stackbuild.recipe_merge import bundled_names

    parts = [INTRODUCTION.format(recipes=", ".join(f"`{name}`" for name in bundled_names()))]
    parts += [
        "## The recipe",
        table(Envelope, skip=("limits", "source", "slurm", "ray")),
        "### `[limits]`",
        paragraph(LimitOptions),
        table(LimitOptions),
    ]
    for name, options in (("slurm", SlurmOptions), ("ray", RayOptions)):
        parts += [f"### `[{name}]`", paragraph(options), table(options)]
    parts.append("## Sources\n\nEach `[[source]]` has a `kind` and the options of that kind.")
    for kind in lookup.source_kinds():
        parts += section(f'`kind = "{kind}"`', lookup.source_options(kind), skip=("kind",))
    parts.append("## Stages\n\nIn the order in which `pipelines/default.toml` runs them; the order is the recipe's.")
    for name in lookup.stage_names():
        parts += section(f"`[{name}]`", lookup.stage_options(name))
    parts.append("## Outputs\n\nMade after the stages; `outputs` says which.")
    for name in FINISHERS:
        parts += section(f"`[{name}]`", lookup.stage_options(name))
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def section(title: str, model: type[BaseModel] | None, skip: tuple[str, ...] = ()) -> Iterator[str]:
    """Heading, description and options of a model, and of the tables within it."""
    if model is None:
        return
    yield f"### {title}"
    yield paragraph(model)
    yield table(model, skip)
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield f"Each table of `{name}`:"
            yield table(inner)


def paragraph(model: type[BaseModel]) -> str:
    """The model's own docstring; nothing for one that it only inherits."""
    text = model.__dict__.get("__doc__")
    return escaped(inspect.cleandoc(text)) if text else ""


def table(model: type[BaseModel], skip: tuple[str, ...] = ()) -> str:
    """Key, type, default and meaning of every field."""
    rows = [(name, field) for name, field in model.model_fields.items() if name not in skip]
    if not rows:
        return "No options."
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in rows:
        cells = (f"`{name}`", type_in_words(field), default_in_words(field), escaped(field.description or ""))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text in which Markdown sees no HTML."""
    return re.sub(r"<(?=[A-Za-z/!])", "&lt;", text)


NAMES = {str: "string", int: "integer", float: "number", bool: "true or false"}
BOUNDS = {
    annotated_types.Ge: ("ge", "≥"),
    annotated_types.Gt: ("gt", ">"),
    annotated_types.Le: ("le", "≤"),
    annotated_types.Lt: ("lt", "<"),
}


def type_in_words(field: FieldInfo) -> str:
    """A field's type as a user of TOML names it, with its limits."""
    words = annotation_in_words(field.annotation)
    limits = [
        f"{sign} {getattr(bound, name):,}"
        for bound in field.metadata
        for kind, (name, sign) in BOUNDS.items()
        if isinstance(bound, kind)
    ]
    return f"{words}, {', '.join(limits)}" if limits else words


def annotation_in_words(annotation: Any) -> str:
    """A type in the words of TOML."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return annotation_in_words(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{json.dumps(word)}`" for word in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(annotation_in_words(inner) for inner in arguments if inner is not type(None))
    if origin in (list, tuple, set, frozenset):
        inner = dict.fromkeys(annotation_in_words(argument) for argument in arguments if argument is not Ellipsis)
        return f"list of {' or '.join(inner)}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    return NAMES.get(annotation, "value") if isinstance(annotation, type) else "value"


def default_in_words(field: FieldInfo) -> str:
    """A field's default as TOML writes it."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "must be given"
    if value is None:
        return "none"
    return f"`{toml(as_json(value))}`"


def toml(value: Any) -> str:
    """A JSON value as an inline value of TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items() if inner is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type mentions."""
    if isinstance(annotation, type) and not get_args(annotation):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in get_args(annotation):
        yield from models_in(inner)


if __name__ == "__main__":
    print(recipes_page(), end="")
