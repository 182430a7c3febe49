"""An export in a bucket of a real S3-compatible server, which the test starts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from stackbuild.errors import InputError, TemporaryError
from stackbuild.sources.swh.convert import Counts, convert
from stackbuild.sources.swh.export import open_export, opened
from stackbuild.sources.swh.tables import ENTRIES, VISITS
from tests.sources.swh.mini_export import MiniExport, make_export

pytest.importorskip("s3fs")
pytest.importorskip("localbucket")


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> MiniExport:
    return make_export(tmp_path_factory.mktemp("export"), "orc", objects=False)


@pytest.fixture
def server(mini: MiniExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """The export lies in it at s3://softwareheritage/graph/2026-06-04."""
    shutil.copytree(mini.root.parent, tmp_path / "softwareheritage" / "graph")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "localbucket", "--port", str(port), str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield process
    finally:
        process.kill()
        process.wait()


def test_tables_in_a_bucket_read_as_on_disk(server: subprocess.Popen[bytes], mini: MiniExport, tmp_path: Path) -> None:
    far, near = open_export("s3://softwareheritage/graph/2026-06-04"), open_export(str(mini.root))
    assert far.metadata == near.metadata
    assert [entry[:2] for entry in far.identity()] == [entry[:2] for entry in near.identity()]
    assert all(len(entry[2]) == 32 for entry in far.identity())  # etags
    for spec in (ENTRIES, VISITS):
        for one, two in zip(far.table(spec.source), near.table(spec.source), strict=True):
            rows = []
            for file in (one, two):
                with opened(file) as table:
                    rows.append([piece.to_pylist() for piece in convert(table, spec, tmp_path, Counts())])
            assert rows[0] == rows[1]


def test_what_is_not_there_and_who_does_not_answer_are_told_apart(server: subprocess.Popen[bytes]) -> None:
    file = open_export("s3://softwareheritage/graph/2026-06-04").table("content")[0]
    with pytest.raises(InputError, match="is not there"):
        open_export("s3://softwareheritage/graph/1999-01-01")
    server.kill()
    server.wait()
    with pytest.raises(TemporaryError, match="cannot be read now"), opened(file):
        pass
