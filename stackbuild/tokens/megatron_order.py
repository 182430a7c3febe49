"""The order of Megatron's GPTDataset, array for array: documents, samples, shuffle (starcoder1 6.3).

Documents of all epochs are shuffled and put end to end; sample k is the tokens k s .. k s + s of that stream, so that a
sample begins with the last token of the one before; samples are shuffled. It is there to repeat a run of Megatron: it
ignores where documents end, and its arrays grow with documents x epochs, so that it is refused above 10^8 of them.

    first, stop = split("969,30,1", documents)[0]
    order = megatron_order(sizes[first:stop], first, sequence=8192, samples=..., seed=1234)
    at, offset = order.sample_idx[order.shuffle_idx[i]]        where sample i begins:
    order.doc_idx[at], offset                                  a document, and a token of it
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError

MOST_DOCUMENTS = 10**8  # times epochs: about 3 GB while they are put into order
SEPARATE_BELOW = 0.80  # of an epoch's samples: a last epoch that supplies fewer is shuffled apart
INT32 = np.iinfo(np.int32).max


class MegatronOrder(NamedTuple):
    """`doc_idx`: int32 of shape (documents x epochs,), document numbers. `sample_idx`: int32 (int64 where a position or a
    document's length needs it) of shape (samples + 1, 2): where each sample begins, as a position in `doc_idx` and a token of that
    document. `shuffle_idx`: uint32 (int64 from 2^32 - 2 samples on) of shape (samples,).
    """

    doc_idx: npt.NDArray[np.int32]
    sample_idx: npt.NDArray[Any]
    shuffle_idx: npt.NDArray[Any]
    epochs: int


def split(
    weights: str | Sequence[float], documents: int, rule: Literal["starcoder", "core"] = "starcoder"
) -> list[tuple[int, int]]:
    """Which documents are train, valid and test: three ranges (first, stop) of document numbers.

    `weights`: three of them, as "969,30,1"; missing ones are 0. "starcoder": the rule of Megatron-LM and of the fork that trained
    StarCoder, a sum of rounded lengths whose surplus is taken from every border after the first. "core": that of
    megatron-core, rounded borders. InputError for weights that are none.
    """
    parts = re.split(r"[,/]", weights) if isinstance(weights, str) else list(weights)
    try:
        given = [float(part) for part in parts]
    except ValueError:
        given = []
    if not 1 <= len(given) <= 3 or not all(0 <= weight < float("inf") for weight in given) or not sum(given) > 0:
        raise InputError(f"a split is three numbers such as 969,30,1, not {weights!r}")
    given += [0.0] * (3 - len(given))
    if rule == "core":
        shares = (np.array(given) / np.sum(np.array(given))).tolist()
        borders = [round(share * float(documents)) for share in accumulate(shares, initial=0)]
    else:
        whole = sum(given)
        borders = [0]
        for weight in given:
            borders.append(borders[-1] + round(weight / whole * float(documents)))
        surplus = borders[-1] - documents
        borders[1:] = [max(border - surplus, 0) for border in borders[1:]]
    return list(pairwise(borders))


def epochs_for(samples: int | None, tokens: int, sequence: int) -> int:
    """The least number of epochs of `tokens` that gives `samples` samples of `sequence` tokens: (E T - 1) // s; 1 for None."""
    return 1 if samples is None else max(-(-(samples * sequence + 1) // tokens), 1)


def megatron_order(sizes: npt.ArrayLike, first: int, sequence: int, samples: int | None, seed: int) -> MegatronOrder:
    """The three index arrays for documents `first`, `first + 1`, … of `sizes` tokens (integers of shape (documents,)).

    `sequence`: tokens that a sample predicts. `samples`: how many are wanted (there may be more), or None for one epoch.
    InputError if there is no token to predict, or more than 10^8 documents x epochs.
    """
    lengths = np.asarray(sizes, np.int64)
    tokens = int(lengths.sum())
    if sequence < 1 or not 0 <= seed < 2**32:
        raise InputError(f"Megatron's order needs a sequence of at least 1 and a seed below 2^32: {sequence}, {seed}")
    if len(lengths) <= MOST_DOCUMENTS and tokens < 2:
        raise InputError(f"{len(lengths):,} documents of {tokens:,} tokens together hold no sample")
    epochs = epochs_for(samples, max(tokens, 1), sequence)
    if len(lengths) * epochs > MOST_DOCUMENTS or first + len(lengths) > INT32:
        raise InputError(
            f'order = "megatron" holds an index of all documents: {len(lengths):,} x {epochs:,} epochs are more than '
            f"{MOST_DOCUMENTS:,}; leave it out for an order without an index"
        )
    per_epoch = (tokens - 1) // sequence
    without_last = ((epochs - 1) * tokens - 1) // sequence
    separate = epochs > 1 and samples is not None and samples - without_last < int(SEPARATE_BELOW * per_epoch)

    random = np.random.RandomState(seed)
    documents = np.arange(first, first + len(lengths), dtype=np.int32)
    doc_idx = np.concatenate(
        [_shuffled(np.tile(documents, times), random) for times in ((epochs - 1, 1) if separate else (epochs,))]
    )
    sample_idx = _sample_idx(lengths[doc_idx - first], sequence, int(lengths.max()))
    made = len(sample_idx) - 1
    dtype = np.int64 if made >= 2**32 - 2 else np.uint32
    borders = [0, without_last, made] if separate else [0, made]
    shuffle_idx = np.concatenate([_shuffled(np.arange(*pair, dtype=dtype), random) for pair in pairwise(borders)])
    return MegatronOrder(doc_idx, sample_idx, shuffle_idx, epochs)


def _sample_idx(lengths: npt.NDArray[np.int64], sequence: int, longest: int) -> npt.NDArray[Any]:
    """Where each sample begins: the first document that ends after token k s. `lengths`: of all epochs, as they stand."""
    ends = np.cumsum(lengths)
    begins = np.arange((int(ends[-1]) - 1) // sequence + 1, dtype=np.int64) * sequence
    at = np.searchsorted(ends, begins, side="right")
    index = np.empty((len(begins), 2), np.int32 if max(len(lengths), longest) <= INT32 else np.int64)
    index[:, 0] = at
    index[:, 1] = begins - (ends[at] - lengths[at])
    index[0] = 0  # Megatron's walk starts in the first document, be it empty
    return index


def _shuffled(array: npt.NDArray[Any], random: np.random.RandomState) -> npt.NDArray[Any]:
    random.shuffle(array)
    return array
