"""The tokenizer: byte-level BPE as StarCoder and StarCoder2 have it, trained here or loaded from a tokenizer.json.

Text is cut into words first: every digit alone, then GPT-2's pattern, no space put in front (bigcode-tokenizer). All
256 bytes are in the alphabet, so that any text survives a round trip. Sentinels have the ids 0, 1, 2, ... in their
order.

Training is deterministic: the merges depend only on how often each word occurs, and ties fall by token id, whatever the
order of the texts and the number of threads. Its cost grows with the square of the longest word; `longest_words` tells
which texts hold such words, and the sample leaves them out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from stackbuild.errors import InputError
from stackbuild.kernels import kernel

MIN_FREQUENCY = 2  # a pair that occurs once is no merge worth an entry
ALPHABET = 256
LARGEST_ID = 2**31 - 1  # of int32, the larger type of a token on disk
PROBE = "def  f(x):\r\n\treturn 'a1234 \u00e9e\u0301 \ufeff\u4e2d\U0001f600 <|endoftext|>  \n \x01\x7f\u2028 Ａ ﬁ İ"

# Class of each byte for `longest_words`: 0 white space, 1 digits, 2 letters, 3 other ASCII, 4 any non-ASCII.
_CLASSES = np.full(256, 3, np.uint8)
_CLASSES[[ord(c) for c in "\t\n\v\f\r "]] = 0
_CLASSES[[ord(c) for c in "0123456789"]] = 1
_CLASSES[[ord(c) for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]] = 2
_CLASSES[128:] = 4


def pre_tokenizer() -> Any:
    """Every digit alone, then GPT-2's pattern over bytes, no space in front."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def train_bpe(texts: Iterable[Sequence[str]], vocab_size: int, sentinels: Sequence[str]) -> bytes:
    """Train on batches of texts and return the bytes of tokenizer.json.

    `vocab_size` counts the sentinels; a sample too small for it gives a smaller vocabulary. Sentinels that occur as
    letters in a text are trained on as letters. ValueError if `vocab_size` has no room for the bytes and the
    sentinels.
    """
    if vocab_size < ALPHABET + len(sentinels):
        raise ValueError(
            f"a vocabulary of {vocab_size} has no room for {ALPHABET} bytes and {len(sentinels)} sentinels"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        show_progress=False,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in sentinels],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    return tokenizer.to_str(pretty=True).encode()


def sample_texts(sample: str | Path, rows: int = 256) -> Iterator[list[str]]:
    """Batches of the `content` of a sample written by `job.sample`."""
    with pq.ParquetFile(sample, pre_buffer=False) as file:
        for batch in file.iter_batches(rows, columns=["content"]):
            yield batch.column(0).to_pylist()


@kernel
def _longest_runs(data: Any, offsets: Any, classes: Any) -> Any:
    longest = np.zeros(len(offsets) - 1, np.int64)
    for text in range(len(offsets) - 1):
        run, kind, tail = 0, 4, 0  # kind 4: non-ASCII so far, of any class; tail: non-ASCII bytes at the run's end
        for at in range(offsets[text], offsets[text + 1]):
            here = classes[data[at]]
            if here == 1:
                run, kind, tail = 0, 4, 0
            elif here == 4:
                run += 1
                tail += 1
            else:
                run = run + 1 if kind == here or kind == 4 else tail + 1  # noqa: PLR1714
                kind, tail = here, 0
            longest[text] = max(longest[text], run)
    return longest


def longest_words(texts: pa.LargeStringArray) -> npt.NDArray[np.int64]:
    """For each of n texts, a bound on its longest word in bytes: int64 of shape (n,).

    Words hold letters, or other signs, or white space, never two of them (but for a space in front); a non-ASCII byte
    may be any of these, so the bound is exact for ASCII and never too small by more than that space.
    """
    if len(texts) == 0:
        return np.zeros(0, np.int64)
    _, offsets_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    runs: npt.NDArray[np.int64] = _longest_runs(data, offsets, _CLASSES)
    return runs


class Vocabulary:
    """A tokenizer.json, loaded for encoding text as nothing but text.

    `sentinels`: name to id of its special tokens, in the order of ids. `size`: one more than the largest id.
    `sha256`: of the file. `tokenizer` knows no special token, so that the letters `<fim_prefix>` in a text are
    letters. `spec`: what the file says. `splittable`: it cuts words as `pre_tokenizer` does. Raises InputError for a
    file that is no tokenizer, has an id twice, or edits text, unless it is known to have been `checked`: the library then loads it when it
    is needed.
    """

    def __init__(self, path: str | Path, checked: bool = False):
        try:
            data = Path(path).read_bytes()
            spec = json.loads(data)
            added = spec.get("added_tokens") or ()
            special = {token["content"]: int(token["id"]) for token in added if token["special"]}
            self.spec: Mapping[str, Any] = dict(spec)
            spec |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
            self._plain = spec
            if not checked:
                _ = self.tokenizer
        except OSError as error:
            raise InputError(f"{path}: the tokenizer cannot be read: {error.strerror}") from error
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{path}: no tokenizer.json: {error}") from error
        self.path = str(path)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.sentinels: Mapping[str, int] = dict(sorted(special.items(), key=lambda item: item[1]))
        model = spec["model"]
        vocab = model["vocab"] if isinstance(model.get("vocab"), Mapping) else self.tokenizer.get_vocab()
        entries = [*vocab.items(), *((token["content"], int(token["id"])) for token in added)]
        wrong = _wrong_ids(entries)
        if wrong is not None:
            raise InputError(f"{path}: {wrong}")
        self.size = max((number for _, number in entries), default=-1) + 1
        self.names: Mapping[int, str] = {number: name for name, number in self.sentinels.items()}
        self.is_sentinel = np.zeros(self.size, np.bool_)
        self.is_sentinel[list(self.sentinels.values())] = True
        ours = json.loads(pre_tokenizer().__getstate__())
        self.splittable = (
            spec.get("normalizer") is None
            and _without_offsets(spec.get("pre_tokenizer")) == _without_offsets(ours)
            and model.get("type") == "BPE"
            and not model.get("dropout")
            and not model.get("continuing_subword_prefix")
            and not model.get("end_of_word_suffix")
        )
        if not checked and self.decode(self.tokenizer.encode(PROBE, add_special_tokens=False).ids) != PROBE:
            raise InputError(
                f"{path}: this tokenizer does not give back the text that it encoded, so it would edit the files. "
                "Use a byte-level one without a normalizer and dropout."
            )

    @cached_property
    def tokenizer(self) -> Any:
        """The library's tokenizer."""
        return Tokenizer.from_str(json.dumps(self._plain))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ordinary tokens, all bytes of it."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text


def _wrong_ids(entries: Iterable[tuple[str, int]]) -> str | None:
    """What is wrong with the ids of tokens, or None: with one id for a word and a sentinel, text would become that sentinel."""
    ids: dict[str, int] = {}
    names: dict[int, str] = {}
    for name, number in entries:
        if not 0 <= number <= LARGEST_ID:
            return f"its token {name!r} has the id {number}; ids are from 0 to {LARGEST_ID:,}"
        if names.setdefault(number, name) != name:
            return f"its tokens {names[number]!r} and {name!r} have one id, {number}"
        if ids.setdefault(name, number) != number:
            return f"its token {name!r} has two ids, {ids[name]} and {number}"
    return None


def _without_offsets(spec: Any) -> Any:
    """A pre-tokenizer's description without `trim_offsets`, which changes no token."""
    if isinstance(spec, Mapping):
        return {key: _without_offsets(value) for key, value in spec.items() if key != "trim_offsets"}
    if isinstance(spec, list):
        return [_without_offsets(value) for value in spec]
    return spec


def in_one_thread() -> None:
    """Make `tokenizers` use no thread of its own in this process: a task has one core, and forks after threads hang."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
