"""Tensors of a checkpoint, written and read by torch.distributed.checkpoint, of which no pickle of objects is ever loaded.

DCP writes each process's parts of tensors to its own files and, in `.metadata`, a pickle that says what lies where. That file is
for torch's own tools. What stackbuild reads is `tensors.json`, which says the same: {"version", "tensors": {name: {"dtype",
"shape", "chunks": [[offsets, sizes, file, first byte, bytes], ...]}}}. Each number is checked before DCP sees it, so that a checkpoint
from a stranger can neither name a file outside its folder nor have an object built; the parts themselves are read by torch's loader of
weights alone (`weights_only`).

One process without a process group is a layout like any other: any layout reads what any other wrote.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.distributed.checkpoint as dcp
from pydantic import Field, ValidationError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from stackbuild.shards import canonical_json
from stackbuild.train.checkpoint_manifest import (
    CorruptCheckpoint,
    Manifest,
    Told,
    first_fault,
    read_small,
    write_flushed,
)
from stackbuild.train.named_tensors import Kind

VERSION: Literal[1] = 1
INDEX = "tensors.json"
PARTS = ".distcp"  # how DCP's files of parts end
MOST_INDEX = 1 << 30  # bytes; 4,096 processes with parts of 3,000 tensors each are 900 MB
MOST_AROUND = 1 << 16  # bytes that torch puts around the data of a part; it is about 1,500
DTYPES = {
    name: getattr(torch, name)
    for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}

Size = Annotated[int, Field(ge=0, lt=1 << 50)]
Chunk = tuple[list[Size], list[Size], str, Size, Size]


class Stored(Told):
    """A tensor in a checkpoint."""

    dtype: str
    shape: list[Size] = Field(max_length=16)
    chunks: list[Chunk]

    @property
    def kind(self) -> Kind:
        return Kind(tuple(self.shape), self.dtype)


class Index(Told):
    """`tensors.json`."""

    version: Literal[1]
    tensors: dict[str, Stored]


class _Writer(dcp.FileSystemWriter):
    """Writes the same bytes for the same tensors: DCP's own writer puts the folder's path and a random id into `.metadata`."""

    def storage_meta(self) -> StorageMeta:
        return StorageMeta()


class _Reader(dcp.FileSystemReader):
    """Reads parts as a checked index has them; never `.metadata`."""

    def __init__(self, folder: Path, index: Index):
        super().__init__(str(folder))
        self._index = index

    def read_metadata(self, *given: Any, **named: Any) -> Metadata:
        kinds, places = {}, {}
        for name, stored in self._index.tensors.items():
            chunks = [ChunkStorageMetadata(torch.Size(at), torch.Size(sizes)) for at, sizes, *_ in stored.chunks]
            properties = TensorProperties(dtype=DTYPES[stored.dtype])
            kinds[name] = TensorStorageMetadata(properties, torch.Size(stored.shape), chunks)
            for at, _, file, first, length in stored.chunks:
                places[MetadataIndex(name, at)] = _StorageInfo(file, first, length)
        return Metadata(kinds, storage_data=places, storage_meta=StorageMeta())


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write DCP's files and the index into an empty folder, flushed. OSError: the disk is full, or the like."""
    with _of_one_process(), _plain_errors():
        metadata = dcp.save(dict(tensors), storage_writer=_Writer(str(folder)), no_dist=True)
    told: dict[str, Any] = {}
    for name, kind in metadata.state_dict_metadata.items():
        told[name] = {
            "dtype": str(kind.properties.dtype).removeprefix("torch."),
            "shape": list(kind.size),
            "chunks": [],
        }
        for chunk in kind.chunks:
            place = metadata.storage_data[MetadataIndex(name, chunk.offsets)]
            where = [place.relative_path, place.offset, place.length]
            told[name]["chunks"].append([list(chunk.offsets), list(chunk.sizes), *where])
    write_flushed(folder / INDEX, canonical_json({"version": VERSION, "tensors": told}))


def read_index(folder: Path, manifest: Manifest) -> Index:
    """The index of a proved checkpoint. CorruptCheckpoint: it is missing or broken, or tells what cannot be."""
    path = folder / INDEX
    if INDEX not in manifest.files:
        raise CorruptCheckpoint(f"{path} is missing")
    try:
        index = Index.model_validate_json(read_small(path, MOST_INDEX))
    except ValidationError as error:
        raise CorruptCheckpoint(f"{path}: {first_fault(error)}") from error
    except (OSError, ValueError) as error:
        raise CorruptCheckpoint(f"{path}: cannot be read: {error}") from error
    for name, stored in index.tensors.items():
        wrong = _wrong(stored, manifest)
        if wrong:
            raise CorruptCheckpoint(f"{path}: {name}: {wrong}")
    return index


def read_tensors(folder: Path, index: Index, into: Mapping[str, Tensor]) -> None:
    """Fill tensors in place from a proved checkpoint, whose kinds they have. CorruptCheckpoint: a part cannot be read."""
    planner = dcp.DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    try:
        with _of_one_process(), _plain_errors():
            dcp.load(dict(into), storage_reader=_Reader(folder, index), planner=planner, no_dist=True)
    except Exception as error:
        raise CorruptCheckpoint(f"{folder}: tensors cannot be read: {error}") from error


def stream_tensors(folder: Path, index: Index, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Whole tensors on the CPU, one after the other: memory is that of the largest, twice."""
    for name in names:
        tensor = torch.empty(index.tensors[name].shape, dtype=DTYPES[index.tensors[name].dtype])
        # An index of the one tensor: DCP looks through all of what it is given.
        read_tensors(folder, Index(version=VERSION, tensors={name: index.tensors[name]}), {name: tensor})
        yield name, tensor


def _wrong(stored: Stored, manifest: Manifest) -> str | None:
    """What in the index of a tensor cannot be, or None."""
    if stored.dtype not in DTYPES:
        return f"{stored.dtype!r} is no type of a tensor of a checkpoint"
    covered = 0
    boxes = [
        [range(begin, begin + size) for begin, size in zip(at, sizes, strict=False)] for at, sizes, *_ in stored.chunks
    ]
    for at, sizes, file, first, length in stored.chunks:
        if len(at) != len(stored.shape) or len(sizes) != len(stored.shape):
            return "a part has another number of dimensions than the tensor"
        if any(begin + size > whole for begin, size, whole in zip(at, sizes, stored.shape, strict=True)):
            return "a part reaches over the tensor's end"
        if not file.endswith(PARTS) or file not in manifest.files:
            return f"{file!r} is no file of parts of this checkpoint"
        if first + length > manifest.files[file].bytes:
            return f"a part reaches over the end of {file}"
        data = math.prod(sizes) * DTYPES[stored.dtype].itemsize
        if not data <= length <= data + MOST_AROUND:
            return f"a part of {data:,} bytes of data has {length:,} bytes in {file}"
        covered += math.prod(sizes)
    if covered != math.prod(stored.shape):
        return "its parts are not the whole tensor"
    boxes.sort(key=lambda box: [side.start for side in box])
    for number, box in enumerate(boxes):  # in order of their first axis, so that few are looked at
        for other in boxes[number + 1 :]:
            if box and other[0].start >= box[0].stop:
                break
            if all(a.start < b.stop and b.start < a.stop for a, b in zip(box, other, strict=True)):
                return "its parts overlap"
    return None


@contextlib.contextmanager
def _of_one_process() -> Iterator[None]:
    """DCP warns of every call without a process group, which is what one process is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """What went wrong, out of the exception that DCP wraps around it, which is no `Exception`: an interrupt stays one."""
    try:
        yield
    except CheckpointException as error:
        raise next(failure for failure, _ in error.failures.values()) from None
