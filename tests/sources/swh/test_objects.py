"""Which store an address means, and folders of objects."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from stackbuild.errors import InputError, MissingDependency
from stackbuild.sources.swh.fetch import FetchOptions, fetch, open_store
from stackbuild.sources.swh.objects import FolderStore, bucket_url
from tests.sources.swh.faults import FINAL, contents, folder_of, packed, wanted_for


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_a_folder_flat_or_sliced_is_found_by_looking(tmp_path: Path, sliced: bool, form: str) -> None:
    data = contents(100)
    folder_of(tmp_path / "my objects", data, sliced)
    url = form.format(tmp_path / "my objects")
    got = list(fetch(open_store(url.replace(" ", "%20") if "file" in form else url), map(wanted_for, data)))
    assert [one.data for one in got] == data


def test_a_mixed_folder_and_slices_without_objects(tmp_path: Path) -> None:
    data = contents(60)
    folder_of(tmp_path, data[:30])
    folder_of(tmp_path, data[30:], sliced=True)
    (tmp_path / "00" / "00" / "00").mkdir(parents=True, exist_ok=True)
    (tmp_path / "README").write_text("not an object")
    assert [one.data for one in fetch(open_store(str(tmp_path)), map(wanted_for, data))] == data


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty" / "aa" / "bb").mkdir(parents=True)
    for url, words in {
        str(tmp_path / "file"): "not a folder",
        str(tmp_path / "nowhere"): "not a folder",
        str(tmp_path / "empty"): "no objects",
        "file://other.host/objects": "another machine",
        "http://": "no host",
        "http://host:99999/": "address",
        "http://ho st/": "host",
        "ftp://host/objects": "signed",
        "s3://": "bucket",
        "s3:///content": "bucket",
        "s3://a b/content": "bucket",
    }.items():
        with pytest.raises(InputError, match=words):
            open_store(url)
    with pytest.raises(InputError, match="fsspec knows no"):
        open_store("nonsense://bucket/x", signed=True)
    with pytest.raises(InputError, match="endpoint"):
        open_store("s3://bucket/x", endpoint_url="localhost:9000")


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    data = [b"inside", b"linked", b"outside", b"loop", b"dangling", b"a folder", b"behind a folder"]
    names = [wanted_for(one).blob_id.hex() for one in data]
    store, other = tmp_path / "store", tmp_path / "other"
    folder_of(store, data[:1])
    folder_of(other, data)
    (store / "kept").mkdir()
    (store / "kept" / names[1]).write_bytes(packed(data[1]))
    (store / names[1]).symlink_to(store / "kept" / names[1])
    (store / names[2]).symlink_to(other / names[2])
    (store / names[3]).symlink_to(store / names[3])
    (store / names[4]).symlink_to(store / "nothing")
    (store / names[5]).mkdir()
    (store / names[6][:2]).symlink_to(other)
    got = list(fetch(open_store(str(store)), map(wanted_for, data), options=FetchOptions(back_off=0.001, tries=2)))
    assert [one.state for one in got] == ["ok", "ok", "forbidden", "gave_up", "missing", "missing", "missing"]


def test_a_sliced_folder_behind_a_link_is_not_followed(tmp_path: Path) -> None:
    data = contents(40)[1:]
    folder_of(tmp_path / "store", data[:20], sliced=True)
    folder_of(tmp_path / "other", data[20:], sliced=True)
    expected = []
    for one in data:
        top = wanted_for(one).blob_id.hex()[:2]
        if not (tmp_path / "store" / top).exists():
            (tmp_path / "store" / top).symlink_to(tmp_path / "other" / top)
    for one in data:
        name = wanted_for(one).blob_id.hex()
        linked = (tmp_path / "store" / name[:2]).is_symlink()
        expected.append("forbidden" if linked else "ok" if one in data[:20] else "missing")
    got = fetch(open_store(str(tmp_path / "store")), map(wanted_for, data), options=FetchOptions(back_off=0.001))
    assert [one.state for one in got] == expected and "forbidden" in expected


def test_a_pipe_among_the_objects_is_not_waited_for(tmp_path: Path) -> None:
    folder_of(tmp_path, [b"x"])
    os.mkfifo(tmp_path / wanted_for(b"pipe").blob_id.hex())
    got = fetch(open_store(str(tmp_path)), [wanted_for(b"pipe"), wanted_for(b"x")])
    assert [one.state for one in got] == ["missing", "ok"]


@pytest.mark.parametrize("state", [*FINAL])
def test_damage_in_a_folder_is_told_as_from_a_server(tmp_path: Path, state: str) -> None:
    folder_of(tmp_path, [b"fine"])
    (tmp_path / wanted_for(b"harmed" * 9).blob_id.hex()).write_bytes(FINAL[state](b"harmed" * 9))
    wanted = [wanted_for(b"harmed" * 9), wanted_for(b"fine")]
    got = list(fetch(open_store(str(tmp_path)), wanted, options=FetchOptions(back_off=0.001)))
    assert [one.state for one in got] == [state, "ok"]


def test_an_object_larger_than_its_content_may_be_is_not_read(tmp_path: Path) -> None:
    folder_of(tmp_path, [b"fine"])
    with open(tmp_path / wanted_for(b"x").blob_id.hex(), "wb") as file:
        file.truncate(1 << 40)  # a hole
    got = list(fetch(open_store(str(tmp_path)), [wanted_for(b"x"), wanted_for(b"x", length=False)]))
    assert [one.state for one in got] == ["too_large", "too_large"]


def test_the_plain_address_of_a_bucket() -> None:
    assert bucket_url("s3://softwareheritage/content", None) == "https://softwareheritage.s3.amazonaws.com/content"
    assert bucket_url("s3://softwareheritage/content/", "http://h:1/") == "http://h:1/softwareheritage/content"
    assert bucket_url("s3://a.b/c d", None) == "https://s3.amazonaws.com/a.b/c%20d"
    assert bucket_url("s3://bucket", None) == "https://bucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("url", "module", "extra", "signed"),
    [
        ("http://h/x", "aiohttp", "swh", False),
        ("s3://bucket/x", "aiohttp", "swh", False),
        ("s3://bucket/x", "s3fs", "s3", True),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, extra: str, signed: bool
) -> None:
    import fsspec.registry  # noqa: F401

    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # of whoever opened one before
    with pytest.raises(MissingDependency, match=rf"stackbuild\[{extra}\]"):
        open_store(url, signed=signed)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, [b"x"])

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        FolderStore(tmp_path)
