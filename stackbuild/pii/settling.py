"""Texts redacted until nothing is left to be found in them, so that redacting twice is redacting once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa

from stackbuild.pii.replacements import Replacer
from stackbuild.pii.spans import I64, Carried, Span, Texts, column_of, counts_of, merged, redacted

ROUNDS: Final = 16  # what hides another finding from the rules needs one more round; real files need two
UNSETTLED: Final = "unsettled"


def settled(text: pa.LargeStringArray, detect: Callable[[Texts], list[Span]], replacer: Replacer) -> pa.Array:
    """The column `pii_spans` for n texts: after their replacement `detect` finds nothing.

    Replacing one finding can lay another bare (a word inside an address said "version" of what follows it). Such rows
    are searched again; a row that has not settled after ROUNDS, which takes intent, becomes one span of the rule
    UNSETTLED.
    """
    texts = Texts.of(text)
    spans = detect(texts)
    column = column_of(spans, replacer.of(spans, texts), texts)
    rows = np.flatnonzero(np.asarray(counts_of(column)))
    for turn in range(ROUNDS):
        if not len(rows):
            return column
        part, part_text = column.take(pa.array(rows)), text.take(pa.array(rows))
        new_text = redacted(part_text, part)
        more = detect(Texts.of(new_text))
        if not more:
            return column
        part, unsettled = _carried(part_text, part, new_text, more, replacer=replacer, last=turn == ROUNDS - 1)
        chosen = np.arange(len(column))
        chosen[rows] = len(column) + np.arange(len(rows))
        column = pa.concat_arrays([column, part]).take(pa.array(chosen))
        rows = rows[unsettled]
    return column


def _carried(
    text: pa.Array, column: pa.Array, new_text: pa.Array, more: list[Span], *, replacer: Replacer, last: bool
) -> tuple[pa.Array, I64]:
    """The spans of some rows together with those found in their redacted texts, and which rows got new ones."""
    old, new = Texts.of(text), Texts.of(new_text)
    files = np.searchsorted(new.offsets, np.array([span.start for span in more]), side="right") - 1
    found: dict[int, list[Span]] = {}
    for file, span in zip(files.tolist(), more, strict=True):
        found.setdefault(file, []).append(span)
    spans: list[Span] = []
    for file, known in enumerate(column.to_pylist()):
        base, fresh = int(old.offsets[file]), int(new.offsets[file])
        here = [Span(base + s["start"], base + s["end"], s["entity"], s["rule"]) for s in known]
        if file in found and last:
            here = [Span(base, int(old.offsets[file + 1]), "KEY", UNSETTLED)]
        elif file in found:
            way = Carried(
                [s["start"] for s in known], [s["end"] for s in known], [len(s["replacement"].encode()) for s in known]
            )
            for span in found[file]:
                start, end = way.back(span.start - fresh, span.end - fresh)
                here.append(Span(base + start, base + end, span.entity, span.rule))
        spans += merged(here)
    return column_of(spans, replacer.of(spans, old), old), np.array(sorted(found), np.int64)
