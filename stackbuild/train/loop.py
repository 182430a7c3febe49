"""The loop: batches in, steps, and what is measured, kept and told of them.

A step reads whole rows of the run's order, cuts them into micro-batches, and divides the sum of their losses by the number of labels
of all of them: so neither the micro-batch nor, later, the number of processes changes what a token weighs.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from stackbuild.errors import StackbuildError
from stackbuild.tokens.batches import IGNORED, Rows
from stackbuild.train import dropout
from stackbuild.train.averaging import store_window
from stackbuild.train.device import enough_memory
from stackbuild.train.feed import Feed
from stackbuild.train.guard import Verdict
from stackbuild.train.optim import clip, set_rate
from stackbuild.train.run import Run
from stackbuild.train.schedule import beta2, learning_rate
from stackbuild.train.validation import Result, Validation

AHEAD = 2  # batches that are made while a step is computed


class Step(NamedTuple):
    """What is known of a step. `step`: steps that went by with it; `loss`: mean of its labels, nats; `norm`: before clipping."""

    step: int
    loss: float
    norm: float
    learning_rate: float
    tokens: int  # positions that were read, padding too
    labels: int
    by_source: dict[str, int]  # labels
    seconds: float
    taken: bool


class Reporter(Protocol):
    """Who is told."""

    def step(self, run: Run, step: Step) -> None:
        """A step went by."""
        ...

    def validated(self, run: Run, result: Result) -> None:
        """The run was validated."""
        ...

    def note(self, run: Run, text: str) -> None:
        """Something that is no number: a rewind, a checkpoint, a stage."""
        ...


def train(run: Run, steps: int | None, report: Reporter) -> bool:
    """Train until `steps` steps went by (None: the schedule's, or until the data ends). False if it was asked to stop before (SIGTERM,
    SIGINT), or the data ended; what was trained is saved in each case.

    StackbuildError: steps are bad again and again, although samples were passed over. OutOfMemory: a micro-batch does not fit.
    """
    last = run.recipe.schedule.steps if steps is None else steps
    saved, since = run.progress.step if run.checkpoints.steps() else -1, time.monotonic()
    with _deterministic(run), _stop_signals() as stop, Feed(run.batches, AHEAD) as feed:
        while not stop.asked and (last is None or run.progress.step < last):
            began = time.monotonic()
            sample, rows = run.next_batch(run.progress.sample)
            if not _there(run, sample, rows):
                report.note(run, f"The data of the mixture ends at sample {sample:,}")
                break
            run.progress.sample = sample
            run.enter()
            batch = feed.take(sample, rows, list(_following(run, sample + rows)))
            step = _step(run, batch, sample)
            verdict = run.guard.judge(run.progress.step, sample, rows, step.loss, step.norm)
            if verdict is Verdict.STOP:
                raise StackbuildError(
                    f"Step {run.progress.step:,}: {run.guard.reason}, after {run.guard.rewinds} rewinds. Lower the rate"
                )
            if verdict is Verdict.REWIND:
                _rewind(run, report)
                continue
            if verdict is Verdict.STEP:
                set_rate(
                    run.optimizer,
                    step.learning_rate,
                    beta2(run.recipe.schedule, run.progress.step, run.recipe.optimizer.beta2),
                )
                run.optimizer.step()
            run.progress.step += 1
            run.progress.sample += rows
            run.progress.tokens += step.labels if verdict is Verdict.STEP else 0
            window = run.averages.take(run.progress.step)
            if window is not None:
                store_window(run.folder, window, run.recipe.averaging.keep)
            report.step(
                run,
                step._replace(step=run.progress.step, taken=verdict is Verdict.STEP, seconds=time.monotonic() - began),
            )
            if verdict is Verdict.SKIP:
                report.note(run, f"Step {run.progress.step:,} is not taken: {run.guard.reason}")
            every = run.recipe.validation.every
            if every and run.progress.step % every == 0 and run.progress.step != last:
                report.validated(run, validate(run))
            if run.recipe.checkpoint.due(run.progress.step, time.monotonic() - since) and run.guard.first_bad is None:
                run.save()
                saved, since = run.progress.step, time.monotonic()
        finished = last is not None and run.progress.step >= last
        if finished and run.recipe.validation.every:
            report.validated(run, validate(run))
        if saved != run.progress.step:
            run.save(prune=run.guard.first_bad is None)  # amid bad steps, the one to go back to must stay
    return finished


def _step(run: Run, batch: Rows, first: int) -> Step:
    """Loss and gradient of a batch, clipped, without the update."""
    labels = int((batch.labels != IGNORED).sum())
    data, at_once = run.span(first).data, run.span(first).data.rows_at_once
    run.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64)
    what = f"A micro-batch of {min(at_once, len(batch.tokens))} rows of {batch.tokens.shape[1]} tokens"
    with enough_memory(run.device, what, _smaller(at_once, run.model.checkpoint_layers)):
        for low in range(0, len(batch.tokens), at_once):
            part = [torch.from_numpy(column[low : low + at_once]).to(run.device) for column in batch[:4]]
            tokens, told, positions, documents = part
            draws = dropout.draws(
                run.recipe.seed,
                run.progress.step,
                torch.arange(first + low, first + low + len(tokens), device=run.device),
            )
            with run.autocast():
                loss = run.model.loss(
                    tokens,
                    told.long(),
                    positions if data.document_mask else None,
                    documents if data.document_mask else None,
                    draws,
                )
            (loss.sum / max(labels, 1)).backward()
            total += loss.sum.detach().double().cpu()
    norm = clip(run.model.parameters(), run.recipe.optimizer.clip)
    names = run.batches.sources(first)
    counts = np.bincount(batch.source[batch.labels != IGNORED], minlength=len(names)).tolist()
    rate = learning_rate(run.recipe.schedule, run.progress.step)
    mean = float(total) / max(labels, 1)
    return Step(0, mean, norm, rate, batch.tokens.size, labels, dict(zip(names, counts, strict=True)), 0.0, True)


def _smaller(rows: int, checkpointed: bool) -> str:
    knobs = [f"data.micro_batch = {rows // 2}"] if rows > 1 else []
    knobs += [] if checkpointed else ["checkpoint_layers = true"]
    if knobs:
        return f"Set {' or '.join(knobs)}; that changes nothing of what is learned, beyond rounding."
    return 'Take shorter rows (data.sequence_length) or a smaller model, or precision = "bf16" if it is not.'


def _rewind(run: Run, report: Reporter) -> None:
    """Go back to the newest checkpoint of before the steps that were bad; what was read since is passed over."""
    state, bad = run.guard, run.guard.first_bad
    reason, at = state.reason, run.progress.step
    guard_before = state.state()
    if not run.restore(below=bad):
        raise StackbuildError(
            f"Step {at:,}: {reason}, and there is no checkpoint of before to go back to. Lower the rate"
        )
    told = run.guard.state()
    run.guard.load(guard_before)
    run.guard.rewound(told)
    if bad is not None:
        run.checkpoints.drop(bad)
    report.note(
        run, f"Back from step {at:,} to {run.progress.step:,}: {reason}; the samples of the bad steps are passed over"
    )


def validate(run: Run) -> Result:
    """Measure the model on what is held out of the present stage's corpus."""
    span = run.span()
    run.model.config = span.model  # of a run that was opened at a border of stages
    if run.validation is None or run.validation[0] != span:
        data = span.data
        run.validation = (
            span,
            Validation(span.corpus, run.recipe.validation, data.sequence_length, data.rows_at_once, data.document_mask),
        )
    what = f"Validation of {span.data.rows_at_once} rows at a time"
    with enough_memory(run.device, what, "Set data.micro_batch lower, or validation.spans = 0."):
        return run.validation[1].measure(run.model, run.autocast)


def _there(run: Run, sample: int, rows: int) -> bool:
    end = run.batches.end(sample)
    return end is None or sample + rows <= end


def _following(run: Run, sample: int) -> Iterator[tuple[int, int]]:
    """The batches that follow, unless a step is bad."""
    for _ in range(AHEAD):
        sample, rows = run.next_batch(sample)
        if not _there(run, sample, rows):
            return
        yield sample, rows
        sample += rows


@contextmanager
def _deterministic(run: Run) -> Iterator[None]:
    """Only operations that give the same bits again, while this lasts."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(run.recipe.deterministic)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class _Stop:
    """Whether someone asked to stop."""

    asked = False

    def ask(self, *_: Any) -> None:
        self.asked = True


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """SIGTERM and SIGINT stop after the present step; a second SIGINT as ever. In the main thread alone."""
    stop = _Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.ask()

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread
        pass
    try:
        yield stop
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
