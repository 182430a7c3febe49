"""What the profiles compat, ner and presidio need beside a plain installation."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from stackbuild.errors import MissingDependency

EXTRA: Final = "pip install 'stackbuild[pii]'"
EXTRA_WITH_TORCH: Final = "pip install 'stackbuild[pii,train]'"


def engines(profile: str, extra: str, *names: str) -> dict[str, str]:
    """Versions of the distributions that a profile needs; MissingDependency with the extra that brings the first that is not
    installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError as error:
            raise MissingDependency(f"The profile {profile} needs {name}: {extra}") from error
    return found
