"""Wanted contents on their way, and the memory that they share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from stackbuild.wanted import Fetched, Wanted


class Slot:
    """A wanted content on its way."""

    __slots__ = ("damaged", "denied", "doubt", "held", "limit", "result", "tries", "wanted")

    def __init__(self, wanted: Wanted, result: Fetched | None = None):
        self.wanted, self.result = wanted, result
        self.tries = self.denied = self.damaged = 0
        self.held = 0  # bytes of memory that it is let have
        self.limit = 0
        self.doubt = -1  # how many answers the store had given when it refused this one


class Budget:
    """Bytes of bodies and contents. The oldest slot may always have what it needs, so that nobody waits in a circle.

    `stuck`: called when somebody begins to wait.
    """

    def __init__(self, most: int, slots: deque[Slot], stuck: Callable[[], None]):
        self.most, self.held = most, 0
        self._slots, self._stuck = slots, stuck
        self._waiting: list[tuple[Slot, int, asyncio.Future[None]]] = []

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def allows(self, slot: Slot, need: int) -> bool:
        """Whether the slot may have `need` bytes in all."""
        return self.held - slot.held + need <= self.most or slot is self._slots[0]

    def set(self, slot: Slot, count: int) -> None:
        """The slot has so many bytes now."""
        self.held += count - slot.held
        slot.held = count

    async def grow(self, slot: Slot, need: int) -> None:
        """Wait until the slot may have `need` bytes."""
        if need <= slot.held:
            return
        if self.allows(slot, need):
            self.set(slot, need)
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append((slot, need, waiter))
        loop.call_soon(self._stuck)
        await waiter

    def give(self) -> None:
        """Let those go on for whom there is room now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for slot, need, waiter in waiting:
            if waiter.done():
                continue
            if self.allows(slot, need):
                self.set(slot, need)
                waiter.set_result(None)
            else:
                self._waiting.append((slot, need, waiter))


async def unlimited(count: int) -> None:
    """Room for whoever needs little."""
    return
