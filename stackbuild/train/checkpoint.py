"""Checkpoints of a run: RUN/checkpoints/step-00001000/, each whole or not there.

    checkpoints = Checkpoints(run, CheckpointOptions(every=500), say=print)
    step = checkpoints.newest()                               the newest that is whole, or None
    told = checkpoints.load(step, into=tensors)               in place, by name; all of it is proved before any of it is read
    checkpoints.save(step, tensors, told, model=config)       beside, flushed, hashed, renamed
    checkpoints.prune()

A checkpoint has DCP's files with `tensors.json` (`checkpoint_tensors`), `state.json` with what the caller told (counters, stage
table, consumed samples; no tensor) and the manifest (`checkpoint_manifest`). Tensors go by canonical names and are whole:
nothing in it tells how many processes wrote it, and the schedule is no part of it.

One process writes to a run at a time (a lock, gone with the process); any number read. A save that is killed leaves a folder whose
name begins with a dot, which nobody reads and the next writer removes. Where a step is saved again in other bytes, as after a
rewind, the old folder is put aside first and comes back if the process dies between the two renames.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from pydantic import Field
from torch import Tensor

from stackbuild.errors import InputError, StackbuildError, UsageError
from stackbuild.shards import canonical_json, fsync_directory
from stackbuild.stage import Options
from stackbuild.train.branches import branches, held, mark_branch, unmark_branch
from stackbuild.train.checkpoint_manifest import (
    CorruptCheckpoint,
    Manifest,
    prove,
    read_manifest,
    read_small,
    seal,
    stamps,
    write_flushed,
)
from stackbuild.train.checkpoint_tensors import Index, read_index, read_tensors, stream_tensors, write_tensors
from stackbuild.train.named_tensors import Kind, differences, few, kinds_of

STATE = "state.json"
MOST_STATE = 256 << 20  # bytes
_T = TypeVar("_T")
_STEP = re.compile(r"step-(\d{8,15})")
_LEFT = re.compile(r"\.(part|gone|old)-(step-\d{8,15})(-[0-9a-f]+)?")


class _Layout(Protocol):
    """What is asked of a layout: to raise where it is one that cannot be saved from."""

    def check(self) -> None: ...


class CheckpointOptions(Options):
    """When to save, and what to keep: the recipe's table `[checkpoint]`."""

    every: int = Field(1000, ge=1, description="steps between two checkpoints")
    every_minutes: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="also when so much time went by since the last; none: by steps alone",
    )
    keep_last: int = Field(3, ge=1, description="newest checkpoints that stay")
    keep_every: int | None = Field(None, ge=1, description="steps whose multiples stay for good; none: no others stay")

    def due(self, step: int, seconds: float) -> bool:
        """Whether to save after `step` steps, `seconds` after the last checkpoint or the start."""
        return step % self.every == 0 or (self.every_minutes is not None and seconds >= 60 * self.every_minutes)


class CheckpointError(StackbuildError):
    """A checkpoint could not be written."""


class Checkpoints:
    """The checkpoints of the run in a folder; see the module's text. `say`: told, in words, of what was passed over or left."""

    def __init__(
        self, run: str | Path, options: CheckpointOptions | None = None, say: Callable[[str], None] | None = None
    ):
        self.run, self.options = Path(run), options or CheckpointOptions()
        self.home = self.run / "checkpoints"
        self._say = say or (lambda text: None)
        self._lock: IO[bytes] | None = None
        self._proved: dict[int, tuple[dict[str, tuple[int, int, int]], Manifest]] = {}

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.home / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a folder, whole or not, in order."""
        found = [_STEP.fullmatch(path.name) for path in self.home.iterdir()] if self.home.is_dir() else []
        steps = {int(match[1]) for match in found if match}  # a name with more zeros than ours is no second one
        return sorted(step for step in steps if self.folder(step).exists())

    # ---- reading

    def manifest(self, step: int) -> Manifest:
        """The manifest of a checkpoint, all of which is proved by it (once, while its files stay as they are).

        CorruptCheckpoint: it is not what was written. InputError: there is none, or its format is a later one.
        """
        folder = self.folder(step)
        if not folder.exists():
            there = ", ".join(f"{one:,}" for one in self.steps()[-5:]) or "none"
            raise InputError(f"{self.run}: there is no checkpoint of step {step:,}; the newest are: {there}")
        now = stamps(folder)
        if step not in self._proved or self._proved[step][0] != now:
            manifest = read_manifest(folder, step)
            prove(folder, manifest)
            self._proved[step] = (now, manifest)
        return self._proved[step][1]

    def newest(self, below: int | None = None) -> int | None:
        """The newest step with a whole checkpoint; None if the run has no checkpoints at all. What is passed over is said, and why.

        `below`: as if there were none of this step or a later one. InputError: there are some, and none is whole.
        """
        found = self._first(self.manifest, below)
        return None if found is None else found[0]

    def contents(self, step: int) -> dict[str, Kind]:
        """Names, shapes and types of a checkpoint's tensors."""
        return {name: stored.kind for name, stored in self._index(step).tensors.items()}

    def told(self, step: int) -> dict[str, Any]:
        """What was told with a checkpoint."""
        if STATE not in self.manifest(step).files:
            raise CorruptCheckpoint(f"{self.folder(step) / STATE} is missing")
        try:
            told = json.loads(read_small(self.folder(step) / STATE, MOST_STATE))["told"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptCheckpoint(f"{self.folder(step) / STATE}: cannot be read: {error}") from error
        if not isinstance(told, dict):
            raise CorruptCheckpoint(f"{self.folder(step) / STATE}: holds no table")
        return told

    def load(self, step: int, into: Mapping[str, Tensor], partial: bool = False) -> dict[str, Any]:
        """Fill all tensors of `into`, in place, and return what was told.

        InputError: names, shapes or types differ, the first few of which it names; nothing is changed then. `partial`: the
        checkpoint may have more tensors than these. CorruptCheckpoint: as `manifest`; tensors may be filled in part then.
        """
        index = self._index(step)
        stored = {name: one.kind for name, one in index.tensors.items() if not partial or name in into}
        wrong = differences(stored, kinds_of(into))
        if wrong:
            raise InputError(
                f"{self.folder(step)}: the checkpoint is of another model or other options: {few(wrong)}. Load it with those "
                "that it was trained with, or name another output folder"
            )
        told = self.told(step)
        read_tensors(self.folder(step), index, into)
        return told

    def load_newest(
        self, into: Mapping[str, Tensor], partial: bool = False, below: int | None = None
    ) -> tuple[int, dict[str, Any]] | None:
        """As `load`, of the newest checkpoint that is whole: its step, and what was told. `below`, None and errors: as of `newest`."""
        return self._first(lambda step: self.load(step, into, partial), below)

    def tensors(self, step: int, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Tensors of a checkpoint, on the CPU, one at a time, as named or all by name: for an export.

        InputError: there is no tensor of a name.
        """
        index = self._index(step)
        missing = [name for name in names or () if name not in index.tensors]
        if missing:
            raise InputError(f"{self.folder(step)}: there is no tensor {', '.join(missing[:5])} in the checkpoint")
        return stream_tensors(self.folder(step), index, list(names if names is not None else sorted(index.tensors)))

    def _first(self, attempt: Callable[[int], _T], below: int | None) -> tuple[int, _T] | None:
        """The newest step for which `attempt` finds nothing broken, and what it gave."""
        faults = []
        for step in reversed([step for step in self.steps() if below is None or step < below]):
            try:
                return step, attempt(step)
            except CorruptCheckpoint as error:
                faults.append(str(error))
                self._say(f"The checkpoint of step {step:,} is broken and passed over: {error}")
        if faults:
            raise InputError(
                f"{self.run}: none of its {len(faults):,} checkpoints is whole; of the newest: {faults[0]}. Copy one back, or "
                f"remove {self.home} to begin anew"
            )
        return None

    def _index(self, step: int) -> Index:
        return read_index(self.folder(step), self.manifest(step))

    # ---- writing

    def claim(self) -> None:
        """Become the one process that writes here, and clear away what killed saves left. UsageError: another one is."""
        if self._lock is not None:
            return
        self.home.mkdir(parents=True, exist_ok=True)
        # A lock of the process, not of the open file: loaders that were forked do not hold it on.
        lock = open(self.home / ".lock", "ab")  # noqa: SIM115  # held on
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.close()
            raise UsageError(f"Another process trains {self.run}; wait for it, or name another output folder") from None
        except OSError as error:  # a file system without locks
            self._say(f"{self.home} cannot be locked ({error.strerror}): see to it that one process alone trains here")
        self._lock = lock
        for path in sorted(self.home.iterdir()):
            left = _LEFT.fullmatch(path.name)
            if left and left[1] == "old" and not (self.home / left[2]).exists():
                os.rename(path, self.home / left[2])
            elif left:
                shutil.rmtree(path, ignore_errors=True)

    def release(self) -> None:
        """Let another process write here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        told: Mapping[str, Any],
        *,
        model: Mapping[str, Any],
        layout: _Layout | None = None,
    ) -> Path:
        """Write the checkpoint of a step and return its folder, which is there whole when this returns.

        `told`: of JSON's types. `model`: the model's configuration. CheckpointError: it could not be written, as on a full
        disk; what was there before is as it was.
        """
        if layout is not None:
            layout.check()
        self.claim()
        part = self.home / f".part-step-{step:08d}-{secrets.token_hex(6)}"
        try:
            self._room(tensors)
            part.mkdir()
            write_tensors(part, tensors)
            write_flushed(part / STATE, canonical_json({"version": 1, "step": step, "told": dict(told)}))
            manifest = seal(part, step, model)
            self._publish(part, step, manifest)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
            raise CheckpointError(
                f"{self.folder(step)}: the checkpoint could not be written: {error}. Earlier checkpoints are as they were; make "
                "room and start again, and training goes on from the newest"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(CorruptCheckpoint):  # it is written; if it cannot be read now, who reads it will see
            self._proved[step] = (stamps(self.folder(step)), manifest)
        return self.folder(step)

    def branch(self, step: int, child: str) -> Manifest:
        """Keep the checkpoint of a step for good, as that which `child` branches off; its manifest. Errors: as `manifest`'s."""
        known = child in branches(self.run)
        with held(self.run):
            mark_branch(self.run, step, child)
        try:
            return self.manifest(step)  # asked when it is marked: what is there now stays
        except InputError:
            if not known:
                unmark_branch(self.run, child)
            raise

    def prune(self) -> list[int]:
        """Remove what the options do not keep, and return its steps.

        The newest that is whole and every branch's parent stay, whatever the options say; all stays, and it is said, where no
        checkpoint is whole or a branch's marker cannot be read.
        """
        self.claim()
        steps = self.steps()
        every = self.options.keep_every
        try:
            newest = self.newest()
            with held(self.run):
                kept = {*steps[-self.options.keep_last :], *branches(self.run).values(), newest}
                removed = [step for step in steps if step not in kept and not (every and step % every == 0)]
                for step in removed:
                    self._remove(step)
        except InputError as error:
            self._say(f"No checkpoint was removed: {error}")
            return []
        return removed

    def drop(self, first: int) -> list[int]:
        """Remove the checkpoints of step `first` and later, which a run that went back must not resume from; their steps.

        UsageError: one of them is a branch's parent, and none is removed.
        """
        self.claim()
        dropped = [step for step in self.steps() if step >= first]
        with held(self.run):
            left = {child: step for child, step in branches(self.run).items() if step in dropped}
            if left:
                told = ", ".join(f"{child} at step {step:,}" for child, step in left.items())
                raise UsageError(
                    f"{self.run}: the run went back behind step {first:,}, and {told} branched off later. Start it anew from there in a "
                    f"folder of its own, or remove the branches from {self.run / 'branches'}"
                )
            for step in reversed(dropped):  # the newest first: whatever a kill leaves is a run's beginning
                self._remove(step)
        return dropped

    def _remove(self, step: int) -> None:
        """At once, or a kill would leave a broken one."""
        gone = self.home / f".gone-step-{step:08d}-{secrets.token_hex(6)}"
        os.rename(self.folder(step), gone)
        self._proved.pop(step, None)
        shutil.rmtree(gone, ignore_errors=True)

    def _room(self, tensors: Mapping[str, Tensor]) -> None:
        need = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        free = shutil.disk_usage(self.home).free
        if free < need:
            raise OSError(f"it takes {need:,} bytes, and {free:,} are free")

    def _publish(self, part: Path, step: int, manifest: Manifest) -> None:
        """Give a sealed folder its name."""
        target, old = self.folder(step), self.home / f".old-step-{step:08d}"
        if target.exists():
            try:
                if self.manifest(step) == manifest:
                    return  # the same run came by again
            except InputError:
                pass
            os.rename(target, old)
        try:
            os.rename(part, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        fsync_directory(self.home)
        shutil.rmtree(old, ignore_errors=True)
