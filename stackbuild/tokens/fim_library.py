"""`fim` for tokenizers that the fast backend does not take: every part is encoded whole by the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError
from stackbuild.tokens.counter import below
from stackbuild.tokens.encode import Encoder
from stackbuild.tokens.fim_kernels import NOT_IDENTITY, NOT_TEXT, NOT_UTF8, OUTGROWN, SHORT, TREATED
from stackbuild.tokens.fim_trees import Asked, nodes
from stackbuild.tokens.fim_types import AST, NO_NODE, SPM, Draws, Treated


def treat_by_library(
    encoder: Encoder,
    least: int,
    sentinels: npt.NDArray[np.int64],
    ids: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
    bits: Draws,
    rooms: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.uint8],
    asked: Sequence[str | None],
    codes: npt.NDArray[np.int8],
) -> Treated:
    """As `fim.Infiller.treat_many`, one fragment after the other. `least`: characters; `kinds` and `codes` are filled in."""
    fragments = [ids[start:end] for start, end in pairwise(offsets)]
    texts: list[str] = []
    for k, fragment in enumerate(fragments):
        text, codes[k] = _text(encoder, least, fragment)
        texts.append(text)
    cuts = {}
    for k in np.flatnonzero(codes == TREATED).tolist():
        some = [int(below(draw[k], len(texts[k]) + 1)) for draw in (bits.first, bits.second)]
        cuts[k] = (min(some), max(some))
    for k, span in _nodes(texts, asked, bits, codes):
        cuts[k] = span
        kinds[k] ^= AST | NO_NODE

    tokens = 0
    prefix, suffix, middle = sentinels.tolist()
    for k, (first, second) in cuts.items():
        start = 0 if kinds[k] & SPM else first
        parts = _encoded(encoder, [texts[k][:start], texts[k][start:second], texts[k][second:]])
        if parts is None:
            codes[k] = NOT_IDENTITY
            continue
        made = np.concatenate([[prefix], parts[0], [suffix], parts[2], [middle], parts[1]]).astype(ids.dtype)
        if len(made) > len(fragments[k]) + rooms[k]:
            codes[k] = OUTGROWN
            continue
        fragments[k] = made
        tokens += len(made) - 3
    ends = np.cumsum([0, *(len(fragment) for fragment in fragments)])
    return Treated(np.concatenate([ids[:0], *fragments]), ends, codes, kinds, tokens, tokens)


def _text(encoder: Encoder, least: int, ids: npt.NDArray[Any]) -> tuple[str, int]:
    """The text of a fragment, and the code that it has so far."""
    vocabulary = encoder.vocabulary
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= vocabulary.size or vocabulary.is_sentinel[ids].any()):
        return "", NOT_TEXT
    text = vocabulary.decode(ids.tolist())
    again = _encoded(encoder, [text])
    if again is None or not np.array_equal(again[0], ids):
        return "", NOT_UTF8 if "\ufffd" in text else NOT_IDENTITY
    return text, SHORT if len(text) < least else TREATED


def _encoded(encoder: Encoder, texts: list[str]) -> list[npt.NDArray[np.int32]] | None:
    """The ids of texts; None where one becomes a sentinel."""
    try:
        return encoder.encode(texts)
    except InputError:
        return None


def _nodes(
    texts: Sequence[str], asked: Sequence[str | None], bits: Draws, codes: Any
) -> list[tuple[int, tuple[int, int]]]:
    """The spans of nodes, in characters, of those fragments for which one was asked and found."""
    chosen = [k for k, language in enumerate(asked) if language is not None and codes[k] == TREATED]
    if not chosen:
        return []
    data = {k: texts[k].encode() for k in chosen}
    files = [Asked(asked[k] or "", memoryview(data[k]), int(bits.first[k]), int(bits.second[k])) for k in chosen]
    return [
        (k, (len(data[k][: span[0]].decode()), len(data[k][: span[1]].decode())))
        for k, span in zip(chosen, nodes(files), strict=True)
        if span is not None
    ]
