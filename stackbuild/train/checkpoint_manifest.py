"""What a checkpoint folder holds, told in its manifest, and the proof that it is so.

`manifest.json` is written last: {"version", "step", "model", "files": {name: {"bytes", "sha256"}}}. `model` is the model's
configuration, which knows no layout. A folder is whole if the manifest is there, every file that it lists has the size and the
digest told, and nothing else lies beside them: no further file, no folder, no link. Nothing of it is unpickled before that.

A digest proves that a checkpoint is the one that was written, not that whoever wrote it meant well: see `checkpoint_tensors`
for what is read of one from a stranger.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stackbuild.errors import InputError
from stackbuild.shards import canonical_json, fsync_directory

VERSION: Literal[1] = 1
MANIFEST = "manifest.json"
MOST_MANIFEST = 64 << 20  # bytes; a run of 10,000 processes has a manifest of 2 MB
HASHERS = 8  # threads
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class CorruptCheckpoint(InputError):
    """A checkpoint is not what was written."""


class Told(BaseModel):
    """What a file of a checkpoint tells, as it must be: no key more, no number as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileRecord(Told):
    """A file of a checkpoint."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Told):
    """`manifest.json`."""

    version: Literal[1]
    step: int = Field(ge=0)
    model: dict[str, Any]
    files: dict[str, FileRecord] = Field(max_length=1 << 20)


def seal(folder: Path, step: int, model: Mapping[str, Any]) -> Manifest:
    """Write the manifest of what lies in a folder of flushed files, and make all names in it durable."""
    names = sorted(entry.name for entry in os.scandir(folder))
    hashed = _hashed(folder, names)
    files = {name: FileRecord(bytes=size, sha256=digest) for name, (size, digest) in zip(names, hashed, strict=True)}
    manifest = Manifest(version=VERSION, step=step, model=json.loads(canonical_json(dict(model))), files=files)
    write_flushed(folder / MANIFEST, canonical_json(manifest.model_dump()))
    fsync_directory(folder)
    return manifest


def read_manifest(folder: Path, step: int) -> Manifest:
    """The manifest of a checkpoint folder, not yet proved.

    CorruptCheckpoint: it is missing, broken, of another step, or names what is no plain file name. InputError: a later format.
    """
    path = folder / MANIFEST
    try:
        data = read_small(path, MOST_MANIFEST)
        told = json.loads(data)
    except OSError as error:
        raise CorruptCheckpoint(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"{path}: is not JSON: {error}") from error
    version = told.get("version") if isinstance(told, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{path}: the checkpoint has format {version}; this stackbuild reads up to {VERSION}. Use a newer stackbuild"
        )
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise CorruptCheckpoint(f"{path}: {first_fault(error)}") from error
    if manifest.step != step:
        raise CorruptCheckpoint(f"{path}: is of step {manifest.step:,}, not {step:,}")
    for name in manifest.files:
        if not _NAME.fullmatch(name) or name in (".", "..", MANIFEST):
            raise CorruptCheckpoint(f"{path}: {name!r} is no name of a file of a checkpoint")
    return manifest


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time of change and number of each file of a checkpoint folder: while these stay, so do its bytes.

    CorruptCheckpoint: the folder cannot be read, or is a link, or something in it is no plain file.
    """
    found = {}
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise CorruptCheckpoint(f"{folder}: is no folder of its own")
        for entry in os.scandir(folder):
            told = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(told.st_mode):
                raise CorruptCheckpoint(f"{folder}: {entry.name!r} is no plain file")
            found[entry.name] = (told.st_size, told.st_mtime_ns, told.st_ino)
    except OSError as error:
        raise CorruptCheckpoint(f"{folder}: cannot be read: {error.strerror or error}") from error
    return found


def prove(folder: Path, manifest: Manifest) -> None:
    """Compare all of a checkpoint with its manifest: names, then sizes, then digests. CorruptCheckpoint names the first fault."""
    found = stamps(folder)
    for name in sorted({*found, *manifest.files} - {MANIFEST}):
        if name not in found:
            raise CorruptCheckpoint(f"{folder}: {name} is missing")
        if name not in manifest.files:
            raise CorruptCheckpoint(f"{folder}: {name!r} is not in the manifest")
        size = found[name][0]
        if size != manifest.files[name].bytes:
            raise CorruptCheckpoint(
                f"{folder}: {name} has {size:,} bytes; the manifest says {manifest.files[name].bytes:,}"
            )
    names = sorted(manifest.files)
    try:
        hashed = _hashed(folder, names)
    except OSError as error:
        raise CorruptCheckpoint(f"{folder}: cannot be read: {error.strerror or error}") from error
    for name, (_, digest) in zip(names, hashed, strict=True):
        if digest != manifest.files[name].sha256:
            raise CorruptCheckpoint(
                f"{folder}: {name} has SHA-256 {digest}; the manifest says {manifest.files[name].sha256}"
            )


def first_fault(error: ValidationError) -> str:
    """Where a file is not as it must be, and how: the first of possibly very many places."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def write_flushed(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_small(path: Path, most: int) -> bytes:
    """A plain file of at most `most` bytes. OSError: it cannot be read, or is a link; ValueError: it is larger."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return data


def _hashed(folder: Path, names: Iterable[str]) -> list[tuple[int, str]]:
    with ThreadPoolExecutor(HASHERS) as threads:
        return list(threads.map(lambda name: _size_and_sha256(folder / name), names))


def _size_and_sha256(path: Path) -> tuple[int, str]:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest
