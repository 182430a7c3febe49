"""Times of a source's columns as nanoseconds since 1970, exactly, or null if they are out of range."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
PER_UNIT: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
INT64_MAX: Final = 2**63 - 1


def nanoseconds(time: Any) -> int | None:
    """Nanoseconds since 1970 of an ISO 8601 text, in UTC if it names no zone; None if it is none or out of range."""
    if not isinstance(time, str):
        return None
    try:
        moment = datetime.fromisoformat(time)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        value = (moment - EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError):
        return None
    return value if abs(value) <= INT64_MAX else None


def as_timestamps(array: pa.Array) -> pa.Array | None:
    """timestamp[ns] of an array of timestamps, dates or ISO 8601 texts, null if out of range; None for another type."""
    if pa.types.is_date32(array.type):
        array = array.cast(pa.timestamp("s"))
    elif pa.types.is_date64(array.type):
        array = array.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(array.type):
        scale = PER_UNIT[array.type.unit]
        ticks = array.cast(pa.int64())
        fits = pc.less_equal(pc.abs(pc.max_element_wise(ticks, -INT64_MAX)), INT64_MAX // scale)
        ticks = pc.if_else(fits, ticks, pa.scalar(None, pa.int64()))
        return pc.multiply(ticks, pa.scalar(scale, pa.int64())).cast(pa.timestamp("ns"))
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        coded = array.dictionary_encode()
        times = pa.array([nanoseconds(text) for text in coded.dictionary.to_pylist()], pa.timestamp("ns"))
        return times.take(coded.indices)
    if pa.types.is_null(array.type):
        return array.cast(pa.timestamp("ns"))
    return None
