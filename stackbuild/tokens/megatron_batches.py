"""Batches in Megatron's order, to repeat a run of BigCode's fork: one stream of documents that is cut at every S tokens.

    batches = MegatronBatches("OUT/tokens", {"code": 0.9, "web": 0.1}, sequence_length=8192, samples=10**6, seed=1234, fim=Rates())
    rows = batches.batch(first_sample=0, n=8)

or `stages.open_batches` with DataConfig(order="megatron", samples=10**6, packing="concatenation").

Documents are shuffled, put end to end and cut (`megatron_order`); sources are mixed by its greedy rule (`blend.greedy`); rows are
treated by its rule of fill-in-the-middle (`fim_compat.megatron`). Its quirks are kept: a row ignores where documents end, and
what follows an end of text is trained on. Its draws were those of one generator for all rows, in the order in which workers came;
here each row has a RandomState of its own, so that a row is a function of its number.

All indices are held: it is refused above 10^8 documents and epochs. New runs take `batches.Batches`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError
from stackbuild.tokens.batches import IGNORED, Rows
from stackbuild.tokens.blend import greedy
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.counter import key_of
from stackbuild.tokens.data_config import DataConfig, SourceConfig
from stackbuild.tokens.dataset import OpenShard, TokensDataset
from stackbuild.tokens.fim import sentinel_ids
from stackbuild.tokens.fim_compat import NumpyDraws, Rates, Sentinels, Text, megatron
from stackbuild.tokens.megatron_order import MegatronOrder, megatron_order
from stackbuild.tokens.removed import END_OF_TEXT, pad_token
from stackbuild.tokens.source_rows import identity_of, switches_of

MARGIN = 1.005  # of the samples that a source is made for, as Megatron's BlendableDataset had it (starcoder1 6.3)
FILE = "<file_sep>"


class MegatronBatches:
    """The rows of a run of `samples` rows. `sources`: weights by name. `fim`: None leaves texts as they are.

    `sources[k]` is the name of source k of `Rows.source`. `treated`: the sources that `fim` is of; None: all.
    InputError: a source that the corpus lacks or that holds too little, too many documents, a tokenizer without the sentinels.
    """

    def __init__(
        self,
        folder: str | Path,
        sources: Mapping[str, float],
        sequence_length: int,
        samples: int,
        seed: int,
        fim: Rates | None = None,
        split: Literal["train", "valid"] = "train",
        treated: Collection[str] | None = None,
    ):
        self.dataset, self.samples, self.seed = TokensDataset(folder), samples, seed
        self.sources, self._length, self._rates = list(sources), sequence_length, fim
        weights = np.array(list(sources.values()), np.float64)
        self._chosen, self._index = greedy(weights.tolist(), samples)
        shares = weights / weights.sum()
        wanted = [samples] if len(shares) == 1 else [ceil(samples * share * MARGIN) for share in shares]
        opened = [self.dataset.shards(name, split) for name in sources]
        self._streams = [_Stream(shards, sequence_length, of, seed) for shards, of in zip(opened, wanted, strict=True)]
        self._treats = [treated is None or name in treated for name in sources]
        self._switches = [switches_of(self.dataset, name, split) for name in sources]
        if fim is not None and fim.fim > 0:
            vocabulary = Vocabulary(self.dataset.tokenizer, checked=True)
            manifest = self.dataset.manifest
            if END_OF_TEXT not in manifest.sentinels:
                raise InputError(f"{self.dataset.tokenizer} has no {END_OF_TEXT}, at which rows are taken apart")
            prefix, suffix, middle = sentinel_ids(vocabulary)
            pad, end = pad_token(manifest.sentinels, str(self.dataset.tokenizer)), manifest.sentinels[END_OF_TEXT]
            self._sentinels = Sentinels(end, prefix, middle, suffix, pad, manifest.sentinels.get(FILE))
            self._text = Text.of(vocabulary)

    @classmethod
    def of(cls, folder: str | Path, config: DataConfig, seed: int) -> Self:
        """As a configuration says: its sources by weight (by their tokens where it gives none), treated at its rates."""
        dataset = TokensDataset(folder)
        asked = config.source or tuple(
            SourceConfig(name=name) for name, split in dataset.parts if split == config.split
        )
        weights = {
            one.name: float(dataset.tokens(one.name, config.split)) if one.weight is None else one.weight
            for one in asked
        }
        fim = config.fim
        rates = Rates(fim.rate, fim.fragment_rate, fim.spm_rate) if fim.rate else None
        parts = [one for one in dataset.manifest.sources if one.split == config.split and one.fim]
        treated = {one.name for one in parts}
        return cls(folder, weights, config.sequence_length, config.samples or 0, seed, rates, config.split, treated)

    @property
    def identities(self) -> dict[str, str]:
        """A digest of each source's documents, as `SourceRows.identity`."""
        of = zip(self.sources, self._streams, self._switches, strict=True)
        return {name: identity_of(stream.shards, switches) for name, stream, switches in of}

    def batch(self, first_sample: int, n: int) -> Rows:
        """Samples `first_sample` to `first_sample` + n - 1. A row is one document to whoever masks by documents.

        IndexError for samples that the run does not have.
        """
        if not 0 <= first_sample <= first_sample + n <= self.samples:
            raise IndexError(
                f"a run of {self.samples:,} samples has no samples {first_sample:,} to {first_sample + n - 1:,}"
            )
        length = self._length
        tokens, labels = np.empty((n, length), np.int32), np.empty((n, length), np.int32)
        chosen = self._chosen[first_sample : first_sample + n]
        index = self._index[first_sample : first_sample + n]
        for row, (source, number) in enumerate(zip(chosen.tolist(), index.tolist(), strict=True)):
            ids, mask = self._streams[source].sample(number)
            if (
                self._rates is not None and self._treats[source] and mask.all()
            ):  # a text of which a part was removed stays as it is
                ids = self._treated(ids, first_sample + row)
            tokens[row], labels[row] = ids[:-1], np.where(mask[1:], ids[1:], IGNORED)
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (n, length)).copy()
        return Rows(
            tokens, labels, positions, np.zeros((n, length), np.int32), np.repeat(chosen[:, None], length, axis=1)
        )

    def _treated(self, ids: npt.NDArray[Any], sample: int) -> npt.NDArray[np.int64]:
        if self._rates is None or self._rates.fim == 0:
            return ids
        state = np.random.RandomState(key_of(self.seed, "megatron", str(sample)) & 0xFFFFFFFF)
        return megatron(ids, NumpyDraws(state), self._text, self._sentinels, self._rates)


class _Stream:
    """The samples of one source."""

    def __init__(self, shards: list[OpenShard], length: int, samples: int, seed: int):
        self.shards = shards
        sizes = np.concatenate([np.empty(0, np.int32), *(shard.tokens.sizes for shard in shards)])
        self._starts = [0, *accumulate(len(shard.tokens) for shard in shards)]
        self._sizes = sizes
        self._order: MegatronOrder = megatron_order(sizes, 0, length, samples, seed)

    def sample(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The S + 1 tokens of a sample, and which of them may be labels."""
        order = self._order
        at = int(order.shuffle_idx[number])
        (first, start), (last, stop) = order.sample_idx[at].tolist(), order.sample_idx[at + 1].tolist()
        parts = []
        for place in range(first, last + 1):
            document = int(order.doc_idx[place])
            low = start if place == first else 0
            high = stop + 1 if place == last else int(self._sizes[document])
            parts.append(self._read(document, low, high))
        ids, mask = zip(*parts, strict=True)
        return np.concatenate(ids).astype(np.int64), np.concatenate(mask)

    def _read(self, document: int, low: int, high: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        shard = int(np.searchsorted(self._starts, document, "right")) - 1
        one = self.shards[shard]
        first = int(one.tokens.offsets[document - self._starts[shard]]) // one.tokens.dtype.itemsize
        return one.known(first + low, first + high)
