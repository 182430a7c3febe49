"""The event loop behind `fetch`: which object is asked for next, what an answer means, when the store is given up.

Objects wait in `_slots` in the order asked. Those that want a request are in `_todo`; those between two tries wait for a timer;
what is done stays in its slot until all before it are done. Everything below `_run` happens in the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
from collections import Counter, deque
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from stackbuild.errors import InputError, TemporaryError
from stackbuild.sources.swh.inflate import inflated_length, judge, stored_limit
from stackbuild.sources.swh.loop import new_loop
from stackbuild.sources.swh.objects import EMPTY_FILE, Answer, ObjectStore, Session
from stackbuild.sources.swh.options import FetchOptions
from stackbuild.sources.swh.pace import Pace, pause
from stackbuild.sources.swh.slots import Budget, Slot, unlimited
from stackbuild.wanted import OK, Fetched

REFUSED: Final = frozenset({"forbidden", "gave_up"})  # states of which it is doubted that they are the object's
SMALL: Final = 64 * 1024  # bytes that an object of unknown length is let have before it asks for room
WHOLE: Final = 256 * 1024  # inflated at once where the length is unknown; what is more is counted first
DAMAGED_TRIES: Final = 2  # a transfer may have been at fault
FORBIDDEN_TRIES: Final = 3
SILENT_TRIES: Final = 8  # without an answer, before patience counts
NOTHING_FOUND: Final = 1_000  # objects missing, none there: the address is doubted
FLUSH_SECONDS: Final = 0.01  # that a result may wait for others
LOOK_SECONDS: Final = 0.05  # until it is looked again whether the caller waits
JOIN_SECONDS: Final = 30.0


class Engine:
    """Fetches what it is fed. `feed`, `take`, `release` and `close` are the caller's, from one thread."""

    def __init__(self, store: ObjectStore, options: FetchOptions):
        self._store, self._options = store, options
        self._outbox: queue.SimpleQueue[list[Fetched] | BaseException] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._slots: deque[Slot] = deque()
        self._todo: deque[Slot] = deque()
        self._ready: list[Fetched] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._budget = Budget(options.memory_bytes, self._slots, self._pump)
        self._session: Session | None = None
        self._pace = Pace(options.concurrency)
        self._rng = random.Random()
        self._last = self._over = self._asking = self._flushing = self._waking = self._waited_for = False
        self._in_flight = self._sleeping = self._doubtful = 0
        self._resume_at = 0.0
        self._answers = self._bodies = self._silent = 0
        self._silent_since = 0.0
        self._states: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()  # since the last answer, in the store's words

    # ------------------------------------------------------------ the caller's side

    def feed(self, slots: list[Slot], last: bool) -> None:
        """Ask for more; `last`: there is nothing behind it."""
        if self._loop is None:
            self._loop = new_loop()
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="swh-fetch", daemon=True)
            self._thread.start()
        self._loop.call_soon_threadsafe(self._take_in, slots, last)

    def has_ready(self) -> bool:
        return not self._outbox.empty()

    def take(self) -> list[Fetched]:
        """The next results, at least one; waits for them. Raises what ended the fetch."""
        try:
            found = self._outbox.get_nowait()
        except queue.Empty:
            self._waited_for = True
            found = self._outbox.get()
            self._waited_for = False
        if isinstance(found, BaseException):
            raise found
        return found

    def release(self, count: int) -> None:
        """The caller has let go of so many bytes of contents."""
        if count and self._loop is not None:
            self._loop.call_soon_threadsafe(self._let_go, count)

    def close(self) -> None:
        """End all requests and the thread. It may be called at any time."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = None
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(loop.stop)
        thread.join(JOIN_SECONDS)

    # ------------------------------------------------------------ the loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            asyncio.set_event_loop(loop)
            loop.set_exception_handler(self._raised)
            loop.run_forever()
            self._over = True
            for task in self._tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            if self._session is not None:
                loop.run_until_complete(self._session.close())
            loop.run_until_complete(asyncio.sleep(0))  # closed transports say so in a turn of their own
        except BaseException as error:  # whatever it is, the caller waits for it
            self._outbox.put(error)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)  # a fault of ours: nobody shall wait for ever

    def _raised(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "handle" in context and isinstance(error := context.get("exception"), Exception):  # in a callback of ours
            self._fail(error)
        else:
            loop.default_exception_handler(context)

    def _fail(self, error: BaseException) -> None:
        if not self._over:
            self._over = True
            self._flush()
            self._outbox.put(error)

    def _take_in(self, slots: list[Slot], last: bool) -> None:
        self._last = last
        for slot in slots:
            length = slot.wanted.length
            slot.limit = self._options.max_bytes if length is None else length
            if slot.result is None and slot.limit > self._options.max_bytes:
                slot.result = Fetched(slot.wanted, "too_large")
                self._states["too_large"] += 1
            if slot.result is None:
                self._todo.append(slot)
            elif slot.result.data is not None:
                self._budget.set(slot, len(slot.result.data))
        self._slots.extend(slots)
        self._deliver()
        self._pump()

    def _let_go(self, count: int) -> None:
        self._budget.held -= count
        self._pump()

    def _pump(self) -> None:
        """Start what may be started."""
        if self._over:
            return
        self._budget.give()
        if self._todo and self._session is None:
            if not self._asking:
                self._asking = True
                self._spawn(self._connect())
            return
        loop = asyncio.get_running_loop()
        while self._todo:
            slot = self._todo[0]
            if self._in_flight >= int(self._pace.width) and slot is not self._slots[0]:
                break  # the oldest may always go: those in flight may wait for memory that is freed only behind it
            new = not slot.tries
            if new and (
                self._asking or self._sleeping >= int(self._pace.width) or self._doubtful >= self._options.refusals
            ):
                break
            if self._resume_at > loop.time():
                if not self._waking:
                    self._waking = True
                    loop.call_at(self._resume_at, self._wake)
                return
            need = 2 * slot.limit if slot.wanted.length is not None else SMALL
            if not self._budget.allows(slot, need):
                break
            self._todo.popleft()
            self._budget.set(slot, need)
            self._in_flight += 1
            slot.tries += 1
            self._spawn(self._try(slot, self._pace.epoch))
        if not self._asking and self._in_flight == self._budget.waiting and not self._sleeping:
            self._doubt()

    def _wake(self) -> None:
        self._waking = False
        self._pump()

    # ------------------------------------------------------------ one request

    async def _connect(self) -> None:
        try:
            self._session = await self._store.connect(self._options.timeout, self._options.deadline)
        except Exception as error:
            self._fail(error)
        self._asking = False
        self._deliver()
        self._pump()

    async def _try(self, slot: Slot, epoch: int) -> None:
        assert self._session is not None
        state, data = "", None
        try:
            expected = slot.limit if slot.wanted.length is not None else 0
            room = partial(self._room_for, slot, expected)
            answer = await self._session.get(slot.wanted.blob_id.hex(), stored_limit(slot.limit), room)
            if answer.kind == "body":
                state, data = await self._judged(slot, answer.body)
        except Exception as error:
            self._fail(error)
            return
        finally:
            self._in_flight -= 1
            self._budget.set(slot, 0 if data is None else len(data))
        if not self._over:
            self._settle(slot, answer, state, data, epoch)
            self._pump()

    async def _room_for(self, slot: Slot, expected: int, count: int) -> None:
        await self._budget.grow(slot, expected + count)

    async def _judged(self, slot: Slot, body: bytes) -> tuple[str, bytes | None]:
        """What a body is. Of unknown length it may be a thousand times its gzip: what is long is counted before it has room."""
        if slot.wanted.length is not None or slot.limit <= WHOLE:
            return judge(body, slot.wanted, slot.limit)
        state, data = judge(body, slot.wanted, WHOLE)
        if state != "too_large":
            return state, data
        length = inflated_length(body, slot.limit)
        if length < 0 or length > slot.limit:
            return ("not_gzip" if length < 0 else state), None
        await self._budget.grow(slot, len(body) + length)
        return judge(body, slot.wanted, slot.limit)

    def _settle(self, slot: Slot, answer: Answer, state: str, data: bytes | None, epoch: int) -> None:
        """What an answer means for its object and for the store."""
        if answer.kind == "body" and state == "truncated" and not answer.whole:
            answer = Answer("failed", words="cut")  # by whoever closed the connection, as far as one can tell
        if answer.kind in ("busy", "failed"):
            self._pace.congested(epoch)
            self._unanswered(answer.words)
            if answer.wait is not None:
                now = asyncio.get_running_loop().time()
                self._resume_at = max(self._resume_at, now + min(answer.wait, self._options.longest_wait))
            if slot.tries < self._options.tries:
                self._again(slot, slot.tries, answer.wait)
            else:
                self._finish(slot, "gave_up")
        elif answer.kind == "forbidden":
            slot.denied += 1
            self._unanswered(answer.words)
            if slot.denied < min(FORBIDDEN_TRIES, self._options.tries):
                self._again(slot, slot.denied, None)
            else:
                self._finish(slot, "forbidden")
        else:
            self._pace.succeeded(self._in_flight + 1)
            self._answered()
            self._bodies += answer.kind == "body"
            if answer.kind == "missing":
                if not self._bodies and self._states["missing"] + 1 == NOTHING_FOUND:
                    self._ask_for_the_empty_file()
                self._finish(slot, "missing")
            elif answer.kind == "too_large" or state in (OK, "too_large"):
                self._finish(slot, state or "too_large", data)
            else:
                slot.damaged += 1
                if slot.damaged < min(DAMAGED_TRIES, self._options.tries):
                    self._again(slot, slot.damaged, None)
                else:
                    self._finish(slot, state)

    def _again(self, slot: Slot, tries: int, asked: float | None) -> None:
        options = self._options
        delay = pause(tries, options.back_off, options.longest_wait, asked, self._rng)
        self._sleeping += 1
        asyncio.get_running_loop().call_later(delay, self._up, slot)

    def _up(self, slot: Slot) -> None:
        self._sleeping -= 1
        self._todo.appendleft(slot)
        self._pump()

    def _finish(self, slot: Slot, state: str, data: bytes | None = None) -> None:
        slot.result = Fetched(slot.wanted, state, data)
        self._states[state] += 1
        if state in REFUSED:
            slot.doubt = self._answers
            self._doubtful += 1
        self._deliver()

    # ------------------------------------------------------------ results

    def _deliver(self) -> None:
        """Hand out what is done and has nothing undone before it, and whose refusal is not in doubt; nothing while the store is."""
        if self._asking:
            return
        slots = self._slots
        while slots and slots[0].result is not None and slots[0].doubt != self._answers:
            self._ready.append(slots.popleft().result)  # type: ignore[arg-type]
        if self._ready and not self._flushing:  # waking another thread costs as much as a request: some go at once
            self._flushing = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._ready:
            self._outbox.put(self._ready)
            self._ready = []

    # ------------------------------------------------------------ the store as a whole

    def _answered(self) -> None:
        self._answers += 1
        if self._silent:
            self._silent = self._doubtful = 0
            self._refusals.clear()
            self._deliver()

    def _unanswered(self, words: str) -> None:
        now = asyncio.get_running_loop().time()
        if not self._silent:
            self._silent_since = now
        self._silent += 1
        self._refusals[words] += 1
        if self._silent >= SILENT_TRIES and now - self._silent_since >= self._options.patience:
            self._ask_for_the_empty_file()

    def _doubt(self) -> None:
        """Nothing is under way but what waits for memory: if the oldest slot is done, it was refused, and nothing tells whether
        all would be."""
        if not self._slots or self._slots[0].result is None:
            return
        if self._last or self._waited_for or self._doubtful >= self._options.refusals:
            self._ask_for_the_empty_file()
        elif not self._waking:  # the caller may be about to feed more, which will tell
            self._waking = True
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._wake)

    def _ask_for_the_empty_file(self) -> None:
        if not self._asking:
            self._asking = True
            self._spawn(self._probe())

    async def _probe(self) -> None:
        """Whether the store gives an object that every archive has, or says that it has not."""
        assert self._session is not None
        options = self._options
        try:
            for tries in range(1, FORBIDDEN_TRIES + 1):
                answer = await self._session.get(EMPTY_FILE, SMALL, unlimited)
                if answer.kind not in ("busy", "failed", "forbidden"):
                    break
                self._refusals[answer.words] += 1
                if tries < FORBIDDEN_TRIES:
                    await asyncio.sleep(pause(tries, options.back_off, options.longest_wait, answer.wait, self._rng))
        except Exception as error:
            self._fail(error)
            return
        if answer.kind in ("busy", "failed", "forbidden"):
            self._fail(self._no_answer())
            return
        self._bodies += answer.kind == "body"
        if not self._bodies and self._states["missing"] >= NOTHING_FOUND:
            self._fail(
                InputError(
                    f"{self._store.shown}: none of {self._states['missing']:,} objects is there, nor the empty file, "
                    "which Software Heritage has. Is the address right?"
                )
            )
            return
        self._asking = False
        self._answered()
        self._deliver()
        self._pump()

    def _no_answer(self) -> TemporaryError:
        said = ", ".join(f"{words} {count:,}" for words, count in self._refusals.most_common(4))
        so_far = ", ".join(f"{state} {count:,}" for state, count in sorted(self._states.items())) or "nothing"
        return TemporaryError(
            f"{self._store.shown} gives nothing: {sum(self._refusals.values()):,} tries since its last answer ({said}). "
            f"Objects so far: {so_far}. Try again later."
        )
