"""Which languages there are: those that enry can name, what linguist calls them today, and The Stack v1's extensions.

The data are tables beside this module: `linguist.toml` (written by `generate.py`) and `the-stack-v1.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / name).read_text())


@cache
def enry_languages() -> frozenset[str]:
    """All that enry may answer, by its own names."""
    table = _read("linguist.toml")
    current = {name for names in table["kinds"].values() for name in names}
    return frozenset((current - set(table["unknown"])) | set(table["renamed"]))


@dataclass(frozen=True)
class ExtensionMap:
    """A language for each extension and for some names of files; case counts. `digest`: sha256 of the table, hex."""

    extensions: Mapping[str, str]
    names: Mapping[str, str]
    digest: str

    @property
    def languages(self) -> frozenset[str]:
        return frozenset(self.extensions.values()) | frozenset(self.names.values())

    def language(self, name: str) -> str | None:
        """The language of a file of this name (the last part of its path): by what stands before its first dot, else of the
        longest extension that has one.
        """
        parts = name.split(".")
        if parts[0] in self.names:
            return self.names[parts[0]]
        for length in (2, 1):  # no extension of the list has more parts
            if len(parts) > length and (found := self.extensions.get(".".join(parts[-length:]))):
                return found
        return None


@cache
def extension_map(name: str) -> ExtensionMap:
    """The table of a published dataset, such as "the-stack-v1"."""
    table = _read(f"{name}.toml")
    extensions = {one: language for language, several in table["extensions"].items() for one in several}
    digest = sha256((HERE / f"{name}.toml").read_bytes()).hexdigest()
    return ExtensionMap(extensions, table["names"], digest)
