"""The fast backend: byte-level BPE from Arrow's bytes to ids, with the ids of the `tokenizers` library.

It takes the tokenizer.json of the GPT-2 family (SantaCoder, StarCoder, StarCoder2, what is trained here): `supports` says
why not. Words are found 64 bytes at a time (`fast_words`), looked up in a bounded table of words that were met
(`fast_table`), and merged if they are new (`fast_merges`). `fast_check` compares it with the library before a run uses it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.errors import InputError
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.fast_classes import class_tables
from stackbuild.tokens.fast_merges import SHORT, fill_pairs
from stackbuild.tokens.fast_table import ROOM, Model, Words, encode_words, fill_whole
from stackbuild.tokens.fast_words import SLACK, word_starts
from stackbuild.tokens.indexed import token_dtype

NAME: Final = "stackbuild-1"  # changes when ids could
GROUP = 1 << 20  # bytes of several texts that are encoded at a time
SETS = 1 << 18  # pairs of short words that are kept; 64 bytes each
LONG_SETS = 1 << 14
KEPT_BYTES, KEPT_IDS = 8 << 20, 2 << 20


def alphabet() -> list[str]:
    """GPT-2's character for each byte (openai/gpt-2, encoder.py, bytes_to_unicode)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    characters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + k) for k, byte in enumerate(hidden)}
    return [characters[byte] for byte in range(256)]


def _splits(spec: Any) -> bool | None:
    """Whether a pre-tokenizer cuts digits out first; None if it is no GPT-2 one."""
    parts = list(spec.get("pretokenizers", ())) if spec and spec["type"] == "Sequence" else [spec]
    digits = bool(parts) and bool(parts[0]) and parts[0]["type"] == "Digits" and parts[0]["individual_digits"]
    rest = parts[1:] if digits else parts
    if len(rest) != 1 or not rest[0] or rest[0]["type"] != "ByteLevel":
        return None
    if rest[0].get("add_prefix_space", True) or not rest[0].get("use_regex", True):
        return None
    return digits


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges, which older files write as "left right"."""
    merges = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in merges]


def supports(vocabulary: Vocabulary) -> str | None:
    """Why the fast backend cannot take a tokenizer, or None if it can."""
    return _reason(vocabulary)[0]


def _reason(vocabulary: Vocabulary) -> tuple[str | None, list[tuple[str, str]]]:
    """As `supports`, with the merges, which are many."""
    merges: list[tuple[str, str]] = []
    return _wrong(vocabulary, merges), merges


def _wrong(vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> str | None:
    """As `supports`; fills `merges`."""
    spec = vocabulary.spec
    model = spec["model"]
    vocab = model.get("vocab")
    if sys.byteorder != "little":
        return "this machine is not little-endian"
    if spec.get("normalizer") is not None:
        return "it has a normalizer"
    if model.get("type", "BPE") != "BPE" or not isinstance(vocab, Mapping) or "merges" not in model:
        return f"its model is {model.get('type')}, not BPE"
    if model.get("dropout"):
        return "it drops merges at random"
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return "its tokens have a prefix or suffix"
    if _splits(spec.get("pre_tokenizer")) is None:
        return "it does not cut words by GPT-2's pattern, without a space in front"
    characters = alphabet()
    if any(character not in vocab for character in characters):
        return "it has no token for some byte"
    if len(set(vocab.values())) != len(vocab):
        return "two of its tokens have the same id"
    merges += _merges(model)
    made = {left + right for left, right in merges}
    if not made <= vocab.keys():
        return "a merge makes a token that its vocabulary lacks"
    for name, number in vocabulary.sentinels.items():
        if vocab.get(name) == number and (name in made or name in characters):
            return f"text can become its sentinel {name}"
    return None


def _power_of_two(least: int) -> int:
    return 1 << max(1, (least - 1).bit_length())


def _aligned(count: int) -> npt.NDArray[np.uint64]:
    """Zeros that begin with a cache line."""
    raw = np.empty(count + 8, np.uint64)  # NumPy asks for large pages, but not for zeros
    raw.fill(0)
    skip = (-raw.ctypes.data // 8) % 8
    return raw[skip : skip + count]


def _model(spec: Mapping[str, Any], merges: Sequence[tuple[str, str]]) -> Model:
    vocab: Mapping[str, int] = spec["model"]["vocab"]
    lefts, rights, made = (
        np.array(numbers, np.uint64).reshape(len(merges))
        for numbers in (
            [vocab[left] for left, _ in merges],
            [vocab[right] for _, right in merges],
            [vocab[left + right] for left, right in merges],
        )
    )
    keys = lefts << np.uint64(32) | rights
    values = np.arange(len(merges), dtype=np.uint64) << np.uint64(32) | made
    pairs = np.empty(2 * _power_of_two(2 * len(merges) + 2), np.uint64)
    fill_pairs(keys, values, pairs)
    token_bytes = np.zeros(max(vocab.values()) + 1, np.int32)
    for token, number in vocab.items():
        token_bytes[number] = len(token)
    whole, offsets, data, ids = np.zeros(1, np.int64), np.zeros(1, np.int64), b"", np.zeros(0, np.int32)
    if spec["model"].get("ignore_merges"):
        of = {character: byte for byte, character in enumerate(alphabet())}
        entries = [(token, number) for token, number in vocab.items() if token and all(c in of for c in token)]
        data = bytes(of[character] for token, _ in entries for character in token)
        offsets = np.cumsum([0, *(len(token) for token, _ in entries)])
        ids = np.array([number for _, number in entries], np.int32)
        whole = np.zeros(_power_of_two(2 * len(entries)), np.int64)
    firsts = [(1 << 8 * min(size, 8)) - 1 for size in range(16)]
    masks = np.array([*firsts, *((1 << 8 * max(size - 8, 0)) - 1 for size in range(16))], np.uint64)
    padded = np.frombuffer(data + bytes(SLACK), np.uint8)
    if len(whole) > 1:
        fill_whole(padded, offsets, masks, whole)
    return Model(
        byte_ids=np.array([vocab[character] for character in alphabet()], np.int32),
        token_bytes=token_bytes,
        pairs=pairs,
        masks=masks,
        whole=whole,
        whole_offsets=offsets.astype(np.int64),
        whole_bytes=padded,
        whole_ids=ids,
    )


class FastEncoder:
    """Encodes Arrow strings with a vocabulary, in this thread alone.

    `dtype`: of the ids, as the shards have it: uint16 below 65,500 entries, else int32. `whole_words`: whether a word that
    is in the vocabulary is that token, whatever the merges (`ignore_merges`). `digits_apart`, `tables`: what `word_starts`
    is told. ValueError for a vocabulary that `supports` does not take.
    """

    def __init__(self, vocabulary: Vocabulary):
        reason, merges = _reason(vocabulary)
        if reason is not None:
            raise ValueError(f"{vocabulary.path}: the fast tokenizer cannot take it: {reason}")
        spec = vocabulary.spec
        self.vocabulary = vocabulary
        self.dtype = np.dtype(token_dtype(vocabulary.size))
        self.whole_words = bool(spec["model"].get("ignore_merges"))
        self.digits_apart = bool(_splits(spec["pre_tokenizer"]))
        self._model = _model(spec, merges)
        self.tables = class_tables()
        self._words = Words(
            short=_aligned(8 * SETS),
            long=_aligned(8 * LONG_SETS),
            kept_bytes=np.empty(KEPT_BYTES, np.uint8),
            kept_ids=np.empty(KEPT_IDS, np.int32),
            used=np.zeros(3, np.int64),
            ids=np.empty(SHORT + 1, np.int32),
            ranks=np.empty(SHORT + 1, np.uint64),
        )
        self._out = np.empty(GROUP + ROOM, self.dtype)

    def encode(self, texts: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The ids of n texts, one behind the other, and where each begins: arrays of shape (ids,) and (n + 1,).

        `texts`: string, large_string, binary or large_binary, without nulls. InputError, with the number of the text,
        where bytes are not UTF-8.
        """
        if texts.null_count:
            raise ValueError("a text that is null has no tokens")
        wide = pa.types.is_large_string(texts.type) or pa.types.is_large_binary(texts.type)
        _, offsets_buffer, data_buffer = texts.buffers()
        if len(texts) == 0 or offsets_buffer is None:
            return np.zeros(0, self.dtype), np.zeros(len(texts) + 1, np.int64)
        every = np.frombuffer(offsets_buffer, np.int64 if wide else np.int32)
        offsets = every[texts.offset : texts.offset + len(texts) + 1].astype(np.int64, copy=False)
        data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
        if offsets[-1] + SLACK > len(data):
            data = np.frombuffer(data[offsets[0] : offsets[-1]].tobytes() + bytes(SLACK), np.uint8)
            offsets = offsets - offsets[0]
        return self.encode_bytes(data, offsets)

    def encode_bytes(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """As `encode`: text k is `data[offsets[k]:offsets[k + 1]]`; `SLACK` bytes behind the last one can be read."""
        data, offsets = data.view(), offsets.view()
        data.flags.writeable = offsets.flags.writeable = False  # one type, so that kernels are compiled once
        ends = np.zeros(len(offsets), np.int64)
        parts: list[npt.NDArray[Any]] = []
        text, total = 0, 0
        while text < len(offsets) - 1:
            stop = max(text + 1, int(np.searchsorted(offsets, offsets[text] + GROUP, "right")) - 1)
            group = offsets[text : stop + 1]
            made = np.empty(len(group), np.int64)
            for part in self._group(data, group, made, text):
                parts.append(part)
            ends[text : stop + 1] = made + total
            total += int(made[-1])
            text = stop
        if len(parts) == 1:
            return parts[0], ends
        return (np.concatenate(parts) if parts else np.zeros(0, self.dtype)), ends

    def _group(self, data: Any, offsets: Any, made: Any, number: int) -> list[npt.NDArray[Any]]:
        """Encode texts that are found at once; `number` is that of the first."""
        starts = np.empty((int(offsets[-1] - offsets[0]) >> 6) + 1, np.uint64)
        wrong = int(word_starts(data, offsets, self.digits_apart, *self.tables, starts))
        if wrong >= 0:
            text = number + int(np.searchsorted(offsets, wrong, "right")) - 1
            raise InputError(f"text {text}: no UTF-8 at its byte {wrong - int(offsets[text - number])}")
        state = np.array([offsets[0], 0, 0, 0], np.int64)
        parts = []
        while state[1] < len(offsets):
            encode_words(data, offsets, starts, self._model, self._words, self._out, made, state)
            if state[3]:
                parts.append(self._out[: state[3]].copy())
            elif state[1] < len(offsets):  # one word is larger than all there is
                self._out = np.empty(2 * len(self._out), self.dtype)
        return parts
