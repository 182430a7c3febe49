"""Averages of the weights along a run: uniform ones over windows of steps, and an exponential one.

Along a constant learning rate the mean of weights of some hundred steps is a free estimate of a better model (Hägele et al. 2024,
arXiv 2405.18392, section 4: a snapshot each 5 steps, windows of 500), though not of what a cooldown gives. A finished window is a file
RUN/averages/window-00000500.safetensors, named after its last step; the mean of the last few is taken when it is asked for.

Everything is float32 and follows from the weights after each step alone: a window mean m of k snapshots takes up the next, w, as
m + (w - m)/(k + 1), and the exponential one, e, as e + (1 - decay)(w - e), from the first snapshot on. Norms of layers have no running
statistics, so that nothing needs to be measured anew for averaged weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stackbuild.errors import InputError, StackbuildError
from stackbuild.shards import canonical_json, fsync_directory
from stackbuild.stage import Options
from stackbuild.train.named_tensors import Kind, differences, few

_WINDOW = re.compile(r"window-(\d{8,15})\.safetensors")


class AveragingOptions(Options):
    """What is averaged along a run: the recipe's table `[averaging]`."""

    every: int = Field(5, ge=1, description="steps between two snapshots")
    window: int | None = Field(None, ge=1, description="steps of a uniform window, as 500; none: no windows")
    keep: int = Field(20, ge=1, description="newest windows whose files stay")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the exponential average, a snapshot each; none: no such"
    )

    @model_validator(mode="after")
    def _windows_are_whole(self) -> Self:
        if self.window is not None and self.window % self.every:
            raise ValueError(
                f"window: {self.window} steps are not a whole number of snapshots, one each {self.every} steps"
            )
        return self


@dataclass(frozen=True)
class Window:
    """A finished window: the mean of `snapshots` snapshots, the last after `last` steps. Its tensors hold until the next `take`."""

    last: int
    snapshots: int
    tensors: Mapping[str, Tensor]


class Averages:
    """The averages of named parameters, float32, beside them. A window that is handed out must be stored before the next `take`,
    and before a checkpoint of that step is saved: so one that a kill lost is made again, in the same bytes.
    """

    def __init__(self, options: AveragingOptions, parameters: Mapping[str, Tensor]):
        self.options, self._parameters = options, dict(parameters)
        self._window = self._zeros() if options.window is not None else {}
        self._ema = self._zeros() if options.ema is not None else {}
        self._snapshots = torch.zeros((), dtype=torch.int64)
        self._updates = torch.zeros((), dtype=torch.int64)

    def take(self, step: int) -> Window | None:
        """Look at the parameters after `step` steps; a window if that was the last snapshot of one."""
        if step % self.options.every:
            return None
        with torch.no_grad():
            if self.options.ema is not None:
                self._move(self._ema, 1 - self.options.ema if self._updates else 1.0)
                self._updates += 1
            if self.options.window is None:
                return None
            self._snapshots += 1
            self._move(self._window, 1 / int(self._snapshots))
            if step % self.options.window:
                return None
            finished = Window(step, int(self._snapshots), self._window)
            self._snapshots.zero_()
            return finished

    def ema(self) -> Mapping[str, Tensor]:
        """The exponential average by parameter name; empty where there is none."""
        return self._ema

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs, by name, to be read or loaded into: window.NAME, ema.NAME and the two counts."""
        state = {f"window.{name}": tensor for name, tensor in self._window.items()}
        state |= {f"ema.{name}": tensor for name, tensor in self._ema.items()}
        return state | {"window.snapshots": self._snapshots, "ema.updates": self._updates}

    def _zeros(self) -> dict[str, Tensor]:
        return {
            name: torch.zeros_like(
                parameter, dtype=torch.float32, requires_grad=False, memory_format=torch.contiguous_format
            )
            for name, parameter in self._parameters.items()
        }

    def _move(self, averages: dict[str, Tensor], share: float) -> None:
        now = [parameter.detach().float() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(averages.values()), now, share)


# ---- windows on disk


@dataclass(frozen=True)
class StoredWindow:
    """A window's file."""

    path: Path
    last: int
    snapshots: int
    sha256: Mapping[str, str]  # of each tensor's bytes


def store_window(run: Path, window: Window, keep: int | None = None) -> Path:
    """Write a window's file, at once or not at all; the same window gives the same bytes. StackbuildError: it cannot be written.

    `keep`: how many stay of it and those before it; None: all.
    """
    folder = run / "averages"
    path = folder / f"window-{window.last:08d}.safetensors"
    part = folder / f".{path.name}.{secrets.token_hex(6)}"
    # One entry alone: the library writes several in an order that differs from one time to the next.
    tensors = {name: tensor.cpu().contiguous() for name, tensor in window.tensors.items()}
    digests = {name: _sha256(tensor) for name, tensor in tensors.items()}
    known = {"version": 1, "last": window.last, "snapshots": window.snapshots, "sha256": digests}
    told = {"stackbuild": canonical_json(known).decode()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".window-*"):  # of a run that was killed
            left.unlink()
        save_file(tensors, part, metadata=told)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        fsync_directory(folder)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise StackbuildError(
            f"{path}: the average of weights could not be written: {error}. Make room and start again"
        ) from error
    if keep is not None:
        for _, old in [one for one in _files(folder) if one[0] <= window.last][:-keep]:
            old.unlink(missing_ok=True)
    return path


def stored_windows(run: Path) -> list[StoredWindow]:
    """The windows of a run, in order. InputError: a file is not one of a window."""
    return [_stored(path, last) for last, path in _files(run / "averages")]


def mean_of_windows(windows: Sequence[StoredWindow]) -> Iterator[tuple[str, Tensor]]:
    """The mean over all snapshots of some windows: name and float32 tensor, one at a time, in the order of names.

    Summed in float64, so that the order of windows does not matter to float32. InputError: there is none, or their tensors differ.
    """
    if not windows:
        raise InputError(
            "There is no finished window of averaged weights: train until one is, in a run that was begun with averaging.window, as "
            "500; or export a checkpoint"
        )
    wanted = _kinds(windows[0])
    for window in windows[1:]:
        wrong = differences(_kinds(window), wanted)
        if wrong:
            raise InputError(f"{window.path}: is of another model than {windows[0].path}: {few(wrong)}")
    return _means(windows, sorted(wanted))


def means(windows: Sequence[StoredWindow]) -> Callable[[str], Tensor]:
    """As `mean_of_windows`, tensor by tensor as they are asked for by name."""
    mean_of_windows(windows)  # for its errors
    return lambda name: next(_means(windows, [name]))[1]


def _files(folder: Path) -> list[tuple[int, Path]]:
    """The last step of each window in a folder, and its file, in order."""
    named = [(_WINDOW.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ())]
    return sorted((int(name[1]), path) for name, path in named if name)


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().data).hexdigest()


def _kinds(window: StoredWindow) -> dict[str, Kind]:
    with safe_open(window.path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
        return {name: Kind(tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()}


def _means(windows: Sequence[StoredWindow], names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        total: Tensor | float = 0.0
        for window in windows:
            with safe_open(window.path, framework="pt") as file:
                tensor = file.get_tensor(name)
            if _sha256(tensor) != window.sha256.get(name):
                raise InputError(f"{window.path}: {name} is not what was written. Remove the file, or copy it anew")
            total = total + tensor.double() * window.snapshots
        assert isinstance(total, Tensor)
        yield name, (total / sum(window.snapshots for window in windows)).float()


def _stored(path: Path, last: int) -> StoredWindow:
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["stackbuild"])
        if (
            not isinstance(told["sha256"], dict)
            or told["last"] != last
            or not isinstance(told["snapshots"], int)
            or told["snapshots"] < 1
        ):
            raise ValueError(f"it tells of {told}")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read as a window of averaged weights: {error}. Remove it, or copy it anew"
        ) from error
    return StoredWindow(path, last, told["snapshots"], told["sha256"])
