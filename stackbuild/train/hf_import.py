"""Models from a folder in the Hugging Face layout, a stranger's: names and shapes are checked before any number is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from stackbuild.errors import InputError
from stackbuild.train.config import ModelConfig
from stackbuild.train.hf_config import from_hf
from stackbuild.train.hf_names import Theirs, is_old_buffer, split, tensors

JSON_BYTES: Final = 64 << 20  # of config.json or an index: of a model with a million tensors
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DTYPES: Final = frozenset({"F32", "BF16", "F16"})
_HEAD: Final = "lm_head.weight"


def import_model(folder: Path) -> tuple[ModelConfig, Iterator[tuple[str, torch.Tensor]]]:
    """The shape of a model and its parameters, one after another: (canonical name, tensor on the CPU in the dtype of the file).

    Masks that old files hold among the weights are left out; so is the head of a tied model, which must be the embedding (InputError
    when it is come to). InputError for a folder without safetensors (pickles are not read), an index that names files outside, and tensors
    that are missing, not known, misshaped or of a type that is no float: all before the first is read.
    """
    config = from_hf(_json(folder / "config.json"), str(folder / "config.json"))
    files = _Files(folder)
    _check(config, files)
    return config, _read(config, files)


def _read(config: ModelConfig, files: _Files) -> Iterator[tuple[str, torch.Tensor]]:
    for tensor in tensors(config):
        whole = files.tensor(tensor.name)
        if (
            config.tied
            and _HEAD in files.held
            and "embed.weight" in tensor.ours
            and not torch.equal(whole, files.tensor(_HEAD))
        ):
            raise InputError(
                f"{files.folder}: config.json says that the head is the embedding, and {_HEAD} is another matrix. If it "
                "should be read, set tie_word_embeddings = false there."
            )
        yield from zip(tensor.ours, split(whole, len(tensor.ours), config), strict=True)


def _check(config: ModelConfig, files: _Files) -> None:
    wanted = {tensor.name: tensor for tensor in tensors(config)}
    if config.tied and _HEAD in files.held:
        wanted[_HEAD] = Theirs(_HEAD, (config.vocab_size, config.hidden), ())
    missing = [name for name in wanted if name not in files.held]
    if missing:
        raise InputError(f"{files.folder}: lacks {_some(missing)}")
    extra = [name for name in files.held if name not in wanted and not (config.learned and is_old_buffer(name))]
    if extra:
        raise InputError(f"{files.folder}: holds {_some(extra)}, which a model of this configuration does not have")
    for name, tensor in wanted.items():
        dtype, shape = files.told(name)
        if shape != tensor.shape:
            raise InputError(f"{files.folder}: {name} has shape {shape}, not {tensor.shape} as config.json says")
        if dtype not in _DTYPES:
            raise InputError(
                f"{files.folder}: {name} is of type {dtype}: only {', '.join(sorted(_DTYPES))} can be imported"
            )


class _Files:
    """The safetensors files of a folder. `held`: the file that holds each tensor."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._open: dict[str, Any] = {}
        self._known: dict[str, frozenset[str]] = {}
        index = folder / "model.safetensors.index.json"
        if (folder / "model.safetensors").is_file():  # as transformers does, where there is an index too
            self.held = dict.fromkeys(self._file("model.safetensors").keys(), "model.safetensors")
        elif index.is_file():
            self.held = _placed(index)
        else:
            self._refuse()
        for name, file in self.held.items():
            if name not in self._names(file):
                raise InputError(f"{index}: says that {file} holds {name!r:.120}, and it does not")

    def _refuse(self) -> None:
        pickles = sorted(path.name for path in self.folder.glob("*") if path.suffix in _PICKLES)
        if pickles:
            raise InputError(
                f"{self.folder}: holds {_some(pickles)} and no safetensors. Pickles can run any program and are not read: have "
                "them converted to safetensors by someone who trusts them."
            )
        raise InputError(f"{self.folder}: holds neither model.safetensors nor model.safetensors.index.json")

    def _file(self, name: str) -> Any:
        if name not in self._open:
            try:
                self._open[name] = safe_open(self.folder / name, framework="pt")
            except (OSError, SafetensorError) as error:
                raise InputError(f"{self.folder / name}: cannot be read as safetensors: {error}") from error
        return self._open[name]

    def _names(self, file: str) -> frozenset[str]:
        if file not in self._known:
            self._known[file] = frozenset(self._file(file).keys())
        return self._known[file]

    def told(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Type and shape of a tensor, from the header."""
        part = self._file(self.held[name]).get_slice(name)
        return part.get_dtype(), tuple(part.get_shape())

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor's numbers."""
        numbers: torch.Tensor = self._file(self.held[name]).get_tensor(name)
        return numbers


def _placed(index: Path) -> dict[str, str]:
    placed = _json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise InputError(f"{index}: has no weight_map")
    for name, file in placed.items():
        plain = isinstance(file, str) and file.endswith(".safetensors") and not set(file) & {"/", "\\", "\0"}
        if not plain:
            raise InputError(
                f"{index}: {name!r:.120} is said to be in {file!r:.120}, which is not a safetensors file of this folder"
            )
        if not (index.parent / file).is_file():
            raise InputError(f"{index.parent}: lacks {file}, which the index names")
    return placed


def _json(path: Path) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(JSON_BYTES + 1)
        told = json.loads(data) if len(data) <= JSON_BYTES else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise InputError(f"{path}: is no JSON object of less than {JSON_BYTES >> 20} MiB")
    return told


def _some(names: list[str]) -> str:
    shown = ", ".join(f"{name[:120]!r}" for name in names[:5])
    return shown + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
