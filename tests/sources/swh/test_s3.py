"""Buckets: unsigned over plain HTTP by default, signed through fsspec; moto in this process and a real server beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stackbuild.errors import InputError, TemporaryError
from stackbuild.sources.swh.fetch import FetchOptions, fetch, open_store
from stackbuild.sources.swh.packed import PackedCache, fetch_cached
from tests.sources.swh.faults import FINAL, contents, folder_of, packed, wanted_for
from tests.sources.swh.s3 import localbucket, moto

pytest.importorskip("aiohttp")
FAST = FetchOptions(back_off=0.01, longest_wait=0.1, tries=3, patience=2.0, concurrency=32)
URL = "s3://softwareheritage/content"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own settings."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-key")


@pytest.fixture
def bucket() -> Iterator[tuple[str, list[bytes]]]:
    """moto's endpoint with a bucket of public objects, and the contents."""
    pytest.importorskip("moto")
    pytest.importorskip("flask_cors")
    boto3 = pytest.importorskip("boto3")
    data = contents(40, most=500)
    with moto() as endpoint:
        client = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id="testing", aws_secret_access_key="x", region_name="us-east-1"
        )
        client.create_bucket(Bucket="softwareheritage")
        for one in data:
            key = f"content/{wanted_for(one).blob_id.hex()}"
            client.put_object(Bucket="softwareheritage", Key=key, Body=packed(one), ACL="public-read")
        for number, harm in enumerate(FINAL.values(), start=10):
            key = f"content/{wanted_for(data[number]).blob_id.hex()}"
            client.put_object(Bucket="softwareheritage", Key=key, Body=harm(data[number]), ACL="public-read")
        client.put_object(
            Bucket="softwareheritage", Key=f"content/{wanted_for(data[20]).blob_id.hex()}", Body=packed(data[20])
        )  # not for everybody
        client.delete_object(Bucket="softwareheritage", Key=f"content/{wanted_for(data[21]).blob_id.hex()}")
        client.put_object(
            Bucket="softwareheritage", Key=f"content/{wanted_for(data[22]).blob_id.hex()}", Body=b"", ACL="public-read"
        )
        yield endpoint, data


@pytest.mark.parametrize("signed", [False, True])
def test_states_of_a_bucket_are_the_same_signed_and_unsigned(
    bucket: tuple[str, list[bytes]], signed: bool, keys: None
) -> None:
    if signed:
        pytest.importorskip("s3fs")
    endpoint, data = bucket
    store = open_store(URL, signed=signed, endpoint_url=endpoint)
    assert store.shown == URL
    got = list(fetch(store, map(wanted_for, data), options=FAST))
    expected = ["ok"] * len(data)
    expected[10 : 10 + len(FINAL)] = [*FINAL]
    expected[20:23] = ["ok" if signed else "forbidden", "missing", "truncated"]
    assert [one.state for one in got] == expected
    assert all(one.data == (it if one.state == "ok" else None) for one, it in zip(got, data, strict=True))


def test_unsigned_is_the_default_and_the_endpoint_is_the_environments(
    bucket: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, data = bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert [one.data for one in fetch(open_store(URL), map(wanted_for, data[:10]), options=FAST)] == data[:10]


def test_a_bucket_that_is_not_there_is_told(bucket: tuple[str, list[bytes]], keys: None) -> None:
    endpoint, data = bucket
    for signed in (False, True):
        if signed:
            pytest.importorskip("s3fs")
        store = open_store("s3://another/content", signed=signed, endpoint_url=endpoint)
        with pytest.raises(InputError, match="no such bucket"):
            list(fetch(store, [wanted_for(data[1])], options=FAST))


def test_signed_without_keys_is_told(bucket: tuple[str, list[bytes]]) -> None:
    pytest.importorskip("s3fs")
    endpoint, data = bucket
    store = open_store(URL, signed=True, endpoint_url=endpoint)
    with pytest.raises((InputError, TemporaryError), match=r"credentials|403|gives nothing"):
        list(fetch(store, [wanted_for(data[20])], options=FAST))


def test_no_key_is_in_a_message(bucket: tuple[str, list[bytes]], keys: None) -> None:
    pytest.importorskip("s3fs")
    store = open_store("s3://softwareheritage/content", signed=True, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(TemporaryError) as caught:
        list(fetch(store, [wanted_for(b"x")], options=replace(FAST, tries=2)))
    assert "hidden-key" not in str(caught.value) and "testing" not in str(caught.value)


def test_from_a_real_server_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("localbucket")
    data = contents(500)
    folder_of(tmp_path / "buckets" / "softwareheritage" / "content", data[:-5])
    wanted = [wanted_for(one) for one in data]
    with localbucket(tmp_path / "buckets") as endpoint:
        store = open_store(URL, endpoint_url=endpoint)
        got = list(fetch_cached(store, wanted, PackedCache(tmp_path / "cache"), options=FAST))
        assert [one.state for one in got] == ["ok"] * 495 + ["missing"] * 5
        assert [one.data for one in got[:-5]] == data[:-5]
    again = list(fetch_cached(store, wanted, PackedCache(tmp_path / "cache"), options=FAST))  # nobody is asked
    assert again == got


def test_signed_from_a_real_server(tmp_path: Path, keys: None) -> None:
    pytest.importorskip("localbucket")
    pytest.importorskip("s3fs")
    data = contents(60)
    folder_of(tmp_path / "buckets" / "softwareheritage" / "content", data)
    with localbucket(tmp_path / "buckets") as endpoint:
        store = open_store(URL, signed=True, endpoint_url=endpoint)
        got = [one.data for one in fetch(store, map(wanted_for, [*data, b"none"]), options=FAST)]
    assert got == [*data, None]
