"""What the trainer needs beside a plain installation."""

from __future__ import annotations

from importlib.util import find_spec

from stackbuild.errors import MissingDependency


def need_torch() -> None:
    """MissingDependency, with the extra's name, where torch or safetensors are not installed."""
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"Training needs {' and '.join(missing)}, which a plain installation leaves out: pip install 'stackbuild[train]'."
        )
