"""The rows of one source, by number: which documents are in which row, in every epoch, without an index of them.

In an epoch the shards of a source stand in a drawn order, and so do the documents of each: a stateless permutation says which
document is at which place. `DataConfig.window` documents at a time are cut (`pieces`), packed (`pack_window`), and their rows
drawn into an order again. All that has to be known beforehand is how many rows each window has; that is counted when it is
asked for and kept in `cache`, one small file for each window, so that several processes may count.

A source may start where rows of another length ended (`Start`): what was left of the window of that time is packed first.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError
from stackbuild.shards import write_atomically
from stackbuild.tokens.counter import key_of
from stackbuild.tokens.data_config import EPOCHS, DataConfig
from stackbuild.tokens.dataset import OpenShard, TokensDataset
from stackbuild.tokens.pack_window import OfShard, Packed, pack_window
from stackbuild.tokens.permute import Permutation
from stackbuild.tokens.pieces import Coins, Ranges
from stackbuild.tokens.spans import DocumentSpans, document_spans, file_languages

I64 = npt.NDArray[np.int64]
REPOSITORIES = "starcoder2"  # the layout whose documents are of several files
HELD = 512 << 20  # bytes of windows, and as many of spans, that a source keeps at hand


class Start(NamedTuple):
    """Where a source stands: `ranges` of documents are left of what was packed before, int64 of shape (5, k): shard, number,
    low, high, kind; behind them comes `document`, by its place in the order of `epoch`."""

    epoch: int
    document: int
    ranges: I64


BEGINNING = Start(0, 0, np.empty((5, 0), np.int64))


class Window(NamedTuple):
    """Documents `first` to `last` - 1 of the order of an epoch; with `rest`, the ranges of a `Start` instead."""

    epoch: int
    first: int
    last: int
    rest: bool = False


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


def identity_of(shards: Sequence[OpenShard], switches: str) -> str:
    """A digest of the documents of a source, their tokens' number and its `switches_of`; a removal does not change it."""
    told = [f"{shard.shard.sha256_index} {shard.shard.sha256_documents}" for shard in shards]
    return hashlib.sha256("\n".join([*told, switches]).encode()).hexdigest()


def switches_of(dataset: TokensDataset, name: str, split: str) -> str:
    """What else of a source decides its rows: whether the manifest lets its files be treated, and how documents were rendered."""
    fim = [one.fim for one in dataset.manifest.sources if (one.name, one.split) == (name, split)]
    return f"{fim} {dataset.manifest.layout_of(name, split)}"


def _sealed(path: Path, rows: str) -> str:
    """A count as its file holds it: with a digest of it and of what it is the count of, so that no other is taken for it."""
    told = "/".join((*path.parts[-3:], rows))
    return f"{rows} {hashlib.sha256(told.encode()).hexdigest()[:16]}\n"


class SourceRows:
    """Rows of a source and split. `fim`: whether its files are treated. `cache`: a folder for counts, or None.

    `documents`, `windows` and `pairs` (of a token and its label) are those of a whole epoch; windows are numbered through
    all epochs, from `start` on.
    InputError for a torn document table, when it is read.
    """

    def __init__(
        self,
        dataset: TokensDataset,
        name: str,
        config: DataConfig,
        seed: int,
        fim: bool,
        cache: Path | None = None,
        start: Start = BEGINNING,
    ):
        self.name, self.config, self.seed, self.start = name, config, seed, start
        self.shards = dataset.shards(name, config.split)
        self._switches = switches_of(dataset, name, config.split)
        self.starts = np.array([0, *accumulate(len(shard.tokens) for shard in self.shards)], np.int64)
        self.documents = int(self.starts[-1])
        self.windows = -(-self.documents // config.window)
        several = dataset.manifest.layout_of(name, config.split) == REPOSITORIES
        rate, share = config.fim.rate, config.fim.fragment_rate
        self._rates = ((rate, share) if several else (1.0, rate)) if fim else (0.0, 0.0)
        self.fim = fim and min(self._rates) > 0
        self.key = key_of(seed, "fim", name)
        self._cache = None if cache is None else cache / self._digest()
        self._spans, self._languages, self._packed = Kept(HELD), Kept(HELD), Kept(HELD)
        self._counts: dict[int, int] = {}
        self._ends = [0]  # rows up to each window
        self.pairs = sum(int(np.maximum(shard.tokens.sizes, 1).sum()) for shard in self.shards) - self.documents
        self._most = self.documents + 2 * (self.pairs // config.sequence_length) + 1  # of rows in an epoch, about

    @property
    def identity(self) -> str:
        """`identity_of` its shards."""
        return identity_of(self.shards, self._switches)

    def _digest(self) -> str:
        """Names the folder of counts: by the documents, the seed and the options."""
        told = [self.name, self.config.split, str(self.seed), self.config.packed(self.fim), str(self._rates)]
        return hashlib.sha256("\n".join([*told, self.identity]).encode()).hexdigest()[:32]

    def coins(self, epoch: int) -> Coins:
        """Which files are treated in an epoch."""
        fim, (rate, share) = self.config.fim, self._rates
        return Coins(np.uint64(self.key), np.uint64(epoch), rate, share, fim.room, fim.min_characters)

    def spans(self, shard: int) -> DocumentSpans:
        """Where files and headers lie in the documents of a shard."""
        found: DocumentSpans = self._spans.get(shard, lambda: document_spans(self.shards[shard].prefix))
        return found

    def language(self, shard: int, file: int) -> str | None:
        """The language of a file, by its place in the lists of the shard."""
        languages = self._languages.get(shard, lambda: file_languages(self.shards[shard].prefix))
        found: str | None = languages[file].as_py() if len(languages) else None  # of documents without lists of files
        return found

    def window(self, number: int) -> Window:
        """The documents of a window."""
        epoch, document, rest = self.start
        if rest.shape[1]:
            if not number:
                return Window(epoch, document, document, rest=True)
            number -= 1
        left = -(-(self.documents - document) // self.config.window)
        if number < left:
            first = document + number * self.config.window
        else:
            more, at = divmod(number - left, max(self.windows, 1))
            epoch, first = epoch + 1 + more, at * self.config.window
        return Window(epoch, first, min(first + self.config.window, self.documents))

    def order(self, window: Window) -> list[tuple[int, I64]]:
        """The documents of a window in order: shard by shard their numbers."""
        names, size = ("order", self.name, str(window.epoch)), len(self.shards)
        shards = Permutation(size, self.seed, *names).slice(0, size)
        ends = np.cumsum(np.diff(self.starts)[shards])
        first, found = window.first, []
        at = int(np.searchsorted(ends, first, "right"))
        while first < window.last:
            shard, size = int(shards[at]), len(self.shards[shards[at]].tokens)
            begin = int(ends[at]) - size
            stop = min(window.last - begin, size)
            if stop > first - begin:
                numbers = Permutation(size, self.seed, *names, str(shard)).slice(first - begin, stop)
                found.append((shard, numbers))
                first = begin + stop
            at += 1
        return found

    def _ranges(self, window: Window) -> list[OfShard]:
        """What is cut and packed."""
        if window.rest:
            of = self.start.ranges
            told = [(int(shard), Ranges(*of[1:, of[0] == shard])) for shard in np.unique(of[0])]
        else:
            told = []
            for shard, numbers in self.order(window):
                none, sizes = np.zeros(len(numbers), np.int64), self.shards[shard].tokens.sizes
                told.append((shard, Ranges(numbers, none, sizes[numbers].astype(np.int64) - 1, none)))
        return [OfShard(shard, int(self.starts[shard]), ranges, self.spans(shard)) for shard, ranges in told]

    def packed(self, number: int) -> Packed:
        """The rows of a window, in their order. InputError if there are not as many as the cache says."""
        found: Packed = self._packed.get(number, lambda: self._pack(self.window(number)))
        counted, there = self._counts.setdefault(number, len(found.offsets) - 1), len(found.offsets) - 1
        if counted != there:
            raise InputError(
                f"{self._path(self.window(number))}: says {counted:,} rows; there are {there:,}; remove it"
            )
        return found

    def _pack(self, window: Window) -> Packed:
        coins, config = self.coins(window.epoch), self.config
        made = pack_window(self._ranges(window), coins, config.sequence_length, config.packing)
        count = len(made.offsets) - 1
        names = ("rows", self.name, str(window.epoch), str(window.first))
        return made.take(Permutation(count, self.seed, *names).slice(0, count))

    def count(self, number: int) -> int:
        """How many rows a window has; kept in the cache. InputError if what is kept there is no number."""
        if number in self._counts:
            return self._counts[number]
        path = self._path(self.window(number))
        if path is None or not path.is_file():
            made = len(self.packed(number).offsets) - 1
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, _sealed(path, str(made)).encode())
            return made
        text = path.read_text("ascii", "replace")
        rows = text.partition(" ")[0]
        if not rows.isdecimal() or text != _sealed(path, rows):
            raise InputError(f"{path}: holds {text[:40]!r}, not how many rows were counted; remove it")
        self._counts[number] = int(rows)
        return self._counts[number]

    def _path(self, window: Window) -> Path | None:
        """Where a window's count is kept."""
        if self._cache is None:
            return None
        rest = f"-{hashlib.sha256(self.start.ranges.tobytes()).hexdigest()[:16]}" if window.rest else ""
        return self._cache / str(window.epoch) / f"{window.first:012}{rest}"

    def serials(self, epoch: int) -> range:
        """The numbers of an epoch's windows: of the epoch of `start`, those that are left."""
        rest = int(bool(self.start.ranges.shape[1]))
        left = rest - (-(self.documents - self.start.document) // self.config.window)
        if epoch <= self.start.epoch:
            return range(left if epoch == self.start.epoch else 0)
        first = left + (epoch - self.start.epoch - 1) * self.windows
        return range(first, first + self.windows)

    def rows(self, epoch: int) -> int:
        """How many rows an epoch has, or has left; counts all of its windows."""
        return sum(self.count(number) for number in self.serials(epoch))

    def rows_until(self, epochs: float) -> int:
        """How many rows there are until the source has been gone through so many times, from its beginning on.

        A window that is not all of it counts by the part of its documents.
        """
        goal = Fraction(repr(epochs)) * self.documents
        rows, number = 0, 0
        while True:
            epoch, first, last, rest = self.window(number)
            size = self._left() if rest else Fraction(last - first)
            before = epoch * self.documents + last - size
            if goal <= before:
                return rows
            rows += int(self.count(number) * min(Fraction(1), (goal - before) / size))
            number += 1

    def _left(self) -> Fraction:
        """How many documents `start.ranges` are, a part of one by its pairs, to 2^-20 of one."""
        total = 0
        shards, numbers, low, high, _ = self.start.ranges
        for shard in np.unique(shards):
            of = shards == shard
            pairs = self.shards[shard].tokens.sizes[numbers[of]].astype(np.int64) - 1
            total += int((((high - low)[of] << 20) // pairs).sum())
        return Fraction(max(total, 1), 1 << 20)

    def locate(self, row: int) -> tuple[int, int]:
        """Where a row of the source is: the number of the window, and of the row in it. InputError for one that is more than
        EPOCHS epochs away."""
        if row >= EPOCHS * self._most:
            raise InputError(
                f"{self.name}: row {row:,} lies more than {EPOCHS:,} epochs on; one has at most {self._most:,}"
            )
        while self._ends[-1] <= row:
            number = len(self._ends) - 1
            if number > self.windows + 1 and not self._ends[-1]:
                raise InputError(f"{self.name}: its documents hold no token that follows another")
            self._ends.append(self._ends[-1] + self.count(number))
        window = bisect_right(self._ends, row) - 1
        return window, row - self._ends[window]

    def after(self, rows: int) -> Start:
        """Where the source stands when so many rows were taken: for rows of another length, or of other options."""
        number, row = self.locate(rows)
        epoch, first, last, rest = self.window(number)
        if not row:
            return self.start if rest else Start(epoch, first, BEGINNING.ranges)
        return Start(epoch, last, self.packed(number).left(row))


def open_sources(
    dataset: TokensDataset, config: DataConfig, seed: int, cache: Path | None, starts: Mapping[str, Start] | None = None
) -> list[SourceRows]:
    """The sources that a mixture asks for, or all of the split. InputError for one that is not there, or if there is none."""
    switches = {source.name: source.fim for source in dataset.manifest.sources if source.split == config.split}
    asked = {one.name: one.fim for one in config.source} or dict.fromkeys(switches)
    if not asked:
        raise InputError(f"{dataset.folder} has no source with a split {config.split!r}")
    opened = []
    for name, fim in asked.items():
        dataset.shards(name, config.split)  # names those that there are, if this is none of them
        start = (starts or {}).get(name, BEGINNING)
        opened.append(SourceRows(dataset, name, config, seed, switches[name] if fim is None else fim, cache, start))
    return opened
