"""What a file declares of licences: the record that all parsers of this package give, and the bounds they keep.

A declaration is a claim, made in a form that somebody specified: a field of a manifest, a path rule, a heading of a
read-me. It is a pure function of the file's name and bytes. It is no text of a licence; those are for the engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["reuse", "debian", "manifest", "readme"]
Precedence = Literal["closest", "aggregate", "override"]

RAW_CHARS = 64 << 10  # a field may hold the text of a licence
# What one file declares at most. Who writes ten thousand rules into a REUSE.toml gets the last ones, which win.
MAX_DECLARATIONS = 4_096


@dataclass(frozen=True)
class Declaration:
    """One claim of one file.

    `kind`: what made it. `expression`: canonical SPDX (AND, OR and WITH kept, LicenseRef-* kept); None: a licence is
    declared, but nobody can tell which. `raw`: as written, cut to 64 K characters. `line`: 1-based, 0 if unknown.
    `globs`: what it speaks for, relative to the folder that the file speaks for, in the syntax of
    `stackbuild.licenses.declared.globs`; () is that folder and all below. `precedence`: of REUSE.toml; "closest" for
    all others.

    Of declarations of one file without globs, all hold. Of those with globs, the last that matches a path holds for it
    (`governing`).
    """

    kind: Kind
    expression: str | None
    raw: str
    line: int = 0
    globs: tuple[str, ...] = ()
    precedence: Precedence = "closest"

    def __post_init__(self) -> None:
        object.__setattr__(self, "raw", self.raw.strip()[:RAW_CHARS])
