"""Path patterns of declarations: which paths they match, in RE2 over Arrow strings.

REUSE.toml and DEP-5 have patterns that look alike and differ: `*` stops at "/" in the one and crosses it in the other,
`?` is a plain character in the one and a wildcard in the other. Declarations carry one syntax, to which both are
translated:

    *       any characters but "/", also none          (REUSE.toml *)
    **      any characters, also none                  (REUSE.toml **, DEP-5 *)
    ?       any one character                          (DEP-5 ?)
    \\x      the character x itself, for x of * ? \\

A pattern matches a whole path, relative to the folder that the declaration speaks for, without a leading "/".

Sources: REUSE specification 3.3, "REUSE.toml"; Debian copyright-format 1.0, "Files".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.licenses.declared.declaration import Declaration

MAX_GLOB_CHARS = 4_096  # no path is longer
_PATTERN_CHARS = 16_384  # of one RE2, which must fit its memory
_PIECE = re.compile(r"\\(.)|(\*+)|(\?)|([^\\*?]+|\\)", re.DOTALL)
_SPECIAL = re.compile(r"([*?\\])")


def literal(path: str) -> str:
    """The glob that matches one path alone."""
    return _SPECIAL.sub(r"\\\1", path)


def from_reuse(pattern: str) -> str:
    """A path of REUSE.toml as a glob: `*`, `**`, and "\\" before `*` and "\\"; all else is plain."""
    pieces = []
    for escaped, stars, question, plain in _PIECE.findall(pattern):
        if escaped:
            pieces.append(literal(escaped) if escaped in "*\\" else literal(f"\\{escaped}"))
        else:
            pieces.append(stars[:2] or literal(question) or literal(plain))
    return "".join(pieces)


def from_dep5(pattern: str) -> str:
    """A pattern of a DEP-5 Files field as a glob: `*` and `?` cross "/"; "\\" before `*`, `?` and "\\"."""
    pieces = []
    for escaped, stars, question, plain in _PIECE.findall(pattern.removeprefix("./")):
        if escaped:
            pieces.append(literal(escaped) if escaped in "*?\\" else literal(f"\\{escaped}"))
        else:
            pieces.append(("**" if stars else "") or question or literal(plain))
    return "".join(pieces)


def to_re2(glob: str) -> str:
    """The RE2 pattern of a glob, without anchors."""
    pieces: list[str] = []
    for escaped, stars, question, plain in _PIECE.findall(glob):
        if stars:
            pieces.append("[^/]*" if len(stars) == 1 else ".*")
        elif question:
            pieces.append(".")
        else:
            pieces.append("".join(map(_plain, escaped or plain)))
    return "".join(pieces)


def _plain(char: str) -> str:
    return char if char.isalnum() or char in "/_- " or ord(char) > 127 else f"\\x{{{ord(char):x}}}"


def matching(globs: Sequence[str], paths: pa.Array) -> pa.Array:
    """Which of n paths (string or binary, relative to the folder, without a leading "/") match one of the globs: bool
    of length n, null for null. No globs match all. Linear in the paths.
    """
    if not globs:
        return pc.if_else(pc.is_valid(paths), True, pa.scalar(None, pa.bool_()))
    plain: list[str] = []
    chunks: list[list[str]] = [[]]
    size = 0
    for glob in dict.fromkeys(globs):
        if len(glob) > MAX_GLOB_CHARS:
            continue
        unescaped = _unescaped(glob)
        if unescaped is not None:
            plain.append(unescaped)
            continue
        pattern = to_re2(glob)
        if size and size + len(pattern) > _PATTERN_CHARS:
            chunks.append([])
            size = 0
        chunks[-1].append(pattern)
        size += len(pattern)
    found = pc.is_in(paths, value_set=pa.array(plain, pa.string()).cast(paths.type))
    for chunk in chunks:
        if chunk:
            pattern = rf"(?s)\A(?:{'|'.join(chunk)})\z"
            found = pc.or_(found, pc.fill_null(pc.match_substring_regex(paths, pattern), False))
    return pc.if_else(pc.is_valid(paths), found, pa.scalar(None, pa.bool_()))


def _unescaped(glob: str) -> str | None:
    """The one path that a glob matches; None if there are more."""
    if "*" not in glob and "?" not in glob and "\\" not in glob:
        return glob
    pieces = []
    for escaped, stars, question, plain in _PIECE.findall(glob):
        if stars or question:
            return None
        pieces.append(escaped or plain)
    return "".join(pieces)


def governing(declarations: Sequence[Declaration], paths: pa.Array) -> npt.NDArray[np.int32]:
    """Which declaration of one file rules each of n paths (as `matching`): int32 (n,), -1 for none.

    The last that matches, in the order of the file: so DEP-5 and REUSE.toml have it. Declarations without globs speak
    for all paths and hold together; give them apart.
    """
    found = np.full(len(paths), -1, np.int32)
    left = np.arange(len(paths))
    for number in range(len(declarations) - 1, -1, -1):
        if not len(left):
            break
        here = np.asarray(
            pc.fill_null(matching(declarations[number].globs, paths.take(pa.array(left))), False).to_numpy(
                zero_copy_only=False
            ),
            bool,
        )
        found[left[here]] = number
        left = left[~here]
    return found
