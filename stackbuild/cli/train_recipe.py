"""Reading a training recipe: files that extend each other, `--set`, and one message for all that is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stackbuild.errors import RecipeError
from stackbuild.recipe_check import Problems, checked
from stackbuild.recipe_merge import Layer, LayerError, bundled_folders, find, is_bundled, overridden, read
from stackbuild.train.recipe import TrainRecipe


def load(path: str, overrides: Iterable[str] = ()) -> TrainRecipe:
    """A recipe file, or one that stackbuild brings (`pipelines/train/tiny.toml`, `train/tiny`). RecipeError tells everything."""
    found = _found(path)
    folder = Path.cwd() if is_bundled(found) else found.resolve().parent
    problems, layer = Problems(), Layer()
    try:
        layer = read(found, folder)
        for override in overrides:
            layer = overridden(layer, override)
    except LayerError as error:
        raise RecipeError(f"{path} is not a valid training recipe:\n  {error}") from error
    values = checked(TrainRecipe, layer.values, "", problems)
    if problems.found:
        raise RecipeError(f"{path} is not a valid training recipe:\n{problems.told(layer)}")
    return TrainRecipe.model_validate(values)


def names() -> list[str]:
    """The training recipes that stackbuild brings."""
    return sorted({path.stem for folder in bundled_folders() for path in (folder / "train").glob("*.toml")})


def _found(path: str) -> Path:
    for name in (path, f"train/{path}"):
        try:
            return find(name)
        except RecipeError:
            continue
    raise RecipeError(
        f"There is no training recipe {path}; give a file, or one of those that stackbuild brings: {', '.join(names())}."
    )
