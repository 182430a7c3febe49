"""The guard: which steps are not taken, and when to go back.

A step whose loss or global gradient norm is not finite, or (if asked for) whose norm is a multiple of what it lately was, is
skipped: weights and moments stay, its samples count as read and its number as gone by, so that it moves neither schedule nor data. After
`skip_limit` such steps in a row the run goes back: to the newest checkpoint of before the first of them (b), with the
samples of these steps, and of a few before them, passed over from then on. A checkpoint of exactly b steps may itself be what is bad: the
one before b proved itself by a step that was good. What the guard tells is a function of the losses and norms alone, so that a
resumed run goes the same way.

    verdict = guard.judge(step, first_sample, samples, loss, norm)
    Verdict.REWIND:   loaded = checkpoints.load_newest(into, below=guard.first_bad);  guard.rewound(its state)
    each step:        first_sample = guard.next_sample(consumed, samples)
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from stackbuild.errors import InputError
from stackbuild.stage import Options


class GuardOptions(Options):
    """When a step is not taken: the recipe's table `[guard]`."""

    skip_limit: int = Field(5, ge=1, description="bad steps in a row after which the run goes back to a checkpoint")
    spike_factor: float | None = Field(
        None,
        gt=1,
        allow_inf_nan=False,
        description="a norm over so many times its running mean is bad too; none: none is",
    )
    spike_window: int = Field(
        100, ge=2, description="good steps that the running mean is of; before so many there are no spikes"
    )
    also_before: int = Field(
        10, ge=0, description="good steps before the bad ones whose samples are passed over with theirs"
    )
    most_rewinds: int = Field(10, ge=0, description="times that a run goes back before it stops")


class Verdict(enum.Enum):
    """What to do with a step's gradient."""

    STEP = "step"
    SKIP = "skip"
    REWIND = "rewind"
    STOP = "stop"


class Guard:
    """Counts of what was skipped. `first_bad`: the step at which the present bad ones began, None in good times, and then alone may
    checkpoints be removed. `skipped`, `rewinds`: of the whole run. `reason`: of the last step that was not taken.
    """

    def __init__(self, options: GuardOptions):
        self.options = options
        self.first_bad: int | None = None
        self.skipped = self.rewinds = 0
        self.reason = ""
        self._in_row = self._good = 0
        self._mean = 0.0
        self._recent: list[tuple[int, int]] = []  # first and one past the last sample of good steps, then of bad ones
        self._passed: list[tuple[int, int]] = []

    def judge(self, step: int, first_sample: int, samples: int, loss: float, norm: float) -> Verdict:
        """What to do at the 0-based `step` on `samples` samples from `first_sample` on. `norm`: before clipping."""
        self.reason = self._fault(loss, norm)
        self._recent.append((first_sample, first_sample + samples))
        if not self.reason:
            self.first_bad, self._in_row = None, 0
            self._good += 1
            self._mean += (norm - self._mean) / min(self._good, self.options.spike_window)
            self._recent = self._recent[len(self._recent) - min(len(self._recent), self.options.also_before) :]
            return Verdict.STEP
        if self.first_bad is None:
            self.first_bad = step
        self.skipped += 1
        self._in_row += 1
        if self._in_row < self.options.skip_limit:
            return Verdict.SKIP
        return Verdict.REWIND if self.rewinds < self.options.most_rewinds else Verdict.STOP

    def rewound(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state of the guard, with the samples that were bad passed over and the counts of the run kept."""
        passed, skipped, rewinds = [*self._passed, *self._recent], self.skipped, self.rewinds
        self.load(state)
        self._passed = _merged([*self._passed, *passed])
        self.skipped, self.rewinds = skipped, rewinds + 1

    def next_sample(self, sample: int, samples: int) -> int:
        """The first of the next `samples` samples in a row, from `sample` on, none of which is passed over.

        What is passed over is whole steps; so where steps of a stage begin at multiples of their size, this one does too.
        """
        for first, end in self._passed:
            if sample < end and first < sample + samples:
                sample = end
        return sample

    def state(self) -> dict[str, Any]:
        """All of it, of JSON's types."""
        return {
            "first_bad": self.first_bad,
            "skipped": self.skipped,
            "rewinds": self.rewinds,
            "in_row": self._in_row,
            "good": self._good,
            "mean": self._mean,
            "recent": [list(one) for one in self._recent],
            "passed": [list(one) for one in self._passed],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state. InputError: it is not one."""
        try:
            first_bad = state["first_bad"]
            counts = [int(state[name]) for name in ("skipped", "rewinds", "in_row", "good")]
            mean = float(state["mean"])
            recent, passed = ([(int(a), int(b)) for a, b in state[name]] for name in ("recent", "passed"))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The state of the guard against bad steps cannot be read: {error!r}") from error
        self.first_bad = None if first_bad is None else int(first_bad)
        self.skipped, self.rewinds, self._in_row, self._good = counts
        self._mean, self._recent, self._passed, self.reason = mean, recent, passed, ""

    def _fault(self, loss: float, norm: float) -> str:
        """What is wrong with a step, or nothing."""
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"the {name} is {value}"
        factor = self.options.spike_factor
        if factor is not None and self._good >= self.options.spike_window and norm > factor * self._mean:
            return f"the gradient norm is {norm:.4g}, over {factor:g} times its mean of {self._mean:.4g}"
        return ""


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that touch as one."""
    merged: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged
