"""`stackbuild init`: a commented recipe to begin with."""

from __future__ import annotations

from pathlib import Path

from stackbuild.errors import UsageError, command
from stackbuild.recipe import init_text


def run(folder: Path) -> None:
    """Write recipe.toml; one that is there is left alone."""
    path = folder / "recipe.toml"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x") as file:
            file.write(init_text())
    except FileExistsError as error:
        raise UsageError(f"{path} is there already; it was left alone.") from error
    print(path)
    print(f"next: edit its [[source]], then `{command('stackbuild', 'plan', path)}`")
