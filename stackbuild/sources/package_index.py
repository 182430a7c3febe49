"""The simple API of a package index: which files there are of a project.

Both forms are read: JSON (PEP 691, with the sizes and upload times of PEP 700) and HTML (PEP 503, with the yanked mark
of PEP 592), over http(s) and from a `file:` folder of `<project>/index.html`. A page of the web that points to a local
file is refused.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Final

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from stackbuild.errors import InputError
from stackbuild.sources.package_fetch import Absent, Fetcher
from stackbuild.sources.timestamps import nanoseconds

FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!~-]{0,254}", re.ASCII)
HASHES: Final = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}  # hexadecimal digits
SDIST_SUFFIXES: Final = (".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz")  # in order of preference


@dataclass(frozen=True)
class Release:
    """A file of a project. `hashes`: as announced. `upload_time`: nanoseconds since 1970. `rank`: best first."""

    filename: str
    version: Version
    format: str  # sdist or wheel
    rank: tuple[int, str]
    url: str
    hashes: Mapping[str, str]
    yanked: bool
    upload_time: int | None
    size: int | None


def releases(project: str, fetcher: Fetcher) -> list[Release] | None:
    """All files of a project over all indexes; of one name, the first index has it. None if no index knows the project.

    Raises InputError for a page that is no simple API, TemporaryError for an index that does not answer.
    """
    found: dict[str, Release] = {}
    known = False
    for index in fetcher.settings.indexes:
        local = index.startswith("file:")
        try:
            url, content_type, body = fetcher.page(f"{index}/{project}/{'index.html' if local else ''}")
        except Absent:
            continue
        known = True
        for release in parse_page(project, url, content_type, body):
            found.setdefault(release.filename, release)
    return list(found.values()) if known else None


def parse_page(project: str, url: str, content_type: str, body: bytes) -> Iterator[Release]:
    """The releases on a page, in its order; files that are neither sdist nor wheel of this project are left out."""
    form = content_type.partition(";")[0].strip().lower()
    if form.endswith("+json") or form == "application/json":
        links = _json_links(url, body)
    elif form in ("text/html", "application/xhtml+xml") or form.endswith("+html"):
        links = _html_links(url, body)
    else:
        raise InputError(f"{url} is of type {content_type!r}, not a page of a package index.")
    for link in links:
        release = _release(project, url, link)
        if release is not None:
            yield release


# ---------------------------------------------------------------- JSON and HTML to links

Link = dict[str, Any]  # filename, url, hashes, yanked, upload-time, size: the names of PEP 691 and PEP 700


def _json_links(url: str, body: bytes) -> list[Link]:
    try:
        page = json.loads(body)
        version, files = str(page["meta"]["api-version"]), page["files"]
        if not isinstance(files, list) or not all(isinstance(link, dict) for link in files):
            raise ValueError("files is no list of objects")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{url} is not a page of the simple API ({error}).") from error
    _refuse_unknown(url, version)
    return files


def _html_links(url: str, body: bytes) -> list[Link]:
    page = _Anchors()
    page.feed(body.decode("utf-8", "replace"))
    page.close()
    if page.version:
        _refuse_unknown(url, page.version)
    base = urllib.parse.urljoin(url, page.base) if page.base else url
    links = []
    for attributes in page.anchors:
        target, _, fragment = urllib.parse.urljoin(base, attributes["href"] or "").partition("#")
        name, _, digest = fragment.partition("=")
        links.append(
            {
                "filename": urllib.parse.unquote(urllib.parse.urlsplit(target).path.rpartition("/")[2]),
                "url": target,
                "hashes": {name: digest} if digest else {},
                "yanked": "data-yanked" in attributes,
                "upload-time": attributes.get("data-upload-time"),
            }
        )
    return links


class _Anchors(HTMLParser):
    """Collects the attributes of <a href>, the first <base href>, and the version of PEP 629."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[dict[str, str | None]] = []
        self.base: str | None = None
        self.version: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a" and found.get("href"):
            self.anchors.append(found)
        elif tag == "base" and self.base is None:
            self.base = found.get("href")
        elif tag == "meta" and found.get("name") == "pypi:repository-version":
            self.version = found.get("content")


def _refuse_unknown(url: str, version: str) -> None:
    if version.partition(".")[0] != "1":
        raise InputError(f"{url} speaks version {version[:20]!r} of the simple API; this release knows version 1.")


# ---------------------------------------------------------------- a link to a release


def _release(project: str, page: str, link: Link) -> Release | None:
    filename, url, hashes = link.get("filename"), link.get("url"), link.get("hashes")
    if not isinstance(filename, str) or not isinstance(url, str) or not FILENAME.fullmatch(filename):
        return None
    version = sdist_version(filename, project)
    form = "sdist"
    rank = next((n for n, suffix in enumerate(SDIST_SUFFIXES) if filename.endswith(suffix)), 0)
    if version is None:
        form = "wheel"
        try:
            name, version, _, tags = parse_wheel_filename(filename)
        except (InvalidWheelFilename, InvalidVersion):
            return None
        if name != project:
            return None
        rank = 0 if any(tag.platform == "any" for tag in tags) else 1
    try:
        target = urllib.parse.urljoin(page, url).partition("#")[0]
        scheme = urllib.parse.urlsplit(target).scheme
    except ValueError as error:
        raise InputError(f"{page} has a link that is no URL: {url[:200]!a}.") from error
    if scheme not in ("http", "https") and not (scheme == "file" and page.startswith("file:")):
        raise InputError(f"{page} points to {target[:200]!a}, which a package index must not.")
    size, yanked = link.get("size"), link.get("yanked")
    return Release(
        filename=filename,
        version=version,
        format=form,
        rank=(rank, filename),
        url=target,
        hashes=known_hashes(hashes, filename, page),
        yanked=yanked is not None and yanked is not False,
        upload_time=nanoseconds(link.get("upload-time")),
        size=size if isinstance(size, int) and not isinstance(size, bool) else None,
    )


def sdist_version(filename: str, project: str) -> Version | None:
    """The version in `<project>-<version>.<suffix>`, in any spelling of the name; None if it is no sdist."""
    stem = next((filename.removesuffix(suffix) for suffix in SDIST_SUFFIXES if filename.endswith(suffix)), "")
    for at, letter in enumerate(stem):
        if letter == "-" and canonicalize_name(stem[:at]) == project:
            try:
                return Version(stem[at + 1 :])
            except InvalidVersion:
                continue
    return None


def known_hashes(hashes: Any, filename: str, page: str) -> dict[str, str]:
    """The announced hashes that can be checked; InputError for one that is malformed: it must not be passed over."""
    found: dict[str, str] = {}
    for name, value in hashes.items() if isinstance(hashes, dict) else ():
        length = HASHES.get(str(name).lower())
        if length is None:
            continue
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-fA-F]{{{length}}}", value):
            raise InputError(f"{page} announces no proper {name} for {filename}.")
        found[str(name).lower()] = value.lower()
    return found
