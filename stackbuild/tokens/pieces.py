"""Documents into the pieces that rows are packed of: where they are cut, and what room fill-in-the-middle is given.

A document of L tokens is L - 1 pairs of a token and the one that follows, its label. A piece is the pairs `low` to `high` - 1: the
tokens x[low] ... x[high - 1] are read, x[low + 1] ... x[high] are labels. So every token but the first is a label once, every one
but the closing `<|endoftext|>` is read once, and the pieces of a document meet without a gap.

A document that is longer than a row is cut: in front of the last header (`<file_sep>`) in the last quarter of the piece, else
where a character begins, and not in a header. One that is not longer is never cut. Cuts, sizes and so the packing are told from
the document table alone, so that taking a text out moves nothing; in a file that is not ASCII a cut has `SOFT` tokens to move by,
back to where a character begins, which the tokens tell when the row is made.

Which files are treated is drawn before, by document and file, so that neither cut nor packing changes it. A file that is
cut at its end is not treated. Each that is gets room for its sentinels and for the tokens that are encoded anew; where a row has
no room for one, it and those behind it in the piece stay as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.tokens.counter import DOCUMENT_COIN, FRAGMENT_COIN, draw_bits
from stackbuild.tokens.spans import DocumentSpans, Lists

I64 = npt.NDArray[np.int64]
QUARTER = 4  # a header in the last part of so many is cut at
SOFT = 3  # tokens: a character has four bytes at most, and a token at least one
SOFT_LOW, SOFT_HIGH = 1, 2
_UNIT = 2.0**-53
_11 = np.uint64(11)
_DOCUMENT, _FRAGMENT = np.uint64(DOCUMENT_COIN), np.uint64(FRAGMENT_COIN)
_ZERO = np.uint64(0)


class Coins(NamedTuple):
    """Which files are treated: `rate` of the documents, `file_rate` of the files of such a document; drawn by key and epoch."""

    key: np.uint64
    epoch: np.uint64
    rate: float
    file_rate: float
    room: int  # tokens that are kept free for each
    characters: int  # of a file that is treated, at least


class PiecesOf(NamedTuple):
    """k pieces, int64 of shape (k,): the document, as its place among those that were asked for; the pairs [low, high); how
    many of the files that were drawn are treated, from the first on; the tokens that a row needs for it; and which of its
    ends may move back, SOFT_LOW and SOFT_HIGH added up."""

    document: I64
    low: I64
    high: I64
    treated: I64
    size: I64
    soft: I64


def pieces_of(
    numbers: I64,
    ordinals: npt.NDArray[np.uint64],
    sizes: npt.NDArray[np.int32],
    spans: DocumentSpans,
    coins: Coins,
    length: int,
) -> PiecesOf:
    """Cut documents of one shard for rows of `length` tokens.

    `numbers`: the documents, in their shard. `ordinals`: what their draws are made by. `sizes`: tokens of each document of the
    shard.
    """
    made = _cut(numbers, ordinals, sizes, spans, coins, length)
    return PiecesOf(*made)


@kernel
def is_treated(coins: Any, ordinal: Any, place: Any, files: Any, characters: Any, file: Any) -> bool:
    """Whether a file is drawn for treatment, `place` being its place in its document. The document's coin is not thrown here."""
    if characters[file] < coins.characters or files.end[file] <= files.start[file]:
        return False
    bits = draw_bits(coins.key, coins.epoch, ordinal, np.uint64(place), _FRAGMENT)
    return bool((bits >> _11) * _UNIT < coins.file_rate)


@kernel
def is_chosen(coins: Any, ordinal: Any) -> bool:
    """Whether a document's files may be treated."""
    if coins.rate <= 0.0 or coins.file_rate <= 0.0:
        return False
    return bool((draw_bits(coins.key, coins.epoch, ordinal, _ZERO, _DOCUMENT) >> _11) * _UNIT < coins.rate)


@kernel
def _cut(
    numbers: I64,
    ordinals: npt.NDArray[np.uint64],
    sizes: npt.NDArray[np.int32],
    spans: DocumentSpans,
    coins: Coins,
    length: int,
) -> Any:
    files, headers = spans.files, spans.headers
    rows = np.empty((6, len(numbers) + 16), np.int64)
    made = 0
    for place in range(len(numbers)):
        number, ordinal = numbers[place], ordinals[place]
        pairs = np.int64(sizes[number]) - 1
        chosen = is_chosen(coins, ordinal)
        first, last_file = files.offsets[number], files.offsets[number + 1]
        file, header, last_header = first, headers.offsets[number], headers.offsets[number + 1]
        low, soft = np.int64(0), np.int64(0)
        while low < pairs:
            room = length - SOFT if soft else length
            while file < last_file and files.end[file] <= low:
                file += 1
            rest, treated, at = pairs - low, np.int64(0), file
            while chosen and at < last_file:
                if is_treated(coins, ordinal, at - first, files, spans.characters, at):
                    needed = rest if rest <= room else files.end[at] - low
                    if needed + coins.room * (treated + 1) > room:
                        break
                    treated += 1
                at += 1
            high, kind = min(pairs, low + room - coins.room * treated), soft
            soft = np.int64(0)
            if high < pairs:
                while header < last_header and headers.start[header] <= low:
                    header += 1
                high = _place(headers, header, last_header, low, high)
                within = file
                while within < last_file and files.end[within] <= high:
                    within += 1
                inside = within < last_file and files.start[within] < high
                at_header = header < last_header and _is_header(headers, header, last_header, high)
                if not at_header and not (inside and spans.plain[within]):
                    soft, kind = np.int64(SOFT_LOW), kind + SOFT_HIGH
                treated, at = np.int64(0), file
                most = (room - (high - low)) // coins.room if coins.room else last_file
                while chosen and at < within and treated < most:  # a cut in front of a header leaves fewer
                    treated += is_treated(coins, ordinal, at - first, files, spans.characters, at)
                    at += 1
            if made == rows.shape[1]:
                grown = np.empty((6, 2 * made), np.int64)
                grown[:, :made] = rows
                rows = grown
            size = high - low + coins.room * treated + (SOFT if kind & SOFT_LOW else 0)
            rows[0, made], rows[1, made], rows[2, made], rows[3, made] = place, low, high, treated
            rows[4, made], rows[5, made] = size, kind
            made += 1
            low = high
    return (
        rows[0, :made].copy(),
        rows[1, :made].copy(),
        rows[2, :made].copy(),
        rows[3, :made].copy(),
        rows[4, :made].copy(),
        rows[5, :made].copy(),
    )


@kernel
def _place(headers: Lists, header: Any, last_header: Any, low: Any, most: Any) -> Any:
    """Where a piece that begins at `low` ends: at most at `most`, behind `low`."""
    found, quarter = most, most - (most - low) // QUARTER
    while header < last_header and headers.start[header] <= most:
        if headers.start[header] >= quarter or headers.end[header] >= most:  # or the piece would end in it
            found = headers.start[header]
        header += 1
    return found if found > low else most


@kernel
def _is_header(headers: Lists, header: Any, last_header: Any, at: Any) -> bool:
    """Whether a header begins here."""
    while header < last_header and headers.start[header] < at:
        header += 1
    return bool(header < last_header and headers.start[header] == at)


def treated_files(
    low: int, high: int, treated: int, number: int, ordinal: int, spans: DocumentSpans, coins: Coins
) -> I64:
    """The files of a piece that are treated: their places in the lists of the shard, int64."""
    if not treated:
        return np.empty(0, np.int64)
    return np.asarray(_treated(low, high, treated, number, np.uint64(ordinal), spans, coins), np.int64)


@kernel
def _treated(low: int, high: int, treated: int, number: int, ordinal: Any, spans: DocumentSpans, coins: Coins) -> I64:
    found, made, files = np.empty(treated, np.int64), 0, spans.files
    first = files.offsets[number]
    for file in range(first, files.offsets[number + 1]):
        if made == treated or files.end[file] > high:
            break
        if files.end[file] > low and is_treated(coins, ordinal, file - first, files, spans.characters, file):
            found[made] = file
            made += 1
    return found[:made]
