"""Fetching from a store that misbehaves: no object is told wrongly, none becomes an empty content, none comes out of order."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from stackbuild.errors import InputError, TemporaryError
from stackbuild.sources.swh.engine import Engine
from stackbuild.sources.swh.fetch import PASSING, STATES, FetchOptions, Wanted, fetch, open_store
from stackbuild.sources.swh.http_store import asked_to_wait
from stackbuild.sources.swh.inflate import inflated_length, judge
from stackbuild.sources.swh.loop import new_loop
from stackbuild.sources.swh.objects import EMPTY_FILE
from stackbuild.sources.swh.pace import Pace, pause
from tests.sources.swh.faults import FINAL, FaultServer, bomb, contents, folder_of, packed, serving, wanted_for

pytest.importorskip("aiohttp")
FAST = FetchOptions(back_off=0.001, longest_wait=0.05, tries=8, patience=5.0)
FEW = replace(FAST, tries=3)


def states(server: FaultServer, data: list[bytes], options: FetchOptions = FAST) -> list[str]:
    return [one.state for one in fetch(open_store(server.url), map(wanted_for, data), options=options)]


# ---------------------------------------------------------------- every state


def test_of_three_thousand_objects_none_is_told_wrongly() -> None:
    data = contents(3_000, most=1_500)
    rng = random.Random(7)
    expected: dict[bytes, str] = {}
    with serving(data) as server:
        passing = ["reset", "cut", "cut_plain", "busy", "error", "limited"]
        well = ["ok", "redirect", "encoded", "chunked"]
        for one in data[1:]:
            luck = rng.random()
            if luck < 0.05:  # 5 % fail at first
                server.tell(one, rng.choice(passing), *rng.choice([[], [rng.choice(passing)]]), rng.choice(well))
            elif luck < 0.12:
                state = rng.choice([*FINAL, "missing", "forbidden"])
                server.tell(one, state)
                expected[one] = state
            elif luck < 0.13:
                server.tell(one, "bomb")
                expected[one] = "too_large"
            elif luck < 0.2:
                server.tell(one, rng.choice(well))
            elif luck < 0.205:
                server.tell(one, rng.choice(["error", "reset", "busy"]))
                expected[one] = "gave_up"
            elif luck < 0.21:
                server.tell(one, "slow")
        wanted = [wanted_for(one) for one in data]
        got = list(fetch(open_store(server.url), wanted, options=FAST))
    assert [one.wanted for one in got] == wanted
    wrong = [(one.state, expected.get(it, "ok")) for one, it in zip(got, data, strict=True)
             if one.state != expected.get(it, "ok")]  # fmt: skip
    assert not wrong
    for one, it in zip(got, data, strict=True):
        assert one.data == (it if one.state == "ok" else None)
    assert set(expected.values()) == set(STATES) - {"ok"}


def test_the_empty_file_is_a_content_and_nothing_else_becomes_it() -> None:
    data = contents(30)
    with serving(data) as server:
        for one, word in zip(data[1:], [*FINAL, "missing", "forbidden", "bomb"], strict=False):
            server.tell(one, word)
        got = list(fetch(open_store(server.url), map(wanted_for, data), options=FAST))
    assert got[0].state == "ok" and got[0].data == b""
    assert [one for one in got if one.data == b""] == got[:1]


@pytest.mark.parametrize("state", [*FINAL])
@pytest.mark.parametrize("length", [True, False])
def test_each_damage_has_its_state(state: str, length: bool) -> None:
    data = b"some text\n" * 20
    wanted = wanted_for(data, length)
    body = FINAL[state](data)
    told, content = judge(body, wanted, wanted.length or 10_000)
    assert content is None
    assert told == ("hash_mismatch" if state == "too_large" and not length else state)


@pytest.mark.parametrize("body", [b"", b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x08"])
def test_a_body_of_nothing_is_truncated(body: bytes) -> None:
    assert judge(body, wanted_for(b""), 0) == ("truncated", None)


def test_a_damaged_stream_is_not_gzip() -> None:
    body = bytearray(packed(b"abc" * 1_000))
    body[-6] ^= 1  # the checksum
    assert judge(bytes(body), wanted_for(b"abc" * 1_000), 3_000)[0] == "not_gzip"


def test_a_second_gzip_member_is_trailing_data() -> None:
    assert judge(packed(b"a") + packed(b""), wanted_for(b"a"), 1)[0] == "trailing_data"


def test_the_git_hash_is_compared_beside_the_key() -> None:
    wanted = wanted_for(b"x")
    assert judge(packed(b"x"), Wanted(wanted.blob_id, bytes(20), 1), 1) == ("hash_mismatch", None)
    assert judge(packed(b"x"), Wanted(wanted.blob_id), 1) == ("ok", b"x")
    assert judge(packed(b"x"), Wanted(bytes(20), wanted.content_id), 1) == ("hash_mismatch", None)


def test_a_known_answer_of_the_published_record() -> None:
    data = b"# aaaaaaaa\n000000\n"
    wanted = Wanted(hashlib.sha1(data).digest(), bytes.fromhex("05ee8db65dd1") + wanted_for(data).content_id[6:], 18)
    assert wanted.blob_id.hex().startswith("522d5f7839fa")
    assert judge(packed(data), wanted, 18) == ("ok", data)


def test_passing_states_are_those_that_time_may_change() -> None:
    assert {"gave_up"} == PASSING and set(STATES) > PASSING


# ---------------------------------------------------------------- order, pace, patience


def test_results_come_in_the_order_asked() -> None:
    data = contents(300)
    random.Random(5).shuffle(data)
    with serving(data) as server:
        for one in data[::10]:
            server.tell(one, "slow")
        for one in data[5::10]:
            server.tell(one, "busy", "ok")
        got = [one.data for one in fetch(open_store(server.url), map(wanted_for, data), options=FAST)]
    assert got == data


def test_concurrency_rises_to_what_the_store_bears_and_falls_where_it_does_not() -> None:
    data = contents(1_500, most=100)
    with serving(data, delay=0.01) as server:
        list(fetch(open_store(server.url), map(wanted_for, data), options=replace(FAST, concurrency=64)))
        assert 48 <= server.most <= 64
        server.capacity, server.most = 12, 0
        server.requests.clear()
        server.history.clear()
        got = list(fetch(open_store(server.url), map(wanted_for, data), options=replace(FAST, concurrency=64)))
        assert all(one.state == "ok" for one in got)
        tail = [count for _, count in server.history[len(server.history) // 2 :]]
        assert sum(tail) / len(tail) < 14 and max(tail) > 8
        server.capacity, server.most = 1 << 30, 0
        list(fetch(open_store(server.url), map(wanted_for, data), options=replace(FAST, concurrency=5)))
        assert server.most <= 5


def test_the_pace_is_halved_once_for_one_congestion_and_grows_slowly_after() -> None:
    pace = Pace(100)
    for _ in range(60):
        pace.succeeded(int(pace.width))
    assert pace.width == 68
    epoch = pace.epoch
    for _ in range(20):
        pace.congested(epoch)
    assert pace.width == 34
    for _ in range(34):
        pace.succeeded(int(pace.width))
    assert 34.9 < pace.width < 35.1
    pace.succeeded(3)  # it is not what limits
    assert pace.width < 35.1
    for _ in range(20):
        pace.congested(pace.epoch)
    assert pace.width == 1
    assert Pace(3).width == 3


def test_pauses_double_are_jittered_and_bounded() -> None:
    rng = random.Random(1)
    for tries in range(1, 40):
        span = min(30.0, 0.25 * 2 ** (tries - 1))
        drawn = [pause(tries, 0.25, 30.0, None, rng) for _ in range(50)]
        assert span / 2 <= min(drawn) < max(drawn) <= span
    assert 7.0 <= pause(1, 0.25, 30.0, 7.0, rng) <= 7.25
    assert pause(1, 0.25, 30.0, 86_400.0, rng) <= 30.25


def test_what_the_server_asks_to_wait_is_understood() -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert asked_to_wait({"Retry-After": "120"}, 0.0) == 120
    assert asked_to_wait({"Retry-After": date}, 1_445_412_470.0) == 10
    assert asked_to_wait({"Retry-After": date}, 2_000_000_000.0) == 0
    assert asked_to_wait({"X-RateLimit-Reset": "1010"}, 1_000.0) == 10
    for nonsense in ({}, {"Retry-After": "soon"}, {"Retry-After": "-5"}, {"X-RateLimit-Reset": "9" * 40}):
        assert asked_to_wait(nonsense, 0.0) is None


@pytest.mark.parametrize("word", ["busy_after", "limited"])
def test_a_pause_that_the_server_asks_for_is_kept_by_all(word: str) -> None:
    data = contents(300, most=50)
    with serving(data, delay=0.02) as server:
        server.tell(data[5], word, "ok")
        options = replace(FAST, longest_wait=0.6, concurrency=8)
        assert states(server, data, options) == ["ok"] * len(data)
        times = [at for at, _ in server.history]
    assert max(later - at for at, later in pairwise(times)) >= 0.5


def test_a_store_that_answers_nothing_is_given_up_with_the_counts() -> None:
    data = contents(200)
    for word, said in (("forbidden", "403 AccessDenied"), ("busy", "503 SlowDown"), ("reset", "ServerDisconnected")):
        with serving(data, default=word) as server:
            began = time.monotonic()
            with pytest.raises(TemporaryError, match=said) as caught:
                next(fetch(open_store(server.url), map(wanted_for, data), options=replace(FEW, patience=0.3)))
            assert caught.value.exit_code == 75
            assert time.monotonic() - began < 15
            assert sum(server.requests.values()) < 600
            assert ("forbidden" if word == "forbidden" else "Objects so far") in str(caught.value)


def test_a_store_that_is_not_there_is_a_temporary_error() -> None:
    with serving([b"x"]) as server:
        url = server.url
    with pytest.raises(TemporaryError, match="ClientConnectorError"):
        list(fetch(open_store(url), [wanted_for(b"x")], options=FEW))


def test_one_refused_object_is_not_a_store_that_refuses_all() -> None:
    data = contents(5)
    with serving(data) as server:
        for one in data[1:]:
            server.tell(one, "forbidden")
        assert states(server, data[1:], FEW) == ["forbidden"] * 4  # it has the empty file
        assert server.requests[EMPTY_FILE] == 1
    with serving(data[1:]) as server:
        server.tell(data[1], "error")
        assert states(server, data[1:2], FEW) == ["gave_up"]  # it says that it lacks the empty file


def test_a_store_that_goes_away_in_the_middle_ends_the_fetch() -> None:
    data = contents(1_000, most=200)
    with serving(data) as server:
        for one in data[200:]:
            server.tell(one, "forbidden")
        server.how[EMPTY_FILE] = ["ok", "forbidden"]
        got = []
        with pytest.raises(TemporaryError, match="ok 200"):
            for one in fetch(open_store(server.url), map(wanted_for, data), options=FEW):
                got.append(one.data)
        assert got == data[:200]
        assert sum(server.requests.values()) <= 203 + 3 * (FEW.refusals + 2 * FEW.concurrency)


def test_a_refusal_is_told_once_the_store_answers_for_another() -> None:
    data = contents(50)[1:]
    with serving(data, delay=0.01) as server:
        server.tell(data[0], "forbidden")
        got = states(server, data, replace(FEW, concurrency=4))
    assert got == ["forbidden", *["ok"] * 48] and EMPTY_FILE not in server.requests


@pytest.mark.parametrize("options", [replace(FEW, window=300), replace(FEW, memory_bytes=60_000)])
def test_a_refusal_before_a_full_window_is_not_waited_on_for_ever(options: FetchOptions) -> None:
    data = contents(600, most=1_000)
    with serving(data) as server:
        for number in (100, 250, 599):
            server.tell(data[number], "forbidden")
        got = states(server, data, options)
    assert [number for number, state in enumerate(got) if state == "forbidden"] == [100, 250, 599]
    assert got.count("ok") == 597


def test_a_refusal_is_not_waited_on_by_those_who_wait_for_memory_behind_it() -> None:
    """The second body is longer than its content, for which there is no room until the first is handed out; and whether the
    refusal of the first is its own, only an answer to another tells."""
    data = [b"refused", random.Random(4).randbytes(1_000)]
    assert len(packed(data[1])) > 1_010
    found: list[list[str]] = []
    with serving([b"", *data]) as server:
        server.tell(data[0], "forbidden")
        options = replace(FEW, memory_bytes=2_010)
        thread = threading.Thread(target=lambda: found.append(states(server, data, options)), daemon=True)
        thread.start()
        thread.join(60)
    assert found == [["forbidden", "ok"]]


def test_missing_is_asked_for_once_and_nowhere_else() -> None:
    data = contents(20)
    with serving(data, default="missing") as server:
        assert states(server, data) == ["missing"] * 20
        assert set(server.requests.values()) == {1}


def test_an_address_at_which_nothing_is_found_is_doubted() -> None:
    data = [b"%d" % number for number in range(1_200)]
    with serving([]) as server, pytest.raises(InputError, match="Is the address right"):
        states(server, data)
    with serving([b""]) as server:
        assert set(states(server, data)) == {"missing"}


def test_no_such_bucket_is_an_input_error() -> None:
    with serving([b"x"], default="no_bucket") as server, pytest.raises(InputError, match="no such bucket"):
        states(server, [b"x"])
    with serving([b"x"], default="region") as server, pytest.raises(InputError, match="eu-west-3"):
        states(server, [b"x"])


def test_a_redirect_that_is_not_safe_is_refused() -> None:
    data = contents(4)
    with serving(data) as server:
        server.tell(data[1], "unsafe")
        assert states(server, data, FEW) == ["ok", "forbidden", "ok", "ok"]


def test_a_request_that_hangs_is_given_up() -> None:
    data = contents(4)
    with serving(data) as server:
        server.tell(data[1], "hang")
        assert states(server, data, replace(FEW, timeout=0.2, tries=2)) == ["ok", "gave_up", "ok", "ok"]


# ---------------------------------------------------------------- memory


def test_a_bomb_costs_no_memory() -> None:
    body = bomb()
    known = Wanted(bytes(20), None, 3_000)
    tracemalloc.start()
    assert judge(body, known, 3_000) == ("too_large", None)
    assert inflated_length(body, 100 << 20) == (100 << 20) + 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    data = contents(10)
    with serving(data) as server:
        for one in data[1:4]:
            server.tell(one, "bomb")
        wanted = [wanted_for(one, length=False) for one in data]
        tracemalloc.start()
        got = list(fetch(open_store(server.url), wanted, options=FAST))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert [one.state for one in got] == ["ok", *["too_large"] * 3, *["ok"] * 6]
    assert peak < 16 << 20


def test_a_content_longer_than_allowed_is_not_asked_for() -> None:
    data = b"x" * 1_000
    with serving([data]) as server:
        assert states(server, [data], replace(FAST, max_bytes=999)) == ["too_large"]
        assert not server.requests
        wanted = [wanted_for(data, length=False)]
        got = list(fetch(open_store(server.url), wanted, options=replace(FAST, max_bytes=999)))
        assert [one.state for one in got] == ["too_large"]


@pytest.mark.parametrize("length", [True, False])
def test_memory_is_bounded_while_the_first_object_is_late(length: bool) -> None:
    rng = random.Random(2)
    data = [rng.randbytes(200_000) for _ in range(120)]
    options = replace(FAST, memory_bytes=4 << 20, back_off=0.3, longest_wait=0.5)
    with serving(data) as server:
        server.tell(data[0], "busy", "busy", "ok")
        gc.collect()
        tracemalloc.start()
        for one, it in zip(
            fetch(open_store(server.url), (wanted_for(one, length) for one in data), options=options), data, strict=True
        ):
            assert one.data == it
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 13 << 20, peak  # the server's copies in the same process included


def test_objects_larger_than_all_memory_come_one_by_one() -> None:
    data = [bytes([number]) * 300_000 for number in range(6)]
    for length in (True, False):
        with serving(data) as server:
            wanted = [wanted_for(one, length) for one in data]
            got = list(fetch(open_store(server.url), wanted, options=replace(FAST, memory_bytes=1_000)))
        assert [one.data for one in got] == data


def test_wanted_are_read_as_they_are_needed() -> None:
    read = 0

    def endless() -> Iterator[Wanted]:
        nonlocal read
        while True:
            read += 1
            yield wanted_for(b"x")

    with serving([b"x"]) as server:
        running = fetch(open_store(server.url), endless(), options=replace(FAST, window=100))
        for _ in range(500):
            assert next(running).state == "ok"
        running.close()  # type: ignore[attr-defined]
    assert read <= 700


# ---------------------------------------------------------------- ending


def test_closing_leaves_no_thread_and_no_request() -> None:
    data = contents(100)
    with serving(data, default="hang") as server:
        server.tell(data[0], "ok")
        running = fetch(open_store(server.url), map(wanted_for, data), options=FAST)
        assert next(running).data == b""
        assert any(thread.name == "swh-fetch" for thread in threading.enumerate())
        running.close()  # type: ignore[attr-defined]
        assert not any(thread.name == "swh-fetch" for thread in threading.enumerate())
        for _ in range(100):
            if not server.in_flight:
                break
            time.sleep(0.02)
        assert not server.in_flight


def test_an_error_of_the_caller_ends_it_too() -> None:
    def broken() -> Iterator[Wanted]:
        yield wanted_for(b"x")
        raise ValueError("of the caller")

    with serving([b"x"]) as server, pytest.raises(ValueError, match="of the caller"):
        list(fetch(open_store(server.url), broken(), options=FAST))
    assert not any(thread.name == "swh-fetch" for thread in threading.enumerate())


@pytest.mark.parametrize("place", ["_settle", "_deliver", "_up"])
def test_a_fault_in_the_loop_is_raised_and_not_waited_for(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def fault(*arguments: object) -> None:
        raise ZeroDivisionError(place)

    monkeypatch.setattr(Engine, place, fault)
    with serving([b"x"]) as server:
        server.tell(b"x", "busy_after", "ok")
        with pytest.raises(ZeroDivisionError, match=place):
            list(fetch(open_store(server.url), [wanted_for(b"x")], options=FAST))


INTERRUPTED = """
import signal, sys
from stackbuild.sources.swh.fetch import Wanted, fetch, open_store
import threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without
try:
    print("begun", flush=True)
    list(fetch(open_store(sys.argv[1]), [Wanted(bytes([n]) * 20, None, 5) for n in range(50)]))
except KeyboardInterrupt:
    print("left:", [one.name for one in threading.enumerate()], flush=True)
"""


def test_an_interrupt_leaves_no_task_behind() -> None:
    with serving([], default="hang") as server:
        for number in range(50):
            server.data[(bytes([number]) * 20).hex()] = b"x"
        child = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        while server.in_flight < 5:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=20)
    assert out == "left: ['MainThread']\n" and not errors and child.returncode == 0


def test_nothing_asked_for_is_nothing_fetched(tmp_path: Path) -> None:
    assert list(fetch(open_store(str(folder_of(tmp_path, [b"x"]))), [])) == []


# ---------------------------------------------------------------- addresses


def test_the_client_asks_for_no_encoding_and_sends_credentials_to_its_host_alone() -> None:
    data = contents(3)
    with serving(data) as server, serving(data) as other:
        url = server.url.replace("//", "//user:secret@")
        store = open_store(url + "?token=hidden")
        assert "secret" not in store.shown and "hidden" not in store.shown and "user" not in store.shown
        assert [one.state for one in fetch(store, map(wanted_for, data), options=FEW)] == ["ok"] * 3
        assert server.seen[0]["Authorization"].startswith("Basic ")
        assert server.seen[0]["Accept-Encoding"] == "identity"
        server.default = "far"
        server.far = other.url
        assert [one.state for one in fetch(store, map(wanted_for, data), options=FEW)] == ["ok"] * 3
        assert other.seen and "Authorization" not in other.seen[0]
        server.default = "forbidden"
        with pytest.raises(TemporaryError) as caught:
            list(fetch(store, map(wanted_for, data), options=FEW))
        assert "secret" not in str(caught.value) and "hidden" not in str(caught.value)


def test_the_answers_by_kind_are_counted_in_the_message() -> None:
    data = contents(8)
    with serving(data, default="forbidden") as server:
        with pytest.raises(TemporaryError) as caught:
            states(server, data, FEW)
        counted = Counter(server.requests)
    assert f"{counted.total():,} tries" in str(caught.value) and "forbidden 8" in str(caught.value)


def test_without_uvloop_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = contents(60)
    with serving(data) as server:
        for one in data[1::7]:
            server.tell(one, "busy", "ok")
        monkeypatch.setitem(sys.modules, "uvloop", None)
        assert type(new_loop()).__module__.startswith("asyncio")
        got = [one.data for one in fetch(open_store(server.url), map(wanted_for, data), options=FAST)]
    assert got == data


def test_no_event_loop_is_left_set() -> None:
    with serving([b"x"]) as server:
        assert states(server, [b"x"]) == ["ok"]
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
