"""Labelled texts to measure the licence detector on. What is fetched comes through the package clients of the machine.

  spdx    every text of an SPDX licence that ScanCode ships (its own data, so near to a self-test); truth: its key
  npm     the licence files of some 1,500 npm packages (the list below and all that these need, by `npm install` without
          scripts, once, into a folder that the user gives); truth: the SPDX expression of package.json
  debian  the licence texts in the machine's own /usr/share/doc/*/copyright in DEP-5 form; truth: their short names
  tree    the licence-named files below folders; no truth
  headers the files of Parquet shards (column text or content); truth: none, the peer's answer stands for it

One case is a distinct set of texts with its truth. Labels have errors (a package.json that says ISC above a text of MIT):
figures are for comparing engines, and a miss is worth reading.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import listed

ROOTS = listed("""
    eslint@10.15.0 webpack@5.112.2 jest@30.5.2 mocha@12.0.3 express@5.3.0 rollup@4.68.7 gulp@5.0.1 karma@6.4.4
    browserify@17.0.1 standard@17.1.2 @babel/preset-env@7.29.14 nodemon@3.1.14 json-schema@0.4.0
    node-forge@1.4.3 caniuse-lite@1.0.30001826 axe-core@4.14.1 argparse@3.0.4 pako@3.0.3 dompurify@3.4.18
    jszip@3.10.2 expand-template@2.0.3 lightningcss@1.33.0 mdn-data@2.37.2 spdx-exceptions@2.5.0
    spdx-license-list@6.12.0 truncate-utf8-bytes@1.0.2 opener@1.5.2 elkjs@0.12.1 gsap@3.15.0 tinymce@8.9.2
    handsontable@18.1.1 mathjax@4.1.3 three@0.187.0 sjcl@1.0.9 openpgp@6.3.2 @wordpress/element@8.8.0
    @wordpress/i18n@6.29.0 @wordpress/components@41.0.0 @ckeditor/ckeditor5-core@48.5.2
    @fortawesome/fontawesome-free@7.3.1 @fontsource/roboto@5.3.0 @blueoak/list@15.0.0 big-integer@1.6.52
    tweetnacl@1.0.3 npm-lifecycle@3.1.5 bpmn-js@18.31.1 jsmin@1.0.1 highcharts@13.1.1 ag-grid-enterprise@36.2.0
    libsodium-wrappers@0.8.4 jquery@4.0.0 video.js@8.24.1 leaflet@1.9.4 d3@7.9.2 rrule@2.8.1 sql.js@1.16.0
    asmcrypto.js@2.3.2 esprima@4.0.1 uglify-js@3.19.3 rc@1.2.8 colors@1.4.0 sprintf-js@1.1.3 node-gettext@3.0.1
    jsonld@9.0.0 n3@2.13.12 pdfkit@0.20.2 exceljs@4.4.0 ffmpeg-static@5.3.0 minio@8.0.7 mongodb@7.9.0
    cassandra-driver@4.10.0 neo4j-driver-lite@6.2.0 plotly.js-dist-min@4.1.2 underscore@1.13.8 backbone@1.6.1
    ember-source@7.3.0 knockout@3.5.3 mithril@2.3.8 vue@3.5.45 react@19.3.1 @angular/core@21.2.26 rxjs@7.8.2
    zone.js@0.16.3 ua-parser-js@2.0.10 bcryptjs@3.0.3 seedrandom@3.0.5 long@5.3.2 protobufjs@8.8.1
    google-protobuf@4.0.3 @grpc/grpc-js@1.14.7 lodash@4.18.1 moment@2.31.0 mapbox-gl@3.32.0
""")
LICENSE_NAME = re.compile(r"(?i)^(?:un)?(?:licen[cs]es?|copying)(?:[-_. ].*)?$")

# Debian's short names that are not SPDX ids in another case; versions of the GNU licences go by rule.
DEBIAN = {
    "expat": "MIT", "artistic": "Artistic-1.0-Perl", "psf-2": "Python-2.0", "boost-1.0": "BSL-1.0",
    "public-domain": "LicenseRef-scancode-public-domain",
}  # fmt: skip
GNU = re.compile(r"(a?l?gpl|gfdl)-?v?(\d)(\.\d)?(\+?)")


@dataclass(frozen=True)
class Case:
    """`truth`: an SPDX expression, or None if it is not known. `texts`: the files, as bytes. `named`: as licences proper."""

    truth: str | None
    texts: tuple[bytes, ...]
    named: bool = True


def spdx() -> Iterator[Case]:
    from licensedcode.cache import get_licenses_db

    for one in get_licenses_db().values():
        if one.text and not one.is_exception and not one.spdx_license_key.startswith("LicenseRef"):
            yield Case(one.spdx_license_key, (one.text.encode(),))


def npm(cache: Path) -> Iterator[Case]:
    """Packages whose package.json names SPDX licences; those without a licence file are left out."""
    from stackbuild.licenses.tags import UNKNOWN_SPDX, read_tag

    folder = cache / "npm"
    if not folder.exists():
        install(cache, folder)
    for package in sorted(folder.iterdir()):
        stated = json.loads((package / "package.json").read_text(encoding="utf-8")).get("license")
        truth = read_tag(stated) if isinstance(stated, str) else None
        texts = tuple(path.read_bytes() for path in sorted(package.iterdir()) if path.name != "package.json")
        if texts and truth is not None and UNKNOWN_SPDX not in truth:
            yield Case(truth, texts)


def install(cache: Path, folder: Path) -> None:
    """Fetch the packages, and keep their manifests and licence files alone."""
    place = cache / "install"
    place.mkdir(parents=True)
    (place / "package.json").write_text('{"name": "licences", "version": "0.0.0", "private": true}')
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps", "--omit=optional", "--no-save"]
    subprocess.run(
        ["npm", "install", *options, *ROOTS], cwd=place, check=True, stdout=sys.stderr
    )  # ours is for results
    kept = cache / "npm.part"
    for manifest in place.glob("node_modules/**/package.json"):
        body = json.loads(manifest.read_bytes())
        if not (isinstance(body, dict) and body.get("name") and body.get("version")):
            continue
        target = kept / f"{body['name'].replace('/', '__')}@{body['version']}"
        if target.exists():
            continue
        target.mkdir(parents=True)
        stated = {name: body[name] for name in ("name", "version", "license") if name in body}
        (target / "package.json").write_text(json.dumps(stated))
        for path in manifest.parent.iterdir():
            if path.is_file() and LICENSE_NAME.match(path.name):
                shutil.copy(path, target / path.name)
    shutil.rmtree(place)
    kept.rename(folder)


def debian(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("*/copyright")):
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        if not re.match(r"\s*Format", text):
            continue
        for stanza in re.split(r"\n\s*\n", text):
            found = re.search(r"^License:[ \t]*(.*)\n((?:[ \t].*\n?)+)", stanza, re.MULTILINE)
            truth = short_names(found[1]) if found else None
            if found and truth:
                lines = ("" if line.strip() == "." else line[1:] for line in found[2].split("\n"))
                body = "\n".join(lines)
                if len(body.split()) >= 5:
                    yield Case(truth, (body.encode(),))


def short_names(value: str) -> str | None:
    """A short name of DEP-5, or several, as an SPDX expression; None if one of them is not known."""
    from stackbuild.licenses.spdx import license_key

    words = []
    for word in re.split(r"\s+(or|and)\s+|,\s*", value.strip().lower()):
        if word in ("or", "and"):
            words.append(word.upper())
            continue
        gnu = GNU.fullmatch(word or "")
        if gnu:
            version = gnu[2] + (gnu[3] or ".0")
            words.append(f"{gnu[1].upper()}-{version}{'-or-later' if gnu[4] else '-only'}")
        else:
            key = DEBIAN.get(word or "") or license_key(word or "?")
            if key is None:
                return None
            words.append(key)
    return " ".join(words)


def tree(folders: list[Path]) -> Iterator[Case]:
    import pyarrow as pa

    from stackbuild.licenses.names import is_license_file, is_license_proper

    for folder in folders:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
        names = pa.array([str(path) for path in paths], pa.string())
        rows = zip(paths, is_license_file(names).to_pylist(), is_license_proper(names).to_pylist(), strict=True)
        yield from (Case(None, (path.read_bytes(),), proper) for path, named, proper in rows if named)


def distinct(cases: Iterator[Case]) -> list[Case]:
    """Each set of texts once with each truth, in an order that no folder decides."""
    found = {}
    for case in cases:
        key = hashlib.sha256(repr((case.truth, sorted(case.texts))).encode()).digest()
        found.setdefault(key, case)
    return [found[key] for key in sorted(found)]
