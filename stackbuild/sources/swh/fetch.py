"""Fetching contents by plain SHA-1: many at a time, verified, in the order asked, with bounded memory.

    for fetched in fetch(open_store("s3://softwareheritage/content"), wanted):
        if fetched.state == "ok": ... fetched.data ...

How many requests run at a time follows what the store bears (`Pace`); what may pass is tried again after a jittered pause that
doubles, or after what the server asks for. A refusal of one object by a store that answers for others is a state of that object;
a store that answers for nothing ends the fetch with TemporaryError and the counts, before any of its refusals is handed out.

Requests run in a thread of their own with an event loop, so that the caller may take its time; `wanted` is read, and results
are handed out, in the caller's thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice

from stackbuild.errors import InputError
from stackbuild.sources.swh.engine import Engine
from stackbuild.sources.swh.objects import ObjectStore, open_store
from stackbuild.sources.swh.options import FetchOptions
from stackbuild.sources.swh.slots import Slot
from stackbuild.wanted import OK, PASSING, STATES, Fetched, Wanted

__all__ = [
    "OK",
    "PASSING",
    "STATES",
    "FetchOptions",
    "Fetched",
    "ObjectStore",
    "Wanted",
    "fetch",
    "fetched",
    "open_store",
]

BATCH = 256  # wanted that are handed over at a time
UNKNOWN_LENGTH = 64 * 1024  # what a content of unknown length is taken to have until it is here

Known = Callable[[list[Wanted]], list[Fetched | None]]


def fetch(store: ObjectStore, wanted: Iterable[Wanted], *, options: FetchOptions | None = None) -> Iterator[Fetched]:
    """What became of each wanted content, in the order asked; `data` has been verified by length and hashes.

    Raises TemporaryError (exit 75) if the store answers for nothing, InputError for an id that is none, or if the store cannot
    be right (no such bucket, an untrusted certificate, nothing of a thousand objects there). Close it, or read it to its end, and
    nothing is left running.
    """
    return fetched(store, wanted, options or FetchOptions())


def fetched(
    store: ObjectStore, wanted: Iterable[Wanted], options: FetchOptions, known: Known | None = None
) -> Generator[Fetched, None, None]:
    """As `fetch`; what `known` has an answer for, asked in batches in the caller's thread, is not asked of the store."""
    source = iter(wanted)
    size = BATCH if known is None else options.window // 2
    enough = max(options.window - size, 0)  # not one by one
    more = True
    waiting = held = 0
    engine = Engine(store, options)
    with contextlib.closing(engine):
        while more or waiting:
            while more and waiting <= enough and (held < options.memory_bytes // 2 or not waiting):
                batch = _batch(source, min(size, options.window - waiting), options)
                more = bool(batch)
                answers = known(batch) if known is not None and batch else [None] * len(batch)
                engine.feed([Slot(one, answer) for one, answer in zip(batch, answers, strict=True)], last=not more)
                waiting += len(batch)
                held += sum(map(_weight, batch))
                if engine.has_ready():
                    break
            if not waiting:
                continue
            ready = engine.take()
            yield from ready
            waiting -= len(ready)
            held -= sum(_weight(one.wanted) for one in ready)
            engine.release(sum(len(one.data) for one in ready if one.data is not None))
            del ready


def _weight(wanted: Wanted) -> int:
    return UNKNOWN_LENGTH if wanted.length is None else wanted.length


def _batch(source: Iterator[Wanted], most: int, options: FetchOptions) -> list[Wanted]:
    """The next wanted, checked; fewer where they are large."""
    batch: list[Wanted] = []
    held = 0
    for one in islice(source, most):
        if len(one.blob_id) != 20 or (one.content_id is not None and len(one.content_id) != 20):
            raise InputError(
                f"{one.blob_id.hex()} / {one.content_id and one.content_id.hex()}: an id has 20 bytes; this is none"
            )
        if one.length is not None and one.length < 0:
            raise InputError(f"{one.blob_id.hex()}: a length of {one.length}")
        batch.append(one)
        held += _weight(one)
        if held > options.memory_bytes // 4:
            break
    return batch
