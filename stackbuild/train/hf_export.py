"""Models as folders in the Hugging Face layout: safetensors, config.json, generation_config.json and the tokenizer's files.

They are written tensor by tensor: the header of a safetensors file needs no more than names and shapes, which the configuration gives,
so that memory holds the parts of one tensor. A folder appears whole, under its name, or not at all, and is never written over.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch

from stackbuild.errors import InputError, UsageError
from stackbuild.shards import fsync_directory
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.train.config import ModelConfig
from stackbuild.train.hf_config import to_hf
from stackbuild.train.hf_names import Theirs, fuse, shapes, tensors

SHARD_BYTES: Final = 5_000_000_000
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
Dtype = Literal["bfloat16", "float32"]
_CODES: Final[Mapping[str, tuple[str, torch.dtype, int]]] = {
    "bfloat16": ("BF16", torch.bfloat16, 2),
    "float32": ("F32", torch.float32, 4),
}
Tensors = Mapping[str, torch.Tensor] | Callable[[str], torch.Tensor]


class Ids(NamedTuple):
    """Tokens that a generator wants to know: at the begin and at the end of a document; None if there is none."""

    bos: int | None = None
    eos: int | None = None


def check_vocabulary(config: ModelConfig, tokens: int, what: str = "the tokenizer") -> None:
    """UsageError if a model has fewer rows than there are tokens; more are padding (SantaCoder has 49,280 for 49,152 tokens)."""
    if config.vocab_size < tokens:
        raise UsageError(
            f"vocab_size = {config.vocab_size:,} is smaller than the {tokens:,} tokens of {what}: a token would have no row. "
            f"Set vocab_size to {tokens:,} or more, or take the tokenizer that the model was made for."
        )


def tokenizer_files(tokenizer: Path) -> list[Path]:
    """The tokenizer's files in a folder, or a lone tokenizer.json. InputError if there is no tokenizer.json."""
    if tokenizer.is_file():
        return [tokenizer]
    found = [tokenizer / name for name in TOKENIZER_FILES if (tokenizer / name).is_file()]
    if tokenizer / "tokenizer.json" not in found:
        raise InputError(f"{tokenizer}: holds no tokenizer.json")
    return found


def export_model(
    given: Tensors,
    config: ModelConfig,
    tokenizer: Path | None,
    out: Path,
    *,
    dtype: Dtype = "bfloat16",
    ids: Ids | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a model as a folder that transformers loads.

    `given`: our parameters by canonical name, or a function that fetches one; each is asked for once. `tokenizer`: a folder with
    tokenizer.json or that file, copied; None: none is. `ids`: of bos and eos for config.json; None: `<|endoftext|>` of the tokenizer for
    both. `shard_bytes`: a file is closed before it grows beyond it; an index tells which of several holds what.

    UsageError if `out` exists or the tokenizer has more tokens than the model; InputError for a tensor that is missing, misshaped or
    not finite. Nothing is left behind then.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(
            f"{out}: exists already, and an export is never written over. Name another folder, or remove it."
        )
    vocabulary = None
    if tokenizer is not None:
        files = tokenizer_files(tokenizer)
        vocabulary = Vocabulary(files[0], checked=True)
        check_vocabulary(config, vocabulary.size, str(files[0]))
    if ids is None:
        end = vocabulary.sentinels.get("<|endoftext|>") if vocabulary else None
        ids = Ids(end, end)
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.{secrets.token_hex(6)}")
    fresh.mkdir()
    try:
        _write_json(fresh / "config.json", to_hf(config, dtype, ids.bos, ids.eos))
        _write_json(fresh / "generation_config.json", {"bos_token_id": ids.bos, "eos_token_id": ids.eos})
        if tokenizer is not None and vocabulary is not None:
            _copy_tokenizer(files, vocabulary, config, ids, fresh)
        _write_weights(given, config, dtype, shard_bytes, fresh)
        fsync_directory(fresh)
        os.rename(fresh, out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    fsync_directory(out.parent)


def _copy_tokenizer(files: Sequence[Path], vocabulary: Vocabulary, config: ModelConfig, ids: Ids, out: Path) -> None:
    for file in files:
        name = file.name if len(files) > 1 else "tokenizer.json"
        shutil.copyfile(file, out / name)
    if not (out / "tokenizer_config.json").exists():
        # Without it transformers makes GPT-2's tokenizer of the vocabulary, which cuts words in another way than the file says.
        names: dict[int | None, str] = {token: name for name, token in vocabulary.sentinels.items()}
        told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.max_positions}
        told |= {
            "clean_up_tokenization_spaces": False,
            "bos_token": names.get(ids.bos),
            "eos_token": names.get(ids.eos),
        }
        _write_json(out / "tokenizer_config.json", told)


def _write_json(path: Path, told: Any) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.write(json.dumps(told, indent=2, sort_keys=True) + "\n")
        _flush(file)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


# ---------------------------------------------------------------- weights


def shards(config: ModelConfig, bytes_each: int, shard_bytes: int) -> list[list[Theirs]]:
    """The tensors of each file, in order: a file ends before it would grow beyond `shard_bytes`. `bytes_each`: of one number."""
    found: list[list[Theirs]] = [[]]
    size = 0
    for tensor in tensors(config):
        more = bytes_each * torch.Size(tensor.shape).numel()
        if found[-1] and size + more > shard_bytes:
            found.append([])
            size = 0
        found[-1].append(tensor)
        size += more
    return found


def _write_weights(given: Tensors, config: ModelConfig, dtype: Dtype, shard_bytes: int, out: Path) -> None:
    files = shards(config, _CODES[dtype][2], shard_bytes)
    names = [f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)]
    if len(files) == 1:
        names = ["model.safetensors"]
    ours = shapes(config)
    size = 0
    for name, held in zip(names, files, strict=True):
        size += _write_file(out / name, held, dtype, lambda tensor: _made(given, tensor, config, ours))
    if len(files) > 1:
        placed = {tensor.name: name for name, held in zip(names, files, strict=True) for tensor in held}
        _write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": placed})


def _made(given: Tensors, tensor: Theirs, config: ModelConfig, ours: Mapping[str, tuple[int, ...]]) -> torch.Tensor:
    parts = []
    for name in tensor.ours:
        try:
            part = given(name) if callable(given) else given[name]
        except KeyError as error:
            raise InputError(f"the model lacks {name}") from error
        if tuple(part.shape) != ours[name]:
            raise InputError(f"{name} has shape {tuple(part.shape)}, not {ours[name]} as the configuration says")
        if not bool(torch.isfinite(part).all()):
            raise InputError(f"{name} holds numbers that are not finite: export an earlier checkpoint")
        parts.append(part.detach())
    return fuse(parts, config)


def _write_file(path: Path, held: Sequence[Theirs], dtype: Dtype, made: Callable[[Theirs], torch.Tensor]) -> int:
    """A safetensors file: the length of a header, the header as JSON (name: dtype, shape, place), the numbers. Its numbers' bytes."""
    code, kind, width = _CODES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in held:
        begin, end = end, end + width * torch.Size(tensor.shape).numel()
        header[tensor.name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that numbers begin at a multiple of 8
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in held:
            numbers = made(tensor).to("cpu", kind).contiguous()
            file.write(memoryview(numbers.view(-1).view(torch.uint8).numpy()))
        _flush(file)
    return end
