"""Texts into token ids, in batches bounded by bytes.

The ids of a text are those that the `tokenizers` library gives for the whole text. A text over `PIECE` bytes is cut
where this cannot change them, as the library needs some 200 bytes of memory per byte: GPT-2's pattern matches the
same words on both sides of a line feed between two visible ASCII characters, since white space never runs across it.
A tokenizer that cuts words in another way gets its texts whole, and so does a text that has no such place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stackbuild.errors import InputError
from stackbuild.tokens.assemble import Pieces
from stackbuild.tokens.bpe import Vocabulary, in_one_thread

BATCH = 1 << 20  # characters of text encoded at a time
PIECE = 1 << 20  # characters of a text before it is cut
_CUT = re.compile(r"(?<=[!-~])\n(?=[!-~])")


def pieces(text: str, size: int = PIECE) -> list[str]:
    """Cut a text into pieces of about `size` characters, at places that no word of GPT-2's pattern crosses."""
    if len(text) <= size:
        return [text]
    cuts, at = [0], 0
    while at + size < len(text):
        found = _CUT.search(text, at + size)
        if found is None:
            break
        at = found.end()
        cuts.append(at)
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]


class Encoder:
    """Encodes texts with a vocabulary, in this thread alone."""

    def __init__(self, vocabulary: Vocabulary):
        in_one_thread()
        self.vocabulary = vocabulary

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """The ids of each text, int32 of shape (tokens,). InputError if a text becomes a sentinel."""
        parts = [pieces(text) if self.vocabulary.splittable else [text] for text in texts]
        encoded = (ids for batch in _batches(chain.from_iterable(parts)) for ids in self._encode(batch))
        return [next(encoded) if len(some) == 1 else np.concatenate([next(encoded) for _ in some]) for some in parts]

    def _encode(self, texts: list[str]) -> list[npt.NDArray[np.int32]]:
        encodings: list[Any] = self.vocabulary.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        arrays = [np.array(encoding.ids, np.int32) for encoding in encodings]
        for array in arrays:
            if self.vocabulary.is_sentinel[array].any():
                number = int(array[self.vocabulary.is_sentinel[array]][0])
                raise InputError(
                    f"{self.vocabulary.path}: ordinary text becomes the sentinel {self.vocabulary.names[number]}; "
                    "use a byte-level tokenizer, which has a token for every byte."
                )
        return arrays

    def encode_array(self, texts: pa.LargeStringArray) -> Pieces:
        """The ids of n texts one behind the other."""
        arrays = self.encode(texts.to_pylist())
        offsets = np.zeros(len(arrays) + 1, np.int64)
        np.cumsum([len(ids) for ids in arrays], out=offsets[1:])
        return Pieces(np.concatenate([np.zeros(0, np.int32), *arrays]), offsets)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch
