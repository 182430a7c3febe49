"""Times of ORC files that Arrow refuses: every second of an int64 that a date can be, by every compression."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import orc

from stackbuild.errors import InputError
from stackbuild.sources.swh.orc_times import Tail, parse, serialize, since_1970, utc_only, with_seconds

# Beyond this the C++ library that exports are written with rounds, as it counts seconds in a double.
SECONDS = st.lists(st.none() | st.integers(-(2**53), 2**53), max_size=60)


def written(table: pa.Table, compression: str = "zstd") -> bytes:
    sink = pa.BufferOutputStream()
    orc.write_table(table, sink, compression=compression)
    return sink.getvalue().to_pybytes()


def seconds_of(data: bytes, column: str = "date") -> list[int | None]:
    table = orc.ORCFile(pa.PythonFile(with_seconds(io.BytesIO(data)), mode="r")).read()
    return since_1970(table[column].combine_chunks()).to_pylist()


@given(SECONDS, st.sampled_from(["zstd", "zlib", "uncompressed"]))
def test_whole_seconds_come_back_whatever_their_year(values: list[int | None], compression: str) -> None:
    table = pa.table({"id": pa.array(range(len(values)), pa.int64()), "date": pa.array(values, pa.timestamp("s"))})
    assert seconds_of(written(table, compression)) == values


def test_the_case_it_is_for() -> None:
    """Arrow refuses the column for one value; if it ever reads it, this module can go."""
    data = written(pa.table({"date": pa.array([0, 100_000_000_000], pa.timestamp("s"))}))
    with pytest.raises(pa.ArrowInvalid, match="out of range"):
        orc.ORCFile(pa.BufferReader(data)).read()
    assert seconds_of(data) == [0, 100_000_000_000]


def test_fractions_are_cut_and_other_columns_are_as_they_were() -> None:
    times = pa.array([1_600_000_000_250_000, None, 1], pa.timestamp("us"))
    table = pa.table({"name": [b"a", b"\xff", b""], "date": times, "n": pa.array([1, 2, 3], pa.int32())})
    data = written(table)
    assert seconds_of(data) == [1_600_000_000, None, 0]
    read = orc.ORCFile(pa.PythonFile(with_seconds(io.BytesIO(data)), mode="r")).read(["name", "n"])
    assert read["name"].to_pylist() == [b"a", b"\xff", b""]
    assert read["n"].to_pylist() == [1, 2, 3]


def test_a_file_in_another_time_zone_is_refused() -> None:
    data = written(pa.table({"date": pa.array([0], pa.timestamp("s"))}), "uncompressed")
    utc_only(io.BytesIO(data))
    assert data.count(b"GMT") == 1
    with pytest.raises(InputError, match="time zone b'CET'"):
        utc_only(io.BytesIO(data.replace(b"GMT", b"CET")))


def test_times_beyond_an_int64_are_null() -> None:
    assert since_1970(pa.array([2**63 - 1, -(2**63), None])).to_pylist() == [None, -(2**63) + 1_420_070_400, None]


@given(st.binary(max_size=300))
def test_what_is_no_orc_file_is_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        with_seconds(io.BytesIO(data))


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_a_damaged_end_is_an_input_error_or_read(at: int, new: bytes) -> None:
    data = bytearray(written(pa.table({"date": pa.array([0, 5], pa.timestamp("s")), "x": ["a", "b"]})))
    data[-at - 1 : len(data) - at - 1 + len(new)] = new
    for act in (with_seconds, utc_only):
        with contextlib.suppress(InputError):
            act(io.BytesIO(bytes(data)))


@given(st.lists(st.tuples(st.integers(1, 2000), st.just(2), st.binary(max_size=40)), max_size=8))
def test_a_message_survives_parsing(fields: list[tuple[int, int, int | bytes]]) -> None:
    assert parse(serialize(fields)) == fields


def test_an_unchanged_end_reads_as_before(tmp_path: Path) -> None:
    data = written(pa.table({"x": list(range(1000))}))
    tail = Tail(io.BytesIO(data))
    again = data[: tail.head] + tail.end()
    assert orc.ORCFile(pa.BufferReader(again)).read().equals(orc.ORCFile(pa.BufferReader(data)).read())
