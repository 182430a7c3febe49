"""What fill-in-the-middle is given for n fragments, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.tokens.fim_kernels import NOT_IDENTITY, NOT_TEXT, NOT_UTF8, OUTGROWN, SHORT, TREATED

# What a code says, in words that may be shown.
CODES: Final[Mapping[int, str]] = {
    TREATED: "treated",
    OUTGROWN: "outgrew its room",
    SHORT: "too short",
    NOT_TEXT: "holds a token that is no text",
    NOT_UTF8: "begins or ends within a character",
    NOT_IDENTITY: "other tokens than its text has",
}
# What `Treated.kinds` says of a treated fragment, added up.
SPM, AST, NO_NODE = 1, 2, 4  # NO_NODE: a node was wanted, but there is no grammar, no tree, or no fitting node

Ids = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


class Draws(NamedTuple):
    """Random bits for n fragments: uint64 arrays of shape (n,), as `draws` makes them."""

    first: U64  # cut
    second: U64
    spm: U64
    ast: U64  # whether the cuts go around a node


class Treated(NamedTuple):
    """n fragments behind one another, those that are not treated as they were."""

    ids: Ids  # of the type of the ids given
    offsets: I64  # (n + 1,)
    codes: npt.NDArray[np.int8]  # (n,), of CODES
    kinds: npt.NDArray[np.uint8]  # (n,), of SPM, AST and NO_NODE; 0 where the code is not TREATED
    tokens: int  # of texts of treated fragments
    anew: int  # of these, encoded anew
