"""Packages from an index: a real server on loopback, both forms of the simple API, and everything that goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest
from packaging.version import Version
from pydantic import ValidationError

from stackbuild.errors import InputError, TemporaryError
from stackbuild.sources import package_fetch
from stackbuild.sources.package_index import parse_page, sdist_version
from stackbuild.sources.package_settings import pip_settings
from stackbuild.sources.pypi import SOURCE, Chosen, PypiOptions, choose, wishes
from stackbuild.sources.timestamps import nanoseconds
from stackbuild.sources.unit import File, Limits, Origin, ResolveContext, Unit

JSON = "application/vnd.pypi.simple.v1+json"
TIME = "2023-05-22T15:12:42.313790Z"
TIME_NS = 1_684_768_362_313_790_000


def sdist(name: str, version: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in {"a.py": f"{name} {version}\n", "PKG-INFO": f"Name: {name}\n"}.items():
            info = tarfile.TarInfo(f"{name}-{version}/{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data.encode()))
    return gzip.compress(out.getvalue(), mtime=0)


def wheel(name: str, version: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"{name} {version}\n")
        archive.writestr(f"{name}-{version}.dist-info/METADATA", f"Name: {name}\n")
    return out.getvalue()


@dataclass
class Index:
    """What the server has, and what it does instead of serving it."""

    files: dict[str, bytes] = field(default_factory=dict)
    form: str = "json"
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)  # instead of the true SHA-256
    yanked: set[str] = field(default_factory=set)
    faults: dict[str, list[int | str]] = field(default_factory=dict)  # by path: status codes, "hang", "cut", a URL
    asked: list[str] = field(default_factory=list)
    authorization: set[str | None] = field(default_factory=set)
    url: str = ""
    open: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, *versions: str) -> None:
        for version in versions:
            self.files[f"{name}-{version}.tar.gz"] = sdist(name, version)

    def page(self, project: str) -> tuple[str, bytes] | None:
        names = [name for name in self.files if name.lower().replace("_", "-").startswith(project + "-")]
        if not names:
            return None
        links = []
        for name in names:
            hashes = self.hashes.get(name, {"sha256": hashlib.sha256(self.files[name]).hexdigest()})
            links.append({"filename": name, "url": f"../../files/{name}", "hashes": hashes, "upload-time": TIME})
            links[-1]["yanked"] = "broken" if name in self.yanked else False
        if self.form == "json":
            return JSON, json.dumps({"meta": {"api-version": "1.1"}, "name": project, "files": links}).encode()
        anchors = []
        for link in links:
            digest = "".join(f"#{kind}={value}" for kind, value in list(link["hashes"].items())[:1])
            yanked = ' data-yanked="broken"' if link["yanked"] else ""
            anchors.append(f'<a href="{link["url"]}{digest}"{yanked}>{link["filename"]}</a><br>')
        return "text/html; charset=utf-8", f"<!DOCTYPE html><html><body>{''.join(anchors)}</body></html>".encode()


class Server(ThreadingHTTPServer):
    """Serves the index of the test that runs."""

    daemon_threads = True
    index: Index


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        index = self.server.index
        index.asked.append(self.path)
        index.authorization.add(self.headers["Authorization"])
        faults = index.faults.get(self.path, [])
        fault = faults.pop(0) if len(faults) > 1 else faults[0] if faults else None
        if isinstance(fault, int) and fault != 200:
            self.send_error(fault)
            return
        if fault == "hang":
            index.open.wait(30)
            return
        if isinstance(fault, str) and "://" in fault:
            self.send_response(302)
            self.send_header("Location", fault)
            self.end_headers()
            return
        kind, _, name = self.path.strip("/").partition("/")
        body = index.files.get(name) if kind == "files" else None
        answer = ("application/gzip", body) if body is not None else index.page(name) if kind == "simple" else None
        if answer is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1][: len(answer[1]) // 2] if fault == "cut" else answer[1])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def index(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    server.index = Index(url=f"http://127.0.0.1:{server.server_port}")
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server.index.url + "/simple/")
    monkeypatch.setattr(package_fetch, "BACK_OFF", (0.0, 0.0, 0.0))
    yield server.index
    server.index.open.set()


def options(*packages: object, **more: object) -> PypiOptions:
    return PypiOptions.model_validate({"kind": "pypi", "packages": packages, **more})


def units(
    tmp_path: Path, *packages: object, offline: bool = False, **more: object
) -> tuple[list[Unit], dict[str, str]]:
    found, skipped = SOURCE.units(options(*packages, **more), ResolveContext(str(tmp_path / "cache"), offline))
    return found, {skip.what: skip.reason for skip in skipped}


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("form", ["json", "html"])
def test_pinned_and_newest_versions_are_read_from_both_forms(index: Index, tmp_path: Path, form: str) -> None:
    index.form = form
    index.add("Alpha_Beta", "1.0", "1.9", "1.10", "2.0rc1")
    index.add("gamma", "0.1")
    found, skipped = units(tmp_path, "alpha.beta==1.0.0", {"name": "ALPHA-beta", "versions": 1}, "gamma", "nothing")
    assert [(u.repo_name, u.key["version"]) for u in found] == [
        ("pypi/alpha-beta", "1.0"),
        ("pypi/alpha-beta", "1.10"),
        ("pypi/gamma", "0.1"),
    ]
    assert skipped == {"nothing": "the package index does not know this package"}
    sha256 = hashlib.sha256(index.files["Alpha_Beta-1.10.tar.gz"]).hexdigest()
    assert found[1].key["sha256"] == sha256
    assert Path(found[1].where["path"]).relative_to(tmp_path) == Path("cache", "pypi", sha256, "Alpha_Beta-1.10.tar.gz")
    origin, *entries = SOURCE.read(found[1], options("alpha-beta"), Limits())
    assert isinstance(origin, Origin)
    assert (origin.repo_name, origin.revision_id) == ("pypi/alpha-beta", f"1.10+sha256:{sha256}")
    assert origin.visit_date == (TIME_NS if form == "json" else None)
    assert {e.path: e.data for e in entries if isinstance(e, File)}[b"a.py"] == b"Alpha_Beta 1.10\n"


def test_a_second_run_and_a_lost_cache_file(index: Index, tmp_path: Path) -> None:
    index.add("alpha", "1.0")
    (unit,), _ = units(tmp_path, "alpha")
    index.asked.clear()
    assert units(tmp_path, "alpha")[0] == [unit]
    assert index.asked == ["/simple/alpha/"], "nothing is downloaded again"
    Path(unit.where["path"]).write_bytes(b"rotten")
    assert units(tmp_path, "alpha")[0] == [unit], "a damaged cache is mended"
    before = list(SOURCE.read(unit, options("alpha"), Limits()))
    Path(unit.where["path"]).unlink()
    assert list(SOURCE.read(unit, options("alpha"), Limits())) == before
    assert not list(tmp_path.rglob(".part-*"))
    Path(unit.where["path"]).unlink()
    index.files["alpha-1.0.tar.gz"] = sdist("alpha", "other")
    with pytest.raises(InputError, match="sha256"):
        list(SOURCE.read(unit, options("alpha"), Limits()))
    index.files.clear()
    with pytest.raises(InputError, match="no longer"):
        list(SOURCE.read(unit, options("alpha"), Limits()))


def test_formats_and_yanked_files(index: Index, tmp_path: Path) -> None:
    index.add("alpha", "1.0", "2.0")
    index.files["alpha-3.0-py3-none-any.whl"] = wheel("alpha", "3.0")
    index.files["alpha-3.0-cp311-cp311-linux_x86_64.whl"] = b"not chosen"
    index.yanked = {"alpha-2.0.tar.gz"}
    found, skipped = units(tmp_path, {"name": "alpha", "versions": ["3.0", "9"]}, "alpha")
    assert [u.key["filename"] for u in found] == ["alpha-1.0.tar.gz"]
    assert skipped == {
        "alpha==3.0": "this version has no source archive",
        "alpha==9": "the package index has no such version",
    }
    assert [u.key["filename"] for u in units(tmp_path, "alpha==2.0")[0]] == ["alpha-2.0.tar.gz"]
    (one,), _ = units(tmp_path, "alpha", format="any")
    assert one.key["filename"] == "alpha-3.0-py3-none-any.whl"
    _, *entries = SOURCE.read(one, options("alpha"), Limits())
    assert {e.path for e in entries} == {b"alpha/__init__.py", b"alpha-3.0.dist-info/METADATA"}  # type: ignore[union-attr]
    found, _ = units(tmp_path, {"name": "alpha", "versions": 5}, format="any")
    assert [u.key["version"] for u in found] == ["1.0", "3.0"]


def test_a_file_without_an_announced_hash_is_hashed_and_that_is_recorded(index: Index, tmp_path: Path) -> None:
    index.add("alpha", "1.0")
    (announced,), _ = units(tmp_path, "alpha")
    index.hashes["alpha-1.0.tar.gz"] = {}
    (computed,), _ = units(tmp_path, "alpha")
    assert announced.key == computed.key
    assert (announced.where["hash"], computed.where["hash"]) == ("announced by the index", "computed here")
    index.hashes["alpha-1.0.tar.gz"] = {"md5": hashlib.md5(index.files["alpha-1.0.tar.gz"]).hexdigest()}
    assert units(tmp_path, "alpha")[0] == [computed]
    index.hashes["alpha-1.0.tar.gz"] = {"md5": "0" * 32}
    with pytest.raises(InputError, match="md5"):
        units(tmp_path, "alpha")


def test_indexes_are_merged_and_a_folder_is_one(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add("alpha", "1.0")
    local = tmp_path / "index" / "simple" / "alpha"
    local.mkdir(parents=True)
    (tmp_path / "index" / "files").mkdir()
    (tmp_path / "index" / "files" / "alpha-2.0.tar.gz").write_bytes(sdist("alpha", "2.0"))
    (local / "index.html").write_text('<a href="../../files/alpha-2.0.tar.gz">alpha-2.0.tar.gz</a>')
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "index" / "simple").as_uri())
    found, _ = units(tmp_path, {"name": "alpha", "versions": 9})
    assert [u.key["version"] for u in found] == ["1.0", "2.0"]
    assert [e.path for e in SOURCE.read(found[1], options("alpha"), Limits()) if isinstance(e, File)] == [
        b"a.py",
        b"PKG-INFO",
    ]
    index.asked.clear()
    found, _ = units(tmp_path, {"name": "alpha", "versions": 9}, offline=True)
    assert [u.key["version"] for u in found] == ["2.0"] and not index.asked


def test_credentials_go_to_their_host_and_nowhere_else(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("alpha", "1.0")
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("://", "://me:s%40cret@") + "/simple")
    (unit,), _ = units(tmp_path, "alpha")
    assert index.authorization == {"Basic bWU6c0BjcmV0"}
    assert "cret" not in repr(unit)
    index.authorization.clear()
    elsewhere = index.url.replace("127.0.0.1", "localhost") + "/simple/alpha/"
    index.faults["/simple/alpha/"] = [elsewhere, 200]
    units(tmp_path, "alpha")
    assert index.authorization == {"Basic bWU6c0BjcmV0", None}, "not to the host of a redirect"
    index.faults["/simple/alpha/"] = [403]
    with pytest.raises(InputError, match=r"403.*credentials") as refused:
        units(tmp_path, "alpha")
    assert "cret" not in str(refused.value)


# ---------------------------------------------------------------- what goes wrong


def test_a_wrong_hash_is_an_integrity_error_and_nothing_stays(index: Index, tmp_path: Path) -> None:
    index.add("alpha", "1.0")
    index.hashes["alpha-1.0.tar.gz"] = {"sha256": "0" * 64}
    with pytest.raises(InputError, match="sha256") as wrong:
        units(tmp_path, "alpha")
    assert wrong.value.exit_code == 4
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_missing_file_is_skipped_and_an_empty_answer_is_an_error(index: Index, tmp_path: Path) -> None:
    index.add("alpha", "1.0")
    index.add("beta", "1.0")
    index.faults["/files/alpha-1.0.tar.gz"] = [404]
    found, skipped = units(tmp_path, "alpha", "beta")
    assert [u.repo_name for u in found] == ["pypi/beta"]
    assert "does not have it" in skipped["alpha==1.0"]
    with pytest.raises(InputError, match="does not know"):
        units(tmp_path, "nothing")


@pytest.mark.parametrize("path", ["/simple/alpha/", "/files/alpha-1.0.tar.gz"])
def test_a_server_in_trouble_is_asked_again_then_it_is_temporary(index: Index, tmp_path: Path, path: str) -> None:
    index.add("alpha", "1.0")
    index.faults[path] = [503, 429, "cut", 200]
    assert len(units(tmp_path, "alpha")[0]) == 1
    assert index.asked.count(path) == 4
    index.faults[path] = [503]
    with pytest.raises(TemporaryError, match="503") as trouble:
        units(tmp_path / "again", "alpha")
    assert trouble.value.exit_code == 75
    assert not list(tmp_path.rglob(".part-*"))


def test_a_server_that_hangs_or_is_gone_is_temporary(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.faults["/simple/alpha/"] = ["hang"]
    monkeypatch.setenv("PIP_TIMEOUT", "0.1")
    with pytest.raises(TemporaryError, match="timed out"):
        units(tmp_path, "alpha")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(TemporaryError, match="refused"):
        units(tmp_path, "alpha")


def test_redirects_stay_on_the_web(index: Index, tmp_path: Path) -> None:
    index.add("alpha", "1.0")
    index.files["moved-1.0.tar.gz"] = index.files["alpha-1.0.tar.gz"]
    index.faults["/files/alpha-1.0.tar.gz"] = [index.url + "/files/moved-1.0.tar.gz"]
    assert len(units(tmp_path, "alpha")[0]) == 1
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        index.faults["/files/alpha-1.0.tar.gz"] = [target]
        with pytest.raises(InputError, match=r"not allowed|not safe"):
            units(tmp_path / "new", "alpha")


def test_a_redirect_does_not_leave_encryption(index: Index) -> None:
    redirects = package_fetch._Redirects(package_fetch.Fetcher(pip_settings()))
    request = Request("https://h/a")
    for target in ("http://h/a", "ftp://h/a"):
        with pytest.raises(InputError, match="not safe"):
            redirects.redirect_request(request, io.BytesIO(), 302, "Found", HTTPMessage(), target)
    assert redirects.redirect_request(request, io.BytesIO(), 302, "Found", HTTPMessage(), "https://other/a")


def test_too_large_a_file_is_skipped_before_and_during_the_download(index: Index, tmp_path: Path) -> None:
    index.add("alpha", "1.0")
    index.add("beta", "1.0")
    index.files["beta-1.0.tar.gz"] = b"x" * 10_000
    found, skipped = units(tmp_path, "alpha", "beta", max_bytes=5_000)
    assert [u.repo_name for u in found] == ["pypi/alpha"]
    assert "max_bytes" in skipped["beta==1.0"]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_without_an_index_or_the_network_it_says_so(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="may not be used"):
        units(tmp_path, "alpha", offline=True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match="no-index"):
        units(tmp_path, "alpha")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_INDEX_URL")
    assert pip_settings().indexes[0].startswith("https://"), "pip's own default"


# ---------------------------------------------------------------- pages and choices


def page(*links: dict[str, object]) -> bytes:
    return json.dumps({"meta": {"api-version": "1.0"}, "files": links}).encode()


def test_a_hostile_page_cannot_name_places(index: Index) -> None:
    for filename in ("../alpha-1.0.tar.gz", "alpha-1.0/x.tar.gz", "..", "alpha-1.0.tar.gz\0", "beta-1.0.tar.gz", "x"):
        assert not list(
            parse_page("alpha", "https://h/s/alpha/", JSON, page({"filename": filename, "url": "f", "hashes": {}}))
        )
    for url in ("file:///etc/passwd", "ftp://h/x", "data:,x"):
        with pytest.raises(InputError, match="must not"):
            list(parse_page("a", "https://h/s/a/", JSON, page({"filename": "a-1.tar.gz", "url": url, "hashes": {}})))
    with pytest.raises(InputError, match="no proper sha256"):
        list(
            parse_page(
                "a", "https://h/s/a/", JSON, page({"filename": "a-1.tar.gz", "url": "x", "hashes": {"sha256": "z"}})
            )
        )
    for kind, body in [
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b'{"meta":{"api-version":"2.0"},"files":[]}'),
        ("image/png", b""),
    ]:
        with pytest.raises(InputError):
            list(parse_page("a", "https://h/s/a/", kind, body))


def test_html_pages_with_a_base_and_odd_quoting() -> None:
    head = b'<html><head><base href="https://files.h/p/"><meta name="pypi:repository-version" content="1.0"></head>'
    link = b"<a href='A%2DB-1.0%2Bx.tar.gz#sha256=" + b"a" * 64 + b"' data-requires-python='&gt;=3'>A-B 1.0+x</a>"
    body = head + link + b'<a>no href</a><a href="/other">'
    (found,) = parse_page("a-b", "https://h/simple/a-b/", "text/html", body)
    assert (found.filename, found.url) == ("A-B-1.0+x.tar.gz", "https://files.h/p/A%2DB-1.0%2Bx.tar.gz")
    assert (found.version, found.hashes, found.upload_time) == (Version("1.0+x"), {"sha256": "a" * 64}, None)


def test_versions_in_names_of_sdists() -> None:
    assert sdist_version("zope.interface-5.0.tar.gz", "zope-interface") == Version("5.0")
    assert sdist_version("A_b-c-1.0.post1.zip", "a-b-c") == Version("1.0.post1")
    assert sdist_version("a-b-1.0.tar.gz", "a") is None
    assert sdist_version("a-1.0-py3-none-any.whl", "a") is None


def test_upload_times_are_exact_to_the_microsecond() -> None:
    assert nanoseconds(TIME) == TIME_NS
    assert nanoseconds("2023-05-22T17:12:42.313790+02:00") == TIME_NS
    assert nanoseconds("1969-12-31T23:59:59.999999Z") == -1000
    assert nanoseconds("yesterday") is None and nanoseconds(None) is None


def test_of_pre_releases_only_a_project_without_any_other_gives_one() -> None:
    links = [{"filename": f"a-{v}.tar.gz", "url": "x", "hashes": {}} for v in ("1.0a1", "1.0b2")]
    listing = list(parse_page("a", "https://h/s/a/", JSON, page(*links)))
    wish = wishes(options("a"))["a"]
    assert [c.release.version for c in choose("a", wish, listing, "sdist") if isinstance(c, Chosen)] == [
        Version("1.0b2")
    ]


@pytest.mark.parametrize(
    "package", ["", "a b", "-a", "a==", "a==2.*", {"name": "a", "versions": 0}, {"name": "a", "x": 1}]
)
def test_what_is_no_package_is_refused_by_the_recipe(package: object) -> None:
    with pytest.raises(ValidationError):
        options(package)
