"""The rows of one source, by number: which documents are in which row, in every epoch, without an index of them.

In an epoch the shards of a source stand in a drawn order, and so do the documents of each: a stateless permutation says which
document is at which place. `DataConfig.window` documents at a time are cut (`pieces`), packed by best fit (`pack`), and their
rows drawn into an order again. All that has to be known beforehand is how many rows each window has; that is counted when
it is asked for and kept in `cache`, one small file for each window, so that several processes may count.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError
from stackbuild.shards import write_atomically
from stackbuild.tokens import pack
from stackbuild.tokens.counter import key_of
from stackbuild.tokens.data_config import DataConfig
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.permute import Permutation
from stackbuild.tokens.pieces import Coins, pieces_of
from stackbuild.tokens.spans import DocumentSpans, document_spans

I64 = npt.NDArray[np.int64]
REPOSITORIES = "starcoder2"  # the layout whose documents are of several files
HELD = 512 << 20  # bytes of windows, and as many of spans, that a source keeps at hand


class Packed(NamedTuple):
    """The pieces of a window, row by row: int64 of shape (k,). Row r has those from `offsets[r]` to `offsets[r + 1]`."""

    shard: I64
    number: I64  # of the document in its shard
    low: I64
    high: I64
    treated: I64
    soft: I64
    offsets: I64

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(array.nbytes for array in self)


class Kept:
    """What was made, by key, the oldest forgotten when all together have more than so many bytes."""

    def __init__(self, most: int):
        self._most, self._bytes = most, 0
        self._made: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is kept under a key, or what `make` gives; it has `nbytes`."""
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        made = self._made[key] = make()
        self._bytes += made.nbytes
        while self._bytes > self._most and len(self._made) > 1:
            _, old = self._made.popitem(last=False)
            self._bytes -= old.nbytes
        return made


class SourceRows:
    """Rows of a source and split. `fim`: whether its files are treated. `cache`: a folder for counts, or None.

    `documents` and `windows` are those of an epoch. InputError for a torn document table, when it is read.
    """

    def __init__(
        self, dataset: TokensDataset, name: str, config: DataConfig, seed: int, fim: bool, cache: Path | None = None
    ):
        self.name, self.config, self.seed = name, config, seed
        self.shards = dataset.shards(name, config.split)
        self.starts = np.array([0, *accumulate(len(shard.tokens) for shard in self.shards)], np.int64)
        self.documents = int(self.starts[-1])
        self.windows = -(-self.documents // config.window)
        several = dataset.manifest.layout in (REPOSITORIES, None)
        rate, share = config.fim.rate, config.fim.fragment_rate
        self._rates = ((rate, share) if several else (1.0, rate)) if fim else (0.0, 0.0)
        self.fim = fim and min(self._rates) > 0
        self.key = key_of(seed, "fim", name)
        self._cache = None if cache is None else cache / self._digest(dataset)
        self._spans, self._packed = Kept(HELD), Kept(HELD)
        self._counts: dict[tuple[int, int], int] = {}
        self._before: list[list[int]] = []  # rows in front of each window of an epoch, and of all

    def _digest(self, dataset: TokensDataset) -> str:
        """Names the folder of counts: by the documents, the seed and the options; a removal changes none of them."""
        told = [self.name, self.config.split, str(self.seed), self.config.packed(self.fim), str(self._rates)]
        told += [f"{shard.shard.sha256_index} {shard.shard.sha256_documents}" for shard in self.shards]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32]

    def coins(self, epoch: int) -> Coins:
        """Which files are treated in an epoch."""
        fim, (rate, share) = self.config.fim, self._rates
        return Coins(np.uint64(self.key), np.uint64(epoch), rate, share, fim.room, fim.min_characters)

    def spans(self, shard: int) -> DocumentSpans:
        """Where files and headers lie in the documents of a shard."""
        found: DocumentSpans = self._spans.get(shard, lambda: document_spans(self.shards[shard].prefix))
        return found

    def order(self, epoch: int, window: int) -> list[tuple[int, I64]]:
        """The documents of a window in order: shard by shard their numbers."""
        names = ("order", self.name, str(epoch))
        shards = Permutation(len(self.shards), self.seed, *names).slice(0, len(self.shards))
        ends = np.cumsum(np.diff(self.starts)[shards])
        first, last = window * self.config.window, min((window + 1) * self.config.window, self.documents)
        found, at = [], int(np.searchsorted(ends, first, "right"))
        while first < last:
            shard, size = int(shards[at]), len(self.shards[shards[at]].tokens)
            begin = int(ends[at]) - size
            stop = min(last - begin, size)
            if stop > first - begin:
                numbers = Permutation(size, self.seed, *names, str(shard)).slice(first - begin, stop)
                found.append((shard, numbers))
                first = begin + stop
            at += 1
        return found

    def _pieces(self, epoch: int, window: int) -> tuple[I64, I64, I64]:
        """Of a window: pieces as int64 of shape (6, k), in the order of `Packed`; their sizes."""
        coins, parts, sizes = self.coins(epoch), [], []
        for shard, numbers in self.order(epoch, window):
            ordinals = (numbers + self.starts[shard]).astype(np.uint64)
            tokens = self.shards[shard].tokens.sizes
            made = pieces_of(numbers, ordinals, tokens, self.spans(shard), coins, self.config.sequence_length)
            of_shard = np.full(len(made.low), shard, np.int64)
            parts.append(np.stack([of_shard, numbers[made.document], made.low, made.high, made.treated, made.soft]))
            sizes.append(made.size)
        empty = np.empty((6, 0), np.int64)
        return np.concatenate([empty, *parts], axis=1), np.concatenate([empty[0], *sizes]), empty[0]

    def packed(self, epoch: int, window: int) -> Packed:
        """The rows of a window."""
        found: Packed = self._packed.get((epoch, window), lambda: self._pack(epoch, window))
        return found

    def _pack(self, epoch: int, window: int) -> Packed:
        pieces, sizes, _ = self._pieces(epoch, window)
        bins, count = pack.best_fit(sizes, self.config.sequence_length)
        items, offsets = pack.layout(bins, count)
        rows = Permutation(count, self.seed, "rows", self.name, str(epoch), str(window)).slice(0, count)
        lengths = np.diff(offsets)[rows]
        ends = np.cumsum(lengths)
        taken = np.repeat(offsets[rows] - (ends - lengths), lengths) + np.arange(len(items))
        shard, number, low, high, treated, soft = pieces[:, items[taken]]
        offsets = np.concatenate([np.zeros(1, np.int64), ends])
        return Packed(shard, number, low, high, treated, soft, offsets)

    def count(self, epoch: int, window: int) -> int:
        """How many rows a window has; kept in the cache. InputError if what is kept there is no number."""
        found = self._counts.get((epoch, window))
        if found is not None:
            return found
        path = None if self._cache is None else self._cache / str(epoch) / f"{window:08}"
        if path is not None and path.is_file():
            text = path.read_text("ascii", "replace")
            if not text.strip().isdecimal():
                raise InputError(f"{path}: holds {text[:40]!r}, not how many rows there are; remove it")
            number = int(text)
        else:
            number = pack.count_bins(self._pieces(epoch, window)[1], self.config.sequence_length)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, f"{number}\n".encode())
        self._counts[epoch, window] = number
        return number

    def rows(self, epoch: int) -> int:
        """How many rows an epoch has; counts all of its windows."""
        return self._ends(epoch)[-1]

    def _ends(self, epoch: int) -> list[int]:
        while len(self._before) <= epoch:
            next_epoch = len(self._before)
            self._before.append([0, *accumulate(self.count(next_epoch, window) for window in range(self.windows))])
        return self._before[epoch]

    def locate(self, row: int) -> tuple[int, int, int]:
        """Where a row of the source is, counted through the epochs: epoch, window, row of the window."""
        epoch = 0
        while row >= self.rows(epoch):
            row -= self.rows(epoch)
            epoch += 1
            if epoch > 2 and not self.rows(epoch - 1):
                raise InputError(f"{self.name}: its documents hold no token that follows another")
        ends = self._ends(epoch)
        window = bisect_right(ends, row) - 1
        return epoch, window, row - ends[window]
