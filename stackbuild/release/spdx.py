"""A manifest as SPDX 3.0.1 documents (JSON-LD), for tools that read bills of materials; a by-product of the manifest.

A document has at most `FILES` rows of one manifest file: a `software_Package` for each repository of which there are any, a
`software_File` for each row, and what relates them. Both are identified by SWHIDs. Encodings, transforms and the order of
rows have no place in SPDX; the texts of licences, and who holds the copyright, no place in a manifest.

Elements are made row by row: each is a nested object of its own, and nothing waits for a by-product.
"""

from __future__ import annotations

import re
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError
from stackbuild.release.filling import exact_batches
from stackbuild.release.manifest import Manifest, placed
from stackbuild.schema import DATASET
from stackbuild.shards import canonical_json, digest, file_sha256
from stackbuild.swhid import escape

CONTEXT: Final = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
VERSION: Final = "3.0.1"
FILES: Final = 10_000  # of a document: readers of JSON-LD hold it whole, and so does this writer
PROFILES: Final = ["core", "simpleLicensing", "software"]
REPOSITORY: Final = ("repo_name", "repo_url", "revision_id", "directory_id", "snapshot_id")
ROWS: Final = pa.schema(
    [
        pa.field("swhid", pa.string()),
        pa.field("sha1", pa.string()),
        *(DATASET.field(name) for name in (*REPOSITORY, "path", "path_bytes", "path_lossy", "detected_licenses")),
    ]
)
VISITS: Final = pa.schema([DATASET.field("visit_date")])
CREATION: Final = "_:creation"  # a blank node: what is no element has no address
ID: Final = "[0-9a-f]{40}"
URI: Final = "%:/?#[]@!$&'()*+,;=-._~"  # beside letters and digits (RFC 3986)

Object = dict[str, Any]


def write_spdx(manifest: Manifest, folder: Path) -> tuple[int, int]:
    """Write documents `<manifest file>-0000.spdx3.json` … below a folder; returns how many, and of how many files.

    The same manifest gives the same bytes: `created`, without which no document is valid, is the newest visit of a repository
    (1970 if none is known). InputError if a file of the manifest is not the one that its header names.
    """
    for entry in manifest.files:
        if file_sha256_of(manifest.folder / entry["manifest"]) != entry["manifest_sha256"]:
            raise InputError(f"{manifest.folder / entry['manifest']} does not hash to {entry['manifest_sha256']}.")
    made = created(manifest)
    identity = digest(manifest.header)
    dataset, version = (str(manifest.header.get(key)) for key in ("name", "stackbuild"))
    documents = files = 0
    folder.mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(manifest.files):
        rows = placed(manifest.folder / entry["manifest"], ROWS, number, entry["manifest_sha256"])
        for part, batch in enumerate(exact_batches(rows, FILES)):
            name = f"{entry['manifest'].removesuffix('.parquet')}-{part:04d}"
            path = folder / f"{name}.spdx3.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            title = f"{dataset}/{name}"
            unique = uuid.uuid5(uuid.NAMESPACE_URL, f"{identity} {name}")
            base = f"https://spdx.org/spdxdocs/{urllib.parse.quote(dataset, safe='')}-{unique}#"
            refuse_malformed(manifest, number, part * FILES, batch)
            with open(path, "wb") as file:
                file.write(b'{"@context":%s,"@graph":[\n' % canonical_json(CONTEXT))
                for at, element in enumerate(graph(batch.to_pylist(), title, base, made, version)):
                    file.write((b",\n" if at else b"") + canonical_json(element))
                file.write(b"\n]}\n")
            documents += 1
            files += batch.num_rows
    return documents, files


def refuse_malformed(manifest: Manifest, file: int, first: int, batch: pa.RecordBatch) -> None:
    """InputError for a row, row `first` of the file or behind it, whose ids are none or that lies nowhere."""
    sound = pc.and_(
        pc.match_substring_regex(batch.column("swhid"), f"^swh:1:cnt:{ID}$"),
        pc.match_substring_regex(batch.column("sha1"), f"^{ID}$"),
    )
    for name in ("repo_name", "revision_id", "path"):
        sound = pc.and_(sound, pc.is_valid(batch.column(name)))
    bad = np.flatnonzero(~np.asarray(pc.fill_null(sound, False)))
    if len(bad):
        raise InputError(
            f"{manifest.place(file, first + int(bad[0]))}: the ids or the place of a file are malformed; see `stackbuild manifest "
            "verify --level 0`."
        )


def file_sha256_of(path: Path) -> str:
    """SHA-256 of a file; InputError if it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error


def created(manifest: Manifest) -> str:
    """The newest visit of a repository, as SPDX writes a time."""
    newest = datetime.fromtimestamp(0, UTC)
    for number, entry in enumerate(manifest.files):
        for batch in placed(manifest.folder / entry["manifest"], VISITS, number, entry["manifest_sha256"]):
            seconds = pc.max(pc.cast(batch.column(0), pa.timestamp("s"), safe=False).cast(pa.int64())).as_py()
            if seconds is not None:
                newest = max(newest, datetime.fromtimestamp(seconds, UTC))
    return newest.strftime("%Y-%m-%dT%H:%M:%SZ")


def graph(rows: Sequence[Mapping[str, Any]], title: str, base: str, made: str, version: str) -> Iterator[Object]:
    """The elements of a document of rows of ROWS, those of a repository behind each other; `base`: what their addresses
    begin with."""

    def element(kind: str, address: str, /, **properties: Any) -> Object:
        return {"type": kind, "spdxId": base + address, "creationInfo": CREATION, **properties}

    yield {
        "type": "CreationInfo",
        "@id": CREATION,
        "specVersion": VERSION,
        "created": made,
        "createdBy": [f"{base}agent"],
        "createdUsing": [f"{base}tool"],
        "comment": "created: the newest visit of a repository, so that a manifest has one document",
    }
    yield element("SoftwareAgent", "agent", name="stackbuild")
    yield element("Tool", "tool", name=f"stackbuild {version}")
    licenses: dict[str, str] = {}  # addresses by expression
    packages: list[str] = []
    number = 0
    for repository, of_it in groupby(rows, itemgetter(*REPOSITORY)):
        package = f"package-{len(packages)}"
        packages.append(base + package)
        yield element("software_Package", package, **described(*repository))
        inside: list[str] = []
        for row in of_it:
            file = f"file-{number}"
            number += 1
            inside.append(base + file)
            yield element("software_File", file, **identified(row))
            found = row["detected_licenses"] or []
            for expression in dict.fromkeys(found):
                if expression not in licenses:
                    name = f"license-{len(licenses)}"
                    licenses[expression] = base + name
                    yield element(
                        "simplelicensing_LicenseExpression", name, simplelicensing_licenseExpression=expression
                    )
            if found:
                to = sorted({licenses[expression] for expression in found})
                yield element("Relationship", f"{file}-licenses", **related(base + file, "hasDeclaredLicense", to))
        contains = related(base + package, "contains", inside)
        yield element("Relationship", f"{package}-files", **contains, completeness="incomplete")
    yield element(
        "software_Sbom",
        "sbom",
        name=title,
        profileConformance=PROFILES,
        rootElement=packages,
        software_sbomType=["source"],
    )
    yield element("SpdxDocument", "document", name=title, profileConformance=PROFILES, rootElement=[f"{base}sbom"])


def related(one: str, how: str, others: list[str]) -> Object:
    """The properties of a relationship."""
    return {"from": one, "relationshipType": how, "to": others}


def described(name: str, url: str | None, revision: str, directory: str | None, snapshot: str | None) -> Object:
    """The properties of a repository: its root directory is what it is, the snapshot what it was found in."""
    properties: Object = {"name": name, "software_packageVersion": revision, "software_primaryPurpose": "source"}
    if url:
        properties["software_downloadLocation"] = urllib.parse.quote(url, safe=URI)
    if directory and re.fullmatch(ID, directory):
        properties["software_contentIdentifier"] = [content_identifier("swhid", f"swh:1:dir:{directory}")]
    if snapshot and re.fullmatch(ID, snapshot):
        identifier = {"externalIdentifierType": "swhid", "identifier": f"swh:1:snp:{snapshot}"}
        properties["externalIdentifier"] = [{"type": "ExternalIdentifier", **identifier}]
    return properties


def identified(row: Mapping[str, Any]) -> Object:
    """The properties of a file: its path, and its bytes by SWHID, git id and SHA-1."""
    swhid = row["swhid"]
    properties: Object = {
        "name": row["path"].removeprefix("/"),
        "software_contentIdentifier": [
            content_identifier("swhid", swhid),
            content_identifier("gitoid", f"gitoid:blob:sha1:{swhid.rpartition(':')[2]}"),
        ],
        "verifiedUsing": [{"type": "Hash", "algorithm": "sha1", "hashValue": row["sha1"]}],
    }
    if row["path_lossy"]:
        properties["comment"] = f"path, percent-encoded: {escape(row['path_bytes'])}"
    return properties


def content_identifier(kind: str, value: str) -> Object:
    return {
        "type": "software_ContentIdentifier",
        "software_contentIdentifierType": kind,
        "software_contentIdentifierValue": value,
    }
