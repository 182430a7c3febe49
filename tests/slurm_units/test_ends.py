"""Why an element ended: its own last attempt counts, and nothing that others or earlier attempts wrote."""

from __future__ import annotations

from pathlib import Path

from stackbuild.monitor import failures


def test_the_end_of_a_log_is_read_even_if_it_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert failures.tail(str(path)) == ""
    path.write_bytes(b"x" * 50_000 + b"\xff oom-kill")
    said = failures.tail(str(path))
    assert said.endswith("oom-kill") and len(said) <= failures.TAIL_BYTES
