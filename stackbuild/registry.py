"""The stages and sources there are: built in, installed under the entry point `stackbuild.stages`, and allowed datatrove blocks.

A recipe names stages from here, never an import path.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib import metadata
from typing import Any

from pydantic import BaseModel

from stackbuild.errors import RecipeError
from stackbuild.sources.unit import Source
from stackbuild.stage import Stage

ENTRY_POINTS = "stackbuild.stages"

STAGES = {
    "opt_out": "stackbuild.opt_out.stage:OptOut",
    "licenses": "stackbuild.licenses.stage:Licenses",
    "exact_dedup": "stackbuild.dedup.exact:ExactDedup",
    "license_filter": "stackbuild.licenses.stage:LicenseFilter",
    "decode": "stackbuild.languages.decode:Decode",
    "languages": "stackbuild.languages.languages:Languages",
    "signals": "stackbuild.quality.signals:Signals",
    "syntax": "stackbuild.quality.syntax:Syntax",
    "fertility": "stackbuild.tokens.fertility:Fertility",
    "filters": "stackbuild.quality.filters:Filters",
    "classifier": "stackbuild.quality.classifier:Classifier",
    "natural_language": "stackbuild.quality.natural_language:NaturalLanguage",
    "near_dedup": "stackbuild.dedup.stage:NearDedup",
    "pii": "stackbuild.pii.stage:Pii",
    "layout": "stackbuild.layout.stage:Layout",
    "index": "stackbuild.index.stage:Index",
    "tokens": "stackbuild.tokens.stage:Tokens",
}
# Made by the build itself after the recipe's stages; a recipe gives them options, not a place.
FINISHERS = ("layout", "index", "tokens")

SOURCES = {
    "git": "stackbuild.sources.git:SOURCE",
    "archives": "stackbuild.sources.archives:SOURCE",
    "directory": "stackbuild.sources.directory:SOURCE",
    "pypi": "stackbuild.sources.pypi:SOURCE",
    "parquet": "stackbuild.sources.parquet:SOURCE",
    "swh": "stackbuild.sources.swh.source:SOURCE",
}


def base_name(instance: str) -> str:
    """The stage that an instance names: `near_dedup:strict` is a near_dedup; `datatrove:X` is the adapter around X."""
    return instance.split(":", 1)[0]


def stage_names() -> list[str]:
    """Names that a recipe may list under `stages`."""
    return [*(name for name in STAGES if name not in FINISHERS), *sorted(_installed())]


def source_kinds() -> list[str]:
    return list(SOURCES)


def stage_class(instance: str) -> type[Stage[Any]]:
    """The class behind an instance name; RecipeError if there is none."""
    name = base_name(instance)
    if name == "datatrove":
        from stackbuild.datatrove_adapter import adapted

        return adapted(instance.split(":", 1)[1] if ":" in instance else "")
    target = STAGES.get(name) or _installed().get(name)
    if target is None:
        raise RecipeError(f"There is no stage {name!r}; there are {', '.join(stage_names())}.")
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise RecipeError(f"The installed stage {name!r} ({target}) is not a stackbuild.stage.Stage.")
    return found


def stage_options(instance: str) -> type[BaseModel] | None:
    """The options model of a stage, None if there is no such stage."""
    try:
        return stage_class(instance).options_model
    except RecipeError:
        return None


def source(kind: str) -> Source:
    """The source of a kind; RecipeError if there is none."""
    if kind not in SOURCES:
        raise RecipeError(f"There is no source {kind!r}; there are {', '.join(SOURCES)}.")
    module, _, attribute = SOURCES[kind].partition(":")
    found: Source = getattr(importlib.import_module(module), attribute)
    return found


def source_options(kind: str) -> type[BaseModel] | None:
    return source(kind).options_model if kind in SOURCES else None


@cache
def _installed() -> dict[str, str]:
    """Stages of other distributions; one cannot take the name of a built-in stage."""
    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS) if point.name not in STAGES}
