"""Fill-in-the-middle by the rules of two published programs, quirks and all, for replication. New runs take `fim`.

`megatron` is what BigCode's fork of Megatron-LM did to each training sample of SantaCoder, StarCoder and StarCoder2 (context
level). `santacoder_finetuning` is the script of that name (document level, cuts between tokens). What the programs drew is
given here as `Draws`, in the order in which they drew it, so that a rule can be checked by hand; with `NumpyDraws` the
draws are those of a NumPy RandomState, as theirs were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from stackbuild.tokens.bpe import Vocabulary

I64 = npt.NDArray[np.int64]


class Draws(Protocol):
    """What is drawn, in the order of the calls."""

    def coin(self, rate: float) -> bool:
        """Whether something of this rate happens."""
        ...

    def cuts(self, length: int) -> tuple[int, int]:
        """Two integers from 0 to `length`, both included, as they were drawn: the rule sorts them."""
        ...


@dataclass(frozen=True)
class NumpyDraws:
    """Draws of a RandomState: one binomial for a coin, one call for two cuts."""

    state: np.random.RandomState

    def coin(self, rate: float) -> bool:
        """See `Draws`."""
        return bool(self.state.binomial(1, rate))

    def cuts(self, length: int) -> tuple[int, int]:
        """See `Draws`."""
        first, second = self.state.randint(low=0, high=length + 1, size=2)
        return int(first), int(second)


@dataclass(frozen=True)
class Sentinels:
    """Ids. `split`: what parts the files of a repository (`<file_sep>`), or None."""

    end_of_text: int
    prefix: int
    middle: int
    suffix: int
    pad: int
    split: int | None = None


@dataclass(frozen=True)
class Rates:
    """Of documents (`fim`), of the fragments of a document that has the split token, and of SPM."""

    fim: float = 0.5
    fragment: float = 0.5
    spm: float = 0.5


@dataclass(frozen=True)
class Text:
    """How tokens become text and text tokens again. `of` makes it from a tokenizer."""

    decode: Callable[[Sequence[int]], str]
    encode: Callable[[str], Sequence[int]]

    @classmethod
    def of(cls, vocabulary: Vocabulary, drop_special: bool = False) -> Text:
        """With special tokens, which the programs knew: their letters in a text become ids.

        `drop_special`: they vanish when tokens are decoded, as in Megatron-LM of 2025; BigCode's fork wrote their letters.
        """
        spec = {key: value for key, value in vocabulary.spec.items() if key not in ("truncation", "padding")}
        tokenizer = Tokenizer.from_str(json.dumps(spec))

        def decode(ids: Sequence[int]) -> str:
            text: str = tokenizer.decode(list(ids), skip_special_tokens=drop_special)
            return text

        def encode(text: str) -> Sequence[int]:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids

        return cls(decode, encode)


def megatron(
    sample: Sequence[int] | npt.NDArray[Any],
    draws: Draws,
    text: Text,
    sentinels: Sentinels,
    rates: Rates | None = None,
    no_prefix: str | None = None,
) -> I64:
    """A training sample of S + 1 tokens after fill-in-the-middle: int64 of the same length.

    The sample is cut at every end of text; each document is treated by `rates.fim` (a coin, cuts, a coin for SPM). With a
    split token in it, one coin of `rates.fim` decides whether its fragments are treated, each by `rates.fragment`. Parts are
    decoded, cut between characters, and encoded each by itself, in SPM too. Then all is cut off, or padded on the right.

    Source: the facts of Megatron-LM's fork of BigCode, class GPTDataset; `no_prefix` is NVIDIA's, for StarCoder2. Quirks:

    - Windows cut documents first, so that the first and the last of a sample may be treated without their beginning or end,
      and a character cut by the window becomes U+FFFD.
    - An empty document in front of an end of text vanishes with it: a sample that begins with one loses its first token, of
      two in a row one is lost. So it is with empty fragments and their split token, at the beginning of a document too.
    - What follows the last end of text, or the last split token, is treated even if it is empty: three sentinels alone.
    - A document with the split token draws its coin before anything of its fragments; one without draws as any other.
    - What a treated sample has more than S + 1 tokens is lost at its end; pads are trained on.
    - Sentinels inside a document (a header's) are decoded as letters, and a cut may fall into them; or they are dropped.
    - `no_prefix` is looked for at the beginning of the decoded text, after the coin was drawn: where special tokens are
      dropped while decoding, one that is looked for is never found.
    - A sample is returned as it is when `rates.fim` is 0, whatever `rates.fragment` is, and nothing is drawn (BigCode's fork).
    """
    rates = rates or Rates()
    ids = np.asarray(sample, np.int64)
    if rates.fim == 0:
        return ids

    def permuted(piece: I64, rate: float) -> I64:
        if not draws.coin(rate):
            return piece
        contents = text.decode(piece.tolist())
        if no_prefix is not None and contents.startswith(no_prefix):
            return piece
        first, second = sorted(draws.cuts(len(contents)))
        prefix, middle, suffix = (
            np.asarray(text.encode(part), np.int64)
            for part in (contents[:first], contents[first:second], contents[second:])
        )
        return _joined(sentinels, prefix, middle, suffix, draws.coin(rates.spm))

    def document(piece: I64) -> I64:
        split = sentinels.split
        if split is None or split not in piece:
            return permuted(piece, rates.fim)
        if not draws.coin(rates.fim):
            return piece
        return _rejoined(piece, split, lambda fragment: permuted(fragment, rates.fragment))

    made = _rejoined(ids, sentinels.end_of_text, document)
    return np.concatenate([made, np.full(max(0, len(ids) - len(made)), sentinels.pad, np.int64)])[: len(ids)]


def _rejoined(ids: I64, separator: int, treat: Callable[[I64], I64]) -> I64:
    """Treat what stands between separators: nothing before one, and the separator with it, is left out; the last always is."""
    made: list[I64] = []
    start = 0
    for stop in np.flatnonzero(ids == separator).tolist():
        if stop > start:
            made += [treat(ids[start:stop]), ids[stop : stop + 1]]
        start = stop + 1
    return np.concatenate([*made, treat(ids[start:])])


def _joined(sentinels: Sentinels, prefix: I64, middle: I64, suffix: I64, spm: bool) -> I64:
    """PSM, or SPM (variant 2)."""
    if spm:
        return np.concatenate([[sentinels.prefix, sentinels.suffix], suffix, [sentinels.middle], prefix, middle])
    return np.concatenate([[sentinels.prefix], prefix, [sentinels.suffix], suffix, [sentinels.middle], middle])


def santacoder_finetuning(
    buffer: Iterable[Sequence[int] | npt.NDArray[Any]],
    draws: Draws,
    sentinels: Sentinels,
    window: int,
    rates: Rates | None = None,
    truncate_or_pad: bool = False,
) -> Iterator[I64]:
    """The windows that one buffer of documents gives: int64 arrays of shape (window,).

    Every document is treated by `rates.fim`, cut between its tokens, and followed by the end of text; all stand behind one
    another and are cut into windows. `rates.fragment` has no meaning here.

    Source: the facts of the script santacoder-finetuning (class ConstantLengthDataset). Quirks:

    - Cuts fall between tokens only, so that a model never sees a cursor within one; nothing is decoded.
    - Its RandomState was made anew with the same seed for every buffer: `draws` begin again with each call.
    - Windows cut treated documents anywhere, sentinels and all.
    - The tokens behind the last whole window of a buffer are lost. (Some versions shuffle the windows of a buffer; not here.)
    - With `truncate_or_pad` (off in its use) a treated document keeps its length: three tokens go from the end of the suffix; with
      a suffix of three or fewer it is left alone, after its cuts were drawn and before the coin of SPM.
    - With `rates.fim` 0 no document is treated and nothing is drawn.
    """
    rates = rates or Rates()
    stream: list[I64] = []
    for given in buffer:
        ids = np.asarray(given, np.int64)
        stream += [_by_tokens(ids, draws, sentinels, rates, truncate_or_pad), np.array([sentinels.end_of_text])]
    joined = np.concatenate(stream) if stream else np.zeros(0, np.int64)
    for start in range(0, len(joined) - window + 1, window):
        yield joined[start : start + window]


def _by_tokens(ids: I64, draws: Draws, sentinels: Sentinels, rates: Rates, truncate_or_pad: bool) -> I64:
    if rates.fim == 0 or not draws.coin(rates.fim):
        return ids
    first, second = sorted(draws.cuts(len(ids)))
    suffix = ids[second:]
    if truncate_or_pad:  # three more tokens than before, whatever the cuts are
        if len(suffix) <= 3:
            return ids
        suffix = suffix[:-3]
    return _joined(sentinels, ids[:first], ids[first:second], suffix, draws.coin(rates.spm))
