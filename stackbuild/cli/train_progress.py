"""How a training run is going: a bar on a terminal, else a line now and then; and every number in metrics.jsonl."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stackbuild.train import flops
from stackbuild.train.device import peak_of
from stackbuild.train.loop import Step
from stackbuild.train.metrics import Metrics, open_sinks
from stackbuild.train.run import Run
from stackbuild.train.validation import Result

SECONDS = 5.0  # between two lines where there is no terminal


class Report:
    """Takes what the loop tells. `peak`: FLOP/s of the device, or None where it is not known."""

    def __init__(self, run: Run, metrics: Metrics, console: Console, bar: Progress | None, last: int | None):
        self._metrics, self._console, self._bar, self._last = metrics, console, bar, last
        self._every = run.recipe.log.every
        self._peak = peak_of(run.device)
        self._tokens = self._seconds = 0.0
        self._said = time.monotonic()
        self._task = (
            None if bar is None else bar.add_task(run.recipe.name, total=last, completed=run.progress.step, told="")
        )

    def step(self, run: Run, step: Step) -> None:
        """Count it; write and show every `log.every`-th."""
        self._tokens += step.tokens
        self._seconds += step.seconds
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step.step)
        if step.step % self._every and step.step != self._last:
            return
        rate = self._tokens / self._seconds if self._seconds else 0.0
        self._tokens = self._seconds = 0.0
        values: dict[str, Any] = {
            "loss": step.loss,
            "learning_rate": step.learning_rate,
            "gradient_norm": step.norm,
            "labels": step.labels,
            "trained": run.progress.tokens,
            "sample": run.progress.sample,
            "tokens_per_second": rate,
            "sources": step.by_source,
            **self._share(run, rate),
        }
        self._metrics.add("train", step.step, values)
        told = f"loss {step.loss:.3f}  rate {step.learning_rate:.2e}  norm {step.norm:.2f}  {rate:,.0f} tokens/s"
        if "mfu" in values:
            told += f"  MFU {values['mfu_6n']:.1%} (6N), {values['mfu']:.1%}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, told=told)
        elif time.monotonic() - self._said >= SECONDS or step.step == self._last:
            self._said = time.monotonic()
            left = (self._last - step.step) * step.seconds if self._last is not None else None
            self._console.print(
                f"step {step.step:,}{_of(self._last)}  {told}{_left(left)}", highlight=False, soft_wrap=True
            )

    def validated(self, run: Run, result: Result) -> None:
        """Write and show it."""
        sources = {name: one._asdict() for name, one in result.sources.items()}
        self._metrics.add("validation", run.progress.step, {"loss": result.loss, "sources": sources})
        for line in validation_lines(run.progress.step, result):
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def note(self, run: Run, text: str) -> None:
        """Write and show it."""
        self._metrics.add("note", run.progress.step, {"text": text})
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _share(self, run: Run, rate: float) -> Mapping[str, float]:
        if self._peak is None:
            return {}
        span = run.span()
        cost = flops.flops(span.model, span.data.sequence_length)
        return {
            "mfu_6n": flops.utilisation(cost.matrices, rate, self._peak),
            "mfu": flops.utilisation(cost.total, rate, self._peak),
        }


def validation_lines(step: int, result: Result) -> Iterator[str]:
    """A line for each source, and one for all where there are several."""
    for name, one in result.sources.items():
        told = [] if one.loss is None else [f"loss {one.loss:.4f} over {one.tokens:,} tokens"]
        if one.psm is not None and one.spm is not None and one.exact is not None and one.stop is not None:
            told.append(f"middle PSM {one.psm:.3f} SPM {one.spm:.3f}")
            told.append(f"of {one.spans} spans exact {one.exact:.1%}, stopped {one.stop:.1%}")
        yield f"validation at step {step:,}, {name}: {'; '.join(told) or 'nothing is held out'}"
    if len(result.sources) > 1 and result.loss is not None:
        yield f"validation at step {step:,}, all: loss {result.loss:.4f}"


@contextmanager
def reporting(run: Run, last: int | None) -> Iterator[Report]:
    """A report for the time of a run; lines and bar go to stderr."""
    console = Console(stderr=True)
    sinks = open_sinks(run.recipe.log.to, run.folder, run.recipe.log.project, run.recipe.name, run.progress.step)
    metrics = Metrics(run.folder, run.progress.step, sinks)
    try:
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}"),
                TextColumn("{task.fields[told]}"),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=console) as bar:
                yield Report(run, metrics, console, bar, last)
        else:
            yield Report(run, metrics, console, None, last)
    finally:
        metrics.close()


def _of(last: int | None) -> str:
    return "" if last is None else f" of {last:,}"


def _left(seconds: float | None) -> str:
    if seconds is None or seconds < 1:
        return ""
    minutes, hours = int(seconds // 60) % 60, int(seconds // 3600)
    return f"  {hours}:{minutes:02}:{int(seconds % 60):02} left"
