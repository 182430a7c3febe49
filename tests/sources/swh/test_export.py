"""Finding and opening an export: every layout, and everything that can be wrong with it."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from stackbuild.errors import InputError, MissingDependency, TemporaryError
from stackbuild.sources.swh.convert import Counts, convert
from stackbuild.sources.swh.export import Export, ExportFile, open_export, opened
from stackbuild.sources.swh.tables import ENTRIES, TABLES, VISITS
from tests.sources.swh.mini_export import Format, MiniExport, make_export, write_orc_metadata

BOTH = pytest.mark.parametrize("format", ["orc", "parquet"])


@pytest.fixture(scope="module", params=["orc", "parquet"])
def mini(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MiniExport:
    return make_export(tmp_path_factory.mktemp("export"), request.param, objects=False)


def rows(file: ExportFile, scratch: Path, spec: Any = ENTRIES) -> list[Any]:
    counts = Counts()
    with opened(file) as table:
        return [row for piece in convert(table, spec, scratch, counts) for row in piece.to_pylist()]


def copy_of(mini: MiniExport, folder: Path) -> Path:
    shutil.copytree(mini.root, folder / "2026-06-04")
    return folder / "2026-06-04"


# ---------------------------------------------------------------- finding


def test_an_export_is_found_from_its_date_or_format_folder_or_under_another_name(
    mini: MiniExport, tmp_path: Path
) -> None:
    found = open_export(str(mini.root))
    assert found.format == mini.format
    assert found.metadata["swh_model_version"] == "8.4.1"
    assert {spec.source for spec in TABLES.values()} <= found.files.keys()
    again = open_export(str(mini.root / mini.format))
    assert (again.identity(), again.metadata) == (found.identity(), found.metadata)
    shutil.copytree(mini.root / mini.format, tmp_path / "elsewhere")
    assert open_export(str(tmp_path / "elsewhere")).identity() == found.identity()


def test_files_are_listed_sorted_with_their_sizes_and_nothing_else_is(mini: MiniExport, tmp_path: Path) -> None:
    root = copy_of(mini, tmp_path)
    folder = root / mini.format / "content"
    for name in ("_SUCCESS", f".content.{mini.format}", f"_part.{mini.format}", "content.crc"):
        (folder / name).write_bytes(b"x")
    (root / mini.format / "person").mkdir()
    found = open_export(str(root))
    assert "person" not in found.files
    assert [file.name.partition("/")[2] for file in found.table("content")] == sorted(
        path.name for path in mini.table_files("content")
    )
    assert all(file.size == Path(file.url.removeprefix("file://")).stat().st_size for file in found.table("content"))


def test_orc_is_taken_where_both_formats_are_unless_asked_otherwise(tmp_path: Path) -> None:
    one = make_export(tmp_path / "1", "orc", objects=False)
    two = make_export(tmp_path / "2", "parquet", objects=False)
    shutil.copytree(two.root / "parquet", one.root / "parquet")
    assert open_export(str(one.root)).format == "orc"
    assert open_export(str(one.root), "parquet").format == "parquet"


def in_memory(mini: MiniExport) -> str:
    name = f"/bucket-{uuid.uuid4().hex}/graph/2026-06-04"
    fsspec.filesystem("memory").put(str(mini.root), name, recursive=True)
    return "memory:/" + name


def test_an_export_behind_a_url_reads_as_on_disk(mini: MiniExport, tmp_path: Path) -> None:
    far, near = open_export(in_memory(mini)), open_export(str(mini.root))
    assert far.identity() == near.identity()
    for table in ("directory_entry", "origin_visit_status", "revision"):
        spec = next(spec for spec in TABLES.values() if spec.source == table)
        for one, two in zip(far.table(table), near.table(table), strict=True):
            assert one.url.startswith("memory://")
            assert rows(one, tmp_path, spec) == rows(two, tmp_path, spec)


def test_s3_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def absent(url: str, **options: Any) -> None:
        asked.append(options)
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(MissingDependency, match=r"stackbuild\[s3\]"):
        open_export("s3://softwareheritage/graph/2026-06-04")
    with pytest.raises(MissingDependency):
        open_export("s3://softwareheritage/graph/2026-06-04", signed=True)
    assert [options["anon"] for options in asked] == [True, False]  # unsigned unless asked for


@pytest.mark.parametrize("name", ["nowhere", "empty", "file", "strange"])
def test_what_is_no_export_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "strange" / "orc" / "directory_entry_dir").mkdir(parents=True)
    (tmp_path / "strange" / "orc" / "directory_entry_dir" / "a.orc").write_bytes(b"x")
    with pytest.raises(InputError, match=name):
        open_export(str(tmp_path / name))


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(InputError, match="no address"):
        open_export("gopher://x/y")


def test_the_export_of_2019_is_refused_for_its_schema(tmp_path: Path) -> None:
    """It has `directory` with lists of entries, and no `directory_entry`."""
    folder = tmp_path / "parquet" / "directory"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["00" * 20], "dir_entries": [[1]]}), folder / "a.parquet")
    with pytest.raises(InputError, match=r"no table directory_entry; there are: directory\..*2019"):
        open_export(str(tmp_path)).table("directory_entry")


def test_meta_that_is_not_json_is_named(mini: MiniExport, tmp_path: Path) -> None:
    root = copy_of(mini, tmp_path)
    (root / "meta" / "export.json").write_bytes(b'{"cut')
    with pytest.raises(InputError, match=r"export\.json is not JSON"):
        open_export(str(root))


# ---------------------------------------------------------------- one file


def replaced(
    mini: MiniExport, folder: Path, table: str, change: Callable[[pa.Table], pa.Table], **metadata: str
) -> Export:
    """A copy of the export in which the first file of a table was rewritten."""
    root = copy_of(mini, folder)
    path = sorted((root / mini.format / table).iterdir())[0]
    if mini.format == "orc":
        orc.write_table(change(orc.read_table(str(path))), str(path))
        write_orc_metadata(path, metadata)
    else:
        pq.write_table(change(pq.read_table(path)).replace_schema_metadata(metadata or None), path)
    return open_export(str(root))


def test_a_missing_column_is_named_with_table_file_and_what_is_there(mini: MiniExport, tmp_path: Path) -> None:
    export = replaced(mini, tmp_path, "directory_entry", lambda table: table.drop_columns(["perms"]))
    with pytest.raises(
        InputError,
        match=rf"table directory_entry: .*\.{mini.format} has no column perms; it has directory_id, name, type",
    ):
        rows(export.table("directory_entry")[0], tmp_path)


def test_a_column_of_another_type_is_named(mini: MiniExport, tmp_path: Path) -> None:
    export = replaced(
        mini, tmp_path, "directory_entry", lambda t: t.set_column(3, "target", pa.array([1.5] * t.num_rows))
    )
    with pytest.raises(InputError, match=r"column target of .* is of type double"):
        rows(export.table("directory_entry")[0], tmp_path)


@pytest.mark.parametrize(
    ("name", "version"),
    [("swh_model_version", "9.0.0"), ("swh_export_version", "2.0"), ("swh_model_version", "next")],
)
def test_a_later_major_version_is_refused(mini: MiniExport, tmp_path: Path, name: str, version: str) -> None:
    export = replaced(mini, tmp_path, "content", lambda table: table, **{name: version})
    with (
        pytest.raises(InputError, match=rf"{name} = '{version}'.*newer stackbuild"),
        opened(export.table("content")[0]),
    ):
        pass


@pytest.mark.parametrize("version", ["8.99.1", "6.0.0", None])
def test_earlier_versions_and_files_that_say_none_are_read(
    mini: MiniExport, tmp_path: Path, version: str | None
) -> None:
    said = {"swh_model_version": version} if version else {}
    export = replaced(mini, tmp_path, "content", lambda table: table, **said)
    with opened(export.table("content")[0]) as table:
        assert table.metadata == said


@pytest.mark.parametrize("kept", [0, 3, 0.5, -1, -40])
def test_a_truncated_file_is_named(mini: MiniExport, tmp_path: Path, kept: float) -> None:
    root = copy_of(mini, tmp_path)
    path = sorted((root / mini.format / "directory_entry").iterdir())[0]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=rf"{path.name}.* is damaged"):
        rows(open_export(str(root)).table("directory_entry")[0], tmp_path)


def test_no_damage_ends_in_anything_but_an_input_error(mini: MiniExport, tmp_path: Path) -> None:
    """Some flipped bytes are not seen (the formats have no checksums of their own); none may raise anything else."""
    root = copy_of(mini, tmp_path)
    path = sorted((root / mini.format / "origin_visit_status").iterdir())[0]
    data = path.read_bytes()
    refused = 0
    for at in range(0, len(data), 97):
        path.write_bytes(data[:at] + bytes(byte ^ 0x5A for byte in data[at : at + 8]) + data[at + 8 :])
        try:
            rows(open_export(str(root)).table("origin_visit_status")[0], tmp_path, VISITS)
        except InputError as error:
            assert path.name in str(error)
            refused += 1
    assert refused > 3


def test_a_file_that_changed_since_the_listing_is_refused(mini: MiniExport, tmp_path: Path) -> None:
    root = copy_of(mini, tmp_path)
    file = open_export(str(root)).table("content")[0]
    Path(file.url.removeprefix("file://")).write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="100 bytes; it had"), opened(file):
        pass
    Path(file.url.removeprefix("file://")).unlink()
    with pytest.raises(InputError, match="is not there"), opened(file):
        pass


def test_a_server_that_fails_is_not_taken_for_damage(
    mini: MiniExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(table: pa.Table) -> pa.Table:
        names = [hashlib.sha256(b"%d" % row).digest() for row in range(5000)]
        return table.take([0] * 5000).set_column(1, "name", pa.array(names))

    export = replaced(mini, tmp_path, "directory_entry", many)
    file = open_export(in_memory(dataclasses.replace(mini, root=Path(export.root)))).table("directory_entry")[0]
    from fsspec.implementations.memory import MemoryFile

    def fails(*_: Any) -> bytes:
        raise OSError("connection reset")

    with opened(file) as table:
        list(table.batches(["perms"]))
        monkeypatch.setattr(MemoryFile, "read", fails)
        with pytest.raises(TemporaryError, match=r"memory://.*connection reset"):
            list(table.batches(["name"]))
    with pytest.raises(TemporaryError, match="connection reset"), opened(file):
        pass


@BOTH
def test_batches_have_the_rows_that_were_asked_for_at_most(tmp_path: Path, format: Format) -> None:
    """A stripe of ORC holds millions of rows: memory follows from the batch, not from the stripe."""
    folder = tmp_path / format / "content"
    folder.mkdir(parents=True)
    table = pa.table({"sha1": [f"{i:040x}" for i in range(5000)], "length": range(5000)})
    if format == "orc":
        orc.write_table(table, str(folder / "c.orc"))
        assert orc.ORCFile(str(folder / "c.orc")).nstripes == 1
    else:
        pq.write_table(table, folder / "c.parquet")
    with opened(open_export(str(tmp_path)).table("content")[0]) as file:
        batches = list(file.batches(["length"], 512))
        assert file.rows == 5000
    assert max(batch.num_rows for batch in batches) <= 512
    assert pa.Table.from_batches(batches)["length"].to_pylist() == list(range(5000))
    assert batches[0].schema.names == ["length"]
