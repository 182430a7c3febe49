"""SPDX documents of a manifest: valid by the model's own bindings, complete, the same for the same manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from spdx_python_model import v3_0_1 as model

from stackbuild.release import spdx
from stackbuild.release.manifest import read_manifest
from tests.release.releases import File, release, rewrite
from tests.test_publish import main

FILES = [
    File("ann/a", b"src/a.py", b"a = 1\n"),
    File("ann/a", b"src/caf\xe9.py", b"b = 1\n"),
    File("ann/a", b"z;\n.py", b""),
    File("bob/b", b"c.py", b"c = 1\n", revision="release 2"),
    File("bob/b", b"d.rs", b"fn d() {}\n", language="Rust", revision="release 2"),
]
LICENSES = {b"src/a.py": ["MIT", "Apache-2.0 OR MIT"], b"c.py": ["MIT"], b"d.rs": ["LicenseRef-scancode-other"]}


def told(row: dict[str, Any]) -> dict[str, Any]:
    row["detected_licenses"] = LICENSES.get(row["path_bytes"], [])
    row["path_lossy"] = row["path_bytes"] == b"src/caf\xe9.py"
    row["repo_url"] = {"ann/a": "https://host/ann/a b\u00e9", "bob/b": None}[row["repo_name"]]
    row["snapshot_id"] = "ab" * 20
    row["visit_date"] = {"ann/a": datetime(2024, 2, 29, 23, 59, 59), "bob/b": None}[row["repo_name"]]
    return row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    release(tmp_path / "out", FILES, told)
    return tmp_path / "out"


def documents(folder: Path) -> dict[str, bytes]:
    below = folder / "spdx"
    return {str(path.relative_to(below)): path.read_bytes() for path in sorted(below.rglob("*")) if path.is_file()}


def elements(document: bytes) -> list[dict[str, Any]]:
    body = json.loads(document)
    assert body["@context"] == "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
    graph: list[dict[str, Any]] = body["@graph"]
    return graph


def of_kind(document: bytes, kind: str) -> Iterator[dict[str, Any]]:
    return (element for element in elements(document) if element["type"] == kind)


def validated(path: Path) -> Any:
    """The document as the SPDX project's own bindings read it: they refuse unknown types, properties and values."""
    found = model.SHACLObjectSet()
    with open(path, "rb") as file:
        model.JSONLDDeserializer().read(file, found)
    assert not list(found.link())  # each address that is named is there
    model.JSONLDSerializer().serialize_data(found)  # nothing lacks that an element must have
    return found


def test_documents_are_valid_and_lead_from_the_document_to_each_file(folder: Path) -> None:
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 0
    paths = sorted((folder / "spdx").rglob("*.json"))
    assert [str(path.relative_to(folder / "spdx")) for path in paths] == [
        "data/Python/train-00000-of-00001-0000.spdx3.json",
        "data/Rust/train-00000-of-00001-0000.spdx3.json",
    ]
    reached = []
    for path in paths:
        found = validated(path)
        (document,) = found.foreach_type(model.SpdxDocument)
        (sbom,) = document.rootElement
        holds = {
            one.from_._id: one.to
            for one in found.foreach_type(model.Relationship)
            if one.relationshipType.endswith("contains")
        }
        for package in sbom.rootElement:
            assert package.creationInfo.specVersion == "3.0.1"
            reached += [(package.name, package.software_packageVersion, file.name) for file in holds[package._id]]
    expected = [(f.repo, f.revision, f.path.decode("utf-8", "replace")) for f in FILES]
    assert sorted(reached) == sorted(expected)


def test_a_file_is_identified_by_swhid_git_id_and_sha1(folder: Path) -> None:
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 0
    (document,) = (one for name, one in documents(folder).items() if "Python" in name)
    files = {file["name"]: file for file in of_kind(document, "software_File")}
    # `git hash-object` and `sha1sum` of the empty file.
    assert files["z;\n.py"]["software_contentIdentifier"] == [
        {
            "type": "software_ContentIdentifier",
            "software_contentIdentifierType": "swhid",
            "software_contentIdentifierValue": "swh:1:cnt:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        },
        {
            "type": "software_ContentIdentifier",
            "software_contentIdentifierType": "gitoid",
            "software_contentIdentifierValue": "gitoid:blob:sha1:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        },
    ]
    assert files["z;\n.py"]["verifiedUsing"] == [
        {"type": "Hash", "algorithm": "sha1", "hashValue": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}
    ]
    assert files["src/caf\ufffd.py"]["comment"] == "path, percent-encoded: src/caf%E9.py"
    assert "comment" not in files["src/a.py"]
    assert b"copyrightText" not in document


def test_a_repository_has_its_root_directory_its_snapshot_and_where_it_is_from(folder: Path) -> None:
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 0
    (document,) = (one for name, one in documents(folder).items() if "Python" in name)
    ann, bob = of_kind(document, "software_Package")
    row = next(read_manifest(folder / "manifest").rows(spdx.ROWS)).to_pylist()[0]
    (identifier,) = ann["software_contentIdentifier"]
    assert identifier["software_contentIdentifierValue"] == f"swh:1:dir:{row['directory_id']}"
    assert ann["externalIdentifier"][0]["identifier"] == "swh:1:snp:" + "ab" * 20
    assert ann["software_downloadLocation"] == "https://host/ann/a%20b%C3%A9"
    assert (bob["software_packageVersion"], "software_downloadLocation" in bob) == ("release 2", False)


def test_detected_licenses_are_declared_ones_each_expression_once(folder: Path) -> None:
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 0
    found: dict[str, set[str]] = {}
    for document in documents(folder).values():
        kind = "simplelicensing_LicenseExpression"
        words = {one["spdxId"]: one["simplelicensing_licenseExpression"] for one in of_kind(document, kind)}
        assert len(set(words.values())) == len(words)
        names = {one["spdxId"]: one["name"] for one in of_kind(document, "software_File")}
        for one in of_kind(document, "Relationship"):
            if one["relationshipType"] == "hasDeclaredLicense":
                found[names[one["from"]]] = {words[to] for to in one["to"]}
    assert found == {path.decode(): set(licenses) for path, licenses in LICENSES.items()}


def test_a_manifest_has_one_document_whenever_it_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in it is the newest visit; long files are cut at rows, and each document is one by itself."""
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 0
    first = documents(folder)
    assert {one["created"] for document in first.values() for one in of_kind(document, "CreationInfo")} == {
        "2024-02-29T23:59:59Z"
    }
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 0
    assert documents(folder) == first
    addresses = [one["spdxId"] for document in first.values() for one in elements(document) if "spdxId" in one]
    assert len(set(addresses)) == len(addresses)
    monkeypatch.setattr(spdx, "FILES", 2)
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 0
    assert [len(list(of_kind(document, "software_File"))) for document in documents(folder).values()] == [2, 2, 1]
    for path in (folder / "spdx").rglob("*.json"):
        validated(path)
    assert {path.name for path in folder.iterdir()} <= {"dataset", "manifest", "spdx", ".lock"}


def test_without_a_visit_it_is_created_at_the_beginning_of_time(tmp_path: Path) -> None:
    manifest = release(tmp_path, FILES)
    assert spdx.created(manifest) == "1970-01-01T00:00:00Z"
    assert spdx.write_spdx(manifest, tmp_path / "spdx") == (2, 5)
    for path in (tmp_path / "spdx").rglob("*.json"):
        validated(path)
    assert spdx.write_spdx(release(tmp_path / "empty", []), tmp_path / "empty" / "spdx") == (0, 0)


def test_a_malformed_row_or_file_is_named_and_the_old_documents_stay(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 0
    first = documents(folder)

    def wrong(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[1]["swhid"] = "swh:1:cnt:DA39A3EE5E6B4B0D3255BFEF95601890AFD80709"
        return rows

    name = "data/Python/train-00000-of-00001.parquet"
    rewrite(folder, name, wrong)
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 4
    assert f"{name}, row 1: the ids or the place of a file are malformed" in capsys.readouterr().err.replace("\n", " ")
    assert documents(folder) == first
    (folder / "manifest" / name).write_bytes(b"torn")
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 4
    assert "does not hash to" in capsys.readouterr().err.replace("\n", " ")
    (folder / "manifest" / name).unlink()
    assert main(["manifest", "write", str(folder), "--layout", "spdx"]) == 4
    assert documents(folder) == first
