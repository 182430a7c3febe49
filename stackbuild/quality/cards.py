"""What is told of a model beside it: MODEL.json, from what it was trained and how good it was on what it had not seen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stackbuild.errors import InputError

FORMAT = 1
MOST_BYTES = 16 << 20


class Figures(BaseModel):
    """Of one label on files whose label is known: how many have it, how many were given it, how many of these rightly."""

    model_config = ConfigDict(frozen=True)

    files: int
    given: int
    right: int
    precision: float | None
    recall: float | None


class HeldOut(BaseModel):
    """On files that were not trained on. `likeliest`: by label, where each file gets its likeliest. `thresholds`: by label,
    then threshold, where a file gets the label if its score is at least that.
    """

    model_config = ConfigDict(frozen=True)

    files: int
    groups: int
    right: int
    accuracy: float | None
    likeliest: dict[str, Figures]
    thresholds: dict[str, dict[str, Figures]]


class Label(BaseModel):
    """What of a label was trained on and held out."""

    model_config = ConfigDict(frozen=True)

    trained: int = 0
    held_out: int = 0


class Card(BaseModel):
    """A model's card. No clock, no path of a machine: the same training gives the same card."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    model_sha256: str
    model_bytes: int
    labels: dict[str, Label]
    held_out: HeldOut
    left_out: dict[str, int]  # files by the reason for which they were not used
    examples_sha256: str  # of what was trained on, in its order
    tokens: Literal["code", "plain"]
    tokens_version: int
    head_bytes: int
    options: dict[str, Any]
    engine: str
    repeatable: bool  # one thread: the same files and options give the same bytes


def card_path(model: str | os.PathLike[str]) -> Path:
    """Where a model's card lies."""
    return Path(f"{os.fspath(model)}.json")


def read_card(model: str | os.PathLike[str]) -> Card | None:
    """The card of a model, None if it has none; InputError for one that cannot be read."""
    path = card_path(model)
    try:
        with open(path, "rb") as file:
            raw = file.read(MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"The model's card {path} cannot be read: {error.strerror}.") from error
    try:
        return Card.model_validate(json.loads(raw))
    except (ValidationError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no card of a model that `classifier train` wrote.") from error
