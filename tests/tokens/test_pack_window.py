"""Windows of documents into rows: every pair once, no row too long, cut where the rules say, hardly any padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.tokens.pack_window import OfShard, Packed, pack_window
from stackbuild.tokens.pieces import DIVISIBLE, QUARTER, SOFT, SOFT_HIGH, SOFT_LOW, Coins, Ranges, pieces_of
from stackbuild.tokens.spans import DocumentSpans, Lists

HEADER = 6


def coins(rate: float, file_rate: float = 1.0) -> Coins:
    return Coins(np.uint64(7), np.uint64(0), rate, file_rate, 11, 10)


def shard(number: int, files: list[list[int]], plain: bool, start: int = 0) -> OfShard:
    """Documents of files of so many tokens, each behind a header, closed by a token."""
    starts, ends, heads, counts = [], [], [], [0]
    pairs = []
    for document in files:
        at = 0
        for size in document:
            heads.append(at)
            starts.append(at + HEADER)
            at += HEADER + size
            ends.append(at)
        pairs.append(at)
        counts.append(len(starts))
    of, head, begin, end = (np.array(values, np.int64) for values in (counts, heads, starts, ends))
    spans = DocumentSpans(
        Lists(of, begin, end), end - begin, np.full(len(begin), plain), Lists(of, head, head + HEADER)
    )
    none = np.zeros(len(files), np.int64)
    ranges = Ranges(np.arange(len(files)), none, np.array(pairs, np.int64), none)
    return OfShard(number, start, ranges, spans)


def rows_of(packed: Packed, rate_room: int = 11) -> np.ndarray:
    sizes = (packed.high - packed.low).astype(np.int64) + rate_room * packed.treated
    sizes += SOFT * (packed.kind & SOFT_LOW > 0)
    ends = np.append(0, np.cumsum(sizes))
    return ends[packed.offsets[1:]] - ends[packed.offsets[:-1]]


def check(parts: list[OfShard], packed: Packed, length: int) -> None:
    assert (np.diff(packed.offsets) > 0).all() and packed.offsets[-1] == len(packed.low)
    assert (rows_of(packed) <= length).all() and (packed.high > packed.low).all()
    (left,) = [packed.left(0)] if len(packed.offsets) > 1 else [np.empty((5, 0), np.int64)]
    whole = [
        (part.shard, n, low, high) for part in parts for n, low, high, _ in zip(*part.ranges, strict=True) if high > low
    ]
    assert list(map(tuple, left[:4].T.tolist())) == sorted(whole)  # pieces meet, and are all that there is
    assert len(np.unique(np.stack([packed.shard, packed.number, packed.low]), axis=1).T) == len(packed.low)


documents = st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=8), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    files=st.lists(documents, min_size=1, max_size=3),
    length=st.integers(24, 700),
    plain=st.booleans(),
    rate=st.sampled_from([0.0, 0.5, 1.0]),
    packing=st.sampled_from(["best-fit", "concatenation"]),
)
def test_every_pair_is_in_one_row_and_no_row_is_too_long(
    files: list[list[list[int]]], length: int, plain: bool, rate: float, packing: str
) -> None:
    parts = [shard(number, of, plain, 100 * number) for number, of in enumerate(files)]
    packed = pack_window(parts, coins(rate), length, packing)
    check(parts, packed, length)
    if packing == "best-fit":
        sizes = {(part.shard, n): high for part in parts for n, _, high, _ in zip(*part.ranges, strict=True)}
        for n, of, low, high in zip(packed.number, packed.shard, packed.low, packed.high, strict=True):
            assert high - low == sizes[of, n] or sizes[of, n] > length  # none that is not longer is cut


@settings(max_examples=150, deadline=None)
@given(files=documents, length=st.integers(40, 700), plain=st.booleans())
def test_a_long_document_is_cut_at_the_last_header_of_the_last_quarter(
    files: list[list[int]], length: int, plain: bool
) -> None:
    part = shard(0, files, plain)
    pieces = pieces_of(part.ranges, 0, part.spans, coins(0), length)
    offsets, start, end = part.spans.headers
    for n, low, high, kind in zip(pieces.number, pieces.low, pieces.high, pieces.kind, strict=True):
        most = low + length - (SOFT if kind & SOFT_LOW else 0)
        if part.ranges.high[n] <= most:
            assert high == part.ranges.high[n]
            continue
        of = slice(offsets[n], offsets[n + 1])
        late = [s for s in start[of] if most - (most - low) // QUARTER <= s <= most and s > low]
        inside = [s for s, e in zip(start[of], end[of], strict=True) if low < s < most <= e]
        assert high == (late or inside or [most])[-1] and kind & DIVISIBLE
        assert bool(kind & SOFT_HIGH) == (high not in start[of] and not plain)


@pytest.mark.parametrize(("rate", "most"), [(0.0, 1e-4), (0.5, 5e-3)])
def test_hardly_a_token_is_padding(rate: float, most: float) -> None:
    """Repositories of a corpus's sizes, most of them longer than a row: below 0.01 %, with FIM below 0.5 % beside what
    treated files take up."""
    draws = np.random.default_rng(5)
    counts = draws.zipf(1.6, 4000).clip(1, 400)
    files = [draws.lognormal(6.3, 1.3, count).astype(int).clip(0, 60_000).tolist() for count in counts]
    part = shard(0, files, True)
    packed = pack_window([part], coins(rate, 0.5), 4096, "best-fit")
    check([part], packed, 4096)
    rows = rows_of(packed)
    assert 1 - rows.sum() / (len(rows) * 4096) < most
    assert (packed.high - packed.low)[np.diff(packed.offsets).repeat(np.diff(packed.offsets)) == 1].mean() > 3900


def test_ranges_that_are_left_are_packed_again_into_longer_rows() -> None:
    draws = np.random.default_rng(6)
    files = [draws.integers(0, 400, count).tolist() for count in draws.integers(1, 12, 200)]
    part = shard(0, files, False)
    packed = pack_window([part], coins(1), 256, "best-fit")
    left = packed.left(40)
    again = OfShard(0, 0, Ranges(*left[1:]), part.spans)
    longer = pack_window([again], coins(1), 1024, "best-fit")
    assert (rows_of(longer) <= 1024).all()
    assert longer.left(0).tolist() == left.tolist()
    before = {
        (n, at)
        for n, low, high in zip(packed.number[: packed.offsets[40]], packed.low, packed.high, strict=False)
        for at in range(low, high)
    }
    behind = {
        (n, at) for n, low, high in zip(longer.number, longer.low, longer.high, strict=True) for at in range(low, high)
    }
    assert not before & behind
    assert len(before) + len(behind) == part.ranges.high.sum()
