"""metrics.jsonl: what a run measured, one JSON object a line, and the only source of its curves.

    {"kind": "train", "step": 100, "loss": ..., "learning_rate": ..., "gradient_norm": ..., "tokens": ..., "seconds": ...}
    {"kind": "validation", "step": 100, "loss": ..., "sources": {"code": {...}}}
    {"kind": "note", "step": 100, "text": ...}             a rewind, a stage, a checkpoint that was not whole

`step` is the number of steps that were taken. A run that goes on from a checkpoint cuts off what was written behind it, so that each step
is there once; a line that a kill left torn goes with it.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from stackbuild.errors import InputError, MissingDependency
from stackbuild.shards import write_atomically

NAME = "metrics.jsonl"


class Sink(Protocol):
    """Where metrics go besides: TensorBoard, wandb, trackio."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        ...

    def close(self) -> None:
        """The run ends."""
        ...


class Metrics:
    """Appends to RUN/metrics.jsonl, after everything behind `step` was cut off, and hands numbers to `sinks`."""

    def __init__(self, folder: Path, step: int, sinks: list[Sink]):
        self._path, self._sinks = folder / NAME, sinks
        self._rewrite([line for line in _lines(self._path) if line["step"] <= step])

    def _rewrite(self, kept: list[dict[str, Any]]) -> None:
        self._step = max((line["step"] for line in kept), default=0)
        self._told = {(line.get("kind"), line["step"]) for line in kept if line["step"] == self._step}
        part = self._path.with_suffix(".part")
        with open(part, "w", encoding="utf-8") as file:
            file.writelines(_line(values) for values in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self._path)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115  # closed by `close`

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write a line, unless the step has one of this kind: a run that was at its end is validated again.

        After a rewind the numbers of the steps behind `step` go; notes stay.
        """
        if step < self._step:
            self._file.close()
            self._rewrite([line for line in _lines(self._path) if line["step"] <= step or line.get("kind") == "note"])
        if kind != "note" and (kind, step) in self._told:
            return
        self._step, self._told = step, {(kind, step), *(self._told if step == self._step else ())}
        self._file.write(_line({"kind": kind, "step": step, **values}))
        self._file.flush()
        numbers = {f"{kind}/{name}": value for name, value in flat(values) if isinstance(value, (int, float))}
        for sink in self._sinks:
            sink.add(step, numbers)

    def close(self) -> None:
        """End the file and the sinks."""
        self._file.close()
        for sink in self._sinks:
            sink.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run; InputError if there are none."""
    found = list(_lines(folder / NAME))
    if not found:
        raise InputError(f"{folder / NAME}: a run without a line of metrics")
    return found


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested tables, names joined by a slash."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}/")
        else:
            yield f"{above}{name}", value


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                values = json.loads(line)
            except ValueError:  # torn by a kill: the last one
                continue
            if isinstance(values, dict) and isinstance(values.get("step"), int):
                yield values


def _line(values: Mapping[str, Any]) -> str:
    """Canonical JSON; a number that is not finite is a string, as JSON has none."""
    return json.dumps(_finite(values), sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def open_sinks(names: tuple[str, ...], folder: Path, project: str, run: str, step: int = 0) -> list[Sink]:
    """The sinks that a recipe names, for a run that goes on from `step`: a tracker shows the same run again, not another.

    MissingDependency for one whose package is not installed.
    """
    made: list[Sink] = []
    for name in names:
        try:
            made.append(_TensorBoard(folder, step) if name == "tensorboard" else _Tracker(name, folder, project, run))
        except ImportError as error:
            raise MissingDependency(f"log.to names {name}, which is not installed: pip install {name}") from error
    return made


class _TensorBoard:
    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Tracker:
    """wandb or trackio, which have the same few functions. Their names of a run must differ, so a drawn number is part of it."""

    def __init__(self, package: str, folder: Path, project: str, run: str):
        import importlib

        self._package = importlib.import_module(package)
        kept = folder / "tracker-id"
        if not kept.exists():
            write_atomically(kept, f"{secrets.token_hex(4)}\n".encode())
        name = f"{run}-{kept.read_text('ascii', 'replace').strip()[:64]}"
        identity = {"id": name} if package == "wandb" else {}
        self._package.init(project=project, name=name, resume="allow", **identity)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._package.log(dict(values), step=step)

    def close(self) -> None:
        self._package.finish()
