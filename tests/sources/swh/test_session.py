"""A session that runs out of its memory says so, whoever notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackbuild.errors import InputError
from stackbuild.sources.swh.session import session


def test_too_little_memory_is_an_error_of_the_input(tmp_path: Path) -> None:
    query = "CREATE TABLE held AS SELECT string_agg(i::VARCHAR, ' ') AS text FROM range(5000000) numbers(i)"
    with pytest.raises(InputError, match="needs more than 16 MiB"), session(tmp_path, 16 << 20) as connection:
        connection.execute(query)


def test_the_same_is_said_where_arrow_tells_of_it(tmp_path: Path) -> None:
    """A result that is under way when the memory ends raises what Arrow's reader makes of DuckDB's error."""
    with pytest.raises(InputError, match="needs more than 16 MiB"), session(tmp_path, 16 << 20):
        raise OSError("Out of Memory Error: failed to pin block of size 256.0 KiB (15.8 MiB/16.0 MiB used)")


def test_another_error_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space"), session(tmp_path):
        raise OSError(28, "no space left")
