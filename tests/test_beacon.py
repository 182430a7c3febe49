"""What a child writes to its page, the task server reads, whatever the child is doing."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild import beacon
from stackbuild.beacon import HEAD, PAGE_BYTES, Reading


@pytest.fixture(autouse=True)
def _apart() -> object:
    """A page of a test is no page of the next."""
    yield
    beacon._page = None


def test_without_a_page_nothing_happens() -> None:
    beacon.at("somewhere")
    beacon.add(3, 4)


def test_a_fresh_page_reads_as_nothing() -> None:
    assert beacon.read(beacon.page()) == Reading()


def test_a_child_that_was_killed_has_said_where_it_was() -> None:
    page = beacon.page()
    pid = os.fork()
    if not pid:
        beacon.attach(page)
        beacon.add(5, 100)
        beacon.at("decode, a\u00e9.py")
        beacon.add(2, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert beacon.read(page) == Reading(7, 101, "decode, a\u00e9.py")


def test_a_page_that_is_attached_counts_from_nothing() -> None:
    first, second = beacon.page(), beacon.page()
    beacon.attach(first)
    beacon.add(9, 9)
    beacon.attach(second)
    beacon.add(1, 2)
    assert beacon.read(first) == Reading(9, 9) and beacon.read(second) == Reading(1, 2)


@settings(deadline=None)
@given(st.lists(st.text(max_size=3_000), min_size=1, max_size=4))
def test_any_words_are_read_as_they_were_or_cut(words: list[str]) -> None:
    """Names of files are whatever people make of them: lone surrogates, words longer than a page, shorter ones after longer."""
    page = beacon.page()
    beacon.attach(page)
    for where in words:
        beacon.at(where)
        found = beacon.read(page).where
        whole = where.encode("utf-8", "replace")
        assert found == whole[: PAGE_BYTES - HEAD.size].decode("utf-8", "replace")


def test_a_lone_surrogate_does_not_end_the_task() -> None:
    page = beacon.page()
    beacon.attach(page)
    beacon.at("a\udcff.py")
    assert beacon.read(page).where == "a?.py"


def test_a_torn_page_is_wrong_words_and_no_error() -> None:
    page = beacon.page()
    HEAD.pack_into(page, 0, 1, 2, 2**63)
    page[HEAD.size : HEAD.size + 3] = b"\xff\xfe\x00"
    assert beacon.read(page).rows == 1
