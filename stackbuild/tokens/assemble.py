"""From encoded pieces to the tokens of documents."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.render.layouts import NONE

I64 = npt.NDArray[np.int64]


class Pieces(NamedTuple):
    """Encoded texts: ids of all of them one behind the other (int32 or uint16), and where each begins (int64, n + 1)."""

    ids: npt.NDArray[Any]
    offsets: I64

    @property
    def lengths(self) -> I64:
        """Tokens of each text, int64 (n,)."""
        return np.diff(self.offsets)


class Assembled(NamedTuple):
    """The tokens of n files with what stands in front of them and the sentinels that close documents.

    `ids`: of the dtype that was asked for. `headers`, `files`: tokens in front of each file and of its text, int64 (n,).
    `ends`: where in `ids` a document ends that began here or in an earlier batch, int64 (documents,), rising.
    """

    ids: npt.NDArray[Any]
    headers: I64
    files: I64
    ends: I64


def assemble(
    opens: npt.NDArray[np.bool_],
    sentinels: npt.NDArray[np.int32],
    texts: Pieces,
    contents: Pieces,
    end: int,
    is_open: bool,
    dtype: npt.DTypeLike,
) -> Assembled:
    """Put the pieces of n files together. `opens`, `sentinels` and `texts` as in `render.Rendered`, encoded; `contents`: the
    files' texts; `end`: the id that closes a document; `is_open`: whether a document is open from the batch before."""
    rows = len(opens)
    pieces = len(sentinels)
    headers = np.zeros(rows, np.int64)
    if pieces:
        headers += (texts.lengths.reshape(pieces, rows) + (sentinels != NONE)).sum(axis=0)
    files = contents.lengths
    closes = opens.copy()  # whether a document ends in front of the file
    if rows and not is_open:
        closes[0] = False
    ids = np.empty(int(headers.sum() + files.sum() + closes.sum()), dtype)
    _fill(ids, closes, sentinels, texts.ids, texts.offsets, contents.ids, contents.offsets, end)
    behind = np.cumsum(headers + files + closes)  # of each file
    ends = (behind - headers - files)[closes]
    return Assembled(ids, headers, files, ends)


@kernel
def _fill(
    ids: npt.NDArray[Any],
    closes: npt.NDArray[np.bool_],
    sentinels: npt.NDArray[np.int32],
    text_ids: npt.NDArray[Any],
    text_offsets: I64,
    content_ids: npt.NDArray[Any],
    content_offsets: I64,
    end: int,
) -> None:
    rows = len(closes)
    at = 0
    for row in range(rows):
        if closes[row]:
            ids[at] = end
            at += 1
        for piece in range(len(sentinels)):
            if sentinels[piece, row] >= 0:
                ids[at] = sentinels[piece, row]
                at += 1
            text = piece * rows + row
            for k in range(text_offsets[text], text_offsets[text + 1]):
                ids[at] = text_ids[k]
                at += 1
        for k in range(content_offsets[row], content_offsets[row + 1]):
            ids[at] = content_ids[k]
            at += 1
