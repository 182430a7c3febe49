"""The learning rate as a pure function of the step, and cooldowns that branch off a running trunk.

A schedule gives the factor of the peak rate for a step: warm-up, plateau, and a cooldown to `final`. Nothing of it is state: a
resumed run asks for the step that it is at. With n the 0-based step about to run, N steps, W of warm-up, D of cooldown, H = N - D
and f the final factor, the three conventions are

    default    warm-up (n+1)/W                    x = (n-H+1)/D   the first step learns, the last one of the cooldown has f
    paper      warm-up n/W + (1-n/W)/100          x = (n-H)/D     Hägele et al. 2024 (arXiv 2405.18392) and their code: f is
                                                                  reached at N, one behind the last step
    megatron   warm-up n/W                        x = (n-H)/D     Megatron-LM: the first step does not learn

and a cooldown from 1 to f is f + (1-f) g(x), for x of 0 to 1, of one of the shapes

    linear 1-x    1-sqrt 1-√x    cosine (1+cos πx)/2    mirror-cosine 2(1-x) - cosine    square 1-x²    exp, which is f^x as a whole

A cosine schedule is a cooldown of shape cosine over all that follows the warm-up. Behind the end every schedule stays at f.

Megatron-LM's rule is that of its `OptimizerParamScheduler` (megatron/core), which counts consumed samples: as all conventions depend
on ratios of counts alone, samples for `warmup`, `steps`, `cooldown` and the step give the same factors, bit for bit, as steps of one
batch size. Of our shapes it has linear, cosine, 1-sqrt and an exp of its own, 2·0.5^x - 1, which ends at f whatever f is. BigCode's
fork of 2023, which trained StarCoder, had no cooldown beside linear and cosine (recalled, not read).

A cooldown given as a fraction of the steps is int(fraction · N) steps, in floating point, as in the paper's code: truncated.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal, Self

from pydantic import Field, model_validator

from stackbuild.errors import UsageError
from stackbuild.stage import Options

Shape = Literal["linear", "1-sqrt", "cosine", "mirror-cosine", "square", "exp"]
Convention = Literal["default", "paper", "megatron"]
MEGATRON_SHAPES = ("linear", "1-sqrt", "cosine", "exp")
COOLED_KINDS = ("wsd", "cooldown")
MOST_STEPS = 10**12


class ScheduleOptions(Options):
    """A schedule of the learning rate: the recipe's table `[schedule]`."""

    kind: Literal["constant", "wsd", "cosine", "cosine-constant", "cooldown"] = Field(
        "wsd",
        description="what follows the warm-up: constant, without end; wsd, constant and then a cooldown; cosine down to `final`; "
        "cosine-constant, a cosine and then `hold` steps at `final`; cooldown, the branch of a trunk, as `stackbuild cooldown` makes it",
    )
    peak: float = Field(gt=0, allow_inf_nan=False, description="learning rate at factor 1")
    steps: int | None = Field(
        None, ge=1, description="steps of the whole run; none: without end, for kind constant alone"
    )
    warmup: int = Field(1000, ge=0, description="steps of the linear warm-up")
    cooldown: int | float | None = Field(
        None, description="steps of the cooldown, or a fraction of `steps` below 1, which is truncated to whole steps"
    )
    shape: Shape = Field("1-sqrt", description="of the cooldown; 1-sqrt was the best of the paper")
    final: float = Field(0.0, ge=0, le=1, description="factor of the peak at the end")
    hold: int = Field(0, ge=0, description="steps at `final` behind the cosine, for kind cosine-constant alone")
    convention: Convention = Field("default", description="how steps are counted: see the documentation of schedules")
    cooldown_beta2: float | None = Field(
        None, ge=0, lt=1, description="beta2 of the optimizer while the cooldown lasts; none: as before"
    )
    start: int | None = Field(None, ge=1, description="first step of the cooldown, for kind cooldown alone")
    trunk: ScheduleOptions | None = Field(
        None, description="schedule of the steps before `start`, for kind cooldown alone"
    )

    @property
    def cooldown_steps(self) -> int:
        """D, the steps of the cooldown; 0 for kinds that have none."""
        if self.cooldown is None or self.steps is None:
            return 0
        return int(self.cooldown * self.steps) if self.cooldown < 1 else int(self.cooldown)

    @model_validator(mode="after")
    def _fields_of_the_kind(self) -> Self:
        for name, kinds in {"cooldown": COOLED_KINDS, "start": ("cooldown",), "trunk": ("cooldown",)}.items():
            if (getattr(self, name) is not None) != (self.kind in kinds):
                raise ValueError(
                    f"{name} {'is missing' if self.kind in kinds else 'means nothing'} for kind = {self.kind!r}"
                )
        if (self.steps is None) != (self.kind == "constant"):
            told = "goes on without end; say where to stop with --steps" if self.steps else "needs steps, its last one"
            raise ValueError(f"steps: kind = {self.kind!r} {told}")
        if bool(self.hold) != (self.kind == "cosine-constant"):
            raise ValueError(f"hold {'means nothing' if self.hold else 'is missing'} for kind = {self.kind!r}")
        if self.cooldown_beta2 is not None and self.kind not in COOLED_KINDS:
            raise ValueError(f"cooldown_beta2: there is no cooldown in kind {self.kind}")
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.cooldown is not None:
            if self.cooldown <= 0 or (self.cooldown > 1 and self.cooldown != int(self.cooldown)):
                raise ValueError(f"cooldown: {self.cooldown} is neither a number of steps nor a fraction below 1")
            if not self.cooldown_steps:
                raise ValueError(f"cooldown: {self.cooldown} of {self.steps} steps is not one whole step")
        if self.steps is not None:
            rest = self.steps - self.warmup - self.hold - self.cooldown_steps
            if rest < (1 if self.kind.startswith("cosine") else 0):
                raise ValueError(
                    f"steps: {self.steps:,} are too few for {self.warmup:,} of warm-up, {self.cooldown_steps:,} of cooldown and "
                    f"{self.hold:,} of hold"
                )
        if self.kind == "cooldown" and (self.start or 0) + self.cooldown_steps != self.steps:
            raise ValueError("steps: a branch ends with its cooldown")
        return self

    @model_validator(mode="after")
    def _shape_fits(self) -> Self:
        if self.kind in COOLED_KINDS:
            if self.convention == "megatron" and self.shape not in MEGATRON_SHAPES:
                raise ValueError(f"shape: Megatron has no {self.shape}; it has {', '.join(MEGATRON_SHAPES)}")
            if self.convention != "megatron" and self.shape == "exp" and not self.final:
                raise ValueError("final: a cooldown of shape exp never reaches 0; give a factor above it")
        return self


def factor(options: ScheduleOptions, step: int) -> float:
    """The factor of the peak rate, 0 to 1, for the 0-based step that is about to run. ValueError: a step below 0."""
    if step < 0:
        raise ValueError(f"steps are numbered from 0; there is no step {step:,}")
    if options.trunk is not None and step < _decay(options)[0]:
        return factor(options.trunk, step)
    if options.trunk is None and step < options.warmup:
        return _warm_up(options.convention, step, options.warmup)
    if options.kind == "constant":
        return 1.0
    begin, length = _decay(options)
    x = (step - begin + (options.convention == "default")) / length
    top = 1.0 if options.trunk is None else _left(options.trunk, begin)
    return _cooled(options, min(x, 1.0), top) if x > 0 else top


def learning_rate(options: ScheduleOptions, step: int) -> float:
    """The learning rate of the 0-based step that is about to run."""
    return options.peak * factor(options, step)


def beta2(options: ScheduleOptions, step: int, otherwise: float) -> float:
    """The optimizer's beta2 for a step: `otherwise`, unless the schedule has one of its own for the cooldown."""
    return options.cooldown_beta2 if options.cooldown_beta2 is not None and cools(options, step) else otherwise


def cools(options: ScheduleOptions, step: int) -> bool:
    """Whether a step is of the cooldown, or behind it. A cosine is no cooldown."""
    return options.kind in COOLED_KINDS and step >= _decay(options)[0]


def branch(
    options: ScheduleOptions,
    at_step: int,
    length: int | float,
    shape: Shape = "1-sqrt",
    final: float = 0.0,
    cooldown_beta2: float | None = None,
) -> ScheduleOptions:
    """The schedule of a run that goes on from `at_step` of a trunk, after that many steps, with a cooldown.

    `length`: steps of it; or a fraction below 1 of the whole run that this makes, which is at_step · length / (1 - length) steps,
    truncated, with the fraction taken as the decimal that it is written as: 0.2 at step 800 is 200. Steps 0 to at_step - 1 have the
    trunk's factor, bit for bit; the cooldown starts from the factor that it had then, so that nothing is warmed up again.
    UsageError: the trunk is in its warm-up there, or cools already, or is not above `final`; or the length is not one step.
    """
    if options.trunk is not None and not cools(options, at_step - 1):
        return branch(options.trunk, at_step, length, shape, final, cooldown_beta2)
    if cools(options, at_step - 1):
        begin = _decay(options)[0]
        raise UsageError(
            f"Step {at_step:,} is in a cooldown, which began at step {begin:,}. Branch off at that step or an earlier one: from a "
            "checkpoint that cooled down, learning would have to be warmed up again"
        )
    if at_step < max(options.warmup, 1):
        raise UsageError(
            f"Step {at_step:,} is in the warm-up; branch off at step {max(options.warmup, 1):,} or a later one"
        )
    if not 0 < length < MOST_STEPS or (length > 1 and length != int(length)):
        raise UsageError(f"A cooldown takes a whole number of steps, or a fraction of the run below 1; not {length}")
    steps = int(length)
    if length < 1:
        share = Fraction(str(length))
        steps = int(at_step * share / (1 - share))
    if not steps:
        raise UsageError(f"A cooldown of {length} of the run is not one whole step at step {at_step:,}; give more")
    if shape == "exp" and not final and options.convention != "megatron":
        raise UsageError("A cooldown of shape exp never reaches 0; give where it ends, as --final 0.01")
    if cooldown_beta2 is not None and not 0 <= cooldown_beta2 < 1:
        raise UsageError(f"beta2 is {cooldown_beta2:g}; it is from 0 to below 1")
    level = _left(options, at_step)
    if level <= final:
        raise UsageError(
            f"At step {at_step:,} the factor of the learning rate is {level:g}; it cannot cool down to {final:g}. Give a lower end"
        )
    return ScheduleOptions(
        kind="cooldown",
        peak=options.peak,
        steps=at_step + steps,
        warmup=options.warmup,
        cooldown=steps,
        shape=shape,
        final=final,
        convention=options.convention,
        cooldown_beta2=cooldown_beta2,
        start=at_step,
        trunk=options,
    )


def _warm_up(convention: Convention, step: int, warmup: int) -> float:
    if convention == "default":
        return (step + 1) / warmup
    share = step / warmup
    return share + (1 - share) / 100 if convention == "paper" else share


def _decay(options: ScheduleOptions) -> tuple[int, int]:
    """First step and length of what leads down to `final`; of a schedule that has such."""
    steps = options.steps or 0
    if options.kind in COOLED_KINDS:
        return steps - options.cooldown_steps, options.cooldown_steps
    return options.warmup, steps - options.warmup - options.hold


def _left(trunk: ScheduleOptions, at_step: int) -> float:
    """The factor from which a cooldown at `at_step` starts: of the step before it where its first step is lower already."""
    return factor(trunk, at_step - (trunk.convention == "default"))


def _cooled(options: ScheduleOptions, x: float, top: float) -> float:
    """The factor at x, above 0 and up to 1, of the way from `top` to the final one."""
    end, shape = options.final, options.shape if options.kind in COOLED_KINDS else "cosine"
    if shape == "exp" and options.convention != "megatron":
        return top * math.pow(end / top, x) if x < 1 else end
    cosine = 0.5 * (1 + math.cos(math.pi * x))
    left = {
        "linear": 1 - x,
        "1-sqrt": 1 - math.sqrt(x),
        "cosine": cosine,
        "mirror-cosine": 2 * (1 - x) - cosine,
        "square": 1 - x * x,
        "exp": 2 * math.pow(0.5, x) - 1,
    }[shape]
    return end + (top - end) * left
