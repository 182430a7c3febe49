"""Documents into the pieces that rows are packed of: where they are cut, and what room fill-in-the-middle is given.

A document of L tokens is L - 1 pairs of a token and the one that follows, its label. A piece is the pairs `low` to `high` - 1: the
tokens x[low] ... x[high - 1] are read, x[low + 1] ... x[high] are labels. So every token but the first is a label once, every one
but the closing `<|endoftext|>` is read once, and the pieces of a document meet without a gap.

A document that is longer than a row is cut: in front of the last header (`<file_sep>`) in the last quarter of the piece, else
where a character begins, and not in a header. One that is not longer is never cut. Such cuts leave room in rows that no short
document may be left to fill: then the emptiest of the rows that hold pieces of long documents only are taken apart again, and
cut to measure for the others (`fill_gaps`; `pack_window` says which).

Cuts, sizes and so the packing are told from the document table alone, so that taking a text out moves nothing; in a file that is
not ASCII a cut has `SOFT` tokens to move by, back to where a character begins, which the tokens tell when the row is made.

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
SOFT_LOW, SOFT_HIGH, DIVISIBLE = 1, 2, 4  # of a piece: its ends that may move back; whether it may be cut again
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


class Ranges(NamedTuple):
    """Parts of documents of one shard, int64 of shape (k,): the pairs [low, high) of document `number`, and in `kind` which
    of their ends may move back: SOFT_LOW and SOFT_HIGH added up."""

    number: I64
    low: I64
    high: I64
    kind: I64


class PiecesOf(NamedTuple):
    """k pieces, int64 of shape (k,): the document, by its number in the shard; the pairs [low, high); how many of the files
    that were drawn are treated, from the first on; SOFT_LOW, SOFT_HIGH and DIVISIBLE added up; the tokens that a row needs
    for it; and the row, counted from 0, where the pieces are told into rows already (`in_a_stream`, `fill_gaps`), else 0."""

    number: I64
    low: I64
    high: I64
    treated: I64
    kind: I64
    size: I64
    row: I64


COLUMNS = len(PiecesOf._fields)


def pieces_of(ranges: Ranges, start: int, spans: DocumentSpans, coins: Coins, length: int) -> PiecesOf:
    """Cut ranges for rows of `length` tokens. `start`: what is added to the number of a document for its draws' ordinal."""
    return PiecesOf(*_pieces(ranges, start, spans, coins, length))


def in_a_stream(
    ranges: Ranges, start: int, spans: DocumentSpans, coins: Coins, length: int, row: int, room: int
) -> tuple[PiecesOf, int, int]:
    """Put ranges end to end into rows of `length`, from `row` on, which has `room` left: the pieces, and where the next go."""
    made, row, room = _stream(ranges, start, spans, coins, length, row, room)
    return PiecesOf(*made), int(row), int(room)


def fill_gaps(
    piece: tuple[int, int, int, int], start: int, spans: DocumentSpans, coins: Coins, gaps: I64, at: int
) -> tuple[PiecesOf, int, int]:
    """Cut a piece (number, low, high, kind) to measure for `gaps`, int64 of shape (g,), from number `at` on.

    Returns the parts, `row` being the number of a gap; the gap that comes next; and how far the parts go: to `high`, or less
    where there are no more gaps. What is filled is taken from `gaps`.
    """
    made, at, low = _fill(*piece, start, spans, coins, gaps, at)
    return PiecesOf(*made), int(at), int(low)


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
def _pieces(ranges: Ranges, start: int, spans: DocumentSpans, coins: Coins, length: int) -> Any:
    rows, made = np.empty((COLUMNS, len(ranges.number) + 16), np.int64), 0
    for place in range(len(ranges.number)):
        number, low, end, kind = ranges.number[place], ranges.low[place], ranges.high[place], ranges.kind[place]
        chosen = is_chosen(coins, np.uint64(number + start))
        first, divisible = made, False
        while low < end:
            high, treated, found, size = _piece(spans, coins, start, number, low, end, kind, length, chosen, True, True)
            rows = _put(rows, made, number, low, high, treated, found, size, 0)
            divisible |= high < end
            made += 1
            low, kind = high, _behind(found, kind)
        if divisible:
            rows[4, first:made] |= DIVISIBLE
    return _columns(rows, made)


@kernel
def _stream(ranges: Ranges, start: int, spans: DocumentSpans, coins: Coins, length: int, row: int, room: int) -> Any:
    rows, made = np.empty((COLUMNS, len(ranges.number) + 16), np.int64), 0
    for place in range(len(ranges.number)):
        number, low, end, kind = ranges.number[place], ranges.low[place], ranges.high[place], ranges.kind[place]
        chosen = is_chosen(coins, np.uint64(number + start))
        while low < end:
            high, treated, found, size = _piece(
                spans, coins, start, number, low, end, kind, room, chosen, False, room == length
            )
            if high == low:
                row, room = row + 1, length
                continue
            rows = _put(rows, made, number, low, high, treated, found, size, row)
            made += 1
            low, kind, room = high, _behind(found, kind), room - size
    return _columns(rows, made), row, room


@kernel
def _fill(
    number: int,
    low: int,
    end: int,
    kind: int,
    start: int,
    spans: DocumentSpans,
    coins: Coins,
    gaps: I64,
    at: int,
) -> Any:
    rows, made = np.empty((COLUMNS, 16), np.int64), 0
    chosen = is_chosen(coins, np.uint64(number + start))
    while low < end and at < len(gaps):
        high, treated, found, size = _piece(spans, coins, start, number, low, end, kind, gaps[at], chosen, False, False)
        if high > low:
            rows = _put(rows, made, number, low, high, treated, found | DIVISIBLE, size, at)
            made += 1
            gaps[at] -= size
            low, kind = high, _behind(found, kind)
        if low < end or gaps[at] <= 0:
            at += 1
    return _columns(rows, made), at, low


@kernel
def _piece(
    spans: DocumentSpans,
    coins: Coins,
    start: int,
    number: Any,
    low: Any,
    end: Any,
    kind: Any,
    room: Any,
    chosen: bool,
    at_header: bool,
    must: bool,
) -> Any:
    """The piece from `low` on that fits into `room`: its end, how many files are treated, its kind and size.

    `at_header`: end it in front of a header, if one is in its last quarter. `must`: it has pairs, even if it ends in a header.
    """
    files, headers = spans.files, spans.headers
    reserved = SOFT if kind & SOFT_LOW else 0
    room -= reserved
    if room <= 0 and not must:
        return low, 0, kind, 0
    room = max(room, 1)
    first, last_file = files.offsets[number], files.offsets[number + 1]
    file = _behind_low(files.end, first, last_file, low)
    rest, treated, at = end - low, np.int64(0), file
    while chosen and at < last_file and files.end[at] <= end:
        if is_treated(coins, np.uint64(number + start), at - first, files, spans.characters, at):
            needed = rest if rest <= room else files.end[at] - low
            if needed + coins.room * (treated + 1) > room:
                break
            treated += 1
        at += 1
    high, found = min(end, low + room - coins.room * treated), kind
    if high < end:
        header, last_header = headers.offsets[number], headers.offsets[number + 1]
        header = _behind_low(headers.start, header, last_header, low)
        high = _place(headers, header, last_header, low, high, at_header, must)
        if high == low:
            return low, 0, kind, 0
        within = _behind_low(files.end, file, last_file, high)
        inside = within < last_file and files.start[within] < high
        exact = _is_header(headers, header, last_header, high) or (inside and spans.plain[within])
        found = (kind & SOFT_LOW) | (0 if exact else SOFT_HIGH)
        treated, at = np.int64(0), file
        most = (room - (high - low)) // coins.room if coins.room else last_file
        while chosen and at < within and treated < most:  # a cut in front of a header leaves fewer
            treated += is_treated(coins, np.uint64(number + start), at - first, files, spans.characters, at)
            at += 1
    return high, treated, found, high - low + coins.room * treated + reserved


@kernel
def _behind(found: Any, kind: Any) -> Any:
    """The kind of what is left behind a piece of kind `found`, of a range of kind `kind`."""
    return (SOFT_LOW if found & SOFT_HIGH else 0) | (kind & SOFT_HIGH)


@kernel
def _behind_low(places: I64, first: Any, last: Any, low: Any) -> Any:
    """The first of `places[first:last]`, which ascend, that is above `low`."""
    while first < last:
        middle = (first + last) // 2
        if places[middle] <= low:
            first = middle + 1
        else:
            last = middle
    return first


@kernel
def _place(headers: Lists, header: Any, last_header: Any, low: Any, most: Any, at_header: bool, must: bool) -> Any:
    """Where a piece that begins at `low` ends: at most at `most`."""
    quarter = most - (most - low) // QUARTER if at_header else most
    last = _behind_low(headers.start, header, last_header, most) - 1  # of those that begin at `most` or before
    if last >= header and (headers.start[last] >= quarter or headers.end[last] >= most):
        return headers.start[last]
    within = header - 1  # one that began at `low` or before
    if not must and within >= 0 and headers.start[within] <= low and headers.end[within] > most:
        return low
    return most


@kernel
def _is_header(headers: Lists, header: Any, last_header: Any, at: Any) -> bool:
    """Whether a header begins here."""
    found = _behind_low(headers.start, header, last_header, at - 1)
    return bool(found < last_header and headers.start[found] == at)


@kernel
def _put(rows: I64, made: Any, number: Any, low: Any, high: Any, treated: Any, kind: Any, size: Any, row: Any) -> I64:
    """Write a piece; what is returned takes the place of `rows`."""
    if made == rows.shape[1]:
        grown = np.empty((COLUMNS, 2 * made), np.int64)
        grown[:, :made] = rows
        rows = grown
    rows[0, made], rows[1, made], rows[2, made], rows[3, made] = number, low, high, treated
    rows[4, made], rows[5, made], rows[6, made] = kind, size, row
    return rows


@kernel
def _columns(rows: I64, made: Any) -> Any:
    return (
        rows[0, :made].copy(),
        rows[1, :made].copy(),
        rows[2, :made].copy(),
        rows[3, :made].copy(),
        rows[4, :made].copy(),
        rows[5, :made].copy(),
        rows[6, :made].copy(),
    )


def treated_files(
    low: int, high: int, treated: int, number: int, ordinal: int, spans: DocumentSpans, coins: Coins
) -> tuple[I64, I64]:
    """The files of a piece that are treated, and those that were drawn too, whole at their end, and have no room: their places in
    the lists of the shard, int64."""
    if min(coins.rate, coins.file_rate) <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    drawn = np.asarray(_drawn(low, high, number, np.uint64(ordinal), spans, coins), np.int64)
    return drawn[:treated], drawn[treated:]


@kernel
def _drawn(low: int, high: int, number: int, ordinal: Any, spans: DocumentSpans, coins: Coins) -> I64:
    files = spans.files
    first, last = files.offsets[number], files.offsets[number + 1]
    begin = _behind_low(files.end, first, last, low)
    end = _behind_low(files.end, begin, last, high)
    found, made = np.empty(end - begin, np.int64), 0
    if is_chosen(coins, ordinal):
        for file in range(begin, end):
            if is_treated(coins, ordinal, file - first, files, spans.characters, file):
                found[made] = file
                made += 1
    return found[:made]
