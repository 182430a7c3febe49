"""Schedules: the golden tables of the three conventions, what every shape promises, and branches that leave their trunk alone."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stackbuild.errors import UsageError
from stackbuild.train.schedule import (
    MEGATRON_SHAPES,
    Convention,
    ScheduleOptions,
    Shape,
    beta2,
    branch,
    cools,
    factor,
    learning_rate,
)

SHAPES: tuple[Shape, ...] = get_args(Shape)


def schedule(**given: Any) -> ScheduleOptions:
    """1,000 steps with 100 of warm-up, and 200 of cooldown where there is one."""
    values = {"kind": "wsd", "peak": 1.0, "steps": 1000, "warmup": 100, **given}
    if values["kind"] == "wsd":
        values.setdefault("cooldown", 0.2)
    return ScheduleOptions.model_validate(values)


# starcoder1.md, Annex G: N = 1000, W = 100, D = 200, f = 0; and of exp, by hand, for f = 0.01: 0.01^(k/4) at k = 1, 2, 3.
STEPS_OF_THE_PAPER = (0, 50, 99, 100, 799, 800, 850, 900, 950, 999, 1000)
PAPER: dict[Shape, tuple[float, ...]] = {
    "linear": (0.01, 0.505, 0.9901, 1, 1, 1, 0.75, 0.5, 0.25, 0.005, 0),
    "1-sqrt": (0.01, 0.505, 0.9901, 1, 1, 1, 0.5, 0.292893, 0.133975, 0.002503, 0),
    "cosine": (0.01, 0.505, 0.9901, 1, 1, 1, 0.853553, 0.5, 0.146447, 0.000062, 0),
    "mirror-cosine": (0.01, 0.505, 0.9901, 1, 1, 1, 0.646447, 0.5, 0.353553, 0.009938, 0),
    "square": (0.01, 0.505, 0.9901, 1, 1, 1, 0.9375, 0.75, 0.4375, 0.009975, 0),
    "exp": (0.01, 0.505, 0.9901, 1, 1, 1, 0.316228, 0.1, 0.031623, 0.010233, 0.01),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_papers_table(shape: Shape) -> None:
    options = schedule(convention="paper", shape=shape, final=0.01 if shape == "exp" else 0)
    got = [round(factor(options, step), 6) for step in STEPS_OF_THE_PAPER]
    assert got == list(PAPER[shape])
    assert factor(options, 5000) == options.final


# By hand. H = 800, x = (s-799)/200: 1/4 at 849, 1/2 at 899, 3/4 at 949, 1 at 999. f = 0, but 0.0001 for exp.
STEPS_BY_DEFAULT = (0, 49, 99, 100, 799, 849, 899, 949, 999, 1000)
DEFAULT: dict[Shape, tuple[float, ...]] = {
    "linear": (0.01, 0.5, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0),
    "1-sqrt": (0.01, 0.5, 1, 1, 1, 0.5, 0.292893, 0.133975, 0, 0),
    "cosine": (0.01, 0.5, 1, 1, 1, 0.853553, 0.5, 0.146447, 0, 0),
    "mirror-cosine": (0.01, 0.5, 1, 1, 1, 0.646447, 0.5, 0.353553, 0, 0),
    "square": (0.01, 0.5, 1, 1, 1, 0.9375, 0.75, 0.4375, 0, 0),
    "exp": (0.01, 0.5, 1, 1, 1, 0.1, 0.01, 0.001, 0.0001, 0.0001),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_default_table(shape: Shape) -> None:
    options = schedule(shape=shape, final=0.0001 if shape == "exp" else 0)
    assert [round(factor(options, step), 6) for step in STEPS_BY_DEFAULT] == list(DEFAULT[shape])
    assert factor(options, 800) < 1 and factor(options, 998) > options.final  # each step of the cooldown is one


def test_a_final_factor_raises_the_whole_cooldown() -> None:
    options = schedule(shape="linear", final=0.2)
    assert [factor(options, step) for step in (799, 899, 999)] == pytest.approx([1, 0.6, 0.2], abs=1e-12)


# By hand after Megatron-LM's rule, f = 0.1: 0.1 + 0.9 (1-√x) for 1-sqrt, 0.1 + 0.9 (2·0.5^x - 1) for exp.
MEGATRON: dict[Shape, tuple[float, ...]] = {
    "linear": (0, 0.5, 1, 1, 1, 0.775, 0.55, 0.325, 0.1, 0.1),
    "1-sqrt": (0, 0.5, 1, 1, 1, 0.55, 0.363604, 0.220577, 0.1, 0.1),
    "cosine": (0, 0.5, 1, 1, 1, 0.868198, 0.55, 0.231802, 0.1, 0.1),
    "exp": (0, 0.5, 1, 1, 1, 0.713614, 0.472792, 0.270286, 0.1, 0.1),
}


@pytest.mark.parametrize("shape", MEGATRON_SHAPES)
def test_megatrons_table(shape: Shape) -> None:
    options = schedule(convention="megatron", shape=shape, final=0.1)
    got = [round(factor(options, step), 6) for step in (0, 50, 100, 101, 800, 850, 900, 950, 1000, 1001)]
    assert got == list(MEGATRON[shape])


def test_starcoders_cosine_in_megatrons_samples() -> None:
    """StarCoderBase-15B: 250 k steps of 512 samples, 2,000 of warm-up, 3e-4 to 3e-5; in samples as in steps, bit for bit."""
    steps = ScheduleOptions(kind="cosine", peak=3e-4, steps=250_000, warmup=2_000, final=0.1, convention="megatron")
    samples = steps.model_copy(update={"steps": 250_000 * 512, "warmup": 2_000 * 512})
    at = (0, 1, 1_000, 2_000, 2_001, 126_000, 249_999, 250_000, 300_000)
    assert [factor(steps, n) for n in at] == [factor(samples, 512 * n) for n in at]
    assert learning_rate(steps, 0) == 0 and learning_rate(steps, 1_000) == pytest.approx(1.5e-4)
    assert learning_rate(steps, 126_000) == pytest.approx(3e-5 + 0.5 * 2.7e-4)  # half of the way from 2,000 to 250,000
    assert learning_rate(steps, 250_000) == pytest.approx(3e-5) == learning_rate(steps, 300_000)


def test_a_cosine_and_one_that_stays_at_its_end() -> None:
    cosine = schedule(kind="cosine", final=0.1, convention="paper")
    assert [factor(cosine, n) for n in (100, 325, 550, 1000)] == pytest.approx([1, 0.868198, 0.55, 0.1], abs=1e-6)
    staying = schedule(kind="cosine-constant", final=0.1, hold=100, convention="paper")
    assert [factor(staying, n) for n in (100, 300, 500, 900, 999, 2000)] == pytest.approx(
        [1, 0.868198, 0.55, 0.1, 0.1, 0.1], abs=1e-6
    )
    assert factor(staying, 899) > factor(staying, 900) == factor(staying, 901)
    ours = schedule(kind="cosine", final=0.1)
    assert factor(ours, 99) == 1 > factor(ours, 100) and factor(ours, 999) == 0.1 < factor(ours, 998)


def test_a_constant_schedule_has_no_end() -> None:
    options = ScheduleOptions(kind="constant", peak=2e-3, warmup=4)
    assert [learning_rate(options, step) for step in (0, 1, 3, 4, 10**9)] == [5e-4, 1e-3, 2e-3, 2e-3, 2e-3]


def test_a_fraction_of_the_steps_is_truncated() -> None:
    assert schedule(cooldown=0.2).cooldown_steps == 200
    assert schedule(steps=999, cooldown=0.2).cooldown_steps == 199  # 199.8
    assert (
        schedule(steps=100, warmup=0, cooldown=0.29).cooldown_steps == 28
    )  # 28.999999999999996, as in the paper's code
    assert schedule(cooldown=150).cooldown_steps == 150


conventions = st.sampled_from(get_args(Convention))


@st.composite
def schedules(draw: st.DrawFn) -> ScheduleOptions:
    convention = draw(conventions)
    warmup, plateau, cooldown = draw(st.integers(0, 20)), draw(st.integers(0, 20)), draw(st.integers(1, 80))
    return ScheduleOptions(
        peak=1,
        steps=warmup + plateau + cooldown,
        warmup=warmup,
        cooldown=cooldown,
        shape=draw(st.sampled_from(MEGATRON_SHAPES if convention == "megatron" else SHAPES)),
        final=draw(st.floats(0.001, 1)),
        convention=convention,
    )


@given(schedules())
def test_every_schedule_rises_stays_falls_and_jumps_nowhere(options: ScheduleOptions) -> None:
    assert options.steps is not None
    values = [factor(options, step) for step in range(options.steps + 3)]
    begin, slack = options.steps - options.cooldown_steps, 1e-12
    assert all(0 <= value <= 1 for value in values)
    assert all(one <= two + slack for one, two in pairwise(values[: options.warmup]))
    assert values[options.warmup : begin] == [1.0] * (begin - options.warmup)
    assert all(one >= two - slack for one, two in pairwise(values[begin:]))
    assert values[options.steps :] == [options.final] * 3
    # The steepest slope of a shape over the cooldown: √ begins with a step of √(1/D), exp falls by no more than ln(1/f) a unit.
    length = options.cooldown_steps
    most = {"1-sqrt": math.sqrt(1 / length), "exp": max(2, -math.log(options.final)) / length}.get(
        options.shape, 2 / length
    )
    assert all(one - two <= most + slack for one, two in pairwise(values[begin:]))


@given(schedules(), st.data())
def test_a_branch_has_the_trunks_factors_bit_for_bit_and_then_falls(
    options: ScheduleOptions, data: st.DataObject
) -> None:
    begin = (options.steps or 0) - options.cooldown_steps
    if begin < max(options.warmup, 1) or options.final >= 1:
        return
    at = data.draw(st.integers(max(options.warmup, 1), begin))
    cooled = branch(options, at, 40, options.shape, options.final / 2)
    assert [factor(cooled, step) for step in range(at)] == [factor(options, step) for step in range(at)]
    values = [factor(cooled, step) for step in range(at, at + 43)]
    assert all(one >= two - 1e-12 for one, two in pairwise(values))  # nothing is warmed up again
    assert cooled.steps == at + 40 and values[-2:] == [options.final / 2] * 2
    assert ScheduleOptions.model_validate_json(cooled.model_dump_json()) == cooled


def test_a_branch_of_a_plateau_is_the_schedule_that_ends_there() -> None:
    """What is cooled from step 600 of an endless trunk is what a run of 700 steps, planned so, would have been."""
    trunk = ScheduleOptions(kind="constant", peak=1, warmup=100)
    for convention in get_args(Convention):
        for shape in MEGATRON_SHAPES:
            given = {"convention": convention, "shape": shape, "final": 0.1}
            cooled = branch(trunk.model_copy(update={"convention": convention}), 600, 100, shape, 0.1)
            planned = schedule(steps=700, cooldown=100, **given)
            assert [factor(cooled, step) for step in range(710)] == [factor(planned, step) for step in range(710)]


def test_a_branch_of_a_cosine_falls_from_where_it_stood() -> None:
    trunk = schedule(kind="cosine", final=0.1)
    cooled = branch(trunk, 550, 10, "linear", 0.0)
    assert factor(cooled, 549) == factor(trunk, 549) == pytest.approx(0.55, abs=1e-3)
    assert [factor(cooled, 549 + k) for k in range(11)] == pytest.approx(
        [factor(trunk, 549) * (1 - k / 10) for k in range(11)]
    )


def test_a_branch_of_shape_exp_falls_from_where_it_stood() -> None:
    trunk = schedule(kind="cosine-constant", final=0.1, hold=100)
    cooled = branch(trunk, 950, 10, "exp", 0.001)
    assert [factor(cooled, step) for step in (949, 954, 959, 960)] == pytest.approx([0.1, 0.01, 0.001, 0.001])


def test_the_length_of_a_branch_as_a_share_of_the_whole_run() -> None:
    trunk = ScheduleOptions(kind="constant", peak=1, warmup=100)
    assert [branch(trunk, 800, share).steps for share in (0.2, 0.1, 200, 200.0)] == [1000, 888, 1000, 1000]  # 88.9
    assert branch(trunk, 2050, 0.18).steps == 2500  # floating point would make it 449.99 steps


def test_a_branch_of_a_branch_is_one_of_the_trunk() -> None:
    trunk = ScheduleOptions(kind="constant", peak=1, warmup=100)
    first = branch(trunk, 600, 100)
    assert branch(first, 500, 100) == branch(trunk, 500, 100) and branch(first, 600, 50) == branch(trunk, 600, 50)


@pytest.mark.parametrize(
    ("at", "length", "final", "told"),
    [
        (50, 10, 0, "is in the warm-up; branch off at step 100"),
        (801, 10, 0, "is in a cooldown, which began at step 800"),
        (500, 0, 0, "whole number of steps"),
        (500, 1.5, 0, "whole number of steps"),
        (500, math.nan, 0, "whole number of steps"),
        (500, 0.001, 0, "not one whole step"),
        (500, 10, 1, "cannot cool down to 1"),
    ],
)
def test_no_branch_where_there_is_nothing_to_cool(at: int, length: float, final: float, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        branch(schedule(), at, length, final=final)


def test_the_cooldown_may_have_a_beta2_of_its_own() -> None:
    options = schedule(cooldown_beta2=0.99)
    assert [beta2(options, step, 0.95) for step in (0, 799, 800, 999)] == [0.95, 0.95, 0.99, 0.99]
    assert beta2(schedule(), 900, 0.95) == 0.95
    assert [cools(schedule(kind="cosine"), step) for step in (100, 900)] == [False, False]
    cooled = branch(schedule(), 400, 100, cooldown_beta2=0.98)
    assert [beta2(cooled, step, 0.95) for step in (399, 400)] == [0.95, 0.98]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"shape": "exp"}, "never reaches 0"),
        ({"convention": "megatron", "shape": "square"}, "Megatron has no square"),
        ({"warmup": 900}, "too few"),
        ({"cooldown": 0.0001}, "not one whole step"),
        ({"cooldown": 1.5}, "neither a number of steps"),
        ({"cooldown": -3}, "neither a number of steps"),
        ({"cooldown": None}, "cooldown is missing for kind = 'wsd'"),
        ({"steps": None}, "steps: kind = 'wsd' needs steps, its last one"),
        ({"kind": "constant"}, "steps: kind = 'constant' goes on without end; say where to stop with --steps"),
        ({"kind": "cosine", "cooldown": 10}, "cooldown means nothing for kind = 'cosine'"),
        ({"kind": "cosine-constant"}, "hold is missing"),
        ({"kind": "cosine", "cooldown_beta2": 0.9}, "no cooldown in kind cosine"),
        ({"kind": "cosine", "warmup": 1000}, "too few"),
        ({"cooldwon": 3}, "Extra inputs"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        schedule(**given)


def test_there_is_no_step_before_the_first() -> None:
    with pytest.raises(ValueError, match="no step -1"):
        factor(schedule(), -1)
