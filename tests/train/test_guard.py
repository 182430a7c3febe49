"""The guard: bad steps are not taken, and after some in a row the run goes back behind them, the same way after a resume."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from stackbuild.errors import InputError
from stackbuild.train.guard import Guard, GuardOptions, Verdict

STEP, SKIP, REWIND, STOP = Verdict.STEP, Verdict.SKIP, Verdict.REWIND, Verdict.STOP


def judged(guard: Guard, norms: list[float], first: int = 0, loss: float = 2.0) -> list[Verdict]:
    """Steps of 4 samples, `first` the number of the first."""
    return [guard.judge(first + k, 4 * (first + k), 4, loss, norm) for k, norm in enumerate(norms)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_or_norm_that_is_not_finite_is_not_stepped_on(bad: float) -> None:
    guard = Guard(GuardOptions())
    assert judged(guard, [1.0, bad, 1.0]) == [STEP, SKIP, STEP] and guard.skipped == 1
    assert guard.judge(3, 12, 4, bad, 1.0) is SKIP and guard.reason == f"the loss is {bad}" and guard.first_bad == 3
    assert guard.judge(4, 16, 4, 2.0, 1.0) is STEP and guard.first_bad is None and not guard.reason


def test_bad_steps_in_a_row_ask_to_go_back_and_good_ones_in_between_do_not() -> None:
    guard = Guard(GuardOptions(skip_limit=3))
    nan = math.nan
    assert judged(guard, [1, nan, nan, 1, nan, nan, nan]) == [STEP, SKIP, SKIP, STEP, SKIP, SKIP, REWIND]
    assert guard.first_bad == 4 and guard.skipped == 5


def test_a_spike_is_a_multiple_of_the_mean_of_good_steps() -> None:
    guard = Guard(GuardOptions(spike_factor=5, spike_window=4))
    assert judged(guard, [1, 30, 1, 1]) == [STEP] * 4  # not yet: the mean is of too few
    guard = Guard(GuardOptions(spike_factor=5, spike_window=4, skip_limit=9))
    assert judged(guard, [1, 1, 1, 1, 5, 11, 11, 9]) == [STEP, STEP, STEP, STEP, STEP, SKIP, SKIP, STEP]
    # The mean went from 1 to 2 at norm 5; the spikes are not of it.
    assert guard._mean == 2 + (9 - 2) / 4
    assert (
        judged(Guard(GuardOptions(spike_window=4)), [1, 1, 1, 1, 1e30]) == [STEP] * 5
    )  # unless it is asked for, none is


def test_samples_of_bad_steps_and_of_a_few_before_are_passed_over_from_then_on() -> None:
    guard = Guard(GuardOptions(skip_limit=2, also_before=1))
    judged(guard, [1, 1])
    checkpoint = guard.state()
    assert judged(guard, [1, 1, 1, math.nan, math.nan], first=2)[-1] is REWIND
    guard.rewound(checkpoint)  # of step 2, which is 8 samples
    assert (guard.rewinds, guard.skipped, guard.first_bad) == (1, 2, None)
    sample, taken = 8, []
    for _ in range(4):
        sample = guard.next_sample(sample, 4)
        taken.append(sample)
        sample += 4
    assert taken == [8, 12, 28, 32]  # 16 to 27 are those of step 4, which was good, and of 5 and 6
    assert guard.next_sample(8, 12) == 28  # not even in part


def test_what_was_passed_over_stays_so_when_the_run_goes_back_again() -> None:
    guard = Guard(GuardOptions(skip_limit=1, also_before=0))
    checkpoint = guard.state()
    judged(guard, [math.nan], first=5)
    guard.rewound(checkpoint)
    judged(guard, [math.nan], first=3)
    guard.rewound(checkpoint)
    judged(guard, [math.nan], first=4)
    guard.rewound(checkpoint)
    assert guard.rewinds == 3 and guard.next_sample(0, 4) == 0 and guard.next_sample(12, 4) == 24
    assert guard.state()["passed"] == [[12, 24]]


def test_a_run_that_does_not_get_well_stops() -> None:
    guard = Guard(GuardOptions(skip_limit=1, most_rewinds=2))
    checkpoint, verdicts = guard.state(), []
    for step in (3, 5, 7):
        verdicts += judged(guard, [math.nan], first=step)
        guard.rewound(checkpoint)
    assert verdicts == [REWIND, REWIND, STOP]


@pytest.mark.parametrize("stop", range(12))
def test_a_resumed_guard_judges_the_same(stop: int) -> None:
    options = GuardOptions(skip_limit=3, spike_factor=3, spike_window=2, also_before=2)
    norms = [1 / 3, 0.4, 9.0, 0.5, math.nan, math.inf, 0.7, 8.0, math.nan, math.nan, 0.3, 0.2]
    straight, before, after = Guard(options), Guard(options), Guard(options)
    wanted = judged(straight, norms)
    got = judged(before, norms[:stop])
    after.load(json.loads(json.dumps(before.state())))
    got += judged(after, norms[stop:], first=stop)
    assert got == wanted and REWIND in wanted and after.state() == straight.state()
    for guard in (straight, after):
        guard.rewound(Guard(options).state())
    assert after.state() == straight.state() and straight.state()["passed"] == [[40, 48]]  # of the last two good steps


@pytest.mark.parametrize("state", [{}, {"first_bad": None}, {**Guard(GuardOptions()).state(), "passed": [1]}])
def test_a_state_that_is_none_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="state of the guard"):
        Guard(GuardOptions()).load(state)
