"""Texts into token ids, by the backend that the run chose.

The ids of a text are those that the `tokenizers` library gives for the whole text. For that library, a text over `PIECE` bytes is cut
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
from stackbuild.tokens.fast import NAME, FastEncoder
from stackbuild.tokens.fast_check import backend_name
from stackbuild.tokens.indexed import token_dtype

LIBRARY = "tokenizers"  # the library, whatever its version
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
    """Encodes texts with a vocabulary, in this thread alone.

    `backend`: as `fast_check.choose` recorded it, for a run that was checked; both give the same ids. InputError if
    it is that of another version, with which shards would be finished otherwise than they were begun. `fast`: the fast
    backend, or None.
    """

    def __init__(self, vocabulary: Vocabulary, backend: str = LIBRARY):
        in_one_thread()
        self.vocabulary = vocabulary
        self.dtype = np.dtype(token_dtype(vocabulary.size))
        if backend not in (NAME, LIBRARY) and backend != backend_name():
            raise InputError(f"{vocabulary.path}: this run was begun with {backend}; here are {NAME}, {backend_name()}")
        self.fast = FastEncoder(vocabulary) if backend == NAME else None

    def encode_array(self, texts: pa.Array) -> Pieces:
        """The ids of n texts behind one another, of `dtype`, and where each begins: shapes (ids,) and (n + 1,).

        `texts`: Arrow strings without nulls. InputError if one is not UTF-8, with its number, or becomes a sentinel.
        """
        if self.fast is not None:
            ids, offsets = self.fast.encode(texts)
            if self.fast.whole_words:  # no merge makes a sentinel: `supports`
                self._refuse_sentinels(ids)
            return Pieces(ids, offsets)
        arrays = self.encode(_strings(texts))
        offsets = np.cumsum([0, *(len(array) for array in arrays)])
        return Pieces(np.concatenate([np.zeros(0, np.int32), *arrays]).astype(self.dtype), offsets)

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """The ids of each text, int32 of shape (tokens,). InputError if a text becomes a sentinel."""
        if self.fast is not None:
            ids, offsets = self.encode_array(pa.array(texts, pa.large_string()))
            return np.split(ids.astype(np.int32), offsets[1:-1]) if len(texts) else []
        parts = [pieces(text) if self.vocabulary.splittable else [text] for text in texts]
        encoded = (ids for batch in _batches(chain.from_iterable(parts)) for ids in self._encode(batch))
        return [next(encoded) if len(some) == 1 else np.concatenate([next(encoded) for _ in some]) for some in parts]

    def _encode(self, texts: list[str]) -> list[npt.NDArray[np.int32]]:
        encodings: list[Any] = self.vocabulary.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        arrays = [np.array(encoding.ids, np.int32) for encoding in encodings]
        for array in arrays:
            self._refuse_sentinels(array)
        return arrays

    def _refuse_sentinels(self, ids: npt.NDArray[Any]) -> None:
        found = self.vocabulary.is_sentinel[ids]
        if found.any():
            raise InputError(
                f"{self.vocabulary.path}: ordinary text becomes the sentinel {self.vocabulary.names[int(ids[found][0])]}; "
                "use a byte-level tokenizer, which has a token for every byte."
            )


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


def _strings(texts: pa.Array) -> list[str]:
    try:
        strings: list[str] = texts.cast(pa.large_string()).to_pylist()
    except (UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise InputError(f"a text is not UTF-8: {error}") from error
    if None in strings:
        raise ValueError("a text that is null has no tokens")
    return strings
