"""Batches made ahead: the same as asked for one by one, errors reach who takes them, and forks beside a trainer's threads do no harm."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from stackbuild.errors import InputError
from stackbuild.tokens.batches import Rows
from stackbuild.tokens.fim_trees import Asked, drawn, nodes
from stackbuild.train.feed import Feed


class Numbers:
    """Batches of nothing but their sample numbers."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def batch(self, first_sample: int, n: int) -> Rows:
        self.made.append((first_sample, n))
        self.threads.add(threading.get_ident())
        if first_sample == 66:
            raise InputError("torn at 66")
        column = np.arange(first_sample, first_sample + n, dtype=np.int32)[:, None]
        return Rows(column, column, column, column, column)


def test_each_is_what_was_asked_for_and_made_once_in_one_thread() -> None:
    source = Numbers()
    with Feed(source) as feed:
        for first in range(0, 40, 4):
            rows = feed.take(first, 4, [(first + 4, 4), (first + 8, 4)])
            assert rows.tokens[:, 0].tolist() == [first, first + 1, first + 2, first + 3]
    assert source.made[:10] == [(first, 4) for first in range(0, 40, 4)] and len(source.made) == len(set(source.made))
    assert len(source.threads) == 1 and threading.get_ident() not in source.threads


def test_what_was_made_ahead_and_is_not_taken_changes_nothing() -> None:
    with Feed(Numbers()) as feed:
        feed.take(0, 2, [(2, 2), (4, 2)])
        assert feed.take(100, 3, [(103, 3)]).tokens[:, 0].tolist() == [100, 101, 102]
        assert feed.take(2, 2, []).tokens[:, 0].tolist() == [2, 3]


def test_an_error_reaches_who_takes_that_batch_and_no_other() -> None:
    with Feed(Numbers()) as feed:
        assert len(feed.take(64, 2, [(66, 2), (68, 2)]).tokens) == 2
        with pytest.raises(InputError, match="torn at 66"):
            feed.take(66, 2, [(68, 2)])
        assert len(feed.take(68, 2, []).tokens) == 2


def test_texts_are_parsed_in_forks_beside_busy_threads() -> None:
    """A fork has one thread, whatever locks the others held: it must call nothing that waits for one of them."""
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            kept: list[Any] = [torch.ones(64, 64) @ torch.ones(64, 64) for _ in range(8)]
            kept += [bytearray(1 << 16), np.ones(1 << 12), {str(number): number for number in range(500)}]

    text = memoryview(b"def area(width, height):\n    return width * (height + 1)\n\n\nclass Shape:\n    sides = 4\n")
    files = [Asked("Python", text, first << 58, second << 58) for first in range(8) for second in range(3)]
    expected = [drawn(file) for file in files]
    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        found: list[Any] = []
        with Feed(Numbers()) as feed:
            feed._thread.submit(lambda: found.extend(list(nodes(files)) for _ in range(15))).result(120)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert found == [expected] * 15 and any(span is not None for span in expected)
