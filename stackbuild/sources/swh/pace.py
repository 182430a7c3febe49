"""How many requests run at a time, and how long to pause: what keeps a store of objects from being run over."""

from __future__ import annotations

import random
from typing import Final

FIRST_WIDTH: Final = 8


class Pace:
    """Requests in flight by additive increase and multiplicative decrease, as TCP does it (RFC 5681).

    It doubles with each round until the first sign of congestion, then grows by one a round, and is halved by such a sign; those
    that were in flight at a cut tell of the state before it and do not cut again. It grows only while it is what limits.
    """

    def __init__(self, most: int):
        self.most = max(1, most)
        self.width = float(min(FIRST_WIDTH, self.most))
        self.epoch = 0  # cuts so far
        self._steep = True

    def succeeded(self, in_flight: int) -> None:
        """A request ended well while so many ran, itself included."""
        if in_flight >= int(self.width):
            self.width = min(float(self.most), self.width + (1.0 if self._steep else 1.0 / self.width))

    def congested(self, epoch: int) -> None:
        """A request that began in this epoch was told to slow down, was reset or timed out."""
        if epoch == self.epoch:
            self.epoch += 1
            self.width = max(1.0, self.width / 2)
            self._steep = False


def pause(tries: int, first: float, longest: float, asked: float | None, rng: random.Random) -> float:
    """Seconds before the next try after `tries` failed ones: doubled each time, half of it random, at most `longest`.

    `asked`: what the server asks for; it is heeded up to `longest`, with some more so that not all come back at once.
    """
    span = min(longest, first * 2.0 ** min(tries - 1, 32))
    delay = span * (0.5 + rng.random() / 2)
    if asked is not None:
        delay = max(delay, min(asked, longest) + span * rng.random() / 2)
    return delay
