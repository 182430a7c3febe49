"""Shards: bytes that follow from the rows alone, one winning attempt, nothing half-written ever read."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.counts import Ledger
from stackbuild.errors import InputError
from stackbuild.shards import Attempt, file_sha256, find_manifest, load_manifest, manifest_path, read_batches
from stackbuild.stage_manifest import load_stage_manifest, save_stage_manifest
from stackbuild.tables import TableWriter, group_ends

TEXT = pa.schema([pa.field("bucket", pa.uint16()), pa.field("content", pa.large_binary())])


def table(rows: list[tuple[int, int]]) -> pa.Table:
    return pa.table(
        {
            "bucket": pa.array([b for b, _ in rows], pa.uint16()),
            "content": pa.array([b"x" * n for _, n in rows], pa.large_binary()),
        }
    )


def written(path: Path, pieces: list[pa.Table], **options: object) -> TableWriter:
    with TableWriter(path, TEXT, **options) as writer:  # type: ignore[arg-type]
        for piece in pieces:
            writer.write(piece)
    return writer


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_bytes_do_not_depend_on_how_rows_arrive(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]], cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("w")
    rows = table(sorted(sizes))
    options = {"group_by": "bucket", "row_group_rows": 7, "row_group_bytes": 100}
    whole = written(folder / "a", [rows], **options)
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    pieces = [rows.slice(a, b - a) for a, b in pairwise(edges)]
    parts = written(folder / "b", pieces, **options)
    assert whole.sha256 == parts.sha256 == file_sha256(folder / "a")
    assert whole.rows == len(rows)
    assert whole.groups == parts.groups
    assert pq.read_table(folder / "b").equals(rows)


def test_row_groups_stay_under_both_limits_and_a_large_row_stands_alone() -> None:
    import numpy as np

    assert group_ends(np.array([5, 5, 5, 20, 1, 1]), 6, 100, 10) == [2, 3, 4]
    assert group_ends(None, 10, 4, 0) == [4, 8]


def test_a_reader_of_one_group_gets_its_rows_only(out: Path) -> None:
    attempt = Attempt(out, "job", 0)
    with attempt.writer("t", TEXT, group_by="bucket") as writer:
        writer.write(table([(0, 1), (0, 2), (2, 3), (2, 4), (3, 5)]))
    manifest = attempt.commit("k" * 64, Ledger(), {})
    [output] = manifest.table("t")
    assert output.groups == {"0": 2, "2": 2, "3": 1}
    batches = list(read_batches(out, [output], None, 2, "bucket"))
    assert [len(value) for batch in batches for value in batch["content"].to_pylist()] == [3, 4]
    assert list(read_batches(out, [output], None, 1, "bucket")) == []


def test_the_first_attempt_wins_and_the_second_withdraws(out: Path) -> None:
    first, second = Attempt(out, "job", 3), Attempt(out, "job", 3)
    for attempt, size in ((first, 1), (second, 2)):
        with attempt.writer("t", TEXT) as writer:
            writer.write(table([(0, size)]))
    won = first.commit("k" * 64, Ledger(), {})
    lost = second.commit("k" * 64, Ledger(), {})
    assert lost.attempt == won.attempt == first.name
    assert not second.folder.exists()
    assert find_manifest(out, "job", 3, "k" * 64) == won


def test_a_link_that_was_made_and_told_as_failed_is_a_commit(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an NFS client tells it when the server's answer was lost and it asked again: who has the name decides."""
    link = os.link

    def told_as_failed(temporary: Path, target: Path) -> None:
        link(temporary, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", told_as_failed)
    won = provisional(out).commit("k" * 64, Ledger(), {})
    assert find_manifest(out, "job", 3, "k" * 64) == won and len(won.outputs) == 1
    lost = provisional(out)
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", link)
        assert lost.commit("k" * 64, Ledger(), {}).attempt == won.attempt
    assert not lost.folder.exists() and len(list(out.rglob("*.json*"))) == 1


def provisional(out: Path, replaces: str | None = None) -> Attempt:
    attempt = Attempt(out, "job", 3, replaces)
    with attempt.writer("t", TEXT) as writer:
        writer.write(table([(0, 1)]))
    return attempt


@pytest.mark.parametrize(
    ("place", "words"),
    [("contents-000", "No space left on device: '.*contents-000.parquet'"), ("manifests/.", "No space")],
)
def test_a_full_disk_is_named_by_its_file_and_leaves_nothing_behind(
    out: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    """Wherever it is found full: by the file of a table, or by the manifest."""
    flush = os.fsync

    def full(number: int) -> None:
        if place in os.readlink(f"/proc/self/fd/{number}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(number)

    monkeypatch.setattr(os, "fsync", full)
    attempt = Attempt(out, "job", 0)
    with pytest.raises(OSError, match=words):
        attempt.writer("contents", TEXT).write(table([(0, 1)]))
        attempt.commit("k" * 64, Ledger(), {})
    attempt.discard()
    assert not [path for path in (out / "stages").rglob("*") if path.is_file()]


def test_of_two_copies_that_could_not_read_all_the_first_counts_and_a_later_run_replaces_it(out: Path) -> None:
    """What a stage was complete with must not change under those that read it."""
    one, other = provisional(out), provisional(out)
    first = one.commit("k" * 64, Ledger(), {"provisional": True})
    assert other.commit("k" * 64, Ledger(), {}).attempt == first.attempt
    again, copy = provisional(out, first.attempt), provisional(out, first.attempt)
    second = again.commit("k" * 64, Ledger(), {"provisional": True})
    assert second.attempt == again.name
    assert copy.commit("k" * 64, Ledger(), {}).attempt == again.name
    assert find_manifest(out, "job", 3, "k" * 64) == second


def test_a_shard_that_was_replaced_after_its_stage_was_complete_is_not_read_for_it(out: Path) -> None:
    first = provisional(out).commit("k" * 64, Ledger(), {"provisional": True})
    save_stage_manifest(out, "job", "p", [first])
    assert load_stage_manifest(out, "job", "p")[0] == first
    provisional(out, first.attempt).commit("k" * 64, Ledger(), {})
    with pytest.raises(InputError, match=f"was complete with {first.attempt}"):
        load_stage_manifest(out, "job", "p")[0]


def test_another_key_is_another_shard(out: Path) -> None:
    attempt = Attempt(out, "job", 0)
    attempt.commit("a" * 64, Ledger(), {})
    assert find_manifest(out, "job", 0, "b" * 64) is None


def test_a_ledger_that_does_not_add_up_is_not_committed(out: Path) -> None:
    attempt = Attempt(out, "job", 0)
    with pytest.raises(InputError, match="1 rows and 10 bytes are unaccounted for"):
        attempt.commit("k" * 64, Ledger(rows_in=2, rows_out=1, bytes_in=20, bytes_out=10), {})
    assert find_manifest(out, "job", 0, "k" * 64) is None


def committed(out: Path) -> tuple[Path, Path]:
    attempt = Attempt(out, "job", 0)
    with attempt.writer("t", TEXT) as writer:
        writer.write(table([(0, 1_000), (1, 2_000)]))
    manifest = attempt.commit("k" * 64, Ledger(), {})
    return out / manifest.outputs[0].file, manifest_path(out, "job", 0, "k" * 64)


def test_a_cut_file_is_named_with_its_hash(out: Path) -> None:
    data, _ = committed(out)
    expected = file_sha256(data)
    os.truncate(data, 10)
    with pytest.raises(InputError, match=f"{data.name}.*{expected}") as caught:
        find_manifest(out, "job", 0, "k" * 64)
    assert caught.value.exit_code == 4


def test_a_flipped_byte_in_a_page_is_found_when_it_is_read(out: Path) -> None:
    data, path = committed(out)
    manifest = load_manifest(path)
    raw = bytearray(data.read_bytes())
    offset = pq.ParquetFile(data).metadata.row_group(0).column(1).data_page_offset + 60
    raw[offset] ^= 0xFF
    data.write_bytes(raw)
    with pytest.raises(InputError, match=manifest.outputs[0].sha256):
        list(read_batches(out, manifest.outputs))


def test_a_manifest_changed_by_hand_is_refused(out: Path) -> None:
    _, path = committed(out)
    path.write_bytes(path.read_bytes().replace(b'"rows":2', b'"rows":3'))
    with pytest.raises(InputError, match="does not hash to the digest"):
        load_manifest(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="not a whole shard manifest"):
        load_manifest(path)
