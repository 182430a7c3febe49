"""The packed cache: what is in it is not asked for again, and nothing of it is trusted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError, TemporaryError
from stackbuild.schema import CONTENTS
from stackbuild.sources.swh import packed
from stackbuild.sources.swh.fetch import Fetched, FetchOptions, Wanted, open_store
from stackbuild.sources.swh.packed import PackedCache, fetch_cached
from stackbuild.sources.swh.shelf import MERGED
from stackbuild.swhid import content_id
from tests.sources.swh.faults import FINAL, contents, folder_of, serving, wanted_for

FAST = FetchOptions(back_off=0.001, longest_wait=0.05, tries=3, patience=0.5)


def of_one_prefix(tried: int) -> list[bytes]:
    """Some contents whose git ids begin with 07."""
    return [one for one in (b"%d" % number for number in range(tried)) if content_id(one)[0] == 7]


def test_a_second_fetch_asks_for_nothing(tmp_path: Path) -> None:
    data = contents(200)
    wanted = [wanted_for(one) for one in data]
    random.Random(3).shuffle(wanted)
    cache = PackedCache(tmp_path / "cache")
    with serving(data) as server:
        first = list(fetch_cached(open_store(server.url), wanted, cache))
        assert sum(server.requests.values()) == len(data)
        second = list(fetch_cached(open_store(server.url), wanted, PackedCache(tmp_path / "cache")))
        assert sum(server.requests.values()) == len(data)
    assert [one.wanted for one in first] == wanted
    assert first == second


def test_only_what_lacks_is_fetched(tmp_path: Path) -> None:
    data = contents(150)
    wanted = [wanted_for(one) for one in data]
    with serving(data) as server:
        store = open_store(server.url)
        list(fetch_cached(store, wanted[::2], PackedCache(tmp_path)))
        got = list(fetch_cached(store, wanted, PackedCache(tmp_path)))
        assert set(server.requests.values()) == {1}
    assert [one.data for one in got] == data


def test_packs_are_sorted_by_content_id_and_hold_the_schema(tmp_path: Path) -> None:
    data = contents(300)
    cache = PackedCache(tmp_path)
    cache.add([Fetched(wanted_for(one), "ok", one) for one in data])
    seen = 0
    for path in cache.contents.all_files():
        table = pq.read_table(path)
        assert table.schema.equals(CONTENTS)
        ids = table.column("content_id").to_pylist()
        assert ids == sorted(ids) and {one[:1].hex() for one in ids} == {path.parent.name}
        assert pq.read_metadata(path).row_group(0).column(3).compression == "ZSTD"
        seen += len(ids)
    assert seen == len(data)


def test_the_same_contents_make_the_same_files(tmp_path: Path) -> None:
    data = contents(100)
    for name, order in (("a", data), ("b", data[::-1])):
        PackedCache(tmp_path / name).add([Fetched(wanted_for(one), "ok", one) for one in order])
    listed = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.parquet")}
        for name in "ab"
    ]
    assert listed[0] == listed[1] and listed[0]


def test_many_small_packs_are_merged(tmp_path: Path) -> None:
    data = of_one_prefix(12_000)
    cache = PackedCache(tmp_path)
    for one in data:
        cache.add([Fetched(wanted_for(one), "ok", one)])
    assert len(data) > 2 * MERGED > 2 * len(cache.contents.files(b"\x07"))
    assert {one.data for one in PackedCache(tmp_path).find(map(content_id, data)).values()} == set(data)


@pytest.mark.parametrize("harm", ["cut", "empty", "flipped", "other"])
def test_a_damaged_pack_is_named_and_its_rows_are_fetched_again(tmp_path: Path, harm: str) -> None:
    data = contents(500, most=30)
    wanted = [wanted_for(one) for one in data]
    with serving(data) as server:
        store = open_store(server.url)
        list(fetch_cached(store, wanted, PackedCache(tmp_path)))
        victim = max(PackedCache(tmp_path).contents.all_files(), key=lambda path: path.stat().st_size)
        lost = pq.read_metadata(victim).num_rows
        raw = bytearray(victim.read_bytes())
        if harm == "other":  # valid Parquet whose bytes are not what the ids say
            table = pq.read_table(victim)
            shifted = table.column("content").to_pylist()
            column = pa.array([shifted[-1], *shifted[:-1]], pa.large_binary())
            pq.write_table(table.set_column(3, CONTENTS.field(3), column), victim)
        else:
            if harm == "flipped":
                raw[len(raw) // 2] ^= 0xFF
            victim.write_bytes({"cut": raw[:-9], "empty": b"", "flipped": raw}[harm])
        server.requests.clear()
        cache = PackedCache(tmp_path)
        got = list(fetch_cached(store, wanted, cache))
        assert [one.data for one in got] == data
        assert 0 < sum(server.requests.values()) <= lost
        assert list(cache.damaged) == [f"contents/{victim.parent.name}/{victim.name}"]
        server.requests.clear()
        after = PackedCache(tmp_path)
        assert [one.data for one in fetch_cached(store, wanted, after)] == data
        assert not after.damaged and not server.requests


def test_final_states_are_not_asked_again_and_passing_ones_are(tmp_path: Path) -> None:
    data = contents(12)[1:]  # without the empty file, which a doubtful store is asked for
    wanted = [wanted_for(one) for one in data]
    with serving(data) as server:
        store = open_store(server.url)
        words = dict(zip(data, ["ok", "missing", "forbidden", *FINAL, "error"], strict=False))
        for one, word in words.items():
            server.tell(one, word)
        first = list(fetch_cached(store, wanted, PackedCache(tmp_path), options=FAST))
        assert [one.state for one in first][: len(words)] == [
            {"error": "gave_up"}.get(word, word) for word in words.values()
        ]
        server.requests.clear()
        again = list(fetch_cached(store, wanted, PackedCache(tmp_path), options=FAST))
        assert first == again
        asked = {words[one] for one in data if server.requests[wanted_for(one).blob_id.hex()]}
        assert asked == {"error", "too_large", "hash_mismatch"}
        for one in data:
            server.tell(one, "ok")
        last = list(fetch_cached(store, wanted, PackedCache(tmp_path), options=FAST, again={"missing", "zeroed"}))
        assert {one.state for one in last} == {"ok", "forbidden", "not_gzip", "truncated", "trailing_data"}
        tries = PackedCache(tmp_path).tried(store, wanted)
        assert {tried.tries for one, tried in tries.items() if tried.state == "ok"} == {2, 3}


def test_a_store_that_gives_nothing_leaves_no_final_states(tmp_path: Path) -> None:
    data = contents(40)
    wanted = [wanted_for(one) for one in data]
    with serving(data, default="forbidden") as server:
        store = open_store(server.url)
        with pytest.raises(TemporaryError, match="403"):
            list(fetch_cached(store, wanted, PackedCache(tmp_path), options=FAST))
        assert not PackedCache(tmp_path).tried(store, wanted)
        server.default = "ok"
        assert [one.data for one in fetch_cached(store, wanted, PackedCache(tmp_path))] == data


def test_what_came_before_the_store_went_away_is_kept(tmp_path: Path) -> None:
    data = contents(200)
    wanted = [wanted_for(one) for one in data]
    with serving(data) as server:
        store = open_store(server.url)
        for one in data[100:]:
            server.tell(one, "forbidden")
        server.how["da39a3ee5e6b4b0d3255bfef95601890afd80709"] = ["ok", "forbidden"]
        with pytest.raises(TemporaryError, match="ok 100"):
            list(fetch_cached(store, wanted, PackedCache(tmp_path), options=FAST))
        server.how.clear()
        server.requests.clear()
        assert [one.data for one in fetch_cached(store, wanted, PackedCache(tmp_path))] == data
        assert sum(server.requests.values()) == 100


def test_states_are_of_one_store(tmp_path: Path) -> None:
    data = contents(50)
    wanted = [wanted_for(one) for one in data]
    empty = open_store(str(folder_of(tmp_path / "empty", [b"else"])))
    whole = open_store(str(folder_of(tmp_path / "whole", data)))
    got = list(fetch_cached(empty, wanted, PackedCache(tmp_path / "cache")))
    assert {one.state for one in got} == {"missing"}
    assert [one.data for one in fetch_cached(whole, wanted, PackedCache(tmp_path / "cache"))] == data


def test_a_row_that_lies_about_hash_or_length_gets_nothing_from_the_cache(tmp_path: Path) -> None:
    data = contents(3)
    store = open_store(str(folder_of(tmp_path / "objects", data)))
    right = wanted_for(data[1])
    list(fetch_cached(store, [right], PackedCache(tmp_path / "cache")))
    other = wanted_for(data[2])
    lies = [
        Wanted(other.blob_id, right.content_id, right.length),
        Wanted(right.blob_id, other.content_id, right.length),
        Wanted(right.blob_id, right.content_id, 1),
    ]
    cache = PackedCache(tmp_path / "cache")
    got = list(fetch_cached(store, [*lies, right], cache))
    longer = len(data[2]) > len(data[1])
    assert [one.state for one in got] == [
        "too_large" if longer else "hash_mismatch",
        "hash_mismatch",
        "too_large",
        "ok",
    ]
    assert not cache.damaged


def test_an_id_that_is_none_is_named(tmp_path: Path) -> None:
    store = open_store(str(folder_of(tmp_path / "objects", [b"x"])))
    with pytest.raises(InputError, match="abcd"):
        list(fetch_cached(store, [Wanted(b"\xab\xcd", None, 1)], PackedCache(tmp_path / "cache")))


KILLED = """
import sys
from pathlib import Path
from stackbuild.sources.swh import packed
from stackbuild.sources.swh.fetch import open_store
from tests.sources.swh.faults import contents, wanted_for
packed.FLUSH_BYTES = 15_000
for number, _ in enumerate(packed.fetch_cached(open_store(sys.argv[1]), map(wanted_for, contents(900, most=200)),
                                               packed.PackedCache(Path(sys.argv[2])))):
    if number == 200:
        print("begun", flush=True)
"""


@pytest.mark.parametrize("wait", [0.0, 0.07])
def test_killed_while_it_packs_it_goes_on(tmp_path: Path, wait: float) -> None:
    data = contents(900, most=200)
    folder_of(tmp_path / "objects", data, sliced=True)
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "objects"), str(tmp_path / "cache")],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parents[3],
    )
    assert child.stdout is not None and child.stdout.readline()
    time.sleep(wait)
    child.send_signal(signal.SIGKILL)
    assert child.wait(20) == -signal.SIGKILL
    cache = PackedCache(tmp_path / "cache")
    kept = cache.find(map(content_id, data))
    assert len(kept) >= 100 and {one.data for one in kept.values()} <= set(data)
    got = list(fetch_cached(open_store(str(tmp_path / "objects")), map(wanted_for, data), cache))
    assert [one.data for one in got] == data and not cache.damaged


def test_what_a_killed_writer_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PackedCache(tmp_path)
    data = of_one_prefix(6_000)
    folder = tmp_path / "contents" / "07"
    folder.mkdir(parents=True)
    (folder / ".part-1-1").write_bytes(b"half")
    os.utime(folder / ".part-1-1", (0, 0))
    (folder / ".part-2-2").write_bytes(b"another's")
    for one in data[: MERGED + 1]:
        cache.add([Fetched(wanted_for(one), "ok", one)])
    assert not (folder / ".part-1-1").exists() and (folder / ".part-2-2").exists()


def test_a_full_disk_leaves_nothing_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stackbuild import tables

    data = contents(50)
    store = open_store(str(folder_of(tmp_path / "objects", data)))
    real = tables.HashingFile.write

    def full(self, data):  # type: ignore[no-untyped-def]
        if self.bytes > 1_000:
            raise OSError(28, "No space left on device")
        return real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(tables.HashingFile, "write", full)
        with pytest.raises(OSError, match="No space"):
            list(fetch_cached(store, map(wanted_for, data), PackedCache(tmp_path / "cache")))
    assert not list((tmp_path / "cache").rglob(".part-*"))
    cache = PackedCache(tmp_path / "cache")
    assert [one.data for one in fetch_cached(store, map(wanted_for, data), cache)] == data
    assert not cache.damaged


def test_memory_is_bounded_by_flushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = contents(200, most=4_000)
    most = 0
    real = PackedCache.add

    def add(self, contents):  # type: ignore[no-untyped-def]
        nonlocal most
        most = max(most, sum(len(one.data) for one in contents))
        real(self, contents)

    monkeypatch.setattr(packed, "FLUSH_BYTES", 20_000)
    monkeypatch.setattr(PackedCache, "add", add)
    store = open_store(str(folder_of(tmp_path / "objects", data)))
    list(fetch_cached(store, map(wanted_for, data), PackedCache(tmp_path / "cache")))
    assert most <= 24_000
